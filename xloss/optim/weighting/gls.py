# SPDX-License-Identifier: Apache-2.0
"""GLS: the geometric mean of the losses.

"MultiNet++: Multi-Stream Feature Aggregation and Geometric Loss Strategy for Multi-Task Learning".
Reach for it where losses have different units: scaling one of them scales the whole objective and
changes no direction.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from xloss.optim.weighting.losses import check_losses
from xloss.typing import Array


def gls(losses: ArrayLike) -> Array:
    """(L_1 ... L_T)^(1/T).

    Definition::

        exp( mean over t of log L_t ),   weight of task t: the same / (T L_t)

    Args:
      losses: L [T] > 0, any float dtype.

    Returns:
      Scalar objective, float32 (float64), in the unit of the losses' geometric mean.

    Raises:
      TypeError: wrong dtype.
      ValueError: losses that are not [T].

    Numerics:
      By logarithms: the product of many losses neither overflows nor vanishes. A loss of 0 makes
      the objective 0 and its gradient NaN, as it has none there; a negative one makes both NaN.

    Example:
      >>> import jax.numpy as jnp
      >>> round(float(gls(jnp.array([4.0, 9.0]))), 5)
      6.0

    Evidence: authors' code.

    References:
      "MultiNet++: Multi-Stream Feature Aggregation and Geometric Loss Strategy for Multi-Task
      Learning", CVPR workshops 2019, arXiv 1904.08492. Numbers: LibMTL
      (median-research-group/LibMTL).
    """
    return _gls(*check_losses("gls", losses))


@jax.jit
def _gls(losses):
    return jnp.exp(jnp.mean(jnp.log(losses)))
