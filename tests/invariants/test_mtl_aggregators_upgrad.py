# SPDX-License-Identifier: Apache-2.0
"""UPGrad and GradDrop on a representation: invariants beside those of every aggregator."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize

from xloss.optim import aggregators
from xloss.optim.aggregators import upgrad

KEY = jax.random.key(0)


def conflicting(tasks, width, seed=0, spread=0.0):
    """[T, P] in float64, the mean pulled away; lengths apart by up to 10^(2 spread)."""
    rng = np.random.default_rng(seed)
    g = rng.normal(size=(tasks, width))
    g -= 1.5 * g.mean(axis=0)
    return g * 10.0 ** rng.uniform(-spread, spread, size=(tasks, 1))


@pytest.mark.parametrize("tasks,width,spread", [(2, 3, 0), (3, 6, 3), (6, 3, 0), (12, 8, 2)])
def test_upgrad_hurts_no_task(tasks, width, spread, x64):
    g = jnp.asarray(conflicting(tasks, width, spread=spread))
    direction, weights = upgrad(g)
    lengths = jnp.linalg.norm(g, axis=1)
    assert np.all(g @ direction >= -1e-8 * lengths * jnp.max(lengths))
    assert np.all(weights >= (1 - 1e-12) / tasks)


@pytest.mark.parametrize("seed", range(3))
def test_upgrad_is_the_mean_of_the_exact_projections(seed, x64):
    """Against Lawson and Hanson's non-negative least squares: P(g) = g + G^T x, x >= 0."""
    g = conflicting(4, 6, seed=seed)
    projections = [row + g.T @ optimize.nnls(g.T, -row)[0] for row in g]
    direction, _ = upgrad(jnp.asarray(g))
    np.testing.assert_allclose(direction, np.mean(projections, axis=0), rtol=1e-6, atol=1e-8)


def test_upgrad_without_conflict_is_the_mean():
    g = jnp.abs(jnp.asarray(conflicting(4, 6), jnp.float32))
    np.testing.assert_allclose(upgrad(g)[0], jnp.mean(g, axis=0), rtol=1e-5)


def test_upgrad_leaves_nothing_of_opposite_gradients():
    g = jnp.array([[1.0, 2.0], [-1.0, -2.0]])
    direction, _ = upgrad(g)
    np.testing.assert_allclose(direction, 0.0, atol=1e-4)


# ---- GradDrop on a representation --------------------------------------------------------------


def test_graddrop_representation_masks_whole_features():
    rng = np.random.default_rng(3)
    rep = jnp.asarray(rng.normal(size=(4, 6)), jnp.float32)
    grads = jnp.asarray(rng.normal(size=(3, 4, 6)), jnp.float32)
    found = aggregators.graddrop_representation(rep, grads, key=KEY)
    kept = [  # every feature is the sum over some of the tasks, for the whole batch
        any(
            np.allclose(found[:, f], np.sum(np.asarray(grads)[list(subset), :, f], axis=0))
            for size in range(4)
            for subset in itertools.combinations(range(3), size)
        )
        for f in range(6)
    ]
    assert all(kept)
    every = aggregators.graddrop_representation(rep, grads, key=KEY, leak=1.0)
    np.testing.assert_allclose(every, jnp.sum(grads, axis=0), rtol=1e-5, atol=1e-6)
    with pytest.raises(TypeError, match="got neither"):
        aggregators.graddrop_representation(rep, grads)
    with pytest.raises(ValueError, match="expected grads"):
        aggregators.graddrop_representation(rep[:, :5], grads, key=KEY)


# ---- The diagnostic ----------------------------------------------------------------------------


def test_conflict_says_angles_lengths_and_how_many_pairs():
    g = jnp.array([[3.0, 0.0], [0.0, 1.0], [-1.0, -1.0]])
    found = aggregators.conflict({"a": g[:, :1], "b": g[:, 1:]})
    np.testing.assert_allclose(jnp.diagonal(found.cosines), 1.0, rtol=1e-6)
    np.testing.assert_allclose(found.cosines[0], [1.0, 0.0, -(0.5**0.5)], rtol=1e-6)
    np.testing.assert_allclose(found.similarities[0, 1], 0.6, rtol=1e-6)
    np.testing.assert_allclose(found.rate, 2 / 3, rtol=1e-6)
    nothing = aggregators.conflict(jnp.zeros([2, 3]))
    assert all(np.all(np.asarray(x) == 0) for x in nothing)
    assert float(aggregators.conflict(g[:1]).rate) == 0.0
    scaled = aggregators.conflict(1e-30 * g)
    np.testing.assert_allclose(scaled.cosines, found.cosines, rtol=1e-5)
