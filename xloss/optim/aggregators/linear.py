# SPDX-License-Identifier: Apache-2.0
"""Linear scalarization: a weighted sum of the task gradients.

"In Defense of the Unitary Scalarization for Deep Multi-Task Learning". Reach for it first: it is
the gradient of a weighted sum of the losses, and with tuned weights hard to beat.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from xloss import checks
from xloss.optim import trees
from xloss.optim.aggregators import gram
from xloss.typing import Array, PRNGKey, PyTree


def linear(
    grads: PyTree,
    *,
    weights: ArrayLike | None = None,
    key: PRNGKey | None = None,
) -> tuple[PyTree, Array]:
    """The weighted sum of the task gradients, all weights 1 unless given.

    Definition::

        d = sum over t of weights_t g_t

    Args:
      grads: tree of float arrays [T, ...], the tasks first.
      weights: [T], any float dtype, traced; None is 1 for every task: the SUM, not the mean.
      key: not used.

    Returns:
      (direction, weights): the tree without its task axis, in the dtypes of ``grads``, and the
      weights [T], float32 (float64 beside float64 gradients).

    Raises:
      TypeError: wrong dtypes.
      ValueError: leaves without a common task axis, or weights that are not [T].

    Numerics:
      Summed in float32 (float64). Linear: the only aggregator under which the parts of a
      gradient may be aggregated apart without changing the result.

    Example:
      >>> import jax.numpy as jnp
      >>> direction, _ = linear(jnp.array([[1.0, 0.0], [2.0, 1.0]]))
      >>> direction.tolist()
      [3.0, 1.0]

    Evidence: authors' code.

    References:
      "In Defense of the Unitary Scalarization for Deep Multi-Task Learning", NeurIPS 2022,
      arXiv 2201.04122. Numbers: LibMTL (median-research-group/LibMTL), whose equal weighting says
      mean in its documentation and sums in its code.
    """
    name = "linear"
    del key
    grads = gram.check_grads(name, grads)
    shape = (gram.num_tasks(grads),)
    if weights is not None:
        weights = checks.floating(name, "weights", weights)
        checks.same_shape(name, "weights", weights, shape)
    return _linear(grads, weights)


@jax.jit
def _linear(grads, weights):
    dtype = trees.dtype_of(grads)
    if weights is None:
        weights = jnp.ones([gram.num_tasks(grads)], dtype)
    weights = weights.astype(dtype)
    return gram.combine(grads, weights), weights
