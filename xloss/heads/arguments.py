# SPDX-License-Identifier: Apache-2.0
"""The static checks that all streaming heads share, and what they make of their arguments."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.typing import ArrayLike

from xloss import checks, numerics
from xloss.heads import plan
from xloss.heads.engine import Arrays, Layer
from xloss.heads.scoring import Head, Settings, unit_length
from xloss.heads.sharded import check_axis
from xloss.typing import Array


@dataclasses.dataclass(frozen=True)
class Given:
    """Arguments of a head after their checks.

    Attributes:
      function: its public name, for messages.
      hidden: [..., d].
      kernel: [d, V].
      bias: [V] or None.
      labels: [...], or None for a head that takes none.
      where: bool [...] or None.
      classes: how many columns are classes, over all devices.
      devices: how many devices share the columns of ``kernel`` as it is given here.
      shards: how many share the tokens.
      mesh: of the class axis, or None.
      class_axis: its name, or None.
      budget: max_temp_bytes.
    """

    function: str
    hidden: Array
    kernel: Array
    bias: Array | None
    labels: Array | None
    where: Array | None
    classes: int
    devices: int
    shards: int
    mesh: Mesh | None
    class_axis: str | None
    budget: int | None

    @property
    def size(self) -> plan.Size:
        """What the plan of a head of one matrix product follows from."""
        dtypes = (self.hidden.dtype, self.kernel.dtype)
        working = numerics.working_dtype(jnp.promote_types(*dtypes))
        return plan.Size(
            function=self.function,
            tokens=max(1, self.hidden.size // max(1, self.hidden.shape[-1])),
            width=self.hidden.shape[-1],
            held=min(self.kernel.shape[-1] // self.devices, self.classes),
            itemsize=working.itemsize,
            low=any(dtype != working for dtype in dtypes),
            shards=self.shards,
            inner=0,
            budget=self.budget,
        )

    def layer(self, head: Head, sizes: plan.Plan) -> Layer:
        """The static half of the layer."""
        return Layer(head, sizes, self.classes, self.class_axis)


def check(
    function: str,
    hidden: ArrayLike,
    kernel: ArrayLike,
    labels: ArrayLike | None,
    *,
    kernel_name: str = "kernel",
    bias: ArrayLike | None = None,
    where: ArrayLike | None = None,
    num_classes: int | None = None,
    max_temp_bytes: int | None = None,
    mesh: Mesh | None = None,
    class_axis: str | None = None,
) -> Given:
    """Checks what every head is given; see :func:`xloss.heads.linear_statistics` for the meaning.

    Raises:
      TypeError: wrong dtypes.
      ValueError: shapes that do not fit, numbers out of range, an axis that is not there.
    """
    hidden = checks.floating(function, "hidden", hidden)
    kernel = checks.floating(function, kernel_name, kernel)
    shapes_fit = hidden.ndim >= 1 and kernel.ndim == 2 and hidden.shape[-1] == kernel.shape[0]
    if not shapes_fit or 0 in kernel.shape:
        turned = kernel.ndim == 2 and hidden.ndim >= 1 and hidden.shape[-1] == kernel.shape[1]
        hint = " (classes are columns: transpose it)" if turned else ""
        raise ValueError(
            f"{function}: expected hidden [..., d] and {kernel_name} [d, V] with d, V >= 1, got "
            f"{hidden.shape} and {kernel.shape}{hint}"
        )
    if labels is not None:
        labels = checks.integer(function, "labels", labels)
        checks.same_shape(function, "labels", labels, hidden.shape[:-1])
    if bias is not None:
        bias = checks.floating(function, "bias", bias)
        checks.same_shape(function, "bias", bias, kernel.shape[1:])
    for name, value in (("num_classes", num_classes), ("max_temp_bytes", max_temp_bytes)):
        if value is not None and (type(value) is not int or value < 1):
            raise ValueError(f"{function}: expected {name} to be an int >= 1, got {value!r}")
    devices, shards = check_axis(function, kernel, mesh, class_axis)
    columns = kernel.shape[-1]
    if class_axis is not None and mesh is None:
        columns *= jax.lax.axis_size(class_axis)
    if num_classes is not None and num_classes > columns:
        raise ValueError(
            f"{function}: expected num_classes <= {columns}, the columns of {kernel_name}, got "
            f"{num_classes}"
        )
    return Given(
        function=function,
        hidden=hidden,
        kernel=kernel,
        bias=bias,
        labels=labels,
        where=checks.mask(function, where, hidden.shape[:-1]),
        classes=columns if num_classes is None else num_classes,
        devices=devices,
        shards=shards,
        mesh=mesh,
        # XLA refuses to partition a program that is manual over an axis of one device alone.
        class_axis=None if mesh is not None and devices == 1 else class_axis,
        budget=max_temp_bytes,
    )


def arrays(
    hidden: Array,
    kernel: Array,
    bias: Array | None,
    settings: Settings,
    labels: Array | None,
    where: Array | None,
    *,
    layer: Layer,
    normalize: bool = False,
) -> Arrays:
    """What the engine computes with: tokens in one axis, masked ones zeroed before any product."""
    if layer.axis is None and kernel.shape[-1] > layer.classes:
        # Padding that one device holds is cut off; that of several is masked block by block.
        kernel = kernel[:, : layer.classes]
        bias = None if bias is None else bias[: layer.classes]
    width = hidden.shape[-1]
    if where is not None:
        hidden = jnp.where(where[..., None], hidden, jnp.zeros_like(hidden))
        labels = None if labels is None else numerics.masked(labels, where)
    if normalize:
        hidden = unit_length(numerics.promote(hidden), -1).astype(hidden.dtype)
    hidden = hidden.reshape(-1, width)
    wide = numerics.working_dtype(jnp.promote_types(hidden.dtype, kernel.dtype))
    settings = {name: jnp.asarray(value, wide) for name, value in settings.items()}
    labels = jnp.zeros(hidden.shape[0], jnp.int32) if labels is None else labels.reshape(-1)
    return Arrays(hidden, kernel, bias, settings, labels)


def call(function: str, plain: str, core: Callable[..., Any], *args: Any, **static: Any) -> Any:
    """core(*args, **static), with a sentence of ours where JAX refuses forward mode."""
    try:
        return core(*args, **static)
    except TypeError as error:
        if "forward-mode" not in str(error):
            raise
        raise TypeError(
            f"{function}: expected reverse mode (grad, vjp) or forward over reverse, got plain "
            f"forward mode (jvp, jacfwd), which a streaming head does not have; use {plain}, "
            "which differentiates in any order and holds all logits"
        ) from error
