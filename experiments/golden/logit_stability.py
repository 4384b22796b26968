# SPDX-License-Identifier: Apache-2.0
"""Golden functions of logit stability: the log-partition penalty, qk layer norm (spec
logit_stability)."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import xloss
from experiments.golden.case import Case
from xloss import diagnostics
from xloss.classification import cross_entropy, log_partition_penalty


def _log_partition_penalty(case: Case):
    labels, coef = case.inputs["labels"], case.params["coef"]
    where = jnp.asarray(case.inputs["where"], jnp.bool_)
    z = jnp.asarray(case.inputs["logits"])

    def penalty_sum(z):
        return xloss.reduce(log_partition_penalty(z, labels, coef=coef, where=where), how="sum")

    def total(z):
        stats = xloss.logit_statistics(z, labels, where=where)
        losses = cross_entropy(stats, where=where)
        return xloss.reduce(losses + log_partition_penalty(stats, coef=coef), where=where)

    return {
        "log_z": xloss.logit_statistics(z, labels).log_partition,
        "z_loss": log_partition_penalty(z, labels, coef=coef),
        "ce": cross_entropy(z, labels),
        "total_mean": total(z),
        "grad_logits_z_loss": jax.grad(penalty_sum)(z),
        "grad_logits_total": jax.grad(total)(z),
    }


def _qk_attention(case: Case):
    inputs = {name: jnp.asarray(value) for name, value in case.inputs.items()}
    cotangent = inputs.pop("cotangent")
    steps = cotangent.shape[-1]
    causal = jnp.tril(jnp.ones((steps, steps), jnp.bool_)) if case.params["causal"] else None

    def weights(q, k, gamma_q, gamma_k):
        q, k = diagnostics.qk_layernorm(q, k, gamma_q, gamma_k, eps=case.params["eps"])
        logits = diagnostics.attention_logits(q, k, mask=causal)
        return jax.nn.softmax(logits, axis=-1), diagnostics.attention_logit_statistics(
            q, k, mask=causal
        )

    (found, stats), pull = jax.vjp(weights, *inputs.values(), has_aux=False)
    zeros = jax.tree.map(jnp.zeros_like, stats)
    gradients = pull((cotangent, zeros))
    plain = diagnostics.attention_logit_statistics(inputs["q"], inputs["k"], mask=causal)
    return {
        "weights": found,
        "max_logit": stats["max_logit"],
        "max_logit_without_qk_norm": plain["max_logit"],
        "entropy": stats["entropy"],
    } | {f"grad_{name}": g for name, g in zip(inputs, gradients, strict=True)}


def _lr_sensitivity(case: Case):
    losses, initial = case.inputs["final_losses"], case.params["init_loss"]
    return {
        "lr_sensitivity": diagnostics.lr_sensitivity(losses, initial),
        "best_loss": np.nanmin(losses),
    }


CALLS: dict[str, Callable[[Case], Mapping[str, Any]]] = {
    "softmax_z_loss": _log_partition_penalty,
    "qk_layernorm_attention": _qk_attention,
    "lr_sensitivity": _lr_sensitivity,
}
