# SPDX-License-Identifier: Apache-2.0
"""Golden functions of attacks and adversarial training (spec adversarial_attacks)."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import xloss
from experiments.golden.case import Case
from xloss.adversarial import pgd, trades

#: Golden functions whose xloss counterpart is not written yet.
OPEN = frozenset(
    {
        "apgd",
        "apgd_checkpoints",
        "apgd_random_start",
        "awp_perturb",
        "dlr_loss",
        "dlr_loss_targeted",
        "l1_box_projection",
        "mart_loss",
        "mart_step",
        "square_attack_step",
        "square_p_schedule",
    }
)

#: The reference's spelling of the norms.
NORM = {"l_inf": "linf", "l_2": "l2"}


def _tanh_model(weights: Mapping[str, jax.Array], x: jax.Array) -> jax.Array:
    """Logits of a linear model, or of one with a layer of tanh."""
    hidden = x.reshape(x.shape[0], -1) @ weights["W1"].T + weights["b1"][None]
    return jnp.tanh(hidden) @ weights["W2"].T + weights["b2"][None] if "W2" in weights else hidden


def _weights(case: Case) -> dict[str, jax.Array]:
    names = ("W1", "b1", "W2", "b2")
    return {name: jnp.asarray(case.inputs[name]) for name in names if name in case.inputs}


def _margin(case: Case):
    z, labels = jnp.asarray(case.inputs["logits"]), case.inputs["labels"]

    def margin(z):
        return -xloss.logit_statistics(z, labels).lead

    def carlini_wagner(z):
        return jnp.maximum(-margin(z), -case.params["kappa"])

    return {
        "loss": margin(z),
        "grad_logits": jax.grad(lambda z: jnp.sum(margin(z)))(z),
        "cw_f": carlini_wagner(z),
        "grad_cw_f": jax.grad(lambda z: jnp.sum(carlini_wagner(z)))(z),
    }


def _trades(case: Case):
    logits, adversarial = (jnp.asarray(case.inputs[n]) for n in ("logits", "logits_adv"))
    labels, beta = case.inputs["labels"], case.params["beta"]

    def loss(z, other, beta=beta):
        return trades(z, other, labels, beta=beta)

    gradients = jax.grad(lambda *pair: jnp.sum(loss(*pair)), argnums=(0, 1))(logits, adversarial)
    losses = loss(logits, adversarial)
    return {
        "loss": losses,
        "kl": loss(logits, adversarial, 1.0) - loss(logits, adversarial, 0.0),
        "mean": xloss.reduce(losses),
        "grad_logits": gradients[0],
        "grad_logits_adv": gradients[1],
    }


def _pgd(case: Case):
    x, y = jnp.asarray(case.inputs["x"]), jnp.asarray(case.inputs["y"])
    apply = jax.tree_util.Partial(_tanh_model, _weights(case))

    def attack(start, steps, **options):
        return pgd(
            apply,
            x,
            y,
            radius=case.params["eps"],
            step_size=case.params["step_size"],
            norm=NORM[case.params["norm"]],
            objective=case.params["loss"],
            start=start,
            steps=steps,
            **options,
        )

    points = [attack(case.inputs["x_init"], 0)]
    for _ in range(case.params["n_iter"]):
        points.append(attack(points[-1].x_adv, 1, return_best=False))
    last = attack(case.inputs["x_init"], case.params["n_iter"], return_best=False)
    best = attack(case.inputs["x_init"], case.params["n_iter"])
    found = {
        "trace": jnp.stack([point.x_adv for point in points]),
        "losses": jnp.stack([point.loss for point in points]),
        "x_adv": last.x_adv,
        "x_best": best.x_adv,
        "success": best.success,
    }
    return {name: found[name] for name in case.outputs}


def _trades_step(case: Case):
    x, y = jnp.asarray(case.inputs["x"]), jnp.asarray(case.inputs["y"])
    step_size = case.params["step_size"]
    if step_size is None:  # their l_2 variant: the learning rate of SGD on the unit gradient
        step_size = 2 * case.params["eps"] / case.params["n_iter"]

    def objective(weights):
        apply = jax.tree_util.Partial(_tanh_model, weights)
        x_adv = pgd(
            apply,
            x,
            y,
            radius=case.params["eps"],
            step_size=step_size,
            norm=NORM[case.params["distance"]],
            objective="kl",
            start=x + 0.001 * case.inputs["noise"],
            steps=case.params["n_iter"],
            return_best=False,
            project_last="ball",
        ).x_adv
        losses = trades(apply(x), apply(x_adv), y, beta=case.params["beta"])
        return xloss.reduce(losses), x_adv

    (loss, x_adv), gradients = jax.value_and_grad(objective, has_aux=True)(_weights(case))
    return {"x_adv": x_adv, "loss": loss} | {f"grad_{name}": g for name, g in gradients.items()}


def _towards(target: jax.Array, logits: jax.Array, labels: jax.Array) -> jax.Array:
    """z_t - z_y, the margin of one target class."""
    chosen = jnp.stack([jnp.broadcast_to(target, labels.shape), labels], axis=-1)
    z = jnp.take_along_axis(logits, chosen, axis=-1)
    return z[..., 0] - z[..., 1]


def _linear_worst_case(case: Case):
    x, y, W = (jnp.asarray(case.inputs[name]) for name in ("x", "y", "W"))
    apply = jax.tree_util.Partial(_tanh_model, {"W1": W, "b1": jnp.asarray(case.inputs["b"])})
    radius = case.params["eps"]

    def worst(norm):
        # Towards every class; one step as long as the radius (l2: a hair less, so that it is not
        # scaled back) reaches the end of a linear model's gradient.
        step = radius if norm == "linf" else radius * (1 - 1e-12)
        attack = jax.vmap(
            lambda target: (
                pgd(
                    apply,
                    x,
                    y,
                    radius=radius,
                    step_size=step,
                    norm=norm,
                    steps=1,
                    random_start=False,
                    objective=jax.tree_util.Partial(_towards, target),
                ).loss
            )
        )
        losses = attack(jnp.arange(W.shape[0]))
        own = jnp.arange(W.shape[0])[:, None] == y[None, :]
        return jnp.max(jnp.where(own, -np.inf, losses), axis=0)

    return {"worst_margin_linf": worst("linf"), "worst_margin_l2": worst("l2")}


CALLS: dict[str, Callable[[Case], Mapping[str, Any]]] = {
    "linear_worst_case_margin": _linear_worst_case,
    "margin_loss": _margin,
    "pgd": _pgd,
    "trades_loss": _trades,
    "trades_step": _trades_step,
}
