# SPDX-License-Identifier: Apache-2.0
"""Jensen-Shannon loss: a bridge from cross-entropy to the mean absolute error.

Englesson and Azizpour. Reach for it under label noise, with the weight chosen on clean validation
data.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from xloss import checks, numerics
from xloss.statistics import as_statistics, check_scores
from xloss.typing import Array, Scores


def jensen_shannon(
    scores: Scores,
    labels: ArrayLike | None = None,
    *,
    weight: ArrayLike = 0.5,
    where: ArrayLike | None = None,
) -> Array:
    """The Jensen-Shannon divergence between label and prediction, scaled.

    Definition, with p = softmax(z)::

        m = weight e_y + (1 - weight) p
        loss = [weight KL(e_y || m) + (1 - weight) KL(p || m)] / (-(1 - weight) log(1 - weight))

    Args:
      scores: logits z [..., K] of any float dtype, or LogitStatistics.
      labels: integer y [...] in [0, K); None beside LogitStatistics.
      weight: of the label, scalar in (0, 1), traced; towards 0 the loss is cross-entropy, towards 1
        half the mean absolute error.
      where: bool [...]; False means loss and gradient exactly 0.

    Returns:
      Losses [...] >= 0, float32 (float64 for float64 scores).

    Raises:
      TypeError: wrong dtypes, or scores and labels of the same shape (see binary_statistics).
      ValueError: shapes that do not fit, weight outside (0, 1).

    Numerics:
      A function of the log-odds alone: outside the label m_k = (1 - weight) p_k, so that every
      other term of KL(p || m) is p_k log(1 / (1 - weight)). Nothing is clipped (the authors clip m
      at 1e-7).

    Example:
      >>> import jax.numpy as jnp
      >>> round(float(jensen_shannon(jnp.zeros([1, 2]), jnp.array([0]))[0]), 4)
      0.6226

    Evidence: authors' code.

    References:
      Englesson, Azizpour, "Generalized Jensen-Shannon Divergence Loss for Learning with Noisy
      Labels", NeurIPS 2021, arXiv 2105.04522; in the form of Optimization-AI/ICML2023_LDR.
    """
    name = "jensen_shannon"
    scores, labels, where = check_scores(name, scores, labels, where)
    weight = checks.number(name, "weight", weight, low=0.0, high=1.0, open_low=True)
    if isinstance(weight, float) and weight == 1.0:
        raise ValueError(f"{name}: expected weight in (0, 1), got 1.0")
    return _jensen_shannon(scores, labels, weight, where)


@jax.jit
def _jensen_shannon(scores, labels, weight, where):
    m = as_statistics(scores, labels, where).log_odds
    weight = numerics.scalar(weight, m)
    p, rest = jax.nn.sigmoid(m), jax.nn.sigmoid(-m)
    # log m_y, from whichever of p and 1 - p is small.
    confident = p > 0.5
    near = jnp.log1p(-(1.0 - weight) * jnp.where(confident, rest, jnp.zeros_like(rest)))
    far = jnp.log(weight + (1.0 - weight) * jnp.where(confident, jnp.ones_like(p), p))
    log_mixture = jnp.where(confident, near, far)
    # p log(m_y / p), the ratio being 1 + weight (1 - p) / p.
    ratio = numerics.multiply_no_nan(p, jax.nn.softplus(jnp.log(weight) - m))
    other = -jnp.log1p(-weight)
    found = -weight * log_mixture + (1.0 - weight) * (rest * other - ratio)
    losses = jnp.maximum(found, 0.0) / ((1.0 - weight) * other)
    return numerics.masked(losses, where)
