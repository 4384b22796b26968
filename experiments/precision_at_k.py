# SPDX-License-Identifier: Apache-2.0
"""Precision at k of several labels an example, plain and weighted by propensity, on the host."""

from collections.abc import Sequence

import numpy as np


def propensities(label_counts: np.ndarray, examples: int, *, a: float, b: float) -> np.ndarray:
    """How likely a true label is to have been noted, by its frequency (Jain et al., 2016).

    Definition: 1 / (1 + C exp(-a log(N_l + b))), C = (log N - 1) (b + 1)^a.

    Args:
      label_counts: N_l [L], training examples with the label.
      examples: N >= 3, training examples.
      a: 0.55 where nothing better is known.
      b: 1.5 likewise.
    """
    scale = (np.log(examples) - 1.0) * (b + 1.0) ** a
    return 1.0 / (1.0 + scale * (np.asarray(label_counts, np.float64) + b) ** -a)


def precision_at_k(
    scores: np.ndarray, labels: np.ndarray, ks: Sequence[int], propensity: np.ndarray
) -> dict[str, float]:
    """The share of true labels among the k greatest scores.

    Args:
      scores: [N, L]; of equal ones, and of NaN, the one of the smaller label comes first, NaN last.
      labels: [N, L] of 0 and 1. An example without a label has precision 0, and counts.
      ks: each from 1 to L.
      propensity: [L], in (0, 1].

    Returns:
      precision_K, the mean over examples; propensity_precision_K, the same with every hit weighted
      by 1 / propensity, over what the best order would reach (as the extreme classification
      repository has it).
    """
    order = np.argsort(-np.asarray(scores, np.float64), axis=-1, kind="stable")[:, : max(ks)]
    hits = np.take_along_axis(labels, order, axis=-1).astype(np.float64)
    weights = labels / propensity[None, :]
    best = -np.sort(-weights, axis=-1)[:, : max(ks)]
    gained = np.take_along_axis(weights, order, axis=-1)
    found = {}
    for k in ks:
        found[f"precision_{k}"] = float(np.mean(hits[:, :k]))
        reachable = float(np.sum(best[:, :k]))
        found[f"propensity_precision_{k}"] = (
            float(np.sum(gained[:, :k])) / reachable if reachable else 0.0
        )
    return found
