# SPDX-License-Identifier: Apache-2.0
"""The Slurm script under a scheduler that is played: stand-ins for srun and scontrol."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "launch" / "slurm.sbatch"
BASH = shutil.which("bash") or ""
FLAGS = ("--config=digits", "--workdir=/shared/digits")

pytestmark = pytest.mark.skipif(not BASH, reason="needs bash")

#: Starts SLURM_NTASKS tasks and returns the highest of their exit codes, as srun does.
SRUN = f"""#!{BASH}
printf '%s\\n' "$*" >> "$CALLS/srun"
while [[ "$1" == --* ]]; do shift; done
pids=() highest=0
for ((i = 0; i < SLURM_NTASKS; i++)); do
    SLURM_STEP_NODELIST=localhost SLURM_STEP_NUM_NODES=1 SLURM_PROCID=$i SLURM_LOCALID=$i \\
        setsid "$@" & pids+=($!)
done
printf '%s\\n' "${{pids[@]}}" > "$CALLS/tasks.new"
mv "$CALLS/tasks.new" "$CALLS/tasks"
for pid in "${{pids[@]}}"; do
    wait "$pid"; code=$?
    [ $code -le $highest ] || highest=$code
done
exit $highest
"""
SCONTROL = """#!/bin/sh
printf '%s\\n' "$*" >> "$CALLS/scontrol"
[ ! -e "$CALLS/refuses" ]
"""


class Slurm:
    """Runs the script as sbatch would, and again for as long as it puts itself back."""

    def __init__(self, folder: Path):
        self.folder = folder
        for name, text in (("srun", SRUN), ("scontrol", SCONTROL)):
            self.program(name, text)
        self.attempts = 0

    def program(self, name: str, text: str) -> Path:
        path = self.folder / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
        return path

    def trains(self, text: str) -> "Slurm":
        """What each task does instead of training, in bash."""
        self.program("python", f"#!{BASH}\n{text}\n")
        return self

    def calls(self, name: str) -> list[str]:
        path = self.folder / name
        return path.read_text().splitlines() if path.exists() else []

    def start(self, *flags: str, **environment: str) -> subprocess.Popen[str]:
        (self.folder / "tasks").unlink(missing_ok=True)
        outside = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "XLOSS_"))}
        known = {
            "PATH": f"{self.folder / 'bin'}:{os.environ.get('PATH', os.defpath)}",
            "CALLS": str(self.folder),
            "SLURM_JOB_ID": "4711",
            "SLURM_NTASKS": "2",
            "SLURM_TASKS_PER_NODE": "2",
        }
        if self.attempts:
            known["SLURM_RESTART_COUNT"] = str(self.attempts)
        self.attempts += 1
        return subprocess.Popen(
            [BASH, str(SCRIPT), *flags], cwd=ROOT, env={**outside, **known, **environment},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def once(self, *flags: str, **environment: str) -> tuple[int, str, str]:
        process = self.start(*flags, **environment)
        out, err = process.communicate(timeout=60)
        return process.returncode, out, err

    def to_the_end(self, *flags: str, **environment: str) -> int:
        """The scheduler: what was requeued is started again, at most ten times."""
        for _ in range(10):
            before = len(self.calls("scontrol"))
            code, _, _ = self.once(*flags, **environment)
            if len(self.calls("scontrol")) == before:
                return code
        raise AssertionError("requeued without end")

    def tasks(self) -> list[int]:
        until = time.monotonic() + 60
        while not (self.folder / "tasks").exists():
            assert time.monotonic() < until, "srun was not called"
            time.sleep(0.02)
        return [int(pid) for pid in self.calls("tasks")]


@pytest.fixture
def slurm(tmp_path: Path) -> Slurm:
    return Slurm(tmp_path)


@pytest.mark.parametrize(
    ("codes", "ends_with"),
    [
        ("0 0", 0),
        ("75 75", 75),
        ("75 0", 75),
        ("2 2", 2),
        ("3 3", 3),
        ("1 1", 1),
        # A crash is not hidden by the higher code of those that ended well.
        ("75 1", 1),
        ("3 75", 3),
        ("75 137", 137),
        ("0 1", 1),
        ("74 74", 74),
        ("76 75", 76),
        ("143 0", 143),
    ],
)
def test_it_is_put_back_at_75_and_at_nothing_else(slurm, codes, ends_with):
    slurm.trains(f"codes=({codes}); exit ${{codes[$SLURM_PROCID]}}")
    code, out, _ = slurm.once(*FLAGS)
    assert code == ends_with
    assert slurm.calls("scontrol") == (["requeue 4711"] if ends_with == 75 else [])
    assert ("back in the queue (restart 1)" in out) == (ends_with == 75)


def test_what_was_preempted_goes_on_until_it_is_finished(slurm):
    slurm.trains("[ ${SLURM_RESTART_COUNT:-0} -ge 3 ] || exit 75")
    assert slurm.to_the_end(*FLAGS) == 0
    assert (slurm.attempts, slurm.calls("scontrol")) == (4, ["requeue 4711"] * 3)


def test_what_crashes_after_a_preemption_is_not_put_back_again(slurm):
    slurm.trains("[ ${SLURM_RESTART_COUNT:-0} -ge 1 ] || exit 75; exit 1")
    assert slurm.to_the_end(*FLAGS) == 1
    assert slurm.attempts == 2


def test_srun_that_cannot_start_anything_is_not_a_preemption(slurm):
    slurm.program("srun", "#!/bin/sh\nexit 1\n")
    assert slurm.once(*FLAGS)[0] == 1
    assert slurm.calls("scontrol") == []


def test_a_queue_that_refuses(slurm):
    (slurm.folder / "refuses").touch()
    code, _, err = slurm.trains("exit 75").once(*FLAGS)
    assert code == 75 and "submit the same line again" in err


def test_the_tasks_get_the_flags_as_they_are(slurm):
    slurm.trains('[ $SLURM_PROCID = 1 ] || printf "%s\\n" "$@"')
    flags = (*FLAGS, "--config.data.path=/mnt/it's $here", "--coordinator_port=8476")
    code, out, _ = slurm.once(*flags)
    given = ["-u", "-m", "experiments.run", "--coordinator_address=auto", *flags]
    assert (code, out.splitlines()) == (0, given)
    # A task that ends first must not take the others' last save with it.
    (call,) = slurm.calls("srun")
    assert "--kill-on-bad-exit=0 --wait=120" in call


def test_another_python(slurm):
    other = slurm.program("other", "#!/bin/sh\nexit 3\n")
    assert slurm.trains("exit 0").once(*FLAGS, XLOSS_PYTHON=str(other))[0] == 3


WAITS = (
    "trap 'sleep 0.2; exit 75' TERM; touch $CALLS/ready$SLURM_PROCID; while :; do sleep 0.05; done"
)


def wait_until_ready(slurm: Slurm) -> None:
    until = time.monotonic() + 60
    while not all((slurm.folder / f"ready{i}").exists() for i in range(2)):
        assert time.monotonic() < until
        time.sleep(0.02)


def test_sigterm_to_the_tasks_is_a_preemption(slurm):
    """As --signal=TERM@300 and `scancel --signal=TERM` send it: to all processes of the step."""
    process = slurm.trains(WAITS).start(*FLAGS)
    wait_until_ready(slurm)
    for pid in slurm.tasks():
        os.killpg(pid, signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 75
    assert slurm.calls("scontrol") == ["requeue 4711"]


def test_what_is_cancelled_stays_cancelled(slurm):
    """scancel reaches the batch shell too."""
    process = slurm.trains(WAITS).start(*FLAGS)
    wait_until_ready(slurm)
    process.send_signal(signal.SIGTERM)
    for pid in slurm.tasks():
        os.killpg(pid, signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 75
    assert slurm.calls("scontrol") == []


@pytest.mark.parametrize(
    ("flags", "environment", "said"),
    [
        (FLAGS, {"SLURM_JOB_ID": ""}, "started by sbatch"),
        (("--config=digits",), {}, "--workdir: expected a directory"),
        (("--config=digits", "--workdir="), {}, "--workdir: expected a directory"),
        (FLAGS, {"SLURM_GPUS_PER_TASK": "1"}, "--gpus-per-task: expected --gpus-per-node"),
        (
            FLAGS,
            {"SLURM_GPUS_ON_NODE": "8", "SLURM_TASKS_PER_NODE": "1(x2)"},
            "one task for each of the 8 GPUs",
        ),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(slurm, flags, environment, said):
    code, out, err = slurm.trains("exit 0").once(*flags, **environment)
    assert (code, out) == (2, "")
    assert said in err and len(err.splitlines()) == 1
    assert slurm.calls("srun") == []


@pytest.mark.parametrize("tasks", ["8(x2)", "8,8", "8"])
def test_one_task_for_each_gpu_is_right(slurm, tasks):
    environment = {"SLURM_GPUS_ON_NODE": "8", "SLURM_TASKS_PER_NODE": tasks}
    assert slurm.trains("exit 0").once(*FLAGS, **environment)[0] == 0


def test_what_sbatch_reads():
    options = [
        line.removeprefix("#SBATCH ")
        for line in SCRIPT.read_text().splitlines()
        if line.startswith("#SBATCH ")
    ]
    assert {"--requeue", "--signal=TERM@300", "--open-mode=append"} <= set(options)


@pytest.mark.slow
def test_jax_finds_the_cluster_and_a_preempted_run_goes_on(slurm, tmp_path):
    """Two real processes in a simulated Slurm environment; one of them gets SIGTERM."""
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        port = listener.getsockname()[1]
    workdir = tmp_path / "run"
    flags = (
        "--config=digits:quick", f"--workdir={workdir}", "--config.model.hidden=(16,)",
        "--config.steps=300", "--config.log_every=5", "--config.eval_every=300",
        "--config.checkpoint_every=100", f"--coordinator_port={port}",
    )  # fmt: skip
    environment = {"XLOSS_PYTHON": sys.executable, "JAX_PLATFORMS": "cpu",
                   "JAX_NUM_CPU_DEVICES": "1"}  # fmt: skip
    process = slurm.start(*flags, **environment)
    metrics, until = workdir / "metrics.jsonl", time.monotonic() + 180
    while not metrics.exists() or metrics.read_text().count("\n") < 3:
        assert process.poll() is None and time.monotonic() < until, process.communicate()
        time.sleep(0.05)
    os.killpg(slurm.tasks()[1], signal.SIGTERM)
    out, err = process.communicate(timeout=180)
    assert process.returncode == 75, out + err
    assert "preempted: saved step" in out
    assert "2 x cpu" in out  # one device of each process: JAX found both
    assert slurm.calls("scontrol") == ["requeue 4711"]

    code, out, err = slurm.once(*flags, **environment)

    assert code == 0, out + err
    assert "continuing from the checkpoint of step" in out
    assert slurm.calls("scontrol") == ["requeue 4711"]
