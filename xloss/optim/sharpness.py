# SPDX-License-Identifier: Apache-2.0
"""How much the loss rises near the parameters: the number that SAM holds down.

"Sharpness-Aware Minimization for Efficiently Improving Generalization". Reach for it to compare two
minima of EQUAL training loss; between runs whose losses differ it says little (a run that fits less
well is often flatter or sharper for that reason alone).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from xloss import checks, numerics
from xloss.optim import perturbation, trees
from xloss.typing import Array, PRNGKey, PyTree

KINDS = ("ascent", "random")


def sharpness(
    loss_fn: Callable[[PyTree], Array],
    params: PyTree,
    *,
    rho: ArrayLike = 0.05,
    kind: str = "ascent",
    mask: trees.Mask = None,
    key: PRNGKey | None = None,
    num_samples: int = 8,
) -> Array:
    """L(w + e) - L(w), e of norm rho along the gradient or in random directions.

    Definition, one norm over all (masked-in) parameters::

        ascent   L(w + rho g / (||g|| + 1e-12)) - L(w), g = grad L(w): SAM's inner maximum to first
                 order
        random   mean over num_samples of L(w + rho u) - L(w), u uniform on the unit sphere; about
                 rho^2 trace(Hessian) / (2 number of parameters) at a minimum

    Args:
      loss_fn: params -> loss over a batch, a scalar.
      params: tree of float arrays.
      rho: radius in the unit of the parameters, scalar >= 0, traced.
      kind: "ascent" or "random"; static.
      mask: leaves that are perturbed, a tree of bools or a function params -> tree.
      key: PRNG key; kind="random" needs it.
      num_samples: directions of kind="random", int >= 1, one after another; static.

    Returns:
      Scalar in the unit of the loss, float32 (float64 for float64); kind="ascent" may come out
      negative where rho oversteps the rise, kind="random" anywhere but at a minimum.

    Raises:
      TypeError: key missing where it is needed, or a loss that is not of a float dtype.
      ValueError: rho < 0, an unknown kind, num_samples < 1, or a loss that is not a scalar.

    Numerics:
      "ascent" costs one gradient and one loss, "random" num_samples + 1 losses. It is a difference
      of two losses: what is below 1e-7 of the loss is rounding in float32. loss_fn is given the
      parameters in float32 where they are narrower, in both terms. A zero gradient gives 0. Called
      many times, it belongs inside ``jax.jit`` with the batch as an argument.

    Example:
      >>> import jax.numpy as jnp
      >>> float(sharpness(lambda w: jnp.sum(w**2) / 2, jnp.array([3.0, 4.0]), rho=1.0))
      5.5

    Evidence: authors' code.

    References:
      "Sharpness-Aware Minimization for Efficiently Improving Generalization", ICLR 2021,
      arXiv 2010.01412.
    """
    name = "sharpness"
    rho = checks.number(name, "rho", rho, low=0.0)
    checks.choice(name, "kind", kind, KINDS)
    if not isinstance(num_samples, int) or num_samples < 1:
        raise ValueError(f"{name}: expected num_samples to be an int >= 1, got {num_samples!r}")
    if kind == "random" and key is None:
        raise TypeError(f"{name}: expected a key with kind='random', got None")
    loss_fn = trees.check_function(name, "loss_fn", loss_fn)
    trees.check_params(name, params)
    params = jax.tree.map(numerics.promote, params)

    def loss(params: PyTree) -> Array:
        value = checks.floating(name, "loss_fn(params)", loss_fn(params))
        checks.same_shape(name, "loss_fn(params)", value, ())
        return numerics.promote(value)

    def at(direction: PyTree) -> Array:
        step = perturbation.ascent(trees.select(direction, mask, params), rho)
        return loss(perturbation.moved(params, step))

    if kind == "ascent" or key is None:
        start, gradient = jax.value_and_grad(loss)(params)
        return at(gradient) - start

    def sample(key: PRNGKey) -> Array:
        leaves, treedef = jax.tree.flatten(params)
        keys = jax.random.split(key, len(leaves))
        draws = [jax.random.normal(k, x.shape, x.dtype) for k, x in zip(keys, leaves, strict=True)]
        return at(treedef.unflatten(draws))

    start = loss(params)
    rises = jax.lax.map(lambda k: sample(k) - start, jax.random.split(key, num_samples))
    return jnp.mean(rises)
