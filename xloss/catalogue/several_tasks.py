# SPDX-License-Identifier: Apache-2.0
"""The rows of what merges several tasks: their gradients, or their losses."""

from collections.abc import Callable, Iterator
from typing import Any

from xloss import optim
from xloss.catalogue.rows import AUTHORS_CODE, DERIVED, Method, of_paper


def _of_tasks(
    slug: str, cost: str, *rows: tuple[str, str | None, Callable[..., Any]]
) -> Iterator[Method]:
    """Rows of (title, arXiv id, function) for what merges tasks, checked against LibMTL."""
    for title, arxiv, function in rows:
        yield from of_paper(title, arxiv, slug, AUTHORS_CODE, (function,), cost)


SEVERAL_TASKS: tuple[Method, ...] = (
    *of_paper(
        "Improving Multi-task Learning via Seeking Task-based Flat Regions",
        "2211.13723",
        "sam_mtl",
        DERIVED,
        (optim.sam_multitask_gradients, optim.sam_multitask),
        "2T gradients",
    ),
    *_of_tasks(
        "mtl_aggregators",
        "T gradients",
        (
            "In Defense of the Unitary Scalarization for Deep Multi-Task Learning",
            "2201.04122",
            optim.aggregators.linear,
        ),
        (
            "Multi-Task Learning as Multi-Objective Optimization",
            "1810.04650",
            optim.aggregators.mgda,
        ),
        ("Gradient Surgery for Multi-Task Learning", "2001.06782", optim.aggregators.pcgrad),
        (
            "Conflict-Averse Gradient Descent for Multi-task Learning",
            "2110.14048",
            optim.aggregators.cagrad,
        ),
        ("Towards Impartial Multi-task Learning", None, optim.aggregators.imtl_g),
        (
            "Independent Component Alignment for Multi-Task Learning",
            "2305.19000",
            optim.aggregators.aligned_mtl,
        ),
        ("Multi-Task Learning as a Bargaining Game", "2202.01017", optim.aggregators.nash_mtl),
        (
            "Fair Resource Allocation in Multi-Task Learning",
            "2402.15638",
            optim.aggregators.fairgrad,
        ),
        (
            "Just Pick a Sign: Optimizing Deep Multitask Models with Gradient Sign Dropout",
            "2010.06808",
            optim.aggregators.graddrop,
        ),
    ),
    *of_paper(
        "Gradient Surgery for Multi-Task Learning",
        "2001.06782",
        "mtl_aggregators",
        DERIVED,
        (optim.aggregators.conflict,),
        "T gradients",
    ),
    *of_paper(
        "Jacobian Descent for Multi-Objective Optimization",
        "2406.16232",
        "mtl_aggregators",
        DERIVED,
        (optim.aggregators.upgrad,),
        "T gradients",
    ),
    *_of_tasks(
        "mtl_aggregators",
        "1 gradient",
        (
            "Just Pick a Sign: Optimizing Deep Multitask Models with Gradient Sign Dropout",
            "2010.06808",
            optim.aggregators.graddrop_representation,
        ),
        ("Towards Impartial Multi-task Learning", None, optim.weighting.imtl_l),
    ),
    *_of_tasks(
        "mtl_loss_weighting",
        "T gradients",
        (
            "Dual-Balancing for Multi-Task Learning",
            "2308.12029",
            optim.aggregators.db_mtl,
        ),
        (
            "Dual-Balancing for Multi-Task Learning",
            "2308.12029",
            optim.aggregators.db_mtl_init,
        ),
        (
            "Dual-Balancing for Multi-Task Learning",
            "2308.12029",
            optim.aggregators.db_mtl_average,
        ),
        (
            "GradNorm: Gradient Normalization for Adaptive Loss Balancing in Deep Multitask "
            "Networks",
            "1711.02257",
            optim.weighting.gradnorm,
        ),
    ),
    *_of_tasks(
        "mtl_loss_weighting",
        "1 gradient",
        (
            "Multi-Task Learning Using Uncertainty to Weigh Losses for Scene Geometry and "
            "Semantics",
            "1705.07115",
            optim.weighting.uncertainty,
        ),
        ("End-to-End Multi-Task Learning with Attention", "1803.10704", optim.weighting.dwa),
        (
            "Reasonable Effectiveness of Random Weighting: A Litmus Test for Multi-Task Learning",
            "2111.10603",
            optim.weighting.rlw,
        ),
        (
            "MultiNet++: Multi-Stream Feature Aggregation and Geometric Loss Strategy for "
            "Multi-Task Learning",
            "1904.08492",
            optim.weighting.gls,
        ),
        (
            "Smooth Tchebycheff Scalarization for Multi-Objective Optimization",
            "2402.19078",
            optim.weighting.stch,
        ),
        (
            "Smooth Tchebycheff Scalarization for Multi-Objective Optimization",
            "2402.19078",
            optim.weighting.log_losses,
        ),
        (
            "FAMO: Fast Adaptive Multitask Optimization",
            "2306.03792",
            optim.weighting.famo_init,
        ),
        ("FAMO: Fast Adaptive Multitask Optimization", "2306.03792", optim.weighting.famo),
        ("FAMO: Fast Adaptive Multitask Optimization", "2306.03792", optim.weighting.famo_step),
    ),
)
