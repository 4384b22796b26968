# SPDX-License-Identifier: Apache-2.0
"""xloss: loss functions and loss-aware optimizers of the literature, for JAX.

One contract for every loss::

    losses = loss(scores, labels, *, <hyperparameters>, where=None, key=None)   # [...], float32
    objective = xloss.reduce(losses, where=..., weights=...)                    # scalar

``scores`` are logits [..., K], or a LogitStatistics from any output layer. Labels out of range
give NaN, a masked example gives exactly 0 for loss and gradient, nothing is broadcast.

Where to look: ``xloss.classification`` (logits and labels), ``xloss.adversarial`` (attacks and what
to train against them), ``xloss.surrogates`` (functions of a margin), ``xloss.heads`` (output
layers), ``xloss.optim`` (optax transforms), ``xloss.consistency`` (is it calibrated, what does its
excess guarantee), ``xloss.catalogue`` (all of it with its papers). ``xloss.get("comp_sum")`` finds
one by name, ``xloss.cite("comp_sum")`` its paper in BibTeX.
"""

from xloss import (
    adversarial,
    catalogue,
    classification,
    consistency,
    diagnostics,
    heads,
    optim,
    surrogates,
)
from xloss.catalogue import cite, get
from xloss.reduction import reduce
from xloss.statistics import (
    LogitStatistics,
    as_statistics,
    binary_statistics,
    logit_statistics,
)

__version__ = "0.1.0.dev0"

__all__ = [
    "LogitStatistics",
    "adversarial",
    "as_statistics",
    "binary_statistics",
    "catalogue",
    "cite",
    "classification",
    "consistency",
    "diagnostics",
    "get",
    "heads",
    "logit_statistics",
    "optim",
    "reduce",
    "surrogates",
]
