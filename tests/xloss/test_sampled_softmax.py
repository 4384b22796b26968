# SPDX-License-Identifier: Apache-2.0
"""Sampled softmax: its definition on the classes it drew, and cross-entropy as the sample grows."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import xloss
from xloss.classification import cross_entropy
from xloss.heads import sampled_softmax

TOKENS, WIDTH, CLASSES = 6, 4, 40


def problem(dtype=np.float64):
    rng = np.random.default_rng(0)
    h, w, b = (
        jnp.asarray(rng.normal(size=s).astype(dtype))
        for s in ((TOKENS, WIDTH), (WIDTH, CLASSES), (CLASSES,))
    )
    return h, w, b, jnp.asarray(rng.integers(0, CLASSES, TOKENS), jnp.int32)


PROPOSALS = {
    "log_uniform": np.diff(np.log(np.arange(1, CLASSES + 2))) / np.log(CLASSES + 1),
    "uniform": np.full(CLASSES, 1 / CLASSES),
    "weights": np.linspace(1.0, 5.0, CLASSES) / np.sum(np.linspace(1.0, 5.0, CLASSES)),
}


def given(name):
    return 3.0 * jnp.asarray(PROPOSALS[name]) if name == "weights" else name


@pytest.mark.parametrize("name", PROPOSALS)
def test_value_and_gradient_tend_to_those_of_cross_entropy(name, x64):
    h, w, b, labels = problem()

    @functools.partial(jax.jit, static_argnames="count")
    def estimate(keys, count):
        def mean(h, w, b, key):
            return jnp.mean(sampled_softmax(
                key, h, w, labels, num_samples=count, proposal=given(name), bias=b))  # fmt: skip

        each = jax.vmap(lambda key: jax.value_and_grad(mean, argnums=(0, 1, 2))(h, w, b, key))(keys)
        return jax.tree.map(lambda x: jnp.mean(x, axis=0), each)

    def exact(h, w, b):
        return jnp.mean(cross_entropy(h @ w + b[None], labels))

    value, gradient = jax.value_and_grad(exact, argnums=(0, 1, 2))(h, w, b)
    errors = []
    for count in (50, 2000):
        found, slopes = estimate(jax.random.split(jax.random.key(1), 400), count)
        assert found < value  # Jensen, on the average
        gap = [jnp.linalg.norm(x - y) for x, y in zip(slopes, gradient, strict=True)]
        errors.append([abs(found - value), *gap])
    few, many = np.asarray(errors)
    assert np.all(many < few / 8) and np.all(many < 0.02)  # the bias falls as 1 / n


def test_it_is_its_definition_on_the_classes_it_drew_and_touches_no_others(x64):
    h, w, b, labels = problem()
    count = 7
    for key in jax.random.split(jax.random.key(3), 3):
        # The columns that get a gradient tell what was drawn.
        losses, pull = jax.vjp(
            lambda w, b, key=key: sampled_softmax(key, h, w, labels, num_samples=count, bias=b),
            w,
            b,
        )
        into_kernel, into_bias = pull(jnp.ones_like(losses))
        scale = np.log(CLASSES + 1)
        u = np.asarray(jax.random.uniform(key, (count,), jnp.float64))
        drawn = np.floor(np.expm1(u * scale)).astype(int)
        touched = np.flatnonzero(np.abs(into_bias) > 0)
        assert set(touched) <= set(drawn) | set(np.asarray(labels))
        np.testing.assert_array_equal(
            np.any(np.asarray(into_kernel) != 0, axis=0).nonzero()[0], touched
        )
        z = np.asarray(h @ w) + np.asarray(b)
        for i, y in enumerate(np.asarray(labels)):
            rest = sum(
                np.exp(z[i, s]) / (count * PROPOSALS["log_uniform"][s]) for s in drawn if s != y
            )
            expected = np.log(np.exp(z[i, y]) + rest) - z[i, y]
            np.testing.assert_allclose(losses[i], expected, rtol=1e-12)


def test_log_uniform_draws_follow_their_law():
    # With a zero kernel and a label that is never drawn the loss is a function of the sum alone.
    from xloss.heads.sampled import _draw

    drawn, log_mean = jax.jit(_draw, static_argnums=(1, 2, 3, 5))(
        jax.random.key(0), 200_000, CLASSES, "log_uniform", None, jnp.float32
    )
    counts = np.bincount(np.asarray(drawn), minlength=CLASSES)
    expected = 200_000 * PROPOSALS["log_uniform"]
    assert np.max(np.abs(counts - expected) / np.sqrt(expected)) < 4.5
    np.testing.assert_allclose(np.exp(log_mean), expected[np.asarray(drawn)], rtol=1e-5)


def test_masks_labels_and_a_sample_of_nothing_but_the_label():
    h, w, _, labels = problem(np.float32)
    labels = labels.at[0].set(-1).at[1].set(CLASSES)
    where = jnp.arange(TOKENS) != 2
    h = h.at[2].set(jnp.nan)

    def losses(h, w):
        return sampled_softmax(jax.random.key(0), h, w, labels, num_samples=9, where=where)

    found, pull = jax.vjp(losses, h, w)
    np.testing.assert_array_equal(np.isnan(found), [True, True, False, False, False, False])
    assert found[2] == 0 and np.all(found[3:] > 0)
    gradient = pull(jnp.where(jnp.isnan(found), 0.0, 1.0))
    assert all(np.all(np.isfinite(x)) for x in gradient)
    np.testing.assert_array_equal(gradient[0][2], 0.0)

    one = functools.partial(sampled_softmax, jax.random.key(0), num_samples=3)
    zero = jnp.zeros(1, jnp.int32)
    value, slope = jax.value_and_grad(lambda h: one(h, jnp.ones((2, 1)), zero)[0])(jnp.ones((1, 2)))
    assert value == 0 and np.all(slope == 0)
    # Scores that overflow exp.
    far = one(1e4 * jnp.ones((1, 2)), jnp.stack([jnp.arange(5.0)] * 2), zero)
    assert np.isfinite(far[0])


def test_low_precision_leading_axes_and_seeds():
    h, w, b, labels = problem(np.float32)
    key = jax.random.key(2)
    run = functools.partial(sampled_softmax, num_samples=16)
    exact = run(key, h, w, labels, bias=b)
    low = run(key, h.astype(jnp.bfloat16), w.astype(jnp.bfloat16), labels, bias=b)
    assert low.dtype == exact.dtype == jnp.float32
    np.testing.assert_allclose(low, exact, atol=0.05)
    folded = run(key, h.reshape(2, 3, WIDTH), w, labels.reshape(2, 3), bias=b)
    np.testing.assert_allclose(folded.reshape(-1), exact, rtol=1e-6)
    assert not np.allclose(run(jax.random.key(5), h, w, labels, bias=b), exact)


def test_bad_arguments_are_named():
    h, w, _, labels = problem(np.float32)
    key = jax.random.key(0)
    for changes, error, message in (
        ({"num_samples": 0}, ValueError, "expected num_samples to be an int >= 1, got 0"),
        ({"num_samples": 2.0}, ValueError, "expected num_samples to be an int >= 1"),
        ({"proposal": "zipf"}, ValueError, "expected proposal to be one of"),
        ({"proposal": jnp.ones(3)}, ValueError, r"expected proposal of shape \(40,\), got \(3,\)"),
        ({"labels": labels[:2]}, ValueError, "expected labels of shape"),
        ({"where": jnp.ones(TOKENS)}, TypeError, "expected where of dtype bool"),
    ):
        arguments = {"labels": labels, "num_samples": 4} | changes
        with pytest.raises(error, match=message):
            sampled_softmax(key, h, w, **arguments)
    assert xloss.heads.sampled_softmax is sampled_softmax
