# SPDX-License-Identifier: Apache-2.0
"""Two labels an example, one trunk, two heads: multi-task training, with and without SAM.

Two datasets of pictures are set side by side (`experiments.data.pairs`); the model's trunk sees
both, and its output layer has 2 K scores, K for each task: the two heads are the two halves of its
columns, so that the other task's gradient there is exactly 0. The objective is the sum of the two
mean losses, the loss being config.loss, or what `weighting` makes of them.

Keys of `config.task`:

* ``second``, ``second_path``: the right pictures, as `data.name` and `data.path` name the left
  ones; None: the same;
* ``pairs``: training pairs at most; ``pool``: averages over squares of so many pixels; ``noise``:
  part of the right training labels that are wrong; ``draw_seed``: of the pairs and of the noise;
* ``method``: "plain" (the tasks' gradients aggregated), "direct" (their SAM gradients aggregated)
  or "split" (`optim.sam_multitask`: loss and flatness parts aggregated separately). SAM on the sum
  of the losses is plain, linear, with ``optimizer.sharpness``;
* ``aggregator``: a name of `xloss.optim.aggregators`, "linear" being the sum;
* ``weighting``: one gradient, of `xloss.optim.weighting`: "sum", "gls", "log_losses", "rlw",
  "uncertainty", "imtl_l" (the last two train a number a task along); plain and linear only;
* ``tasks``: "both", or "left" or "right" to train that one alone, to compare with; plain, linear;
* ``rho``, ``adaptive``: radius of the perturbation, of the trunk and of the heads alike, and
  whether it scales with the parameters; not for plain.

Evaluations on validation also say conflict_rate, the part of 16 TRAINING batches where the tasks'
gradients of the trunk have a negative inner product, and gradient_cosine, their mean cosine.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

import xloss
from experiments import data, models, sharding
from experiments.accumulation import means
from experiments.config import Rule, check_task, losses_of, mean_loss, one_of, resolve_loss
from experiments.data.pairs import side_by_side
from experiments.errors import BadInput
from experiments.job import Job, over_split
from experiments.optimizer import make_optimizer
from experiments.scoring import evaluation_metrics
from experiments.step import Batch, Proposal, make_init, make_step
from experiments.tasks.classification import check_labels
from xloss import catalogue, optim

METHODS = ("plain", "direct", "split")
AGGREGATORS = tuple(sorted(optim.aggregators.AGGREGATORS))
SIDES = ("left", "right")
#: (losses [2], numbers that are trained along [2], key) -> objective, by name.
WEIGHTINGS: dict[str, Callable[[jax.Array, jax.Array, jax.Array], jax.Array]] = {
    "sum": lambda losses, scales, key: jnp.sum(losses),
    "gls": lambda losses, scales, key: optim.weighting.gls(losses),
    "log_losses": lambda losses, scales, key: optim.weighting.log_losses(losses),
    "rlw": lambda losses, scales, key: optim.weighting.rlw(losses, key=key),
    "uncertainty": lambda losses, scales, key: optim.weighting.uncertainty(losses, scales),
    "imtl_l": lambda losses, scales, key: optim.weighting.imtl_l(losses, scales),
}
#: What those numbers start from, where there are any.
SCALES = {"uncertainty": -0.5, "imtl_l": 0.0}
#: Training batches in which conflicts are counted.
WATCHED = 16

_NAME = ((str, type(None)), "a name or None", lambda v: v != "")
RULES = {
    "second": Rule(*_NAME),
    "second_path": Rule(*_NAME),
    "pairs": Rule(int, "an integer >= 1", lambda v: v >= 1),
    "pool": Rule(int, "an integer >= 1", lambda v: v >= 1),
    "noise": Rule((int, float), "a number in [0, 1]", lambda v: 0 <= v <= 1),
    "draw_seed": Rule(int, "an integer >= 0", lambda v: v >= 0),
    "method": one_of(*METHODS),
    "aggregator": one_of(*AGGREGATORS),
    "weighting": one_of(*WEIGHTINGS),
    "tasks": one_of("both", *SIDES),
    "rho": Rule((int, float), "a number >= 0", lambda v: 0 <= v < np.inf),
    "adaptive": Rule(bool, "True or False", lambda v: True),
}


def build(config: ConfigDict, mesh: Mesh) -> Job:
    """The job of two tasks.

    Raises:
      BadInput: keys of the task, data, loss or model are not what they should be.
    """
    check_task(config, RULES)
    task = config.task
    entry, arguments = resolve_loss(config)
    if not entry.exact_gradient:
        raise BadInput(
            f"--config.loss.name: expected a loss with a value of its own, got {entry.name!r}"
        )
    dataset = _load(config)
    classes = dataset.num_classes
    model = models.of_config(config, input_shape=dataset.input_shape, num_scores=2 * classes)

    first = _first(task)
    weigh, alone = WEIGHTINGS[task.weighting], task.tasks != "both"
    optimizer, schedule = make_optimizer(config, first)

    def init(key: jax.Array) -> Any:
        start = SCALES.get(task.weighting)
        scales = {} if start is None else {"scales": jnp.full([2], start)}
        return {**model.init(key), **scales}

    def scores_of(params: Any, inputs: jax.Array, key: jax.Array | None) -> jax.Array:
        network = {name: part for name, part in params.items() if name != "scales"}
        return model.apply(network, inputs, key).reshape(-1, 2, classes)

    def examples(params: Any, batch: Batch, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        """(losses [B, 2], whether the example is right [B, 2])."""
        loss_key, dropout_key, _ = jax.random.split(key, 3)
        scores = scores_of(params, batch["inputs"], dropout_key)
        losses, right = [], []
        for side in range(2):
            found, stats = losses_of(
                entry, arguments, scores[:, side], batch["label"][:, side], key=loss_key
            )
            losses.append(found)
            right.append((stats.lead > 0).astype(found.dtype))
        return jnp.stack(losses, axis=1), jnp.stack(right, axis=1)

    def propose(params: Any, batch: Batch, key: jax.Array) -> Proposal:
        *_, weight_key = jax.random.split(key, 3)

        def task_losses(where: Any) -> tuple[jax.Array, jax.Array]:
            return means(examples, where, batch, key, config.accumulate)

        losses, accuracy = task_losses(params)
        metrics = {"accuracy": jnp.mean(accuracy)}
        for side, name in enumerate(SIDES):
            metrics[f"loss_{name}"] = losses[side]
            metrics[f"accuracy_{name}"] = accuracy[side]

        def objective(where: Any) -> jax.Array:
            found = task_losses(where)[0]
            if alone:
                return found[SIDES.index(task.tasks)]
            return weigh(found, where.get("scales"), weight_key)

        extra = {
            "task_losses_fn": lambda where: task_losses(where)[0],
            "grad_fn": jax.grad(objective),
        }
        gradient = extra["grad_fn"](params) if first is None else None
        return Proposal(objective(params), gradient, metrics, extra)

    size = min(config.data.batch_size, len(dataset.train))
    count = min(WATCHED, len(dataset.train) // size)
    watched = dataset.train.gather(np.arange(count * size))
    inputs = watched["inputs"].reshape(count, size, *dataset.input_shape)
    labels = watched["label"].reshape(count, size, 2)

    @jax.jit
    def conflicts(params: Any) -> dict[str, jax.Array]:
        """How often the tasks pull the trunk apart, over the watched batches."""

        def found(batch: tuple[jax.Array, jax.Array]) -> optim.aggregators.Conflict:
            def losses_at(where: Any) -> jax.Array:
                scores = scores_of({**params, **where}, batch[0], None)
                key, labels = jax.random.key(0), batch[1]
                each = [
                    losses_of(entry, arguments, scores[:, side], labels[:, side], key=key)[0]
                    for side in range(2)
                ]
                return jnp.stack([xloss.reduce(losses) for losses in each])

            trunk = {name: part for name, part in params.items() if name.startswith("hidden")}
            return optim.aggregators.conflict(jax.jacrev(losses_at)(trunk))

        every = jax.lax.map(found, (jnp.asarray(inputs), jnp.asarray(labels)))
        return {
            "conflict_rate": jnp.mean(every.rate),
            "gradient_cosine": jnp.mean(every.cosines[:, 0, 1]),
        }

    predict = sharding.jit_rows(lambda params, inputs: scores_of(params, inputs, None), mesh)

    def evaluate(params: Any, split: str) -> tuple[dict[str, float], None]:
        found = over_split(
            getattr(dataset, split),
            lambda batch: {"scores": predict(params, batch["inputs"])},
            config,
            mesh,
        )
        each = []
        for side in range(2):
            check_labels(found["label"][:, side], found["index"], classes, split)
            scores, labels = found["scores"][:, side], found["label"][:, side]
            each.append(evaluation_metrics(scores, labels, "multiclass"))
            each[side]["loss"] = mean_loss(entry, arguments, scores, labels)
        metrics = {
            "accuracy": (each[0]["accuracy"] + each[1]["accuracy"]) / 2,
            "loss": each[0]["loss"] + each[1]["loss"],
        }
        for name in ("accuracy", "cross_entropy", "expected_calibration_error"):
            metrics |= {f"{name}_{side}": each[place][name] for place, side in enumerate(SIDES)}
        if split == "validation":
            metrics |= {name: float(value) for name, value in conflicts(params).items()}
        return metrics, None

    return Job(
        config=config,
        dataset=dataset,
        mesh=mesh,
        init=make_init(init, optimizer),
        step=make_step(propose, optimizer, schedule),
        evaluate=evaluate,
        name=_name(config),
        entry=entry if first is None else catalogue.METHODS.get("sam_multitask"),
    )


def _first(task: ConfigDict) -> optax.GradientTransformation | None:
    """The transform that turns task losses into a gradient; None for the gradient of their sum."""
    if (task.method, task.aggregator) == ("plain", "linear"):
        return None
    for key, usual in (("weighting", "sum"), ("tasks", "both")):
        if task[key] != usual:
            raise BadInput(
                f"--config.task.{key}: expected {usual} unless task.method is plain and "
                f"task.aggregator is linear, got {task[key]}"
            )
    # Without a perturbation the SAM gradients are the tasks' own: aggregating them is plain.
    rho = 0.0 if task.method == "plain" else task.rho
    return optim.sam_multitask(
        shared=lambda path: not path.startswith("head/"),
        aggregator=getattr(optim.aggregators, task.aggregator),
        rho_shared=rho,
        rho_heads=rho,
        adaptive=task.adaptive,
        split=task.method == "split",
        key=jax.random.key(0),  # of PCGrad's order, which for two tasks makes no difference
    )


def _name(config: ConfigDict) -> str:
    task, optimizer = config.task, config.optimizer
    parts = [f"{task.method} {task.aggregator}"]
    if task.weighting != "sum":
        parts.append(f"weighting {task.weighting}")
    if task.tasks != "both":
        parts.append(f"{task.tasks} alone")
    if task.method != "plain":
        parts.append(f"rho {task.rho:g}")
    if optimizer.get("sharpness"):
        parts.append(optimizer.sharpness + (f" rho {optimizer.rho:g}" if optimizer.rho else ""))
    return f"multi-task {config.loss.name}, {', '.join(parts)}"


def _load(config: ConfigDict) -> data.Dataset:
    left = data.load(config.data, seed=config.seed)
    task, second = config.task, {}
    if task.second is not None or task.second_path is not None:
        second = {"name": task.second or config.data.name, "path": task.second_path}
    right = data.load({**config.data.to_dict(), **second}, seed=config.seed)
    return side_by_side(
        left, right, train_size=task.pairs, pool=task.pool, noise=task.noise, seed=task.draw_seed
    )
