# SPDX-License-Identifier: Apache-2.0
"""GradNorm: weights trained until every task learns at a similar rate.

"GradNorm: Gradient Normalization for Adaptive Loss Balancing in Deep Multitask Networks". Reach for
it where one task's gradient drowns the others and T gradients (of one layer will do) are to be had.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from xloss import checks, numerics
from xloss.optim import trees
from xloss.optim.aggregators import gram
from xloss.optim.weighting.losses import check_losses
from xloss.typing import Array, PyTree


def gradnorm(
    scales: ArrayLike,
    grads: PyTree,
    losses: ArrayLike,
    initial_losses: ArrayLike,
    *,
    alpha: ArrayLike = 1.5,
) -> tuple[Array, Array]:
    """What the scales are trained to make small, and the weights that they stand for.

    Definition::

        w = T softmax(s),   G_t = ||w_t g_t||,   r_t = (L_t / L_t(0)) / mean over u of the same
        penalty = sum over t of | G_t - target_t |,   target_t = mean(G) r_t^alpha, a constant

    The direction of the shared parameters is sum over t of w_t g_t; the penalty's gradient is taken
    in s alone, with an optimizer of its own: ``jax.grad(gradnorm, has_aux=True)``.

    Args:
      scales: s [T], any float dtype; start at equal values.
      grads: tree of float arrays [T, ...], the tasks first: the gradients of the shared parameters,
        or of their last layer, as the authors do. Constants here.
      losses: L [T] > 0 of the same batch.
      initial_losses: L(0) [T] > 0 at the start of training.
      alpha: scalar >= 0, traced; 0 makes the norms equal, larger values favour tasks that lag.

    Returns:
      (penalty, w): scalar and [T] with sum T, float32 (float64 if one of them is).

    Raises:
      TypeError: wrong dtypes.
      ValueError: shapes that do not go together, alpha < 0.

    Numerics:
      The norms' squares neither overflow nor vanish. Where a norm is at its target, the penalty's
      derivative is that of |x| at 0: 0.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> grads, losses = jnp.array([[3.0], [1.0]]), jnp.ones(2)
      >>> slope, w = jax.grad(gradnorm, has_aux=True)(jnp.zeros(2), grads, losses, losses)
      >>> slope.tolist(), w.tolist()  # the first task's weight is to fall
      ([2.0, -2.0], [1.0, 1.0])

    Evidence: authors' code.

    References:
      "GradNorm: Gradient Normalization for Adaptive Loss Balancing in Deep Multitask Networks",
      ICML 2018, arXiv 1711.02257. Numbers: LibMTL (median-research-group/LibMTL), whose softmax
      stands in for the paper's free weights that are rescaled to sum T after every step.
    """
    name = "gradnorm"
    losses, initial_losses, scales = check_losses(
        name, losses, initial_losses=initial_losses, scales=scales
    )
    grads = gram.check_grads(name, grads)
    if gram.num_tasks(grads) != losses.size:
        raise ValueError(
            f"{name}: expected grads of as many tasks as losses, got {gram.num_tasks(grads)} and "
            f"{losses.size}"
        )
    return _gradnorm(
        scales, grads, losses, initial_losses, checks.number(name, "alpha", alpha, low=0.0)
    )


@jax.jit
def _gradnorm(scales, grads, losses, initial_losses, alpha):
    matrix, unit = gram.by_task(jax.lax.stop_gradient(grads))
    dtype = trees.dtype_of((scales, matrix))
    lengths = jnp.sqrt(jnp.diagonal(matrix)).astype(dtype) * unit.astype(dtype)
    weights = scales.size * jax.nn.softmax(scales.astype(dtype))
    norms = weights * lengths
    rates = (losses / initial_losses).astype(dtype)
    mean = jnp.mean(rates)
    rates = rates / jnp.where(mean == 0, jnp.ones_like(mean), mean)  # all losses may be 0
    target = jax.lax.stop_gradient(jnp.mean(norms) * rates ** numerics.scalar(alpha, rates))
    return jnp.sum(jnp.abs(norms - target)), weights
