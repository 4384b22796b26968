# SPDX-License-Identifier: Apache-2.0
"""Aligned-MTL: the task gradients made orthogonal and of one length, then summed.

"Independent Component Alignment for Multi-Task Learning". Reach for it where gradients conflict and
differ in size at once: both are cured by making the matrix of gradients perfectly conditioned.
"""

import jax
import jax.numpy as jnp

from xloss.optim.aggregators import gram
from xloss.typing import Array, PRNGKey, PyTree


def aligned_mtl(grads: PyTree, *, key: PRNGKey | None = None) -> tuple[PyTree, Array]:
    """The sum of the nearest gradients whose singular values are all the least one.

    Definition, with the singular value decomposition G = U S V^T of the gradients [T, P]::

        d = sum over t of (s_min U V^T)_t = w^T G,   w = s_min (U S^-1 U^T) 1

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
      From the eigenvectors of the inner products; singular values whose square is below T times
      rounding of the greatest are left out, as in the authors' code, so that s_min is that of the
      gradients that differ. The least gradient decides the size of d. No gradient at all gives 0.

    Example:
      >>> import jax.numpy as jnp
      >>> direction, _ = aligned_mtl(jnp.array([[3.0, 0.0], [0.0, 1.0]]))
      >>> [round(x, 4) for x in direction.tolist()]
      [1.0, 1.0]

    Evidence: authors' code.

    References:
      "Independent Component Alignment for Multi-Task Learning", CVPR 2023, arXiv 2305.19000.
      Numbers: LibMTL (median-research-group/LibMTL).
    """
    del key
    return _aligned_mtl(gram.check_grads("aligned_mtl", grads))


@jax.jit
def _aligned_mtl(grads):
    matrix, _ = gram.gram(grads)
    values, vectors = jnp.linalg.eigh(matrix)
    kept = values > matrix.shape[0] * jnp.finfo(matrix.dtype).eps * values[-1]
    roots = jnp.sqrt(jnp.where(kept, values, 1.0))
    least = jnp.min(jnp.where(kept, roots, jnp.inf))
    # Nothing kept: no gradient at all.
    share = jnp.where(kept, jnp.where(jnp.isfinite(least), least, 0.0) / roots, 0.0)
    weights = vectors @ (share * jnp.sum(vectors, axis=0))
    return gram.combine(grads, weights), weights
