# SPDX-License-Identifier: Apache-2.0
"""Soft top-k: probabilities that sum to k, differentiable, and the loss of the labels among them.

Gupta et al., DEXML. A sigmoid whose threshold is wherever it must be for k labels to be chosen.
Reach for it where what counts is precision at k: a true label above the threshold costs nothing
more.
"""

import functools

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from xloss import checks, multi_label, numerics
from xloss.typing import Array

#: Newton and bisection take turns, so that a bracket is halved at least half as many times.
_STEPS = 64


def soft_top_k(scores: ArrayLike, k: int | ArrayLike, *, alpha: ArrayLike = 1.0) -> Array:
    """Probabilities of being among the k greatest scores.

    Definition, with the one t for which the row sums to k::

        p_i = sigmoid(alpha (x_i + t)),   sum_i p_i = k

    Args:
      scores: x [..., L] of any float dtype; -inf takes a label out.
      k: how many are chosen, 0 < k < L: an int, or integer [...], one for each row.
      alpha: sharpness, scalar > 0, traced; as it grows, p becomes the indicator of the top k.

    Returns:
      Probabilities [..., L] with sum k, float32 (float64 for float64 scores).

    Raises:
      TypeError: wrong dtypes.
      ValueError: an int k that is not in (0, L), alpha <= 0, shapes that do not fit.

    Numerics:
      The root is found by Newton's method in a bracket, on the difference of two logarithms (of how
      many of the others are chosen, of how many of the top k are not), which stays near a line even
      where all probabilities round to 0 or 1. The derivative is implicit, dt = -sum_i w_i dx_i with
      w = softmax of log p (1 - p), which cannot be 0 / 0; both modes and all orders work.
      Ties share. A row whose k is not in (0, L), with L its finite scores, is NaN.

    Example:
      >>> import jax.numpy as jnp
      >>> p = soft_top_k(jnp.array([3.0, 1.0, 1.0, -2.0]), 2, alpha=4.0)
      >>> [round(float(x), 3) for x in p]
      [1.0, 0.5, 0.5, 0.0]

    Evidence: authors' code.

    References:
      Gupta, Khatri, Rawat, Bhojanapalli, Jain, Dhillon, "Dual-Encoders for Extreme Multi-Label
      Classification", ICLR 2024, arXiv 2310.10636; authors' code nilesh2797/DEXML. Departure:
      solved to rounding, where theirs bisects 32 times.
    """
    *checked, top = _check("soft_top_k", scores, k, alpha)
    return _soft_top_k(*checked, top=top)


def log_soft_top_k(scores: ArrayLike, k: int | ArrayLike, *, alpha: ArrayLike = 1.0) -> Array:
    """Logarithms of :func:`soft_top_k`, exact where the probabilities underflow.

    Args:
      scores: x [..., L] of any float dtype.
      k: how many are chosen, as in :func:`soft_top_k`.
      alpha: sharpness, scalar > 0, traced.

    Returns:
      Log-probabilities [..., L] <= 0, float32 (float64 for float64 scores).

    Raises:
      TypeError: wrong dtypes.
      ValueError: as :func:`soft_top_k`.

    Numerics:
      As :func:`soft_top_k`; log sigmoid is exact in both tails.

    Example:
      >>> import jax.numpy as jnp
      >>> [round(float(x), 3) for x in log_soft_top_k(jnp.zeros(2), 1)]
      [-0.693, -0.693]

    Evidence: authors' code.

    References:
      Gupta, Khatri, Rawat, Bhojanapalli, Jain, Dhillon, "Dual-Encoders for Extreme Multi-Label
      Classification", ICLR 2024, arXiv 2310.10636. Departure as for :func:`soft_top_k`.
    """
    *checked, top = _check("log_soft_top_k", scores, k, alpha)
    return _log_soft_top_k(*checked, top=top)


def soft_top_k_loss(
    scores: ArrayLike,
    labels: ArrayLike,
    *,
    k: int | ArrayLike = 5,
    alpha: ArrayLike = 2.0,
    where: ArrayLike | None = None,
) -> Array:
    """How unlikely the true labels are to be among the k greatest scores.

    Definition::

        loss = -(1 / |P|) sum_{p in P} log p_p,   p = soft_top_k(scores, k)

    Args:
      scores: [..., L] of any float dtype, divided by their temperature already.
      labels: bool or integer in {0, 1} [..., L].
      k: as in :func:`soft_top_k`.
      alpha: sharpness, scalar > 0, traced; the authors' 2.
      where: bool [...]; False means loss and gradient exactly 0.

    Returns:
      Losses [...] >= 0, float32 (float64 for float64 scores); 0 without true labels.

    Raises:
      TypeError: wrong dtypes.
      ValueError: as :func:`soft_top_k`, and shapes that do not fit.

    Numerics:
      As :func:`log_soft_top_k`. Labels other than 0 and 1 give NaN. More than k true labels are all
      counted: the loss then has a positive minimum.

    Example:
      >>> import jax.numpy as jnp
      >>> scores, labels = jnp.array([[9.0, 8.0, 0.0]]), jnp.array([[1, 1, 0]])
      >>> bool(soft_top_k_loss(scores, labels, k=2)[0] < 1e-3)
      True

    Evidence: authors' code.

    References:
      Gupta, Khatri, Rawat, Bhojanapalli, Jain, Dhillon, "Dual-Encoders for Extreme Multi-Label
      Classification", ICLR 2024, arXiv 2310.10636; authors' code nilesh2797/DEXML. Departure: where
      an example has more than k true labels, theirs keeps k of them, drawn at random.
    """
    name = "soft_top_k_loss"
    scores, positive, legal = multi_label.check(name, scores, labels)
    where = checks.mask(name, where, scores.shape[:-1])
    scores, k, alpha, top = _check(name, scores, k, alpha)
    return _loss(scores, positive, legal, k, alpha, where, top=top)


