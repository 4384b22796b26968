# SPDX-License-Identifier: Apache-2.0
"""The offline design task, on a made-up table: learn from the lower half, search, look up."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import models, sharding
from experiments.config import load_file, locate
from experiments.errors import BadInput
from experiments.job import build
from experiments.sweep_table import write_table
from experiments.tasks.offline_design import CERTAINTY, make_search
from tests.experiments import tf_bind_table


@pytest.fixture(autouse=True)
def promotion_that_optax_needs():
    with jax.numpy_dtype_promotion("standard"):  # its Adam raises a float to an integer power
        yield


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    path = tmp_path_factory.mktemp("table") / "FAKE_8mers.txt.gz"
    return str(tf_bind_table.write(path, tf_bind_table.lines()))


def config_of(table, **task):
    config = load_file(locate("tf_bind_8:quick"))
    config.data.path = table
    config.model.hidden = (32,)
    config.optimizer.learning_rate = 1e-2
    config.task.update(task)
    return config


def train(job, steps=60):
    state, batches = job.init(jax.random.key(0)), job.train_batches()
    with jax.set_mesh(job.mesh):
        for _ in range(steps):
            state, metrics = job.step(state, sharding.to_devices(next(batches), job.mesh))
    return state, metrics


def test_it_learns_and_finds_designs_better_than_any_that_it_knew(table):
    job = build(config_of(table, method="gradient_ascent"))
    assert job.entry is None
    assert job.notes == ("best known score: 0.500; the best is 1",)
    state, metrics = train(job)
    assert int(metrics["first_bad"]) == -1
    validation, scores = job.evaluate(state["params"], "validation")
    assert scores is None
    assert validation["loss"] < 0.2 and validation["rank_correlation"] > 0.8
    test, _ = job.evaluate(state["params"], "test")
    assert list(test) == [
        *("score_100", "score_80", "score_50", "predicted_score", "distinct_designs")
    ]
    assert 0.5 < test["score_50"] <= test["score_80"] <= test["score_100"] <= 1.0
    assert 1 <= test["distinct_designs"] <= 128


def test_ignite_trains_another_surrogate_and_carries_its_multiplier(table):
    job = build(config_of(table, lam0=0.5, rho=0.2, radius=0.2))
    assert job.entry.name == job.name == "ignite"
    state, _ = train(job, 20)
    multipliers = [s.lam for s in jax.tree.leaves(state["optimizer"], is_leaf=_is_ignite)
                   if _is_ignite(s)]  # fmt: skip
    assert len(multipliers) == 1 and float(multipliers[0]) != 0.5
    plain, _ = train(build(config_of(table, method="gradient_ascent")), 20)
    sharp, flat = (job.evaluate(s["params"], "validation")[0] for s in (plain, state))
    assert flat["sharpness_norm"] < sharp["sharpness_norm"]


def _is_ignite(state):
    return hasattr(state, "lam")


def test_a_search_without_steps_returns_its_start_and_a_linear_score_is_climbed_to_the_top():
    model = models.build({"name": "mlp", "hidden": ()}, input_shape=(8, 4), num_scores=None)
    params = model.init(jax.random.key(0))
    start = jax.nn.one_hot(jnp.arange(16).reshape(2, 8) % 4, 4)
    letters, predicted = make_search(model, 0, 0.1)(params, start)
    np.testing.assert_array_equal(letters, np.arange(16).reshape(2, 8) % 4)
    np.testing.assert_allclose(predicted, model.apply(params, start, None), rtol=1e-6)
    letters, predicted = make_search(model, 300, 0.3)(params, start)
    kernel = next(x for x in jax.tree.leaves(params) if x.ndim == 2).reshape(8, 4)
    np.testing.assert_array_equal(letters, np.broadcast_to(kernel.argmax(-1), (2, 8)))
    assert 0.25 < CERTAINTY < 1.0  # a start design is its own argmax


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ({"method": "ignit"}, "--config.task.method: expected one of .*did you mean 'ignite'"),
        ({"radius": 0.0}, "--config.task.radius: expected a number > 0, got 0.0"),
        ({"designs": 40000}, "--config.task.designs: expected at most the .* known designs"),
        ({"steps": 3}, "--config.task.steps: no such key"),
    ],
)
def test_wrong_keys_are_one_line(table, task, message):
    with pytest.raises(BadInput, match=message) as error:
        build(config_of(table, **task))
    assert "\n" not in str(error.value)


def test_a_sweep_shows_what_only_the_test_split_has(tmp_path):
    member = {
        "seed": 0,
        "first_bad": None,
        "records": [{"step": 60, "split": "validation", "loss": 0.5}],
        "final": {"validation": {"loss": 0.5}, "test": {"score_50": 0.9}},
    }
    text = write_table(tmp_path, [("ignite", {}, [member])], select=None)
    assert "| validation loss | test score 50 |" in text and "| 0.5 | 0.9 |" in text
