# SPDX-License-Identifier: Apache-2.0
"""What a run says of itself while it goes: `status.json`, its rate, its waits and its goodput.

Reach for it to see from outside whether a run lives, how fast it is and what holds it up:

    {"state": "running", "step": 700, "last_step": 1500, "time": "2026-11-25T22:28:38+00:00", ...}

The file is renamed into place every minute, at every checkpoint and at the end. A state of
"running" whose `time` is some minutes old is that of a process that was killed, and one whose
`stepped` is old while `time` is not, that of a process that hangs. Nothing here can stop a run: a
heartbeat that cannot be written is a warning.
"""

import datetime
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Self, TypeVar

import jax

from experiments import sharding, workdir
from experiments.rundir import STATUS, read_status
from experiments.storage import AnyPath

#: What a train record has of this file; every other number of it repeats from run to run.
MEASURED = (
    "step_seconds",
    "examples_per_second",
    "input_wait_share",
    "input_wait_share_greatest",
    "device_bytes_in_use",
    "device_bytes_peak",
    "recompilations",
)
#: Input is the bottleneck where the loop waits for it this share of the time or more, and for the
#: device this share or less: a loop that runs ahead of a busy device can wait for both.
INPUT_SHARE, DEVICE_SHARE = 0.5, 0.25
#: Seconds of training that are judged together.
JUDGED = 10.0

_COMPILED = "/jax/core/compile/backend_compile_duration"
_SPENT = ("training", "repeated", "down", "other")
T = TypeVar("T")


