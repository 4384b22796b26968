# SPDX-License-Identifier: Apache-2.0
"""Margin losses phi(m): the second currency of the library, from training to theory.

A surrogate is a function of a margin array: binary m = y f(x) with y = +-1; multiclass the
log-odds of the true class, which is the binary margin when K = 2. ``classification.margin_loss``
applies one, ``classification.ensloss`` draws random derivatives of one, ``consistency`` says
whether it is calibrated.

Hand a surrogate over with :func:`bind`, so that its hyperparameters stay traced::

    margin_loss(logits, labels, surrogates.bind(surrogates.comp_sum, tau=0.7))

All take a float array of any shape and return the same shape in float32 (float64 for float64
input), natural logarithms, phi(0) as published (1 for hinge, log 2 for logistic). Definitions:
Bartlett, Jordan, McAuliffe, "Convexity, Classification, and Risk Bounds", JASA 2006; others named
where they stand.
"""

import difflib
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from xloss import checks, numerics
from xloss.typing import Array, Surrogate

__all__ = [
    "bind",
    "comp_sum",
    "exponential",
    "focal",
    "get",
    "hinge",
    "inv_hinge",
    "inv_log_hinge",
    "log_hinge",
    "logistic",
    "poly_loss",
    "rho_margin",
    "savage",
    "sigmoid",
    "squared",
    "squared_hinge",
    "tangent",
    "SURROGATES",
]


def bind(surrogate: Surrogate, **hyperparameters: Any) -> jax.tree_util.Partial:
    """Fixes a surrogate's hyperparameters while keeping them traced.

    A lambda or functools.partial is a new static value at every call and recompiles; the Partial
    made here is a pytree whose leaves are the numbers: one compile serves all of them, and grad
    and vmap over them work.

    Args:
      surrogate: a function phi(margin, **hyperparameters), of this module or the user's own.
      **hyperparameters: scalars; Python and NumPy numbers become Python floats.

    Returns:
      jax.tree_util.Partial.

    Raises:
      TypeError: surrogate is not callable, or a value is not a number.
      ValueError: a value out of range, for the surrogates of this module.

    Example:
      >>> import jax.numpy as jnp
      >>> phi = bind(rho_margin, rho=2.0)
      >>> phi(jnp.array([1.0, 3.0])).tolist()
      [0.5, 0.0]
    """
    if not callable(surrogate):
        raise TypeError(f"bind: expected surrogate to be callable, got {surrogate!r}")
    name = getattr(surrogate, "__name__", "surrogate")
    # Inside a jitted loss the numbers are traced: here is the last place to check their range.
    ranges = _RANGES if SURROGATES.get(name) is surrogate else {}
    bound = {
        key: checks.number(name, key, value, **ranges.get(key, {}))
        for key, value in hyperparameters.items()
    }
    return jax.tree_util.Partial(surrogate, **bound)


def get(name: str) -> Callable[..., Array]:
    """Returns the surrogate of that name; ValueError with the nearest match otherwise."""
    if name not in SURROGATES:
        near = difflib.get_close_matches(name, SURROGATES, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"surrogates: expected one of {', '.join(SURROGATES)}, got {name!r}{hint}")
    return SURROGATES[name]


def logistic(margin: ArrayLike) -> Array:
    """log(1 + e^-m): cross-entropy as a function of the log-odds. Convex, calibrated."""
    return numerics.nats(_margin("logistic", margin))


def exponential(margin: ArrayLike) -> Array:
    """e^-m (AdaBoost). Convex, calibrated; inf below m = -88 in float32."""
    return numerics.exp(-_margin("exponential", margin))


def hinge(margin: ArrayLike) -> Array:
    """max(0, 1 - m) (SVM). Convex, calibrated."""
    return jax.nn.relu(1.0 - _margin("hinge", margin))


def squared_hinge(margin: ArrayLike) -> Array:
    """max(0, 1 - m)^2. Convex, calibrated."""
    return numerics.square(jax.nn.relu(1.0 - _margin("squared_hinge", margin)))


def squared(margin: ArrayLike) -> Array:
    """(1 - m)^2: least squares on +-1 labels; punishes margins above 1. Convex, calibrated."""
    return numerics.square(1.0 - _margin("squared", margin))


def sigmoid(margin: ArrayLike, *, slope: ArrayLike = 1.0) -> Array:
    """1 - tanh(slope m), in (0, 2). Bounded, not convex, calibrated. slope > 0."""
    margin = _margin("sigmoid", margin)
    slope = _hyper("sigmoid", "slope", slope, margin)
    # 1 - tanh(t) = 2 sigmoid(-2t) without the cancellation at large t.
    return 2.0 * jax.nn.sigmoid(-2.0 * slope * margin)


