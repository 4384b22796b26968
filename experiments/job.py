# SPDX-License-Identifier: Apache-2.0
"""A config turned into the functions that a run calls: initialise, train step, predict.

Built once and shared by training, evaluation, export and the compile report, so that all of them
speak of the same program. Nothing here loops or writes files.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

import xloss
from experiments import data, models, sharding
from experiments.config import losses_of, make_optimizer, resolve_loss, validate
from experiments.errors import BadInput
from xloss.catalogue import Entry

State = dict[str, Any]
#: state["first_bad"] while every loss, gradient and parameter so far was finite.
ALL_FINITE = -1


@dataclasses.dataclass(frozen=True)
class Job:
    """Everything that a run needs, none of it compiled yet.

    Attributes:
      config: as given.
      dataset: the three splits.
      entry: the loss's row of the catalogue.
      arguments: its hyperparameters.
      mesh: (`data`, `model`) over all devices.
      init: PRNG key -> state, replicated over the mesh.
      step: (state, batch) -> (state, metrics); the given state is donated. The batch is spread
        over `data`.
      predict: (parameters, inputs [B, ...]) -> scores, spread over `data`.
    """

    config: ConfigDict
    dataset: data.Dataset
    entry: Entry
    arguments: Mapping[str, Any]
    mesh: Mesh
    init: Callable[[jax.Array], State]
    step: Any
    predict: Any

    def train_batches(self) -> Any:
        """This process's rows of the training batches: a grain iterator, before any of them."""
        return data.train_iterator(
            self.dataset.train,
            batch_size=self.config.data.batch_size,
            seed=self.config.seed,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )

    def abstract_state(self) -> State:
        """Shapes, dtypes and shardings of the state, for restoring and compiling."""
        whole = sharding.replicated(self.mesh)
        shapes = jax.eval_shape(lambda: self.init(jax.random.key(0)))
        return jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=whole), shapes
        )

    def abstract_batch(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes, dtypes and shardings of a global training batch."""
        size, spread = self.config.data.batch_size, sharding.over_data(self.mesh)
        shapes = {"inputs": (self.dataset.input_shape, jnp.float32), "label": ((), jnp.int32),
                  "index": ((), jnp.int32)}  # fmt: skip
        return {
            name: jax.ShapeDtypeStruct((size, *shape), dtype, sharding=spread)
            for name, (shape, dtype) in shapes.items()
        }


def build(config: ConfigDict) -> Job:
    """Validates a config, loads its data and builds its functions.

    Raises:
      BadInput: whatever is wrong with the config or the data, before anything compiles.
    """
    validate(config)
    mesh = sharding.make_mesh()
    for name in ("batch_size", "eval_batch_size"):
        sharding.check_batch_size(config.data[name], mesh, name)
    dataset = data.load(config.data, seed=config.seed)
    entry, arguments = resolve_loss(config, dataset)
    model = models.build(
        config.model,
        input_shape=dataset.input_shape,
        num_scores=None if dataset.task == "binary" else dataset.num_classes,
    )
    optimizer, schedule = make_optimizer(config)

    def init(key: jax.Array) -> State:
        init_key, run_key = jax.random.split(key)
        params = model.init(init_key)
        return {
            "step": jnp.zeros((), jnp.int32),
            "params": params,
            "optimizer": optimizer.init(params),
            "key": run_key,
            "first_bad": jnp.full((), ALL_FINITE, jnp.int32),
        }

    def step(state: State, batch: Mapping[str, jax.Array]) -> tuple[State, dict[str, jax.Array]]:
        # A function of the step and not of the steps before: resuming needs no history of keys.
        loss_key, dropout_key = jax.random.split(jax.random.fold_in(state["key"], state["step"]))

        def objective(params):
            scores = model.apply(params, batch["inputs"], dropout_key)
            losses, stats = losses_of(entry, arguments, scores, batch["label"], key=loss_key)
            return xloss.reduce(losses), stats

        (loss, stats), gradient = jax.value_and_grad(objective, has_aux=True)(state["params"])
        updates, optimizer_state = optimizer.update(gradient, state["optimizer"], state["params"])
        params = optax.apply_updates(state["params"], updates)
        count = state["step"] + 1
        # Parameters too: a step can overflow them while its own loss is still finite.
        fine = _all_finite((loss, gradient, params)) | (state["first_bad"] != ALL_FINITE)
        new_state = {
            "step": count,
            "params": params,
            "optimizer": optimizer_state,
            "key": state["key"],
            "first_bad": jnp.where(fine, state["first_bad"], count),
        }
        metrics = {
            "loss": loss,
            "accuracy": jnp.mean(stats.lead > 0, dtype=loss.dtype),
            "gradient_norm": optax.tree.norm(gradient),
            "learning_rate": jnp.asarray(schedule(state["step"]), jnp.float32),
            "first_bad": new_state["first_bad"],
        }
        if not entry.exact_gradient:  # its scalar is no loss value: show one beside it
            metrics["cross_entropy"] = jnp.mean(-stats.log_prob)
        return new_state, metrics

    whole, spread = sharding.replicated(mesh), sharding.over_data(mesh)
    return Job(
        config=config,
        dataset=dataset,
        entry=entry,
        arguments=arguments,
        mesh=mesh,
        init=jax.jit(init, out_shardings=whole),
        step=jax.jit(
            step, in_shardings=(whole, spread), out_shardings=(whole, whole), donate_argnums=0
        ),
        predict=jax.jit(
            lambda params, inputs: model.apply(params, inputs, None),
            in_shardings=(whole, spread),
            out_shardings=spread,
        ),
    )


def _all_finite(tree: Any) -> jax.Array:
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree)]))


def scores_of(job: Job, params: Any, split: str) -> dict[str, np.ndarray]:
    """Scores of a whole split on the host, in order: {"scores", "labels", "index"}.

    Args:
      job: the job.
      params: parameters, replicated over the mesh.
      split: "train", "validation" or "test".

    Raises:
      BadInput: a label of the split is outside [0, K).
    """
    parts: dict[str, list[np.ndarray]] = {"scores": [], "label": [], "index": []}
    batches = data.eval_batches(
        getattr(job.dataset, split),
        batch_size=job.config.data.eval_batch_size,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )
    for batch in batches:
        batch = sharding.to_devices(batch, job.mesh)
        batch["scores"] = job.predict(params, batch.pop("inputs"))
        host = {name: sharding.to_host(value) for name, value in batch.items()}
        for name, rows in parts.items():
            rows.append(host[name][host["where"]])
    whole = {name: np.concatenate(rows) for name, rows in parts.items()}
    labels, classes = whole["label"], job.dataset.num_classes
    if len(wrong := np.flatnonzero((labels < 0) | (labels >= classes))):
        raise BadInput(
            f"config.data: expected labels in [0, {classes}), got {labels[wrong[0]]} for example "
            f"{whole['index'][wrong[0]]} of the {split} split"
        )
    return {"scores": whole["scores"], "labels": labels, "index": whole["index"]}
