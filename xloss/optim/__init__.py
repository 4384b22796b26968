# SPDX-License-Identifier: Apache-2.0
"""Loss-aware optimizers: optax transforms and the gradient rules behind them, one per file.

A transform that needs more gradients than the incoming one takes the function for them in update's
extra arguments, by name, over the same batch; see each factory's docstring.
"""

from xloss.optim import aggregators, weighting
from xloss.optim.awp import awp_perturb
from xloss.optim.fisher_sam import fisher_sam
from xloss.optim.frugal import FrugalState, frugal
from xloss.optim.greedy_soup import GreedySoup, GreedyTrial, greedy_soup
from xloss.optim.gsam import gradient_norm_penalty, gsam
from xloss.optim.ignite import IgniteState, ignite, surrogate_sharpness
from xloss.optim.learned_soup import learned_soup, mixed_soup
from xloss.optim.look_sam import LookSamState, look_sam
from xloss.optim.river_valley import river_valley_loss
from xloss.optim.sam import SamState, asam, sam
from xloss.optim.sam_multitask import (
    SamMultitaskAux,
    SamMultitaskState,
    sam_multitask,
    sam_multitask_gradients,
)
from xloss.optim.schedules import checkpoint_steps, wsd, wsd_s
from xloss.optim.sharpness import sharpness
from xloss.optim.soup_ensemble_gap import SoupEnsembleGap, soup_ensemble_gap
from xloss.optim.soups import interpolate, uniform_soup
from xloss.optim.state_bytes import optimizer_state_bytes

__all__ = [
    "FrugalState",
    "GreedySoup",
    "GreedyTrial",
    "IgniteState",
    "LookSamState",
    "SamMultitaskAux",
    "SamMultitaskState",
    "SamState",
    "SoupEnsembleGap",
    "aggregators",
    "asam",
    "awp_perturb",
    "checkpoint_steps",
    "fisher_sam",
    "frugal",
    "gradient_norm_penalty",
    "greedy_soup",
    "gsam",
    "ignite",
    "interpolate",
    "learned_soup",
    "look_sam",
    "mixed_soup",
    "optimizer_state_bytes",
    "river_valley_loss",
    "sam",
    "sam_multitask",
    "sam_multitask_gradients",
    "sharpness",
    "soup_ensemble_gap",
    "surrogate_sharpness",
    "uniform_soup",
    "weighting",
    "wsd",
    "wsd_s",
]
