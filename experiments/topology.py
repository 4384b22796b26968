# SPDX-License-Identifier: Apache-2.0
"""Compiling for a TPU or a GPU that is not there, and what the compiled program says of itself.

For a train step: ``python -m experiments.run --config=X --mode=compile --topology=v5e:16x16``.

XLA's own compilers run on a plain CPU machine (``pip install 'xloss[compile]'``). What they give
repeats exactly anywhere: whether it compiles, bytes per device, collectives. They give no time.
``jax.experimental.topologies`` is used because no stable name exists for it.
"""

import dataclasses
import importlib.util
import math
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import jax

from experiments.data.options import nearest
from experiments.errors import BadInput

_H200 = Path(__file__).parent / "h200_target_config.txtpb"
_EXAMPLES = ("v5e:2x4", "v5e:16x16", "v6e:16x16", "v5p:2x2x2", "v5p:4x4x4", "h200:1", "h200:8")
_NAMES = re.compile(r"(?:v5e|v6e):\d+x\d+|v5p:\d+x\d+x\d+|h200:(?P<gpus>[1-9]\d*)")
# Without these libtpu asks a metadata server, which only a TPU machine has, and lets one process at
# a time compile.
_NO_TPU_HERE = {
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-8",
    "TPU_WORKER_HOSTNAMES": "localhost",
}
#: Bytes of a device that a program may take, by the machine's name before the colon.
#: TPUs: the limit that libtpu 0.0.42.1 names when it refuses a program that is too large (of 16, 32
#: and 95 GB of the chip). H200: 3/4 of the 150,754,820,096 bytes in the description beside this
#: file, what JAX sets aside when it starts; XLA_PYTHON_CLIENT_MEM_FRACTION asks for another part.
USABLE_BYTES = {
    "v5e": round(15.75 * 2**30),
    "v6e": round(31.25 * 2**30),
    "v5p": round(95.74 * 2**30),
    "h200": 150_754_820_096 * 3 // 4,
}
_KINDS = (
    "all-reduce|all-gather|reduce-scatter|ragged-all-to-all|all-to-all|collective-permute"
    "|collective-broadcast"
)
_COLLECTIVE = re.compile(
    rf"^\s*(?:ROOT )?%?[\w.-]+ = ([^\"%]+?) ({_KINDS})(-start)?\((.*)", re.MULTILINE
)
#: How the devices of a collective are written: one by one, as [groups, devices of each], as a mesh
#: whose axes from the second pair of brackets on are gone along.
_LISTED = re.compile(r"replica_groups=\{\{([\d,]+)\}")
_COUNTED = re.compile(r"replica_groups=\[\d+,(\d+)\]")
_MESH = re.compile(r"replica_groups=mesh\[([^\]]*)\][^{]*\{([^}]*)\}")


def devices(name: str) -> Sequence[jax.Device]:
    """Abstract devices of a machine, for ``jax.make_mesh(..., devices=)``.

    Call it before JAX starts a device: it makes the CPU this process's own platform, unless one is
    chosen (``JAX_PLATFORMS``), since a plugin without its hardware fails where JAX looks for it.

    Args:
      name: such as v5e:2x4 (chips along each side of a TPU slice) or h200:8 (GPUs of one host).

    Raises:
      BadInput: the name is not understood, no such slice exists, or the compiler for it is not
        installed.
    """
    found = _NAMES.fullmatch(name)
    if found is None:
        raise BadInput(_unknown(name))
    gpus = found["gpus"]
    package = "jax_cuda12_plugin" if gpus else "libtpu"
    if importlib.util.find_spec(package) is None:
        raise BadInput(
            f"topology: expected {package} for {name}, which is not installed: pip install "
            "'xloss[compile]'"
        )
    for variable, value in _NO_TPU_HERE.items():
        os.environ.setdefault(variable, value)
    if not jax.config.jax_platforms:  # pyrefly: ignore[missing-attribute]
        jax.config.update("jax_platforms", "cpu")
    from jax.experimental import topologies

    shape = f"1x1x{gpus}"
    try:
        if gpus:
            return topologies.get_topology_desc(
                platform="cuda",
                topology_name=shape,
                topology=shape,
                target_config=_H200.read_text(encoding="utf-8"),
            ).devices
        return topologies.get_topology_desc(platform="tpu", topology_name=name).devices
    except jax.errors.JaxRuntimeError as error:
        raise BadInput(f"{_unknown(name)} ({error})") from error


def usable_bytes(name: str) -> int:
    """Bytes of one device that a program may take, for a machine that :func:`devices` knows."""
    return USABLE_BYTES[name.partition(":")[0]]


