# SPDX-License-Identifier: Apache-2.0
"""Is this margin loss legitimate for classification? A verdict, and the reason for it.

Bartlett, Jordan, McAuliffe, "Convexity, Classification, and Risk Bounds". Reach for it before
training with a loss of your own: if it is not calibrated, minimising it perfectly with all the data
in the world can still give the wrong classifier.
"""

import dataclasses
import math

import numpy as np

from xloss.consistency import host
from xloss.consistency.conditional import least_risk

_SCALES = np.geomspace(1e-3, 1e3, 146)
_PLACES = np.concatenate([-_SCALES[::-1], [0.0], _SCALES])


@dataclasses.dataclass(frozen=True)
class CalibrationReport:
    """What :func:`is_calibrated` found.

    Attributes:
      loss: the loss, with its hyperparameters.
      calibrated: the verdict; the report itself is true or false like it.
      worst_eta: where the margin of the verdict is least: the eta furthest from 1/2 at which a
        wrong sign costs nothing, or, for a calibrated loss, the least gap relative to
        (2 eta - 1)^2.
      gap: least risk with the wrong sign - least risk, at worst_eta.
      convex: whether phi looked convex on [-1000, 1000].
      slope_at_zero: phi'(0), NaN where phi has a kink there.
      slopes_at_zero: from the left and from the right.
      unbounded_below: whether some conditional risk has no lower bound.
      reason: why, in a sentence.
    """

    loss: str
    calibrated: bool
    worst_eta: float
    gap: float
    convex: bool
    slope_at_zero: float
    slopes_at_zero: tuple[float, float]
    unbounded_below: bool
    reason: str

    def __bool__(self) -> bool:
        return self.calibrated

    def __repr__(self) -> str:
        verdict = "calibrated" if self.calibrated else "NOT calibrated"
        if self.calibrated and self.unbounded_below:
            verdict += ", unbounded below"
        left, right = self.slopes_at_zero
        kink = f"kink from {left:.4g} to {right:.4g}"
        slope = kink if math.isnan(self.slope_at_zero) else f"{self.slope_at_zero:.4g}"
        return (
            f"{self.loss}: {verdict}\n"
            f"  {self.reason}\n"
            f"  convex: {'yes' if self.convex else 'no'}; slope at 0: {slope}\n"
            f"  worst eta {self.worst_eta:.4g}: the wrong sign costs {self.gap:.4g} more"
        )


