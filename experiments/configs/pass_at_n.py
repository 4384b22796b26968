# SPDX-License-Identifier: Apache-2.0
"""Abalone (28 ages from 8 measures): what to train for when N answers will be drawn.

    python -m experiments.run --config=pass_at_n --workdir=runs/pass_at_n \\
        --config.data.path=DATA/tabular/abalone.csv.gz
    python -m experiments.run --config=pass_at_n:quick --workdir=runs/quick \\
        --config.data.path=DATA/tabular/abalone.csv.gz      # seconds
    python -m experiments.sweep --config=pass_at_n --workdir=sweeps/pass_at_n --seeds=10 \\
        --set data.path=DATA/tabular/abalone.csv.gz --set task.num_samples=1,4,16,64,256 \\
        --set optimizer.learning_rate=0.001,0.003,0.01 --choose=optimizer.learning_rate \\
        --select=pass_own

"""

from ml_collections import ConfigDict

from experiments.configs import common


def get_config(variant: str = "") -> ConfigDict:
    """The config; variant "quick" trains for 60 steps."""
    config = common.base_config()
    config.task = ConfigDict({"name": "pass_at_n", "num_samples": 16.0})
    config.data.batch_size = 128
    config.data.eval_batch_size = 1024
    config.data.stratify = False  # some ages have one animal
    config.model.hidden = (128, 128)
    config.steps = 2000
    config.eval_every = config.checkpoint_every = 1000
    return common.shortened(config, variant)
