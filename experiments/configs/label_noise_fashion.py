# SPDX-License-Identifier: Apache-2.0
"""Ten losses under wrong labels: 0, 30 and 60 % of them, on Fashion-MNIST.

    python -m experiments.run --config=label_noise_fashion --workdir=runs/noise \\
        --config.data.path=DATA/fashion-mnist
    python -m experiments.run --config=label_noise_fashion:quick --workdir=runs/quick \\
        --config.data.path=DATA/fashion-mnist    # seconds
    python -m experiments.sweep --config=label_noise_fashion --workdir=sweeps/noise --seeds=10 \\
        --overrides=experiments/configs/label_noise_fashion.py \\
        --set data.path=DATA/fashion-mnist --set data.label_noise=0.0,0.3,0.6

As `label_noise`, which has the claims, with an MLP 784-256-10 and 600 steps of 128 (1.5 epochs).

Measured, seeds 0 to 9 trained together; test accuracy in %, mean and 95 % interval, at the setting
of OVERRIDES (two for each loss) whose accuracy on noisy validation labels was best (jax 0.10.2, one
CPU device; 600 runs in 33 minutes on two busy cores):

    wrong labels:                  0 %              30 %             60 %
    jensen_shannon                 84.02 +- 0.06    83.58 +- 0.12    81.17 +- 0.14
    generalized_cross_entropy      83.78 +- 0.08    83.41 +- 0.09    81.10 +- 0.17
    aldr_kl                        84.75 +- 0.07    83.16 +- 0.10    80.75 +- 0.18
    cross_entropy                  86.06 +- 0.13    83.87 +- 0.18    80.65 +- 0.11
    ldr_kl                         84.24 +- 0.06    83.05 +- 0.10    80.65 +- 0.15
    symmetric_cross_entropy        84.25 +- 0.06    83.08 +- 0.07    80.62 +- 0.13
    active_passive                 82.59 +- 0.06    81.89 +- 0.09    79.69 +- 0.25
    robust_log_loss                83.29 +- 0.09    82.68 +- 0.09    78.61 +- 1.84
    mean_absolute_error            78.13 +- 1.95    76.32 +- 2.71    71.16 +- 3.27
    truncated_generalized_ce        8.82 +- 3.29     8.82 +- 3.29     8.82 +- 3.29

At 0 and 30 % cross-entropy is at the learning rate 0.01, which the losses with a hyperparameter
were not given: compare those columns among the others only. With cross-entropy at 0.001 too, at
0 % ALDR-KL is +0.45 +- 0.06 from it and no other ahead; at 30 % Jensen-Shannon is +0.50 +- 0.17,
generalised cross-entropy +0.32 +- 0.12, ALDR-KL +0.07 +- 0.08. At 60 %, where all are at 0.001,
Jensen-Shannon and generalised cross-entropy are 0.5 points ahead of it (both +- 0.15, pairs of
seeds), ALDR-KL 0.10 +- 0.15: in a training this short nothing is learnt by heart that a robust loss
could forget.
"""

from typing import Any

from ml_collections import ConfigDict

from experiments.configs import common, label_noise

#: Whether the claims of `label_noise` held in these runs (VERIFIED.md).
VERDICT = {
    "aldr_kl": "not reproduced",
    "ldr_kl": "not reproduced",
    "active_passive": "not reproduced",
    "generalized_cross_entropy": "reproduced at 60 %",
    "jensen_shannon": "reproduced at 60 %",
}

#: Two settings of each loss: of `label_noise` those at one learning rate, and of the losses without
#: a hyperparameter two rates.
OVERRIDES: list[dict[str, Any]] = [
    setting
    for setting in label_noise.OVERRIDES
    if setting["optimizer.learning_rate"] == 0.001
    or (len(setting) == 2 and setting["optimizer.learning_rate"] == 0.01)
]


def get_config(variant: str = "") -> ConfigDict:
    """The config; variant "quick" trains for 60 steps."""
    config = label_noise.get_config()
    config.data.eval_batch_size = 1000
    config.model.hidden = (256,)
    config.steps = config.eval_every = config.checkpoint_every = 600
    return common.shortened(config, variant)
