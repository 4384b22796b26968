# SPDX-License-Identifier: Apache-2.0
"""Losses of logits and labels, one method per file.

``loss(scores, labels, *, <hyperparameters>, where=None) -> losses [...]`` where scores are logits
[..., K] or a LogitStatistics; see the package's docstring for the whole contract.
"""

from xloss.classification.aldr import ALDRState, aldr_kl, aldr_kl_step, aldr_lam, init_aldr
from xloss.classification.anyloss import SoftConfusionMatrix, anyloss, soft_confusion_matrix
from xloss.classification.asymmetric import (
    asymmetric_generalized_cross_entropy,
    asymmetric_unhinged,
)
from xloss.classification.brier import brier
from xloss.classification.comp_sum import comp_sum
from xloss.classification.coverage import (
    coverage,
    coverage_nats,
    coverage_weight,
    direct_coverage,
    pass_at_k,
)
from xloss.classification.cross_entropy import cross_entropy, soft_cross_entropy
from xloss.classification.decoupled_softmax import decoupled_softmax
from xloss.classification.dice import dice, hard_negative_mask, tversky
from xloss.classification.ensloss import (
    ensloss,
    ensloss_derivatives,
    inverse_box_cox,
    sample_lam,
)
from xloss.classification.equity import (
    cluster_likelihood,
    embedding_likelihood,
    equity_weight,
    likelihood_weighted_focal,
)
from xloss.classification.focal import focal
from xloss.classification.generalized_cross_entropy import generalized_cross_entropy
from xloss.classification.harmonic import harmonic
from xloss.classification.jensen_shannon import jensen_shannon
from xloss.classification.ldr import ldr_kl
from xloss.classification.log_partition_penalty import log_partition_penalty
from xloss.classification.margin_loss import margin_loss
from xloss.classification.max_margin import crammer_singer, weston_watkins
from xloss.classification.normalized_cross_entropy import active_passive, normalized_cross_entropy
from xloss.classification.poly_loss import poly_loss
from xloss.classification.robust_log_loss import robust_log_loss
from xloss.classification.soft_top_k import log_soft_top_k, soft_top_k, soft_top_k_loss
from xloss.classification.spherical import spherical_softmax, taylor_softmax, z_loss
from xloss.classification.symmetric_cross_entropy import (
    mean_absolute_error,
    reverse_cross_entropy,
    symmetric_cross_entropy,
)
from xloss.classification.truncated_generalized_cross_entropy import (
    truncated_generalized_cross_entropy,
)

__all__ = [
    "ALDRState",
    "SoftConfusionMatrix",
    "active_passive",
    "aldr_kl",
    "aldr_kl_step",
    "aldr_lam",
    "anyloss",
    "asymmetric_generalized_cross_entropy",
    "asymmetric_unhinged",
    "brier",
    "cluster_likelihood",
    "comp_sum",
    "coverage",
    "coverage_nats",
    "coverage_weight",
    "crammer_singer",
    "cross_entropy",
    "decoupled_softmax",
    "dice",
    "direct_coverage",
    "embedding_likelihood",
    "ensloss",
    "ensloss_derivatives",
    "equity_weight",
    "focal",
    "generalized_cross_entropy",
    "hard_negative_mask",
    "harmonic",
    "init_aldr",
    "inverse_box_cox",
    "jensen_shannon",
    "ldr_kl",
    "likelihood_weighted_focal",
    "log_partition_penalty",
    "log_soft_top_k",
    "margin_loss",
    "mean_absolute_error",
    "normalized_cross_entropy",
    "pass_at_k",
    "poly_loss",
    "reverse_cross_entropy",
    "robust_log_loss",
    "sample_lam",
    "soft_confusion_matrix",
    "soft_cross_entropy",
    "soft_top_k",
    "soft_top_k_loss",
    "spherical_softmax",
    "symmetric_cross_entropy",
    "taylor_softmax",
    "truncated_generalized_cross_entropy",
    "tversky",
    "weston_watkins",
    "z_loss",
]
