# SPDX-License-Identifier: Apache-2.0
"""Losses of logits and labels, one method per file.

``loss(scores, labels, *, <hyperparameters>, where=None) -> losses [...]`` where scores are logits
[..., K] or a LogitStatistics; see the package's docstring for the whole contract.
"""

from xloss.classification.comp_sum import comp_sum
from xloss.classification.cross_entropy import cross_entropy, soft_cross_entropy
from xloss.classification.decoupled_softmax import decoupled_softmax
from xloss.classification.ensloss import (
    ensloss,
    ensloss_derivatives,
    inverse_box_cox,
    sample_lam,
)
from xloss.classification.focal import focal
from xloss.classification.generalized_cross_entropy import generalized_cross_entropy
from xloss.classification.harmonic import harmonic
from xloss.classification.log_partition_penalty import log_partition_penalty
from xloss.classification.margin_loss import margin_loss
from xloss.classification.soft_top_k import log_soft_top_k, soft_top_k, soft_top_k_loss
from xloss.classification.spherical import spherical_softmax, taylor_softmax, z_loss

__all__ = [
    "comp_sum",
    "cross_entropy",
    "decoupled_softmax",
    "ensloss",
    "ensloss_derivatives",
    "focal",
    "generalized_cross_entropy",
    "harmonic",
    "inverse_box_cox",
    "log_partition_penalty",
    "log_soft_top_k",
    "margin_loss",
    "sample_lam",
    "soft_cross_entropy",
    "soft_top_k",
    "soft_top_k_loss",
    "spherical_softmax",
    "taylor_softmax",
    "z_loss",
]
