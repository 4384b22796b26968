# SPDX-License-Identifier: Apache-2.0
"""Multi-class hinges: the support vector machines' losses.

Crammer and Singer; Weston and Watkins. Reach for them as baselines, or where only the decision
counts and probabilities do not.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from xloss import checks, numerics
from xloss.statistics import as_statistics, check_scores
from xloss.typing import Array, Scores


def crammer_singer(
    scores: Scores,
    labels: ArrayLike | None = None,
    *,
    margin: ArrayLike = 1.0,
    where: ArrayLike | None = None,
) -> Array:
    """The multi-class hinge of the strongest rival.

    Definition, with p = softmax(z)::

        loss = max(0, margin + max_{k != y} z_k - z_y)

    Args:
      scores: logits z [..., K] of any float dtype, or LogitStatistics.
      labels: integer y [...] in [0, K); None beside LogitStatistics.
      margin: scalar >= 0, traced.
      where: bool [...]; False means loss and gradient exactly 0.

    Returns:
      Losses [...] >= 0, float32 (float64 for float64 scores).

    Raises:
      TypeError: wrong dtypes, or scores and labels of the same shape (see binary_statistics).
      ValueError: shapes that do not fit, margin < 0.

    Numerics:
      Ties of the rivals share the gradient. With one class the loss is 0.

    Example:
      >>> import jax.numpy as jnp
      >>> crammer_singer(jnp.array([[2.0, 1.5, 0.0]]), jnp.array([0])).tolist()
      [0.5]

    Evidence: authors' code.

    References:
      Crammer, Singer, "On the Algorithmic Implementation of Multiclass Kernel-based Vector
      Machines", JMLR 2001; code checked: Optimization-AI/ICML2023_LDR.
    """
    name = "crammer_singer"
    scores, labels, where = check_scores(name, scores, labels, where)
    return _crammer_singer(scores, labels, checks.number(name, "margin", margin, low=0.0), where)


@jax.jit
def _crammer_singer(scores, labels, margin, where):
    lead = as_statistics(scores, labels, where).lead
    # An infinite lead (one class) has no slope: relu alone would multiply its 0 by inf.
    gap = jnp.where(jnp.isposinf(lead), -1.0, numerics.scalar(margin, lead) - lead)
    return numerics.masked(jax.nn.relu(gap), where)


def weston_watkins(
    scores: ArrayLike,
    labels: ArrayLike,
    *,
    margin: ArrayLike = 1.0,
    where: ArrayLike | None = None,
) -> Array:
    """The multi-class hinge of all rivals.

    Definition, with p = softmax(z)::

        loss = sum_{k != y} max(0, margin + z_k - z_y)

    Args:
      scores: logits z [..., K] of any float dtype.
      labels: integer y [...] in [0, K).
      margin: scalar >= 0, traced.
      where: bool [...]; False means loss and gradient exactly 0.

    Returns:
      Losses [...] >= 0, float32 (float64 for float64 scores).

    Raises:
      TypeError: wrong dtypes, or LogitStatistics (every logit is read).
      ValueError: shapes that do not fit, margin < 0.

    Numerics:
      Classes of logit -inf are left out.

    Example:
      >>> import jax.numpy as jnp
      >>> weston_watkins(jnp.array([[2.0, 1.5, 1.25]]), jnp.array([0])).tolist()
      [0.75]

    Evidence: authors' code.

    References:
      Weston, Watkins, "Support Vector Machines for Multi-Class Pattern Recognition", ESANN 1999.
      The sum as published; Optimization-AI/ICML2023_LDR divides it by K.
    """
    name = "weston_watkins"
    scores, labels, where = check_scores(name, scores, labels, where, needs_logits=True)
    return _weston_watkins(scores, labels, checks.number(name, "margin", margin, low=0.0), where)


@jax.jit
def _weston_watkins(scores, labels, margin, where):
    z = numerics.promote(scores)
    if where is not None:
        z = jnp.where(where[..., None], z, jnp.zeros_like(z))
    target = as_statistics(z, labels, where).target
    rival = ~numerics.one_hot_last(labels, z.shape)
    gaps = numerics.scalar(margin, z) + z - target[..., None]
    return numerics.masked(jnp.sum(jnp.where(rival, jax.nn.relu(gaps), 0.0), axis=-1), where)