class Watch:
    """Measures one process of a run, and on process 0 writes `status.json`; a context manager.

    Leaving it writes the last status: "failed" with the exception's first line, "preempted" if
    that is what `state` was set to, else "finished".

    `seconds` of the status tell where the time since the run's first start went, over all restarts:
    "training" on steps that count, "repeated" on steps that a restart had to make again, "down"
    from the last sign of life of one process to the start of the next, and "other" (start,
    compiling, evaluation, checkpoints). Goodput is the share of "training" in their sum.

    Args:
      root: the workdir.
      is_main: whether this is process 0; the others measure and warn, and write nothing.
      interval: seconds between heartbeats.
      devices: whose memory to tell; this process's by default.

    Attributes:
      state: "running", "finished", "failed" or "preempted".
      recompilations: how often the train step was compiled again after this process's first step.
      warnings: what was warned of.
    """

    def __init__(
        self, root: AnyPath, *, is_main: bool, interval: float = 60.0, devices: Any = None
    ) -> None:
        self._path, self._is_main, self._interval = root / STATUS, is_main, interval
        self._devices = devices
        self.state, self.recompilations = "running", 0
        self.warnings: list[str] = []
        self._began = self._stepped_at = time.time()
        self._first_step: int | None = None  # of this process; None before `begin`
        self._start = self._step = self._last = self._batch_size = self._restarts = 0
        self._metrics: Mapping[str, Any] = {}
        self._before = dict.fromkeys(_SPENT, 0.0)  # seconds of the processes before this one
        self._compiled = self._compiled_before = 0
        # Seconds on steps before the clock was started, and when it was, or None while it stands:
        # one tuple, since the heartbeat's thread reads it too.
        self._clock: tuple[float, float | None] = (0.0, None)
        self._input = self._device = 0.0  # seconds of waiting
        self._marks = (0.0, 0, 0.0, 0.0)
        self._compared = (0.0, 0.0)  # seconds of training and of waiting for input
        self._shares: list[float] | None = None  # of every process, where there are several
        self._judged = [0.0, 0.0, 0.0]
        self._rate: dict[str, float] = {}
        self._message: str | None = None
        self._lock, self._over = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._beat_on, daemon=True)

    # ---- From start to end

    def __enter__(self) -> Self:
        jax.monitoring.register_event_duration_secs_listener(self._listen)
        return self

    def begin(
        self, start: int, last: int, batch_size: int, metrics: Mapping[str, Any] | None = None
    ) -> None:
        """Says what this process is going to do; the first status is written.

        Args:
          start: steps that are done already.
          last: the step at which it will stop.
          batch_size: examples a step, over all processes.
          metrics: the last record of each split, looked up whenever a status is written.
        """
        self._last, self._batch_size = last, batch_size
        self._metrics = {} if metrics is None else metrics
        self._take_up(read_status(self._path.parent), start)
        self._first_step = start + 1
        if self._is_main:
            self.beat()
            self._thread.start()

    def __exit__(self, kind: type[BaseException] | None, error: Any, _: Any) -> None:
        jax.monitoring.unregister_event_duration_listener(self._listen)
        if kind is not None:
            self.state = "failed"
            self._message = f"{kind.__name__}: {error}".strip().splitlines()[0].removesuffix(":")
        elif self.state == "running":
            self.state = "finished"
        self._over.set()
        self.stop_clock()
        if self._first_step is None:
            if self.state != "failed":
                return  # there was nothing to do
            previous = read_status(self._path.parent)
            self._take_up(previous, int((previous or {}).get("step", 0)))
        if self._thread.is_alive():
            self._thread.join(timeout=10.0)
        self.beat()

    # ---- In the loop

    def input(self, read: Callable[[], T]) -> T:
        """Calls a function that gives the next batch, and measures how long it takes."""
        began = time.perf_counter()
        batch = read()
        self._input += time.perf_counter() - began
        self._compiled_before = self._compiled
        return batch

    def stepped(self, step: int) -> None:
        """Says that a step has been handed to the device, right after it was."""
        again = self._compiled - self._compiled_before
        self._step, self._stepped_at = step, time.time()
        if again and self._first_step is not None and step > self._first_step:
            self.recompilations += 1
            self._warn("recompiled", f"the train step was compiled again at step {step}: a shape, "
                       "a dtype or a sharding of its arguments has changed")  # fmt: skip

    def fetch(self, tree: T) -> T:
        """`jax.device_get`, and measures how long the device keeps the loop waiting."""
        began = time.perf_counter()
        found = jax.device_get(tree)
        self._device += time.perf_counter() - began
        return found

    def start_clock(self, step: int) -> None:
        """Training goes on after `step`: what came before was compiling, evaluation, saving."""
        now = time.perf_counter()
        self._clock = (self.training_seconds, now)
        self._marks = (now, step, self._input, self._device)

    def stop_clock(self) -> None:
        """What comes now is no training."""
        self._clock = (self.training_seconds, None)

    def compare(self) -> None:
        """Asks every process for its share of waiting for input, between this call and the last.

        All processes call it at the same step, of an evaluation or a checkpoint: a step waits for
        the slowest of them, whose waiting the other processes' records do not show.
        """
        now = (self.training_seconds, self._input)
        seconds, waited = (a - b for a, b in zip(now, self._compared, strict=True))
        self._compared = now
        shares = sharding.of_processes(min(waited / seconds, 1.0) if seconds > 0 else 0.0)
        if len(shares) > 1:
            self._shares = shares

    @property
    def training_seconds(self) -> float:
        """Seconds that this process spent on steps, its first one (which compiles) left out."""
        spent, began = self._clock
        return spent + (0.0 if began is None else time.perf_counter() - began)

    def measures(self, step: int) -> dict[str, float]:
        """What was measured since the last call, or the start of the clock: for a train record.

        Args:
          step: a step that the device has finished.

        Returns:
          Those of `MEASURED` that are known; the first step alone has no time without compiling.
        """
        now = time.perf_counter()
        since, before, input_before, device_before = self._marks
        self._marks = (now, step, self._input, self._device)
        found: dict[str, float] = {}
        if (steps := step - before) and (seconds := now - since) > 0:
            waited = min(self._input - input_before, seconds)
            found["step_seconds"] = seconds / steps
            found["examples_per_second"] = self._batch_size * steps / seconds
            found["input_wait_share"] = waited / seconds
            self._judge(seconds, waited, self._device - device_before)
            self._rate = dict(found)
        if self._shares is not None:
            found["input_wait_share_greatest"] = max(self._shares)
        if (memory := device_memory(self._devices)) is not None:
            found["device_bytes_in_use"] = memory["bytes_in_use"]
            found["device_bytes_peak"] = memory["peak_bytes_in_use"]
        if self.recompilations:
            found["recompilations"] = self.recompilations
        return found

    # ---- What is told

    def summary(self) -> dict[str, Any]:
        """Goodput, restarts and where the time went, for run.json."""
        training = self.training_seconds
        seconds = {**self._before, "training": self._before["training"] + training}
        seconds["other"] += max(time.time() - self._began - training, 0.0)
        whole = sum(seconds.values())
        return {
            "goodput": seconds["training"] / whole if whole > 0 else 0.0,
            "restarts": self._restarts,
            "seconds": seconds,
        }

    def status(self) -> dict[str, Any]:
        """What `status.json` says now."""
        return {
            "state": self.state,
            "message": self._message,
            "step": self._step,
            "last_step": self._last,
            "start_step": self._start,
            "time": _text(time.time()),
            "stepped": _text(self._stepped_at),
            "began": _text(self._began),
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "step_seconds": self._rate.get("step_seconds"),
            "examples_per_second": self._rate.get("examples_per_second"),
            "input_wait_share": self._rate.get("input_wait_share"),
            "input_wait_shares": self._shares,
            "device_memory": device_memory(self._devices),
            "recompilations": self.recompilations,
            "warnings": list(self.warnings),
            "metrics": {split: dict(record) for split, record in list(self._metrics.items())},
            "training_seconds": self.training_seconds,
            **self.summary(),
        }

    def beat(self) -> None:
        """Writes the status now."""
        if not self._is_main:
            return
        with self._lock:  # the heartbeat's thread and the loop share one temporary name
            try:
                workdir.write_json(self._path, self.status())
            except OSError as error:
                self._warn("status", f"cannot write {self._path}: {error.strerror or error}")

    def _take_up(self, previous: Mapping[str, Any] | None, start: int) -> None:
        """Goes on with the accounts of the processes before."""
        self._start = self._step = start
        if previous is not None:
            self._restarts, self._before = _carried_on(previous, start, self._began)

    def _beat_on(self) -> None:
        while not self._over.wait(self._interval):
            self.beat()

    def _judge(self, seconds: float, waited: float, device: float) -> None:
        self._judged = [a + b for a, b in zip(self._judged, (seconds, waited, device), strict=True)]
        whole, waited, device = self._judged
        if whole < JUDGED:
            return
        self._judged = [0.0, 0.0, 0.0]
        if waited >= INPUT_SHARE * whole and device <= DEVICE_SHARE * whole:
            process = f" of process {jax.process_index()}" if jax.process_count() > 1 else ""
            self._warn(
                "input",
                f"the input pipeline{process} is the bottleneck: {100 * waited / whole:.0f} % of "
                f"the time up to step {self._step} went on waiting for batches, and the device "
                "stood idle",
            )

    def _warn(self, kind: str, text: str) -> None:
        """Warns on stderr, of each kind once."""
        if not any(told.startswith(f"{kind}: ") for told in self.warnings):
            self.warnings.append(f"{kind}: {text}")
            print(f"warning: {text}", file=sys.stderr, flush=True)

    def _listen(self, event: str, *_: Any, **__: Any) -> None:
        if event == _COMPILED:
            self._compiled += 1


