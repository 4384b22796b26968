# SPDX-License-Identifier: Apache-2.0
"""What to look at beside the loss.

Stability of training (attention logits, sensitivity to the learning rate), spectra of features
and weights (explained variance, effective rank, CKA), geometry of embeddings (circle, lattice),
measures that are said to go with the generalization gap (margins, norms, PAC-Bayes) and whether
they do (rank correlations), with a warning about what they cannot do in ``generalization``.
"""

from xloss.diagnostics.correlations import CorrelationReport, correlation_report
from xloss.diagnostics.crystals import (
    circle_metric,
    equivalence_metric,
    greater_metric,
    lattice_metric,
)
from xloss.diagnostics.generalization import norm_measures
from xloss.diagnostics.layer_norms import (
    conv_spectral_norm,
    log_path_norm,
    path_norm,
    spectral_norm,
)
from xloss.diagnostics.margin import margin_percentile, margins
from xloss.diagnostics.pac_bayes import pac_bayes_measures, pac_bayes_sigma
from xloss.diagnostics.rank_correlation import (
    granulated_kendall,
    kendall_tau,
    sign_error,
    single_change_environments,
)
from xloss.diagnostics.spectrum import (
    components_for,
    effective_rank,
    explained_variance,
    explained_variance_ratios,
    linear_cka,
    matrix_effective_rank,
    participation_ratio,
)
from xloss.diagnostics.training import (
    attention_logit_statistics,
    attention_logits,
    lr_sensitivity,
    qk_layernorm,
)

__all__ = [
    "CorrelationReport",
    "attention_logit_statistics",
    "attention_logits",
    "circle_metric",
    "components_for",
    "conv_spectral_norm",
    "correlation_report",
    "effective_rank",
    "equivalence_metric",
    "explained_variance",
    "explained_variance_ratios",
    "granulated_kendall",
    "greater_metric",
    "kendall_tau",
    "lattice_metric",
    "linear_cka",
    "log_path_norm",
    "lr_sensitivity",
    "margin_percentile",
    "margins",
    "matrix_effective_rank",
    "norm_measures",
    "pac_bayes_measures",
    "pac_bayes_sigma",
    "participation_ratio",
    "path_norm",
    "qk_layernorm",
    "sign_error",
    "single_change_environments",
    "spectral_norm",
]
