# SPDX-License-Identifier: Apache-2.0
"""The rows of what shapes a whole run, or joins several: schedules and soups."""

from xloss import optim
from xloss.catalogue.rows import DERIVED, RECONSTRUCTION, Method, of_paper

_RIVER_VALLEY = (
    "Understanding Warmup-Stable-Decay Learning Rates: A River Valley Loss Landscape Perspective"
)
_SOUPS = (
    "Model soups: averaging weights of multiple fine-tuned models improves accuracy without "
    "increasing inference time"
)

RUNS: tuple[Method, ...] = (
    *of_paper(
        _RIVER_VALLEY,
        "2410.05192",
        "wsd_s",
        DERIVED,
        (optim.wsd, optim.wsd_s, optim.checkpoint_steps),
    ),
    *of_paper(_RIVER_VALLEY, "2410.05192", "wsd_s", RECONSTRUCTION, (optim.river_valley_loss,)),
    *of_paper(
        _SOUPS,
        "2203.05482",
        "model_soups",
        DERIVED,
        (optim.interpolate, optim.uniform_soup),
        "2 trees",
    ),
    *of_paper(
        _SOUPS,
        "2203.05482",
        "model_soups",
        DERIVED,
        (optim.greedy_soup,),
        "2k - 1 evaluations, 2 trees",
    ),
    *of_paper(
        _SOUPS,
        "2203.05482",
        "model_soups",
        DERIVED,
        (optim.mixed_soup, optim.learned_soup),
        "k trees",
    ),
    *of_paper(
        _SOUPS,
        "2203.05482",
        "model_soups",
        DERIVED,
        (optim.soup_ensemble_gap,),
        "3 forward passes and 2 derivatives",
    ),
)
