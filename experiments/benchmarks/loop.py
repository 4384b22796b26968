# SPDX-License-Identifier: Apache-2.0
"""What the training loop adds to its compiled step: `python -m experiments.benchmarks.loop`.

Four ways through the same number of steps of the same program take turns:

    step           the compiled step alone, in a tight Python loop, on batches that are on the
                   device already
    step, batches  the same with every batch read from the iterator and sent to the device
    loop           `train.make_steps`: batches, log, progress and heartbeat, as `experiments.run`
                   makes them
    loop, saving   the same with a checkpoint in the middle, which is written while steps go on

A turn is as many steps as the config has between two checkpoints. Evaluations, and what of a
checkpoint keeps the loop waiting (all of the one at a turn's end), are no part of the time per step
(nor of `seconds_per_step` in run.json): the last column says what they are on top, for a step. The
first step of a turn is not timed. Ratios are taken within a turn; the goal is for their median.
Processor time is that of all threads, the device's own included: what of it the loop adds is hidden
where a core is free, as beside an accelerator.
"""

import contextlib
import dataclasses
import io
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import jax
from absl import flags
from jax.sharding import Mesh
from ml_collections import ConfigDict

from experiments.benchmarks import record
from experiments.checkpoint import Checkpoints
from experiments.config import load_file, locate
from experiments.job import Job, build
from experiments.metrics import MetricWriter
from experiments.observe import Watch
from experiments.program import run_program
from experiments.sharding import over_data, to_devices
from experiments.step import State
from experiments.train import make_steps

GOAL = 1.05
#: title -> (shipped config, changes, turns).
CASES: dict[str, tuple[str, dict[str, Any], int]] = {
    "digits": ("digits", {}, 20),
    "digits, hidden = (2200, 2200)": ("digits", {"model.hidden": (2200, 2200)}, 3),
}
#: Batches on the device that the step alone goes round.
HELD = 8

_TURNS = flags.DEFINE_integer("turns", None, "Turns, instead of each case's own.", lower_bound=1)
_CASES = flags.DEFINE_multi_enum("case", list(CASES), list(CASES), "Cases to time.")


@dataclasses.dataclass(frozen=True)
class Turn:
    """What one way through the steps took, for a step.

    Attributes:
      seconds: on the clock.
      processor: of all threads.
      saving: seconds of evaluating and saving on top; 0 where there is none.
    """

    seconds: float
    processor: float
    saving: float = 0.0


def measure(
    config: ConfigDict, turns: int, mesh: Mesh | None = None
) -> tuple[int, dict[str, list[Turn]]]:
    """Times a config's loop and its step.

    Args:
      config: the config.
      turns: how many, after one that is left out.
      mesh: as for `job.build`.

    Returns:
      (how many parameters the model has, way -> its turns).

    Raises:
      BadInput: whatever is wrong with the config.
    """
    config = config.copy_and_resolve_references()
    steps = config.eval_every = config.checkpoint_every
    job = build(config, mesh)
    config = config.copy_and_resolve_references()
    config.eval_every = config.checkpoint_every = max(steps // 2, 1)
    saving = dataclasses.replace(job, config=config)
    iterator = job.train_batches()
    with jax.set_mesh(job.mesh):
        placed = [jax.device_put(next(iterator), over_data(job.mesh)) for _ in range(HELD)]
    ways: dict[str, Callable[[State], tuple[State, Turn]]] = {
        "step": lambda state: tight(job, state, lambda i: placed[i % HELD], steps),
        "step, batches": lambda state: tight(
            job, state, lambda _: to_devices(next(iterator), job.mesh), steps
        ),
        "loop": lambda state: real(job, state, steps),
        "loop, saving": lambda state: real(saving, state, steps),
    }
    states = {way: job.init(jax.random.key(0)) for way in ways}
    found: dict[str, list[Turn]] = {way: [] for way in ways}
    for turn in range(turns + 1):
        for way, run in ways.items():
            states[way], took = run(states[way])
            if turn:  # the first one compiles
                found[way].append(took)
    return sum(leaf.size for leaf in jax.tree.leaves(states["step"]["params"])), found


def tight(job: Job, state: State, source: Callable[[int], Any], steps: int) -> tuple[State, Turn]:
    """A loop that does nothing but steps on the batches of a function of their number."""
    with jax.set_mesh(job.mesh):
        state, metrics = job.step(state, source(0))
        jax.block_until_ready(metrics)
        began, processor = time.perf_counter(), time.process_time()
        for index in range(1, steps):
            state, metrics = job.step(state, source(index))
        jax.block_until_ready((state, metrics))
    made = steps - 1
    return state, Turn(
        (time.perf_counter() - began) / made, (time.process_time() - processor) / made
    )


class _Processor(Watch):
    """Counts the processor's time, too, while the clock of the steps goes."""

    spent = 0.0
    _went: float | None = None

    def start_clock(self, step: int) -> None:
        super().start_clock(step)
        self._went = time.process_time()

    def stop_clock(self) -> None:
        super().stop_clock()
        if self._went is not None:
            self.spent, self._went = self.spent + time.process_time() - self._went, None


def real(job: Job, state: State, steps: int) -> tuple[State, Turn]:
    """The loop of a run, in a workdir of its own."""
    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
        contextlib.closing(Checkpoints(folder, keep=job.config.keep_checkpoints)) as checkpoints,
        contextlib.closing(MetricWriter(folder, is_main=True, resume_step=0)) as writer,
        _Processor(Path(folder), is_main=True) as watch,
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
    return state, Turn(seconds, watch.spent / (steps - 1), whole / steps - seconds)


def table(title: str, parameters: int, found: Mapping[str, Sequence[Turn]]) -> str:
    """A row for each way; ratios are to the first one."""
    base = next(iter(found.values()))
    lines = [
        f"{title}: {parameters:,} parameters, {len(base)} turns; microseconds a step.",
        "",
        "| | least | median | over the step: least | median of the turns | goal | processor, least "
        "| over the step: median of the turns | evaluating and saving, median |",
        "| --- | ---: | ---: | ---: | ---: | --- | ---: | ---: | ---: |",
    ]
    for way, turns in found.items():
        pairs = list(zip(turns, base, strict=True))
        seconds = [turn.seconds for turn in turns]
        least = min(seconds) / min(turn.seconds for turn in base)
        ratio = median(turn.seconds / other.seconds for turn, other in pairs)
        processor = median(turn.processor / other.processor for turn, other in pairs)
        saving = median(turn.saving for turn in turns)
        cells = (
            f"{1e6 * min(seconds):,.0f}",
            f"{1e6 * median(seconds):,.0f}",
            f"{least:.3f}",
            f"{ratio:.3f}",
            f"<= {GOAL}: {'met' if ratio <= GOAL else 'not met'}" if way.startswith("loop") else "",
            f"{1e6 * min(turn.processor for turn in turns):,.0f}",
            f"{processor:.3f}",
            f"{1e6 * saving:,.0f}" if saving else "",
        )
        lines.append(f"| {way} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(_: Sequence[str]) -> None:
    """Shows a table for each case."""
    tables = []
    for title in _CASES.value:
        name, changes, turns = CASES[title]
        config = load_file(locate(name))
        config.update_from_flattened_dict(changes)
        tables.append(table(title, *measure(config, _TURNS.value or turns)))
    record.show("loop", "The training loop over its step", "\n\n".join(tables))


if __name__ == "__main__":
    run_program("loop", main)
