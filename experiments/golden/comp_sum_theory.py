# SPDX-License-Identifier: Apache-2.0
"""Golden functions of the comp-sum family's theory; merged into the adapters of its slug."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from experiments.golden.case import Case
from xloss import consistency
from xloss.classification import comp_sum


def _loss(tau: float):
    return lambda z, y: comp_sum(z, y, tau=tau)


def _transform(case: Case):
    taus, classes = case.inputs["tau"], case.inputs["n"]

    def table(function, values, **extra):
        return np.array(
            [[function(values, tau=tau, num_classes=n, **extra) for n in classes] for tau in taus]
        )

    beta, t = case.inputs["beta"], case.inputs["t"]
    return {
        "T": table(consistency.comp_sum_transform, beta),
        "gamma": table(consistency.comp_sum_gamma, t),
        "gamma_upper": table(consistency.comp_sum_gamma, t, upper=True),
    }


def _conditional_min(case: Case):
    taus = case.inputs["tau"]
    found = [consistency.comp_sum_conditional_min(case.inputs["p"], tau=tau) for tau in taus]
    below_two = [softmax for tau, (_, softmax) in zip(taus, found, strict=True) if tau < 2.0]
    return {"c_star": [value for value, _ in found], "softmax_minimiser": below_two}


def _conditional_regret(case: Case):
    logits, p, taus = (case.inputs[name] for name in ("logits", "p", "tau"))
    zero_one = consistency.zero_one_regret(logits, p)
    regret = [
        consistency.conditional_regret(
            _loss(tau), logits, p, minimum=consistency.comp_sum_conditional_min(p, tau=tau)[0]
        )
        for tau in taus
    ]
    n = p.shape[-1]
    return {
        "regret": regret,
        "zero_one_regret": zero_one,
        "T_of_zero_one_regret": [
            consistency.comp_sum_transform(zero_one, tau=tau, num_classes=n) for tau in taus
        ],
    }


def _finite_gap(case: Case):
    logits, p, weights, taus = (case.inputs[name] for name in ("logits", "p", "weights", "tau"))
    p = np.broadcast_to(p, logits.shape)
    risks = np.stack([consistency.conditional_risk(_loss(tau), logits, p) for tau in taus])
    gap, best, pointwise = consistency.minimizability_gap(risks, weights)
    errors = consistency.zero_one_regret(logits, p) + 1.0 - p.max(-1)
    return {
        "gap": gap,
        "best_in_class_risk": best,
        "expected_pointwise_min": pointwise,
        "gap_zero_one": consistency.minimizability_gap(errors, weights).gap,
    }


def _gap_upper_bound(case: Case):
    n, taus, bound = case.params["n"], case.inputs["tau"], case.inputs["Lam"]
    # Labels are certain, so the best scores are the two ends of the range.
    certain = np.eye(n)[0]
    scores = bound[:, None] * (2.0 * certain - 1.0)
    c_star = [consistency.conditional_risk(_loss(tau), scores, certain) for tau in taus]
    gaps = [
        consistency.comp_sum_gap_upper_bound(
            case.inputs["r_star_tau0"], num_classes=n, bound=bound, tau=tau
        )
        for tau in taus
    ]
    return {"c_star_tau0": c_star[0], "c_star": c_star, "gap_upper": gaps}


CALLS: dict[str, Callable[[Case], Mapping[str, Any]]] = {
    "comp_sum_T / comp_sum_gamma / comp_sum_gamma_upper": _transform,
    "comp_sum_conditional_min": _conditional_min,
    "conditional_regret": _conditional_regret,
    "minimizability_gap(finite hypothesis set)": _finite_gap,
    "comp_sum_gap_upper_bound (deterministic labels, scores in [-Lam,Lam]^n)": _gap_upper_bound,
}
