# SPDX-License-Identifier: Apache-2.0
"""One page about a loss: is it legitimate, and what does its value say about the error?

The answers of this room put together: Bartlett, Jordan, McAuliffe, "Convexity, Classification, and
Risk Bounds" and what followed. Reach for it, or for ``python -m experiments.consistency``, before
training with a loss of your own, or to choose between losses.
"""

import dataclasses
import functools
import inspect
import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np

from xloss.consistency import host
from xloss.consistency.bounds import massart_slope
from xloss.consistency.calibration import CalibrationReport, is_calibrated
from xloss.consistency.comp_sum import comp_sum_gamma
from xloss.consistency.growth import Growth, growth_rate
from xloss.consistency.hypotheses import AllFunctions, HypothesisSet
from xloss.consistency.multiclass import (
    MulticlassReport,
    conditional_risk,
    multiclass_calibration,
)
from xloss.consistency.search import losses_of_all_labels
from xloss.consistency.transforms import h_gamma, h_transform

#: What a loss is compared with unless the caller says otherwise.
ALTERNATIVES = ("logistic", "exponential", "hinge", "squared_hinge", "sigmoid", "rho_margin")
MARGINS = (-2.0, -1.0, 0.0, 1.0, 2.0)
REGRETS = (0.1, 0.25, 0.5, 1.0)
NOISES = (0.1, 0.25)


@dataclasses.dataclass(frozen=True)
class ConsistencyReport:
    """What :func:`report` found; print it.

    Attributes:
      loss: its name and hyperparameters.
      verdict: in a sentence.
      calibration: of the margin loss, or of the loss between two of its classes; None for a loss
        of scores that is no margin loss even of two classes.
      classes: of a loss of several classes, one report for each p that was tried.
      hypotheses: the set that A is of.
      bound: A, the greatest score that is reached at every x.
      margins, values, slopes: the loss and its derivative at a few margins.
      regrets, transform: T at a few regrets, between two classes; NaN where there is none.
      growth: of T near 0.
      massart: the slopes of the linear bound where |eta - 1/2| >= 0.1 and 0.25; NaN likewise.
      excess: the surrogate excess of the next one.
      gammas: loss -> (zero-one excess that it allows at most within A, and for all functions); of
        a loss of several classes between two of them, NaN likewise.
      several: the same for all K classes at once: known for comp-sum, 1 where calibration failed,
        else NaN; None where two classes are all there is.
      unbounded_below: whether the loss has no minimum to be close to.
    """

    loss: str
    verdict: str
    calibration: CalibrationReport | None
    classes: tuple[MulticlassReport, ...]
    hypotheses: HypothesisSet
    bound: float
    margins: np.ndarray
    values: np.ndarray
    slopes: np.ndarray
    regrets: np.ndarray
    transform: np.ndarray
    growth: Growth
    massart: np.ndarray
    excess: float
    gammas: dict[str, tuple[float, float]]
    several: float | None
    unbounded_below: bool

    def __bool__(self) -> bool:
        two = self.calibration is None or bool(self.calibration)
        return two and all(map(bool, self.classes)) and not self.unbounded_below

    def __str__(self) -> str:
        def row(name: str, numbers: Any) -> str:
            return f"  {name:<24}" + "".join(f"{_short(number):>10}" for number in numbers)

        between = " (of two classes, u = z_y - z_other)" if self.classes else ""
        lines = [self.loss, f"  {self.verdict}", "", f"the loss{between}"]
        lines += [row("margin u", self.margins)]
        lines += [row("phi(u)", self.values), row("phi'(u)", self.slopes), ""]
        lines.append("calibration")
        if self.calibration is None:
            lines += ["  no margin loss: it reads more than z_y - z_other, or treats labels unlike"]
        else:
            lines += repr(self.calibration).splitlines()[1:]
        for found in self.classes:
            if found:
                cost = f"a wrong class costs {found.gap:.4g} more"
                lines.append(f"  at p = {_shown(found.p)}: calibrated, {cost}")
            else:
                with np.printoptions(threshold=8):
                    lines += ["  " + line for line in repr(found).splitlines()]
        two = ", between two classes" if self.classes else ""
        lines += ["", f"what an excess says, {self.hypotheses} (A = {self.bound:g}){two}"]
        lines += [
            row("zero-one regret t", self.regrets),
            row("costs at least T(t)", self.transform),
        ]
        lines += [f"  growth: {self.growth}", "  zero-one excess <= slope x excess:"]
        for noise, slope in zip(NOISES, self.massart, strict=True):
            lines.append(f"    slope {_short(slope)} where |eta - 1/2| >= {noise:g} everywhere")
        lines += ["", f"zero-one excess at most, at a surrogate excess of {self.excess:g}"]
        sets = ("A = inf",) if np.isinf(self.bound) else (f"A = {self.bound:g}", "A = inf")
        own, *others = self.gammas
        names = [f"{own}, two classes" if self.classes else own, *others]
        width = max(24, *map(len, names))
        lines.append(f"  {'':<{width}}" + "".join(f"{name:>12}" for name in sets))
        for name, numbers in zip(names, self.gammas.values(), strict=True):
            cells = "".join(f"{_short(number):>12}" for number in numbers[-len(sets) :])
            lines.append(f"  {name:<{width}}{cells}")
        if self.several is not None:
            cells = f"{_short(self.several):>{12 * len(sets)}}"
            lines.append(f"  {'all classes at once':<{width}}{cells}")
        return "\n".join(_folded(line.rstrip()) for line in lines)


