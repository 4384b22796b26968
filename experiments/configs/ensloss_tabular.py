# SPDX-License-Identifier: Apache-2.0
"""EnsLoss against fixed losses: nine tables of two classes and four pairs of Fashion-MNIST.

    python -m experiments.run --config=ensloss_tabular --workdir=runs/sonar \\
        --config.data.path=DATA/tabular/sonar.csv.gz
    python -m experiments.run --config=ensloss_tabular:quick --workdir=runs/quick \\
        --config.data.path=DATA/tabular/sonar.csv.gz      # seconds
    python -m experiments.sweep --config=ensloss_tabular --workdir=sweeps/tables --seeds=10 \\
        --overrides=experiments/configs/ensloss_tabular.py \\
        --set data.path=DATA/tabular/banknote_authentication.csv.gz,...    # see below
    python -m experiments.sweep --config=ensloss_tabular --workdir=sweeps/pairs --seeds=10 \\
        --overrides=experiments/configs/ensloss_tabular.py --set data.path=DATA/fashion-mnist \\
        --set "data.classes=(0,6),(2,4),(3,8),(5,9)"
    python -m experiments.wins sweeps/tables sweeps/pairs --by=data.path,data.classes \\
        --method=loss.name,loss.surrogate --reference=ensloss

"""

from typing import Any

from ml_collections import ConfigDict

from experiments.configs import common

_LOSSES: tuple[dict[str, Any], ...] = (
    {"loss.name": "ensloss"},
    {"loss.name": "cross_entropy"},
    {"loss.name": "margin_loss", "loss.surrogate": "hinge"},
    {"loss.name": "margin_loss", "loss.surrogate": "exponential"},
)

#: Three learning rates for every loss.
OVERRIDES: list[dict[str, Any]] = [
    {**loss, "optimizer.learning_rate": rate} for loss in _LOSSES for rate in (0.001, 0.01, 0.1)
]


def get_config(variant: str = "") -> ConfigDict:
    """The config; variant "quick" trains for 60 steps."""
    config = common.base_config()
    config.data.batch_size = 64
    config.data.eval_batch_size = 1024
    config.model.hidden = (128, 128)
    config.loss = common.loss("ensloss")
    config.optimizer.name = "sgd"
    config.optimizer.learning_rate = 0.01
    config.optimizer.schedule = "cosine"
    config.optimizer.clip_norm = 10.0
    config.steps = 800
    config.eval_every = config.checkpoint_every = 800
    return common.shortened(config, variant)
