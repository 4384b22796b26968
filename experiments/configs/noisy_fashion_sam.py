# SPDX-License-Identifier: Apache-2.0
"""SGD, SAM, ASAM, GSAM and LookSAM where 40 % of the training labels are wrong.

    python -m experiments.run --config=noisy_fashion_sam --workdir=runs/noisy \\
        --config.data.path=DATA/fashion-mnist
    python -m experiments.run --config=noisy_fashion_sam:quick --workdir=runs/quick     # seconds
    python -m experiments.sweep --config=noisy_fashion_sam --workdir=sweeps/noisy --seeds=10 \\
        --overrides=experiments/configs/noisy_fashion_sam.py --set data.path=DATA/fashion-mnist
    python -m experiments.benchmarks.optimizers     # seconds a step
"""

import itertools
from typing import Any

from ml_collections import ConfigDict

from experiments.configs import common


def _settings(name: str, **grids: tuple[float, ...]) -> list[dict[str, Any]]:
    """Every combination of a method's values, by their keys in config.optimizer."""
    method = {"optimizer.sharpness": name}
    return [
        method | {f"optimizer.{key}": value for key, value in zip(grids, point, strict=True)}
        for point in itertools.product(*grids.values())
    ]


#: Six settings of each method. SGD, whose steps cost half, has twelve: what it has no radius for
#: goes into earlier ends.
OVERRIDES: list[dict[str, Any]] = [
    *(
        {"steps": steps, "optimizer.learning_rate": rate}
        for steps in (500, 1000, 1500)
        for rate in (0.001, 0.003, 0.01, 0.03)
    ),
    *_settings("sam", learning_rate=(0.01, 0.03), rho=(0.05, 0.1, 0.2)),
    *_settings("asam", learning_rate=(0.01, 0.03), rho=(0.5, 1.0, 2.0)),
    *_settings("gsam", learning_rate=(0.03,), rho=(0.05, 0.1, 0.2), alpha=(0.1, 0.4)),
    *_settings("look_sam", learning_rate=(0.03,), rho=(0.05, 0.1, 0.2), alpha=(0.4, 0.7)),
]


def get_config(variant: str = "") -> ConfigDict:
    """The config; variant "quick" trains for 60 steps."""
    config = common.base_config()
    config.task = ConfigDict({"name": "flatness", "examples": 2000, "rho": 0.1})
    config.data.label_noise = 0.4
    config.data.validation_fraction, config.data.test_fraction = 0.9, 0.05
    config.data.batch_size = 64
    config.data.eval_batch_size = 1000
    config.model.hidden = (256,)
    config.optimizer.name = "sgd"
    config.optimizer.learning_rate = 0.03
    config.optimizer.schedule = "cosine"
    config.steps = config.eval_every = config.checkpoint_every = 1500
    return common.shortened(config, variant)
