# SPDX-License-Identifier: Apache-2.0
"""What the aggregators know of T gradients: their T x T inner products.

Every weight is found from these few numbers. Under sharding they are partial sums on each device
and one reduction of [T, T]; the gradients themselves, [T, parameters], are never gathered.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from xloss import checks
from xloss.optim import trees
from xloss.typing import Array, PyTree


class Gram(NamedTuple):
    """Inner products of the task gradients, apart from their scale.

    Attributes:
      matrix: [T, T], inner products of the gradients divided by ``scale``; float32 (float64).
      scale: greatest entry of any gradient, scalar; 1 where all of them are 0.
    """

    matrix: Array
    scale: Array


def check_grads(function: str, grads: PyTree) -> PyTree:
    """Returns the tree as float arrays that agree in their first axis, the tasks.

    Raises:
      TypeError: a leaf of another dtype.
      ValueError: no leaf, a leaf without axes, or leading axes that differ.
    """
    grads = jax.tree.map(lambda x: checks.floating(function, "grads", x), grads)
    check_task_axis(function, grads)
    return grads


def check_task_axis(function: str, grads: PyTree) -> None:
    """Raises ValueError unless the leaves, arrays or their shapes, agree in a first axis [T]."""
    shapes = [x.shape for x in jax.tree.leaves(grads)] or [()]
    if {s[:1] for s in shapes} != {shapes[0][:1]} or not shapes[0] or shapes[0][0] == 0:
        raise ValueError(
            f"{function}: expected grads with a leading task axis [T, ...], T >= 1, on every leaf, "
            f"got shapes {shapes}"
        )


def num_tasks(grads: PyTree) -> int:
    """T, the length of the leading axis."""
    return jax.tree.leaves(grads)[0].shape[0]


def gram(grads: PyTree) -> Gram:
    """Inner products over all leaves, in float32 (float64) whatever the dtype of the leaves.

    Divided by the greatest entry first, so that squares neither overflow nor vanish.
    """
    dtype = trees.dtype_of(grads)
    zero, one = jnp.zeros([], dtype), jnp.ones([], dtype)
    wide = [x.astype(dtype) for x in jax.tree.leaves(grads)]
    peak = functools.reduce(jnp.maximum, [jnp.max(jnp.abs(x), initial=0.0) for x in wide], zero)
    scale = jnp.where(peak == 0, one, peak)
    # No reshape: flattening a sharded leaf would gather it, contracting several axes does not.
    return Gram(sum((_inner(trees.over(x, scale)) for x in wide), zero), scale)


def by_task(grads: PyTree) -> tuple[Array, Array]:
    """Inner products [T, T] of the gradients, each over its own greatest entry, and those [T].

    For methods that look at angles and lengths apart: a gradient 1e-20 times as long as another
    keeps its angle, while its square beside the other's would vanish in :func:`gram`.
    """
    dtype = trees.dtype_of(grads)
    wide = [x.astype(dtype) for x in jax.tree.leaves(grads)]
    peaks = [jnp.max(jnp.abs(x), axis=tuple(range(1, x.ndim)), initial=0.0) for x in wide]
    peak = functools.reduce(jnp.maximum, peaks)
    scales = jnp.where(peak == 0, jnp.ones_like(peak), peak)
    over = [trees.over(x, jnp.expand_dims(scales, tuple(range(1, x.ndim)))) for x in wide]
    return sum((_inner(x) for x in over), jnp.zeros([], dtype)), scales


def length_ratios(matrix: Array, scales: Array) -> Array:
    """||g_s|| / ||g_t|| [T, T] of what :func:`by_task` returns; 0 beside a gradient of 0, and inf
    where no float holds it."""
    _, inverse = cosines(matrix)
    ratios = jnp.sqrt(jnp.diagonal(matrix))[:, None] * inverse[None, :]
    return jnp.where(ratios == 0, ratios, ratios * trees.over(scales[:, None], scales[None, :]))


def mean_square(matrix: Array) -> Array:
    """The mean of a Gram matrix's diagonal, 1 where that is 0: what to divide it by."""
    size = jnp.mean(jnp.diagonal(matrix))
    return jnp.where(size == 0, jnp.ones_like(size), size)


def cosines(matrix: Array) -> tuple[Array, Array]:
    """Cosines [T, T] of a Gram matrix and 1 / length [T]; rows, columns and 1 / length of a
    gradient of 0 are 0, those of NaN are NaN."""
    lengths = jnp.sqrt(jnp.diagonal(matrix))
    none = lengths == 0
    inverse = jnp.where(none, jnp.zeros_like(lengths), 1 / jnp.where(none, 1, lengths))
    return matrix * inverse[:, None] * inverse[None, :], inverse


def rounding(matrix: Array) -> Array:
    """Eigenvalues of cosines that are less, relative to the greatest, are rounding."""
    return jnp.asarray(10 * matrix.shape[0] * jnp.finfo(matrix.dtype).eps, matrix.dtype)


def combine(grads: PyTree, weights: Array) -> PyTree:
    """sum over t of weights_t g_t, in float32 (float64), in the dtypes of the leaves."""

    def total(x: Array) -> Array:
        wide = x.astype(weights.dtype)
        return _contract(weights, wide, (0,)).astype(x.dtype)

    return jax.tree.map(total, grads)


def _inner(x: Array) -> Array:
    return _contract(x, x, tuple(range(1, x.ndim)))


def _contract(left: Array, right: Array, axes: tuple[int, ...]) -> Array:
    """Contracts the same axes of both in full precision (accelerators would take fewer bits)."""
    return jax.lax.dot_general(
        left, right, ((axes, axes), ((), ())), precision=jax.lax.Precision.HIGHEST
    )
