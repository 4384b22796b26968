# SPDX-License-Identifier: Apache-2.0
"""The tables of a committed run file, read back: reach for it to show a number with its source.

A run file is what a sweep or a program printed, kept under experiments/results/. A `View` takes of
a sweep's table, for each method, the setting that is best on validation; a `Quoted` takes a table
as it stands. Both become a `Shown`, whose every number is a cell of the file.
"""

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from experiments.errors import BadInput
from experiments.reproductions.views import Column, Quoted, View

RESULTS = Path(__file__).resolve().parent.parent / "results"
#: Mean and half-width, as sweeps write them.
PAIR = re.compile(r"(-?[\d.e+]+|-?[\d.]+e-\d+) \+- ([\d.]+(?:e[+-]?\d+)?)")


#: What is said of a row that was chosen.
CHOSEN = ("chosen on validation", "of settings", "seeds")


@dataclasses.dataclass(frozen=True)
class Value:
    """A cell: mean and half-width of its 95 % interval; NaN for a number that has none."""

    mean: float
    half: float
    text: str

    def in_per_cent(self) -> "Value":
        """A share as a percentage, with no more digits than the file has."""
        mean, half = 100 * self.mean, 100 * self.half
        if half != half:
            return Value(mean, half, f"{mean:.4g}")
        if half < 1e-6:  # what rounding leaves of equal values
            return Value(mean, 0.0, f"{mean:.2f} ± 0")
        digits = min(2, len(f"{half:#.2g}".partition(".")[2]))
        return Value(mean, half, f"{mean:.{digits}f} ± {half:.{digits}f}")


@dataclasses.dataclass(frozen=True)
class Table:
    """One table of a run file: the last "# " heading above it, its header and its cells."""

    heading: str
    header: list[str]
    rows: list[list[str]]


@dataclasses.dataclass(frozen=True)
class Shown:
    """A table for a reader.

    Attributes:
      name: of the table.
      title: what it shows.
      head: names of what is said of a row beside its values.
      columns: titles of the values.
      less: titles of the columns where less is better.
      rows: name of a row -> what is said of it beside its values.
      values: (name of a row, title of a column) -> the cell.
      orders: title of a column -> names of the rows, the one that validation liked best first;
        where nothing was chosen, as they stand.
      tried: what was tried and chosen among, as text; "" where nothing was chosen.
      baseline: name of the row that others are compared with.
    """

    name: str
    title: str
    head: tuple[str, ...]
    columns: tuple[str, ...]
    less: frozenset[str]
    rows: Mapping[str, tuple[str, ...]]
    values: Mapping[tuple[str, str], Value]
    orders: Mapping[str, tuple[str, ...]]
    tried: str
    baseline: str

    def value(self, row: str, column: str) -> Value:
        """A cell.

        Raises:
          BadInput: there is none: nothing is shown that no run file has.
        """
        if (row, column) not in self.values:
            raise BadInput(f"{self.name}: no run file has {column!r} of {row!r}")
        return self.values[row, column]

    @property
    def chosen(self) -> bool:
        """Whether it is a view of a sweep, not a table that is quoted."""
        return self.head[:1] == CHOSEN[:1]

    def turned(self) -> "Shown":
        """Rows as columns and columns as rows."""
        return dataclasses.replace(
            self,
            head=(),
            columns=tuple(self.rows),
            less=frozenset(self.rows if self.less else ()),
            rows=dict.fromkeys(self.columns, ()),
            values={(column, row): found for (row, column), found in self.values.items()},
            orders=dict.fromkeys(self.rows, self.columns),
        )

    def compared(self, ours: str, theirs: str, column: str) -> str:
        """Which of two rows is better: "ahead", "behind", or "not apart" if the intervals meet."""
        a, b = self.value(ours, column), self.value(theirs, column)
        gap = (b.mean - a.mean) if column in self.less else (a.mean - b.mean)
        apart = abs(gap) > a.half + b.half  # NaN: never
        return ("ahead" if gap > 0 else "behind") if apart else "not apart"


def read(path: Path) -> str:
    """The text of a run file.

    Raises:
      BadInput: there is no such file.
    """
    if not path.is_file():
        raise BadInput(f"{path.name}: no such run file in {path.parent.name}/, so no number of it")
    return path.read_text(encoding="utf-8")


def tables(text: str) -> list[Table]:
    """All tables of a run file, in order."""
    found: list[Table] = []
    heading, inside = "", False
    for line in text.splitlines():
        if line.startswith("# "):
            heading = line[2:].strip()
        if not line.startswith("|"):
            inside = False
            continue
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if not inside:
            found.append(Table(heading, cells, []))
        elif not set(line) <= set("|- :"):
            found[-1].rows.append(cells)
        inside = True
    return found


def settings(text: str) -> dict[str, str]:
    """The overrides of a row: "loss.tau=0.5, steps=3" as a dict."""
    parts = re.split(r", (?![^(]*\))", text)
    return dict(part.split("=", 1) for part in parts if "=" in part)


def value(text: str) -> Value:
    """A cell as a number.

    Raises:
      ValueError: it is none.
    """
    if found := PAIR.match(text):
        mean, half = map(float, found.groups())
        return Value(mean, half, text.replace("+-", "±"))
    return Value(float(text), float("nan"), text)


def show(view: View | Quoted, text: str) -> Shown:
    """A view of a run file.

    Raises:
      BadInput: the file has no such table, column or row.
    """
    if not isinstance(view, Quoted):
        return _chosen(view, text)
    shown = _quoted(view, text)
    return shown.turned() if view.turned else shown


