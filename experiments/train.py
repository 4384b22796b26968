# SPDX-License-Identifier: Apache-2.0
"""THE loop: read it from top to bottom.

    build the job -> claim the workdir -> restore or initialise -> steps -> final evaluation

A checkpoint is written only when every loss, gradient and parameter up to it was finite, so the
last one is always good; a run that was killed continues from it and ends with the same bits as one
that was not. All files except the checkpoints are written by process 0.
"""

import contextlib
import dataclasses
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from experiments import sharding, storage, workdir
from experiments.checkpoint import Checkpoints
from experiments.config import resolved
from experiments.errors import BadInput
from experiments.job import Job, build
from experiments.lease import Lease
from experiments.metrics import MetricWriter, Progress, read_metrics
from experiments.observe import Watch
from experiments.report import write_report
from experiments.retention import Retention
from experiments.step import ALL_FINITE, State

#: A --profile trace: steps left out before it (compiling, warming up), and steps in it.
PROFILE_AFTER, PROFILED = 10, 10
#: A record is waited for when so many steps have been asked for after its own: they are what the
#: device works on while the record is written.
AHEAD = 8


class NonFinite(Exception):
    """A loss, gradient or parameter was NaN or infinite; `step` is the first such step."""

    def __init__(self, step: int):
        super().__init__(f"loss, gradient or updated parameters were not finite at step {step}")
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
      NonFinite: something was not finite; the checkpoints before it are kept.
      Failed: data or disk failed on the way; the checkpoints before it are kept.
    """
    lease = Lease(directory)
    try:
        return _train(config, directory, lease, max_steps, overwrite, profile, overrides)
    finally:
        lease.release()


def _train(
    config: ConfigDict,
    directory: str,
    lease: Lease,
    max_steps: int | None,
    overwrite: bool,
    profile: bool,
    overrides: Sequence[str],
) -> Outcome:
    # ---- The job and its directory
    root, is_main = storage.find(directory), jax.process_index() == 0
    try:
        job = build(config)
        iterator = job.train_batches()
        if is_main:
            lease.acquire()  # before anything there is touched
            workdir.claim(root, resolved(config), overwrite=overwrite)
    except BadInput as error:
        raise BadInput(sharding.agree(str(error))) from error
    if problem := sharding.agree(""):  # what is wrong on one process is wrong for all of them
        raise BadInput(problem)
    workdir.check_shared(root)
    last = config.steps if max_steps is None else min(max_steps, config.steps)
    keep, spare = config.keep_checkpoints, Retention.of(config, root).spare
    opened = Checkpoints(root, keep=keep, spare=spare, guard=lease.check)
    with (
        _sigterm() as asked_to_stop,
        contextlib.closing(opened) as checkpoints,
        Watch(root, is_main=is_main) as watch,
    ):
        # ---- Restore or initialise
        restored = checkpoints.restore(job.abstract_state(), iterator)
        start, state = restored or (0, job.init(jax.random.key(config.seed)))
        checkpoints.forget_after(start)
        record = workdir.read_record(root)
        if start >= last and record.get("steps") == start:
            if is_main:
                print(f"finished already at step {start}; {_report(root)}", flush=True)
            return Outcome(start, preempted=False, seconds_per_step=float("nan"))
        record = workdir.record_of(job, overrides)
        if is_main:
            workdir.write_json(root / workdir.RUN, record)
            print(_headline(job, record["devices"], start, last), flush=True)

        # ---- Steps, then the final evaluation
        with contextlib.closing(MetricWriter(root, is_main=is_main, resume_step=start)) as writer:
            watch.begin(start, last, config.data.batch_size, writer.last)
            state, outcome = make_steps(
                job,
                state,
                iterator,
                writer,
                checkpoints,
                asked_to_stop,
                watch,
                range(start + 1, last + 1),
                root / "profile" if profile and is_main else None,
            )
            if outcome.preempted:
                watch.state = "preempted"
                return outcome
            final, scores = job.evaluate(state["params"], "test")
            if not _is_recorded(root, outcome.step, "test"):  # killed right after it, it is
                writer.write(outcome.step, "test", final)

    if is_main:
        record["scores"] = scores is not None
        if skipped := int(state.get("skipped", 0)):
            record["skipped_steps"] = skipped
            print(f"skipped: {skipped} steps that were not finite (on_nan = skip)", flush=True)
        if scores is not None:
            workdir.write_evaluation(root, scores, job.dataset.task)
        seconds = outcome.seconds_per_step
        record["steps"] = outcome.step
        record["seconds_per_step"] = None if np.isnan(seconds) else seconds
        record |= watch.summary()
        record["final_metrics"] = {k: v for k, v in final.items() if np.isfinite(v)}
        workdir.write_json(root / workdir.RUN, record)
        print(_report(root), flush=True)
    return outcome


def make_steps(
    job: Job,
    state: State,
    iterator: Iterator[dict[str, np.ndarray]],
    writer: MetricWriter,
    checkpoints: Checkpoints,
    asked_to_stop: Callable[[], bool],
    watch: Watch,
    steps: range,
    profile_to: storage.AnyPath | None = None,
) -> tuple[State, Outcome]:
    """The steps of a run, with its log, evaluations and checkpoints, in the midst of `train`.

    Args:
      job: what to train.
      state: after the step before `steps`; it is donated.
      iterator: of the job's batches, before that of the first step.
      writer: where metrics go.
      checkpoints: where the state goes.
      asked_to_stop: whether to save and stop now.
      watch: measures it; it has begun.
      steps: numbers of the steps, the last of which is evaluated and saved in any case.
      profile_to: where a trace of a few steps goes; None: no trace.

    Returns:
      The state after the last step, and how it ended.

    Raises:
      NonFinite, Failed: as `train`.
    """
    config, last, is_main = job.config, steps.stop - 1, jax.process_index() == 0
    step, preempted, ahead = steps.start - 1, False, sharding.may_run_ahead(job.mesh)
    log = _Log(writer, watch)
    progress, retention = Progress(last, step, is_main), Retention.of(config, "")
    with (
        contextlib.closing(progress),
        jax.set_mesh(job.mesh),
        storage.local_folder(profile_to) as traced,
        _profiler(traced, len(steps)) as profiler,
    ):
        for step in steps:
            profiler(step - steps.start, state)
            batch = watch.input(lambda: sharding.to_devices(next(iterator), job.mesh))
            if not ahead:
                watch.fetch(state["step"])
            state, metrics = job.step(state, batch)
            watch.stepped(step)
            if step == steps.start:  # compiling is no part of the time per step
                jax.block_until_ready(metrics)
                watch.start_clock(step)
            log.write(wait=step - log.step >= AHEAD)
            progress.update(step, **log.shown)
            if step % config.log_every == 0 or step == last:
                log.keep(step, metrics)
                checkpoints.seal(wait=False)

            preempted = asked_to_stop() or checkpoints.reached_preemption(step)
            evaluating = step % config.eval_every == 0 or step == last
            if not (preempted or evaluating or step % config.checkpoint_every == 0):
                continue
            log.write()
            _stop_if_not_finite(state)
            watch.stop_clock()
            watch.compare()
            if evaluating:
                found = job.evaluate(state["params"], "validation")[0]
                retention.check_metric(found)
                writer.write(step, "validation", found)
            if preempted or step % config.checkpoint_every == 0 or step == last:
                writer.flush()
                checkpoints.save(step, state, iterator)
                watch.beat()  # what a restart goes on from
                if preempted or step == last:
                    checkpoints.seal()
            if preempted and step < last:
                if is_main:
                    print(f"preempted: saved step {step}", flush=True)
                break
            preempted = False  # asked at the last step: the run is finished all the same
            watch.start_clock(step)
    watch.stop_clock()
    taken = step - steps.start
    spent = watch.training_seconds / taken if taken > 0 else float("nan")
    return state, Outcome(step, preempted, spent)


def _headline(job: Job, devices: str, start: int, last: int) -> str:
    line = f"{job.name} on {job.dataset.name}, {devices}, steps {start + 1} to {last}"
    if start:
        line += f" (continuing from the checkpoint of step {start})"
    return "\n".join([line, *job.notes])


def _is_recorded(root: storage.AnyPath, step: int, split: str) -> bool:
    return any(r["step"] == step and r["split"] == split for r in read_metrics(root))


def _report(root: storage.AnyPath) -> str:
    return f"report: {write_report(root)}"


def _stop_if_not_finite(state: State) -> None:
    if (bad := int(state["first_bad"])) != ALL_FINITE:
        raise NonFinite(bad)


class _Log:
    """Train records, fetched once they are there, so that the device never waits for the host.

    Attributes:
      step: of the last record.
      shown: what to show beside the progress.
    """

    def __init__(self, writer: MetricWriter, watch: Watch):
        self._writer, self._watch = writer, watch
        self.step = 0
        self.shown: dict[str, float] = {}
        self._kept: tuple[int, dict[str, Any]] | None = None
        self._first_bad = ALL_FINITE

    def keep(self, step: int, metrics: dict[str, Any]) -> None:
        """Keeps the metrics of a step that was asked for, and writes those before it."""
        self.write()
        self.step, self._kept = step, (step, metrics)

    def write(self, *, wait: bool = True) -> None:
        """Writes what was kept, where `wait` is False only if the device is done with it.

        Raises:
          NonFinite: the record says so.
        """
        if self._kept is not None and (wait or self._kept[1]["first_bad"].is_ready()):
            self._write(*self._kept)
        # Without waiting, processes get to know it at different steps, and must stop at the same.
        if self._first_bad != ALL_FINITE and (wait or jax.process_count() == 1):
            raise NonFinite(self._first_bad)

    def _write(self, step: int, metrics: dict[str, Any]) -> None:
        self._kept = None
        values = {name: float(value) for name, value in self._watch.fetch(metrics).items()}
        self._first_bad = int(values.pop("first_bad"))
        # With the values here the step is over; when it was kept it had only been asked for.
        values |= self._watch.measures(step)
        self._writer.write(step, "train", values)
        name = "cross_entropy" if "cross_entropy" in values else "loss"
        self.shown = {name: values[name]}


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
def _profiler(directory: Path | None, steps: int):
    """Yields a function that starts and stops the trace when it is told which step comes.

    Of a run that is too short for it, all steps but the first are traced.
    """
    first = PROFILE_AFTER if steps >= PROFILE_AFTER + PROFILED else 1
    running = False

    def tell(index: int, state: State) -> None:
        nonlocal running
        if directory is not None and index in (first, first + PROFILED):
            jax.block_until_ready(state)  # steps asked for before belong to the other side
            if running:
                jax.profiler.stop_trace()
            else:
                jax.profiler.start_trace(str(directory))
            running = not running

    yield tell
    if running:
        jax.profiler.stop_trace()
