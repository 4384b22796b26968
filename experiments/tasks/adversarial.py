# SPDX-License-Identifier: Apache-2.0
"""Adversarial training: every batch is attacked before its loss is taken.

config.loss is any loss of the catalogue. One that reads logits at attacked inputs is given them
(`trades`, `madry`, `smooth_adversarial_comp_sum`, `adversarial_rho_margin`); any other is trained
on the clean inputs alone, which is the baseline. Evaluation attacks all of them alike: "accuracy"
is on clean inputs, "robust_accuracy" the share that is right there and stays right under PGD on
the margin. Inputs must lie in [0, 1].

Keys of `config.task`:

* ``attack``: what the training attack maximises: "ce", "margin", "kl" or "displacement"; "own" is
  the loss's own: kl for trades, displacement for smooth_adversarial_comp_sum, else ce;
* ``norm``, ``radius``: the ball, of training and evaluation: "linf" or "l2";
* ``steps``: of the training attack, from one random start, each 2.5 radius / steps long;
* ``eval_steps``, ``eval_restarts``: of the evaluation's attack;
* ``cascade``: attacks of `xloss.adversarial.robust_accuracy` that run in turn on the test split, ()
  for none: "worst_case_accuracy" is what they leave together, "after_NAME" what was left after each
  of them;
* ``cascade_examples``, ``cascade_steps``, ``cascade_queries``: on how many test examples, from the
  first on, and how long APGD and Square are.
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
from experiments.config import Rule, check_task, losses_of, one_of, resolve_loss
from experiments.errors import BadInput
from experiments.job import Job, over_split
from experiments.optimizer import make_optimizer
from experiments.scoring import evaluation_metrics
from experiments.step import Batch, descend, make_init, make_step
from experiments.tasks.classification import check_labels
from xloss.adversarial import maximize_score_displacement, pgd, robust_accuracy

OWN = {"trades": "kl", "smooth_adversarial_comp_sum": "displacement"}
RULES = {
    "attack": one_of("own", "ce", "margin", "kl", "displacement"),
    "norm": one_of("linf", "l2"),
    "radius": Rule((int, float), "a number >= 0", lambda v: 0 <= v < np.inf),
    "steps": Rule(int, "an integer >= 1", lambda v: v >= 1),
    "eval_steps": Rule(int, "an integer >= 1", lambda v: v >= 1),
    "eval_restarts": Rule(int, "an integer >= 1", lambda v: v >= 1),
    "cascade": Rule(tuple, "a tuple of names of attacks", lambda v: all(type(a) is str for a in v)),
    "cascade_examples": Rule(int, "an integer >= 1", lambda v: v >= 1),
    "cascade_steps": Rule(int, "an integer >= 1", lambda v: v >= 1),
    "cascade_queries": Rule(int, "an integer >= 1", lambda v: v >= 1),
}
#: What a config without a cascade says of it.
NO_CASCADE = {"cascade": (), "cascade_examples": 1000, "cascade_steps": 100,
              "cascade_queries": 5000}  # fmt: skip
#: How many training examples are looked at to see that inputs are in [0, 1].
LOOKED_AT = 256


def build(config: ConfigDict, mesh: Mesh) -> Job:
    """The job of adversarial training.

    Raises:
      BadInput: keys of the task, data, loss or model are not what they should be.
    """
    check_task(config, RULES)
    task, bounds = config.task, (0.0, 1.0)
    entry, arguments = resolve_loss(config)
    if not entry.exact_gradient:
        raise BadInput(
            f"--config.loss.name: expected a loss with a value of its own, got {entry.name!r}"
        )
    dataset = data.load(config.data, seed=config.seed)
    _check_inputs(dataset)
    _check_cascade(task, dataset.num_classes)
    # Two classes have two logits here: attacks read logits.
    model = models.of_config(
        config, input_shape=dataset.input_shape, num_scores=dataset.num_classes
    )
    optimizer, schedule = make_optimizer(config)
    attack = OWN.get(entry.name, "ce") if task.attack == "own" else task.attack

    def apply_fn(params: Any, inputs: jax.Array) -> jax.Array:
        return model.apply(params, inputs, None)

    def attacked(params: Any, inputs: jax.Array, labels: jax.Array, key: jax.Array) -> jax.Array:
        apply = jax.tree_util.Partial(apply_fn, params)
        how = {"key": key, "radius": task.radius, "norm": task.norm, "steps": task.steps}
        if attack == "displacement":
            return maximize_score_displacement(apply, inputs, labels, bounds=bounds, **how)
        return pgd(apply, inputs, labels, objective=attack, bounds=bounds, **how).x_adv

    def objective(params: Any, batch: Batch, key: jax.Array) -> Terms:
        attack_key, loss_key, dropout_key = jax.random.split(key, 3)
        inputs, labels = batch["inputs"], batch["label"]
        scores, others, metrics = model.apply(params, inputs, dropout_key), None, {}
        if entry.takes_attacked:
            found = attacked(params, inputs, labels, attack_key)
            others = model.apply(params, found, dropout_key)
            metrics["attacked_accuracy"] = xloss.logit_statistics(others, labels).lead > 0
        losses, stats = losses_of(entry, arguments, scores, labels, key=loss_key, attacked=others)
        return Terms(losses, metrics | {"accuracy": stats.lead > 0})

    def look(params: Any, batch: Batch) -> dict[str, jax.Array]:
        inputs, labels, where = batch["inputs"], batch["label"], batch["where"]
        found = pgd(
            jax.tree_util.Partial(apply_fn, params),
            inputs,
            labels,
            key=jax.random.key(0),
            radius=task.radius,
            norm=task.norm,
            objective="margin",
            steps=task.eval_steps,
            restarts=task.eval_restarts,
            bounds=bounds,
            where=where,
        )
        scores = apply_fn(params, inputs)
        right = xloss.logit_statistics(scores, labels, where=where).lead > 0
        return {"scores": scores, "robust": right & (found.loss < 0)}

    judge = sharding.jit_rows(look, mesh)

    def worst_case(params: Any) -> dict[str, float]:
        count = min(task.cascade_examples, len(dataset.test))
        examples = [dataset.test[place] for place in range(count)]
        report = robust_accuracy(
            jax.tree_util.Partial(apply_fn, params),
            np.stack([example["inputs"] for example in examples]),
            np.stack([example["label"] for example in examples]),
            key=jax.random.key(0),
            radius=task.radius,
            norm=task.norm,
            attacks=task.cascade,
            steps=task.cascade_steps,
            queries=task.cascade_queries,
            bounds=bounds,
            batch_size=config.data.eval_batch_size,
        )
        after = {f"after_{name}": value for name, value in report.accuracy_after.items()}
        return {"worst_case_accuracy": report.robust_accuracy, **after}

    def evaluate(params: Any, split: str) -> tuple[dict[str, float], dict[str, np.ndarray]]:
        found = over_split(
            getattr(dataset, split), lambda batch: dict(judge(params, batch)), config, mesh
        )
        scores, labels, index = found["scores"], found["label"], found["index"]
        check_labels(labels, index, dataset.num_classes, split)
        metrics = evaluation_metrics(scores, labels, "multiclass")
        metrics["robust_accuracy"] = float(np.mean(found["robust"]))
        if split == "test" and task.cascade:
            metrics |= worst_case(params)
        return metrics, {"scores": scores, "labels": labels, "index": index}

    against = f" against {attack}" if entry.takes_attacked else ""
    return Job(
        config=config,
        dataset=dataset,
        mesh=mesh,
        init=make_init(model.init, optimizer),
        step=make_step(descend(objective, config.accumulate), optimizer, schedule),
        evaluate=evaluate,
        name=f"{entry.name}{against}, {task.norm} radius {task.radius:g}",
        entry=entry,
    )


def _check_cascade(task: ConfigDict, classes: int) -> None:
    """Raises BadInput for attacks that `robust_accuracy` would refuse after all the training."""
    if not task.cascade:
        return
    try:
        robust_accuracy(
            lambda x: jnp.zeros([x.shape[0], classes]),
            np.zeros([1, 1], np.float32),
            np.zeros(1, np.int32),
            key=jax.random.key(0),
            radius=0.0,
            norm=task.norm,
            attacks=task.cascade,
            steps=1,
            queries=1,
            batch_size=1,
        )
    except ValueError as error:
        raise BadInput(f"--config.task.cascade: {error}") from error


def _check_inputs(dataset: data.Dataset) -> None:
    rows = [dataset.train[place]["inputs"] for place in range(min(LOOKED_AT, len(dataset.train)))]
    low, high = float(np.min(rows)), float(np.max(rows))
    if low < 0 or high > 1:
        raise BadInput(
            f"--config.data.normalise: expected inputs in [0, 1] to attack, got [{low:g}, {high:g}]"
        )
