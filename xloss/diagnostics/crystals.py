# SPDX-License-Identifier: Apache-2.0
"""Does an embedding have the shape of its task: a circle, a lattice, a line, clusters.

The crystal metrics of "Harmonic Loss Trains Interpretable AI Models" (arXiv 2502.01628, authors'
code KindXiaoming/grow-crystals). All of them are 0 for the perfect shape and change nothing under
rotation; lower is more crystalline. Evidence: authors' code.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from xloss import checks, numerics
from xloss.typing import Array


def circle_metric(embeddings: ArrayLike) -> Array:
    """How far embeddings are from a circle: modular addition, days of the week.

    Definition: project on the first two principal components, scale either to [0, 1], take the
    distances to the centroid; their standard deviation over their mean.

    Args:
      embeddings: [V, d], V >= 3, d >= 2, any float dtype, in any order.

    Returns:
      Scalar >= 0; 0 is a circle (or an ellipse, which the scaling makes one).

    Raises:
      TypeError: wrong dtype.
      ValueError: shapes that do not fit.

    Example:
      >>> import jax.numpy as jnp
      >>> corners = jnp.array([[2.0, 1.0], [2.0, -1.0], [-2.0, 1.0], [-2.0, -1.0]])
      >>> bool(circle_metric(corners) < 1e-6)
      True
    """
    points = _points("circle_metric", embeddings, at_least=3)
    if points.shape[1] < 2:
        raise ValueError(f"circle_metric: expected embeddings [V, d], d >= 2, got {points.shape}")
    return _circle(points)


def lattice_metric(embeddings: ArrayLike, *, size: int) -> Array:
    """How far embeddings of a size x size grid are from a lattice: analogies a : b = c : d.

    Definition: the mean, over grid points a < b < c (in the order of the rows) with
    d = b + c - a on the grid, not all three in one row or column of it, of::

        sqrt((|ab| - |cd|)^2 + (|ac| - |bd|)^2) / sqrt((|ab|^2 + |bc|^2 + |cd|^2 + |ad|^2) / 2)

    Args:
      embeddings: [size^2, d], row i * size + j for the grid point (i, j).
      size: int >= 2, static. The number of quadruples grows as size^6.

    Returns:
      Scalar >= 0; 0 if every parallelogram closes.

    Raises:
      TypeError: wrong dtype.
      ValueError: shapes that do not fit.
    """
    name = "lattice_metric"
    if type(size) is not int or size < 2:
        raise ValueError(f"{name}: expected size to be an int >= 2, got {size!r}")
    points = _points(name, embeddings, at_least=4)
    if points.shape[0] != size**2:
        raise ValueError(
            f"{name}: expected embeddings of {size**2} grid points (size^2), got {points.shape}"
        )
    return _lattice(points, jnp.asarray(_quadruples(size)))


def greater_metric(embeddings: ArrayLike) -> Array:
    """How unevenly consecutive embeddings are spaced: numbers that are compared.

    Definition: standard deviation over mean of the distances of neighbours in the given order.

    Args:
      embeddings: [V, d], V >= 3, in their order.

    Returns:
      Scalar >= 0; 0 if all steps have one length.

    Raises:
      TypeError: wrong dtype.
      ValueError: shapes that do not fit.
    """
    return _greater(_points("greater_metric", embeddings, at_least=3))


def equivalence_metric(embeddings: ArrayLike, *, modulus: int) -> Array:
    """How close the embeddings of a class are, against those of other classes.

    Definition, with the class i mod modulus for row i: the mean distance within classes (that of
    a point to itself, 0, included; those above the mean across classes dropped) over the mean
    distance across classes.

    Args:
      embeddings: [V, d], V > modulus.
      modulus: number of classes, int >= 2, static.

    Returns:
      Scalar in [0, 1]; 0 if classes are points.

    Raises:
      TypeError: wrong dtype.
      ValueError: shapes that do not fit.
    """
    name = "equivalence_metric"
    if type(modulus) is not int or modulus < 2:
        raise ValueError(f"{name}: expected modulus to be an int >= 2, got {modulus!r}")
    return _equivalence(_points(name, embeddings, at_least=modulus + 1), modulus=modulus)


def _points(name: str, embeddings: ArrayLike, *, at_least: int) -> Array:
    points = numerics.promote(checks.floating(name, "embeddings", embeddings))
    if points.ndim != 2 or points.shape[0] < at_least or points.shape[1] < 1:
        raise ValueError(
            f"{name}: expected embeddings [V, d] with V >= {at_least}, got {points.shape}"
        )
    return points


@functools.cache
def _quadruples(size: int) -> np.ndarray:
    """int32 [4, quadruples]: rows of a, b, c, d."""
    grid = np.array(list(itertools.product(range(size), repeat=2)))
    # Parallelograms only: d is decided by the rest, so three loops are enough.
    a, b, c = (np.array(side) for side in zip(*itertools.combinations(range(size**2), 3)))
    d = grid[b] + grid[c] - grid[a]
    on_grid = ((d >= 0) & (d < size)).all(axis=1)
    in_line = ((grid[a] == grid[b]) & (grid[b] == grid[c])).any(axis=1)
    kept = on_grid & ~in_line
    return np.stack([a, b, c, d[:, 0] * size + d[:, 1]])[:, kept].astype(np.int32)


@jax.jit
def _circle(points):
    points = points - jnp.mean(points, axis=0, keepdims=True)
    left, values, _ = jnp.linalg.svd(points, full_matrices=False)
    plane = (left * values[None, :])[:, :2]
    low, high = jnp.min(plane, axis=0, keepdims=True), jnp.max(plane, axis=0, keepdims=True)
    scaled = (plane - low) / _nonzero(high - low)
    radii = jnp.linalg.norm(scaled - jnp.mean(scaled, axis=0, keepdims=True), axis=-1)
    return jnp.std(radii) / _nonzero(jnp.mean(radii))


@jax.jit
def _lattice(points, quadruples):
    a, b, c, d = points[quadruples]

    def distance(x, y):
        return jnp.linalg.norm(x - y, axis=-1)

    ab, cd, ac, bd = distance(a, b), distance(c, d), distance(a, c), distance(b, d)
    squares = ab**2 + distance(b, c) ** 2 + cd**2 + distance(a, d) ** 2
    return jnp.mean(jnp.hypot(ab - cd, ac - bd) / _nonzero(jnp.sqrt(squares / 2.0)))


@jax.jit
def _greater(points):
    steps = jnp.linalg.norm(jnp.diff(points, axis=0), axis=-1)
    return jnp.std(steps) / _nonzero(jnp.mean(steps))


@functools.partial(jax.jit, static_argnames="modulus")
def _equivalence(points, *, modulus):
    distances = jnp.linalg.norm(points[:, None, :] - points[None, :, :], axis=-1)
    classes = jnp.arange(points.shape[0]) % modulus
    same = classes[:, None] == classes[None, :]
    across = jnp.mean(distances, where=~same)
    within = jnp.mean(distances, where=same & (distances <= across))
    return within / _nonzero(across)


def _nonzero(x: Array) -> Array:
    return jnp.where(x == 0, jnp.ones_like(x), x)
