# SPDX-License-Identifier: Apache-2.0
"""How close attacks come to the exact inner maximum: `python -m experiments.benchmarks.attacks`.

On linear models the maximum over the ball is known: of the margin by the dual norm, of
cross-entropy with two classes too, with more by all corners of the cube; of the score displacement
by corners (linf) or the largest singular value (l2). Printed first is what an attack gained over
the clean inputs, divided by what there was to gain: the mean over the examples and the least of
them, for one random start and for thirty. Single examples end at a point that is best nearby only,
of another class, say. The numbers repeat exactly; `tests/invariants` holds the means above 0.95.

Then how many examples a second the attacks do on a small network, compiled, the best of five runs.
"""

import importlib.util
import itertools
import time
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks import record
from experiments.program import run_program
from xloss.adversarial import apgd, maximize_score_displacement, pgd, square

FEATURES, EXAMPLES, STEPS, RESTARTS = 8, 64, 40, (1, 30)
RADII = (0.03, 0.3)


def _linear(weights: jax.Array, x: jax.Array) -> jax.Array:
    return x @ weights


def largest(objective: str, norm: str, W: np.ndarray, x: np.ndarray, y: np.ndarray, radius: float):
    """The exact maximum over the ball [examples]; NaN where there is no closed form."""
    rows = np.arange(len(y))
    gaps = W.T[None] - W[:, y].T[:, None]  # [examples, classes, features]
    corners = radius * np.array(list(itertools.product([-1, 1], repeat=W.shape[0])))
    if objective == "displacement":
        if norm == "l2":
            return radius * np.linalg.svd(gaps, compute_uv=False)[:, 0]
        moved = np.einsum("cf,ekf->eck", corners, gaps)
        return np.sqrt(np.square(moved).sum(-1)).max(-1)
    z = x @ W
    if objective == "margin" or W.shape[1] == 2:
        reach = np.abs(gaps).sum(-1) if norm == "linf" else np.linalg.norm(gaps, axis=-1)
        margins = z - z[rows, y][:, None] + radius * reach
        margins[rows, y] = -np.inf
        return np.logaddexp(0.0, margins.max(-1)) if objective == "ce" else margins.max(-1)
    if norm == "l2":
        return np.full(len(y), np.nan)
    z = (x[:, None] + corners[None]) @ W
    return (np.logaddexp.reduce(z, -1) - z[rows, :, y]).max(-1)


def ratios() -> Iterator[tuple[str, str, int, float, list[float]]]:
    """Objective, norm, classes, radius, and mean and least ratio for each number of restarts."""
    for objective, norm, classes in itertools.product(
        ("ce", "margin", "displacement"), ("linf", "l2"), (2, 5)
    ):
        rng = np.random.default_rng(classes)
        W = rng.normal(size=(FEATURES, classes))
        x, y = rng.normal(size=(EXAMPLES, FEATURES)), rng.integers(0, classes, EXAMPLES)
        clean = largest(objective, norm, W, x, y, 0.0)
        if np.isnan(clean).any():
            continue
        apply = jax.tree_util.Partial(_linear, jnp.asarray(W))
        for radius in RADII:
            best, found = largest(objective, norm, W, x, y, radius), []
            for restarts in RESTARTS:
                how = {"key": jax.random.key(0), "radius": radius, "norm": norm, "bounds": None,
                       "steps": STEPS, "restarts": restarts}  # fmt: skip
                if objective == "displacement":
                    moved = np.asarray(maximize_score_displacement(apply, x, y, **how)) - x
                    gaps = moved @ W - (moved @ W)[np.arange(EXAMPLES), y][:, None]
                    reached = np.linalg.norm(gaps, axis=-1)
                else:
                    reached = np.asarray(pgd(apply, x, y, objective=objective, **how).loss)
                share = (reached - clean) / (best - clean)
                found += [float(share.mean()), float(share.min())]
            yield objective, norm, classes, radius, found


def _network(weights: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    hidden = jax.nn.relu(x @ weights["in"])
    return jax.nn.relu(hidden @ weights["middle"]) @ weights["out"]


def throughput(batch: int = 512) -> Iterator[tuple[str, float]]:
    """What is run, and examples a second, on an MLP 784-256-256-10 in float32."""
    rng = np.random.default_rng(0)
    sizes = {"in": (784, 256), "middle": (256, 256), "out": (256, 10)}
    weights = {
        name: jnp.asarray(rng.normal(size=size) / np.sqrt(size[0]), jnp.float32)
        for name, size in sizes.items()
    }
    apply = jax.tree_util.Partial(_network, weights)
    x = jnp.asarray(rng.uniform(size=(batch, 784)), jnp.float32)
    labels = jnp.argmax(apply(x), axis=-1)
    key, how = jax.random.key(0), {"radius": 0.03}
    runs = {
        "PGD on cross-entropy, 100 steps": lambda: pgd(apply, x, labels, key=key, steps=100, **how),
        "APGD on cross-entropy, 100 steps": lambda: apgd(apply, x, labels, key=key, **how),
        "APGD on DLR, 100 steps": lambda: apgd(apply, x, labels, key=key, objective="dlr", **how),
        "Square, 100 queries": lambda: square(apply, x, labels, key=key, queries=100, radius=1e-3),
    }
    for name, run in runs.items():
        jax.block_until_ready(run())
        best = np.inf
        for _ in range(5):
            start = time.perf_counter()
            jax.block_until_ready(run())
            best = min(best, time.perf_counter() - start)
        yield name, batch / best


def table_of_throughput() -> str:
    """Examples a second, as Markdown."""
    rows = ["MLP 784-256-256-10, float32, batches of 512.", ""]
    rows += ["| attack | examples / s |", "| --- | ---: |"]
    rows += [f"| {name} | {rate:,.0f} |" for name, rate in throughput()]
    known = importlib.util.find_spec("torch") is not None
    rows.append(f"| the authors' APGD in torch | {'not run' if known else 'torch not installed'} |")
    return "\n".join(rows) + "\n"


def main(_: Sequence[str]) -> None:
    """Prints the tables."""
    print(f"{EXAMPLES} examples, {STEPS} steps, float64; share of the exact gain")
    print(f"{'':<30} {RESTARTS[0]:>8} start  {RESTARTS[1]:>14} starts")
    print(f"{'objective':<12}  norm  classes  radius  {'  '.join(['    mean', '   least'] * 2)}")
    with jax.enable_x64(True):
        for objective, norm, classes, radius, found in ratios():
            shares = "  ".join(f"{share:8.5f}" for share in found)
            print(f"{objective:<12}  {norm:<4}  {classes:>7}  {radius:>6g}  {shares}")
    record.show("attacks", "Attacks", table_of_throughput())


if __name__ == "__main__":
    run_program("attacks", main)
