# SPDX-License-Identifier: Apache-2.0
"""Output layers: from features to scores.

A head's kernel is [d, V], features first, as in ``features @ kernel``; the class centres of a
harmonic head are its columns.
"""

from xloss.heads.decoupled import chunked_decoupled_softmax
from xloss.heads.gaussian_nb import (
    GaussianNBState,
    gaussian_nb_init,
    gaussian_nb_linear,
    gaussian_nb_logits,
    gaussian_nb_update,
)
from xloss.heads.grad_cache import grad_cache
from xloss.heads.harmonic import harmonic_logits, harmonic_statistics
from xloss.heads.linear import linear_statistics
from xloss.heads.logistic_regression import LogisticRegressionResult, logistic_regression
from xloss.heads.mean_loss import linear_mean_loss
from xloss.heads.pairwise import DISTANCES, pairwise_distance
from xloss.heads.ranking import linear_rank, linear_top_k
from xloss.heads.sampled import sampled_softmax
from xloss.heads.spherical import (
    sparse_squared_error,
    spherical_evaluation,
    spherical_statistics,
    spherical_step,
)
from xloss.heads.spherical_state import (
    SphericalState,
    spherical_check,
    spherical_init,
    spherical_stabilize,
    spherical_to_dense,
)

__all__ = [
    "DISTANCES",
    "GaussianNBState",
    "LogisticRegressionResult",
    "SphericalState",
    "chunked_decoupled_softmax",
    "gaussian_nb_init",
    "gaussian_nb_linear",
    "gaussian_nb_logits",
    "gaussian_nb_update",
    "grad_cache",
    "harmonic_logits",
    "harmonic_statistics",
    "linear_mean_loss",
    "linear_rank",
    "linear_statistics",
    "linear_top_k",
    "logistic_regression",
    "pairwise_distance",
    "sampled_softmax",
    "sparse_squared_error",
    "spherical_check",
    "spherical_evaluation",
    "spherical_init",
    "spherical_stabilize",
    "spherical_statistics",
    "spherical_step",
    "spherical_to_dense",
]
