# SPDX-License-Identifier: Apache-2.0
"""Golden functions of FRUGAL (spec frugal): the authors' optimizers, step by step.

The permutations that their generator drew are handed in; the rest is the public factory.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.golden.case import Case
from xloss import optim
from xloss.optim import subspaces

SPLITS = {"columns": "columns", "rows": "rows", "randk": "entries"}
RULES = {"sign_sgd": "sign", "sgd": "sgd", "no": "none"}
ORDERS = {"random": "uniform"}


def _permutations(case: Case, leaves: int) -> Any:
    """Those of the case: "perm" [switches, n] of one leaf or of blocks, or perm_<draw> of several
    leaves, leaf by leaf and then switch by switch."""

    def draw(which: Sequence[int], switch: jax.Array, n: int, r: int) -> jax.Array:
        return jnp.stack([one(leaf, switch, n)[:r] for leaf in which])

    def one(leaf: int, switch: jax.Array, n: int) -> jax.Array:
        if "perm" in case.inputs:
            table = case.inputs["perm"]
        else:
            count = sum(name.startswith("perm_") for name in case.inputs)
            table = np.stack([case.inputs[f"perm_{i}"] for i in range(leaf, count, leaves)])
        assert table.shape[1] == n
        return jnp.asarray(table, jnp.int32)[switch]

    return subspaces.Permutations(draw)


def _path(case: Case, split: str, **options: Any):
    """Parameters after each step, and which blocks were active."""
    given = case.params
    params = {
        name.removeprefix("p0_"): jnp.asarray(value)
        for name, value in case.inputs.items()
        if name.startswith("p0_")
    }
    gradients = {name: jnp.asarray(case.inputs[f"grads_{name}"]) for name in params}
    leaves = sum(name.startswith("proj") for name in params)
    optimizer = optim.frugal(
        given["lr"],
        projectable=lambda path: path.startswith("proj"),
        density=given["density"],
        update_gap=given["update_gap"],
        split=split,
        state_free=RULES[given.get("inactive_update_rule", "sign_sgd")],
        state_free_scale=given["inactive_lr_scale"],
        projectable_scale=given["proj_params_lr_scale"],
        b1=given["betas"][0],
        b2=given["betas"][1],
        eps=given["eps"],
        weight_decay=given["weight_decay"],
        reset=given.get("reset_statistics", True),
        key=_permutations(case, leaves),
        **options,
    )

    @jax.jit
    def step(params, state, gradient):
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    state, path, subspaces_ = optimizer.init(params), [], []
    for i in range(len(next(iter(gradients.values())))):
        params, state = step(params, state, {name: g[i] for name, g in gradients.items()})
        path.append(params)
        subspaces_.append(state.subspace)
    found = {f"params_{name}": jnp.stack([p[name] for p in path]) for name in params}
    return found, subspaces_


def _blocks(case: Case):
    order = case.params["block_order"]
    found, slots = _path(case, "block", order=ORDERS.get(order, order))
    return found | {"active": jnp.stack(slots) >= 0}


def _coordinates(case: Case):
    return _path(case, SPLITS[case.params["coord_choice"]])[0]


def _singular(case: Case):
    return _path(case, "svd")[0]


CALLS: dict[str, Callable[[Case], Mapping[str, Any]]] = {
    "BlockAdamW": _blocks,
    "CoordAdamW": _coordinates,
    "GaloreAdamW": _singular,
}
