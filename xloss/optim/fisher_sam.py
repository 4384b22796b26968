# SPDX-License-Identifier: Apache-2.0
"""Fisher SAM: SAM on the ellipsoid of the Fisher information instead of a ball.

"Fisher SAM: Information Geometry and Sharpness Aware Minimisation". Reach for it where a ball is
the wrong neighbourhood: steps are short along parameters whose gradients are large.
"""

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from xloss import checks, numerics
from xloss.optim import perturbation, trees
from xloss.typing import PyTree


def fisher_sam(
    *,
    rho: perturbation.Radius = 0.1,
    eta: ArrayLike = 1.0,
    mask: trees.Mask = None,
) -> optax.GradientTransformationExtraArgs:
    """The gradient at the worst point of a Fisher ellipsoid, to first order.

    It stands FIRST in a chain and takes ``grad_fn``, exactly as :func:`sam` does.

    Definition, with g the incoming gradient, elementwise, one sum over all (masked-in) parameters::

        f = 1 / (1 + eta g^2),   e = rho f g / sqrt(sum g f g),   update = grad_fn(w + e)

    Args:
      rho: size of the ellipsoid, scalar >= 0, traced, or a schedule step -> rho.
      eta: scalar >= 0, traced, in units of 1 / gradient^2; 0 is SAM.
      mask: leaves that are perturbed, as in :func:`sam`.

    Returns:
      A transformation with state :class:`SamState`; ``update(updates, state, params, *, grad_fn)``
      as of :func:`sam`.

    Raises:
      TypeError: from update, grad_fn missing.
      ValueError: rho or eta < 0; from update, params missing or with holes.

    Numerics:
      As :func:`sam`; under ``optax.MultiSteps`` grad_fn must cover all micro-batches. The diagonal
      of the Fisher information is taken from the batch gradient, as the paper does for large
      models. Unlike SAM it feels the scale of the loss.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> grad_fn = jax.grad(lambda w: jnp.sum(w**2) / 2)
      >>> tx, w = fisher_sam(rho=1.0, eta=0.0), jnp.array([3.0])
      >>> tx.update(grad_fn(w), tx.init(w), w, grad_fn=grad_fn)[0].tolist()
      [4.0]

    Evidence: published formula, derived and checked.

    References:
      "Fisher SAM: Information Geometry and Sharpness Aware Minimisation", ICML 2022, arXiv
      2206.04920. No authors' code is known; two independent ones agree.
    """
    name = "fisher_sam"
    rho = perturbation.check_radius(name, "rho", rho)
    eta = checks.number(name, "eta", eta, low=0.0)

    def step(gradient: PyTree, params: PyTree, radius: ArrayLike) -> PyTree:
        del params

        def root(g: jax.Array) -> jax.Array:
            wide = numerics.promote(g)
            return jax.lax.rsqrt(1.0 + jnp.asarray(eta, wide.dtype) * jnp.square(wide))

        return perturbation.ascent(gradient, radius, scale=jax.tree.map(root, gradient))

    return perturbation.perturbed(name, rho, mask, step)
