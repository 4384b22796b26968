# SPDX-License-Identifier: Apache-2.0
"""Golden functions of the comp-sum family (spec comp_sum)."""

from collections.abc import Callable, Mapping
from typing import Any

from experiments.golden import comp_sum_theory
from experiments.golden.case import Case, losses_and_gradient
from xloss.classification import comp_sum

#: Golden functions whose xloss counterpart is not written yet.
OPEN = frozenset(
    {
        "smooth_adversarial_comp_sum",
        "adversarial_rho_margin_comp_sum (sup over a finite candidate set)",
        "sup ||Delta(x+delta)-Delta(x)||_2 for h(x)=W x+b",
    }
)


def _comp_sum(case: Case):
    labels = case.inputs["labels"]
    return losses_and_gradient(
        lambda z: comp_sum(z, labels, tau=case.params["tau"]), case.inputs["logits"]
    )


CALLS: dict[str, Callable[[Case], Mapping[str, Any]]] = {
    "comp_sum_loss": _comp_sum,
    **comp_sum_theory.CALLS,
}
