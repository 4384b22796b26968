# SPDX-License-Identifier: Apache-2.0
"""Bytes of the head of Gemma 2 2B on an H200 and a TPU v5e, compiled without either.

Value and both gradients of the mean cross-entropy, bfloat16 operands, 8192 tokens a device; needs
``pip install 'xloss[compile]'``. Nothing runs, so there is no time to report. Plain casts a
bfloat16 product to float32; a product in float32 takes more on the H200 and less on the TPU.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import optax
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

import xloss
from experiments import topology
from experiments.benchmarks import record
from experiments.benchmarks.heads import GEMMA, verdict
from experiments.errors import BadInput
from experiments.program import run_program
from xloss.classification import cross_entropy
from xloss.heads import linear_mean_loss, linear_statistics

#: row -> (machine, mesh shape and axes, class axis or None; greatest temporaries in MB or None)
ROWS: dict[str, tuple[str, dict[str, int], str | None, float | None]] = {
    "plain": ("h200:1", {"data": 1}, None, None),
    "linear_statistics": ("h200:1", {"data": 1}, None, 200.0),
    "plain, data parallel": ("v5e:2x4", {"data": 8}, None, None),
    "linear_statistics, data parallel": ("v5e:2x4", {"data": 8}, None, 1350.0),
    "linear_statistics, classes over model": ("v5e:2x4", {"data": 2, "model": 4}, "model", 500.0),
    # The kernel's gradient in float32, 2,359 MB (a quarter of it over model), and 5 % beside it.
    "linear_mean_loss": ("h200:1", {"data": 1}, None, 2477.0),
    "linear_mean_loss, data parallel": ("v5e:2x4", {"data": 8}, None, 2477.0),
    "linear_mean_loss, classes over model": ("v5e:2x4", {"data": 2, "model": 4}, "model", 620.0),
}


def plain(hidden: jax.Array, kernel: jax.Array, labels: jax.Array) -> jax.Array:
    """The mean cross-entropy of float32 logits."""
    logits = (hidden @ kernel).astype(jnp.float32)
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels))


def streamed(
    row: str, mesh: Mesh, class_axis: str | None, budget: int | None
) -> Callable[..., jax.Array]:
    """The mean cross-entropy through the door that a row names."""
    where = {"mesh": mesh, "class_axis": class_axis, "max_temp_bytes": budget}

    def lean(hidden, kernel, labels):
        return xloss.reduce(cross_entropy(linear_statistics(hidden, kernel, labels, **where)))

    def fast(hidden, kernel, labels):
        return linear_mean_loss(hidden, kernel, labels, loss=cross_entropy, **where)

    return fast if row.startswith("linear_mean_loss") else lean


def measure(row: str, max_temp_bytes: int | None = None) -> topology.Report:
    """Compiles a row for its machine."""
    machine, axes, class_axis, _ = ROWS[row]
    mesh = jax.make_mesh(
        tuple(axes.values()),
        tuple(axes),
        devices=topology.devices(machine),
        axis_types=(AxisType.Auto,) * len(axes),
    )
    objective = (
        plain if row.startswith("plain") else streamed(row, mesh, class_axis, max_temp_bytes)
    )
    tokens, width, classes = GEMMA
    tokens *= axes["data"]
    by_token, by_class = NamedSharding(mesh, P("data")), NamedSharding(mesh, P(None, class_axis))
    arguments = (
        jax.ShapeDtypeStruct((tokens, width), jnp.bfloat16, sharding=by_token),
        jax.ShapeDtypeStruct((width, classes), jnp.bfloat16, sharding=by_class),
        jax.ShapeDtypeStruct((tokens,), jnp.int32, sharding=by_token),
    )
    whole = NamedSharding(mesh, P())
    program = jax.jit(
        jax.value_and_grad(objective, argnums=(0, 1)), out_shardings=(whole, (by_token, by_class))
    )
    return topology.report(program.lower(*arguments).compile())


def table() -> str:
    """The rows whose compiler is installed."""
    lines = [
        f"tokens a device, width, classes: {GEMMA}; bfloat16 operands; MB a device.",
        "",
        "| machine | program | temp | goal | gradients | peak | collectives in the program (MB) |",
        "| --- | --- | ---: | --- | ---: | ---: | --- |",
    ]
    for row, (machine, _, _, limit) in ROWS.items():
        try:
            found = measure(row)
        except BadInput as error:
            lines.append(f"| {machine} | {row} | unmeasured: {error} | | | | |")
            continue
        goal = "" if limit is None else verdict(found.temporaries / 1e6, limit)
        shown = topology.listed(found.collectives, lambda size: f"{size / 1e6:.1f}")
        lines.append(
            f"| {machine} | {row} | {found.temporaries / 1e6:.0f} | {goal} | "
            f"{found.results / 1e6:.0f} | {found.peak / 1e6:.0f} | {shown} |"
        )
    return "\n".join(lines)


def main(_: Sequence[str]) -> None:
    """Shows the table."""
    record.show("accelerators", "The streaming head, compiled elsewhere", table())


if __name__ == "__main__":
    run_program("accelerators", main)
