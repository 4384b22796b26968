# SPDX-License-Identifier: Apache-2.0
"""TF Bind 8 (SIX6_REF_R1): find DNA 8-mers that bind strongly, having seen the weaker half.

    python -m experiments.run --config=tf_bind_8 --workdir=runs/tf_bind_8 \\
        --config.data.path=SIX6_REF_R1_8mers.txt.gz
    python -m experiments.run --config=tf_bind_8:quick --workdir=runs/quick \\
        --config.data.path=SIX6_REF_R1_8mers.txt.gz      # seconds
    python -m experiments.sweep --config=tf_bind_8 --workdir=sweeps/tf_bind_8 --seeds=16 \\
        --overrides=experiments/configs/tf_bind_8.py --choose=optimizer.learning_rate \\
        --set data.path=SIX6_REF_R1_8mers.txt.gz \\
        --set optimizer.learning_rate=0.0001,0.0003,0.001,0.003
"""

from ml_collections import ConfigDict

from experiments.configs import common

#: The methods of a sweep (--overrides=experiments/configs/tf_bind_8.py).
OVERRIDES = [
    {"task.method": "gradient_ascent"},
    {"task.method": "ignite"},
    # IGNITE-2, which keeps its multiplier.
    {
        "task.method": "ignite",
        "task.adapt": False,
        "task.lam0": 0.01,
        "task.rho": 0.2,
        "task.radius": 0.2,
    },
]


def get_config(variant: str = "") -> ConfigDict:
    """The config; variant "quick" trains for 60 steps."""
    config = common.base_config()
    del config.loss  # the task has its own
    config.task = ConfigDict(
        {
            "name": "offline_design",
            "method": "ignite",
            "rho": 0.05,
            "radius": 0.05,
            "eps": 0.1,
            "eta_lambda": 1e-3,
            "lam0": 1e-3,
            "clip_lambda": False,
            "adapt": True,
            "designs": 128,
            "search_steps": 200,
            "search_rate": 0.1,
        }
    )
    config.data.name = "tf_bind_8"
    config.data.batch_size = 128
    config.data.eval_batch_size = 4096
    config.model.hidden = (256, 256)
    config.optimizer.learning_rate = 3e-4
    config.steps = 1500
    config.eval_every = config.checkpoint_every = 500
    return common.shortened(config, variant)
