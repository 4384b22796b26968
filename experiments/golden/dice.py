# SPDX-License-Identifier: Apache-2.0
"""Golden functions of the Dice and Tversky losses (spec dice)."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from experiments.golden.case import Case
from xloss.classification import dice, hard_negative_mask, tversky

#: What the authors' code gives where it is wrong: no Dice loss, and two hard negatives too few.
IGNORED = {
    "dice_loss_multiclass": ("loss_authors_unsquared_compat",),
    "dice_loss_binary_ohem": ("loss_authors_bug_compat",),
}


def _value_and_gradient(loss: Callable[[jax.Array], jax.Array], case: Case):
    value, pull = jax.vjp(loss, jnp.asarray(case.inputs["logits"]))
    return value, pull(jnp.ones_like(value))[0]


def _where(case: Case):
    return jnp.asarray(case.inputs["where"], jnp.bool_) if "where" in case.inputs else None


def _binary(case: Case):
    labels = case.inputs["labels"]
    options = {
        "alpha": case.params["alpha"], "smooth": case.params["smooth"],
        "squared": case.params["square_denominator"], "where": _where(case),
    }  # fmt: skip
    loss, gradient = _value_and_gradient(lambda z: dice(z, labels, **options), case)
    return {"loss": loss, "grad_logits": gradient}


def _multiclass(case: Case):
    labels = case.inputs["labels"]
    options = {
        "alpha": case.params["alpha"], "smooth": case.params["smooth"], "where": _where(case)
    }  # fmt: skip
    found = {}
    for suffix, level, squared in (
        ("", "example", case.params["square_denominator"]),
        ("_macro_set_sq", "macro", True),
        ("_macro_set", "macro", False),
    ):
        loss, gradient = _value_and_gradient(
            lambda z, level=level, squared=squared: dice(
                z, labels, level=level, squared=squared, **options
            ),
            case,
        )
        found |= {f"loss{suffix}": loss, f"grad{suffix or '_logits'}": gradient}
    return found


def _paper(case: Case):
    labels, smooth = case.inputs["labels"].astype(int), case.params["smooth"]
    found = {}
    for name, slope, loss in (
        (
            "self_adjusting_dsc", "grad_self_adjusting",
            lambda z: dice(
                z, labels, level="example", alpha=case.params["alpha"], smooth=smooth, squared=False
            ),
        ),
        (
            "dice_sq_per_example", "grad_dice_sq",
            lambda z: dice(z, labels, level="example", smooth=smooth),
        ),
        (
            "tversky", "grad_tversky",
            lambda z: tversky(
                z, labels, fp_weight=case.params["tversky_alpha"],
                fn_weight=case.params["tversky_beta"], smooth=smooth,
            ),
        ),
    ):  # fmt: skip
        found[name], found[slope] = _value_and_gradient(loss, case)
    return found


def _hard_negatives(case: Case):
    labels, params = case.inputs["labels"], case.params
    keep = hard_negative_mask(
        jnp.asarray(case.inputs["logits"]), labels, ratio=params["ohem_ratio"]
    )
    options = {"smooth": params["smooth"], "squared": params["square_denominator"], "where": keep}
    loss, gradient = _value_and_gradient(
        lambda z: dice(z, labels, alpha=params["alpha"], **options), case
    )
    return {"keep": keep, "loss": loss, "grad_logits": gradient}


CALLS: dict[str, Callable[[Case], Mapping[str, Any]]] = {
    "dice_loss_binary": _binary,
    "dice_loss_multiclass": _multiclass,
    "paper_dsc_tversky": _paper,
    "dice_loss_binary_ohem": _hard_negatives,
}