def _check(function, scores, k, alpha):
    scores = checks.floating(function, "scores", scores)
    if scores.ndim == 0 or scores.shape[-1] < 2:
        raise ValueError(
            f"{function}: expected scores of shape (..., labels) with two or more labels, got "
            f"{scores.shape}"
        )
    top = None
    if isinstance(k, int) and not isinstance(k, bool):
        top = k
        if not 0 < k < scores.shape[-1]:
            raise ValueError(
                f"{function}: expected 0 < k < {scores.shape[-1]}, the number of labels, got {k}"
            )
    else:
        k = checks.integer(function, "k", k)
        if k.ndim:
            checks.same_shape(function, "k", k, scores.shape[:-1])
    alpha = checks.number(function, "alpha", alpha, low=0.0, open_low=True)
    return scores, jnp.broadcast_to(jnp.asarray(k, jnp.int32), scores.shape[:-1]), alpha, top


def _logits(scores, k, alpha, top):
    """alpha (x + t) [..., L], -inf at -inf."""
    x = numerics.promote(scores)
    border, following = _border(jax.lax.stop_gradient(x), k, top)
    # t takes up any offset. Seen from the k-th score, those that matter keep their digits; the
    # bounds keep infinity, and with it 0 * inf in the derivatives, out of the product.
    limit = float(jnp.finfo(x.dtype).max)

    def scaled(scores):
        apart = jnp.clip(scores - border, -limit, limit)
        product = jnp.clip(numerics.scalar(alpha, x) * apart, -limit / 4, limit / 4)
        return jnp.where(jnp.isneginf(scores), -jnp.inf, product)

    u = scaled(x)
    return u + _threshold(u, k, jax.lax.stop_gradient(scaled(following)))[..., None]


@functools.partial(jax.jit, static_argnames="top")
def _soft_top_k(scores, k, alpha, *, top):
    return jax.nn.sigmoid(_logits(scores, k, alpha, top))


@functools.partial(jax.jit, static_argnames="top")
def _log_soft_top_k(scores, k, alpha, *, top):
    return jax.nn.log_sigmoid(_logits(scores, k, alpha, top))


@functools.partial(jax.jit, static_argnames="top")
def _loss(scores, positive, legal, k, alpha, where, *, top):
    z = numerics.promote(scores)
    live = jnp.any(positive, axis=-1)
    if where is not None:
        live = live & where
    # A row that costs nothing may have a k without a root, and 0 * NaN is NaN.
    z = jnp.where(live[..., None], z, jnp.zeros_like(z))
    k = jnp.where(live, k, jnp.ones_like(k))
    terms = jax.nn.log_sigmoid(_logits(z, k, alpha, top))
    total = jnp.sum(jnp.where(positive, terms, jnp.zeros_like(terms)), axis=-1)
    losses = -total / jnp.maximum(jnp.sum(positive, axis=-1, dtype=total.dtype), 1.0)
    losses = numerics.masked(losses, live)
    return numerics.masked(jnp.where(legal, losses, jnp.full_like(losses, jnp.nan)), where)


