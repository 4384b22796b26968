# SPDX-License-Identifier: Apache-2.0
"""Golden functions of LDR-KL, ALDR-KL and their competitors (spec ldr)."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.golden.case import Case
from xloss import classification as c


def _losses_and_gradient(loss: Callable[[Any, Any], jax.Array], case: Case, logits="logits"):
    labels = case.inputs["labels"]
    z = jnp.asarray(case.inputs[logits])
    losses, pull = jax.vjp(lambda z: loss(z, labels), z)
    return losses, pull(jnp.ones_like(losses))[0]


def _call(loss: Callable[..., jax.Array], factor: float = 1.0, /, **names: str):
    """An adapter: names maps xloss's hyperparameters to the case's."""

    def run(case: Case):
        given = {ours: case.params[theirs] for ours, theirs in names.items()}

        def scaled(z, labels):
            return factor * loss(z, labels, **given)

        losses, gradient = _losses_and_gradient(scaled, case)
        found = {"loss": losses, "grad_logits": gradient}
        return {name: found[name] for name in case.outputs}

    return run


def _small_lambda(case: Case):
    z, labels = jnp.asarray(case.inputs["logits"]), case.inputs["labels"]
    margin = case.params["margin"]
    return {
        "loss": c.ldr_kl(z, labels, lam=case.params["lam"], margin=margin),
        "crammer_singer": c.crammer_singer(z, labels, margin=margin),
    }


def _exact(case: Case):
    options = {name: case.params[name] for name in ("lam0", "alpha", "margin")}
    loss, gradient = _losses_and_gradient(functools.partial(c.aldr_kl, **options), case)
    labels = case.inputs["labels"]
    return {
        "loss": loss,
        "lam": c.aldr_lam(jnp.asarray(case.inputs["logits"]), labels, **options),
        "grad_logits": gradient,
        "p": gradient + jax.nn.one_hot(labels, gradient.shape[-1]),
    }


def _alternating(case: Case):
    z, labels = jnp.asarray(case.inputs["logits"]), case.inputs["labels"]
    options = {name: case.params[name] for name in ("lam0", "alpha", "margin")}
    steps = [int(n) for n in case.inputs["steps"]]
    return {
        "loss": jnp.stack([c.aldr_kl(z, labels, num_steps=n, **options) for n in steps]),
        "lam": jnp.stack([c.aldr_lam(z, labels, num_steps=n, **options) for n in steps]),
    }


def _stateful(case: Case):
    labels, start = case.inputs["labels"], jnp.asarray(case.inputs["lam_init"])
    options = {name: case.params[name] for name in ("lam0", "alpha", "margin")}
    # Divided by its mean, a softplus is over its l1 mean.
    options["normalize"] = "softplus_mean" if case.params["softplus"] else "l1_mean"
    state, found = c.ALDRState(start), {}
    for number in (1, 2):
        z = jnp.asarray(case.inputs[f"logits_step{number}"])

        def step(z, state=state):
            return c.aldr_kl_step(state, np.arange(len(labels)), z, labels, **options)

        losses, pull, after = jax.vjp(step, z, has_aux=True)
        found[f"loss_step{number}"] = losses
        found[f"grad_logits_step{number}"] = pull(jnp.ones_like(losses))[0]
        found[f"lam_after_step{number}"] = after.lam
        state = after
    return {name: found[name] for name in case.outputs}


def _prune(case: Case):
    labels, q = case.inputs["labels"], case.params["q"]
    log_p = -c.cross_entropy(jnp.asarray(case.inputs["logits_at_prune"]), labels)
    keep = (jnp.exp(log_p) > case.params["k"]).astype(jnp.float64)
    loss, gradient = _losses_and_gradient(
        lambda z, y: keep * c.generalized_cross_entropy(z, y, q=q), case
    )
    return {"keep": keep, "loss": loss, "grad_logits": gradient}


def _weston_watkins(case: Case):
    return _call(c.weston_watkins, 1.0 / case.inputs["logits"].shape[-1], margin="margin")(case)


def _active_passive(passive: str, **names: str):
    return _call(
        functools.partial(c.active_passive, passive=passive), alpha="alpha", beta="beta", **names
    )


_AUL, _AGCE = "asymmetric_unhinged", "asymmetric_generalized_cross_entropy"
_LDR = _call(c.ldr_kl, lam="lam", margin="margin", normalize="normalize")

CALLS: dict[str, Callable[[Case], Mapping[str, Any]]] = {
    "ldr_kl": _LDR,
    "ldr_kl -> crammer_singer limit": _small_lambda,
    "aldr_kl (exact inner max over p and lambda>=0)": _exact,
    "aldr_kl (T alternating updates from lam0; value at the final lambda with its own optimal p)": (
        _alternating
    ),
    "aldr_kl_step (stateful, one lambda update per call, lambda before update used inside the "
    "softmax)": _stateful,
    "cross_entropy": _call(c.cross_entropy),
    "generalized_cross_entropy": _call(c.generalized_cross_entropy, q="q"),
    "symmetric_cross_entropy": _call(c.symmetric_cross_entropy, balance="balance", scale="A"),
    "weston_watkins (mean over the K classes, true class contributes 0)": _weston_watkins,
    "crammer_singer": _call(c.crammer_singer, margin="margin"),
    "jensen_shannon": _call(c.jensen_shannon, weight="weight_label"),
    "normalized_cross_entropy": _call(c.normalized_cross_entropy),
    "reverse_cross_entropy": _call(c.reverse_cross_entropy, label_clip="label_clip"),
    "asymmetric_unhinged": _call(c.asymmetric_unhinged, a="a", q="q"),
    "asymmetric_generalized_cross_entropy": _call(
        c.asymmetric_generalized_cross_entropy, a="a", q="q"
    ),
    "nce_plus_rce": _active_passive("reverse_cross_entropy"),
    "nce_plus_aul": _active_passive(_AUL, a="a", q="q"),
    "nce_plus_agce": _active_passive(_AGCE, a="a", q="q"),
    "softmax_mse": _call(c.brier),
    "softmax_mae = sum_k |onehot-p| = 2(1-p_y)": _call(c.mean_absolute_error),
    "robust_log_loss": _call(c.robust_log_loss, alpha="alpha"),
    "truncated_generalized_cross_entropy (published truncated L_q: constant when p_y<=k)": _call(
        c.truncated_generalized_cross_entropy, q="q", threshold="k"
    ),
    "truncated_gce_with_prune_mask (state: keep mask set by p_y>k at prune time)": _prune,
}
