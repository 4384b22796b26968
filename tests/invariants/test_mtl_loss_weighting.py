# SPDX-License-Identifier: Apache-2.0
"""Loss weightings of several tasks: the invariants of spec mtl_aggregators that concern them."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from xloss.optim import aggregators, weighting
from xloss.optim.weighting import dwa, famo, famo_init, famo_step, gls, gradnorm, stch, uncertainty

RNG = np.random.default_rng(0)
LOSSES = jnp.asarray([0.7, 2.0, 0.05])
GRADS = jnp.asarray(RNG.normal(size=(3, 5)), jnp.float32)
ORDER = np.array([2, 0, 1])

#: Objectives of the losses and of what belongs to each task.
OBJECTIVES = {
    "uncertainty": (uncertainty, jnp.array([-0.5, 0.1, 1.0])),
    "imtl_l": (weighting.imtl_l, jnp.array([-0.5, 0.1, 1.0])),
    "gls": (lambda losses, _: gls(losses), jnp.zeros(3)),
    "log_losses": (lambda losses, _: weighting.log_losses(losses), jnp.zeros(3)),
    "stch": (lambda losses, nadir: stch(losses, nadir=nadir, mu=0.3), jnp.array([1.0, 3.0, 0.04])),
    "rlw": (lambda losses, n: weighting.rlw(losses, normal=n), jnp.array([0.1, -1.0, 2.0])),
    "famo": (
        lambda losses, logits: famo(losses, famo_init(3)._replace(logits=logits)),
        jnp.array([0.1, -0.3, 0.7]),
    ),
}
each = pytest.mark.parametrize("name", OBJECTIVES)


def weights_of(objective, losses, state):
    return jax.value_and_grad(objective)(losses, state)


@each
def test_1_permuting_the_tasks_permutes_the_weights(name):
    objective, state = OBJECTIVES[name]
    value, weights = weights_of(objective, LOSSES, state)
    permuted, permuted_weights = weights_of(objective, LOSSES[ORDER], state[ORDER])
    np.testing.assert_allclose(permuted, value, rtol=1e-6)
    np.testing.assert_allclose(permuted_weights, weights[ORDER], rtol=2e-6)


@each
def test_every_weight_is_positive_and_one_trace_serves_all(name):
    objective, state = OBJECTIVES[name]
    traces = []

    @jax.jit
    def weights(losses, state):
        traces.append(None)
        return jax.grad(objective)(losses, state)

    for factor in (1e-3, 1.0, 1e3):
        found = weights(factor * LOSSES, state)
        np.testing.assert_allclose(found, jax.grad(objective)(factor * LOSSES, state), rtol=1e-5)
        assert np.all(found > 0) and np.all(np.isfinite(found))
    assert len(traces) == 1


@each
def test_half_precision_losses_are_computed_in_float32(name):
    objective, state = OBJECTIVES[name]
    value = objective(LOSSES.astype(jnp.bfloat16), state)
    assert value.dtype == jnp.float32
    want = objective(LOSSES.astype(jnp.bfloat16).astype(jnp.float32), state)
    np.testing.assert_allclose(value, want, rtol=1e-6)


@each
def test_a_single_task_is_followed_as_it_is(name):
    """One task: the weight is positive, whatever the method, so the direction is its gradient."""
    objective, state = OBJECTIVES[name]
    assert jax.grad(objective)(LOSSES[:1], state[:1])[0] > 0


@each
def test_losses_of_another_shape_are_refused(name):
    objective, state = OBJECTIVES[name]
    with pytest.raises(ValueError, match=r"expected losses \[T\]"):
        objective(LOSSES[None], state)
    with pytest.raises(TypeError, match="expected losses of a float dtype"):
        objective(jnp.array([1, 2, 3]), state)


def test_8_uncertainty_is_at_rest_where_the_variance_is_the_loss(x64):
    losses = jnp.asarray([0.02, 3.0, 500.0])
    slope = jax.grad(uncertainty, argnums=1)(losses, jnp.log(losses))
    np.testing.assert_allclose(slope, 0.0, atol=1e-12)
    np.testing.assert_allclose(jax.grad(uncertainty)(losses, jnp.log(losses)), 0.5 / losses)


def test_8_famo_gives_more_to_the_task_that_improved_least():
    step = jax.jit(famo_step)
    state = famo_init(3)
    after = LOSSES * jnp.array([0.9, 0.5, 0.99])
    for _ in range(5):
        state = step(state, LOSSES, after)
    logits = np.asarray(state.logits)
    assert logits[2] > logits[0] > logits[1]
    assert logits[2] > 0 > logits[1]


def test_famo_balances_two_tasks_of_very_different_size():
    """Rates of decrease in log loss come together, which the plain sum leaves far apart."""
    curvature = jnp.array([1.0, 400.0])

    def task_losses(w):
        return 0.5 * curvature * (jnp.square(w - jnp.array([1.0, -1.0])) + 0.1)

    def gap(rates):
        return abs(float(rates[0] - rates[1]))

    @jax.jit
    def run(w):
        def one(carry, _):
            w, state = carry
            before = task_losses(w)
            w = w - 0.005 * jax.grad(lambda p: famo(task_losses(p), state))(w)
            state = famo_step(state, before, task_losses(w), decay=0.0)
            return (w, state), None

        (w, _), _ = jax.lax.scan(one, (w, famo_init(2)), None, length=150)
        return w

    start = jnp.zeros(2)
    end = run(start)
    rates = jnp.log(task_losses(start)) - jnp.log(task_losses(end))
    plain = start - 0.005 * jax.grad(lambda p: jnp.sum(task_losses(p)))(start)
    plain_rates = jnp.log(task_losses(start)) - jnp.log(task_losses(plain))
    assert gap(rates) < 0.2 * float(jnp.max(rates))
    assert gap(plain_rates) > 0.9 * float(jnp.max(jnp.abs(plain_rates)))


def test_famo_weights_sum_to_1_and_its_objective_leaves_the_logits_alone():
    state = famo_init(3)._replace(logits=jnp.array([0.1, -0.3, 0.7]))
    np.testing.assert_allclose(jnp.sum(jax.grad(famo)(LOSSES, state)), 1.0, rtol=1e-6)
    slope = jax.grad(lambda logits: famo(LOSSES, state._replace(logits=logits)))(state.logits)
    np.testing.assert_array_equal(slope, 0.0)


def test_famo_steps_are_adam_with_decay_inside_the_moments():
    chain = optax.chain(optax.add_decayed_weights(0.1), optax.scale_by_adam())
    logits, adam, state = jnp.zeros(2), chain.init(jnp.zeros(2)), famo_init(2)
    losses = jnp.array([[1.0, 1.0], [0.9, 0.5], [0.7, 0.4], [0.7, 0.39]])
    for before, after in itertools.pairwise(losses):
        state = famo_step(state, before, after, learning_rate=0.3, decay=0.1)
        gain = jnp.log(before) - jnp.log(after)
        slope = jax.vjp(jax.nn.softmax, logits)[1](gain)[0]
        with jax.numpy_dtype_promotion("standard"):
            update, adam = chain.update(slope, adam, logits)
        logits = logits - 0.3 * update
        np.testing.assert_allclose(state.logits, logits, rtol=1e-5)


def test_gls_is_the_geometric_mean_and_ignores_units():
    losses = jnp.array([1e-30, 1e30, 4.0])
    np.testing.assert_allclose(gls(losses), 4.0 ** (1 / 3), rtol=1e-5)
    scaled = LOSSES * jnp.array([1.0, 1e3, 1e-3])
    ratio = jax.grad(gls)(scaled) * scaled / (jax.grad(gls)(LOSSES) * LOSSES)
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-5)


@pytest.mark.parametrize("mu", [1e-3, 1e-2])
def test_stch_tends_to_the_worst_task(mu):
    nadir = jnp.array([1.0, 3.0, 0.04])
    value, weights = jax.value_and_grad(lambda x: stch(x, nadir=nadir, mu=mu))(LOSSES)
    np.testing.assert_allclose(value, 3 * jnp.max(jnp.log(LOSSES / nadir)), atol=4 * mu)
    assert int(jnp.argmax(weights * LOSSES)) == int(jnp.argmax(LOSSES / nadir))
    np.testing.assert_allclose(jnp.max(weights * LOSSES), 3.0, rtol=1e-5)


def test_stch_warms_up_on_the_logarithm_of_gls():
    np.testing.assert_allclose(weighting.log_losses(LOSSES), 3 * jnp.log(gls(LOSSES)), rtol=1e-6)


def test_a_loss_of_zero_stays_finite_under_stch():
    losses = jnp.array([0.0, 1.0])
    for objective in (functools.partial(stch, nadir=jnp.ones(2), mu=0.1), weighting.log_losses):
        value, slope = jax.value_and_grad(objective)(losses)
        assert np.isfinite(value) and np.all(np.isfinite(slope))


def test_dwa_weights_sum_to_the_number_of_tasks_and_follow_the_slowest():
    last, before = jnp.array([0.9, 0.5, 1.1]), jnp.array([1.0, 1.0, 1.0])
    weights = dwa(last, before)
    np.testing.assert_allclose(jnp.sum(weights), 3.0, rtol=1e-6)
    assert weights[2] > weights[0] > weights[1]
    np.testing.assert_allclose(dwa(1e3 * before, before * 1e3), 1.0, rtol=1e-6)
    np.testing.assert_allclose(dwa(last, before, temperature=1e6), 1.0, atol=1e-5)
    with pytest.raises(ValueError, match=r"expected temperature in \(0, inf\)"):
        dwa(last, before, temperature=0.0)


def test_rlw_draws_from_the_key():
    first, second = (weighting.rlw(LOSSES, key=jax.random.key(seed)) for seed in (0, 1))
    assert first != second
    assert first == weighting.rlw(LOSSES, key=jax.random.key(0))
    draws = jax.vmap(lambda key: jax.grad(lambda x: weighting.rlw(x, key=key))(LOSSES))(
        jax.random.split(jax.random.key(2), 2000)
    )
    np.testing.assert_allclose(jnp.mean(draws, axis=0), 1 / 3, atol=0.02)
    with pytest.raises(TypeError, match="got neither"):
        weighting.rlw(LOSSES)
    with pytest.raises(TypeError, match="got both"):
        weighting.rlw(LOSSES, key=jax.random.key(0), normal=jnp.zeros(3))


def test_gradnorm_moves_the_scales_and_nothing_else():
    def penalty(scales, grads, losses):
        return gradnorm(scales, grads, losses, jnp.ones(3))[0]

    slopes = jax.grad(penalty, argnums=(0, 1))(jnp.zeros(3), GRADS, LOSSES)
    assert np.any(slopes[0] != 0)
    np.testing.assert_array_equal(slopes[1], 0.0)
    np.testing.assert_allclose(jnp.sum(slopes[0]), 0.0, atol=1e-5)  # softmax keeps the sum


def test_gradnorm_with_alpha_0_trains_to_equal_norms():
    def one(scales, _):
        slope, _ = jax.grad(gradnorm, has_aux=True)(scales, GRADS, LOSSES, LOSSES, alpha=0.0)
        return scales - 0.002 * slope, None

    lengths = jnp.linalg.norm(GRADS, axis=1)
    scales, _ = jax.lax.scan(one, jnp.zeros(3), None, length=2000)
    _, weights = gradnorm(scales, GRADS, LOSSES, LOSSES, alpha=0.0)
    np.testing.assert_allclose(weights * lengths, jnp.mean(weights * lengths), rtol=0.03)
    np.testing.assert_allclose(jnp.sum(weights), 3.0, rtol=1e-5)


def test_gradnorm_survives_huge_and_zero_gradients():
    grads = jnp.stack([1e25 * GRADS[0], jnp.zeros(5), GRADS[2]])
    penalty, weights = gradnorm(jnp.zeros(3), {"w": grads}, LOSSES, LOSSES)
    assert np.isfinite(penalty) and np.all(np.isfinite(weights))
    with pytest.raises(ValueError, match="grads of as many tasks as losses, got 2 and 3"):
        gradnorm(jnp.zeros(3), grads[:2], LOSSES, LOSSES)


def test_db_mtl_is_the_sum_of_equally_long_gradients_of_the_log_losses():
    direction, weights = aggregators.db_mtl(GRADS, losses=LOSSES, eps=0.0)
    of_log = jax.vmap(jnp.divide)(GRADS, LOSSES)
    lengths = jnp.linalg.norm(of_log, axis=1)
    parts = jax.vmap(jnp.multiply)(weights, GRADS)
    np.testing.assert_allclose(jnp.linalg.norm(parts, axis=1), jnp.max(lengths), rtol=1e-5)
    np.testing.assert_allclose(direction, jnp.sum(parts, axis=0), rtol=1e-5, atol=1e-5)


def test_db_mtl_forgets_as_beta_over_a_power_of_the_step():
    state = aggregators.db_mtl_init(GRADS)
    one = jnp.ones(3)
    for step in range(1, 4):
        average, state = aggregators.db_mtl_average(
            step * GRADS, one, state, beta=0.8, beta_sigma=1.0, eps=0.0
        )
    # a_1 = 0.2 g, a_2 = 2 g + 0.4 (0.2 - 2) g, a_3 = 3 g + 0.8 / 3 (a_2 - 3 g)
    second = 2 + 0.4 * (0.2 - 2)
    np.testing.assert_allclose(average, (3 + 0.8 / 3 * (second - 3)) * GRADS, rtol=1e-5)
    fresh, _ = aggregators.db_mtl_average(GRADS, one, state, beta=0.0, eps=0.0)
    np.testing.assert_allclose(fresh, GRADS, rtol=1e-6)
    with pytest.raises(ValueError, match=r"state\.average"):
        aggregators.db_mtl_average(GRADS[:, :2], one, state)


def test_messages_use_the_arguments_own_names():
    bad = jnp.ones((2, 2))
    with pytest.raises(ValueError, match=r"dwa: expected last \[T\]"):
        dwa(bad, LOSSES)
    with pytest.raises(ValueError, match=r"famo_step: expected losses_before \[T\]"):
        famo_step(famo_init(3), bad, LOSSES)
    with pytest.raises(TypeError, match="famo_init: expected dtype float32 or float64"):
        famo_init(2, dtype=jnp.int32)


def test_a_scalar_minimum_is_a_number_of_any_kind():
    want = famo(LOSSES, famo_init(3), minima=jnp.ones(3) * -1.0)
    for minima in (-1, -1.0, np.float64(-1.0), jnp.float32(-1.0), jnp.int32(-1)):
        assert float(famo(LOSSES, famo_init(3), minima=minima)) == float(want)


def test_dtypes_may_differ_and_the_wider_one_is_returned(x64):
    narrow, wide = LOSSES.astype(jnp.float32), LOSSES.astype(jnp.float64)
    state = famo_init(3)
    assert famo(narrow, state).dtype == jnp.float32
    assert famo(wide, state).dtype == jnp.float64
    assert famo_step(state, wide, wide / 2).logits.dtype == jnp.float32
    assert uncertainty(narrow, wide).dtype == jnp.float64
    for others in ((GRADS, wide), (GRADS.astype(jnp.float64), narrow)):
        penalty, weights = gradnorm(jnp.zeros(3, jnp.float32), *others, narrow)
        assert penalty.dtype == weights.dtype == jnp.float64


def test_gradnorm_where_every_loss_is_0_and_lengths_are_far_apart():
    zeros, ones = jnp.zeros(2), jnp.ones(2)
    grads = jnp.array([[3.0, 4.0], [3e-25, 4e-25]])
    slope, _ = jax.grad(gradnorm, has_aux=True)(zeros, grads, zeros, ones)
    assert np.all(np.isfinite(slope))
    penalty, _ = gradnorm(
        zeros, grads[1:].repeat(2, axis=0) * jnp.array([[1.0], [2.0]]), ones, ones
    )
    np.testing.assert_allclose(penalty, 5e-25, rtol=1e-5)
