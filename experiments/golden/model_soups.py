# SPDX-License-Identifier: Apache-2.0
"""Golden functions of model soups (spec model_soups), on networks with one hidden layer."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.golden.case import Case
from xloss import classification
from xloss.optim import greedy_soup, learned_soup, soup_ensemble_gap, uniform_soup

#: In the order of the reference's rows of alpha.
TENSORS = ("W1", "b1", "W2", "b2")


def _network(params, x):
    hidden = jnp.tanh(x @ params["W1"] + params["b1"][None, :])
    return hidden @ params["W2"] + params["b2"][None, :]


def _arrays(case: Case, prefix: str = ""):
    params = {name: jnp.asarray(case.inputs[prefix + name]) for name in TENSORS}
    return params, jnp.asarray(case.inputs["x"]), jnp.asarray(case.inputs["y"])


def _models(stack):
    return [{name: stack[name][i] for name in TENSORS} for i in range(len(stack["b1"]))]


def _accuracy(logits, labels):
    return jnp.mean((jnp.argmax(logits, axis=-1) == labels).astype(logits.dtype))


def _uniform(case: Case):
    stack, x, y = _arrays(case)
    soup = uniform_soup(_models(stack))
    ensemble = jnp.mean(jax.vmap(_network, (0, None))(stack, x), axis=0)
    return soup | {
        "val_acc": _accuracy(_network(soup, x), y),
        "ensemble_acc": _accuracy(ensemble, y),
    }


def _greedy(case: Case):
    stack, x, y = _arrays(case)
    evaluate = jax.jit(lambda params: _accuracy(_network(params, x), y))
    soup = greedy_soup(_models(stack), evaluate)
    ties = greedy_soup(_models(stack), evaluate, strict=False)
    order = np.array([trial.index for trial in soup.history])
    return soup.params | {
        "val_accs": np.array([trial.single for trial in soup.history])[np.argsort(order)],
        "order": order,
        "ingredients": soup.ingredients,
        "val_acc": evaluate(soup.params),
        "candidate_accs": [trial.candidate for trial in soup.history],
        "ingredients_accept_ties": ties.ingredients,
        "val_acc_accept_ties": evaluate(ties.params),
    }


def _learned(case: Case):
    stack, x, y = _arrays(case)

    def loss(rows, beta):
        logits = learned_soup(stack, dict(zip(TENSORS, rows)), beta, _network, x)
        return jnp.mean(classification.cross_entropy(logits, y))

    arguments = jnp.asarray(case.inputs["alpha_raw"]), jnp.asarray(case.inputs["beta"])
    value, (rows, beta) = jax.jit(jax.value_and_grad(loss, (0, 1)))(*arguments)
    return {"loss": value, "grad_alpha_raw": rows, "grad_beta": beta}


@jax.jit
def _compiled_gap(start, end, x, y, **hyper):
    return soup_ensemble_gap(lambda params: _network(params, x), start, end, y, **hyper)


def _gap(case: Case):
    (start, x, y), (end, _, _) = _arrays(case, "p0_"), _arrays(case, "p1_")
    gap = _compiled_gap(start, end, x, y, **case.params)
    return {
        "loss_soup": gap.soup_loss,
        "loss_logit_ensemble": gap.ensemble_loss,
        "second_derivative": gap.second_derivative,
        "variance_term": gap.variance,
        "approximation": gap.approximation,
        "true_difference": gap.actual,
    }


CALLS: dict[str, Callable[[Case], Mapping[str, Any]]] = {
    "uniform_soup": _uniform,
    "greedy_soup": _greedy,
    "learned_soup_loss": _learned,
    "soup_minus_ensemble_approximation": _gap,
}
