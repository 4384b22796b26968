# SPDX-License-Identifier: Apache-2.0
"""Brier score as a loss.

Brier. Reach for it where calibration of all probabilities counts and outliers should not dominate
as they do in cross-entropy.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from xloss import numerics
from xloss.statistics import as_statistics, check_scores
from xloss.typing import Array


def brier(
    scores: ArrayLike,
    labels: ArrayLike,
    *,
    where: ArrayLike | None = None,
) -> Array:
    """Brier score: the squared distance between label and prediction.

    Definition, with p = softmax(z)::

        loss = sum_k (e_k - p_k)^2

    Args:
      scores: logits z [..., K] of any float dtype.
      labels: integer y [...] in [0, K).
      where: bool [...]; False means loss and gradient exactly 0.

    Returns:
      Losses [...] in [0, 2], float32 (float64 for float64 scores).

    Raises:
      TypeError: wrong dtypes, or LogitStatistics (every logit is read).
      ValueError: shapes that do not fit.

    Numerics:
      (1 - p_y)^2 plus the squares of the others, both without a difference that cancels. Proper,
      bounded, and its gradient vanishes for confident mistakes.

    Example:
      >>> import jax.numpy as jnp
      >>> brier(jnp.zeros([1, 2]), jnp.array([0])).tolist()
      [0.5]

    Evidence: authors' code.

    References:
      Brier, "Verification of Forecasts Expressed in Terms of Probability", Monthly Weather Review
      1950; code checked: Optimization-AI/ICML2023_LDR.
    """
    scores, labels, where = check_scores("brier", scores, labels, where, needs_logits=True)
    return _brier(scores, labels, where)


@jax.jit
def _brier(scores, labels, where):
    z = numerics.promote(scores)
    if where is not None:
        z = jnp.where(where[..., None], z, jnp.zeros_like(z))
    m = as_statistics(z, labels, where).log_odds
    p = jax.nn.softmax(z, axis=-1)
    rival = ~numerics.one_hot_last(labels, z.shape)
    others = jnp.sum(jnp.where(rival, jnp.square(p), 0.0), axis=-1)
    return numerics.masked(jnp.square(jax.nn.sigmoid(-m)) + others, where)
