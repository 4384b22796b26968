# SPDX-License-Identifier: Apache-2.0
"""What the train step of a config takes, compiled and not run.

For the devices of this machine, or for a machine that is not there (`experiments/topology.py`):

    python -m experiments.run --config=digits --mode=compile
    python -m experiments.run --config=digits --mode=compile --topology=v5e:16x16 \\
        --config.data.batch_size=256

Reach for it before asking for a large machine: it says whether the step compiles there, whether it
fits, and what the devices tell each other.
"""

import dataclasses
import math
from typing import Any

import jax
from ml_collections import ConfigDict

from experiments import sharding, topology
from experiments.job import build


@dataclasses.dataclass(frozen=True)
class StepReport:
    """What a train step takes on each device of a machine.

    Attributes:
      machine: the devices, for people.
      mesh: axis -> devices along it.
      parts: bytes of the parameters, the optimizer's state and the batch, by these names.
      program: what the compiler says of the step; None if it refuses because of its memory.
      refusal: what it says then, "" otherwise.
      usable: bytes of a device that a program may take, None if that is not known.
    """

    machine: str
    mesh: dict[str, int]
    parts: dict[str, int]
    program: topology.Report | None
    refusal: str
    usable: int | None

    @property
    def fits(self) -> bool | None:
        """Whether it fits; None if that is not known."""
        if self.program is None:
            return False
        return None if self.usable is None else self.program.needed <= self.usable

    @property
    def verdict(self) -> str:
        """Whether it fits, in words; "" if that is not known."""
        if self.program is None:
            return f"DOES NOT FIT: {self.refusal}"
        if self.usable is None:
            return ""
        needed = f"{self.program.needed / 2**30:.2f} of {self.usable / 2**30:.2f} GiB"
        return f"{'fits' if self.fits else 'DOES NOT FIT'}: {needed}"

    def __str__(self) -> str:
        lines = [f"train step on {self.machine}, mesh {self.mesh}, per device:"]

        def add(name: str, value: str) -> None:
            lines.append(f"  {name:<17} {value}")

        sizes = dict(self.parts)
        if (program := self.program) is not None:
            sizes |= {
                "arguments": program.arguments,
                "results": program.results,
                "of them in place": program.in_place,
                "temporaries": program.temporaries,
                "peak": program.peak or program.needed,
            }
        for name, size in sizes.items():
            add(name, f"{size:>17,} bytes")
        if program is not None:
            if not math.isnan(program.flops):
                add("operations", f"{program.flops:>17,.0f} flops")
            shown = topology.listed(program.by_group, lambda size: f"{size:,} bytes")
            add("collectives", f"{shown} (what stands in a loop counts once)")
        return "\n".join([*lines, *([self.verdict] if self.verdict else [])])


def compile_report(config: ConfigDict, machine: str | None = None) -> StepReport:
    """Compiles the real train step of a config.

    Args:
      config: the config.
      machine: a name of `topology.devices`, such as v5e:16x16; None: the devices of this process.

    Raises:
      BadInput: whatever is wrong with the config; a machine that is not known, whose compiler is
        not installed, or whose devices do not divide the batch.
    """
    devices = jax.devices() if machine is None else topology.devices(machine)
    job = build(config, sharding.make_mesh(config.mesh.model, devices))
    state = job.abstract_state()
    parts = {
        "parameters": _bytes(state["params"]),
        "optimizer state": _bytes(state["optimizer"]),
        "batch": _bytes(job.abstract_batch()),
    }
    program, refusal = None, ""
    try:
        program = topology.report(job.compiled_step())
    except jax.errors.JaxRuntimeError as error:
        # A TPU's compiler refuses what is too large; a GPU's leaves that to the start of the run.
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        refusal = str(error).partition("RESOURCE_EXHAUSTED: ")[2].strip().splitlines()[0]
    where = f"{len(devices)} x {devices[0].device_kind}"
    return StepReport(
        machine=where if machine is None else f"{where} ({machine}, compiled here)",
        mesh=dict(job.mesh.shape),
        parts=parts,
        program=program,
        refusal=refusal,
        usable=_usable(devices[0]) if machine is None else topology.usable_bytes(machine),
    )


def _bytes(tree: Any) -> int:
    """Bytes of one device's part of abstract arrays."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
    )


def _usable(device: jax.Device) -> int | None:
    return (device.memory_stats() or {}).get("bytes_limit")
