# SPDX-License-Identifier: Apache-2.0
"""Where a run's numbers go; reach for it from a training loop.

* `MetricWriter` sends scalars to stdout, `metrics.jsonl` and TensorBoard; `read_metrics` reads the
  JSONL back.
* `Progress` says how far a run is and when it will end.
* `evaluation_metrics` (from `experiments.scoring`) computes the numbers of an evaluation.

`metrics.jsonl` holds one JSON object a line: `{"step": 120, "split": "train", "loss": 0.31}`. JSON
has no NaN or infinity, so these are written as the strings "NaN", "Infinity" and "-Infinity", and
`read_metrics` gives them back as floats.
"""

import json
import math
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments import storage
from experiments.errors import BadInput
from experiments.scoring import evaluation_metrics

__all__ = ["MetricWriter", "Progress", "evaluation_metrics", "jsonable", "read_metrics"]

SPLITS = ("train", "validation", "test")
FILE_NAME = "metrics.jsonl"


class MetricWriter:
    """Writes a run's scalars to stdout, `workdir/metrics.jsonl` and `workdir/tensorboard`.

    Args:
      workdir: directory of the run; created if it is missing.
      is_main: whether this is process 0. Other processes write nothing anywhere.
      resume_step: step of the checkpoint that the run continues from. Lines of later steps belong
        to work that was lost, and are cut away, so that a resumed run leaves the file of an
        uninterrupted one. 0 is a run from the start: nothing is kept. None keeps every line, which
        is what evaluating an old checkpoint wants.

    A last line that a killed process left half written is dropped. In an object store, which has no
    append, the files are written whole: at every `flush`, and in between at a bounded rate.

    Attributes:
      last: split -> its last record, as this object wrote it.

    Raises:
      BadInput: a line other than the last is not what this class writes.
    """

    def __init__(self, workdir: str | os.PathLike, *, is_main: bool, resume_step: int | None):
        self._is_main = is_main
        self.last: dict[str, dict[str, Any]] = {}
        if not is_main:
            return
        from tensorboardX import SummaryWriter

        root = storage.find(workdir)
        self._mirror = storage.Mirror(root) if storage.is_remote(root) else None
        path = (Path(root) if self._mirror is None else self._mirror.local) / FILE_NAME
        path.parent.mkdir(parents=True, exist_ok=True)
        if storage.exists(root / FILE_NAME):
            _cut_back(root, path, resume_step)
        self._file = path.open("a", encoding="ascii")
        # purge_step hides the events of the lost steps; TensorBoard's files are never rewritten.
        purge_step = resume_step if not resume_step else resume_step + 1
        self._tensorboard = SummaryWriter(
            str(path.parent / "tensorboard"), purge_step=purge_step, flush_secs=30
        )

    def write(self, step: int, split: str, scalars: Mapping[str, Any]) -> None:
        """Writes one record to all three places. The JSONL line is flushed at once.

        Args:
          step: number of optimizer steps done, >= 0.
          split: "train", "validation" or "test".
          scalars: name to number (Python, NumPy or a JAX scalar; it is fetched here).

        Raises:
          ValueError: an unknown split, or a metric called "step" or "split".
        """
        if split not in SPLITS:
            raise ValueError(f"split: expected one of {', '.join(SPLITS)}, got {split!r}")
        if reserved := {"step", "split"} & set(scalars):
            raise ValueError(f"scalars: expected metric names, got {reserved.pop()!r}")
        if not self._is_main:
            return
        values = {name: float(value) for name, value in scalars.items()}
        self._file.write(_dump(int(step), split, values))
        self._file.flush()
        self.last[split] = {"step": int(step), **jsonable(values)}
        for name, value in values.items():
            self._tensorboard.add_scalar(f"{split}/{name}", value, int(step))
        if self._mirror is not None:
            self._mirror.push(at_once=False)
        from tqdm import tqdm

        shown = "  ".join(f"{name} {value:.4g}" for name, value in values.items())
        # tqdm.write lifts a progress bar out of the way first; without one it is print.
        tqdm.write(f"[{split}] step {int(step)}  {shown}", file=sys.stdout)

    def flush(self) -> None:
        """Brings everything written so far to disk; call it before a checkpoint is saved."""
        if self._is_main:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._tensorboard.flush()
            if self._mirror is not None:
                self._mirror.push()
            sys.stdout.flush()

    def close(self) -> None:
        """Flushes and closes the files. Closing twice is harmless."""
        if self._is_main and not self._file.closed:
            self.flush()
            self._file.close()
            self._tensorboard.close()
            if self._mirror is not None:
                self._mirror.close()


