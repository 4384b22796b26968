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

(tables: banknote_authentication, german, ionosphere, mammography, oil-spill, phoneme, sonar,
pima-indians-diabetes and adult-test with --set data.missing=impute.) An MLP with 128-128 hidden
units, SGD with momentum 0.9 (cosine), 800 steps of 64.

The paper's claim (arXiv 2409.00908): EnsLoss is better than fixed losses on most problems (on 45
pairs of CIFAR-10 with a ResNet-34 it wins 41, ties 4 and loses none against cross-entropy; with an
MLP of one layer 9, 4 and 1 of 14 tables), in trainings long enough to overfit.

Measured, seeds 0 to 9 trained together, one split of each problem; test accuracy in %, mean and
95 % interval, at the learning rate whose accuracy on validation was best of three; "<" EnsLoss
wins, ">" it loses (paired t-test over seeds at 5 %; jax 0.10.2, one CPU device; an hour on two
busy cores):

                    EnsLoss          cross-entropy    exponential      hinge
    adult-test      86.04 +- 0.14   86.02 +- 0.12    86.03 +- 0.19    86.02 +- 0.09
    banknote       100.00 +- 0.00   99.64 +- 0.00<  100.00 +- 0.00    99.96 +- 0.08
    fashion (0,6)   84.78 +- 0.17   84.74 +- 0.16    84.16 +- 0.19<   84.86 +- 0.11
    fashion (2,4)   86.18 +- 0.16   86.42 +- 0.25    86.49 +- 0.14>   86.45 +- 0.12>
    fashion (3,8)   98.71 +- 0.05   98.81 +- 0.07>   98.89 +- 0.05>   99.02 +- 0.03>
    fashion (5,9)   98.04 +- 0.08   98.07 +- 0.10    98.19 +- 0.08>   98.20 +- 0.08>
    german          74.60 +- 1.52   74.25 +- 1.10    75.30 +- 1.48    73.70 +- 2.20
    ionosphere      90.14 +- 1.02   91.29 +- 0.89    91.14 +- 1.06    91.57 +- 0.58>
    mammography     98.59 +- 0.03   98.65 +- 0.04>   98.68 +- 0.05>   98.64 +- 0.04
    oil-spill       95.88 +- 0.18   95.56 +- 0.31<   95.83 +- 0.40    95.19 +- 0.31<
    phoneme         85.75 +- 0.37   85.49 +- 0.25    85.47 +- 0.29    85.57 +- 0.22
    pima            79.74 +- 1.05   78.77 +- 1.30<   81.49 +- 1.26>   80.13 +- 1.35
    sonar           81.67 +- 1.15   80.95 +- 2.27    81.19 +- 2.47    81.90 +- 3.33

EnsLoss wins 3, ties 8 and loses 2 of 13 against cross-entropy, 1, 7 and 5 against the exponential
loss, 1, 8 and 4 against the hinge: NOT reproduced in trainings of this length. Equal means on
validation go to the smaller rate. At the larger ones cross-entropy has 100 % on banknote (a tie),
and EnsLoss 87.14 +- 1.18 on ionosphere, where it would lose to all three: 2 wins to 3 losses
against cross-entropy, and 1 to 6 against the exponential loss. Fashion-MNIST (800 steps of
64 are 5 epochs of a pair) is where the paper's setting is furthest away.
"""

from typing import Any

from ml_collections import ConfigDict

from experiments.configs import common

#: Whether the claim above held in these runs, by name in the catalogue (VERIFIED.md).
VERDICT = {"ensloss": "not reproduced"}

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
