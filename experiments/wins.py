# SPDX-License-Identifier: Apache-2.0
"""Wins, ties and losses of one method against each other one, over the problems of a sweep.

    python -m experiments.wins SWEEP [SWEEP ...] --by=data.path --method=loss.name \\
        --reference=ensloss [--metric=accuracy] [--select=accuracy] [--level=0.05] [--out=wins.md]

The sweeps' members are grouped by problem (the values of the keys of --by) and method (the values
of the keys of --method, joined by a space); whatever else varies is a setting, of which each method
gets the one whose mean of --select on VALIDATION is best (--select=-loss: least): of those with
the most finished seeds, and of equal ones the first by its values, so that the smallest learning
rate. Then the metric on the test split is compared seed by seed, by a paired t-test: a win or a
loss has p < level, the rest are ties (--metric=-loss: less is better). A table of its own has the
mean differences with their 95 % intervals (Student's t). A method that is there on one problem
alone counts there; what sets none of the keys is "none".
"""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags
from scipy import stats

from experiments.data.options import nearest
from experiments.errors import BadInput
from experiments.program import run_program
from experiments.sweep_table import comparable, interval, markdown

_FLAGS = flags.FlagValues()
_BY = flags.DEFINE_list("by", ["data.path"], "Keys of a problem.", flag_values=_FLAGS)
_METHOD = flags.DEFINE_list("method", ["loss.name"], "Keys of a method.", flag_values=_FLAGS)
_REFERENCE = flags.DEFINE_string("reference", None, "The method to compare.", flag_values=_FLAGS)
_METRIC = flags.DEFINE_string(
    "metric", "accuracy", "Metric on test, with a minus where less is better.", flag_values=_FLAGS
)
_SELECT = flags.DEFINE_string("select", "accuracy", "Metric on validation.", flag_values=_FLAGS)
_LEVEL = flags.DEFINE_float("level", 0.05, "Of the test, in (0, 1).", flag_values=_FLAGS)
_OUT = flags.DEFINE_string("out", None, "File to write the tables to as well.", flag_values=_FLAGS)

Member = Mapping[str, Any]
#: problem -> method -> seed -> metric on test
Results = dict[str, dict[str, dict[int, float]]]


def read_members(sweeps: Sequence[Path]) -> list[Member]:
    """All finished members of the sweeps.

    Raises:
      BadInput: a directory without members.
    """
    members = []
    for sweep in sweeps:
        paths = sorted((sweep / "members").glob("*.json"))
        if not paths:
            raise BadInput(f"{sweep}: expected the directory of a sweep, found no members in it")
        members += [json.loads(path.read_text()) for path in paths]
    return members


def best_settings(
    members: Sequence[Member], by: Sequence[str], method: Sequence[str], select: str
) -> dict[tuple[str, str], list[Member]]:
    """The members of each (problem, method) at the setting that is best on validation.

    Raises:
      BadInput: a metric that no member has.
    """
    settings: dict[tuple, list[Member]] = defaultdict(list)
    for member in members:
        if member["final"]:  # a member that stopped at NaN is no candidate
            settings[_name(member, by), _name(member, method), _rest(member, by, method)].append(
                member
            )
    sign, select = (-1, select[1:]) if select.startswith("-") else (1, select)
    best: dict[tuple[str, str], tuple[tuple[int, bool, float], list[Member]]] = {}
    # In the order of their values: files are named by a hash, which must not decide what is equal.
    for (problem, name, _), found in sorted(settings.items(), key=lambda item: item[0][2]):
        check_metric("select", select, found[0]["final"]["validation"])
        # float: what is not finite was written as text.
        mean = float(np.mean([float(m["final"]["validation"][select]) for m in found]))
        score = len(found), mean == mean, comparable(sign * mean)  # NaN comes last
        if (problem, name) not in best or score > best[problem, name][0]:
            best[problem, name] = score, found
    return {key: found for key, (_, found) in best.items()}


def check_metric(flag: str, metric: str, known: Mapping[str, Any]) -> None:
    """Raises BadInput unless a member's metrics have that one."""
    if metric not in known:
        raise BadInput(f"--{flag}: no metric {metric!r}{nearest(metric, known)}")


def chosen(
    members: Sequence[Member], by: Sequence[str], method: Sequence[str], select: str, metric: str
) -> Results:
    """Each method's test metric on each problem, at the setting that is best on validation.

    Raises:
      BadInput: a metric that no member has.
    """
    results: Results = defaultdict(dict)
    metric = metric.removeprefix("-")
    for (problem, name), found in best_settings(members, by, method, select).items():
        check_metric("metric", metric, found[0]["final"]["test"])
        results[problem][name] = {m["seed"]: float(m["final"]["test"][metric]) for m in found}
    return dict(results)


