# SPDX-License-Identifier: Apache-2.0
"""The door of every weighting: the losses of T tasks, and numbers that go with each of them."""

import jax.numpy as jnp
from jax.typing import ArrayLike

from xloss import checks, numerics
from xloss.typing import Array


def check_losses(function: str, losses: ArrayLike, **others: ArrayLike) -> tuple[Array, ...]:
    """Returns the losses and the other arrays [T] in one dtype, float32 or wider.

    Raises:
      TypeError: one of them is of no float dtype.
      ValueError: losses that are not [T] with T >= 1, or others of another shape.
    """
    losses = checks.floating(function, "losses", losses)
    if losses.ndim != 1 or losses.size == 0:
        raise ValueError(f"{function}: expected losses [T] with T >= 1, got {losses.shape}")
    found = [losses]
    for name, value in others.items():
        value = checks.floating(function, name, value)
        checks.same_shape(function, name, value, losses.shape)
        found.append(value)
    found = [numerics.promote(x) for x in found]
    dtype = jnp.result_type(*[x.dtype for x in found])
    return tuple(x.astype(dtype) for x in found)