def _unknown(name: str) -> str:
    return (
        f"topology: expected one like {', '.join(_EXAMPLES)}, got {name!r}"
        f"{nearest(name, _EXAMPLES)}"
    )


class Collective(NamedTuple):
    """A collective that stands in a program.

    Attributes:
      kind: such as all-reduce.
      size: bytes of its results on one device.
      group: devices that it goes over together; 0 if all, or if the program does not say.
    """

    kind: str
    size: int
    group: int


@dataclasses.dataclass(frozen=True)
class Report:
    """What a compiled program needs on each device.

    Attributes:
      temporaries: bytes beside arguments and results.
      arguments: bytes.
      results: bytes.
      in_place: bytes of results that take the place of donated arguments.
      peak: bytes of all that lives at once; 0 where the compiler does not say. On a TPU it can
        exceed the sum of the others, so a limit on temporaries should hold for it, too.
      flops: XLA's estimate, NaN where it makes none.
      each: every collective, as it stands in the program.

    What stands in a loop counts once, in `flops` and in `each`.
    """

    temporaries: int
    arguments: int
    results: int
    in_place: int
    peak: int
    flops: float
    each: tuple[Collective, ...]

    @property
    def collectives(self) -> dict[str, tuple[int, int]]:
        """Kind -> (how many stand in the program, bytes of their results)."""
        return _added(self.each, lambda one: one.kind)

    @property
    def by_group(self) -> dict[str, tuple[int, int]]:
        """The same for every kind and number of devices, by names such as "all-reduce of 4"."""
        return _added(self.each, lambda one: f"{one.kind} of {one.group or 'all'}")

    @property
    def needed(self) -> int:
        """Bytes that a device must have for it."""
        return max(self.peak, self.arguments + self.results - self.in_place + self.temporaries)


def report(program: jax.stages.Compiled) -> Report:
    """Reads a compiled program."""
    memory, cost = program.memory_analysis(), program.cost_analysis() or {}
    assert memory is not None, "the compiler reports its buffers"
    return Report(
        temporaries=memory.temp_size_in_bytes,
        arguments=memory.argument_size_in_bytes,
        results=memory.output_size_in_bytes,
        in_place=memory.alias_size_in_bytes,
        peak=memory.peak_memory_in_bytes,
        flops=float(cost.get("flops", math.nan)),
        each=tuple(each_collective(program.as_text() or "")),
    )


def listed(collectives: Mapping[str, tuple[int, int]], size: Callable[[int], str]) -> str:
    """Collectives on one line: "2 all-gather (5.3), 1 all-reduce (0.1)", bytes as `size` has it."""
    shown = (f"{n} {kind} ({size(total)})" for kind, (n, total) in sorted(collectives.items()))
    return ", ".join(shown) or "none"


def each_collective(text: str) -> list[Collective]:
    """The collectives in the text of an HLO module."""
    found = []
    for shape, kind, started, rest in _COLLECTIVE.findall(text):
        parts = _parts(shape)
        nested = any(part.startswith("(") for part in parts)
        if started and len(parts) > 1 and (nested or kind != "all-reduce"):
            shape = parts[1]  # (operands, results, what the runtime needs)
        found.append(Collective(kind, _size(shape), _group(rest)))
    return found


def _added(
    each: Iterable[Collective], name: Callable[[Collective], str]
) -> dict[str, tuple[int, int]]:
    found: dict[str, tuple[int, int]] = {}
    for one in each:
        count, total = found.get(name(one), (0, 0))
        found[name(one)] = (count + 1, total + one.size)
    return found


def _group(rest: str) -> int:
    if match := _LISTED.search(rest):
        return match[1].count(",") + 1
    if match := _COUNTED.search(rest):
        return int(match[1])
    if match := _MESH.search(rest):
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", match[1]))
        return math.prod(int(sizes[axis]) for axis in re.findall(r"\w+", match[2]))
    return 0


def _parts(shape: str) -> list[str]:
    """The shapes in a tuple of shapes, which may be tuples; an array is the only one in itself."""
    if not shape.startswith("("):
        return [shape]
    parts, depth = [""], 0
    for letter in shape[1:-1]:
        depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and not depth:
            parts.append("")
        else:
            parts[-1] += letter
    return [re.sub(r"/\*.*?\*/", "", part).strip() for part in parts]


def _size(shape: str) -> int:
    """Bytes of all arrays in a shape."""
    size = 0
    for dtype, dims in re.findall(r"(\w+)\[([\d,<=]*)\]", shape):
        width = re.search(r"\d+", dtype)  # tokens have none
        bits = 8 if dtype == "pred" else int(width[0]) if width else 0
        count = math.prod(int(n.removeprefix("<=")) for n in dims.split(",") if n)
        size += math.ceil(bits * count / 8)
    return size
