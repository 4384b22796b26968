# SPDX-License-Identifier: Apache-2.0
"""Ten losses under wrong labels: 0, 30 and 60 % of them, on digits (scikit-learn's, embedded).

    python -m experiments.run --config=label_noise --workdir=runs/noise
    python -m experiments.run --config=label_noise:quick --workdir=runs/quick    # seconds
    python -m experiments.sweep --config=label_noise --workdir=sweeps/noise --seeds=10 \\
        --overrides=experiments/configs/label_noise.py --set data.label_noise=0.0,0.3,0.6

"""

from typing import Any

from ml_collections import ConfigDict

from experiments.configs import common

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
