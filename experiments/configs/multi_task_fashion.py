# SPDX-License-Identifier: Apache-2.0
"""Fashion-MNIST and MNIST side by side, two labels, one of them noisy: sharpness-aware multi-task.

    python -m experiments.run --config=multi_task_fashion --workdir=runs/multi_task \\
        --config.data.path=DATA/fashion-mnist --config.task.second_path=DATA/mnist
    python -m experiments.run --config=multi_task_fashion:quick --workdir=runs/quick     # seconds

The paths are directories of idx files; without them both pictures are scikit-learn's digits, so
that the quick variant needs nothing. 2,000 training pairs, pictures averaged to 14 x 14; 20 % of
the right TRAINING labels are wrong. An MLP 392-128 with two heads of ten scores, Adam with a cosine
schedule, 1,200 steps of 64 pairs (38 epochs).

The paper (Improving Multi-task Learning via Seeking Task-based Flat Regions, arXiv 2211.13723)
claims that perturbing each task by itself, and aggregating the loss and the flatness part of its
SAM gradient separately, improves on the aggregators alone and on aggregating SAM gradients
directly; it has no experiment of this size.
"""

from ml_collections import ConfigDict, config_dict

from experiments.configs import common

_RATES = (0.001, 0.002)
_RADII = (0.05, 0.1, 0.2)


def _setting(method: str, aggregator: str, rate: float, **others: object) -> dict[str, object]:
    return {
        "task.method": method,
        "task.aggregator": aggregator,
        "optimizer.learning_rate": rate,
        **others,
    }


#: What the table above compares, for `experiments.sweep --overrides`.
OVERRIDES = [
    *(
        _setting("plain", aggregator, rate)
        for aggregator in ("linear", "pcgrad", "mgda", "cagrad")
        for rate in (0.0005, *_RATES)
    ),
    *(
        _setting("plain", "linear", rate, **{"optimizer.sharpness": "sam", "optimizer.rho": rho})
        for rate in _RATES
        for rho in (0.1, 0.2, 0.4)
    ),
    *(
        _setting(method, aggregator, rate, **{"task.rho": rho})
        for method, aggregators in (
            ("direct", ("pcgrad", "mgda", "cagrad")),
            ("split", ("linear", "pcgrad", "mgda", "cagrad")),
        )
        for aggregator in aggregators
        for rate in _RATES
        for rho in _RADII
    ),
]


def get_config(variant: str = "") -> ConfigDict:
    """The config; variant "quick" trains for 60 steps."""
    config = common.base_config()
    config.task = ConfigDict(
        {
            "name": "multi_task",
            "second": config_dict.placeholder(str),
            "second_path": config_dict.placeholder(str),
            "pairs": 2000,
            "pool": 2,
            "noise": 0.2,
            "draw_seed": 0,
            "method": "split",
            "aggregator": "pcgrad",
            "rho": 0.1,
            "adaptive": False,
        }
    )
    config.model.hidden = (128,)
    config.data.eval_batch_size = 1000
    config.optimizer.learning_rate = 0.002
    config.optimizer.schedule = "cosine"
    config.steps = 1200
    config.eval_every = config.checkpoint_every = 300
    return common.shortened(config, variant)