def report(
    loss: Any,
    *,
    hypotheses: HypothesisSet | None = None,
    excess: float = 0.01,
    alternatives: Sequence[host.Loss] = ALTERNATIVES,
    num_classes: int | None = None,
) -> ConsistencyReport:
    """A page about a loss: its shape, calibration, transform, growth, and bound beside others.

    Definition: see ``is_calibrated``, ``h_transform``, ``growth_rate``, ``massart_slope``,
    ``h_gamma`` and, for several classes, ``multiclass_calibration`` at four p: one class sure to
    win, one just above 1/2, a close race below it, and one close to uniform. A loss of several
    classes is also looked at with two: phi(u) = loss((0, u), 1). That is all there is to it only
    where a common offset of the scores changes nothing and labels are treated alike; other losses
    (squares of scores, class weights) get no T and no bound, and more p where labels differ.

    Args:
      loss: a margin loss as in ``is_calibrated``; with ``num_classes`` a loss of scores [N, K] and
        labels [N] -> [N], such as those of ``xloss.classification``, or your own.
      hypotheses: AllFunctions(), Linear(...) or OneHiddenLayer(...); None is the first.
      excess: of the surrogate, gap included, >= 0.
      alternatives: margin losses to compare with.
      num_classes: K >= 2 of a loss of scores and labels; None for a margin loss.

    Returns:
      ConsistencyReport; print it. It counts as a bool: no failure of calibration was found, and
      the loss has a minimum to be close to.

    Raises:
      TypeError, ValueError: no loss, one that returns NaN or another shape, numbers out of range,
        a hypothesis set whose scores are all 0 at x = 0 (no bound holds whatever the distribution).

    Numerics:
      Those of its parts. Several classes are tried at a few p: they can refute a loss, they cannot
      prove it, and the verdict says so. The search over scores takes minutes for 50 classes.

    Example:
      >>> found = report("squared_hinge", alternatives=["hinge"])
      >>> found.verdict
      'calibrated; the zero-one excess falls like the square root of the surrogate excess'
      >>> len(str(found).splitlines()) < 40
      True

    Evidence: published formula, derived and checked.

    References:
      Bartlett, Jordan, McAuliffe, "Convexity, Classification, and Risk Bounds", JASA 2006;
      Awasthi, Mao, Mohri, Zhong, "H-Consistency Bounds for Surrogate Loss Minimizers", ICML 2022.
    """
    name = "report"
    hypotheses = AllFunctions() if hypotheses is None else hypotheses
    if not isinstance(hypotheses, HypothesisSet):
        raise TypeError(f"{name}: expected hypotheses to be a hypothesis set, got {hypotheses!r}")
    bound = hypotheses.least
    if bound == 0.0:
        raise ValueError(
            f"{name}: expected a set with scores other than 0 at x = 0 (a bias > 0), got "
            f"{hypotheses}: no bound holds whatever the distribution"
        )
    excess = host.number(name, "excess", excess, low=0.0)
    title, classes, several, binary = None, (), None, True
    if num_classes is not None:
        count = host.number(name, "num_classes", num_classes, low=2.0)
        if count != int(count):
            raise ValueError(f"{name}: expected num_classes to be an integer, got {num_classes}")
        phi = host.margin_loss(name, _between_two(loss))
        offsets, alike = _symmetries(loss)
        binary = offsets and alike
        title = _title(loss)
        if count > 2 or not binary:
            classes = _several(loss, int(count), alike)
            several = _comp_sum_bound(loss, excess, int(count)) if all(classes) else 1.0
    else:
        phi = host.margin_loss(name, loss)
    margins, step = np.asarray(MARGINS), max(phi.eps ** (1 / 3), 1e-6)
    calibration = is_calibrated(phi) if binary else None
    growth = growth_rate(phi, bound=bound) if binary else Growth(np.nan, np.nan, "none: no T")
    endless = _endless(loss, classes) or (calibration is not None and calibration.unbounded_below)
    others = [host.margin_loss(name, other) for other in alternatives]
    own = title or repr(phi)
    massart = massart_slope(phi, NOISES, bound=bound) if binary else np.full(len(NOISES), np.nan)
    transform = h_transform(phi, REGRETS, bound=bound) if binary else np.full(len(REGRETS), np.nan)
    gammas = {}
    for title_of, other in ((own, phi), *((repr(o), o) for o in others)):
        everywhere = float(h_gamma(other, excess))
        within = everywhere if np.isinf(bound) else float(h_gamma(other, excess, bound=bound))
        gammas[title_of] = within, everywhere
    if endless or not binary:  # there is no excess over an infimum of -inf
        massart, gammas[own] = np.full(len(NOISES), np.nan), (np.nan, np.nan)
        several = None if several is None else np.nan if endless else several
    return ConsistencyReport(
        loss=own if num_classes is None else f"{own}, {num_classes} classes",
        verdict=_verdict(calibration, classes, growth, endless),
        calibration=calibration,
        classes=classes,
        hypotheses=hypotheses,
        bound=bound,
        margins=margins,
        values=phi(margins),
        slopes=(phi(margins + step) - phi(margins - step)) / (2.0 * step),
        regrets=np.asarray(REGRETS),
        transform=transform,
        growth=growth,
        massart=massart,
        excess=excess,
        gammas=gammas,
        several=several,
        unbounded_below=endless,
    )


