# SPDX-License-Identifier: Apache-2.0
"""What a small comp-sum risk guarantees: transforms, conditional minima, gaps.

Mao, Mohri, Zhong, "Cross-Entropy Loss Functions: Theoretical Analysis and Applications". Reach for
it to see what a surrogate excess of, say, 0.01 says about the zero-one error for a given tau and
number of classes, and which part of the excess no optimiser can remove.
"""

import math

import numpy as np
from numpy.typing import ArrayLike

from xloss.consistency import host


def comp_sum_transform(beta: ArrayLike, *, tau: float = 1.0, num_classes: int = 2) -> np.ndarray:
    """T_tau(beta): the comp-sum excess that a zero-one regret of beta costs at least.

    Definition, with n = num_classes, a = 1 / (2 - tau), m = [(1 + beta)^a + (1 - beta)^a] / 2::

        tau < 1:      2^(1 - tau) / (1 - tau) [1 - m^(2 - tau)];  tau = 0: 1 - sqrt(1 - beta^2)
        tau = 1:      [(1 + beta) log(1 + beta) + (1 - beta) log(1 - beta)] / 2
        1 < tau < 2:  [m^(2 - tau) - 1] / ((tau - 1) n^(tau - 1))
        tau >= 2:     beta / ((tau - 1) n^(tau - 1))

        T(R01(h) - R01*(H) + M01(H)) <= R_tau(h) - R_tau*(H) + M_tau(H)   for every h in H

    for symmetric, complete H (every score vector is reached at every x). Tight for tau <= 1, and
    for n = 2 up to tau = 2; elsewhere valid, not always tight: ``comp_sum_transform_exact``.

    Args:
      beta: zero-one regret, [...] in [0, 1].
      tau: the loss's parameter, >= 0.
      num_classes: n >= 2.

    Returns:
      float64 [...], convex and increasing in beta, 0 at 0.

    Raises:
      TypeError, ValueError: wrong types, values out of range.

    Numerics:
      Through m - 1 as a sum of expm1, so that neither tau -> 1 nor beta -> 0 loses digits; through
      logarithms near tau = 2.

    Example:
      >>> comp_sum_transform([0.0, 0.6, 1.0], tau=0.0).round(4).tolist()
      [0.0, 0.2, 1.0]

    Evidence: published formula, derived and checked.

    References:
      Mao, Mohri, Zhong, "Cross-Entropy Loss Functions: Theoretical Analysis and Applications",
      ICML 2023, arXiv 2304.07288. No authors' code is known.
    """
    name = "comp_sum_transform"
    beta = host.array(name, "beta", beta, low=0.0, high=1.0)
    return closed_transform(beta, *family_parameters(name, tau, num_classes))


def comp_sum_gamma(
    excess: ArrayLike, *, tau: float = 1.0, num_classes: int = 2, upper: bool = False
) -> np.ndarray:
    """Gamma_tau(z): the zero-one regret that a comp-sum excess of z allows at most.

    Definition: the inverse of :func:`comp_sum_transform`, capped at 1, or with ``upper`` the simple
    bound on it, not capped (n = num_classes)::

        tau < 1: sqrt(2^tau (2 - tau) z);  tau < 2: sqrt(2 n^(tau - 1) z);
        tau >= 2: (tau - 1) n^(tau - 1) z

    Args:
      excess: z = R_tau(h) - R_tau*(H) + M_tau(H), [...] >= 0.
      tau: the loss's parameter, >= 0.
      num_classes: n >= 2.
      upper: whether to return the simple upper bound.

    Returns:
      float64 [...], in [0, 1] unless ``upper``.

    Raises:
      TypeError, ValueError: wrong types, values out of range.

    Numerics:
      Bisection to the last bit of the regret. The factor n^(tau - 1) is the price of a large tau.

    Example:
      >>> comp_sum_gamma(0.01, tau=1.0).round(4).tolist()
      0.1412
      >>> comp_sum_gamma(0.01, tau=2.0, num_classes=100).tolist()
      1.0

    Evidence: published formula, derived and checked.

    References:
      Mao, Mohri, Zhong, "Cross-Entropy Loss Functions: Theoretical Analysis and Applications",
      ICML 2023, arXiv 2304.07288.
    """
    name = "comp_sum_gamma"
    z = host.array(name, "excess", excess, low=0.0)
    tau, n = family_parameters(name, tau, num_classes)
    scale = float(n) ** (tau - 1.0)
    if tau >= 2.0:
        line = (tau - 1.0) * scale * z
        return line if upper else np.minimum(line, 1.0)
    if upper:
        return np.sqrt((2.0**tau * (2.0 - tau) if tau < 1.0 else 2.0 * scale) * z)
    return bisect(lambda beta: closed_transform(beta, tau, n), z)


