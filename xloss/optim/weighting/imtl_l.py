# SPDX-License-Identifier: Apache-2.0
"""IMTL-L: losses scaled, by parameters that are trained along, to one size.

"Towards Impartial Multi-task Learning". Reach for it where losses have different units; it is
:func:`xloss.optim.aggregators.imtl_g` for losses, and goes with it.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from xloss.optim.weighting.losses import check_losses
from xloss.typing import Array


def imtl_l(losses: ArrayLike, scales: ArrayLike) -> Array:
    """The sum of the scaled losses and of what keeps the scales from falling.

    Definition::

        sum over t of (e^s_t L_t - s_t)

    Its derivative in s_t is e^s_t L_t - 1: at the minimum every scaled loss is 1.

    Args:
      losses: L [T] >= 0, any float dtype.
      scales: s [T], trained with the other parameters; start at 0.

    Returns:
      Scalar objective, float32 (float64 if either is).

    Raises:
      TypeError: wrong dtypes.
      ValueError: losses that are not [T], scales of another shape.

    Numerics:
      e^s overflows for scales beyond 88 in float32, that is for losses below 1e-38.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> losses, scales = jnp.array([2.0, 0.5]), jnp.zeros(2)
      >>> float(imtl_l(losses, scales)), jax.grad(imtl_l, argnums=1)(losses, scales).tolist()
      (2.5, [1.0, -0.5])

    Evidence: authors' code.

    References:
      "Towards Impartial Multi-task Learning", ICLR 2021. Numbers: LibMTL
      (median-research-group/LibMTL).
    """
    return _imtl_l(*check_losses("imtl_l", losses, scales=scales))


@jax.jit
def _imtl_l(losses, scales):
    return jnp.sum(jnp.exp(scales) * losses - scales)
