# SPDX-License-Identifier: Apache-2.0
"""Arithmetic on trees of parameters and gradients that the transforms of this room share.

What optax's own tree functions leave open: norms of low-precision trees in float32, the unit vector
of a zero gradient, and which leaves take part.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from xloss import numerics
from xloss.typing import Array, PyTree

#: Which leaves take part: a tree of bools (a prefix will do), or a function params -> such a tree.
Mask = PyTree | Callable[[PyTree], PyTree] | None


def dtype_of(tree: PyTree) -> jnp.dtype:
    """float64 if a leaf is float64, else float32: the dtype of norms, multipliers and differences.

    Args:
      tree: arrays, or anything with a dtype, such as ``jax.ShapeDtypeStruct``.
    """
    wide = any(jnp.dtype(x.dtype) == jnp.float64 for x in jax.tree.leaves(tree))
    return jnp.dtype(jnp.float64 if wide else jnp.float32)


def norm_and_unit(tree: PyTree) -> tuple[Array, PyTree]:
    """Global Euclidean norm over all leaves, and the tree divided by it.

    Args:
      tree: float arrays of any shapes.

    Returns:
      (norm, unit): a scalar of :func:`dtype_of`, and a tree of that dtype with norm 1; all zeros
      where the norm is 0, so that a perturbation along it is none. Squares of huge or tiny
      entries neither overflow nor vanish. NaN and inf stay loud: unit is then NaN.
    """
    dtype = dtype_of(tree)
    wide = jax.tree.map(lambda x: x.astype(dtype), tree)
    zero, one = jnp.zeros([], dtype), jnp.ones([], dtype)
    peaks = [jnp.max(jnp.abs(x), initial=0.0) for x in jax.tree.leaves(wide)]
    peak = functools.reduce(jnp.maximum, peaks, zero)
    scale = jnp.where(peak == 0, one, peak)
    scaled = jax.tree.map(lambda x: over(x, scale), wide)
    root = jnp.sqrt(sum((jnp.sum(jnp.square(x)) for x in jax.tree.leaves(scaled)), zero))
    # Where the peak is subnormal, x / scale may be flushed to 0.
    length = jnp.where(root == 0, one, root)
    return peak * root, jax.tree.map(lambda x: x / length, scaled)


def over(x: Array, scale: Array) -> Array:
    """x / scale, where a compiler that multiplies by 1 / scale instead would flush that to 0."""
    shrink = jnp.where(scale > 1, jnp.asarray(0.25, scale.dtype), jnp.ones_like(scale))
    return (x * shrink) / (scale * shrink)


def dot(left: PyTree, right: PyTree) -> Array:
    """Inner product over all leaves, in float32 (float64)."""
    dtype = dtype_of((left, right))
    products = jax.tree.map(lambda a, b: jnp.sum(a.astype(dtype) * b.astype(dtype)), left, right)
    return sum(jax.tree.leaves(products), jnp.zeros([], dtype))


def across(tree: PyTree, direction: PyTree) -> PyTree:
    """The part of a tree that is orthogonal to another one, in float32 (float64); all of it where
    the other one is 0."""
    dtype = dtype_of((tree, direction))
    _, unit = norm_and_unit(direction)
    along = dot(tree, unit)
    return jax.tree.map(lambda x, u: x.astype(dtype) - along * u.astype(dtype), tree, unit)


def select(tree: PyTree, mask: Mask, params: PyTree) -> PyTree:
    """The tree with zeros where the mask says False; None keeps all of it.

    Args:
      tree: arrays, in the structure of ``params``.
      mask: see :data:`Mask`.
      params: what a callable mask is given.
    """
    if mask is None:
        return tree
    chosen = mask(params) if callable(mask) else mask

    def keep(take: bool, part: PyTree) -> PyTree:
        return part if take else jax.tree.map(jnp.zeros_like, part)

    return jax.tree.map(keep, chosen, tree)


def check_params(function: str, params: PyTree | None) -> None:
    """Raises ValueError where update was given no parameters, or parameters with holes."""
    if params is None:
        raise ValueError(f"{function}: expected params in update(updates, state, params), got None")
    leaves = jax.tree.leaves(params, is_leaf=lambda x: isinstance(x, optax.MaskedNode))
    if any(isinstance(leaf, optax.MaskedNode) for leaf in leaves):
        raise ValueError(
            f"{function}: expected whole params, got the holes of optax.masked or optax.partition; "
            f"use {function}(mask=...) instead"
        )


def check_function(function: str, name: str, value: Callable | None) -> Callable:
    """Returns an extra argument of update that must be a function.

    Raises:
      TypeError: it is missing, or cannot be called.
    """
    if not callable(value):
        raise TypeError(
            f"{function}: expected {name} to be a function of params, got {value!r}; call "
            f"update(updates, state, params, {name}=...)"
        )
    return value


def difference(left: PyTree, right: PyTree) -> PyTree:
    """left - right in float32 (float64 for float64 leaves), whatever the dtype of the leaves."""
    return jax.tree.map(lambda a, b: numerics.promote(a) - numerics.promote(b), left, right)


def add_scaled(tree: PyTree, factor: Array, direction: PyTree) -> PyTree:
    """tree + factor * direction, computed in float32 (float64), in the dtypes of ``tree``."""

    def add(x: Array, d: Array) -> Array:
        wide = jnp.promote_types(numerics.working_dtype(x.dtype), numerics.working_dtype(d.dtype))
        return (x.astype(wide) + factor.astype(wide) * d.astype(wide)).astype(x.dtype)

    return jax.tree.map(add, tree, direction)
