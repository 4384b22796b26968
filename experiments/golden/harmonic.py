# SPDX-License-Identifier: Apache-2.0
"""Golden functions of harmonic heads and their interpretability metrics (spec harmonic)."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from experiments.golden.case import Case
from xloss import diagnostics
from xloss.classification import harmonic
from xloss.heads import harmonic_logits, pairwise_distance

#: "loss_authors_vision" adds 1e-8 to every probability before the logarithm.
IGNORED = {"harmonic_loss": ("loss_authors_vision",)}


def _harmonic_loss(case: Case):
    options = dict(case.params)
    distance, n = options.pop("kind"), options.pop("n")
    if "reg_lambda" in options:
        options["ridge"] = options.pop("reg_lambda")
    inputs = {name: jnp.asarray(value) for name, value in case.inputs.items()}
    labels = inputs.pop("labels")

    def arguments(inputs):
        matrix = {"matrix": inputs["P"]} if "P" in inputs else {}
        # The reference's centres are rows.
        return inputs["x"], inputs["w"].T, {"distance": distance, **options, **matrix}

    def total(inputs):
        x, w, rest = arguments(inputs)
        found = pairwise_distance(x, w, **rest)
        losses = harmonic(found, labels, exponent=n)
        return jnp.sum(losses), (losses, found)

    @jax.jit
    def everything(inputs):
        gradients, (loss, found) = jax.grad(total, has_aux=True)(inputs)
        x, w, rest = arguments(inputs)
        logits = harmonic_logits(x, w, exponent=n, **rest)
        return {"dist": found, "loss": loss, "log_prob": jax.nn.log_softmax(logits)} | {
            f"grad_{name}": gradient for name, gradient in gradients.items()
        }

    return everything(inputs)


def _pca(case: Case):
    ratios = diagnostics.explained_variance_ratios(
        jnp.asarray(case.inputs["features"]),
        standardise=case.params["standardize"],
        components=case.params["n_components"],
    )
    share = {k: diagnostics.explained_variance(ratios, components=k) for k in (1, 2, 3, 6)}
    return {
        "explained_variance_ratio": ratios,
        "effective_rank": diagnostics.effective_rank(ratios),
        "participation_ratio": diagnostics.participation_ratio(ratios),
        "intrinsic_dim_90": diagnostics.components_for(ratios, share=0.9),
        "intrinsic_dim_95": diagnostics.components_for(ratios, share=0.95),
        "total_components": ratios.shape[0],
        # The reference's pc_j is the sum of the first j + 1.
        "pc_0_variance": share[1],
        "pc_2_variance": share[3],
        "pc_5_variance": share[6],
        "first_component_variance": ratios[0],
        "second_component_variance": share[2] - share[1],
    }


def _crystal(metric: Callable[..., jax.Array], **names: str):
    def call(case: Case):
        reps = jnp.asarray(case.inputs["reps"])
        arguments = {ours: case.params[theirs] for ours, theirs in names.items()}
        ratios = diagnostics.explained_variance_ratios(reps, standardise=False)
        found = {"metric": metric(reps, **arguments), "explained_variance_ratio": ratios}
        if "sum_first_two" in case.outputs:
            found["sum_first_two"] = diagnostics.explained_variance(ratios, components=2)
        return found

    return call


CALLS: dict[str, Callable[[Case], Mapping[str, Any]]] = {
    "harmonic_loss": _harmonic_loss,
    "pca_interpretability": _pca,
    "circle_metric": _crystal(diagnostics.circle_metric),
    "lattice_metric": _crystal(diagnostics.lattice_metric, size="lattice_size"),
    "greater_metric": _crystal(diagnostics.greater_metric),
    "equivalence_metric": _crystal(diagnostics.equivalence_metric, modulus="mod"),
}
