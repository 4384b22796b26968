# SPDX-License-Identifier: Apache-2.0
"""Golden functions of direct coverage optimisation (spec dco)."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from experiments.golden.case import Case
from xloss.classification import coverage_nats, coverage_weight, cross_entropy, direct_coverage


def _from_log_prob(case: Case):
    log_prob, count = jnp.asarray(case.inputs["log_prob"]), case.params["N"]

    def losses(log_prob):
        return coverage_nats(log_prob, num_samples=count)

    loss, pull = jax.vjp(losses, log_prob)
    return {
        "loss": loss,
        "grad_log_prob": pull(jnp.ones_like(loss))[0],
        "factor": coverage_weight(log_prob, num_samples=count),
    }


def _sequence(case: Case):
    labels, where = case.inputs["labels"], jnp.asarray(case.inputs["where"], jnp.bool_)
    logits, found = jnp.asarray(case.inputs["logits"]), {}
    for level, name in (("answer", "sequence"), ("step", "stepwise")):

        def losses(logits, level=level):
            return direct_coverage(
                logits, labels, num_samples=case.params["N"], level=level, where=where
            )

        found[f"loss_{name}"], pull = jax.vjp(losses, logits)
        found[f"grad_logits_{name}"] = pull(jnp.ones_like(found[f"loss_{name}"]))[0]
    found["ce"] = jnp.sum(cross_entropy(logits, labels, where=where), axis=-1)
    return {name: found[name] for name in case.outputs}


CALLS: dict[str, Callable[[Case], Mapping[str, Any]]] = {
    "dco_loss_from_logprob": _from_log_prob,
    "dco_loss_sequence": _sequence,
}
