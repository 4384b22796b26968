# SPDX-License-Identifier: Apache-2.0
"""A small transformer that reads Shakespeare, character by character.

    python -m experiments.run --config=char_lm --workdir=runs/characters \\
        --config.data.path=DATA/tiny-shakespeare
    python -m experiments.run --config=char_lm:quick --workdir=runs/quick   # seconds, embedded text

The path has one text of 1,115,394 characters, 65 distinct ones: the first 90 % are trained on, the
next 5 % are for validation, the last 5 % to test. Without a path the text is 15,000 characters of
scikit-learn's descriptions of data: enough to try the program, nothing to measure on.

Two blocks of width 64 with four heads over windows of 32 characters (110,592 parameters on
Shakespeare); 600 steps of 16 windows predict 307,200 characters, a third of the training text: far
from what such a model reaches, and cheap enough to compare recipes over many seeds. AdamW, 30 steps
of warm-up, then a cosine to 0. `loss` is cross-entropy in nats per character on 512 windows of a
split, to which `task.log_partition` adds nothing: it is part of the training objective alone.

The rate is the best of 0.001, 0.003, 0.01 and 0.03 on validation with seeds 0 and 1. Two CPU cores
gain nothing from training seeds together: --together=1.
"""

from ml_collections import ConfigDict

from experiments.configs import common
from experiments.data.characters import DESCRIPTIONS


def get_config(variant: str = "") -> ConfigDict:
    """The config; variant "quick" trains for 60 steps."""
    config = common.base_config()
    config.task = ConfigDict(
        {"name": "char_model", "context": 32, "eval_windows": 512, "log_partition": 0.0}
    )
    config.data.name = DESCRIPTIONS
    config.data.validation_fraction = config.data.test_fraction = 0.05
    config.data.batch_size = 16
    config.data.eval_batch_size = 128
    config.model = ConfigDict(
        {
            "name": "transformer",
            "width": 64,
            "depth": 2,
            "heads": 4,
            "mlp_ratio": 4,
            "qk_norm": False,
            "dropout": 0.0,
        }
    )
    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = 1e-2
    config.optimizer.schedule = "cosine"
    config.optimizer.warmup_steps = 30
    config.optimizer.weight_decay = 1e-4
    config.steps = 600
    config.eval_every = config.checkpoint_every = 200
    return common.shortened(config, variant)
