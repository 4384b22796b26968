# SPDX-License-Identifier: Apache-2.0
"""Minimizability gaps: the part of a surrogate excess that no optimiser removes.

Mao, Mohri, Zhong, "H-Consistency Bounds: Characterization and Extensions". Reach for it before
reading an H-consistency bound: for a restricted hypothesis set the excess enters it plus this gap.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from xloss.consistency import host
from xloss.consistency.bounds import linear_bound
from xloss.consistency.conditional import least_risk


class Gap(NamedTuple):
    """A minimizability gap and the two risks whose difference it is.

    Attributes:
      gap: best_in_class_risk - expected_pointwise_min, >= 0.
      best_in_class_risk: least risk of one hypothesis for all x.
      expected_pointwise_min: expectation of the least conditional risk at each x.
    """

    gap: np.ndarray
    best_in_class_risk: np.ndarray
    expected_pointwise_min: np.ndarray


def minimizability_gap(conditional_risks: ArrayLike, weights: ArrayLike | None = None) -> Gap:
    """The minimizability gap of a finite hypothesis set, for any loss.

    Definition, with the conditional risk C(h, x) = sum_y p(y | x) loss(h(x), y)::

        M(H) = min_h sum_x w(x) C(h, x) - sum_x w(x) min_h C(h, x)

    0 if one hypothesis is best everywhere, and at most the approximation error.

    Args:
      conditional_risks: C [..., F, N] of F hypotheses at N points (``conditional_risk`` gives
        them); zero-one risks for M01.
      weights: w [N], the distribution of x; None for uniform.

    Returns:
      Gap of float64 [...].

    Raises:
      TypeError, ValueError: wrong types, shapes that do not fit, weights that are no distribution.

    Numerics:
      A risk of inf is allowed as long as some hypothesis has a finite one.

    Example:
      >>> gap = minimizability_gap([[0.0, 1.0], [0.5, 0.25]])
      >>> float(gap.gap), float(gap.best_in_class_risk)
      (0.25, 0.375)

    Evidence: published formula, derived and checked.

    References:
      Mao, Mohri, Zhong, "H-Consistency Bounds: Characterization and Extensions", NeurIPS 2023.
    """
    name = "minimizability_gap"
    risks = host.array(name, "conditional_risks", conditional_risks)
    if risks.ndim < 2 or 0 in risks.shape[-2:]:
        raise ValueError(
            f"{name}: expected conditional_risks [..., F, N], got {list(np.shape(risks))}"
        )
    weights = _weights(name, weights, risks.shape[-1])
    return _gap(
        host.times(weights, risks).sum(-1).min(-1), host.times(weights, risks.min(-2)).sum(-1)
    )


def linear_minimizability_gap(
    loss: host.Loss,
    x: ArrayLike,
    eta: ArrayLike,
    *,
    weight: float,
    bias: float,
    weights: ArrayLike | None = None,
    norm: float = 2.0,
) -> Gap:
    """The minimizability gap of bounded linear functions on a sample, for a convex margin loss.

    Definition, over w.x + b with |w|_q <= weight, |b| <= bias, 1/norm + 1/q = 1::

        M(H) = min_(w, b) sum_i v_i C(w.x_i + b, eta_i) - sum_i v_i H(eta_i; A(x_i))

    with C and H of ``min_conditional_risk`` and A(x) = weight |x| + bias.

    Args:
      loss: as in ``h_transform``; convex, else the best risk found is an upper estimate and so is
        the gap.
      x: sample [N, d], or [N] for d = 1.
      eta: P(y = +1 | x_i), [N] in [0, 1]: known, or counted over repeated x.
      weight: greatest norm of w, >= 0.
      bias: greatest |b|, >= 0.
      weights: v [N], the distribution over the sample; None for uniform.
      norm: of x: 1, 2 or inf.

    Returns:
      Gap of float64 scalars.

    Raises:
      TypeError, ValueError: wrong types, shapes that do not fit, values out of range.

    Numerics:
      Accelerated projected gradients on central differences of the loss, whose step shrinks to
      1e-6: kinks are smoothed, then less and less. Best risk to about 1e-7.

    Example:
      >>> gap = linear_minimizability_gap(
      ...     "squared", [-1.0, 1.0, 3.0], [0.25, 0.75, 0.25], weight=1.0, bias=1.0
      ... )
      >>> float(gap.gap)  # no line has the scores -1/2, 1/2, -1/2
      0.2222222

    Evidence: published formula, derived and checked.

    References:
      Mao, Mohri, Zhong, "H-Consistency Bounds: Characterization and Extensions", NeurIPS 2023.
    """
    name = "linear_minimizability_gap"
    phi = host.margin_loss(name, loss)
    x = host.array(name, "x", x)
    x = x[:, None] if x.ndim == 1 else x
    eta = host.array(name, "eta", eta, low=0.0, high=1.0)
    if x.ndim != 2 or eta.shape != x.shape[:1] or not np.isfinite(x).all():
        raise ValueError(
            f"{name}: expected finite x [N, d] and eta [N], got {list(x.shape)} and "
            f"{list(eta.shape)}"
        )
    if norm not in (1, 2, math.inf):
        raise ValueError(f"{name}: expected norm to be 1, 2 or inf, got {norm}")
    weight = host.number(name, "weight", weight, low=0.0)
    bias = host.number(name, "bias", bias, low=0.0)
    weights = _weights(name, weights, x.shape[0])
    limits = linear_bound(weight, bias, np.linalg.norm(x, norm, axis=1))
    pointwise = least_risk(phi, eta, limits, wrong=False)
    best = _best_linear_risk(phi, x, eta, weights, weight, bias, norm)
    return _gap(best, host.times(weights, pointwise).sum())


def _gap(best: ArrayLike, pointwise: ArrayLike) -> Gap:
    best, pointwise = np.asarray(best, np.float64), np.asarray(pointwise, np.float64)
    # Sums in another order: rounding must not make the gap negative.
    return Gap(np.maximum(best - pointwise, 0.0), best[()], pointwise[()])


def _weights(name: str, weights: ArrayLike | None, size: int) -> np.ndarray:
    if weights is None:
        return np.full(size, 1.0 / size)
    weights = host.probabilities(name, "weights", weights)
    if weights.shape != (size,):
        raise ValueError(f"{name}: expected weights [{size}], got {list(weights.shape)}")
    return weights


def _best_linear_risk(phi, x, eta, weights, weight, bias, norm) -> float:
    design = np.concatenate([x, np.ones((x.shape[0], 1))], axis=1)

    def risk(point):
        scores = design @ point
        both = phi(np.stack([scores, -scores]))
        costs = host.times(eta, both[0]) + host.times(1.0 - eta, both[1])
        return float(host.times(weights, costs).sum())

    def gradient(point, step):
        scores = design @ point
        up, down, back, forth = phi(
            np.stack([scores + step, scores - step, step - scores, -scores - step])
        )
        slopes = eta * (up - down) + (1.0 - eta) * (forth - back)
        return design.T @ (weights * slopes / (2.0 * step))

    def project(point):
        return np.append(_ball(point[:-1], weight, norm), np.clip(point[-1], -bias, bias))

    def slack(point, slope):
        """At most this much above the optimum, by convexity (Frank-Wolfe's gap)."""
        sizes = np.array([np.linalg.norm(slope[:-1], norm), abs(slope[-1])])
        return float(slope @ point + host.times(sizes, np.array([weight, bias])).sum())

    point = np.zeros(design.shape[1])
    best = risk(point)
    lipschitz = 1e-3
    for step in 10.0 ** np.arange(-1.0, -7.0, -1.0):
        ahead, momentum = point, 1.0
        # A guess from the smoother problem: too small a step now is never undone later.
        lipschitz *= 0.25
        for _ in range(600):
            slope = gradient(ahead, step)
            while True:
                new = project(ahead - slope / lipschitz)
                move = new - ahead
                there = gradient(new, step)
                if (there - slope) @ move <= lipschitz * (move @ move) or not move.any():
                    break
                lipschitz *= 2.0
            restart = slope @ (new - point) > 0.0
            following = 1.0 if restart else 0.5 * (1.0 + math.sqrt(1.0 + 4.0 * momentum**2))
            push = 0.0 if restart else (momentum - 1.0) / following
            ahead, point, momentum = new + push * (new - point), new, following
            # The infinite ball has no such bound: there a standing still decides.
            if slack(point, there) < 1e-9 * (1.0 + abs(best)) or np.abs(move).max() < 1e-13:
                break
        best = min(best, risk(point))
    return best


def _ball(w: np.ndarray, radius: float, norm: float) -> np.ndarray:
    """Projects w on the ball of the norm dual to ``norm``."""
    if norm == 1:
        return np.clip(w, -radius, radius)
    size = np.linalg.norm(w, 2 if norm == 2 else 1)
    if size <= radius:
        return w
    if norm == 2:
        return w * (radius / size)
    if radius == 0.0:
        return np.zeros_like(w)
    ordered = np.sort(np.abs(w))[::-1]
    excess = (np.cumsum(ordered) - radius) / np.arange(1, w.size + 1)
    cut = excess[np.flatnonzero(ordered > excess)[-1]]
    return np.sign(w) * np.maximum(np.abs(w) - cut, 0.0)