def read_metrics(workdir: str | os.PathLike) -> list[dict[str, Any]]:
    """Reads the records of `workdir/metrics.jsonl` in the order they were written.

    Args:
      workdir: directory of a run.

    Returns:
      One dict a record: "step" (int), "split" (str), and the metrics as floats, NaN and infinities
      included. Empty if there is no file yet. A torn last line is left out.

    Raises:
      BadInput: a line other than the last is not such a record.
    """
    path = storage.find(workdir) / FILE_NAME
    try:
        lines = storage.read_bytes(path).decode(errors="replace").splitlines()
    except FileNotFoundError:
        return []
    records = []
    for number, line in enumerate(lines, start=1):
        try:
            raw = json.loads(line)
            # float() reads the three strings that stand for NaN and the infinities.
            record = {k: float(v) for k, v in raw.items() if k not in ("step", "split")}
            records.append({"step": int(raw["step"]), "split": str(raw["split"]), **record})
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            if number == len(lines):
                break
            raise BadInput(
                f'{path} line {number}: expected {{"step": ..., "split": ..., metrics}}, '
                f"got {line[:60]!r}"
            ) from error
    return records


def jsonable(values: Mapping[Any, float]) -> dict[Any, float | str]:
    """The values with NaN and infinities as the strings that `float` reads back."""
    return {name: value if math.isfinite(value) else _name(value) for name, value in values.items()}


def _dump(step: int, split: str, values: Mapping[str, float]) -> str:
    record = {"step": step, "split": split, **jsonable(values)}
    return json.dumps(record, allow_nan=False) + "\n"


def _name(value: float) -> str:
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _cut_back(root: storage.AnyPath, path: Path, resume_step: int | None) -> None:
    kept = []
    for record in read_metrics(root) if resume_step != 0 else []:
        step, split = record.pop("step"), record.pop("split")
        if resume_step is None or step <= resume_step:
            kept.append(_dump(step, split, record))
    # Renamed into place, so that a kill here loses neither the old lines nor the new ones.
    temporary = path.with_suffix(".jsonl.partial")
    temporary.write_text("".join(kept), encoding="ascii")
    os.replace(temporary, path)


class Progress:
    """Shows how far a run is: a bar on a terminal, else a plain line every now and then.

    Everything goes to stderr. A pod's log gets lines, never a bar that redraws itself.

    Args:
      total_steps: step at which the run ends.
      start_step: step at which this process starts, > 0 after a resume; it takes no part in the
        estimated rate.
      is_main: whether this is process 0. Other processes show nothing.
      interval: seconds between plain lines.
    """

    def __init__(self, total_steps: int, start_step: int, is_main: bool, *, interval: float = 30.0):
        from tqdm import tqdm

        self._total, self._first, self._step = total_steps, start_step, start_step
        self._is_main, self._interval = is_main, interval
        self._shown: dict[str, Any] = {}
        self._start = self._last_line = time.monotonic()
        self._closed = not is_main
        self._bar = None
        if is_main and sys.stderr.isatty():
            self._bar = tqdm(total=total_steps, initial=start_step, unit="step", file=sys.stderr)

    def update(self, step: int, **shown: Any) -> None:
        """Says that `step` steps are done. `shown` are values to show beside it, e.g. loss=0.3."""
        if self._closed:
            return
        self._shown = shown or self._shown
        if self._bar is not None:
            if shown:
                self._bar.set_postfix(shown, refresh=False)
            self._bar.update(step - self._step)
        self._step = step
        if self._bar is None and time.monotonic() - self._last_line >= self._interval:
            self._print_line()

    def close(self) -> None:
        """Finishes the bar, or prints the last line. Closing twice is harmless."""
        if self._closed:
            return
        self._closed = True
        if self._bar is not None:
            self._bar.close()
        else:
            self._print_line()

    def _print_line(self) -> None:
        self._last_line = time.monotonic()
        elapsed = self._last_line - self._start
        done, left = self._step - self._first, self._total - self._step
        line = f"step {self._step}/{self._total} ({100 * self._step / max(self._total, 1):.0f} %)"
        if done > 0 and elapsed > 0:
            from tqdm import tqdm

            line += f", {done / elapsed:.3g} steps/s"
            line += f", {tqdm.format_interval(left * elapsed / done)} left" if left > 0 else ""
            line += f", {tqdm.format_interval(elapsed)} elapsed"
        for name, value in self._shown.items():
            line += f", {name} " + (f"{value:.4g}" if isinstance(value, float) else f"{value}")
        print(line, file=sys.stderr, flush=True)
