# SPDX-License-Identifier: Apache-2.0
"""Distances of every feature vector to every class centre, in bounded memory.

"Rethinking the Harmonic Loss via Non-Euclidean Distance Layers". Reach for "euclidean" or
"cosine" first: they are one matrix product, and cosine had the best trade-off of accuracy and
energy in that paper. The others compare [B, V, d] numbers, a block of classes at a time.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from xloss import checks, numerics
from xloss.heads import distances as formulas
from xloss.typing import Array, PRNGKey

#: The names that ``distance`` may have.
DISTANCES: tuple[str, ...] = tuple(formulas.OPTIONS)

#: Numbers in a block [B, v, d]: 64 MiB of float32.
BLOCK = 2**24
_RANGES: dict[str, dict[str, Any]] = {
    "p": {"low": 1.0},
    "threshold": {},
    "weight_power": {"low": 0.0},
    "ridge": {"low": 0.0},
}
_MATRIX = {"mahalanobis": 2, "mahalanobis_diagonal": 1, "mahalanobis_cholesky": 2}


def pairwise_distance(
    features: ArrayLike,
    centres: ArrayLike,
    *,
    distance: str = "euclidean",
    eps: ArrayLike | None = None,
    p: ArrayLike | None = None,
    temperature: ArrayLike | None = None,
    threshold: ArrayLike | None = None,
    alpha: ArrayLike | None = None,
    min_denom: ArrayLike | None = None,
    weight_power: ArrayLike | None = None,
    min_sum: ArrayLike | None = None,
    ridge: ArrayLike | None = None,
    matrix: ArrayLike | None = None,
    key: PRNGKey | None = None,
    chunk: int | None = None,
) -> Array:
    """Distances D [..., V] of features to class centres: what a harmonic head raises to -n.

    Definition, with g = |x - w| entry by entry, sums over the d features, s = sigmoid::

        euclidean           sum g^2 + eps                       (SQUARED, as the authors' code)
        manhattan           sum g + eps
        cosine              1 - <x, w> / (|x| |w|) + eps, each norm at least 1e-12
        cosine_unstable     1 - <x, w> / (|x| |w| + eps) + eps
        minkowski           (sum min(g + eps, 1e6)^p + eps)^(1/p) + eps
        hamming_soft        sum |s(x / temperature) - s(w / temperature)| + eps
        hamming_gumbel      the same of x and w plus Gumbel noise; without noise if key is None
        hamming_hard        sum |[x > threshold] - [w > threshold]| + eps, gradient of the soft
        chebyshev           max g + eps
        chebyshev_smooth    logsumexp(alpha g) / alpha + eps
        chebyshev_vision    u = g / (std(g) + eps): sum softmax(u) u + eps      (std with d - 1)
        chebyshev_vision_smooth   logsumexp(clip(alpha u, -50, 50)) / alpha + eps, 1 <= alpha <= 20
        canberra            sum g / max(|x| + |w|, eps) + eps
        canberra_robust     sum g / max(|x| + |w|, min_denom) + eps
        canberra_weighted   t = |x| + |w| + eps: sum t^weight_power g / t / sum t^weight_power + eps
        braycurtis          sum g / max(|sum (x + w)| + eps, 10 eps) + eps
        braycurtis_abs      sum g / (sum (|x| + |w|) + eps) + eps
        braycurtis_normalized     the same of (|.| + eps) / max(sum (|.| + eps), min_sum)
        mahalanobis         sqrt(max(g^T P g, 0) + eps) + eps with signed g, where P is
                            sym(matrix + ridge I) + 10 eps I,
          _diagonal         diag(exp(clip(matrix, -10, 10)) + eps),
          _cholesky         L L^T + eps I, L the lower triangle with diagonal at least eps

    Args:
      features: x [..., d], any float dtype.
      centres: w [d, V], one class a COLUMN, as every kernel of xloss. The papers write w as
        [V, d]: give its transpose.
      distance: one of ``heads.DISTANCES``, static.
      eps: scalar > 0; 1e-4, for braycurtis 1e-3.
      p: order >= 1 of minkowski; 1.5.
      temperature: scalar > 0 of the hammings; 1.0 soft, 0.5 gumbel, 0.1 hard.
      threshold: scalar of hamming_hard; 0.5.
      alpha: sharpness > 0 of the smooth chebyshevs; 10.
      min_denom: scalar > 0 of canberra_robust; 0.01.
      weight_power: scalar >= 0 of canberra_weighted; 0.5.
      min_sum: scalar > 0 of braycurtis_normalized; 0.001.
      ridge: scalar >= 0 of mahalanobis; 0.01.
      matrix: the learned parameter of the mahalanobis kinds, [d, d] (_diagonal: [d]); the authors
        begin with 1.01 I, zeros and 0.1 I.
      key: PRNG key for hamming_gumbel, in training only.
      chunk: classes in a block [B, chunk, d], int >= 1, static; None takes what fits in 64 MiB.
        The kinds of one matrix product (euclidean, cosine, mahalanobis) have no blocks.

    Returns:
      Distances [..., V] > 0, float32 (float64 if an input is float64).

    Raises:
      TypeError: wrong dtypes, an option that is no number.
      ValueError: shapes that do not fit, an unknown distance, an option that it does not have or
        that is out of range, matrix missing or given for nothing.

    Numerics:
      The gradient is finite everywhere, at x = w too (that of |0| is 0, ties at a maximum share
      it). hamming_hard: two bits of 1 differ by the rounding of hard + soft - soft, whose sign
      the gradient takes, as in the authors' code.
      Squares come from |x|^2 + |w|^2 - 2 <x, w> around the mean of the centres, clamped at 0:
      their absolute error is about 1e-7 of those squares in float32. Gradients of the
      elementwise kinds are recomputed block by block, never held as [B, V, d].

    Example:
      >>> import jax.numpy as jnp
      >>> x, w = jnp.array([[1.0, 2.0]]), jnp.array([[0.0, 4.0], [0.0, 6.0]])  # w_2 = (4, 6)
      >>> [round(d, 3) for d in pairwise_distance(x, w, distance="manhattan")[0].tolist()]
      [3.0, 7.0]

    Evidence: authors' code.

    References:
      "Rethinking the Harmonic Loss via Non-Euclidean Distance Layers", 2026, arXiv 2603.10225;
      authors' code maxwellmg/rethinking-harmonic-loss. The two chebyshevs with an alpha or none
      are those of its language models, the _vision ones those of its picture models, which
      disagree. Departures: minkowski in units of its greatest entry, which changes no value but
      overflows later; the two cosines are clamped at 0 before eps.
    """
    name = "pairwise_distance"
    x = checks.floating(name, "features", features)
    w = checks.floating(name, "centres", centres)
    if x.ndim < 1 or w.ndim != 2 or x.shape[-1] != w.shape[0] or 0 in w.shape:
        turned = w.ndim == 2 and x.ndim >= 1 and x.shape[-1] == w.shape[1]
        hint = " (centres are columns: transpose them)" if turned else ""
        raise ValueError(
            f"{name}: expected features [..., d] and centres [d, V] with d, V >= 1, got "
            f"{x.shape} and {w.shape}{hint}"
        )
    given = {"eps": eps, "p": p, "temperature": temperature, "threshold": threshold,
             "alpha": alpha, "min_denom": min_denom, "weight_power": weight_power,
             "min_sum": min_sum, "ridge": ridge}  # fmt: skip
    options, matrix = check_options(name, distance, x.shape[-1], given, matrix, key)
    if chunk is not None and (type(chunk) is not int or chunk < 1):
        raise ValueError(f"{name}: expected chunk to be an int >= 1 or None, got {chunk!r}")
    return _pairwise(x, w, matrix, key, options, distance=distance, chunk=chunk)


def check_options(
    name: str,
    distance: str,
    width: int,
    given: dict[str, Any],
    matrix: ArrayLike | None,
    key: PRNGKey | None,
) -> tuple[dict[str, Any], Array | None]:
    """(options with their defaults, matrix) of a distance in d = width dimensions, checked.

    Raises:
      TypeError: an option that is no number, matrix missing.
      ValueError: an unknown distance, options that it does not have or that are out of range.
    """
    checks.choice(name, "distance", distance, DISTANCES)
    if distance.startswith("chebyshev_vision") and width < 2:
        raise ValueError(f"{name}: expected d >= 2 for {distance}, got d = {width}")
    if key is not None and distance != "hamming_gumbel":
        raise ValueError(f"{name}: expected key=None for {distance}, got {checks.describe(key)}")
    return _options(name, distance, given), _matrix(name, distance, matrix, width)


def _options(name: str, distance: str, given: dict[str, Any]) -> dict[str, Any]:
    known = formulas.OPTIONS[distance]
    for option, value in given.items():
        if value is not None and option not in known:
            raise ValueError(
                f"{name}: expected options among ({', '.join(known)}) for {distance}, got "
                f"{option}={value!r}"
            )
    return {
        option: checks.number(
            name,
            option,
            default if given.get(option) is None else given[option],
            **_RANGES.get(option, {"low": 0.0, "open_low": True}),
        )
        for option, default in known.items()
    }


def _matrix(name: str, distance: str, matrix: ArrayLike | None, width: int) -> Array | None:
    axes = _MATRIX.get(distance)
    if axes is None:
        if matrix is not None:
            raise ValueError(
                f"{name}: expected matrix=None for {distance}, got {checks.describe(matrix)}"
            )
        return None
    if matrix is None:
        raise TypeError(f"{name}: expected matrix to be an array for {distance}, got None")
    array = checks.floating(name, "matrix", matrix)
    checks.same_shape(name, "matrix", array, (width,) * axes)
    return array


@functools.partial(jax.jit, static_argnames=("distance", "chunk"))
def _pairwise(features, centres, matrix, key, options, *, distance, chunk):
    arrays = [a for a in (features, centres, matrix) if a is not None]
    double = any(a.dtype == jnp.float64 for a in arrays)
    dtype = jnp.float64 if double else jnp.float32
    x = features.astype(dtype).reshape(-1, features.shape[-1])
    w = centres.astype(dtype).T
    options = {name: numerics.scalar(value, x) for name, value in options.items()}
    x, w = prepare(distance, x, w, key, options)
    if distance in formulas.THROUGH_MATMUL:
        matrix = None if matrix is None else matrix.astype(dtype)
        found = formulas.THROUGH_MATMUL[distance](x, w, matrix, options)
    else:
        found = _by_blocks(formulas.ELEMENTWISE[distance], x, w, options, chunk)
    return found.reshape(*features.shape[:-1], centres.shape[1])


def prepare(
    distance: str, x: Array, w: Array, key: PRNGKey | None, options: dict[str, Array]
) -> tuple[Array, Array]:
    """Features [B, d] and centres [V, d] after what their distance does to each by itself."""
    if distance not in formulas.PREPARE:
        return x, w
    keys = (None, None) if key is None else jax.random.split(key)
    alone = formulas.PREPARE[distance]
    return alone(x, keys[0], options), alone(w, keys[1], options)


def _by_blocks(formula, x, w, options, chunk):
    """[B, V] of a formula that forms [B, v, d], v <= chunk of the classes at a time."""
    width, classes = w.shape[1], w.shape[0]
    chunk = max(1, BLOCK // max(1, x.shape[0] * width)) if chunk is None else chunk

    def block(part):
        return formula(x[:, None, :], part[None], options)

    if chunk >= classes:
        return block(w)
    block = jax.checkpoint(block)
    whole = classes // chunk
    body = jax.lax.map(block, w[: whole * chunk].reshape(whole, chunk, width))  # [blocks, B, chunk]
    body = jnp.moveaxis(body, 0, 1).reshape(x.shape[0], whole * chunk)
    rest = w[whole * chunk :]
    return jnp.concatenate([body, block(rest)], axis=1) if rest.shape[0] else body
