# SPDX-License-Identifier: Apache-2.0
"""Golden functions of the comp-sum family (spec comp_sum)."""

from collections.abc import Callable, Mapping
from typing import Any

from experiments.golden import adversarial_comp_sum
from experiments.golden.case import Case, losses_and_gradient
from xloss.classification import comp_sum

#: Golden functions whose xloss counterpart is not written yet.
OPEN = frozenset(
    {
        "comp_sum_T / comp_sum_gamma / comp_sum_gamma_upper",
        "comp_sum_conditional_min",
        "conditional_regret",
        "minimizability_gap(finite hypothesis set)",
        "comp_sum_gap_upper_bound (deterministic labels, scores in [-Lam,Lam]^n)",
    }
)


def _comp_sum(case: Case):
    labels = case.inputs["labels"]
    return losses_and_gradient(
        lambda z: comp_sum(z, labels, tau=case.params["tau"]), case.inputs["logits"]
    )


CALLS: dict[str, Callable[[Case], Mapping[str, Any]]] = {
    "comp_sum_loss": _comp_sum,
    **adversarial_comp_sum.CALLS,
}
