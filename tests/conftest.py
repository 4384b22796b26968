# SPDX-License-Identifier: Apache-2.0
"""What every test runs under: eight CPU devices, strict dtype and rank promotion, fixed examples.

Here once so that no test file configures JAX by itself. The settings are made in this process only;
a subprocess that a test starts sees one CPU device unless the test asks for more (`run_python`).
"""

import gc
import itertools
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

# Read when jax, XLA and matplotlib are first imported, and inherited by subprocesses.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("MPLBACKEND", "Agg")
# A device count from the caller's shell would contradict the eight below and reach subprocesses.
os.environ.pop("JAX_NUM_CPU_DEVICES", None)
os.environ["XLA_FLAGS"] = " ".join(
    flag
    for flag in os.environ.get("XLA_FLAGS", "").split()
    if not flag.startswith("--xla_force_host_platform_device_count")
)

import hypothesis
import jax
import pytest

ROOT = Path(__file__).resolve().parent.parent

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

# The same examples on every run and machine, and no verdict that depends on how busy it is.
hypothesis.settings.register_profile("xloss", derandomize=True, deadline=None, database=None)
hypothesis.settings.load_profile("xloss")


@pytest.fixture
def x64() -> Iterator[None]:
    """Lets the test use float64 arrays."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="session")
def run_python() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs `python ARGS` at the repository root in a fresh process and returns it with its output.

    Keyword arguments: `env` adds environment variables, `devices` forces that many CPU devices,
    `check=True` fails the test with the process's output when it exits non-zero, `timeout` in
    seconds keeps a hang from outliving the suite.
    """

    def run(
        *args: str,
        env: Mapping[str, str] | None = None,
        devices: int | None = None,
        check: bool = True,
        timeout: float = 300.0,
    ) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, **(env or {})}
        if devices is not None:
            environment["JAX_NUM_CPU_DEVICES"] = str(devices)
        done = subprocess.run(
            [sys.executable, *args],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        if check and done.returncode != 0:
            pytest.fail(
                f"python {' '.join(args)}: exit code {done.returncode}\n{done.stdout}{done.stderr}"
            )
        return done

    return run


def pytest_collection_finish(session):
    """Spares the garbage collector what lives as long as the process, and most of its rounds.

    Tracing makes millions of small objects beside the large heap of the imported modules; a tenth
    of a worker's time went into looking through both.
    """
    del session
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


#: Linux allows a process 65,530 mappings of memory; XLA takes a few for every program that it
#: compiles, and can die without a word when there are no more. A worker compiles thousands, which
#: take 5 GB at 25,000 mappings.
MOST_MAPS, CHECKED_EVERY = 15_000, 25
_MAPS = Path("/proc/self/maps")
_finished = itertools.count(1)


def pytest_runtest_teardown(item):
    """Drops what was compiled so far before a worker has too many mappings, or too much memory."""
    del item
    if next(_finished) % CHECKED_EVERY or not _MAPS.exists():
        return
    with _MAPS.open("rb") as lines:
        count = sum(1 for _ in lines)
    if count > MOST_MAPS:
        jax.clear_caches()
        gc.collect()
