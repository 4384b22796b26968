# SPDX-License-Identifier: Apache-2.0
"""What to look at beside the loss.

Stability of training (attention logits, sensitivity to the learning rate), spectra of features
and weights (explained variance, effective rank, CKA), geometry of embeddings (circle, lattice).
"""

from xloss.diagnostics.crystals import (
    circle_metric,
    equivalence_metric,
    greater_metric,
    lattice_metric,
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
    "attention_logit_statistics",
    "attention_logits",
    "circle_metric",
    "components_for",
    "effective_rank",
    "equivalence_metric",
    "explained_variance",
    "explained_variance_ratios",
    "greater_metric",
    "lattice_metric",
    "linear_cka",
    "lr_sensitivity",
    "matrix_effective_rank",
    "participation_ratio",
    "qk_layernorm",
]
