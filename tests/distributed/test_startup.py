# SPDX-License-Identifier: Apache-2.0
"""Several processes that start: one does not come, or looks into a directory of its own."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]


def start(port: int, index: int, folder: Path) -> subprocess.Popen[str]:
    """Starts one of two processes, which trains in `run` below its folder."""
    command = [
        sys.executable, "-m", "experiments.run", "--config=digits:quick", "--workdir=run",
        f"--coordinator_address=localhost:{port}", "--num_processes=2", f"--process_id={index}",
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    return subprocess.Popen(
        command, cwd=folder, env=environment, text=True, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


@pytest.fixture
def port() -> int:
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        return listener.getsockname()[1]


@pytest.mark.parametrize("index", [0, 1])
def test_one_that_waits_in_vain_says_for_whom(program, tmp_path, port, index):
    run = program(
        "--config=digits:quick", f"--workdir={tmp_path / 'run'}", "--startup_timeout=2",
        f"--coordinator_address=localhost:{port}", "--num_processes=2", f"--process_id={index}",
        compiling=False,
    ).expect(2)  # fmt: skip
    (line,) = run.err.splitlines()
    assert line.startswith(
        f"run: --startup_timeout: expected 2 processes at localhost:{port} within 2 s, got "
    )
    assert line.endswith(f"missing: {1 - index}")
    assert not (tmp_path / "run").exists()


def test_directories_that_are_not_shared_are_refused_by_both(tmp_path, port):
    folders = [tmp_path / name for name in ("a", "b")]
    for folder in folders:
        folder.mkdir()
    started = [start(port, index, folder) for index, folder in enumerate(folders)]
    for process in started:
        _, err = process.communicate(timeout=180)
        assert process.returncode == 2, err
        (line,) = [line for line in err.splitlines() if line.startswith("run: ")]
        assert f"process 1 does not see the workdir of process 0, {folders[0] / 'run'} on " in line
    assert sorted(path.name for path in (folders[0] / "run").iterdir()) == ["config.json"]
