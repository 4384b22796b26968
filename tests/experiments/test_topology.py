# SPDX-License-Identifier: Apache-2.0
"""Compiling for machines that are not there."""

import importlib.util

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from experiments import topology
from experiments.benchmarks import accelerators
from experiments.errors import BadInput

NEEDS = {"h200:1": "jax_cuda12_plugin", "v5e:2x4": "libtpu"}


def test_collectives_are_counted_with_the_bytes_of_their_results():
    text = """
      %a = f32[8,4]{1,0} all-reduce(%x), replica_groups={}
      %b = (f32[3]{0}, bf16[2,2]{1,0}) all-reduce(%x, %y), to_apply=%sum
      %c = (f32[4]{0}, f32[16]{0}) all-gather-start(%z), dimensions={0}
      %d = f32[16]{0} all-gather-done(%c)
      %e = f32[] add(%p, %q)
    """
    assert topology.collectives(text) == {"all-reduce": (2, 128 + 12 + 8), "all-gather": (1, 64)}


def test_the_collectives_of_a_real_program():
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    x = jax.ShapeDtypeStruct((16, 4), jnp.float32, sharding=NamedSharding(mesh, P("data")))
    program = jax.jit(lambda x: jnp.sum(x, axis=0)).lower(x).compile()
    found = topology.report(program)
    assert found.collectives == {"all-reduce": (1, 16)}
    assert found.arguments == 2 * 4 * 4 and found.results == 16


@pytest.mark.parametrize("name", ["v5e", "h200:2x4", "a100:8", ""])
def test_an_unknown_machine_is_an_error_that_lists_the_known(name):
    with pytest.raises(BadInput, match="v5e:2x4"):
        topology.devices(name)


@pytest.mark.slow
@pytest.mark.parametrize("row", [r for r in accelerators.ROWS if not r.startswith("plain")])
def test_the_head_fits_where_it_was_promised_to_fit(row):
    machine, _, _, limit = accelerators.ROWS[row]
    if importlib.util.find_spec(NEEDS[machine]) is None:
        pytest.skip(f"{NEEDS[machine]}, XLA's compiler for {machine}, is not installed here")
    found = accelerators.measure(row)
    assert found.temporaries <= 1e6 * limit
    assert "all-gather" not in found.collectives
