# SPDX-License-Identifier: Apache-2.0
"""Scalar functions at their edges, against arithmetic with a hundred digits or plain JAX."""

import decimal

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.derivatives import check_derivatives
from xloss import numerics

MAX = np.finfo(np.float32).max
RATES = (1.0, 0.7, 0.5, 1e-3, 1e-9, 0.0, -1e-9, -1e-3, -0.3, -1.0, -2.0)
POINTS = (0.0, 1e-20, 1e-8, 0.1, 0.25, 0.7, 1.0, 3.0487, 5.0, 30.0)
EXPM1 = jax.jit(jax.value_and_grad(numerics.scaled_expm1, (0, 1)))


def exact_expm1_over_rate(rate, x):
    """expm1(rate x) / rate and its derivatives in rate and x, with a hundred digits."""
    with decimal.localcontext(prec=120):
        r, x = decimal.Decimal(rate), decimal.Decimal(x)
        e = (r * x).exp()
        if r == 0:
            return float(x), float(x * x / 2), 1.0
        return float((e - 1) / r), float((r * x * e - (e - 1)) / (r * r)), float(e)


@pytest.mark.parametrize("rate", RATES)
def test_scaled_expm1_and_both_derivatives(rate, x64):
    x = jnp.array(POINTS)
    value, slopes = jax.vmap(EXPM1, in_axes=(None, 0))(jnp.float64(rate), x)
    exact = np.array([exact_expm1_over_rate(rate, p) for p in POINTS])
    np.testing.assert_allclose(value, exact[:, 0], rtol=1e-14)
    np.testing.assert_allclose(slopes[0], exact[:, 1], rtol=1e-13)
    np.testing.assert_allclose(slopes[1], exact[:, 2], rtol=1e-14)


def test_scaled_expm1_in_float32_passes_smoothly_through_zero():
    rates = jnp.linspace(-0.2, 0.2, 401)
    x = jnp.float32(3.0)
    value, slope = jax.jit(jax.vmap(jax.value_and_grad(numerics.scaled_expm1), (0, None)))(rates, x)
    exact = np.array([exact_expm1_over_rate(float(r), 3.0) for r in rates])
    np.testing.assert_allclose(value, exact[:, 0], rtol=1e-6)
    np.testing.assert_allclose(slope, exact[:, 1], rtol=1e-5)


def test_scaled_expm1_second_order(x64):
    check_derivatives(numerics.scaled_expm1, [0.5, 0.01, -0.7, 0.0], [0.3, 2.0, 4.0, 1.5])


@pytest.mark.parametrize("rate", [1.0, 0.5, 1e-30, 0.0, -0.5, -1.0])
@pytest.mark.parametrize("x", [1e30, np.inf])
def test_scaled_expm1_saturates_without_nan(rate, x):
    value, slopes = EXPM1(jnp.float32(rate), jnp.float32(x))
    assert not np.isnan(value) and np.isfinite(slopes).all()
    if rate < 0:
        np.testing.assert_allclose(value, -1.0 / rate, rtol=1e-6)
        assert float(slopes[1]) == 0.0


def test_exp_and_square_have_saturating_derivatives():
    x = jnp.array([0.0, 1.0, -200.0, 200.0, np.inf, -np.inf])
    for function, plain in ((numerics.exp, jnp.exp), (numerics.square, jnp.square)):
        np.testing.assert_array_equal(function(x), plain(x))
        slope, plain_slope = (jax.jit(jax.vmap(jax.grad(f)))(x) for f in (function, plain))
        np.testing.assert_array_equal(slope, np.clip(plain_slope, -MAX, MAX))
        curvature = jax.jit(jax.vmap(jax.grad(jax.grad(function))))(x)
        assert np.isfinite(curvature).all()
    np.testing.assert_allclose(curvature[:2], 2.0)


def test_power_has_its_limits():
    log_base = jnp.array([0.0, -1.0, -np.inf, -np.inf, -np.inf, -1e30])
    exponent = jnp.array([0.0, 2.0, 0.0, 2.0, 0.5, 0.0])
    value, slopes = jax.vmap(jax.value_and_grad(numerics.power, (0, 1)))(log_base, exponent)
    np.testing.assert_allclose(value, [1.0, np.exp(-2.0), 1.0, 0.0, 0.0, 1.0], rtol=1e-6)
    assert np.isfinite(slopes).all()
    np.testing.assert_allclose(slopes[0][:2], [0.0, 2 * np.exp(-2.0)], rtol=1e-6)
    np.testing.assert_allclose(slopes[1][:2], [0.0, -np.exp(-2.0)], rtol=1e-6)


