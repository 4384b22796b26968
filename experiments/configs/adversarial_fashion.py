# SPDX-License-Identifier: Apache-2.0
"""Fashion-MNIST under attack: ERM, Madry, TRADES, MART and ADV-COMP-SUM, by a cascade of attacks.

    python -m experiments.run --config=adversarial_fashion --workdir=runs/fashion \\
        --config.data.path=DATA/fashion-mnist
    python -m experiments.run --config=adversarial_fashion:quick --workdir=runs/quick \\
        --config.data.path=DATA/fashion-mnist      # a minute
    python -m experiments.sweep --config=adversarial_fashion --workdir=sweeps/fashion --seeds=10 \\
        --overrides=experiments/configs/adversarial_fashion.py --select=robust_accuracy \\
        --set data.path=DATA/fashion-mnist

"""

from typing import Any

from ml_collections import ConfigDict

from experiments.configs import common

#: `python -m experiments.sweep --overrides=THIS FILE`: six settings for each tuned method.
OVERRIDES: list[dict[str, Any]] = [
    {"loss.name": "cross_entropy"},
    {"loss.name": "madry"},
    *({"loss.name": "trades", "loss.beta": beta} for beta in (0.5, 1.0, 2.0, 4.0, 6.0, 9.0)),
    *({"loss.name": "mart", "loss.beta": beta} for beta in (0.5, 1.0, 2.0, 4.0, 6.0, 9.0)),
    *(
        {"loss.name": "smooth_adversarial_comp_sum", "loss.tau": tau, "loss.nu": nu}
        for tau in (0.4, 1.0)
        for nu in (0.1, 0.3, 1.0)
    ),
]


def get_config(variant: str = "") -> ConfigDict:
    """The config; variant "quick" trains for 60 steps."""
    config = common.base_config()
    config.task = ConfigDict(
        {
            "name": "adversarial",
            "attack": "own",
            "norm": "linf",
            "radius": 0.1,
            "steps": 7,
            "eval_steps": 20,
            "eval_restarts": 1,
            "cascade": ("apgd-ce", "apgd-t", "square"),
            "cascade_examples": 500,
            "cascade_steps": 30,
            "cascade_queries": 500,
        }
    )
    config.data.batch_size = 128
    config.data.eval_batch_size = 500
    config.model.hidden = (256,)
    config.optimizer.name = "sgd"
    config.optimizer.learning_rate = 0.1
    config.optimizer.schedule = "cosine"
    config.optimizer.clip_norm = 1.0
    config.steps = 1000
    config.eval_every = config.checkpoint_every = 1000
    config.loss = common.loss("madry")
    return common.shortened(config, variant)
