# SPDX-License-Identifier: Apache-2.0
"""SAM and ASAM: step with the gradient of a nearby worst-case point.

"Sharpness-Aware Minimization for Efficiently Improving Generalization". Reach for them when a model
fits its training set and generalises badly, label noise above all; they cost two gradients a step
and need a run long enough to fit: in short, under-fitting runs they hurt.
"""

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from xloss import checks
from xloss.optim import perturbation, trees
from xloss.optim.perturbation import SamState
from xloss.typing import PyTree

__all__ = ["SamState", "asam", "sam"]


def sam(
    *,
    rho: perturbation.Radius = 0.05,
    num_groups: int | None = None,
    mask: trees.Mask = None,
) -> optax.GradientTransformationExtraArgs:
    """Replaces the gradient by the one at the worst point within rho, to first order.

    It stands FIRST in a chain and takes ``grad_fn`` in update's extra arguments::

        optimizer = optax.chain(optim.sam(rho=0.05), optax.sgd(0.1, momentum=0.9))
        grad_fn = jax.grad(lambda p: loss(p, batch))
        updates, state = optimizer.update(grad_fn(params), state, params, grad_fn=grad_fn)

    Definition, with g the incoming gradient and one norm over all (masked-in) parameters::

        e = rho g / (||g|| + 1e-12)
        update = grad_fn(w + e), e is a constant

    The parameters stay where they are: only grad_fn ever sees w + e, so evaluation, weight decay,
    averages and checkpoints use w.

    Args:
      rho: radius in the unit of the parameters, scalar >= 0, traced, or a schedule step -> rho.
        0.05 (CIFAR-10, ImageNet), 0.1 (CIFAR-100), up to 0.5 for vision transformers.
      num_groups: m of m-sharpness, static: ``grad_fn(params, group)`` is then the gradient over one
        of m equal parts of the batch, group an int32 scalar; each part has its own e, and the
        update is the mean. Large batches weaken SAM, this brings it back; it costs two gradients
        of every part beside the incoming one. None is the whole batch.
      mask: leaves that are perturbed, a tree of bools or a function params -> tree. The others
        count not in the norm; all leaves get their gradient at the perturbed point. Use it instead
        of ``optax.masked``, which hides parameters that ``grad_fn`` needs.

    Returns:
      A transformation with state :class:`SamState`; ``update(updates, state, params, *, grad_fn)``
      with ``grad_fn(params) -> gradient``, of the SAME batch and dropout key as the incoming one
      and, inside ``shard_map``, averaged over the devices. The updates must be the plain gradient:
      clip and rescale behind, not before.

    Raises:
      TypeError: from update, grad_fn missing.
      ValueError: rho < 0, num_groups < 1; from update, params missing or with holes.

    Numerics:
      Two gradient evaluations a step: the incoming one and one here. Norm and e are float32
      (float64) whatever the dtypes; the loss's scale cancels. A zero gradient gives e = 0.
      bfloat16 parameters are handed to grad_fn in float32 at w + e, since rounding would lose e;
      what grad_fn itself casts down is lost. The result comes back in the dtypes of the updates.

      Under ``jax.jit`` with sharded arrays g and e are those of the global batch and do not depend
      on the mesh.

      ``optax.inject_hyperparams(sam)(...)`` makes rho an entry of the state or takes a schedule; a
      callable mask must then be named: ``inject_hyperparams(sam, static_args="mask")``.

      Under ``optax.MultiSteps`` the incoming gradients are averaged but grad_fn is the last call's:
      it must cover all micro-batches (then the step equals the full batch's), else the update is
      the gradient of the last micro-batch alone. This cannot be seen from here.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> grad_fn = jax.grad(lambda w: jnp.sum(w**4) / 4)   # w^3
      >>> tx, w = sam(rho=1.0), jnp.array([1.0])
      >>> updates, state = tx.update(grad_fn(w), tx.init(w), w, grad_fn=grad_fn)
      >>> updates.tolist(), int(state.count)
      ([8.0], 1)

    Evidence: authors' code.

    References:
      "Sharpness-Aware Minimization for Efficiently Improving Generalization", ICLR 2021,
      arXiv 2010.01412. Departures: the authors' pmap code perturbs on each device's share of the
      batch, here the batch is global unless ``num_groups`` says otherwise.
    """
    rho = perturbation.check_radius("sam", "rho", rho)
    whole = num_groups is None
    if not whole and (type(num_groups) is not int or num_groups < 1):
        raise ValueError(f"sam: expected num_groups an integer >= 1, got {num_groups!r}")

    def step(gradient: PyTree, params: PyTree, radius: ArrayLike) -> PyTree:
        del params
        return perturbation.ascent(gradient, radius)

    return perturbation.perturbed("sam", rho, mask, step, num_groups=num_groups)


