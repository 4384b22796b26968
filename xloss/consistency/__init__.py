# SPDX-License-Identifier: Apache-2.0
"""Statements about losses: calibration, transforms, excess bounds, gaps.

Offline analysis on the host, float64 NumPy in and out; nothing here is meant for jit. A margin loss
is given by name ("logistic", "logistic_base2", ...), as a function of ``xloss.surrogates``, bound
to its hyperparameters with ``surrogates.bind``, or as any function of a margin of your own::

    print(consistency.report(lambda u: jnp.exp(-u)))  # one page
    print(consistency.is_calibrated(lambda u: jnp.exp(-u)))
    consistency.h_consistency_bound(0.01, loss="logistic", bound=2.0, gap_surrogate=0.003)
"""

from xloss.consistency.bounds import (
    h_consistency_bound,
    linear_bound,
    massart_slope,
    nn_bound,
    softmax_range,
)
from xloss.consistency.calibration import CalibrationReport, is_calibrated
from xloss.consistency.comp_sum import (
    comp_sum_conditional_min,
    comp_sum_gamma,
    comp_sum_gap_upper_bound,
    comp_sum_transform,
)
from xloss.consistency.comp_sum_exact import comp_sum_transform_exact
from xloss.consistency.conditional import min_conditional_risk
from xloss.consistency.envelope import convex_envelope
from xloss.consistency.gaps import Gap, linear_minimizability_gap, minimizability_gap
from xloss.consistency.growth import Growth, growth_rate
from xloss.consistency.host import logistic_base2
from xloss.consistency.hypotheses import AllFunctions, HypothesisSet, Linear, OneHiddenLayer
from xloss.consistency.multiclass import (
    MulticlassReport,
    conditional_minimum,
    conditional_regret,
    conditional_risk,
    multiclass_calibration,
    zero_one_regret,
)
from xloss.consistency.report import ConsistencyReport, report
from xloss.consistency.sample_complexity import regime_crossing, samples_to_reach
from xloss.consistency.transforms import h_gamma, h_transform, psi_transform

__all__ = [
    "AllFunctions",
    "CalibrationReport",
    "ConsistencyReport",
    "Gap",
    "Growth",
    "HypothesisSet",
    "Linear",
    "MulticlassReport",
    "OneHiddenLayer",
    "comp_sum_conditional_min",
    "comp_sum_gamma",
    "comp_sum_gap_upper_bound",
    "comp_sum_transform",
    "comp_sum_transform_exact",
    "conditional_minimum",
    "conditional_regret",
    "conditional_risk",
    "convex_envelope",
    "growth_rate",
    "h_consistency_bound",
    "h_gamma",
    "h_transform",
    "is_calibrated",
    "linear_bound",
    "linear_minimizability_gap",
    "logistic_base2",
    "massart_slope",
    "min_conditional_risk",
    "minimizability_gap",
    "multiclass_calibration",
    "nn_bound",
    "psi_transform",
    "regime_crossing",
    "report",
    "samples_to_reach",
    "softmax_range",
    "zero_one_regret",
]
