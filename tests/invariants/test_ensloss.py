# SPDX-License-Identifier: Apache-2.0
"""EnsLoss: the eight invariants of its specification, and where its sort runs."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from xloss import binary_statistics, reduce
from xloss.classification import ensloss, ensloss_derivatives, inverse_box_cox, sample_lam

BATCH = 64
RNG = np.random.default_rng(0)
MARGINS = jnp.asarray(RNG.normal(scale=2.0, size=BATCH), jnp.float32)
DRAWS = jnp.asarray(RNG.normal(size=BATCH), jnp.float32)
LABELS = jnp.asarray(RNG.integers(0, 2, BATCH), jnp.int32)
SIGNS = 2.0 * LABELS.astype(jnp.float32) - 1.0
WHERE = jnp.asarray(RNG.random(BATCH) < 0.6)
EPS = 1e-6
LAMS = (0.0, 0.8, -0.8)


def objective(scores, labels, key, where=None, **hyper):
    stats = binary_statistics(scores, labels, where=where)
    return reduce(ensloss(stats, key=key, where=where, **hyper), where=where)


gradient = jax.jit(jax.grad(objective))


@pytest.mark.parametrize("lam", LAMS)
@pytest.mark.parametrize("tail_power", [0.0, 1.0, 2.0])
def test_1_derivatives_do_not_decrease_with_the_margin(lam, tail_power):
    slopes = ensloss_derivatives(MARGINS, DRAWS, lam=lam, tail_power=tail_power)
    assert (MARGINS > 1).any()
    assert (np.diff(np.asarray(slopes)[np.argsort(MARGINS)]) >= 0).all()


@pytest.mark.parametrize("lam", LAMS)
def test_2_derivatives_are_negative_and_at_least_minus_clip_minus_eps(lam):
    for draws in (DRAWS, 10 * DRAWS):
        for clip in (1.0, 0.25):
            slopes = ensloss_derivatives(MARGINS, draws, lam=lam, clip=clip)
            assert (slopes <= -np.float32(EPS)).all()
            assert (slopes >= np.float32(-clip) - np.float32(EPS)).all()


def test_3_gradient_in_the_scores_is_injected_exactly():
    key = jax.random.key(1)
    margins = SIGNS * MARGINS
    draws = jax.random.normal(key, (BATCH,))
    slopes = ensloss_derivatives(margins, draws)
    expected = slopes * SIGNS / BATCH
    np.testing.assert_allclose(gradient(MARGINS, LABELS, key), expected, rtol=1e-6)
    terms = ensloss(binary_statistics(MARGINS, LABELS), key=key)
    np.testing.assert_allclose(terms, slopes * margins, rtol=1e-6)


def test_3_no_second_path_through_the_margins():
    key = jax.random.key(1)
    hessian = jax.jit(jax.hessian(objective))(MARGINS[:8], LABELS[:8], key)
    np.testing.assert_array_equal(hessian, 0.0)
    through = jax.grad(lambda m: jnp.sum(ensloss_derivatives(m, DRAWS)))(MARGINS)
    np.testing.assert_array_equal(through, 0.0)


def test_4_permuting_the_batch_permutes_and_permuting_the_draws_does_nothing():
    order = RNG.permutation(BATCH)
    slopes = ensloss_derivatives(MARGINS, DRAWS)
    np.testing.assert_array_equal(ensloss_derivatives(MARGINS[order], DRAWS), slopes[order])
    np.testing.assert_array_equal(ensloss_derivatives(MARGINS, DRAWS[order]), slopes)


def test_5_inverse_box_cox_tends_to_exp():
    exact = np.exp(np.asarray(DRAWS, np.float64))
    np.testing.assert_allclose(inverse_box_cox(DRAWS, lam=0.0), exact, rtol=1e-6)
    for lam in (1e-30, 1e-8, -1e-8, 1e-6):
        np.testing.assert_allclose(inverse_box_cox(DRAWS, lam=lam), exact, rtol=2e-5)


def test_5_inverse_box_cox_has_its_ends():
    draws = jnp.array([-4.0, -2.0, 0.0, 2.0, 4.0])
    np.testing.assert_allclose(inverse_box_cox(draws, lam=0.5), [0, 0, 1, 4, 9], rtol=1e-6)
    np.testing.assert_allclose(
        inverse_box_cox(draws, lam=-0.5), [1 / 9, 0.25, 1, np.inf, np.inf], rtol=1e-6
    )
    slopes = ensloss_derivatives(jnp.zeros(5), draws, lam=-0.5)  # infinite before the clip
    assert np.isfinite(slopes).all()


@pytest.mark.parametrize("lam", LAMS)
def test_6_up_to_margin_one_the_derivatives_are_the_clipped_draws(lam):
    slopes = ensloss_derivatives(jnp.minimum(MARGINS, 1.0), DRAWS, lam=lam)
    expected = -np.minimum(np.asarray(inverse_box_cox(DRAWS, lam=lam)), 1.0) - np.float32(EPS)
    np.testing.assert_array_equal(np.sort(slopes), np.sort(expected))


def test_7_the_key_decides():
    first, second = jax.random.split(jax.random.key(0))
    step = gradient(MARGINS, LABELS, first)
    np.testing.assert_array_equal(gradient(MARGINS, LABELS, first), step)
    assert not np.array_equal(gradient(MARGINS, LABELS, second), step)


def test_8_expected_derivative_of_a_single_example():
    draws = jax.random.normal(jax.random.key(0), (200_000, 1))
    slopes = jax.jit(jax.vmap(lambda z: ensloss_derivatives(jnp.array([0.5]), z)))(draws)
    exact = -(0.5 + math.exp(0.5) * 0.5 * math.erfc(1 / math.sqrt(2)) + EPS)
    assert abs(exact + 0.76158) < 1e-5
    np.testing.assert_allclose(jnp.mean(slopes), exact, atol=4 * float(jnp.std(slopes)) / 447)


def test_tail_divides_by_the_margin_above_one():
    margins = jnp.array([0.5, 1.0, 2.0, 1e30, jnp.inf])
    slopes = ensloss_derivatives(margins, jnp.full(5, 3.0))  # every draw is clipped to 1
    np.testing.assert_allclose(slopes, [-1 - EPS, -1 - EPS, -0.5 - EPS, -EPS, -EPS], rtol=1e-6)
    squared = ensloss_derivatives(margins, jnp.full(5, 3.0), tail_power=2.0)
    np.testing.assert_allclose(squared[2], -0.25 - EPS, rtol=1e-6)


def test_ties_are_sorted_stably():
    draws = jnp.array([0.0, -1.0, -3.0, -2.0])
    slopes = ensloss_derivatives(jnp.zeros(4), draws, eps=1e-6)
    expected = -np.exp([0.0, -1.0, -2.0, -3.0])  # most negative first, in the order of the batch
    np.testing.assert_allclose(slopes, expected - EPS, rtol=1e-5)


def test_a_mask_equals_the_subset():
    slopes = ensloss_derivatives(MARGINS, DRAWS, where=WHERE)
    subset = ensloss_derivatives(MARGINS[WHERE], DRAWS[WHERE])
    np.testing.assert_array_equal(slopes[WHERE], subset)
    np.testing.assert_array_equal(slopes[~WHERE], 0.0)
    hostile = jnp.where(WHERE, MARGINS, jnp.nan), jnp.where(WHERE, DRAWS, -jnp.inf)
    np.testing.assert_array_equal(ensloss_derivatives(*hostile, where=WHERE), slopes)


def test_masked_scores_and_labels_change_no_gradient():
    key = jax.random.key(2)
    clean = gradient(MARGINS, LABELS, key, WHERE)
    dirty = jnp.where(WHERE, MARGINS, jnp.nan), jnp.where(WHERE, LABELS, -5)
    np.testing.assert_array_equal(gradient(*dirty, key, WHERE), clean)
    np.testing.assert_array_equal(clean[~WHERE], 0.0)
    assert (np.asarray(clean)[np.asarray(WHERE)] != 0).all()


def test_two_steps_on_the_same_batch_pull_differently():
    step = jax.jit(lambda s, k: s - 0.1 * jax.grad(objective)(s, LABELS, k))
    keys = jax.random.split(jax.random.key(3), 2)
    moves = [np.asarray(step(MARGINS, key) - MARGINS) for key in keys]
    assert not np.array_equal(*moves)
    for move in moves:  # and both towards the right side
        assert (move * np.asarray(SIGNS) > 0).all()


@pytest.mark.parametrize("masked", [False, True])
def test_the_sort_is_global_under_jit_with_named_sharding(masked):
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    key, where = jax.random.key(4), WHERE if masked else None
    spread = jax.device_put((MARGINS, LABELS, where), NamedSharding(mesh, P("data")))
    found = gradient(spread[0], spread[1], key, spread[2])
    np.testing.assert_allclose(found, gradient(MARGINS, LABELS, key, where), rtol=1e-5)
    assert found.sharding.is_equivalent_to(spread[0].sharding, 1)


@pytest.mark.parametrize("axis_type", [AxisType.Auto, AxisType.Explicit])
def test_the_sort_is_global_inside_shard_map(axis_type):
    mesh = jax.make_mesh((4, 2), ("data", "more"), axis_types=(axis_type,) * 2)
    axes, key = ("data", "more"), jax.random.key(4)

    def local(s, y, w):
        stats = binary_statistics(s, y, where=w)
        terms = ensloss(stats, key=key, where=w, axis_name=axes)
        return reduce(terms, where=w, axis_name=axes)

    mapped = jax.shard_map(local, mesh=mesh, in_specs=(P(axes),) * 3, out_specs=P())
    spread = jax.device_put((MARGINS, LABELS, WHERE), NamedSharding(mesh, P(axes)))
    found = jax.jit(jax.grad(mapped))(*spread)
    np.testing.assert_allclose(found, gradient(MARGINS, LABELS, key, WHERE), rtol=1e-5)


def test_a_sort_per_device_would_be_another_law():
    local = jax.vmap(ensloss_derivatives)(MARGINS.reshape(8, -1), DRAWS.reshape(8, -1)).ravel()
    slopes = np.asarray(local)[np.argsort(MARGINS)]
    assert (np.diff(slopes) < 0).any()


def test_sample_lam_stays_in_its_interval():
    lams = jax.vmap(sample_lam)(jax.random.split(jax.random.key(0), 1000))
    assert lams.dtype == jnp.float32 and (lams >= -1).all() and (lams < 1).all()
    assert abs(float(jnp.mean(lams))) < 0.1
    positive = sample_lam(jax.random.key(0), low=0.0)
    assert 0.0 <= float(positive) < 1.0


def test_the_key_is_checked():
    stats = binary_statistics(MARGINS, LABELS)
    for wrong in (None, 0, jnp.zeros(2)):
        with pytest.raises(TypeError, match=r"ensloss: expected key to be a PRNG key"):
            ensloss(stats, key=wrong)
    np.testing.assert_array_equal(
        ensloss(stats, key=jax.random.PRNGKey(7)), ensloss(stats, key=jax.random.key(7))
    )
