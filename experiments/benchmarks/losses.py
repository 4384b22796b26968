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
from xloss.catalogue import LOSSES, Entry

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


def every_loss(size: tuple[int, int]) -> dict[str, jax.stages.Compiled]:
    """Value and gradient of each loss of the catalogue at its defaults, compiled for one size.

    Functions of the statistics where there are more than 4,096 classes; up to there the others.
    """
    return {
        name: of_catalogue(entry, size)
        for name, entry in LOSSES.items()
        if entry.takes_statistics == (size[1] > 4096)
    }


def shapes_of(entry: Entry, size: tuple[int, int]) -> list[jax.ShapeDtypeStruct]:
    """The arrays that a loss takes by position; the labels come last."""
    logits = jax.ShapeDtypeStruct(size, jnp.float32)
    if "candidate_logits" in entry.needs:
        given = [jax.ShapeDtypeStruct((2, *size), jnp.float32)]
    else:
        given = [logits] * (2 if {"logits", "adversarial_logits"} <= set(entry.needs) else 1)
    if "probabilities" in entry.needs:
        return [*given, logits]
    if "multi_hot" in entry.needs:
        return [*given, jax.ShapeDtypeStruct(size, jnp.int32)]
    return [*given, jax.ShapeDtypeStruct(size[:1], jnp.int32)]


def of_catalogue(entry: Entry, size: tuple[int, int]) -> jax.stages.Compiled:
    """Value and gradient of the mean loss in all logits that it takes, compiled."""
    extra = {"key": jax.random.key(0)} if "key" in entry.needs else {}
    shapes = shapes_of(entry, size)
    count = len(shapes) - 1

    def objective(*arrays: jax.Array) -> jax.Array:
        return xloss.reduce(entry.function(*arrays, **extra))

    slopes = jax.value_and_grad(objective, argnums=tuple(range(count)))
    return jax.jit(slopes).lower(*shapes).compile()


def numbers_for(entry: Entry, size: tuple[int, int]) -> list[jax.Array]:
    """Arrays of those shapes: logits, or distances > 0, and labels that fit."""
    rng, found = np.random.default_rng(0), []
    *logits, labels = shapes_of(entry, size)
    for shape in logits:
        z = rng.normal(scale=3.0, size=shape.shape)
        found.append(np.exp(z) if "distances" in entry.needs else z)
    target = rng.integers(0, size[1], size[0])
    if labels.shape != size:
        return [*map(_as_float, found), jnp.asarray(target.astype(np.int32))]
    hot = np.zeros(size)
    hot[np.arange(size[0]), target] = 1.0
    return [*map(_as_float, found), jnp.asarray(hot.astype(labels.dtype))]


def _as_float(x: np.ndarray) -> jax.Array:
    return jnp.asarray(x.astype(np.float32))


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


def seconds_of_every_loss(
    programs: dict[str, jax.stages.Compiled], size: tuple[int, int], repetitions: int = 9
) -> dict[str, tuple[float, float]]:
    """Least seconds a call of each loss and of optax's cross-entropy, which take turns."""
    reference = compiled(variants()[REFERENCE], size)
    rng = np.random.default_rng(0)
    plain = (
        jnp.asarray(rng.normal(scale=3.0, size=size).astype(np.float32)),
        jnp.asarray(rng.integers(0, size[1], size[0]).astype(np.int32)),
        jnp.ones(size[0], jnp.bool_),
    )
    found = {}
    for name, program in programs.items():
        # One loss at a time: the arrays of all of them would not fit into a laptop.
        runs, best = ((program, numbers_for(LOSSES[name], size)), (reference, plain)), [np.inf] * 2
        for repetition in range(repetitions + 2):
            for place, (call, arrays) in enumerate(runs):
                start = time.perf_counter()
                jax.block_until_ready(call(*arrays))
                if repetition >= 2:
                    best[place] = min(best[place], time.perf_counter() - start)
        found[name] = best[0], best[1]
    return found


def table_of_every_loss() -> str:
    """Every loss of the catalogue at its defaults; 1.15 is the goal of those of the statistics."""
    parts = []
    kinds = {(512, 32_000): "Functions of the statistics", (512, 4096): "Losses of all logits"}
    for size, kind in kinds.items():
        programs = every_loss(size)
        times = seconds_of_every_loss(programs, size)
        parts += [
            f"{kind} at their defaults, value and gradient on logits {list(size)}, float32, each"
            " in turns with optax's cross-entropy; goal of the statistics': <= 1.15 x and <= 1 %"
            " temporaries.",
            "",
            "| loss | ms | over optax | goal | temporaries / logits |",
            "| --- | ---: | ---: | --- | ---: |",
        ]
        for name, program in programs.items():
            seconds, share = times[name][0], temporary_share(program, size)
            ratio = seconds / times[name][1]
            goal = ""
            if LOSSES[name].takes_statistics:
                goal = "met" if ratio <= 1.15 and share <= 0.01 else "not met"
            parts.append(
                f"| {name} | {1e3 * seconds:.2f} | {ratio:.2f} | {goal} | {100 * share:.1f} % |"
            )
        parts.append("")
    return "\n".join(parts)


def table() -> str:
    """Measures everything and returns the Markdown tables."""
    parts = [table_of_every_loss()]
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
