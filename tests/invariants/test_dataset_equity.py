# SPDX-License-Identifier: Apache-2.0
"""Invariants of likelihood-weighted losses (spec dataset_equity)."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from xloss.classification import (
    cluster_likelihood,
    cross_entropy,
    embedding_likelihood,
    equity_weight,
    likelihood_weighted_focal,
)


def problem():
    rng = np.random.default_rng(0)
    losses = jnp.asarray(rng.exponential(size=12))
    return losses, jnp.asarray(cluster_likelihood(np.arange(12) // 5))  # 5, 5 and 2


def test_weights_are_bounded_and_fall_with_the_likelihood(x64):
    p = jnp.linspace(0.0, 1.0, 41)
    for eta in (0.0, 0.5, 1.0, 7.0):
        for gamma in (0.3, 1.0, 5.0):
            w = equity_weight(p, eta=eta, gamma=gamma)
            least = eta / (eta + 1.0)
            assert np.all((w >= least - 1e-15) & (w <= 1.0)) and np.all(np.diff(w) < 0)
            np.testing.assert_allclose(w[-1], least, rtol=1e-15)
            np.testing.assert_allclose(w[0], 1.0, rtol=1e-15)
            np.testing.assert_allclose(w, (eta + (1 - p) ** gamma) / (eta + 1), rtol=1e-13)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_gamma_0_is_weight_1_everywhere(dtype, x64):
    p = jnp.asarray([0.0, 0.3, 1.0], dtype)
    for eta in (0.0, 1.0):
        np.testing.assert_array_equal(equity_weight(p, eta=eta, gamma=0.0), 1.0)
        np.testing.assert_array_equal(equity_weight(p, eta=eta, gamma=jnp.zeros((), dtype)), 1.0)


def test_the_gradient_in_eta_and_gamma_is_finite(x64):
    p = jnp.asarray([0.0, 1e-9, 0.5, 1.0 - 1e-12, 1.0])
    for gamma in (0.0, 0.5, 5.0):
        slopes = jax.jacobian(lambda e, g: equity_weight(p, eta=e, gamma=g), (0, 1))(0.5, gamma)
        assert all(np.all(np.isfinite(slope)) for slope in slopes)
        assert slopes[1][-1] == 0.0
        np.testing.assert_allclose(slopes[1][2], np.log(0.5) * 0.5**gamma / 1.5, rtol=1e-12)


def test_a_single_cluster_has_a_constant_weight(x64):
    p = cluster_likelihood(np.full(6, 3))
    np.testing.assert_array_equal(p, 1.0)
    np.testing.assert_allclose(equity_weight(p, eta=0.5), 1.0 / 3.0, rtol=1e-15)


def test_the_names_of_clusters_do_not_matter():
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 5, 60)
    renamed = np.array([40, 3, 17, 0, 8])[ids]
    for normalize in ("max", "total"):
        np.testing.assert_array_equal(
            cluster_likelihood(ids, normalize=normalize),
            cluster_likelihood(renamed, normalize=normalize),
        )


def test_the_gradient_is_weighted_and_the_likelihood_is_a_constant(x64):
    losses, p = problem()
    rng = np.random.default_rng(1)
    logits, labels = jnp.asarray(rng.normal(size=(12, 3))), jnp.asarray(rng.integers(0, 3, 12))
    w = equity_weight(p)

    def each(z):
        return cross_entropy(z, labels)

    weighted = jax.grad(lambda z: jnp.sum(likelihood_weighted_focal(each(z), p)))(logits)
    plain = jax.grad(lambda z: jnp.sum(each(z)))(logits)
    np.testing.assert_allclose(weighted, w[:, None] * plain, rtol=1e-12)
    for renormalize in (False, True):
        slope = jax.grad(
            lambda p, r=renormalize: jnp.sum(likelihood_weighted_focal(losses, p, renormalize=r))
        )(p)
        np.testing.assert_array_equal(slope, 0.0)


def test_renormalize_keeps_the_mean_weight_1(x64):
    losses, p = problem()
    ones = jnp.ones_like(losses)
    w = likelihood_weighted_focal(ones, p, renormalize=True)
    np.testing.assert_allclose(jnp.mean(w), 1.0, rtol=1e-12)
    np.testing.assert_allclose(w / w[0], equity_weight(p) / equity_weight(p)[0], rtol=1e-12)
    where = jnp.arange(12) % 3 > 0
    masked = likelihood_weighted_focal(ones, p.at[0].set(7.0), where=where, renormalize=True)
    np.testing.assert_allclose(jnp.sum(masked), jnp.sum(where), rtol=1e-12)
    assert np.mean(likelihood_weighted_focal(ones, p)) < 1.0  # as the authors have it
    nothing = likelihood_weighted_focal(losses, jnp.ones(12), eta=0.0, renormalize=True)
    np.testing.assert_array_equal(nothing, 0.0)


def test_masked_examples_cost_nothing_and_send_no_gradient():
    losses = jnp.asarray([1.0, jnp.nan, 3.0])
    p, where = jnp.asarray([0.5, jnp.nan, 1.0]), jnp.asarray([True, False, True])
    for renormalize in (False, True):

        def call(losses, r=renormalize):
            return likelihood_weighted_focal(losses, p, where=where, renormalize=r)

        found, pull = jax.vjp(call, losses)
        slope = pull(jnp.ones_like(found))[0]
        assert found[1] == slope[1] == 0.0
        assert np.all(np.isfinite(found)) and np.all(np.isfinite(slope))


def test_a_likelihood_that_is_none_gives_nan():
    for wrong in (-0.1, 1.1, jnp.nan):
        p = jnp.asarray([0.5, wrong])
        assert np.isnan(equity_weight(p)).tolist() == [False, True]
        assert np.isnan(likelihood_weighted_focal(jnp.ones(2), p)).tolist() == [False, True]
        assert np.all(np.isnan(likelihood_weighted_focal(jnp.ones(2), p, renormalize=True)))


def test_noise_is_rare_unless_it_is_taken_as_one_cluster():
    ids = np.array([0] * 4 + [1] * 2 + [-1] * 6)
    np.testing.assert_array_equal(cluster_likelihood(ids)[[0, 4, 6]], [1.0, 0.5, 0.25])
    np.testing.assert_array_equal(
        cluster_likelihood(ids, noise="cluster")[[0, 4, 6]], [4 / 6, 2 / 6, 1.0]
    )
    np.testing.assert_array_equal(
        cluster_likelihood(ids, normalize="total")[[0, 6]], [4 / 12, 1 / 12]
    )
    np.testing.assert_array_equal(cluster_likelihood([-1, -1]), 1.0)


def test_embeddings_are_clustered_on_their_principal_components():
    rng = np.random.default_rng(0)
    groups = [(0.0, 30), (8.0, 10), (16.0, 5)]
    line = np.concatenate([c + 0.1 * rng.normal(size=size) for c, size in groups])
    points = line[:, None] * np.ones((1, 6)) / np.sqrt(6) + 0.05 * rng.normal(size=(45, 6))
    wanted = np.repeat([1.0, 1 / 3, 1 / 6], [30, 10, 5])
    for components in (None, 1, 3):
        found = embedding_likelihood(points, eps=1.0, min_samples=3, components=components)
        np.testing.assert_allclose(found, wanted)
    shifted = embedding_likelihood(points + 100.0, eps=1.0, min_samples=3, components=1)
    np.testing.assert_allclose(shifted, wanted)


def test_without_scikit_learn_the_error_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.cluster", None)
    with pytest.raises(ImportError, match="embedding_likelihood: expected scikit-learn"):
        embedding_likelihood(np.zeros((3, 2)), eps=1.0, min_samples=1)


def test_bad_arguments_are_named():
    losses, p, points = jnp.ones(3), jnp.full(3, 0.5), np.zeros((3, 2))
    for call, error, message in (
        (lambda: cluster_likelihood([0.5]), TypeError, "cluster_ids of an integer dtype"),
        (lambda: cluster_likelihood([[0]]), ValueError, r"cluster_ids of shape \(n,\)"),
        (lambda: cluster_likelihood([0], noise="all"), ValueError, "noise to be one of"),
        (lambda: cluster_likelihood([0], normalize="n"), ValueError, "normalize to be one of"),
        (lambda: equity_weight(jnp.arange(3)), TypeError, "likelihood of a float dtype"),
        (lambda: equity_weight(p, eta=-1.0), ValueError, "eta in"),
        (lambda: equity_weight(p, gamma=float("inf")), ValueError, "gamma to be finite"),
        (lambda: likelihood_weighted_focal(losses, p[:1]), ValueError, "likelihood of shape"),
        (lambda: likelihood_weighted_focal(losses, p, where=p), TypeError, "where of dtype bool"),
        (lambda: embedding_likelihood(points[0], eps=1.0, min_samples=1), ValueError, r"\(n, d\)"),
        (lambda: embedding_likelihood(points, eps=0.0, min_samples=1), ValueError, "eps in"),
        (lambda: embedding_likelihood(points, eps=1.0, min_samples=0), ValueError, "min_samples"),
        (
            lambda: embedding_likelihood(points, eps=1.0, min_samples=1, components=3),
            ValueError,
            r"components to be an integer in \[1, 2\]",
        ),
        (
            lambda: embedding_likelihood(points * np.nan, eps=1.0, min_samples=1),
            ValueError,
            "finite embeddings",
        ),
    ):
        with pytest.raises(error, match=message):
            call()
