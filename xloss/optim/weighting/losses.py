# SPDX-License-Identifier: Apache-2.0
"""The door of every weighting: the losses of T tasks, and numbers that go with each of them."""

from jax.typing import ArrayLike

from xloss import checks, numerics
from xloss.optim import trees
from xloss.typing import Array


def check_losses(
    function: str, losses: ArrayLike, argument: str = "losses", **others: ArrayLike
) -> tuple[Array, ...]:
    """Returns the losses and the other arrays [T] in one dtype, float32 or wider.

    Args:
      function: name for the message.
      losses: [T].
      argument: what the caller calls the losses.
      **others: [T], by their names.

    Raises:
      TypeError: one of them is of no float dtype.
      ValueError: losses that are not [T] with T >= 1, or others of another shape.
    """
    losses = checks.floating(function, argument, losses)
    if losses.ndim != 1 or losses.size == 0:
        raise ValueError(f"{function}: expected {argument} [T] with T >= 1, got {losses.shape}")
    found = [losses]
    for name, value in others.items():
        value = checks.floating(function, name, value)
        checks.same_shape(function, name, value, losses.shape)
        found.append(value)
    found = [numerics.promote(x) for x in found]
    dtype = trees.dtype_of(found)  # jnp.result_type raises where promotion is strict
    return tuple(x.astype(dtype) for x in found)