def is_calibrated(phi: host.Loss) -> CalibrationReport:
    """Says whether a margin loss is classification-calibrated, and why.

    Definition, with C(u, eta) = eta phi(u) + (1 - eta) phi(-u): calibrated if for every eta != 1/2

        inf of C(u, eta) over u of the wrong sign (0 included)  >  inf over all u

    For convex phi that holds exactly if phi is differentiable at 0 with phi'(0) < 0. For other phi
    the slope says nothing (``max(0, -u - 0.5)`` is flat, a bump elsewhere can spoil a good slope),
    so the definition itself is checked, for convex phi too.

    Args:
      phi: a name or function of ``xloss.surrogates``, one bound with ``surrogates.bind``, or any
        function of a margin array (JAX, NumPy or plain Python).

    Returns:
      CalibrationReport; print it. It counts as a bool.

    Raises:
      TypeError: phi is not callable.
      ValueError: an unknown name, or a function that is not finite on [-1, 1].

    Numerics:
      eta from 1/2 + 0.0005 to 1, minima to about 1e-15: a kink at 0 between slopes that differ by
      less than a thousandth escapes it, as does a gap that vanishes faster than (2 eta - 1)^4.
      A loss without a lower bound (1 - u) is reported as "calibrated, unbounded below": the wrong
      sign is infinitely worse, but there is no minimum to be close to.

    Example:
      >>> print(is_calibrated(lambda u: abs(u) - u))
      phi: NOT calibrated
        at eta = 1 a score of the wrong sign, or 0, costs no more than the best one: convex with a
        kink at 0, which holds the minimiser there
        convex: yes; slope at 0: kink from -2 to 0
        worst eta 1: the wrong sign costs 0 more
      >>> bool(is_calibrated("hinge"))
      True

    Evidence: published formula, derived and checked.

    References:
      Bartlett, Jordan, McAuliffe, "Convexity, Classification, and Risk Bounds", JASA 2006.
    """
    loss = host.margin_loss("is_calibrated", phi)
    scale = max(1.0, float(np.abs(loss(np.array([-1.0, 0.0, 1.0]))).max()))
    noise = 16.0 * loss.eps * scale
    t = np.geomspace(max(1e-3, 10.0 * math.sqrt(noise)), 1.0, 160)
    best = least_risk(loss, 0.5 * (1.0 + t), np.inf, wrong=False)
    wrong = least_risk(loss, 0.5 * (1.0 + t), np.inf, wrong=True)
    with np.errstate(invalid="ignore"):
        gaps = np.where(best == wrong, 0.0, np.maximum(wrong - best, 0.0))
    failed = gaps <= noise
    worst = np.flatnonzero(failed)[-1] if failed.any() else np.argmin(gaps / t**2)
    convex = _is_convex(loss)
    left, right = _slopes_at_zero(loss)
    kink = abs(right - left) > 1e-3 * max(abs(left), abs(right)) + 1e3 * noise
    slope = math.nan if kink else 0.5 * (left + right)
    eta = float(0.5 * (1.0 + t[worst]))
    if failed.any():
        reason = (
            f"at eta = {eta:.4g} a score of the wrong sign, or 0, costs no more than the best one"
        )
        if convex and kink:
            reason += ": convex with a kink at 0, which holds the minimiser there"
        elif convex:
            reason += f": convex, but its slope at 0 is {slope + 0.0:.4g}, not negative"
    elif convex and not kink:
        reason = "convex, differentiable at 0 with a negative slope"
    else:
        reason = (
            f"the wrong sign cost more at all {t.size} values of eta tried, "
            f"from {0.5 * (1 + t[0]):.4g} to 1"
        )
    return CalibrationReport(
        loss=repr(loss),
        calibrated=not failed.any(),
        worst_eta=eta,
        gap=float(gaps[worst]) if gaps[worst] > noise else 0.0,
        convex=convex,
        slope_at_zero=slope,
        slopes_at_zero=(left, right),
        unbounded_below=bool(np.isneginf(best).any()),
        reason=reason,
    )


def _is_convex(loss: host.MarginLoss) -> bool:
    """Whether the slopes between neighbours never fall by more than rounding allows."""
    values = loss(_PLACES)
    finite = np.isfinite(values)
    # A convex function is finite on one interval.
    inside = np.flatnonzero(finite)
    if not finite[inside[0] : inside[-1] + 1].all():
        return False
    values, places = values[finite], _PLACES[finite]
    steps = np.diff(places)
    slopes = np.diff(values) / steps
    size = np.maximum(np.abs(values[1:]), np.abs(values[:-1]))
    rounding = 8.0 * loss.eps * size / steps
    allowed = rounding[1:] + rounding[:-1] + 1e-12 * np.abs(slopes[1:])
    return bool((np.diff(slopes) >= -allowed).all())


def _slopes_at_zero(loss: host.MarginLoss) -> tuple[float, float]:
    """One-sided slopes, second order where phi is smooth beside 0."""
    step = loss.eps ** (1.0 / 3.0)
    far_left, near_left, at, near_right, far_right = loss(step * np.array([-2, -1, 0, 1, 2.0]))
    left = (3.0 * at - 4.0 * near_left + far_left) / (2.0 * step)
    right = (-3.0 * at + 4.0 * near_right - far_right) / (2.0 * step)
    return float(left), float(right)
