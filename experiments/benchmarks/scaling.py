# SPDX-License-Identifier: Apache-2.0
"""Weak scaling of the compiled train step: what a device computes and holds as `data` grows.

The train step of a config is compiled for 1, 2, 4 and 8 CPU devices with a batch that grows with
them. Ideally a device's share stays what it was; the goal is within 2 %. Nothing runs, so there is
no time to report, and what a network adds to a step is not seen: the collectives are listed. The
second device brings the sum of the gradients over devices, which reads and writes them once more:
beside a small batch of a small model that is more than 2 % of all bytes. A step with gradients of
two passes through the model, at clean and at attacked inputs, has two such sums: XLA's compiler for
CPUs does not add them before it sends them. One pass over both inputs was tried for
adversarial_digits: one sum and +6 % of bytes instead of +10 %, but 11 % more FLOPs on every device,
since the attack has made the clean logits already.
"""

import dataclasses
from collections.abc import Sequence

import jax
from absl import flags
from ml_collections import ConfigDict

from experiments import sharding, topology
from experiments.benchmarks import record
from experiments.config import load_file, locate
from experiments.job import build
from experiments.program import run_program

DEVICES = (1, 2, 4, 8)
#: Greatest change of each column, against one device.
GOAL = 0.02
COLUMNS = ("FLOPs", "bytes accessed", "arguments", "temporaries")

_CONFIGS = flags.DEFINE_list(
    "configs", ["digits", "char_lm", "adversarial_digits"], "Shipped configs or .py files."
)


@dataclasses.dataclass(frozen=True)
class Share:
    """One device's part of a train step.

    Attributes:
      devices: on the mesh axis `data`.
      batch_size: examples a step, over all of them.
      numbers: column -> value. "FLOPs" and "bytes accessed" are XLA's estimate for the program of
        one device, collectives included; "arguments" (the state, updated in place, and the batch)
        and "temporaries" are bytes of its memory.
      collectives: kind -> (count, bytes of the results).
    """

    devices: int
    batch_size: int
    numbers: dict[str, float]
    collectives: dict[str, tuple[int, int]]


def measure(config: ConfigDict, devices: int) -> Share:
    """Compiles a config's train step for some devices; its batch size is that of one device.

    Raises:
      BadInput: whatever is wrong with the config.
    """
    config = config.copy_and_resolve_references()
    config.data.batch_size *= devices
    mesh = sharding.make_mesh(devices=jax.devices()[:devices])
    job = build(config, mesh)
    with jax.set_mesh(mesh):
        program = job.step.lower(job.abstract_state(), job.abstract_batch()).compile()
    cost, memory = program.cost_analysis(), topology.report(program)
    numbers = {
        "FLOPs": float(cost["flops"]),
        "bytes accessed": float(cost["bytes accessed"]),
        "arguments": float(memory.arguments),
        "temporaries": float(memory.temporaries),
    }
    return Share(devices, config.data.batch_size, numbers, memory.collectives)


def changes(shares: Sequence[Share]) -> dict[str, float]:
    """For each column the change, against the first share, that is the furthest from none."""
    found = {}
    for name, base in shares[0].numbers.items():
        ratios = [share.numbers[name] / base - 1 if base else 0.0 for share in shares]
        found[name] = max(ratios, key=abs)
    return found


def table(name: str, shares: Sequence[Share]) -> str:
    """A config's rows, and whether each column stays within the goal."""
    lines = [
        f"{name}, per device:",
        "",
        f"| devices | batch | {' | '.join(COLUMNS)} | collectives (bytes) |",
        f"| ---: | ---: | {' | '.join('---:' for _ in COLUMNS)} | --- |",
    ]
    for share in shares:
        numbers = " | ".join(f"{share.numbers[column]:,.0f}" for column in COLUMNS)
        shown = ", ".join(
            f"{count} {kind} ({size:,})"
            for kind, (count, size) in sorted(share.collectives.items())
        )
        lines.append(f"| {share.devices} | {share.batch_size} | {numbers} | {shown or 'none'} |")
    # The one gradient sum that the second device brings is not growth: say what comes after it.
    for what, first in (("from 1", 0), ("from 2", 1)):
        cells = []
        for change in changes(shares[first:]).values():
            verdict = "met" if abs(change) <= GOAL else "missed: less" if change < 0 else "missed"
            cells.append(f"{100 * change:+.2f} % ({verdict})")
        lines.append(f"| change {what} | goal {100 * GOAL:.0f} % | {' | '.join(cells)} | |")
    base, second = (share.numbers["bytes accessed"] for share in shares[:2])
    if second - base > GOAL * base:
        own = 2 * sum(size for _, size in shares[1].collectives.values())
        lines += [
            "",
            f"Of the {second - base:,.0f} bytes that the second device brings, the collectives "
            f"read and write {own:,}.",
        ]
    return "\n".join(lines)


def main(_: Sequence[str]) -> None:
    """Shows a table for each config."""
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", max(DEVICES))
    tables = []
    for name in _CONFIGS.value:
        config = load_file(locate(name))
        tables.append(table(name, [measure(config, devices) for devices in DEVICES]))
    record.show("scaling", "Weak scaling of the compiled train step", "\n\n".join(tables))


if __name__ == "__main__":
    run_program("scaling", main)
