# SPDX-License-Identifier: Apache-2.0
"""Fashion-MNIST with a harmonic head in every sort of distance, against a linear layer.

    python -m experiments.run --config=harmonic_fashion --workdir=runs/fashion \\
        --config.data.path=DATA/fashion-mnist
    python -m experiments.run --config=harmonic_fashion:quick --workdir=runs/quick     # seconds

The path is a directory of idx files; without it the pictures are scikit-learn's digits, so that the
quick variant needs nothing. 51,000 pictures to train on, 9,000 for validation; an MLP 784-256-128
with Adam at a constant rate, 1,200 steps of 128 (3 epochs). Every distance has exponent 1 and the
options of the authors' picture models.

The paper (Rethinking the Harmonic Loss via Non-Euclidean Distance Layers, arXiv 2603.10225) claims
that cosine has the best trade-off of accuracy and emissions on MNIST, CIFAR-10 and CIFAR-100, and
that Bray-Curtis and Mahalanobis make features easier to explain. The first is looked at here for
accuracy alone; emissions and features are not.

Measured with the settings of OVERRIDES below, seeds 0 to 9 (half an hour on two busy cores):

    python -m experiments.sweep --config=harmonic_fashion --workdir=sweeps/fashion --seeds=10 \\
        --overrides=experiments/configs/harmonic_fashion.py --choose=optimizer.learning_rate \\
        --set data.path=DATA/fashion-mnist --set optimizer.learning_rate=0.0003,0.001,0.003

Accuracy in %, mean and 95 % interval over seeds, at the learning rate that was best on validation
for each row; 10,000 test pictures, of which the mean cross-entropy too; last, test accuracy minus
the linear layer's, seed by seed. jax 0.10.2, one CPU device:

    head                     rate    validation       test             CE     minus linear
    cosine                   0.0003  86.81 +- 0.17    86.16 +- 0.12    0.49   +0.25 +- 0.46
    euclidean                0.0003  86.58 +- 0.27    86.05 +- 0.24    0.55   +0.15 +- 0.45
    linear                   0.001   86.12 +- 0.56    85.91 +- 0.46    0.40
    manhattan                0.0003  85.12 +- 0.19    84.72 +- 0.22    0.85   -1.18 +- 0.58
    minkowski                0.0003  85.08 +- 0.21    84.75 +- 0.15    0.90   -1.15 +- 0.54
    hamming_soft             0.001   85.04 +- 0.28    84.60 +- 0.22    0.69   -1.30 +- 0.48
    mahalanobis_diagonal     0.0003  85.02 +- 0.38    84.71 +- 0.29    0.92   -1.20 +- 0.55
    braycurtis_abs           0.0003  84.99 +- 0.31    84.81 +- 0.12    0.86   -1.10 +- 0.50
    chebyshev_vision_smooth  0.0003  82.74 +- 1.31    82.41 +- 1.39    1.84   -3.50 +- 1.30
    canberra                 0.0003  78.32 +- 1.17    77.58 +- 1.27    2.09   -8.33 +- 0.99

Cosine comes first on validation, as the paper says, and the squared Euclidean distance second, but
neither can be told from the linear layer on test. The other distances lose one point or more;
canberra and the smooth chebyshev are hardly trained after 3 epochs at exponent 1. The
cross-entropy of all of them is higher: an exponent of 1 is not sharp enough to be sure. Most chose
the lowest rate of the grid, so a lower one may do better still.
"""

from ml_collections import ConfigDict

from experiments.configs import common

#: Whether the claims above held in these runs, by name in the catalogue (VERIFIED.md).
VERDICT = {"pairwise_distance": "not reproduced"}

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
