# SPDX-License-Identifier: Apache-2.0
"""Logit stability: the invariants of the log-partition penalty, of qk-layernorm, of LR sensitivity.

The streamed ("chunked") form of the penalty comes with the heads.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import xloss
from xloss.classification import cross_entropy, log_partition_penalty
from xloss.diagnostics import attention_logits, lr_sensitivity, qk_layernorm

RNG = np.random.default_rng(0)
LOGITS = jnp.asarray(RNG.normal(scale=2.0, size=(16, 8)), jnp.float32)
LABELS = jnp.asarray(RNG.integers(0, 8, 16), jnp.int32)
WHERE = jnp.asarray(RNG.random(16) < 0.7)
COEF = 0.01


@jax.jit
def together(logits, where=None):
    """Cross-entropy and penalty on shared statistics."""
    stats = xloss.logit_statistics(logits, LABELS, where=where)
    losses = cross_entropy(stats, where=where) + log_partition_penalty(
        stats, coef=COEF, where=where
    )
    return xloss.reduce(losses, where=where)


@jax.jit
def apart(logits, where=None):
    """The same two, each on the logits."""
    penalty = log_partition_penalty(logits, coef=COEF, where=where)
    return xloss.reduce(cross_entropy(logits, LABELS, where=where) + penalty, where=where)


def penalty_gradient(logits):
    return jax.grad(lambda z: jnp.sum(log_partition_penalty(z, coef=COEF)))(logits)


def test_1_penalty_gradient_sums_to_two_coef_log_z_and_follows_softmax():
    log_z = jax.nn.logsumexp(LOGITS, axis=-1)
    gradient = penalty_gradient(LOGITS)
    np.testing.assert_allclose(gradient.sum(-1), 2 * COEF * log_z, rtol=1e-5)
    np.testing.assert_allclose(
        gradient, 2 * COEF * log_z[:, None] * jax.nn.softmax(LOGITS), rtol=1e-5
    )


def test_2_penalty_is_zero_exactly_at_log_z_zero():
    shifted = LOGITS - jax.nn.logsumexp(LOGITS, axis=-1, keepdims=True)
    np.testing.assert_allclose(log_partition_penalty(shifted, coef=1.0), 0.0, atol=1e-11)
    for away in (-3.0, 0.1, 50.0):
        np.testing.assert_allclose(
            log_partition_penalty(shifted + away, coef=1.0), away**2, rtol=1e-4
        )


def test_3_a_constant_changes_the_penalty_and_not_the_cross_entropy():
    moved = jnp.round(LOGITS * 64) / 64
    np.testing.assert_array_equal(
        cross_entropy(moved + 100.0, LABELS), cross_entropy(moved, LABELS)
    )
    log_z = jax.nn.logsumexp(moved, axis=-1)
    np.testing.assert_allclose(
        log_partition_penalty(moved + 100.0, coef=COEF), COEF * (log_z + 100.0) ** 2, rtol=1e-5
    )


@pytest.mark.parametrize("where", [None, WHERE], ids=["all", "masked"])
def test_4_shared_statistics_equal_separate_losses(where):
    value, gradient = jax.value_and_grad(together)(LOGITS, where)
    value_apart, gradient_apart = jax.value_and_grad(apart)(LOGITS, where)
    np.testing.assert_allclose(value, value_apart, rtol=1e-6)
    np.testing.assert_allclose(gradient, gradient_apart, rtol=1e-5, atol=1e-8)
    p = jax.nn.softmax(LOGITS)
    log_z = jax.nn.logsumexp(LOGITS, axis=-1, keepdims=True)
    fused = p * (1 + 2 * COEF * log_z) - jax.nn.one_hot(LABELS, 8)
    if where is not None:
        fused = jnp.where(where[:, None], fused, 0.0)
    count = 16 if where is None else int(where.sum())
    np.testing.assert_allclose(gradient, fused / count, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("spec", [P("data"), P("data", "model"), P(None, "model")])
def test_4_sharded_logits_equal_dense_ones(spec):
    mesh = jax.make_mesh((2, 4), ("data", "model"), axis_types=(AxisType.Auto,) * 2)
    spread = jax.device_put(LOGITS, NamedSharding(mesh, spec))
    value, gradient = jax.jit(jax.value_and_grad(together))(spread)
    expected, expected_gradient = jax.value_and_grad(together)(LOGITS)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    np.testing.assert_allclose(gradient, expected_gradient, rtol=1e-5, atol=1e-8)


def test_4_labels_do_not_matter_to_the_penalty():
    free = log_partition_penalty(LOGITS, coef=COEF)
    for labels in (LABELS, (LABELS + 3) % 8):
        np.testing.assert_allclose(
            log_partition_penalty(LOGITS, labels, coef=COEF), free, rtol=1e-6
        )


def test_penalty_of_very_negative_logits_pushes_them_up():
    logits = jnp.full((1, 4), -500.0) - jnp.log(4.0)
    np.testing.assert_allclose(log_partition_penalty(logits), 25.0, rtol=1e-5)
    assert (penalty_gradient(logits) < 0).all()


def test_penalty_overflows_only_where_its_value_does():
    logits = jnp.array([[1e20, 0.0], [-1e20, -1e20], [3e21, 0.0]])
    penalty, gradient = jax.value_and_grad(lambda z: jnp.sum(log_partition_penalty(z)[:2]))(logits)
    np.testing.assert_allclose(penalty, 2e36, rtol=1e-5)
    assert np.isfinite(gradient).all()
    assert float(log_partition_penalty(logits)[2]) == np.inf
    np.testing.assert_array_equal(log_partition_penalty(logits[:2], coef=0.0), 0.0)


def heads():
    q = jnp.asarray(RNG.normal(size=(6, 2, 16)), jnp.float32)
    k = jnp.asarray(RNG.normal(size=(6, 2, 16)), jnp.float32)
    gammas = jnp.asarray(RNG.uniform(0.5, 2.0, size=(2, 16)), jnp.float32)
    return q, k, *gammas


@pytest.mark.parametrize("scale", [1e-2, 1e3])
def test_5_qk_layernorm_forgets_scale_and_offset_of_queries_and_keys(scale):
    q, k, gamma_q, gamma_k = heads()
    normal = qk_layernorm(q, k, gamma_q, gamma_k, eps=1e-12)
    for changed in (
        qk_layernorm(scale * q, scale * k, gamma_q, gamma_k, eps=1e-12),
        qk_layernorm(q + 3.0, k - 7.0, gamma_q, gamma_k, eps=1e-12),
    ):
        for found, expected in zip(changed, normal, strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


def test_5_the_mean_is_over_the_head_dimension_not_the_model():
    q, k, gamma_q, gamma_k = heads()
    per_head = q + jnp.array([0.0, 10.0])[:, None][None]
    np.testing.assert_allclose(
        qk_layernorm(per_head, k, gamma_q, gamma_k)[0],
        qk_layernorm(q, k, gamma_q, gamma_k)[0],
        atol=1e-3,
    )


def test_6_lr_sensitivity_is_non_negative_and_zero_for_equal_runs():
    sensitivity = jax.jit(lr_sensitivity)
    for seed in range(20):
        losses = jnp.asarray(np.random.default_rng(seed).normal(3.0, 2.0, size=7), jnp.float32)
        assert float(sensitivity(losses, 4.0)) >= 0.0
    assert float(sensitivity(jnp.full(7, 2.5), 4.0)) == 0.0


def test_6_lr_sensitivity_counts_diverged_runs_as_the_initial_loss():
    diverged = lr_sensitivity(jnp.array([1.0, 2.0, jnp.nan, jnp.inf]), 5.0)
    np.testing.assert_allclose(diverged, (1 + 2 + 5 + 5) / 4 - 1, rtol=1e-6)
    np.testing.assert_allclose(lr_sensitivity(jnp.array([1.0, 2.0, 80.0, 5.0]), 5.0), diverged)
    assert float(lr_sensitivity(jnp.array([jnp.nan, jnp.nan]), 5.0)) == 0.0


def test_7_attention_logits_are_bounded_by_the_scales():
    q, k, gamma_q, gamma_k = heads()
    for size in (1.0, 1e4):
        logits = attention_logits(*qk_layernorm(size * q, size * k, gamma_q, gamma_k))
        bound = np.sqrt(16) * float(jnp.max(jnp.abs(gamma_q * gamma_k)))
        assert float(jnp.max(jnp.abs(logits))) <= bound
