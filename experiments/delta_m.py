# SPDX-License-Identifier: Apache-2.0
"""Multi-task methods against single-task training: accuracies, conflicts and Delta-m.

    python -m experiments.delta_m SWEEP [--select=accuracy] [--out=delta_m.md]

The sweep is one of a `multi_task` config. Its methods are told apart by --method; of each the
setting is taken whose mean of --select on VALIDATION is best, as in `experiments.wins`. The single
tasks (task.tasks = left, right) are chosen by their own task's accuracy on validation.

Columns: accuracy of each task on test; conflict rate, the part of training batches where the two
gradients of the trunk have a negative inner product, at the end of training; and

    Delta-m = 100 / T sum over tasks of (accuracy - single) / single   in per cent, more is better

seed by seed against the single-task run of the same seed. All are means over seeds with the
half-width of a 95 % interval (Student's t); the interval of a Delta-m is that of the differences.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from experiments.errors import BadInput
from experiments.program import run_program
from experiments.sweep_table import interval, markdown
from experiments.wins import Member, best_settings, read_members

_FLAGS = flags.FlagValues()
_METHOD = flags.DEFINE_list(
    "method",
    ["task.method", "task.aggregator", "task.weighting", "optimizer.sharpness"],
    "Keys of a method.",
    flag_values=_FLAGS,
)
_SELECT = flags.DEFINE_string("select", "accuracy", "Metric on validation.", flag_values=_FLAGS)
_OUT = flags.DEFINE_string("out", None, "File to write the table to as well.", flag_values=_FLAGS)

SIDES = ("left", "right")


def single_tasks(members: Sequence[Member]) -> dict[str, dict[int, float]]:
    """Test accuracy of each task when it is trained alone: side -> seed -> accuracy.

    Raises:
      BadInput: a task was not trained alone, or never to the end.
    """
    found = {}
    for side in SIDES:
        alone = [m for m in members if m["final"] and m["overrides"].get("task.tasks") == side]
        if not alone:
            raise BadInput(
                f"expected members with task.tasks={side} that finished, to compare with, got none"
            )
        metric = f"accuracy_{side}"
        (best,) = best_settings(alone, ["task.tasks"], ["task.tasks"], metric).values()
        found[side] = {m["seed"]: m["final"]["test"][metric] for m in best}
    return found


def delta_m(test: Mapping[str, Any], single: Mapping[str, float]) -> float:
    """Delta-m in per cent of one run's test metrics, given the single tasks' accuracies."""
    gains = [(test[f"accuracy_{side}"] - single[side]) / single[side] for side in SIDES]
    return 100.0 * float(np.mean(gains))


def table(members: Sequence[Member], method: Sequence[str], select: str) -> str:
    """The table as markdown, best Delta-m first.

    Raises:
      BadInput: no single-task members, or a metric that no member has.
    """
    alone = single_tasks(members)
    both = [m for m in members if m["overrides"].get("task.tasks", "both") == "both"]
    rows = []
    for (_, name), found in best_settings(both, [], method, select).items():
        gains = [
            delta_m(m["final"]["test"], {side: alone[side][m["seed"]] for side in SIDES})
            for m in found
            if all(m["seed"] in alone[side] for side in SIDES)
        ]
        cells = [
            _percent([m["final"]["test"][f"accuracy_{side}"] for m in found]) for side in SIDES
        ]
        conflicts = [m["final"]["validation"]["conflict_rate"] for m in found]
        mean, half = interval(gains)
        varied = {k: v for k, v in found[0]["overrides"].items() if k not in method}
        setting = ", ".join(
            f"{key.rpartition('.')[2]} {value}"
            for key, value in varied.items()
            if not str(key).endswith(("path", "tasks"))
        )
        rows.append(
            (mean, [name, setting, *cells, _percent(conflicts), f"{mean:+.2f} +- {half:.2f}"])
        )
    header = ["method", "setting", *(f"{side} %" for side in SIDES), "conflicts %", "Delta-m %"]
    singles = (_percent(list(alone[side].values())) for side in SIDES)
    best_first = [cells for _, cells in sorted(rows, key=lambda row: -row[0])]
    return markdown(header, [["single tasks", "", *singles, "-", "0"], *best_first])


def _percent(values: Sequence[float]) -> str:
    mean, half = interval(values)
    return f"{100 * mean:.2f} +- {100 * half:.2f}"


def main(argv: Sequence[str]) -> None:
    """The program behind the flags."""
    if len(argv) != 2:
        raise BadInput(f"expected the directory of one sweep, got {len(argv) - 1}")
    text = table(read_members([Path(argv[1])]), _METHOD.value, _SELECT.value)
    print(text)
    if _OUT.value:
        Path(_OUT.value).write_text(text + "\n")


if __name__ == "__main__":
    run_program("delta_m", main, _FLAGS, __doc__)
