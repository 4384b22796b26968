# SPDX-License-Identifier: Apache-2.0
"""Two classes of which one is rare: losses of an example against losses of the whole batch.

Class 1 is the rare one that F1 is about. Keys of `config.task`:

* ``objective``: "mean" of config.loss; "balanced", its mean with each class half of the weight; or
  a loss of the batch as a set: "dice" (smooth 1, squared), "anyloss";
* ``metric``, ``steepness``: of anyloss; the metric is a name that it knows.

Metrics of every evaluation: f1, balanced_accuracy, g_mean and matthews at probability 1/2;
average_precision, which needs no threshold; and f1_tuned: F1 at the threshold that is best on the
VALIDATION split, what a practitioner would do with any loss.
"""

from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict
from sklearn.metrics import average_precision_score, precision_recall_curve

from experiments import data, models, sharding
from experiments.accumulation import Terms
from experiments.computing import refuse_accumulate
from experiments.config import Rule, check_task, losses_of, one_of, resolve_loss
from experiments.errors import BadInput
from experiments.job import Job, over_split
from experiments.optimizer import make_optimizer
from experiments.scoring import evaluation_metrics
from experiments.step import Batch, descend, make_init, make_step
from experiments.tasks.classification import check_labels
from xloss.classification import anyloss, dice
from xloss.classification.anyloss import METRICS

RULES = {
    "objective": one_of("mean", "balanced", "dice", "anyloss"),
    "metric": one_of(*METRICS),
    "steepness": Rule((int, float), "a number > 0", lambda v: 0 < v < np.inf),
}


def build(config: ConfigDict, mesh: Mesh) -> Job:
    """The job; see the top of the file.

    Raises:
      BadInput: a key of config.task, the data, the loss or the model are not what they should be.
    """
    check_task(config, RULES)
    task = config.task
    dataset = data.load(config.data, seed=config.seed)
    if dataset.task != "binary":
        raise BadInput(f"config.data: expected two classes, got {dataset.num_classes}")
    entry, arguments = resolve_loss(config, dataset)
    if not entry.exact_gradient or entry.couples_batch:
        raise BadInput(
            f"--config.loss.name: expected a loss of one example with a value, got {entry.name!r}"
        )
    if task.objective in ("dice", "anyloss"):
        refuse_accumulate(config, f"{task.objective} is a loss of the whole batch")
    train = dataset.train.gather(np.arange(len(dataset.train)))["label"]
    positives = float(np.mean(train == 1))
    # A share of 0 would have no weight to balance with.
    weights = np.array([0.5 / max(1.0 - positives, 1e-9), 0.5 / max(positives, 1e-9)], np.float32)
    model = models.of_config(config, input_shape=dataset.input_shape, num_scores=None)
    optimizer, schedule = make_optimizer(config)

    def objective(params: Any, batch: Batch, key: jax.Array) -> Terms:
        loss_key, dropout_key = jax.random.split(key)
        scores, labels = model.apply(params, batch["inputs"], dropout_key), batch["label"]
        if task.objective == "dice":
            return Terms(dice(scores, labels))
        if task.objective == "anyloss":
            return Terms(anyloss(scores, labels, metric=task.metric, steepness=task.steepness))
        losses, _ = losses_of(entry, arguments, scores, labels, key=loss_key)
        if task.objective == "balanced":
            losses = losses * jax.numpy.asarray(weights)[labels]
        return Terms(losses)

    predict = sharding.jit_rows(lambda params, inputs: model.apply(params, inputs, None), mesh)

    def scored(params: Any, split: str) -> dict[str, np.ndarray]:
        found = over_split(
            getattr(dataset, split),
            lambda batch: {"scores": predict(params, batch["inputs"])},
            config,
            mesh,
        )
        check_labels(found["label"], found["index"], 2, split)
        return found

    def evaluate(params: Any, split: str) -> tuple[dict[str, float], dict[str, np.ndarray]]:
        found = scored(params, split)
        scores, labels = found["scores"], found["label"]
        chosen = found if split == "validation" else scored(params, "validation")
        metrics = evaluation_metrics(scores, labels, "binary") | decisions(scores > 0, labels)
        metrics["average_precision"] = _average_precision(scores, labels)
        cut = best_threshold(chosen["scores"], chosen["label"])
        metrics["f1_tuned"] = decisions(scores >= cut, labels)["f1"]
        return metrics, {"scores": scores, "labels": labels, "index": found["index"]}

    of = {"anyloss": f" of {task.metric}, steepness {task.steepness:g}", "dice": ""}
    return Job(
        config=config,
        dataset=dataset,
        mesh=mesh,
        init=make_init(model.init, optimizer),
        step=make_step(descend(objective, config.accumulate), optimizer, schedule),
        evaluate=evaluate,
        name=task.objective + of.get(task.objective, f" {entry.name}"),
        entry=entry,
        notes=(f"{100 * positives:.1f} % of the training examples are positive",),
    )


def decisions(guess: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """F1, balanced accuracy, G-mean and Matthews correlation of decisions bool [N]; 0 for 0 / 0."""
    y = labels == 1
    tp, fp = np.sum(guess & y, dtype=float), np.sum(guess & ~y, dtype=float)
    fn, tn = np.sum(~guess & y, dtype=float), np.sum(~guess & ~y, dtype=float)

    def ratio(top: float, bottom: float) -> float:
        return float(top / bottom) if bottom else 0.0

    recall, specificity = ratio(tp, tp + fn), ratio(tn, tn + fp)
    return {
        "f1": ratio(2 * tp, 2 * tp + fp + fn),
        "balanced_accuracy": 0.5 * (recall + specificity),
        "g_mean": float(np.sqrt(recall * specificity)),
        "matthews": ratio(
            tp * tn - fp * fn, np.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
        ),
    }


def best_threshold(scores: np.ndarray, labels: np.ndarray) -> float:
    """The score from which on saying yes has the best F1; 0 where nothing can be chosen."""
    if not np.isfinite(scores).all() or not np.any(labels == 1):
        return 0.0
    precision, recall, cuts = precision_recall_curve(labels == 1, scores)
    total = precision + recall
    f1 = np.divide(2 * precision * recall, total, out=np.zeros_like(total), where=total > 0)[:-1]
    return float(cuts[np.argmax(f1)])


def _average_precision(scores: np.ndarray, labels: np.ndarray) -> float:
    if not np.isfinite(scores).all() or not np.any(labels == 1):
        return float("nan")
    return float(average_precision_score(labels == 1, scores))