def rho_margin(margin: ArrayLike, *, rho: ArrayLike = 1.0) -> Array:
    """min(max(0, 1 - m / rho), 1): the ramp of margin bounds. Not convex, calibrated. rho > 0."""
    margin = _margin("rho_margin", margin)
    rho = _hyper("rho_margin", "rho", rho, margin)
    return jnp.clip(1.0 - margin / rho, 0.0, 1.0)


def savage(margin: ArrayLike) -> Array:
    """1 / (1 + e^(2m))^2, in (0, 1); Masnadi-Shirazi and Vasconcelos, NeurIPS 2008.

    Bounded, hence robust to outliers; not convex, calibrated.
    """
    return jnp.square(jax.nn.sigmoid(-2.0 * _margin("savage", margin)))


def tangent(margin: ArrayLike) -> Array:
    """(2 atan(m) - 1)^2; Masnadi-Shirazi, Mahadevan, Vasconcelos, CVPR 2010.

    Bounded on both sides: margins far above tan(1/2) are punished too. Calibrated.
    """
    return jnp.square(2.0 * jnp.arctan(_margin("tangent", margin)) - 1.0)


def comp_sum(margin: ArrayLike, *, tau: ArrayLike = 1.0) -> Array:
    """(p^(tau-1) - 1) / (1 - tau), p = sigmoid(m); see ``classification.comp_sum``. tau >= 0."""
    margin = _margin("comp_sum", margin)
    tau = _hyper("comp_sum", "tau", tau, margin)
    return numerics.scaled_expm1(1.0 - tau, numerics.nats(margin))


def focal(margin: ArrayLike, *, gamma: ArrayLike = 2.0) -> Array:
    """(1 - p)^gamma (-log p) with p = sigmoid(m); see ``classification.focal``. gamma >= 0."""
    margin = _margin("focal", margin)
    gamma = _hyper("focal", "gamma", gamma, margin)
    # Where p is 0 to any precision the factor is 1; its derivative would form 0 * inf.
    hopeless = margin < -200.0
    safe = jnp.where(hopeless, jnp.zeros_like(margin), margin)
    focused = numerics.power(-numerics.nats(-safe), gamma) * numerics.nats(safe)
    return jnp.where(hopeless, numerics.nats(margin), focused)


def poly_loss(margin: ArrayLike, *, epsilon: ArrayLike = 2.0) -> Array:
    """-log p + epsilon (1 - p), p = sigmoid(m); see ``classification.poly_loss``. epsilon >= -1."""
    margin = _margin("poly_loss", margin)
    epsilon = _hyper("poly_loss", "epsilon", epsilon, margin)
    return numerics.nats(margin) + epsilon * jax.nn.sigmoid(-margin)


def inv_hinge(margin: ArrayLike) -> Array:
    """1 - m up to m = 1, then 1/m - 1: hinge with a tail of slope -1/m^2 (EnsLoss, tail study)."""
    return _hinge_with_tail("inv_hinge", margin, lambda m: 1.0 / m - 1.0)


def log_hinge(margin: ArrayLike) -> Array:
    """1 - m up to m = 1, then -log m: unbounded below (EnsLoss, tail study)."""
    return _hinge_with_tail("log_hinge", margin, lambda m: -jnp.log(m))


def inv_log_hinge(margin: ArrayLike) -> Array:
    """1 - m up to m = 1, then e / log(m + e - 1) - e (EnsLoss, tail study)."""
    e = math.e
    return _hinge_with_tail("inv_log_hinge", margin, lambda m: e / jnp.log(m + (e - 1.0)) - e)


SURROGATES: dict[str, Callable[..., Array]] = {
    phi.__name__: phi
    for phi in (
        logistic,
        exponential,
        hinge,
        squared_hinge,
        squared,
        sigmoid,
        rho_margin,
        savage,
        tangent,
        comp_sum,
        focal,
        poly_loss,
        inv_hinge,
        log_hinge,
        inv_log_hinge,
    )
}

#: The legal values of the hyperparameters above, whichever surrogate has them.
_RANGES: dict[str, dict[str, Any]] = {
    "slope": {"low": 0.0, "open_low": True},
    "rho": {"low": 0.0, "open_low": True},
    "tau": {"low": 0.0},
    "gamma": {"low": 0.0},
    "epsilon": {"low": -1.0},
}


def _margin(name: str, margin: ArrayLike) -> Array:
    return numerics.promote(checks.floating(name, "margin", margin))


def _hyper(name: str, argument: str, value: ArrayLike, margin: Array) -> Array:
    return numerics.scalar(checks.number(name, argument, value, **_RANGES[argument]), margin)


def _hinge_with_tail(name: str, margin: ArrayLike, tail: Callable[[Array], Array]) -> Array:
    margin = _margin(name, margin)
    # The tail is evaluated at 1 where it does not apply: its poles must not reach the gradient.
    beyond = margin > 1
    return jnp.where(beyond, tail(jnp.where(beyond, margin, jnp.ones_like(margin))), 1.0 - margin)
