# SPDX-License-Identifier: Apache-2.0
"""Several labels an example: one model, and whatever loss config.loss names.

`config.data.path` is an npz file (`experiments/data/multi_label.py`). What a loss is given follows
from what it reads:

    0 and 1 for every label         decoupled_softmax, soft_top_k_loss
    probabilities                   soft_cross_entropy: the labels share them, times their number:
                                    a softmax over all labels, summed over the true ones
    statistics                      cross_entropy, focal, ...: each label against none, summed over
                                    labels; cross_entropy is binary cross-entropy

`config.task` has no key beside its name.

Metrics of every evaluation: precision_1, precision_5, propensity_precision_1 and
propensity_precision_5 (`experiments/precision_at_k.py`, a = 0.55, b = 1.5), and loss.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

import xloss
from experiments import models, sharding
from experiments.accumulation import Terms
from experiments.config import check_task, named_loss, try_loss
from experiments.data.multi_label import load_multi_label
from experiments.errors import BadInput
from experiments.job import Job, over_split
from experiments.optimizer import make_optimizer
from experiments.precision_at_k import precision_at_k, propensities
from experiments.step import Batch, descend, make_init, make_step
from xloss.catalogue import Entry

FIRST = (1, 5)


def build(config: ConfigDict, mesh: Mesh) -> Job:
    """The job; see the top of the file.

    Raises:
      BadInput: a key of config.task, the data, the loss or the model are not what they should be.
    """
    check_task(config, {})
    entry, arguments = named_loss(config)
    if not {"multi_hot", "probabilities"} & set(entry.needs) and (
        not entry.takes_statistics or entry.couples_batch or "key" in entry.needs
    ):
        raise BadInput(
            "--config.loss.name: expected a loss of several labels, of probabilities, or of the "
            f"statistics of one example, got {entry.name!r}"
        )
    dataset = load_multi_label(config.data, seed=config.seed)
    classes = dataset.num_classes
    if classes < max(FIRST):
        raise BadInput(f"config.data.path: expected {max(FIRST)} labels or more, got {classes}")
    try_loss(
        config,
        lambda z, y: losses_of(entry, arguments, z, y),
        jax.ShapeDtypeStruct((4, classes), jnp.float32),
        jax.ShapeDtypeStruct((4, classes), jnp.int32),
    )
    model = models.of_config(config, input_shape=dataset.input_shape, num_scores=classes)
    optimizer, schedule = make_optimizer(config)

    def objective(params: Any, batch: Batch, key: jax.Array) -> Terms:
        scores = model.apply(params, batch["inputs"], key)
        return Terms(losses_of(entry, arguments, scores, batch["label"]))

    def predict(params: Any, inputs: jax.Array, labels: jax.Array) -> dict[str, jax.Array]:
        scores = model.apply(params, inputs, None)
        return {"scores": scores, "loss": losses_of(entry, arguments, scores, labels)}

    predicted = sharding.jit_rows(predict, mesh, arrays=2)
    train = dataset.train.gather(np.arange(len(dataset.train)))["label"]
    propensity = propensities(train.sum(axis=0), len(train), a=0.55, b=1.5)

    def evaluate(params: Any, split: str) -> tuple[dict[str, float], None]:
        found = over_split(
            getattr(dataset, split),
            lambda batch: predicted(params, batch["inputs"], batch["label"]),
            config,
            mesh,
        )
        metrics = precision_at_k(found["scores"], found["label"], FIRST, propensity)
        return metrics | {"loss": float(np.mean(found["loss"], dtype=np.float64))}, None

    return Job(
        config=config,
        dataset=dataset,
        mesh=mesh,
        init=make_init(model.init, optimizer),
        step=make_step(descend(objective, config.accumulate), optimizer, schedule),
        evaluate=evaluate,
        name=entry.name,
        entry=entry,
        notes=(f"{classes} labels, {np.mean(train.sum(axis=1)):.1f} an example",),
    )


def losses_of(
    entry: Entry, arguments: Mapping[str, Any], scores: jax.Array, labels: jax.Array
) -> jax.Array:
    """Losses [B] of scores [B, K] and labels [B, K] of 0 and 1, whatever the loss reads."""
    if "multi_hot" in entry.needs:
        return entry.function(scores, labels, **arguments)
    if "probabilities" in entry.needs:
        count = jnp.sum(labels, axis=-1).astype(scores.dtype)
        share = labels.astype(scores.dtype) / jnp.maximum(count, 1.0)[:, None]
        # An example without a label has no distribution: any will do, its loss is multiplied by 0.
        share = jnp.where(count[:, None] > 0, share, 1.0 / labels.shape[-1])
        return count * entry.function(scores, share, **arguments)
    each = entry.function(xloss.binary_statistics(scores, labels), **arguments)
    return jnp.sum(each, axis=-1)
