# SPDX-License-Identifier: Apache-2.0
"""Generalised cross-entropy: between cross-entropy and the mean absolute error.

Zhang and Sabuncu, "Generalized Cross Entropy Loss for Training Deep Neural Networks with Noisy
Labels". Reach for it when labels are noisy and q can be chosen on clean validation data; it is
comp_sum at tau = 1 + q, under the name and parameter that the noise literature uses.
"""

import jax
from jax.typing import ArrayLike

from xloss import checks, numerics
from xloss.statistics import as_statistics, check_scores
from xloss.typing import Array, Scores


def generalized_cross_entropy(
    scores: Scores,
    labels: ArrayLike | None = None,
    *,
    q: ArrayLike = 0.7,
    where: ArrayLike | None = None,
) -> Array:
    """The L_q loss, (1 - p_y^q) / q.

    Definition, with p = softmax(z)::

        loss = (1 - p_y^q) / q;  q -> 0: -log p_y;  q = 1: 1 - p_y

    Args:
      scores: logits z [..., K] of any float dtype, or LogitStatistics.
      labels: integer y [...] in [0, K); None beside LogitStatistics.
      q: scalar in [0, 1], traced; 0 is cross-entropy.
      where: bool [...]; False means loss and gradient exactly 0.

    Returns:
      Losses [...] in [0, 1 / q], float32 (float64 for float64 scores).

    Raises:
      TypeError: wrong dtypes, or scores and labels of the same shape (see binary_statistics).
      ValueError: shapes that do not fit, q outside [0, 1].

    Numerics:
      Accurate for p_y close to 1 and for q close to 0. The gradient vanishes as p_y^q where the
      model is sure of another class: that is the robustness. p_y is never clipped (published
      implementations clip at 1e-7, which kills the gradient of the worst examples).

    Example:
      >>> import jax.numpy as jnp
      >>> logits = jnp.log(jnp.array([[0.25, 0.75]]))
      >>> round(float(generalized_cross_entropy(logits, jnp.array([0]), q=0.5)[0]), 6)
      1.0

    Evidence: published formula, derived and checked.

    References:
      Zhang, Sabuncu, "Generalized Cross Entropy Loss for Training Deep Neural Networks with
      Noisy Labels", NeurIPS 2018, arXiv 1805.07836. The truncated form is a loss of its own.
    """
    name = "generalized_cross_entropy"
    scores, labels, where = check_scores(name, scores, labels, where)
    return _generalized(scores, labels, checks.number(name, "q", q, low=0.0, high=1.0), where)


@jax.jit
def _generalized(scores, labels, q, where):
    stats = as_statistics(scores, labels, where)
    rate = -numerics.scalar(q, stats.log_odds)
    return numerics.masked(numerics.scaled_expm1(rate, numerics.nats(stats.log_odds)), where)
