# SPDX-License-Identifier: Apache-2.0
"""What a surrogate excess says about the zero-one error: psi, T and their inverse.

Bartlett, Jordan, McAuliffe, "Convexity, Classification, and Risk Bounds" for all functions;
Awasthi, Mao, Mohri, Zhong, "H-Consistency Bounds for Surrogate Loss Minimizers" for scores within
[-A, A]. Reach for ``psi_transform`` for a loss of your own, for ``h_transform`` for a known one.
"""

import math

import numpy as np
from numpy.typing import ArrayLike

from xloss.consistency import host
from xloss.consistency.closed_forms import ClosedForm, closed_form
from xloss.consistency.comp_sum import bisect
from xloss.consistency.conditional import regret_of_the_wrong_sign
from xloss.consistency.envelope import convex_envelope

_THETA = np.linspace(0.0, 1.0, 257)


def psi_transform(
    phi: host.Loss, t: ArrayLike, *, bound: float = math.inf, envelope: bool = True
) -> np.ndarray:
    """The psi-transform of any margin loss, by numerical minimisation.

    Definition, with eta = (1 + t) / 2 and C(u, eta) = eta phi(u) + (1 - eta) phi(-u)::

        psi~(t) = inf over -A <= u <= 0 of C - inf over |u| <= A of C
        psi     = the lower convex envelope of psi~ on [0, 1]
        psi(R01(h) - R01*) <= R_phi(h) - R_phi*

    Args:
      phi: a name or function of ``xloss.surrogates``, one bound with ``surrogates.bind``, or any
        function of a margin array (JAX, NumPy or plain Python).
      t: |2 eta - 1|, [...] in [0, 1].
      bound: A, the greatest score, > 0; inf for all functions.
      envelope: False returns psi~.

    Returns:
      float64 [...] >= 0; +inf where only the unconstrained risk is unbounded below, as for 1 - u.

    Raises:
      TypeError: wrong types.
      ValueError: t or bound out of range, a loss that is no function of margins.

    Numerics:
      psi~ to about 1e-15 times phi(0); the envelope is that of psi~ on 257 points and those asked
      for, which is exact wherever psi~ is convex.

    Example:
      >>> psi_transform(lambda u: (1 - u) ** 2, [0.0, 0.5, 1.0]).round(6).tolist()
      [0.0, 0.25, 1.0]

    Evidence: published formula, derived and checked.

    References:
      Bartlett, Jordan, McAuliffe, "Convexity, Classification, and Risk Bounds", JASA 2006.
      Steinwart, "How to Compare Different Loss Functions and Their Risks", 2007: his calibration
      function of (eps, eta) is psi~ for t >= eps.
    """
    name = "psi_transform"
    loss, t, bound = _arguments(name, phi, "t", t, 1.0, bound)
    return _numeric(loss, t, bound, envelope)


def h_transform(loss: host.Loss, t: ArrayLike, *, bound: float = math.inf) -> np.ndarray:
    """T(t; A): the surrogate regret that a zero-one regret of t costs at least, scores in [-A, A].

    Definition, with eta = (1 + t) / 2 and C(u, eta) = eta phi(u) + (1 - eta) phi(-u)::

        T(t; A) = inf over -A <= u < 0 of C(u, eta) - inf over |u| <= A of C(u, eta)
        T(R01(h) - R01*(H) + M01(H)) <= R_phi(h) - R_phi*(H) + M_phi(H)   for every h in H

    The closed form where one is known (``closed_forms`` lists them), else :func:`psi_transform`.

    Args:
      loss: as phi of :func:`psi_transform`; also "logistic_base2", the loss of the papers' tables.
      t: zero-one regret, [...] in [0, 1].
      bound: A, see ``linear_bound`` and ``nn_bound``, > 0; inf for all functions.

    Returns:
      float64 [...] >= 0, convex and non-decreasing in t, non-decreasing in bound.

    Raises:
      TypeError: wrong types.
      ValueError: t or bound out of range, an unknown name.

    Numerics:
      Closed forms keep their relative accuracy as t -> 0; exact at t = 1.

    Example:
      >>> h_transform("hinge", 0.4, bound=0.5).tolist()
      0.2
      >>> h_transform("exponential", [0.6, 1.0]).round(6).tolist()
      [0.2, 1.0]

    Evidence: published formula, derived and checked.

    References:
      Awasthi, Mao, Mohri, Zhong, "H-Consistency Bounds for Surrogate Loss Minimizers", ICML 2022.
      Departure: score 0 counts as an error of either class, which never raises T.
    """
    name = "h_transform"
    resolved, t, bound = _arguments(name, loss, "t", t, 1.0, bound)
    known = closed_form(resolved, bound)
    return known.transform(t) if known else _numeric(resolved, t, bound, True)