def _quoted(view: Quoted, text: str) -> Shown:
    same = [table for table in tables(text) if table.header[0] == view.first]
    if len(same) <= view.place:
        raise BadInput(f"{view.name}: the run file has no table {view.place} of {view.first!r}")
    header, rows = same[view.place].header, same[view.place].rows
    names = [", ".join(row[: view.keys]) for row in rows]
    rest = range(view.keys, len(header))
    # What is no number says more of the row: the setting of a method.
    words = [i for i in rest if not all(_is_number(row[i]) for row in rows)]
    titles = [header[i] for i in rest if i not in words]
    values = {
        (name, header[i]): value(row[i])
        for name, row in zip(names, rows, strict=True)
        for i in rest
        if i not in words and row[i] != "-"
    }
    return Shown(
        view.name,
        view.title,
        tuple(header[i] for i in words),
        tuple(titles),
        frozenset(titles if view.less else ()),
        {name: tuple(row[i] for i in words) for name, row in zip(names, rows, strict=True)},
        values,
        dict.fromkeys(titles, tuple(names)),
        "",
        view.baseline,
    )


def _is_number(text: str) -> bool:
    if text == "-":
        return True
    try:
        value(text)
    except ValueError:
        return False
    return True


def _chosen(view: View, text: str) -> Shown:
    found = [t for t in tables(text) if t.header[0] == "setting" and t.heading == view.heading]
    if not found or found[0].header[1] != "seeds":
        raise BadInput(f"{view.name}: the run file has no sweep's table under {view.heading!r}")
    header = found[0].header
    sign, select = (-1, view.select[1:]) if view.select.startswith("-") else (1, view.select)
    for wanted in (select, *(column.source for column in view.columns)):
        if wanted not in header:
            raise BadInput(f"{view.name}: the run file has no column {wanted!r}")
    rows = [(settings(row[0]), dict(zip(header, row, strict=True))) for row in found[0].rows]
    rows = [
        (keys, cells)
        for keys, cells in rows
        if all(
            (keys.get(k) is None) if v is None else keys.get(k) == v for k, v in view.where.items()
        )
    ]
    groups: dict[str, dict[str, list]] = {}
    places: list[str] = []
    for keys, cells in rows:
        name = ", ".join(_said(k, keys[k]) for k in view.by if k in keys) or view.otherwise
        name = view.names.get(name, name)
        place = keys.get(view.across[0], "") if view.across else ""
        score = sign * value(cells[select]).mean
        rest = {
            k: v
            for k, v in keys.items()
            if k not in (*view.by, *view.where, *(view.across or ())[:1])
        }
        groups.setdefault(name, {}).setdefault(place, []).append(
            (-score, [_ordered(v) for v in rest.values()], rest, cells)
        )
        places = list(dict.fromkeys([*places, place]))
    if not groups:
        raise BadInput(f"{view.name}: the run file has no rows with {dict(view.where)}")
    places.sort(key=_ordered)
    # Of equal means the smaller values: `experiments.wins` decides them like this.
    best = {
        name: {place: min(some, key=lambda s: s[:2]) for place, some in group.items()}
        for name, group in groups.items()
    }
    titles = {
        (place, column): view.across[1].format(float(place)) if view.across else column.title
        for place in places
        for column in view.columns
    }
    values = {
        (name, titles[place, column]): _shown(one[3][column.source], column)
        for name, group in best.items()
        for place, one in group.items()
        for column in view.columns
    }
    said = {}
    for name, group in best.items():
        chosen = [_setting(one[2]) for one in group.values()]
        seeds = dict.fromkeys(one[3]["seeds"] for one in group.values())
        tried = dict.fromkeys(str(len(some)) for some in groups[name].values())
        short = dict.fromkeys(chosen) if len(set(chosen)) == 1 else chosen
        said[name] = (" / ".join(short), " / ".join(tried), " / ".join(seeds))
    orders = {
        titles[place, column]: tuple(
            sorted((n for n in best if place in best[n]), key=lambda n, p=place: best[n][p][0])
        )
        for place in places
        for column in view.columns
    }
    return Shown(
        view.name,
        view.title,
        CHOSEN,
        tuple(titles.values()),
        frozenset(title for (_, column), title in titles.items() if column.less),
        said,
        values,
        orders,
        _tried(view, rows) if any(len(s) > 1 for g in groups.values() for s in g.values()) else "",
        view.baseline,
    )


def _shown(cell: str, column: Column) -> Value:
    found = value(cell)
    return found.in_per_cent() if column.share else found


def _tried(view: View, rows: Sequence[tuple[dict[str, str], dict[str, str]]]) -> str:
    keys = dict.fromkeys(k for keys, _ in rows for k in keys if k not in (*view.by, *view.where))
    parts = []
    for key in keys:
        if view.across and key == view.across[0]:
            continue
        tried = sorted({k[key] for k, _ in rows if key in k}, key=_ordered)
        if len(tried) > 1:
            parts.append(f"`{key}` {', '.join(tried)}")
    return "; ".join(parts)


def _setting(rest: Mapping[str, str]) -> str:
    ends = [key.rpartition(".")[2] for key in rest]
    # Two keys may end alike: optimizer.learning_rate and task.learning_rate.
    parts = (
        _said(key, text) if ends.count(end) == 1 else f"{key} {text}"
        for (key, text), end in zip(rest.items(), ends, strict=True)
    )
    return ", ".join(parts) or "-"


def _said(key: str, text: str) -> str:
    """A setting in short: a name alone, anything else with the last part of its key."""
    plain = text[:1].isalpha() and text not in ("True", "False", "None", "none")
    return text if plain else f"{key.rpartition('.')[2]} {text}"


def _ordered(text: str) -> tuple[float, str]:
    try:
        return float(text), text
    except ValueError:
        return math.inf, text
