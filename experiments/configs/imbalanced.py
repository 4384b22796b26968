# SPDX-License-Identifier: Apache-2.0
"""Mammography (2.3 % positive) and oil spills (4.4 %): Dice and AnyLoss against cross-entropy.

    python -m experiments.run --config=imbalanced --workdir=runs/mammography \\
        --config.data.path=DATA/tabular/mammography.csv.gz
    python -m experiments.run --config=imbalanced:quick --workdir=runs/quick \\
        --config.data.path=DATA/tabular/mammography.csv.gz      # seconds
    python -m experiments.sweep --config=imbalanced --workdir=sweeps/mammography --seeds=10 \\
        --overrides=experiments/configs/imbalanced.py --choose=optimizer.learning_rate \\
        --set data.path=DATA/tabular/mammography.csv.gz \\
        --set optimizer.learning_rate=0.001,0.003,0.01,0.03 --select=f1

"""

from typing import Any

from ml_collections import ConfigDict

from experiments.configs import common

#: The objectives of a sweep.
OVERRIDES: list[dict[str, Any]] = [
    {"task.objective": "mean"},
    {"task.objective": "mean", "loss.name": "focal", "loss.gamma": 2.0},
    {"task.objective": "balanced"},
    {"task.objective": "dice"},
    *(
        {"task.objective": "anyloss", "task.metric": metric, "task.steepness": steepness}
        for metric in ("f_beta", "balanced_accuracy")
        for steepness in (10.0, 73.0)
    ),
]


def get_config(variant: str = "") -> ConfigDict:
    """The config; variant "quick" trains for 60 steps."""
    config = common.base_config()
    config.task = ConfigDict(
        {"name": "imbalanced", "objective": "mean", "metric": "f_beta", "steepness": 10.0}
    )
    config.data.batch_size = 512
    config.data.eval_batch_size = 1024
    config.model.hidden = (32,)
    config.optimizer.schedule = "cosine"
    config.steps = 600
    config.eval_every = config.checkpoint_every = 300
    return common.shortened(config, variant)
