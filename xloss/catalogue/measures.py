# SPDX-License-Identifier: Apache-2.0
"""The rows of the measures that are said to go with the generalization gap."""

from collections.abc import Callable, Iterator
from typing import Any

from xloss import diagnostics
from xloss.catalogue.rows import AUTHORS_CODE, DERIVED, Method, of_paper


def _measures(
    title: str, arxiv: str, evidence: str, *functions: Callable[..., Any], cost: str = ""
) -> Iterator[Method]:
    yield from of_paper(title, arxiv, "generalization_measures", evidence, functions, cost)


MEASURES: tuple[Method, ...] = (
    *_measures(
        "Fantastic Generalization Measures and Where to Find Them",
        "1912.02178",
        AUTHORS_CODE,
        diagnostics.margins,
        diagnostics.margin_percentile,
        diagnostics.pac_bayes_measures,
        diagnostics.kendall_tau,
    ),
    *_measures(
        "Fantastic Generalization Measures and Where to Find Them",
        "1912.02178",
        AUTHORS_CODE,
        diagnostics.norm_measures,
        diagnostics.spectral_norm,
        cost="an SVD a kernel",
    ),
    *_measures(
        "The Singular Values of Convolutional Layers",
        "1805.10408",
        AUTHORS_CODE,
        diagnostics.conv_spectral_norm,
        cost="an SVD a frequency",
    ),
    *_measures(
        "Norm-Based Capacity Control in Neural Networks",
        "1503.00036",
        AUTHORS_CODE,
        diagnostics.path_norm,
        cost="1 forward pass",
    ),
    *_measures(
        "Norm-Based Capacity Control in Neural Networks",
        "1503.00036",
        DERIVED,
        diagnostics.log_path_norm,
        cost="as much as 1 example",
    ),
    *_measures(
        "Fantastic Generalization Measures and Where to Find Them",
        "1912.02178",
        DERIVED,
        diagnostics.pac_bayes_sigma,
        cost="151 passes over the data",
    ),
    *_measures(
        "Fantastic Generalization Measures and Where to Find Them",
        "1912.02178",
        DERIVED,
        diagnostics.granulated_kendall,
    ),
    *_measures(
        "In Search of Robust Measures of Generalization",
        "2010.11924",
        AUTHORS_CODE,
        diagnostics.sign_error,
    ),
    *_measures(
        "In Search of Robust Measures of Generalization",
        "2010.11924",
        DERIVED,
        diagnostics.single_change_environments,
    ),
    *_measures(
        "Fantastic Generalization Measures are Nowhere to be Found",
        "2309.13658",
        DERIVED,
        diagnostics.correlation_report,
        cost="host",
    ),
)
