# SPDX-License-Identifier: Apache-2.0
"""What came out of a sweep: table.md, table.json and curves.png from its members' results."""

import os
import tempfile
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from experiments.data.options import nearest
from experiments.errors import BadInput
from experiments.metrics import jsonable
from experiments.report import label as metric_label
from experiments.workdir import write_json

SPLITS = ("validation", "test")
#: Begins the line that says how a table was made.
MADE_WITH = "Made with:"
#: Settings that the picture shows, from the top of the table.
SHOWN = 8

Setting = tuple[str, Mapping[str, Any], Sequence[Mapping[str, Any]]]


def label(overrides: Mapping[str, Any]) -> str:
    """Mapping[str, Any] as text."""
    return ", ".join(f"{key}={value}" for key, value in overrides.items()) or "as configured"


def labels(settings: Sequence[Mapping[str, Any]]) -> tuple[str, list[str]]:
    """What all settings have in common, "" if there are fewer than two, and what each has alone."""
    if len(settings) < 2:
        return "", [label(overrides) for overrides in settings]
    first = settings[0]
    common = {k: v for k, v in first.items() if all(k in s and s[k] == v for s in settings)}
    own = [{k: v for k, v in s.items() if k not in common} for s in settings]
    return label(common) if common else "", [label(overrides) for overrides in own]


def interval(values: Any) -> tuple[float, float]:
    """Mean and half-width of its 95 % interval (Student's t); the half-width of one value is NaN.

    Args:
      values: [n], one for each seed.
    """
    values = np.asarray(values, np.float64)
    if values.size < 2:
        return float(np.mean(values)) if values.size else float("nan"), float("nan")
    spread = np.std(values, ddof=1) / np.sqrt(values.size)
    return float(np.mean(values)), float(stats.t.ppf(0.975, values.size - 1) * spread)


def comparable(mean: float) -> float:
    """A mean without what rounding left in its last digits, so that equal ones compare equal."""
    return float(f"{mean:.9g}")


def write_table(
    workdir: Path,
    settings: Sequence[Setting],
    *,
    select: str | None,
    choose: Sequence[str] = (),
    common: str = "",
) -> str:
    """Writes table.md, table.json and curves.png; returns the markdown.

    Args:
      workdir: directory of the sweep.
      settings: for each its name, its overrides and its members (see `sweep.train_together`).
      select: metric to sort by on validation, "-" before it where less is better; None: accuracy,
        or -loss where there is none.
      choose: keys of which to list the best value, for every combination of the others.
      common: what all settings have in common, to say above the table.

    Raises:
      BadInput: no member has that metric.
    """
    rows = [_row(*setting) for setting in settings]
    metrics = list(dict.fromkeys(name for row in rows for name in row["metrics"]["validation"]))
    select = select or ("accuracy" if "accuracy" in metrics or not metrics else "-loss")
    sign, name = (-1, select[1:]) if select.startswith("-") else (1, select)
    if metrics and name not in metrics:
        raise BadInput(
            f"--select: expected one of {', '.join(metrics)}, got {name!r}{nearest(name, metrics)}"
        )
    metrics = [name, *(other for other in metrics if other != name)]

    def rank(row: Mapping[str, Any]) -> tuple[bool, float]:
        mean = row["metrics"]["validation"].get(name, {}).get("mean", float("nan"))
        return bool(row["not_finite"]), float("inf") if np.isnan(mean) else -sign * comparable(mean)

    rows.sort(key=rank)
    text = f"{common}\n\n" if common else ""
    text += _markdown(rows, metrics)
    if choose:
        best: dict[tuple[tuple[str, str], ...], dict[str, Any]] = {}
        for row in rows:  # sorted, so that the first of a group is its best
            others = tuple((k, str(v)) for k, v in row["overrides"].items() if k not in choose)
            best.setdefault(others, row)
        chosen = f"{', '.join(choose)} chosen by {metric_label(name)} on validation"
        text += f"\n\n{chosen}:\n\n{_markdown(list(best.values()), metrics)}"
    text += made_with([member for _, _, members in settings for member in members])
    # Of its own and renamed into place: two tasks of a sweep may both find that they are the last.
    with tempfile.TemporaryDirectory(prefix=".table-", dir=workdir) as name_of:
        made = Path(name_of)
        (made / "table.md").write_text(text + "\n", encoding="utf-8")
        write_json(made / "table.json", {"select": select, "rows": [_plain(row) for row in rows]})
        by_name = {setting[0]: setting[2] for setting in settings}
        shown = [(row["setting"], by_name[row["setting"]]) for row in rows]
        (made / "curves.png").write_bytes(_curves(shown, name))
        for path in list(made.iterdir()):
            os.replace(path, workdir / path.name)
    return text


