# SPDX-License-Identifier: Apache-2.0
"""How far a soup of two models is from their ensemble, and why: curvature against disagreement.

"Model soups: averaging weights of multiple fine-tuned models improves accuracy without increasing
inference time", section 4. Reach for it to tell, without an ensemble at hand, whether two models
can be averaged: a loss that is convex between them, flat enough for their disagreement, can.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from xloss import checks, numerics, reduction, statistics
from xloss.optim import trees
from xloss.optim.soups import interpolate
from xloss.typing import Array, PyTree


class SoupEnsembleGap(NamedTuple):
    """What :func:`soup_ensemble_gap` returns; scalars, float32 (float64).

    Attributes:
      soup_loss: mean cross-entropy of the model between the two, in nats.
      ensemble_loss: that of the logits between the two models' logits.
      second_derivative: of soup_loss in alpha.
      variance: mean over examples of the variance of f(params1) - f(params0) over classes drawn
        from the soup's own prediction.
      approximation: of ``actual``, from the two numbers above.
      actual: soup_loss - ensemble_loss; negative where the soup is better.
    """

    soup_loss: Array
    ensemble_loss: Array
    second_derivative: Array
    variance: Array
    approximation: Array
    actual: Array


def soup_ensemble_gap(
    logits_fn: Callable[[PyTree], Array],
    params0: PyTree,
    params1: PyTree,
    labels: ArrayLike,
    *,
    alpha: ArrayLike = 0.5,
    beta: ArrayLike = 1.0,
    where: ArrayLike | None = None,
) -> SoupEnsembleGap:
    """Loss of the soup of two models minus that of their logit ensemble, and its approximation.

    Definition, theta_a = (1 - a) params0 + a params1, f = logits_fn, D = f(params1) - f(params0)::

        soup      L(a) = mean of -log softmax(beta f(theta_a))_y
        ensemble         mean of -log softmax(beta ((1 - a) f(params0) + a f(params1)))_y
        actual        =  soup - ensemble at a = alpha
        approximation =  alpha (1 - alpha) / 2 (-L''(alpha) + beta^2 variance)
        variance      =  mean of Var of D_Y, Y ~ softmax(beta f(theta_alpha))

    Args:
      logits_fn: params -> logits [..., K] over a batch, finite; differentiable forward twice.
      params0: tree of parameters.
      params1: tree of the same structure and shapes.
      labels: integer [...] in [0, K).
      alpha: share of params1, scalar in [0, 1], traced.
      beta: inverse temperature of the logits, scalar > 0, traced.
      where: bool [...]; masked examples take no part.

    Returns:
      SoupEnsembleGap. The approximation is of second order in the distance of the two; its error
      is of third order unless alpha = 1/2.

    Raises:
      TypeError: logits not of a float dtype, labels not integer, logits_fn not a function.
      ValueError: structures or shapes differ, a number out of range.

    Numerics:
      Parameters are widened to float32 first. ``actual`` is a difference of two losses: between
      models close to each other take float64. A label outside [0, K) gives NaN. Costs three
      forward passes and their second derivative along one direction; called many times, it belongs
      inside ``jax.jit`` with the batch as an argument. A logits_fn with a custom_vjp inside raises
      JAX's TypeError.

    Example:
      >>> import jax.numpy as jnp
      >>> x, labels = jnp.array([[1.0, 2.0], [0.0, -1.0]]), jnp.array([0, 1])
      >>> gap = soup_ensemble_gap(lambda w: x @ w, jnp.eye(2), 3 * jnp.eye(2), labels)
      >>> bool(jnp.allclose(gap.second_derivative, gap.variance)), abs(round(float(gap.actual), 6))
      (True, 0.0)

    Evidence: published formula, derived and checked.

    References:
      "Model soups: averaging weights of multiple fine-tuned models improves accuracy without
      increasing inference time", ICML 2022, arXiv 2203.05482, section 4. mlfoundations/model-soups
      holds no code for it.
    """
    name = "soup_ensemble_gap"
    alpha = checks.number(name, "alpha", alpha, low=0.0, high=1.0)
    beta = checks.number(name, "beta", beta, low=0.0, open_low=True)
    logits_fn = trees.check_function(name, "logits_fn", logits_fn)
    params0, params1 = _widened(params0), _widened(params1)
    labels = checks.integer(name, "labels", labels)
    where = checks.mask(name, where, labels.shape)

    def logits_of(params: PyTree) -> Array:
        logits = numerics.promote(checks.floating(name, "logits_fn(params)", logits_fn(params)))
        if logits.shape[:-1] != labels.shape or logits.ndim == 0:
            raise ValueError(
                f"{name}: expected logits_fn(params) of shape {labels.shape} + (K,), got "
                f"{logits.shape}"
            )
        return logits if where is None else jnp.where(where[..., None], logits, 0.0)

    def loss_of(logits: Array) -> Array:
        scaled = numerics.scalar(beta, logits) * logits
        stats = statistics.logit_statistics(scaled, labels, where=where)
        return reduction.reduce(numerics.nats(stats.log_odds), where=where)

    def soup(share: Array) -> tuple[Array, Array]:
        logits = logits_of(interpolate(params0, params1, share))
        return loss_of(logits), logits

    def slope(share: Array) -> tuple[Array, tuple[Array, Array]]:
        value, tangent = jax.jvp(soup, (share,), (jnp.ones_like(share),))
        return tangent[0], value

    start, end = logits_of(params0), logits_of(params1)
    share = numerics.scalar(alpha, start)
    (_, (soup_loss, between)), (second, _) = jax.jvp(slope, (share,), (jnp.ones_like(share),))
    ensemble_loss = loss_of((1.0 - share) * start + share * end)

    inverse = numerics.scalar(beta, start)
    variance = reduction.reduce(_variance(end - start, inverse * between), where=where)
    approximation = 0.5 * share * (1.0 - share) * (jnp.square(inverse) * variance - second)
    return SoupEnsembleGap(
        soup_loss, ensemble_loss, second, variance, approximation, soup_loss - ensemble_loss
    )


def _variance(values: Array, logits: Array) -> Array:
    """Variance [...] of values [..., K] over classes of probability softmax(logits)."""
    p = jax.nn.softmax(logits)
    mean = jnp.sum(p * values, axis=-1, keepdims=True)
    return jnp.sum(p * jnp.square(values - mean), axis=-1)


def _widened(params: PyTree) -> PyTree:
    def widen(leaf):
        floating = hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jnp.floating)
        return numerics.promote(jnp.asarray(leaf)) if floating else leaf

    return jax.tree.map(widen, params)
