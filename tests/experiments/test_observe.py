# SPDX-License-Identifier: Apache-2.0
"""The heartbeat: what it says in every state, what it measures, and its accounts over restarts."""

import json
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import observe, workdir
from experiments.observe import Watch, device_memory, read_status


class Clock:
    """A clock that the test moves, for both of `time`'s that a Watch reads."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.now = 1.0e9
        read = lambda: self.now  # noqa: E731
        monkeypatch.setattr(
            observe, "time", SimpleNamespace(time=read, perf_counter=read, monotonic=read)
        )

    def passes(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def status_of(root: Path) -> dict:
    found = read_status(root)
    assert found is not None
    return found


def attempt(root: Path, clock: Clock, start: int, steps: int, seconds: float) -> Watch:
    """A process that dies without a word after some steps, of which each takes some seconds."""
    watch = Watch(root, is_main=True, interval=1e6)
    watch.__enter__()
    watch.begin(start, 100, 8)
    clock.passes(5.0)  # compiling
    watch.start_clock(start)
    for step in range(start + 1, start + steps + 1):
        watch.input(lambda: None)
        watch.stepped(step)
        clock.passes(seconds)
    watch.stop_clock()
    watch.beat()
    return watch


def test_a_status_is_written_at_once_each_interval_and_at_the_end(tmp_path):
    with Watch(tmp_path, is_main=True, interval=0.05) as watch:
        watch.begin(3, 10, 64, {"train": {"step": 3, "loss": "NaN"}})
        first = status_of(tmp_path)
        watch.stepped(4)
        until = time.monotonic() + 20.0
        while status_of(tmp_path)["step"] != 4 and time.monotonic() < until:
            time.sleep(0.01)
        beaten = status_of(tmp_path)
    ended = status_of(tmp_path)

    assert (first["state"], first["step"], first["last_step"]) == ("running", 3, 10)
    assert first["metrics"] == {"train": {"step": 3, "loss": "NaN"}}
    assert (beaten["state"], beaten["step"]) == ("running", 4)
    assert (ended["state"], ended["message"]) == ("finished", None)
    assert first["time"] < beaten["time"] <= ended["time"] and ended["pid"] > 0
    assert [path.name for path in tmp_path.iterdir()] == ["status.json"]
    assert not any(thread is watch._thread for thread in threading.enumerate())


def test_no_reader_ever_sees_half_a_status(tmp_path):
    with Watch(tmp_path, is_main=True, interval=0.001) as watch:
        watch.begin(0, 10, 64)
        for _ in range(200):
            watch.beat()
            assert json.loads((tmp_path / "status.json").read_text())["state"] == "running"


def test_how_a_run_ended_is_its_state(tmp_path):
    with pytest.raises(OSError, match="no space"), Watch(tmp_path, is_main=True) as watch:
        watch.begin(0, 10, 64)
        raise OSError("no space\nleft")
    assert status_of(tmp_path)["state"] == "failed"
    assert status_of(tmp_path)["message"] == "OSError: no space"

    with pytest.raises(KeyboardInterrupt), Watch(tmp_path, is_main=True) as watch:
        watch.begin(0, 10, 64)
        raise KeyboardInterrupt
    assert status_of(tmp_path)["message"] == "KeyboardInterrupt"

    with Watch(tmp_path, is_main=True) as watch:
        watch.begin(0, 10, 64)
        watch.state = "preempted"
    assert status_of(tmp_path)["state"] == "preempted"


def test_other_processes_write_nothing_and_a_run_with_nothing_to_do_leaves_the_status(tmp_path):
    with Watch(tmp_path, is_main=False) as watch:
        watch.begin(0, 10, 64)
        watch.stepped(1)
    assert list(tmp_path.iterdir()) == []
    with Watch(tmp_path, is_main=True):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_status_that_cannot_be_written_is_one_warning(tmp_path, monkeypatch, capsys):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(workdir, "write_json", full)
    with Watch(tmp_path, is_main=True) as watch:
        watch.begin(0, 10, 64)
        watch.beat()
    err = capsys.readouterr().err
    assert err.count("warning: cannot write") == 1 and "No space left on device" in err


def test_a_status_from_elsewhere_does_not_stop_a_run(tmp_path):
    for text in ('{"state": ', "[]", '{"state": "running", "seconds": 3}', '{"state": "running"}'):
        (tmp_path / "status.json").write_text(text)
        with Watch(tmp_path, is_main=True) as watch:
            watch.begin(0, 10, 64)
        assert status_of(tmp_path)["restarts"] == 0
        assert status_of(tmp_path)["state"] == "finished"


# ---- Goodput -------------------------------------------------------------------------------------


def test_1_goodput_counts_kept_steps_over_all_the_time_since_the_first_start(tmp_path, clock):
    attempt(tmp_path, clock, 0, 40, 1.0)
    told = status_of(tmp_path)
    assert told["seconds"] == {"training": 40.0, "repeated": 0.0, "down": 0.0, "other": 5.0}
    assert told["goodput"] == pytest.approx(40 / 45)

    clock.passes(15.0)  # until it is started again, from the checkpoint of step 30
    attempt(tmp_path, clock, 30, 20, 2.0)

    told = status_of(tmp_path)
    assert (told["restarts"], told["start_step"], told["step"]) == (1, 30, 50)
    assert told["seconds"] == {"training": 70.0, "repeated": 10.0, "down": 15.0, "other": 10.0}
    assert told["goodput"] == pytest.approx(70 / 105)


def test_2_a_fall_back_behind_the_last_start_takes_from_what_was_before(tmp_path, clock):
    attempt(tmp_path, clock, 0, 40, 1.0)
    attempt(tmp_path, clock, 40, 10, 1.0)
    attempt(tmp_path, clock, 20, 0, 1.0)  # the checkpoint of step 40 was damaged

    told = status_of(tmp_path)
    assert told["seconds"] == {"training": 20.0, "repeated": 30.0, "down": 0.0, "other": 15.0}
    assert told["restarts"] == 2


def test_3_a_checkpoint_newer_than_the_last_heartbeat_loses_nothing(tmp_path, clock):
    attempt(tmp_path, clock, 0, 10, 1.0)
    attempt(tmp_path, clock, 12, 0, 1.0)
    assert status_of(tmp_path)["seconds"]["training"] == 10.0


def test_4_a_finished_run_that_is_given_more_steps_was_not_down(tmp_path, clock):
    attempt(tmp_path, clock, 0, 10, 1.0).__exit__(None, None, None)
    clock.passes(86_400.0)
    attempt(tmp_path, clock, 10, 10, 1.0)
    assert status_of(tmp_path)["seconds"]["down"] == 0.0


def test_5_a_start_that_fails_early_keeps_the_accounts(tmp_path, clock):
    attempt(tmp_path, clock, 0, 10, 1.0)
    clock.passes(7.0)
    with pytest.raises(ValueError, match="damaged"), Watch(tmp_path, is_main=True):
        raise ValueError("damaged")
    told = status_of(tmp_path)
    assert (told["state"], told["step"]) == ("failed", 10)
    assert told["seconds"] == {"training": 10.0, "repeated": 0.0, "down": 7.0, "other": 5.0}


# ---- Rates, waits, warnings ----------------------------------------------------------------------


def looped(watch: Watch, clock: Clock, steps: int, *, reading: float, device: float) -> dict:
    def fetch(_):
        clock.passes(device)
        return {}

    watch.start_clock(1)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(jax, "device_get", fetch)
        for step in range(2, steps + 2):
            watch.input(lambda: clock.passes(reading))
            watch.stepped(step)
            watch.fetch({})
    return watch.measures(steps + 1)


def test_rate_and_input_wait_share_are_those_of_the_steps(tmp_path, clock):
    watch = Watch(tmp_path, is_main=True)
    found = looped(watch, clock, 4, reading=0.25, device=0.75)
    assert found["step_seconds"] == pytest.approx(1.0)
    assert found["input_wait_share"] == pytest.approx(0.25)
    assert found.keys() <= set(observe.MEASURED)
    watch.start_clock(5)
    clock.passes(1.0)
    assert "step_seconds" not in watch.measures(5)  # no step since the clock was started


@pytest.mark.parametrize(
    ("reading", "device", "steps", "warned"),
    [
        (0.9, 0.1, 20, True),
        (0.9, 0.1, 4, False),  # too early to say
        (0.6, 0.4, 20, False),  # the device is busy all the same
        (0.1, 0.9, 20, False),
        (0.1, 0.0, 200, True),
    ],
)
def test_a_slow_input_pipeline_is_warned_of_once(
    tmp_path, clock, capsys, reading, device, steps, warned
):
    watch = Watch(tmp_path, is_main=True)
    for _ in range(2):
        looped(watch, clock, steps, reading=reading, device=device)
    err = capsys.readouterr().err
    assert err.count("the input pipeline is the bottleneck") == warned
    assert len(watch.warnings) == warned


def test_a_step_that_is_compiled_again_is_counted_and_warned_of(tmp_path, capsys):
    step = jax.jit(lambda x: x * 3.0 - 1.0)
    with Watch(tmp_path, is_main=True) as watch:
        watch.begin(0, 5, 4)
        for number, size in enumerate((17, 17, 18, 17, 19), start=1):
            batch = watch.input(lambda n=size: jnp.ones(n))  # compiles too: not the step
            step(batch)
            watch.stepped(number)
        assert watch.measures(5)["recompilations"] == 2
    assert status_of(tmp_path)["recompilations"] == 2
    err = capsys.readouterr().err
    assert err.count("warning:") == 1 and "compiled again at step 3" in err


def test_memory_is_that_of_the_fullest_device_where_the_backend_tells():
    def device(*sizes):
        names = ("bytes_in_use", "peak_bytes_in_use", "bytes_limit")
        return SimpleNamespace(memory_stats=lambda: dict(zip(names, sizes, strict=True)))

    assert device_memory([device(1, 5, 9), device(2, 3, 9)]) == {
        "bytes_in_use": 2, "peak_bytes_in_use": 5, "bytes_limit": 9,
    }  # fmt: skip
    assert device_memory([SimpleNamespace(memory_stats=lambda: None)]) is None
    with_memory = Watch(Path("nowhere"), is_main=False, devices=[device(1, 5, 9)])
    assert with_memory.measures(0) == {"device_bytes_in_use": 1, "device_bytes_peak": 5}
    assert np.isfinite(with_memory.training_seconds)


def test_the_process_that_waits_most_for_its_input_is_told(tmp_path, clock, monkeypatch):
    with Watch(tmp_path, is_main=True, interval=1e6) as watch:
        watch.begin(0, 10, 8)
        watch.start_clock(0)
        watch.input(lambda: clock.passes(1.0))
        clock.passes(3.0)
        watch.compare()  # one process: nothing to compare
        assert "input_wait_share_greatest" not in watch.measures(1)
        assert watch.status()["input_wait_shares"] is None
        monkeypatch.setattr(observe.sharding, "of_processes", lambda own: [own, 0.75, 0.5])
        watch.input(lambda: clock.passes(1.0))
        clock.passes(1.0)
        watch.compare()

        assert watch.measures(2)["input_wait_share_greatest"] == 0.75
        assert watch.status()["input_wait_shares"] == [0.5, 0.75, 0.5]
