# SPDX-License-Identifier: Apache-2.0
"""Adversarial weight perturbation (AWP): weights moved uphill before the gradient is taken.

Wu, Xia, Wang, "Adversarial Weight Perturbation Helps Robust Generalization". Reach for it where the
robust accuracy of adversarial training falls late in training while its loss still falls::

    worst = awp_perturb(params, jax.grad(loss)(params), gamma=0.01)
    updates, state = optimizer.update(jax.grad(loss)(worst), state, params)

The step is then taken from ``params``, which were never touched.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from xloss import checks, numerics
from xloss.optim import perturbation, trees
from xloss.typing import Array, PyTree


def awp_perturb(
    params: PyTree, gradients: PyTree, *, gamma: ArrayLike = 0.01, mask: trees.Mask = None
) -> PyTree:
    """Parameters moved along the gradient, tensor by tensor, by a share of their own size.

    Definition, for every tensor w of at least two axes, with the gradient g of the loss::

        w + gamma ||w||_F g / ||g||_F

    Biases and scales (fewer axes) stay as they are.

    Args:
      params: float arrays.
      gradients: of the adversarial loss at ``params``, in their structure.
      gamma: scalar >= 0, traced; the authors take 0.01, and 0.005 for TRADES.
      mask: which tensors to move: a tree of bools (a prefix will do) or a function params -> such a
        tree; None moves those of at least two axes.

    Returns:
      The perturbed parameters, at least float32. The perturbation is data: nothing is
      differentiated through it. Keep ``params`` to restore them; subtracting would round.

    Raises:
      TypeError: a mask that is not of bools.
      ValueError: trees of different structure or shapes, gamma < 0.

    Numerics:
      Norms in float32 (float64) without overflow or underflow; a gradient of 0 moves nothing.

    Example:
      >>> import jax.numpy as jnp
      >>> params = {"kernel": jnp.array([[3.0, 4.0]]), "bias": jnp.ones(2)}
      >>> gradients = {"kernel": jnp.array([[0.0, 2.0]]), "bias": jnp.ones(2)}
      >>> awp_perturb(params, gradients, gamma=0.1)["kernel"].tolist()
      [[3.0, 4.5]]

    Evidence: authors' code.

    References:
      Wu, Xia, Wang, "Adversarial Weight Perturbation Helps Robust Generalization", NeurIPS 2020,
      arXiv 2004.05884; authors' code csdongxian/AWP, where a proxy's SGD step gives the direction
      (its learning rate cancels).
    """
    name = "awp_perturb"
    gamma = checks.number(name, "gamma", gamma, low=0.0)
    if jax.tree.structure(params) != jax.tree.structure(gradients):
        raise ValueError(f"{name}: expected gradients in the structure of params, got another")
    for w, g in zip(jax.tree.leaves(params), jax.tree.leaves(gradients), strict=True):
        checks.same_shape(name, "gradients", jnp.asarray(g), jnp.shape(w))
    chosen = mask(params) if callable(mask) else mask
    if chosen is None:
        moves = [jnp.ndim(w) > 1 for w in jax.tree.leaves(params)]
    else:
        moves = perturbation.flags(name, "mask", chosen, params)
    leaves, structure = jax.tree.flatten(params)
    steps = [
        _step(w, g, gamma) if take else jnp.zeros_like(w)
        for w, g, take in zip(leaves, jax.tree.leaves(gradients), moves, strict=True)
    ]
    return perturbation.moved(params, jax.tree.unflatten(structure, steps))


@jax.jit
def _step(w: Array, g: Array, gamma: ArrayLike) -> Array:
    size, _ = trees.norm_and_unit(w)
    _, direction = trees.norm_and_unit(g)
    length = numerics.scalar(gamma, size) * size
    return jax.lax.stop_gradient(length * direction.astype(size.dtype))
