# SPDX-License-Identifier: Apache-2.0
"""Sets runs beside each other: how their configs differ, what came out, curves in one page.

    python -m experiments.compare RUN_A RUN_B [...] [--out=compare.html]

prints the config keys that differ and the last metrics of each run, and writes one self-contained
page with their curves overlaid. The runs need not have finished.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from absl import flags

from experiments import page
from experiments.errors import BadInput
from experiments.program import run_program
from experiments.report import label, number, plain
from experiments.rundir import Run, flatten, read_run

_OUT = flags.DEFINE_string("out", "compare.html", "File to write the page with the curves to.")

_CURVES = (
    ("train", "loss"),
    ("validation", "loss"),
    ("train", "accuracy"),
    ("validation", "accuracy"),
    ("validation", "cross_entropy"),
    ("validation", "expected_calibration_error"),
)
_ABSENT = "-"


def config_differences(runs: Sequence[Run]) -> list[tuple[str, ...]]:
    """Rows (key, value in each run) of the config keys, as a.b.c, whose values are not all equal.

    Args:
      runs: two or more runs. A key that a run's config lacks shows as "-".
    """
    configs = [{key: plain(value) for key, value in flatten(run.config)} for run in runs]
    keys = dict.fromkeys(key for config in configs for key in config)
    rows = [(key, *(config.get(key, _ABSENT) for config in configs)) for key in keys]
    return [row for row in rows if len(set(row[1:])) > 1]


def final_metrics(runs: Sequence[Run]) -> list[tuple[str, ...]]:
    """Rows (split and metric, value in each run) of the last validation and test records."""
    rows: list[tuple[str, ...]] = []
    for split in ("validation", "test"):
        found = [run.last(split) for run in runs]
        for name in dict.fromkeys(name for record in found for name in record):
            if name == "split":
                continue
            cells = []
            for run, record in zip(runs, found, strict=True):
                if name == "loss" and run.injected_gradient:
                    cells.append("no loss value")
                elif name not in record:
                    cells.append(_ABSENT)
                else:
                    cells.append(str(record[name]) if name == "step" else number(record[name]))
            if set(cells) != {_ABSENT}:
                rows.append((f"{split} {label(name)}", *cells))
    return rows


def run_names(runs: Sequence[Run]) -> list[str]:
    """One name a run: its directory's; with as much of the path before it as tells them apart."""
    parts = [run.workdir.resolve().parts for run in runs]
    for depth in range(1, max(map(len, parts)) + 1):
        names = [os.sep.join(part[-depth:]) for part in parts]
        if len(set(names)) == len(set(parts)):
            break
    return names


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of text with aligned columns and a line under the header."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = [header, ["-" * width for width in widths], *rows]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def write_page(runs: Sequence[Run], path: Path) -> None:
    """Writes the page with differences, metrics and overlaid curves.

    Args:
      runs: two or more runs.
      path: file to write; its directory is made.

    Raises:
      BadInput: the file cannot be written.
    """
    # matplotlib takes a second to import, and bad input should be answered at once.
    from experiments import figures

    names = run_names(runs)
    body, drawn = [], []
    for name, run in zip(names, runs, strict=True):
        body += [page.paragraph(f"{name}: {message}", kind="warning") for message in run.missing]
    losses = {run.loss_name for run in runs}
    for split, metric in _CURVES:
        note = ""
        curves = [(name, *run.series(split, metric)) for name, run in zip(names, runs, strict=True)]
        if metric == "loss":
            notes = ["different losses: heights do not compare"] if len(losses) > 1 else []
            for place, run in enumerate(runs):
                if run.injected_gradient:
                    notes.append(
                        f"{names[place]}: {run.loss_name} injects its gradient, no loss value"
                    )
                    curves[place] = (names[place], np.array([], int), np.array([]))
            note = "\n".join(notes)
        title = f"{split} {label(metric)}"
        png = figures.render(
            lambda figure, c=curves, t=title, n=note: figures.draw_curves(
                figure, c, ylabel=t, empty=f"No run recorded {t}.", note=n, log="accuracy" not in t
            )
        )
        drawn.append(page.picture(title.capitalize(), png, f"{title} of {', '.join(names)}"))
    body += [page.heading("Curves"), page.pictures(drawn)]
    body += [page.heading("Final metrics"), page.table(("", *names), final_metrics(runs))]
    differences = config_differences(runs)
    body.append(page.heading("Configuration"))
    if differences:
        body.append(page.table(("key", *names), differences))
    else:
        body.append(page.paragraph("The configs are equal."))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page.document(f"Comparison of {len(runs)} runs", body), encoding="utf-8")
    except OSError as error:
        raise BadInput(
            f"--out: expected a file that can be written, got {path}: {error}"
        ) from error


def main(argv: Sequence[str]) -> None:
    """Prints and writes the comparison of the workdirs that the command line names."""
    if len(argv) < 3:
        raise BadInput(f"expected two or more run directories, got {len(argv) - 1}")
    runs = [read_run(workdir) for workdir in argv[1:]]
    names = run_names(runs)
    if differences := config_differences(runs):
        print(text_table(("config", *names), differences))
    else:
        print("The configs are equal.")
    print()
    print(text_table(("metric", *names), final_metrics(runs)))
    write_page(runs, Path(_OUT.value))
    print(f"\nCurves: {_OUT.value}")


if __name__ == "__main__":
    run_program("compare", main)
