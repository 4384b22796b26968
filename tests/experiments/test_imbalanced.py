# SPDX-License-Identifier: Apache-2.0
"""The tasks whose loss or metric is of a set or of several draws: imbalanced and pass_at_n."""

import gzip

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict
from sklearn import metrics as sklearn

from experiments import sharding
from experiments.config import load_file, locate
from experiments.errors import BadInput
from experiments.job import build
from experiments.tasks.imbalanced import best_threshold, decisions


@pytest.fixture(autouse=True)
def promotion_that_optax_needs():
    with jax.numpy_dtype_promotion("standard"):  # its schedules raise a float to an integer power
        yield


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """600 rows of which one in ten is positive, and somewhat to the right."""
    draw = np.random.default_rng(0)
    y = (draw.random(600) < 0.1).astype(int)
    x = draw.normal(size=(600, 3)) + 1.5 * y[:, None]
    path = tmp_path_factory.mktemp("rare") / "rare.csv.gz"
    lines = [",".join([*(f"{v:.4f}" for v in row), str(label)]) for row, label in zip(x, y)]
    path.write_bytes(gzip.compress("\n".join(lines).encode()))
    return str(path)


def trained(config, steps):
    job = build(config)
    state, batches = job.init(jax.random.key(0)), job.train_batches()
    losses = []
    with jax.set_mesh(job.mesh):
        for _ in range(steps):
            state, metrics = job.step(state, sharding.to_devices(next(batches), job.mesh))
            losses.append(float(metrics["loss"]))
    return job, state["params"], losses


def rare(table, **task):
    config = load_file(locate("imbalanced:quick"))
    config.data.path = table
    config.data.batch_size = config.data.eval_batch_size = 128
    config.model.hidden = (8,)
    config.optimizer.learning_rate = 0.03
    config.task.update(task)
    return config


@pytest.mark.parametrize("objective", ["mean", "balanced", "dice", "anyloss"])
def test_every_objective_learns_and_is_measured(objective, table):
    job, params, losses = trained(rare(table, objective=objective), 60)
    assert np.mean(losses[-5:]) < losses[0]
    found, arrays = job.evaluate(params, "test")
    guess = arrays["scores"] > 0
    wanted = {
        "f1": sklearn.f1_score(arrays["labels"], guess),
        "balanced_accuracy": sklearn.balanced_accuracy_score(arrays["labels"], guess),
        "matthews": sklearn.matthews_corrcoef(arrays["labels"], guess),
    }
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-9)
    # What nine in ten negatives do to a threshold of 1/2.
    if objective != "mean":
        assert found["f1"] > 0.3 and found["average_precision"] > 0.3
    assert {"f1_tuned", "g_mean", "cross_entropy"} <= set(found)


def test_the_threshold_is_the_best_one_of_the_scores_it_is_chosen_on():
    draw = np.random.default_rng(1)
    labels = (draw.random(300) < 0.2).astype(int)
    scores = draw.normal(size=300) + labels
    cut = best_threshold(scores, labels)
    best = decisions(scores >= cut, labels)["f1"]
    assert best == max(decisions(scores >= other, labels)["f1"] for other in scores)
    assert best_threshold(scores, 0 * labels) == 0.0
    assert best_threshold(np.full(3, np.nan), np.array([1, 0, 1])) == 0.0
    assert set(decisions(scores > 9, labels).values()) == {0.0, 0.5}


def test_what_is_wrong_is_said_in_a_line(table):
    for config, message in (
        (rare(table, objective="f1"), "--config.task.objective: expected one of mean"),
        (rare(table, metric="f1"), "--config.task.metric: expected one of accuracy"),
        (rare(table, steepness=0.0), "--config.task.steepness: expected a number > 0"),
    ):
        with pytest.raises(BadInput, match=message):
            build(config)
    config = rare(table)
    config.data.path = None
    with pytest.raises(BadInput, match="expected two classes, got 10"):
        build(config)
    config = rare(table)
    config.loss.name = "ensloss"
    with pytest.raises(BadInput, match="--config.loss.name: expected a loss of one example"):
        build(config)


def draws(count):
    config = load_file(locate("pass_at_n:quick"))
    config.model.hidden = (16,)
    config.task.num_samples = count
    return config


def test_one_draw_is_cross_entropy_and_many_care_less_for_confidence():
    job, params, _ = trained(draws(1.0), 60)
    found, _ = job.evaluate(params, "validation")
    plain = draws(1.0)
    plain.task = ConfigDict({"name": "classification"})
    other = trained(plain, 60)[1]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), params, other)
    p = np.exp(-found["cross_entropy"])  # of the geometric mean
    assert found["pass_1"] >= p and found["pass_own"] == found["pass_1"]
    values = [found[f"pass_{n}"] for n in (1, 4, 16, 64, 256)]
    assert np.all(np.diff(values) > 0) and values[-1] <= 1
    many = trained(draws(64.0), 60)
    sure = many[0].evaluate(many[1], "validation")[0]
    assert sure["pass_1"] < found["pass_1"] and sure["pass_64"] > 0.9
    wrong = draws(0.5)
    with pytest.raises(BadInput, match="--config.task.num_samples: expected a number >= 1"):
        build(wrong)
