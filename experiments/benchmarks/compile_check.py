# SPDX-License-Identifier: Apache-2.0
"""Whole train steps, compiled for machines that are not there: do they fit, what do devices say?

The step of a shipped config, as `experiments.run --mode=compile --topology=...` compiles it; needs
``pip install 'xloss[compile]'``. Nothing runs, so there is no time to report. Bytes repeat exactly
with the same compilers.

XLA is asked for its least effort (`jax_exec_time_optimization_effort`), which compiles the language
model for a TPU in a seventh of the time: temporaries of 1,636 MB in place of 1,668 on a v5e, the
same sums, one of them block by block in a loop. `experiments.run --mode=compile` asks for the usual
effort, that of a run.
"""

from collections.abc import Sequence
from typing import Any

import jax

from experiments import topology
from experiments.benchmarks import record
from experiments.compile_report import StepReport, compile_report
from experiments.config import load_file, locate
from experiments.errors import BadInput
from experiments.program import run_program

#: config -> what is changed in it: batches that 256 devices divide.
CONFIGS: dict[str, dict[str, Any]] = {"digits": {"data.batch_size": 256}, "lm_1b": {}}
LEAST_EFFORT = -1.0
MACHINES = ("v5e:16x16", "v6e:16x16", "h200:8")


def measure(name: str, machine: str) -> StepReport:
    """Compiles the train step of a config of CONFIGS.

    Raises:
      BadInput: as `compile_report`.
    """
    config = load_file(locate(name))
    config.update_from_flattened_dict(CONFIGS[name])
    option = "jax_exec_time_optimization_effort"
    before = getattr(jax.config, option)
    jax.config.update(option, LEAST_EFFORT)
    try:
        return compile_report(config, machine)
    finally:
        jax.config.update(option, before)


def row(name: str, machine: str, found: StepReport) -> str:
    """A line of the table, sizes in MB a device."""
    sizes = [f"{found.parts[part] / 1e6:,.1f}" for part in ("parameters", "optimizer state")]
    mesh = " x ".join(map(str, found.mesh.values()))
    if (program := found.program) is None:
        return f"| {name} | {machine} | {mesh} | {' | '.join(sizes)} | | {found.verdict} | |"
    sizes.append(f"{program.temporaries / 1e6:,.1f}")
    shown = topology.listed(program.by_group, lambda size: f"{size / 1e6:,.1f}")
    return f"| {name} | {machine} | {mesh} | {' | '.join(sizes)} | {found.verdict} | {shown} |"


def table() -> str:
    """The rows whose compiler is installed."""
    lines = [
        "MB a device, compiled with XLA's least effort; a collective that stands in a loop (over "
        "layers or classes) counts once.",
        "",
        "| config | machine | data x model | parameters | optimizer | temp | memory | "
        "collectives (MB) |",
        "| --- | --- | --- | ---: | ---: | ---: | --- | --- |",
    ]
    for name in CONFIGS:
        for machine in MACHINES:
            try:
                lines.append(row(name, machine, measure(name, machine)))
            except BadInput as error:
                lines.append(f"| {name} | {machine} | | | | | unmeasured: {error} | |")
    return "\n".join(lines)


def main(_: Sequence[str]) -> None:
    """Shows the table."""
    record.show("compile_check", "Train steps, compiled elsewhere", table())


if __name__ == "__main__":
    run_program("compile_check", main)
