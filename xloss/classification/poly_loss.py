# SPDX-License-Identifier: Apache-2.0
"""PolyLoss: cross-entropy with the first coefficient of its expansion moved.

Leng, Tan, Liu, Cubuk, Shi, Cheng, Anguelov, "PolyLoss: A Polynomial Expansion Perspective of
Classification Loss Functions". Reach for it when one number beside cross-entropy may be tuned:
epsilon > 0 asks for confidence (balanced images), epsilon < 0 for less of it (imbalanced boxes).
"""

import jax
from jax.typing import ArrayLike

from xloss import checks, numerics, surrogates
from xloss.statistics import as_statistics, check_scores
from xloss.typing import Array, Scores


def poly_loss(
    scores: Scores,
    labels: ArrayLike | None = None,
    *,
    epsilon: ArrayLike = 2.0,
    where: ArrayLike | None = None,
) -> Array:
    """Poly-1: cross-entropy plus epsilon (1 - p_y).

    Definition, with p = softmax(z), or p = sigmoid(f) through binary_statistics::

        loss = -log p_y + epsilon (1 - p_y)
             = (1 + epsilon) (1 - p_y) + (1 - p_y)^2 / 2 + (1 - p_y)^3 / 3 + ...

    Args:
      scores: logits z [..., K] of any float dtype, or LogitStatistics.
      labels: integer y [...] in [0, K); None beside LogitStatistics.
      epsilon: what is added to the first coefficient, scalar >= -1, traced; 0 is cross-entropy.
        Below -1 the loss would grow as p_y reaches 1. 2 is the paper's choice on ImageNet.
      where: bool [...]; False means loss and gradient exactly 0.

    Returns:
      Losses [...] >= 0, float32 (float64 for float64 scores).

    Raises:
      TypeError: wrong dtypes, or scores and labels of the same shape (see binary_statistics).
      ValueError: shapes that do not fit, epsilon < -1.

    Numerics:
      1 - p_y is sigmoid(-m), exact for confident examples. Near epsilon = -1 the first order of
      the two terms cancels: the rounding left is that of cross-entropy, not of their difference.

    Example:
      >>> import jax.numpy as jnp
      >>> loss = poly_loss(jnp.zeros([1, 2]), jnp.array([0]), epsilon=1.0)
      >>> bool(jnp.allclose(loss, jnp.log(2.0) + 0.5))
      True

    Evidence: published formula, derived and checked.

    References:
      Leng, Tan, Liu, Cubuk, Shi, Cheng, Anguelov, "PolyLoss: A Polynomial Expansion Perspective
      of Classification Loss Functions", ICLR 2022, arXiv 2204.12511.
    """
    scores, labels, where = check_scores("poly_loss", scores, labels, where)
    return _poly(scores, labels, checks.number("poly_loss", "epsilon", epsilon, low=-1.0), where)


@jax.jit
def _poly(scores, labels, epsilon, where):
    stats = as_statistics(scores, labels, where)
    return numerics.masked(surrogates.poly_loss(stats.log_odds, epsilon=epsilon), where)
