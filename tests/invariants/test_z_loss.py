# SPDX-License-Identifier: Apache-2.0
"""The spherical family: what the papers promise of it, one named test each.

Those about the losses; test_z_loss_layer.py has those of the exact O(d^2) layer.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import xloss
from xloss.classification import log_partition_penalty, spherical_softmax, taylor_softmax, z_loss

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(scale=2.0, size=(12, 7))
LABELS = RNG.integers(0, 7, 12)
TINY = np.finfo(np.float32).tiny


@jax.jit
def loss(logits, labels, a=1.0, b=0.0):
    return z_loss(logits, labels, a=a, b=b)


@jax.jit
def loss_and_gradient(logits, labels, a=1.0, b=0.0):
    losses, pull = jax.vjp(lambda z: z_loss(z, labels, a=a, b=b), logits)
    return losses, pull(jnp.ones_like(losses))[0]


def standardised(logits, labels):
    centred = logits - logits.mean(-1, keepdims=True)
    return (centred / logits.std(-1, keepdims=True))[np.arange(len(labels)), labels]


@pytest.mark.parametrize(("scale", "shift"), [(3.0, 0.0), (0.01, -40.0), (1.0, 1000.0)])
def test_shift_and_positive_scale_change_nothing(scale, shift, x64):
    np.testing.assert_allclose(
        loss(scale * LOGITS + shift, LABELS, 0.5, 1.0), loss(LOGITS, LABELS, 0.5, 1.0), rtol=1e-9
    )


def test_a_shift_of_1000_costs_float32_nothing_but_the_logits_rounding():
    logits = np.round(LOGITS * 64) / 64  # on a grid that survives the addition
    moved = loss((logits + 1000).astype(np.float32), LABELS)
    np.testing.assert_allclose(moved, loss(logits.astype(np.float32), LABELS), rtol=1e-4)


def test_a_negative_scale_maps_z_to_minus_z(x64):
    z = standardised(LOGITS, LABELS)
    np.testing.assert_allclose(loss(LOGITS, LABELS), np.logaddexp(0, -z), rtol=1e-9)
    np.testing.assert_allclose(loss(-2 * LOGITS + 5, LABELS), np.logaddexp(0, z), rtol=1e-9)


def test_gradient_is_orthogonal_to_ones_and_to_the_logits(x64):
    for a, b in ((1.0, 0.0), (0.1, 10.0), (20.0, 1.5)):
        _, gradient = loss_and_gradient(LOGITS, LABELS, a, b)
        np.testing.assert_allclose(gradient.sum(-1), 0.0, atol=1e-12)
        np.testing.assert_allclose((gradient * LOGITS).sum(-1), 0.0, atol=1e-12)


def test_gradient_is_the_closed_form(x64):
    a, b = 0.7, 1.2
    _, gradient = loss_and_gradient(LOGITS, LABELS, a, b)
    sigma = LOGITS.std(-1, keepdims=True)
    z = (LOGITS - LOGITS.mean(-1, keepdims=True)) / sigma
    z_y = standardised(LOGITS, LABELS)[:, None]
    hit = np.arange(7) == LABELS[:, None]
    slope = -1 / (1 + np.exp(-a * (b - z_y)))
    np.testing.assert_allclose(gradient, slope * (hit - 1 / 7 - z_y * z / 7) / sigma, rtol=1e-9)


def test_gradient_in_the_sums_is_the_closed_form(x64):
    a, b, classes = 0.5, 1.0, 7

    def from_sums(target, total, squares):
        mean = total / classes
        stats = xloss.LogitStatistics(
            centred=target - mean,
            variance=squares / classes - mean**2,
            num_classes=classes,
            provider="sums",
        )
        return jnp.sum(z_loss(stats, a=a, b=b))

    target = LOGITS[np.arange(12), LABELS]
    sums = target, LOGITS.sum(-1), (LOGITS**2).sum(-1)
    found = jax.jit(jax.grad(from_sums, argnums=(0, 1, 2)))(*map(jnp.asarray, sums))
    mean, sigma = LOGITS.mean(-1), LOGITS.std(-1)
    g = -1 / (1 + np.exp(-a * (b - (target - mean) / sigma)))
    wanted = (
        g / sigma,
        g * (-1 / (classes * sigma) + mean * (target - mean) / (classes * sigma**3)),
        -g * (target - mean) / (2 * classes * sigma**3),
    )
    for mine, theirs in zip(found, wanted, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-9)


def test_sharp_a_is_relu_of_the_missing_deviations(x64):
    z = standardised(LOGITS, LABELS)
    np.testing.assert_allclose(
        loss(LOGITS, LABELS, 1e6, 1.5), np.maximum(1.5 - z, 0.0), rtol=1e-6, atol=1e-6
    )


def test_greatest_z_is_that_of_a_one_hot_vector(x64):
    one_hot = 4.0 * np.eye(10)[:3]
    wanted = np.log1p(np.exp(-2.0 * np.sqrt(9.0))) / 2.0
    np.testing.assert_allclose(loss(one_hot, np.arange(3), 2.0), wanted, rtol=1e-12)
    assert (loss(RNG.normal(size=(200, 10)), np.zeros(200, int), 2.0) >= wanted).all()


def test_hundreds_of_a_times_distance_stay_exact():
    losses, gradient = loss_and_gradient(jnp.asarray(LOGITS, jnp.float32), LABELS, 100.0, 30.0)
    z = standardised(LOGITS, LABELS)
    np.testing.assert_allclose(losses, 30.0 - z, rtol=1e-6)  # softplus(2700) / 100
    assert np.isfinite(gradient).all() and (np.abs(gradient).max(-1) > 0).all()


def test_equal_logits_have_z_zero_and_a_finite_gradient():
    for dtype in (jnp.float32, jnp.bfloat16):
        losses, gradient = loss_and_gradient(jnp.full((2, 5), 3.0, dtype), jnp.array([0, 4]))
        np.testing.assert_allclose(losses, np.log(2.0), rtol=1e-6)
        assert np.isfinite(gradient.astype(jnp.float32)).all()


def test_it_is_not_the_penalty_of_the_same_nickname():
    penalty = log_partition_penalty(LOGITS, LABELS, coef=1.0)
    assert not np.allclose(penalty, loss(LOGITS, LABELS), rtol=0.1)
    np.testing.assert_allclose(loss(LOGITS + 50, LABELS), loss(LOGITS, LABELS), rtol=1e-4)
    assert (log_partition_penalty(LOGITS + 50, LABELS, coef=1.0) > 30 * penalty).all()


@pytest.mark.parametrize(
    ("function", "mass"),
    [
        (taylor_softmax, lambda o: 1 + o + o**2 / 2),
        (lambda z, y: spherical_softmax(z, y, eps=0.01), lambda o: o**2 + 0.01),
        (lambda z, y: spherical_softmax(z, y, eps=1e-6), lambda o: o**2 + 1e-6),
    ],
    ids=["taylor", "spherical", "spherical small eps"],
)
def test_quadratic_softmax_is_minus_log_of_its_share(function, mass, x64):
    for logits in (LOGITS, LOGITS * 1e3, LOGITS * 1e-3, LOGITS + 100):
        p = mass(logits) / mass(logits).sum(-1, keepdims=True)
        wanted = -np.log(p[np.arange(12), LABELS])
        np.testing.assert_allclose(function(logits, LABELS), wanted, rtol=1e-9, atol=1e-12)


def test_spherical_softmax_is_even_and_taylor_softmax_is_not():
    losses = spherical_softmax(LOGITS, LABELS)
    np.testing.assert_allclose(spherical_softmax(-LOGITS, LABELS), losses, rtol=1e-5)
    taylor = taylor_softmax(LOGITS, LABELS)
    assert not np.allclose(taylor_softmax(-LOGITS, LABELS), taylor, rtol=0.01)


def test_confident_quadratic_losses_keep_their_digits_in_float32():
    logits = np.array([[1e3, 1.0, -2.0, 0.5]])
    for function, mass in (
        (taylor_softmax, lambda o: 1 + o + o**2 / 2),
        (spherical_softmax, lambda o: o**2 + 0.01),
    ):
        wanted = np.log1p(mass(logits[0, 1:]).sum() / mass(1e3))
        found = function(logits.astype(np.float32), np.array([0]))
        np.testing.assert_allclose(found, wanted, rtol=0.05)  # the variance holds 1e6 and 1
        assert (found > 0).all()


def test_huge_logits_give_finite_losses_and_gradients():
    rows = jnp.array([[1e18, -1e18, 1.0], [1e30, -1e30, 0.0], [1e37, 1e37, -3e37], [TINY, 0, 0]])
    logits, labels = jnp.repeat(rows, 3, axis=0), jnp.tile(jnp.arange(3), 4)

    @jax.jit
    def values_and_gradients(z):
        found = []
        for function in (z_loss, taylor_softmax, spherical_softmax):
            losses, pull = jax.vjp(lambda z, f=function: f(z, labels), z)
            found.append((losses, pull(jnp.ones_like(losses))[0]))
        return found

    for losses, gradient in values_and_gradients(logits):
        assert np.isfinite(losses).all() and (losses >= 0).all()
        assert np.isfinite(gradient).all()
