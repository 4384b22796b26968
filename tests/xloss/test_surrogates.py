# SPDX-License-Identifier: Apache-2.0
"""Surrogates: published formulas, extreme margins, and how they are bound and handed over."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from xloss import binary_statistics, surrogates
from xloss.classification import margin_loss
from xloss.surrogates import SURROGATES, bind

MAX = np.finfo(np.float32).max
EXTREMES = [0.0, 1.0, -1.0, 40.0, -40.0, 1e30, -1e30, 3e38, -3e38, np.inf, -np.inf]

#: name -> (hyperparameters, phi in NumPy float64)
FORMULAS = {
    "logistic": ({}, lambda m: np.log1p(np.exp(-m))),
    "exponential": ({}, lambda m: np.exp(-m)),
    "hinge": ({}, lambda m: np.maximum(0, 1 - m)),
    "squared_hinge": ({}, lambda m: np.maximum(0, 1 - m) ** 2),
    "squared": ({}, lambda m: (1 - m) ** 2),
    "sigmoid": ({"slope": 0.7}, lambda m: 1 - np.tanh(0.7 * m)),
    "rho_margin": ({"rho": 2.5}, lambda m: np.clip(1 - m / 2.5, 0, 1)),
    "savage": ({}, lambda m: 1 / (1 + np.exp(2 * m)) ** 2),
    "tangent": ({}, lambda m: (2 * np.arctan(m) - 1) ** 2),
    "comp_sum": ({"tau": 0.4}, lambda m: ((1 + np.exp(-m)) ** 0.6 - 1) / 0.6),
    "focal": ({"gamma": 1.5}, lambda m: (1 + np.exp(m)) ** -1.5 * np.log1p(np.exp(-m))),
    "poly_loss": (
        {"epsilon": 1.5},
        lambda m: np.logaddexp(0, -m) + 1.5 * np.exp(-np.logaddexp(0, m)),
    ),
    "inv_hinge": ({}, lambda m: np.where(m > 1, 1 / np.maximum(m, 1) - 1, 1 - m)),
    "log_hinge": ({}, lambda m: np.where(m > 1, -np.log(np.maximum(m, 1)), 1 - m)),
    "inv_log_hinge": (
        {},
        lambda m: np.where(m > 1, np.e / np.log(np.maximum(m, 1) + np.e - 1) - np.e, 1 - m),
    ),
}
each_surrogate = pytest.mark.parametrize("name", SURROGATES)


def test_every_surrogate_has_its_formula_here():
    assert set(FORMULAS) == set(SURROGATES)


@jax.jit
def values_and_slopes(m):
    """name -> (phi, phi'), all of them in one program."""
    return {
        name: jax.vmap(jax.value_and_grad(bind(SURROGATES[name], **hyper)))(m)
        for name, (hyper, _) in FORMULAS.items()
    }


def test_values_and_derivatives(x64):
    # Away from the kinks at 0 and 1 and at the ends of the ramp.
    m = np.array([-6.0, -2.3, -0.4, 0.1, 0.3, 0.9, 1.2, 2.0, 3.7, 9.0])
    narrow = values_and_slopes(m.astype(np.float32))
    for name, (value, slope) in values_and_slopes(m).items():
        formula = FORMULAS[name][1]
        np.testing.assert_allclose(value, formula(m), rtol=1e-11, err_msg=name)
        np.testing.assert_allclose(narrow[name][0], formula(m), rtol=1e-5, err_msg=name)
        assert value.dtype == jnp.float64 and narrow[name][0].dtype == jnp.float32
        numerical = (formula(m + 1e-6) - formula(m - 1e-6)) / 2e-6
        np.testing.assert_allclose(slope, numerical, rtol=1e-6, atol=1e-8, err_msg=name)


def test_extreme_margins_give_no_nan_and_finite_slopes():
    m = np.array(EXTREMES)
    for name, (value, slope) in values_and_slopes(jnp.asarray(m, jnp.float32)).items():
        assert not np.isnan(value).any(), name
        assert np.isfinite(slope).all(), name
        with np.errstate(all="ignore"):
            exact = FORMULAS[name][1](m)
        known = np.isfinite(exact) & (np.abs(m) < 1e38)
        exact = np.where(exact[known] > MAX, np.inf, exact[known])
        np.testing.assert_allclose(value[known], exact, rtol=1e-5, atol=1e-17, err_msg=name)


@pytest.mark.parametrize(
    ("name", "key", "values"),
    [
        ("comp_sum", "tau", [0.0, 0.5, 1.0, 1.5, 2.0, 3.0]),
        ("focal", "gamma", [0.0, 0.5, 1.0, 2.0, 5.0]),
        ("poly_loss", "epsilon", [-1.0, 0.0, 2.0]),
        ("sigmoid", "slope", [0.1, 1.0, 10.0]),
        ("rho_margin", "rho", [0.1, 1.0, 10.0]),
    ],
)
def test_derivatives_in_the_hyperparameter_stay_finite(name, key, values):
    def phi(m, h):
        return SURROGATES[name](m, **{key: h})

    grid = jnp.array(EXTREMES[:9])[:, None], jnp.array(values)[None]
    m, h = (x.ravel() for x in jnp.broadcast_arrays(*grid))
    value, slopes = jax.jit(jax.vmap(jax.value_and_grad(phi, (0, 1))))(m, h)
    assert not np.isnan(value).any()
    assert np.isfinite(slopes).all()


def test_second_derivatives_are_right_and_finite_for_finite_margins(x64):
    @jax.jit
    def curvatures(m):
        return {
            name: jax.vmap(jax.grad(jax.grad(bind(SURROGATES[name], **hyper))))(m)
            for name, (hyper, _) in FORMULAS.items()
        }

    m = np.array([-3.0, -0.2, 0.4, 2.0])
    above, below = values_and_slopes(m + 1e-6), values_and_slopes(m - 1e-6)
    for name, curvature in curvatures(m).items():
        numerical = (above[name][1] - below[name][1]) / 2e-6
        np.testing.assert_allclose(curvature, numerical, rtol=1e-6, atol=1e-8, err_msg=name)
    wide = jnp.array([-1e18, -1e4, -300.0, 300.0, 1e4, 1e18], jnp.float32)
    for name, curvature in curvatures(wide).items():
        assert np.isfinite(curvature).all(), name


@each_surrogate
def test_dtypes_and_shapes(name):
    for dtype in (jnp.bfloat16, jnp.float16, jnp.float32):
        shaped = jax.eval_shape(SURROGATES[name], jax.ShapeDtypeStruct((2, 3), dtype))
        assert (shaped.dtype, shaped.shape) == (jnp.float32, (2, 3))
    assert jax.eval_shape(SURROGATES[name], 0.5).shape == ()
    with pytest.raises(TypeError, match=f"{name}: expected margin of a float dtype, got int32"):
        SURROGATES[name](jnp.ones(2, jnp.int32))


@pytest.mark.parametrize(
    ("name", "hyper"),
    [
        ("sigmoid", {"slope": 0.0}),
        ("rho_margin", {"rho": -1.0}),
        ("comp_sum", {"tau": -0.1}),
        ("focal", {"gamma": float("nan")}),
    ],
)
def test_hyperparameters_out_of_range_are_refused_also_when_bound(name, hyper):
    match = rf"{name}: expected {next(iter(hyper))} in [\[(]0, inf\)"
    with pytest.raises(ValueError, match=match):
        SURROGATES[name](jnp.ones(2), **hyper)
    with pytest.raises(ValueError, match=match):  # inside a loss the number is traced: too late
        bind(SURROGATES[name], **hyper)


def test_bind_keeps_one_trace_for_all_numbers():
    m = jnp.array([0.5, -2.0])

    @jax.jit
    @chex.assert_max_traces(n=1)
    def apply(phi, margin):
        return phi(margin)

    chex.clear_trace_counter()
    for tau in (0.3, 1, np.float32(2.0), np.float64(0.7), np.int64(2)):
        phi = bind(surrogates.comp_sum, tau=tau)
        chex.assert_trees_all_close(
            apply(phi, m), surrogates.comp_sum(m, tau=float(tau)), rtol=1e-6
        )


def test_bound_hyperparameters_are_differentiable_and_mappable():
    stats = binary_statistics(jnp.array([0.5, -2.0]), jnp.array([1, 1]))

    def loss(tau):
        return jnp.sum(margin_loss(stats, surrogate=bind(surrogates.comp_sum, tau=tau)))

    slope = (loss(0.701) - loss(0.699)) / 0.002
    np.testing.assert_allclose(jax.grad(loss)(0.7), slope, rtol=1e-3)
    taus = jnp.array([0.0, 1.0, 2.0])
    chex.assert_trees_all_close(jax.vmap(loss)(taus), jnp.stack([loss(t) for t in taus]), rtol=1e-6)


def test_margin_loss_takes_a_function_of_the_users_own():
    scores, labels = jnp.array([0.5, -2.0, 3.0]), jnp.array([1, 0, 0])
    stats = binary_statistics(scores, labels)
    where = jnp.array([True, True, False])
    losses = margin_loss(stats, surrogate=lambda m: 1.0 / m, where=where)
    np.testing.assert_allclose(losses, [2.0, 0.5, 0.0], rtol=1e-6)
    bound = bind(lambda m, power: jnp.abs(m) ** power, power=2)
    np.testing.assert_allclose(margin_loss(stats, surrogate=bound), [0.25, 4.0, 9.0], rtol=1e-6)
    with pytest.raises(ValueError, match=r"expected surrogate to map shape \(3,\) to itself"):
        margin_loss(stats, surrogate=jnp.sum)
    with pytest.raises(TypeError, match="margin_loss: expected surrogate to be callable"):
        margin_loss(stats, surrogate="hinge")


def test_the_same_function_twice_compiles_once():
    stats = binary_statistics(jnp.array([0.5, -2.0, 1.0, 2.0, 3.0]), jnp.ones(5, jnp.int32))
    traces = []

    def phi(m):
        traces.append(m.shape)
        return m

    for _ in range(3):
        margin_loss(stats, surrogate=phi)
    assert traces == [(5,)]


def test_unknown_names_and_wrong_values():
    assert surrogates.get("hinge") is surrogates.hinge
    with pytest.raises(ValueError, match="got 'hing'; did you mean 'hinge'"):
        surrogates.get("hing")
    with pytest.raises(ValueError, match="expected one of logistic, exponential.*got 'xyz'$"):
        surrogates.get("xyz")
    with pytest.raises(TypeError, match="bind: expected surrogate to be callable, got 'hinge'"):
        bind("hinge")
    with pytest.raises(TypeError, match="rho_margin: expected rho to be a number.*got 'one'"):
        bind(surrogates.rho_margin, rho="one")
