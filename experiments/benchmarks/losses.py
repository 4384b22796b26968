# SPDX-License-Identifier: Apache-2.0
"""How fast and how lean the losses are against optax: `make bench`.

Value and gradient of the mean loss on given logits, compiled, the variants interleaved in one
process, the minimum over the repetitions; ratios are to optax's integer-label cross-entropy on
the same logits. Temporaries and the number of exponentials over the logits come from the compiled
program and repeat exactly; times do not.
"""

import re
import time
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax

import xloss
from experiments.benchmarks import record
from experiments.program import run_program
from xloss import classification, surrogates

REFERENCE = "optax integer cross-entropy"
#: (batch, classes), repetitions, calls in a repetition
SIZES = {(512, 32_000): (25, 1), (256, 10): (60, 100)}
#: What the project promises, by size: time over optax.
LIMIT = {(512, 32_000): 1.10, (256, 10): 1.20}

Loss = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]


def variants() -> dict[str, Loss]:
    """Name -> scalar objective of (logits, labels, mask)."""

    def mean(loss: Callable[..., jax.Array], **hyper: object) -> Loss:
        return lambda z, y, _: xloss.reduce(loss(z, y, **hyper))

    def masked(z, y, where):
        return xloss.reduce(classification.comp_sum(z, y, tau=0.5, where=where), where=where)

    def with_penalty(z, y, _):
        stats = xloss.logit_statistics(z, y)
        penalty = classification.log_partition_penalty(stats)
        return xloss.reduce(classification.cross_entropy(stats) + penalty)

    def optax_loss(z, y, _):
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(z, y))

    key = jax.random.key(0)
    return {
        REFERENCE: optax_loss,
        "cross_entropy": mean(classification.cross_entropy),
        "comp_sum tau=0.5": mean(classification.comp_sum, tau=0.5),
        "comp_sum tau=1.0": mean(classification.comp_sum, tau=1.0),
        "comp_sum tau=1.5": mean(classification.comp_sum, tau=1.5),
        "comp_sum tau=2.0": mean(classification.comp_sum, tau=2.0),
        "generalized_cross_entropy": mean(classification.generalized_cross_entropy),
        "focal": mean(classification.focal),
        "margin_loss savage": mean(classification.margin_loss, surrogate=surrogates.savage),
        "ensloss": mean(classification.ensloss, key=key),
        "cross_entropy + log_partition_penalty": with_penalty,
        "cross_entropy label_smoothing=0.1": mean(
            classification.cross_entropy, label_smoothing=0.1
        ),
        "comp_sum tau=0.5, with a mask": masked,
    }


def compiled(objective: Loss, size: tuple[int, int]) -> jax.stages.Compiled:
    """Compiles value and gradient in the logits for one size, from shapes alone."""
    batch, classes = size
    shapes = (
        jax.ShapeDtypeStruct((batch, classes), jnp.float32),
        jax.ShapeDtypeStruct((batch,), jnp.int32),
        jax.ShapeDtypeStruct((batch,), jnp.bool_),
    )
    return jax.jit(jax.value_and_grad(objective)).lower(*shapes).compile()


def exponentials(program: jax.stages.Compiled, size: tuple[int, int]) -> int:
    """How many exponentials over all logits the compiled program holds."""
    shape = rf"f32\[{size[0]},{size[1]}\]"
    return len(re.findall(rf"= {shape}\S* (?:exponential|exponential-minus-one)\(", text(program)))


def text(program: jax.stages.Compiled) -> str:
    """The compiled HLO."""
    return program.as_text() or ""


def temporary_share(program: jax.stages.Compiled, size: tuple[int, int]) -> float:
    """Temporaries of the compiled program over the bytes of the logits."""
    memory = program.memory_analysis()
    assert memory is not None, "the CPU backend reports its buffers"
    return memory.temp_size_in_bytes / (4 * size[0] * size[1])


def seconds(programs: dict[str, jax.stages.Compiled], size: tuple[int, int]) -> dict[str, float]:
    """Least seconds a call over the repetitions, the variants taking turns."""
    repetitions, calls = SIZES[size]
    rng = np.random.default_rng(0)
    logits = jnp.asarray(rng.normal(scale=3.0, size=size).astype(np.float32))
    labels = jnp.asarray(rng.integers(0, size[1], size[0]).astype(np.int32))
    where = jnp.asarray(rng.random(size[0]) < 0.8)
    best = dict.fromkeys(programs, float("inf"))
    for repetition in range(repetitions + 2):
        for name, program in programs.items():
            start = time.perf_counter()
            for _ in range(calls - 1):
                program(logits, labels, where)
            jax.block_until_ready(program(logits, labels, where))
            if repetition >= 2:  # the first calls pay for fresh pages
                best[name] = min(best[name], (time.perf_counter() - start) / calls)
    return best


def table() -> str:
    """Measures everything and returns the Markdown tables."""
    parts = []
    for size, limit in LIMIT.items():
        programs = {name: compiled(loss, size) for name, loss in variants().items()}
        times = seconds(programs, size)
        reference = times[REFERENCE]
        parts += [
            f"Value and gradient on logits {list(size)}, float32; goal: comp_sum at any tau "
            f"<= {limit:.2f} x optax without a mask.",
            "",
            "| objective | ms | over optax | goal | temporaries / logits | exponentials |",
            "| --- | ---: | ---: | --- | ---: | ---: |",
        ]
        for name, program in programs.items():
            ratio = times[name] / reference
            goal = ""
            if name.startswith("comp_sum") and "mask" not in name:
                goal = "met" if ratio <= limit else "not met"
            parts.append(
                f"| {name} | {1e3 * times[name]:.3f} | {ratio:.2f} | {goal} | "
                f"{100 * temporary_share(program, size):.2f} % | {exponentials(program, size)} |"
            )
        parts.append("")
    return "\n".join(parts)


def main(_: Sequence[str]) -> None:
    """Shows the tables."""
    record.show("losses", "Losses on given logits", table())


if __name__ == "__main__":
    run_program("bench", main)
