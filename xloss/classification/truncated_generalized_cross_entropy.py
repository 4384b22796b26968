# SPDX-License-Identifier: Apache-2.0
"""Truncated generalised cross-entropy: examples whose label is improbable no longer count.

Zhang and Sabuncu. Reach for it when much of the labels is wrong and a warm-up without truncation is
affordable.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from xloss import checks, numerics
from xloss.statistics import as_statistics, check_scores
from xloss.typing import Array, Scores


def truncated_generalized_cross_entropy(
    scores: Scores,
    labels: ArrayLike | None = None,
    *,
    q: ArrayLike = 0.7,
    threshold: ArrayLike = 0.5,
    where: ArrayLike | None = None,
) -> Array:
    """Generalised cross-entropy that gives up on labels it finds improbable.

    Definition, with p = softmax(z)::

        loss = (1 - max(p_y, threshold)^q) / q;   q -> 0: -log max(p_y, threshold)

    Args:
      scores: logits z [..., K] of any float dtype, or LogitStatistics.
      labels: integer y [...] in [0, K); None beside LogitStatistics.
      q: scalar in [0, 1], traced.
      threshold: scalar in (0, 1), traced; below it the loss is constant.
      where: bool [...]; False means loss and gradient exactly 0.

    Returns:
      Losses [...] in [0, (1 - threshold^q) / q], float32 (float64 for float64 scores).

    Raises:
      TypeError: wrong dtypes, or scores and labels of the same shape (see binary_statistics).
      ValueError: shapes that do not fit, q or threshold out of range.

    Numerics:
      As :func:`generalized_cross_entropy`. An example at or below the threshold has gradient
      exactly 0; the published training therefore begins without truncation.

    Example:
      >>> import jax.numpy as jnp
      >>> logits = jnp.log(jnp.array([[0.1, 0.9], [0.25, 0.75]]))
      >>> found = truncated_generalized_cross_entropy(
      ...     logits, jnp.array([0, 1]), q=0.5, threshold=0.25)
      >>> [round(float(x), 4) for x in found]
      [1.0, 0.2679]

    Evidence: published formula, derived and checked.

    References:
      Zhang, Sabuncu, "Generalized Cross Entropy Loss for Training Deep Neural Networks with Noisy
      Labels", NeurIPS 2018, arXiv 1805.07836. Departure from Optimization-AI/ICML2023_LDR, which
      keeps or drops an example by a mask that it refreshes every 10 epochs: the same gradient,
      without the mask.
    """
    name = "truncated_generalized_cross_entropy"
    scores, labels, where = check_scores(name, scores, labels, where)
    q = checks.number(name, "q", q, low=0.0, high=1.0)
    threshold = checks.number(name, "threshold", threshold, low=0.0, high=1.0, open_low=True)
    return _truncated(scores, labels, q, threshold, where)


@jax.jit
def _truncated(scores, labels, q, threshold, where):
    stats = as_statistics(scores, labels, where)
    nats = numerics.nats(stats.log_odds)
    most = -jnp.log(numerics.scalar(threshold, nats))
    nats = jnp.where(nats >= most, most, nats)  # NaN stays; a tie has no gradient
    return numerics.masked(numerics.scaled_expm1(-numerics.scalar(q, nats), nats), where)
