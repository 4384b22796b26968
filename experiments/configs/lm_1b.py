# SPDX-License-Identifier: Apache-2.0
"""A language model of 1.2 billion parameters with a vocabulary of 256,000, for a slice or a host.

    python -m experiments.run --config=lm_1b:quick --workdir=runs/quick     # seconds, a laptop
    python -m experiments.run --config=lm_1b --mode=compile --topology=v5e:16x16
    python -m experiments.run --config=lm_1b --workdir=runs/lm \\
        --config.data.path=DATA/tokens.npy          # your tokens: experiments/data/tokens.py

What it is for: to show that a train step whose logits alone would be 256,000 numbers a token fits
where it is to run, before anybody pays for the machine (`make compile-check`, BENCHMARKS.md). It
was compiled for 256 TPUs v5e or v6e and for 8 H200s; it was never trained at this size, and no loss
is claimed for it.

1,241,316,352 parameters: 453 million in 16 blocks of width 1,536 with 12 heads, 393 million each in
embedding and output layer. Along the mesh axis `model`, 4 devices share every kernel as Megatron-LM
does (arXiv 1909.08053): heads and hidden units of the MLPs, tokens of the embedding, classes of the
output layer, which goes through `xloss.heads.linear_statistics`. All other devices are along
`data`. The blocks are run in a loop (`model.stacked`), compute in bfloat16 and are computed again
in the backward pass; parameters and AdamW's moments are float32. Windows of 1,024 tokens, 256 of
them a step; the batch must divide over `data` (64 rows of devices on 256, 2 on 8).

Without a path the tokens are drawn (`token_runs`): 12.45 nats is a uniform guess, 8.84 what the
frequencies alone give, 2.74 the entropy that is left once the model counts on. The quick variant
has 512 tokens, width 32 and two blocks on one column of devices: 6.24, 5.14 and 1.78 nats.
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
