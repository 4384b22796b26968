# SPDX-License-Identifier: Apache-2.0
"""Compiling for a TPU or a GPU that is not there, and what the compiled program says of itself.

XLA's own compilers run on a plain CPU machine (``pip install 'xloss[compile]'``). What they give
repeats exactly anywhere: whether it compiles, bytes per device, collectives. They give no time.
``jax.experimental.topologies`` is used because no stable name exists for it.
"""

import dataclasses
import importlib.util
import math
import os
import re
from collections.abc import Sequence
from pathlib import Path

import jax

from experiments.errors import BadInput

_H200 = Path(__file__).parent / "h200_target_config.txtpb"
_NAMES = "v5e:2x4, v6e:16x16, v5p:4x4x4 (chips along each side) or h200:8 (GPUs)"
_BYTES = {"pred": 1, "bf16": 2, "f16": 2, "f32": 4, "s32": 4, "u32": 4, "f64": 8, "s64": 8}
_COLLECTIVES = "all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute"


def devices(name: str) -> Sequence[jax.Device]:
    """Abstract devices of a machine, for ``jax.make_mesh(..., devices=)``.

    Args:
      name: such as v5e:2x4 (a TPU slice) or h200:1 (GPUs of one host).

    Raises:
      BadInput: the name is not understood, or the compiler for it is not installed.
    """
    found = re.fullmatch(r"(v5e|v5p|v6e):(\d+(?:x\d+){1,2})|(h200):(\d+)", name)
    if found is None:
        raise BadInput(f"topology: expected one like {_NAMES}, got {name!r}")
    package = "jax_cuda12_plugin" if found[3] else "libtpu"
    if importlib.util.find_spec(package) is None:
        raise BadInput(
            f"topology: expected {package} for {name}, which is not installed: pip install "
            "'xloss[compile]'"
        )
    from jax.experimental import topologies

    if found[3]:
        shape = f"1x1x{found[4]}"
        return topologies.get_topology_desc(
            platform="cuda",
            topology_name=shape,
            topology=shape,
            target_config=_H200.read_text(),
        ).devices
    # Without these libtpu asks a metadata server, which only a TPU machine has.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-8")
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    return topologies.get_topology_desc(platform="tpu", topology_name=name).devices


@dataclasses.dataclass(frozen=True)
class Report:
    """What a compiled program needs on each device.

    Attributes:
      temporaries: bytes beside arguments and results.
      arguments: bytes.
      results: bytes.
      collectives: kind -> (how many stand in the program, bytes of their results). What stands in
        a loop counts once.
    """

    temporaries: int
    arguments: int
    results: int
    collectives: dict[str, tuple[int, int]]


def report(program: jax.stages.Compiled) -> Report:
    """Reads a compiled program."""
    memory = program.memory_analysis()
    assert memory is not None, "the compiler reports its buffers"
    return Report(
        temporaries=memory.temp_size_in_bytes,
        arguments=memory.argument_size_in_bytes,
        results=memory.output_size_in_bytes,
        collectives=collectives(program.as_text() or ""),
    )


def collectives(text: str) -> dict[str, tuple[int, int]]:
    """kind -> (count, bytes of the results) of the collectives in the text of an HLO module."""
    found: dict[str, tuple[int, int]] = {}
    for result, kind, started in re.findall(rf"= (.*?) ({_COLLECTIVES})(-start)?\(", text):
        arrays = re.findall(r"(\w+)\[([\d,]*)\]", result)
        if started and kind != "all-reduce":
            arrays = arrays[len(arrays) // 2 :]  # (operands, results)
        size = sum(
            _BYTES.get(dtype, 4) * math.prod(int(n) for n in dims.split(",") if n)
            for dtype, dims in arrays
        )
        count, total = found.get(kind, (0, 0))
        found[kind] = (count + 1, total + size)
    return found
