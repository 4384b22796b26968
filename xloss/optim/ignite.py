# SPDX-License-Identifier: Apache-2.0
"""IGNITE: train a surrogate whose predictions change little when its parameters do.

"Incorporating Surrogate Gradient Norm to Improve Offline Optimization Techniques". Reach for it in
offline (black-box) optimization, where designs are searched on a model of logged data and the
search finds its errors: only the training of the model changes, whatever the base optimizer.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from xloss import checks
from xloss.optim import trees
from xloss.typing import Array, PyTree

#: params -> mean prediction over the batch, a scalar.
MeanPrediction = Callable[[PyTree], Array]

HVP = ("finite_difference", "jvp")


class IgniteState(NamedTuple):
    """What IGNITE carries from step to step, also across epochs.

    Attributes:
      lam: multiplier of the sharpness constraint, scalar float32 (float64 beside float64
        parameters); may be negative unless ``clip_lambda``.
    """

    lam: Array


def ignite(
    *,
    rho: ArrayLike = 0.05,
    radius: ArrayLike = 0.05,
    eps: ArrayLike = 0.1,
    eta_lambda: ArrayLike = 1e-3,
    lam0: ArrayLike = 1e-3,
    clip_lambda: bool = False,
    hvp: str = "finite_difference",
    adapt: bool = True,
    mask: trees.Mask = None,
) -> optax.GradientTransformationExtraArgs:
    """Adds to the gradient that of the surrogate's sharpness, under a Lagrange multiplier.

    It stands FIRST in a chain and takes ``mean_prediction_fn`` in update's extra arguments::

        optimizer = optax.chain(ignite(), optax.adam(1e-3))
        updates, state = optimizer.update(
            gradients, state, params, mean_prediction_fn=lambda p: jnp.mean(model(p, inputs))
        )

    Definition, with h(phi) the mean PREDICTION over the batch (not the loss), g the incoming
    gradient of the loss, u = grad h / ||grad h|| and one global norm over all parameters::

        constraint   R(phi) = rho ||grad h(phi)|| <= eps, first order in
                     max over ||delta|| <= rho of h(phi + delta) - h(phi)
        update       g + lam rho (grad h(phi + radius u) - grad h(phi)) / radius
                     hvp="jvp": g + lam rho H u, its limit at radius 0, H the Hessian of h
        multiplier   lam <- lam + eta_lambda (rho ||grad h(phi)|| - eps), phi before the step

    Args:
      rho: radius of the sharpness, in the unit of the parameters, scalar >= 0.
      radius: step r of the finite difference, same unit, scalar > 0; below about 1e-2 float32 loses
        digits. Not used by hvp="jvp".
      eps: bound of the sharpness, in the unit of the predictions, scalar >= 0.
      eta_lambda: step of the multiplier, scalar >= 0.
      lam0: its first value, scalar; read by ``init`` only.
      clip_lambda: keep lam >= 0. As published it is not: where rho ||grad h|| < eps it falls below
        0 and the term then REWARDS sharpness.
      hvp: "finite_difference" as published, or "jvp", the exact product: no radius, two digits
        more in bfloat16, but h must support forward-mode differentiation.
      adapt: False keeps lam at lam0: the paper's IGNITE-2 (lam0=0.01, rho=radius=0.2).
      mask: leaves that take part, a tree of bools or a function params -> tree. The others count
        neither in the norm nor are they perturbed, and their updates pass unchanged. Use it
        instead of ``optax.masked``, which hides parameters that ``mean_prediction_fn`` needs.

    Returns:
      A transformation with state :class:`IgniteState`; ``update(updates, state, params, *,
      mean_prediction_fn)`` with ``mean_prediction_fn(params) -> scalar`` over the CLEAN inputs of
      the batch of the incoming gradient (for a model that predicts a distribution, of its mean).

    Raises:
      TypeError: from update, mean_prediction_fn missing.
      ValueError: hyperparameters out of range; from update, params missing or with holes, or a
        mean prediction that is not a scalar.

    Numerics:
      Three gradient evaluations a step: the incoming one and two of h (hvp="jvp": one of h and its
      tangent). Norm, difference and lam are float32 (float64) whatever the parameters' dtype.
      grad h = 0 adds nothing. With bfloat16 parameters phi + radius u is rounded to bfloat16,
      which loses what is below 1/256 of a parameter: prefer hvp="jvp" there. The result does not
      depend on how parameters and batch are sharded; inside ``shard_map`` let mean_prediction_fn
      return the mean over all devices.

      ``optax.inject_hyperparams(ignite)(...)`` makes every number a schedule or an entry of the
      state; a callable mask must then be named: ``inject_hyperparams(ignite, static_args="mask")``,
      and bfloat16 parameters want its ``hyperparam_dtype=jnp.float32``.

      Under ``optax.MultiSteps`` the updates are accumulated but mean_prediction_fn is the last
      call's: it must cover all micro-batches, else the sharpness is that of the last one alone.

    Example:
      >>> import jax.numpy as jnp
      >>> tx = ignite(rho=0.5, radius=0.5, lam0=1.0)
      >>> params = jnp.array([3.0, 4.0])
      >>> updates, state = tx.update(
      ...     jnp.zeros(2), tx.init(params), params,
      ...     mean_prediction_fn=lambda p: jnp.sum(p**2) / 2,   # grad h = p, H = 1, norm 5
      ... )
      >>> [round(x, 4) for x in updates.tolist()], round(float(state.lam), 4)
      ([0.3, 0.4], 1.0024)

    Evidence: published formula, derived and checked.

    References:
      "Incorporating Surrogate Gradient Norm to Improve Offline Optimization Techniques", NeurIPS
      2024, arXiv 2503.04242; authors' code cuong-dm/IGNITE (TensorFlow). Departures: grad h = 0
      is NaN there; clip_lambda, hvp="jvp" and mask are ours.
    """
    name = "ignite"
    rho = checks.number(name, "rho", rho, low=0.0)
    radius = checks.number(name, "radius", radius, low=0.0, open_low=True)
    eps = checks.number(name, "eps", eps, low=0.0)
    eta_lambda = checks.number(name, "eta_lambda", eta_lambda, low=0.0)
    lam0 = checks.number(name, "lam0", lam0)
    checks.choice(name, "hvp", hvp, HVP)

    def init(params: PyTree) -> IgniteState:
        return IgniteState(lam=jnp.asarray(lam0, trees.dtype_of(params)))

    def update(
        updates: PyTree,
        state: Any,
        params: PyTree | None = None,
        *,
        mean_prediction_fn: Any = None,
        **extra_args: Any,
    ) -> tuple[PyTree, IgniteState]:
        del extra_args  # of other transforms in the chain
        gradient_of = _gradient_of(name, mean_prediction_fn)
        trees.check_params(name, params)
        lam = state.lam
        reach, step, bound, rate = (
            jnp.asarray(x, lam.dtype) for x in (rho, radius, eps, eta_lambda)
        )

        if hvp == "jvp":
            gradient, product_with = jax.linearize(gradient_of, params)
            norm, unit = trees.norm_and_unit(trees.select(gradient, mask, params))
            # The Hessian's product is with the direction in the parameters' own dtype.
            along = jax.tree.map(lambda u, p: u.astype(p.dtype), unit, params)
            penalty, factor = product_with(along), lam * reach
        else:
            gradient = gradient_of(params)
            norm, unit = trees.norm_and_unit(trees.select(gradient, mask, params))
            moved = gradient_of(trees.add_scaled(params, step, unit))
            penalty = trees.difference(moved, gradient)
            factor = lam * (reach / step)

        updates = trees.add_scaled(updates, factor, trees.select(penalty, mask, params))
        if adapt:
            lam = lam + rate * (reach * norm - bound)
            lam = jnp.maximum(lam, jnp.zeros_like(lam)) if clip_lambda else lam
        return updates, IgniteState(lam=lam)

    return optax.GradientTransformationExtraArgs(init, update)


def surrogate_sharpness(
    mean_prediction_fn: MeanPrediction,
    params: PyTree,
    *,
    rho: ArrayLike,
    mask: trees.Mask = None,
) -> Array:
    """How sharp a surrogate is in its parameters: what IGNITE keeps below eps.

    Definition, with h the mean prediction over the batch::

        rho ||grad h(phi)||, first order in
        max over ||delta|| <= rho of h(phi + delta) - h(phi)

    Args:
      mean_prediction_fn: params -> mean prediction over the batch, a scalar.
      params: tree of float arrays.
      rho: radius, in the unit of the parameters, scalar >= 0.
      mask: leaves that take part, as in :func:`ignite`.

    Returns:
      Scalar >= 0 in the unit of the predictions, float32 (float64 beside float64 parameters).

    Raises:
      TypeError: mean_prediction_fn cannot be called.
      ValueError: rho < 0, or a mean prediction that is not a scalar.

    Numerics:
      One gradient evaluation. 0 where the gradient is 0; a constant added to the predictions
      changes nothing, a factor k multiplies it by abs(k).

    Example:
      >>> import jax.numpy as jnp
      >>> float(surrogate_sharpness(lambda p: jnp.sum(p**2) / 2, jnp.array([3.0, 4.0]), rho=0.5))
      2.5

    Evidence: published formula, derived and checked.

    References:
      "Incorporating Surrogate Gradient Norm to Improve Offline Optimization Techniques", NeurIPS
      2024, arXiv 2503.04242.
    """
    name = "surrogate_sharpness"
    rho = checks.number(name, "rho", rho, low=0.0)
    gradient_of = _gradient_of(name, mean_prediction_fn)
    norm, _ = trees.norm_and_unit(trees.select(gradient_of(params), mask, params))
    return jnp.asarray(rho, norm.dtype) * norm


def _gradient_of(function: str, mean_prediction_fn: MeanPrediction | None) -> MeanPrediction:
    checked = trees.check_function(function, "mean_prediction_fn", mean_prediction_fn)

    def mean_prediction(params: PyTree) -> Array:
        return_value = checks.floating(function, "mean_prediction_fn(params)", checked(params))
        checks.same_shape(function, "mean_prediction_fn(params)", return_value, ())
        return return_value

    return jax.grad(mean_prediction)
