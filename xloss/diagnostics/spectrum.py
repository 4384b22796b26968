# SPDX-License-Identifier: Apache-2.0
"""How many directions features or weights use: explained variance, effective rank, linear CKA.

The interpretability metrics of "Rethinking the Harmonic Loss via Non-Euclidean Distance Layers"
(arXiv 2603.10225, authors' code maxwellmg/rethinking-harmonic-loss)::

    ratios = explained_variance_ratios(features)       # of penultimate features, standardised
    explained_variance(ratios, components=2)           # the paper's "PC2 EV"
    components_for(ratios, share=0.9)                  # "PCA 90 %"

Evidence: authors' code.
"""

import functools

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from xloss import checks, numerics
from xloss.typing import Array


def explained_variance_ratios(
    features: ArrayLike, *, standardise: bool = True, components: int = 50
) -> Array:
    """Shares of the total variance along the principal components, greatest first.

    Args:
      features: [N, d], N >= 2, any float dtype.
      standardise: whether every feature is first divided by its standard deviation (that of N,
        not N - 1), as in the paper for penultimate features. Not for embeddings.
      components: how many ratios at most, int >= 1.

    Returns:
      Ratios [min(N, d, components)], float32 (float64 for float64). They are shares of the
      variance along all components, so that those cut off are missing from their sum; all 0 if
      nothing varies.

    Raises:
      TypeError: wrong dtype.
      ValueError: features that are not [N, d] with N >= 2, components < 1.

    Example:
      >>> import jax.numpy as jnp
      >>> x = jnp.array([[2.0, 0.0], [-2.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
      >>> [round(r, 3) for r in explained_variance_ratios(x, standardise=False).tolist()]
      [0.8, 0.2]
    """
    name = "explained_variance_ratios"
    x = _rows(name, "features", features)
    if type(components) is not int or components < 1:
        raise ValueError(f"{name}: expected components to be an int >= 1, got {components!r}")
    return _ratios(x, standardise=bool(standardise))[:components]


def explained_variance(ratios: ArrayLike, *, components: int = 2) -> Array:
    """Share of the total variance that the first components explain together.

    The sum of exactly ``components`` ratios. The authors' key ``pc_j_variance`` sums j + 1 of
    them; the paper's "PC2 EV" is 2 here.

    Args:
      ratios: [n], from :func:`explained_variance_ratios`.
      components: int >= 1; more than n is n.

    Returns:
      Scalar in [0, 1].

    Raises:
      TypeError: wrong dtype.
      ValueError: ratios that are not [n] with n >= 1, components < 1.
    """
    name = "explained_variance"
    if type(components) is not int or components < 1:
        raise ValueError(f"{name}: expected components to be an int >= 1, got {components!r}")
    return jnp.sum(_spectrum(name, ratios)[:components])


def components_for(ratios: ArrayLike, *, share: ArrayLike = 0.9) -> Array:
    """How many components it takes to explain a share of the variance.

    Args:
      ratios: [n], from :func:`explained_variance_ratios`.
      share: scalar in [0, 1].

    Returns:
      int32 scalar; n if all of them do not reach it.

    Raises:
      TypeError: wrong dtype.
      ValueError: ratios that are not [n] with n >= 1, share outside [0, 1].
    """
    name = "components_for"
    ratios = _spectrum(name, ratios)
    share = numerics.scalar(checks.number(name, "share", share, low=0.0, high=1.0), ratios)
    below = jnp.sum(jnp.cumsum(ratios) < share, dtype=jnp.int32)
    return jnp.minimum(below + 1, ratios.shape[0])


def effective_rank(ratios: ArrayLike) -> Array:
    """exp of the entropy of a spectrum: how many components share the variance.

    Definition, with q = ratios + 1e-12 divided by their sum: exp(-sum q log q).

    Args:
      ratios: [n] >= 0, from :func:`explained_variance_ratios`.

    Returns:
      Scalar in [1, n].

    Raises:
      TypeError: wrong dtype.
      ValueError: ratios that are not [n] with n >= 1.
    """
    q = _spectrum("effective_rank", ratios) + 1e-12
    q = q / jnp.sum(q)
    return jnp.exp(-jnp.sum(q * jnp.log(q)))


def participation_ratio(ratios: ArrayLike) -> Array:
    """1 / sum of squared ratios: another count of the components that share the variance.

    Args:
      ratios: [n], from :func:`explained_variance_ratios`.

    Returns:
      Scalar; in [1, n] where the ratios sum to 1, inf where nothing varies.

    Raises:
      TypeError: wrong dtype.
      ValueError: ratios that are not [n] with n >= 1.
    """
    return 1.0 / jnp.sum(jnp.square(_spectrum("participation_ratio", ratios)))


