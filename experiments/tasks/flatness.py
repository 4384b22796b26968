# SPDX-License-Identifier: Apache-2.0
"""Classification that also measures how flat the minimum is: to compare sharpness-aware steps.

As `classification`, and every evaluation says of the first `examples` TRAINING examples, at the
parameters of that moment: train_loss, the mean of config.loss, and train_accuracy on the labels as
they are trained on, wrong ones included; sharpness, how much that mean rises at a distance of `rho`
along its gradient (the number that SAM holds down), and sharpness_random, in random directions.

Keys of `config.task`: ``examples``, ``rho``.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

import xloss
from experiments import data, models
from experiments.config import Rule, check_task, losses_of, resolve_loss
from experiments.errors import BadInput
from experiments.job import Job
from experiments.tasks import classification
from xloss import optim

RULES = {
    "examples": Rule(int, "an integer >= 1", lambda v: v >= 1),
    "rho": Rule((int, float), "a number > 0", lambda v: 0 < v < np.inf),
}


def build(config: ConfigDict, mesh: Mesh) -> Job:
    """The job; see the top of the file.

    Raises:
      BadInput: a key of config.task, the data, the loss or the model are not what they should be.
    """
    check_task(config, RULES)
    dataset = data.load(config.data, seed=config.seed)
    entry, arguments = resolve_loss(config, dataset)
    if not entry.exact_gradient:
        raise BadInput(
            f"--config.loss.name: expected a loss with a value of its own, got {entry.name!r}"
        )
    model = models.of_config(
        config,
        input_shape=dataset.input_shape,
        num_scores=None if dataset.task == "binary" else dataset.num_classes,
    )
    size = min(config.task.examples, len(dataset.train))
    chosen = dataset.train.gather(np.arange(size))
    radius = float(config.task.rho)

    @jax.jit
    def describe(params: Any) -> dict[str, jax.Array]:
        def found(where: Any) -> tuple[jax.Array, jax.Array]:
            scores = model.apply(where, jnp.asarray(chosen["inputs"]), None)
            losses, stats = losses_of(
                entry, arguments, scores, jnp.asarray(chosen["label"]), key=jax.random.key(0)
            )
            return xloss.reduce(losses), jnp.mean(stats.lead > 0, dtype=losses.dtype)

        def rise(kind: str) -> jax.Array:
            key = jax.random.key(0)
            return optim.sharpness(lambda p: found(p)[0], params, rho=radius, kind=kind, key=key)

        loss, accuracy = found(params)
        return {
            "train_loss": loss,
            "train_accuracy": accuracy,
            "sharpness": rise("ascent"),
            "sharpness_random": rise("random"),
        }

    return classification.of_dataset(config, mesh, dataset, describe=describe)
