# SPDX-License-Identifier: Apache-2.0
"""Golden functions of the warmup-stable-decay schedules (spec wsd_s), both first-step conventions.

The reference counts a warm-up or decay of at most 1 as a fraction of the segment and a greater one
as steps; its total is xloss's last anchor.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from experiments.golden.case import Case
from xloss.optim import river_valley_loss, wsd, wsd_s

DECAYS = {"inv": "inverse", "linear": "linear"}


def _in_steps(amount: float, segment: int) -> int:
    return int(amount * segment) if amount <= 1 else int(amount)


def _rates(case: Case, schedule: Callable[..., Any], **lengths: Any):
    shape = {"min_ratio": case.params["min_ratio"], "decay": DECAYS[case.params["decay_kind"]]}
    steps = jnp.asarray(case.inputs["step"])
    return {
        output: schedule(case.params["peak"], **lengths, **shape, first_step=first_step)(steps)
        for output, first_step in (("lr_levanter", "levanter"), ("lr_closed_form", "closed"))
    }


def _one(case: Case):
    total = case.params["total"]
    return _rates(
        case,
        wsd,
        total_steps=total,
        warmup_steps=_in_steps(case.params["warmup"], total),
        decay_steps=_in_steps(case.params["decay"], total),
    )


def _several(case: Case):
    anchors = (*case.params["anchors"], case.params["total"])
    return _rates(
        case,
        wsd_s,
        anchors=anchors,
        warmup_steps=_in_steps(case.params["warmup"], anchors[0]),
        decay_fraction=case.params["decay"],
        rewarmup_fraction=case.params["rewarmup"],
    )


def _river(case: Case):
    """Row t is after step t, whose gradient has noise[t] added; the first rate is 0."""
    shape = {
        "slope": case.params["river_slope"],
        "hill_curvature": case.params["hill_curvature"],
    }

    def step(params, inputs):
        rate, noise = inputs
        params = params - rate * (jax.grad(river_valley_loss)(params, **shape) + noise)
        return params, params

    rates, noise = jnp.asarray(case.inputs["lr"]), jnp.asarray(case.inputs["noise"])
    _, trajectory = jax.lax.scan(step, jnp.asarray(case.params["start"]), (rates, noise))
    return {"trajectory": trajectory, "loss": river_valley_loss(trajectory, **shape)}


CALLS: dict[str, Callable[[Case], Mapping[str, Any]]] = {
    "wsd_schedule": _one,
    "wsd_s_schedule": _several,
    "river_valley toy trajectory": _river,
}
