# SPDX-License-Identifier: Apache-2.0
"""Golden functions of SAM and its kin (spec sam_family)."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree

from experiments.golden.case import Case
from xloss import optim, reduce
from xloss.classification import cross_entropy


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


def _gsam(case: Case):
    rho, alpha = case.params["rho"], case.params["alpha"]
    params, loss = _problem(case)
    clean = optim.gsam(rho=rho, alpha=alpha, minimize_clean=True)
    return {
        "grad_gsam": _one_step(case, optim.gsam(rho=rho, alpha=alpha))[1],
        "grad_gsam_minimize_clean": _one_step(case, clean)[1],
        "surrogate_gap": optim.sharpness(loss, params, rho=rho),
    }


def _gradient_norm_penalty(case: Case):
    lam, radius = case.params["lam"], case.params["r"]
    params, loss = _problem(case)

    def norm(params):
        return jnp.linalg.norm(_flat(jax.grad(loss)(params)))

    as_coded = optim.gradient_norm_penalty(lam=lam, radius=radius, normalize_clean=True)
    return {
        "grad_gnp": _one_step(case, optim.gradient_norm_penalty(lam=lam, radius=radius))[1],
        "grad_gnp_code_default": _one_step(case, as_coded)[1],
        "grad_norm": norm(params),
        "grad_exact": _flat(jax.grad(lambda p: loss(p) + lam * norm(p))(params)),
    }


def _fisher_sam(case: Case):
    transform = optim.fisher_sam(rho=case.params["rho"], eta=case.params["eta"])
    found, gradient = _one_step(case, transform)
    return found | {"grad_fsam": gradient}


def _grouped_sam(case: Case):
    groups, rho = case.params["groups"], case.params["rho"]
    x, y = jnp.asarray(case.inputs["x"]), jnp.asarray(case.inputs["y"])
    parts = x.reshape(groups, -1, x.shape[1]), y.reshape(groups, -1)

    def loss(params, x, y):
        w1, b1, w2, b2 = params
        hidden = jnp.tanh(x @ w1.T + b1[None, :])
        return reduce(cross_entropy(hidden @ w2.T + b2[None, :], y))

    def grad_fn(params, group):
        return jax.grad(loss)(params, parts[0][group], parts[1][group])

    params, _ = _problem(case)
    transform = optim.sam(rho=rho, num_groups=groups)
    gradient = jax.grad(loss)(params, x, y)
    updates, _ = transform.update(gradient, transform.init(params), params, grad_fn=grad_fn)
    return {"grad": _flat(updates)}


def _look_sam(case: Case):
    params, loss = _problem(case)
    options = {"rho": case.params["rho"], "alpha": case.params["alpha"]}
    look = optim.look_sam(every=case.params["k"], **options)
    grad_fn, state, found = jax.grad(loss), look.init(params), {"updates": [], "params": []}
    for _ in range(7):
        updates, state = look.update(grad_fn(params), state, params, grad_fn=grad_fn)
        params = jax.tree.map(lambda w, u: w - case.params["lr"] * u, params, updates)
        found["updates"].append(_flat(updates))
        found["params"].append(_flat(params))
    return {name: jnp.stack(rows) for name, rows in found.items()}


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
    "gsam": _gsam,
    "gradient_norm_penalty": _gradient_norm_penalty,
    "fisher_sam": _fisher_sam,
    "sam with m-sharpness (2 equal contiguous groups)": _grouped_sam,
    "looksam (7 SGD steps on the same batch)": _look_sam,
    "sam wrapped around SGD momentum (5 steps)": _sam_momentum,
}
