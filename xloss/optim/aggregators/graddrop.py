# SPDX-License-Identifier: Apache-2.0
"""GradDrop: in every coordinate the gradients of one sign are kept, drawn by how strong they are.

"Just Pick a Sign: Optimizing Deep Multitask Models with Gradient Sign Dropout". Reach for it as a
regulariser against conflicts coordinate by coordinate; it needs no inner products.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from xloss import checks, numerics
from xloss.optim.aggregators import gram
from xloss.typing import Array, PRNGKey, PyTree


def graddrop(
    grads: PyTree,
    *,
    key: PRNGKey | None = None,
    uniform: PyTree | None = None,
    leak: ArrayLike = 0.0,
    eps: ArrayLike = 1e-7,
) -> tuple[PyTree, Array]:
    """The sum of the gradients, of one sign in each coordinate.

    Definition, in every coordinate, U uniform in [0, 1) and shared by the tasks::

        P = (1 + sum_t g_t / (sum_t |g_t| + eps)) / 2
        m_t = [P > U] [g_t > 0] + [P < U] [g_t < 0]
        d = sum over t of (leak + (1 - leak) m_t) g_t

    Args:
      grads: tree of float arrays [T, ...], the tasks first.
      key: PRNG key from which U is drawn, a fresh one for every step.
      uniform: U itself instead of ``key``: a tree in the structure of ``grads`` without the tasks.
      leak: what is left of the gradients that are dropped, scalar in [0, 1], traced.
      eps: scalar >= 0, in the unit of the gradients.

    Returns:
      (direction, kept): the tree without its task axis, in the dtypes of ``grads``, and the share
      of each task's coordinates that was kept [T], float32 (float64 beside float64 gradients).
      Other aggregators return coefficients there; the direction is none of constant ones.

    Raises:
      TypeError: neither key nor uniform, or both; wrong dtypes.
      ValueError: leaves without a common task axis, uniform of other shapes, numbers out of range.

    Numerics:
      In float32 (float64). Coordinates that are 0 in all tasks stay 0.

    Example:
      >>> import jax.numpy as jnp
      >>> grads = jnp.array([[2.0, 1.0], [-1.0, 1.0]])
      >>> graddrop(grads, uniform=jnp.array([0.5, 0.5]))[0].tolist()
      [2.0, 2.0]

    Evidence: authors' code.

    References:
      "Just Pick a Sign: Optimizing Deep Multitask Models with Gradient Sign Dropout", NeurIPS 2020,
      arXiv 2010.06808. Numbers: LibMTL (median-research-group/LibMTL), which draws on the shared
      representation; here it is on the gradients of the parameters.
    """
    name = "graddrop"
    grads = gram.check_grads(name, grads)
    leak = checks.number(name, "leak", leak, low=0.0, high=1.0)
    eps = checks.number(name, "eps", eps, low=0.0)
    if (key is None) == (uniform is None):
        raise TypeError(
            f"{name}: expected a key, from which to draw, or what is drawn (uniform), got "
            f"{'neither' if key is None else 'both'}"
        )
    if uniform is not None:
        if jax.tree.structure(uniform) != jax.tree.structure(grads):
            raise ValueError(f"{name}: expected uniform in the structure of grads, got another")
        uniform = jax.tree.map(lambda x: checks.floating(name, "uniform", x), uniform)
        for u, g in zip(jax.tree.leaves(uniform), jax.tree.leaves(grads), strict=True):
            checks.same_shape(name, "uniform", u, g.shape[1:])
    return _graddrop(grads, key, uniform, leak, eps)


@jax.jit
def _graddrop(grads, key, uniform, leak, eps):
    leaves, structure = jax.tree.flatten(grads)
    if uniform is None:
        keys = jax.random.split(key, len(leaves))
        draws = [
            jax.random.uniform(k, g.shape[1:], numerics.working_dtype(g.dtype))
            for k, g in zip(keys, leaves, strict=True)
        ]
    else:
        draws = jax.tree.leaves(uniform)
    found, kept, size = [], 0.0, 0
    for g, u in zip(leaves, draws, strict=True):
        wide = numerics.promote(g)
        u = u.astype(wide.dtype)
        total = jnp.sum(jnp.abs(wide), axis=0) + numerics.scalar(eps, wide)
        up = 0.5 * (1.0 + jnp.sum(wide, axis=0) / jnp.where(total == 0, 1.0, total))
        chosen = ((up > u)[None] & (wide > 0)) | ((up < u)[None] & (wide < 0))
        mask = chosen.astype(wide.dtype)
        rest = numerics.scalar(leak, wide)
        found.append(jnp.sum((rest + (1.0 - rest) * mask) * wide, axis=0).astype(g.dtype))
        kept = kept + jnp.sum(mask, axis=tuple(range(1, mask.ndim)))
        size += mask[0].size
    return jax.tree.unflatten(structure, found), kept / max(size, 1)
