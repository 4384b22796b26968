# SPDX-License-Identifier: Apache-2.0
"""Loss-aware optimizers: optax transforms and the gradient rules behind them, one per file.

A transform that needs more gradients than the incoming one takes the function for them in update's
extra arguments, by name, over the same batch; see each factory's docstring.
"""

from xloss.optim import aggregators, weighting
from xloss.optim.awp import awp_perturb
from xloss.optim.fisher_sam import fisher_sam
from xloss.optim.frugal import FrugalState, frugal
from xloss.optim.gsam import gradient_norm_penalty, gsam
from xloss.optim.ignite import IgniteState, ignite, surrogate_sharpness
from xloss.optim.look_sam import LookSamState, look_sam
from xloss.optim.sam import SamState, asam, sam
from xloss.optim.sam_multitask import (
    SamMultitaskAux,
    SamMultitaskState,
    sam_multitask,
    sam_multitask_gradients,
)
from xloss.optim.sharpness import sharpness
from xloss.optim.state_bytes import optimizer_state_bytes

__all__ = [
    "FrugalState",
    "IgniteState",
    "LookSamState",
    "SamMultitaskAux",
    "SamMultitaskState",
    "SamState",
    "aggregators",
    "asam",
    "awp_perturb",
    "fisher_sam",
    "frugal",
    "gradient_norm_penalty",
    "gsam",
    "ignite",
    "look_sam",
    "optimizer_state_bytes",
    "sam",
    "sam_multitask",
    "sam_multitask_gradients",
    "sharpness",
    "surrogate_sharpness",
    "weighting",
]
