# SPDX-License-Identifier: Apache-2.0
"""Golden functions of EnsLoss and its surrogates (spec ensloss)."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

import xloss
from experiments.golden.case import Case, losses_and_gradient
from xloss import surrogates
from xloss.classification import ensloss_derivatives, inverse_box_cox, margin_loss


def _binary(surrogate: Callable[..., jax.Array]):
    def call(case: Case):
        phi = surrogates.bind(surrogate, **case.params)

        def loss(f):
            return margin_loss(xloss.binary_statistics(f, case.inputs["labels"]), surrogate=phi)

        return losses_and_gradient(loss, case.inputs["logits"])

    return call


def _ensloss(case: Case):
    labels, where = case.inputs["labels"], case.inputs.get("where")
    where = None if where is None else jnp.asarray(where, jnp.bool_)

    def objective(f):
        margins = xloss.binary_statistics(f, labels, where=where).log_odds
        slopes = ensloss_derivatives(margins, case.inputs["z"], **case.params, where=where)
        return xloss.reduce(slopes * margins, where=where), slopes

    f = jnp.asarray(case.inputs["logits"])
    (surrogate, slopes), gradient = jax.value_and_grad(objective, has_aux=True)(f)
    found = {"derivative": slopes, "surrogate": surrogate, "grad_logits": gradient}
    return {name: found[name] for name in case.outputs}


def _inverse_box_cox(case: Case):
    z, clip = case.inputs["z"], case.params["clip"]
    rows = [-jnp.minimum(inverse_box_cox(z, lam=lam), clip) for lam in case.inputs["lam"]]
    return {"value": jnp.stack(rows)}


CALLS: dict[str, Callable[[Case], Mapping[str, Any]]] = {
    "ensloss_derivatives / ensloss": _ensloss,
    "ensloss_derivatives": _ensloss,
    "-min(inverse_box_cox(z, lam), 1)": _inverse_box_cox,
    "BCELoss": _binary(surrogates.logistic),
    "Hinge": _binary(surrogates.hinge),
    "EXP": _binary(surrogates.exponential),
    "BinFocal": _binary(surrogates.focal),
    "Inv_Hinge": _binary(surrogates.inv_hinge),
    "Log_Hinge": _binary(surrogates.log_hinge),
    "Inv_Log_Hinge": _binary(surrogates.inv_log_hinge),
}
