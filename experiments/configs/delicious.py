# SPDX-License-Identifier: Apache-2.0
"""Placeholder."""

from ml_collections import ConfigDict

from experiments.configs import common

#: The losses of a sweep.
OVERRIDES = [
    {"loss.name": "cross_entropy"},
    {"loss.name": "soft_cross_entropy"},
    {"loss.name": "decoupled_softmax"},
    {"loss.name": "soft_top_k_loss"},
]


def get_config(variant: str = "") -> ConfigDict:
    """The config; variant "quick" trains for 60 steps."""
    config = common.base_config()
    config.loss = common.loss("decoupled_softmax")
    config.task.name = "multi_label"
    config.data.name = "delicious"
    config.data.batch_size = 128
    config.data.eval_batch_size = 1024
    config.model.hidden = (256,)
    config.model.dropout = 0.3
    config.steps = 1000
    config.eval_every = config.checkpoint_every = 500
    return common.shortened(config, variant)
