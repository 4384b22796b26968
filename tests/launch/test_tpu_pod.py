# SPDX-License-Identifier: Apache-2.0
"""The pod script: what it prints, what it calls (a stand-in for gcloud), what it refuses."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
SCRIPT = HERE.parents[1] / "launch" / "tpu_pod.sh"
POD = ("--name=xloss", "--project=my-project", "--zone=us-west4-a", "--type=v5litepod-16")
RUN = ("--", "--config=digits", "--workdir=/mnt/shared/digits")

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")


BASH = shutil.which("bash") or ""


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """The only folder in which programs are found: a real gcloud must never be called."""
    folder = tmp_path / "tools"
    folder.mkdir()
    (folder / "sleep").symlink_to(shutil.which("sleep") or "")
    return folder


@pytest.fixture
def gcloud(tools: Path) -> Path:
    """A stand-in that writes down how it was called; the pod is ACTIVE when it is asked again."""
    program = tools / "gcloud"
    program.write_text(
        "#!/bin/sh\n"
        f'printf "%s\\n" "$*" >> {tools}/calls\n'
        f'case "$*" in *describe*) [ -f {tools}/asked ] && echo ACTIVE || echo WAITING;'
        f" : > {tools}/asked ;; esac\n"
    )
    program.chmod(0o755)
    return tools


def shell(tools: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PATH": str(tools), "TPU_POD_POLL_SECONDS": "0"}
    return subprocess.run(
        [BASH, *arguments], env=environment, capture_output=True, text=True, timeout=60
    )


def pod(tools: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return shell(tools, str(SCRIPT), *arguments)


def test_the_dry_run_is_as_written_down(tools):
    done = pod(tools, "--dry_run", *POD, *RUN, "--config.data.path=/mnt/it's here")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (HERE / "tpu_pod_dry_run.txt").read_text()


def test_what_is_printed_can_be_pasted(gcloud):
    said = pod(gcloud, "--dry_run", *POD, *RUN, "--config.data.path=/mnt/it's here").stdout
    assert shell(gcloud, "-euc", said).returncode == 0
    calls = (gcloud / "calls").read_text().splitlines()
    assert [call.split()[3] for call in calls] == [
        "create", "describe", "ssh", "ssh", "ssh", "delete"
    ]  # fmt: skip
    # The worker's shell then takes its own quotes off.
    assert "'--config.data.path=/mnt/it'\\''s here'" in calls[3]


def test_without_dry_run_the_commands_are_executed_and_nothing_is_deleted(gcloud):
    done = pod(gcloud, *POD, "--spot", *RUN)
    assert done.returncode == 0, done.stderr
    assert "waiting: WAITING" in done.stderr
    calls = (gcloud / "calls").read_text().splitlines()
    assert [call.split()[3] for call in calls] == [
        "create", "describe", "describe", "ssh", "ssh", "ssh"
    ]  # fmt: skip
    assert calls[0].endswith("--spot")


def test_one_action_alone(gcloud):
    assert pod(gcloud, "--zone=a", "delete").returncode == 0
    assert (gcloud / "calls").read_text() == (
        "compute tpus queued-resources delete xloss --zone=a --force --quiet\n"
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([*RUN], "--zone: expected"),
        (["--zone=a", *RUN], "--type: expected"),
        (["--zone=a", "--type=h100", *RUN], "--type: expected v4-*"),
        ([*POD, "--workers=3"], "got '--workers=3'"),
        ([*POD, "--name="], "got '--name='"),
        ([*POD], "expected the flags of experiments.run after --"),
        ([*POD, "--", "--config=digits"], "--workdir: expected a directory"),
        ([*POD, "--", "--config=digits", "--workdir=gs://b/run"], "gs:// path"),
        ([*POD, *RUN], "expected the program gcloud"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(arguments, said, tools):
    done = pod(tools, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr and len(done.stderr.splitlines()) == 1
