# SPDX-License-Identifier: Apache-2.0
"""The train step, taken without the files around it: eight devices, a few dozen steps."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import sharding
from experiments.config import load_file, locate
from experiments.errors import BadInput
from experiments.job import Job, build
from experiments.optimizer import make_optimizer
from experiments.step import ALL_FINITE, State


@pytest.fixture(autouse=True)
def promotion_that_optax_needs():
    with jax.numpy_dtype_promotion("standard"):  # its Adam raises a float to an integer power
        yield


def config_of(name: str = "digits:quick", **changes):
    """A shipped config; changes are keys with __ for the dot."""
    config = load_file(locate(name))
    config.model.hidden = (16,)
    for key, value in changes.items():
        *groups, leaf = key.split("__")
        level = config
        for group in groups:
            level = level[group]
        level[leaf] = value
    return config


def run(job: Job, steps: int, seed: int = 0) -> tuple[State, list[dict[str, float]]]:
    state, batches, records = job.init(jax.random.key(seed)), job.train_batches(), []
    with jax.set_mesh(job.mesh):
        for _ in range(steps):
            state, metrics = job.step(state, sharding.to_devices(next(batches), job.mesh))
            records.append(jax.device_get(metrics))
    return state, records


def losses(job: Job, steps: int) -> np.ndarray:
    return np.array([record["loss"] for record in run(job, steps)[1]])


def test_comp_sum_at_tau_1_is_cross_entropy_for_50_steps():
    ours = losses(build(config_of(loss__name="comp_sum", loss__tau=1.0)), 50)
    np.testing.assert_allclose(ours, losses(build(config_of()), 50), rtol=1e-5)
    assert ours[-1] < ours[0] / 2


def test_sam_of_radius_0_takes_the_same_steps_over_the_same_dropout():
    options = {"model__dropout": 0.5, "model__hidden": (8,)}
    sam = {"optimizer__sharpness": "sam", "optimizer__rho": 0.0}
    plain, same = (losses(build(config_of(**options, **o)), 3) for o in ({}, sam))
    np.testing.assert_allclose(same, plain, rtol=1e-5)


def test_the_same_seed_gives_the_same_bits():
    job = build(config_of(model__dropout=0.5))
    states = [run(job, 20, seed)[0] for seed in (0, 0, 1)]
    first, second, other = (jax.tree.map(np.asarray, state["params"]) for state in states)
    chex.assert_trees_all_equal(first, second)
    assert not any(
        np.array_equal(a, b) for a, b in zip(jax.tree.leaves(first["head"]["kernel"]),
                                             jax.tree.leaves(other["head"]["kernel"]))
    )  # fmt: skip


@pytest.mark.parametrize("config", ["digits:quick", "breast_cancer:quick"])
def test_one_device_and_eight_take_the_same_steps(config, monkeypatch):
    eight = losses(build(config_of(config)), 5)
    one_device = jax.make_mesh(
        (1, 1), ("data", "model"), (jax.sharding.AxisType.Auto,) * 2, devices=jax.devices()[:1]
    )
    monkeypatch.setattr(sharding, "make_mesh", lambda model: one_device)
    np.testing.assert_allclose(eight, losses(build(config_of(config)), 5), rtol=1e-4)


def test_compiled_once_spread_and_donated():
    job = build(config_of())
    state, batches = job.init(jax.random.key(0)), job.train_batches()
    with jax.set_mesh(job.mesh):
        batch = sharding.to_devices(next(batches), job.mesh)
        after, _ = job.step(state, batch)
        again, _ = job.step(after, sharding.to_devices(next(batches), job.mesh))
    assert job.step._cache_size() == 1
    assert {shard.data.shape[0] for shard in batch["inputs"].addressable_shards} == {8}
    kernel = again["params"]["head"]["kernel"]
    assert kernel.sharding.is_fully_replicated and len(kernel.sharding.device_set) == 8
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state["params"]))
    assert int(again["step"]) == 2


def test_dropout_and_draws_depend_on_the_step_alone():
    job = build(config_of("breast_cancer:quick", model__dropout=0.5))
    batch = next(job.train_batches())
    with jax.set_mesh(job.mesh):
        first, second = (
            job.step(job.init(jax.random.key(0)) | {"step": jnp.asarray(step, jnp.int32)},
                     sharding.to_devices(batch, job.mesh))[1]["loss"]
            for step in (3, 4)
        )  # fmt: skip
    assert first != second


@pytest.mark.parametrize("what", ["labels", "inputs", "step size"])
def test_the_first_step_that_is_not_finite_is_remembered(what):
    rate = 3e38 if what == "step size" else 1e-3
    job = build(
        config_of(optimizer__name="sgd", optimizer__learning_rate=rate,
                  optimizer__schedule="constant", model__dropout=0.0)
    )  # fmt: skip
    state, batches = job.init(jax.random.key(0)), job.train_batches()
    with jax.set_mesh(job.mesh):
        for step in range(1, 5):
            batch = next(batches)
            if what == "labels" and step == 2:
                batch["label"] = np.where(np.arange(64) == 5, 10, batch["label"])
            if what == "inputs" and step == 2:
                batch["inputs"] = np.full_like(batch["inputs"], np.nan)
            if what == "step size":
                batch["inputs"] *= 1e6
            state, metrics = job.step(state, sharding.to_devices(batch, job.mesh))
            if step == 1:
                assert np.isfinite(metrics["loss"])
            if step == 1 and what != "step size":
                assert metrics["first_bad"] == ALL_FINITE
    assert int(state["first_bad"]) == int(metrics["first_bad"]) == (1 if rate > 1 else 2)


def test_ensloss_shows_a_cross_entropy_beside_its_scalar():
    _, (record,) = run(build(config_of("breast_cancer:quick")), 1)
    assert 0 < record["cross_entropy"] < 10 and record["loss"] != record["cross_entropy"]


def test_scores_are_in_order_and_without_padding():
    job = build(config_of(data__eval_batch_size=64))
    found = job.evaluate(job.init(jax.random.key(0))["params"], "test")[1]
    assert found["scores"].shape == (359, 10)
    np.testing.assert_array_equal(found["index"], np.arange(359))
    expected = job.dataset.test.gather(np.arange(359))["label"]
    np.testing.assert_array_equal(found["labels"], expected)


def test_a_wrong_label_outside_training_is_named(tmp_path):
    rows = [f"{i},{i * i},{i % 3 if i != 100 else 7}" for i in range(200)]
    (tmp_path / "rows.csv").write_text("\n".join(["a,b,label", *rows]))
    job = build(
        config_of(data__path=str(tmp_path / "rows.csv"), data__num_classes=3, data__stratify=False,
                  data__batch_size=16)
    )  # fmt: skip
    params = job.init(jax.random.key(0))["params"]
    named = []
    for split in ("train", "validation", "test"):
        try:
            job.evaluate(params, split)
        except BadInput as error:
            named.append(str(error))
    assert len(named) == 1
    assert "expected labels in [0, 3), got 7 for example" in named[0]


@pytest.mark.parametrize(
    ("name", "schedule", "expected"),
    [("adam", "constant", [1, 1, 1, 1, 1]), ("adamw", "cosine", [1, 0.75, 0.25, 0]),
     ("sgd", "constant", [1, 1])],
)  # fmt: skip
def test_learning_rates(name, schedule, expected):
    config = config_of(
        steps=5, optimizer__name=name, optimizer__schedule=schedule, optimizer__warmup_steps=2,
        optimizer__learning_rate=1.0,
    )  # fmt: skip
    _, rate = make_optimizer(config)
    np.testing.assert_allclose([rate(0), rate(1)], [0.5, 0.75])
    np.testing.assert_allclose([rate(step) for step in range(2, 2 + len(expected))], expected,
                               atol=1e-6)  # fmt: skip
