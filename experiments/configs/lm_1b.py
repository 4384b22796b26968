# SPDX-License-Identifier: Apache-2.0
"""A language model of 1.2 billion parameters with a vocabulary of 256,000.

    python -m experiments.run --config=lm_1b --workdir=runs/lm --config.mesh.model=4 \\
        --config.data.path=DATA/tokens.npy       # your tokens: experiments/data/tokens.py
    python -m experiments.run --config=lm_1b --mode=compile --topology=v5e:16x16
    python -m experiments.run --config=lm_1b:quick --workdir=runs/quick   # seconds, a laptop
"""

from ml_collections import ConfigDict

from experiments.configs import common
from experiments.data.tokens import RUNS


def get_config(variant: str = "") -> ConfigDict:
    """The config; variant "quick" trains a tiny model for 60 steps."""
    config = common.base_config()
    config.task = ConfigDict(
        {
            "name": "language_model",
            "context": 1024,
            "head": "streaming",
            "eval_windows": 1024,
            "log_partition": 1e-4,
        }
    )
    config.data.name = RUNS
    config.data.num_classes = 256_000
    config.data.validation_fraction = config.data.test_fraction = 0.01
    config.data.batch_size = config.data.eval_batch_size = 256
    config.model = ConfigDict(
        {
            "name": "transformer",
            "width": 1536,
            "depth": 16,
            "heads": 12,
            "mlp_ratio": 4,
            "qk_norm": True,
            "dropout": 0.0,
            "stacked": True,
        }
    )
    config.compute_dtype = "bfloat16"
    config.remat = "full"
    config.mesh.model = 4
    config.sharding = (
        (r"attention/(query|key|value)/kernel|mlp/up/kernel", (None, None, "model")),
        (r"attention/(query|key|value)/bias|mlp/up/bias", (None, "model")),
        (r"attention/out/kernel|mlp/down/kernel", (None, "model", None)),
        (r"^network/embedding", ("model", None)),
        (r"^output$", (None, "model")),
    )
    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = 3e-4
    config.optimizer.schedule = "cosine"
    config.optimizer.warmup_steps = 1000
    config.optimizer.weight_decay = 0.1
    config.optimizer.clip_norm = 1.0
    config.steps = 20_000
    config.log_every = 100
    config.eval_every = config.checkpoint_every = 1000
    if variant == "quick":
        config.mesh.model = 1
        config.data.num_classes = 512
        config.data.batch_size = config.data.eval_batch_size = 16
        config.task.update(context=16, eval_windows=64)
        config.model.update(width=32, depth=2, heads=2)
        config.optimizer.learning_rate = 1e-2
        config.optimizer.warmup_steps = 6
    return common.shortened(config, variant)
