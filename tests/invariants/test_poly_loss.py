# SPDX-License-Identifier: Apache-2.0
"""Invariants of PolyLoss: its formula, its expansion, what epsilon does to the gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.derivatives import check_derivatives
from xloss import binary_statistics
from xloss.classification import cross_entropy, poly_loss

EPSILONS = (-1.0, -0.3, 0.0, 1.0, 2.0)


def problem():
    rng = np.random.default_rng(0)
    return 3.0 * rng.normal(size=(40, 5)), rng.integers(0, 5, 40)


def target_probability(logits, labels):
    exponentials = np.exp(logits - logits.max(-1, keepdims=True))
    p = exponentials / exponentials.sum(-1, keepdims=True)
    return p, p[np.arange(len(labels)), labels]


@pytest.mark.parametrize("epsilon", EPSILONS)
def test_the_formula(epsilon, x64):
    logits, labels = problem()
    _, p = target_probability(logits, labels)
    found = poly_loss(jnp.asarray(logits), jnp.asarray(labels), epsilon=epsilon)
    np.testing.assert_allclose(found, -np.log(p) + epsilon * (1 - p), rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("epsilon", EPSILONS)
def test_the_expansion_in_powers_of_what_is_missing(epsilon, x64):
    m = np.linspace(0.0, 8.0, 17)  # p >= 1/2, where 60 powers are enough
    q = 1 / (1 + np.exp(m))
    series = epsilon * q + sum(q**j / j for j in range(1, 61))
    found = poly_loss(binary_statistics(jnp.asarray(m), jnp.ones(17, jnp.int32)), epsilon=epsilon)
    np.testing.assert_allclose(found, series, rtol=1e-8, atol=1e-16)


def test_epsilon_0_is_cross_entropy_and_its_gradient():
    logits, labels = (jnp.asarray(a) for a in problem())
    logits = logits.astype(jnp.float32)

    def value_and_gradient(loss):
        losses, pull = jax.vjp(loss, logits)
        return losses, pull(jnp.ones_like(losses))[0]

    mine = value_and_gradient(lambda z: poly_loss(z, labels, epsilon=0.0))
    for a, b in zip(mine, value_and_gradient(lambda z: cross_entropy(z, labels)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("epsilon", EPSILONS)
def test_the_gradient_is_that_of_cross_entropy_times_1_plus_epsilon_p(epsilon, x64):
    logits, labels = problem()
    p, p_y = target_probability(logits, labels)
    expected = (p - np.eye(5)[labels]) * (1 + epsilon * p_y)[:, None]
    found = jax.grad(lambda z: jnp.sum(poly_loss(z, jnp.asarray(labels), epsilon=epsilon)))
    np.testing.assert_allclose(found(jnp.asarray(logits)), expected, rtol=1e-8, atol=1e-12)


def test_it_is_never_negative_and_falls_with_the_margin_from_minus_1_on(x64):
    m = jnp.linspace(-30.0, 15.0, 200)
    stats = binary_statistics(m, jnp.ones(200, jnp.int32))
    for epsilon in EPSILONS:
        losses = poly_loss(stats, epsilon=epsilon)
        assert np.all(losses >= 0) and np.all(np.diff(losses) < 0)
    # Which is why less is refused.
    with pytest.raises(ValueError, match="expected epsilon"):
        poly_loss(stats, epsilon=-1.1)


def test_derivatives_in_the_logits_and_in_epsilon(x64):
    logits, labels = problem()
    y = jnp.asarray(labels)
    check_derivatives(lambda z, e: poly_loss(z, y, epsilon=e), logits, -0.4)


def test_a_mean_is_linear_in_epsilon_with_slope_the_mean_error_probability(x64):
    logits, labels = problem()
    z, y = jnp.asarray(logits), jnp.asarray(labels)
    slope = jax.grad(lambda e: jnp.mean(poly_loss(z, y, epsilon=e)))(0.7)
    _, p = target_probability(logits, labels)
    np.testing.assert_allclose(slope, np.mean(1 - p), rtol=1e-12)
