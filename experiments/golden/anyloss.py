# SPDX-License-Identifier: Apache-2.0
"""Golden functions of AnyLoss (spec anyloss)."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from experiments.golden.case import Case
from xloss.classification import anyloss, soft_confusion_matrix

#: The reference's names of the metrics that are called otherwise here.
NAMES = {"fbeta": "f_beta", "gmean": "g_mean", "mcc": "matthews"}


def _any_loss(case: Case):
    p = jnp.asarray(case.inputs["probs"])
    labels = jnp.asarray(case.inputs["labels"]).astype(jnp.int32)
    where = jnp.asarray(case.inputs["where"], jnp.bool_) if "where" in case.inputs else None
    options = {"steepness": case.params["L"], "where": where}
    # A(p) is the count of true positives of one example.
    amplified = jax.vmap(
        lambda p: (
            soft_confusion_matrix(p[None], jnp.ones(1, jnp.int32), steepness=case.params["L"]).tp
        )
    )(p)
    found = {
        "amplified": amplified,
        "confusion_tn_fp_fn_tp": jnp.stack(soft_confusion_matrix(p, labels, **options)),
    }
    scores = jnp.log(p) - jnp.log1p(-p)
    for output in case.outputs:
        name = output.removeprefix("loss_")
        if name == output:
            continue
        loss, slope = jax.value_and_grad(
            lambda z, name=name: anyloss(
                z, labels, metric=NAMES.get(name, name), beta=case.params["beta"], **options
            )
        )(scores)
        # The reference's slope is that of the probabilities: dp = p (1 - p) dz.
        found |= {output: loss, f"grad_{name}": slope / (p * (1.0 - p))}
    return found


CALLS: dict[str, Callable[[Case], Mapping[str, Any]]] = {"any_loss": _any_loss}
