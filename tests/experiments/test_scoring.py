# SPDX-License-Identifier: Apache-2.0
"""Numbers of an evaluation against hand computation, scikit-learn, and exact tails."""

import math

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, log_loss

from experiments.scoring import (
    correct_predictions,
    evaluation_metrics,
    expected_calibration_error,
    reliability_bins,
    true_class_log_odds,
)


def test_calibration_error_of_a_hand_computed_case():
    # Confidence 0.9 (bin 13, from 0, three of four right) and 0.65 (bin 9, one of two right).
    confidence = np.array([0.9, 0.9, 0.9, 0.9, 0.65, 0.65])
    labels = np.array([1, 1, 1, 0, 1, 0])
    scores = np.log(confidence / (1 - confidence))
    bins = reliability_bins(scores, labels, "binary")
    assert np.flatnonzero(bins.counts).tolist() == [9, 13]
    assert bins.counts[[9, 13]].tolist() == [2, 4]
    np.testing.assert_allclose(bins.confidence[[9, 13]], [0.65, 0.9])
    np.testing.assert_allclose(bins.accuracy[[9, 13]], [0.5, 0.75])
    expected = (4 * abs(0.75 - 0.9) + 2 * abs(0.5 - 0.65)) / 6
    assert expected_calibration_error(bins) == pytest.approx(expected, rel=1e-12)
    found = evaluation_metrics(scores, labels, "binary")
    assert found["expected_calibration_error"] == pytest.approx(expected, rel=1e-12)


def test_a_bin_holds_its_right_edge():
    bins = reliability_bins([[0.0, 0.0]], [0], "multiclass", bins=2)
    assert bins.counts.tolist() == [1, 0]


def test_multiclass_agrees_with_scikit_learn():
    rng = np.random.default_rng(0)
    scores, labels = rng.normal(0, 2, (200, 7)), rng.integers(0, 7, 200)
    probabilities = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    found = evaluation_metrics(scores, labels, "multiclass")
    assert found["accuracy"] == accuracy_score(labels, scores.argmax(axis=1))
    expected = log_loss(labels, probabilities, labels=range(7))
    assert found["cross_entropy"] == pytest.approx(expected, rel=1e-12)
    p = probabilities[np.arange(200), labels]
    assert found["mean_log_odds"] == pytest.approx(np.mean(np.log(p / (1 - p))), rel=1e-12)


def test_binary_equals_the_two_class_logits():
    rng = np.random.default_rng(1)
    scores, labels = rng.normal(0, 3, 100), rng.integers(0, 2, 100)
    logits = np.stack([np.zeros(100), scores], axis=1)
    two_class = evaluation_metrics(logits, labels, "multiclass")
    assert evaluation_metrics(scores, labels, "binary") == pytest.approx(two_class, rel=1e-12)


@pytest.mark.parametrize("offset", [0.0, 1024.0])
def test_confident_predictions_keep_their_tail(offset):
    logits = np.array([[50.0, 0.0, 0.0]]) + offset
    expected = 50 - math.log(2)
    assert true_class_log_odds(logits, [0], "multiclass")[0] == pytest.approx(expected, rel=1e-13)
    found = evaluation_metrics(logits.astype(np.float32), [0], "multiclass")
    # log-sum-exp over all classes gives exactly 0 here, 1 - p an infinite log-odds.
    assert found["cross_entropy"] == pytest.approx(2 * math.exp(-50), rel=1e-10)
    binary = evaluation_metrics(np.array([-50.0]), np.array([0]), "binary")
    assert binary["cross_entropy"] == pytest.approx(math.exp(-50), rel=1e-12)


def test_masked_classes_ties_and_nan():
    inf, nan = math.inf, math.nan
    scores = [[1.0, -inf, -inf], [2.0, 2.0, 0.0], [nan, 0.0, 0.0], [0.0, 3.0, -inf]]
    labels = [0, 0, 0, 1]
    assert correct_predictions(scores, labels, "multiclass").tolist() == [True, False, False, True]
    log_odds = true_class_log_odds(scores, labels, "multiclass")
    assert log_odds[0] == inf
    assert log_odds[3] == pytest.approx(3.0)
    found = evaluation_metrics(scores, labels, "multiclass")
    assert found["accuracy"] == 0.5
    assert math.isnan(found["cross_entropy"])
    assert math.isnan(found["expected_calibration_error"])
    # One class only: nothing is left to confuse it with.
    assert evaluation_metrics([[3.0]], [0], "multiclass")["cross_entropy"] == 0.0


@pytest.mark.parametrize(
    ("scores", "labels", "task", "message"),
    [
        ([[1.0, 2.0]], [0], "ranking", "task: expected 'multiclass' or 'binary', got 'ranking'"),
        ([1.0, 2.0], [0, 1], "multiclass", r"expected \[N, K\] .* got \[2\] with \[2\]"),
        ([[1.0, 2.0]], [0], "binary", r"expected \[N\] .* got \[1, 2\] with \[1\]"),
        ([[1.0, 2.0]], [0, 1], "multiclass", r"got \[1, 2\] with \[2\]"),
        ([[1.0, 2.0]], [2], "multiclass", r"labels: expected integers in \[0, 2\), got int64 in"),
        ([1.0], [-1], "binary", r"labels: expected integers in \[0, 2\)"),
        ([1.0], [1.0], "binary", "got float64"),
        (np.zeros((0, 3)), np.zeros(0, int), "multiclass", "N > 0"),
    ],
)
def test_bad_input_names_what_was_expected(scores, labels, task, message):
    with pytest.raises(ValueError, match=message):
        evaluation_metrics(scores, labels, task)
