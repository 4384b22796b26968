# SPDX-License-Identifier: Apache-2.0
"""Invariants of decoupled softmax and soft top-k (spec decoupled_softmax)."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import xloss
from xloss.classification import (
    cross_entropy,
    decoupled_softmax,
    log_soft_top_k,
    soft_top_k,
    soft_top_k_loss,
)

BATCH, LABELS = 6, 12


def problem(seed=0, scale=1.0, dtype=np.float64):
    rng = np.random.default_rng(seed)
    scores = jnp.asarray((scale * rng.normal(size=(BATCH, LABELS))).astype(dtype))
    labels = rng.uniform(size=(BATCH, LABELS)) < 0.3
    labels[np.arange(BATCH), rng.integers(0, LABELS, BATCH)] = True
    return scores, labels


@functools.cache
def value_and_gradient(loss, **options):
    def total(scores, labels):
        losses = loss(scores, labels, **options)
        return jnp.sum(losses), losses

    return jax.jit(jax.value_and_grad(total, has_aux=True))


def test_one_positive_is_softmax_cross_entropy(x64):
    scores, _ = problem(scale=5.0)
    labels = np.arange(BATCH)
    (_, losses), gradient = value_and_gradient(decoupled_softmax)(
        scores, np.eye(LABELS)[labels] > 0
    )
    (_, expected), slope = value_and_gradient(cross_entropy)(scores, labels)
    np.testing.assert_allclose(losses, expected, rtol=1e-12)
    np.testing.assert_allclose(gradient, slope, atol=1e-14)


def test_losses_are_at_least_zero_and_do_not_see_a_constant(x64):
    scores, labels = problem(scale=20.0)
    shift = 1e3 * np.arange(BATCH)[:, None]
    for loss in (decoupled_softmax, soft_top_k_loss):
        run = value_and_gradient(loss)
        (_, losses), gradient = run(scores, labels)
        (_, moved), moved_gradient = run(scores + shift, labels)
        assert np.all(losses >= 0)
        np.testing.assert_allclose(moved, losses, rtol=1e-9, atol=1e-10)
        np.testing.assert_allclose(moved_gradient, gradient, atol=1e-10)


def test_positives_are_pushed_up_and_negatives_down(x64):
    scores, labels = problem(scale=4.0)
    gradient = value_and_gradient(decoupled_softmax)(scores, labels)[1]
    assert np.all(gradient[labels] <= 0) and np.all(gradient[~labels] >= 0)

    # One softmax over all labels pulls a confident one back: what this loss is there to mend.
    best = np.argmax(np.where(labels, scores, -np.inf), axis=-1)
    confident = scores.at[np.arange(BATCH), best].add(20.0)
    assert np.max(labels.sum(-1)) > 1
    share = labels / labels.sum(-1, keepdims=True)
    plain = jax.grad(lambda z: jnp.sum(xloss.get("soft_cross_entropy")(z, share)))(confident)
    assert np.any(plain[labels] > 0)
    decoupled = value_and_gradient(decoupled_softmax)(confident, labels)[1]
    assert np.all(decoupled[labels] <= 0)


def test_gradients_of_a_row_sum_to_zero(x64):
    scores, labels = problem(scale=3.0)
    for loss in (decoupled_softmax, soft_top_k_loss):
        gradient = value_and_gradient(loss)(scores, labels)[1]
        np.testing.assert_allclose(np.sum(gradient, axis=-1), 0.0, atol=1e-13)


@pytest.mark.parametrize("scale", [0.0, 1e-3, 1.0, 300.0, 1e6])
def test_soft_top_k_sums_to_k_in_the_order_of_the_scores(scale, x64):
    scores, _ = problem(seed=2, scale=scale)
    k = jnp.asarray([1, 2, 5, 6, 10, 11])
    run = jax.jit(lambda x: (soft_top_k(x, k, alpha=3.0), log_soft_top_k(x, k, alpha=3.0)))
    probs, logs = run(scores)
    np.testing.assert_allclose(np.sum(probs, axis=-1), k, rtol=1e-12)
    np.testing.assert_allclose(np.exp(logs), probs, rtol=1e-10, atol=1e-300)
    assert np.all(np.isfinite(logs))
    order = np.argsort(scores, axis=-1)
    assert np.all(np.diff(np.take_along_axis(np.asarray(probs), order, -1), axis=-1) >= 0)
    turned = run(scores[:, ::-1])[0]
    np.testing.assert_allclose(turned[:, ::-1], probs, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(run(scores + 7.0)[0], probs, rtol=1e-7, atol=1e-9)


def test_a_sharp_soft_top_1_is_the_argmax(x64):
    scores, _ = problem(seed=3)
    probs = soft_top_k(scores, 1, alpha=1e5)
    np.testing.assert_allclose(probs, np.eye(LABELS)[np.argmax(scores, axis=-1)], atol=1e-12)


def test_the_implicit_jacobian_is_that_of_finite_differences_and_its_rows_sum_to_zero(x64):
    x = problem(seed=4, scale=2.0)[0][0]
    run = jax.jit(lambda x, alpha: log_soft_top_k(x, 4, alpha=alpha))
    jacobian = jax.jacrev(run)(x, 1.5)
    np.testing.assert_allclose(jacobian, jax.jacfwd(run)(x, 1.5), atol=1e-13)
    np.testing.assert_allclose(np.sum(jacobian, axis=-1), 0.0, atol=1e-12)
    step = 1e-5
    for i in range(0, LABELS, 5):
        change = step * np.eye(LABELS)[i]
        slope = (run(x + change, 1.5) - run(x - change, 1.5)) / (2 * step)
        np.testing.assert_allclose(jacobian[:, i], slope, atol=1e-8)
    by_alpha = (run(x, 1.5 + step) - run(x, 1.5 - step)) / (2 * step)
    np.testing.assert_allclose(jax.jacfwd(run, argnums=1)(x, 1.5), by_alpha, atol=1e-8)
    hessian = jax.jit(jax.hessian(lambda x: jnp.sum(jnp.cos(x) * run(x, 1.5))))(x)
    np.testing.assert_allclose(hessian, hessian.T, atol=1e-12)


def test_ties_share_what_is_left(x64):
    x = jnp.asarray([[3.0, 1.0, 1.0, 1.0, -500.0], [0.0, 0.0, 0.0, 0.0, 0.0]])
    probs = soft_top_k(x, 2, alpha=100.0)
    np.testing.assert_allclose(probs[0], [1.0, 1 / 3, 1 / 3, 1 / 3, 0.0], atol=1e-12)
    np.testing.assert_allclose(probs[1], 0.4, rtol=1e-12)


def test_no_positives_all_positives_and_masks_cost_nothing_and_give_no_gradient():
    scores, labels = problem(dtype=np.float32)
    labels[0], labels[1] = False, True
    where = np.arange(BATCH) != 2
    scores = scores.at[2].set(jnp.nan)
    for loss in (decoupled_softmax, soft_top_k_loss):
        losses, pull = jax.vjp(lambda z, loss=loss: loss(z, labels, where=where), scores)
        gradient = pull(jnp.ones_like(losses))[0]
        assert losses[0] == 0 and losses[2] == 0 and np.all(np.isfinite(losses))
        np.testing.assert_array_equal(gradient[np.asarray([0, 2])], 0.0)
        assert np.all(np.isfinite(gradient))
        if loss is decoupled_softmax:
            assert losses[1] == 0 and not np.any(gradient[1])


def test_extreme_scores_and_labels_that_are_taken_out(x64):
    z = jnp.asarray([[1e4, -1e4, 0.0, -jnp.inf], [-jnp.inf, 2.0, 1.0, 0.0]], jnp.float32)
    y = np.asarray([[0, 1, 0, 0], [0, 1, 0, 1]])
    (_, losses), gradient = value_and_gradient(decoupled_softmax)(z, y)
    np.testing.assert_allclose(losses[0], 2e4, rtol=1e-6)
    assert np.all(np.isfinite(gradient)) and gradient[0, 3] == 0
    alone = np.mean([np.log1p(np.exp(-1.0)), np.log1p(np.exp(1.0))])
    np.testing.assert_allclose(losses[1], alone, rtol=1e-6)
    probs = soft_top_k(z, 2)
    np.testing.assert_allclose(np.sum(probs, axis=-1), 2.0, rtol=1e-6)
    assert probs[0, 3] == 0 and probs[1, 0] == 0
    assert np.all(np.isnan(soft_top_k(z, jnp.asarray([3, 0])))), "no root: 3 finite scores; k = 0"
    wrong = decoupled_softmax(z[:, :3], jnp.asarray([[0, 2, 0], [0, 1, 0]]))
    np.testing.assert_array_equal(np.isnan(wrong), [True, False])


def test_labels_that_are_taken_out_leave_no_nan_in_any_gradient():
    z = jnp.asarray([[0.0, -jnp.inf, -jnp.inf], [-jnp.inf, 1.0, 2.0], [-jnp.inf] * 3])
    labels = np.asarray([[1, 0, 0], [0, 1, 1], [0, 0, 0]])  # no false label is left in any row
    run = jax.value_and_grad(
        lambda z, temperature: jnp.sum(decoupled_softmax(z, labels, temperature=temperature)),
        argnums=(0, 1),
    )
    for found in jax.tree.leaves(jax.jit(run)(z, 0.5)):
        np.testing.assert_array_equal(found, 0.0)
    lost = decoupled_softmax(z[:1], 1 - labels[:1], relevance=jnp.zeros((1, 3)))
    np.testing.assert_array_equal(lost, 0.0)

    scores = jnp.asarray([1.0, 2.0, -jnp.inf, 3.0])
    weights = jnp.arange(1.0, 5.0)

    def kept(alpha):
        few = np.asarray([0, 1, 3])
        return jnp.vdot(weights[few], soft_top_k(scores[few], 2, alpha=alpha))

    out = jax.jit(jax.grad(lambda a: jnp.vdot(weights, soft_top_k(scores, 2, alpha=a))))(0.7)
    np.testing.assert_allclose(out, jax.grad(kept)(0.7), rtol=1e-5)


def test_as_many_as_an_example_has_positives_works_where_it_has_none():
    scores, labels = problem(dtype=np.float32)
    labels[0] = False
    run = value_and_gradient(lambda z, y: soft_top_k_loss(z, y, k=jnp.sum(y, axis=-1)))
    (_, losses), gradient = run(scores, labels)
    assert losses[0] == 0 and not np.any(gradient[0])
    assert np.all(losses[1:] > 0) and np.all(np.isfinite(gradient))


def test_an_offset_costs_no_digits_in_float32():
    grid = jnp.asarray([[1.0, 0.0, -1.0, 3.0, 3.0, 0.25]])
    labels = np.asarray([[1, 0, 0, 0, 1, 0]])

    @jax.jit
    def everything(z):
        loss, slope = jax.value_and_grad(
            lambda z, t: jnp.sum(decoupled_softmax(z, labels, temperature=t)), argnums=(0, 1)
        )(z, 1.0)
        return loss, slope, soft_top_k(z, 2), soft_top_k(z, jnp.asarray([2])), log_soft_top_k(z, 2)

    here = everything(grid)
    for offset in (1e4, 1e6, -1e6):
        for moved, still in zip(
            *map(jax.tree.leaves, (everything(grid + offset), here)), strict=True
        ):
            np.testing.assert_array_equal(moved, still)


@pytest.mark.parametrize("scale", [1e4, 1e38])
def test_a_sharp_choice_among_scores_of_any_size_has_no_nan(scale):
    z = jnp.asarray(np.random.default_rng(0).normal(size=(4, 50)).clip(-3, 3) * scale, jnp.float32)
    labels = np.arange(50)[None].repeat(4, 0) < 3

    @jax.jit
    def everything(z, alpha):
        probs, pull = jax.vjp(lambda z, a: soft_top_k(z, 5, alpha=a), z, alpha)
        loss, slope = jax.value_and_grad(
            lambda z, t: jnp.sum(decoupled_softmax(z, labels, temperature=t)), argnums=(0, 1)
        )(z, 1.0 / alpha)
        gradients = pull(jnp.cos(z)), jax.grad(lambda z: jnp.sum(log_soft_top_k(z, 5)[:, 0]))(z)
        return probs, loss, (gradients, slope[0])

    for alpha in (1.0, 50.0, 1e10):
        probs, loss, gradients = everything(z, alpha)
        np.testing.assert_allclose(np.sum(probs, axis=-1), 5.0, rtol=1e-5)
        assert not np.isnan(loss)
        assert all(np.all(np.isfinite(g)) for g in jax.tree.leaves(gradients))


def test_low_precision_is_computed_in_float32():
    scores, labels = problem(dtype=np.float32)
    low = scores.astype(jnp.bfloat16)
    for run in (
        functools.partial(decoupled_softmax, labels=labels),
        functools.partial(soft_top_k_loss, labels=labels),
        functools.partial(soft_top_k, k=3),
    ):
        found = run(low)
        assert found.dtype == jnp.float32
        np.testing.assert_allclose(found, run(low.astype(jnp.float32)), rtol=1e-6)
        assert jax.grad(lambda x, run=run: jnp.sum(run(x)))(low).dtype == jnp.bfloat16


def test_relevance_and_the_sum_over_positives(x64):
    scores, labels = problem()
    relevance = jnp.asarray(np.random.default_rng(1).uniform(size=scores.shape))
    whole = decoupled_softmax(scores, labels, relevance=relevance, reduce_positives="sum")
    expected = []
    for z, y, r in zip(*map(np.asarray, (scores, labels, relevance)), strict=True):
        rest = np.sum(np.exp(z[~y]))
        expected.append(sum(r[p] * np.log1p(rest * np.exp(-z[p])) for p in np.flatnonzero(y)))
    np.testing.assert_allclose(whole, expected, rtol=1e-12)
    mean = decoupled_softmax(scores, labels, relevance=relevance)
    np.testing.assert_allclose(np.asarray(mean) * labels.sum(-1), whole, rtol=1e-12)
    cold = decoupled_softmax(scores, labels, temperature=0.1)
    np.testing.assert_allclose(cold, decoupled_softmax(10.0 * scores, labels), rtol=1e-12)


def test_bad_arguments_are_named():
    scores, labels = problem(dtype=np.float32)
    for call, error, message in (
        (lambda: decoupled_softmax(scores, labels[:, :3]), ValueError, "expected labels of shape"),
        (lambda: decoupled_softmax(scores, labels + 0.0), TypeError, "labels of an integer dtype"),
        (lambda: decoupled_softmax(scores, labels, temperature=0.0), ValueError, "temperature"),
        (lambda: decoupled_softmax(scores, labels, reduce_positives="max"), ValueError, "one of"),
        (lambda: soft_top_k(scores, 0), ValueError, "expected 0 < k < 12"),
        (lambda: soft_top_k(scores, LABELS), ValueError, "expected 0 < k < 12"),
        (lambda: soft_top_k(scores, jnp.ones(3, jnp.int32)), ValueError, r"expected k of shape"),
        (lambda: soft_top_k(scores[:, :1], 1), ValueError, "two or more labels"),
        (lambda: log_soft_top_k(scores, 2, alpha=-1.0), ValueError, "alpha"),
        (lambda: soft_top_k_loss(scores, labels, k=2.0), TypeError, "k of an integer dtype"),
    ):
        with pytest.raises(error, match=message):
            call()
