# SPDX-License-Identifier: Apache-2.0
"""One label an example and a loss of the catalogue: what a config trains unless it says otherwise.

`config.task` has no key beside its name.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from experiments import data, models, sharding
from experiments.accumulation import Terms
from experiments.config import check_task, losses_of, mean_loss, resolve_loss
from experiments.errors import BadInput
from experiments.job import Job, over_split
from experiments.optimizer import make_optimizer
from experiments.scoring import evaluation_metrics
from experiments.step import Batch, descend, make_init, make_step


def build(config: ConfigDict, mesh: Mesh) -> Job:
    """The job of a classification problem.

    Raises:
      BadInput: the data, the loss for these data, or the model are not what they should be.
    """
    check_task(config, {})
    return of_dataset(config, mesh, data.load(config.data, seed=config.seed))


def of_dataset(
    config: ConfigDict,
    mesh: Mesh,
    dataset: data.Dataset,
    *,
    penalty: Callable[[Any], jax.Array] | None = None,
    describe: Callable[[Any], dict[str, jax.Array]] | None = None,
) -> Job:
    """The job of any dataset of one label an example.

    Args:
      config: the config; config.model, loss and optimizer are used.
      mesh: the mesh.
      dataset: of the task "binary" or "multiclass".
      penalty: parameters -> scalar, added to the training objective.
      describe: parameters -> further metrics of every evaluation.

    Raises:
      BadInput: the loss for these data, or the model are not what they should be.
    """
    entry, arguments = resolve_loss(config, dataset)
    model = models.of_config(
        config,
        input_shape=dataset.input_shape,
        num_scores=None if dataset.task == "binary" else dataset.num_classes,
    )
    optimizer, schedule = make_optimizer(config)

    def objective(params: Any, batch: Batch, key: jax.Array) -> Terms:
        loss_key, dropout_key = jax.random.split(key)
        scores = model.apply(params, batch["inputs"], dropout_key)
        losses, stats = losses_of(entry, arguments, scores, batch["label"], key=loss_key)
        metrics = {"accuracy": stats.lead > 0}
        if not entry.exact_gradient:  # its scalar is no loss value: show one beside it
            metrics["cross_entropy"] = -stats.log_prob
        return Terms(losses if penalty is None else losses + penalty(params), metrics)

    predict = sharding.jit_rows(lambda params, inputs: model.apply(params, inputs, None), mesh)

    def evaluate(params: Any, split: str) -> tuple[dict[str, float], dict[str, np.ndarray]]:
        found = over_split(
            getattr(dataset, split),
            lambda batch: {"scores": predict(params, batch["inputs"])},
            config,
            mesh,
        )
        scores, labels, index = found["scores"], found["label"], found["index"]
        check_labels(labels, index, dataset.num_classes, split)
        metrics = evaluation_metrics(scores, labels, dataset.task)
        # The configured loss is a metric where its mean over a split of any size is one.
        if entry.exact_gradient and not entry.couples_batch:
            metrics["loss"] = mean_loss(entry, arguments, scores, labels)
        if describe is not None:
            metrics |= {name: float(value) for name, value in describe(params).items()}
        return metrics, {"scores": scores, "labels": labels, "index": index}

    note = f"{entry.name}: 'loss' is no loss value, only its gradient means anything"
    return Job(
        config=config,
        dataset=dataset,
        mesh=mesh,
        init=make_init(model.init, optimizer),
        step=make_step(descend(objective, config.accumulate), optimizer, schedule),
        evaluate=evaluate,
        name=entry.name,
        entry=entry,
        notes=() if entry.exact_gradient else (note,),
    )


def check_labels(labels: np.ndarray, index: np.ndarray, classes: int, split: str) -> None:
    """Raises BadInput, naming the first example, unless all labels [N] are in [0, classes)."""
    if len(wrong := np.flatnonzero((labels < 0) | (labels >= classes))):
        raise BadInput(
            f"config.data: expected labels in [0, {classes}), got {labels[wrong[0]]} for example "
            f"{index[wrong[0]]} of the {split} split"
        )
