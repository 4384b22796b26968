# SPDX-License-Identifier: Apache-2.0
"""A config turned into the functions that a run calls: initialise, train step, evaluate.

Built once and shared by training, evaluation, export and the compile report, so that all of them
speak of the same program. Nothing here loops or writes files.

What is trained is the business of a *task*: ``config.task.name`` is the name of a file of
``experiments/tasks``, which has one function

    build(config, mesh) -> Job

that checks its own keys of ``config.task`` (`config.check_task`), loads its data and puts together

* ``init``: `step.make_init` of the model's init and the optimizer;
* ``step``: `step.make_step` of what the task proposes for a batch, a gradient and functions for the
  optimizer's first transform (`step.Proposal`; `step.descend` where there is one objective). It
  works in `config.accumulate` micro-batches or refuses them (`computing.refuse_accumulate`);
* the model: `models.of_config`, which computes as the config says;
* the optimizer: ``optimizer.make_optimizer(config, first=...)``, where `first` is a transform that
  stands before all others in the chain (`optim.sam_multitask`, `optim.ignite`);
* ``evaluate``: metrics of a split; what a run is judged by is called "accuracy" where it is one.
  `over_split` calls a function on every example of a split.

The loop, checkpoints, metrics, resuming and sweeps are then the same for every task. Two rules keep
them so: the config's seed may reach a job through `init`'s key and `train_batches` alone (sweeps
build one job for all seeds), and the step may depend on the past through the state alone.
"""

import dataclasses
import importlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from experiments import computing, data, sharding
from experiments.config import validate
from experiments.errors import BadInput
from experiments.optimizer import make_schedule
from experiments.step import Batch, State, skipping
from xloss.catalogue import Entry, Method


@dataclasses.dataclass(frozen=True)
class Job:
    """Everything that a run needs, none of it compiled yet.

    Attributes:
      config: as given.
      dataset: the three splits.
      mesh: (`data`, `model`) over all devices.
      init: PRNG key -> state. `build` jits what a task gives, with the shardings of `placed`.
      step: (state, batch) -> (state, metrics); likewise, and the given state is donated. The batch
        is spread over `data`.
      evaluate: (parameters, split) -> metrics and, for a task whose test scores make pictures (one
        classification), {"scores", "labels", "index"} of the split in order; else None. Called by
        every process; "train", "validation" or "test".
      name: what is trained, for people: "comp_sum".
      entry: the loss's or method's row of the catalogue, None if it has none.
      notes: further lines to print when training starts.
      placed: the sharding of every array of the state; filled in by `build`.
    """

    config: ConfigDict
    dataset: data.Dataset
    mesh: Mesh
    init: Callable[[jax.Array], State]
    step: Any
    evaluate: Callable[[Any, str], tuple[dict[str, float], dict[str, np.ndarray] | None]]
    name: str
    entry: Entry | Method | None
    notes: tuple[str, ...] = ()
    placed: Any = None

    def train_batches(self) -> Any:
        """This process's rows of the training batches: a grain iterator, before any of them."""
        ours, shares = sharding.data_share(self.mesh)
        return data.train_iterator(
            self.dataset.train,
            batch_size=self.config.data.batch_size,
            seed=self.config.seed,
            process_index=ours,
            process_count=shares,
        )

    def abstract_state(self) -> State:
        """Shapes, dtypes and shardings of the state, for restoring and compiling."""
        shapes = jax.eval_shape(lambda: self.init(jax.random.key(0)))
        return jax.tree.map(
            lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
            shapes,
            self.placed,
        )

    def abstract_batch(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes, dtypes and shardings of a global training batch."""
        size, spread = self.config.data.batch_size, sharding.over_data(self.mesh)
        return {
            name: jax.ShapeDtypeStruct((size, *value.shape), value.dtype, sharding=spread)
            for name, value in self.dataset.train[0].items()
        }

    def compiled_step(self) -> jax.stages.Compiled:
        """The train step's program for the devices of the mesh, which need not be there."""
        with jax.set_mesh(self.mesh):
            return self.step.lower(self.abstract_state(), self.abstract_batch()).compile()


def build(config: ConfigDict, mesh: Mesh | None = None) -> Job:
    """Validates a config, loads its data and builds its functions.

    Args:
      config: the config.
      mesh: (`data`, `model`); None: over the devices of all processes.

    Raises:
      BadInput: whatever is wrong with the config or the data, before anything compiles.
    """
    validate(config)
    if config.param_dtype == "float64" and not jax.config.read("jax_enable_x64"):
        raise BadInput(
            "--config.param_dtype: expected jax_enable_x64 for float64 (experiments.run sets it), "
            "got a JAX that computes in float32"
        )
    mesh = sharding.make_mesh(config.mesh.model) if mesh is None else mesh
    for name in ("batch_size", "eval_batch_size"):
        sharding.check_batch_size(config.data[name], mesh, name)
    computing.check_accumulate(config, mesh)
    task = importlib.import_module(f"experiments.tasks.{config.task.name}")
    job = task.build(config, mesh)
    init, step = job.init, job.step
    if config.param_dtype != "float32":
        init = _converted(init, jnp.dtype(config.param_dtype))
    if config.on_nan == "skip":
        init, step = skipping(init, step, make_schedule(config), config.max_skipped)
    shapes = jax.eval_shape(lambda: init(jax.random.key(0)))
    placed = sharding.of_state(shapes, config.sharding, mesh)
    whole, spread = sharding.replicated(mesh), sharding.over_data(mesh)
    return dataclasses.replace(
        job,
        init=jax.jit(init, out_shardings=placed),
        step=jax.jit(
            step, in_shardings=(placed, spread), out_shardings=(placed, whole), donate_argnums=0
        ),
        notes=(*job.notes, *computing.notes(config)),
        placed=placed,
    )


def _converted(init: Callable[[jax.Array], State], dtype: Any) -> Callable[[jax.Array], State]:
    """The same start with floating-point numbers of another type: parameters and optimizer."""

    def convert(leaf: jax.Array) -> jax.Array:
        return leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf

    return lambda key: jax.tree.map(convert, init(key))


def over_split(
    source: data.Source,
    function: Callable[[Batch], Mapping[str, jax.Array]],
    config: ConfigDict,
    mesh: Mesh,
) -> dict[str, np.ndarray]:
    """What a function says of every example of a split, on the host and in order.

    Args:
      source: the split.
      function: jitted, from a batch of `config.data.eval_batch_size` examples, spread over `data`,
        to arrays [B, ...] by name. The last batch is padded: "where" of the batch is False there,
        and what the function says of the padding is dropped.
      config: the config.
      mesh: the job's.

    Returns:
      The function's arrays, and "label" and "index", each [N, ...].
    """
    parts: dict[str, list[np.ndarray]] = {}
    ours, shares = sharding.data_share(mesh)
    batches = data.eval_batches(
        source,
        batch_size=config.data.eval_batch_size,
        process_index=ours,
        process_count=shares,
    )
    for host_batch in batches:
        batch = sharding.to_devices(host_batch, mesh)
        kept = {name: batch[name] for name in ("label", "index", "where")}
        found = {
            name: sharding.to_host(value) for name, value in {**function(batch), **kept}.items()
        }
        where = found.pop("where")
        for name, rows in found.items():
            parts.setdefault(name, []).append(rows[where])
    return {name: np.concatenate(rows) for name, rows in parts.items()}
