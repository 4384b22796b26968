# SPDX-License-Identifier: Apache-2.0
"""The exact comp-sum transform, where the published closed form is only a lower bound.

Mao, Mohri, Zhong, "Cross-Entropy Loss Functions: Theoretical Analysis and Applications" gives a
closed form that is tight for tau <= 1; for more than two classes and tau > 1 the best possible
transform is larger, and the bound that it gives on the zero-one error smaller.
"""

import numpy as np
from numpy.typing import ArrayLike

from xloss.consistency import host
from xloss.consistency.comp_sum import family_parameters

_POINTS = 33
_ZOOMS = 24
_ROWS = 256


def comp_sum_transform_exact(
    beta: ArrayLike, *, tau: float = 1.0, num_classes: int = 2
) -> np.ndarray:
    """The least comp-sum regret among all (p, scores) with zero-one regret beta.

    Definition::

        T*(beta) = inf { sum_y p_y loss(s, y) - C*(p) : max p - p_k = beta, s_k = max s }

    For fixed p the best scores pool the predicted class k with every class above it: with r =
    1 / (2 - tau) and q the p whose pooled entries are replaced by their mean, the regret is
    (|q|_r - |p|_r) / (1 - tau), the entropy gap at tau = 1. What is left is a search over p:
    classes at the top, k, pooled ones of equal probability, at most one other that is not 0.
    For tau > 2 the best scores are uniform on a set of classes, and the search is over its size.

    Args:
      beta: zero-one regret, [...] in [0, 1].
      tau: the loss's parameter, >= 0.
      num_classes: n >= 2.

    Returns:
      float64 [...] >= ``comp_sum_transform``, equal to it where that is tight. Not always convex
      in beta: a bound on risks needs its ``convex_envelope``.

    Raises:
      TypeError, ValueError: wrong types, values out of range.

    Numerics:
      A search by nested grids, to about 1e-9; every value seen belongs to some p, so the result is
      never below the infimum.

    Example:
      >>> comp_sum_transform_exact(1.0, tau=1.5, num_classes=3).round(4).tolist()
      0.5858

    Evidence: published formula, derived and checked.

    References:
      Mao, Mohri, Zhong, "Cross-Entropy Loss Functions: Theoretical Analysis and Applications",
      ICML 2023, arXiv 2304.07288. The reduction to a search over p is ours.
    """
    name = "comp_sum_transform_exact"
    beta = host.array(name, "beta", beta, low=0.0, high=1.0)
    tau, n = family_parameters(name, tau, num_classes)
    flat = beta.ravel()
    if tau > 2.0:
        found = _uniform_scores(flat, tau, n)
    else:
        found = np.full(flat.shape, np.inf)
        for start in range(0, flat.size, _ROWS):
            rows = slice(start, start + _ROWS)
            for pooled in range(n - 1):
                value = _pooled_scores(flat[rows], tau, n, pooled)
                found[rows] = np.minimum(found[rows], value)
    return np.where(flat == 0.0, 0.0, found).reshape(beta.shape)


def _uniform_scores(beta: np.ndarray, tau: float, n: int) -> np.ndarray:
    """tau > 2: scores spread evenly over g classes, k and the g - 1 most probable ones."""
    q = tau - 1.0
    size = np.arange(1, n + 1)[:, None]
    # The least probable top that leaves room for n - 1 others not above it.
    top = np.maximum(beta, (1.0 + beta) / n)
    covered = np.minimum(size * top - beta, 1.0)
    return (top - (covered * size ** (-q))).min(0) / q


def _pooled_scores(beta: np.ndarray, tau: float, n: int, pooled: int) -> np.ndarray:
    """tau <= 2, with `pooled` classes of equal probability pooled beside the top one and k."""
    low = np.zeros((2, beta.size))
    high = np.ones((2, beta.size))
    axis = np.linspace(0.0, 1.0, _POINTS)
    best = np.full(beta.shape, np.inf)
    for _ in range(_ZOOMS):
        a = low[0] + (high[0] - low[0]) * axis[:, None, None]
        b = low[1] + (high[1] - low[1]) * axis[None, :, None]
        values = _regret(a, b, beta, tau, n, pooled).reshape(-1, beta.size)
        pick = values.argmin(0)
        best = np.minimum(best, values.min(0))
        column = np.arange(beta.size)
        centres = np.stack([a[pick // _POINTS, 0, column], b[0, pick % _POINTS, column]])
        width = (high - low) / 4.0
        low = np.clip(centres - width, 0.0, 1.0)
        high = np.clip(centres + width, 0.0, 1.0)
    return best


def _regret(a, b, beta, tau, n, pooled):
    """The regret at the p that a and b in [0, 1] stand for; inf where there is none.

    p: one class at ``top``, k at top - beta, `pooled` at ``level``, one at ``rest``, others 0.
    """
    # More mass on the pair than 1 is impossible, less than 2 top - beta = beta as well.
    top = np.maximum(beta, (1.0 + beta) / n)
    top = top + a * ((1.0 + beta) / 2.0 - top)
    pair = 2.0 * top - beta
    with_rest = n - 2 - pooled > 0
    if pooled == 0:
        level = np.zeros_like(pair)
        rest = 1.0 - pair
    else:
        least = np.maximum(pair / 2.0, ((pooled + 2) / (pooled + 3) - pair) / pooled)
        most = np.minimum(top, (1.0 - pair) / pooled)
        level = least + b * (most - least) if with_rest else (1.0 - pair) / pooled
        rest = np.maximum(1.0 - pair - pooled * level, 0.0)
        level = np.where(most < least - 1e-15, np.nan, level) if with_rest else level
    mean = (pair + pooled * level) / (pooled + 2)
    slack = 1e-12
    legal = (level <= top + slack) & (rest <= mean + slack)
    legal &= (level >= pair / 2.0 - slack) if pooled else True
    if not with_rest:
        legal &= rest <= slack
        rest = np.zeros_like(rest)
    # The power r < 1 of a rounding error is no rounding error.
    rest = np.where(rest < 1e-14, 0.0, rest)
    value = _norm_gap(top, np.maximum(top - beta, 0.0), level, mean, rest, tau, pooled)
    # b has no meaning without pooled classes: broadcasting fills its axis.
    shape = np.broadcast_shapes(a.shape, b.shape, beta.shape)
    return np.broadcast_to(np.where(legal, value, np.inf), shape)


def _norm_gap(top, last, level, mean, rest, tau, pooled):
    if abs(tau - 1.0) < 1e-12:
        spread = [_plogp(top), _plogp(last), pooled * _plogp(level)]
        return sum(spread) - (pooled + 2) * _plogp(mean)
    if tau == 2.0:
        return top - np.maximum(mean, rest)
    r = 1.0 / (2.0 - tau)
    # Everything in units of the top, so that no power underflows as tau nears 2.
    other = (rest / top) ** r
    spread = 1.0 + (last / top) ** r + pooled * (level / top) ** r + other
    even = (pooled + 2) * (mean / top) ** r + other
    return top * (even ** (1.0 / r) - spread ** (1.0 / r)) / (1.0 - tau)


def _plogp(p):
    return p * np.log(np.where(p > 0.0, p, 1.0))
