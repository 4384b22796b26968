# SPDX-License-Identifier: Apache-2.0
"""GradDrop: in every coordinate the gradients of one sign are kept, drawn by how strong they are.

"Just Pick a Sign: Optimizing Deep Multitask Models with Gradient Sign Dropout". Reach for it as a
regulariser against conflicts coordinate by coordinate; it needs no inner products.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from xloss import checks, numerics
from xloss.optim import trees
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
      arXiv 2010.06808. Numbers: LibMTL (median-research-group/LibMTL).
    """
    name = "graddrop"
    grads = gram.check_grads(name, grads)
    leak = checks.number(name, "leak", leak, low=0.0, high=1.0)
    eps = checks.number(name, "eps", eps, low=0.0)
    _one_of(name, key, uniform)
    if uniform is not None:
        if jax.tree.structure(uniform) != jax.tree.structure(grads):
            raise ValueError(f"{name}: expected uniform in the structure of grads, got another")
        uniform = jax.tree.map(lambda x: checks.floating(name, "uniform", x), uniform)
        for u, g in zip(jax.tree.leaves(uniform), jax.tree.leaves(grads), strict=True):
            checks.same_shape(name, "uniform", u, g.shape[1:])
    return _graddrop(grads, key, uniform, leak, eps)


def graddrop_representation(
    representation: ArrayLike,
    grads: ArrayLike,
    *,
    key: PRNGKey | None = None,
    uniform: ArrayLike | None = None,
    leak: ArrayLike = 0.0,
    eps: ArrayLike = 1e-7,
) -> Array:
    """GradDrop on what the tasks share: the gradient to send back into the trunk.

    One draw a feature serves the whole batch, and one backward pass of the trunk is enough.

    Definition, for a representation r [B, F] and the tasks' gradients g [T, B, F] of it::

        s_t = sum over the batch of sign(r) g_t                            [F]
        P = (1 + sum_t s_t / (sum_t |s_t| + eps)) / 2,  U uniform in [0, 1)   [F]
        m_t = [P > U] [s_t > 0] + [P < U] [s_t < 0]                        [F]
        result = sum over t of (leak + (1 - leak) m_t) g_t                 [B, F]

    Args:
      representation: r [B, ...], any float dtype: the trunk's output.
      grads: g [T, B, ...]: of each task's loss.
      key: PRNG key from which U is drawn, a fresh one for every step.
      uniform: U itself [...], instead of ``key``.
      leak: what is left of the gradients that are dropped, scalar in [0, 1], traced.
      eps: scalar >= 0, in the unit of the gradients.

    Returns:
      [B, ...] in the dtype of ``grads``: the cotangent for the trunk's ``jax.vjp``.

    Raises:
      TypeError: neither key nor uniform, or both; wrong dtypes.
      ValueError: shapes that do not go together, numbers out of range.

    Numerics:
      In float32 (float64).

    Example:
      >>> import jax.numpy as jnp
      >>> grads = jnp.array([[[2.0, 1.0]], [[-1.0, 1.0]]])
      >>> graddrop_representation(
      ...     jnp.array([[1.0, -1.0]]), grads, uniform=jnp.array([0.5, 0.5])
      ... ).tolist()
      [[2.0, 2.0]]

    Evidence: authors' code.

    References:
      "Just Pick a Sign: Optimizing Deep Multitask Models with Gradient Sign Dropout", NeurIPS 2020,
      arXiv 2010.06808. Numbers: LibMTL (median-research-group/LibMTL).
    """
    name = "graddrop_representation"
    representation = checks.floating(name, "representation", representation)
    grads = checks.floating(name, "grads", grads)
    gram.check_grads(name, grads)
    if representation.ndim < 1:
        raise ValueError(f"{name}: expected representation [B, ...], got a scalar")
    checks.same_shape(name, "grads", grads, (grads.shape[0], *representation.shape))
    leak = checks.number(name, "leak", leak, low=0.0, high=1.0)
    eps = checks.number(name, "eps", eps, low=0.0)
    _one_of(name, key, uniform)
    if uniform is not None:
        uniform = checks.floating(name, "uniform", uniform)
        checks.same_shape(name, "uniform", uniform, representation.shape[1:])
    return _graddrop_representation(representation, grads, key, uniform, leak, eps)


def _one_of(name: str, key: PRNGKey | None, uniform: PyTree | None) -> None:
    if (key is None) == (uniform is None):
        raise TypeError(
            f"{name}: expected a key, from which to draw, or what is drawn (uniform), got "
            f"{'neither' if key is None else 'both'}"
        )


def _kept(wide: Array, uniform: Array, eps: ArrayLike) -> Array:
    """1 where a task's number [T, ...] is of the sign that was drawn, else 0."""
    total = jnp.sum(jnp.abs(wide), axis=0) + numerics.scalar(eps, wide)
    up = 0.5 * (1.0 + jnp.sum(wide, axis=0) / jnp.where(total == 0, 1.0, total))
    chosen = ((up > uniform)[None] & (wide > 0)) | ((up < uniform)[None] & (wide < 0))
    return chosen.astype(wide.dtype)


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
    dtype = trees.dtype_of(grads)
    found, kept, size = [], jnp.zeros([], dtype), 0
    for g, u in zip(leaves, draws, strict=True):
        wide = numerics.promote(g)
        mask = _kept(wide, u.astype(wide.dtype), eps)
        rest = numerics.scalar(leak, wide)
        found.append(jnp.sum((rest + (1.0 - rest) * mask) * wide, axis=0).astype(g.dtype))
        kept = kept + jnp.sum(mask, axis=tuple(range(1, mask.ndim)), dtype=dtype)
        size += mask[0].size
    return jax.tree.unflatten(structure, found), kept / max(size, 1)


@jax.jit
def _graddrop_representation(representation, grads, key, uniform, leak, eps):
    wide = numerics.promote(grads)
    signs = jnp.sign(representation).astype(wide.dtype)
    per_feature = jnp.sum(signs[None] * wide, axis=1)
    if uniform is None:
        uniform = jax.random.uniform(key, representation.shape[1:], wide.dtype)
    mask = _kept(per_feature, uniform.astype(wide.dtype), eps)
    rest = numerics.scalar(leak, wide)
    share = rest + (1.0 - rest) * mask
    return jnp.sum(share[:, None] * wide, axis=0).astype(grads.dtype)
