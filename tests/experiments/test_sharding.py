# SPDX-License-Identifier: Apache-2.0
"""Parameters spread by rule: where they live, what is refused, and that nothing else changes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from experiments import sharding
from experiments.config import load_file, locate, validate
from experiments.errors import BadInput
from experiments.job import build
from tests.experiments.test_job import config_of, run

BY_NAME = ((r"hidden_\d+/kernel", (None, "model")), (r"head/kernel", (None, "model")))


@pytest.fixture(autouse=True)
def promotion_that_optax_needs():
    with jax.numpy_dtype_promotion("standard"):
        yield


def spread_config(**changes):
    """Digits on 8 hidden units and, with 4 devices on `model`, rules that divide them."""
    config = load_file(locate("digits:quick"))
    config.model.hidden = (16, 8)
    config.data.eval_batch_size = 64
    for key, value in changes.items():
        config[key] = value
    return config


def mesh_of(count: int, model: int = 1):
    return sharding.make_mesh(model, jax.devices()[:count])


def test_parameters_and_their_moments_live_where_the_rules_say():
    config = spread_config(sharding=((r"hidden_0/kernel", (None, "model")), ("_1/", ("model",))))
    config.mesh.model = 4
    job = build(config)

    assert dict(job.mesh.shape) == {"data": 2, "model": 4}
    state = job.init(jax.random.key(0))
    params = state["params"]
    assert params["hidden_0"]["kernel"].sharding.spec == P(None, "model")
    assert params["hidden_0"]["kernel"].addressable_shards[0].data.shape == (64, 4)
    assert params["hidden_1"]["kernel"].sharding.spec == P("model")
    assert params["hidden_1"]["bias"].sharding.spec == P("model")
    assert params["hidden_0"]["bias"].sharding.spec == P()
    moments = [
        leaf.sharding.spec
        for path, leaf in jax.tree_util.tree_leaves_with_path(state["optimizer"])
        if jax.tree_util.keystr(path, simple=True, separator="/").endswith("hidden_0/kernel")
    ]
    assert moments == [P(None, "model")] * 2  # Adam's two
    assert state["step"].sharding.spec == P()

    state, _ = run(job, 2)
    assert state["params"]["hidden_0"]["kernel"].sharding.spec == P(None, "model")
    assert job.abstract_state()["params"]["hidden_0"]["kernel"].sharding.spec == P(None, "model")
    metrics, _ = job.evaluate(state["params"], "validation")
    assert np.isfinite(metrics["loss"])


def test_any_mesh_and_any_rules_give_the_same_curve_in_float64(x64):
    config = spread_config(param_dtype="float64")
    one = build(config, mesh_of(1))
    expected, records = run(one, 50)
    curve = np.array([record["loss"] for record in records])
    assert curve.dtype == np.float64 and curve[-1] < 0.9 * curve[0]
    assert all(leaf.dtype == jnp.float64 for leaf in jax.tree.leaves(expected["params"]))

    for rules, mesh in (
        ((), mesh_of(8)),
        (((r"kernel$", (None, "model")), (r"hidden.*bias", ("model",))), mesh_of(4, 2)),
        (((r"hidden_\d/kernel", ("data",)),), mesh_of(8)),  # fully sharded data parallelism
        (((r"hidden_\d/kernel", ("model", "data")),), mesh_of(4, 2)),
    ):
        state, records = run(build(spread_config(param_dtype="float64", sharding=rules), mesh), 50)
        found = np.array([record["loss"] for record in records])
        np.testing.assert_allclose(found, curve, rtol=1e-12)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12),
            state["params"],
            expected["params"],
        )


def test_rules_along_data_gather_what_they_spread_and_sum_what_they_keep():
    text = {}
    for name, rules in {"whole": (), "spread": ((r"hidden_\d/kernel", ("data",)),)}.items():
        job = build(spread_config(sharding=rules))
        with jax.set_mesh(job.mesh):
            program = job.step.lower(job.abstract_state(), job.abstract_batch()).compile()
        text[name] = program.as_text()
        held = program.memory_analysis().argument_size_in_bytes
        assert held < 3 * 4 * (64 * 16 + 16 * 8) or name == "whole"
    assert "all-gather" not in text["whole"] and "all-gather" in text["spread"]


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ((("kernal", ("model",)),), r"names: head/bias, head/kernel, .*"),
        ((("bias", (None, "model")),), r"at most the 1 axes of head/bias \(10,\), got 2"),
        (
            (("head/kernel", (None, "model")),),
            r"axes of head/kernel \(8, 10\) that the 4 devices of 'model' divide, got 10",
        ),
        ((("kernel", (None, ("data", "model"))),), r"that the 8 devices of \('data', 'model'\)"),
    ],
)
def test_rules_that_do_not_fit_the_parameters_are_refused(rules, message):
    with pytest.raises(BadInput, match=f"--config.sharding: expected .*{message}"):
        build(spread_config(sharding=rules), mesh_of(8, 4))


@pytest.mark.parametrize(
    "rules",
    [
        ("kernel",),
        (("kernel", "model"),),
        (("kernel", ("modle",)),),
        (("(", ("model",)),),
        (("kernel", ("model", "model")),),
        (("kernel", (1,)),),
    ],
)
def test_rules_of_another_form_are_refused(rules):
    with pytest.raises(BadInput, match="--config.sharding: expected a tuple of rules"):
        validate(spread_config(sharding=rules))


def test_a_mesh_is_what_the_devices_allow_and_the_rules_use():
    config = config_of(mesh__model=3, sharding=BY_NAME)
    with pytest.raises(BadInput, match="--config.mesh.model: expected a divisor of the 8 devices"):
        build(config)
    with pytest.raises(BadInput, match="--config.sharding: expected rules for the 2 devices"):
        build(config_of(mesh__model=2))
    with pytest.raises(BadInput, match="--config.param_dtype: expected jax_enable_x64"):
        build(config_of(param_dtype="float64"))


class FakeDevice:
    def __init__(self, process_index: int):
        self.process_index = process_index


class FakeMesh:
    """What `data_share` reads of a mesh over several processes."""

    def __init__(self, processes):
        self.devices = np.array([[FakeDevice(p) for p in row] for row in processes])
        self.size = self.devices.size
        self.shape = dict(zip(sharding.AXES, self.devices.shape, strict=True))


@pytest.mark.parametrize(
    ("processes", "shares"),
    [
        ([[0], [0], [1], [1]], {0: (0, 2), 1: (1, 2)}),
        ([[0, 0], [1, 1]], {0: (0, 2), 1: (1, 2)}),
        ([[0, 1], [0, 1]], {0: (0, 1), 1: (0, 1)}),  # both see every row
        ([[2, 3], [0, 1]], {2: (0, 2), 3: (0, 2), 0: (1, 2), 1: (1, 2)}),
    ],
)
def test_processes_that_differ_along_model_alone_read_the_same_rows(monkeypatch, processes, shares):
    for process, share in shares.items():
        monkeypatch.setattr(jax, "process_index", lambda process=process: process)
        assert sharding.data_share(FakeMesh(processes)) == share


def test_processes_whose_rows_overlap_in_part_are_refused():
    with pytest.raises(BadInput, match="--config.mesh.model: expected a number that cuts 2"):
        sharding.data_share(FakeMesh([[0, 0], [0, 1], [1, 1]]))


@pytest.mark.parametrize("count", [1, 8])
def test_a_batch_reaches_a_jitted_function_whole_and_spread(count):
    mesh = mesh_of(count)
    batch = {"inputs": np.arange(16.0, dtype=np.float32).reshape(8, 2)}
    double = sharding.jit_rows(lambda _, rows: rows * 2, mesh)

    found = double((), sharding.to_devices(batch, mesh)["inputs"])

    assert found.sharding.is_equivalent_to(sharding.over_data(mesh), 2)
    np.testing.assert_array_equal(sharding.to_host(found), batch["inputs"] * 2)
    kept = sharding.to_host(sharding.to_devices(batch, mesh)["inputs"])
    np.testing.assert_array_equal(kept, batch["inputs"])


def test_several_cpu_devices_of_a_process_take_one_step_at_a_time():
    assert sharding.may_run_ahead(mesh_of(1))
    assert not sharding.may_run_ahead(mesh_of(8))
