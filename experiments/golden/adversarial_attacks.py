# SPDX-License-Identifier: Apache-2.0
"""Golden functions of attacks and adversarial training (spec adversarial_attacks)."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import xloss
from experiments.golden.case import Case
from xloss.adversarial import apgd, checkpoints, dlr, mart, pgd, trades, window_shares
from xloss.adversarial.ball import Ball
from xloss.adversarial.square import search, sides_of
from xloss.classification import cross_entropy
from xloss.optim import awp_perturb

#: Golden functions whose xloss counterpart is not written yet: attacks under l1.
OPEN = frozenset({"l1_box_projection"})

#: The reference's spelling of the norms.
NORM = {"l_inf": "linf", "l_2": "l2", "Linf": "linf", "L2": "l2"}


def _tanh_model(
    weights: Mapping[str, jax.Array], x: jax.Array, activation: Callable = jnp.tanh
) -> jax.Array:
    """Logits of a linear model, or of one with a hidden layer."""
    hidden = x.reshape(x.shape[0], -1) @ weights["W1"].T + weights["b1"][None]
    if "W2" not in weights:
        return hidden
    return activation(hidden) @ weights["W2"].T + weights["b2"][None]


def _relu_model(weights: Mapping[str, jax.Array], x: jax.Array) -> jax.Array:
    return _tanh_model(weights, x, jax.nn.relu)


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


def _dlr(case: Case):
    logits, targets = jnp.asarray(case.inputs["logits"]), case.inputs.get("targets")

    def values(z):
        return dlr(z, case.inputs["labels"], targets=targets)

    found = {"loss": values(logits), "grad_logits": jax.grad(lambda z: jnp.sum(values(z)))(logits)}
    return {name: found[name] for name in case.outputs}


def _mart(case: Case):
    logits, adversarial = (jnp.asarray(case.inputs[n]) for n in ("logits", "logits_adv"))
    labels = case.inputs["labels"]

    def loss(z, other, beta=case.params["beta"]):
        return mart(z, other, labels, beta=beta)

    gradients = jax.grad(lambda *pair: jnp.sum(loss(*pair)), argnums=(0, 1))(logits, adversarial)
    losses = loss(logits, adversarial)
    return {
        "loss": losses,
        "bce": loss(logits, adversarial, 0.0),
        "mean": xloss.reduce(losses),
        "grad_logits": gradients[0],
        "grad_logits_adv": gradients[1],
    }


def _training_step(case: Case, loss: Callable, **attack: Any):
    """Loss and gradients of the weights after the authors' attack from a little noise."""
    x, y = jnp.asarray(case.inputs["x"]), jnp.asarray(case.inputs["y"])

    def objective(weights):
        apply = jax.tree_util.Partial(_tanh_model, weights)
        x_adv = pgd(
            apply,
            x,
            y,
            radius=case.params["eps"],
            start=x + 0.001 * case.inputs["noise"],
            steps=case.params["n_iter"],
            return_best=False,
            **attack,
        ).x_adv
        losses = loss(apply(x), apply(x_adv), y, beta=case.params["beta"])
        return xloss.reduce(losses), x_adv

    (value, x_adv), gradients = jax.value_and_grad(objective, has_aux=True)(_weights(case))
    return {"x_adv": x_adv, "loss": value} | {f"grad_{name}": g for name, g in gradients.items()}


def _trades_step(case: Case):
    step_size = case.params["step_size"]
    if step_size is None:  # their l_2 variant: the learning rate of SGD on the unit gradient
        step_size = 2 * case.params["eps"] / case.params["n_iter"]
    norm = NORM[case.params["distance"]]
    return _training_step(
        case, trades, objective="kl", norm=norm, step_size=step_size, project_last="ball"
    )


def _mart_step(case: Case):
    return _training_step(case, mart, objective="ce", step_size=case.params["step_size"])


def _random_start(case: Case):
    x, noise = jnp.asarray(case.inputs["x"]), jnp.asarray(case.inputs["noise"])
    norm, radius = NORM[case.params["norm"]], case.params["eps"]
    ball = Ball(x, batch=x.shape[:1], norm=norm, radius=radius, bounds=(0.0, 1.0), eps=1e-12)
    return {"x_init": ball.point(ball.on_the_face(noise))}


