# SPDX-License-Identifier: Apache-2.0
"""The heads compiled for an H200 and a TPU v5e; `make compile-check` brings the compilers."""

import importlib.util

import pytest

from experiments import topology
from experiments.benchmarks import accelerators
from experiments.errors import BadInput

pytestmark = pytest.mark.slow

COMPILERS = {"h200": "jax_cuda12_plugin", "v5e": "libtpu", "v6e": "libtpu", "v5p": "libtpu"}


def needs_compiler(machine: str) -> None:
    package = COMPILERS[machine.partition(":")[0]]
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package}, XLA's compiler for {machine}, is not installed here")


@pytest.mark.parametrize(
    ("machine", "count"),
    [("v5e:2x4", 8), ("v6e:16x16", 256), ("v5p:4x4x4", 64), ("h200:1", 1), ("h200:8", 8)],
)
def test_a_machine_has_the_devices_of_its_name(machine, count):
    needs_compiler(machine)
    assert len(topology.devices(machine)) == count


def test_a_slice_that_cannot_be_is_an_error_that_names_the_nearest():
    needs_compiler("v5e:3x5")
    with pytest.raises(BadInput, match=r"got 'v5e:3x5'; did you mean 'v5e:2x4'"):
        topology.devices("v5e:3x5")


@pytest.mark.parametrize("row", accelerators.ROWS)
def test_the_head_fits_where_it_was_promised_to_fit(row):
    machine, axes, _, limit = accelerators.ROWS[row]
    needs_compiler(machine)
    found = accelerators.measure(row)
    if limit is None:
        assert found.temporaries > 12_000e6  # else there is nothing to save
    else:
        assert found.temporaries <= 1e6 * limit
        assert found.peak - found.arguments - found.results <= 1e6 * limit
    # Neither kernel nor logits move; the kernel's gradient is summed over the tokens' devices.
    assert "all-gather" not in found.collectives
    if axes["data"] > 1:
        kernel = 2 * accelerators.GEMMA[1] * accelerators.GEMMA[2] // axes.get("model", 1)
        assert found.collectives["all-reduce"][1] >= kernel
    else:
        assert not found.collectives


@pytest.mark.parametrize("row", [r for r in accelerators.ROWS if r.startswith("linear_statistics")])
def test_a_budget_is_kept(row):
    needs_compiler(accelerators.ROWS[row][0])
    found = accelerators.measure(row, max_temp_bytes=200_000_000)
    assert found.temporaries <= 200e6
    assert found.peak - found.arguments - found.results <= 200e6
