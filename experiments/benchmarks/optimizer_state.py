# SPDX-License-Identifier: Apache-2.0
"""Bytes of FRUGAL's state: `python -m experiments.benchmarks.optimizer_state`.

Of the projectable kernels of transformers, in bytes over those of AdamW (two float32 numbers an
entry), at density 0.25; the goal is <= 0.30 for columns, rows and blocks. Nothing is allocated: the
states are made of shapes, so the numbers repeat exactly.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from experiments.benchmarks import record
from experiments.program import run_program
from xloss import optim

DENSITY, WIDTH = 0.25, 768
#: Kernels of a layer, as multiples of the width.
LAYERS = {
    "q, k, v, o, up, down": {"q": (1, 1), "k": (1, 1), "v": (1, 1), "o": (1, 1), "up": (1, 4),
                             "down": (4, 1)},
    "fused qkv, o, up, down": {"qkv": (1, 3), "o": (1, 1), "up": (1, 4), "down": (4, 1)},
}  # fmt: skip
DEPTHS = (2, 3, 12)
#: (split, order of blocks).
SPLITS = {
    "columns": ("columns", "random"),
    "rows": ("rows", "random"),
    "block": ("block", "random"),
    "block, order=uniform (the authors')": ("block", "uniform"),
    "entries": ("entries", "random"),
    "svd": ("svd", "random"),
}
HELD_TO = ("columns", "rows", "block")


def share(layer: dict[str, tuple[int, int]], depth: int, split: str, order: str) -> float:
    """Bytes of the state over AdamW's."""
    params = {
        f"layer_{i}": {
            name: jax.ShapeDtypeStruct((WIDTH * m, WIDTH * n), jnp.float32)
            for name, (m, n) in layer.items()
        }
        for i in range(depth)
    }
    numbers = sum(leaf.size for leaf in jax.tree.leaves(params))
    optimizer = optim.frugal(
        1e-3,
        projectable=True,
        density=DENSITY,
        split=split,
        order=order,
        key=jax.random.key(0),
    )
    return optim.optimizer_state_bytes(jax.eval_shape(optimizer.init, params)) / (8 * numbers)


def main(_: Sequence[str]) -> None:
    """Prints the table."""
    columns = [(name, depth) for name in LAYERS for depth in DEPTHS]
    lines = [f"Density {DENSITY}, width {WIDTH}; bytes over AdamW's:", ""]
    lines.append("| split | " + " | ".join(f"{d} x ({n})" for n, d in columns) + " | goal |")
    lines.append("|---" + "|---:" * len(columns) + "|---|")
    for name, how in SPLITS.items():
        found = [share(LAYERS[layer], depth, *how) for layer, depth in columns]
        goal = ""
        if name in HELD_TO:
            goal = f"<= 0.30: {'met' if max(found) <= 0.30 else 'not met'}"
        lines.append(f"| {name} | " + " | ".join(f"{x:.3f}" for x in found) + f" | {goal} |")
    record.show("optimizer_state", "Optimizer state", "\n".join(lines))


if __name__ == "__main__":
    run_program("optimizer_state", main)
