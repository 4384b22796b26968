# SPDX-License-Identifier: Apache-2.0
"""Golden functions of the multi-task gradient aggregators (spec mtl_aggregators)."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from experiments.golden.case import Case
from xloss.optim import aggregators, weighting

#: What LibMTL's iterative solvers return, right to about 1e-3 or, where they fail, not at all; the
#: file holds the exact solution of the same problem beside it.
IGNORED = {
    "mgda": ("weights_libmtl", "direction_libmtl"),
    "cagrad": ("direction_libmtl",),
    "nash_mtl": ("weights_libmtl", "direction_libmtl_unclipped"),
}


def _wanted(case: Case, found: Mapping[str, Any]) -> Mapping[str, Any]:
    return {name: value for name, value in found.items() if name in case.outputs}


def _linear(case: Case):
    direction, _ = aggregators.linear(jnp.asarray(case.inputs["grads"]))
    return {"direction": direction}


def _mgda(case: Case):
    grads, losses = jnp.asarray(case.inputs["grads"]), jnp.asarray(case.inputs["losses"])
    normalization = case.params["normalization"]
    direction, weights = aggregators.mgda(grads, normalization=normalization, losses=losses)
    # xloss returns the coefficients of the gradients, the reference those of the normalised ones.
    norms = jnp.linalg.norm(grads, axis=1)
    scales = {"none": jnp.ones_like(losses), "l2": norms, "loss": losses, "loss+": losses * norms}
    found = {"direction_exact": direction, "weights_exact": weights * scales[normalization]}
    return _wanted(case, found)


def _pcgrad(case: Case):
    direction, weights = aggregators.pcgrad(
        jnp.asarray(case.inputs["grads"]),
        order=case.inputs["order"],
        eps=case.params["eps"],
        reduction=case.params["reduction"],
    )
    return _wanted(case, {"direction": direction, "weights": weights})


def _cagrad(case: Case):
    grads = jnp.asarray(case.inputs["grads"])
    c, rescale = case.params["calpha"], case.params["rescale"]
    direction, weights = aggregators.cagrad(grads, c=c, rescale=rescale, eps=1e-8)
    # xloss returns the coefficients of the gradients, the reference the simplex weights inside.
    pull = weights * {0: 1.0, 1: 1.0 + c**2, 2: 1.0 + c}[rescale] - 1.0 / len(weights)
    found = {"direction_exact": direction, "weights_exact": pull / jnp.sum(pull)}
    return _wanted(case, found)


def _graddrop(case: Case):
    direction, _ = aggregators.graddrop(
        jnp.asarray(case.inputs["grads"]),
        uniform=jnp.asarray(case.inputs["uniform"]),
        leak=case.params["leak"],
        eps=case.params["eps"],
    )
    return {"direction": direction}


def _imtl(case: Case):
    grads, losses, scales = (
        jnp.asarray(case.inputs[name]) for name in ("grads", "losses", "loss_scale")
    )
    if case.params["mode"] != "IMTL-G":  # the gradients are those of the scaled losses
        grads = jnp.exp(scales)[:, None] * grads
    direction, weights = aggregators.imtl_g(grads)
    slope = jax.grad(weighting.imtl_l, argnums=1)(losses, scales)
    found = {"direction": direction, "weights": weights, "grad_loss_scale": slope}
    return _wanted(case, found)


def _nash_mtl(case: Case):
    grads = jnp.asarray(case.inputs["grads"])
    direction, weights = aggregators.nash_mtl(grads, max_norm=0.0)
    found = {
        "direction_exact": direction,
        "weights_exact": weights,
        "direction_exact_clipped_norm1": aggregators.nash_mtl(grads, max_norm=1.0)[0],
    }
    return _wanted(case, found)


def _aligned_mtl(case: Case):
    direction, weights = aggregators.aligned_mtl(jnp.asarray(case.inputs["grads"]))
    return _wanted(case, {"direction": direction, "weights": weights})


def _fairgrad(case: Case):
    grads, alpha = jnp.asarray(case.inputs["grads"]), case.params["alpha"]
    direction, weights = aggregators.fairgrad(grads, alpha=alpha)
    residual = grads @ direction - weights ** (-1.0 / alpha)
    found = {
        "direction_libmtl": direction,
        "weights_libmtl": weights,
        "residual": jnp.max(jnp.abs(residual)),
    }
    return _wanted(case, found)


def _graddrop_representation(case: Case):
    rep, grads, uniform = (
        jnp.asarray(case.inputs[name]) for name in ("rep", "per_task_rep_grads", "uniform")
    )
    found = aggregators.graddrop_representation(
        rep, grads, uniform=uniform, leak=case.params["leak"], eps=case.params["eps"]
    )
    return {"rep_grad": found}


CALLS: dict[str, Callable[[Case], Mapping[str, Any]]] = {
    "linear_scalarization": _linear,
    "mgda": _mgda,
    "pcgrad": _pcgrad,
    "cagrad": _cagrad,
    "graddrop": _graddrop,
    "imtl": _imtl,
    "nash_mtl": _nash_mtl,
    "aligned_mtl": _aligned_mtl,
    "fairgrad": _fairgrad,
    "graddrop_representation": _graddrop_representation,
}
