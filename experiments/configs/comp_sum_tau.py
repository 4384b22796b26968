# SPDX-License-Identifier: Apache-2.0
"""Comp-sum losses over tau: digits (10 classes, embedded) and Omniglot (136 characters).

    python -m experiments.run --config=comp_sum_tau --workdir=runs/tau
    python -m experiments.run --config=comp_sum_tau:quick --workdir=runs/quick    # seconds
    python -m experiments.run --config=comp_sum_tau:omniglot --workdir=runs/omniglot \\
        --config.data.path=DATA/omniglot/images_background_small1.zip
    python -m experiments.sweep --config=comp_sum_tau --workdir=sweeps/digits --seeds=10 \\
        --set loss.tau=0.0,0.5,1.0,1.5,2.0 --set optimizer.learning_rate=0.001,0.003,0.01,0.03 \\
        --choose=optimizer.learning_rate
    python -m experiments.sweep --config=comp_sum_tau:omniglot --workdir=sweeps/omniglot \\
        --seeds=10 --set data.path=DATA/omniglot/images_background_small1.zip \\
        --set loss.tau=0.0,0.5,1.0,1.5,2.0 --set optimizer.learning_rate=0.001,0.003,0.01,0.03 \\
        --choose=optimizer.learning_rate

"""

from ml_collections import ConfigDict

from experiments.configs import common
from experiments.errors import BadInput


def get_config(variant: str = "") -> ConfigDict:
    """The config; variant "omniglot" is for its pictures, "quick" trains for 60 steps."""
    if variant not in ("", "omniglot", "quick"):
        raise BadInput(
            f"--config: expected the variant 'omniglot', 'quick' or none, got {variant!r}"
        )
    config = common.base_config()
    config.loss = common.loss("comp_sum", tau=1.0)
    config.optimizer.schedule = "cosine"
    config.data.batch_size = 128
    config.model.hidden = (128,)
    config.steps = 500
    config.eval_every = config.checkpoint_every = 500
    if variant == "omniglot":
        config.data.pool = 5  # 105 x 105 pixels to 21 x 21
        config.data.eval_batch_size = 512
        config.model.hidden = (256,)
    return common.shortened(config, "quick" if variant == "quick" else "")
