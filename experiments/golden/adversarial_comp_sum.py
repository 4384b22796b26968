# SPDX-License-Identifier: Apache-2.0
"""The adversarial golden functions of the comp-sum family (spec comp_sum)."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from experiments.golden.case import Case
from xloss import surrogates
from xloss.adversarial import (
    adversarial_rho_margin,
    maximize_score_displacement,
    smooth_adversarial_comp_sum,
)


def _smooth(case: Case):
    logits, adversarial = (jnp.asarray(case.inputs[n]) for n in ("logits", "logits_adv"))
    labels, hyper = case.inputs["labels"], dict(case.params)

    def loss(z, other):
        return smooth_adversarial_comp_sum(z, other, labels, **hyper)

    gradients = jax.grad(lambda *pair: jnp.sum(loss(*pair)), argnums=(0, 1))(logits, adversarial)
    clean = smooth_adversarial_comp_sum(logits, logits, labels, **hyper)
    losses = loss(logits, adversarial)
    return {
        "loss": losses,
        "clean_term": clean,
        "norm_term": (losses - clean) / hyper["nu"],
        "grad_logits": gradients[0],
        "grad_logits_adv": gradients[1],
    }


def _rho_margin(case: Case):
    candidates, labels = jnp.asarray(case.inputs["logits_candidates"]), case.inputs["labels"]
    tau = case.params["tau"]
    # Where a candidate is wrong by the least margin the loss is at least Phi_tau(1); a margin this
    # small makes the margin loss the zero-one loss of ties and errors.
    count = adversarial_rho_margin(candidates, labels, tau=0.0, rho=1e-12)
    return {
        "loss": adversarial_rho_margin(candidates, labels, **case.params),
        "adv_zero_one": count >= 1,
        "phi_tau_of_1": surrogates.comp_sum(jnp.float64(0.0), tau=tau),
    }


def _linear(W: jax.Array, b: jax.Array, x: jax.Array) -> jax.Array:
    return x @ W.T + b[None]


def _largest_displacement(case: Case):
    x, labels, W, b = (jnp.asarray(case.inputs[n]) for n in ("x", "labels", "W", "b"))
    apply = jax.tree_util.Partial(_linear, W, b)

    def reached(norm, steps, step_size):
        x_adv = maximize_score_displacement(
            apply,
            x,
            labels,
            key=jax.random.key(0),
            radius=case.params["gamma"],
            norm=norm,
            steps=steps,
            step_size=step_size,
            restarts=10,
        )
        # nu = 1 beside nu = 0: the norm alone.
        both = [
            smooth_adversarial_comp_sum(apply(x), apply(x_adv), labels, nu=nu) for nu in (1.0, 0.0)
        ]
        return both[0] - both[1]

    # l2 steps far beyond the ball are power iterations: they converge to the exact direction.
    return {"sup_linf": reached("linf", 40, None), "sup_l2": reached("l2", 200, 1e3)}


CALLS: dict[str, Callable[[Case], Mapping[str, Any]]] = {
    "smooth_adversarial_comp_sum": _smooth,
    "adversarial_rho_margin_comp_sum (sup over a finite candidate set)": _rho_margin,
    "sup ||Delta(x+delta)-Delta(x)||_2 for h(x)=W x+b": _largest_displacement,
}
