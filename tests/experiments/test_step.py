# SPDX-License-Identifier: Apache-2.0
"""What a task may propose: a gradient, or functions for the first transform of the chain."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments import figures, sharding
from experiments.accumulation import Terms
from experiments.config import Rule, check_task, load_file, locate, validate
from experiments.errors import BadInput
from experiments.job import build
from experiments.optimizer import make_optimizer
from experiments.report import write_report
from experiments.rundir import read_run
from experiments.step import Proposal, descend, make_init, make_step
from tests.experiments.fake_run import make_run


def config_of(**changes):
    config = load_file(locate("digits:quick"))
    config.optimizer.update(name="sgd", momentum=0.0, schedule="constant", learning_rate=0.5)
    config.optimizer.update(changes)
    return config


def init_params(_key):
    return {"w": jnp.asarray([3.0, 4.0])}


def one_step(propose, optimizer, schedule):
    mesh = sharding.make_mesh()
    state = make_init(init_params, optimizer)(jax.random.key(0))
    batch = sharding.to_devices({"inputs": np.zeros((8, 2), np.float32)}, mesh)
    return jax.jit(make_step(propose, optimizer, schedule))(state, batch)


def test_a_first_transform_makes_the_gradient_from_the_tasks_function():
    def update(updates, state, params=None, *, task_losses_fn, **_):
        assert params is not None
        np.testing.assert_equal(updates["w"].shape, (2,))
        rows = jax.jacobian(task_losses_fn)(params)
        return jax.tree.map(lambda row: jnp.sum(row, axis=0), rows), state

    first = optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)
    optimizer, schedule = make_optimizer(config_of(clip_norm=1.0), first)

    def propose(params, batch, key):
        def task_losses(where):
            return jnp.square(where["w"]) / 2 + jnp.mean(batch["inputs"])

        losses = task_losses(params)
        extra = {"task_losses_fn": task_losses}
        return Proposal(jnp.sum(losses), None, {"loss_0": losses[0]}, extra)

    state, metrics = one_step(propose, optimizer, schedule)

    # The gradient (3, 4) is made first and clipped to (0.6, 0.8) after; the rate is 1/2.
    np.testing.assert_allclose(state["params"]["w"], [2.7, 3.6], rtol=1e-6)
    assert metrics.keys() == {"loss", "loss_0", "learning_rate", "first_bad"}
    assert float(metrics["loss"]) == 12.5


def test_one_objective_offers_its_gradient_anywhere_over_the_same_batch():
    def update(updates, state, params=None, *, grad_fn, **_):
        there = grad_fn(jax.tree.map(lambda leaf: leaf + 1.0, params))
        return jax.tree.map(jnp.subtract, there, updates), state

    first = optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)

    def objective(params, batch, key):
        noise = jax.random.normal(key, ())  # the same key at both places: it cancels
        return Terms(jnp.sum(jnp.square(params["w"])) / 2 + noise * jnp.sum(params["w"]))

    state, metrics = one_step(descend(objective), *make_optimizer(config_of(), first))
    np.testing.assert_allclose(state["params"]["w"], [2.5, 3.5], rtol=1e-6)
    assert np.isfinite(metrics["gradient_norm"])


def test_transforms_without_extra_arguments_are_given_none():
    state, _ = one_step(
        descend(lambda params, batch, key: Terms(jnp.sum(params["w"]))),
        *make_optimizer(config_of()),
    )
    np.testing.assert_allclose(state["params"]["w"], [2.5, 3.5], rtol=1e-6)


def test_a_wrong_task_is_one_line_with_the_nearest_match():
    config = config_of()
    config.task.name = "clasification"
    with pytest.raises(BadInput, match=r"--config.task.name: .* did you mean 'classification'\?"):
        validate(config)

    config = load_file(locate("digits:quick"))
    with config.task.unlocked():
        config.task.rho = -1.0
    with pytest.raises(BadInput, match="--config.task.rho: no such key"):
        build(config)
    rule = {"rho": Rule((int, float), "a number >= 0", lambda v: v >= 0)}
    with pytest.raises(BadInput, match="--config.task.rho: expected a number >= 0, got -1.0"):
        check_task(config, rule)
    with pytest.raises(BadInput, match="--config.task.c: expected a number >= 0, got nothing"):
        check_task(config, {"c": rule["rho"], **rule})


def test_a_task_may_do_without_a_loss_of_the_catalogue_but_classification_may_not():
    config = load_file(locate("digits:quick"))
    with config.unlocked():
        del config.loss
    validate(config)
    with pytest.raises(BadInput, match="--config.loss: expected"):
        build(config)


def test_a_task_without_scores_is_reported_by_its_curves(tmp_path):
    workdir = make_run(
        tmp_path, finished=False, steps=40, config={"task": {"name": "design"}, "loss": None}
    )
    (workdir / "run.json").write_text('{"scores": false, "method": "ignite, rho=0.05"}')

    page = write_report(workdir).read_text(encoding="utf-8")

    panels = list(figures.panels_of(read_run(workdir)))
    assert panels[0] == "Learning curves" and panels[-1] == "Time per step"
    assert {"Accuracy", "Cross entropy"} <= set(panels) and "Reliability" not in panels
    assert page.count("<img ") == len(panels)
    assert "ignite, rho=0.05" in page and "evaluation.npz" not in page
