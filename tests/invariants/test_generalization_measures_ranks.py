# SPDX-License-Identifier: Apache-2.0
"""Rank correlations of a measure with the generalization gap: ties, environments, bad input."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from xloss import diagnostics

RNG = np.random.default_rng(0)
#: Three widths, two depths, two seeds.
SETTINGS = np.array([*itertools.product((8, 16, 32), (1, 2), (0, 1))])[:, :2]
MEASURE = RNG.normal(size=len(SETTINGS)).astype(np.float32)
GAP = RNG.normal(size=len(SETTINGS)).astype(np.float32)


def sign(x):
    return np.sign(x[:, None] - x[None, :])


@pytest.mark.parametrize("levels", [2, 4, 1000])
def test_tau_is_that_of_scipy_with_ties(levels, x64):
    for seed in range(5):
        rng = np.random.default_rng(seed)
        x, y = rng.integers(levels, size=(2, 30)).astype(np.float64)
        wanted = scipy.stats.kendalltau(x, y).statistic
        np.testing.assert_allclose(diagnostics.kendall_tau(x, y), wanted, rtol=1e-12)


def test_tau_of_few_infinite_constant_and_missing_values():
    tau = diagnostics.kendall_tau
    two = jnp.array([1.0, 2.0])
    assert float(tau(two, two)) == 1.0 and float(tau(two, -two)) == -1.0
    # inf is the greatest, and a tie of itself.
    measure, gap = jnp.array([1.0, jnp.inf, -jnp.inf, jnp.inf]), jnp.array([2.0, 3.0, 1.0, 3.0])
    assert float(tau(measure, gap)) == 1.0
    assert np.isnan(tau(jnp.ones(4), gap))
    assert np.isnan(tau(measure.at[0].set(jnp.nan), gap))
    assert np.isnan(diagnostics.sign_error(measure.at[0].set(jnp.nan), gap))
    assert tau(two.astype(jnp.bfloat16), two).dtype == jnp.float32


def test_mixed_dtypes_and_transformations(x64):
    gap = jnp.asarray(GAP, jnp.float64)
    assert diagnostics.kendall_tau(jnp.asarray(MEASURE), gap).dtype == jnp.float64
    stack = jnp.stack([gap, -gap, jnp.exp(gap)])
    found = jax.jit(jax.vmap(diagnostics.kendall_tau, in_axes=(0, None)))(stack, gap)
    np.testing.assert_allclose(found, [1.0, -1.0, 1.0], rtol=1e-15)
    assert (np.abs(found) <= 1.0).all()
    error = jax.jit(jax.vmap(diagnostics.sign_error, in_axes=(0, None)))(stack, gap)
    np.testing.assert_allclose(error, [0.0, 1.0, 0.0], rtol=1e-15)
    assert float(error[0]) == 0.0 and float(error[1]) <= 1.0


def brute_force_psi(measure, gap, settings):
    product, found = sign(measure) * sign(gap), []
    for i in range(settings.shape[1]):
        others, taus = np.delete(settings, i, axis=1), []
        for row in np.unique(others, axis=0):
            group = np.flatnonzero((others == row).all(axis=1))
            pairs = [
                product[a, b]
                for a, b in itertools.combinations(group, 2)
                if settings[a, i] != settings[b, i]
            ]
            taus += [np.mean(pairs)] if pairs else []
        found.append(np.mean(taus) if taus else np.nan)
    return np.array(found)


@pytest.mark.parametrize("columns", [[0, 1], [0], [1, 0, 1]])
def test_granulated_tau_is_that_of_a_loop(columns):
    settings = SETTINGS[:, columns]
    wanted = brute_force_psi(MEASURE, GAP, settings)
    found = diagnostics.granulated_kendall(MEASURE, GAP, settings, average=False)
    np.testing.assert_allclose(found, wanted, rtol=1e-6)
    if not np.isnan(wanted).all():
        mean = diagnostics.granulated_kendall(MEASURE, GAP, settings)
        np.testing.assert_allclose(mean, np.nanmean(wanted), rtol=1e-5)


def test_granulated_tau_sees_through_one_hyperparameter_that_moves_all():
    """A measure that is right about width alone has a good tau and a granulated one near 0."""
    settings = np.array([*itertools.product(range(6), range(2))])
    gap = (10 * settings[:, 0] + settings[:, 1]).astype(np.float32)
    measure = (10 * settings[:, 0] - settings[:, 1]).astype(np.float32)
    assert float(diagnostics.kendall_tau(measure, gap)) > 0.7
    psi = diagnostics.granulated_kendall(measure, gap, settings, average=False)
    assert psi.tolist() == [1.0, -1.0]
    # And the worst environment says so at once.
    ids = diagnostics.single_change_environments(settings)
    assert float(diagnostics.sign_error(measure, gap)) < 0.15
    assert float(diagnostics.sign_error(measure, gap, ids)) == 1.0


def test_the_sign_error_of_the_worst_environment_is_that_of_a_loop():
    wrong = (1 - sign(MEASURE) * sign(GAP)) / 2
    ids = np.asarray(diagnostics.single_change_environments(SETTINGS))
    means = {}
    for a, b in itertools.combinations(range(len(SETTINGS)), 2):
        if np.sum(SETTINGS[a] != SETTINGS[b]) == 1:
            name = tuple(sorted((tuple(SETTINGS[a]), tuple(SETTINGS[b]))))
            means.setdefault(name, []).append(wrong[a, b])
            assert ids[a, b] == ids[b, a] >= 0
        else:
            assert ids[a, b] == ids[b, a] == -1
    assert len(means) == len(np.unique(ids)) - 1
    wanted = max(np.mean(errors) for errors in means.values())
    np.testing.assert_allclose(diagnostics.sign_error(MEASURE, GAP, ids), wanted, rtol=1e-6)
    groups = SETTINGS[:, 0] - 1000  # any integers
    each = [
        diagnostics.sign_error(MEASURE[groups == g], GAP[groups == g]) for g in np.unique(groups)
    ]
    found = jax.jit(diagnostics.sign_error)(MEASURE, GAP, groups.astype(np.int32))
    np.testing.assert_allclose(found, max(each), rtol=1e-6)
    assert found >= 0.0 and np.isnan(
        diagnostics.sign_error(MEASURE, GAP, np.arange(len(GAP), dtype=np.uint8))
    )  # no environment has a pair


def test_a_tie_is_a_coin():
    same, gap = jnp.ones(3), jnp.arange(3.0)
    assert float(diagnostics.sign_error(same, gap)) == 0.5
    assert float(diagnostics.sign_error(same, gap, jnp.zeros((3, 3), jnp.int32))) == 0.5


def test_a_setting_with_nan_is_compared_with_nothing():
    settings = jnp.array([[jnp.nan, 1.0], [1.0, 1.0], [2.0, 1.0]])
    ids = diagnostics.single_change_environments(settings)
    assert (np.asarray(ids) >= 0).sum() == 2
    gap = jnp.arange(3.0)
    psi = diagnostics.granulated_kendall(jnp.array([5.0, 1.0, 2.0]), gap, settings, average=False)
    assert float(psi[0]) == 1.0 and np.isnan(psi[1])


def test_the_report_holds_the_numbers_and_prints_the_warning():
    measures = {"inverse_margin": MEASURE, "gap itself": GAP}
    report = diagnostics.correlation_report(measures, GAP, hyperparams=SETTINGS)
    np.testing.assert_allclose(report.tau, [diagnostics.kendall_tau(MEASURE, GAP), 1.0])
    assert report.worst_sign_error is not None and report.granulated is not None
    assert report.worst_sign_error[1] == 0.0 and report.granulated[1] == 1.0
    lines = str(report).splitlines()
    assert lines[0] == "12 models" and lines[2].startswith("gap itself")
    assert "no bound" in str(report) and "2309.13658" in str(report)
    short = diagnostics.correlation_report(measures, GAP)
    assert short.worst_sign_error is None and "worst" not in str(short).splitlines()[1]
    with pytest.raises(ValueError, match="expected measures"):
        diagnostics.correlation_report({}, GAP)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: diagnostics.kendall_tau(GAP[:1], GAP[:1]), ValueError, "measure"),
        (lambda: diagnostics.kendall_tau(GAP, GAP[:3]), ValueError, "gap of shape"),
        (lambda: diagnostics.kendall_tau(GAP.astype(np.int32), GAP), TypeError, "measure"),
        (lambda: diagnostics.granulated_kendall(GAP, GAP, GAP), ValueError, "hyperparams"),
        (
            lambda: diagnostics.granulated_kendall(GAP, GAP, SETTINGS[:3]),
            ValueError,
            "hyperparams",
        ),
        (
            lambda: diagnostics.single_change_environments(np.zeros((3, 2), complex)),
            TypeError,
            "hyperparams",
        ),
        (lambda: diagnostics.sign_error(GAP, GAP, GAP), TypeError, "environments"),
        (
            lambda: diagnostics.sign_error(GAP, GAP, jnp.zeros((3, 3), jnp.int32)),
            ValueError,
            "environments",
        ),
    ],
)
def test_wrong_arguments_are_named(call, error, message):
    with pytest.raises(error, match=f"expected {message}"):
        call()
