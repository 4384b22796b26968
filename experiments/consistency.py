# SPDX-License-Identifier: Apache-2.0
"""Is this loss legitimate, and what does its value say about the error? One page.

    python -m experiments.consistency --loss=logistic
    python -m experiments.consistency --loss=rho_margin --loss.rho=0.5 --hypotheses=linear:2,0.5
    python -m experiments.consistency --loss=comp_sum --loss.tau=0.5 --num_classes=10
    python -m experiments.consistency --loss=mine.py:phi --plot=phi.png --json
    python -m experiments.consistency --loss=package.module:loss --num_classes=3

--loss is a margin loss of xloss.surrogates, a loss of the catalogue (with --num_classes), or any
function of yours, of a margin u or of scores [N, K] and labels [N]. --loss.NAME=VALUE sets a
hyperparameter. What the page says is in the docstring of `xloss.consistency.report`; --json prints
the same as JSON, where null is a number that does not exist and "inf" an infinite one.
"""

import dataclasses
import functools
import importlib
import inspect
import json
import math
import re
import runpy
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags
from matplotlib.figure import FigureBase

from experiments.data.options import nearest
from experiments.errors import BadInput
from experiments.figures import COLOURS, render
from experiments.program import run_program
from xloss import catalogue, consistency, surrogates
from xloss.catalogue import LOSSES
from xloss.consistency.host import margin_loss

_FLAGS = flags.FlagValues()
_LOSS = flags.DEFINE_string(
    "loss", None, "A name, module:function or file.py:function.", flag_values=_FLAGS
)
_CLASSES = flags.DEFINE_integer(
    "num_classes", None, "Number of classes, for a loss of scores and labels.", lower_bound=2,
    flag_values=_FLAGS,
)  # fmt: skip
_HYPOTHESES = flags.DEFINE_string(
    "hypotheses", "all",
    "all, linear:WEIGHT,BIAS or one_hidden_layer:OUTER,WEIGHT,BIAS (Euclidean norms).",
    flag_values=_FLAGS,
)  # fmt: skip
_EXCESS = flags.DEFINE_float(
    "excess", 0.01, "Surrogate excess of the bounds.", lower_bound=0.0, flag_values=_FLAGS
)
_PLOT = flags.DEFINE_string(
    "plot", None, "PNG file for a picture of the loss, its derivative and T.", flag_values=_FLAGS
)
_JSON = flags.DEFINE_boolean("json", False, "Print JSON, not the page.", flag_values=_FLAGS)

_SETS: dict[str, tuple[type, int]] = {
    "all": (consistency.AllFunctions, 0),
    "linear": (consistency.Linear, 2),
    "one_hidden_layer": (consistency.OneHiddenLayer, 3),
}
#: Drawn beside the loss.
_COMPANY = ("logistic", "hinge", "exponential")


def resolve(
    name: str, hyperparameters: Mapping[str, float], num_classes: int | None
) -> tuple[Any, int | None]:
    """The loss and the number of classes that `xloss.consistency.report` takes.

    Raises:
      BadInput: no such loss, a hyperparameter that it does not have, or a loss that reads more
        than scores and labels.
    """
    if ":" in name:
        loss = _users(name)
        return (
            functools.partial(loss, **hyperparameters) if hyperparameters else loss
        ), num_classes
    if name in surrogates.SURROGATES and num_classes is None:
        loss = surrogates.SURROGATES[name]
        _check_names(name, hyperparameters, list(inspect.signature(loss).parameters)[1:])
        try:
            return surrogates.bind(loss, **hyperparameters), None
        except (TypeError, ValueError) as error:
            raise BadInput(f"--loss: {error}") from error
    if name == "logistic_base2" and num_classes is None and not hyperparameters:
        return consistency.logistic_base2, None
    if name in surrogates.SURROGATES and name not in LOSSES:
        raise BadInput(f"--num_classes: expected none with the margin loss {name}")
    if name not in LOSSES:
        known = [*surrogates.SURROGATES, "logistic_base2", *LOSSES]
        raise BadInput(
            f"--loss: expected a loss of xloss.surrogates or the catalogue, module:function or "
            f"file.py:function, got {name!r}{nearest(name, known)}"
        )
    entry = catalogue.entry(name)
    if num_classes is None:
        raise BadInput(f"--num_classes: expected a number with --loss={name}, got none")
    if not entry.exact_gradient or not (entry.takes_statistics or entry.needs == ("logits",)):
        raise BadInput(f"--loss: expected a loss of scores and labels with a value, got {name!r}")
    _check_names(name, hyperparameters, list(entry.hyperparameters))
    return functools.partial(entry.function, **hyperparameters), num_classes


def read_hypotheses(text: str) -> consistency.HypothesisSet:
    """A hypothesis set from NAME:NUMBER,NUMBER,...

    Raises:
      BadInput: an unknown name or wrong numbers.
    """
    name, _, sizes = text.partition(":")
    if name not in _SETS:
        raise BadInput(
            f"--hypotheses: expected one of {', '.join(_SETS)}, got {name!r}{nearest(name, _SETS)}"
        )
    kind, count = _SETS[name]
    try:
        numbers = [float(size) for size in sizes.split(",") if size]
        if len(numbers) != count:
            raise ValueError(f"expected {count} numbers after {name}, got {len(numbers)}")
        return kind(*numbers)
    except ValueError as error:
        raise BadInput(f"--hypotheses: {error}") from error


