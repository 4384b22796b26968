# SPDX-License-Identifier: Apache-2.0
"""Golden functions of SAM and ASAM (spec sam_family)."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree

from experiments.golden.case import Case
from xloss import optim, reduce
from xloss.classification import cross_entropy

#: Golden functions whose xloss counterpart is not written yet.
OPEN = frozenset(
    {
        "gsam",
        "gradient_norm_penalty",
        "fisher_sam",
        "sam with m-sharpness (2 equal contiguous groups)",
        "looksam (7 SGD steps on the same batch)",
    }
)


def _problem(case: Case):
    """(parameters as a flat list, loss of them)."""
    x, y = jnp.asarray(case.inputs["x"]), case.inputs["y"]

    def loss(params):
        w1, b1, w2, b2 = params
        hidden = jnp.tanh(x @ w1.T + b1[None, :])
        return reduce(cross_entropy(hidden @ w2.T + b2[None, :], y))

    return [jnp.asarray(case.inputs[name]) for name in ("W1", "b1", "W2", "b2")], loss


def _flat(tree: Any) -> jax.Array:
    return ravel_pytree(tree)[0]


def _loss_and_gradient(case: Case):
    params, loss = _problem(case)
    value, gradient = jax.value_and_grad(loss)(params)
    return {"loss": value, "grad": _flat(gradient)}


def _one_step(case: Case, transform: optax.GradientTransformationExtraArgs):
    """(gradient after the transform, where it was taken)."""
    params, loss = _problem(case)
    seen = []

    def grad_fn(at):
        seen.append(at)
        return jax.grad(loss)(at)

    gradient = jax.grad(loss)(params)
    updates, _ = transform.update(gradient, transform.init(params), params, grad_fn=grad_fn)
    away = jax.tree.map(jnp.subtract, seen[0], params)
    return {"perturbation": _flat(away), "loss_perturbed": loss(seen[0])}, _flat(updates)


def _sam(case: Case):
    rho = case.params["rho"]
    found, gradient = _one_step(case, optim.sam(rho=rho))
    params, loss = _problem(case)
    return found | {"grad_sam": gradient, "sharpness": optim.sharpness(loss, params, rho=rho)}


def _asam(case: Case):
    transform = optim.asam(rho=case.params["rho"], eta=case.params["eta"])
    found, gradient = _one_step(case, transform)
    return found | {"grad_asam": gradient}


def _sam_momentum(case: Case):
    params, loss = _problem(case)
    optimizer = optax.chain(
        optim.sam(rho=case.params["rho"]),
        optax.sgd(case.params["lr"], momentum=case.params["momentum"]),
    )
    grad_fn = jax.grad(loss)

    @jax.jit
    def step(params, state):
        updates, state = optimizer.update(grad_fn(params), state, params, grad_fn=grad_fn)
        return optax.apply_updates(params, updates), state

    state, path = optimizer.init(params), []
    for _ in range(5):
        params, state = step(params, state)
        path.append(_flat(params))
    return {"params": jnp.stack(path)}


CALLS: dict[str, Callable[[Case], Mapping[str, Any]]] = {
    "loss_and_gradient": _loss_and_gradient,
    "sam": _sam,
    "asam": _asam,
    "sam wrapped around SGD momentum (5 steps)": _sam_momentum,
}
