# SPDX-License-Identifier: Apache-2.0
"""Placeholder header."""

from ml_collections import ConfigDict

from experiments.configs import common

_CHOSEN = {"task.output": "spherical", "loss.name": "z_loss", "optimizer.learning_rate": 0.003}
#: The output layers of a sweep, as chosen on validation.
OVERRIDES = [
    {"task.output": "streaming"},
    {"task.output": "sampled", "task.num_samples": 2048},
    {**_CHOSEN, "loss.a": 0.1, "loss.b": 28.0, "task.learning_rate": 100.0},
    {**_CHOSEN, "loss.a": 0.5, "loss.b": 10.0, "task.learning_rate": 10.0},
]


def get_config(variant: str = "") -> ConfigDict:
    """The config; variant "quick" trains for 60 steps."""
    config = common.base_config()
    config.task = ConfigDict(
        {
            "name": "word_model",
            "context": 4,
            "min_count": 1,
            "output": "streaming",
            "num_samples": 512,
            "learning_rate": 10.0,
            "stabilize_every": 20,
        }
    )
    config.data.name = "wikitext-2"
    config.data.validation_fraction = 0.1
    config.data.batch_size = 128
    config.data.eval_batch_size = 2048
    config.model = ConfigDict(
        {"name": "context_mlp", "embedding": 64, "hidden": (128,), "dropout": 0.0}
    )
    config.optimizer.learning_rate = 1e-3
    config.steps = 3000
    config.eval_every = config.checkpoint_every = 1000
    return common.shortened(config, variant)
