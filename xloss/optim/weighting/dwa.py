# SPDX-License-Identifier: Apache-2.0
"""DWA: tasks whose loss fell least in the last epoch weigh most in the next.

"End-to-End Multi-Task Learning with Attention". Reach for it where a weight an epoch is enough; it
needs no gradients, only the means of the losses that a training log has anyway.
"""

import jax
from jax.typing import ArrayLike

from xloss import checks, numerics
from xloss.optim.weighting.losses import check_losses
from xloss.typing import Array


def dwa(last: ArrayLike, before: ArrayLike, *, temperature: ArrayLike = 2.0) -> Array:
    """Weights of the coming epoch, from the mean losses of the two before it.

    Definition::

        w = T softmax( (last / before) / temperature )

    Args:
      last: mean losses of the last EPOCH [T]; those of single batches are noise, and so would be
        the weights.
      before: mean losses of the epoch before it [T] > 0. Of the first two epochs, where there is
        none, the weights are 1, by definition: do not call this.
      temperature: scalar > 0, traced; large values make the weights equal.

    Returns:
      w [T] with sum T, float32 (float64 if either is).

    Raises:
      TypeError: wrong dtypes.
      ValueError: losses that are not [T] or differ in shape, temperature <= 0.

    Numerics:
      A loss of 0 two epochs ago gives NaN.

    Example:
      >>> import jax.numpy as jnp
      >>> w = dwa(jnp.array([1.0, 0.5]), jnp.array([1.0, 1.0]))
      >>> [round(x, 4) for x in w.tolist()]
      [1.1244, 0.8756]

    Evidence: authors' code.

    References:
      "End-to-End Multi-Task Learning with Attention", CVPR 2019, arXiv 1803.10704. Numbers: LibMTL
      (median-research-group/LibMTL).
    """
    name = "dwa"
    last, before = check_losses(name, last, "last", before=before)
    temperature = checks.number(name, "temperature", temperature, low=0.0, open_low=True)
    return _dwa(last, before, temperature)


@jax.jit
def _dwa(last, before, temperature):
    return last.size * jax.nn.softmax(last / before / numerics.scalar(temperature, last))
