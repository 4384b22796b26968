# SPDX-License-Identifier: Apache-2.0
"""Golden functions of likelihood-weighted losses (spec dataset_equity)."""

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
from sklearn.cluster import DBSCAN

from experiments.golden.case import Case
from xloss.classification import (
    cluster_likelihood,
    embedding_likelihood,
    equity_weight,
    likelihood_weighted_focal,
)


def _options(case: Case):
    return {"eta": case.params["eta"], "gamma": case.params["gamma"]}


def _clusters(case: Case):
    p = cluster_likelihood(case.inputs["cluster_ids"])
    losses = likelihood_weighted_focal(case.inputs["per_example_loss"], p, **_options(case))
    return {
        "likelihood": p,
        "weights": equity_weight(p, **_options(case)),
        "weighted_loss": losses,
        "mean_weighted_loss": jnp.mean(losses),
    }


def _embeddings(case: Case):
    points, params = case.inputs["embeddings"], case.params
    eps, min_samples = params["dbscan_eps"], params["dbscan_min_samples"]
    found: dict[str, Any] = {"labels": DBSCAN(eps=eps, min_samples=min_samples).fit_predict(points)}
    for suffix, noise in (("authors", "cluster"), ("noise_as_singletons", "singleton")):
        p = embedding_likelihood(points, eps=eps, min_samples=min_samples, noise=noise)
        found[f"likelihood_{suffix}"] = p
        found[f"weights_{suffix}"] = equity_weight(p, **_options(case))
    return found


CALLS: dict[str, Callable[[Case], Mapping[str, Any]]] = {
    "dataset_equity": _clusters,
    "dataset_equity_from_embeddings": _embeddings,
}
