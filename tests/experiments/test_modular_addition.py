# SPDX-License-Identifier: Apache-2.0
"""Modular addition: every pair once, a tied embedding, its metrics, and what is refused."""

import jax
import numpy as np
import pytest

from experiments import models
from experiments.config import load_file, locate
from experiments.errors import BadInput
from experiments.job import build
from experiments.tasks.modular_addition import pairs
from xloss.heads import harmonic_logits

DATA = {"validation_fraction": 0.1, "test_fraction": 0.1}


@pytest.fixture(autouse=True)
def promotion_that_optax_needs():
    with jax.numpy_dtype_promotion("standard"):
        yield


def small(**changes):
    config = load_file(locate("harmonic_modular_addition:quick"))
    config.data.batch_size = 64
    config.task.modulus = 11
    config.model.embedding, config.model.hidden = 4, 8
    for key, value in changes.items():
        group, _, leaf = key.partition("__")
        config[group][leaf] = value
    return config


def test_every_pair_is_in_one_split():
    dataset = pairs(DATA, modulus=11, seed=0)
    parts = [s.gather(np.arange(len(s))) for s in (dataset.train, dataset.validation, dataset.test)]
    seen = np.concatenate([part["inputs"] for part in parts])
    labels = np.concatenate([part["label"] for part in parts])

    assert len(np.unique(seen, axis=0)) == len(seen) == 121
    np.testing.assert_array_equal(labels, seen.sum(-1) % 11)
    assert (dataset.num_classes, dataset.input_shape) == (11, (2,))


@pytest.mark.parametrize("head", ["dot_product", "harmonic"])
def test_the_output_layer_is_the_embedding(head):
    model = models.build(
        {"name": "pair_mlp", "embedding": 4, "hidden": 8, "head": head, "exponent": 2.0},
        input_shape=(2,),
        num_scores=5,
    )
    params = model.init(jax.random.key(0))
    inputs = np.array([[0, 3], [4, 4], [1, 0]], np.float32)
    table, hidden, out = jax.tree.map(
        np.asarray, [params[name] for name in ("embedding", "hidden", "out")]
    )

    x = table[inputs.astype(int)].reshape(3, 8) @ hidden["kernel"] + hidden["bias"]
    x = (x / (1 + np.exp(-x))) @ out["kernel"] + out["bias"]

    by_hand = x @ table.T if head == "dot_product" else harmonic_logits(x, table.T, exponent=2.0)
    np.testing.assert_allclose(model.apply(params, inputs, None), by_hand, rtol=1e-4, atol=1e-5)


def test_the_penalty_is_in_the_objective_and_the_embedding_in_the_metrics():
    losses = []
    for rate in (0.0, 0.5):
        job = build(small(task__embedding_penalty=rate))
        state = job.init(jax.random.key(0))
        table = np.asarray(state["params"]["embedding"])
        metrics, _ = job.evaluate(state["params"], "validation")
        batch = job.dataset.train.gather(np.arange(64))
        losses.append(float(job.step(state, batch)[1]["loss"]))

    by_hand = 0.5 * np.sqrt((table**2).mean(0)).mean()
    np.testing.assert_allclose(losses[1] - losses[0], by_hand, rtol=1e-4)
    values = np.linalg.svd(table - table.mean(0), compute_uv=False) ** 2
    share = values[:2].sum() / values.sum()
    np.testing.assert_allclose(metrics["explained_variance_2"], share, rtol=1e-5)
    assert 1 <= metrics["effective_rank"] <= 4 and metrics["circle"] > 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task__modulus": 2}, r"config.task.modulus: expected an integer in \[3, 1000\], got 2"),
        ({"task__embedding_penalty": -1}, "config.task.embedding_penalty: expected a number >= 0"),
        ({"task__modulo": 7}, "config.task.modulo: no such key; did you mean 'task.modulus'"),
        ({"model__name": "mlp"}, "config.model.name: expected pair_mlp for modular_addition"),
        ({"model__head": "linear"}, "config.model.head: expected one of dot_product, harmonic"),
        ({"model__distance": "mahalanobis"}, "config.model.distance: expected one without"),
        ({"data__test_fraction": 0.001}, "modular_addition: 121 examples are too few"),
    ],
)
def test_wrong_values_are_refused_by_flag(changes, message):
    with pytest.raises(BadInput, match=message):
        build(small(**changes))
