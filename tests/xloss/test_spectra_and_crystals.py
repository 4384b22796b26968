# SPDX-License-Identifier: Apache-2.0
"""Explained variance, ranks, CKA and the geometry of embeddings: exact shapes and bad input."""

import jax.numpy as jnp
import numpy as np
import pytest

from xloss import diagnostics

RNG = np.random.default_rng(0)
FEATURES = RNG.normal(size=(40, 6)) * np.array([3.0, 2.0, 1.0, 1.0, 0.5, 0.1])


def test_ratios_are_those_of_the_covariance_and_standardising_those_of_the_correlation(x64):
    for standardise, matrix in ((False, np.cov(FEATURES.T)), (True, np.corrcoef(FEATURES.T))):
        values = np.sort(np.linalg.eigvalsh(matrix))[::-1]
        found = diagnostics.explained_variance_ratios(FEATURES, standardise=standardise)
        np.testing.assert_allclose(found, values / values.sum(), rtol=1e-9)


def test_k_components_are_k_ratios_and_not_one_more():
    ratios = diagnostics.explained_variance_ratios(FEATURES, standardise=False)
    for k in (1, 2, 5):
        found = diagnostics.explained_variance(ratios, components=k)
        np.testing.assert_allclose(found, np.sum(ratios[:k]), rtol=1e-6)
    np.testing.assert_allclose(diagnostics.explained_variance(ratios, components=99), 1.0, 1e-6)


def test_components_for_a_share_fall_back_to_all_of_them():
    ratios = jnp.array([0.5, 0.25, 0.125])
    counts = [int(diagnostics.components_for(ratios, share=s)) for s in (0.0, 0.5, 0.6, 0.8, 0.99)]
    assert counts == [1, 1, 2, 3, 3]


def test_ranks_count_equal_directions():
    equal = jnp.array([0.25, 0.25, 0.25, 0.25, 0.0])
    np.testing.assert_allclose(diagnostics.effective_rank(equal), 4.0, rtol=1e-4)
    np.testing.assert_allclose(diagnostics.participation_ratio(equal), 4.0, rtol=1e-6)
    np.testing.assert_allclose(diagnostics.matrix_effective_rank(3 * jnp.eye(5)), 5.0, rtol=1e-5)
    np.testing.assert_allclose(diagnostics.matrix_effective_rank(jnp.ones((3, 4))), 1.0, rtol=1e-5)


def test_features_that_do_not_vary_give_finite_numbers():
    flat = jnp.ones((4, 3)).at[:, 0].set(jnp.arange(4.0))
    np.testing.assert_allclose(diagnostics.explained_variance_ratios(flat), [1, 0, 0], atol=1e-6)
    nothing = diagnostics.explained_variance_ratios(jnp.ones((4, 3)))
    np.testing.assert_array_equal(nothing, 0.0)
    assert float(diagnostics.linear_cka(jnp.ones((4, 3)), FEATURES[:4])) == 0.0
    assert float(diagnostics.matrix_effective_rank(jnp.zeros((2, 2)))) == 1.0
    assert float(diagnostics.circle_metric(jnp.ones((4, 3)))) == 0.0
    huge = diagnostics.explained_variance_ratios(1e25 * FEATURES, standardise=False)
    np.testing.assert_allclose(
        huge, diagnostics.explained_variance_ratios(FEATURES, standardise=False), rtol=1e-4
    )


def test_linear_cka_ignores_rotation_and_scale():
    rotation = np.linalg.qr(RNG.normal(size=(6, 6)))[0]
    same = diagnostics.linear_cka(FEATURES, 7.0 * FEATURES @ rotation + 1.0)
    np.testing.assert_allclose(same, 1.0, rtol=1e-5)
    other = RNG.normal(size=(40, 3))
    found = float(diagnostics.linear_cka(FEATURES, other))
    assert 0.0 <= found < 0.5
    np.testing.assert_allclose(diagnostics.linear_cka(other, FEATURES), found, rtol=1e-5)


def test_perfect_crystals_score_zero():
    turn = np.linalg.qr(RNG.normal(size=(6, 6)))[0]
    angle = 2 * np.pi * np.arange(12) / 12
    circle = np.stack([np.cos(angle), np.sin(angle)], -1) @ turn[:2]
    grid = np.stack(np.meshgrid(np.arange(4.0), np.arange(4.0), indexing="ij"), -1).reshape(16, 2)
    line = np.arange(8.0)[:, None] * turn[:1]
    points = turn[np.arange(9) % 3]
    assert float(diagnostics.circle_metric(circle)) < 1e-5
    assert float(diagnostics.lattice_metric(grid @ turn[:2], size=4)) < 1e-5
    assert float(diagnostics.greater_metric(line)) < 1e-5
    assert float(diagnostics.equivalence_metric(points, modulus=3)) < 1e-5
    noise = RNG.normal(size=(16, 6))
    assert float(diagnostics.circle_metric(noise)) > 0.2
    assert float(diagnostics.lattice_metric(noise, size=4)) > 0.1
    assert float(diagnostics.greater_metric(noise)) > 0.1
    assert float(diagnostics.equivalence_metric(noise, modulus=3)) > 0.3


def test_wrong_input_is_refused_by_name():
    with pytest.raises(ValueError, match=r"expected features \[N, d\] with N >= 2"):
        diagnostics.explained_variance_ratios(jnp.ones(3))
    with pytest.raises(ValueError, match="explained_variance: expected components to be an int"):
        diagnostics.explained_variance(jnp.ones(3), components=0)
    with pytest.raises(ValueError, match=r"components_for: expected share in \[0, 1\]"):
        diagnostics.components_for(jnp.ones(3), share=90)
    with pytest.raises(ValueError, match=r"expected embeddings of 16 grid points"):
        diagnostics.lattice_metric(jnp.ones((15, 2)), size=4)
    with pytest.raises(ValueError, match=r"expected embeddings \[V, d\] with V >= 4"):
        diagnostics.equivalence_metric(jnp.ones((3, 2)), modulus=3)
    with pytest.raises(ValueError, match="of one N"):
        diagnostics.linear_cka(jnp.ones((3, 2)), jnp.ones((4, 2)))
    with pytest.raises(TypeError, match="of a float dtype"):
        diagnostics.greater_metric(jnp.ones((3, 2), jnp.int32))
