# SPDX-License-Identifier: Apache-2.0
"""Golden functions of the spherical family (spec z_loss)."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import xloss
from experiments.golden.case import Case, losses_and_gradient
from xloss import heads
from xloss.classification import spherical_softmax, taylor_softmax, z_loss

_LOSSES = {
    "z": z_loss,
    "taylor": taylor_softmax,
    "spherical": spherical_softmax,
    "mse": heads.sparse_squared_error,
}


def _of(function: Callable[..., jax.Array]):
    def call(case: Case):
        hyper = {name: value for name, value in case.params.items() if name != "kind"}
        labels = case.inputs["labels"]

        def from_sums(target, total, squares):
            """The loss as the output-size-independent layer sees it: o_y, sum o_k, sum o_k^2."""
            mean = total / classes
            stats = xloss.LogitStatistics(
                target=target,
                centred=target - mean,
                variance=squares / classes - jnp.square(mean),
                class_count=jnp.full_like(target, classes),
                num_classes=classes,
                provider="golden",
            )
            return jnp.sum(function(stats, **hyper))

        @jax.jit
        def everything(logits, sums):
            gradients = jax.grad(from_sums, argnums=(0, 1, 2))(*sums)
            found = losses_and_gradient(lambda z: function(z, labels, **hyper), logits)
            names = ("grad_oc", "grad_sum", "grad_sumsq")
            return found | dict(zip(names, gradients, strict=True))

        logits = case.inputs["logits"]
        classes = logits.shape[-1]
        target = logits[np.arange(len(labels)), labels]
        return everything(logits, (target, logits.sum(-1), (logits**2).sum(-1)))

    return call


def _factored(case: Case):
    """Steps of the factored layer; the reference stores W^T W and W^T 1, and sums over a batch."""
    params, w0, mixing = case.params, *(jnp.asarray(case.inputs[n]) for n in ("W0", "U0"))
    classes, loss = len(w0), _LOSSES[params["kind"]]
    whole = 1 if params.get("red") == "mean" else params["m"]
    sparse = params["kind"] == "mse"
    mean = w0.mean(0)
    state = heads.spherical_init(w0.T)._replace(
        rows=jnp.asarray(case.inputs["V0"]),
        mixing=mixing,
        inverse=jnp.linalg.inv(mixing),
        offset=jnp.asarray(case.inputs["omega0"]) - mean,
        mean=mean,
    )

    def step(state, hidden, targets):
        labels = targets if sparse else targets[:, 0]
        stats = heads.spherical_statistics(state, hidden, labels)
        losses, gradient, state = heads.spherical_step(
            state,
            hidden,
            labels,
            loss=loss,
            learning_rate=params["eta"] * whole,
            loss_args=params["p"],
            target_values=jnp.ones(targets.shape) if sparse else None,
        )
        total = stats.mean.reshape(len(hidden), -1)[:, 0] * classes
        squares = stats.variance.reshape(len(hidden), -1)[:, 0] * classes + total**2 / classes
        found = {"A": stats.target.reshape(targets.shape), "s": total, "q": squares}
        return found | {"loss": losses, "grad_H": gradient * whole}, state

    step, records = jax.jit(step), []
    for t, (hidden, targets) in enumerate(
        zip(case.inputs["H"], case.inputs["targets"], strict=True), start=1
    ):
        found, state = step(state, jnp.asarray(hidden), jnp.asarray(targets))
        if t % params.get("stab", len(w0) * t + 1) == 0:
            state = heads.spherical_stabilize(state)
        square = state.covariance + state.mean[:, None] * state.mean[None, :]
        records.append(
            found
            | {
                "W": heads.spherical_to_dense(state).T,
                "U": state.mixing,
                "Q": classes * square,
                "w_bar": classes * state.mean,
                "omega": state.offset + state.mean,
            }
        )
    found = {name: np.stack([record[name] for record in records]) for name in records[0]}
    # The reference's dense steps: what it says of its own factored ones must hold for these.
    worst = np.max(np.abs(found["W"] - case.outputs["W"]))
    return found | {"max_abs_err_factored_vs_dense": worst}


CALLS: dict[str, Callable[[Case], Mapping[str, Any]]] = {
    "z_loss": _of(z_loss),
    "taylor_loss": _of(taylor_softmax),
    "spherical_loss": _of(spherical_softmax),
    "factored_spherical_sgd": _factored,
}