def _verdict(
    calibration: CalibrationReport | None,
    classes: Sequence[MulticlassReport],
    growth: Growth,
    endless: bool,
) -> str:
    if calibration is not None and not calibration:
        return "NOT calibrated: minimising it perfectly can give the wrong classifier"
    if endless and classes:
        return "undecided: the loss has no lower bound, so no minimum to be close to"
    if endless:
        return "undecided: the wrong sign costs more, but the loss has no minimum to be close to"
    if failed := [found for found in classes if not found]:
        several = "" if failed[0].p.size == 2 else " for several classes"
        return f"NOT calibrated{several}: it fails at p = {_shown(failed[0].p)}"
    if calibration is None:
        return "no failure of calibration found at the p tried; no rate is known"
    rates = {
        1.0: "falls like the surrogate excess",
        2.0: "falls like the square root of the surrogate excess",
    }
    rate = rates.get(growth.exponent, f"has no plain rate ({growth})")
    if classes:
        first = "no failure of calibration found at the p tried"
        return f"{first}; between two classes the zero-one excess {rate}"
    return f"calibrated; the zero-one excess {rate}"


def _between_two(loss: Any) -> Any:
    """phi(u) = loss((0, u), 1)."""

    def phi(margin: Any) -> np.ndarray:
        margin = np.asarray(margin, np.float64)
        scores = np.stack([np.zeros_like(margin), margin], axis=-1)
        return losses_of_all_labels("report", loss, scores)[..., 1]

    return phi


