# SPDX-License-Identifier: Apache-2.0
"""What the excess of a comp-sum loss guarantees: T, Gamma, conditional minima, gaps."""

import numpy as np
import pytest

from experiments.benchmarks.consistency import LOOSE, TIGHT, try_comp_sum
from xloss import consistency
from xloss.classification import comp_sum

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(scale=3.0, size=(40, 7))
LABELS = RNG.integers(0, 7, 40)
TAUS = np.linspace(0.0, 3.0, 13)

BETA = np.linspace(0.0, 1.0, 21)
PAIRS = (*TIGHT, *LOOSE)


def exact_for_three_classes(beta, tau):
    """Least regret at zero-one regret beta, by brute force over all p of three classes."""
    top = np.linspace(max(beta, (1 + beta) / 3), (1 + beta) / 2, 20_001)
    last = top - beta
    p = np.stack([top, last, np.maximum(1 - top - last, 0)], axis=-1)
    # The predicted class (the second) shares its score with every class that would be above.
    both = (p[:, 0] + p[:, 1]) / 2
    pooled = np.where((p[:, 2] > both)[:, None], 1 / 3, np.stack([both, both, p[:, 2]], -1))
    least, _ = consistency.comp_sum_conditional_min(p, tau=tau)
    _, scores = consistency.comp_sum_conditional_min(pooled, tau=tau)
    power = np.log(scores) if tau == 1 else (scores ** (tau - 1) - 1) / (tau - 1)
    return (-np.where(p > 0, p * power, 0).sum(-1) - least).min()


@pytest.mark.parametrize("tau", [0.5, 1.0, 1.2, 1.5, 1.9])
def test_exact_transform_agrees_with_brute_force_over_three_classes(tau):
    with np.errstate(divide="ignore", invalid="ignore"):
        brute = [exact_for_three_classes(beta, tau) for beta in BETA[1:-1]]
    exact = consistency.comp_sum_transform_exact(BETA[1:-1], tau=tau, num_classes=3)
    np.testing.assert_allclose(exact, brute, rtol=1e-4)


@pytest.mark.parametrize(("tau", "n"), PAIRS)
def test_exact_transform_equals_the_closed_form_where_tight_and_is_above_elsewhere(tau, n):
    exact = consistency.comp_sum_transform_exact(BETA, tau=tau, num_classes=n)
    closed = consistency.comp_sum_transform(BETA, tau=tau, num_classes=n)
    assert (exact >= closed - 1e-12).all()
    if (tau, n) in TIGHT:
        np.testing.assert_allclose(exact, closed, atol=1e-6)
    else:
        assert exact[-1] > closed[-1] + 1e-3
        # Never above the value of the restricted search that the closed form was compared with.
        if (tau, n) == (1.5, 3):
            assert closed[10] < exact[10] <= 0.1670


@pytest.mark.parametrize(("tau", "n"), PAIRS)
def test_bound_holds_on_10000_random_problems_and_is_attained_where_tight(tau, n):
    trial = try_comp_sum(tau, n)
    assert trial.violations == 0
    if (tau, n) in TIGHT:
        assert trial.best_ratio >= 0.95


@pytest.mark.parametrize(("tau", "n"), LOOSE)
def test_regret_is_never_below_the_exact_transform(tau, n):
    p = RNG.dirichlet(np.full(n, 0.5), 250)
    scores = RNG.normal(scale=2.0, size=p.shape)
    least, _ = consistency.comp_sum_conditional_min(p, tau=tau)
    regret = consistency.conditional_regret(
        lambda z, y: comp_sum(z, y, tau=tau), scores, p, minimum=least
    )
    beta = consistency.zero_one_regret(scores, p)
    exact = consistency.comp_sum_transform_exact(beta, tau=tau, num_classes=n)
    assert (exact <= regret + 1e-9).all()


@pytest.mark.parametrize(("tau", "n"), PAIRS)
def test_transform_is_increasing_and_convex_and_gamma_inverts_it(tau, n):
    value = consistency.comp_sum_transform(BETA, tau=tau, num_classes=n)
    assert value[0] == 0.0
    assert (np.diff(value) > 0).all() and (np.diff(value, 2) >= -1e-12).all()
    gamma = consistency.comp_sum_gamma(value, tau=tau, num_classes=n)
    np.testing.assert_allclose(gamma, BETA, rtol=1e-7)
    assert consistency.comp_sum_gamma(1.01 * value[-1], tau=tau, num_classes=n) == 1.0


