# SPDX-License-Identifier: Apache-2.0
"""Golden functions of calibration, transforms, bounds and gaps (spec h_consistency)."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.golden.case import Case
from xloss import consistency, surrogates


def named(name: str, k: float = 2.0, rho: float = 0.5) -> Callable[..., Any]:
    """The reference's loss of that name, with its hyperparameters bound."""
    if name == "logistic2":
        return consistency.logistic_base2
    if name == "sigmoid":
        return surrogates.bind(surrogates.sigmoid, slope=k)
    if name == "rho_margin":
        return surrogates.bind(surrogates.rho_margin, rho=rho)
    return surrogates.get(name)


def _loss(case: Case) -> Callable[..., Any]:
    return named(case.params["loss"], case.params.get("k", 2.0), case.params.get("rho", 0.5))


def _transform(case: Case):
    t, loss = case.inputs["t"], _loss(case)
    rows = [consistency.h_transform(loss, t, bound=a) for a in case.inputs["A"]]
    return {"psi": consistency.psi_transform(loss, t), "T": np.stack(rows)}


def _gamma(case: Case):
    z, loss = case.inputs["excess"], _loss(case)
    rows = [consistency.h_gamma(loss, z, bound=a) for a in case.inputs["A"]]
    return {"gamma_inf": consistency.h_gamma(loss, z), "gamma": np.stack(rows)}


def _min_risk(case: Case):
    eta, bound = case.inputs["eta"], case.inputs["A"][:, None]
    return {"h_star": consistency.min_conditional_risk(_loss(case), eta, bound=bound)}


def _values(case: Case):
    u, params = jnp.asarray(case.inputs["u"]), case.params
    rows = [named(name, params["k"], params["rho"])(u) for name in params["order"]]
    return {"value": jnp.stack(rows)}


#: The losses of the reference's verdicts that are not xloss's, as a user would write them.
OWN: dict[str, Callable[..., Any]] = {
    "perceptron max(0,-u)": lambda u: jnp.maximum(0, -u),
    "u**2": lambda u: u**2,
    "exp(u)": np.exp,
    "constant 1": lambda u: 1.0,
    "abs |1-u|": lambda u: np.abs(1 - u),
    "shifted hinge max(0,-u-0.5)": lambda u: jax.nn.relu(-u - 0.5),
}


def _verdicts(case: Case):
    losses = [OWN[name] if name in OWN else named(name) for name in case.params["order"]]
    return {"calibrated": [consistency.is_calibrated(loss).calibrated for loss in losses]}


def _envelope(case: Case):
    return {"envelope": consistency.convex_envelope(case.inputs["theta"], case.inputs["value"])}


def _linear_gap(case: Case):
    found = consistency.linear_minimizability_gap(
        _loss(case),
        case.inputs["x"],
        case.inputs["eta"],
        weights=case.inputs["weights"],
        weight=case.params["W"],
        bias=case.params["B"],
    )
    return found._asdict()


def _finite_gap(case: Case):
    scores, eta, weights = (case.inputs[name] for name in ("scores", "eta", "weights"))
    loss = _loss(case)
    phi = np.asarray(loss(jnp.asarray(scores))), np.asarray(loss(jnp.asarray(-scores)))
    costs = eta * phi[0] + (1.0 - eta) * phi[1]
    errors = np.where(scores > 0, 1.0 - eta, eta)
    risk, zero_one_risk = costs @ weights, errors @ weights
    excess = risk - weights @ consistency.min_conditional_risk(loss, eta)
    return {
        "risk": risk,
        "zero_one_risk": zero_one_risk,
        "gap_logistic": consistency.minimizability_gap(costs, weights).gap,
        "gap_zero_one": consistency.minimizability_gap(errors, weights).gap,
        "excess_risk": excess,
        "zero_one_excess": zero_one_risk - weights @ np.minimum(eta, 1.0 - eta),
        "gamma_of_excess": consistency.h_consistency_bound(excess, loss=loss),
    }


def crammer_singer(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """max(0, 1 + max over k != y of z_k - z_y): calibrated only where max p >= 1/2."""
    own = np.take_along_axis(scores, labels[:, None], 1)[:, 0]
    mine = np.arange(scores.shape[1]) == labels[:, None]
    return np.maximum(0.0, 1.0 + np.where(mine, -np.inf, scores).max(1) - own)


def weston_watkins(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Sum over k != y of max(0, 1 + z_k - z_y): not calibrated."""
    own = np.take_along_axis(scores, labels[:, None], 1)
    mine = np.arange(scores.shape[1]) == labels[:, None]
    return np.where(mine, 0.0, np.maximum(0.0, 1.0 + scores - own)).sum(1)


def lee_lin_wahba(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Sum over k != y of max(0, 1 + z_k) for scores that sum to 0: calibrated."""
    centred = scores - scores.mean(1, keepdims=True)
    mine = np.arange(scores.shape[1]) == labels[:, None]
    return np.where(mine, 0.0, np.maximum(0.0, 1.0 + centred)).sum(1)


def _multiclass_minimum(case: Case):
    p = case.inputs["p"]

    def least(loss):
        return np.array([consistency.conditional_minimum(loss, row)[0] for row in p])

    return {
        "crammer_singer": least(crammer_singer),
        "weston_watkins_sum": least(weston_watkins),
        "lee_lin_wahba": least(lee_lin_wahba),
        "zero_one": consistency.comp_sum_conditional_min(p, tau=2.0)[0],
        "log_loss": consistency.comp_sum_conditional_min(p, tau=1.0)[0],
        "crammer_singer_at_zero": consistency.conditional_risk(crammer_singer, np.zeros_like(p), p),
    }


def _bounded_softmax(case: Case):
    bounds, t = case.inputs["Lam"], case.inputs["t"]
    least, greatest = consistency.softmax_range(bounds, num_classes=2)
    rows = [consistency.h_transform("logistic", t, bound=2.0 * bound) for bound in bounds]
    return {"s_min": least, "s_max": greatest, "T": np.stack(rows)}


def _massart(case: Case):
    gamma = case.inputs["gamma"]
    return {name: consistency.massart_slope(name, gamma) for name in case.outputs}


CALLS: dict[str, Callable[[Case], Mapping[str, Any]]] = {
    "psi_transform / h_transform": _transform,
    "gamma = inverse of T, capped at 1": _gamma,
    "min_conditional_risk": _min_risk,
    "phi(u)": _values,
    "is_classification_calibrated": _verdicts,
    "lower convex envelope (biconjugate) on a grid": _envelope,
    "minimizability_gap(linear class |w|<=W, |b|<=B, finite support)": _linear_gap,
    "minimizability_gap(finite set) and excess bound over H_all": _finite_gap,
    "min over scores of sum_y p_y loss(scores,y)": _multiclass_minimum,
    "T for the 2-class softmax log loss, both scores in [-Lam,Lam]": _bounded_softmax,
    "slope 2*gamma/T(2*gamma) of the linear bound under |eta-1/2|>=gamma": _massart,
}
