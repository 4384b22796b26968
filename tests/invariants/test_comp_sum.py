# SPDX-License-Identifier: Apache-2.0
"""Comp-sum losses: what the paper's definition implies, one named test each.

Those about the loss itself; its adversarial form and what its excess guarantees have files of their
own beside this one.
"""

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from xloss import logit_statistics
from xloss.classification import comp_sum, cross_entropy, generalized_cross_entropy

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(scale=3.0, size=(40, 7))
LABELS = RNG.integers(0, 7, 40)
TAUS = np.linspace(0.0, 3.0, 13)
PROBABILITY = jax.nn.softmax(jnp.asarray(LOGITS, jnp.float32))[jnp.arange(40), LABELS]

by_tau = jax.jit(jax.vmap(lambda z, y, tau: comp_sum(z, y, tau=tau), in_axes=(None, None, 0)))


@jax.jit
def loss(logits, labels, tau):
    return comp_sum(logits, labels, tau=tau)


def test_tau_one_is_softmax_cross_entropy():
    logits = jnp.asarray(LOGITS, jnp.float32)
    theirs = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.asarray(LABELS))
    np.testing.assert_allclose(loss(logits, LABELS, 1.0), theirs, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(loss(logits, LABELS, 1.0), cross_entropy(logits, LABELS))


def test_tau_two_is_the_mean_absolute_error():
    np.testing.assert_allclose(loss(LOGITS, LABELS, 2.0), 1.0 - PROBABILITY, rtol=1e-5, atol=1e-7)


def test_tau_zero_is_the_sum_of_exponentials():
    gaps = LOGITS - LOGITS[np.arange(40), LABELS][:, None]
    others = np.where(np.arange(7) == LABELS[:, None], 0.0, np.exp(gaps)).sum(-1)
    np.testing.assert_allclose(loss(LOGITS, LABELS, 0.0), others, rtol=2e-5)


@pytest.mark.parametrize("q", [0.0, 0.1, 0.7, 1.0])
def test_tau_one_plus_q_is_generalised_cross_entropy(q):
    np.testing.assert_allclose(
        loss(LOGITS, LABELS, 1.0 + q), generalized_cross_entropy(LOGITS, LABELS, q=q), rtol=1e-5
    )


def test_values_match_the_definition_to_1e_7_for_tau_0_to_3(x64):
    gaps = LOGITS - LOGITS[np.arange(40), LABELS][:, None]
    one_plus_s = np.exp(gaps).sum(-1)
    for tau, value in zip(TAUS, by_tau(LOGITS, LABELS, TAUS), strict=True):
        rate = 1.0 - tau
        exact = np.log(one_plus_s) if rate == 0 else np.expm1(rate * np.log(one_plus_s)) / rate
        np.testing.assert_allclose(value, exact, rtol=1e-7)


def test_derivative_in_tau_at_one_is_minus_half_the_squared_log_probability(x64):
    # The example of a branch at tau = 1: its derivative there was 0 instead of -4.647.
    log_odds = -np.log(np.expm1(np.sqrt(2 * 4.647)))
    logits = jnp.array([[log_odds, 0.0], [0.3, 0.0], [-4.0, 0.0], [20.0, 0.0]])
    labels = jnp.zeros(4, jnp.int32)
    slope = jax.jit(jax.jacfwd(lambda tau: comp_sum(logits, labels, tau=tau)))
    exact = -0.5 * np.asarray(cross_entropy(logits, labels)) ** 2
    np.testing.assert_allclose(slope(1.0), exact, rtol=1e-12)
    np.testing.assert_allclose(slope(1.0)[0], -4.647, rtol=1e-9)
    for nearby in (1.0 - 1e-9, 1.0 + 1e-9):  # no jump beside it
        np.testing.assert_allclose(slope(nearby), exact, rtol=1e-7)


def test_derivative_in_tau_matches_differences_from_0_to_3(x64):
    slopes = jax.jit(
        jax.vmap(jax.jacfwd(lambda tau: comp_sum(LOGITS, LABELS, tau=tau)), in_axes=0)
    )(TAUS)
    step = 1e-6
    above = by_tau(LOGITS, LABELS, TAUS + step)
    below = by_tau(LOGITS, LABELS, TAUS - step)
    np.testing.assert_allclose(slopes, (above - below) / (2 * step), rtol=1e-6, atol=1e-8)


@hypothesis.given(
    gap=st.floats(-40, 40, width=32),
    taus=st.lists(st.floats(0, 3, width=32), min_size=2, max_size=2).map(sorted),
)
def test_non_increasing_in_tau(gap, taus):
    logits, labels = jnp.array([[gap, 0.0, -1.0]], jnp.float32), jnp.zeros(1, jnp.int32)
    low, high = float(loss(logits, labels, taus[0])[0]), float(loss(logits, labels, taus[1])[0])
    assert high <= low * (1 + 1e-5)


@hypothesis.given(st.floats(0, 3, width=32))
def test_non_negative_and_bounded_above_tau_one(tau):
    losses = np.asarray(loss(LOGITS, LABELS, tau))
    assert (losses >= 0).all()
    if tau > 1 + 1e-3:
        assert (losses <= (1 + 1e-6) / (tau - 1)).all()


@pytest.mark.parametrize("offset", [-1000.0, 1000.0])
def test_adding_a_constant_to_all_logits_changes_nothing(offset):
    # On a grid that survives the addition, so that the rounding of the logits is not at play.
    logits = jnp.round(jnp.asarray(LOGITS, jnp.float32) * 64) / 64
    shifted = by_tau(logits + offset, LABELS, TAUS)
    np.testing.assert_array_equal(shifted, by_tau(logits, LABELS, TAUS))


def test_gradient_is_the_published_one_and_sums_to_zero(x64):
    p = jax.nn.softmax(jnp.asarray(LOGITS))
    hit = np.arange(7) == LABELS[:, None]
    p_y = np.asarray(p)[hit]

    @jax.jit
    @jax.vmap
    def gradients(tau):
        return jax.grad(lambda z: jnp.sum(comp_sum(z, LABELS, tau=tau)))(jnp.asarray(LOGITS))

    for tau, gradient in zip(TAUS, gradients(TAUS), strict=True):
        expected = (p_y ** (tau - 1))[:, None] * (np.asarray(p) - hit)
        np.testing.assert_allclose(gradient, expected, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(gradient.sum(-1), 0.0, atol=1e-9 * np.abs(gradient).max())


def test_a_single_class_costs_nothing_at_any_tau():
    logits, labels = jnp.array([[3.0], [-2.0]]), jnp.zeros(2, jnp.int32)
    np.testing.assert_array_equal(by_tau(logits, labels, TAUS), 0.0)
    gradient = jax.jit(jax.grad(lambda z: jnp.sum(by_tau(z, labels, TAUS))))(logits)
    np.testing.assert_array_equal(gradient, 0.0)


def test_infinite_only_where_float32_overflows():
    gaps = np.array([-80.0, -88.0, -89.0, -177.0, -178.0, -1e4])
    logits = jnp.stack([jnp.asarray(gaps, jnp.float32), jnp.zeros(6)], axis=-1)
    labels = jnp.zeros(6, jnp.int32)
    limit = float(np.finfo(np.float32).max)
    for tau, exponent in ((0.0, 1.0), (0.5, 0.5)):
        found = np.asarray(loss(logits, labels, tau))
        with np.errstate(over="ignore"):
            exact = np.expm1(exponent * np.logaddexp(0.0, -gaps)) / exponent
        np.testing.assert_array_equal(np.isinf(found), exact > limit)
    assert np.isfinite(loss(logits, labels, 1.0)).all()


def test_statistics_and_logits_agree_at_every_tau():
    stats = logit_statistics(LOGITS, LABELS)
    for tau in (0.0, 0.7, 1.0, 2.0):
        np.testing.assert_allclose(comp_sum(stats, tau=tau), loss(LOGITS, LABELS, tau), rtol=1e-6)
