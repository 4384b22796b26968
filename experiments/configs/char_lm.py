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

from typing import Any

from ml_collections import ConfigDict

from experiments.configs import common
from experiments.data.characters import DESCRIPTIONS

_RATES = (0.001, 0.003, 0.01, 0.03)

#: AdamW and FRUGAL with a quarter of the columns; signs alone, no column; columns alone, no signs.
OPTIMIZERS: list[dict[str, Any]] = [
    {"optimizer.learning_rate": rate, **optimizer}
    for optimizer in (
        {"optimizer.name": "adamw"},
        {"optimizer.name": "frugal"},
        {"optimizer.name": "frugal", "optimizer.density": 0.0},
        {"optimizer.name": "frugal", "optimizer.state_free": "none"},
    )
    for rate in _RATES
]
#: What is left after 200, 400 and 800 steps: of one run with three ends, of branches, of cosines.
SCHEDULES: list[dict[str, Any]] = [
    {
        "optimizer.schedule": schedule,
        "steps": steps,
        **(
            {"optimizer.anchors": tuple(a for a in (200, 400, 800) if a <= steps)}
            if schedule == "wsd_s"
            else {}
        ),
    }
    for schedule in ("wsd_s", "wsd", "cosine")
    for steps in (200, 400, 800)
]
#: How much a wrong learning rate costs, with and without what is to make training stable.
SENSITIVITY: list[dict[str, Any]] = [
    {
        "steps": 300,
        "task.log_partition": penalty,
        "model.qk_norm": norm,
        "optimizer.learning_rate": rate,
    }
    for penalty, norm in ((0.0, False), (1e-4, False), (0.0, True))
    for rate in (*_RATES, 0.1)
]
OVERRIDES = [*OPTIMIZERS, *SCHEDULES, *SENSITIVITY]


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
    config.optimizer.update_gap = 100
    config.optimizer.weight_decay = 1e-4
    config.steps = 600
    config.eval_every = config.checkpoint_every = 200
    return common.shortened(config, variant)