def made_with(members: Sequence[Mapping[str, Any]]) -> str:
    """The line under a table: versions, devices, commits and time of its members.

    "" where no member has them: those of older sweeps do not.
    """
    known = [member for member in members if "made_with" in member]
    if not known:
        return ""
    made = [member["made_with"] for member in known]
    parts = (
        [f"Python {one['versions']['python']}, jax {one['versions']['jax']}" for one in made],
        [one["devices"] for one in made],
        [f"commit {one['commit']}" for one in made],
    )
    said = "; ".join(" or ".join(dict.fromkeys(part)) for part in parts)
    seconds = sum(member["seconds"] for member in known)
    of = "" if len(known) == len(members) else f"{len(known)} of "
    return f"\n\n{MADE_WITH} {said}; {seconds:.0f} s for {of}{len(members)} members."


def series(members: Sequence[Mapping[str, Any]], metric: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps [n] and values [members, n] of a validation metric, of the members that have it all."""
    curves = []
    for member in members:
        found = [r for r in member["records"] if r["split"] == "validation" and metric in r]
        curves.append({int(r["step"]): float(r[metric]) for r in found})
    longest = max(curves, key=len, default={})
    whole = [curve for curve in curves if curve.keys() == longest.keys()]
    steps = np.array(sorted(longest), int)
    values = [[curve[step] for step in sorted(longest)] for curve in whole]
    return steps, np.array(values, float).reshape(len(whole), len(steps))


def _row(name: str, overrides: Mapping[str, Any], members: Sequence[Mapping[str, Any]]) -> dict:
    whole = [member for member in members if member["final"]]
    metrics: dict[str, dict[str, Any]] = {}
    for split in SPLITS:
        names = dict.fromkeys(key for member in whole for key in member["final"][split])
        metrics[split] = {}
        for metric in names:
            found = [member["final"][split].get(metric, "NaN") for member in whole]
            values = [float(value) for value in found]  # "NaN" and "Infinity" too
            mean, half_width = interval(values)
            metrics[split][metric] = {"mean": mean, "half_width": half_width, "values": values}
    return {
        "setting": name,
        "overrides": dict(overrides),
        "seeds": [member["seed"] for member in whole],
        "not_finite": [m["seed"] for m in members if m["first_bad"] is not None],
        "metrics": metrics,
    }


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    metrics = {
        split: {
            name: jsonable({"mean": found["mean"], "half_width": found["half_width"]})
            | {"values": list(jsonable(dict(enumerate(found["values"]))).values())}
            for name, found in named.items()
        }
        for split, named in row["metrics"].items()
    }
    return {**row, "metrics": metrics}


def _markdown(rows: Sequence[Mapping[str, Any]], metrics: Sequence[str]) -> str:
    known = [(split, name) for row in rows for split in SPLITS for name in row["metrics"][split]]
    names = dict.fromkeys([*metrics, *(name for _, name in known)])
    columns = [(split, name) for name in names for split in SPLITS if (split, name) in known]
    header = ["setting", "seeds", *(f"{split} {metric_label(metric)}" for split, metric in columns)]
    lines = []
    for row in rows:
        seeds = str(len(row["seeds"]))
        if row["not_finite"]:
            seeds += f" ({len(row['not_finite'])} not finite)"
        cells = [_cell(row["metrics"][split].get(metric)) for split, metric in columns]
        lines.append([row["setting"].replace("|", "\\|"), seeds, *cells])
    return markdown(header, lines)


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return "-"
    mean, half_width = found["mean"], found["half_width"]
    return f"{mean:.4g}" if np.isnan(half_width) else f"{mean:.4g} +- {half_width:.2g}"


def _curves(settings: Sequence[tuple[str, Sequence[Mapping[str, Any]]]], metric: str) -> bytes:
    """The mean of a validation metric over the steps, with the 95 % interval as a band."""
    from experiments import figures

    def draw(figure: Any) -> None:
        drawn = [(name, *series(members, metric)) for name, members in settings[:SHOWN]]
        drawn = [curve for curve in drawn if curve[2].size]
        if not drawn:
            figures.draw_message(figure, f"No {metric_label(metric)} was recorded.")
            return
        axes = figure.subplots()
        for (name, steps, values), colour in zip(drawn, figures.COLOURS, strict=False):
            pairs = np.array([interval(column) for column in values.T])
            mean, half_width = pairs.T
            axes.plot(
                steps, mean, color=colour, label=textwrap.fill(name, 60), marker="o", markersize=3
            )
            if len(values) > 1:
                axes.fill_between(
                    steps, mean - half_width, mean + half_width, color=colour, alpha=0.2, lw=0
                )
        axes.set_xlabel("step")
        axes.set_ylabel(f"validation {metric_label(metric)}", parse_math=False)
        for text in figure.legend(loc="outside lower center", fontsize=7).get_texts():
            text.set_parse_math(False)
        left = len(settings) - SHOWN
        note = "mean and 95 % interval over seeds"
        note += f"; the {SHOWN} best of {len(settings)} settings" if left > 0 else ""
        axes.set_title(note, fontsize=8, color=figures.GREY, loc="left")

    return figures.render(draw, (7.0, 6.0))
