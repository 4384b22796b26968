# SPDX-License-Identifier: Apache-2.0
"""The pictures of a run; reach for it to draw one of them into a figure of your own.

Each function of `PANELS` draws one picture of a `Run` into a matplotlib `Figure` or `SubFigure`,
and says in words what is missing where there is nothing to draw. Only matplotlib's object-oriented
API is used: no pyplot, no window, no setting that outlives a call. Text that comes from a run (the
names of its loss and classes) is never read as mathematical markup.
"""

import io
import itertools
import warnings
from collections.abc import Callable, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure, FigureBase
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, NullLocator
from sklearn.metrics import confusion_matrix

from experiments.rundir import Evaluation, Run
from experiments.scoring import correct_predictions, expected_calibration_error, reliability_bins

# Okabe and Ito's colours: told apart under every common colour blindness, and in grey.
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#6b7280"
COLOURS = (BLUE, ORANGE, GREEN, "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#B8A800")
PANEL_SIZE = (5.2, 4.0)  # inches
NUMBERED_CLASSES = 20  # confusion matrices with more classes are drawn without numbers

_STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e5e7eb",
    "grid.linewidth": 0.6,
    "legend.edgecolor": "none",
    "legend.framealpha": 0.8,
    "legend.fontsize": 8,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "svg.hashsalt": "xloss",
}


def render(
    draw: Callable[[FigureBase], None],
    size: tuple[float, float] = PANEL_SIZE,
    dpi: int = 150,
    form: str = "png",
) -> bytes:
    """Draws into a fresh figure and returns it as PNG; `size` is width and height in inches.

    `form="svg"` returns SVG. The same numbers give the same bytes either way.
    """
    # The user's own matplotlib settings come back when this ends.
    with matplotlib.rc_context(), warnings.catch_warnings():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        # A class name in a script that the font lacks shows as boxes; the report is still worth it.
        warnings.filterwarnings("ignore", message="Glyph .* missing", category=UserWarning)
        figure = Figure(figsize=size, dpi=dpi, layout="constrained")
        FigureCanvasAgg(figure)
        draw(figure)
        buffer = io.BytesIO()
        # Without versions, dates and random names the same numbers give the same bytes.
        stamps = {"png": ("Software",), "svg": ("Creator", "Date", "Format", "Type")}
        figure.savefig(buffer, format=form, metadata=dict.fromkeys(stamps[form]))
    return buffer.getvalue()


