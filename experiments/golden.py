# SPDX-License-Identifier: Apache-2.0
"""Golden vectors: numbers of the authors' own code (or an independent derivation) against xloss.

One small table maps each golden function to an xloss call; ``tests/golden`` and
``python -m experiments.verify`` both run it. A golden file is ``<slug>.npz`` with the arrays
``<case>/in/<name>`` and ``<case>/out/<name>``, and ``<slug>.json`` with parameters and tolerances.
"""

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import xloss
from xloss import diagnostics, surrogates
from xloss.classification import (
    comp_sum,
    cross_entropy,
    ensloss_derivatives,
    inverse_box_cox,
    log_partition_penalty,
    margin_loss,
)

#: The copies that the tests use.
FOLDER = Path(__file__).resolve().parent.parent / "tests" / "golden"

#: (slug, case) -> reason with the spec's line. At most 3 % of a slug; a skipped case that passes
#: fails a test.
SKIPPED: dict[tuple[str, str], str] = {}

#: Golden functions of a slug whose xloss counterpart is not written yet.
OPEN: dict[str, frozenset[str]] = {
    "comp_sum": frozenset(
        {
            "comp_sum_T / comp_sum_gamma / comp_sum_gamma_upper",
            "comp_sum_conditional_min",
            "conditional_regret",
            "minimizability_gap(finite hypothesis set)",
            "comp_sum_gap_upper_bound (deterministic labels, scores in [-Lam,Lam]^n)",
            "smooth_adversarial_comp_sum",
            "adversarial_rho_margin_comp_sum (sup over a finite candidate set)",
            "sup ||Delta(x+delta)-Delta(x)||_2 for h(x)=W x+b",
        }
    ),
}


@dataclasses.dataclass(frozen=True)
class Case:
    """One golden case: what goes in, what must come out, how close."""

    slug: str
    name: str
    function: str
    params: Mapping[str, Any]
    inputs: Mapping[str, np.ndarray]
    outputs: Mapping[str, np.ndarray]
    rtol: float
    atol: float | None

    @property
    def open(self) -> bool:
        """Whether xloss has no counterpart of the function yet."""
        return self.function in OPEN.get(self.slug, ())


def slugs() -> list[str]:
    """Names of the golden files that are there."""
    return sorted(path.stem for path in FOLDER.glob("*.json"))


def load(slug: str) -> list[Case]:
    """Reads all cases of a slug."""
    table = json.loads((FOLDER / f"{slug}.json").read_text())
    with np.load(FOLDER / f"{slug}.npz", allow_pickle=False) as arrays:
        values = {key: arrays[key] for key in arrays.files}

    def part(case: str, side: str) -> dict[str, np.ndarray]:
        prefix = f"{case}/{side}/"
        return {k.removeprefix(prefix): v for k, v in values.items() if k.startswith(prefix)}

    return [
        Case(
            slug=slug,
            name=case["name"],
            function=case["function"],
            params=case["params"],
            inputs=part(case["name"], "in"),
            outputs=part(case["name"], "out"),
            rtol=case["rtol"],
            atol=case.get("atol"),
        )
        for case in table["cases"]
    ]


def mismatches(case: Case) -> list[str]:
    """Runs a case in float64; returns a line for every output that is missing or differs."""
    with jax.enable_x64(True):
        found = CALLS[case.slug][case.function](case)
    wrong = [f"{name}: not computed" for name in case.outputs if name not in found]
    for name, got in found.items():
        want = np.asarray(case.outputs[name], np.float64)
        got = np.asarray(got, np.float64)
        size = np.max(np.abs(want[np.isfinite(want)]), initial=1.0)
        atol = 1e-9 * size if case.atol is None else case.atol
        if got.shape != want.shape:
            wrong.append(f"{name}: shape {got.shape}, expected {want.shape}")
        elif not np.allclose(got, want, rtol=case.rtol, atol=atol, equal_nan=True):
            worst = np.nanmax(np.abs(got - want))
            wrong.append(f"{name}: off by {worst:.3g} (rtol {case.rtol:g}, atol {atol:.3g})")
    return wrong


def _losses_and_gradient(loss: Callable[[jax.Array], jax.Array], logits: np.ndarray):
    z = jnp.asarray(logits)
    return {"loss": loss(z), "grad_logits": jax.grad(lambda x: jnp.sum(loss(x)))(z)}


def _comp_sum(case: Case):
    labels = case.inputs["labels"]
    return _losses_and_gradient(
        lambda z: comp_sum(z, labels, tau=case.params["tau"]), case.inputs["logits"]
    )


def _binary(surrogate: Callable[..., jax.Array]):
    def call(case: Case):
        phi = surrogates.bind(surrogate, **case.params)

        def loss(f):
            return margin_loss(xloss.binary_statistics(f, case.inputs["labels"]), surrogate=phi)

        return _losses_and_gradient(loss, case.inputs["logits"])

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


#: slug -> golden function -> call; the keys are the reference's names.
CALLS: dict[str, dict[str, Callable[[Case], Mapping[str, Any]]]] = {
    "comp_sum": {"comp_sum_loss": _comp_sum},
    "ensloss": {
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
    },
    "logit_stability": {
        "softmax_z_loss": _log_partition_penalty,
        "qk_layernorm_attention": _qk_attention,
        "lr_sensitivity": _lr_sensitivity,
    },
}
