# SPDX-License-Identifier: Apache-2.0
"""The least conditional risk of a margin loss, by search in one dimension.

C(u, eta) = eta phi(u) + (1 - eta) phi(-u) is what a score u costs where P(y = +1 | x) = eta. Its
least value over all scores, and over those of the wrong sign, is what calibration, transforms and
gaps are made of. Nothing is assumed of phi beyond finitely many local minima: a log-spaced grid on
both sides of 0, then golden-section search around its best three minima.
"""

import numpy as np
from numpy.typing import ArrayLike

from xloss.consistency import host

_NEAR = np.geomspace(1e-9, 1e9, 18 * 48 + 1)
_FAR = 10.0 ** np.arange(15, 301, 15.0)
#: Where an infimum at infinity is told from an infinite one.
_TAIL = np.array([1e75, 1e150, 1e300])
_SIDE = np.concatenate([[1e-300], _NEAR, _FAR])
_GRID = np.concatenate([-_SIDE[::-1], [0.0], _SIDE])
_ROWS = 512
_GOLDEN = (np.sqrt(5.0) - 1.0) / 2.0


def min_conditional_risk(
    loss: host.Loss, eta: ArrayLike, *, bound: ArrayLike = np.inf
) -> np.ndarray:
    """The least conditional risk that scores in [-bound, bound] reach.

    Definition::

        H(eta; A) = inf over |u| <= A of eta phi(u) + (1 - eta) phi(-u)

    Args:
      loss: a name or function of ``xloss.surrogates``, one bound with ``surrogates.bind``, or any
        function of a margin array (JAX, NumPy or plain Python).
      eta: P(y = +1 | x), [...] in [0, 1].
      bound: A, scalar or [...] > 0; inf for all scores.

    Returns:
      float64 [...]; -inf where the loss is unbounded below.

    Raises:
      TypeError: wrong types.
      ValueError: eta or bound out of range, a loss that is no function of margins.

    Numerics:
      Exact to about 1e-15 for losses with at most three competing local minima; the infimum at
      u = inf is read from phi(inf), or from phi(1e300) where that is NaN.

    Example:
      >>> min_conditional_risk("squared", [0.5, 1.0], bound=0.5).tolist()
      [1.0, 0.25]

    Evidence: published formula, derived and checked.

    References:
      Bartlett, Jordan, McAuliffe, "Convexity, Classification, and Risk Bounds", JASA 2006.
    """
    name = "min_conditional_risk"
    phi = host.margin_loss(name, loss)
    eta = host.array(name, "eta", eta, low=0.0, high=1.0)
    bound = host.array(name, "bound", bound, low=0.0)
    return least_risk(phi, eta, bound, wrong=False)


def least_risk(
    phi: host.MarginLoss, eta: ArrayLike, bound: ArrayLike, *, wrong: bool
) -> np.ndarray:
    """inf of C(u, eta) over |u| <= bound, or over the scores of the wrong sign among them.

    Score 0 predicts either class, hence counts as wrong too: a safe reading of the papers' u < 0.
    """
    eta, bound = np.broadcast_arrays(np.asarray(eta, np.float64), np.asarray(bound, np.float64))
    # C(u, eta) = C(-u, 1 - eta): the wrong sign is the negative one from here on.
    flat = np.maximum(eta, 1.0 - eta).ravel()
    limits = bound.ravel()
    tables = phi(_GRID), phi(-_GRID)
    parts = [
        _search(phi, flat[i : i + _ROWS], limits[i : i + _ROWS], wrong, *tables)
        for i in range(0, flat.size, _ROWS)
    ]
    return np.concatenate(parts).reshape(eta.shape) if parts else np.zeros(eta.shape)


def regret_of_the_wrong_sign(
    phi: host.MarginLoss, t: ArrayLike, bound: ArrayLike = np.inf
) -> np.ndarray:
    """psi~(t) = least risk with the wrong sign - least risk, at eta = (1 + t) / 2; inf if only
    the second is unbounded."""
    eta = (1.0 + np.asarray(t, np.float64)) / 2.0
    best = least_risk(phi, eta, bound, wrong=False)
    wrong = least_risk(phi, eta, bound, wrong=True)
    with np.errstate(invalid="ignore"):
        return np.where(best == wrong, 0.0, np.maximum(wrong - best, 0.0))


def _mix(eta: np.ndarray, up: np.ndarray, down: np.ndarray) -> np.ndarray:
    """eta phi(u) + (1 - eta) phi(-u), +inf where phi has no value."""
    with np.errstate(invalid="ignore", over="ignore"):
        risk = eta * up + host.times(1.0 - eta, down)
    return np.where(np.isnan(risk), np.inf, risk)


def _search(phi, eta, bound, wrong, up, down):
    top = np.zeros_like(bound) if wrong else bound
    risk = _mix(eta[:, None], up, down)
    allowed = (-bound[:, None] <= _GRID) & (top[:, None] >= _GRID)
    risk = np.where(allowed, risk, np.inf)
    best = risk.min(1)
    for end in (-bound, top):
        best = np.minimum(best, _mix(eta, phi(end), phi(-end)))
    framed = np.pad(risk, ((0, 0), (1, 1)), constant_values=np.inf)
    valley = allowed & (risk <= framed[:, :-2]) & (risk <= framed[:, 2:])
    picks = np.argpartition(np.where(valley, risk, np.inf), 2, axis=1)[:, :3]
    last = _GRID.size - 1
    low = np.maximum(_GRID[np.maximum(picks - 1, 0)], -bound[:, None])
    high = np.minimum(_GRID[np.minimum(picks + 1, last)], top[:, None])
    # With fewer than three valleys the other picks lie anywhere.
    low = np.minimum(low, high)
    best = np.minimum(best, _golden_section(phi, eta[:, None], low, high).min(1))
    # A cubic overflows on both sides before the far places: its risk there is inf - inf.
    endless = _unbounded(eta, bound, wrong, up, down) | (np.isinf(bound) & (best < -1e200))
    return np.where(endless, -np.inf, best)


def _golden_section(phi, eta, low, high):
    """Least value seen while narrowing every bracket [low, high] to nothing."""

    def risk(u):
        both = phi(np.stack([u, -u]))
        return _mix(eta, both[0], both[1])

    width = high - low
    left, right = high - _GOLDEN * width, low + _GOLDEN * width
    at_left, at_right = risk(left), risk(right)
    best = np.minimum(at_left, at_right)
    for _ in range(75):
        go_left = at_left <= at_right
        high, low = np.where(go_left, right, high), np.where(go_left, low, left)
        width = high - low
        fresh = np.where(go_left, high - _GOLDEN * width, low + _GOLDEN * width)
        value = risk(fresh)
        left, right = np.where(go_left, fresh, right), np.where(go_left, left, fresh)
        at_left, at_right = (
            np.where(go_left, value, at_right),
            np.where(go_left, at_left, value),
        )
        best = np.minimum(best, value)
    return best


def _unbounded(eta, bound, wrong, up, down):
    """Whether the risk still falls, and no slower, from 1e75 to 1e150 to 1e300."""
    endless = np.zeros(eta.shape, bool)
    for sign in (-1.0,) if wrong else (-1.0, 1.0):
        places = np.searchsorted(_GRID, sign * _TAIL)
        near, middle, far = (_mix(eta, up[i], down[i]) for i in places)
        with np.errstate(invalid="ignore"):
            before, after = middle - near, far - middle
        endless |= (after < -1e-6) & (after <= 0.99 * before) | (far == -np.inf)
    return endless & np.isinf(bound)
