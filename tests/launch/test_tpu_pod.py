# SPDX-License-Identifier: Apache-2.0
"""The pod script: what it prints, what it calls (a stand-in for gcloud), what workers then do."""

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
SCRIPT = HERE.parents[1] / "launch" / "tpu_pod.sh"
POD = ("--name=xloss", "--project=my-project", "--zone=us-west4-a", "--type=v5litepod-16")
RUN = ("--", "--config=digits", "--workdir=gs://my-bucket/runs/digits")
SHARED = ("--", "--config=digits", "--workdir=/mnt/shared/digits")
PATHS = os.environ.get("PATH", os.defpath)
BASH = shutil.which("bash") or ""

pytestmark = pytest.mark.skipif(not BASH, reason="needs bash")


def write_program(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """The only folder in which programs are found: a real gcloud must never be called."""
    folder = tmp_path / "tools"
    folder.mkdir()
    for name in ("sleep", "grep", "awk", "sort", "head", "tail", "sed"):
        (folder / name).symlink_to(shutil.which(name) or "")
    return folder


@pytest.fixture
def gcloud(tools: Path) -> Path:
    """A stand-in that writes down how it was called; the pod is ACTIVE when it is asked again."""
    write_program(
        tools / "gcloud",
        "#!/bin/sh\n"
        f'printf "%s\\n" "$*" >> {tools}/calls\n'
        f'case "$*" in *describe*) [ -f {tools}/asked ] && echo ACTIVE || echo WAITING;'
        f" : > {tools}/asked ;; *ended*) echo ended 1 worker 0 ;; esac\n",
    )
    return tools


class Pod:
    """Three folders that play the workers: what is sent over ssh is executed there, for real."""

    def __init__(self, tools: Path):
        self.tools, self.root = tools, tools.parent / "workers"
        self.state("ACTIVE")
        for index in range(3):
            # The training program: does what worker N's file `program` says.
            write_program(self.home(index) / "xloss/bin/python", f'#!{BASH}\n. "$HOME/program"\n')
        write_program(self.root / "bin/hostname", '#!/bin/sh\necho "t1v-n-w-$(basename "$HOME")"\n')
        write_program(
            tools / "gcloud",
            f"#!{BASH}\n"
            f"PATH={self.root}/bin:{PATHS}\n"
            f'printf "%s\\n" "$*" >> {tools}/calls\n'
            f'case "$*" in *describe*) cat {tools}/state; exit ;; esac\n'
            '[ "$4" = ssh ] || exit 0\n'
            f'[ "$(cat {tools}/state)" = ACTIVE ] || {{ echo "no such node" >&2; exit 1; }}\n'
            'for word in "$@"; do case "$word" in\n'
            "  --worker=all) workers='0 1 2' ;;\n"
            "  --worker=*) workers=${word#*=} ;;\n"
            "  --command=*) command=${word#*=} ;;\n"
            "esac; done\n"
            "jobs=\n"
            f'for i in $workers; do HOME={self.root}/$i {BASH} -c "$command" &'
            ' jobs="$jobs $!"; done\n'
            "status=0; for job in $jobs; do wait $job || status=1; done; exit $status\n",
        )

    def state(self, state: str) -> None:
        (self.tools / "state").write_text(state + "\n")

    def home(self, index: int) -> Path:
        return self.root / str(index)

    def programs(self, *texts: str) -> None:
        for index, text in enumerate(texts):
            (self.home(index) / "program").write_text(text)

    def exit_codes(self) -> list[str]:
        return [(self.home(i) / "xloss-run/exit").read_text().split()[0] for i in range(3)]


@pytest.fixture
def workers(tools: Path) -> Pod:
    return Pod(tools)


def shell(tools: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PATH": str(tools), "TPU_POD_POLL_SECONDS": "0.1"}
    return subprocess.run(
        [BASH, *arguments], env=environment, capture_output=True, text=True, timeout=60
    )


def pod(tools: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return shell(tools, str(SCRIPT), *arguments)


def actions(tools: Path) -> list[str]:
    return [call.split()[3] for call in (tools / "calls").read_text().splitlines()]


def test_the_dry_run_is_as_written_down(tools):
    done = pod(tools, "--dry_run", *POD, "--spot", *RUN, "--config.data.path=/mnt/it's here")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (HERE / "tpu_pod_dry_run.txt").read_text()


def test_what_is_printed_can_be_pasted(gcloud):
    said = pod(gcloud, "--dry_run", *POD, *SHARED, "--config.data.path=/mnt/it's here").stdout
    assert shell(gcloud, "-euc", said).returncode == 0
    # Installed; asked whether something runs, and started; followed, asked for the end; stopped.
    assert actions(gcloud) == ["create", "describe", *["ssh"] * 6, "delete"]
    # The worker's shell then takes its own quotes off.
    start = (gcloud / "calls").read_text().splitlines()[4]
    assert "'--config.data.path=/mnt/it'\\''s here'" in start


def test_without_dry_run_the_commands_are_executed_and_nothing_is_deleted(gcloud):
    done = pod(gcloud, *POD, "--spot", *RUN)
    assert done.returncode == 0, done.stderr
    assert "waiting: WAITING" in done.stderr
    assert actions(gcloud) == ["create", "describe", "describe", *["ssh"] * 6]
    create, *_ = (gcloud / "calls").read_text().splitlines()
    assert create.endswith("--spot")


def test_every_worker_installs_and_a_bucket_is_mounted_on_every_worker(gcloud):
    assert pod(gcloud, "create", *POD).returncode == 0
    assert pod(gcloud, "run", *POD, *RUN).returncode == 0
    *_, install, mount, _, start = (gcloud / "calls").read_text().splitlines()
    assert all("--worker=all" in call for call in (install, mount, start))
    assert "uv pip install" in install and "'xloss[experiments,tpu]'" in install
    assert (
        "gcsfuse --implicit-dirs --rename-dir-limit=200000 my-bucket ~/buckets/my-bucket" in mount
    )
    assert ' --workdir="$HOME"/buckets/my-bucket/runs/digits' in start


def test_installing_is_tried_again_and_not_for_ever(tools):
    write_program(
        tools / "gcloud",
        f'#!/bin/sh\necho "$4" >> {tools}/calls\n[ "$4" != ssh ] && echo ACTIVE\n',
    )
    done = pod(tools, "install", *POD)
    assert done.returncode == 1 and "a worker refused or was not reached" in done.stderr
    assert (tools / "calls").read_text().split() == [*["ssh"] * 5, "describe"]


@pytest.mark.parametrize("action", ["stop", "delete", "install", "logs"])
def test_one_action_alone(gcloud, action):
    assert pod(gcloud, "--zone=a", action).returncode == 0
    calls = (gcloud / "calls").read_text()
    if action == "delete":
        assert calls == ("compute tpus queued-resources delete xloss --zone=a --force --quiet\n")
    else:
        assert set(actions(gcloud)) == {"ssh"}


def test_a_run_that_finishes_everywhere(workers):
    workers.programs(*['echo "I am $*"; sleep 0.3; echo done'] * 3)
    assert pod(workers.tools, "run", *POD, *SHARED, "--seed=3").returncode == 0

    done = pod(workers.tools, "logs", *POD)

    assert done.returncode == 0, done.stderr
    expected = "I am -u -m experiments.run --coordinator_address=auto --config=digits"
    assert done.stdout == f"{expected} --workdir=/mnt/shared/digits --seed=3\ndone\n"
    assert "all workers finished" in done.stderr
    assert workers.exit_codes() == ["0", "0", "0"]


def test_the_worker_that_failed_first_is_shown(workers):
    workers.programs(
        "echo step 1; sleep 0.8; echo peer is gone; exit 1",
        "sleep 0.6; echo peer is gone; exit 1",
        "for i in $(seq 50); do echo line $i; done; echo out of memory >&2; exit 41",
    )
    assert pod(workers.tools, "run", *POD, *SHARED).returncode == 0

    done = pod(workers.tools, "logs", *POD)

    assert done.returncode == 41
    assert "t1v-n-w-2 failed first, with exit code 41" in done.stderr
    assert "line 50\nout of memory\n" in done.stderr
    assert "line 10\n" not in done.stderr
    assert "peer is gone" not in done.stderr  # of the others only what `logs` follows
    # A second look says the same.
    assert pod(workers.tools, "logs", *POD).returncode == 41


def test_stop_ends_the_run_on_every_worker_and_logs_says_75(workers):
    program = "trap 'echo saved; exit 75' TERM; echo step 1; while :; do sleep 0.1; done"
    workers.programs(*[program] * 3)
    assert pod(workers.tools, "run", *POD, *SHARED).returncode == 0
    again = pod(workers.tools, "run", *POD, *SHARED)
    assert again.returncode != 0 and "a run is going on" in again.stderr
    time.sleep(0.3)

    assert pod(workers.tools, "stop", *POD).returncode == 0

    assert workers.exit_codes() == ["75", "75", "75"]
    done = pod(workers.tools, "logs", *POD)
    assert done.returncode == 75 and "step saved" in done.stderr
    assert done.stdout == "step 1\nsaved\n"
    # Nothing is left to stop, and another run may start.
    assert pod(workers.tools, "stop", *POD).returncode == 0
    workers.programs(*["exit 0"] * 3)
    assert pod(workers.tools, "run", *POD, *SHARED).returncode == 0
    assert pod(workers.tools, "logs", *POD).returncode == 0


def test_a_crash_is_not_hidden_by_the_clean_end_of_the_others(workers):
    workers.programs("exit 75", "sleep 0.3; echo no space left; exit 1", "exit 75")
    assert pod(workers.tools, "run", *POD, *SHARED).returncode == 0
    done = pod(workers.tools, "logs", *POD)
    assert done.returncode == 1 and "no space left" in done.stderr


def test_a_worker_that_left_no_exit_code(workers):
    workers.programs("exit 0", 'echo last words; kill -KILL "$PPID" $$', "exit 0")
    pod(workers.tools, "run", *POD, *SHARED)
    done = pod(workers.tools, "logs", *POD)
    assert done.returncode == 1
    assert "t1v-n-w-1: the run is gone and left no exit code" in done.stderr
    assert "last words" in done.stderr


@pytest.mark.parametrize("action", [["logs"], ["stop"], ["create"], ["run", *SHARED]])
def test_a_spot_pod_that_was_taken_away_is_75(workers, action):
    workers.state("SUSPENDED")
    verb, *flags = action
    done = pod(workers.tools, verb, *POD, *flags)
    assert done.returncode == 75
    assert "the pod was taken away (SUSPENDED)" in done.stderr


def test_a_request_that_failed_is_not_a_preemption(workers):
    workers.state("FAILED")
    done = pod(workers.tools, "create", *POD)
    assert done.returncode == 1 and "its state is FAILED" in done.stderr


def test_a_lost_connection_is_not_the_end_of_the_run(workers):
    write_program(workers.tools / "gcloud", '#!/bin/sh\n[ "$4" = describe ] && echo ACTIVE\n')
    done = pod(workers.tools, "logs", *POD)
    assert done.returncode == 1 and "a run that was going on still is" in done.stderr


def test_logs_of_no_run(workers):
    done = pod(workers.tools, "logs", *POD)
    assert done.returncode == 1 and "no worker has a run" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([*RUN], "--zone: expected"),
        (["--zone=a", *RUN], "--type: expected"),
        (["--zone=a", "--type=h100", *RUN], "--type: expected v4-*"),
        ([*POD, "--workers=3"], "got '--workers=3'"),
        ([*POD, "--name="], "got '--name='"),
        ([*POD, "start"], "got 'start'"),
        ([*POD, "stop", "delete"], "expected one action, got 'stop' and 'delete'"),
        ([*POD, "logs", "--", "--config=digits"], "for run only"),
        ([*POD], "expected the flags of experiments.run after --"),
        ([*POD, "--", "--config=digits"], "--workdir: expected a bucket or a directory"),
        ([*POD, "--", "--config=digits", "--workdir="], "--workdir: expected a bucket"),
        ([*POD, "--", "--config=digits", "--workdir=gs://"], "got no bucket"),
        ([*POD, *RUN], "expected the program gcloud"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(arguments, said, tools):
    done = pod(tools, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr and len(done.stderr.splitlines()) == 1
