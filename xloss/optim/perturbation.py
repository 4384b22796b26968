# SPDX-License-Identifier: Apache-2.0
"""The step to a nearby worst-case point that every sharpness-aware method takes.

Shared by SAM, ASAM, their multi-task form and :func:`xloss.optim.sharpness`.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from xloss import checks, numerics
from xloss.optim import trees
from xloss.typing import Array, PyTree

#: A radius: a number >= 0, or a schedule step -> radius.
Radius = ArrayLike | optax.Schedule


def check_radius(function: str, name: str, rho: Radius) -> Radius:
    """Returns a radius as numbers are spelled; a schedule passes as it is."""
    return rho if callable(rho) else checks.number(function, name, rho, low=0.0)


def radius_at(rho: Radius, count: Array) -> ArrayLike:
    """The radius at step ``count``."""
    return rho(count) if callable(rho) else rho


def magnitudes(params: PyTree, eta: ArrayLike = 0.0) -> PyTree:
    """|w| + eta for every parameter, in float32 (float64): the adaptive scale."""

    def magnitude(w: Array) -> Array:
        wide = jnp.abs(numerics.promote(w))
        return wide + jnp.asarray(eta, wide.dtype)

    return jax.tree.map(magnitude, params)


def ascent(
    gradient: PyTree, rho: ArrayLike, *, scale: PyTree | None = None, eps: float = 1e-12
) -> PyTree:
    """rho g / (||g|| + eps), or with a scale T: rho T^2 g / (||T g|| + eps).

    Args:
      gradient: float arrays; one norm over all of them.
      rho: scalar.
      scale: T, in the structure of ``gradient``.
      eps: in the unit of the norm; keeps noise from being blown up to rho.

    Returns:
      The perturbation, float32 (float64), 0 where the gradient is 0. It is data: nothing is
      differentiated through it.
    """
    dtype = trees.dtype_of(gradient)
    if scale is not None:
        gradient = _times(scale, gradient, dtype)
    norm, unit = trees.norm_and_unit(gradient)
    # 1 / (1 + eps / norm) instead of norm / (norm + eps): right for norms of 0 and inf too.
    length = jnp.asarray(rho, dtype) / (1 + jnp.asarray(eps, dtype) / norm)
    step = jax.tree.map(lambda u: length * u, unit)
    step = step if scale is None else _times(scale, step, dtype)
    return jax.lax.stop_gradient(step)


def moved(params: PyTree, step: PyTree) -> PyTree:
    """params + step, at least float32: bfloat16 would round most of a small step away."""

    def add(w: Array, e: Array) -> Array:
        wide = numerics.promote(w)
        return wide + e.astype(wide.dtype)

    return jax.tree.map(add, params, step)


def cast_like(tree: PyTree, like: PyTree) -> PyTree:
    """The tree in the dtypes of another one."""
    return jax.tree.map(lambda x, y: x.astype(y.dtype), tree, like)


def flags(function: str, name: str, chosen: PyTree | Callable, params: PyTree) -> list[bool]:
    """One bool per leaf of params, from a tree of bools (a prefix will do) or a path predicate.

    Raises:
      TypeError: the tree holds something else than bools.
      ValueError: the tree does not fit params.
    """
    leaves, _ = jax.tree_util.tree_flatten_with_path(params)
    if callable(chosen):
        paths = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in leaves]
        found = [chosen(path) for path in paths]
    else:
        try:
            spread = jax.tree.map(
                lambda flag, part: jax.tree.map(lambda _: flag, part), chosen, params
            )
        except ValueError as error:
            raise ValueError(
                f"{function}: expected {name} in the structure of params or a prefix of it: {error}"
            ) from error
        found = jax.tree.leaves(spread)
    wrong = [flag for flag in found if not isinstance(flag, bool | jnp.bool_)]
    if wrong:
        raise TypeError(f"{function}: expected bools from {name}, got {checks.describe(wrong[0])}")
    return [bool(flag) for flag in found]


def _times(scale: PyTree, tree: PyTree, dtype: jnp.dtype) -> PyTree:
    return jax.tree.map(lambda t, x: t.astype(dtype) * x.astype(dtype), scale, tree)
