# SPDX-License-Identifier: Apache-2.0
"""Invariants of LDR-KL, ALDR-KL and their competitors (spec ldr)."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from xloss import classification as c

BATCH, CLASSES = 9, 6


def problem(scale=3.0, seed=0):
    rng = np.random.default_rng(seed)
    logits = jnp.asarray(scale * rng.normal(size=(BATCH, CLASSES)))
    return logits, jnp.asarray(rng.integers(0, CLASSES, BATCH), jnp.int32)


@functools.cache
def value_and_gradient(loss, **options):
    def total(logits, labels):
        losses = loss(logits, labels, **options)
        return jnp.sum(losses), losses

    return jax.jit(jax.value_and_grad(total, has_aux=True))


def test_ldr_at_lam_1_without_a_margin_is_cross_entropy_minus_log_k(x64):
    logits, labels = problem()
    (_, losses), gradient = value_and_gradient(c.ldr_kl, margin=0.0)(logits, labels)
    (_, plain), slope = value_and_gradient(c.cross_entropy)(logits, labels)
    np.testing.assert_allclose(losses, plain - np.log(CLASSES), rtol=1e-12)
    np.testing.assert_allclose(gradient, slope, atol=1e-14)


def test_ldr_is_within_lam_log_k_of_the_hinge_and_falls_with_lam(x64):
    logits, labels = problem()
    lams = np.asarray([1e-3, 0.1, 1.0, 10.0, 1e4])
    found = np.stack([c.ldr_kl(logits, labels, lam=lam, margin=0.5) for lam in lams])
    hinge = np.asarray(c.crammer_singer(logits, labels, margin=0.5))
    assert np.all(np.abs(found - hinge) <= lams[:, None] * np.log(CLASSES) + 1e-12)
    assert np.all(np.diff(found, axis=0) <= 1e-12)
    own = np.take_along_axis(np.asarray(logits), np.asarray(labels)[:, None], 1)
    gaps = np.asarray(logits) - own + 0.5 * (np.arange(CLASSES) != np.asarray(labels)[:, None])
    np.testing.assert_allclose(found[-1], gaps.mean(-1), rtol=1e-2, atol=1e-2)


def test_ldr_does_not_see_a_shift_and_its_gradient_sums_to_zero(x64):
    logits, labels = problem()
    for loss in (c.ldr_kl, c.aldr_kl):
        (_, losses), gradient = value_and_gradient(loss)(logits, labels)
        (_, moved), _ = value_and_gradient(loss)(logits + 100.0, labels)
        np.testing.assert_allclose(moved, losses, atol=1e-11)
        np.testing.assert_allclose(np.sum(gradient, axis=-1), 0.0, atol=1e-13)


def test_ldr_may_be_negative_but_not_below_minus_lam_log_k(x64):
    logits, labels = problem(scale=30.0)
    losses = c.ldr_kl(logits, labels, lam=2.0, margin=0.0)
    assert np.min(losses) < 0 and np.all(losses >= -2.0 * np.log(CLASSES))
    np.testing.assert_allclose(c.ldr_kl(0.0 * logits, labels, margin=0.0), 0.0, atol=1e-15)


def test_aldr_is_at_least_ldr_and_its_lam_is_in_its_interval(x64):
    logits, labels = problem()
    for lam0, alpha in ((1.0, 2.0), (10.0, 1.5), (0.5, 4.0)):
        options = {"lam0": lam0, "alpha": alpha}
        losses = c.aldr_kl(logits, labels, **options)
        assert np.all(losses >= c.ldr_kl(logits, labels, lam=lam0) - 1e-12)
        lam = c.aldr_lam(logits, labels, **options)
        assert np.all((lam <= lam0) & (lam >= lam0 * (1.0 - 1.0 / alpha)))
    far = c.aldr_kl(logits, labels, alpha=1e9)
    np.testing.assert_allclose(far, c.ldr_kl(logits, labels, lam=1.0), rtol=1e-7)


def test_no_temperature_of_a_fine_grid_is_worse_than_the_one_that_aldr_finds(x64):
    logits, labels = problem(scale=5.0, seed=4)
    for alpha in (0.5, 1.2, 3.0):
        losses = np.asarray(c.aldr_kl(logits, labels, alpha=alpha))
        for lam in np.linspace(1e-3, 1.0, 200):
            robust = c.ldr_kl(logits, labels, lam=lam)
            found = robust - alpha * np.log(CLASSES) / 2 * (lam - 1.0) ** 2
            assert np.all(losses >= np.asarray(found) - 1e-9)


def test_alternating_steps_come_down_to_a_fixed_point(x64):
    logits, labels = problem()
    lams = [c.aldr_lam(logits, labels, num_steps=n) for n in (0, 1, 2, 50)]
    assert np.all(lams[0] == 1.0) and np.all(lams[1] <= lams[0]) and np.all(lams[2] <= lams[1])
    np.testing.assert_allclose(lams[3], c.aldr_lam(logits, labels, num_steps=51), rtol=1e-9)


def test_a_step_of_the_stored_temperatures_changes_its_own_examples_only(x64):
    logits, labels = problem()
    state = c.ALDRState(jnp.full(20, 2.0))
    indices = jnp.asarray([3, 7, 11, 0, 19, 4, 5, 20, -1])  # the last two are out of range
    where = jnp.arange(BATCH) != 1
    run = jax.jit(functools.partial(c.aldr_kl_step, lam0=2.0))
    losses, after = run(state, indices, logits, labels, where=where)
    changed = np.flatnonzero(np.asarray(after.lam) != 2.0)
    np.testing.assert_array_equal(changed, [0, 3, 4, 5, 11, 19])
    np.testing.assert_array_equal(np.isnan(losses), np.arange(BATCH) >= 7)
    assert losses[1] == 0.0

    def stored(logits):
        return jnp.sum(run(state, indices, logits, labels, where=where)[1].lam)

    assert not np.any(jax.grad(stored)(logits))
    again, _ = run(after, indices[:7], logits[:7], labels[:7])
    assert not np.allclose(again[0], losses[0])  # the temperature is warm


@pytest.mark.parametrize(
    ("loss", "constant"),
    [
        (c.mean_absolute_error, 2.0 * (CLASSES - 1)),
        (c.reverse_cross_entropy, -np.log(1e-4) * (CLASSES - 1)),
        (c.normalized_cross_entropy, 1.0),
        (c.robust_log_loss, None),
    ],
)
def test_symmetric_losses_add_up_to_a_constant_over_labels(loss, constant, x64):
    logits, _ = problem()
    every = jnp.stack([loss(logits, jnp.full(BATCH, k)) for k in range(CLASSES)])
    total = np.sum(every, axis=0)
    np.testing.assert_allclose(total, total[0] if constant is None else constant, rtol=1e-11)


def test_jensen_shannon_tends_to_cross_entropy_and_to_the_absolute_error(x64):
    logits, labels = problem(scale=1.0)
    near = c.jensen_shannon(logits, labels, weight=1e-7)
    np.testing.assert_allclose(near, c.cross_entropy(logits, labels), rtol=1e-5)
    far = c.jensen_shannon(logits, labels, weight=1.0 - 1e-9)
    np.testing.assert_allclose(far, c.mean_absolute_error(logits, labels) / 2, rtol=0.06)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_low_precision_losses_are_those_of_the_rounded_logits(dtype, x64):
    rng = np.random.default_rng(1)
    logits = jnp.asarray(rng.uniform(0.0, 80.0, size=(64, CLASSES))).astype(dtype)
    labels = jnp.asarray(rng.integers(0, CLASSES, 64), jnp.int32)
    wide = logits.astype(jnp.float64)
    for loss in (
        c.symmetric_cross_entropy, c.reverse_cross_entropy, c.mean_absolute_error,
        c.truncated_generalized_cross_entropy, c.jensen_shannon, c.normalized_cross_entropy,
        c.active_passive, c.asymmetric_unhinged, c.asymmetric_generalized_cross_entropy,
        c.crammer_singer, c.weston_watkins, c.brier, c.robust_log_loss,
    ):  # fmt: skip
        found, exact = np.asarray(loss(logits, labels)), np.asarray(loss(wide, labels))
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, exact, rtol=1e-5, atol=1e-37, err_msg=loss.__name__)


def test_bad_arguments_are_named():
    logits, labels = jnp.zeros((2, 3)), jnp.zeros(2, jnp.int32)
    for call, error, message in (
        (lambda: c.ldr_kl(logits, labels, lam=0.0), ValueError, "lam"),
        (lambda: c.ldr_kl(logits, labels, normalize="l2"), ValueError, "expected normalize"),
        (lambda: c.aldr_kl(logits, labels, num_steps=-1), ValueError, "num_steps"),
        (lambda: c.init_aldr(0), ValueError, "num_examples"),
        (lambda: c.aldr_kl_step(logits, labels, logits, labels), TypeError, "an ALDRState"),
        (lambda: c.jensen_shannon(logits, labels, weight=1.0), ValueError, r"weight in \(0, 1\)"),
        (lambda: c.active_passive(logits, labels, passive="brier"), ValueError, "passive"),
        (lambda: c.active_passive(logits, labels, a=2.0), ValueError, "expected a=None beside"),
        (lambda: c.asymmetric_unhinged(logits, labels, a=0.5), ValueError, "expected a"),
    ):
        with pytest.raises(error, match=message):
            call()
