# SPDX-License-Identifier: Apache-2.0
"""Compiling for machines that are not there."""

import dataclasses
import importlib.util

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from experiments import topology
from experiments.errors import BadInput

FORMS = {
    "%a = f32[8,4]{1,0} all-reduce(%x), replica_groups={}": ("all-reduce", 128),
    "ROOT %a = f32[] all-reduce(%x), to_apply=%sum": ("all-reduce", 4),
    "a.1 = bf16[3,256]{1,0:T(8,128)(2,1)S(1)} all-reduce(f.2)": ("all-reduce", 1536),
    "%a = (f32[4]{0}, /*index=1*/s32[2,2]{1,0}) all-reduce(%x, %y)": ("all-reduce", 32),
    "%a = (f32[4]{0}, f32[6]{0}) all-reduce-start(%x, %y)": ("all-reduce", 40),
    "%a = ((f32[8], s8[2]), (f32[32], s8[8])) all-gather-start(%x, %y)": ("all-gather", 136),
    "%a = ((f32[32]{0}), f32[8]{0}, u32[]) reduce-scatter-start(%x)": ("reduce-scatter", 32),
    "%a = (f32[1,4]{1,0}, f32[1,4]{1,0}) all-to-all(%x, %y)": ("all-to-all", 32),
    "%a = (f32[8]{0}, f32[8]{0}, u32[], u32[]) collective-permute-start(%x)": (
        *("collective-permute", 32),
    ),
    "%a = pred[9]{0} all-gather(%x)": ("all-gather", 9),
    "%a = s4[9]{0:E(4)} all-gather(%x)": ("all-gather", 5),
    "%a = f8e4m3fn[9]{0} all-gather(%x)": ("all-gather", 9),
    "%a = (f32[2]{0}, token[]) all-reduce(%x, %t)": ("all-reduce", 8),
}
MENTIONS = """
  %all-reduce-done = f32[4]{0} all-reduce-done(%all-reduce-start)
  %all-reduce.3 = f32[4]{0} get-tuple-element(%all-reduce.2), index=0
  %f = f32[4]{0} fusion(%all-gather.1), calls=%c, metadata={op_name="a = b all-gather(x)"}
  %all-reduce-fusion (x: f32[4]) -> f32[4] {
"""


@pytest.mark.parametrize("line", FORMS)
def test_every_form_of_a_collective_is_sized(line):
    kind, size = FORMS[line]
    found = topology.each_collective(f"HloModule m\n\n  {line}\n{MENTIONS}")
    assert found == [topology.Collective(kind, size, 0)]


@pytest.mark.parametrize(
    ("groups", "devices"),
    [
        ("{{0,4},{1,5},{2,6},{3,7}}", 2),
        ("[4,64]<=[64,4]T(1,0)", 64),
        ("mesh['a'=64,'b'=1,'c'=4] {'a','b'}", 64),
        ("mesh['a'=1,'b'=4,'c'=64], device_ids=([64,4]T(1,0)) {'b'}", 4),
        ("{}", 0),
    ],
)
def test_the_devices_of_a_collective_are_counted_in_every_spelling(groups, devices):
    line = f"%a = f32[2]{{0}} all-reduce(%x), replica_groups={groups}, to_apply=%sum"
    assert topology.each_collective(line) == [topology.Collective("all-reduce", 8, devices)]


def test_collectives_are_added_up_by_kind_and_by_the_devices_that_they_go_over():
    each = (
        topology.Collective("all-reduce", 128, 4),
        topology.Collective("all-gather", 64, 0),
        topology.Collective("all-reduce", 8, 2),
        topology.Collective("all-reduce", 12, 4),
    )
    found = topology.Report(
        temporaries=30, arguments=20, results=15, in_place=5, peak=50, flops=1.0, each=each
    )
    assert found.collectives == {"all-reduce": (3, 148), "all-gather": (1, 64)}
    assert topology.listed(found.by_group, str) == (
        "1 all-gather of all (64), 1 all-reduce of 2 (8), 2 all-reduce of 4 (140)"
    )
    assert topology.listed({}, str) == "none"
    assert found.needed == 60 and dataclasses.replace(found, peak=70).needed == 70


def test_the_collectives_of_a_real_program():
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    x = jax.ShapeDtypeStruct((16, 4), jnp.float32, sharding=NamedSharding(mesh, P("data")))
    program = jax.jit(lambda x: jnp.sum(x, axis=0)).lower(x).compile()
    found = topology.report(program)
    assert found.each == (topology.Collective("all-reduce", 16, 8),)
    assert found.arguments == 2 * 4 * 4 and found.results == 16

    assert found.peak == 0 or found.peak >= found.arguments


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("v5e", "got 'v5e'"),
        ("v5:2x4", "did you mean 'v5e:2x4'"),
        ("v5p:4x4", "did you mean 'v5p:4x4x4'"),
        ("v5e:2x2x4", "did you mean 'v5e:2x4'"),
        ("h200:0", "did you mean 'h200:"),
        ("h200:2x4", "got 'h200:2x4'"),
        ("", "got ''"),
    ],
)
def test_an_unknown_machine_is_an_error_that_names_the_nearest(name, says):
    with pytest.raises(BadInput, match=f"expected one like v5e:2x4, .*{says}"):
        topology.devices(name)


@pytest.mark.parametrize(
    ("name", "package"), [("v6e:16x16", "libtpu"), ("h200:8", "jax_cuda12_plugin")]
)
def test_a_missing_compiler_is_named_with_the_extra(name, package, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda module: None)
    with pytest.raises(BadInput, match=rf"{package} for {name}.*'xloss\[compile\]'"):
        topology.devices(name)
