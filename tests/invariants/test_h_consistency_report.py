# SPDX-License-Identifier: Apache-2.0
"""Hypothesis sets, growth rates and the report of a loss (spec h_consistency)."""

import functools
import math
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from xloss import consistency, surrogates
from xloss.classification import comp_sum, crammer_singer, cross_entropy
from xloss.consistency import AllFunctions, Linear, OneHiddenLayer, growth_rate, report

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("norm", [1, 2, math.inf])
def test_sets_of_weights_hold_the_model_and_are_the_smallest(norm):
    x = RNG.normal(size=(200, 5))
    w, b = RNG.normal(size=5), -0.7
    found = Linear.of_weights(w, b, norm=norm)
    assert np.all(np.abs(x @ w + b) <= found.bound(x) * (1 + 1e-12))
    # At the worst x of size 1 the model reaches A: no smaller set holds it.
    best = {1: np.eye(5)[np.argmax(np.abs(w))] * np.sign(w), 2: w / np.linalg.norm(w),
            math.inf: np.sign(w)}[norm]  # fmt: skip
    np.testing.assert_allclose(found.bound(-best[None])[0], abs(-best @ w + b), rtol=1e-12)
    kernel, bias, outer = RNG.normal(size=(5, 7)), RNG.normal(size=7), RNG.normal(size=7)
    net = OneHiddenLayer.of_weights(kernel, bias, outer, norm=norm)
    scores = np.maximum(x @ kernel + bias, 0.0) @ outer
    assert np.all(np.abs(scores) <= net.bound(x) * (1 + 1e-12))
    assert found.least == abs(b)
    np.testing.assert_allclose(net.least, np.abs(outer).sum() * np.abs(bias).max())
    assert AllFunctions().least == np.inf and np.all(np.isinf(AllFunctions().bound(x)))


@pytest.mark.parametrize(
    ("loss", "exponent", "constant"),
    [
        ("hinge", 1.0, 1.0), ("sigmoid", 1.0, 1.0), ("rho_margin", 1.0, 1.0),
        ("logistic", 2.0, 0.5), ("exponential", 2.0, 0.5), ("squared", 2.0, 1.0),
        ("squared_hinge", 2.0, 1.0), ("tangent", 2.0, 1.0), ("savage", 2.0, 0.25),
        (lambda u: jnp.exp(-u), 2.0, 0.5), (lambda u: abs(1 - u), 1.0, 1.0),
    ],
)  # fmt: skip
def test_smooth_losses_grow_like_the_square_and_kinks_linearly(loss, exponent, constant):
    found = growth_rate(loss)
    assert found.exponent == exponent
    np.testing.assert_allclose(found.constant, constant, rtol=0.01)
    # Bounded scores change the constant of the linear ones alone.
    within = growth_rate(loss, bound=0.5)
    assert within.exponent == exponent


def test_growth_says_where_there_is_none():
    for loss, words in (
        (lambda u: np.maximum(0.0, -u), "T is 0 near 0"),
        (lambda u: 1.0 - u, "no lower bound"),
    ):
        found = growth_rate(loss)
        assert math.isnan(found.exponent) and words in str(found)


def test_the_report_of_a_margin_loss_has_the_numbers_of_its_parts():
    hypotheses = Linear(2.0, 0.5)
    found = report("logistic", hypotheses=hypotheses, excess=0.02, alternatives=["hinge"])
    assert found and found.bound == 0.5
    np.testing.assert_allclose(found.values, surrogates.logistic(found.margins), rtol=1e-5)
    np.testing.assert_allclose(found.slopes, -1 / (1 + np.exp(found.margins)), rtol=1e-5)
    np.testing.assert_allclose(
        found.transform, consistency.h_transform("logistic", found.regrets, bound=0.5)
    )
    np.testing.assert_allclose(
        found.massart, consistency.massart_slope("logistic", [0.1, 0.25], bound=0.5)
    )
    for name in ("logistic", "hinge"):
        np.testing.assert_allclose(
            found.gammas[name],
            (consistency.h_gamma(name, 0.02, bound=0.5), consistency.h_gamma(name, 0.02)),
        )
    page = str(found).splitlines()
    assert len(page) <= 45 and max(map(len, page)) <= 100
    assert "square root" in found.verdict


def test_what_is_not_calibrated_or_cannot_be_decided_is_said_to_be():
    perceptron = report(lambda u: np.maximum(0.0, -u), alternatives=[])
    assert not perceptron and perceptron.verdict.startswith("NOT calibrated")
    unbounded = report(lambda u: 1.0 - u, alternatives=[])
    assert not unbounded and unbounded.verdict.startswith("undecided")
    assert np.isnan(unbounded.massart).all() and np.isnan(unbounded.gammas["phi"]).all()
    assert "  phi                                -" in str(unbounded)


