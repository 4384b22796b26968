# SPDX-License-Identifier: Apache-2.0
"""Normalised cross-entropy, and active-passive losses that are built on it.

Ma et al. Divided by its sum over labels any loss is robust to symmetric label noise, and learns too
little: a passive loss beside it makes up for that. Reach for :func:`active_passive` under label
noise.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from xloss import checks, numerics
from xloss.classification.asymmetric import (
    asymmetric_generalized_cross_entropy,
    asymmetric_unhinged,
)
from xloss.classification.symmetric_cross_entropy import (
    mean_absolute_error,
    reverse_cross_entropy,
)
from xloss.statistics import as_statistics, check_scores
from xloss.typing import Array, Scores


def normalized_cross_entropy(
    scores: Scores,
    labels: ArrayLike | None = None,
    *,
    where: ArrayLike | None = None,
) -> Array:
    """Cross-entropy over its sum for all labels.

    Definition, with p = softmax(z)::

        loss = log p_y / sum_k log p_k

    Args:
      scores: logits z [..., K] of any float dtype, or LogitStatistics.
      labels: integer y [...] in [0, K); None beside LogitStatistics.
      where: bool [...]; False means loss and gradient exactly 0.

    Returns:
      Losses [...] in [0, 1], float32 (float64 for float64 scores).

    Raises:
      TypeError: wrong dtypes, or scores and labels of the same shape (see binary_statistics).
      ValueError: shapes that do not fit.

    Numerics:
      sum_k log p_k is K (log p_y - (z_y - mean z)): no pass over the classes is needed beside the
      statistics. With one class the loss is 0.

    Example:
      >>> import jax.numpy as jnp
      >>> normalized_cross_entropy(jnp.zeros([1, 4]), jnp.array([0])).tolist()
      [0.25]

    Evidence: authors' code.

    References:
      Ma, Huang, Wang, Romano, Erfani, Bailey, "Normalized Loss Functions for Deep Learning with
      Noisy Labels", ICML 2020, arXiv 2006.13554; code checked: Optimization-AI/ICML2023_LDR.
    """
    scores, labels, where = check_scores("normalized_cross_entropy", scores, labels, where)
    return _normalized(scores, labels, where)


@jax.jit
def _normalized(scores, labels, where):
    return numerics.masked(_ratio(as_statistics(scores, labels, where)), where)


def _ratio(stats):
    nats = numerics.nats(stats.log_odds)
    # sum_k -log p_k over K; infinite where the label is impossible, and then the loss tends to 1.
    mean = nats + stats.centred
    share = jnp.where(mean > 0, nats / jnp.where(mean > 0, mean, jnp.ones_like(mean)), nats)
    return share / stats.class_count


def active_passive(
    scores: Scores,
    labels: ArrayLike | None = None,
    *,
    passive: str = "reverse_cross_entropy",
    alpha: ArrayLike = 5.0,
    beta: ArrayLike = 5.0,
    a: ArrayLike | None = None,
    q: ArrayLike | None = None,
    where: ArrayLike | None = None,
) -> Array:
    """Normalised cross-entropy and a loss that pushes the other classes down.

    Definition::

        loss = alpha normalized_cross_entropy + beta passive

    Args:
      scores: logits z [..., K] of any float dtype, or LogitStatistics.
      labels: integer y [...] in [0, K); None beside LogitStatistics.
      passive: "reverse_cross_entropy", "mean_absolute_error", "asymmetric_unhinged" or
        "asymmetric_generalized_cross_entropy".
      alpha: scalar >= 0, traced.
      beta: scalar >= 0, traced.
      a: of the asymmetric losses; None for what the authors combine, 6 (unhinged) and 3.
      q: of the asymmetric losses; None for 1.5.
      where: bool [...]; False means loss and gradient exactly 0.

    Returns:
      Losses [...] >= 0, float32 (float64 for float64 scores).

    Raises:
      TypeError: wrong dtypes, or scores and labels of the same shape (see binary_statistics).
      ValueError: shapes that do not fit, an unknown passive loss, a or q beside one without,
        numbers out of range.

    Numerics:
      That of its parts.

    Example:
      >>> import jax.numpy as jnp
      >>> loss = active_passive(
      ...     jnp.zeros([1, 4]), jnp.array([0]), passive="mean_absolute_error", alpha=1.0, beta=1.0)
      >>> loss.tolist()
      [1.75]

    Evidence: authors' code.

    References:
      Ma, Huang, Wang, Romano, Erfani, Bailey, "Normalized Loss Functions for Deep Learning with
      Noisy Labels", ICML 2020, arXiv 2006.13554; code checked: Optimization-AI/ICML2023_LDR.
    """
    name = "active_passive"
    scores, labels, where = check_scores(name, scores, labels, where)
    checks.choice(name, "passive", passive, tuple(_PASSIVE))
    alpha = checks.number(name, "alpha", alpha, low=0.0)
    beta = checks.number(name, "beta", beta, low=0.0)
    given: dict[str, Any] = {"a": a, "q": q}
    defaults = _PASSIVE[passive][1]
    for key, value in given.items():
        if value is not None and key not in defaults:
            raise ValueError(f"{name}: expected {key}=None beside {passive}, got {key}={value!r}")
    options = {key: defaults[key] if given[key] is None else given[key] for key in defaults}
    stats = _statistics(scores, labels, where)
    other = _PASSIVE[passive][0](stats, where=where, **options)
    return _weighted(stats, other, alpha, beta, where)


#: Loss and the defaults of its hyperparameters beside normalised cross-entropy.
_PASSIVE: dict[str, tuple[Callable[..., Array], dict[str, float]]] = {
    "reverse_cross_entropy": (reverse_cross_entropy, {}),
    "mean_absolute_error": (mean_absolute_error, {}),
    "asymmetric_unhinged": (asymmetric_unhinged, {"a": 6.0, "q": 1.5}),
    "asymmetric_generalized_cross_entropy": (
        asymmetric_generalized_cross_entropy,
        {"a": 3.0, "q": 1.5},
    ),
}

_statistics = jax.jit(as_statistics)


@jax.jit
def _weighted(stats, other, alpha, beta, where):
    first = numerics.masked(_ratio(as_statistics(stats, where=where)), where)
    return numerics.scalar(alpha, other) * first + numerics.scalar(beta, other) * other