@pytest.mark.parametrize(("tau", "n"), PAIRS)
def test_gamma_is_below_its_simple_upper_bound(tau, n):
    z = np.geomspace(1e-9, 1.0, 80)
    gamma = consistency.comp_sum_gamma(z, tau=tau, num_classes=n)
    upper = consistency.comp_sum_gamma(z, tau=tau, num_classes=n, upper=True)
    assert (gamma <= upper * (1 + 1e-9)).all()


def test_transform_keeps_its_digits_at_tau_one_near_two_and_at_small_beta():
    # beta^2 / 2 + O(beta^4) at tau = 1, and continuous through tau = 1 and up to tau = 2.
    small = consistency.comp_sum_transform(1e-7, tau=1.0)
    np.testing.assert_allclose(small, 0.5e-14, rtol=1e-8)
    at_one = consistency.comp_sum_transform(BETA, tau=1.0)
    for tau in (1 - 1e-9, 1 + 1e-9):
        np.testing.assert_allclose(
            consistency.comp_sum_transform(BETA, tau=tau), at_one, rtol=1e-6, atol=1e-15
        )
    nearly = consistency.comp_sum_transform(BETA, tau=2 - 1e-6, num_classes=7)
    np.testing.assert_allclose(nearly, BETA / 7, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("tau", [0.0, 0.5, 1.0, 1.5, 1.99, 2.0, 3.0])
def test_conditional_minimum_is_below_every_risk_and_reached_at_its_softmax(tau):
    p = RNG.dirichlet(np.full(4, 0.7), 300)
    p[0], p[1] = [1, 0, 0, 0], 0.25
    value, softmax = consistency.comp_sum_conditional_min(p, tau=tau)
    np.testing.assert_allclose(softmax.sum(-1), 1.0)

    def risk(scores):
        return consistency.conditional_risk(lambda z, y: comp_sum(z, y, tau=tau), scores, p)

    assert (risk(RNG.normal(scale=3.0, size=p.shape)) >= value - 1e-12).all()
    with np.errstate(divide="ignore"):
        at_best = risk(np.maximum(np.log(softmax), -700.0))
    np.testing.assert_allclose(at_best, value, rtol=1e-9, atol=1e-12)


def test_gap_bound_falls_with_tau_and_covers_the_gap_of_a_constant_class():
    taus = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0)
    bounds = [
        consistency.comp_sum_gap_upper_bound(2.0, num_classes=5, bound=1.5, tau=t) for t in taus
    ]
    assert (np.diff(bounds) < 0).all()
    # Two certain labels, the same score vector at both points, scores within [-1, 1].
    scores = RNG.uniform(-1, 1, (3000, 1, 3)) + np.zeros((2, 1))
    scores[0], scores[1, 0], scores[1, 1] = [1.0, 1.0, -1.0], [1.0, -1.0, -1.0], [1.0, -1.0, -1.0]
    labels = np.broadcast_to(np.eye(3)[:2], scores.shape)
    risks = [
        consistency.conditional_risk(lambda z, y, t=t: comp_sum(z, y, tau=t), scores, labels)
        for t in taus
    ]
    best = risks[0].mean(-1).min()
    for tau, table in zip(taus, risks, strict=True):
        # The least risk at a point is that of the whole range of scores.
        pointwise = consistency.conditional_risk(
            lambda z, y, t=tau: comp_sum(z, y, tau=t), [1.0, -1.0, -1.0], [1.0, 0.0, 0.0]
        )
        gap = table.mean(-1).min() - pointwise
        upper = consistency.comp_sum_gap_upper_bound(best, num_classes=3, bound=1.0, tau=tau)
        assert 0.0 <= gap <= upper + 1e-12


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: consistency.comp_sum_transform(0.5, tau=-1), "expected tau in \\[0, inf"),
        (lambda: consistency.comp_sum_gamma(0.5, num_classes=1), "expected num_classes in \\[2"),
        (lambda: consistency.comp_sum_gamma(0.5, num_classes=2.5), "to be an integer"),
        (lambda: consistency.comp_sum_conditional_min([0.2, 0.2]), "sum to 1"),
        (
            lambda: consistency.comp_sum_gap_upper_bound(0.0, num_classes=3, bound=1.0),
            "expected best_sum_exp_risk >=",
        ),
    ],
)
def test_bad_input_of_the_theory_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