def asam(
    *,
    rho: perturbation.Radius = 0.5,
    eta: ArrayLike = 0.01,
    scaled: trees.Mask = None,
    mask: trees.Mask = None,
) -> optax.GradientTransformationExtraArgs:
    """SAM whose radius is relative to each parameter: rescaling a layer does not change it.

    It stands FIRST in a chain and takes ``grad_fn``, exactly as :func:`sam` does.

    Definition, with g the incoming gradient and one norm over all (masked-in) parameters::

        T_w = |w| + eta for weights, 1 for biases
        e = rho T_w^2 g / (||T_w g|| + 1e-16)
        update = grad_fn(w + e), e is a constant

    Args:
      rho: radius relative to the parameters, scalar >= 0, traced, or a schedule step -> rho; about
        ten times SAM's.
      eta: scalar >= 0, in the unit of the parameters; keeps weights near 0 in play.
      scaled: leaves with T_w = abs(w) + eta, a tree of bools or a function params -> tree; None
        takes those of two or more axes. Biases are perturbed too, with T_w = 1.
      mask: leaves that are perturbed, as in :func:`sam`.

    Returns:
      A transformation with state :class:`SamState`; ``update(updates, state, params, *, grad_fn)``
      as of :func:`sam`.

    Raises:
      TypeError: from update, grad_fn missing.
      ValueError: rho or eta < 0; from update, params missing or with holes.

    Numerics:
      As :func:`sam`: two gradient evaluations, float32 norms; under ``optax.MultiSteps`` grad_fn
      must cover all micro-batches; ``inject_hyperparams(asam, static_args=("scaled", "mask"))``.
      With eta = 0 a weight of exactly 0 is not perturbed.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> grad_fn = jax.grad(lambda w: jnp.sum(w**2) / 2)
      >>> tx, w = asam(rho=1.0, eta=0.0), jnp.array([[3.0]])
      >>> asam_gradient, _ = tx.update(grad_fn(w), tx.init(w), w, grad_fn=grad_fn)
      >>> asam_gradient.tolist()   # e = 3, as large as w itself
      [[6.0]]

    Evidence: authors' code.

    References:
      "ASAM: Adaptive Sharpness-Aware Minimization for Scale-Invariant Learning of Deep Neural
      Networks", ICML 2021, arXiv 2102.11600; authors' code SamsungLabs/ASAM. Departures: there a
      weight is a tensor of that name, so that scales of normalisation layers have T_w = |w| + eta;
      here these are vectors and have T_w = 1 unless ``scaled`` says otherwise.
    """
    rho = perturbation.check_radius("asam", "rho", rho)
    eta = checks.number("asam", "eta", eta, low=0.0)

    def step(gradient: PyTree, params: PyTree, radius: ArrayLike) -> PyTree:
        sizes = perturbation.magnitudes(params, eta)
        ones = jax.tree.map(jnp.ones_like, sizes)
        counted = trees.select(ones, _has_axes if scaled is None else scaled, params)
        scale = jax.tree.map(lambda c, size: jnp.where(c == 1, size, 1), counted, sizes)
        return perturbation.ascent(gradient, radius, scale=scale, eps=1e-16)

    return perturbation.perturbed("asam", rho, mask, step)


def _has_axes(params: PyTree) -> PyTree:
    return jax.tree.map(lambda w: w.ndim > 1, params)
