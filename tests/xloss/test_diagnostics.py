# SPDX-License-Identifier: Apache-2.0
"""Diagnostics of attention and learning rates: values, masks and bad input."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from xloss import diagnostics

RNG = np.random.default_rng(0)
Q = jnp.asarray(RNG.normal(size=(5, 2, 8)), jnp.float32)
K = jnp.asarray(RNG.normal(size=(7, 2, 8)), jnp.float32)
ONES = jnp.ones(8)


def test_qk_layernorm_normalises_over_the_head_dimension():
    gamma = jnp.arange(1.0, 9.0)
    q, k = jax.jit(diagnostics.qk_layernorm)(Q, K, gamma, ONES)
    x = np.asarray(Q, np.float64)
    expected = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
    np.testing.assert_allclose(q, expected * np.arange(1.0, 9.0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(jnp.mean(k, axis=-1), 0.0, atol=1e-6)
    np.testing.assert_allclose(jnp.var(k, axis=-1), 1.0, rtol=1e-4)


def test_qk_layernorm_keeps_the_dtype_and_survives_a_constant_head():
    half, _ = jax.eval_shape(diagnostics.qk_layernorm, Q.astype(jnp.bfloat16), K, ONES, ONES)
    assert half.dtype == jnp.bfloat16

    @jax.jit
    @jax.grad
    def gradient(q):
        return jnp.sum(diagnostics.qk_layernorm(q, K, ONES, ONES)[0] ** 2)

    assert np.isfinite(gradient(jnp.full_like(Q, 3.0))).all()


def test_attention_logits():
    logits = diagnostics.attention_logits(Q, K)
    assert logits.shape == (2, 5, 7)
    expected = np.einsum("thd,shd->hts", np.asarray(Q), np.asarray(K)) / np.sqrt(8.0)
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-6)
    half = jax.ShapeDtypeStruct((5, 2, 8), jnp.bfloat16)
    low = jax.eval_shape(diagnostics.attention_logits, half, half)
    assert low.dtype == jnp.float32


def test_attention_statistics_with_a_mask():
    mask = jnp.zeros((5, 7), jnp.bool_).at[1:, :3].set(True).at[1, 1:].set(False)

    def entropy(q):
        found = diagnostics.attention_logit_statistics(q, K, mask=mask)
        return jnp.sum(found["entropy"]), found

    (_, found), gradient = jax.jit(jax.value_and_grad(entropy, has_aux=True))(Q)
    assert np.isfinite(gradient).all()
    logits = np.asarray(diagnostics.attention_logits(Q, K))
    seen = logits[:, 2:, :3]
    p = np.exp(seen) / np.exp(seen).sum(-1, keepdims=True)
    np.testing.assert_allclose(found["entropy"][:, 2:], -(p * np.log(p)).sum(-1), rtol=1e-5)
    np.testing.assert_array_equal(found["entropy"][:, :2], 0.0)  # sees no key, sees one
    np.testing.assert_allclose(found["max_logit"], max(seen.max(), logits[:, 1, 0].max()), 1e-6)


def test_entropy_of_equal_and_of_huge_logits():
    statistics = jax.jit(diagnostics.attention_logit_statistics)
    flat = statistics(jnp.zeros_like(Q), K)
    np.testing.assert_allclose(flat["entropy"], np.log(7.0), rtol=1e-6)
    sharp = statistics(1e3 * Q, 1e3 * K)
    assert np.isfinite(sharp["entropy"]).all()
    np.testing.assert_allclose(sharp["entropy"], 0.0, atol=1e-6)


def test_lr_sensitivity():
    found = diagnostics.lr_sensitivity(jnp.array([2.0, 1.0, jnp.nan, jnp.inf, 9.0]), 4.0)
    np.testing.assert_allclose(found, (2 + 1 + 4 + 4 + 4) / 5 - 1, rtol=1e-6)
    chex.assert_trees_all_equal(
        jax.jit(diagnostics.lr_sensitivity)(jnp.array([2.0, 3.0]), 5.0), jnp.float32(0.5)
    )


def test_wrong_calls_are_refused():
    with pytest.raises(ValueError, match=r"expected gamma_q of shape \(8,\), got \(7,\)"):
        diagnostics.qk_layernorm(Q, K, jnp.ones(7), ONES)
    with pytest.raises(ValueError, match=r"expected eps in \(0, inf\), got 0"):
        diagnostics.qk_layernorm(Q, K, ONES, ONES, eps=0.0)
    with pytest.raises(ValueError, match=r"got \(5, 2, 8\) and \(7, 1, 8\)"):
        diagnostics.attention_logits(Q, K[:, :1])
    with pytest.raises(ValueError, match=r"expected where of shape \(5, 7\), got \(7, 5\)"):
        diagnostics.attention_logits(Q, K, mask=jnp.ones((7, 5), jnp.bool_))
    with pytest.raises(ValueError, match=r"expected final_losses \[N\] with N >= 1, got \(0,\)"):
        diagnostics.lr_sensitivity(jnp.zeros(0), 1.0)
