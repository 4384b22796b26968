# SPDX-License-Identifier: Apache-2.0
"""GSAM and the gradient-norm penalty: SAM's gradient, mixed with the one where the weights are.

"Surrogate Gap Minimization Improves Sharpness-Aware Training"; "Penalizing Gradient Norm for
Efficiently Improving Generalization in Deep Learning". Reach for them where SAM helps: GSAM also
closes the gap between the two losses, the penalty goes part of SAM's way.
"""

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from xloss import checks
from xloss.optim import perturbation, trees
from xloss.typing import PyTree


def gsam(
    *,
    rho: perturbation.Radius = 0.05,
    alpha: ArrayLike = 0.4,
    minimize_clean: bool = False,
    mask: trees.Mask = None,
) -> optax.GradientTransformationExtraArgs:
    """SAM that also descends the surrogate gap L(w + e) - L(w).

    It stands FIRST in a chain and takes ``grad_fn``, exactly as :func:`sam` does.

    Definition, with g the incoming gradient, g_p = grad_fn(w + e) and e of :func:`sam`::

        update = g_p - alpha (part of g orthogonal to g_p)
        minimize_clean:  g + alpha (part of g_p orthogonal to g)

    Args:
      rho: radius as of :func:`sam`; the authors let it fall with the learning rate, which a
        schedule does.
      alpha: scalar >= 0, traced; 0 is SAM. The authors' experiments have 0.4 to 0.6 and less.
      minimize_clean: True descends L(w) and the gap instead (an option of the JAX code), static.
      mask: leaves that are perturbed, as in :func:`sam`.

    Returns:
      A transformation with state :class:`SamState`; ``update(updates, state, params, *, grad_fn)``
      as of :func:`sam`.

    Raises:
      TypeError: from update, grad_fn missing.
      ValueError: rho or alpha < 0; from update, params missing or with holes.

    Numerics:
      As :func:`sam`; under ``optax.MultiSteps`` grad_fn must cover all micro-batches; inner
      products over all leaves in float32 (float64). Where g_p is 0 all of g is orthogonal to it.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> grad_fn = jax.grad(lambda w: w[0] ** 2 + 2.0 * w[1] ** 2)
      >>> w, tx = jnp.array([1.0, 1.0]), gsam(rho=1.0, alpha=0.0)
      >>> plain, _ = tx.update(grad_fn(w), tx.init(w), w, grad_fn=grad_fn)
      >>> [round(x, 3) for x in plain.tolist()]  # SAM's
      [2.894, 7.578]

    Evidence: authors' code.

    References:
      "Surrogate Gap Minimization Improves Sharpness-Aware Training", ICLR 2022, arXiv 2203.08065;
      authors' code juntang-zhuang/GSAM.
    """
    name = "gsam"
    rho = perturbation.check_radius(name, "rho", rho)
    alpha = checks.number(name, "alpha", alpha, low=0.0)

    def merge(gradient: PyTree, there: PyTree) -> PyTree:
        base, other = (gradient, there) if minimize_clean else (there, gradient)
        sign = 1.0 if minimize_clean else -1.0
        across = trees.across(other, base)
        return jax.tree.map(
            lambda b, v: b.astype(v.dtype) + sign * jnp.asarray(alpha, v.dtype) * v,
            base,
            across,
        )

    return perturbation.perturbed(name, rho, mask, _ascent, merge=merge)


def gradient_norm_penalty(
    *,
    lam: ArrayLike = 0.08,
    radius: ArrayLike = 0.1,
    normalize_clean: bool = False,
    mask: trees.Mask = None,
) -> optax.GradientTransformationExtraArgs:
    """The gradient of L(w) + lam ||grad L(w)||, by a difference of two gradients.

    It stands FIRST in a chain and takes ``grad_fn``, exactly as :func:`sam` does.

    Definition, with g the incoming gradient and a = lam / radius::

        update = (1 - a) g + a grad_fn(w + radius g / ||g||)

    a = 1 is SAM, a = 0 plain gradient descent; radius -> 0 is the exact gradient of the penalty.

    Args:
      lam: weight of the norm, scalar >= 0, traced.
      radius: of the difference, scalar > 0, traced, in the unit of the parameters; the paper has
        a = 0.8 and radius 0.1.
      normalize_clean: True takes g / ||g|| in place of the first g, as the authors' code does by
        default and their paper does not; static.
      mask: leaves that are perturbed, as in :func:`sam`.

    Returns:
      A transformation with state :class:`SamState`; ``update(updates, state, params, *, grad_fn)``
      as of :func:`sam`.

    Raises:
      TypeError: from update, grad_fn missing.
      ValueError: lam < 0 or radius <= 0; from update, params missing or with holes.

    Numerics:
      As :func:`sam`; under ``optax.MultiSteps`` grad_fn must cover all micro-batches. A small
      radius takes the difference of nearly equal gradients: in float32 stay above 1e-3 of the
      parameters' norm.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> grad_fn = jax.grad(lambda w: jnp.sum(w**2) / 2)
      >>> tx, w = gradient_norm_penalty(lam=0.5, radius=1.0), jnp.array([3.0])
      >>> tx.update(grad_fn(w), tx.init(w), w, grad_fn=grad_fn)[0].tolist()  # w + lam
      [3.5]

    Evidence: authors' code.

    References:
      "Penalizing Gradient Norm for Efficiently Improving Generalization in Deep Learning", ICML
      2022, arXiv 2202.03599; authors' code zhaoyang-0204/gnp. Departure: the perturbation is that
      of the global batch, theirs of each device.
    """
    name = "gradient_norm_penalty"
    lam = checks.number(name, "lam", lam, low=0.0)
    radius = checks.number(name, "radius", radius, low=0.0, open_low=True)

    def merge(gradient: PyTree, there: PyTree) -> PyTree:
        norm, unit = trees.norm_and_unit(gradient)
        share = jnp.asarray(lam, norm.dtype) / jnp.asarray(radius, norm.dtype)
        clean = unit if normalize_clean else gradient
        return jax.tree.map(
            lambda g, p: (1.0 - share) * g.astype(norm.dtype) + share * p.astype(norm.dtype),
            clean,
            there,
        )

    return perturbation.perturbed(name, radius, mask, _ascent, merge=merge)


def _ascent(gradient: PyTree, params: PyTree, radius: ArrayLike) -> PyTree:
    del params
    return perturbation.ascent(gradient, radius)
