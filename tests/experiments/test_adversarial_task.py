# SPDX-License-Identifier: Apache-2.0
"""The task that attacks: what it trains and what it measures, on a few steps of eight devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import xloss
from experiments import sharding
from experiments.config import load_file, locate
from experiments.errors import BadInput
from experiments.job import build
from xloss.classification import cross_entropy


@pytest.fixture(autouse=True)
def promotion_that_optax_needs():
    with jax.numpy_dtype_promotion("standard"):  # its schedules raise a float to an integer power
        yield


def config_of(**changes):
    """The shipped config, small; changes are keys with __ for the dot."""
    config = load_file(locate("adversarial_digits:quick"))
    config.model.hidden = (16,)
    config.task.steps = config.task.eval_steps = 3
    for key, value in changes.items():
        group, _, leaf = key.rpartition("__")
        (config[group] if group else config)[leaf] = value
    return config


def plain(name, **hyper):
    changes = {f"loss__{key}": None for key in ("tau", "nu")}
    return config_of(**(changes | {"loss__name": name} | hyper))


def trained(job, steps):
    state, batches, records = job.init(jax.random.key(0)), job.train_batches(), []
    with jax.set_mesh(job.mesh):
        for _ in range(steps):
            state, metrics = job.step(state, sharding.to_devices(next(batches), job.mesh))
            records.append(jax.device_get(metrics))
    return state["params"], records


def test_training_lowers_the_loss_and_robust_accuracy_is_below_accuracy():
    job = build(config_of())
    params, records = trained(job, 40)
    assert job.name == "smooth_adversarial_comp_sum against displacement, linf radius 0.15"
    assert records[-1]["loss"] < 0.8 * records[0]["loss"]
    metrics, scores = job.evaluate(params, "validation")
    assert 0.1 < metrics["robust_accuracy"] < metrics["accuracy"]
    assert scores["scores"].shape == (len(scores["labels"]), 10)


def test_without_a_radius_every_loss_is_that_of_the_clean_inputs():
    options = {"task__radius": 0.0, "task__attack": "ce"}
    baseline = trained(build(plain("cross_entropy", **options)), 2)[1]
    for name in ("madry", "trades"):
        records = trained(build(plain(name, **options)), 2)[1]
        for ours, theirs in zip(records, baseline, strict=True):
            np.testing.assert_allclose(ours["loss"], theirs["loss"], rtol=1e-5)
            np.testing.assert_allclose(ours["attacked_accuracy"], ours["accuracy"])


def test_the_attack_raises_the_loss_that_is_trained():
    attacked = trained(build(plain("madry")), 1)[1][0]
    clean = trained(build(plain("cross_entropy")), 1)[1][0]
    assert attacked["loss"] > clean["loss"]
    assert "attacked_accuracy" not in clean


def test_robust_accuracy_without_a_radius_is_accuracy():
    job = build(plain("cross_entropy", task__radius=0.0))
    metrics, scores = job.evaluate(job.init(jax.random.key(0))["params"], "test")
    assert metrics["robust_accuracy"] == metrics["accuracy"]
    losses = cross_entropy(jnp.asarray(scores["scores"]), jnp.asarray(scores["labels"]))
    np.testing.assert_allclose(metrics["cross_entropy"], xloss.reduce(losses), rtol=1e-5)


def test_the_cascade_runs_on_the_test_split_and_is_below_every_attack_of_it():
    cascade = {"task__cascade": ("apgd-ce", "square"), "task__cascade_examples": 40,
               "task__cascade_steps": 5, "task__cascade_queries": 20}  # fmt: skip
    job = build(plain("madry", data__eval_batch_size=40, **cascade))
    params, _ = trained(job, 20)
    found = job.evaluate(params, "test")[0]
    left = [found[f"after_{name}"] for name in ("clean", "apgd-ce", "square")]
    assert np.all(np.diff(left) <= 0) and left[-1] == found["worst_case_accuracy"]
    assert "worst_case_accuracy" not in job.evaluate(params, "validation")[0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task__cascade": ("fab",)}, "--config.task.cascade: .*expected attacks among"),
        ({"task__cascade": (3,)}, "--config.task.cascade: expected a tuple of names"),
        ({"task__attack": "dlr"}, "--config.task.attack: expected one of own, ce"),
        ({"task__radius": -1.0}, "--config.task.radius: expected a number >= 0, got -1.0"),
        ({"task__steps": 0}, "--config.task.steps: expected an integer >= 1, got 0"),
        ({"data__normalise": "standardise"}, r"--config.data.normalise: expected inputs in \[0, 1"),
        ({"loss__beta": 3.0}, "--config.loss.beta: .*expected hyperparameters among"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(changes, message):
    with pytest.raises(BadInput, match=message):
        build(config_of(**changes))


def test_a_loss_without_a_value_is_refused():
    with pytest.raises(BadInput, match="--config.loss.name: expected a loss with a value"):
        build(plain("ensloss"))
