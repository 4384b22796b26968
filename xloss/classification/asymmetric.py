# SPDX-License-Identifier: Apache-2.0
"""Asymmetric losses: robust where every wrong label is rarer than the right one.

Zhou et al. Reach for them beside normalised cross-entropy (:func:`active_passive`) under label
noise that is not uniform.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from xloss import checks, numerics
from xloss.statistics import as_statistics, check_scores
from xloss.typing import Array, Scores


def asymmetric_unhinged(
    scores: Scores,
    labels: ArrayLike | None = None,
    *,
    a: ArrayLike = 1.5,
    q: ArrayLike = 0.9,
    where: ArrayLike | None = None,
) -> Array:
    """Asymmetric unhinged loss.

    Definition, with p = softmax(z)::

        loss = ((a - p_y)^q - (a - 1)^q) / q

    Args:
      scores: logits z [..., K] of any float dtype, or LogitStatistics.
      labels: integer y [...] in [0, K); None beside LogitStatistics.
      a: scalar >= 1, traced.
      q: scalar > 0, traced.
      where: bool [...]; False means loss and gradient exactly 0.

    Returns:
      Losses [...] >= 0, float32 (float64 for float64 scores).

    Raises:
      TypeError: wrong dtypes, or scores and labels of the same shape (see binary_statistics).
      ValueError: shapes that do not fit, a < 1, q <= 0.

    Numerics:
      Computed from 1 - p_y without the difference of powers: accurate for confident examples. With
      a = 1 and q < 1 the derivative in p_y is infinite at p_y = 1; that in the logits is 0 in the
      limit.

    Example:
      >>> import jax.numpy as jnp
      >>> round(float(asymmetric_unhinged(jnp.zeros([1, 2]), jnp.array([0]), a=2.0, q=2.0)[0]), 4)
      0.625

    Evidence: authors' code.

    References:
      Zhou, Liu, Jiang, Gao, Ji, "Asymmetric Loss Functions for Learning with Noisy Labels", ICML
      2021, arXiv 2106.03110; code checked: Optimization-AI/ICML2023_LDR.
    """
    name = "asymmetric_unhinged"
    scores, labels, where = check_scores(name, scores, labels, where)
    a = checks.number(name, "a", a, low=1.0)
    return _unhinged(scores, labels, a, checks.number(name, "q", q, low=0.0, open_low=True), where)


@jax.jit
def _unhinged(scores, labels, a, q, where):
    m = as_statistics(scores, labels, where).log_odds
    a, q = numerics.scalar(a, m), numerics.scalar(q, m)
    # With r = 1 - p: ((a - 1 + r)^q - (a - 1)^q) / q, where a = 1 leaves r^q / q.
    bounded = a > 1.0
    base = jnp.where(bounded, a - 1.0, 1.0)
    rest = jax.nn.sigmoid(-m)
    wide = base**q * jnp.expm1(q * jnp.log1p(rest / base)) / q
    log_rest = jnp.maximum(jax.nn.log_sigmoid(-m), jnp.finfo(m.dtype).min)
    return numerics.masked(jnp.where(bounded, wide, jnp.exp(q * log_rest) / q), where)


def asymmetric_generalized_cross_entropy(
    scores: Scores,
    labels: ArrayLike | None = None,
    *,
    a: ArrayLike = 1.0,
    q: ArrayLike = 2.0,
    where: ArrayLike | None = None,
) -> Array:
    """Asymmetric generalised cross-entropy.

    Definition, with p = softmax(z)::

        loss = ((a + 1)^q - (a + p_y)^q) / q

    Args:
      scores: logits z [..., K] of any float dtype, or LogitStatistics.
      labels: integer y [...] in [0, K); None beside LogitStatistics.
      a: scalar > 0, traced.
      q: scalar > 0, traced.
      where: bool [...]; False means loss and gradient exactly 0.

    Returns:
      Losses [...] >= 0, float32 (float64 for float64 scores).

    Raises:
      TypeError: wrong dtypes, or scores and labels of the same shape (see binary_statistics).
      ValueError: shapes that do not fit, a <= 0, q <= 0.

    Numerics:
      Computed from 1 - p_y without the difference of powers: accurate for confident examples.

    Example:
      >>> import jax.numpy as jnp
      >>> loss = asymmetric_generalized_cross_entropy(jnp.zeros([1, 2]), jnp.array([0]))
      >>> round(float(loss[0]), 4)
      0.875

    Evidence: authors' code.

    References:
      Zhou, Liu, Jiang, Gao, Ji, "Asymmetric Loss Functions for Learning with Noisy Labels", ICML
      2021, arXiv 2106.03110; code checked: Optimization-AI/ICML2023_LDR.
    """
    name = "asymmetric_generalized_cross_entropy"
    scores, labels, where = check_scores(name, scores, labels, where)
    a = checks.number(name, "a", a, low=0.0, open_low=True)
    return _generalized(
        scores, labels, a, checks.number(name, "q", q, low=0.0, open_low=True), where
    )


@jax.jit
def _generalized(scores, labels, a, q, where):
    m = as_statistics(scores, labels, where).log_odds
    a, q = numerics.scalar(a, m), numerics.scalar(q, m)
    top = a + 1.0
    losses = -(top**q) * jnp.expm1(q * jnp.log1p(-jax.nn.sigmoid(-m) / top)) / q
    return numerics.masked(losses, where)
