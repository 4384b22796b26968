# SPDX-License-Identifier: Apache-2.0
"""Golden functions of decoupled softmax and soft top-k (spec decoupled_softmax)."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import xloss
from experiments.golden.case import Case
from xloss.classification import (
    decoupled_softmax,
    log_soft_top_k,
    soft_top_k,
    soft_top_k_loss,
)
from xloss.heads import chunked_decoupled_softmax


def _decoupled(case: Case):
    labels, temperature = case.inputs["labels"], case.params["temperature"]
    found = {}
    for how, name, slope in (
        ("mean", "loss", "grad_scores"),
        ("sum", "loss_sum_over_positives", "grad_scores_sum"),
    ):

        def losses(scores, how=how):
            return decoupled_softmax(scores, labels, temperature=temperature, reduce_positives=how)

        scores = jnp.asarray(case.inputs["scores"])
        found[name], pull = jax.vjp(losses, scores)
        found[slope] = pull(jnp.ones_like(found[name]))[0]
    if "loss_authors_batch_mean" in case.outputs:
        found["loss_authors_batch_mean"] = xloss.reduce(found["loss"])
    return found


def _sampled(case: Case):
    scores = jnp.asarray(case.inputs["scores"])
    kept = jax.nn.one_hot(case.inputs["sampled_positive"], scores.shape[-1])

    def losses(scores):
        return decoupled_softmax(
            scores, case.inputs["labels"], temperature=case.params["temperature"],
            reduce_positives="sum", relevance=kept,
        )  # fmt: skip

    loss, pull = jax.vjp(losses, scores)
    return {"loss": loss, "grad_scores": pull(jnp.ones_like(loss))[0]}


def _soft_top_k(case: Case):
    scores, cotangent = (jnp.asarray(case.inputs[name]) for name in ("scores", "cotangent"))
    k = jnp.asarray(case.inputs["k"]) if "k" in case.inputs else case.params["k"]
    options = {"k": k, "alpha": case.params["alpha"]}
    probs, pull = jax.vjp(lambda x: soft_top_k(x, **options), scores)
    logs, pull_logs = jax.vjp(lambda x: log_soft_top_k(x, **options), scores)
    loss, pull_loss = jax.vjp(
        lambda x: soft_top_k_loss(x, case.inputs["labels"], **options), scores
    )
    return {
        "probs": probs,
        "log_probs": logs,
        "vjp_probs": pull(cotangent)[0],
        "vjp_log_probs": pull_logs(cotangent)[0],
        "loss": loss,
        "grad_scores": pull_loss(jnp.ones_like(loss))[0],
    }


def _chunked(case: Case):
    inputs, labels = case.inputs, case.inputs["labels"]
    most = int(np.max(np.sum(labels, axis=-1)))
    ids = np.full((len(labels), most), -1)
    for row, y in zip(ids, labels, strict=True):
        row[: np.sum(y)] = np.flatnonzero(y)

    def mean(query, embeddings):
        losses = chunked_decoupled_softmax(
            query, embeddings.T, ids, temperature=case.params["temperature"], chunk_size=7
        )
        return jnp.mean(losses), losses

    (_, loss), (into_query, into_labels) = jax.value_and_grad(mean, argnums=(0, 1), has_aux=True)(
        jnp.asarray(inputs["query"]), jnp.asarray(inputs["label_emb"])
    )
    return {"loss": loss, "grad_query": into_query, "grad_label_emb": into_labels}


CALLS: dict[str, Callable[[Case], Mapping[str, Any]]] = {
    "decoupled_softmax_loss": _decoupled,
    "decoupled_softmax_loss_sampled_positive": _sampled,
    "soft_top_k": _soft_top_k,
    "dual_encoder_decoupled_softmax_chunked": _chunked,
}
