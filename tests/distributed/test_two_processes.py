# SPDX-License-Identifier: Apache-2.0
"""Two processes that train together: the same run as one, and stopped, killed or refused as one."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
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


def start(folder: Path, *arguments: str, devices: int = 1) -> Started:
    """Starts two processes; `wait` returns the launcher's exit code."""
    folder.mkdir(exist_ok=True)
    out, err = folder / "out", folder / "err"
    command = [sys.executable, "launch/local.py", "-n2", f"-d{devices}", "--",
               sys.executable, "-m", "experiments.run", *SETTINGS, *arguments]  # fmt: skip
    with out.open("w") as stdout, err.open("w") as stderr:
        launcher = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr
        )
    return Started(lambda _: launcher.wait(timeout=300), launcher.pid, out, err)


def processes_of(launcher: int) -> list[int]:
    children = Path(f"/proc/{launcher}/task/{launcher}/children")
    if not children.exists():
        pytest.skip("needs /proc to find the launcher's processes")
    return [int(pid) for pid in children.read_text().split()]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The workdir of two processes that nothing interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    start(folder, f"--workdir={folder / 'run'}").expect(0)
    yield folder / "run"


def test_two_processes_eight_devices_and_one_draw_the_same_curve_in_float64(tmp_path, run_python):
    settings = ("--config.param_dtype=float64", "--config.log_every=1")
    short = (*settings, "--max_steps=50")
    two = start(tmp_path / "log", *short, f"--workdir={tmp_path / 'two'}", devices=4).expect(0)
    for name, devices in {"eight": 8, "single": 1}.items():
        run_python("-m", "experiments.run", *SETTINGS, *short, f"--workdir={tmp_path / name}",
                   devices=devices)  # fmt: skip

    ours = records(tmp_path / "two")
    for name in ("eight", "single"):
        theirs = records(tmp_path / name)
        assert [(r["step"], r["split"]) for r in ours] == [(r["step"], r["split"]) for r in theirs]
        assert [r["loss"] for r in ours] == pytest.approx([r["loss"] for r in theirs], rel=1e-12)
        assert sum(r["split"] == "train" for r in theirs) == 50
    assert [line for line in two.out.splitlines() if line.startswith("[1]")] == []
    assert (tmp_path / "two" / "report.html").exists()

    # What two processes saved, one continues, on the batches that come next.
    for name in ("eight", "two"):
        done = run_python("-m", "experiments.run", *SETTINGS, *settings, "--max_steps=55",
                          f"--workdir={tmp_path / name}")  # fmt: skip
        assert "continuing from the checkpoint of step 50" in done.stdout
    ours, theirs = (records(tmp_path / name)[-5:] for name in ("eight", "two"))
    assert [r["loss"] for r in ours] == pytest.approx([r["loss"] for r in theirs], rel=1e-12)


@pytest.mark.parametrize("how", ["SIGTERM to all", "SIGTERM to one", "SIGKILL to one"])
def test_stopped_and_started_again_they_end_with_the_same_bits(whole, tmp_path, how):
    workdir = tmp_path / "run"
    run = start(tmp_path / "first", f"--workdir={workdir}")
    until(step_reached(workdir, 45), run)
    number = signal.Signals[how.split()[0]]
    os.kill(run.pid if how.endswith("all") else processes_of(run.pid)[1], number)
    if number == signal.SIGTERM:
        run.expect(75)
        assert "preempted: saved step" in run.out
    else:
        assert run.wait().code > 0

    again = start(tmp_path / "second", f"--workdir={workdir}").expect(0)

    assert "continuing from the checkpoint of step" in again.out
    assert records(workdir) == records(whole)
    ours, theirs = parameters(workdir), parameters(whole)
    assert all(np.array_equal(ours[name], theirs[name]) for name in theirs)


def test_what_is_wrong_for_one_is_wrong_for_both(whole, tmp_path):
    run = start(tmp_path / "seed", f"--workdir={whole}", "--seed=5").expect(2)
    assert all(
        f"[{i}] run: --workdir: {whole} belongs to another config" in run.err for i in (0, 1)
    )

    run = start(tmp_path / "rate", f"--workdir={tmp_path / 'run'}", "--config.optimizer.name=sgd",
                "--config.optimizer.learning_rate=1e30").expect(3)  # fmt: skip
    assert "not finite at step" in run.err
