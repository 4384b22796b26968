# SPDX-License-Identifier: Apache-2.0
"""Robust log loss: a logarithm that is symmetric in the labels.

Patel and Sastry. Reach for it under uniform label noise as a smoother mean absolute error.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from xloss import checks, numerics
from xloss.statistics import as_statistics, check_scores
from xloss.typing import Array


def robust_log_loss(
    scores: ArrayLike,
    labels: ArrayLike,
    *,
    alpha: ArrayLike = 0.1,
    where: ArrayLike | None = None,
) -> Array:
    """Robust log loss.

    Definition, with p = softmax(z)::

        loss = log((alpha + 1) / alpha) - log(alpha + p_y) + sum_{k != y} log(alpha + p_k) / (K - 1)

    Args:
      scores: logits z [..., K] of any float dtype.
      labels: integer y [...] in [0, K).
      alpha: scalar > 0, traced; larger is closer to the mean absolute error.
      where: bool [...]; False means loss and gradient exactly 0.

    Returns:
      Losses [...] >= 0, float32 (float64 for float64 scores).

    Raises:
      TypeError: wrong dtypes, or LogitStatistics (every logit is read).
      ValueError: shapes that do not fit, alpha <= 0.

    Numerics:
      As log1p((1 - p_y) / (alpha + p_y)) + sum log1p(p_k / alpha) / (K - 1), which does not cancel
      for confident examples. Its sum over labels is a constant.

    Example:
      >>> import jax.numpy as jnp
      >>> loss = robust_log_loss(jnp.zeros([1, 2]), jnp.array([0]), alpha=0.5)
      >>> round(float(loss[0]), 4)  # log 3
      1.0986

    Evidence: published formula, derived and checked.

    References:
      Patel, Sastry, "Memorization in Deep Neural Networks: Does the Loss Function matter?", PAKDD
      2021, arXiv 2107.09957. Departure from Optimization-AI/ICML2023_LDR, whose second term is
      another one.
    """
    name = "robust_log_loss"
    scores, labels, where = check_scores(name, scores, labels, where, needs_logits=True)
    alpha = checks.number(name, "alpha", alpha, low=0.0, open_low=True)
    return _robust_log(scores, labels, alpha, where)


@jax.jit
def _robust_log(scores, labels, alpha, where):
    z = numerics.promote(scores)
    if where is not None:
        z = jnp.where(where[..., None], z, jnp.zeros_like(z))
    m = as_statistics(z, labels, where).log_odds
    alpha = numerics.scalar(alpha, m)
    rival = ~numerics.one_hot_last(labels, z.shape)
    each = jnp.where(rival, jnp.log1p(jax.nn.softmax(z, axis=-1) / alpha), 0.0)
    alive = jnp.sum(~jnp.isneginf(z), axis=-1, dtype=z.dtype)
    others = jnp.sum(each, axis=-1) / jnp.maximum(alive - 1.0, 1.0)
    own = jnp.log1p(jax.nn.sigmoid(-m) / (alpha + jax.nn.sigmoid(m)))
    return numerics.masked(own + others, where)
