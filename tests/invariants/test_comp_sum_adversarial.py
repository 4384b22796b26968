# SPDX-License-Identifier: Apache-2.0
"""Smooth adversarial comp-sum losses and the attack they train against, one named test each."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from xloss import surrogates
from xloss.adversarial import (
    adversarial_rho_margin,
    maximize_score_displacement,
    smooth_adversarial_comp_sum,
)
from xloss.classification import comp_sum

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(scale=3.0, size=(40, 7))
LABELS = RNG.integers(0, 7, 40)
TAUS = np.linspace(0.0, 3.0, 13)


@jax.jit
def smooth(logits, other, labels, tau, rho, nu):
    def total(*pair):
        losses = smooth_adversarial_comp_sum(*pair, labels, tau=tau, rho=rho, nu=nu)
        return jnp.sum(losses), losses

    slopes, losses = jax.grad(total, argnums=(0, 1), has_aux=True)(
        jnp.asarray(logits), jnp.asarray(other)
    )
    return losses, slopes


@jax.jit
def rho_margin(candidates, labels, tau, rho):
    return adversarial_rho_margin(candidates, labels, tau=tau, rho=rho)


def linear(W, x):
    return x @ W


def displaced(W, x, y, x_adv):
    """||D(x') - D(x)||_2 in NumPy."""
    moved = (np.asarray(x_adv) - x) @ W
    return np.sqrt(np.square(moved[np.arange(len(y)), y][:, None] - moved).sum(-1))


def test_smooth_adversarial_loss_without_displacement_is_comp_sum_at_temperature_rho(x64):
    for tau, rho in ((0.4, 1.0), (1.0, 2.0), (2.0, 0.5)):
        value, slope = smooth(LOGITS, LOGITS, LABELS, tau, rho, 1.0)
        np.testing.assert_allclose(value, comp_sum(LOGITS / rho, LABELS, tau=tau), rtol=1e-12)
        np.testing.assert_array_equal(slope[1], 0.0)  # of the norm at 0: a subgradient, not NaN


def test_smooth_adversarial_gradient_flows_through_both_logits(x64):
    other = LOGITS + RNG.normal(size=LOGITS.shape)
    value, slopes = smooth(LOGITS, other, LABELS, 0.7, 1.5, 0.3)
    clean, clean_slopes = smooth(LOGITS, LOGITS, LABELS, 0.7, 1.5, 0.3)
    hit = np.arange(7) == LABELS[:, None]
    moved = other - LOGITS
    gaps = moved[hit][:, None] - moved
    norm = np.sqrt(np.square(gaps).sum(-1))
    np.testing.assert_allclose(value - clean, 0.3 * norm, rtol=1e-9)
    expected = 0.3 * (hit * gaps.sum(-1, keepdims=True) - gaps) / norm[:, None]
    np.testing.assert_allclose(slopes[1], expected, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(slopes[0] - clean_slopes[0], -expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("tau", [0.0, 0.4, 1.0, 1.5, 2.0])
def test_smooth_adversarial_loss_bounds_the_rho_margin_loss_and_that_the_zero_one_loss(tau, x64):
    rho, classes = 1.5, LOGITS.shape[1]
    candidates = LOGITS + RNG.normal(size=(4, *LOGITS.shape))
    nu = np.sqrt(classes - 1) / rho
    bound = np.max([smooth(LOGITS, z, LABELS, tau, rho, nu)[0] for z in candidates], axis=0)
    middle = rho_margin(candidates, LABELS, tau, rho)
    others = np.where(np.arange(classes) == LABELS[:, None], -np.inf, candidates).max(-1)
    wrong = (others >= candidates[:, np.arange(40), LABELS]).any(0)
    phi_of_one = surrogates.comp_sum(jnp.float64(0.0), tau=tau)
    assert (middle <= bound * (1 + 1e-12)).all()
    assert (float(phi_of_one) * wrong <= middle * (1 + 1e-12)).all()
    assert 0 < wrong.sum() < 40


def test_rho_margin_loss_is_that_of_the_worst_candidate(x64):
    candidates = LOGITS + RNG.normal(size=(4, *LOGITS.shape))
    alone = [rho_margin(z[None], LABELS, 0.7, 1.5) for z in candidates]
    together = rho_margin(candidates, LABELS, 0.7, 1.5)
    np.testing.assert_allclose(together, np.max(alone, axis=0), rtol=1e-12)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_displacement_attack_stays_below_the_exact_supremum_and_comes_close(norm, x64):
    x, W, radius = RNG.normal(size=(20, 6)), RNG.normal(size=(6, 4)), 0.1
    labels = RNG.integers(0, 4, 20)
    gaps = W[:, labels].T[:, :, None] - W[None]  # [examples, features, classes]
    if norm == "linf":
        corners = radius * np.array(list(itertools.product([-1, 1], repeat=6)))
        exact = np.sqrt(np.square(corners @ gaps).sum(-1)).max(-1)
    else:
        exact = radius * np.linalg.svd(gaps, compute_uv=False)[:, 0]
    x_adv = maximize_score_displacement(
        jax.tree_util.Partial(linear, jnp.asarray(W)), x, labels, key=jax.random.key(0),
        radius=radius, norm=norm, steps=40, step_size=radius / 4, restarts=10,
    )  # fmt: skip
    reached = displaced(W, x, labels, x_adv)
    assert (reached <= exact * (1 + 1e-9)).all()
    assert (reached >= 0.999 * exact).all()


def test_displacement_attack_is_no_part_of_the_gradient_and_survives_a_dead_model():
    x = jnp.asarray(RNG.normal(size=(20, 6)), jnp.float32)
    labels = jnp.asarray(RNG.integers(0, 4, 20))

    @jax.jit
    def slopes(W, radius):
        def total(W, radius):
            apply = jax.tree_util.Partial(linear, W)
            return jnp.sum(
                maximize_score_displacement(
                    apply, x, labels, key=jax.random.key(0), radius=radius, bounds=(-1.0, 1.0)
                )
            )

        return jax.value_and_grad(total, argnums=(0, 1))(W, radius)

    W = jnp.asarray(RNG.normal(size=(6, 4)), jnp.float32)
    for weights in (W, jnp.zeros_like(W)):
        value, (of_weights, of_radius) = slopes(weights, 0.1)
        assert np.isfinite(value)
        np.testing.assert_array_equal(of_weights, 0.0)
        assert of_radius == 0.0
