# SPDX-License-Identifier: Apache-2.0
"""Heads whose classes are spread over devices.

Inside ``jax.shard_map`` a head is given its own columns and the name of the axis. Under plain jit
the sharding of an argument cannot be read from its type, so the mesh and the axis are arguments,
and :func:`spread` enters shard_map over that axis alone: tokens stay sharded as they are.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from xloss import numerics
from xloss.heads.engine import Arrays
from xloss.typing import Array, PyTree


def check_axis(
    function: str, kernel: Array, mesh: Mesh | None, class_axis: str | None
) -> tuple[int, int]:
    """(devices that share the classes, devices that share the tokens, as far as one can know).

    Raises:
      ValueError: the axis is not in the mesh, classes do not divide over it, or neither a mesh is
        given nor the kernel varies over the axis.
    """
    if mesh is None:
        if class_axis is not None and class_axis not in varying(kernel):
            raise ValueError(
                f"{function}: expected the kernel to be this device's classes inside shard_map "
                f"over {class_axis!r} (with check_vma=True, or its gradient would be wrong), or "
                f"mesh= beside class_axis=; got a kernel that varies over {sorted(varying(kernel))}"
            )
        return 1, 1
    if class_axis is None:
        return 1, mesh.size
    if class_axis not in mesh.shape:
        raise ValueError(
            f"{function}: expected class_axis among the axes {tuple(mesh.shape)} of mesh, got "
            f"{class_axis!r}"
        )
    devices = mesh.shape[class_axis]
    if kernel.shape[-1] % devices:
        raise ValueError(
            f"{function}: expected classes that divide over the {devices} devices of "
            f"{class_axis!r}, got kernel {kernel.shape}; pad its columns and give num_classes="
        )
    return devices, mesh.size // devices


def divided(
    hidden: Array, tokens: int, mesh: Mesh | None, class_axis: str | None
) -> tuple[str, ...]:
    """The axes of the mesh over which tokens can be divided evenly: all but the classes', or ()."""
    if mesh is None or varying(hidden):
        return ()
    axes = tuple(name for name, size in mesh.shape.items() if name != class_axis and size > 1)
    return axes if tokens % math.prod(mesh.shape[name] for name in axes) == 0 else ()


def varying(x: Array) -> frozenset[str]:
    """The mesh axes over which x differs from device to device, inside shard_map."""
    kind = jax.typeof(x)
    found = getattr(kind, "vma", None)
    return frozenset(kind.mat.varying if found is None else found)


def spread(
    function: Callable[[Arrays, Any, Any], PyTree],
    arrays: Arrays,
    tokens: PyTree = None,
    shared: PyTree = None,
    *,
    mesh: Mesh | None,
    class_axis: str | None,
    token_axes: tuple[str, ...] = (),
) -> PyTree:
    """function(arrays, tokens, shared) with each device's own columns; the same on all of them.

    Args:
      function: computes with ``arrays.first`` set, and joins what devices find. With
        ``token_axes`` it returns sums over tokens, which are summed over those axes, too.
      arrays: of the whole layer (with a mesh), or of this device's columns (in shard_map).
      tokens: more arrays, [N, ...].
      shared: more arrays, which depend neither on tokens nor on classes.
      mesh: of the classes, or None inside shard_map.
      class_axis: the axis, or None where classes are not spread.
      token_axes: axes of the mesh over which the N tokens are divided, each device taking its own;
        () leaves them as they are sharded.
    """
    if mesh is None or (class_axis is None and not token_axes):
        if class_axis is not None:
            first = jax.lax.axis_index(class_axis) * arrays.held
            arrays = dataclasses.replace(arrays, first=first.astype(jnp.int32))
        return function(*unified(arrays, tokens, shared, class_axis))
    firsts = None
    if class_axis is not None:
        devices = mesh.shape[class_axis]
        firsts = jnp.arange(devices, dtype=jnp.int32) * (arrays.held // devices)

    def local(arrays, tokens, shared):
        if class_axis is not None:
            arrays = dataclasses.replace(arrays, first=arrays.first[0])
        found = function(*unified(arrays, tokens, shared, class_axis))
        return jax.lax.psum(found, token_axes) if token_axes else found

    def of_columns(x):
        return PartitionSpec(*[None] * (x.ndim - 1), class_axis)

    whole, by_class = PartitionSpec(), PartitionSpec(class_axis)
    by_token = PartitionSpec(token_axes) if token_axes else whole
    specs = dataclasses.replace(
        jax.tree.map(lambda _: whole, arrays),
        hidden=by_token,
        columns=jax.tree.map(of_columns, arrays.columns),
        bias=None if arrays.bias is None else by_class,
        labels=by_token,
        first=None if firsts is None else by_class,
    )
    run = jax.shard_map(
        local,
        mesh=mesh,
        in_specs=(specs, by_token, whole),
        out_specs=whole,
        axis_names={*token_axes, *(() if class_axis is None else (class_axis,))},
    )
    return run(dataclasses.replace(arrays, first=firsts), tokens, shared)


def unified(
    arrays: Arrays, tokens: PyTree, shared: PyTree, class_axis: str | None
) -> tuple[Arrays, PyTree, PyTree]:
    """Lets everything vary over the union of the axes that anything varies over.

    What is cast here gets the sum over devices in its gradient, from the cast's transpose; rules
    inside need none. Labels, ``tokens`` and ``shared`` stay the same along the class axis, as the
    result must.
    """
    leaves = [x for x in jax.tree.leaves((arrays, tokens, shared)) if isinstance(x, jax.Array)]
    union = frozenset().union(*(varying(x) for x in leaves))
    if not union:
        return arrays, tokens, shared
    known = union - {class_axis}
    _, *others = arrays.learned
    columns, bias, settings = _cast(others, union)
    # Its gradient is summed over devices in float32: the sum is finer than in bfloat16, which XLA's
    # CPU compiler cannot sum here at all (it aborts).
    hidden = _cast(numerics.promote(arrays.hidden), union).astype(arrays.hidden.dtype)
    labels, tokens, shared = _cast((arrays.labels, tokens, shared), known)
    arrays = dataclasses.replace(
        arrays, hidden=hidden, columns=columns, bias=bias, settings=settings, labels=labels
    )
    return arrays, tokens, shared


def _cast(tree: PyTree, axes: frozenset[str]) -> PyTree:
    def cast(x):
        missing = tuple(sorted(axes - varying(x)))
        return jax.lax.pcast(x, missing, to="varying") if missing else x

    return jax.tree.map(cast, tree)
