# SPDX-License-Identifier: Apache-2.0
"""What the training loop adds to its compiled step: `python -m experiments.benchmarks.loop`.

Three ways through the same number of steps of the same program take turns:

    step           the compiled step alone, in a tight Python loop, on batches that are on the
                   device already
    step, batches  the same with every batch read from the iterator and sent to the device
    loop           `train.make_steps`: batches, log, progress, heartbeat and checkpoints, as
                   `experiments.run` makes them

A turn of the loop has one checkpoint in its middle, which is written while steps go on, and one at
its end. Evaluations, and what of a checkpoint keeps the loop waiting, are no part of the time per
step (nor of `seconds_per_step` in run.json); the last column says what they are on top. The first
step of a turn is not timed. Ratios are taken within a turn; the goal is for their median.
"""

import contextlib
import dataclasses
import io
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
from absl import flags
from ml_collections import ConfigDict

from experiments import sharding
from experiments.benchmarks import record
from experiments.checkpoint import Checkpoints
from experiments.config import load_file, locate
from experiments.job import Job, build
from experiments.metrics import MetricWriter
from experiments.observe import Watch
from experiments.program import run_program
from experiments.step import State
from experiments.train import make_steps

GOAL = 1.05
#: title -> (shipped config, changes, steps of a turn: twice what lies between checkpoints).
CASES: dict[str, tuple[str, dict[str, Any], int]] = {
    "digits": ("digits", {}, 600),
    "digits, hidden = (2200, 2200)": ("digits", {"model.hidden": (2200, 2200)}, 60),
    "char_lm, width 256, depth 6": ("char_lm", {"model.width": 256, "model.depth": 6}, 40),
}
#: Batches on the device that the step alone goes round.
HELD = 8

_TURNS = flags.DEFINE_integer("turns", 15, "Turns of every case.", lower_bound=1)
_CASES = flags.DEFINE_multi_enum("case", list(CASES), list(CASES), "Cases to time.")


@dataclasses.dataclass(frozen=True)
class Times:
    """Seconds of every turn.

    Attributes:
      parameters: how many the model has.
      step: a step alone.
      batches: a step with its batch.
      loop: a step of the loop.
      saving: evaluating and saving, in the loop, for a step.
    """

    parameters: int
    step: list[float]
    batches: list[float]
    loop: list[float]
    saving: list[float]


def measure(config: ConfigDict, steps: int, turns: int) -> Times:
    """Times a config's loop and its step.

    Args:
      config: the config.
      steps: of a turn.
      turns: how many, after one that is left out.

    Raises:
      BadInput: whatever is wrong with the config.
    """
    config = config.copy_and_resolve_references()
    config.eval_every = config.checkpoint_every = max(steps // 2, 1)
    job = build(config)
    held = list(itertools.islice(job.train_batches(), HELD))
    placed = [sharding.to_devices(batch, job.mesh) for batch in held]
    iterator = job.train_batches()
    times = Times(0, [], [], [], [])
    states = {name: job.init(jax.random.key(0)) for name in ("step", "batches", "loop")}
    times = dataclasses.replace(
        times, parameters=sum(leaf.size for leaf in jax.tree.leaves(states["step"]["params"]))
    )
    for turn in range(turns + 1):
        sources: dict[str, Callable[[int], Any]] = {
            "step": lambda index: placed[index % HELD],
            "batches": lambda _: sharding.to_devices(next(iterator), job.mesh),
        }
        for name, source in sources.items():
            states[name], seconds = tight(job, states[name], source, steps)
            if turn:
                getattr(times, name).append(seconds)
        states["loop"], seconds, saving = real(job, states["loop"], steps)
        if turn:
            times.loop.append(seconds)
            times.saving.append(saving)
    return times


def tight(
    job: Job, state: State, source: Callable[[int], Any], steps: int
) -> tuple[State, float]:
    """(state, seconds a step) of a loop that does nothing else."""
    with jax.set_mesh(job.mesh):
        state, metrics = job.step(state, source(0))
        jax.block_until_ready(metrics)
        began = time.perf_counter()
        for index in range(1, steps):
            state, metrics = job.step(state, source(index))
        jax.block_until_ready((state, metrics))
    return state, (time.perf_counter() - began) / (steps - 1)


def real(job: Job, state: State, steps: int) -> tuple[State, float, float]:
    """(state, seconds a step, seconds of evaluating and saving for a step) of the loop of a run."""
    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
        contextlib.closing(Checkpoints(folder, keep=job.config.keep_checkpoints)) as checkpoints,
        contextlib.closing(MetricWriter(folder, is_main=True, resume_step=0)) as writer,
        Watch(Path(folder), is_main=True) as watch,
    ):
        watch.begin(0, steps, job.config.data.batch_size, writer.last)
        began = time.perf_counter()
        state, outcome = make_steps(
            job,
            state,
            job.train_batches(),
            writer,
            checkpoints,
            lambda: False,
            watch,
            range(1, steps + 1),
        )
        whole = time.perf_counter() - began
    seconds = outcome.seconds_per_step
    return state, seconds, whole / steps - seconds


def table(title: str, times: Times) -> str:
    """Least and median times of each way, and the ratios to the step alone."""
    lines = [
        f"{title}: {times.parameters:,} parameters, {len(times.step)} turns.",
        "",
        "| | least, us a step | median | over the step: least | median of the turns | goal |",
        "| --- | ---: | ---: | ---: | ---: | --- |",
    ]
    for name, seconds in (
        ("step", times.step),
        ("step, batches", times.batches),
        ("loop", times.loop),
    ):
        ratio = statistics.median(a / b for a, b in zip(seconds, times.step, strict=True))
        goal = f"<= {GOAL}: {'met' if ratio <= GOAL else 'not met'}" if name == "loop" else ""
        lines.append(
            f"| {name} | {1e6 * min(seconds):,.0f} | {1e6 * statistics.median(seconds):,.0f} "
            f"| {min(seconds) / min(times.step):.3f} | {ratio:.3f} | {goal} |"
        )
    return "\n".join(lines)


def main(_: Sequence[str]) -> None:
    """Shows a table for each case."""
    tables = []
    for title in _CASES.value:
        name, changes, steps = CASES[title]
        config = load_file(locate(name))
        config.update_from_flattened_dict(changes)
        tables.append(table(title, measure(config, steps, _TURNS.value)))
    record.show("loop", "The training loop over its step", "\n\n".join(tables))


if __name__ == "__main__":
    run_program("loop", main)
