# SPDX-License-Identifier: Apache-2.0
"""Golden functions of sharpness-aware multi-task learning (spec sam_mtl)."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree

from experiments.golden.case import Case
from xloss import optim, reduce
from xloss.classification import cross_entropy
from xloss.optim import aggregators


def _imtl(grads, *, key=None):
    """IMTL-G, a user's own aggregator: equal projections of d on the task directions."""
    del key
    flat = jnp.concatenate([x.reshape(x.shape[0], -1) for x in jax.tree.leaves(grads)], axis=1)
    units = flat / jnp.linalg.norm(flat, axis=1, keepdims=True)
    gaps, turns = flat[:1] - flat[1:], units[:1] - units[1:]
    rest = jnp.linalg.solve(turns @ gaps.T, turns @ flat[0])
    weights = jnp.concatenate([1.0 - jnp.sum(rest, keepdims=True), rest])
    return jax.tree.map(lambda x: jnp.tensordot(weights, x, axes=1), grads), weights


def _in_turn(grads, *, key=None):
    """PCGrad in the order 0, 1, ... for every task."""
    del key
    tasks = jax.tree.leaves(grads)[0].shape[0]
    order = jnp.broadcast_to(jnp.arange(tasks), (tasks, tasks))
    return aggregators.pcgrad(grads, order=order, eps=0.0)


def _flat(tree: Any) -> jax.Array:
    return ravel_pytree(tree)[0]


def _rows(tree: Any) -> jax.Array:
    return jax.vmap(_flat)(tree)


def _sam_mtl(case: Case):
    x, kinds = jnp.asarray(case.inputs["x"]), case.params["tasks"]
    targets = [jnp.asarray(case.inputs[f"y{t}"]) for t in range(len(kinds))]
    params = {
        "shared": [jnp.asarray(case.inputs[name]) for name in ("W", "b")],
        "heads": [
            [jnp.asarray(case.inputs[f"{name}{t}"]) for name in ("V", "c")]
            for t in range(len(kinds))
        ],
    }

    def task_losses(params):
        weight, bias = params["shared"]
        hidden = jnp.tanh(x @ weight + bias[None, :])
        losses = []
        for kind, (kernel, offset), y in zip(kinds, params["heads"], targets, strict=True):
            out = hidden @ kernel + offset[None, :]
            if kind == "ce":
                losses.append(reduce(cross_entropy(out, y)))
            else:
                losses.append(jnp.mean(jnp.square(out - y)))
        return jnp.stack(losses)

    method = {
        "shared": {"shared": True, "heads": False},
        "rho_shared": case.params["rho_shared"],
        "rho_heads": case.params["rho_task"],
        "adaptive": case.params["adaptive"],
    }
    cagrad = functools.partial(
        aggregators.cagrad,
        c=case.params["cagrad_c"],
        rescale=case.params["cagrad_rescale"],
        eps=1e-8,
    )
    merges = {
        "ew": aggregators.linear,
        "pcgrad": _in_turn,
        "cagrad": cagrad,
        "imtl": _imtl,
        "mgda": aggregators.mgda,
    }

    def all_of_them(params):
        def gradients_by(aggregator, **more):
            return optim.sam_multitask_gradients(
                task_losses, params, aggregator=aggregator, **method, **more
            )

        found = {}
        for name, aggregator in merges.items():
            for split, suffix in ((True, ""), (False, "_direct")):
                _, merged, _ = gradients_by(aggregator, split=split)
                found[f"direction_{name}{suffix}"] = _flat(merged["shared"])
        losses, gradients, aux = gradients_by(aggregators.linear)
        found |= {
            "losses": losses,
            "g_loss": _rows(aux.loss_gradients),
            "g_flat": _rows(aux.flat_gradients),
            "g_sam": _rows(aux.loss_gradients) + _rows(aux.flat_gradients),
            "eps_shared": _rows(aux.perturbations["shared"]),
        }
        for t in range(len(kinds)):
            found[f"head_grad_{t}"] = _flat(gradients["heads"][t])
            found[f"eps_head_{t}"] = _rows(aux.perturbations["heads"][t])[t]
        return found

    optimizer = optax.chain(
        optim.sam_multitask(aggregator=_in_turn, **method), optax.sgd(case.params["lr_trajectory"])
    )

    @jax.jit
    def step(params, state):
        updates, state = optimizer.update(params, state, params, task_losses_fn=task_losses)
        return optax.apply_updates(params, updates), state

    found, moved, state = jax.jit(all_of_them)(params), params, optimizer.init(params)
    for _ in range(3):
        moved, state = step(moved, state)
    found["shared_after_3_sgd_pcgrad"] = _flat(moved["shared"])
    return found | {
        f"head_after_3_sgd_pcgrad_{t}": _flat(moved["heads"][t]) for t in range(len(kinds))
    }


CALLS: dict[str, Callable[[Case], Mapping[str, Any]]] = {"sam_mtl": _sam_mtl}