def _apgd(case: Case):
    model = _relu_model if case.params["model"] == "relu" else _tanh_model
    found = apgd(
        jax.tree_util.Partial(model, _weights(case)),
        jnp.asarray(case.inputs["x"]),
        case.inputs["y"],
        radius=case.params["eps"],
        norm=NORM[case.params["norm"]],
        objective=case.params["loss"].replace("-", "_"),
        targets=case.inputs.get("y_target"),
        steps=case.params["n_iter"],
        rho=case.params["rho"],
        start=case.inputs["x_init"],
        trace=True,
    )
    return {
        "trace": found.points,
        "step_sizes": found.step_sizes,
        "checkpoints": checkpoints(case.params["n_iter"]),
        "x_best": found.x_best,
        "still_correct": ~found.success,
        "loss_best": found.loss,
        "x_best_adv": found.x_adv,
    }


def _window_shares(case: Case):
    params = case.params
    shares = window_shares(params["n_queries"], share=params["p_init"], rescale=params["rescale"])
    return {"p": shares[case.inputs["it"]]}


def _square(case: Case):
    """The search with the reference's draws; channels come last here."""

    def channels_last(x):
        return jnp.moveaxis(jnp.asarray(x), -3, -1)

    x, labels, params = channels_last(case.inputs["x"]), case.inputs["y"], case.params
    sides = sides_of(
        x.shape[1:],
        window_shares(params["n_queries"], share=params["p_init"], rescale=params["rescale"]),
    )
    np.testing.assert_array_equal(sides, case.inputs["window_side"])
    # In the middle of the corner's share of [0, 1).
    room = np.asarray(x.shape[1:3]) - sides[:, None] + 1
    places = jnp.asarray((case.inputs["window_pos"] + 0.5) / room)
    signs = jnp.asarray(case.inputs["window_sign"])

    def margin_of(x):
        logits = _tanh_model(_weights(case), jnp.moveaxis(x, -1, -3))
        return xloss.logit_statistics(logits, labels).lead

    ball = Ball(
        x, batch=labels.shape, norm="linf", radius=params["eps"], bounds=(0.0, 1.0), eps=0.0
    )
    d, margin, queries = search(
        margin_of,
        ball,
        channels_last(case.inputs["stripes"]),
        lambda query: (places[query], signs[query]),
        sides,
        None,
    )
    return {"x_best": jnp.moveaxis(ball.point(d), -1, -3), "margin": margin, "n_queries": queries}


def _awp(case: Case):
    x, x_adv, labels = (jnp.asarray(case.inputs[name]) for name in ("x", "x_adv", "y"))

    def loss(weights):
        if case.params["kind"] == "at":
            losses = cross_entropy(_tanh_model(weights, x_adv), labels)
        else:
            logits, other = _tanh_model(weights, x), _tanh_model(weights, x_adv)
            losses = trades(logits, other, labels, beta=case.params["beta"])
        return xloss.reduce(losses)

    weights = _weights(case)
    worst = awp_perturb(weights, jax.grad(loss)(weights), gamma=case.params["gamma"])
    value, gradients = jax.value_and_grad(loss)(worst)
    found = {f"grad_{name}": g for name, g in gradients.items()} | {"loss_at_perturbed": value}
    return found | {f"perturbed_{n}": worst[n] for n in ("W1", "W2", "b1")}


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
    "apgd": _apgd,
    "apgd_checkpoints": lambda case: {"checkpoints": checkpoints(case.params["n_iter"])},
    "apgd_random_start": _random_start,
    "awp_perturb": _awp,
    "dlr_loss": _dlr,
    "dlr_loss_targeted": _dlr,
    "linear_worst_case_margin": _linear_worst_case,
    "margin_loss": _margin,
    "mart_loss": _mart,
    "mart_step": _mart_step,
    "pgd": _pgd,
    "square_attack_step": _square,
    "square_p_schedule": _window_shares,
    "trades_loss": _trades,
    "trades_step": _trades_step,
}
