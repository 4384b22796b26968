# SPDX-License-Identifier: Apache-2.0
"""Golden functions of the loss weightings of several tasks (spec mtl_aggregators)."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from experiments.golden.case import Case
from xloss.optim import aggregators, weighting

#: LibMTL's reported value lacks the greatest term, which it subtracts and does not add back.
IGNORED = {"stch": ("loss_value_libmtl",)}


def _inputs(case: Case, *names: str) -> list[jax.Array]:
    return [jnp.asarray(case.inputs[name]) for name in names]


def _of_weights(case: Case, weights: jax.Array):
    return {"weights": weights, "direction": weights @ jnp.asarray(case.inputs["grads"])}


def _uncertainty(case: Case):
    losses, log_var = _inputs(case, "losses", "log_var")
    loss, slopes = jax.value_and_grad(weighting.uncertainty, argnums=(0, 1))(losses, log_var)
    return {"loss": loss, "grad_log_var": slopes[1]} | _of_weights(case, slopes[0])


def _dwa(case: Case):
    last, before = _inputs(case, "losses_prev", "losses_prev2")
    weights = weighting.dwa(last, before, temperature=case.params["temperature"])
    return _of_weights(case, weights)


def _rlw(case: Case):
    losses = jnp.ones_like(jnp.asarray(case.inputs["normal"]))
    (normal,) = _inputs(case, "normal")
    return _of_weights(case, jax.grad(lambda v: weighting.rlw(v, normal=normal))(losses))


def _stch(case: Case):
    losses, nadir = _inputs(case, "losses", "nadir")
    value, weights = jax.value_and_grad(
        lambda v: weighting.stch(v, nadir=nadir, mu=case.params["mu"])
    )(losses)
    return {"loss_value_stch": value, "direction": _of_weights(case, weights)["direction"]}


def _stch_warmup(case: Case):
    (losses,) = _inputs(case, "losses")
    weights = jax.grad(weighting.log_losses)(losses)
    return {"direction": _of_weights(case, weights)["direction"]}


def _gls(case: Case):
    (losses,) = _inputs(case, "losses")
    value, weights = jax.value_and_grad(weighting.gls)(losses)
    return {"loss": value, "direction": _of_weights(case, weights)["direction"]}


def _gradnorm(case: Case):
    scales, grads, losses, initial = _inputs(
        case, "loss_scale", "grads", "losses", "losses_initial"
    )
    slope, weights = jax.grad(weighting.gradnorm, has_aux=True)(
        scales, grads, losses, initial, alpha=case.params["alpha"]
    )
    return {"grad_loss_scale": slope} | _of_weights(case, weights)


def _db_mtl(case: Case):
    found, state = {}, None
    for step in ("1", "2"):
        grads, losses = _inputs(case, f"grads_{step}", f"losses_{step}")
        state = aggregators.db_mtl_init(grads) if state is None else state
        average, state = aggregators.db_mtl_average(
            grads,
            losses,
            state,
            beta=case.params["beta"],
            beta_sigma=case.params["beta_sigma"],
        )
        found[f"direction_{step}"], _ = aggregators.db_mtl(average)
        found[f"buffer_{step}"] = average
    return {name: found[name] for name in case.outputs}


def _famo(case: Case):
    grads, minima, before, after = _inputs(
        case, "grads", "min_losses", "losses_before", "losses_after"
    )
    state = weighting.famo_init(grads.shape[0], dtype=grads.dtype)
    directions, logits = [], []
    for old, new in zip(before, after, strict=True):
        directions.append(jax.grad(weighting.famo)(old, state, minima=minima) @ grads)
        state = weighting.famo_step(
            state,
            old,
            new,
            learning_rate=case.params["FAMO_w_lr"],
            decay=case.params["FAMO_w_gamma"],
            minima=minima,
        )
        logits.append(state.logits)
    return {"direction": jnp.stack(directions), "logits_after": jnp.stack(logits)}


CALLS: dict[str, Callable[[Case], Mapping[str, Any]]] = {
    "uncertainty_weighting": _uncertainty,
    "dwa": _dwa,
    "rlw": _rlw,
    "stch": _stch,
    "stch (warm-up: sum of log losses)": _stch_warmup,
    "gls (geometric mean of the losses)": _gls,
    "gradnorm": _gradnorm,
    "db_mtl (two steps)": _db_mtl,
    "famo (3 steps)": _famo,
}
