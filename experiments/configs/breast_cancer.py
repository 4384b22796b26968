# SPDX-License-Identifier: Apache-2.0
"""Breast cancer Wisconsin (scikit-learn's, embedded): binary classification with EnsLoss.

    python -m experiments.run --config=breast_cancer --workdir=runs/breast_cancer
    python -m experiments.run --config=breast_cancer:quick --workdir=runs/quick    # seconds

569 patients, 30 features, one score per example. EnsLoss (arXiv 2409.00908) draws a new calibrated
loss at every step: its scalar is no loss value, so logs show cross-entropy and accuracy beside it.
"""

from ml_collections import ConfigDict

from experiments.configs import common


def get_config(variant: str = "") -> ConfigDict:
    """The config; variant "quick" trains for 60 steps."""
    config = common.base_config()
    config.data.name = "breast_cancer"
    config.data.batch_size = 32
    config.model.hidden = (64,)
    config.loss = common.loss("ensloss")
    config.optimizer.name = "sgd"
    config.optimizer.learning_rate = 0.02
    config.steps = 1500
    config.eval_every = config.checkpoint_every = 300
    return common.shortened(config, variant)
