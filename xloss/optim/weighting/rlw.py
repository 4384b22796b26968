# SPDX-License-Identifier: Apache-2.0
"""RLW: weights drawn anew at every step.

"Reasonable Effectiveness of Random Weighting: A Litmus Test for Multi-Task Learning". Reach for it
as the baseline that a learned weighting has to beat.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from xloss.optim.weighting.losses import check_losses
from xloss.typing import Array, PRNGKey


def rlw(losses: ArrayLike, *, key: PRNGKey | None = None, normal: ArrayLike | None = None) -> Array:
    """The losses, weighted by the softmax of T normal numbers.

    Definition::

        sum over t of w_t L_t,   w = softmax(n),   n ~ N(0, 1)^T

    The weights sum to 1, not to T: beside a sum of losses the learning rate is T times as great.

    Args:
      losses: L [T], any float dtype.
      key: PRNG key from which n is drawn, a fresh one for every step.
      normal: n [T] itself, instead of ``key``.

    Returns:
      Scalar objective, float32 (float64 if either is).

    Raises:
      TypeError: neither key nor normal, or both; wrong dtypes.
      ValueError: losses that are not [T], normal of another shape.

    Numerics:
      The numbers are drawn in float32 (float64 for float64 losses).

    Example:
      >>> import jax.numpy as jnp
      >>> float(rlw(jnp.array([1.0, 3.0]), normal=jnp.zeros(2)))
      2.0

    Evidence: authors' code.

    References:
      "Reasonable Effectiveness of Random Weighting: A Litmus Test for Multi-Task Learning", TMLR
      2022, arXiv 2111.10603. Numbers: LibMTL (median-research-group/LibMTL).
    """
    name = "rlw"
    if (key is None) == (normal is None):
        raise TypeError(
            f"{name}: expected a key, from which to draw, or what is drawn (normal), got "
            f"{'neither' if key is None else 'both'}"
        )
    if key is not None:
        (losses,) = check_losses(name, losses)
        normal = jax.random.normal(key, losses.shape, losses.dtype)
    return _rlw(*check_losses(name, losses, normal=jnp.asarray(normal)))


@jax.jit
def _rlw(losses, normal):
    return jnp.sum(jax.nn.softmax(normal) * losses)
