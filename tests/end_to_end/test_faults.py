# SPDX-License-Identifier: Apache-2.0
"""What the program says, and leaves, when disk or data fail and when two runs want one workdir."""

import signal
from pathlib import Path

import pytest

from experiments.checkpoint import Checkpoints
from experiments.metrics import read_metrics
from tests.end_to_end.conftest import Started, step_reached, until

HEAD = """
from experiments.configs import common

def get_config():
    fail()
    config = common.base_config()
    config.update(steps=40, log_every=1, eval_every=40, checkpoint_every=10)
    config.model.hidden = (2048,)
    return config

"""
FULL = """
def fail():  # no file may grow beyond 200 kB: the kernel says EFBIG to the arrays
    import jax
    import resource
    jax.config.update("jax_enable_compilation_cache", False)  # of the tests, which would warn
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
"""
BROKEN = """
def fail():
    from experiments.data.dataset import ArraySource
    gather, calls = ArraySource.gather, iter(range(10_000))

    def failing(self, positions):
        if next(calls) >= 25:
            raise RuntimeError("record 7 is damaged\\nand more")
        return gather(self, positions)

    ArraySource.gather = failing
"""


def said(run: Started) -> list[str]:
    """What stands on stderr beside the progress."""
    return [line for line in run.err.splitlines() if not line.startswith("step ")]


def config_file(folder: Path, fail: str) -> str:
    path = folder / "fails.py"
    path.write_text(HEAD + fail)
    return f"--config={path}"


def test_no_space_left_is_one_line(program, tmp_path):
    workdir = tmp_path / "run"
    run = program(config_file(tmp_path, FULL), f"--workdir={workdir}").expect(4)
    (line,) = said(run)
    assert line.startswith("run: stopped: the checkpoint of step 10 cannot be written: ")
    assert "File too large" in line
    assert Checkpoints.sealed(workdir) == []
    assert not (workdir / "lock.json").exists()


def test_data_that_break_are_one_line_and_the_checkpoint_is_named(program, tmp_path):
    workdir = tmp_path / "run"
    run = program(config_file(tmp_path, BROKEN), f"--workdir={workdir}").expect(4)
    (line,) = said(run)
    assert "the data of step 26 cannot be read: RuntimeError: record 7 is damaged (the ch" in line
    assert "checkpoint of step 20 is kept" in line
    assert max(r["step"] for r in read_metrics(workdir)) in (24, 25)


@pytest.mark.parametrize("more", [(), ("--overwrite",)], ids=["as it is", "overwriting"])
def test_a_second_run_on_a_workdir_in_use_is_refused(program, tmp_path, more):
    command = (
        "--config=digits", "--config.log_every=1", "--config.steps=100000",
        "--config.checkpoint_every=50", f"--workdir={tmp_path}",
    )  # fmt: skip
    first = program(*command)
    until(step_reached(tmp_path, 3), first)

    second = program(*command, *more, compiling=False).expect(2)

    assert said(second) == [
        f"run: --workdir: {tmp_path} is in use by process {first.pid} on "
        f"{_host()}; wait for it, stop it, or choose another directory"
    ]
    first.signal(signal.SIGTERM).expect(75)
    assert not (tmp_path / "lock.json").exists()


def _host() -> str:
    import socket

    return socket.gethostname()
