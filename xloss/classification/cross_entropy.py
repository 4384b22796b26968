# SPDX-License-Identifier: Apache-2.0
"""Cross-entropy with integer labels (and label smoothing), and with label probabilities.

Reach for ``cross_entropy`` first; every other classification loss is judged against it. Reach
for ``soft_cross_entropy`` when the target is a distribution: mixup, distillation, annotator
disagreement.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from xloss import checks, numerics
from xloss.statistics import LogitStatistics, as_statistics, check_scores
from xloss.typing import Array, Scores


def cross_entropy(
    scores: Scores,
    labels: ArrayLike | None = None,
    *,
    label_smoothing: ArrayLike = 0.0,
    where: ArrayLike | None = None,
) -> Array:
    """Softmax cross-entropy, -log p of the true class.

    Definition, with p = softmax(z) and e = label_smoothing::

        loss = -(1 - e) log p_y - (e / K) sum_k log p_k = -log p_y + e (z_y - mean_k z_k)

    Args:
      scores: logits z [..., K] of any float dtype, or LogitStatistics.
      labels: integer y [...] in [0, K); None beside LogitStatistics.
      label_smoothing: e in [0, 1], the mass spread uniformly over the K classes.
      where: bool [...]; False means loss and gradient exactly 0.

    Returns:
      Losses [...] in nats, >= 0, float32 (float64 for float64 scores).

    Raises:
      TypeError: wrong dtypes, or scores and labels of the same shape (see binary_statistics).
      ValueError: shapes that do not fit, label_smoothing outside [0, 1].

    Numerics:
      Keeps its digits where p is close to 1: 1.9e-22 at log-odds 50, where 1 - p has long been
      0 in float32. Labels outside [0, K) give NaN. Classes of logit -inf are left out, of the
      smoothing too. A literal 0 of label_smoothing skips the pass over the logits that the mean
      needs.

    Example:
      >>> import jax.numpy as jnp
      >>> float(cross_entropy(jnp.zeros([1, 4]), jnp.array([2]))[0] / jnp.log(4.0))
      1.0

    Evidence: published formula, derived and checked.

    References:
      Szegedy, Vanhoucke, Ioffe, Shlens, Wojna, "Rethinking the Inception Architecture for
      Computer Vision", CVPR 2016, arXiv 1512.00567 (label smoothing).
    """
    name = "cross_entropy"
    scores, labels, where = check_scores(name, scores, labels, where)
    smoothing = checks.number(name, "label_smoothing", label_smoothing, low=0.0, high=1.0)
    if isinstance(smoothing, float) and smoothing == 0.0:
        return _cross_entropy(scores, labels, where)
    return _smoothed(scores, labels, smoothing, where)


def soft_cross_entropy(
    logits: ArrayLike, probabilities: ArrayLike, *, where: ArrayLike | None = None
) -> Array:
    """Cross-entropy against a distribution over the classes.

    Definition, with p = softmax(z)::

        loss = -sum_k q_k log p_k

    Args:
      logits: z [..., K], any float dtype.
      probabilities: q [..., K], float, >= 0. Not normalised here: with sum q = c the loss is c
        times that of q / c. Differentiable (a teacher may be trained).
      where: bool [...]; False means loss and gradient exactly 0.

    Returns:
      Losses [...] in nats, float32 (float64 if either input is float64); the entropy of q at
      the least.

    Raises:
      TypeError: wrong dtypes, LogitStatistics (this loss reads every logit).
      ValueError: shapes differ, or the mask's is not [...].

    Numerics:
      For a one-hot q as exact as cross_entropy, at any confidence. q_k = 0 on a class of logit
      -inf costs nothing; q_k > 0 there is inf.

    Example:
      >>> import jax.numpy as jnp
      >>> loss = soft_cross_entropy(jnp.zeros([1, 2]), jnp.array([[0.3, 0.7]]))
      >>> bool(jnp.allclose(loss, jnp.log(2.0)))
      True

    Evidence: published formula, derived and checked.

    References:
      Zhang, Cisse, Dauphin, Lopez-Paz, "mixup: Beyond Empirical Risk Minimization", ICLR 2018,
      arXiv 1710.09412.
    """
    name = "soft_cross_entropy"
    if isinstance(logits, LogitStatistics):
        raise TypeError(f"{name}: expected logits [..., K], got LogitStatistics")
    logits = checks.floating(name, "logits", logits)
    probabilities = checks.floating(name, "probabilities", probabilities)
    checks.same_shape(name, "probabilities", probabilities, logits.shape)
    if logits.ndim == 0 or logits.shape[-1] == 0:
        raise ValueError(f"{name}: expected logits [..., K] with K >= 1, got {logits.shape}")
    where = checks.mask(name, where, logits.shape[:-1])
    return _soft_cross_entropy(logits, probabilities, where)


@jax.jit
def _cross_entropy(scores, labels, where):
    stats = as_statistics(scores, labels, where)
    return numerics.masked(numerics.nats(stats.log_odds), where)


@jax.jit
def _smoothed(scores, labels, smoothing, where):
    stats = as_statistics(scores, labels, where)
    # A true class that is masked out is -inf here and +inf in the first term: leave it to that.
    offset = jnp.where(jnp.isneginf(stats.centred), 0.0, stats.centred)
    smoothing = numerics.scalar(smoothing, stats.log_odds)
    return numerics.masked(numerics.nats(stats.log_odds) + smoothing * offset, where)


@jax.jit
def _soft_cross_entropy(logits, probabilities, where):
    if where is not None:
        keep = where[..., None]
        logits = jnp.where(keep, logits, jnp.zeros_like(logits))
        probabilities = jnp.where(keep, probabilities, jnp.zeros_like(probabilities))
    double = jnp.float64 in (logits.dtype, probabilities.dtype)
    dtype = jnp.float64 if double else jnp.float32
    z, q = logits.astype(dtype), probabilities.astype(dtype)
    # With t the greatest logit, -log p_k = (z_t - z_k) + (-log p_t): only the second term can be
    # tiny, and the log-odds of t keep its digits.
    stats = as_statistics(z, jnp.argmax(z, axis=-1))
    cost = jnp.sum(numerics.multiply_no_nan(q, stats.target[..., None] - z), axis=-1)
    return numerics.masked(cost + jnp.sum(q, axis=-1) * numerics.nats(stats.log_odds), where)
