# SPDX-License-Identifier: Apache-2.0
"""The training program as the tests of the whole road run it: start, watch, signal, wait."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from experiments import modes
from experiments.config import from_resolved
from experiments.metrics import read_metrics
from experiments.observe import MEASURED
from experiments.workdir import read_config

ROOT = Path(__file__).resolve().parents[2]


@dataclasses.dataclass
class Started:
    """A run of the program that may still be going."""

    ask: Callable[[dict[str, Any]], int]
    pid: int
    out_path: Path
    err_path: Path
    code: int | None = None

    def wait(self) -> "Started":
        if self.code is None:
            self.code = self.ask({"wait": self.pid})
        return self

    def signal(self, number: signal.Signals) -> "Started":
        os.kill(self.pid, number)
        return self

    @property
    def out(self) -> str:
        return self.out_path.read_text()

    @property
    def err(self) -> str:
        return self.err_path.read_text()

    def expect(self, code: int) -> "Started":
        """Waits, and fails the test with the program's output if it ended otherwise."""
        if self.wait().code != code:
            pytest.fail(f"expected exit code {code}, got {self.code}\n{self.out}{self.err}")
        return self


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Started]]:
    """Starts `python -m experiments.run ARGUMENTS` on some CPU devices; see warm_program.py."""
    folder = tmp_path_factory.mktemp("program")
    script = Path(__file__).with_name("warm_program.py")
    server = subprocess.Popen(
        [sys.executable, str(script)], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert server.stdin is not None and server.stdout is not None
    count = 0

    def ask(request: dict[str, Any]) -> int:
        server.stdin.write(json.dumps(request) + "\n")
        server.stdin.flush()
        return json.loads(server.stdout.readline())

    def start(
        *arguments: str, devices: int = 1, compiling: bool = True, report: bool = False
    ) -> Started:
        nonlocal count
        count += 1
        out, err = folder / f"{count}.out", folder / f"{count}.err"
        out.touch()
        err.touch()
        request = {"arguments": arguments, "devices": devices, "compiling": compiling,
                   "report": report, "out": str(out), "err": str(err)}  # fmt: skip
        return Started(ask, ask(request), out, err)

    yield start
    server.stdin.close()
    server.wait(timeout=60)
    server.stdout.close()


def until(condition: Callable[[], bool], started: Started, seconds: float = 120) -> None:
    """Returns when the condition holds; fails if the program ends before, or takes too long."""
    limit = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > limit or not _alive(started.pid):
            pytest.fail(f"waited for nothing\n{started.out}{started.err}")
        time.sleep(0.002)


def step_reached(workdir: Path, step: int) -> Callable[[], bool]:
    """Whether metrics.jsonl has a record of that step or a later one."""
    return lambda: any(record["step"] >= step for record in read_metrics(workdir))


def records(workdir: Path) -> list[dict[str, Any]]:
    """metrics.jsonl without the times."""
    return [{k: v for k, v in r.items() if k not in MEASURED} for r in read_metrics(workdir)]


def parameters(workdir: Path) -> dict[str, np.ndarray]:
    """The parameters of the newest checkpoint, by their path."""
    _, _, found = modes.restore(from_resolved(read_config(workdir)), str(workdir), None)
    return {
        jax.tree_util.keystr(path): np.asarray(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(found)
    }


def _alive(pid: int) -> bool:
    # A process that has ended stays a zombie until warm_program.py is asked to wait for it.
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False
