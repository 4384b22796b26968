# SPDX-License-Identifier: Apache-2.0
"""Classification by drawing N answers, one right one being enough: direct coverage optimisation.

The loss is `xloss.classification.direct_coverage`; config.loss is not used and stays cross-entropy,
which is the same with ``num_samples=1``. Keys of `config.task`:

* ``num_samples``: N of the loss, a number >= 1.

Metrics of every evaluation: pass_1, pass_4, pass_16, pass_64 and pass_256, the chance that one of
so many answers drawn from the model is right (exact, nothing is drawn), pass_own at the N that is
trained for, and what every classification has.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

import xloss
from experiments import data, models, sharding
from experiments.accumulation import Terms
from experiments.config import Rule, check_task, resolve_loss
from experiments.errors import BadInput
from experiments.job import Job, over_split
from experiments.optimizer import make_optimizer
from experiments.scoring import evaluation_metrics, true_class_log_odds
from experiments.step import Batch, descend, make_init, make_step
from experiments.tasks.classification import check_labels
from xloss.classification import coverage, direct_coverage

COUNTS = (1, 4, 16, 64, 256)
RULES = {"num_samples": Rule((int, float), "a number >= 1", lambda v: 1 <= v < np.inf)}


def build(config: ConfigDict, mesh: Mesh) -> Job:
    """The job; see the top of the file.

    Raises:
      BadInput: a key of config.task, the data or the model are not what they should be.
    """
    check_task(config, RULES)
    dataset = data.load(config.data, seed=config.seed)
    if dataset.task != "multiclass":
        raise BadInput(f"config.data: expected three classes or more, got {dataset.num_classes}")
    entry, _ = resolve_loss(config, dataset)
    if entry.name != "cross_entropy":
        raise BadInput(
            f"--config.loss.name: expected cross_entropy, which this task generalises, got "
            f"{entry.name!r}"
        )
    count = config.task.num_samples
    model = models.of_config(
        config, input_shape=dataset.input_shape, num_scores=dataset.num_classes
    )
    optimizer, schedule = make_optimizer(config)

    def objective(params: Any, batch: Batch, key: jax.Array) -> Terms:
        scores = model.apply(params, batch["inputs"], key)
        # An answer of one token.
        losses = direct_coverage(scores[:, None], batch["label"][:, None], num_samples=count)
        stats = xloss.logit_statistics(scores, batch["label"])
        return Terms(losses, {"cross_entropy": -stats.log_prob})

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
        metrics = evaluation_metrics(scores, labels, "multiclass")
        odds = jnp.asarray(true_class_log_odds(scores, labels, "multiclass"), jnp.float32)
        for name, draws in (*((f"{n}", n) for n in COUNTS), ("own", count)):
            chance = coverage(jax.nn.log_sigmoid(odds), num_samples=draws)
            metrics[f"pass_{name}"] = float(jnp.mean(chance))
        return metrics, {"scores": scores, "labels": labels, "index": index}

    return Job(
        config=config,
        dataset=dataset,
        mesh=mesh,
        init=make_init(model.init, optimizer),
        step=make_step(descend(objective, config.accumulate), optimizer, schedule),
        evaluate=evaluate,
        name=f"direct_coverage, N = {count:g}",
        entry=entry,
    )