def test_multiply_no_nan_drops_only_what_has_weight_zero():
    weight = jnp.array([0.0, 0.0, 2.0, 1.0, 0.0])
    x = jnp.array([np.inf, -np.inf, 3.0, np.inf, np.nan])
    np.testing.assert_array_equal(numerics.multiply_no_nan(weight, x), [0, 0, 6, np.inf, np.nan])
    slopes = jax.grad(lambda w, v: jnp.sum(numerics.multiply_no_nan(w, v)[:3]), (0, 1))(weight, x)
    np.testing.assert_array_equal(slopes[0][:3], [0, 0, 3])
    np.testing.assert_array_equal(slopes[1], [0, 0, 2, 0, 0])


def test_nats_is_softplus_of_minus_m_at_every_size():
    m = jnp.array([-np.inf, -1e30, -50.0, 0.0, 50.0, 80.0, np.inf])
    exact = np.logaddexp(0.0, -np.asarray(m, np.float64))
    np.testing.assert_allclose(numerics.nats(m), exact, rtol=1e-6)
    slope = jax.vmap(jax.grad(numerics.nats))(m)
    np.testing.assert_allclose(slope, -jax.nn.sigmoid(-m), rtol=1e-6)


def test_max_last_is_max_with_its_gradient():
    x = jnp.array([[1.0, 3.0, 2.0], [2.0, 2.0, -1.0], [-np.inf, 0.0, -np.inf], [0.5, 0.5, 0.5]])
    np.testing.assert_array_equal(numerics.max_last(x), jnp.max(x, axis=-1))
    mine, theirs = (
        jax.jit(jax.grad(lambda v, f=f: jnp.sum(f(v))))(x)
        for f in (numerics.max_last, lambda v: jnp.max(v, axis=-1))
    )
    np.testing.assert_allclose(mine, theirs)


@pytest.mark.parametrize("dtype", [jnp.int32, jnp.uint32])
def test_take_last_never_wraps(dtype):
    x = jnp.arange(12.0).reshape(4, 3)
    index = jnp.array([2, -1, 3, -3], jnp.int32).astype(dtype)
    value, pull = jax.vjp(lambda v: numerics.take_last(v, index), x)
    np.testing.assert_array_equal(value, [2.0, np.nan, np.nan, np.nan])
    np.testing.assert_array_equal(pull(jnp.ones(4))[0], np.eye(3)[[2]].tolist() + [[0.0] * 3] * 3)
    forward = jax.jvp(lambda v: numerics.take_last(v, index), (x,), (x,))[1]
    np.testing.assert_array_equal(forward, [2.0, 0.0, 0.0, 0.0])


def test_sum_and_count_leave_out_minus_inf_only():
    x = jnp.array([[1.0, 2.0, 3.0], [1.0, -np.inf, 3.0], [-np.inf] * 3, [1.0, np.nan, 2.0]])
    for total, count in (
        jax.jit(numerics.sum_and_count_finite_last)(x),
        jax.vmap(numerics.sum_and_count_finite_last)(x),
    ):
        np.testing.assert_array_equal(total, [6.0, 4.0, 0.0, np.nan])
        np.testing.assert_array_equal(count, [3.0, 2.0, 0.0, 3.0])
    total, count = numerics.sum_and_count_finite_last(x[:1])  # the branch without a mask
    assert (float(total[0]), float(count[0])) == (6.0, 3.0)
    slope = jax.jit(jax.grad(lambda v: jnp.sum(numerics.sum_and_count_finite_last(v)[0])))(x)
    np.testing.assert_array_equal(slope, ~np.isneginf(x))


def test_tempered_divides_and_keeps_inf_out_of_the_derivative():
    z = jnp.array([1.0, -4.0, -np.inf, np.nan])
    value, slope = jax.jvp(numerics.tempered, (z, jnp.float32(2.0)), (jnp.zeros(4), jnp.ones(())))
    np.testing.assert_array_equal(value, [0.5, -2.0, -np.inf, np.nan])
    np.testing.assert_array_equal(slope, [-0.25, 1.0, 0.0, 0.0])


def test_dtypes(x64):
    for dtype in (jnp.bfloat16, jnp.float16, jnp.float32):
        assert numerics.promote(jnp.ones(2, dtype)).dtype == jnp.float32
    assert numerics.promote(jnp.ones(2, jnp.float64)).dtype == jnp.float64
    assert numerics.scalar(0.5, jnp.ones(2, jnp.float32)).dtype == jnp.float32
    gradient = jax.grad(lambda x: jnp.sum(numerics.promote(x) ** 2))(jnp.ones(2, jnp.bfloat16))
    assert gradient.dtype == jnp.bfloat16


def test_masked_is_exactly_zero_with_zero_gradient():
    losses = jnp.array([1.0, np.nan, np.inf])
    where = jnp.array([True, False, False])
    np.testing.assert_array_equal(numerics.masked(losses, where), [1.0, 0.0, 0.0])
    chex.assert_trees_all_equal(numerics.masked(losses, None), losses)
    slope = jax.grad(lambda v: jnp.sum(numerics.masked(v, where)))(losses)
    np.testing.assert_array_equal(slope, [1.0, 0.0, 0.0])