def page(run: Run, title: str) -> bytes:
    """All pictures of a run on one page, as PNG."""
    columns = 3
    panels = panels_of(run)
    rows = -(-len(panels) // columns)

    def draw(figure: FigureBase) -> None:
        figure.suptitle(title, fontsize=13, parse_math=False)
        grid = figure.add_gridspec(rows, columns)
        for place, (name, panel) in enumerate(panels.items()):
            part = figure.add_subfigure(grid[place])
            part.suptitle(name, fontsize=11, fontweight="bold")
            panel(part, run)

    width, height = PANEL_SIZE
    return render(draw, (columns * width, rows * (height + 0.3) + 0.4), dpi=120)


def draw_message(figure: FigureBase, message: str) -> None:
    """Says in words why there is no picture."""
    axes = figure.subplots()
    axes.set_axis_off()
    axes.text(0.5, 0.5, message, ha="center", va="center", color=GREY, wrap=True,
              transform=axes.transAxes, parse_math=False)  # fmt: skip


def draw_curves(
    figure: FigureBase,
    curves: Sequence[tuple[str, np.ndarray, np.ndarray]],
    *,
    ylabel: str,
    empty: str,
    note: str = "",
    log: bool = False,
) -> None:
    """Draws curves over the steps of a run.

    Args:
      figure: what to draw into.
      curves: label, steps [n] and values [n] of each; those without values are left out. Values
        that are not finite leave a gap, and the note says from which step on.
      ylabel: what the values are, with the unit.
      empty: what to say when there is nothing to draw.
      note: one line under the picture's title.
      log: whether a logarithmic scale may be used; it is if the values span a factor above 30.
    """
    notes = [note] if note else []
    for label, steps, values in curves:
        if len(bad := steps[~np.isfinite(values)]):
            notes.append(f"{label}: not finite in {len(bad)} of {len(steps)} records, "
                         f"first at step {bad[0]}")  # fmt: skip
    # A style belongs to a place in `curves`, so that a run keeps its own in every picture.
    styles = itertools.cycle((line, colour) for line in ("-", "--", ":") for colour in COLOURS)
    drawn = [
        (*curve, *style) for curve, style in zip(curves, styles) if np.isfinite(curve[2]).any()
    ]
    if not drawn:
        draw_message(figure, "\n".join([empty, *notes]))
        return
    axes = figure.subplots()
    for label, steps, values, line, colour in drawn:
        finite = np.isfinite(values)
        few = finite.sum() <= 40
        axes.plot(
            steps,
            np.where(finite, values, np.nan),
            label=label,
            color=colour,
            linestyle=line,
            linewidth=1.5 if few else 1.0,
            marker="o" if few else None,
            markersize=3,
        )
        for step in steps[~finite][:1]:
            axes.axvline(step, color=colour, linewidth=0.8, linestyle=":")
    every = np.concatenate([values[np.isfinite(values)] for _, _, values, *_ in drawn])
    if log and every.min() > 0 and every.max() > 30 * every.min():
        axes.set_yscale("log")
        subs = (1.0,) if every.max() > 1e4 * every.min() else (1.0, 2.0, 5.0)
        axes.yaxis.set_major_locator(LogLocator(subs=subs))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("step")
    axes.set_ylabel(ylabel, parse_math=False)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    for text in axes.legend(loc="best").get_texts():
        text.set_parse_math(False)
    _note(axes, *notes)


def _note(axes: Axes, *notes: str, pad: float = 6.0) -> None:
    if any(notes):
        axes.set_title("\n".join(n for n in notes if n), fontsize=8, color=GREY, loc="left",
                       pad=pad, wrap=True, parse_math=False)  # fmt: skip


def _learning_curve(figure: FigureBase, run: Run) -> None:
    metric, label, note = "loss", f"loss ({run.loss_name})", ""
    if run.injected_gradient:
        metric, label = "cross_entropy", "cross-entropy (nats)"
        note = f"{run.loss.get('name', 'This loss')} injects its gradient: its scalar is not a loss"
        note += "\nvalue. Cross-entropy is shown instead."
    draw_curves(
        figure,
        [(split, *run.series(split, metric)) for split in ("train", "validation")],
        ylabel=label,
        empty=f"No {metric.replace('_', '-')} was recorded.",
        note=note,
        log=True,
    )


def _accuracy(figure: FigureBase, run: Run) -> None:
    curves = []
    for split in ("train", "validation"):
        steps, values = run.series(split, "accuracy")
        label = f"{split} (last {values[-1]:.4f})" if np.isfinite(values[-1:]).any() else split
        curves.append((label, steps, values))
    draw_curves(figure, curves, ylabel="accuracy", empty="No accuracy was recorded.")


def _test_scores(figure: FigureBase, run: Run) -> Evaluation | None:
    """The test examples whose scores are numbers; draws a message and gives None without any."""
    if (found := run.evaluation) is None:
        draw_message(figure, "No test scores yet: evaluation.npz is missing.")
        return None
    keep = ~np.isnan(found.scores).any(axis=tuple(range(1, found.scores.ndim)))
    if not keep.any():
        draw_message(
            figure, f"None of the {len(found.labels)} test examples has a score that is a number."
        )
        return None
    return Evaluation(*(a[keep] for a in (found.scores, found.labels, found.log_odds, found.index)))


def _left_out(run: Run, kept: Evaluation) -> str:
    gone = len(run.evaluation.labels) - len(kept.labels) if run.evaluation else 0
    return f"{gone} examples with NaN scores left out" if gone else ""


def _reliability(figure: FigureBase, run: Run) -> None:
    if (found := _test_scores(figure, run)) is None:
        return
    bins = reliability_bins(found.scores, found.labels, found.task)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    middle, width = (bins.edges[:-1] + bins.edges[1:]) / 2, np.diff(bins.edges)
    filled = bins.counts > 0
    upper.plot(
        [0, 1], [0, 1], color=GREY, linewidth=1, linestyle="--", label="perfectly calibrated"
    )
    upper.bar(middle[filled], bins.accuracy[filled], width[filled] * 0.92, color=BLUE, alpha=0.75)
    upper.plot(bins.confidence[filled], bins.accuracy[filled], "o", color=ORANGE, markersize=4,
               label="mean confidence of the bin")  # fmt: skip
    upper.set(xlim=(0, 1), ylim=(0, 1.02), ylabel="accuracy")
    # Bars may fill any corner of the picture, so its key stands above it.
    upper.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=2)
    _note(upper, f"expected calibration error {expected_calibration_error(bins):.4f} "
                 f"({len(filled)} bins, {len(found.labels)} test examples)",
          _left_out(run, found), pad=22)  # fmt: skip
    lower.bar(middle, bins.counts, width * 0.92, color=GREY)
    lower.set_yscale("symlog", linthresh=1)
    lower.set_ylim(0, max(bins.counts.max() * 8, 10))
    lower.yaxis.set_major_locator(NullLocator())
    lower.yaxis.set_minor_locator(NullLocator())
    lower.grid(False)
    for x, count in zip(middle[filled], bins.counts[filled], strict=True):
        text = f"{count}" if count < 10000 else f"{count / 1000:.0f}k"
        lower.annotate(text, (x, count), xytext=(0, 1), textcoords="offset points", ha="center",
                       va="bottom", fontsize=6.5)  # fmt: skip
    lower.set(xlabel="confidence (probability of the predicted class)", ylabel="count (log)")


