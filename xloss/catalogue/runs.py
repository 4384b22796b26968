# SPDX-License-Identifier: Apache-2.0
"""The rows of what shapes a whole run, or joins several: schedules and soups."""

from xloss import optim
from xloss.catalogue.rows import DERIVED, RECONSTRUCTION, Method, of_paper

_RIVER_VALLEY = (
    "Understanding Warmup-Stable-Decay Learning Rates: A River Valley Loss Landscape Perspective"
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
)