def device_memory(devices: Any = None) -> dict[str, int] | None:
    """Bytes in use, their peak and the limit, of the fullest device of this process.

    Args:
      devices: whose; by default this process's.

    Returns:
      None where the backend does not tell, as on a CPU.
    """
    told = [device.memory_stats() for device in devices or jax.local_devices()]
    told = [stats for stats in told if stats]
    if not told:
        return None
    names = ("bytes_in_use", "peak_bytes_in_use", "bytes_limit")
    return {name: max(int(stats.get(name, 0)) for stats in told) for name in names}


def _carried_on(previous: Mapping[str, Any], start: int, now: float) -> tuple[int, dict]:
    """Restarts, and the seconds of the processes before, of which only steps up to `start` count.

    A status that is not understood counts for nothing.
    """
    try:
        seconds = {name: float(previous["seconds"][name]) for name in _SPENT}
        own, first = float(previous["training_seconds"]), int(previous["start_step"])
        made = max(int(previous["step"]) - first, 1)
        before = seconds["training"] - own
        if start >= first:
            kept = before + own * min((start - first) / made, 1.0)
        else:  # what the process before had itself begun from is damaged or gone
            kept = before * start / first
        seconds["repeated"] += seconds["training"] - kept
        seconds["training"] = kept
        if previous["state"] != "finished":  # a run that is given more steps was not down
            ended = datetime.datetime.fromisoformat(previous["time"]).timestamp()
            seconds["down"] += max(now - ended, 0.0)
        return int(previous["restarts"]) + 1, seconds
    except (KeyError, TypeError, ValueError):
        return 0, dict.fromkeys(_SPENT, 0.0)


def _text(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat(timespec="milliseconds")
