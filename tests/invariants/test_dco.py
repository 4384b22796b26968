# SPDX-License-Identifier: Apache-2.0
"""Invariants of direct coverage optimisation (spec dco)."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import xloss
from xloss.classification import (
    coverage,
    coverage_nats,
    coverage_weight,
    cross_entropy,
    direct_coverage,
    pass_at_k,
)

ANSWERS, TOKENS, WORDS = 5, 4, 6


def problem(dtype=np.float64):
    rng = np.random.default_rng(0)
    logits = jnp.asarray((2.0 * rng.normal(size=(ANSWERS, TOKENS, WORDS))).astype(dtype))
    labels = jnp.asarray(rng.integers(0, WORDS, (ANSWERS, TOKENS)), jnp.int32)
    return logits, labels, jnp.asarray(rng.uniform(size=(ANSWERS, TOKENS)) > 0.3)


@functools.cache
def value_and_gradient(level):
    def total(logits, labels, where, n):
        losses = direct_coverage(logits, labels, num_samples=n, level=level, where=where)
        return jnp.sum(losses), losses

    return jax.jit(jax.value_and_grad(total, has_aux=True))


@pytest.mark.parametrize("level", ["answer", "step"])
def test_one_sample_is_summed_cross_entropy(level, x64):
    logits, labels, where = problem()
    (_, losses), gradient = value_and_gradient(level)(logits, labels, where, 1.0)
    plain = cross_entropy(logits, labels, where=where)
    np.testing.assert_allclose(losses, np.sum(plain, axis=-1), rtol=1e-12)
    slope = jax.jit(jax.grad(lambda z: jnp.sum(cross_entropy(z, labels, where=where))))(logits)
    np.testing.assert_allclose(gradient, slope, atol=1e-13)


def test_the_loss_falls_with_n_and_p_between_its_bounds(x64):
    log_prob = -np.logspace(-9, 3, 25)
    counts = np.asarray([1.0, 2.0, 7.5, 256.0, 1e6])
    losses = np.stack([coverage_nats(jnp.asarray(log_prob), num_samples=n) for n in counts])
    assert np.all(np.diff(losses, axis=0) <= 0) and np.all(np.diff(losses, axis=1) >= 0)
    assert np.all(losses >= 0) and np.all(losses <= -log_prob * (1 + 1e-12))
    assert np.all(losses >= -log_prob - np.log(counts)[:, None] - 1e-9)
    np.testing.assert_allclose(losses[:, -1], 1e3 - np.log(counts), rtol=1e-12)


def test_the_weight_is_a_probability_that_falls_with_p(x64):
    log_prob = jnp.asarray(-np.logspace(-9, 3, 25))
    total = jax.jit(jax.grad(lambda x, n: jnp.sum(coverage_nats(x, num_samples=n))))
    for n in (1.0, 4.0, 4096.0):
        weight = np.asarray(coverage_weight(log_prob, num_samples=n))
        assert np.all((weight >= 0) & (weight <= 1)) and np.all(np.diff(weight) >= -1e-12)
        np.testing.assert_allclose(total(log_prob, n), -weight, rtol=1e-12)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_nothing_overflows_from_certain_to_hopeless(dtype, x64):
    log_prob = -np.logspace(-12, 5, 40)
    low = jnp.asarray(log_prob).astype(dtype)
    wide = low.astype(jnp.float64)

    @jax.jit
    def both(x, n):
        return jax.value_and_grad(lambda x: jnp.sum(coverage_nats(x, num_samples=n)))(x)

    for n in (1.0, 3.0, 256.0, 1e6):
        found, exact = (coverage_nats(x, num_samples=n) for x in (low, wide))
        assert found.dtype == jnp.float32
        np.testing.assert_allclose(found, exact, rtol=2e-5, atol=1e-37)
        assert np.all(np.isfinite(both(low, n)[1]))
    by_n = jax.jit(jax.vmap(jax.grad(lambda n, x: coverage_nats(x, num_samples=n)), (None, 0)))
    assert np.all(np.isfinite(by_n(jnp.asarray(16.0, jnp.float32), low.astype(jnp.float32))))


def test_it_is_the_chance_of_one_right_answer_by_brute_force(x64):
    p = jnp.asarray([0.05, 0.3, 0.9])
    for n in (1, 2, 5):
        missed = [np.prod([1 - float(x)] * n) for x in p]
        np.testing.assert_allclose(coverage(jnp.log(p), num_samples=n), 1 - np.asarray(missed))
    step = 1e-4
    slope_at = jax.jit(jax.grad(lambda n, x: coverage_nats(x, num_samples=n)))
    for x in np.log(p):
        up, down = (coverage_nats(x, num_samples=4.0 + d) for d in (step, -step))
        np.testing.assert_allclose(slope_at(4.0, x), (up - down) / (2 * step), rtol=1e-7)


def test_many_samples_spread_their_mass_over_answers_that_are_both_likely(x64):
    # The label is one of two classes with probability 0.7 and 0.3; the third is never right.
    share = jnp.asarray([0.7, 0.3, 0.0])

    def best(n):
        def risk(z):
            logits = jnp.broadcast_to(z, (3, 1, 3))
            losses = direct_coverage(logits, jnp.arange(3)[:, None], num_samples=n)
            return jnp.sum(share * losses)

        step = jax.jit(lambda z: z - 2.0 * jax.grad(risk)(z))
        z = jnp.zeros(3)
        for _ in range(800):
            z = step(z)
        return np.asarray(jax.nn.softmax(z))

    np.testing.assert_allclose(best(1.0)[:2], [0.7, 0.3], atol=0.01)
    assert abs(best(16.0)[0] - 0.5) < abs(best(4.0)[0] - 0.5) < 0.2


def test_statistics_and_masks_are_taken_like_logits(x64):
    logits, labels, where = problem()
    losses = direct_coverage(logits, labels, num_samples=8, where=where)
    stats = xloss.logit_statistics(logits, labels, where=where)
    np.testing.assert_allclose(direct_coverage(stats, num_samples=8, where=where), losses)
    bad = jnp.where(where[..., None], logits, jnp.nan)
    (_, masked), gradient = value_and_gradient("answer")(bad, labels, where, 8.0)
    np.testing.assert_allclose(masked, losses, rtol=1e-12)
    assert np.all(np.isfinite(gradient))
    none = direct_coverage(logits, labels, num_samples=8, where=jnp.zeros_like(where))
    np.testing.assert_array_equal(none, 0.0)
    wrong = direct_coverage(logits, labels.at[0, 0].set(-1), num_samples=8)
    np.testing.assert_array_equal(np.isnan(wrong), np.arange(ANSWERS) == 0)


def test_pass_at_k_is_the_mean_over_all_subsets():
    right = np.asarray([1, 0, 0, 1, 0, 0, 0])
    for k in range(1, 8):
        subsets = itertools.combinations(right, k)
        expected = np.mean([max(subset) for subset in subsets])
        np.testing.assert_allclose(pass_at_k(7, 2, k=k), expected)
    assert pass_at_k([5, 5], [0, 5], k=2).tolist() == [0.0, 1.0]


def test_bad_arguments_are_named():
    logits, labels, _ = problem(np.float32)
    for call, error, message in (
        (lambda: direct_coverage(logits, labels, num_samples=0.5), ValueError, "num_samples"),
        (lambda: direct_coverage(logits[0, 0], labels[0, 0], num_samples=2), ValueError, "token"),
        (lambda: direct_coverage(logits, labels, num_samples=2, level="a"), ValueError, "level"),
        (lambda: coverage(jnp.arange(3), num_samples=2), TypeError, "log_prob of a float dtype"),
        (lambda: pass_at_k(3, 4, k=1), ValueError, "num_correct <= num_samples"),
        (lambda: pass_at_k(3, 1, k=4), ValueError, "1 <= k <= num_samples"),
    ):
        with pytest.raises(error, match=message):
            call()
