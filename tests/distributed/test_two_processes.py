# SPDX-License-Identifier: Apache-2.0
"""Two processes that train together: the same run as one, and stopped, killed or refused as one."""

import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.end_to_end.conftest import Started, parameters, records, step_reached, until

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = (
    "--config=digits:quick",
    "--config.model.hidden=(16,)",
    "--config.steps=200",
    "--config.log_every=5",
    "--config.eval_every=200",
    "--config.checkpoint_every=20",
)


def launch(folder: Path, *arguments: str) -> Started:
    """Has the launcher start two processes; `wait` returns its exit code."""
    folder.mkdir(exist_ok=True)
    out, err = folder / "out", folder / "err"
    command = [sys.executable, "launch/local.py", "-n2", "-d1", "--",
               sys.executable, "-m", "experiments.run", *SETTINGS, *arguments]  # fmt: skip
    with out.open("w") as stdout, err.open("w") as stderr:
        launcher = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr
        )
    return Started(lambda _: launcher.wait(timeout=300), launcher.pid, out, err)


@pytest.fixture
def pair(program) -> Callable[..., list[Started]]:
    """Starts two processes without the launcher, and without its imports."""

    def start(*arguments: str, devices: int = 1) -> list[Started]:
        with socket.socket() as listener:
            listener.bind(("localhost", 0))
            address = f"localhost:{listener.getsockname()[1]}"
        flags = (*SETTINGS, *arguments, f"--coordinator_address={address}", "--num_processes=2")
        return [program(*flags, f"--process_id={i}", devices=devices) for i in (0, 1)]

    return start


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The workdir of two processes that nothing interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    run = launch(folder, f"--workdir={folder / 'run'}").expect(0)
    assert [line for line in run.out.splitlines() if line.startswith("[1]")] == []
    assert (folder / "run" / "report.html").exists()
    yield folder / "run"


def test_a_run_moves_between_two_processes_of_four_devices_and_one_of_eight(
    tmp_path, program, pair
):
    moved, stayed = tmp_path / "moved", tmp_path / "stayed"

    def single(*arguments: str) -> Started:
        return program(*SETTINGS, *arguments, devices=8).expect(0)

    for run in pair("--max_steps=15", f"--workdir={moved}", devices=4):
        run.expect(0)
    second = single("--max_steps=30", f"--workdir={moved}")
    third = [
        run.expect(0) for run in pair("--max_steps=45", f"--workdir={moved}", devices=4)
    ]  # fmt: skip
    single("--max_steps=45", f"--workdir={stayed}")

    assert "continuing from the checkpoint of step 15" in second.out
    assert "continuing from the checkpoint of step 30" in third[0].out
    # The same batches in the same order, or the losses would differ from there on.
    ours, theirs = (
        {(r.pop("step"), r.pop("split")): r for r in records(workdir)}
        for workdir in (moved, stayed)
    )
    trained = [[key for key in found if key[1] == "train"] for found in (ours, theirs)]
    assert trained[0] == trained[1]
    assert {(45, "validation"), (45, "test")} <= set(theirs) <= set(ours)
    for key, record in theirs.items():
        assert ours[key] == pytest.approx(record, rel=1e-4, abs=1e-6), key


def test_two_processes_eight_devices_and_one_draw_the_same_curve_in_float64(
    tmp_path, program, pair
):
    settings = ("--config.param_dtype=float64", "--config.log_every=1")
    short = (*settings, "--max_steps=50")
    for run in pair(*short, f"--workdir={tmp_path / 'two'}", devices=4):
        run.expect(0)
    for name, devices in {"eight": 8, "single": 1}.items():
        program(*SETTINGS, *short, f"--workdir={tmp_path / name}", devices=devices).expect(0)

    ours = records(tmp_path / "two")
    for name in ("eight", "single"):
        theirs = records(tmp_path / name)
        assert [(r["step"], r["split"]) for r in ours] == [(r["step"], r["split"]) for r in theirs]
        assert [r["loss"] for r in ours] == pytest.approx([r["loss"] for r in theirs], rel=1e-12)
        assert sum(r["split"] == "train" for r in theirs) == 50

    # What two processes saved, one continues, on the batches that come next.
    for name in ("eight", "two"):
        done = program(*SETTINGS, *settings, "--max_steps=55", f"--workdir={tmp_path / name}")
        assert "continuing from the checkpoint of step 50" in done.expect(0).out
    ours, theirs = (records(tmp_path / name)[-5:] for name in ("eight", "two"))
    assert [r["loss"] for r in ours] == pytest.approx([r["loss"] for r in theirs], rel=1e-12)


@pytest.mark.parametrize("how", ["SIGTERM to all", "SIGTERM to one", "SIGKILL to one"])
def test_stopped_and_started_again_they_end_with_the_same_bits(whole, tmp_path, pair, how):
    workdir = tmp_path / "run"
    if how == "SIGTERM to all":
        run = launch(tmp_path / "first", f"--workdir={workdir}")
        until(step_reached(workdir, 45), run)
        run.signal(signal.SIGTERM).expect(75)
        assert "preempted: saved step" in run.out
    else:
        runs = pair(f"--workdir={workdir}")
        until(step_reached(workdir, 45), runs[0])
        runs[1].signal(signal.Signals[how.split()[0]])
        if how == "SIGTERM to one":
            assert [run.wait().code for run in runs] == [75, 75]
            assert "preempted: saved step" in runs[0].out
        else:
            runs[1].expect(-signal.SIGKILL)
            # It is in the middle of a step, and ends by itself or by whoever started both.
            assert runs[0].signal(signal.SIGKILL).wait().code != 0

    again = [run.expect(0) for run in pair(f"--workdir={workdir}")]

    assert "continuing from the checkpoint of step" in again[0].out
    assert records(workdir) == records(whole)
    ours, theirs = parameters(workdir), parameters(whole)
    assert all(np.array_equal(ours[name], theirs[name]) for name in theirs)


def test_what_is_wrong_for_one_is_wrong_for_both(whole, tmp_path, pair):
    for run in pair(f"--workdir={whole}", "--seed=5"):
        assert f"run: --workdir: {whole} belongs to another config" in run.expect(2).err

    runs = pair(f"--workdir={tmp_path / 'run'}", "--config.optimizer.name=sgd",
                "--config.optimizer.learning_rate=1e30")  # fmt: skip
    assert all("not finite at step" in run.expect(3).err for run in runs)