def verdict(ours: Mapping[int, float], theirs: Mapping[int, float], level: float) -> str:
    """ "win", "tie" or "loss" of the first, by a paired t-test over the seeds of both."""
    seeds = sorted(set(ours) & set(theirs))
    gaps = np.array([ours[seed] - theirs[seed] for seed in seeds])
    if len(seeds) < 2 or np.allclose(gaps, gaps[0], rtol=0, atol=1e-12):
        # Without spread there is no test: a constant difference is one.
        return "tie" if len(seeds) < 2 or abs(gaps[0]) < 1e-12 else _sign(gaps[0])
    p = stats.ttest_1samp(gaps, 0.0).pvalue
    return _sign(float(gaps.mean())) if p < level else "tie"


def tables(results: Results, reference: str, level: float, sign: int = 1) -> str:
    """The methods on each problem, the reference minus each of them seed by seed, and its wins.

    Args:
      results: of :func:`chosen`.
      reference: the method to compare.
      level: of the test.
      sign: -1 where less is better.

    Returns:
      Three tables as markdown.

    Raises:
      BadInput: the reference is no method of the sweeps.
    """
    names = sorted({name for row in results.values() for name in row})
    if reference not in names:
        raise BadInput(f"--reference: expected one of {', '.join(names)}, got {reference!r}")
    others = [name for name in names if name != reference]
    counts = {name: dict.fromkeys(("win", "tie", "loss"), 0) for name in others}
    rows, gaps = [], []
    for problem, row in sorted(results.items()):
        ours, cells, apart = row.get(reference), [], []
        cells.append("-" if ours is None else _cell(list(ours.values())))
        for name in others:
            theirs = row.get(name)
            cells.append("-" if theirs is None else _cell(list(theirs.values())))
            apart.append("-")
            if ours is not None and theirs is not None:
                found = verdict(_times(sign, ours), _times(sign, theirs), level)
                counts[name][found] += 1
                cells[-1] += f" ({found})"
                both = sorted(set(ours) & set(theirs))
                apart[-1] = _cell([ours[seed] - theirs[seed] for seed in both])
        rows.append([problem, *cells])
        gaps.append([problem, *apart])
    won = [[name, *map(str, count.values())] for name, count in counts.items()]
    return "\n\n".join(
        [
            markdown(["problem", reference, *others], rows),
            markdown([f"{reference} minus", *others], gaps),
            markdown([f"{reference} against", "wins", "ties", "losses"], won),
        ]
    )


def _cell(values: Sequence[float]) -> str:
    mean, half = interval(values)
    return f"{mean:.4f} +- {half:.4f}"


def _times(sign: int, values: Mapping[int, float]) -> dict[int, float]:
    return {seed: sign * value for seed, value in values.items()}


def _sign(gap: float) -> str:
    return "win" if gap > 0 else "loss"


def _name(member: Member, keys: Sequence[str]) -> str:
    found = [member["overrides"].get(key) for key in keys]
    texts = (Path(str(v)).name if "/" in str(v) else str(v) for v in found if v is not None)
    return " ".join(texts) or "none"


def _rest(member: Member, by: Sequence[str], method: Sequence[str]) -> tuple:
    """What is left of a member's settings, numbers before text and in their own order."""
    rest = {k: v for k, v in member["overrides"].items() if k not in (*by, *method)}
    return tuple(sorted((key, *_ordered(str(value))) for key, value in rest.items()))


def _ordered(text: str) -> tuple[float, str]:
    try:
        return float(text), text
    except ValueError:
        return float("inf"), text


def main(argv: Sequence[str]) -> None:
    """The program behind the flags."""
    if len(argv) < 2:
        raise BadInput("expected the directories of sweeps, got none")
    if not _REFERENCE.value:
        raise BadInput("--reference: expected the name of a method, got none")
    if not 0.0 < _LEVEL.value < 1.0:
        raise BadInput(f"--level: expected a number in (0, 1), got {_LEVEL.value:g}")
    members = read_members([Path(name) for name in argv[1:]])
    results = chosen(members, _BY.value, _METHOD.value, _SELECT.value, _METRIC.value)
    sign = -1 if _METRIC.value.startswith("-") else 1
    text = tables(results, _REFERENCE.value, _LEVEL.value, sign)
    print(text)
    if _OUT.value:
        Path(_OUT.value).write_text(text + "\n")


if __name__ == "__main__":
    run_program("wins", main, _FLAGS, __doc__)