def _log_odds(figure: FigureBase, run: Run) -> None:
    if (found := _test_scores(figure, run)) is None:
        return
    log_odds = found.log_odds
    correct = correct_predictions(found.scores, found.labels, found.task)
    finite = np.isfinite(log_odds)
    if not finite.any():
        draw_message(figure, "None of the true-class log-odds is finite.")
        return
    axes = figure.subplots()
    edges = np.histogram_bin_edges(log_odds[finite], bins=40)
    for chosen, colour, label in ((correct, BLUE, "correct"), (~correct, ORANGE, "incorrect")):
        axes.hist(log_odds[chosen & finite], edges.tolist(), color=colour, alpha=0.7,
                  label=f"{label} ({chosen.sum()})")  # fmt: skip
    axes.axvline(0, color=GREY, linewidth=1, linestyle="--")
    # Mistakes are few beside what is right: the square root keeps their bars visible.
    axes.set_yscale("function", functions=(np.sqrt, np.square))
    axes.set(xlabel="log-odds of the true class (0: probability 1/2)",
             ylabel="test examples (square-root scale)")  # fmt: skip
    axes.legend(loc="best")
    endless = f"{(~finite).sum()} examples with infinite log-odds left out"
    _note(axes, endless if (~finite).any() else "", _left_out(run, found))


