# SPDX-License-Identifier: Apache-2.0
"""Two tasks in the one loop: pairs of digits, a small trunk, a few steps."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments import modes, sharding, train
from experiments.config import load_file, locate
from experiments.errors import BadInput
from experiments.job import build
from experiments.metrics import read_metrics
from experiments.tasks import multi_task


@pytest.fixture(autouse=True)
def promotion_that_optax_needs():
    with jax.numpy_dtype_promotion("standard"):  # its Adam raises a float to an integer power
        yield


def config_of(**changes):
    config = load_file(locate("multi_task_fashion:quick"))
    config.update(steps=4, log_every=2, eval_every=2, checkpoint_every=2)
    config.model.hidden = (8,)
    config.data.update(batch_size=16, eval_batch_size=512)
    config.update_from_flattened_dict(changes)
    return config


def after_three_steps(config):
    job = build(config)
    state, batches = job.init(jax.random.key(0)), job.train_batches()
    with jax.set_mesh(job.mesh):
        for _ in range(3):
            state, metrics = job.step(state, sharding.to_devices(next(batches), job.mesh))
    return jax.tree.map(np.asarray, state["params"]), jax.device_get(metrics)


def test_no_perturbation_and_the_sum_is_the_gradient_of_the_summed_losses():
    options = {"optimizer.name": "sgd", "optimizer.learning_rate": 0.1, "task.aggregator": "linear"}
    plain, metrics = after_three_steps(config_of(**options, **{"task.method": "plain"}))
    same, others = after_three_steps(config_of(**options, **{"task.rho": 0.0}))
    for left, right in zip(jax.tree.leaves(plain), jax.tree.leaves(same), strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-4, atol=1e-6)
    assert metrics["loss"] == pytest.approx(metrics["loss_left"] + metrics["loss_right"], rel=1e-5)
    assert others["loss"] == pytest.approx(metrics["loss"], rel=1e-4)
    assert "gradient_norm" in metrics and "gradient_norm" not in others


def test_a_run_stops_resumes_and_reports_both_accuracies(tmp_path: Path):
    config = config_of()
    train.train(config, str(tmp_path), max_steps=2)
    assert train.train(config, str(tmp_path)).step == 4

    last = read_metrics(tmp_path)[-1]
    assert last["split"] == "test" and not (tmp_path / "evaluation.npz").exists()
    mean = (last["accuracy_left"] + last["accuracy_right"]) / 2
    assert last["accuracy"] == pytest.approx(mean)
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["method"] == "multi-task cross_entropy, split pcgrad, rho 0.1"
    page = (tmp_path / "report.html").read_text()
    assert "Accuracy left" in page and "split pcgrad" in page
    assert "Seeking Task-based Flat Regions" in page

    assert "[test] accuracy" in modes.evaluate(config, str(tmp_path), None)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"task.method": "splitt"}, r"--config.task.method: .* did you mean 'split'\?"),
        ({"task.aggregator": "gradnorm"}, "--config.task.aggregator: expected one of aligned_mtl"),
        ({"task.rho": -0.1}, "--config.task.rho: expected a number >= 0, got -0.1"),
        ({"task.pool": 3}, "config.task.pool: expected a divisor of"),
        ({"loss.name": "ensloss"}, "--config.loss.name: expected a loss with a value of its own"),
        ({"optimizer.sharpness": "sam"}, "--config.optimizer.sharpness: expected none for this"),
        ({"optimizer.sharpness": "asma"}, r"--config.optimizer.sharpness: .* 'asam'\?"),
        ({"optimizer.rho": 0.1}, "--config.optimizer.rho: expected optimizer.sharpness"),
        ({"task.weighting": "gls"}, "--config.task.weighting: expected sum unless task.method is"),
        ({"task.tasks": "left"}, "--config.task.tasks: expected both unless task.method is plain"),
        ({"optimizer.every": 2}, "--config.optimizer.every: expected optimizer.sharpness among l"),
        ({"task.second": "wine"}, "config.task.second: expected pictures"),
        ({"data.name": "breast_cancer"}, "config.task.second: expected pictures"),
    ],
)
def test_what_cannot_be_trained_is_said_in_one_line(changes, said):
    with pytest.raises(BadInput, match=said) as refused:
        build(config_of(**changes))
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize("weighting", sorted(multi_task.WEIGHTINGS))
def test_a_weighting_trains_what_belongs_to_it(weighting):
    changes = {"task.method": "plain", "task.aggregator": "linear", "task.weighting": weighting}
    params, metrics = after_three_steps(config_of(**changes))
    scales = params.get("scales")
    assert (scales is not None) == (weighting in multi_task.SCALES)
    assert scales is None or np.all(scales != multi_task.SCALES[weighting])
    assert np.isfinite(metrics["loss"]) and metrics["gradient_norm"] > 0


def test_a_task_alone_leaves_the_other_head_as_it_was():
    changes = {"task.method": "plain", "task.aggregator": "linear", "task.tasks": "left"}
    config = config_of(**changes)
    start = jax.tree.map(np.asarray, build(config).init(jax.random.key(0))["params"])
    params, metrics = after_three_steps(config)
    moved = np.any(params["head"]["kernel"] != start["head"]["kernel"], axis=0)
    assert moved[:10].all() and not moved[10:].any()
    assert metrics["loss"] == pytest.approx(metrics["loss_left"], rel=1e-5)


def test_validation_says_how_often_the_tasks_disagree():
    config = config_of(**{"task.noise": 0.0})
    config.task.second = config.data.name
    job = build(config)
    state = job.init(jax.random.key(0))
    with jax.set_mesh(job.mesh):
        validation, _ = job.evaluate(state["params"], "validation")
        test, _ = job.evaluate(state["params"], "test")
    assert 0.0 <= validation["conflict_rate"] <= 1.0
    assert -1.0 <= validation["gradient_cosine"] <= 1.0
    assert "conflict_rate" not in test
    mixed = validation["conflict_rate"] * multi_task.WATCHED
    assert mixed == pytest.approx(round(mixed))