def test_several_classes_are_tried_and_can_be_refuted():
    found = report(functools.partial(comp_sum, tau=0.5), num_classes=3, alternatives=[])
    assert found and found.verdict.startswith("no failure of calibration found")
    assert found.loss == "comp_sum(tau=0.5), 3 classes" and len(found.classes) == 4
    assert min(c.p.max() for c in found.classes) < 0.5
    np.testing.assert_allclose(
        found.several, consistency.comp_sum_gamma(0.01, tau=0.5, num_classes=3)
    )
    # Between two classes it is the margin loss of the same name.
    plain = report(surrogates.bind(surrogates.comp_sum, tau=0.5), alternatives=[])
    np.testing.assert_allclose(found.values, plain.values, rtol=1e-9)
    np.testing.assert_allclose(found.transform, plain.transform, rtol=1e-6)
    wrong = report(crammer_singer, num_classes=3, alternatives=[])
    assert not wrong and wrong.verdict.startswith("NOT calibrated for several classes")
    page = str(found).splitlines()
    assert len(page) <= 45 and max(map(len, page)) <= 100
    assert wrong.several == 1.0
    two = report(cross_entropy, num_classes=2, alternatives=[])
    assert two.classes == () and two.verdict.startswith("calibrated;")


def weighted_cross_entropy(weights, scores, labels):
    weights, rows = np.asarray(weights), np.arange(labels.size)
    return np.log(np.exp(scores - scores[rows, labels, None]).sum(1)) * weights[labels]


@pytest.mark.parametrize("weights", [(1.0, 5.0), (5.0, 1.0), (5.0, 1.0, 1.0), (5.0, 1.0, 5.0)])
def test_labels_that_are_not_alike_are_each_tried_in_front(weights):
    loss = functools.partial(weighted_cross_entropy, weights)
    found = report(loss, num_classes=len(weights), alternatives=[])
    assert not found and found.verdict.startswith("NOT calibrated")
    assert found.calibration is None


@pytest.mark.parametrize("count", [2, 3])
def test_labels_that_weigh_the_same_are_no_reason_to_refute(count):
    same = functools.partial(weighted_cross_entropy, np.full(count, 5.0))
    assert report(same, num_classes=count, alternatives=[])


@pytest.mark.parametrize("count", [2, 3])
def test_no_bound_is_made_of_a_loss_that_is_no_margin_loss_of_two_classes(count):
    def squares(scores, labels):
        return ((scores - np.eye(scores.shape[1])[labels]) ** 2).sum(1)

    found = report(squares, num_classes=count, excess=0.02, alternatives=["hinge"])
    assert found and found.verdict.endswith("no rate is known")
    # t^2 of phi(u) = (1 - u)^2 would promise 0.1414; scores (1/2, 1/2) at p = (0.4, 0.6) lose 0.2.
    surrogate = consistency.conditional_regret(squares, [0.5, 0.5], [0.4, 0.6])
    np.testing.assert_allclose(surrogate, 0.02, rtol=1e-6)
    assert np.isnan([*found.transform, *found.massart, *found.gammas["squares"]]).all()
    assert np.isfinite(found.gammas["hinge"]).all() and np.isnan(found.several)


def test_scores_without_a_least_risk_are_undecided():
    def endless(scores, labels):
        rows = np.arange(labels.size)
        return np.logaddexp(0.0, -scores[rows, labels]) + scores.sum(1) - scores[rows, labels]

    found = report(endless, num_classes=3, alternatives=[])
    assert not found and found.verdict.startswith("undecided")
    cubic = report(lambda u: -(u**3), alternatives=[])
    assert not cubic and cubic.verdict.startswith("undecided")
    assert "no lower bound" in str(cubic.growth) and np.isinf(cubic.transform).all()


def test_what_is_tried_of_many_classes_is_above_the_tolerance(monkeypatch):
    tried = []

    def record(loss, p):
        tried.append(p)
        return consistency.MulticlassReport(True, p, 0.0, np.zeros(50), np.inf, np.zeros(50))

    monkeypatch.setattr(sys.modules["xloss.consistency.report"], "multiclass_calibration", record)
    page = str(report(cross_entropy, num_classes=50, alternatives=[])).splitlines()
    assert len(page) <= 45 and max(map(len, page)) <= 100
    for p in tried:
        # A tie with the runner-up costs cross-entropy this much; the tolerance is 1e-6 log 50.
        np.testing.assert_allclose(p.sum(), 1.0, rtol=1e-12)
        tied = np.append(np.full(2, p[:2].mean()), p[2:])
        assert (p * np.log(p / tied)).sum() > 20e-6


def test_bad_arguments_are_named():
    for call, error, message in (
        (lambda: report("logistic", hypotheses="linear"), TypeError, "expected hypotheses"),
        (lambda: report("logistic", hypotheses=Linear(1.0, 0.0)), ValueError, "a bias > 0"),
        (lambda: report("logistic", excess=-1.0), ValueError, "excess"),
        (lambda: report("logisitc"), ValueError, "did you mean"),
        (lambda: report(lambda u: np.sqrt(u)), ValueError, "finite on"),
        (lambda: report(comp_sum, num_classes=1), ValueError, "num_classes"),
        (lambda: report(lambda z, y: z, num_classes=3), ValueError, "to losses"),
        (lambda: Linear(-1.0, 1.0), ValueError, "weight"),
        (lambda: Linear(1.0, 1.0, norm=3), ValueError, "norm"),
        (lambda: Linear.of_weights(np.ones([2, 2]), 1.0), ValueError, r"kernel \[d\]"),
        (lambda: OneHiddenLayer.of_weights(np.ones(3), 1.0, 1.0), ValueError, r"kernel \[d, h\]"),
        (lambda: Linear(1.0, 1.0).bound(np.ones(3)), ValueError, r"x \[N, d\]"),
    ):
        with pytest.raises(error, match=message):
            call()
