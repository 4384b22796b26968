# SPDX-License-Identifier: Apache-2.0
"""Ten losses under wrong labels: 0, 30 and 60 % of them, on Fashion-MNIST.

    python -m experiments.run --config=label_noise_fashion --workdir=runs/noise \\
        --config.data.path=DATA/fashion-mnist
    python -m experiments.run --config=label_noise_fashion:quick --workdir=runs/quick \\
        --config.data.path=DATA/fashion-mnist    # seconds
    python -m experiments.sweep --config=label_noise_fashion --workdir=sweeps/noise --seeds=10 \\
        --overrides=experiments/configs/label_noise_fashion.py \\
        --set data.path=DATA/fashion-mnist --set data.label_noise=0.0,0.3,0.6

"""

from typing import Any

from ml_collections import ConfigDict

from experiments.configs import common, label_noise

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
