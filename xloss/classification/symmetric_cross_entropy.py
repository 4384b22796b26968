# SPDX-License-Identifier: Apache-2.0
"""Losses that are linear in the probability of the label, alone and beside cross-entropy.

Symmetric in the labels up to a constant, so that uniform label noise does not move their minimum.
Reach for :func:`symmetric_cross_entropy` under label noise, when cross-entropy fits the noise and
the others do not learn.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from xloss import checks, numerics
from xloss.statistics import as_statistics, check_scores
from xloss.typing import Array, Scores


def symmetric_cross_entropy(
    scores: Scores,
    labels: ArrayLike | None = None,
    *,
    balance: ArrayLike = 0.5,
    scale: ArrayLike = 4.0,
    where: ArrayLike | None = None,
) -> Array:
    """Cross-entropy and reverse cross-entropy, weighted.

    Definition, with p = softmax(z)::

        loss = -(1 - balance) log p_y + balance scale (1 - p_y)

    Args:
      scores: logits z [..., K] of any float dtype, or LogitStatistics.
      labels: integer y [...] in [0, K); None beside LogitStatistics.
      balance: scalar in [0, 1], traced; 0 is cross-entropy.
      scale: A = -log(what the logarithm of 0 is replaced by), scalar >= 0, traced.
      where: bool [...]; False means loss and gradient exactly 0.

    Returns:
      Losses [...] >= 0, float32 (float64 for float64 scores).

    Raises:
      TypeError: wrong dtypes, or scores and labels of the same shape (see binary_statistics).
      ValueError: shapes that do not fit, balance outside [0, 1], scale < 0.

    Numerics:
      1 - p_y is sigmoid of minus the log-odds, exact for confident examples.

    Example:
      >>> import jax.numpy as jnp
      >>> loss = symmetric_cross_entropy(jnp.zeros([1, 2]), jnp.array([0]))  # (log 2 + 4 / 2) / 2
      >>> round(float(loss[0]), 4)
      1.3466

    Evidence: authors' code.

    References:
      Wang, Ma, Chen, Luo, Yi, Bailey, "Symmetric Cross Entropy for Robust Learning with Noisy
      Labels", ICCV 2019, arXiv 1908.06112; in the form of Optimization-AI/ICML2023_LDR, whose
      balance and A are the paper's alpha, beta and A as (1 - balance, balance, -4).
    """
    name = "symmetric_cross_entropy"
    scores, labels, where = check_scores(name, scores, labels, where)
    balance = checks.number(name, "balance", balance, low=0.0, high=1.0)
    scale = checks.number(name, "scale", scale, low=0.0)
    return _symmetric(scores, labels, balance, scale, where)


@jax.jit
def _symmetric(scores, labels, balance, scale, where):
    m = as_statistics(scores, labels, where).log_odds
    balance, scale = numerics.scalar(balance, m), numerics.scalar(scale, m)
    losses = (1.0 - balance) * numerics.nats(m) + balance * scale * jax.nn.sigmoid(-m)
    return numerics.masked(losses, where)


def reverse_cross_entropy(
    scores: Scores,
    labels: ArrayLike | None = None,
    *,
    label_clip: ArrayLike = 1e-4,
    where: ArrayLike | None = None,
) -> Array:
    """Cross-entropy with prediction and label exchanged.

    Definition, with p = softmax(z)::

        loss = -sum_k p_k log max(e_k, label_clip) = -log(label_clip) (1 - p_y)

    Args:
      scores: logits z [..., K] of any float dtype, or LogitStatistics.
      labels: integer y [...] in [0, K); None beside LogitStatistics.
      label_clip: what stands for a 0 of the one-hot label, scalar in (0, 1], traced.
      where: bool [...]; False means loss and gradient exactly 0.

    Returns:
      Losses [...] in [0, -log(label_clip)], float32 (float64 for float64 scores).

    Raises:
      TypeError: wrong dtypes, or scores and labels of the same shape (see binary_statistics).
      ValueError: shapes that do not fit, label_clip outside (0, 1].

    Numerics:
      1 - p_y is sigmoid of minus the log-odds, exact for confident examples.

    Example:
      >>> import jax.numpy as jnp
      >>> round(float(reverse_cross_entropy(jnp.zeros([1, 2]), jnp.array([0]))[0]), 4)
      4.6052

    Evidence: authors' code.

    References:
      Wang, Ma, Chen, Luo, Yi, Bailey, "Symmetric Cross Entropy for Robust Learning with Noisy
      Labels", ICCV 2019, arXiv 1908.06112. Departure from Optimization-AI/ICML2023_LDR:
      probabilities are not clipped at 1e-7.
    """
    name = "reverse_cross_entropy"
    scores, labels, where = check_scores(name, scores, labels, where)
    clip = checks.number(name, "label_clip", label_clip, low=0.0, high=1.0, open_low=True)
    return _reverse(scores, labels, clip, where)


@jax.jit
def _reverse(scores, labels, clip, where):
    m = as_statistics(scores, labels, where).log_odds
    return numerics.masked(-jnp.log(numerics.scalar(clip, m)) * jax.nn.sigmoid(-m), where)


def mean_absolute_error(
    scores: Scores,
    labels: ArrayLike | None = None,
    *,
    where: ArrayLike | None = None,
) -> Array:
    """The sum over classes of |one-hot label - p|.

    Definition, with p = softmax(z)::

        loss = sum_k |e_k - p_k| = 2 (1 - p_y)

    Args:
      scores: logits z [..., K] of any float dtype, or LogitStatistics.
      labels: integer y [...] in [0, K); None beside LogitStatistics.
      where: bool [...]; False means loss and gradient exactly 0.

    Returns:
      Losses [...] in [0, 2], float32 (float64 for float64 scores).

    Raises:
      TypeError: wrong dtypes, or scores and labels of the same shape (see binary_statistics).
      ValueError: shapes that do not fit.

    Numerics:
      1 - p_y is sigmoid of minus the log-odds, exact for confident examples. The gradient vanishes
      where the model is sure of another class: robust to noise, and slow to train.

    Example:
      >>> import jax.numpy as jnp
      >>> mean_absolute_error(jnp.zeros([1, 4]), jnp.array([0])).tolist()
      [1.5]

    Evidence: published formula, derived and checked.

    References:
      Ghosh, Kumar, Sastry, "Robust Loss Functions under Label Noise for Deep Neural Networks", AAAI
      2017, arXiv 1712.09482. Departure from Optimization-AI/ICML2023_LDR, where the absolute value
      is missing and the loss is 0.
    """
    scores, labels, where = check_scores("mean_absolute_error", scores, labels, where)
    return _absolute(scores, labels, where)


@jax.jit
def _absolute(scores, labels, where):
    m = as_statistics(scores, labels, where).log_odds
    return numerics.masked(2.0 * jax.nn.sigmoid(-m), where)
