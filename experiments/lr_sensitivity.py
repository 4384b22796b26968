# SPDX-License-Identifier: Apache-2.0
"""What a wrong learning rate costs: `python -m experiments.lr_sensitivity SWEEP --by=KEY,...`.

    python -m experiments.lr_sensitivity sweeps/characters --by=task.log_partition,model.qk_norm \\
        --where=steps=300 --classes=66 [--metric=loss] [--out=sensitivity.md]

The members of a sweep that differ in optimizer.learning_rate, grouped by the values of the keys of
--by; with --where=KEY=VALUE only those with that override. For every group and seed

    sensitivity = mean over the rates of min(final loss, initial loss) - the least of them

(`xloss.diagnostics.lr_sensitivity`), the initial loss being that of equal probabilities, log K, and
a run that stopped at NaN counting as no better. Means over seeds with the half-width of a 95 %
interval (Student's t), and beside them the loss at each rate, all on the VALIDATION split.
"""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from absl import flags

from experiments.errors import BadInput
from experiments.program import run_program
from experiments.sweep_table import interval, markdown
from experiments.wins import Member, check_metric, read_members
from xloss import diagnostics

_FLAGS = flags.FlagValues()
_BY = flags.DEFINE_list("by", [], "Keys of a group.", flag_values=_FLAGS)
_WHERE = flags.DEFINE_list("where", [], "KEY=VALUE of the members to read.", flag_values=_FLAGS)
_CLASSES = flags.DEFINE_integer(
    "classes", None, "K, for the loss of equal probabilities.", lower_bound=2, flag_values=_FLAGS
)
_METRIC = flags.DEFINE_string("metric", "loss", "Metric, less is better.", flag_values=_FLAGS)
_OUT = flags.DEFINE_string("out", None, "File to write the table to as well.", flag_values=_FLAGS)

RATE = "optimizer.learning_rate"


def kept(members: Sequence[Member], where: Sequence[str], by: Sequence[str]) -> list[Member]:
    """The members with these overrides that set a rate and every key of a group.

    Raises:
      BadInput: a condition that is none, or nothing is left.
    """
    conditions = []
    for text in where:
        key, equals, value = text.partition("=")
        if not (key and equals and value):
            raise BadInput(f"--where: expected KEY=VALUE, got {text!r}")
        conditions.append((key, value))
    found = [
        member
        for member in members
        if {RATE, *by} <= member["overrides"].keys()
        and all(str(member["overrides"].get(key)) == value for key, value in conditions)
    ]
    if not found:
        raise BadInput(f"--by, --where: expected members with {', '.join([RATE, *by])}, got none")
    return found


def table(members: Sequence[Member], by: Sequence[str], metric: str, initial: float) -> str:
    """The groups' sensitivities and losses as markdown, the least sensitive first.

    Raises:
      BadInput: a metric that no member has, or a seed that lacks a rate of its group.
    """
    groups: dict[tuple[str, ...], dict[int, dict[float, float]]] = defaultdict(dict)
    for member in members:
        name = tuple(f"{key.rpartition('.')[2]}={member['overrides'][key]}" for key in by)
        value = float("inf")  # stopped at NaN
        if member["final"]:
            check_metric("metric", metric, member["final"]["validation"])
            value = float(member["final"]["validation"][metric])
        rate = float(member["overrides"][RATE])
        groups[name].setdefault(member["seed"], {})[rate] = value
    rates = sorted({rate for seeds in groups.values() for row in seeds.values() for rate in row})
    rows = []
    for name, seeds in groups.items():
        for seed, row in seeds.items():
            if missing := [rate for rate in rates if rate not in row]:
                raise BadInput(f"{', '.join(name)}: seed {seed} lacks the rates {missing}")
        values = np.array([[row[rate] for rate in rates] for row in seeds.values()])
        found = [float(diagnostics.lr_sensitivity(jnp.asarray(row), initial)) for row in values]
        cells = [_cell(found), *(_cell(column) for column in np.minimum(values, initial).T)]
        rows.append((float(np.mean(found)), [", ".join(name) or "all", *cells]))
    header = ["setting", "sensitivity", *(f"rate {rate:g}" for rate in rates)]
    return markdown(header, [cells for _, cells in sorted(rows, key=lambda row: row[0])])


def _cell(values: Sequence[float] | np.ndarray) -> str:
    mean, half = interval(values)
    return f"{mean:.4f} +- {half:.4f}"


def main(argv: Sequence[str]) -> None:
    """The program behind the flags."""
    if len(argv) != 2:
        raise BadInput(f"expected the directory of one sweep, got {len(argv) - 1}")
    if _CLASSES.value is None:
        raise BadInput("--classes: expected the number of classes, got none")
    members = kept(read_members([Path(argv[1])]), _WHERE.value, _BY.value)
    text = table(members, _BY.value, _METRIC.value, float(np.log(_CLASSES.value)))
    print(text)
    if _OUT.value:
        Path(_OUT.value).write_text(text + "\n")


if __name__ == "__main__":
    run_program("lr_sensitivity", main, _FLAGS, __doc__)