@jax.custom_jvp
def _threshold(u: jax.Array, k: jax.Array, following: jax.Array) -> jax.Array:
    """t [...] with sum sigmoid(u [..., L] + t) = k.

    The k-th greatest of u is 0, the next is following [..., 1].
    """
    finite = ~jnp.isneginf(u)
    count = jnp.sum(finite, axis=-1, dtype=u.dtype)
    wanted = k.astype(u.dtype)
    legal = (wanted > 0) & (wanted < count)
    wanted = jnp.where(legal, wanted, jnp.full_like(wanted, 0.5))
    count = jnp.maximum(count, 1.0)

    # How much of each score belongs to the top k: of ties at its border, a share each.
    level, above = u == 0, u > 0
    left = wanted - jnp.sum(above, axis=-1, dtype=u.dtype)
    share = left / jnp.maximum(jnp.sum(level, axis=-1, dtype=u.dtype), 1.0)
    chosen = jnp.where(above, 1.0, jnp.where(level, share[..., None], 0.0))

    tiny = jnp.finfo(u.dtype).tiny

    def slope_and_gap(t):
        """Of log(others chosen) - log(top ones not chosen): its slope, and itself; one exp each."""
        z = u + t[..., None]
        small = jnp.exp(-jnp.abs(z))
        large = 1.0 / (1.0 + small)
        small = small * large
        up, down = jnp.where(z > 0, large, small), jnp.where(z > 0, small, large)
        wrong = jnp.maximum(jnp.sum((1.0 - chosen) * up, axis=-1), tiny)
        missed = jnp.maximum(jnp.sum(chosen * down, axis=-1), tiny)
        both = large * small
        slope = jnp.sum((1.0 - chosen) * both, axis=-1) / wrong
        slope += jnp.sum(chosen * both, axis=-1) / missed
        return slope, jnp.log(wrong) - jnp.log(missed)

    def slope_and_gap_of_logs(t):
        """The same where everything underflows."""
        z = u + t[..., None]
        wrong, weight = _weighted(jax.nn.log_sigmoid(z), 1.0 - chosen)
        missed, other = _weighted(jax.nn.log_sigmoid(-z), chosen)
        p = jax.nn.sigmoid(z)
        slope = jnp.sum(weight * (1.0 - p), axis=-1) + jnp.sum(other * p, axis=-1)
        return slope, wrong - missed

    even = jnp.log(wanted) - jnp.log(count - wanted)
    low = even - jnp.max(u, axis=-1)
    high = even - jnp.min(jnp.where(finite, u, jnp.inf), axis=-1)
    start = -0.5 * jnp.where(jnp.isfinite(following), following, 0.0)[..., 0]

    def step(carry):
        i, low, high, t, _ = carry
        slope, gap = slope_and_gap(t)
        low, high = jnp.where(gap < 0, t, low), jnp.where(gap < 0, high, t)
        newton = t - gap / jnp.maximum(slope, tiny)
        inside = (newton >= low) & (newton <= high) & (i % 4 != 3)
        following = jnp.where(inside, newton, low + 0.5 * (high - low))
        # Not the distance: of t's own size, at which u + t rounds.
        size = jnp.abs(t) + jnp.max(jnp.where(finite, jnp.abs(u), 0.0), axis=-1)
        still = jnp.abs(following - t) > 2.0 * jnp.finfo(u.dtype).eps * size
        return i + 1, low, high, following, still & legal

    def going(carry):
        return (carry[0] < _STEPS) & jnp.any(carry[-1])

    begin = (0, low, high, jnp.clip(start, low, high), legal)
    _, low, high, t, _ = jax.lax.while_loop(going, step, begin)
    for _ in range(2):
        slope, gap = slope_and_gap_of_logs(t)
        newton = t - gap / slope
        # Where the sums above were lost the bracket is, too, and the slope is between 1 and 2.
        lost = jnp.abs(gap) > 1.0
        t = jnp.where(
            jnp.isfinite(newton) & (lost | ((newton >= low) & (newton <= high))), newton, t
        )
    return jnp.where(legal, t, jnp.full_like(t, jnp.nan))


def _border(u, k, top):
    """The k-th and the (k + 1)-th greatest of u, each [..., 1]; top is the same k as an int."""
    if top is not None and top < 64:  # a full sort is slower by far
        best = jax.lax.top_k(u, top + 1)[0]
        return best[..., -2:-1], best[..., -1:]
    ordered = jnp.sort(u, axis=-1)

    def taken(place):
        place = jnp.clip(place, 0, u.shape[-1] - 1)
        return jnp.take_along_axis(ordered, place[..., None], axis=-1)

    return taken(u.shape[-1] - k), taken(u.shape[-1] - k - 1)


def _weighted(logs, weights):
    """log sum_i weights_i exp(logs_i), and each term's part of it."""
    terms = jnp.where(weights > 0, logs, -jnp.inf)
    top = jnp.max(terms, axis=-1)
    top = jnp.where(jnp.isfinite(top), top, jnp.zeros_like(top))
    found = weights * jnp.exp(terms - top[..., None])
    total = jnp.sum(found, axis=-1)
    return jnp.log(total) + top, found / total[..., None]


@_threshold.defjvp
def _threshold_jvp(primals, tangents):
    (u, k, following), (u_dot, _, _) = primals, tangents
    t = _threshold(u, k, following)
    z = u + t[..., None]
    weights = jax.nn.softmax(jax.nn.log_sigmoid(z) + jax.nn.log_sigmoid(-z), axis=-1)
    return t, -jnp.sum(weights * jnp.where(jnp.isneginf(u), 0.0, u_dot), axis=-1)
