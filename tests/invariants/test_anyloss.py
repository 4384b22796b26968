# SPDX-License-Identifier: Apache-2.0
"""Invariants of AnyLoss (spec anyloss)."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P
from sklearn import metrics as sklearn

from xloss.classification import SoftConfusionMatrix, anyloss, soft_confusion_matrix
from xloss.classification.anyloss import METRICS

EXAMPLES, CLASSES = 24, 3


def problem(dtype=np.float64):
    rng = np.random.default_rng(0)
    scores = jnp.asarray((2.0 * rng.normal(size=EXAMPLES)).astype(dtype))
    logits = jnp.asarray((2.0 * rng.normal(size=(EXAMPLES, CLASSES))).astype(dtype))
    labels = jnp.asarray(rng.uniform(size=EXAMPLES) < 0.3, jnp.int32)
    classes = jnp.asarray(rng.integers(0, CLASSES, EXAMPLES), jnp.int32)
    return scores, labels, logits, classes, jnp.asarray(rng.uniform(size=EXAMPLES) > 0.3)


@functools.cache
def value_and_slope(metric):
    """The loss and its gradient, as one program."""
    return jax.jit(jax.value_and_grad(functools.partial(anyloss, metric=metric)))


def test_hard_decisions_cost_one_minus_the_metric(x64):
    scores, labels, logits, classes, _ = problem()
    y, guess = np.asarray(labels), np.asarray(scores > 0)
    tn, fp, fn, tp = sklearn.confusion_matrix(y, guess).ravel()
    wanted = {
        "accuracy": sklearn.accuracy_score(y, guess),
        "f_beta": sklearn.fbeta_score(y, guess, beta=2.0),
        "g_mean": np.sqrt(tp / (tp + fn) * tn / (tn + fp)),
        "balanced_accuracy": sklearn.balanced_accuracy_score(y, guess),
        "matthews": sklearn.matthews_corrcoef(y, guess),
        "precision": sklearn.precision_score(y, guess),
        "recall": sklearn.recall_score(y, guess),
        "specificity": tn / (tn + fp),
        "jaccard": sklearn.jaccard_score(y, guess),
    }
    assert set(wanted) == set(METRICS)
    for name, value in wanted.items():
        found = anyloss(500.0 * scores, labels, metric=name, beta=2.0, steepness=300.0)
        np.testing.assert_allclose(found, 1.0 - value, rtol=1e-12, err_msg=name)
    guess = np.argmax(logits, axis=-1)
    macro = anyloss(500.0 * logits, classes, steepness=300.0)
    np.testing.assert_allclose(
        macro, 1.0 - sklearn.f1_score(classes, guess, average="macro"), rtol=1e-9
    )


def test_counts_of_a_class_add_up_to_its_size(x64):
    scores, labels, _, _, where = problem()
    for steepness in (1.0, 73.0):
        matrix = soft_confusion_matrix(
            jax.nn.sigmoid(scores), labels, steepness=steepness, where=where
        )
        kept = np.asarray(labels)[np.asarray(where)]
        np.testing.assert_allclose(matrix.tp + matrix.fn, kept.sum(), rtol=1e-12)
        np.testing.assert_allclose(matrix.tn + matrix.fp, (1 - kept).sum(), rtol=1e-12)


def test_losses_are_between_0_and_1_and_matthews_between_0_and_2(x64):
    scores, labels, *_ = problem()
    for name in METRICS:
        for sign in (1.0, -1.0):
            loss = anyloss(sign * scores, labels, metric=name)
            assert 0 <= loss <= (2 if name == "matthews" else 1)


def test_swapping_the_classes_leaves_symmetric_metrics_unchanged(x64):
    scores, labels, *_ = problem()
    for name in ("accuracy", "balanced_accuracy", "g_mean", "matthews"):
        swapped = anyloss(-scores, 1 - labels, metric=name, steepness=10.0)
        np.testing.assert_allclose(
            swapped, anyloss(scores, labels, metric=name, steepness=10.0), rtol=1e-12
        )


def test_f_beta_runs_from_precision_to_recall(x64):
    scores, labels, *_ = problem()
    run = functools.partial(anyloss, scores, labels, steepness=10.0)
    np.testing.assert_allclose(run(beta=1e-6), run(metric="precision"), rtol=1e-9)
    np.testing.assert_allclose(run(beta=1e6), run(metric="recall"), rtol=1e-9)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_no_slope_rounds_to_zero_at_the_authors_steepness(dtype, x64):
    # In float64 theirs is 0 at p = 1 from steepness 74 on, in float32 from 34.
    for steepness in (33.0, 73.0, 74.0):
        slope = jax.grad(
            lambda p, steepness=steepness: (
                soft_confusion_matrix(p, jnp.zeros(1, jnp.int32), steepness=steepness).fp
            )
        )(jnp.ones(1, dtype))[0]
        assert slope.dtype == dtype
        half = np.exp(-0.5 * steepness)
        np.testing.assert_allclose(slope, steepness * half / (1 + half) ** 2, rtol=1e-5)
    # And through the score: p (1 - p) of a score of 30 is not 0 in float32 either.
    slope = jax.grad(anyloss)(jnp.asarray([30.0, 1.0], dtype), jnp.asarray([0, 1]), steepness=1.0)
    assert slope[0] > 0 and np.all(np.isfinite(slope))


def test_a_batch_twice_costs_the_same_and_masked_examples_are_as_if_removed(x64):
    scores, labels, logits, classes, where = problem()
    where, kept = where.at[0].set(False), np.asarray(where.at[0].set(False))
    for z, y in ((scores, labels), (logits, classes)):
        z = z.at[0].set(jnp.nan)
        for name in ("f_beta", "matthews"):
            run = functools.partial(anyloss, metric=name, steepness=10.0)
            removed = run(z[kept], y[kept])
            masked, gradient = value_and_slope(name)(z, y, where=where, steepness=10.0)
            np.testing.assert_allclose(masked, removed, rtol=1e-12)
            assert np.all(np.isfinite(gradient)) and not np.any(gradient[~kept])
        twice = run(jnp.concatenate([z[kept]] * 2), jnp.concatenate([y[kept]] * 2))
        np.testing.assert_allclose(twice, run(z[kept], y[kept]), rtol=1e-12)


def test_a_set_over_devices_needs_the_counts_of_all_of_them(x64):
    scores, labels, _, _, where = problem()
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))

    def local(z, y, w):
        return anyloss(z, y, metric="g_mean", where=w, axis_name="data", steepness=10.0)

    spread = jax.shard_map(local, mesh=mesh, in_specs=(P("data"),) * 3, out_specs=P())
    value, gradient = jax.jit(jax.value_and_grad(spread))(scores, labels, where)
    whole, slope = value_and_slope("g_mean")(scores, labels, where=where, steepness=10.0)
    np.testing.assert_allclose(value, whole, rtol=1e-12)
    np.testing.assert_allclose(gradient, slope, atol=1e-14)


def test_an_empty_class_costs_nothing_and_has_a_finite_gradient(x64):
    scores = problem()[0]
    nobody = jnp.zeros(EXAMPLES, jnp.int32)
    for labels, rate in ((nobody, "recall"), (1 - nobody, "specificity")):
        assert anyloss(scores, labels, metric=rate) == 0.0
        for name in METRICS:
            loss, gradient = value_and_slope(name)(scores, labels)
            assert np.isfinite(loss) and np.all(np.isfinite(gradient)), name
    assert anyloss(scores, nobody, metric="f_beta") == 1.0
    for name in METRICS:  # nothing at all
        assert 0.0 <= anyloss(scores[:0], nobody[:0], metric=name) <= 1.0
    # All positives wrong and saturated: the root of G-mean is finite.
    wrong = jnp.where(nobody == 0, -800.0, 0.0)
    _, gradient = value_and_slope("g_mean")(wrong, (jnp.arange(EXAMPLES) < 3).astype(jnp.int32))
    assert np.all(np.isfinite(gradient))


def test_metrics_of_ones_own_and_bfloat16(x64):
    scores, labels, logits, classes, _ = problem(np.float32)

    def own(m: SoftConfusionMatrix):
        return (m.tp + m.tn) / (m.tp + m.tn + m.fp + m.fn)

    for z, y in ((scores, labels), (logits, classes)):
        named = anyloss(z, y, metric="accuracy")
        np.testing.assert_allclose(anyloss(z, y, metric=own), named, rtol=1e-6)
    low = anyloss(scores.astype(jnp.bfloat16), labels)
    assert low.dtype == jnp.float32
    assert low == anyloss(scores.astype(jnp.bfloat16).astype(jnp.float32), labels)


def test_bad_arguments_are_named():
    scores, labels, _, classes, _ = problem(np.float32)
    for call, error, message in (
        (lambda: anyloss(scores, classes[:3]), ValueError, "expected labels of shape"),
        (lambda: anyloss(scores, labels, metric="f1"), ValueError, "expected metric to be one of"),
        (lambda: anyloss(scores, labels, metric=3), TypeError, "expected metric a name or"),
        (lambda: anyloss(scores, labels, metric=jnp.stack), ValueError, r"metric to return shape"),
        (lambda: anyloss(scores, labels, steepness=0.0), ValueError, "steepness"),
        (lambda: anyloss(scores, labels, beta=-1.0), ValueError, "beta"),
        (lambda: soft_confusion_matrix(scores, classes[:3]), ValueError, "labels"),
    ):
        with pytest.raises(error, match=message):
            call()
    assert np.isnan(anyloss(scores, labels.at[0].set(2)))
