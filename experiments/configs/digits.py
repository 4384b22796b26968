# SPDX-License-Identifier: Apache-2.0
"""Ten handwritten digits of 8 x 8 pixels (scikit-learn's, embedded): the road's first drive.

    python -m experiments.run --config=digits --workdir=runs/digits
    python -m experiments.run --config=digits:quick --workdir=runs/quick      # seconds
    python -m experiments.run --config=digits --workdir=runs/comp_sum \\
        --config.loss.name=comp_sum --config.loss.tau=0.5

1,797 pictures, 20 % test and 15 % validation (stratified), an MLP 64-128-10 and Adam.
"""

from ml_collections import ConfigDict

from experiments.configs import common


def get_config(variant: str = "") -> ConfigDict:
    """The config; variant "quick" trains for 60 steps."""
    config = common.base_config()
    config.model.hidden = (128,)
    config.optimizer.learning_rate = 3e-3
    config.optimizer.schedule = "cosine"
    config.steps = 1500
    config.eval_every = config.checkpoint_every = 300
    return common.shortened(config, variant)
