# SPDX-License-Identifier: Apache-2.0
"""The pictures of RESULTS.md: means with their intervals, as SVG, from the tables that it shows.

A panel has the rows of the first one, best first, and a band where the interval of the row to beat
is. The same tables give the same bytes: no date, no random name.
"""

import textwrap

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import FigureBase

from experiments import figures
from experiments.errors import BadInput
from experiments.reproductions.claims import MOST_ROWS, Reproduction
from experiments.reproductions.pages import Section
from experiments.reproductions.tables import Shown

#: A row whose mean is this many times the others' spread away from them gets an arrow.
FAR = 3.0


def picture(entry: Reproduction, one: Section) -> bytes:
    """The picture of a section, as SVG.

    Raises:
      BadInput: the entry has neither panels nor curves, or they name no table or column.
    """
    if entry.panels:
        return _panels(entry, one)
    if entry.curves is None:
        raise BadInput(f"{one.name}: no picture is asked for")
    return _curves(entry.curves, one)


def _panels(entry: Reproduction, one: Section) -> bytes:
    panels = [(one.table(panel.table), panel.column) for panel in entry.panels]
    rows = _order(*panels[0])
    width = max(len(_short(row)) for row in rows)

    def draw(figure: FigureBase) -> None:
        several = len({shown.name for shown, _ in panels}) > 1
        grid = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for axes, (shown, column) in zip(grid, panels, strict=True):
            _dots(axes, shown, column, rows)
            title = f"{shown.name}: {column}" if several else column
            axes.set_title(textwrap.fill(title, 28), fontsize=9, parse_math=False)
        grid[0].set_yticks(range(len(rows)), [_short(row) for row in rows], fontsize=8)
        for text in grid[0].get_yticklabels():
            text.set_parse_math(False)

    return figures.render(
        draw, (0.5 + 0.066 * width + 2.0 * len(panels), 0.9 + 0.24 * len(rows)), form="svg"
    )


def _order(shown: Shown, column: str) -> list[str]:
    there = [row for row in shown.rows if (row, column) in shown.values]
    sign = 1.0 if column in shown.less else -1.0
    best = sorted(there, key=lambda row: sign * shown.values[row, column].mean)
    kept = best[:MOST_ROWS]
    if shown.baseline in best and shown.baseline not in kept:
        kept[-1] = shown.baseline
    return kept


def _dots(axes: Axes, shown: Shown, column: str, rows: list[str]) -> None:
    places = [(place, shown.values[row, column]) for place, row in enumerate(rows)
              if (row, column) in shown.values]  # fmt: skip
    low, high, far = _limits([v.mean for _, v in places], [v.half for _, v in places])
    base = shown.values.get((shown.baseline, column))
    if base is not None:
        half = np.nan_to_num(base.half)
        axes.axvspan(base.mean - half, base.mean + half, color=figures.GREY, alpha=0.18, lw=0)
        axes.axvline(base.mean, color=figures.GREY, linewidth=0.8)
    for place, value in places:
        ours = rows[place] == shown.baseline
        colour = figures.GREY if ours else figures.BLUE
        if far(value.mean):
            end, side = (low, "left") if value.mean < low else (high, "right")
            arrow = "\N{BLACK LEFT-POINTING TRIANGLE}" if side == "left" else (
                "\N{BLACK RIGHT-POINTING TRIANGLE}")  # fmt: skip
            text = f"{arrow} {value.mean:.4g}" if side == "left" else f"{value.mean:.4g} {arrow}"
            axes.text(end, place, text, ha=side, va="center", fontsize=7, color=colour)
            continue
        axes.errorbar(
            value.mean, place, xerr=np.nan_to_num(value.half), fmt="o", color=colour,
            markersize=4, elinewidth=1.3, capsize=0,
        )  # fmt: skip
    axes.set_xlim(low, high)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.grid(False, axis="y")
    axes.tick_params(axis="y", length=0)
    axes.locator_params(axis="x", nbins=5)
    if column in shown.less:
        axes.set_xlabel("less is better", fontsize=8, color=figures.GREY)


def _limits(means: list[float], halves: list[float]):
    """Limits that leave out what is so far away that the rest would be one point."""
    centre = np.array(means)
    spread = np.nan_to_num(np.array(halves))
    quarter, middle, three = np.quantile(centre, (0.25, 0.5, 0.75))
    reach = FAR * max(three - quarter, 2 * float(np.median(spread)), 1e-9)
    kept = np.abs(centre - middle) <= reach
    low, high = (centre - spread)[kept].min(), (centre + spread)[kept].max()
    margin = 0.06 * (high - low) or 1.0
    # Room for the arrow of what is left out.
    below, above = centre[~kept] < middle, centre[~kept] > middle
    low -= margin + (0.25 * (high - low) if below.any() else 0.0)
    high += margin + (0.25 * (high - low) if above.any() else 0.0)
    return low, high, lambda mean: not low <= mean <= high or abs(mean - middle) > reach


def _short(row: str) -> str:
    # Both ends are kept: a family's settings differ in the latter.
    return row if len(row) <= 44 else f"{row[:22]}\N{HORIZONTAL ELLIPSIS}{row[-20:]}"


def _curves(which: tuple[str, str, str], one: Section) -> bytes:
    name, xlabel, ylabel = which
    shown = one.table(name)
    # "rate 0.01", "pass@16, %": what a column is at.
    at = {column: float("".join(c for c in column if c.isdigit() or c == "."))
          for column in shown.columns if any(c.isdigit() for c in column)}  # fmt: skip

    def draw(figure: FigureBase) -> None:
        axes = figure.subplots()
        for (row, colour), mark in zip(zip(shown.rows, figures.COLOURS), "osD^v<>p"):
            values = [shown.values[row, column] for column in at]
            axes.errorbar(
                list(at.values()), [v.mean for v in values], yerr=[v.half for v in values],
                label=row, color=colour, marker=mark, markersize=4, linewidth=1.2, elinewidth=1.2,
            )  # fmt: skip
        axes.set_xscale("log")
        axes.set_xticks(list(at.values()), [f"{x:g}" for x in at.values()])
        axes.minorticks_off()
        axes.set(xlabel=xlabel, ylabel=ylabel)
        for text in axes.legend(loc="best").get_texts():
            text.set_parse_math(False)

    return figures.render(draw, (5.6, 3.6), form="svg")
