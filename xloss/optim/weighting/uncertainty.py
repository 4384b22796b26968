# SPDX-License-Identifier: Apache-2.0
"""Uncertainty weighting: every task's loss over a variance that is trained along.

"Multi-Task Learning Using Uncertainty to Weigh Losses for Scene Geometry and Semantics". Reach for
it as the first of the learned weightings: one gradient, one number a task.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from xloss.optim.weighting.losses import check_losses
from xloss.typing import Array


def uncertainty(losses: ArrayLike, log_variances: ArrayLike) -> Array:
    """The sum of the losses over twice their variances, and of what keeps those from growing.

    Definition::

        sum over t of ( L_t / (2 e^s_t) + s_t / 2 )

    Its derivative in s_t is (1 - L_t / e^s_t) / 2: at the minimum the variance e^s_t is the loss
    itself, and the weight of task t is 1 / (2 L_t).

    Args:
      losses: L [T], any float dtype; >= 0, or the minimum in s_t lies at minus infinity.
      log_variances: s [T], trained with the other parameters; LibMTL starts at -0.5.

    Returns:
      Scalar objective, float32 (float64 if either is).

    Raises:
      TypeError: wrong dtypes.
      ValueError: losses that are not [T], log_variances of another shape.

    Numerics:
      e^-s overflows for s below -88 in float32, that is for losses below 1e-38.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> losses, s = jnp.array([2.0, 0.5]), jnp.zeros(2)
      >>> float(uncertainty(losses, s)), jax.grad(uncertainty, argnums=1)(losses, s).tolist()
      (1.25, [-0.5, 0.25])

    Evidence: authors' code.

    References:
      "Multi-Task Learning Using Uncertainty to Weigh Losses for Scene Geometry and Semantics", CVPR
      2018, arXiv 1705.07115. Numbers: LibMTL (median-research-group/LibMTL), which takes the same
      factor 1/2 for regression and classification; the paper has 1 for the latter.
    """
    return _uncertainty(*check_losses("uncertainty", losses, log_variances=log_variances))


@jax.jit
def _uncertainty(losses, log_variances):
    return 0.5 * jnp.sum(losses * jnp.exp(-log_variances) + log_variances)
