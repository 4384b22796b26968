# SPDX-License-Identifier: Apache-2.0
"""Direct coverage optimisation: train for pass@N instead of for confidence.

Chen et al. Where N answers will be drawn and one right one is enough, cross-entropy makes a model
too sure: coverage falls while it trains. DCO maximises the chance that one of N is right, and stops
pushing an answer once its probability is large beside 1 / N. Reach for it when fine-tuning for
sampling with a verifier.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from xloss import checks, numerics
from xloss.statistics import as_statistics, check_scores
from xloss.typing import Array, Scores

LEVELS = ("answer", "step")


def direct_coverage(
    scores: Scores,
    labels: ArrayLike | None = None,
    *,
    num_samples: ArrayLike,
    level: str = "answer",
    where: ArrayLike | None = None,
) -> Array:
    """-log of the chance that at least one of N samples is the right answer.

    Definition, with p_t the probability of token t of an answer of T tokens::

        answer:  p = product over t of p_t;   loss = -log(1 - (1 - p)^N)
        step:    loss = sum over t of -log(1 - (1 - p_t)^N)

    N = 1 is cross-entropy, summed over the tokens. The gradient is that of cross-entropy times
    F = N p (1 - p)^(N - 1) / (1 - (1 - p)^N) in [0, 1], see :func:`coverage_weight`.

    Args:
      scores: logits z [..., T, K] of any float dtype, or LogitStatistics [..., T].
      labels: integer y [..., T] in [0, K); None beside LogitStatistics. An answer of one label is
        T = 1.
      num_samples: N, scalar >= 1, traced; need not be whole.
      level: "answer", or "step" where every token (a tactic of a proof) is chosen by itself.
      where: bool [..., T], the tokens of the answer; the others count as right.

    Returns:
      Losses [...] >= 0, float32 (float64 for float64 scores); 0 for an answer without tokens.

    Raises:
      TypeError: wrong dtypes.
      ValueError: shapes that do not fit, no token axis, N < 1, an unknown level.

    Numerics:
      From log p and never from p: exact for log p of -1e5 (where the loss is -log p - log N) to
      -1e-12, and N up to 1e6.

    Example:
      >>> import jax.numpy as jnp
      >>> logits, labels = jnp.zeros([1, 2, 2]), jnp.zeros([1, 2], jnp.int32)  # p = 1/4
      >>> round(float(direct_coverage(logits, labels, num_samples=2)[0]), 4)  # -log(7/16)
      0.8267

    Evidence: published formula, derived and checked.

    References:
      Chen, Raventos, Cheng, Ganguli, Druckmann, "Rethinking Fine-Tuning when Scaling Test-Time
      Compute: Limiting Confidence Improves Mathematical Reasoning", NeurIPS 2025, arXiv 2502.07154.
    """
    name = "direct_coverage"
    scores, labels, where = check_scores(name, scores, labels, where)
    shape = scores.shape if labels is None else labels.shape
    if not shape:
        raise ValueError(f"{name}: expected a token axis, labels [..., T], got a single label")
    checks.choice(name, "level", level, LEVELS)
    num_samples = checks.number(name, "num_samples", num_samples, low=1.0)
    return _direct_coverage(scores, labels, num_samples, where, level=level)


def coverage(log_prob: ArrayLike, *, num_samples: ArrayLike) -> Array:
    """The chance that at least one of N samples is right, 1 - (1 - p)^N: pass@N.

    Args:
      log_prob: log p <= 0 [...], any float dtype.
      num_samples: N, scalar >= 1, traced.

    Returns:
      Coverage [...] in [0, 1], float32 (float64 for float64).

    Raises:
      TypeError: wrong dtypes.
      ValueError: N < 1.

    Numerics:
      From log p; a log p above 0 gives NaN.

    Example:
      >>> import jax.numpy as jnp
      >>> round(float(coverage(jnp.log(0.25), num_samples=2)), 4)
      0.4375

    Evidence: published formula, derived and checked.

    References:
      Chen, Raventos, Cheng, Ganguli, Druckmann, "Rethinking Fine-Tuning when Scaling Test-Time
      Compute: Limiting Confidence Improves Mathematical Reasoning", NeurIPS 2025, arXiv 2502.07154.
    """
    log_prob = numerics.promote(checks.floating("coverage", "log_prob", log_prob))
    num_samples = checks.number("coverage", "num_samples", num_samples, low=1.0)
    return jnp.exp(-_nats(log_prob, numerics.scalar(num_samples, log_prob)))


def coverage_nats(log_prob: ArrayLike, *, num_samples: ArrayLike) -> Array:
    """-log of the coverage: direct coverage's loss of answers whose log-probability is known.

    Reach for it where :func:`direct_coverage` does not know what an answer is: several in a packed
    row (``jax.ops.segment_sum`` of the tokens' log-probabilities), steps of several tokens.

    Args:
      log_prob: log p <= 0 [...] of a whole answer, any float dtype.
      num_samples: N, scalar >= 1, traced.

    Returns:
      -log(1 - (1 - p)^N) [...] >= 0, float32 (float64 for float64).

    Raises:
      TypeError: wrong dtypes.
      ValueError: N < 1.

    Numerics:
      As :func:`direct_coverage`; a log p above 0 gives NaN.

    Example:
      >>> import jax.numpy as jnp
      >>> round(float(coverage_nats(jnp.array(-2000.0), num_samples=256)), 4)  # 2000 - log 256
      1994.4548

    Evidence: published formula, derived and checked.

    References:
      Chen, Raventos, Cheng, Ganguli, Druckmann, "Rethinking Fine-Tuning when Scaling Test-Time
      Compute: Limiting Confidence Improves Mathematical Reasoning", NeurIPS 2025, arXiv 2502.07154.
    """
    log_prob = numerics.promote(checks.floating("coverage_nats", "log_prob", log_prob))
    num_samples = checks.number("coverage_nats", "num_samples", num_samples, low=1.0)
    return _nats(log_prob, numerics.scalar(num_samples, log_prob))


def coverage_weight(log_prob: ArrayLike, *, num_samples: ArrayLike) -> Array:
    """F: what direct coverage multiplies the gradient of cross-entropy by.

    Definition: N p (1 - p)^(N - 1) / (1 - (1 - p)^N); 1 where N p is small, 0 where it is large.

    Args:
      log_prob: log p <= 0 [...], any float dtype.
      num_samples: N, scalar >= 1, traced.

    Returns:
      F [...] in [0, 1], float32 (float64 for float64).

    Raises:
      TypeError: wrong dtypes.
      ValueError: N < 1.

    Numerics:
      From log p; a log p above 0 gives NaN.

    Example:
      >>> import jax.numpy as jnp
      >>> [round(float(f), 3) for f in coverage_weight(jnp.array([-9.0, -0.1]), num_samples=16)]
      [0.999, 0.0]

    Evidence: published formula, derived and checked.

    References:
      Chen, Raventos, Cheng, Ganguli, Druckmann, "Rethinking Fine-Tuning when Scaling Test-Time
      Compute: Limiting Confidence Improves Mathematical Reasoning", NeurIPS 2025, arXiv 2502.07154.
    """
    log_prob = numerics.promote(checks.floating("coverage_weight", "log_prob", log_prob))
    num_samples = checks.number("coverage_weight", "num_samples", num_samples, low=1.0)
    return _weight(log_prob, numerics.scalar(num_samples, log_prob))


def pass_at_k(num_samples: ArrayLike, num_correct: ArrayLike, *, k: int) -> np.ndarray:
    """The unbiased estimate of pass@k from n samples of which c are right, on the host.

    Definition: 1 - C(n - c, k) / C(n, k), the chance that k of the n, drawn without replacement,
    have a right one.

    Args:
      num_samples: integer n [...].
      num_correct: integer c [...] in [0, n].
      k: 1 <= k <= n.

    Returns:
      float64 [...].

    Raises:
      ValueError: numbers out of range.

    Numerics:
      As the product of 1 - k / i over i from n - c + 1 to n: nothing overflows.

    Example:
      >>> pass_at_k([10, 10], [0, 3], k=5).round(4).tolist()
      [0.0, 0.9167]

    Evidence: published formula, derived and checked.

    References:
      Chen, Raventos, Cheng, Ganguli, Druckmann, "Rethinking Fine-Tuning when Scaling Test-Time
      Compute: Limiting Confidence Improves Mathematical Reasoning", NeurIPS 2025, arXiv 2502.07154;
      the estimator of Chen et al., arXiv 2107.03374.
    """
    n, c = np.broadcast_arrays(np.asarray(num_samples), np.asarray(num_correct))
    if n.dtype.kind not in "iu" or c.dtype.kind not in "iu" or np.any((c < 0) | (c > n)):
        raise ValueError("pass_at_k: expected integers 0 <= num_correct <= num_samples")
    if type(k) is not int or k < 1 or np.any(n < k):
        raise ValueError(f"pass_at_k: expected an int 1 <= k <= num_samples, got k={k!r}")
    missed = [
        0.0 if n_i - c_i < k else float(np.prod(1.0 - k / np.arange(n_i - c_i + 1.0, n_i + 1.0)))
        for n_i, c_i in zip(n.ravel(), c.ravel(), strict=True)
    ]
    return 1.0 - np.asarray(missed).reshape(n.shape)


@functools.partial(jax.jit, static_argnames="level")
def _direct_coverage(scores, labels, num_samples, where, *, level):
    log_prob = -numerics.nats(as_statistics(scores, labels, where).log_odds)
    log_prob = numerics.masked(log_prob, where)
    count = numerics.scalar(num_samples, log_prob)
    if level == "answer":
        return _nats(jnp.sum(log_prob, axis=-1), count)
    return jnp.sum(numerics.masked(_nats(log_prob, count), where), axis=-1)


@jax.custom_jvp
def _nats(log_prob, count):
    """-log(1 - (1 - p)^N)."""
    # Where N p is small 1 - (1 - p)^N cancels, or p underflows: two terms of its series.
    limit = 1e-8 if log_prob.dtype == jnp.float64 else 1e-4
    small = log_prob + jnp.log(count) < jnp.log(limit)
    near = -(log_prob + jnp.log(count)) + 0.5 * (count - 1.0) * jnp.exp(log_prob)
    far = -_log1mexp(count * _log1mexp(jnp.where(small, -1.0, log_prob)))
    exact = jnp.where(small, near, far)
    return jnp.where(count == 1.0, -log_prob, exact)


@_nats.defjvp
def _nats_jvp(primals, tangents):
    log_prob, count = primals
    log_prob_dot, count_dot = tangents
    nats = _nats(log_prob, count)
    # -d/dN: (1 - p)^N log(1 - p) / (1 - (1 - p)^N), the limit of p -> 0 being -1 / N.
    log_miss = _log1mexp(log_prob)
    sure = jnp.isneginf(log_miss)
    log_miss = jnp.where(sure, -1.0, log_miss)
    slope = jnp.where(sure, 0.0, log_miss * jnp.exp(count * log_miss + nats))
    tiny = log_prob < jnp.log(jnp.finfo(log_prob.dtype).tiny)
    slope = jnp.where(tiny, -1.0 / count, slope)
    return nats, -_weight(log_prob, count) * log_prob_dot + slope * count_dot


def _weight(log_prob, count):
    log_miss = numerics.multiply_no_nan(count - 1.0, _log1mexp(log_prob))
    log_weight = jnp.log(count) + log_prob + log_miss + _nats(log_prob, count)
    # An impossible answer: -inf + inf, in the limit 0.
    log_weight = jnp.where(jnp.isneginf(log_prob), 0.0, log_weight)
    return jnp.exp(jnp.minimum(log_weight, 0.0))


def _log1mexp(x):
    """log(1 - exp(x)) for x <= 0."""
    close = x > -0.6931
    left = jnp.log(-jnp.expm1(jnp.where(close, x, -1.0)))
    right = jnp.log1p(-jnp.exp(jnp.where(close, -1.0, x)))
    return jnp.where(close, left, right)
