# SPDX-License-Identifier: Apache-2.0
"""Transforms T(t; A) and their inverses Gamma(z; A) that are known in closed form.

Awasthi, Mao, Mohri, Zhong, "H-Consistency Bounds for Surrogate Loss Minimizers"; every formula
here was derived from the definition and agrees with the numerical transform. A is the greatest
score of the hypothesis set, inf for all functions; natural logarithms unless the name says base 2.

    hinge                min(A, 1) t
    sigmoid(k)           tanh(k A) t
    rho_margin(rho)      (min(A, rho) / rho) t
    squared, its hinge   q(t; A)        with q(t; a) = t^2 up to t = a, then a (2 t - a)
    savage               q(t; tanh A) / 4
    tangent              q(t; 2 atan A)
    logistic             [(1 + t) log(1 + t) + (1 - t) log(1 - t)] / 2 up to t = tanh(A / 2), then
                         log 2 - (1 + t)/2 log(1 + e^-A) - (1 - t)/2 log(1 + e^A)
    exponential          1 - sqrt(1 - t^2) up to t = tanh A, then
                         1 - (1 + t)/2 e^-A - (1 - t)/2 e^A
    comp_sum(tau <= 2)   A = inf only: the comp-sum transform of two classes

All are convex and increasing with T(0) = 0. A secondary table prints z / min(A, rho) for the
inverse of the rho-margin loss, which is right only for rho = 1.
"""

import dataclasses
import math
from collections.abc import Callable

import numpy as np

from xloss import surrogates
from xloss.consistency import comp_sum as family
from xloss.consistency import host


@dataclasses.dataclass(frozen=True)
class ClosedForm:
    """T and its inverse for one loss and one bound.

    Attributes:
      transform: t in [0, 1] -> T(t), float64 arrays.
      inverse: z >= 0 -> Gamma(z), capped at 1, or None where only bisection gives it.
      knee: where T leaves its smooth part for a line, for losses with T >= t^2 / 2 up to there;
        None otherwise. The simple upper bounds come from it.
    """

    transform: Callable[[np.ndarray], np.ndarray]
    inverse: Callable[[np.ndarray], np.ndarray] | None = None
    knee: float | None = None


def closed_form(loss: host.MarginLoss, bound: float) -> ClosedForm | None:
    """The closed form of a resolved loss for scores in [-bound, bound], or None."""
    make = _FORMS.get(loss.function)
    return None if make is None else make(bound, **loss.hyperparameters)


def _linear(slope: float) -> ClosedForm:
    return ClosedForm(lambda t: slope * t, lambda z: np.minimum(z / slope, 1.0))


def _quadratic(scale: float, knee: float) -> ClosedForm:
    def transform(t: np.ndarray) -> np.ndarray:
        line = t if math.isinf(knee) else knee * (2.0 * t - knee)
        return scale * np.where(t <= knee, t * t, line)

    def inverse(z: np.ndarray) -> np.ndarray:
        z = z / scale
        line = z if math.isinf(knee) else 0.5 * (z / knee + knee)
        return np.minimum(np.where(np.sqrt(z) <= knee, np.sqrt(z), line), 1.0)

    return ClosedForm(transform, inverse)


def _logistic(bound: float, unit: float = 1.0) -> ClosedForm:
    knee = math.tanh(0.5 * bound)

    def transform(t: np.ndarray) -> np.ndarray:
        value = family.binary_entropy_gap(t)
        if math.isfinite(bound):
            line = -math.log1p(0.5 * math.expm1(-bound)) - 0.5 * (1.0 - t) * bound
            value = np.where(t <= knee, value, line)
        return value / unit

    return ClosedForm(transform, knee=knee)


def _exponential(bound: float) -> ClosedForm:
    # exp(A) - 1 overflows only where tanh A is 1 and the line is never reached.
    knee, rise = math.tanh(bound), math.expm1(min(bound, 700.0))

    def transform(t: np.ndarray) -> np.ndarray:
        smooth = t * t / (1.0 + np.sqrt((1.0 - t) * (1.0 + t)))
        line = -0.5 * (1.0 + t) * math.expm1(-bound) - 0.5 * (1.0 - t) * rise
        return np.where(t <= knee, smooth, line)

    def inverse(z: np.ndarray) -> np.ndarray:
        smooth = np.where(z < 1.0, np.sqrt(np.maximum(z * (2.0 - z), 0.0)), 1.0)
        top = 1.0 / (1.0 + math.sqrt(max(1.0 - knee * knee, 0.0))) * knee * knee
        slope = 0.5 * (rise - math.expm1(-bound))
        line = (z + 0.5 * (math.expm1(-bound) + rise)) / slope
        return np.minimum(np.where(z <= top, smooth, line), 1.0)

    return ClosedForm(transform, inverse, knee=knee)


def _comp_sum(bound: float, tau: float) -> ClosedForm | None:
    # Above tau = 2 the formula is a lower bound even for two classes.
    if math.isfinite(bound) or tau > 2.0:
        return None
    return ClosedForm(lambda t: family.closed_transform(t, tau, 2))


_FORMS: dict[Callable, Callable[..., ClosedForm | None]] = {
    surrogates.hinge: lambda bound: _linear(min(bound, 1.0)),
    surrogates.sigmoid: lambda bound, slope: _linear(math.tanh(slope * bound)),
    surrogates.rho_margin: lambda bound, rho: _linear(min(bound, rho) / rho),
    surrogates.squared: lambda bound: _quadratic(1.0, bound),
    surrogates.squared_hinge: lambda bound: _quadratic(1.0, bound),
    surrogates.savage: lambda bound: _quadratic(0.25, math.tanh(bound)),
    surrogates.tangent: lambda bound: _quadratic(1.0, 2.0 * math.atan(bound)),
    surrogates.logistic: _logistic,
    host.logistic_base2: lambda bound: _logistic(bound, math.log(2.0)),
    surrogates.exponential: _exponential,
    surrogates.comp_sum: _comp_sum,
}