def _check_names(name: str, given: Mapping[str, float], known: Sequence[str]) -> None:
    if wrong := sorted(set(given) - set(known)):
        raise BadInput(
            f"--loss.{wrong[0]}: {name} has the hyperparameters {', '.join(known) or 'none'}"
            f"{nearest(wrong[0], known)}"
        )


def _users(name: str) -> Callable[..., Any]:
    """A function given as module:function or file.py:function."""
    place, _, attribute = name.rpartition(":")
    try:
        if place.endswith(".py"):
            if not Path(place).is_file():
                raise BadInput(f"--loss: no such file: {place}")
            members = runpy.run_path(place)
        else:
            members = vars(importlib.import_module(place))
    except BadInput:
        raise
    except Exception as error:
        raise BadInput(f"--loss: {place}: {type(error).__name__}: {error}") from error
    if not callable(members.get(attribute)):
        known = [key for key, value in members.items() if callable(value)]
        raise BadInput(f"--loss: {place} has no function {attribute!r}{nearest(attribute, known)}")
    return members[attribute]


def draw(found: consistency.ConsistencyReport, loss: Any) -> bytes:
    """A PNG: a margin loss, its derivative, and what a zero-one regret costs at least."""

    def figure(canvas: FigureBase) -> None:
        panels = canvas.subplots(1, 3)
        margins, regrets = np.linspace(-3.0, 3.0, 601), np.linspace(0.0, 1.0, 101)
        others = [name for name in _COMPANY if name != found.loss]
        shown = {found.loss: loss} | {name: surrogates.SURROGATES[name] for name in others}
        for place, (name, phi) in enumerate(shown.items()):
            # The loss asked about is wide and behind: where curves agree all of them show.
            style = {"color": COLOURS[place], "label": name, "lw": 1.2 if place else 4.0}
            style["alpha"] = 1.0 if place else 0.6
            phi = margin_loss("draw", phi)
            step = max(phi.eps ** (1 / 3), 1e-6)
            slope = (phi(margins + step) - phi(margins - step)) / (2.0 * step)
            cost = consistency.h_transform(phi, regrets, bound=found.bound)
            for axes, places, curve in zip(
                panels, (margins, margins, regrets), (phi(margins), slope, cost), strict=True
            ):
                axes.plot(places, np.where(np.isfinite(curve), curve, np.nan), **style)
        panels[0].set(xlabel="margin u", ylim=(-0.2, 4.2), title="the loss")
        panels[1].set(xlabel="margin u", ylim=(-3.2, 0.7), title="its derivative")
        panels[2].set(xlabel="zero-one regret t", ylim=(-0.02, 1.05),
                      title=f"costs at least T(t), A = {found.bound:g}")  # fmt: skip
        panels[0].legend(frameon=False, fontsize=8)
        for axes in panels:
            axes.spines[["top", "right"]].set_visible(False)

    return render(figure, size=(12.0, 3.8))


def as_json(found: consistency.ConsistencyReport) -> str:
    """The report as JSON; NaN is null, infinity a string."""

    def plain(value: Any) -> Any:
        if isinstance(value, consistency.HypothesisSet):
            return str(value)
        if dataclasses.is_dataclass(value):
            return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
        if isinstance(value, Mapping):
            return {key: plain(inside) for key, inside in value.items()}
        if isinstance(value, np.ndarray | np.generic):
            return plain(value.tolist())
        if isinstance(value, list | tuple):
            return [plain(inside) for inside in value]
        if isinstance(value, float) and not math.isfinite(value):
            return None if math.isnan(value) else str(value)
        return value

    return json.dumps({"legitimate": bool(found)} | plain(found), indent=2)


def main(argv: Sequence[str]) -> None:
    """The program behind the flags."""
    if len(argv) > 1:
        raise BadInput(f"expected flags only, got {argv[1]!r}")
    if not _LOSS.value:
        raise BadInput("--loss: expected a name, module:function or file.py:function, got none")
    given = {
        name.removeprefix("loss."): value
        for name, value in _FLAGS.flag_values_dict().items()
        if name.startswith("loss.")
    }
    loss, classes = resolve(_LOSS.value, given, _CLASSES.value)
    hypotheses = read_hypotheses(_HYPOTHESES.value)
    if _PLOT.value and classes is not None:
        raise BadInput("--plot: expected none with --num_classes: the picture is of a margin loss")
    if _PLOT.value and not Path(_PLOT.value).absolute().parent.is_dir():
        raise BadInput(f"--plot: no such directory: {Path(_PLOT.value).parent}")
    try:
        found = consistency.report(
            loss, hypotheses=hypotheses, excess=_EXCESS.value, num_classes=classes
        )
    except (TypeError, ValueError) as error:
        raise BadInput(f"--loss: {error}") from error
    print(as_json(found) if _JSON.value else found)
    if _PLOT.value:
        Path(_PLOT.value).write_bytes(draw(found, loss))


def _define_hyperparameters(arguments: Sequence[str]) -> None:
    """A flag for each --loss.NAME that is given: losses of users have any."""
    for name in {match[1] for a in arguments if (match := re.match(r"--?(loss\.\w+)(=|$)", a))}:
        if name not in _FLAGS:
            flags.DEFINE_float(name, None, "Hyperparameter.", flag_values=_FLAGS)


if __name__ == "__main__":
    _define_hyperparameters(sys.argv[1:])
    run_program("consistency", main, _FLAGS, __doc__)