def comp_sum_conditional_min(p: ArrayLike, *, tau: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """The least conditional comp-sum risk at class probabilities p, and where it is reached.

    Definition, over all score vectors, with s = softmax of the scores::

        tau < 2:   ((sum_y p_y^a)^(2 - tau) - 1) / (1 - tau) at s_y ~ p_y^a, a = 1 / (2 - tau)
        tau = 1:   the entropy of p at s = p
        tau >= 2:  (1 - max_y p_y) / (tau - 1) at s = one-hot of the first argmax

    Args:
      p: class probabilities [..., K], >= 0, summing to 1.
      tau: the loss's parameter, >= 0.

    Returns:
      (values [...], softmax [..., K]), float64.

    Raises:
      TypeError, ValueError: wrong types, p no distribution, tau < 0.

    Numerics:
      Zeros in p are exact. Accurate through tau = 1 and near tau = 2.

    Example:
      >>> value, softmax = comp_sum_conditional_min([0.8, 0.2], tau=0.0)
      >>> value.round(4).tolist(), softmax.round(4).tolist()
      (0.8, [0.6667, 0.3333])

    Evidence: published formula, derived and checked.

    References:
      Mao, Mohri, Zhong, "Cross-Entropy Loss Functions: Theoretical Analysis and Applications",
      ICML 2023, arXiv 2304.07288.
    """
    name = "comp_sum_conditional_min"
    p = host.probabilities(name, "p", p)
    tau = host.number(name, "tau", tau, low=0.0)
    if tau >= 2.0:
        return (1.0 - p.max(-1)) / (tau - 1.0), np.eye(p.shape[-1])[p.argmax(-1)]
    power = 1.0 / (2.0 - tau)
    with np.errstate(divide="ignore"):
        log_p = np.log(p)
    largest = (power * log_p).max(-1, keepdims=True)
    weights = np.exp(power * log_p - largest)
    total = weights.sum(-1, keepdims=True)
    if power < 2.0:
        # sum p^a = 1 + sum p (p^(a - 1) - 1) keeps its digits where a is close to 1.
        with np.errstate(invalid="ignore"):
            log_sum = np.log1p(host.times(p, np.expm1((power - 1.0) * log_p)).sum(-1))
    else:
        log_sum = (largest + np.log(total))[..., 0]
    if abs(tau - 1.0) < 1e-12:
        value = -host.times(p, log_p).sum(-1)
    else:
        value = np.expm1((2.0 - tau) * log_sum) / (1.0 - tau)
    return np.maximum(value, 0.0), weights / total


def comp_sum_gap_upper_bound(
    best_sum_exp_risk: ArrayLike, *, num_classes: int, bound: ArrayLike, tau: float = 1.0
) -> np.ndarray:
    """An upper bound on the minimizability gap for deterministic labels and bounded scores.

    Definition, with n = num_classes and scores in [-bound, bound]^n at every x::

        M_tau <= Phi_tau(R*) - Phi_tau(C*),  C* = (n - 1) e^(-2 bound)
        Phi_tau(u) = ((1 + u)^(1 - tau) - 1) / (1 - tau),  log(1 + u) at tau = 1

    Args:
      best_sum_exp_risk: R*, the least risk of the class for tau = 0, [...] >= C*.
      num_classes: n >= 2.
      bound: greatest score, [...] > 0 or inf.
      tau: the loss's parameter, >= 0.

    Returns:
      float64 [...] >= 0, non-increasing in tau.

    Raises:
      TypeError, ValueError: wrong types, values out of range, R* below C*.

    Numerics:
      Exactly 0 at R* = C*.

    Example:
      >>> comp_sum_gap_upper_bound(0.5, num_classes=10, bound=2.0, tau=1.0).round(4).tolist()
      0.2529

    Evidence: published formula, derived and checked.

    References:
      Mao, Mohri, Zhong, "Cross-Entropy Loss Functions: Theoretical Analysis and Applications",
      ICML 2023, arXiv 2304.07288.
    """
    name = "comp_sum_gap_upper_bound"
    risk = host.array(name, "best_sum_exp_risk", best_sum_exp_risk, low=0.0)
    bound = host.array(name, "bound", bound, low=0.0)
    tau, n = family_parameters(name, tau, num_classes)
    least = (n - 1.0) * np.exp(-2.0 * bound)
    if (risk < least * (1.0 - 1e-9)).any():
        raise ValueError(
            f"{name}: expected best_sum_exp_risk >= (n - 1) exp(-2 bound), got a risk below it: "
            "no scores within the bound reach it"
        )
    return np.maximum(outer(risk, tau) - outer(least, tau), 0.0)


def outer(u: np.ndarray, tau: float) -> np.ndarray:
    """Phi_tau(u) = ((1 + u)^(1 - tau) - 1) / (1 - tau) of the odds u against the label."""
    log = np.log1p(u)
    return log if abs(tau - 1.0) < 1e-12 else np.expm1((1.0 - tau) * log) / (1.0 - tau)


def binary_entropy_gap(t: np.ndarray) -> np.ndarray:
    """[(1 + t) log(1 + t) + (1 - t) log(1 - t)] / 2 without cancellation near 0 or 1."""
    small = np.minimum(t, 0.5)
    near = small * np.arctanh(small) + 0.5 * np.log1p(-small * small)
    with np.errstate(divide="ignore"):
        upper = host.times(1.0 - t, np.log1p(-t))
    return np.where(t < 0.5, near, 0.5 * ((1.0 + t) * np.log1p(t) + upper))


def closed_transform(beta: np.ndarray, tau: float, n: int) -> np.ndarray:
    """T_tau(beta) of checked arguments."""
    q = tau - 1.0
    scale = 2.0 ** (-q) if q < 0.0 else float(n) ** (-q)
    if q >= 1.0:
        return beta * scale / q
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        up, down = np.log1p(beta), np.log1p(-beta)
        if abs(q) < 1e-12:
            return binary_entropy_gap(beta)
        power = 1.0 / (1.0 - q)
        if power < 50.0:
            # m - 1 = sum of (1 +- beta) / 2 times ((1 +- beta)^(a - 1) - 1).
            shift = 0.5 * (1.0 + beta) * np.expm1((power - 1.0) * up)
            shift += 0.5 * host.times(1.0 - beta, np.expm1((power - 1.0) * down))
            log_mean = np.log1p(shift)
        else:
            log_mean = np.logaddexp(power * up, power * down) - math.log(2.0)
        # There the terms of first order in beta cancel: the even ones are left.
        square = np.square(np.minimum(beta, 1e-3 / max(power, 1.0)))
        correction = 1.0 + (power - 2.0) * (power - 3.0) / 12.0 * square
        series = np.log1p(0.5 * power * (power - 1.0) * square * correction)
        log_mean = np.where(square < beta * beta, log_mean, series)
        return np.maximum(scale * np.expm1((1.0 - q) * log_mean) / q, 0.0)


def family_parameters(name: str, tau: float, num_classes: int) -> tuple[float, int]:
    """(tau, n), checked."""
    n = host.number(name, "num_classes", num_classes, low=2.0)
    if n != int(n):
        raise ValueError(f"{name}: expected num_classes to be an integer, got {n:g}")
    return host.number(name, "tau", tau, low=0.0), int(n)


def bisect(transform, z: np.ndarray) -> np.ndarray:
    """The greatest t in [0, 1] with transform(t) <= z, for a non-decreasing transform."""
    low, high = np.zeros_like(z), np.ones_like(z)
    for _ in range(64):
        middle = 0.5 * (low + high)
        inside = transform(middle) <= z
        low, high = np.where(inside, middle, low), np.where(inside, high, middle)
    return np.where(transform(np.ones_like(z)) <= z, 1.0, low)
