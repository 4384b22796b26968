# SPDX-License-Identifier: Apache-2.0
"""Invariants of naive Bayes against logistic regression (spec disc_vs_gen)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB

from experiments.data import gaussian_mixtures
from xloss.consistency import comp_sum_gamma, regime_crossing, samples_to_reach
from xloss.heads import (
    GaussianNBState,
    gaussian_nb_init,
    gaussian_nb_linear,
    gaussian_nb_logits,
    gaussian_nb_update,
    logistic_regression,
)

EXAMPLES, FEATURES, CLASSES = 48, 5, 3


def problem(dtype=np.float64):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, CLASSES, EXAMPLES).astype(np.int32)
    centres = 2.0 * rng.normal(size=(CLASSES, FEATURES))
    x = centres[labels] + rng.normal(size=(EXAMPLES, FEATURES)) * np.arange(1, FEATURES + 1)
    return jnp.asarray(x.astype(dtype)), jnp.asarray(labels)


def fitted(x, labels, classes=CLASSES, **options):
    state = gaussian_nb_init(classes, x.shape[1], x.dtype)
    return gaussian_nb_update(state, x, labels, **options)


def assert_same(found, wanted, rtol=1e-11):
    np.testing.assert_array_equal(found.counts, wanted.counts)
    np.testing.assert_allclose(found.means, wanted.means, rtol=rtol)
    np.testing.assert_allclose(found.m2, wanted.m2, rtol=rtol)


def test_streaming_is_one_shot_for_any_chunks_and_order(x64):
    x, labels = problem()
    wanted = fitted(x, labels)
    by_class = np.argsort(np.asarray(labels), kind="stable")  # chunks without most classes
    shuffled = np.random.default_rng(1).permutation(EXAMPLES)
    for order in (by_class, shuffled):
        for chunk in (3, 12):
            state = gaussian_nb_init(CLASSES, FEATURES, jnp.float64)
            for start in range(0, EXAMPLES, chunk):
                part = order[start : start + chunk]
                state = gaussian_nb_update(state, x[part], labels[part])
            state = gaussian_nb_update(state, x[:0], labels[:0])  # an empty one
            assert_same(state, wanted)
    np.testing.assert_allclose(
        wanted.m2 / wanted.counts[:, None].astype(jnp.float64),
        [np.var(x[np.asarray(labels) == k], axis=0) for k in range(CLASSES)],
        rtol=1e-11,
    )


def test_masked_examples_are_as_if_removed(x64):
    x, labels = problem()
    where = jnp.arange(EXAMPLES) % 3 > 0
    state = fitted(x.at[0].set(jnp.nan), labels.at[3].set(99), where=where)
    assert_same(state, fitted(x[where], labels[where]))
    fit, wanted = (
        logistic_regression(a, b, num_classes=CLASSES, where=w, tol=1e-9)
        for a, b, w in (
            (x.at[0].set(jnp.nan), labels.at[3].set(99), where),
            (x[where], labels[where], None),
        )
    )
    np.testing.assert_allclose(fit.kernel, wanted.kernel, atol=1e-6)
    np.testing.assert_allclose(fit.objective, wanted.objective, rtol=1e-9)


def test_chunks_of_devices_merge_exactly(x64):
    x, labels = problem()
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    start = fitted(x[:5] + 1.0, labels[:5])
    wanted = gaussian_nb_update(start, x, labels)

    def local(state, x, labels):
        return gaussian_nb_update(state, x, labels, axis_name="data")

    by_class = jnp.argsort(labels)  # a device sees one or two classes
    spread = jax.jit(
        jax.shard_map(local, mesh=mesh, in_specs=(P(), P("data"), P("data")), out_specs=P())
    )
    assert_same(spread(start, x[by_class], labels[by_class]), wanted)
    placed = (jax.device_put(a, NamedSharding(mesh, P("data"))) for a in (x, labels))
    assert_same(jax.jit(gaussian_nb_update)(start, *placed), wanted)


def test_logits_are_the_linear_form_and_a_constant_of_the_row(x64):
    x, labels = problem()
    state = fitted(x, labels)
    for relative in (False, True):
        options = {"var_smoothing": 1e-3, "relative": relative}
        logits = gaussian_nb_logits(state, x, **options)
        kernel, bias = gaussian_nb_linear(state, **options)
        constant = logits - (x @ kernel + bias[None, :])
        np.testing.assert_allclose(constant - constant[:, :1], 0.0, atol=1e-11)
    variance = np.asarray(state.m2).sum(0) / EXAMPLES + 1e-9
    squares = np.square(np.asarray(x)[:, None] - np.asarray(state.means)) / variance
    prior = np.log(np.asarray(state.counts) / EXAMPLES)
    found = gaussian_nb_logits(state, x.reshape(6, 8, FEATURES)).reshape(EXAMPLES, CLASSES)
    np.testing.assert_allclose(found, prior - 0.5 * squares.sum(-1), rtol=1e-11)


def test_naive_bayes_is_discriminant_analysis_with_a_diagonal_covariance(x64):
    x, labels = problem()
    state = fitted(x, labels)
    # Features that are uncorrelated within the classes: the two rules are the same.
    within = x - state.means[labels]
    _, directions = np.linalg.eigh(within.T @ within)
    x = x @ directions
    logits = gaussian_nb_logits(fitted(x, labels), x, var_smoothing=0.0)
    model = LinearDiscriminantAnalysis(solver="lsqr").fit(x, labels)
    np.testing.assert_allclose(jax.nn.softmax(logits), model.predict_proba(x), atol=1e-9)


def test_own_variances_and_relative_smoothing_are_those_of_scikit_learn(x64):
    x, labels = problem()
    model = GaussianNB(var_smoothing=1e-2).fit(x, labels)
    logits = gaussian_nb_logits(
        fitted(x, labels), x, shared=False, var_smoothing=1e-2, relative=True
    )
    np.testing.assert_allclose(jax.nn.softmax(logits), model.predict_proba(x), atol=1e-10)


def test_the_scale_of_a_feature_matters_to_logistic_regression_only(x64):
    x, labels = problem()
    scale = jnp.asarray([1.0, 100.0, 1.0, 0.01, 1.0])[None, :]

    def bayes(x):
        return gaussian_nb_logits(fitted(x, labels), x, var_smoothing=0.0)

    def logistic(x):
        fit = logistic_regression(x, labels, num_classes=CLASSES, tol=1e-7)
        return x @ fit.kernel + fit.bias[None, :]

    np.testing.assert_allclose(bayes(x * scale), bayes(x), rtol=1e-9)
    changed = jax.nn.softmax(logistic(x * scale)) - jax.nn.softmax(logistic(x))
    assert np.max(np.abs(changed)) > 1e-2


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_gradient_at_the_solution_is_0(dtype, x64):
    x, labels = problem(dtype)
    fit = logistic_regression(x, labels, num_classes=CLASSES, tol=1e-6)
    assert fit.kernel.dtype == fit.objective.dtype == dtype
    assert fit.gradient_norm <= 1e-6 and fit.steps < 200

    def objective(kernel, bias):
        logits = x @ kernel + bias[None, :]
        losses = -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1)
        return 0.5 * jnp.sum(kernel**2) + jnp.sum(losses)

    value, slopes = jax.jit(jax.value_and_grad(objective, (0, 1)))(fit.kernel, fit.bias)
    for slope in slopes:
        np.testing.assert_allclose(slope / EXAMPLES, 0.0, atol=5e-6)
    np.testing.assert_allclose(fit.objective, value, rtol=1e-5)
    assert float(fit.objective) <= EXAMPLES * np.log(CLASSES)
    assert abs(float(jnp.sum(fit.bias))) < 1e-4
    model = LogisticRegression(C=1.0, tol=1e-9, max_iter=2000).fit(x, labels)
    np.testing.assert_allclose(fit.kernel.T, model.coef_, atol=2e-3)


def test_the_bayes_error_is_that_of_the_bayes_rule():
    n, m = 6, 40_000
    x, labels = gaussian_mixtures.gaussian_mixture(jax.random.key(0), n=n, num_classes=2, m=m)
    # Log-odds of the two classes: 2 sum_j x_j / v_j.
    guess = jnp.sum(x / jnp.asarray(gaussian_mixtures.variances(n), jnp.float32)[None, :], -1) > 0
    wrong = float(jnp.mean((guess != (labels == 1)).astype(jnp.float32)))
    exact = gaussian_mixtures.bayes_error(n)
    assert abs(wrong - exact) < 4.0 * np.sqrt(exact / m)
    kernel = np.stack([0.0 * gaussian_mixtures.variances(n), 1 / gaussian_mixtures.variances(n)], 1)
    np.testing.assert_allclose(gaussian_mixtures.linear_error(n, kernel, np.zeros(2)), exact)
    assert gaussian_mixtures.linear_error(n, kernel, np.array([0.0, 0.7])) > exact
    np.testing.assert_allclose(gaussian_mixtures.bayes_error(2), 0.1103357, rtol=1e-6)


def test_the_first_m_of_synthetic_curves():
    m = np.array([2, 5, 10, 50])
    line = 1.0 / m  # 0.5, 0.2, 0.1, 0.02
    assert samples_to_reach(m, line, asymptotic=0.0, tol=0.15) == 10
    assert samples_to_reach(m, line, asymptotic=0.0) == -1
    np.testing.assert_array_equal(
        samples_to_reach(m, np.stack([line, 0.5 * line]), asymptotic=0.0, tol=0.1), [50, 10]
    )
    # A curve that comes back up still counts by its first time below.
    assert samples_to_reach(m, [0.5, 0.05, 0.4, 0.05], asymptotic=0.05) == 5
    assert regime_crossing(m, line, [0.3, 0.15, 0.15, 0.15]) == 10
    assert regime_crossing(m, [0.1, 0.3, 0.1, 0.1], np.full(4, 0.2)) == 10  # not the first time
    assert regime_crossing(m, line, line) == -1


@pytest.mark.parametrize("n", [50, 400])
def test_naive_bayes_needs_a_few_and_logistic_regression_n_examples(n):
    seeds, most, target = 3, 2 * n, gaussian_mixtures.bayes_error(n) + 0.01
    m = np.array([4, 8, 12, 20, n // 2, n, 3 * n // 2, most])
    errors = np.zeros((2, seeds, m.size))
    for seed in range(seeds):
        x, labels = gaussian_mixtures.gaussian_mixture(
            jax.random.key(seed), n=n, num_classes=2, m=most
        )
        for i, size in enumerate(m):
            where = jnp.arange(most) < size
            layers = (
                gaussian_nb_linear(fitted(x, labels, 2, where=where)),
                logistic_regression(x, labels, num_classes=2, where=where)[:2],
            )
            for row, (kernel, bias) in enumerate(layers):
                errors[row, seed, i] = gaussian_mixtures.linear_error(n, kernel, bias)
    bayes, logistic = samples_to_reach(m, errors.mean(1), asymptotic=target - 0.01)
    assert bayes <= 5.0 * np.log(n)
    assert 0.5 <= logistic / n <= 2.0


def test_the_log_loss_bound_is_at_most_the_root():
    excess = np.array([1e-4, 1e-2, 0.1, 0.5])
    bound = comp_sum_gamma(excess, tau=1.0)
    back = 0.5 * ((1 + bound) * np.log1p(bound) + (1 - bound) * np.log1p(-bound))
    np.testing.assert_allclose(back, excess, rtol=1e-9)
    assert np.all(bound <= np.sqrt(2.0 * excess))


def test_a_large_common_offset_does_not_cost_the_variances():
    x, labels = problem(np.float32)
    moved = x + 4096.0
    state = fitted(moved, labels)
    exact = fitted(moved - 4096.0, labels)  # what float32 has left of x
    np.testing.assert_allclose(state.m2, exact.m2, rtol=2e-4)
    np.testing.assert_allclose(
        gaussian_nb_logits(state, moved), gaussian_nb_logits(exact, moved - 4096.0), atol=2e-3
    )


def test_constant_features_and_absent_classes_are_left_out():
    x, labels = problem(np.float32)
    x = x.at[:, 1].set(0.1)
    state = fitted(x, labels, CLASSES + 2)
    logits = gaussian_nb_logits(state, x)
    assert np.all(np.isneginf(logits[:, CLASSES:])) and np.all(np.isfinite(logits[:, :CLASSES]))
    kept = jnp.asarray([0, 2, 3, 4])
    without = gaussian_nb_logits(fitted(x[:, kept], labels), x[:, kept])
    np.testing.assert_allclose(logits[:, :CLASSES], without, rtol=1e-4)
    kernel, bias = gaussian_nb_linear(state)
    assert not np.any(kernel[1]) and not np.any(kernel[:, CLASSES:])
    assert np.all(np.isneginf(bias[CLASSES:]))
    own = gaussian_nb_logits(state, x, shared=False)
    assert np.all(np.isneginf(own[:, CLASSES:])) and np.all(np.isfinite(own[:, :CLASSES]))
    total = jax.grad(lambda x: jax.nn.logsumexp(gaussian_nb_logits(state, x), axis=-1).sum())
    slope = jax.jit(total)(x)
    assert np.all(np.isfinite(slope))
    fit = logistic_regression(x, labels, num_classes=CLASSES + 2)
    assert np.all(np.isneginf(fit.bias[CLASSES:])) and not np.any(fit.kernel[:, CLASSES:])
    assert fit.gradient_norm <= 1e-5


def test_labels_out_of_range_give_nan():
    x, labels = problem(np.float32)
    for wrong in (-1, CLASSES):
        bad = labels.at[3].set(wrong)
        assert np.all(np.isnan(fitted(x, bad).means)) and np.all(np.isnan(fitted(x, bad).m2))
        assert np.all(np.isnan(logistic_regression(x, bad, num_classes=CLASSES).kernel))
    assert np.all(np.isnan(gaussian_nb_logits(gaussian_nb_init(2, FEATURES), x)))


def test_bad_arguments_are_named():
    x, labels = problem(np.float32)
    state = gaussian_nb_init(CLASSES, FEATURES)
    m = [1, 2]
    for call, error, message in (
        (lambda: gaussian_nb_init(0, 2), ValueError, "num_classes to be an integer >= 1"),
        (lambda: gaussian_nb_init(2, 2, jnp.int32), TypeError, "dtype float32 or float64"),
        (lambda: gaussian_nb_update((1,), x, labels), TypeError, "to be a GaussianNBState"),
        (lambda: gaussian_nb_update(state, x[:, 1:], labels), ValueError, r"x of shape \(N, 5\)"),
        (lambda: gaussian_nb_update(state, x, labels[1:]), ValueError, "labels of shape"),
        (lambda: gaussian_nb_update(state, x, x[:, 0]), TypeError, "labels of an integer dtype"),
        (lambda: gaussian_nb_logits(state, x[0, 0]), ValueError, r"x of shape \(..., 5\)"),
        (lambda: gaussian_nb_logits(state, x, var_smoothing=-1.0), ValueError, "var_smoothing in"),
        (lambda: gaussian_nb_linear(state, var_smoothing=-1.0), ValueError, "var_smoothing in"),
        (lambda: logistic_regression(x[0], labels, num_classes=3), ValueError, r"shape \(N, n\)"),
        (lambda: logistic_regression(x, labels, num_classes=0), ValueError, "num_classes"),
        (lambda: logistic_regression(x, labels, num_classes=3, steps=0), ValueError, "steps"),
        (
            lambda: logistic_regression(x, labels, num_classes=3, inverse_penalty=0.0),
            ValueError,
            "inverse_penalty in",
        ),
        (lambda: samples_to_reach([2, 1], m, asymptotic=0.0), ValueError, "increasing order"),
        (lambda: samples_to_reach([1.0, 2.0], m, asymptotic=0.0), TypeError, "integer dtype"),
        (lambda: samples_to_reach(m, [0.1], asymptotic=0.0), ValueError, "errors of shape"),
        (
            lambda: samples_to_reach(m, [[0.1, 0.2]] * 2, asymptotic=[0.0] * 3),
            ValueError,
            "asymptotic of shape",
        ),
        (lambda: samples_to_reach(m, [0.1, np.nan], asymptotic=0.0), ValueError, "errors in"),
        (lambda: regime_crossing(m, [0.1, 0.2], [[0.1, 0.2]]), ValueError, "errors_b of shape"),
    ):
        with pytest.raises(error, match=message):
            call()
    assert isinstance(state, GaussianNBState)
