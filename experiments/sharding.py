# SPDX-License-Identifier: Apache-2.0
"""Where arrays live: one mesh over all devices, the batch over `data`, parameters everywhere.

"pjit-sharded" means this: `jax.jit` with NamedSharding on arguments and results. The compiler
inserts the collectives; nothing in the loop or the losses mentions a device.
"""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from experiments.errors import BadInput


def make_mesh() -> Mesh:
    """A (`data`, `model`) mesh over the devices of all processes, Auto axes, all on `data`."""
    return jax.make_mesh(
        (jax.device_count(), 1), ("data", "model"), axis_types=(AxisType.Auto,) * 2
    )


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


def to_devices(batch: Mapping[str, np.ndarray], mesh: Mesh) -> dict[str, Any]:
    """What a jitted function of the mesh takes as a batch spread over `data`.

    Args:
      batch: this process's rows; not to be changed afterwards.
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
