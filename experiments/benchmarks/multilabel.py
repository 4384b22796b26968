# SPDX-License-Identifier: Apache-2.0
"""Decoupled softmax over a label-embedding matrix: in chunks of labels, and with all scores.

Value and both gradients on the first device. Bytes come from the compiled programs; times are
minima over repetitions that take turns.
"""

import math
import time
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from experiments import topology
from experiments.benchmarks import record
from experiments.program import run_program
from xloss.classification import decoupled_softmax
from xloss.heads import chunked_decoupled_softmax

BATCH, WIDTH, POSITIVES, TEMPERATURE = 512, 64, 5, 0.05
LABELS = (10_000, 100_000, 500_000)
#: The scores of so many labels, twice in float32, still fit a laptop.
DENSE_UP_TO = 100_000
REPEATS = 5

Objective = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]


def chunked(query: jax.Array, kernel: jax.Array, ids: jax.Array) -> jax.Array:
    """The mean loss, in chunks."""
    return jnp.mean(chunked_decoupled_softmax(query, kernel, ids, temperature=TEMPERATURE))


def dense(query: jax.Array, kernel: jax.Array, ids: jax.Array) -> jax.Array:
    """The mean loss from all scores."""
    scores = query @ kernel
    rows = jnp.arange(BATCH)[:, None]
    labels = jnp.zeros(scores.shape, jnp.int32).at[rows, ids].set(1)
    return jnp.mean(decoupled_softmax(scores, labels, temperature=TEMPERATURE))


def problem(labels: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Unit queries and label embeddings, and each query's labels."""
    rng = np.random.default_rng(0)
    query, kernel = (rng.standard_normal(s, np.float32) for s in ((BATCH, WIDTH), (WIDTH, labels)))
    query /= np.linalg.norm(query, axis=1, keepdims=True)
    kernel /= np.linalg.norm(kernel, axis=0, keepdims=True)
    ids = rng.integers(0, labels, (BATCH, POSITIVES)).astype(np.int32)
    return jnp.asarray(query), jnp.asarray(kernel), jnp.asarray(ids)


def measure(labels: int) -> dict[str, tuple[float, float]]:
    """Program -> (seconds, MB of temporaries)."""
    arguments = problem(labels)
    objectives: dict[str, Objective] = {"chunked": chunked}
    if labels <= DENSE_UP_TO:
        objectives["dense"] = dense
    programs = {
        name: jax.jit(jax.value_and_grad(objective, argnums=(0, 1))).lower(*arguments).compile()
        for name, objective in objectives.items()
    }
    best = dict.fromkeys(programs, math.inf)
    for repeat in range(REPEATS + 1):
        for name, program in programs.items():
            start = time.perf_counter()
            jax.block_until_ready(program(*arguments))
            if repeat:  # the first call pays for fresh pages
                best[name] = min(best[name], time.perf_counter() - start)
    return {
        name: (best[name], topology.report(program).temporaries / 1e6)
        for name, program in programs.items()
    }


def table() -> str:
    """The Markdown table."""
    lines = [
        f"Value and both gradients, batch {BATCH}, width {WIDTH}, {POSITIVES} labels an example, "
        "float32.",
        "",
        "| labels | program | ms | temporaries MB | kernel MB |",
        "| ---: | --- | ---: | ---: | ---: |",
    ]
    for labels in LABELS:
        for name, (spent, size) in measure(labels).items():
            kernel = 4 * WIDTH * labels / 1e6
            lines.append(f"| {labels:,} | {name} | {1e3 * spent:.0f} | {size:.0f} | {kernel:.0f} |")
    return "\n".join(lines)


def main(_: Sequence[str]) -> None:
    """Shows the table."""
    record.show("multilabel", "Decoupled softmax over many labels", table())


if __name__ == "__main__":
    run_program("multilabel", main)
