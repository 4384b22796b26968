# SPDX-License-Identifier: Apache-2.0
r"""Where arrays live: one mesh over all devices, the batch over `data`, parameters by rule.

"pjit-sharded" means this: `jax.jit` with NamedSharding on arguments and results. The compiler
inserts the collectives; nothing in the loop or the losses mentions a device.

``config.mesh.model`` is the number of devices along the mesh axis `model`; the others are along
`data`. ``config.sharding`` says which parameters are spread, by name:

    config.sharding = (
        (r"hidden_\d+/kernel", (None, "model")),  # the columns of every hidden kernel
        (r"^output$", (None, "model")),  # the classes of the output layer
    )

A rule is a regular expression, searched for in a parameter's name ("hidden_0/kernel"), and for each
of the parameter's axes the mesh axis over which it is spread, None for none; axes left out at the
end are not spread. The first rule that is found decides; a parameter without one is on every
device. An array of the optimizer that has a parameter's name and shape lives where the parameter
does, all else is on every device. `data` may stand in a rule, too: parameters are then spread over
the devices that share the batch (fully sharded data parallelism), and gathered where they are used.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from experiments.data.options import nearest
from experiments.errors import BadInput
from experiments.rules import Rule

AXES = ("data", "model")
#: What the keys of the config must be; `is_rules` looks closer.
RULES: dict[str, Rule] = {
    "mesh.model": Rule(int, "an integer >= 1", lambda v: v >= 1),
    "sharding": Rule(
        (tuple, list),  # JSON has no tuples
        'a tuple of rules such as (r"hidden_0/kernel", (None, "model"))',
        lambda v: all(_is_rule(rule) for rule in v),
    ),
}


def make_mesh(model: int = 1, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A (`data`, `model`) mesh with Auto axes.

    Args:
      model: devices along `model`; the others are along `data`.
      devices: of the mesh; None: those of all processes.

    Raises:
      BadInput: `model` does not divide the number of devices.
    """
    devices = jax.devices() if devices is None else devices
    if len(devices) % model:
        raise BadInput(
            f"--config.mesh.model: expected a divisor of the {len(devices)} devices, got {model}"
        )
    shape = (len(devices) // model, model)
    kinds = (AxisType.Auto,) * 2
    try:
        return jax.make_mesh(shape, AXES, devices=devices, axis_types=kinds)
    except NotImplementedError:
        # 4 devices of a 16 x 16 slice are no whole side of it. No stable name can cut a side.
        from jax.experimental import mesh_utils

        placed = mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
        return Mesh(placed, AXES, axis_types=kinds)


def replicated(mesh: Mesh) -> NamedSharding:
    """Every device holds the whole array."""
    return NamedSharding(mesh, P())


def over_data(mesh: Mesh) -> NamedSharding:
    """The first axis is spread over `data`."""
    return NamedSharding(mesh, P("data"))


def check_batch_size(batch_size: int, mesh: Mesh, name: str = "batch_size") -> None:
    """Raises BadInput unless every device on `data` gets the same number of examples."""
    devices = mesh.shape["data"]
    if batch_size % devices:
        raise BadInput(
            f"--config.data.{name}: expected a multiple of the {devices} devices on the mesh "
            f"axis 'data', got {batch_size}"
        )


def of_state(state: Any, rules: Sequence[Sequence[Any]], mesh: Mesh) -> Any:
    """The sharding of every array of a train state.

    Args:
      state: pytree of arrays or shapes; the parameters are below "params".
      rules: `config.sharding`.
      mesh: the mesh.

    Raises:
      BadInput: a rule that no parameter has, that has more axes than the parameter, or that spreads
        an axis over devices that do not divide it.
    """
    found: dict[tuple, tuple[tuple[int, ...], P]] = {}
    used, names = set(), []
    for path, leaf in jax.tree_util.tree_leaves_with_path(state["params"]):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        names.append(name)
        number = next((i for i, (rule, _) in enumerate(rules) if re.search(rule, name)), None)
        if number is None:
            continue
        used.add(number)
        found[path] = (leaf.shape, _spec(rules[number], name, leaf.shape, mesh))
    for number, (rule, _) in enumerate(rules):
        if number not in used and not any(re.search(rule, name) for name in names):
            raise BadInput(
                f"--config.sharding: expected rules that a parameter's name has, got {rule!r}; "
                f"names: {', '.join(names[:8])}{', ...' if len(names) > 8 else ''}"
                f"{nearest(rule, names)}"
            )

    def placed(path: tuple, leaf: Any) -> NamedSharding:
        for start in range(1, len(path)):
            shape, spec = found.get(path[start:], (None, None))
            if shape == leaf.shape and spec is not None:
                return NamedSharding(mesh, spec)
        return replicated(mesh)

    return jax.tree_util.tree_map_with_path(placed, state)


def only_axis(rules: Sequence[Sequence[Any]], name: str, axis: int) -> str | None:
    """The one mesh axis over which an axis of a parameter is spread; None for none or several."""
    for rule, axes in rules:
        if re.search(rule, name):
            names = _names(axes[axis]) if axis < len(axes) else ()
            return names[0] if len(names) == 1 else None
    return None


def _spec(rule: Sequence[Any], name: str, shape: tuple[int, ...], mesh: Mesh) -> P:
    axes = [tuple(axis) if isinstance(axis, list) else axis for axis in rule[1]]
    if len(axes) > len(shape):
        raise BadInput(
            f"--config.sharding: expected at most the {len(shape)} axes of {name} {shape}, got "
            f"{len(axes)} in {rule[0]!r}"
        )
    for size, axis in zip(shape, axes, strict=False):
        count = int(np.prod([mesh.shape[a] for a in _names(axis)]))
        if size % count:
            raise BadInput(
                f"--config.sharding: expected axes of {name} {shape} that the {count} devices of "
                f"{axis!r} divide, got {size} in {rule[0]!r}"
            )
    return P(*axes)


def _names(axis: Any) -> tuple[str, ...]:
    if axis is None:
        return ()
    return (axis,) if isinstance(axis, str) else tuple(axis)


def _is_rule(rule: Any) -> bool:
    """Whether it is (a regular expression, (None, an axis, or several, for each axis))."""
    if not (isinstance(rule, tuple | list) and len(rule) == 2):
        return False
    pattern, axes = rule
    if not isinstance(pattern, str) or not isinstance(axes, tuple | list):
        return False
    kinds = (str, tuple, list)
    if not all(axis is None or isinstance(axis, kinds) for axis in axes):
        return False
    named = [name for axis in axes for name in _names(axis)]
    if not all(name in AXES for name in named) or len(named) != len(set(named)):
        return False
    try:
        re.compile(pattern)
    except re.error:
        return False
    return True


def jit_rows(function: Callable[..., Any], mesh: Mesh, arrays: int = 1) -> Any:
    """Jits (parameters, arrays of a batch...) -> arrays with a row for every example.

    Args:
      function: what to jit.
      mesh: the batch's arrays and the results are spread over its `data`; the parameters stay where
        they are.
      arrays: how many arguments come after the parameters.
    """
    spread = over_data(mesh)
    return jax.jit(function, in_shardings=(None, *[spread] * arrays), out_shardings=spread)


def data_share(mesh: Mesh) -> tuple[int, int]:
    """(i, n): this process's devices work on the i-th of n parts of every batch.

    Processes whose devices differ along `model` alone work on the same part.

    Raises:
      BadInput: the processes' parts overlap without being the same, or differ in size.
    """
    rows: dict[int, set[int]] = {}
    for row, devices in enumerate(mesh.devices):
        for device in devices:
            rows.setdefault(device.process_index, set()).add(row)
    parts = sorted({tuple(sorted(part)) for part in rows.values()})
    if sum(map(len, parts)) != len(mesh.devices) or len({len(part) for part in parts}) > 1:
        raise BadInput(
            f"--config.mesh.model: expected a number that cuts {len(rows)} processes of "
            f"{mesh.size // len(rows)} devices into equal parts, got {mesh.shape['model']}"
        )
    return parts.index(tuple(sorted(rows[jax.process_index()]))), len(parts)


def to_devices(batch: Mapping[str, np.ndarray], mesh: Mesh) -> dict[str, Any]:
    """What a jitted function of the mesh takes as a batch spread over `data`.

    Args:
      batch: this process's part (see `data_share`); not to be changed afterwards.
      mesh: over the devices of all processes.

    Returns:
      Global arrays; on one device the rows as they are, which jit sends there itself in a tenth of
      the time.
    """
    if mesh.size == 1:
        return dict(batch)
    sharding = over_data(mesh)
    if sharding.is_fully_addressable:  # one call for all: half of the time
        return jax.device_put(dict(batch), sharding)
    return {
        name: jax.make_array_from_process_local_data(sharding, value)
        for name, value in batch.items()
    }


def may_run_ahead(mesh: Mesh) -> bool:
    """Whether a program may be asked for while the one before it still runs.

    Not where a process has several CPU devices: they share a pool of threads, in which programs
    with collectives can wait for each other for ever; XLA then aborts the process.
    """
    ours = mesh.local_devices
    return len(ours) == 1 or ours[0].platform != "cpu"


def to_host(array: jax.Array | np.ndarray) -> np.ndarray:
    """The whole of a global array as NumPy, on every process."""
    if isinstance(array, np.ndarray) or array.is_fully_addressable:
        return np.asarray(array)
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.process_allgather(array, tiled=True))


def wait_for_main(what: str) -> None:
    """Returns when every process has come here; `what` names the place."""
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(what)


def of_processes(number: float) -> list[float]:
    """A number of this process, as of every process in their order; all of them must call it."""
    if jax.process_count() == 1:
        return [number]
    from jax.experimental import multihost_utils

    told = multihost_utils.process_allgather(np.asarray(number, np.float32))
    return [float(one) for one in np.asarray(told)]


def agree(problem: str) -> str:
    """The first problem that any process has found, on every process; "" if none has.

    Args:
      problem: one line that says what is wrong on this process, "" for nothing.
    """
    if jax.process_count() == 1:
        return problem
    from jax.experimental import multihost_utils

    line = np.zeros(1024, np.uint8)
    text = problem.encode()[: line.size]
    line[: len(text)] = np.frombuffer(text, np.uint8)
    told = np.asarray(multihost_utils.process_allgather(line))
    lines = (bytes(row).rstrip(b"\0").decode(errors="replace") for row in told)
    return next(filter(None, lines), "")
