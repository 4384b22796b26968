# SPDX-License-Identifier: Apache-2.0
"""Comp-sum losses: one parameter from sum-exponential over cross-entropy to the mean error.

Mao, Mohri, Zhong, "Cross-Entropy Loss Functions: Theoretical Analysis and Applications".
Reach for it to trade optimisation against robustness along tau: tau = 1 is cross-entropy,
1 < tau < 2 is generalised cross-entropy (label noise), tau = 2 the mean absolute error (bounded,
hard to optimise with many classes), tau < 1 punishes errors harder.
"""

import jax
from jax.typing import ArrayLike

from xloss import checks, numerics, surrogates
from xloss.statistics import as_statistics, check_scores
from xloss.typing import Array, Scores


def comp_sum(
    scores: Scores,
    labels: ArrayLike | None = None,
    *,
    tau: ArrayLike = 1.0,
    where: ArrayLike | None = None,
) -> Array:
    """The comp-sum loss Phi_tau of the odds against the true class.

    Definition, with p = softmax(z), S = sum over k != y of exp(z_k - z_y) = 1 / p_y - 1::

        loss = ((1 + S)^(1 - tau) - 1) / (1 - tau) = (p_y^(tau - 1) - 1) / (1 - tau)
        tau -> 1: -log p_y.  tau = 0: S.  tau = 1 + q: (1 - p_y^q) / q.  tau = 2: 1 - p_y
        gradient: p_y^(tau - 1) (p_k - [k = y])

    Args:
      scores: logits z [..., K] of any float dtype, or LogitStatistics.
      labels: integer y [...] in [0, K); None beside LogitStatistics.
      tau: scalar >= 0, traced: one compile serves every value, grad and vmap over it work.
      where: bool [...]; False means loss and gradient exactly 0.

    Returns:
      Losses [...] >= 0, float32 (float64 for float64 scores); < 1 / (tau - 1) for tau > 1.

    Raises:
      TypeError: wrong dtypes, or scores and labels of the same shape (see binary_statistics).
      ValueError: shapes that do not fit, tau < 0.

    Numerics:
      Accurate through tau = 1, the derivative in tau included. For tau < 1 it grows as
      p_y^(tau - 1): inf in float32 once (1 - tau) (-log p_y) > 88, where the gradient saturates
      at the greatest float instead of turning NaN. Non-increasing in tau.

    Example:
      >>> import jax.numpy as jnp
      >>> logits, labels = jnp.log(jnp.array([[0.25, 0.75]])), jnp.array([0])
      >>> [round(float(comp_sum(logits, labels, tau=t)[0]), 4) for t in (0.0, 1.0, 2.0)]
      [3.0, 1.3863, 0.75]

    Evidence: published formula, derived and checked.

    References:
      Mao, Mohri, Zhong, "Cross-Entropy Loss Functions: Theoretical Analysis and Applications",
      ICML 2023, arXiv 2304.07288. No authors' code is known.
    """
    scores, labels, where = check_scores("comp_sum", scores, labels, where)
    return _comp_sum(scores, labels, checks.number("comp_sum", "tau", tau, low=0.0), where)


@jax.jit
def _comp_sum(scores, labels, tau, where):
    stats = as_statistics(scores, labels, where)
    return numerics.masked(surrogates.comp_sum(stats.log_odds, tau=tau), where)
