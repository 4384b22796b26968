# SPDX-License-Identifier: Apache-2.0
"""Whether tasks are in conflict at all: angles and lengths of their gradients.

"Gradient Surgery for Multi-Task Learning". Reach for it before any aggregator: where the cosines
are not negative, or the lengths alone differ, a fixed weighting does what the others can.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from xloss.optim.aggregators import gram
from xloss.typing import Array, PyTree


class Conflict(NamedTuple):
    """What :func:`conflict` finds.

    Attributes:
      cosines: of the angles between the gradients, [T, T]; 0 beside a gradient of 0.
      similarities: of the lengths, [T, T] in [0, 1], 1 for equal ones; 0 beside a gradient of 0.
      rate: part of the pairs of tasks with a negative cosine, scalar; 0 for one task.
    """

    cosines: Array
    similarities: Array
    rate: Array


def conflict(grads: PyTree) -> Conflict:
    """Cosines and similarities of length of all pairs of task gradients.

    Definition::

        cosine_st     = g_s . g_t / (||g_s|| ||g_t||)
        similarity_st = 2 ||g_s|| ||g_t|| / (||g_s||^2 + ||g_t||^2)

    Args:
      grads: tree of float arrays [T, ...], the tasks first.

    Returns:
      :class:`Conflict`, float32 (float64 beside float64 gradients).

    Raises:
      TypeError: wrong dtypes.
      ValueError: leaves without a common task axis.

    Numerics:
      From one [T, T] reduction; squares neither overflow nor vanish, however far the lengths are
      apart. NaN or inf in a gradient gives NaN beside it, and as the rate.

    Example:
      >>> import jax.numpy as jnp
      >>> found = conflict(jnp.array([[1.0, 0.0], [-2.0, 0.0]]))
      >>> float(found.cosines[0, 1]), round(float(found.similarities[0, 1]), 4), float(found.rate)
      (-1.0, 0.8, 1.0)

    Evidence: published formula, derived and checked.

    References:
      "Gradient Surgery for Multi-Task Learning", NeurIPS 2020, arXiv 2001.06782.
    """
    return _conflict(gram.check_grads("conflict", grads))


@jax.jit
def _conflict(grads):
    matrix, scales = gram.by_task(grads)
    cosines, _ = gram.cosines(matrix)
    ratio = gram.length_ratios(matrix, scales)
    similar = jnp.where(ratio == 0, 0.0, 2.0 / (ratio + 1.0 / jnp.where(ratio == 0, 1.0, ratio)))
    tasks = scales.size
    negative = jnp.sum(jnp.triu(cosines < 0, k=1), dtype=matrix.dtype)
    rate = negative / max(tasks * (tasks - 1) // 2, 1)
    return Conflict(cosines, similar, jnp.where(jnp.any(jnp.isnan(cosines)), jnp.nan, rate))
