# SPDX-License-Identifier: Apache-2.0
"""Focal loss: cross-entropy with the easy examples turned down.

Lin, Goyal, Girshick, He, Dollar, "Focal Loss for Dense Object Detection". Reach for it when easy
examples outnumber the hard ones by orders of magnitude (dense detection, rare positives). Class
weights (the paper's alpha) belong to the reduction: ``xloss.reduce(losses, weights=...)``.
"""

import jax
from jax.typing import ArrayLike

from xloss import checks, numerics, surrogates
from xloss.statistics import as_statistics, check_scores
from xloss.typing import Array, Scores


def focal(
    scores: Scores,
    labels: ArrayLike | None = None,
    *,
    gamma: ArrayLike = 2.0,
    where: ArrayLike | None = None,
) -> Array:
    """Focal loss, (1 - p_y)^gamma times cross-entropy.

    Definition, with p = softmax(z), or p = sigmoid(f) through binary_statistics::

        loss = -(1 - p_y)^gamma log p_y

    Args:
      scores: logits z [..., K] of any float dtype, or LogitStatistics.
      labels: integer y [...] in [0, K); None beside LogitStatistics.
      gamma: focusing parameter, scalar >= 0, traced; 0 is cross-entropy.
      where: bool [...]; False means loss and gradient exactly 0.

    Returns:
      Losses [...] >= 0, float32 (float64 for float64 scores).

    Raises:
      TypeError: wrong dtypes, or scores and labels of the same shape (see binary_statistics).
      ValueError: shapes that do not fit, gamma < 0.

    Numerics:
      1 - p_y is sigmoid(-m), exact for confident examples; gamma = 0 and p_y = 1 meet without
      0 * inf, in the derivatives by the logits and by gamma too.

    Example:
      >>> import jax.numpy as jnp
      >>> loss = focal(jnp.zeros([1, 2]), jnp.array([0]), gamma=1.0)
      >>> bool(jnp.allclose(loss, 0.5 * jnp.log(2.0)))
      True

    Evidence: published formula, derived and checked.

    References:
      Lin, Goyal, Girshick, He, Dollar, "Focal Loss for Dense Object Detection", ICCV 2017,
      arXiv 1708.02002.
    """
    scores, labels, where = check_scores("focal", scores, labels, where)
    return _focal(scores, labels, checks.number("focal", "gamma", gamma, low=0.0), where)


@jax.jit
def _focal(scores, labels, gamma, where):
    stats = as_statistics(scores, labels, where)
    return numerics.masked(surrogates.focal(stats.log_odds, gamma=gamma), where)
