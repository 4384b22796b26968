# SPDX-License-Identifier: Apache-2.0
"""The distances of harmonic heads: one function each, from blocks of features and centres.

Two sorts. ``THROUGH_MATMUL`` take x [B, d] and w [V, d] and never form [B, V, d]. ``ELEMENTWISE``
take x [B, 1, d] and w [1, v, d] for a block of classes; :mod:`xloss.heads.pairwise` chooses the
blocks. What depends on x or w alone is done before, by ``PREPARE``. Formulas: the layers of
arXiv 2603.10225 (authors' code maxwellmg/rethinking-harmonic-loss); eps is inside where they have
it, because the probabilities depend on it.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from xloss import numerics
from xloss.typing import Array

Options = Mapping[str, Any]

#: distance -> its options and their published defaults.
OPTIONS: dict[str, dict[str, float]] = {
    "euclidean": {"eps": 1e-4},
    "manhattan": {"eps": 1e-4},
    "cosine": {"eps": 1e-4},
    "cosine_unstable": {"eps": 1e-4},
    "minkowski": {"eps": 1e-4, "p": 1.5},
    "hamming_soft": {"eps": 1e-4, "temperature": 1.0},
    "hamming_gumbel": {"eps": 1e-4, "temperature": 0.5},
    "hamming_hard": {"eps": 1e-4, "temperature": 0.1, "threshold": 0.5},
    "chebyshev": {"eps": 1e-4},
    "chebyshev_smooth": {"eps": 1e-4, "alpha": 10.0},
    "chebyshev_vision": {"eps": 1e-4},
    "chebyshev_vision_smooth": {"eps": 1e-4, "alpha": 10.0},
    "canberra": {"eps": 1e-4},
    "canberra_robust": {"eps": 1e-4, "min_denom": 1e-2},
    "canberra_weighted": {"eps": 1e-4, "weight_power": 0.5},
    "braycurtis": {"eps": 1e-3},
    "braycurtis_abs": {"eps": 1e-3},
    "braycurtis_normalized": {"eps": 1e-3, "min_sum": 1e-3},
    "mahalanobis": {"eps": 1e-4, "ridge": 0.01},
    "mahalanobis_diagonal": {"eps": 1e-4},
    "mahalanobis_cholesky": {"eps": 1e-4},
}


def _dot(x: Array, w: Array) -> Array:
    # Distances are differences of what this returns: a TPU's default precision would lose them.
    return jnp.matmul(x, w.T, precision=jax.lax.Precision.HIGHEST)


def _quadratic_form(x: Array, w: Array, form: Callable[[Array], Array]) -> Array:
    """(x - w)^T P (x - w) >= 0 of all pairs, from form(v) = v P with a symmetric P."""
    # Around the centres' mean the terms are small, and so is what their difference loses.
    origin = jax.lax.stop_gradient(jnp.mean(w, axis=0, keepdims=True))
    x, w = x - origin, w - origin
    xp = form(x)
    own = jnp.sum(xp * x, axis=-1)[:, None] + jnp.sum(form(w) * w, axis=-1)[None, :]
    return jnp.maximum(own - 2.0 * _dot(xp, w), 0.0)


def _euclidean(x: Array, w: Array, matrix: Array | None, o: Options) -> Array:
    return _quadratic_form(x, w, lambda v: v) + o["eps"]


def _normalised(v: Array) -> Array:
    # The floor on the square is that of 1e-12 on the norm, and keeps the gradient at 0 finite.
    return v * jax.lax.rsqrt(jnp.maximum(jnp.sum(v * v, axis=-1, keepdims=True), 1e-24))


def _cosine(x: Array, w: Array, matrix: Array | None, o: Options) -> Array:
    return jnp.maximum(1.0 - _dot(_normalised(x), _normalised(w)), 0.0) + o["eps"]


def _norm(v: Array) -> Array:
    return _safe_sqrt(jnp.sum(v * v, axis=-1))


def _cosine_unstable(x: Array, w: Array, matrix: Array | None, o: Options) -> Array:
    cosine = _dot(x, w) / (_norm(x)[:, None] * _norm(w)[None, :] + o["eps"])
    return jnp.maximum(1.0 - cosine, 0.0) + o["eps"]


def _root(squared: Array, eps: Array) -> Array:
    return jnp.sqrt(squared + eps) + eps


def _mahalanobis(x: Array, w: Array, matrix: Array, o: Options) -> Array:
    identity = jnp.eye(matrix.shape[0], dtype=matrix.dtype)
    shifted = matrix + o["ridge"] * identity
    form = (shifted + shifted.T) / 2.0 + 10.0 * o["eps"] * identity
    return _root(_quadratic_form(x, w, lambda v: _dot(v, form)), o["eps"])


def _mahalanobis_diagonal(x: Array, w: Array, matrix: Array, o: Options) -> Array:
    scale = (jnp.exp(jnp.clip(matrix, -10.0, 10.0)) + o["eps"])[None, :]
    return _root(_quadratic_form(x, w, lambda v: v * scale), o["eps"])


def _mahalanobis_cholesky(x: Array, w: Array, matrix: Array, o: Options) -> Array:
    identity = jnp.eye(matrix.shape[0], dtype=matrix.dtype)
    diagonal = jnp.maximum(jnp.diagonal(matrix), o["eps"])
    lower = jnp.tril(matrix, -1) + diagonal[:, None] * identity
    form = _dot(lower, lower) + o["eps"] * identity
    return _root(_quadratic_form(x, w, lambda v: _dot(v, form)), o["eps"])


#: x [B, d], w [V, d], learned matrix or None, options -> [B, V].
THROUGH_MATMUL: dict[str, Callable[[Array, Array, Any, Options], Array]] = {
    "euclidean": _euclidean,
    "cosine": _cosine,
    "cosine_unstable": _cosine_unstable,
    "mahalanobis": _mahalanobis,
    "mahalanobis_diagonal": _mahalanobis_diagonal,
    "mahalanobis_cholesky": _mahalanobis_cholesky,
}


def _manhattan(x: Array, w: Array, o: Options) -> Array:
    return jnp.sum(_abs(x - w), axis=-1) + o["eps"]


def _minkowski(x: Array, w: Array, o: Options) -> Array:
    t = jnp.minimum(_abs(x - w) + o["eps"], 1e6)
    # In units of the greatest term: 1e6^p overflows float32 from p = 6.5 on.
    floor = jnp.power(o["eps"], 1.0 / o["p"])
    unit = jax.lax.stop_gradient(jnp.maximum(jnp.max(t, axis=-1, keepdims=True), floor))
    total = jnp.sum(jnp.power(t / unit, o["p"]), axis=-1)
    total += jnp.power(floor / unit[..., 0], o["p"])
    return unit[..., 0] * jnp.power(total, 1.0 / o["p"]) + o["eps"]


def _chebyshev(x: Array, w: Array, o: Options) -> Array:
    return numerics.max_last(_abs(x - w)) + o["eps"]


def _chebyshev_smooth(x: Array, w: Array, o: Options) -> Array:
    exponents = o["alpha"] * _abs(x - w)
    return jax.nn.logsumexp(exponents, axis=-1) / o["alpha"] + o["eps"]


def _standardised(x: Array, w: Array, o: Options) -> Array:
    gap = _abs(x - w)
    deviation = _safe_sqrt(jnp.var(gap, axis=-1, ddof=1, keepdims=True))
    return gap / (deviation + o["eps"])


def _chebyshev_vision(x: Array, w: Array, o: Options) -> Array:
    u = _standardised(x, w, o)
    return jnp.sum(jax.nn.softmax(u, axis=-1) * u, axis=-1) + o["eps"]


def _chebyshev_vision_smooth(x: Array, w: Array, o: Options) -> Array:
    alpha = jnp.clip(o["alpha"], 1.0, 20.0)
    exponents = jnp.clip(alpha * _standardised(x, w, o), -50.0, 50.0)
    return jax.nn.logsumexp(exponents, axis=-1) / alpha + o["eps"]


def _canberra(x: Array, w: Array, o: Options) -> Array:
    size = jnp.maximum(_abs(x) + _abs(w), o["eps"])
    return jnp.sum(_abs(x - w) / size, axis=-1) + o["eps"]


def _canberra_robust(x: Array, w: Array, o: Options) -> Array:
    size = jnp.maximum(_abs(x) + _abs(w), o["min_denom"])
    return jnp.sum(_abs(x - w) / size, axis=-1) + o["eps"]


def _canberra_weighted(x: Array, w: Array, o: Options) -> Array:
    size = _abs(x) + _abs(w) + o["eps"]
    weight = jnp.power(size, o["weight_power"])
    weight /= jnp.sum(weight, axis=-1, keepdims=True)
    return jnp.sum(weight * _abs(x - w) / size, axis=-1) + o["eps"]


def _braycurtis(x: Array, w: Array, o: Options) -> Array:
    # Signed sums: unbounded for features of mean zero, as published.
    size = _abs(jnp.sum(x, axis=-1) + jnp.sum(w, axis=-1)) + o["eps"]
    gap = jnp.sum(_abs(x - w), axis=-1)
    return gap / jnp.maximum(size, 10.0 * o["eps"]) + o["eps"]


def _braycurtis_abs(x: Array, w: Array, o: Options) -> Array:
    size = jnp.sum(_abs(x), axis=-1) + jnp.sum(_abs(w), axis=-1) + o["eps"]
    return jnp.sum(_abs(x - w), axis=-1) / size + o["eps"]


#: x [B, 1, d], w [1, v, d], options -> [B, v].
ELEMENTWISE: dict[str, Callable[[Array, Array, Options], Array]] = {
    "manhattan": _manhattan,
    "minkowski": _minkowski,
    "hamming_soft": _manhattan,
    "hamming_gumbel": _manhattan,
    "hamming_hard": _manhattan,
    "chebyshev": _chebyshev,
    "chebyshev_smooth": _chebyshev_smooth,
    "chebyshev_vision": _chebyshev_vision,
    "chebyshev_vision_smooth": _chebyshev_vision_smooth,
    "canberra": _canberra,
    "canberra_robust": _canberra_robust,
    "canberra_weighted": _canberra_weighted,
    "braycurtis": _braycurtis,
    "braycurtis_abs": _braycurtis_abs,
    "braycurtis_normalized": _braycurtis_abs,
}


def _soft_bits(v: Array, key: jax.Array | None, o: Options) -> Array:
    return jax.nn.sigmoid(v / o["temperature"])


def _gumbel_bits(v: Array, key: jax.Array | None, o: Options) -> Array:
    if key is None:
        return _soft_bits(v, None, o)
    uniform = jnp.clip(jax.random.uniform(key, v.shape, v.dtype), 1e-7, 1.0 - 1e-7)
    noise = jnp.clip(-jnp.log(-jnp.log(uniform)), -10.0, 10.0)
    return jax.nn.sigmoid((v + noise) / o["temperature"])


def _hard_bits(v: Array, key: jax.Array | None, o: Options) -> Array:
    # Straight through in the authors' order of operations. hard + soft is rounded, and where both
    # bits are 1 that decides the sign of their difference: any is a subgradient, this is theirs.
    soft = _soft_bits(v, None, o)
    hard = (v > o["threshold"]).astype(v.dtype)
    return (hard + soft) - jax.lax.stop_gradient(soft)


def _shares(v: Array, key: jax.Array | None, o: Options) -> Array:
    size = _abs(v) + o["eps"]
    return size / jnp.maximum(jnp.sum(size, axis=-1, keepdims=True), o["min_sum"])


#: What features and centres [., d] become by themselves; a key only where one was given.
PREPARE: dict[str, Callable[[Array, jax.Array | None, Options], Array]] = {
    "hamming_soft": _soft_bits,
    "hamming_gumbel": _gumbel_bits,
    "hamming_hard": _hard_bits,
    "braycurtis_normalized": _shares,
}


def _abs(x: Array) -> Array:
    """|x| with derivative 0 at 0, where that of jnp.abs is 1."""
    return x * jnp.sign(x)


def _safe_sqrt(x: Array) -> Array:
    """sqrt with gradient 0 at 0."""
    zero = x <= 0
    return jnp.where(zero, jnp.zeros_like(x), jnp.sqrt(jnp.where(zero, jnp.ones_like(x), x)))
