# SPDX-License-Identifier: Apache-2.0
"""The rows of statements about losses, all computed on the host."""

from collections.abc import Callable, Iterator
from typing import Any

from xloss import consistency
from xloss.catalogue.rows import DERIVED, Method, of_paper


def _theory(
    title: str, arxiv: str | None, slug: str, *functions: Callable[..., Any]
) -> Iterator[Method]:
    """Rows of one paper's statements about losses, all computed on the host."""
    yield from of_paper(title, arxiv, slug, DERIVED, functions, "host")


THEORY: tuple[Method, ...] = (
    *_theory(
        "Convexity, Classification, and Risk Bounds",
        None,
        "h_consistency",
        consistency.is_calibrated,
        consistency.psi_transform,
        consistency.min_conditional_risk,
        consistency.massart_slope,
        consistency.report,
    ),
    *_theory(
        "H-Consistency Bounds for Surrogate Loss Minimizers",
        None,
        "h_consistency",
        consistency.h_transform,
        consistency.h_gamma,
        consistency.h_consistency_bound,
    ),
    *_theory(
        "H-Consistency Bounds: Characterization and Extensions",
        None,
        "h_consistency",
        consistency.minimizability_gap,
        consistency.linear_minimizability_gap,
    ),
    *_theory(
        "Multi-Class H-Consistency Bounds",
        None,
        "h_consistency",
        consistency.conditional_risk,
        consistency.conditional_regret,
    ),
    *_theory(
        "On the Consistency of Multiclass Classification Methods",
        None,
        "h_consistency",
        consistency.multiclass_calibration,
    ),
    *_theory(
        "Cross-Entropy Loss Functions: Theoretical Analysis and Applications",
        "2304.07288",
        "comp_sum",
        consistency.comp_sum_transform,
        consistency.comp_sum_transform_exact,
        consistency.comp_sum_gamma,
        consistency.comp_sum_conditional_min,
        consistency.comp_sum_gap_upper_bound,
    ),
    *_theory(
        "Revisiting Discriminative vs. Generative Classifiers: Theory and Implications",
        "2302.02334",
        "disc_vs_gen",
        consistency.regime_crossing,
    ),
    *_theory(
        "A Universal Growth Rate for Learning with Smooth Surrogate Losses",
        "2405.05968",
        "h_consistency",
        consistency.growth_rate,
    ),
)
