# SPDX-License-Identifier: Apache-2.0
"""The train step of every task: what a task proposes, and all that is the same whatever it is.

A task says what it makes of a batch (a :class:`Proposal`); `make_step` does the rest once for all:
one PRNG key a step, the optimizer, the memory of the first step that was not finite. Nothing is
jitted here: `job.build` does it, with donation and shardings.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from experiments.accumulation import Batch, Objective, mean_and_gradient

State = dict[str, Any]
Step = Callable[[State, Batch], tuple[State, dict[str, jax.Array]]]
#: state["first_bad"] while every loss, gradient and parameter so far was finite.
ALL_FINITE = -1


class Proposal(NamedTuple):
    """What a task makes of parameters and a batch.

    Attributes:
      loss: scalar; NaN or infinity stops the run (or skips the step, see `skipping`).
      gradient: like the parameters, what the optimizer is given. None where the optimizer's first
        transform makes the gradient itself (`optim.sam_multitask`): it is then given zeros.
      metrics: name -> scalar, for the log. `make_step` adds "loss", "learning_rate", "first_bad"
        and, where there is a gradient, "gradient_norm".
      extra: extra arguments of the optimizer's `update` by name, functions of the parameters over
        the SAME batch and key: grad_fn, task_losses_fn, mean_prediction_fn. Transforms that take
        none are not given any.
      updated: the parts of the parameters that are their own optimizer (see `make_step`), as they
        are after this step.
      sound: bool scalar, False if something else than a number went wrong; stops the run, too.
    """

    loss: jax.Array
    gradient: Any
    metrics: dict[str, jax.Array]
    extra: dict[str, Callable[[Any], Any]]
    updated: Mapping[str, Any] = MappingProxyType({})
    sound: jax.Array | bool = True


#: (parameters, batch, key) -> what to do; the key is a function of the step alone.
Propose = Callable[[Any, Batch, jax.Array], Proposal]


def descend(objective: Objective, accumulate: int = 1) -> Propose:
    """The proposal of a task that has one objective: its gradient, and `grad_fn` for SAM.

    Args:
      objective: (parameters, batch, key) -> `accumulation.Terms`, whose mean is the objective.
      accumulate: micro-batches that the batch is cut into, for each gradient that is asked for. An
        objective whose terms depend on each other is not given here with more than one.
    """

    def propose(params: Any, batch: Batch, key: jax.Array) -> Proposal:
        def of_batch(where: Any) -> tuple[jax.Array, dict[str, jax.Array], Any]:
            return mean_and_gradient(objective, where, batch, key, accumulate)

        loss, metrics, gradient = of_batch(params)
        return Proposal(loss, gradient, metrics, {"grad_fn": lambda where: of_batch(where)[2]})

    return propose


def make_init(
    init_params: Callable[[jax.Array], Any],
    optimizer: optax.GradientTransformation,
    own: tuple[str, ...] = (),
) -> Callable[[jax.Array], State]:
    """PRNG key -> state; ``own`` as in `make_step`."""

    def init(key: jax.Array) -> State:
        init_key, run_key = jax.random.split(key)
        params = init_params(init_key)
        return {
            "step": jnp.zeros((), jnp.int32),
            "params": params,
            "optimizer": optimizer.init(_without(params, own)),
            "key": run_key,
            "first_bad": jnp.full((), ALL_FINITE, jnp.int32),
        }

    return init


def make_step(
    propose: Propose,
    optimizer: optax.GradientTransformationExtraArgs,
    schedule: optax.Schedule,
    own: tuple[str, ...] = (),
) -> Step:
    """(state, batch) -> (state, metrics).

    Args:
      propose: the task's part.
      optimizer: a chain from `optimizer.make_optimizer`.
      schedule: its learning rate, for the log.
      own: top-level names of parameters that are their own optimizer, such as an output layer with
        an exact update of its own. The task gives them back as `Proposal.updated`; the optimizer,
        the gradient and the check of every number are of the others.
    """

    def step(state: State, batch: Batch) -> tuple[State, dict[str, jax.Array]]:
        # A function of the step and not of the steps before: resuming needs no history of keys.
        key = jax.random.fold_in(state["key"], state["step"])
        proposal = propose(state["params"], batch, key)
        loss, gradient, metrics, extra = proposal[:4]
        before = _without(state["params"], own)
        given = jax.tree.map(jnp.zeros_like, before) if gradient is None else gradient
        updates, optimizer_state = optimizer.update(given, state["optimizer"], before, **extra)
        params: Any = optax.apply_updates(before, updates)
        count = state["step"] + 1
        # Parameters too: a step can overflow them while its own loss is still finite.
        fine = _all_finite((loss, gradient, params)) & proposal.sound
        fine |= state["first_bad"] != ALL_FINITE
        new_state = {
            "step": count,
            "params": {**params, **proposal.updated} if own else params,
            "optimizer": optimizer_state,
            "key": state["key"],
            "first_bad": jnp.where(fine, state["first_bad"], count),
        }
        logged = {
            "loss": loss,
            "learning_rate": jnp.asarray(schedule(state["step"]), jnp.float32),
            "first_bad": new_state["first_bad"],
        }
        if gradient is not None:
            logged["gradient_norm"] = optax.tree.norm(gradient)
        return new_state, metrics | logged

    return step


def skipping(
    init: Callable[[jax.Array], State], step: Step, schedule: optax.Schedule, most: int
) -> tuple[Callable[[jax.Array], State], Step]:
    """(init, step) of a run that leaves out the steps that are not finite, instead of stopping.

    Such a step leaves the state as it was, the optimizer's count included (so that its learning
    rate is late by the steps left out), but for the step's number: the next one has another batch
    and key. The state's "skipped" counts them all and "in_a_row" the last ones; the metric
    "skipped" is the former. When `most` in a row are bad, "first_bad" is the first of them.

    Args:
      init: of `make_init`.
      step: of `make_step`.
      schedule: the learning rate, for the log.
      most: how many in a row are too many.
    """

    def start(key: jax.Array) -> State:
        return init(key) | {name: jnp.zeros((), jnp.int32) for name in ("skipped", "in_a_row")}

    def guarded(state: State, batch: Batch) -> tuple[State, dict[str, jax.Array]]:
        given = {name: part for name, part in state.items() if name not in ("skipped", "in_a_row")}
        after, metrics = step(given | {"first_bad": jnp.full((), ALL_FINITE, jnp.int32)}, batch)
        bad = after["first_bad"] != ALL_FINITE
        kept = {name: part for name, part in given.items() if name not in ("step", "first_bad")}
        new_state = after | jax.tree.map(
            lambda old, new: jnp.where(bad, old, new), kept, {name: after[name] for name in kept}
        )
        in_a_row = jnp.where(bad, state["in_a_row"] + 1, 0)
        gave_up = (in_a_row >= most) & (state["first_bad"] == ALL_FINITE)
        new_state |= {
            "first_bad": jnp.where(gave_up, after["step"] - in_a_row + 1, state["first_bad"]),
            "skipped": state["skipped"] + bad.astype(jnp.int32),
            "in_a_row": in_a_row,
        }
        rate = schedule(state["step"] - state["skipped"])
        logged = {
            "learning_rate": jnp.asarray(rate, jnp.float32),
            "first_bad": new_state["first_bad"],
            "skipped": new_state["skipped"],
        }
        return new_state, metrics | logged

    return start, guarded


def _without(params: Any, own: tuple[str, ...]) -> Any:
    return {name: part for name, part in params.items() if name not in own} if own else params


def _all_finite(tree: Any) -> jax.Array:
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree)]))
