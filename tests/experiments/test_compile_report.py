# SPDX-License-Identifier: Apache-2.0
"""What the train step takes, on the eight CPU devices of the tests."""

import importlib.util
import re

import jax
import pytest

from experiments import compile_report, topology
from experiments.config import load_file, locate
from experiments.errors import BadInput


@pytest.fixture(autouse=True)
def promotion_that_optax_needs():
    with jax.numpy_dtype_promotion("standard"):
        yield


def report_of(name: str, **changes) -> compile_report.StepReport:
    config = load_file(locate(name))
    config.update_from_flattened_dict(changes)
    return compile_report.compile_report(config)


def test_digits_on_eight_devices_sum_their_gradients_and_nothing_else():
    found = report_of("digits:quick", **{"model.hidden": (16,)})
    parameters = 4 * (64 * 16 + 16 + 16 * 10 + 10)
    assert found.mesh == {"data": 8, "model": 1}
    # Adam: two moments and two counts. The batch: 8 examples, their labels and numbers.
    assert found.parts == {
        "parameters": parameters,
        "optimizer state": 2 * parameters + 8,
        "batch": 8 * 4 * (64 + 2),
    }
    assert found.program is not None
    state = 3 * parameters + 8
    assert state < found.program.in_place <= state + 64  # with the step's number and the key
    assert found.program.needed > sum(found.parts.values())
    assert 2 * 8 * parameters / 4 < found.program.flops < 20 * 8 * parameters / 4
    ((kind, size, group),) = found.program.each
    assert (kind, group) == ("all-reduce", 8) and parameters <= size <= parameters + 64

    text = str(found)
    assert re.search(rf"parameters +{parameters:,} bytes\n", text)
    assert f"1 all-reduce of 8 ({size:,} bytes)" in text
    assert found.fits is None and "fits" not in text  # a CPU has no memory of its own


def test_a_language_model_over_both_axes_moves_features_and_statistics_but_no_logits():
    classes = 4096
    found = report_of("lm_1b:quick", **{"mesh.model": 2, "data.num_classes": classes})
    assert found.mesh == {"data": 4, "model": 2} and found.program is not None
    assert {one.kind for one in found.program.each} == {"all-reduce"}
    tokens, width = 16 // 4 * 16, 32
    over_model = sum(one.size for one in found.program.each if one.group == 2)
    kernel, logits = (4 * rows * classes // 2 for rows in (width, tokens))
    assert 6 * 4 * tokens * width <= over_model < min(kernel, logits) / 2


def test_what_does_not_fit_is_said_and_so_is_what_does(monkeypatch):
    monkeypatch.setattr(compile_report, "_usable", lambda device: 2**20)
    small = report_of("digits:quick", **{"model.hidden": (16,)})
    assert small.fits and re.search(r"\nfits: 0\.\d\d of 0\.00 GiB$", str(small))
    large = report_of("digits:quick", **{"model.hidden": (2048,)})
    assert large.fits is False and re.search(r"\nDOES NOT FIT: 0\.0\d of 0\.00 GiB$", str(large))


def test_a_compiler_that_refuses_is_quoted_in_one_line(monkeypatch):
    class Refusing:
        def compiled_step(self):
            raise jax.errors.JaxRuntimeError(
                "RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 20.00G of "
                "15.75G hbm. Exceeded hbm capacity by 4.25G.\n\nTotal hbm usage >= 20.5G:\n  ..."
            )

    build = compile_report.build

    def refusing(config, mesh):
        job = build(config, mesh)
        monkeypatch.setattr(type(job), "compiled_step", Refusing.compiled_step)
        return job

    monkeypatch.setattr(compile_report, "build", refusing)
    found = report_of("digits:quick")
    assert found.fits is False
    assert str(found).splitlines()[-1].startswith("DOES NOT FIT: Ran out of memory")
    assert "20.00G of 15.75G" in str(found) and len(str(found).splitlines()) == 5


def test_a_machine_without_its_compiler_or_with_too_many_devices_is_one_line(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda module: None)
    config = load_file(locate("digits"))
    with pytest.raises(BadInput, match=r"^topology: expected libtpu for v5e:16x16"):
        compile_report.compile_report(config, "v5e:16x16")
    monkeypatch.setattr(topology, "devices", lambda name: jax.devices()[:7])
    with pytest.raises(BadInput, match="data.batch_size: expected a multiple of the 7 devices"):
        compile_report.compile_report(config, "v5e:16x16")
