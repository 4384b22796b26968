# SPDX-License-Identifier: Apache-2.0
"""How good a set of scores is: the numbers of an evaluation, on the host and in float64.

Reach for `evaluation_metrics` for the four numbers that a run is judged by, and for the functions
beside it where a picture needs the values of each example. They take the scores and labels of a
whole split at once, so nothing here depends on batches or devices. Probabilities near 1 keep their
tail: losses and log-odds are taken against the classes other than the true one.
"""

from typing import Any, NamedTuple

import numpy as np
from scipy.special import expit, log_expit, logsumexp, softmax


class ReliabilityBins(NamedTuple):
    """Confidence against accuracy, bin by bin; empty bins have confidence and accuracy 0.

    Attributes:
      edges: float64 [bins + 1], from 0 to 1; a bin holds its right edge, not its left one.
      counts: int [bins], examples in each bin.
      confidence: float64 [bins], mean confidence of the bin's examples.
      accuracy: float64 [bins], share of the bin's examples that are classified correctly.
    """

    edges: np.ndarray
    counts: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray


def true_class_log_odds(scores: Any, labels: Any, task: str) -> np.ndarray:
    """Log-odds of the true class in float64: `log(p_y / (1 - p_y))`, > 0 iff p_y > 1/2.

    Taken against the log-sum-exp over the OTHER classes, never from the probability: at a logit gap
    of 50 a float64 probability is exactly 1, and its log-odds would be infinite.

    Args:
      scores: [N, K] logits for "multiclass", [N] scores of class 1 for "binary".
      labels: [N] integers in [0, K).
      task: "multiclass" or "binary".

    Returns:
      float64 [N]; infinite where only one class has a finite logit.

    Raises:
      ValueError: shapes, labels or task are not as said above, or N is 0.
    """
    return _log_odds(*_checked(scores, labels, task))


def correct_predictions(scores: Any, labels: Any, task: str) -> np.ndarray:
    """Whether each example is classified correctly: the true class has the one largest score.

    Args and Raises: as `true_class_log_odds`.

    Returns:
      bool [N]. A tie counts as wrong, as `LogitStatistics.lead > 0` has it, and so does NaN.
    """
    return _correct(*_checked(scores, labels, task))


def reliability_bins(scores: Any, labels: Any, task: str, *, bins: int = 15) -> ReliabilityBins:
    """Sorts examples into equal-width bins of confidence, the probability of the predicted class.

    A binary score f is read as the two logits (0, f), so that confidence lies in [1/2, 1].

    Args: as `true_class_log_odds`, and `bins`, their number.

    References: Guo et al., On Calibration of Modern Neural Networks, ICML 2017, arXiv:1706.04599.
    """
    scores, labels = _checked(scores, labels, task)
    with np.errstate(invalid="ignore"):
        confidence = (
            expit(np.abs(scores)) if scores.ndim == 1 else softmax(scores, axis=-1).max(axis=-1)
        )
    edges = np.linspace(0.0, 1.0, bins + 1)
    index = np.digitize(confidence, edges[1:-1], right=True)
    counts = np.bincount(index, minlength=bins)
    size = np.maximum(counts, 1)
    hits = np.bincount(index, weights=_correct(scores, labels), minlength=bins)
    mass = np.bincount(index, weights=confidence, minlength=bins)
    return ReliabilityBins(edges, counts, mass / size, hits / size)


def expected_calibration_error(bins: ReliabilityBins) -> float:
    """Mean over the examples of |accuracy - confidence| of the bin that they fall in; in [0, 1]."""
    share = bins.counts / bins.counts.sum()
    return float(np.sum(share * np.abs(bins.accuracy - bins.confidence)))


def evaluation_metrics(scores: Any, labels: Any, task: str) -> dict[str, float]:
    """The numbers that a run is judged by, over one split.

    Args:
      scores: [N, K] logits for "multiclass", [N] scores of class 1 for "binary"; any float dtype.
      labels: [N] integers in [0, K).
      task: "multiclass" or "binary".

    Returns:
      "accuracy", "cross_entropy" (nats, mean), "expected_calibration_error" (15 equal-width bins)
      and "mean_log_odds" (of the true class). NaN scores give NaN, except that they are wrong for
      accuracy.

    Raises:
      ValueError: shapes, labels or task are not as said above, or N is 0.
    """
    scores, labels = _checked(scores, labels, task)
    log_odds = _log_odds(scores, labels)
    return {
        "accuracy": float(np.mean(_correct(scores, labels))),
        "cross_entropy": float(np.mean(-log_expit(log_odds))),
        "expected_calibration_error": expected_calibration_error(
            reliability_bins(scores, labels, task)
        ),
        "mean_log_odds": float(np.mean(log_odds)),
    }


def _checked(scores: Any, labels: Any, task: str) -> tuple[np.ndarray, np.ndarray]:
    scores, labels = np.asarray(scores, np.float64), np.asarray(labels)
    if task not in ("multiclass", "binary"):
        raise ValueError(f"task: expected 'multiclass' or 'binary', got {task!r}")
    wanted = "[N, K]" if task == "multiclass" else "[N]"
    if scores.ndim != len(wanted.split(",")) or labels.shape != scores.shape[:1] or not labels.size:
        raise ValueError(
            f"scores: expected {wanted} with labels [N], N > 0, for the {task} task, "
            f"got {list(scores.shape)} with {list(labels.shape)}"
        )
    classes = scores.shape[1] if task == "multiclass" else 2
    if labels.dtype.kind not in "iu" or labels.min() < 0 or labels.max() >= classes:
        raise ValueError(
            f"labels: expected integers in [0, {classes}), "
            f"got {labels.dtype} in [{labels.min()}, {labels.max()}]"
        )
    return scores, labels


def _split_scores(scores: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    rows = np.arange(len(labels))
    others = scores.copy()
    others[rows, labels] = -np.inf
    return scores[rows, labels], others


def _log_odds(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    if scores.ndim == 1:
        return np.where(labels == 1, scores, -scores)
    target, others = _split_scores(scores, labels)
    with np.errstate(invalid="ignore"):
        return target - logsumexp(others, axis=-1)


def _correct(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    if scores.ndim == 1:
        return _log_odds(scores, labels) > 0
    target, others = _split_scores(scores, labels)
    return target > others.max(axis=-1)
