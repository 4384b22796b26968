# SPDX-License-Identifier: Apache-2.0
"""Loss-aware optimizers: optax transforms and the gradient rules behind them, one per file.

A transform that needs more gradients than the incoming one takes the function for them in update's
extra arguments, by name, over the same batch; see each factory's docstring.
"""

from xloss.optim.ignite import IgniteState, ignite, surrogate_sharpness

__all__ = [
    "IgniteState",
    "ignite",
    "surrogate_sharpness",
]
