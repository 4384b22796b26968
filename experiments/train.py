# SPDX-License-Identifier: Apache-2.0
"""THE loop: read it from top to bottom.

    build the job -> claim the workdir -> restore or initialise -> steps -> final evaluation

A checkpoint is written only when every loss and gradient before it was finite, so the last one is
always good; a run that was killed continues from it and ends with the same bits as one that was
not. All files except the checkpoints are written by process 0.
"""

import contextlib
import dataclasses
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from experiments import data, sharding, workdir
from experiments.checkpoint import Checkpoints
from experiments.config import losses_of, resolved
from experiments.job import ALL_FINITE, Job, State, build, scores_of
from experiments.metrics import MetricWriter, Progress, evaluation_metrics
from experiments.report import write_report

#: Steps of a --profile trace, counted from the first of this process: compiling is left out.
PROFILED = range(10, 20)


class NonFinite(Exception):
    """A loss or gradient was NaN or infinite; `step` is the first such step."""

    def __init__(self, step: int):
        super().__init__(f"the loss or its gradient was not finite at step {step}")
        self.step = step


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How training ended.

    Attributes:
      step: optimizer steps done.
      preempted: stopped by SIGTERM with a checkpoint of that step.
      seconds_per_step: mean over this process's steps, evaluations left out; NaN if it made none.
    """

    step: int
    preempted: bool
    seconds_per_step: float


def train(
    config: ConfigDict,
    directory: str,
    *,
    max_steps: int | None = None,
    overwrite: bool = False,
    profile: bool = False,
    overrides: Sequence[str] = (),
) -> Outcome:
    """Trains a config in a workdir, from its last checkpoint if it has one.

    Args:
      config: the config; config.steps is the length of the schedule.
      directory: the workdir.
      max_steps: stop there if that is before config.steps.
      overwrite: remove an earlier run first.
      profile: write a profiler trace of a few steps to workdir/profile.
      overrides: the command line's overrides, for the record.

    Returns:
      The outcome; the report is written unless the run was preempted.

    Raises:
      BadInput: config, data, workdir or checkpoints are not what they should be.
      NonFinite: a loss or gradient was not finite; the checkpoints before it are kept.
    """
    # ---- The job and its directory
    job = build(config)
    root, is_main = Path(directory), jax.process_index() == 0
    if is_main:
        workdir.claim(root, resolved(config), overwrite=overwrite)
    _wait_for_main("workdir")
    last = config.steps if max_steps is None else min(max_steps, config.steps)

    with contextlib.closing(Checkpoints(root, keep=config.keep_checkpoints)) as checkpoints:
        # ---- Restore or initialise
        iterator = data.train_iterator(
            job.dataset.train,
            batch_size=config.data.batch_size,
            seed=config.seed,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )
        restored = checkpoints.restore(job.abstract_state(), iterator)
        if restored is None:
            start, state = 0, job.init(jax.random.key(config.seed))
        else:
            start, state = restored
            print(f"continuing from the checkpoint of step {start}", flush=True)
        checkpoints.forget_after(start)
        writer = MetricWriter(root, is_main=is_main, resume_step=start)
        record = {
            **workdir.provenance(overrides),
            "loss": {
                field.name: getattr(job.entry, field.name)
                for field in dataclasses.fields(job.entry)
                if field.name != "function"
            },
            "class_names": list(job.dataset.class_names),
            "data": {
                "name": job.dataset.name,
                "licence": job.dataset.licence,
                **{s: len(getattr(job.dataset, s)) for s in ("train", "validation", "test")},
            },
        }
        if is_main:
            workdir.write_json(root / workdir.RUN, record)

        # ---- Steps
        with contextlib.closing(writer):
            state, outcome = _steps(
                job, state, iterator, writer, checkpoints, start, last, root if profile else None
            )
            if outcome.preempted:
                return outcome
            # ---- Final evaluation; nothing to do if a finished run is started again
            done = start >= last and (root / workdir.EVALUATION).exists()
            final = None if done else _evaluate(job, state, writer, outcome.step, "test", root)

    if is_main:
        if final is not None:
            seconds = outcome.seconds_per_step
            record["steps"] = outcome.step
            record["seconds_per_step"] = None if np.isnan(seconds) else seconds
            record["final_metrics"] = {k: v for k, v in final.items() if np.isfinite(v)}
            workdir.write_json(root / workdir.RUN, record)
        else:
            print(f"finished already at step {start}: writing the report again", flush=True)
        print(f"report: {write_report(root)}", flush=True)
    return outcome


def _steps(
    job: Job,
    state: State,
    iterator: Iterator[dict[str, np.ndarray]],
    writer: MetricWriter,
    checkpoints: Checkpoints,
    start: int,
    last: int,
    profile_to: Path | None,
) -> tuple[State, Outcome]:
    config = job.config
    log = _Log(writer, config.data.batch_size, start)
    progress = Progress(last, start, jax.process_index() == 0)
    step, preempted, spent, began = start, False, 0.0, time.perf_counter()
    with (
        contextlib.closing(progress),
        jax.set_mesh(job.mesh),
        _sigterm() as asked_to_stop,
        _profiler(profile_to) as profiler,
    ):
        for step in range(start + 1, last + 1):
            profiler(step - start)
            batch = sharding.to_devices(next(iterator), job.mesh)
            state, metrics = job.step(state, batch)
            if step == start + 1:  # compiling is no part of the time per step
                jax.block_until_ready(metrics)
                began = time.perf_counter()
                log.restart_clock(step)
            progress.update(step)
            if step % config.log_every == 0 or step == last:
                log.write()  # of the step before: the device is at work on this one meanwhile
                log.keep(step, metrics)
                checkpoints.seal(wait=False)

            preempted = asked_to_stop() or checkpoints.reached_preemption(step)
            evaluating = step % config.eval_every == 0 or step == last
            if not (preempted or evaluating or step % config.checkpoint_every == 0):
                continue
            log.write()
            _stop_if_not_finite(state)
            spent += time.perf_counter() - began
            if evaluating:
                _evaluate(job, state, writer, step, "validation")
            if preempted or step % config.checkpoint_every == 0 or step == last:
                writer.flush()
                checkpoints.save(step, state, iterator)
                if preempted or step == last:
                    checkpoints.seal()
            if preempted and step < last:
                print(f"preempted: saved step {step}", flush=True)
                break
            preempted = False  # asked at the last step: the run is finished all the same
            began = time.perf_counter()
            log.restart_clock(step)
    spent += time.perf_counter() - began
    taken = step - start - 1
    return state, Outcome(step, preempted, spent / taken if taken > 0 else float("nan"))


def _evaluate(
    job: Job, state: State, writer: MetricWriter, step: int, split: str, root: Path | None = None
) -> dict[str, float]:
    found = scores_of(job, state["params"], split)
    scores = evaluation_metrics(found["scores"], found["labels"], job.dataset.task)
    if job.entry.exact_gradient and not job.entry.couples_batch:
        scores["loss"] = mean_loss(job, found)
    writer.write(step, split, scores)
    if root is not None and jax.process_index() == 0:
        workdir.write_evaluation(root, found, job.dataset.task)
    return scores


def mean_loss(job: Job, found: dict[str, np.ndarray]) -> float:
    """The configured loss's mean over a split, from its scores on the host."""
    losses, _ = losses_of(
        job.entry, job.arguments, found["scores"], found["labels"], key=jax.random.key(0)
    )
    return float(np.mean(np.asarray(losses, np.float64)))


