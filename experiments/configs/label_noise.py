# SPDX-License-Identifier: Apache-2.0
"""Ten losses under wrong labels: 0, 30 and 60 % of them, on digits (scikit-learn's, embedded).

    python -m experiments.run --config=label_noise --workdir=runs/noise
    python -m experiments.run --config=label_noise:quick --workdir=runs/quick    # seconds
    python -m experiments.sweep --config=label_noise --workdir=sweeps/noise --seeds=10 \\
        --overrides=experiments/configs/label_noise.py --set data.label_noise=0.0,0.3,0.6

An MLP 64-128-10, Adam, 500 steps of 128 (55 epochs). Labels for training and validation are wrong
alike, so that settings are chosen without clean labels; test labels are right.

Claims: the paper of LDR-KL and ALDR-KL (arXiv 2112.14869) has them robust to label noise, ALDR-KL
best of many; those of the other losses each claim the same for theirs.

Measured, seeds 0 to 9 trained together, one split; test accuracy in %, mean and 95 % interval, at
the setting of OVERRIDES (four for each loss) whose accuracy on noisy validation labels was best
(jax 0.10.2, one CPU device; the 1,200 runs took 38 minutes on two busy cores):

    wrong labels:                  0 %              30 %             60 %
    active_passive                 96.69 +- 0.24    96.18 +- 0.16    91.34 +- 0.65
    generalized_cross_entropy      97.02 +- 0.13    95.04 +- 0.28    91.28 +- 0.62
    robust_log_loss                96.96 +- 0.20    95.04 +- 0.39    91.03 +- 0.72
    jensen_shannon                 97.02 +- 0.21    95.54 +- 0.33    89.25 +- 0.66
    symmetric_cross_entropy        97.38 +- 0.17    93.87 +- 0.49    88.38 +- 0.68
    ldr_kl                         97.44 +- 0.16    94.54 +- 0.28    88.08 +- 0.64
    cross_entropy                  97.47 +- 0.17    93.15 +- 0.43    88.05 +- 0.67
    aldr_kl                        97.38 +- 0.17    94.48 +- 0.39    88.02 +- 0.78
    mean_absolute_error            93.43 +- 3.08    94.87 +- 1.94    82.34 +- 4.66
    truncated_generalized_ce        7.16 +- 2.52     7.16 +- 2.52     7.16 +- 2.52

At 30 % every loss that can be trained is ahead of cross-entropy, the mean absolute error by no more
than chance; LDR-KL and ALDR-KL by 1.4 and 1.3 points (both +- 0.6, pairs of seeds), but others by
up to 3. At 60 % those two are no better than cross-entropy, and active-passive, generalised cross-
entropy and the robust log loss are 3 points ahead. So what the paper says of ALDR-KL is NOT
reproduced at this scale. Equal means on validation go to the smaller rate; that decides one cell,
of the robust log loss at 60 %, where the rate 0.01 has 82.76 +- 0.48 on test. The truncated loss is
flat where p_y < 1/2, that is everywhere at the start: it needs a warm-up with another loss, which
it is not given here.
"""

from typing import Any

from ml_collections import ConfigDict

from experiments.configs import common

#: Whether the claims above held in these runs, by name in the catalogue (VERIFIED.md).
VERDICT = {
    "aldr_kl": "not reproduced",
    "ldr_kl": "reproduced at 30 % alone",
    "active_passive": "reproduced",
    "generalized_cross_entropy": "reproduced",
    "jensen_shannon": "reproduced",
    "truncated_generalized_cross_entropy": "not trainable from scratch",
}

#: Two values of what a loss has to tune beside the learning rate, its default or the paper's first.
_TUNED: dict[str, tuple[str, tuple[float, float]]] = {
    "generalized_cross_entropy": ("q", (0.7, 0.4)),
    "truncated_generalized_cross_entropy": ("q", (0.7, 0.4)),
    "symmetric_cross_entropy": ("balance", (0.5, 0.1)),
    "jensen_shannon": ("weight", (0.5, 0.1)),
    "active_passive": ("beta", (1.0, 5.0)),
    "robust_log_loss": ("alpha", (1.0, 0.1)),
    "ldr_kl": ("lam", (1.0, 10.0)),
    "aldr_kl": ("lam0", (1.0, 10.0)),
}
_RATES = (0.001, 0.01)

#: Four settings of each loss; those without a hyperparameter get two more learning rates instead.
OVERRIDES: list[dict[str, Any]] = [
    *(
        {"loss.name": name, "optimizer.learning_rate": rate}
        for name in ("cross_entropy", "mean_absolute_error")
        for rate in (*_RATES, 0.0003, 0.03)
    ),
    *(
        {"loss.name": name, f"loss.{key}": value, "optimizer.learning_rate": rate}
        for name, (key, values) in _TUNED.items()
        for value in values
        for rate in _RATES
    ),
]


def get_config(variant: str = "") -> ConfigDict:
    """The config; variant "quick" trains for 60 steps."""
    config = common.base_config()
    config.data.label_noise = 0.3
    config.data.batch_size = 128
    config.model.hidden = (128,)
    config.loss = common.loss("ldr_kl")
    config.optimizer.schedule = "cosine"
    config.steps = 500
    config.eval_every = config.checkpoint_every = 500
    return common.shortened(config, variant)
