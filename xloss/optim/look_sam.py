# SPDX-License-Identifier: Apache-2.0
"""LookSAM: SAM's second gradient every k-th step only.

"Towards Efficient and Scalable Sharpness-Aware Minimization". Reach for it where SAM helps and its
price does not fit: what the second gradient adds changes slowly, and is kept between the steps.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from xloss import checks
from xloss.optim import perturbation, trees
from xloss.typing import Array, PyTree


class LookSamState(NamedTuple):
    """What LookSAM carries from step to step.

    Attributes:
      count: steps taken, int32 scalar.
      across: g_v, the part of SAM's gradient that was orthogonal to the plain one; the parameters'
        structure, float32 (float64).
    """

    count: Array
    across: PyTree


def look_sam(
    *,
    rho: perturbation.Radius = 0.05,
    every: int = 5,
    alpha: ArrayLike = 0.7,
    mask: trees.Mask = None,
) -> optax.GradientTransformationExtraArgs:
    """SAM at every k-th step, and between them what it added last time.

    It stands FIRST in a chain and takes ``grad_fn``, exactly as :func:`sam` does.

    Definition, with g the incoming gradient, g_s = grad_fn(w + e) and e of :func:`sam`::

        step 0, k, 2k, ...:  update = g_s,  g_v = part of g_s orthogonal to g
        others:              update = g + alpha (||g|| / ||g_v||) g_v

    Args:
      rho: radius as of :func:`sam`.
      every: k >= 1, static; 1 is SAM.
      alpha: scalar >= 0, traced.
      mask: leaves that are perturbed, as in :func:`sam`.

    Returns:
      A transformation with state :class:`LookSamState`; ``update(updates, state, params, *,
      grad_fn)`` as of :func:`sam`.

    Raises:
      TypeError: from update, grad_fn missing.
      ValueError: rho or alpha < 0, every < 1; from update, params missing or with holes.

    Numerics:
      As :func:`sam`; under ``optax.MultiSteps`` grad_fn must cover all micro-batches. The second
      gradient is really skipped (``jax.lax.cond``): 1 + 1 / k gradients a step; under vmap over
      several models both branches run. g_v = 0 adds nothing.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> grad_fn = jax.grad(lambda w: jnp.sum(w**2) / 2)
      >>> tx, w = look_sam(rho=1.0, every=2), jnp.array([3.0])
      >>> first, state = tx.update(grad_fn(w), tx.init(w), w, grad_fn=grad_fn)
      >>> second, _ = tx.update(grad_fn(w), state, w, grad_fn=grad_fn)
      >>> first.tolist(), second.tolist()  # in one dimension nothing is orthogonal
      ([4.0], [3.0])

    Evidence: published formula, derived and checked.

    References:
      "Towards Efficient and Scalable Sharpness-Aware Minimization", CVPR 2022, arXiv 2203.02714. No
      authors' code is known; two independent ones agree.
    """
    name = "look_sam"
    rho = perturbation.check_radius(name, "rho", rho)
    alpha = checks.number(name, "alpha", alpha, low=0.0)
    if isinstance(every, bool) or not isinstance(every, int) or every < 1:
        raise ValueError(f"{name}: expected every an integer >= 1, got {every!r}")

    def init(params: PyTree) -> LookSamState:
        dtype = trees.dtype_of(params)
        zeros = jax.tree.map(lambda w: jnp.zeros_like(w, dtype=dtype), params)
        return LookSamState(count=jnp.zeros([], jnp.int32), across=zeros)

    def update(
        updates: PyTree,
        state: Any,
        params: PyTree | None = None,
        *,
        grad_fn: Any = None,
        **extra_args: Any,
    ) -> tuple[PyTree, LookSamState]:
        del extra_args  # of other transforms in the chain
        grad_fn = trees.check_function(name, "grad_fn", grad_fn)
        trees.check_params(name, params)
        radius = perturbation.radius_at(rho, state.count)
        dtype = trees.dtype_of(state.across)

        def look() -> tuple[PyTree, PyTree]:
            step = perturbation.ascent(trees.select(updates, mask, params), radius)
            there = grad_fn(perturbation.moved(params, trees.select(step, mask, params)))
            across = jax.tree.map(lambda x: x.astype(dtype), trees.across(there, updates))
            return perturbation.cast_like(there, updates), across

        def recall() -> tuple[PyTree, PyTree]:
            norm, _ = trees.norm_and_unit(updates)
            _, unit = trees.norm_and_unit(state.across)
            length = jnp.asarray(alpha, norm.dtype) * norm
            return trees.add_scaled(updates, length, unit), state.across

        found, across = (
            look() if every == 1 else jax.lax.cond(state.count % every == 0, look, recall)
        )
        count = jnp.asarray(optax.safe_increment(state.count))
        return found, LookSamState(count=count, across=across)

    return optax.GradientTransformationExtraArgs(init, update)
