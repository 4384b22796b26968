# SPDX-License-Identifier: Apache-2.0
"""How fast a bound tightens as training goes on: the growth of T near 0.

Mao, Mohri, Zhong, "A Universal Growth Rate for Learning with Smooth Surrogate Losses". Reach for it
to see whether the zero-one error falls like the surrogate excess (hinge, sigmoid, rho-margin) or
like its square root (every smooth loss).
"""

import dataclasses
import math

import numpy as np

from xloss.consistency import host
from xloss.consistency.transforms import h_transform

#: Where T is looked at: from the first on the steps are powers of 2.
_PLACES = 0.16 / 2.0 ** np.arange(8)


@dataclasses.dataclass(frozen=True)
class Growth:
    """T(t) ~ constant t^exponent as t -> 0, and so Gamma(z) ~ (z / constant)^(1 / exponent).

    Attributes:
      exponent: 1 linear, 2 square root; NaN where there is none to be seen.
      constant: of T; NaN likewise.
      reason: what was seen, in words.
    """

    exponent: float
    constant: float
    reason: str

    def __str__(self) -> str:
        return self.reason


def growth_rate(loss: host.Loss, *, bound: float = math.inf) -> Growth:
    """Measures the growth of ``h_transform`` near 0.

    Definition: the slope of log T over log t, read between t = 0.16 and 0.00125, where it must have
    settled.

    Args:
      loss: as in ``h_transform``.
      bound: greatest score, > 0; inf for all functions.

    Returns:
      Growth; print it. Its exponent is NaN for a loss that is not calibrated (T is 0 near 0), that
      has no lower bound (T is infinite), or whose slopes do not agree.

    Raises:
      TypeError, ValueError: as ``h_transform``.

    Numerics:
      The exponent is that of the two least t, to 0.02; slopes further out may differ by 0.1 from
      it, else it is undecided.

    Example:
      >>> print(growth_rate("hinge"))
      linear: T(t) ~ 1 t
      >>> print(growth_rate("logistic"))
      square root: T(t) ~ 0.5 t^2
      >>> print(growth_rate(lambda u: (u < 0) * -u))
      none: T is 0 near 0, no bound follows

    Evidence: published formula, derived and checked.

    References:
      Mao, Mohri, Zhong, "A Universal Growth Rate for Learning with Smooth Surrogate Losses",
      NeurIPS 2024, arXiv 2405.05968.
    """
    resolved = host.margin_loss("growth_rate", loss)
    values = h_transform(resolved, _PLACES, bound=bound)
    noise = 64.0 * resolved.eps * max(1.0, float(np.abs(resolved(0.0))))
    if np.isinf(values).any():
        return Growth(math.nan, math.nan, "none: the loss has no lower bound, T is infinite")
    if (values <= noise)[:4].any():
        return Growth(math.nan, math.nan, "none: T is 0 near 0, no bound follows")
    slopes = np.log2(values[:-1] / np.maximum(values[1:], np.finfo(float).tiny))
    clear = values[1:] > 1e4 * noise
    slopes, values, places = slopes[clear], values[1:][clear], _PLACES[1:][clear]
    if slopes.size < 3 or np.ptp(slopes[-3:]) > 0.1:
        return Growth(math.nan, math.nan, "undecided: the slope of T does not settle")
    exponent = float(slopes[-1])
    nearest = round(exponent)
    if abs(exponent - nearest) < 0.02:
        exponent = float(nearest)
    constant = float(values[-1] / places[-1] ** exponent)
    names = {
        1.0: f"linear: T(t) ~ {constant:.3g} t",
        2.0: f"square root: T(t) ~ {constant:.3g} t^2",
    }
    words = names.get(exponent, f"T(t) ~ {constant:.3g} t^{exponent:.3g}")
    return Growth(exponent, constant, words)
