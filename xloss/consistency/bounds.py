# SPDX-License-Identifier: Apache-2.0
"""H-consistency bounds: from a measured surrogate excess to the zero-one excess of a classifier.

Awasthi, Mao, Mohri, Zhong, "H-Consistency Bounds for Surrogate Loss Minimizers". Reach for it with
the surrogate risk of a trained model, the best one of its class and the minimizability gap in hand.
"""

import math

import numpy as np
from numpy.typing import ArrayLike

from xloss.consistency import host
from xloss.consistency.transforms import h_gamma, h_transform


def h_consistency_bound(
    surrogate_excess: ArrayLike,
    *,
    loss: host.Loss,
    bound: float = math.inf,
    gap_surrogate: ArrayLike = 0.0,
    gap_zero_one: ArrayLike = 0.0,
) -> np.ndarray:
    """The zero-one excess that is possible at most, given the surrogate excess.

    Definition, with the minimizability gaps M of the hypothesis set H::

        R01(h) - R01*(H) <= Gamma(R_phi(h) - R_phi*(H) + M_phi(H)) - M01(H)

    Args:
      surrogate_excess: R_phi(h) - R_phi*(H), [...] >= 0.
      loss: as in ``h_transform``.
      bound: greatest score of H, > 0: ``linear_bound``, ``nn_bound``; inf for all functions.
      gap_surrogate: M_phi(H), [...] >= 0; 0 only for H of all functions (or a realisable problem).
      gap_zero_one: M01(H), [...] >= 0; leaving it out is safe.

    Returns:
      float64 [...] in [0, 1].

    Raises:
      TypeError, ValueError: wrong types, values out of range, shapes that do not broadcast.

    Numerics:
      Those of ``h_gamma``. Forgetting gap_surrogate makes it no bound at all for a restricted H.

    Example:
      >>> h_consistency_bound(0.01, loss="squared").round(6).tolist()
      0.1
      >>> h_consistency_bound(0.01, loss="squared", gap_surrogate=0.03).round(6).tolist()
      0.2

    Evidence: published formula, derived and checked.

    References:
      Awasthi, Mao, Mohri, Zhong, "H-Consistency Bounds for Surrogate Loss Minimizers", ICML 2022.
    """
    name = "h_consistency_bound"
    excess = host.array(name, "surrogate_excess", surrogate_excess, low=0.0)
    gap = host.array(name, "gap_surrogate", gap_surrogate, low=0.0)
    gap_zero_one = host.array(name, "gap_zero_one", gap_zero_one, low=0.0, high=1.0)
    found = h_gamma(loss, excess + gap, bound=bound) - gap_zero_one
    return np.clip(found, 0.0, 1.0)


def massart_slope(loss: host.Loss, gamma: ArrayLike, *, bound: float = math.inf) -> np.ndarray:
    """The factor of the linear bound under Massart's noise condition.

    Definition: if |eta(x) - 1/2| >= gamma at every x, convexity of T gives::

        R01(h) - R01* <= (2 gamma / T(2 gamma)) * surrogate excess

    Args:
      loss: as in ``h_transform``.
      gamma: [...] in (0, 1/2].
      bound: greatest score, > 0; inf for all functions.

    Returns:
      float64 [...]; inf where T(2 gamma) = 0, that is for a loss that is not calibrated.

    Raises:
      TypeError, ValueError: wrong types, values out of range.

    Numerics:
      Those of ``h_transform``.

    Example:
      >>> massart_slope("squared", 0.25).round(6).tolist()
      2.0

    Evidence: published formula, derived and checked.

    References:
      Bartlett, Jordan, McAuliffe, "Convexity, Classification, and Risk Bounds", JASA 2006. A
      secondary source prints 2 / T(2 gamma), which is larger than needed.
    """
    gamma = host.array("massart_slope", "gamma", gamma, low=np.finfo(float).tiny, high=0.5)
    with np.errstate(divide="ignore"):
        return 2.0 * gamma / h_transform(loss, 2.0 * gamma, bound=bound)


def linear_bound(weight: float, bias: float, x_norm: ArrayLike = 0.0) -> np.ndarray:
    """Greatest score of linear functions w.x + b with |w|_q <= weight, |b| <= bias.

    Definition: A(x) = weight |x|_p + bias, 1/p + 1/q = 1. The bound that holds whatever the
    distribution takes the least over x, which is the default x_norm = 0.

    Args:
      weight: W >= 0.
      bias: B >= 0.
      x_norm: |x|_p, [...] >= 0.

    Returns:
      float64 [...].

    Raises:
      TypeError, ValueError: wrong types, negative values.

    Example:
      >>> linear_bound(2.0, 0.5).tolist(), linear_bound(2.0, 0.5, [1.0]).tolist()
      (0.5, [2.5])

    References:
      Awasthi, Mao, Mohri, Zhong, "H-Consistency Bounds for Surrogate Loss Minimizers", ICML 2022.
    """
    name = "linear_bound"
    weight = host.number(name, "weight", weight, low=0.0)
    bias = host.number(name, "bias", bias, low=0.0)
    x_norm = host.array(name, "x_norm", x_norm, low=0.0)
    return host.times(x_norm, np.full(x_norm.shape, weight)) + bias


def nn_bound(outer: float, weight: float, bias: float, x_norm: ArrayLike = 0.0) -> np.ndarray:
    """Greatest score of one-hidden-layer ReLU networks.

    Definition, for sum_j u_j relu(w_j.x + b_j) with |u|_1 <= outer, |w_j|_q <= weight, |b_j| <=
    bias: A(x) = outer (weight |x|_p + bias).

    Args:
      outer: Lambda >= 0.
      weight: W >= 0.
      bias: B >= 0.
      x_norm: |x|_p, [...] >= 0; 0 gives the bound that holds whatever the distribution.

    Returns:
      float64 [...].

    Raises:
      TypeError, ValueError: wrong types, negative values.

    Example:
      >>> nn_bound(3.0, 2.0, 0.5).tolist()
      1.5

    References:
      Awasthi, Mao, Mohri, Zhong, "H-Consistency Bounds for Surrogate Loss Minimizers", ICML 2022.
    """
    outer = host.number("nn_bound", "outer", outer, low=0.0)
    return outer * linear_bound(weight, bias, x_norm)


def softmax_range(bound: ArrayLike, *, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Least and greatest softmax probability of scores in [-bound, bound]^n.

    Definition: 1 / (1 + (n - 1) e^(2 bound)) and 1 / (1 + (n - 1) e^(-2 bound)). For two classes
    the log loss then has the transform ``h_transform("logistic", t, bound=2 * bound)``.

    Args:
      bound: [...] >= 0.
      num_classes: n >= 2.

    Returns:
      (least [...], greatest [...]), float64.

    Raises:
      TypeError, ValueError: wrong types, values out of range.

    Example:
      >>> [x.round(4).tolist() for x in softmax_range(1.0, num_classes=2)]
      [0.1192, 0.8808]

    References:
      Mao, Mohri, Zhong, "Cross-Entropy Loss Functions: Theoretical Analysis and Applications",
      ICML 2023, arXiv 2304.07288.
    """
    name = "softmax_range"
    bound = host.array(name, "bound", bound, low=0.0)
    others = host.number(name, "num_classes", num_classes, low=2.0) - 1.0
    with np.errstate(over="ignore"):
        return 1.0 / (1.0 + others * np.exp(2.0 * bound)), 1.0 / (
            1.0 + others * np.exp(-2.0 * bound)
        )
