# SPDX-License-Identifier: Apache-2.0
"""Invariants of the Dice and Tversky losses (spec dice)."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P
from sklearn.metrics import f1_score, fbeta_score

from xloss.classification import dice, hard_negative_mask, tversky

EXAMPLES, CLASSES = 24, 4


def problem(dtype=np.float64):
    rng = np.random.default_rng(0)
    scores = jnp.asarray((2.0 * rng.normal(size=EXAMPLES)).astype(dtype))
    logits = jnp.asarray((2.0 * rng.normal(size=(EXAMPLES, CLASSES))).astype(dtype))
    labels = jnp.asarray(rng.integers(0, 2, EXAMPLES), jnp.int32)
    classes = jnp.asarray(rng.integers(0, CLASSES, EXAMPLES), jnp.int32)
    return scores, labels, logits, classes, jnp.asarray(rng.uniform(size=EXAMPLES) > 0.3)


def test_losses_are_between_0_and_1(x64):
    scores, labels, logits, classes, _ = problem()
    for alpha in (0.0, 0.3, 2.0):
        for squared in (False, True):
            options = {"alpha": alpha, "squared": squared}
            assert 0 <= dice(scores, labels, **options) <= 1
            assert 0 <= dice(logits, classes, level="macro", **options) <= 1
            each = dice(scores, labels, level="example", **options)
            assert np.all((each >= 0) & (each <= 1))


@pytest.mark.parametrize("beta", [1.0, 0.5, 2.0])
def test_hard_predictions_without_smoothing_cost_one_minus_f1(beta, x64):
    scores, labels, logits, classes, _ = problem()
    hard = 500.0 * jnp.sign(scores)
    guess = np.asarray(scores > 0)
    weight = beta**2 / (1 + beta**2)
    found = tversky(hard, labels, fp_weight=1 - weight, fn_weight=weight, smooth=0.0)
    np.testing.assert_allclose(found, 1 - fbeta_score(labels, guess, beta=beta), rtol=1e-12)
    if beta == 1.0:
        for squared in (False, True):
            loss = dice(hard, labels, smooth=0.0, squared=squared)
            np.testing.assert_allclose(loss, 1 - f1_score(labels, guess), rtol=1e-12)
        macro = dice(500.0 * logits, classes, level="macro", smooth=0.0)
        best = np.argmax(logits, axis=-1)
        np.testing.assert_allclose(macro, 1 - f1_score(classes, best, average="macro"), rtol=1e-9)


def losses_and_slope(run, z):
    """The losses and the gradient of their sum, as one program."""

    @jax.jit
    def program(z):
        losses, pull = jax.vjp(run, z)
        return losses, pull(jnp.ones_like(losses))[0]

    return program(z)


def test_even_tversky_with_half_the_smoothing_is_dice(x64):
    scores, labels, logits, classes, where = problem()
    for z, y, level in (
        (scores, labels, "set"), (scores, labels, "example"), (logits, classes, "macro")
    ):  # fmt: skip
        plain = dice(z, y, level=level, smooth=0.8, squared=False, where=where)
        found = tversky(z, y, level=level, smooth=0.4, where=where)
        np.testing.assert_allclose(found, plain, rtol=1e-12, atol=1e-15)


def test_masked_examples_are_as_if_removed(x64):
    scores, labels, logits, classes, where = problem()
    scores, logits = (x.at[0].set(jnp.nan) for x in (scores, logits))
    where, kept = where.at[0].set(False), np.asarray(where.at[0].set(False))
    for z, y, level in (
        (scores, labels, "set"), (logits, classes, "macro"), (logits, classes, "set"),
        (logits, classes, "example"),
    ):  # fmt: skip
        for loss in (functools.partial(dice, alpha=0.3), tversky):
            run = functools.partial(loss, level=level)
            masked, gradient = losses_and_slope(functools.partial(run, labels=y, where=where), z)
            removed = run(z[kept], y[kept])
            if level == "example":
                assert np.all(masked[~kept] == 0)
                masked_kept = masked[kept]
            else:
                masked_kept = masked
            np.testing.assert_allclose(masked_kept, removed, rtol=1e-12)
            assert np.all(np.isfinite(gradient)) and not np.any(gradient[~kept])


def test_a_set_over_devices_needs_the_sums_of_all_of_them(x64):
    scores, labels, _, _, where = problem()
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    for loss in (dice, tversky):

        def local(z, y, w, loss=loss):
            return loss(z, y, where=w, axis_name="data")

        spread = jax.shard_map(local, mesh=mesh, in_specs=(P("data"),) * 3, out_specs=P())
        value, gradient = jax.jit(jax.value_and_grad(spread))(scores, labels, where)
        whole, slope = jax.jit(jax.value_and_grad(loss))(scores, labels, where=where)
        np.testing.assert_allclose(value, whole, rtol=1e-12)
        np.testing.assert_allclose(gradient, slope, atol=1e-14)
        parts = [
            loss(z, y) for z, y in zip(scores.reshape(8, -1), labels.reshape(8, -1), strict=True)
        ]
        assert abs(np.mean(parts) - loss(scores, labels)) > 1e-3  # what averaging would give


def test_a_perfect_prediction_costs_nothing_and_order_does_not_matter(x64):
    scores, labels, logits, classes, _ = problem()
    right = jnp.where(labels == 1, 500.0, -500.0)
    for squared in (False, True):
        np.testing.assert_allclose(dice(right, labels, squared=squared), 0.0, atol=1e-15)
    assert dice(right, labels, alpha=0.5) > 0.5  # (1 - p)^alpha is 0 there
    order = np.random.default_rng(1).permutation(EXAMPLES)
    np.testing.assert_allclose(dice(scores[order], labels[order]), dice(scores, labels))
    one_hot = 500.0 * jax.nn.one_hot(classes, CLASSES)
    np.testing.assert_allclose(dice(one_hot, classes, level="macro"), 0.0, atol=1e-15)
    assert dice(0 * logits[:0], classes[:0], smooth=0.0) == 0.0


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_saturated_scores_have_finite_gradients(dtype):
    scores = jnp.asarray([200.0, -200.0, 20.0, -20.0, 0.0]).astype(dtype)
    labels = jnp.asarray([1, 1, 0, 0, 1])
    logits = jnp.stack([scores, -scores, jnp.zeros_like(scores)], axis=-1)
    for alpha in (0.0, 0.01, 1.0):
        for z, level in ((scores, "set"), (scores, "example"), (logits, "example")):
            run = functools.partial(dice, labels=labels, alpha=alpha, level=level)
            losses, gradient = losses_and_slope(run, z)
            assert losses.dtype == jnp.float32 and gradient.dtype == dtype
            assert np.all(np.isfinite(losses)) and np.all(np.isfinite(gradient))


def test_hard_negatives_are_the_highest_ones_and_as_many_as_asked_for():
    rng = np.random.default_rng(0)
    scores = jnp.asarray(rng.normal(size=30).astype(np.float32))
    labels = jnp.asarray(np.arange(30) < 5, jnp.int32)
    for ratio, wanted in ((0.0, 0), (0.3, 1), (1.0, 5), (2.5, 12), (100.0, 25)):
        keep = np.asarray(hard_negative_mask(scores, labels, ratio=ratio))
        assert keep[:5].all() and keep[5:].sum() == wanted
        if 0 < wanted < 25:
            assert scores[5:][keep[5:]].min() > scores[5:][~keep[5:]].max()
    where = jnp.arange(30) >= 3
    keep = np.asarray(hard_negative_mask(scores, labels, ratio=1.0, where=where))
    assert not keep[:3].any() and keep.sum() == 4


def test_bad_arguments_are_named():
    scores, labels, logits, classes, _ = problem(np.float32)
    for call, error, message in (
        (lambda: dice(scores, classes[:3]), ValueError, "expected labels of shape"),
        (lambda: dice(scores, labels, level="macro"), ValueError, r"expected logits \[..., K\]"),
        (lambda: dice(scores, labels, level="batch"), ValueError, "expected level to be one of"),
        (lambda: dice(scores, labels, smooth=-1.0), ValueError, "smooth"),
        (lambda: tversky(scores, labels, fp_weight=-1.0), ValueError, "fp_weight"),
        (lambda: hard_negative_mask(logits, classes, ratio=1.0), ValueError, r"shape \(N,\)"),
    ):
        with pytest.raises(error, match=message):
            call()
    assert np.isnan(dice(scores, labels.at[0].set(2)))
    assert np.isnan(dice(logits, classes.at[0].set(-1), level="example"))[0]
