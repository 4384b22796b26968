# SPDX-License-Identifier: Apache-2.0
"""What came out of a run, on one page: `report.html` (self-contained) and `report.png`.

    python -m experiments.report WORKDIR

writes both again from what is in the workdir: config.json, run.json, metrics.jsonl and
evaluation.npz. Nothing is trained or evaluated here, and a run that is still going, or that was
killed, gets a report of what is there. From Python: `write_report(workdir)`.
"""

import json
import math
import os
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments import page
from experiments.errors import BadInput
from experiments.program import run_program
from experiments.rundir import Run, flatten, read_run
from experiments.storage import AnyPath, whole, write_text

# Shown elsewhere on the page than in the table of run.json.
_SHOWN_APART = ("loss", "class_names", "final_metrics", "scores")
_LABELS = {"cross_entropy": "cross-entropy", "mean_log_odds": "mean log-odds"}
_LOSS_ROWS = (
    ("family", "family"),
    ("title", "paper"),
    ("arxiv", "arXiv"),
    ("evidence", "evidence"),
    ("needs", "needs"),
    ("couples_batch", "couples the batch"),
    ("exact_gradient", "gradient is that of the scalar"),
)
_ARXIV_ID = re.compile(r"(\d{4}\.\d{4,5}|[a-z.-]+/\d{7})(v\d+)?", re.ASCII)


def write_report(workdir: str | os.PathLike) -> AnyPath:
    """Writes report.html and report.png into a run's workdir, over those that are there.

    Args:
      workdir: directory of a run, finished or not; config.json is all it must hold.

    Returns:
      Path of report.html.

    Raises:
      BadInput: no such directory, no config.json, or a broken file.
    """
    # matplotlib takes a second to import; a training program imports this module at its start.
    from experiments import figures

    run = read_run(workdir)
    title = f"{run.name}: {run.loss_name}"
    drawn = [
        page.picture(
            name, figures.render(lambda figure, p=panel: p(figure, run)), f"{name}, {title}"
        )
        for name, panel in figures.panels_of(run).items()
    ]
    with whole(run.workdir / "report.png") as file:
        file.write(figures.page(run, " | ".join([title, *_summary(run)])))
    body = [page.paragraph(_subtitle(run), kind="quiet")]
    body += [page.paragraph(message, kind="warning") for message in _warnings(run)]
    if run.last("test"):
        shown = [(name, value) for name, value in _metrics(run, "test") if name != "test loss"]
        body.append(page.tiles((name, number(value)) for name, value in shown))
    body += [page.pictures(drawn)]
    body += [page.heading("Final metrics"), *_final_metrics(run)]
    body += [page.heading("Loss"), *_loss(run)]
    body += [page.heading("Configuration"), page.table((), _rows(run.config))]
    body += [page.heading("Run"), *_environment(run)]
    path = run.workdir / "report.html"
    write_text(path, page.document(title, body))
    return path


def number(value: float) -> str:
    """A metric as text, with four digits that count."""
    return "NaN" if math.isnan(value) else f"{value:.4g}"


def label(metric: str) -> str:
    """A metric's name as it is written in a text."""
    return _LABELS.get(metric, metric.replace("_", " "))


def plain(value: Any) -> str:
    """A leaf of a config or of run.json as text: strings as they are, the rest as JSON."""
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _rows(tree: dict[str, Any]) -> list[tuple[str, str]]:
    return [(key, plain(value)) for key, value in flatten(tree)]


def _metrics(run: Run, split: str) -> list[tuple[str, float]]:
    hidden = {"step", "split"} | ({"loss"} if run.injected_gradient else set())
    return [(f"{split} {label(k)}", v) for k, v in run.last(split).items()
            if k not in hidden]  # fmt: skip


def _summary(run: Run) -> list[str]:
    wanted = {"test accuracy", "test cross-entropy", "test expected calibration error"}
    return [f"{name} {number(value)}" for name, value in _metrics(run, "test") if name in wanted]


def _subtitle(run: Run) -> str:
    data = run.config.get("data")
    parts = [f"data {data['name']}" if isinstance(data, dict) and "name" in data else ""]
    last = max((record["step"] for record in run.records), default=None)
    parts.append(f"last record at step {last}" if last is not None else "no records")
    return ", ".join(part for part in parts if part)


def _warnings(run: Run) -> list[str]:
    messages = list(run.missing)
    if run.records and not run.last("test"):
        messages.insert(0, "This run has not finished: there is no test record yet.")
    if (state := run.status.get("state", "finished")) != "finished":
        told = {key: run.status.get(key) for key in ("step", "last_step", "time", "message")}
        sentence = (
            f"Last sign of life at {told['time']}: {state}, step {told['step']} of "
            f"{told['last_step']}"
        )
        messages.append(f"{sentence} ({told['message']})." if told["message"] else f"{sentence}.")
    if isinstance(warned := run.status.get("warnings"), list):
        messages += [f"Warned of while it ran: {str(text).partition(': ')[2]}." for text in warned]
    if run.injected_gradient:
        messages.append(
            f"{run.loss.get('name', 'This loss')} injects its gradient: the scalar that training "
            "logs is not a loss value. Read cross-entropy and accuracy instead."
        )
    steps, losses = run.series("train", "loss")
    if len(bad := steps[~np.isfinite(losses)]):
        messages.append(
            f"The training loss is not finite in {len(bad)} records, first at step {bad[0]}."
        )
    return messages


def _final_metrics(run: Run) -> list[str]:
    splits = [split for split in ("validation", "test") if run.last(split)]
    if not splits:
        return [page.paragraph("No evaluation was recorded.", kind="quiet")]
    values = {split: dict(run.last(split)) for split in splits}
    names = list(dict.fromkeys(name for split in splits for name in values[split]))
    rows = [("step", *(str(values[split]["step"]) for split in splits))]
    for name in names:
        if name in ("step", "split") or (name == "loss" and run.injected_gradient):
            continue
        cells = (number(values[s][name]) if name in values[s] else "-" for s in splits)
        rows.append((label(name), *cells))
    return [page.table(("", *splits), rows)]


def _loss(run: Run) -> list[str]:
    if not run.loss:
        return [page.paragraph(f"{run.loss_name}: not in the catalogue.")]
    arxiv = str(run.loss.get("arxiv") or "")
    linked = _ARXIV_ID.fullmatch(arxiv)
    rows = [("name", run.loss_name)]
    for key, name in _LOSS_ROWS:
        if key == "arxiv" and linked:
            continue
        value = run.loss.get(key)
        if isinstance(value, bool):
            value = "yes" if value else "no"
        elif isinstance(value, list | tuple):
            value = ", ".join(map(str, value)) or "nothing beyond scores and labels"
        rows.append((name, str(value) if value else "-"))
    parts = [page.table((), rows)]
    if linked:
        parts.append(f"<p>{page.link(f'arXiv:{arxiv}', f'https://arxiv.org/abs/{arxiv}')}</p>")
    return parts


def _environment(run: Run) -> list[str]:
    rest = {key: value for key, value in run.info.items() if key not in _SHOWN_APART}
    if not rest:
        return [page.paragraph("run.json says nothing about versions and devices.", kind="quiet")]
    return [page.table((), _rows(rest))]


def main(argv: Sequence[str]) -> None:
    """Writes the report of the one workdir that the command line names."""
    if len(argv) != 2:
        raise BadInput(f"expected one WORKDIR, got {len(argv) - 1} arguments")
    print(write_report(argv[1]))


if __name__ == "__main__":
    run_program("report", main)
