# SPDX-License-Identifier: Apache-2.0
"""IGNITE: what the paper's update implies, one named test each."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from xloss.optim import ignite, surrogate_sharpness

RNG = np.random.default_rng(0)
X = RNG.normal(size=(12, 4))
Y = RNG.normal(size=12)
PARAMS = {
    "W1": RNG.normal(size=(4, 6)) * 0.5,
    "b1": RNG.normal(size=6) * 0.1,
    "W2": RNG.normal(size=6) * 0.5,
}
#: The published numbers.
DEFAULTS = {"rho": 0.05, "radius": 0.05, "eps": 0.1, "eta_lambda": 1e-3, "lam0": 1e-3}
HVP = pytest.mark.parametrize("hvp", ["finite_difference", "jvp"])


def predict(params, x=X):
    x = jnp.asarray(x, params["W1"].dtype)
    return jnp.tanh(x @ params["W1"] + params["b1"][None, :]) @ params["W2"]


def mean_prediction(params):
    return jnp.mean(predict(params))


def loss(params):
    return jnp.mean(jnp.square(predict(params) - jnp.asarray(Y, params["W1"].dtype)))


def arrays(dtype=None):
    return jax.tree.map(lambda a: jnp.asarray(a, dtype or jnp.asarray(Y).dtype), PARAMS)


@functools.partial(jax.jit, static_argnames=("h", "static"))
def _step(gradient, params, numbers, h, static):
    transform = ignite(**numbers, **dict(static))
    updates, state = transform.update(
        gradient, transform.init(params), params, mean_prediction_fn=h
    )
    return updates, state.lam


def first_update(h=mean_prediction, *, params=None, gradient=None, **hyper):
    """(updates, next lam) of the first step; numbers are traced, so that few programs do."""
    params = arrays() if params is None else params
    gradient = jax.grad(loss)(params) if gradient is None else gradient
    numbers = DEFAULTS | {k: float(v) for k, v in hyper.items() if k in DEFAULTS}
    static = tuple((k, v) for k, v in hyper.items() if k not in DEFAULTS)
    return _step(gradient, params, numbers, h, static)


def penalty(h=mean_prediction, params=None, **hyper):
    """What the transform adds to a gradient of 0."""
    params = arrays() if params is None else params
    return first_update(h, params=params, gradient=optax.tree.zeros_like(params), **hyper)


def assert_close(found, expected, rtol=1e-9, atol=1e-12):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=atol), found, expected
    )


def assert_equal(found, expected):
    jax.tree.map(np.testing.assert_array_equal, found, expected)


@HVP
def test_a_zero_multiplier_leaves_the_gradient_unchanged(hvp):
    gradient = jax.grad(loss)(arrays())
    updates, lam = first_update(lam0=0.0, eta_lambda=0.0, hvp=hvp)
    assert_equal(updates, gradient)
    assert lam == 0.0


def test_small_radii_approach_the_double_backpropagated_gradient(x64):
    def regulariser(p):
        gradient = jax.grad(mean_prediction)(p)
        return 0.7 * 0.3 * optax.tree.norm(gradient)

    exact = jax.jit(jax.grad(regulariser))(arrays())
    assert_close(penalty(lam0=0.7, rho=0.3, hvp="jvp")[0], exact)
    errors = []
    for radius in (1e-1, 1e-2, 1e-3):
        found, _ = penalty(lam0=0.7, rho=0.3, radius=radius)
        errors.append(float(optax.tree.norm(optax.tree.sub(found, exact))))
    # First order in the radius: a tenth of it, a tenth of the error.
    np.testing.assert_allclose(np.array(errors[1:]) / errors[:-1], 0.1, rtol=0.2)
    assert errors[-1] < 1e-3 * float(optax.tree.norm(exact))


@HVP
def test_a_linear_surrogate_has_penalty_gradient_exactly_zero(hvp):
    def linear(params):
        # Sums of grid values: exact in float32, so that both gradients agree to the bit.
        inputs = jnp.round(jnp.asarray(X, jnp.float32) * 8) / 8
        return jnp.mean(inputs @ params["W1"] @ jnp.ones(6)) + jnp.sum(params["b1"])

    params = arrays(jnp.float32)
    updates, lam = penalty(linear, params, lam0=3.0, hvp=hvp)
    assert_equal(updates, optax.tree.zeros_like(params))
    assert float(lam) > 3.0  # sharp all the same, which only the multiplier notices


@pytest.mark.parametrize("rho", [0.0, 0.01, 0.1, 1.0])
def test_the_multiplier_grows_exactly_where_the_constraint_is_violated(rho):
    sharpness = float(surrogate_sharpness(mean_prediction, arrays(), rho=rho))
    for eps in (0.0, 0.5 * sharpness, 2.0 * sharpness + 1e-3):
        _, lam = penalty(rho=rho, eps=eps, lam0=0.0, eta_lambda=1.0)
        assert (float(lam) > 0) == (sharpness > eps)
        np.testing.assert_allclose(lam, sharpness - eps, rtol=1e-5, atol=1e-7)


@HVP
def test_a_constant_in_the_predictions_changes_nothing(hvp):
    shifted = first_update(lambda p: mean_prediction(p) + 1e3, lam0=0.5, hvp=hvp)
    assert_equal(shifted, first_update(lam0=0.5, hvp=hvp))


@pytest.mark.parametrize("factor", [2.0, -0.5])
def test_a_factor_in_the_predictions_scales_the_sharpness_by_its_size(factor):
    def scaled(p):
        return factor * mean_prediction(p)

    sharpness = surrogate_sharpness(mean_prediction, arrays(), rho=0.3)
    np.testing.assert_allclose(
        surrogate_sharpness(scaled, arrays(), rho=0.3), abs(factor) * sharpness, rtol=1e-6
    )
    expected = jax.tree.map(lambda x: abs(factor) * x, penalty(lam0=0.5, hvp="jvp")[0])
    assert_close(penalty(scaled, lam0=0.5, hvp="jvp")[0], expected, rtol=1e-5, atol=1e-8)


def test_rho_equal_to_the_radius_makes_their_factor_one(x64):
    gradient_of = jax.grad(mean_prediction)
    gradient = gradient_of(arrays())
    norm = optax.tree.norm(gradient)
    moved = jax.tree.map(lambda p, g: p + 0.2 * g / norm, arrays(), gradient)
    difference = optax.tree.sub(gradient_of(moved), gradient)
    assert_close(penalty(lam0=1.0, rho=0.2, radius=0.2)[0], difference)
    doubled = jax.tree.map(lambda x: 2.0 * x, difference)
    assert_close(penalty(lam0=1.0, rho=0.4, radius=0.2)[0], doubled)


@HVP
def test_the_parameters_are_bitwise_the_same_after_the_perturbed_evaluation(hvp):
    params, before = arrays(), arrays()
    seen = []

    def h(p):
        seen.append(p)
        return mean_prediction(p)

    optimizer = optax.chain(ignite(lam0=0.5, hvp=hvp), optax.sgd(0.0))
    gradient = jax.grad(loss)(params)
    updates, _ = optimizer.update(gradient, optimizer.init(params), params, mean_prediction_fn=h)
    assert_equal(params, before)
    assert_equal(optax.apply_updates(params, updates), before)  # stepped from phi, not phi + r u


def test_three_gradient_evaluations_a_step():
    """Counted where they happen: backward passes of the network, run eagerly."""
    backward = []

    @jax.custom_vjp
    def counted(params):
        return predict(params)

    def forward(params):
        return jax.vjp(predict, params)

    def pull_back(pull, cotangent):
        backward.append(1)
        return pull(cotangent)

    counted.defvjp(forward, pull_back)
    params, transform = arrays(), ignite()
    gradient = jax.grad(lambda p: jnp.mean(jnp.square(counted(p) - jnp.asarray(Y, jnp.float32))))(
        params
    )
    transform.update(
        gradient,
        transform.init(params),
        params,
        mean_prediction_fn=lambda p: jnp.mean(counted(p)),
    )
    assert len(backward) == 3


def test_the_exact_product_costs_no_more_than_a_third_gradient():
    """Its operations, counted by the compiler, against those of gradients of h."""

    def operations(function):
        wide = {"W1": jnp.ones([4, 256]), "b1": jnp.ones(256), "W2": jnp.ones(256)}
        inputs = jnp.ones([512, 4])
        h = lambda p: jnp.mean(predict(p, inputs))  # noqa: E731
        return jax.jit(lambda p: function(p, h)).lower(wide).compile().cost_analysis()["flops"]

    def step(hvp):
        transform = ignite(hvp=hvp)
        return lambda p, h: transform.update(p, transform.init(p), p, mean_prediction_fn=h)

    one = operations(lambda p, h: jax.grad(h)(p))
    assert operations(step("finite_difference")) < 2.2 * one
    assert operations(step("jvp")) < 3.2 * one


def test_the_multiplier_is_moved_by_the_norm_at_the_old_parameters():
    params = arrays()
    optimizer = optax.chain(ignite(lam0=0.2, rho=0.3, eta_lambda=0.5, eps=0.01), optax.sgd(5.0))
    old = surrogate_sharpness(mean_prediction, params, rho=0.3)
    updates, state = optimizer.update(
        jax.grad(loss)(params), optimizer.init(params), params, mean_prediction_fn=mean_prediction
    )
    new = surrogate_sharpness(mean_prediction, optax.apply_updates(params, updates), rho=0.3)
    np.testing.assert_allclose(state[0].lam, 0.2 + 0.5 * (old - 0.01), rtol=1e-6)
    assert abs(float(new - old)) > 1e-2


@pytest.mark.parametrize("clip", [False, True])
def test_the_multiplier_falls_below_zero_only_where_it_is_not_projected(clip):
    transform = ignite(eps=5.0, eta_lambda=0.1, lam0=0.6, clip_lambda=clip)

    @jax.jit
    def walk(params):
        def step(state, _):
            zeros = optax.tree.zeros_like(params)
            updates, state = transform.update(
                zeros, state, params, mean_prediction_fn=mean_prediction
            )
            return state, (state.lam, updates)

        return jax.lax.scan(step, transform.init(params), length=4)[1]

    multipliers, updates = walk(arrays())
    assert (np.diff(multipliers)[:1] < 0).all()
    if clip:
        np.testing.assert_array_equal(multipliers[1:], 0.0)
        assert_equal(jax.tree.map(lambda u: u[-1], updates), jax.tree.map(jnp.zeros_like, arrays()))
    else:
        assert float(multipliers[-1]) < -0.5  # and the term rewards sharpness: its sign is turned
        turned = jax.tree.map(lambda u: u[0] * (multipliers[2] / 0.6), updates)
        assert_close(jax.tree.map(lambda u: u[3], updates), turned, rtol=1e-4, atol=1e-7)


def test_a_fixed_multiplier_stays():
    updates, lam = first_update(lam0=0.01, adapt=False, rho=0.2, radius=0.2)
    assert float(lam) == np.float32(0.01)
    adapted, _ = first_update(lam0=0.01, rho=0.2, radius=0.2)
    assert_equal(updates, adapted)


@HVP
def test_a_constant_surrogate_adds_nothing_and_is_finite(hvp):
    updates, lam = penalty(lambda p: 0.0 * mean_prediction(p), hvp=hvp, lam0=2.0)
    assert_equal(updates, optax.tree.zeros_like(updates))
    np.testing.assert_allclose(lam, 2.0 - 1e-3 * 0.1, rtol=1e-6)


def test_the_term_depends_on_the_prediction_not_on_the_loss():
    """The trap: the norm of the LOSS gradient is another method (and SAM's relative)."""
    params = arrays()
    expected, lam = penalty(lam0=0.5)
    for factor in (1.0, 100.0):
        gradient = jax.tree.map(lambda g: factor * g, jax.grad(loss)(params))  # noqa: B023
        updates, found = first_update(gradient=gradient, lam0=0.5)
        assert_close(optax.tree.sub(updates, gradient), expected, rtol=1e-3, atol=2e-5)
        np.testing.assert_array_equal(found, lam)


@HVP
def test_masked_parameters_keep_their_updates_and_stay_out_of_the_norm(hvp):
    mask = {"W1": True, "b1": False, "W2": True}
    params, gradient = arrays(), jax.grad(loss)(arrays())

    def frozen(p):
        return mean_prediction({**p, "b1": jax.lax.stop_gradient(p["b1"])})

    expected, expected_lam = first_update(frozen, lam0=0.5, hvp=hvp)
    for given in (mask, lambda p: mask):
        transform = ignite(lam0=0.5, hvp=hvp, mask=given)
        updates, state = transform.update(
            gradient, transform.init(params), params, mean_prediction_fn=mean_prediction
        )
        lam = state.lam
        assert_equal(updates["b1"], gradient["b1"])
        assert_close((updates, lam), (expected, expected_lam), rtol=1e-6, atol=1e-8)
    part = surrogate_sharpness(mean_prediction, params, rho=1.0, mask=mask)
    np.testing.assert_allclose(part, surrogate_sharpness(frozen, params, rho=1.0), rtol=1e-6)


def test_sharpness_is_the_rise_within_a_small_ball_to_first_order(x64):
    params = arrays()
    flat, restore = jax.flatten_util.ravel_pytree(params)
    directions = np.random.default_rng(1).normal(size=(200, flat.size))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    steepest = jax.flatten_util.ravel_pytree(jax.grad(mean_prediction)(params))[0]
    directions = np.vstack([directions, steepest / np.linalg.norm(steepest)])
    rho = 1e-4
    rise = jax.jit(jax.vmap(lambda d: mean_prediction(restore(flat + rho * d))))(directions)
    sharpness = surrogate_sharpness(mean_prediction, params, rho=rho)
    np.testing.assert_allclose(np.max(rise - mean_prediction(params)), sharpness, rtol=1e-3)


@HVP
def test_bfloat16_parameters_get_the_float32_norm_and_a_close_penalty(hvp):
    rng = np.random.default_rng(3)
    wide = {
        "W1": jnp.asarray(rng.normal(size=(4, 512)), jnp.bfloat16),
        "b1": jnp.zeros(512, jnp.bfloat16),
        "W2": jnp.asarray(rng.normal(size=512) * 0.1, jnp.bfloat16),
    }
    hyper = {"hvp": hvp, "lam0": 1.0, "rho": 0.5, "radius": 0.5, "eta_lambda": 1.0}
    found, lam = penalty(params=wide, **hyper)
    expected, expected_lam = penalty(params=optax.tree.cast(wide, jnp.float32), **hyper)
    assert lam.dtype == jnp.float32
    np.testing.assert_allclose(lam, expected_lam, rtol=1e-2)
    error = optax.tree.norm(optax.tree.sub(optax.tree.cast(found, jnp.float32), expected))
    assert float(error) < 0.2 * float(optax.tree.norm(expected))


def test_mistakes_are_named():
    params = arrays()
    with pytest.raises(ValueError, match="ignite: expected radius in \\(0, inf\\), got 0"):
        ignite(radius=0.0)
    with pytest.raises(ValueError, match="ignite: expected hvp to be one of .*got 'hessian'"):
        ignite(hvp="hessian")
    with pytest.raises(ValueError, match=r"expected mean_prediction_fn\(params\) of shape \(\)"):
        surrogate_sharpness(predict, params, rho=0.1)
    with pytest.raises(ValueError, match="surrogate_sharpness: expected rho in"):
        surrogate_sharpness(mean_prediction, params, rho=-1.0)
    with pytest.raises(TypeError, match="surrogate_sharpness: expected mean_prediction_fn"):
        surrogate_sharpness(None, params, rho=1.0)