def matrix_effective_rank(matrix: ArrayLike) -> Array:
    """Effective rank of weights or activations, from singular values and not their squares.

    Definition, with p = s / sum s over the singular values s > 1e-10: exp(-sum p log(p + 1e-10)).

    Args:
      matrix: [m, n], any float dtype.

    Returns:
      Scalar in [1, min(m, n)]; 1 for a matrix of zeros.

    Raises:
      TypeError: wrong dtype.
      ValueError: not a matrix with at least one entry.
    """
    name = "matrix_effective_rank"
    array = numerics.promote(checks.floating(name, "matrix", matrix))
    if array.ndim != 2 or array.size == 0:
        raise ValueError(f"{name}: expected matrix [m, n] with m, n >= 1, got {array.shape}")
    return _matrix_rank(array)


def linear_cka(x: ArrayLike, y: ArrayLike) -> Array:
    """Linear centred kernel alignment: how alike two layers are, up to rotation and scale.

    Definition, with centred columns: |Y^T X|_F^2 / (|X^T X|_F |Y^T Y|_F).

    Args:
      x: features [N, d] of one layer, N >= 2.
      y: features [N, e] of another, for the same examples.

    Returns:
      Scalar in [0, 1]; 0 where one of them does not vary.

    Raises:
      TypeError: wrong dtypes.
      ValueError: shapes that do not fit.

    References:
      Kornblith, Norouzi, Lee, Hinton, "Similarity of Neural Network Representations Revisited",
      ICML 2019, arXiv 1905.00414.
    """
    x, y = _rows("linear_cka", "x", x), _rows("linear_cka", "y", y)
    if x.shape[0] != y.shape[0]:
        raise ValueError(
            f"linear_cka: expected x [N, d] and y [N, e] of one N, got {x.shape} and {y.shape}"
        )
    dtype = jnp.float64 if jnp.float64 in (x.dtype, y.dtype) else jnp.float32
    return _linear_cka(x.astype(dtype), y.astype(dtype))


def _rows(name: str, argument: str, value: ArrayLike) -> Array:
    x = numerics.promote(checks.floating(name, argument, value))
    if x.ndim != 2 or x.shape[0] < 2 or x.shape[1] < 1:
        raise ValueError(f"{name}: expected {argument} [N, d] with N >= 2, d >= 1, got {x.shape}")
    return x


def _spectrum(name: str, ratios: ArrayLike) -> Array:
    ratios = numerics.promote(checks.floating(name, "ratios", ratios))
    if ratios.ndim != 1 or ratios.size == 0:
        raise ValueError(f"{name}: expected ratios [n] with n >= 1, got {ratios.shape}")
    return ratios


@functools.partial(jax.jit, static_argnames="standardise")
def _ratios(x, *, standardise):
    x = x - jnp.mean(x, axis=0, keepdims=True)
    if standardise:
        deviation = jnp.std(x, axis=0, keepdims=True)
        x = x / jnp.where(deviation == 0, jnp.ones_like(deviation), deviation)
    # Variances are squares of the singular values: scale away what overflows.
    x = x / jnp.maximum(jnp.max(jnp.abs(x)), jnp.finfo(x.dtype).tiny)
    variances = jnp.square(jnp.linalg.svd(x, compute_uv=False))
    total = jnp.sum(variances)
    return variances / jnp.where(total == 0, jnp.ones_like(total), total)


@jax.jit
def _matrix_rank(matrix):
    values = jnp.linalg.svd(matrix, compute_uv=False)
    values = jnp.where(values > 1e-10, values, jnp.zeros_like(values))
    total = jnp.sum(values)
    p = values / jnp.where(total == 0, jnp.ones_like(total), total)
    # The 1e-10 can push a rank of 1 below it.
    return jnp.maximum(jnp.exp(-jnp.sum(p * jnp.log(p + 1e-10))), 1.0)


@jax.jit
def _linear_cka(x, y):
    x, y = (v - jnp.mean(v, axis=0, keepdims=True) for v in (x, y))

    def unit(v):
        size = jnp.linalg.norm(v)
        return v / jnp.where(size == 0, jnp.ones_like(size), size)

    x, y = unit(x), unit(y)
    own = jnp.linalg.norm(x.T @ x) * jnp.linalg.norm(y.T @ y)
    cross = jnp.sum(jnp.square(y.T @ x))
    return cross / jnp.where(own == 0, jnp.ones_like(own), own)
