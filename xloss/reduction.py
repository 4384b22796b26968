# SPDX-License-Identifier: Apache-2.0
"""From losses [...] to a scalar: the one reduction of the library.

Losses never reduce themselves. A weighted mean divides by the sum of the weights, an empty one
is 0, and inside ``shard_map`` numerator and denominator are summed over devices before dividing
(a mean of per-device means is another number).
"""

import functools
from typing import Literal, overload

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from xloss import checks, numerics

_HOW = ("mean", "sum", "sum_and_weight")


@overload
def reduce(
    losses: ArrayLike,
    *,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    how: Literal["mean", "sum"] = "mean",
    axis_name: str | tuple[str, ...] | None = None,
) -> jax.Array: ...


@overload
def reduce(
    losses: ArrayLike,
    *,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    how: Literal["sum_and_weight"],
    axis_name: str | tuple[str, ...] | None = None,
) -> tuple[jax.Array, jax.Array]: ...


def reduce(
    losses: ArrayLike,
    *,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    how: str = "mean",
    axis_name: str | tuple[str, ...] | None = None,
) -> jax.Array | tuple[jax.Array, jax.Array]:
    """Reduces per-example losses over all their axes.

    Definition, with w_i = 0 where the mask is False::

        sum  = sum_i w_i l_i        weight = sum_i w_i  (the count of examples without weights)
        mean = sum / weight         0 if weight is 0

    Args:
      losses: float [...], as every xloss loss returns them.
      where: bool [...]; masked entries are not read (they may be NaN).
      weights: float [...], >= 0. A weight of 0 is not a mask: 0 * inf is NaN.
      how: "mean"; "sum"; or "sum_and_weight" for the pair, which is what micro-batches must
        add up before dividing.
      axis_name: inside ``shard_map``, the mesh axis (or axes) over which the examples are
        spread. Under ``jax.jit`` with sharded arrays sums are global already: leave it None.

    Returns:
      A scalar, float32 (float64 for float64 losses), or the pair (sum, weight).

    Raises:
      TypeError: losses or weights are not of a float dtype, where is not bool.
      ValueError: shapes differ, or ``how`` is unknown.

    Example:
      >>> import jax.numpy as jnp
      >>> losses = jnp.array([1.0, 3.0, jnp.nan])
      >>> float(reduce(losses, where=jnp.array([True, True, False])))
      2.0
      >>> float(reduce(losses[:2], weights=jnp.array([3.0, 1.0])))
      1.5
    """
    losses = checks.floating("reduce", "losses", losses)
    where = checks.mask("reduce", where, losses.shape)
    if weights is not None:
        weights = checks.floating("reduce", "weights", weights)
        checks.same_shape("reduce", "weights", weights, losses.shape)
    checks.choice("reduce", "how", how, _HOW)
    return _reduce(losses, where, weights, how, axis_name)


@functools.partial(jax.jit, static_argnames=("how", "axis_name"))
def _reduce(losses, where, weights, how, axis_name):
    losses = numerics.masked(numerics.promote(losses), where)
    if weights is None:
        mass = jnp.ones_like(losses) if where is None else where.astype(losses.dtype)
    else:
        mass = numerics.masked(weights.astype(losses.dtype), where)
        losses = mass * losses
    total, weight = jnp.sum(losses), jnp.sum(mass)
    if axis_name is not None:
        total, weight = jax.lax.psum((total, weight), axis_name)
    if how == "sum":
        return total
    if how == "sum_and_weight":
        return total, weight
    empty = weight == 0
    return jnp.where(empty, jnp.zeros_like(total), total / jnp.where(empty, 1.0, weight))
