# SPDX-License-Identifier: Apache-2.0
"""Calibration, transforms, excess bounds and gaps: one named test for each property."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from experiments.benchmarks.consistency import BOUNDS, LOSSES, try_bound, worst_difference
from experiments.golden.h_consistency import OWN, crammer_singer, lee_lin_wahba, weston_watkins
from xloss import consistency, surrogates
from xloss.classification import cross_entropy

T = np.linspace(0.0, 1.0, 41)
RNG = np.random.default_rng(0)


# Losses of a user's own whose psi~ is not convex: capped, hence flat on the wrong side.
def capped_square(u):
    return jnp.minimum(jax.nn.relu(1.0 - u) ** 2, 1.5)


def capped_logistic(u):
    return np.minimum(np.logaddexp(0.0, -u), 1.0)


ALL = LOSSES | {"capped_square": capped_square, "capped_logistic": capped_logistic}
every_loss = pytest.mark.parametrize("name", LOSSES)
every_bound = pytest.mark.parametrize("bound", BOUNDS)


# ---- transforms ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
def test_psi_is_zero_at_zero_convex_and_below_psi_tilde(name):
    psi = consistency.psi_transform(ALL[name], T)
    raw = consistency.psi_transform(ALL[name], T, envelope=False)
    assert psi[0] == 0.0
    assert (psi <= raw).all()
    assert (np.diff(psi, 2) >= -1e-12).all()
    assert (np.diff(psi) >= 0).all()


def test_the_envelope_matters_for_losses_that_are_not_convex():
    for loss, top in ((capped_square, 1.0), (capped_logistic, math.log(2.0))):
        raw = consistency.psi_transform(loss, 0.5, envelope=False)
        np.testing.assert_allclose(consistency.psi_transform(loss, T), top * T, atol=1e-9)
        assert raw > 1.2 * consistency.psi_transform(loss, 0.5)
        np.testing.assert_allclose(consistency.h_gamma(loss, top * T), T, atol=1e-9)


@pytest.mark.parametrize("loss", [*LOSSES.values(), *OWN.values()])
def test_psi_is_positive_beyond_zero_exactly_if_calibrated(loss):
    positive = (consistency.psi_transform(loss, T)[1:] > 1e-12).all()
    assert positive == consistency.is_calibrated(loss).calibrated


@every_loss
def test_numeric_transform_equals_the_closed_form(name):
    for bound in (*BOUNDS, 0.05, 1.0):
        assert worst_difference(LOSSES[name], bound) <= 1e-6


def test_numeric_transform_equals_the_closed_form_of_binary_comp_sum():
    for tau in (0.0, 0.5, 1.0, 1.7, 2.0):
        assert worst_difference(surrogates.bind(surrogates.comp_sum, tau=tau), math.inf) <= 1e-6
    # Above tau = 2 the published form is not tight: the search is used.
    loss = surrogates.bind(surrogates.comp_sum, tau=3.0)
    published = consistency.comp_sum_transform(T, tau=3.0)
    assert (consistency.h_transform(loss, T)[1:] > published[1:] + 1e-3).all()


@every_loss
@every_bound
def test_gamma_inverts_the_transform(name, bound):
    t = np.concatenate([T, [1e-8, 1e-4]])
    z = consistency.h_transform(LOSSES[name], t, bound=bound)
    np.testing.assert_allclose(consistency.h_gamma(LOSSES[name], z, bound=bound), t, rtol=1e-7)
    top = consistency.h_transform(LOSSES[name], 1.0, bound=bound)
    assert consistency.h_gamma(LOSSES[name], top * 1.01, bound=bound) == 1.0


def test_gamma_of_a_users_loss_is_found_by_bisection():
    z = np.array([0.0, 1e-4, 0.01, 0.2, 2.0])
    found = consistency.h_gamma(lambda u: (1 - u) ** 2, z, bound=0.5)
    known = consistency.h_gamma("squared", z, bound=0.5)
    np.testing.assert_allclose(found, known, atol=1e-6)
    # Nothing follows from a small excess of a loss that is not calibrated.
    assert consistency.h_gamma(lambda u: u**2, 0.0) == 1.0


@every_loss
def test_transform_grows_with_the_bound_up_to_psi(name):
    rows = [consistency.h_transform(LOSSES[name], T, bound=a) for a in (0.1, 0.5, 1, 3, 30)]
    assert (np.diff(rows, axis=0) >= -1e-12).all()
    psi = consistency.psi_transform(LOSSES[name], T)
    np.testing.assert_allclose(rows[-1], psi, atol=1e-9)
    np.testing.assert_allclose(consistency.h_transform(LOSSES[name], T), psi, atol=1e-9)


@pytest.mark.parametrize("name", ["logistic", "savage", "rho_margin rho=0.5"])
def test_scaling_the_loss_scales_the_transform(name):
    loss = LOSSES[name]
    scaled = consistency.psi_transform(lambda u: 7.0 * loss(u), T, bound=2.0)
    np.testing.assert_allclose(scaled, 7.0 * consistency.h_transform(loss, T, bound=2.0), atol=1e-8)


@pytest.mark.parametrize("name", ["logistic", "squared_hinge", "tangent"])
@pytest.mark.parametrize("k", [1e-4, 30.0])
def test_scaling_the_margin_changes_nothing_for_all_functions(name, k):
    loss = LOSSES[name]
    np.testing.assert_allclose(
        consistency.psi_transform(lambda u: loss(k * u), T),
        consistency.h_transform(loss, T),
        atol=1e-8,
    )


def test_base_2_is_the_natural_logistic_loss_over_log_2():
    natural = consistency.h_transform("logistic", T, bound=1.5)
    base2 = consistency.h_transform("logistic_base2", T, bound=1.5)
    np.testing.assert_allclose(base2, natural / math.log(2.0), rtol=1e-14)
    assert consistency.h_transform("logistic_base2", 1.0) == 1.0


@every_bound
def test_simple_upper_bounds_hold(bound):
    z = np.concatenate([[0.0], np.geomspace(1e-8, 0.9, 60)])
    for name in ("exponential", "logistic", "logistic_base2"):
        tight = consistency.h_gamma(name, z, bound=bound)
        assert (tight <= consistency.h_gamma(name, z, bound=bound, upper=True) + 1e-12).all()
    with pytest.raises(ValueError, match="h_gamma: expected upper=True with exponential"):
        consistency.h_gamma("hinge", z, upper=True)


def test_a_loss_without_a_lower_bound_has_an_infinite_transform():
    linear = consistency.psi_transform(lambda u: 1 - u, T)
    assert linear[0] == 0.0 and np.isposinf(linear[1:]).all()
    np.testing.assert_allclose(consistency.h_transform(lambda u: 1 - u, T, bound=3.0), 3 * T)
    assert consistency.min_conditional_risk("log_hinge", 1.0) == -np.inf
    assert np.isfinite(consistency.min_conditional_risk("log_hinge", 0.99))


def test_envelope_is_idempotent_exact_on_convex_input_and_below():
    theta = np.sort(RNG.uniform(size=60))
    wild = RNG.normal(size=60)
    once = consistency.convex_envelope(theta, wild)
    assert (once <= wild).all() and (once == wild).sum() >= 2
    slopes = np.diff(once) / np.diff(theta)
    assert (np.diff(slopes) >= -1e-9 * np.abs(slopes[1:])).all()
    np.testing.assert_allclose(consistency.convex_envelope(theta, once), once, rtol=1e-13)
    np.testing.assert_array_equal(consistency.convex_envelope(theta, theta**2), theta**2)


# ---- calibration --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [n for n in OWN if n != "abs |1-u|"])
def test_bad_losses_are_caught(name):
    report = consistency.is_calibrated(OWN[name])
    assert not report and report.gap == 0.0
    assert "NOT calibrated" in repr(report) and report.reason in repr(report)


def test_the_report_says_why():
    perceptron = consistency.is_calibrated(lambda u: np.maximum(0, -u))
    assert perceptron.convex and math.isnan(perceptron.slope_at_zero)
    assert "kink at 0" in perceptron.reason
    square = consistency.is_calibrated(lambda u: u**2)
    assert abs(square.slope_at_zero) < 1e-9 and "slope at 0 is" in square.reason
    logistic = consistency.is_calibrated("logistic")
    assert logistic.convex and abs(logistic.slope_at_zero + 0.5) < 1e-6
    # A kink at 0 with both slopes negative: wrong only for eta near 1/2.
    kinked = consistency.is_calibrated(lambda u: np.maximum(1 - u, 1 - 1.5 * u))
    assert not kinked and kinked.worst_eta == pytest.approx(0.6, abs=0.01)
    unbounded = consistency.is_calibrated(lambda u: 1 - u)
    assert unbounded and "calibrated, unbounded below" in repr(unbounded)


def test_a_negative_slope_is_not_enough_without_convexity():
    dip = consistency.is_calibrated(lambda u: 1 - 0.1 * np.tanh(u) - 2.0 * np.exp(-((u + 3) ** 2)))
    assert not dip and dip.slope_at_zero < 0 and not dip.convex


def test_a_users_function_may_be_jax_numpy_or_plain_python():
    expected = consistency.psi_transform("exponential", T, bound=1.0)
    for loss in (
        lambda u: jnp.exp(-u),
        lambda u: np.exp(-u),
        lambda u: math.exp(-u),
        jax.jit(lambda u: jnp.exp(-u)),
        surrogates.exponential,
        surrogates.bind(lambda u, rate: jnp.exp(-rate * u), rate=1.0),
    ):
        found = consistency.psi_transform(loss, T, bound=1.0)
        assert found.dtype == np.float64
        np.testing.assert_allclose(found, expected, atol=1e-12)
        assert consistency.is_calibrated(loss)
    assert consistency.is_calibrated(lambda u: max(0.0, 1.0 - u))
    assert not consistency.is_calibrated(lambda u: 1.0)


def test_a_loss_that_rounds_to_float32_is_judged_at_its_own_precision():
    assert consistency.is_calibrated(lambda u: jnp.exp(-u).astype(jnp.float32))
    assert not consistency.is_calibrated(lambda u: jnp.square(u).astype(jnp.float32))


def test_the_callers_precision_setting_stays():
    consistency.is_calibrated("logistic")
    assert jnp.ones(2).dtype == jnp.float32


def test_crammer_singer_fails_where_no_class_has_half_of_the_probability():
    for p in ([0.4, 0.3, 0.3], [0.34, 0.33, 0.33], [0.45, 0.25, 0.2, 0.1]):
        report = consistency.multiclass_calibration(crammer_singer, p)
        assert not report and report.minimum == pytest.approx(1.0)
        assert "NOT calibrated" in repr(report)
    for p in ([0.6, 0.2, 0.2], [0.7, 0.1, 0.1, 0.1]):
        report = consistency.multiclass_calibration(crammer_singer, p)
        assert report and report.minimum == pytest.approx(2 * (1 - max(p)))


def test_weston_watkins_fails_and_lee_lin_wahba_and_cross_entropy_do_not():
    for p in ([0.4, 0.35, 0.25], [0.3, 0.28, 0.22, 0.2]):
        assert not consistency.multiclass_calibration(weston_watkins, p)
        hinge = consistency.multiclass_calibration(lee_lin_wahba, p)
        assert hinge and hinge.minimum == pytest.approx(len(p) * (1 - max(p)))
        assert consistency.multiclass_calibration(cross_entropy, p)


# ---- bounds -------------------------------------------------------------------------------------


@every_loss
@every_bound
def test_bound_holds_on_10000_random_problems_and_is_attained(name, bound):
    trial = try_bound(LOSSES[name], bound)
    assert trial.violations == 0
    assert trial.best_ratio >= 0.95


def test_bound_is_capped_and_takes_the_gaps_into_account():
    assert consistency.h_consistency_bound(5.0, loss="hinge") == 1.0
    with_gaps = consistency.h_consistency_bound(
        [0.0, 0.01], loss="hinge", gap_surrogate=0.1, gap_zero_one=0.05
    )
    np.testing.assert_allclose(with_gaps, [0.05, 0.06])
    assert consistency.h_consistency_bound(0.0, loss="hinge", gap_zero_one=0.5) == 0.0


def test_without_its_gap_the_bound_is_wrong_for_a_restricted_class():
    # w x through the origin: one far point drags the surrogate to the sign that is worse.
    x, eta, weights = np.array([1.0, 10.0]), np.array([0.9, 0.2]), np.array([0.7, 0.3])
    scores = np.linspace(-1, 1, 4001)[:, None] * x
    costs = eta * np.exp(-scores) + (1 - eta) * np.exp(scores)
    errors = np.where(scores > 0, 1 - eta, eta)
    risk, zero_one = costs @ weights, errors @ weights
    gap = consistency.minimizability_gap(costs, weights)
    excess = risk - risk.min()
    worst = np.maximum(zero_one - zero_one.min(), 0)
    assert (worst > consistency.h_consistency_bound(excess, loss="exponential") + 0.01).any()
    gap_zero_one = consistency.minimizability_gap(errors, weights).gap
    bound = consistency.h_consistency_bound(
        excess, loss="exponential", bound=1.0, gap_surrogate=gap.gap, gap_zero_one=gap_zero_one
    )
    assert (worst <= bound + 1e-6).all()


def test_massart_slope_bounds_the_excess_under_its_noise_condition():
    eta = 0.5 + RNG.choice([-1, 1], (2000, 4)) * RNG.uniform(0.2, 0.5, (2000, 4))
    scores, weights = RNG.normal(size=(2000, 4)), RNG.dirichlet(np.ones(4), 2000)
    costs = eta * np.logaddexp(0, -scores) + (1 - eta) * np.logaddexp(0, scores)
    excess = (weights * (costs - consistency.min_conditional_risk("logistic", eta))).sum(1)
    zero_one = (weights * np.where((scores > 0) == (eta > 0.5), 0, np.abs(2 * eta - 1))).sum(1)
    assert (zero_one <= consistency.massart_slope("logistic", 0.2) * excess + 1e-12).all()
    assert consistency.massart_slope(lambda u: u**2, 0.2) == np.inf


def test_bounds_of_linear_and_neural_classes():
    assert consistency.linear_bound(2.0, 0.5) == 0.5
    np.testing.assert_array_equal(consistency.linear_bound(2.0, 0.5, [0.0, 1.0]), [0.5, 2.5])
    assert consistency.linear_bound(np.inf, 0.5) == 0.5
    assert consistency.nn_bound(3.0, 2.0, 0.5, 1.0) == 7.5


# ---- gaps ---------------------------------------------------------------------------------------


def test_gap_is_not_negative_and_zero_for_the_product_class():
    per_point = RNG.exponential(size=(4, 3))
    risks = RNG.exponential(size=(50, 6, 5))
    assert (consistency.minimizability_gap(risks).gap >= 0).all()
    # Every combination of the four choices at three points.
    choices = np.stack(np.meshgrid(*[np.arange(4)] * 3, indexing="ij"), -1).reshape(-1, 3)
    product = np.take_along_axis(per_point, choices, axis=0)
    assert consistency.minimizability_gap(product, [0.2, 0.3, 0.5]).gap == pytest.approx(
        0, abs=1e-15
    )


@pytest.mark.parametrize("norm", [1, 2, math.inf])
def test_linear_gap_agrees_with_a_general_solver(norm):
    x, eta = RNG.normal(size=(30, 2)), RNG.uniform(size=30)
    weights = RNG.dirichlet(np.ones(30))
    dual = {1: math.inf, 2: 2, math.inf: 1}[norm]
    for name, phi in {"hinge": lambda u: np.maximum(0, 1 - u), "logistic": None}.items():
        phi = phi or (lambda u: np.logaddexp(0, -u))

        def risk(v, phi=phi):
            scores = x @ v[:2] + v[2]
            return weights @ (eta * phi(scores) + (1 - eta) * phi(-scores))

        found = consistency.linear_minimizability_gap(
            name, x, eta, weight=0.7, bias=0.1, weights=weights, norm=norm
        )
        inside = {"type": "ineq", "fun": lambda v: 0.7 - np.linalg.norm(v[:2], dual)}
        solved = min(

                scipy.optimize.minimize(
                    risk, start, method="SLSQP", bounds=[(-1, 1), (-1, 1), (-0.1, 0.1)],
                    constraints=inside, options={"ftol": 1e-14, "maxiter": 500},
                ).fun
                for start in 0.2 * RNG.normal(size=(6, 3))

        )  # fmt: skip
        assert found.best_in_class_risk <= solved + 1e-6
        assert found.best_in_class_risk >= solved - 1e-3
        assert (
            0.0
            <= found.gap
            == pytest.approx(found.best_in_class_risk - found.expected_pointwise_min)
        )


def test_linear_gap_vanishes_when_the_best_scores_are_linear():
    x = np.array([-1.0, 0.0, 1.0])
    eta = (1.0 + 0.5 * x) / 2.0  # squared loss: the best score is 2 eta - 1 = x / 2
    gap = consistency.linear_minimizability_gap("squared", x, eta, weight=1.0, bias=1.0).gap
    assert gap == pytest.approx(0.0, abs=1e-8)


# ---- bad input ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: consistency.is_calibrated("hinges"), "did you mean 'hinge'"),
        (lambda: consistency.is_calibrated(3), "expected a loss to be a name or a function"),
        (lambda: consistency.is_calibrated(lambda u: 1 / u), "finite on \\[-1, 1\\]"),
        (lambda: consistency.is_calibrated(lambda u: u[:2]), "map margins \\[N\\] to losses"),
        (lambda: consistency.h_transform("hinge", 1.5), "expected t in \\[0, 1\\], got 1.5"),
        (lambda: consistency.h_transform("hinge", [0.5], bound=0), "expected bound in \\(0, inf"),
        (lambda: consistency.h_gamma("hinge", math.nan), "expected excess in \\[0, inf\\]"),
        (lambda: consistency.convex_envelope([0, 0], [1, 2]), "strictly increasing"),
        (lambda: consistency.minimizability_gap([1.0]), "conditional_risks \\[..., F, N\\]"),
        (lambda: consistency.minimizability_gap([[1.0]], [0.4]), "sum to 1"),
        (lambda: consistency.multiclass_calibration(crammer_singer, [0.5, 0.2]), "sum to 1"),
        (lambda: consistency.conditional_risk(lambda z, y: z, [0.0, 1.0], [0.5, 0.5]), "to losses"),
    ],
)  # fmt: skip
def test_bad_input_is_named(call, message):
    with pytest.raises((TypeError, ValueError), match=message):
        call()
