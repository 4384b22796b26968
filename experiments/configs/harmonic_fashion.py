# SPDX-License-Identifier: Apache-2.0
"""Fashion-MNIST with a harmonic head in every sort of distance, against a linear layer.

    python -m experiments.run --config=harmonic_fashion --workdir=runs/fashion \\
        --config.data.path=../shared/data/fashion-mnist
    python -m experiments.run --config=harmonic_fashion:quick --workdir=runs/quick \\
        --config.data.path=../shared/data/fashion-mnist      # seconds
    python -m experiments.sweep --config=harmonic_fashion --workdir=sweeps/fashion --seeds=10 \\
        --set data.path=../shared/data/fashion-mnist \\
        --overrides=experiments/configs/harmonic_fashion.py
"""

from ml_collections import ConfigDict

from experiments.configs import common

#: The heads of a sweep (--overrides=experiments/configs/harmonic_fashion.py).
OVERRIDES = [
    {"model.head": "linear"},
    *(
        {"model.distance": distance}
        for distance in (
            "euclidean",
            "manhattan",
            "cosine",
            "minkowski",
            "hamming_soft",
            "chebyshev_vision_smooth",
            "canberra",
            "braycurtis_abs",
            "mahalanobis_diagonal",
        )
    ),
]


def get_config(variant: str = "") -> ConfigDict:
    """The config; variant "quick" trains for 60 steps."""
    config = common.base_config()
    config.data.batch_size = 128
    config.data.eval_batch_size = 1000
    config.model.hidden = (256, 128)
    config.model.head = "harmonic"
    config.model.distance = "euclidean"
    config.model.exponent = 1.0
    config.optimizer.learning_rate = 1e-3
    config.steps = 1200
    config.eval_every = config.checkpoint_every = 400
    return common.shortened(config, variant)