def h_gamma(
    loss: host.Loss, excess: ArrayLike, *, bound: float = math.inf, upper: bool = False
) -> np.ndarray:
    """Gamma(z; A): the zero-one regret that a surrogate excess of z allows at most.

    Definition: the greatest t in [0, 1] with ``h_transform(loss, t, bound=A)`` <= z, the inverse of
    T where T is increasing; 1 beyond T(1). With ``upper`` a simple bound on it, not capped::

        exponential:              max(sqrt(2 z), 2 coth(A) z)
        logistic, logistic_base2: max(sqrt(2 z), 2 coth(A / 2) z)

    Args:
      loss: as in :func:`h_transform`.
      excess: z = R_phi(h) - R_phi*(H) + M_phi(H), [...] >= 0.
      bound: A, > 0; inf for all functions.
      upper: whether to return the simple upper bound, for the three losses above.

    Returns:
      float64 [...], in [0, 1] unless ``upper``.

    Raises:
      TypeError: wrong types.
      ValueError: values out of range, ``upper`` for another loss.

    Numerics:
      Closed, or by bisection to the last bit. For a loss that is not calibrated it is 1 even at
      z = 0: nothing follows.

    Example:
      >>> h_gamma("squared", [0.0, 0.04]).round(6).tolist()
      [0.0, 0.2]
      >>> h_gamma("hinge", 0.1, bound=0.5).tolist()
      0.2

    Evidence: published formula, derived and checked.

    References:
      Awasthi, Mao, Mohri, Zhong, "H-Consistency Bounds for Surrogate Loss Minimizers", ICML 2022.
    """
    name = "h_gamma"
    resolved, z, bound = _arguments(name, loss, "excess", excess, math.inf, bound)
    known = closed_form(resolved, bound)
    if upper:
        if known is None or known.knee is None:
            raise ValueError(
                f"{name}: expected upper=True with exponential, logistic or logistic_base2, got "
                f"{resolved!r}"
            )
        return np.maximum(np.sqrt(2.0 * z), 2.0 * z / known.knee)
    if known is None:
        return _numeric_gamma(resolved, z, bound)
    return _inverse(known, z)


def _inverse(known: ClosedForm, z: np.ndarray) -> np.ndarray:
    return known.inverse(z) if known.inverse else bisect(known.transform, z)


def _numeric(loss: host.MarginLoss, t: np.ndarray, bound: float, envelope: bool) -> np.ndarray:
    if not envelope:
        return regret_of_the_wrong_sign(loss, t, bound)
    theta, place = np.unique(np.concatenate([_THETA, t.ravel()]), return_inverse=True)
    values = convex_envelope(theta, regret_of_the_wrong_sign(loss, theta, bound))
    return values[place[_THETA.size :]].reshape(t.shape)


def _numeric_gamma(loss: host.MarginLoss, z: np.ndarray, bound: float) -> np.ndarray:
    raw = regret_of_the_wrong_sign(loss, _THETA, bound)
    hull = convex_envelope(_THETA, raw)
    # Minima come with rounding errors of this size, and so does a psi~ that is 0.
    noise = 64.0 * loss.eps * max(1.0, float(np.abs(loss(0.0))))
    if not np.isfinite(raw).all() or (raw - hull <= noise).all():
        return bisect(lambda t: regret_of_the_wrong_sign(loss, t, bound), np.maximum(z, noise))
    # Not convex: the envelope is straight between the grid's points, and so is its inverse.
    beyond = np.maximum.accumulate(hull)
    last = np.searchsorted(beyond, np.maximum(z, noise), side="right") - 1
    after = np.minimum(last + 1, _THETA.size - 1)
    rise = np.where(beyond[after] > beyond[last], beyond[after] - beyond[last], 1.0)
    share = np.clip((z - beyond[last]) / rise, 0.0, 1.0)
    return np.minimum(_THETA[last] + share * (_THETA[after] - _THETA[last]), 1.0)


def _arguments(name, loss, label, value, high, bound):
    return (
        host.margin_loss(name, loss),
        host.array(name, label, value, low=0.0, high=high),
        host.number(name, "bound", bound, low=0.0, open_low=True),
    )
