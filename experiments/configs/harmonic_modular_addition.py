# SPDX-License-Identifier: Apache-2.0
"""Addition modulo 31 with a harmonic head against a dot product: grokking and circles.

    python -m experiments.run --config=harmonic_modular_addition --workdir=runs/addition
    python -m experiments.run --config=harmonic_modular_addition:quick --workdir=runs/quick
    python -m experiments.sweep --config=harmonic_modular_addition --workdir=sweeps/addition \\
        --seeds=10 --overrides=experiments/configs/harmonic_modular_addition.py
"""

from ml_collections import ConfigDict

from experiments.configs import common

#: The heads of a sweep (--overrides=experiments/configs/harmonic_modular_addition.py).
OVERRIDES = [
    {"model.head": "dot_product"},
    {"model.exponent": 1.0},
    {"model.exponent": 4.0},
    {"model.exponent": 16.0},
    {"model.distance": "cosine", "model.exponent": 4.0},
]


def get_config(variant: str = "") -> ConfigDict:
    """The config; variant "quick" trains for 60 steps."""
    config = common.base_config()
    config.task = ConfigDict({"name": "modular_addition", "modulus": 31, "embedding_penalty": 0.01})
    # 769 of 961 pairs to train on, 96 to validate, 96 to test; the batch is all but one of them.
    config.data.name = "modular_addition"
    config.data.validation_fraction = config.data.test_fraction = 0.1
    config.data.batch_size = 768
    config.model = ConfigDict(
        {
            "name": "pair_mlp",
            "embedding": 16,
            "hidden": 100,
            "head": "harmonic",
            "distance": "euclidean",
            "exponent": 4.0,
        }
    )
    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = 2e-3
    config.optimizer.weight_decay = 0.01
    config.steps = 3000
    config.eval_every = 50
    config.checkpoint_every = 500
    return common.shortened(config, variant)
