# SPDX-License-Identifier: Apache-2.0
"""Golden functions of the comp-sum family (spec comp_sum)."""

from collections.abc import Callable, Mapping
from typing import Any

from experiments.golden import adversarial_comp_sum, comp_sum_theory
from experiments.golden.case import Case, losses_and_gradient
from xloss.classification import comp_sum


def _comp_sum(case: Case):
    labels = case.inputs["labels"]
    return losses_and_gradient(
        lambda z: comp_sum(z, labels, tau=case.params["tau"]), case.inputs["logits"]
    )


CALLS: dict[str, Callable[[Case], Mapping[str, Any]]] = {
    "comp_sum_loss": _comp_sum,
    **adversarial_comp_sum.CALLS,
    **comp_sum_theory.CALLS,
}
