# SPDX-License-Identifier: Apache-2.0
"""The task that measures a minimum: of which examples, labels and radius its numbers are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.config import load_file, locate
from experiments.errors import BadInput
from experiments.job import build
from xloss import optim
from xloss.classification import cross_entropy


def config_of(**changes):
    config = load_file(locate("noisy_fashion_sam:quick"))  # without a path: digits
    config.model.hidden = (8,)
    config.data.update(batch_size=16, eval_batch_size=512, validation_fraction=0.2)
    config.task.update(examples=32, rho=0.3)
    config.update_from_flattened_dict(changes)
    return config


def test_flatness_is_that_of_the_first_training_examples():
    job = build(config_of())
    params = job.init(jax.random.key(0))["params"]
    with jax.set_mesh(job.mesh):
        metrics, _ = job.evaluate(params, "validation")
    batch = job.dataset.train.gather(np.arange(32))
    inputs = jnp.asarray(batch["inputs"]).reshape(32, -1)

    def scores(p):
        hidden = inputs @ p["hidden_0"]["kernel"] + p["hidden_0"]["bias"][None]
        return jax.nn.relu(hidden) @ p["head"]["kernel"] + p["head"]["bias"][None]

    def loss(p):
        return jnp.mean(cross_entropy(scores(p), jnp.asarray(batch["label"])))

    assert metrics["train_loss"] == pytest.approx(float(loss(params)), rel=1e-5)
    found = float(optim.sharpness(loss, params, rho=0.3))
    assert metrics["sharpness"] == pytest.approx(found, rel=1e-4)
    right = np.mean(np.argmax(scores(params), axis=1) == batch["label"])
    assert metrics["train_accuracy"] == pytest.approx(right)
    assert abs(metrics["sharpness_random"]) < metrics["sharpness"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"task.rho": 0.0}, "--config.task.rho: expected a number > 0, got 0.0"),
        ({"task.examples": 0}, "--config.task.examples: expected an integer >= 1, got 0"),
        ({"loss.name": "ensloss"}, "--config.loss.name: expected a loss with a value of its own"),
    ],
)
def test_what_cannot_be_measured_is_said_in_one_line(changes, said):
    with pytest.raises(BadInput, match=said):
        build(config_of(**changes))