def _stop_if_not_finite(state: State) -> None:
    if (bad := int(state["first_bad"])) != ALL_FINITE:
        raise NonFinite(bad)


class _Log:
    """Train records, fetched a log interval late so that the device never waits for the host."""

    def __init__(self, writer: MetricWriter, batch_size: int, start: int):
        self._writer, self._batch_size = writer, batch_size
        self._kept: tuple[int, dict[str, Any], float] | None = None
        self._since, self._step = time.perf_counter(), start

    def keep(self, step: int, metrics: dict[str, Any]) -> None:
        now, steps = time.perf_counter(), step - self._step
        seconds = (now - self._since) / steps if steps else float("nan")
        self._kept = (step, metrics, seconds)
        self._since, self._step = now, step

    def restart_clock(self, step: int) -> None:
        """Leaves out the time that compiling, an evaluation or a checkpoint took."""
        self._since, self._step = time.perf_counter(), step

    def write(self) -> None:
        """Writes what was kept; raises NonFinite if it says so."""
        if self._kept is None:
            return
        (step, metrics, seconds), self._kept = self._kept, None
        values = {name: float(value) for name, value in jax.device_get(metrics).items()}
        first_bad = int(values.pop("first_bad"))
        if seconds == seconds:  # the first step alone has no time without compiling
            values["step_seconds"] = seconds
            values["examples_per_second"] = self._batch_size / seconds
        self._writer.write(step, "train", values)
        if first_bad != ALL_FINITE:
            raise NonFinite(first_bad)


@contextlib.contextmanager
def _sigterm():
    """Yields a function that says whether SIGTERM has come.

    With several processes JAX's own preemption service listens for it and agrees on a step.
    """
    asked = []
    if jax.process_count() > 1:
        yield lambda: False
        return
    before = signal.signal(signal.SIGTERM, lambda *_: asked.append(True))
    try:
        yield lambda: bool(asked)
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _profiler(root: Path | None):
    """Yields a function that starts and stops the trace when it is told which step comes."""
    running = False

    def tell(step: int) -> None:
        nonlocal running
        if root is not None and step == PROFILED.start:
            jax.profiler.start_trace(str(root / "profile"))
            running = True
        elif running and step == PROFILED.stop:
            jax.profiler.stop_trace()
            running = False

    yield tell
    if running:
        jax.profiler.stop_trace()


def _wait_for_main(what: str) -> None:
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(what)
