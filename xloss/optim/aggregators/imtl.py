# SPDX-License-Identifier: Apache-2.0
"""IMTL-G: a direction that is equally far along every task's gradient.

"Towards Impartial Multi-task Learning". Reach for it where no task may be favoured, whatever the
size of its gradient; with :func:`xloss.optim.weighting.imtl_l` beside it, whatever its loss.
"""

import jax
import jax.numpy as jnp

from xloss.optim.aggregators import gram
from xloss.typing import Array, PRNGKey, PyTree


def imtl_g(grads: PyTree, *, key: PRNGKey | None = None) -> tuple[PyTree, Array]:
    """The combination of the gradients with equal projections on all of them.

    Definition, with u_t = g_t / ||g_t||::

        d = sum over t of w_t g_t,   sum of w = 1,   d . u_t equal for all t
        w_t proportional to (C^-1 1)_t / ||g_t||,   C the cosines u_s . u_t

    Weights may be negative.

    Args:
      grads: tree of float arrays [T, ...], the tasks first.
      key: not used.

    Returns:
      (direction, weights): the tree without its task axis, in the dtypes of ``grads``, and its
      coefficients [T], float32 (float64 beside float64 gradients).

    Raises:
      TypeError: wrong dtypes.
      ValueError: leaves without a common task axis.

    Numerics:
      By the eigenvectors of C, those of eigenvalue 0 left out: equal gradients share their weight.
      Where only d = 0 has equal projections (opposite gradients) it is d. A task of gradient 0 has
      no direction and weight 0. Nearly dependent gradients give large weights: that is the method.

    Example:
      >>> import jax.numpy as jnp
      >>> direction, weights = imtl_g(jnp.array([[1.0, 0.0], [0.0, 3.0]]))
      >>> [round(x, 4) for x in weights.tolist()], [round(x, 4) for x in direction.tolist()]
      ([0.75, 0.25], [0.75, 0.75])

    Evidence: authors' code.

    References:
      "Towards Impartial Multi-task Learning", ICLR 2021. Numbers: LibMTL
      (median-research-group/LibMTL), which inverts another, asymmetric matrix of the same solution
      and divides 0 by 0 where that is singular.
    """
    del key
    return _imtl_g(gram.check_grads("imtl_g", grads))


@jax.jit
def _imtl_g(grads):
    matrix, _ = gram.gram(grads)
    cosines, inverse = gram.cosines(matrix)
    there = (inverse > 0).astype(matrix.dtype)
    values, vectors = jnp.linalg.eigh(cosines)
    kept = values > gram.rounding(matrix) * values[-1]
    along = jnp.where(kept, vectors.T @ there, 0.0)
    solved = vectors @ jnp.where(kept, along / jnp.where(kept, values, 1.0), 0.0)
    # What of 1 no combination reaches: then equal projections are those of d = 0.
    missing = there - vectors @ along
    reached = jnp.max(jnp.abs(missing)) < jnp.sqrt(gram.rounding(matrix))
    idle = inverse - vectors @ jnp.where(kept, vectors.T @ inverse, 0.0)
    weights = inverse * jnp.where(reached, solved, idle)
    total = jnp.sum(weights)
    weights = weights / jnp.where(total == 0, 1.0, total)
    return gram.combine(grads, weights), weights
