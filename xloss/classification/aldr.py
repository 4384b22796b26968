# SPDX-License-Identifier: Apache-2.0
"""ALDR-KL: the label-distributionally-robust loss that chooses each example's temperature.

Zhu, Ying and Yang. Where the model is sure the temperature falls, where it is not it rises back to
lam0. Reach for it under label noise that differs between examples; :func:`aldr_kl` needs no state,
:func:`aldr_kl_step` is the authors' training with one temperature stored for each example.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from xloss import checks, numerics
from xloss.classification.ldr import check_normalize, normalized
from xloss.statistics import check_scores, logit_statistics
from xloss.typing import Array

#: Temperatures that are tried before the best of them is refined, and halvings of its bracket.
_GRID, _HALVINGS = 32, 50
#: What the authors add to every probability before its divergence is taken.
_PROBABILITY_EPS = 1e-5


class ALDRState(NamedTuple):
    """The temperature of every training example.

    Attributes:
      lam: [N].
    """

    lam: Array


def aldr_kl(
    scores: ArrayLike,
    labels: ArrayLike,
    *,
    lam0: ArrayLike = 1.0,
    alpha: ArrayLike = 2.0,
    margin: ArrayLike = 0.1,
    num_steps: int | None = None,
    normalize: str | None = None,
    where: ArrayLike | None = None,
) -> Array:
    """LDR-KL at the worst temperature, which is drawn to lam0.

    Definition, with d as in :func:`ldr_kl`::

        loss = max over lam >= 0 and distributions p of
               sum_k p_k d_k - lam KL(p || uniform) - alpha log K / (2 lam0) (lam - lam0)^2

    at its maximum p = softmax(d / lam) and lam = lam0 (1 - KL / (alpha log K)), not below 0. The
    gradient in the logits is p - e_y there.

    Args:
      scores: logits z [..., K] of any float dtype.
      labels: integer y [...] in [0, K).
      lam0: scalar > 0, traced.
      alpha: scalar > 0, traced; above 1 lam stays positive, and as it grows lam tends to lam0.
      margin: scalar >= 0, traced.
      num_steps: None for the global maximum; n for n steps of p and lam in turns from lam = lam0.
      normalize: as in :func:`ldr_kl`; the authors train with "l1_mean".
      where: bool [...]; False means loss and gradient exactly 0.

    Returns:
      Losses [...] >= -lam0 log K, at least those of ldr_kl with lam0 for num_steps=None, float32
      (float64 for float64 scores). :func:`aldr_lam` has the temperatures.

    Raises:
      TypeError: wrong dtypes, or LogitStatistics (every logit is read).
      ValueError: shapes that do not fit, numbers out of range, an unknown normalize.

    Numerics:
      The maximum over lam is not of a concave function, and may not be unique: a grid comes first,
      then bisection of the derivative. lam is held above 1e-9 lam0 (it reaches 0 for alpha < 1). No
      gradient flows through lam; for the maximum that is exact (envelope theorem), and second
      derivatives take its implicit derivative. With num_steps they do not.

    Example:
      >>> import jax.numpy as jnp
      >>> logits, labels = jnp.array([[5.0, 0.0], [0.1, 0.0]]), jnp.array([0, 0])
      >>> lam = aldr_lam(logits, labels)  # the first example is the surer one
      >>> bool(lam[0] < lam[1] <= 1.0)
      True

    Evidence: published formula, derived and checked.

    References:
      Zhu, Ying, Yang, "Label Distributionally Robust Losses for Multi-class Classification:
      Consistency, Robustness and Adaptivity", ICML 2023, arXiv 2112.14869; authors' code
      Optimization-AI/ICML2023_LDR, whose training is :func:`aldr_kl_step`. alpha is that of the
      code; the paper's is alpha log K / lam0.
    """
    checked = _check("aldr_kl", scores, labels, where, lam0, alpha, margin, num_steps, normalize)
    return _aldr(*checked, num_steps=num_steps, normalize=normalize)[0]


def aldr_lam(
    scores: ArrayLike,
    labels: ArrayLike,
    *,
    lam0: ArrayLike = 1.0,
    alpha: ArrayLike = 2.0,
    margin: ArrayLike = 0.1,
    num_steps: int | None = None,
    normalize: str | None = None,
    where: ArrayLike | None = None,
) -> Array:
    """The temperatures at which :func:`aldr_kl` is taken: low where the model is sure.

    Args:
      scores, labels, lam0, alpha, margin, num_steps, normalize, where: as in :func:`aldr_kl`.

    Returns:
      lam [...] in (0, lam0], without a gradient.

    Raises:
      TypeError, ValueError: as :func:`aldr_kl`.

    Numerics:
      As :func:`aldr_kl`.

    Example:
      >>> import jax.numpy as jnp
      >>> aldr_lam(jnp.zeros([1, 3]), jnp.array([0]), margin=0.0).tolist()
      [1.0]

    Evidence: published formula, derived and checked.

    References:
      Zhu, Ying, Yang, "Label Distributionally Robust Losses for Multi-class Classification:
      Consistency, Robustness and Adaptivity", ICML 2023, arXiv 2112.14869.
    """
    checked = _check("aldr_lam", scores, labels, where, lam0, alpha, margin, num_steps, normalize)
    return _aldr(*checked, num_steps=num_steps, normalize=normalize)[1]


def init_aldr(num_examples: int, *, lam0: ArrayLike = 1.0) -> ALDRState:
    """The state before any example was seen: lam0 for each.

    Args:
      num_examples: N >= 1, of the training set.
      lam0: scalar > 0.

    Returns:
      ALDRState of float32.

    Raises:
      ValueError: num_examples < 1, lam0 <= 0.

    Numerics:
      None: it is a constant.

    Example:
      >>> init_aldr(2, lam0=3.0).lam.tolist()
      [3.0, 3.0]

    Evidence: authors' code.

    References:
      Zhu, Ying, Yang, "Label Distributionally Robust Losses for Multi-class Classification:
      Consistency, Robustness and Adaptivity", ICML 2023, arXiv 2112.14869.
    """
    if type(num_examples) is not int or num_examples < 1:
        raise ValueError(
            f"init_aldr: expected num_examples to be an int >= 1, got {num_examples!r}"
        )
    lam0 = checks.number("init_aldr", "lam0", lam0, low=0.0, open_low=True)
    return ALDRState(jnp.full((num_examples,), lam0, jnp.float32))


def aldr_kl_step(
    state: ALDRState,
    indices: ArrayLike,
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    lam0: ArrayLike = 1.0,
    alpha: ArrayLike = 2.0,
    margin: ArrayLike = 0.1,
    normalize: str | None = "l1_mean",
    where: ArrayLike | None = None,
) -> tuple[Array, ALDRState]:
    """The authors' ALDR-KL: one step of each example's stored temperature, then the loss at it.

    Definition::

        p = softmax(z / lam[i]) without the margin, plus 1e-5, normalised
        lam[i] <- max(lam0 (1 - KL(p || uniform) / (alpha log K)), 0)
        loss = value of :func:`aldr_kl`'s objective at the new lam[i], p = softmax(d / lam[i])

    Args:
      state: ALDRState.
      indices: integer [B] in [0, N), each example's place in the state.
      logits: z [B, K] of any float dtype.
      labels: integer y [B] in [0, K).
      lam0: scalar > 0, traced.
      alpha: scalar > 0, traced.
      margin: scalar >= 0, traced.
      normalize: as in :func:`ldr_kl`.
      where: bool [B]; a masked example has loss 0, and its temperature stays.

    Returns:
      (losses [B], state); nothing flows into lam.

    Raises:
      TypeError: wrong dtypes.
      ValueError: shapes that do not fit, numbers out of range, an unknown normalize.

    Numerics:
      lam is held above 1e-9 lam0. An index out of range changes nothing and gives a NaN loss.

    Example:
      >>> import jax.numpy as jnp
      >>> losses, state = aldr_kl_step(
      ...     init_aldr(3), jnp.array([2]), jnp.array([[5.0, 0.0]]), jnp.array([0]))
      >>> state.lam[:2].tolist(), bool(state.lam[2] < 1.0)
      ([1.0, 1.0], True)

    Evidence: authors' code.

    References:
      Zhu, Ying, Yang, "Label Distributionally Robust Losses for Multi-class Classification:
      Consistency, Robustness and Adaptivity", ICML 2023, arXiv 2112.14869; authors' code
      Optimization-AI/ICML2023_LDR. Departure: a floor under lam, which is 0 / 0 in theirs.
    """
    name = "aldr_kl_step"
    if not isinstance(state, ALDRState):
        raise TypeError(f"{name}: expected state to be an ALDRState, got {checks.describe(state)}")
    checked = _check(name, logits, labels, where, lam0, alpha, margin, None, normalize)
    indices = checks.integer(name, "indices", indices)
    checks.same_shape(name, "indices", indices, checked[1].shape)
    return _step(state, indices, *checked, normalize=normalize)


def _check(name, scores, labels, where, lam0, alpha, margin, num_steps, normalize):
    scores, labels, where = check_scores(name, scores, labels, where, needs_logits=True)
    if num_steps is not None and (type(num_steps) is not int or num_steps < 0):
        raise ValueError(f"{name}: expected num_steps to be None or an int >= 0, got {num_steps!r}")
    check_normalize(name, scores, normalize)
    lam0 = checks.number(name, "lam0", lam0, low=0.0, open_low=True)
    alpha = checks.number(name, "alpha", alpha, low=0.0, open_low=True)
    return scores, labels, where, lam0, alpha, checks.number(name, "margin", margin, low=0.0)


@functools.partial(jax.jit, static_argnames=("num_steps", "normalize"))
def _aldr(scores, labels, where, lam0, alpha, margin, *, num_steps, normalize):
    z = normalized(scores, where, normalize)
    lam0, alpha, margin = (numerics.scalar(x, z) for x in (lam0, alpha, margin))
    log_k = _log_classes(z)
    gaps = _gaps(z, labels, margin)
    start = jnp.full_like(log_k, lam0)
    if num_steps is None:
        # Differentiable, so that second derivatives are right; the first does not need it.
        lam = _best(gaps, log_k, lam0, alpha)
    else:
        gaps, *fixed = jax.lax.stop_gradient((gaps, lam0, alpha))

        def turn(_, lam):
            return _temperature(_divergence(gaps, lam, log_k), log_k, *fixed)

        lam = jax.lax.stop_gradient(jax.lax.fori_loop(0, num_steps, turn, start))
    return _value(z, labels, where, lam, log_k, lam0, alpha, margin), lam


@functools.partial(jax.jit, static_argnames="normalize")
def _step(state, indices, logits, labels, where, lam0, alpha, margin, *, normalize):
    z = normalized(logits, where, normalize)
    lam0, alpha, margin = (numerics.scalar(x, z) for x in (lam0, alpha, margin))
    log_k = _log_classes(z)
    size = state.lam.shape[0]
    found = (indices >= 0) & (indices < size)
    before = state.lam[jnp.where(found, indices, 0)].astype(z.dtype)
    alive = ~jnp.isneginf(z)
    p = jax.nn.softmax(jax.lax.stop_gradient(z) / before[:, None], axis=-1)
    p = jnp.where(alive, p + _PROBABILITY_EPS, 0.0)
    p = p / jnp.sum(p, axis=-1, keepdims=True)
    logs = jnp.log(jnp.where(alive, p, 1.0))
    lam = _temperature(jnp.sum(p * logs, axis=-1) + log_k, log_k, lam0, alpha)
    lam = jax.lax.stop_gradient(lam)
    losses = _value(z, labels, where, lam, log_k, lam0, alpha, margin)
    kept = found if where is None else found & where
    place = jnp.where(kept, indices, size)
    stored = state.lam.at[place].set(lam.astype(state.lam.dtype), mode="drop")
    losses = jnp.where(found, losses, jnp.full_like(losses, jnp.nan))
    return numerics.masked(losses, where), ALDRState(stored)


def _log_classes(z):
    return jnp.log(jnp.sum(~jnp.isneginf(z), axis=-1, dtype=z.dtype))


def _gaps(z, labels, margin):
    """d [..., K]: 0 at the label."""
    hit = numerics.one_hot_last(labels, z.shape)
    own = jnp.sum(jnp.where(hit, z, 0.0), axis=-1, keepdims=True)
    return jnp.where(hit, 0.0, z - own + margin)


def _divergence(gaps, lam, log_k):
    """KL(softmax(d / lam) || uniform)."""
    u = _from_top(gaps) / lam[..., None]
    p = jax.nn.softmax(u, axis=-1)
    mean = jnp.sum(p * jnp.where(jnp.isneginf(u), 0.0, u), axis=-1)
    return jnp.maximum(mean - jax.nn.logsumexp(u, axis=-1) + log_k, 0.0)


def _from_top(gaps):
    # Before they are divided: a compiler may fuse u - max u, u = gaps / lam, to other than 0 where
    # u is huge.
    return gaps - jax.lax.stop_gradient(jnp.max(gaps, axis=-1, keepdims=True))


def _temperature(divergence, log_k, lam0, alpha):
    part = divergence / jnp.where(log_k > 0, alpha * log_k, 1.0)
    return lam0 * jnp.maximum(1.0 - part, 1e-9)


def _value(z, labels, where, lam, log_k, lam0, alpha, margin):
    m = logit_statistics(numerics.tempered(z, lam[..., None]), labels, where=where).log_odds
    robust = lam * (jax.nn.softplus(margin / lam - m) - log_k)
    return numerics.masked(robust - alpha * log_k / (2.0 * lam0) * jnp.square(lam - lam0), where)


@jax.custom_jvp
def _best(gaps, log_k, lam0, alpha):
    """The lam at which the objective is greatest."""

    def objective(lam):
        robust = lam * (jax.nn.logsumexp(_from_top(gaps) / lam[..., None], axis=-1) - log_k)
        return robust - alpha * log_k / (2.0 * lam0) * jnp.square(lam - lam0)

    low = lam0 * jnp.maximum(1.0 - 1.0 / alpha, 1e-9)
    width = (lam0 - low) / _GRID

    def try_one(i, best):
        lam = jnp.full_like(log_k, low + width * i)
        value = objective(lam)
        better = value > best[0]
        return jnp.where(better, value, best[0]), jnp.where(better, lam, best[1])

    start = jnp.full_like(log_k, lam0)
    _, lam = jax.lax.fori_loop(0, _GRID, try_one, (objective(start), start))

    def halve(_, bracket):
        left, right = bracket
        middle = 0.5 * (left + right)
        # The sign of the objective's derivative.
        rising = _temperature(_divergence(gaps, middle, log_k), log_k, lam0, alpha) > middle
        return jnp.where(rising, middle, left), jnp.where(rising, right, middle)

    bracket = jnp.maximum(lam - width, low), jnp.minimum(lam + width, lam0)
    left, right = jax.lax.fori_loop(0, _HALVINGS, halve, bracket)
    return 0.5 * (left + right)


@_best.defjvp
def _best_jvp(primals, tangents):
    gaps, log_k, lam0, alpha = primals
    gaps_dot, _, lam0_dot, alpha_dot = tangents
    lam = _best(*primals)
    # The objective's derivative in lam, 0 = -KL - alpha log K (lam / lam0 - 1), differentiated. A
    # gap of probability 0 may be as large as it likes.
    u = _from_top(gaps) / lam[..., None]
    p = jax.nn.softmax(u, axis=-1)
    u = jnp.where(p > 0, u, 0.0)
    apart = jnp.where(p > 0, u - jnp.sum(p * u, axis=-1, keepdims=True), 0.0)
    pull = p * apart
    moved = -jnp.sum(pull * jnp.where(jnp.isneginf(gaps), 0.0, gaps_dot), axis=-1) / lam
    moved += log_k * (alpha * lam / jnp.square(lam0) * lam0_dot - (lam / lam0 - 1.0) * alpha_dot)
    bend = jnp.sum(pull * apart, axis=-1) / lam - alpha * log_k / lam0
    inside = (bend < 0) & (lam > 1e-6 * lam0)
    return lam, jnp.where(inside, -moved / jnp.where(inside, bend, -jnp.ones_like(bend)), 0.0)