def _confusion(figure: FigureBase, run: Run) -> None:
    if (found := _test_scores(figure, run)) is None:
        return
    scores, classes = found.scores, found.num_classes
    predicted = (scores > 0).astype(int) if scores.ndim == 1 else scores.argmax(axis=1)
    counts = confusion_matrix(found.labels, predicted, labels=np.arange(classes))
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes = figure.subplots()
    # The square root lifts rare confusions out of the white.
    image = axes.imshow(share, cmap="Blues", norm=PowerNorm(0.5, 0, 1), interpolation="nearest")
    axes.grid(False)
    axes.set(xlabel="predicted class", ylabel="true class")
    _note(axes, _left_out(run, found))
    if classes > NUMBERED_CLASSES:
        bar = figure.colorbar(image, ax=axes, ticks=[0, 0.01, 0.1, 0.25, 0.5, 1], format="{x:g}")
        bar.set_label("share of the true class")
        bar.outline.set_visible(False)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(nbins=10, integer=True))
        return
    # Both ends of a long name are kept: families of classes differ in either.
    names = [
        n if len(n) <= 12 else f"{n[:6]}\N{HORIZONTAL ELLIPSIS}{n[-5:]}" for n in run.class_names
    ]
    longest, size = max(map(len, names)), 8 if classes <= 10 else 6.5
    rotation = 90 if longest * classes > 45 else 0
    axes.set_xticks(range(classes), names, fontsize=size, parse_math=False, rotation=rotation)
    axes.set_yticks(range(classes), names, fontsize=size, parse_math=False)
    # About 190 points of picture are left beside the class names.
    digits = len(str(counts.max()))
    number_size = min(10.0, 190 / classes / max(0.7 * digits, 1.4))
    for row, column in np.argwhere(counts > 0):
        axes.text(column, row, counts[row, column], ha="center", va="center", fontsize=number_size,
                  color="white" if share[row, column] > 0.3 else "black")  # fmt: skip


def _step_time(figure: FigureBase, run: Run) -> None:
    _, seconds = run.series("train", "step_seconds")
    seconds = seconds[np.isfinite(seconds)]
    if not len(seconds):
        draw_message(figure, "No time per step was recorded.")
        return
    median, late = np.quantile(seconds, (0.5, 0.95))
    scale, unit = next(((s, u) for s, u in ((1, "s"), (1e3, "ms")) if median * s >= 1), (1e6, "µs"))
    # One compile takes as long as thousands of steps: it would squeeze the rest into one bar.
    limit = max(late * 2, median * 3)
    axes = figure.subplots()
    axes.hist(seconds[seconds <= limit] * scale, bins=min(40, max(5, len(seconds) // 3)),
              color=BLUE, alpha=0.75)  # fmt: skip
    for value, colour, name in ((median, ORANGE, "median"), (late, GREEN, "95th percentile")):
        shown = f"{value * scale:.3g}" if value * scale < 1000 else f"{value * scale:.0f}"
        axes.axvline(value * scale, color=colour, linewidth=1.3, label=f"{name} {shown} {unit}")
    axes.set(xlabel=f"time per step ({unit})", ylabel="train records")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(loc="upper right")
    slow = seconds[seconds > limit]
    note = (
        f"{len(slow)} slower not shown, up to {slow.max():.3g} s (likely a compile)"
        if len(slow)
        else ""
    )
    _note(axes, note)


PANELS: dict[str, Callable[[FigureBase, Run], None]] = {
    "Learning curves": _learning_curve,
    "Accuracy": _accuracy,
    "Reliability": _reliability,
    "True-class log-odds": _log_odds,
    "Confusion matrix": _confusion,
    "Time per step": _step_time,
}


def panels_of(run: Run) -> dict[str, Callable[[FigureBase, Run], None]]:
    """The pictures of a run: `PANELS`, or a curve for each metric where no scores are kept."""
    if run.has_scores:
        return PANELS
    found = dict.fromkeys(name for r in run.records if r["split"] == "validation" for name in r)
    metrics = [name for name in found if name not in ("step", "split", "loss")]
    curves = {name.replace("_", " ").capitalize(): _metric(name) for name in metrics}
    first, last = "Learning curves", "Time per step"
    return {first: PANELS[first], **curves, last: PANELS[last]}


def _metric(name: str) -> Callable[[FigureBase, Run], None]:
    def panel(figure: FigureBase, run: Run) -> None:
        draw_curves(
            figure,
            [(split, *run.series(split, name)) for split in ("train", "validation")],
            ylabel=name.replace("_", " "),
            empty=f"No {name.replace('_', ' ')} was recorded.",
        )

    return panel
