# SPDX-License-Identifier: Apache-2.0
"""What two sets of logits for the same examples have to say to each other.

Shared by the losses and the attacks of this family: their checks, how far the score gaps moved,
how far the softmax moved.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from xloss import checks, numerics
from xloss.statistics import check_scores
from xloss.typing import Array


def check_pair(
    function: str,
    logits: ArrayLike,
    adversarial_logits: ArrayLike,
    labels: ArrayLike,
    where: ArrayLike | None,
) -> tuple[Array, Array, Array, Array | None]:
    """The static checks of a loss of clean and adversarial logits.

    Raises:
      TypeError: dtypes, LogitStatistics.
      ValueError: shapes that do not fit.
    """
    logits, labels, where = check_scores(function, logits, labels, where, needs_logits=True)
    adversarial = checks.floating(function, "adversarial_logits", adversarial_logits)
    checks.same_shape(function, "adversarial_logits", adversarial, logits.shape)
    return logits, adversarial, labels, where


def promote_pair(logits: Array, other: Array, where: Array | None) -> tuple[Array, Array]:
    """Both in one working dtype, masked examples replaced by 0."""
    wide = jnp.float64 in (logits.dtype, other.dtype)
    dtype = jnp.float64 if wide else jnp.float32

    def clean(z):
        if where is not None:
            z = jnp.where(where[..., None], z, jnp.zeros_like(z))
        return z.astype(dtype)

    return clean(logits), clean(other)


def displacement_norm(logits: Array, other: Array, labels: Array) -> Array:
    """||D' - D||_2 with D = (z_y - z_k) over k != y, of logits [..., K] in one working dtype.

    Any order of derivative; at 0 the gradient is 0, the subgradient of least norm. Classes that
    are masked out (-inf) in both take no part.

    Returns:
      [...]; NaN for a label outside [0, K).
    """
    absent = jnp.isneginf(logits) & jnp.isneginf(other)
    zeros = jnp.zeros_like(logits)
    moved = jnp.where(absent, zeros, other) - jnp.where(absent, zeros, logits)
    gaps = numerics.take_last(moved, labels)[..., None] - moved
    left_out = absent | numerics.one_hot_last(labels, logits.shape)
    return norm_last(jnp.where(left_out, zeros, gaps))


def norm_last(x: Array) -> Array:
    """Euclidean norm over the last axis, without overflow or underflow, gradient 0 at 0."""
    size = jax.lax.stop_gradient(jnp.max(jnp.abs(x), axis=-1, initial=0.0, keepdims=True))
    endless = jnp.isinf(size)
    usable = (size > 0) & ~endless
    unit = jnp.where(usable, x / jnp.where(usable, size, jnp.ones_like(size)), jnp.ones_like(x))
    size, usable, endless = size[..., 0], usable[..., 0], endless[..., 0]
    length = size * jnp.sqrt(jnp.sum(jnp.square(unit), axis=-1))
    # size itself where there is nothing to differentiate: 0, inf or NaN.
    return jnp.where(usable, length, size)


def kl_divergence(logits: Array, other: Array, *, floor: float = 0.0) -> Array:
    """KL(softmax z || softmax z' + floor) of logits [..., K] in one working dtype; >= 0 for 0.

    Written as sum of p_k (e^r - 1 - r) with r = log p'_k - log p_k: the terms are >= 0 and do not
    cancel where the two are close, and sum p_k (e^r - 1) = sum p'_k - sum p_k = 0.

    Returns:
      [...]; inf where a class of probability > 0 is masked out (-inf) in z' alone.
    """
    log_p, log_q = _log_softmax(logits), _log_softmax(other)
    if floor:  # what p' then sums to too much is taken off below
        log_q = jnp.logaddexp(log_q, jnp.log(jnp.asarray(floor, log_q.dtype)))
    # By the logarithms, so that a gap beyond the largest float counts as a masked class.
    gone, lost = jnp.isneginf(log_p), jnp.isneginf(log_q)
    p, q, zeros = jnp.exp(log_p), jnp.exp(log_q), jnp.zeros_like(log_p)
    ratio = jnp.where(gone | lost, zeros, log_q) - jnp.where(gone | lost, zeros, log_p)
    close = jnp.abs(ratio) < 0.5
    near = p * _expm1_minus(jnp.where(close, ratio, zeros))
    terms = jnp.where(close & ~(gone | lost), near, q - p - p * ratio)
    impossible = jnp.any(lost & ~gone, axis=-1)
    total = jnp.sum(terms, axis=-1) - floor * logits.shape[-1]
    return jnp.where(impossible, jnp.inf, total)


def _log_softmax(z: Array) -> Array:
    """log softmax whose entry of the likeliest class keeps its digits near 0; -inf stays."""
    top = numerics.one_hot_last(jnp.argmax(z, axis=-1), z.shape)
    greatest = jnp.sum(jnp.where(top, z, jnp.zeros_like(z)), axis=-1, keepdims=True)
    # -inf - greatest has no derivative problem: exp sends it to 0 and its slope to 0.
    below = jnp.where(top, jnp.zeros_like(z), z - greatest)
    rest = jnp.sum(jnp.where(top, jnp.zeros_like(z), jnp.exp(below)), axis=-1, keepdims=True)
    return below - jnp.log1p(rest)


def _expm1_minus(r: Array) -> Array:
    """e^r - 1 - r for |r| < 1/2: sum over k >= 2 of r^k / k!."""
    total = jnp.zeros_like(r)
    for k in range(16, 2, -1):  # below an ulp of float64
        total = (total + 1.0) * r / k
    return jnp.square(r) / 2 * (1.0 + total)
