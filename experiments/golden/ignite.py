# SPDX-License-Identifier: Apache-2.0
"""Golden functions of IGNITE (spec ignite): a surrogate with one hidden layer, plain SGD."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from experiments.golden.case import Case
from xloss.optim import ignite, surrogate_sharpness

PARAMETERS = ("W1", "b1", "W2", "b2")


def _surrogate(case: Case):
    """(loss, mean prediction, parameters, flatten) of the golden file's note."""
    x, y = jnp.asarray(case.inputs["x"]), jnp.asarray(case.inputs["y"])
    params = {name: jnp.asarray(case.inputs[name]) for name in PARAMETERS}

    def predict(p):
        hidden = jnp.tanh(x @ p["W1"] + p["b1"][None, :])
        return (hidden @ p["W2"] + p["b2"][None, :])[:, 0]

    def flatten(p):
        return jnp.concatenate([p[name].ravel() for name in PARAMETERS])

    return (
        lambda p: jnp.mean(jnp.square(predict(p) - y)),
        lambda p: jnp.mean(predict(p)),
        params,
        flatten,
    )


def _transform(case: Case, **changes):
    theirs = {"rho": "rho", "r": "radius", "eps": "eps", "eta": "eta_lambda", "lam": "lam0"}
    given = {ours: case.params[key] for key, ours in theirs.items()}
    return ignite(**given, clip_lambda=case.params.get("clip_lambda", False), **changes)


def _trajectory(case: Case):
    loss, mean_prediction, params, flatten = _surrogate(case)
    transform, descent = _transform(case), optax.sgd(case.params["lr"])

    exact = _transform(case, hvp="jvp")
    exact_step0, _ = exact.update(
        jax.grad(loss)(params), exact.init(params), params, mean_prediction_fn=mean_prediction
    )

    @jax.jit
    def step(params, state):
        value, gradient = jax.value_and_grad(loss)(params)
        total, new = transform.update(gradient, state, params, mean_prediction_fn=mean_prediction)
        moves, _ = descent.update(total, descent.init(params))
        following = optax.apply_updates(params, moves)
        sharpness = surrogate_sharpness(mean_prediction, params, rho=case.params["rho"])
        row = {
            "loss": value,
            "grad_loss": flatten(gradient),
            "norm": surrogate_sharpness(mean_prediction, params, rho=1.0),
            "sharpness": sharpness,
            "grad_total": flatten(total),
            "lam_next": jax.tree.leaves(new)[0],
            "params_next": flatten(following),
        }
        return following, new, row

    rows, state = [], transform.init(params)
    for _ in case.outputs["loss"]:
        params, state, row = step(params, state)
        rows.append(row)
    table = jax.tree.map(lambda *values: jnp.stack(values), *rows)
    return table | {"grad_exact_hvp_step0": flatten(exact_step0)}


def _fixed_multiplier(case: Case):
    loss, mean_prediction, params, flatten = _surrogate(case)
    transform = _transform(case, adapt=False)
    total, state = transform.update(
        jax.grad(loss)(params), transform.init(params), params, mean_prediction_fn=mean_prediction
    )
    assert jax.tree.leaves(state) == [case.params["lam"]]
    return {"grad_total": flatten(total)}


CALLS: dict[str, Callable[[Case], Mapping[str, Any]]] = {
    "ignite (4 SGD steps, full batch each step)": _trajectory,
    "ignite2 (fixed multiplier), one step": _fixed_multiplier,
}
