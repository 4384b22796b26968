# SPDX-License-Identifier: Apache-2.0
"""The spherical loss family: classification losses that know the logits by a few sums only.

De Brebisson and Vincent. Reach for ``z_loss`` when the ranking of the top k counts more than
the first place, or when the logits' scale must not matter; for ``taylor_softmax`` as a softmax
with polynomial tails for tens of classes. All of them read target, mean and variance alone, which
is why an output layer can train them exactly without ever forming the logits.
``z_loss`` is not the "z-loss" of PaLM, which is ``log_partition_penalty``.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from xloss import checks, numerics
from xloss.statistics import LogitStatistics, as_statistics, check_scores
from xloss.typing import Array, Scores


def z_loss(
    scores: Scores,
    labels: ArrayLike | None = None,
    *,
    a: ArrayLike = 1.0,
    b: ArrayLike = 0.0,
    eps: ArrayLike = 1e-12,
    where: ArrayLike | None = None,
) -> Array:
    """Z-loss: softplus of how many standard deviations the true class stands above the mean.

    Definition, with mean and (biased) variance over the K classes::

        z_y = (o_y - mean_k o_k) / sqrt(var_k o_k + eps^2);   loss = softplus(a (b - z_y)) / a
        d loss / d o_k = -sigmoid(a (b - z_y)) (delta_ky - 1/K - z_y z_k / K) / sigma

    NOT the log-partition penalty ("z-loss" of PaLM): that one is
    :func:`log_partition_penalty`. Shift and scale of the logits change nothing: the gradient is
    orthogonal to the logits and to (1, ..., 1), so the loss neither grows nor shrinks them, and
    a softmax of them is no calibrated probability.

    Args:
      scores: logits o [..., K] of any float dtype, or LogitStatistics with centred and variance.
      labels: integer y [...] in [0, K); None beside LogitStatistics.
      a: sharpness, scalar > 0, traced; a -> inf is relu(b - z_y).
      b: location, scalar; useful in [0, sqrt(K - 1)], because z_y <= sqrt(K - 1). For thousands
        of classes b = 0 is poor: begin with a = 0.5, b = 10.
      eps: scalar > 0, added to the standard deviation in squares.
      where: bool [...]; False means loss and gradient exactly 0.

    Returns:
      Losses [...] > 0, float32 (float64 for float64 scores). The least is
      softplus(a (b - sqrt(K - 1))) / a, which is not 0.

    Raises:
      TypeError: wrong dtypes, or scores and labels of the same shape (see binary_statistics).
      ValueError: shapes that do not fit, a <= 0, eps <= 0.

    Numerics:
      Where all logits are equal z is taken as 0; the gradient there is finite but of size
      1 / eps, so start the output layer at random, not at zero. One class gives the constant
      softplus(a b) / a and gradient 0. Mean and variance are those of centred logits: a common
      offset of 1e3 costs no digits beyond the logits' own rounding. Logits beyond 1e19 in size
      overflow the float32 variance, and z reads 0. Classes of logit -inf are left out.

    Example:
      >>> import jax.numpy as jnp
      >>> logits = jnp.array([[2.0, 0.0, 0.0, 0.0, 0.0]])  # z_y = sqrt(5 - 1)
      >>> bool(jnp.allclose(z_loss(logits, jnp.array([0])), jnp.log1p(jnp.exp(-2.0))))
      True

    Evidence: published formula, derived and checked.

    References:
      de Brebisson, Vincent, "The Z-loss: a shift and scale invariant classification loss
      belonging to the Spherical Family", 2016, arXiv 1604.08859; authors' code
      pascal20100/factored_output_layer. Departure: the authors add eps to the standard deviation
      itself, which leaves the gradient infinite at equal logits.
    """
    name = "z_loss"
    scores, labels, where = check_scores(name, scores, labels, where)
    a = checks.number(name, "a", a, low=0.0, open_low=True)
    b = checks.number(name, "b", b)
    return _z_loss(scores, labels, a, b, _eps(name, eps), where)


def taylor_softmax(
    scores: Scores, labels: ArrayLike | None = None, *, where: ArrayLike | None = None
) -> Array:
    """Negative logarithm of the Taylor softmax: exp replaced by its second-order expansion.

    Definition::

        p_k = (1 + o_k + o_k^2 / 2) / sum_j (1 + o_j + o_j^2 / 2);   loss = -log p_y

    Args:
      scores: logits o [..., K] of any float dtype, or LogitStatistics with target, centred,
        variance and class_count.
      labels: integer y [...] in [0, K); None beside LogitStatistics.
      where: bool [...]; False means loss and gradient exactly 0.

    Returns:
      Losses [...] >= 0 in nats, float32 (float64 for float64 scores).

    Raises:
      TypeError: wrong dtypes, or scores and labels of the same shape (see binary_statistics).
      ValueError: shapes that do not fit.

    Numerics:
      A numerator is at least 1/2 (at o = -1), so nothing needs an eps; a very negative logit is
      as probable as a very positive one. Not shift invariant. Taken from the classes other than
      y, so that it keeps its digits where p_y is close to 1. Where the float32 variance
      overflows (logits beyond 1e19 in size) the value is a finite lower bound. Classes of logit
      -inf are left out; a label on one gives NaN.

    Example:
      >>> import jax.numpy as jnp
      >>> loss = taylor_softmax(jnp.array([[0.0, 2.0]]), jnp.array([1]))  # 1 : 5
      >>> bool(jnp.allclose(loss, jnp.log(6 / 5)))
      True

    Evidence: published formula, derived and checked.

    References:
      de Brebisson, Vincent, "An Exploration of Softmax Alternatives Belonging to the Spherical
      Loss Family", ICLR 2016, arXiv 1511.05042.
    """
    scores, labels, where = check_scores("taylor_softmax", scores, labels, where)
    return _taylor_softmax(scores, labels, where)


def spherical_softmax(
    scores: Scores,
    labels: ArrayLike | None = None,
    *,
    eps: ArrayLike = 1e-2,
    where: ArrayLike | None = None,
) -> Array:
    """Negative logarithm of the spherical softmax: squares in place of exponentials.

    Definition::

        p_k = (o_k^2 + eps) / sum_j (o_j^2 + eps);   loss = -log p_y

    Args:
      scores: logits o [..., K] of any float dtype, or LogitStatistics with target, centred,
        variance and class_count.
      labels: integer y [...] in [0, K); None beside LogitStatistics.
      eps: scalar > 0, traced. No published default could be confirmed: 1e-2 is ours. It bounds
        the loss, by log(sum of squares / eps + K), and the gradient, by 1 / sqrt(eps).
      where: bool [...]; False means loss and gradient exactly 0.

    Returns:
      Losses [...] >= 0 in nats, float32 (float64 for float64 scores).

    Raises:
      TypeError: wrong dtypes, or scores and labels of the same shape (see binary_statistics).
      ValueError: shapes that do not fit, eps <= 0.

    Numerics:
      Even in the logits: the sign of a logit says nothing, and at o_y = 0 the gradient in it
      is 0, so start the output layer at random. Otherwise as :func:`taylor_softmax`.

    Example:
      >>> import jax.numpy as jnp
      >>> loss = spherical_softmax(jnp.array([[-2.0, 1.0]]), jnp.array([0]), eps=1.0)  # 5 : 2
      >>> bool(jnp.allclose(loss, jnp.log(7 / 5)))
      True

    Evidence: published formula, derived and checked.

    References:
      de Brebisson, Vincent, "An Exploration of Softmax Alternatives Belonging to the Spherical
      Loss Family", ICLR 2016, arXiv 1511.05042.
    """
    name = "spherical_softmax"
    scores, labels, where = check_scores(name, scores, labels, where)
    return _spherical_softmax(scores, labels, _eps(name, eps), where)


def _eps(name: str, eps: ArrayLike) -> ArrayLike:
    return checks.number(name, "eps", eps, low=0.0, open_low=True)


@jax.jit
def _z_loss(scores, labels, a, b, eps, where):
    stats = as_statistics(scores, labels, where)
    centred = stats.centred
    a, b, eps = (numerics.scalar(h, centred) for h in (a, b, eps))
    # Statistics of a factored layer may bring a variance just below 0; eps^2 may underflow.
    variance = jnp.maximum(stats.variance, 0.0) + jnp.square(eps)
    sigma = jnp.sqrt(jnp.maximum(variance, jnp.finfo(centred.dtype).tiny))
    return numerics.masked(jax.nn.softplus(a * (b - centred / sigma)) / a, where)


@jax.jit
def _taylor_softmax(scores, labels, where):
    stats = as_statistics(scores, labels, where)
    return numerics.masked(_quadratic_softmax(stats, 1.0, 1.0, 0.5), where)


@jax.jit
def _spherical_softmax(scores, labels, eps, where):
    stats = as_statistics(scores, labels, where)
    return numerics.masked(_quadratic_softmax(stats, eps, 0.0, 1.0), where)


def _quadratic_softmax(
    stats: LogitStatistics, constant: ArrayLike, linear: float, quadratic: float
) -> Array:
    """-log of f(o_y) / sum_k f(o_k) for the positive f(o) = constant + linear o + quadratic o^2."""
    target, centred, count = stats.target, stats.centred, stats.class_count
    limits = jnp.finfo(target.dtype)
    constant = numerics.scalar(constant, target)
    others = jnp.maximum(count - 1, 1.0)
    # In units of `reach` nothing below overflows; the variance may have done so before.
    variance = jnp.minimum(stats.variance, limits.max)
    reach = jnp.maximum(jnp.abs(centred), jnp.sqrt(jnp.maximum(variance, limits.tiny)))
    reach = jax.lax.stop_gradient(reach)
    # K variance = squares of the others about their own mean + centred^2 K / (K - 1).
    spread = jnp.square(jnp.sqrt(count) * centred / reach) / others
    spread = jnp.maximum(count * (variance / reach / reach) - spread, 0.0)
    mean_of_others = target - centred * (count / others)

    def log_mass(o, spread, reach, count):
        unit = jnp.maximum(jnp.maximum(jnp.abs(o), reach), jnp.sqrt(constant))
        unit = jax.lax.stop_gradient(unit)
        value = constant / unit / unit + linear * (o / unit) / unit
        value = count * (value + quadratic * jnp.square(o / unit))
        value += quadratic * spread * jnp.square(reach / unit)
        return jnp.log(jnp.maximum(value, limits.tiny)) + 2.0 * jnp.log(unit)

    nothing = jnp.zeros_like(target)
    log_odds = log_mass(target, nothing, nothing, 1.0) - log_mass(
        mean_of_others, spread, reach, others
    )
    alone = (count <= 1) & jnp.isfinite(target)
    # nats is smooth for every log-odds; with one class there is nothing to be odds against.
    return jnp.where(alone, nothing, numerics.nats(log_odds))