def _symmetries(loss: Any) -> tuple[bool, bool]:
    """Whether an offset of both scores changes nothing, and whether both labels are alike."""
    scores = np.random.default_rng(0).uniform(-3.0, 3.0, (64, 2))

    def same(there: np.ndarray, here: np.ndarray) -> bool:
        return np.allclose(there, here, rtol=1e-4, atol=1e-5, equal_nan=True)

    def at(place: np.ndarray) -> np.ndarray:
        return losses_of_all_labels("report", loss, place)

    here = at(scores)
    offsets = all(same(at(scores + offset), here) for offset in (-2.0, 0.5, 3.0))
    return offsets, same(at(scores[:, ::-1])[:, ::-1], here)


def _several(loss: Any, count: int, alike: bool) -> tuple[MulticlassReport, ...]:
    rest = np.ones(count - 1)
    tried = [np.append(top, (1.0 - top) * rest / (count - 1)) for top in (0.7, 0.52)]
    if count > 2:
        # Leads that do not shrink faster than p: their cost must stay above the tolerance.
        low = np.append([1.4, 1.2], np.full(count - 2, (count - 2.6) / (count - 2))) / count
        close = np.append([0.4, 0.36], np.full(count - 2, 0.24 / (count - 2)))
        tried += [close, low]
    if not alike:  # any label may be the one that suffers
        tried += [np.roll(tried[1], place) for place in range(1, min(count, 6))]
    return tuple(multiclass_calibration(loss, p) for p in tried)


def _endless(loss: Any, classes: Sequence[MulticlassReport]) -> bool:
    """Whether the risk goes on falling ten times beyond the scores that were found best."""
    for found in classes:
        further = float(conditional_risk(loss, 10.0 * found.minimiser, found.p))
        if further < found.minimum - 1e-2 * max(1.0, abs(found.minimum)):
            return True
    return False


def _unwrapped(loss: Any) -> tuple[Any, dict[str, Any]]:
    if isinstance(loss, functools.partial):
        return loss.func, dict(loss.keywords)
    return loss, {}


def _title(loss: Any) -> str:
    inner, given = _unwrapped(loss)
    name = getattr(inner, "__name__", type(inner).__name__)
    inside = ", ".join(f"{key}={value}" for key, value in given.items())
    name = "loss" if name == "<lambda>" else name
    return f"{name}({inside})" if inside else name


def _comp_sum_bound(loss: Any, excess: float, count: int) -> float:
    """Gamma of all classes at once for xloss's own comp-sum loss, known by its name; else NaN."""
    inner, given = _unwrapped(loss)
    module = getattr(inspect.getmodule(inner), "__name__", "")
    if getattr(inner, "__name__", "") != "comp_sum" or not module.startswith("xloss."):
        return np.nan
    if not set(given) <= {"tau"} or getattr(loss, "args", ()):
        return np.nan
    return float(comp_sum_gamma(excess, tau=float(given.get("tau", 1.0)), num_classes=count))


def _shown(p: np.ndarray) -> str:
    return np.array2string(p, precision=3, threshold=8)


def _short(number: float) -> str:
    return "-" if np.isnan(number) else f"{0.0 if abs(number) < 1e-12 else number:.4g}"


def _folded(line: str) -> str:
    indent = line[: len(line) - len(line.lstrip())]
    return textwrap.fill(line, 100, subsequent_indent=indent + "  ", drop_whitespace=True) or line
