# SPDX-License-Identifier: Apache-2.0
"""Model soups: learned mixtures, and how far a soup is from the ensemble, one named test each."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.invariants.soup_models import (
    BASE,
    RNG,
    X,
    Y,
    assert_same,
    logits_of,
    models,
    network,
    stacked,
)
from xloss import classification
from xloss.optim import (
    greedy_soup,
    interpolate,
    learned_soup,
    mixed_soup,
    soup_ensemble_gap,
    uniform_soup,
)

# 4: soup and ensemble


def test_4_a_linear_models_soup_is_its_logit_ensemble(x64):
    start, end = jnp.asarray(RNG.normal(size=(2, 3, 4)))
    for alpha in (0.0, 0.25, 0.5, 1.0):
        for beta in (0.3, 1.0, 2.5):
            gap = soup_ensemble_gap(
                lambda w: jnp.asarray(X) @ w, start, end, Y, alpha=alpha, beta=beta
            )
            np.testing.assert_allclose(gap.actual, 0, atol=1e-14)
            np.testing.assert_allclose(gap.second_derivative, beta**2 * gap.variance, rtol=1e-12)
            np.testing.assert_allclose(gap.approximation, 0, atol=1e-14)
            assert gap.variance > 0.01


def test_4_the_approximation_is_of_second_order(x64):
    start, far = models(2, dtype=jnp.float64)

    @functools.partial(jax.jit, static_argnames="alpha")
    def error(distance, alpha, beta):
        end = interpolate(start, far, distance)
        gap = soup_ensemble_gap(logits_of, start, end, Y, alpha=alpha, beta=beta)
        return (gap.approximation - gap.actual) / distance**2

    for beta in (0.5, 1.0, 3.0):
        # The third-order term vanishes at 1/2 only: there halving the distance quarters the error.
        halves, quarters = ([error(d, alpha, beta) for d in (0.02, 0.01)] for alpha in (0.5, 0.25))
        np.testing.assert_allclose(halves[0] / halves[1], 4, rtol=0.2)
        np.testing.assert_allclose(quarters[0] / quarters[1], 2, rtol=0.2)


def test_4_derivative_and_variance_by_other_means(x64):
    start, end = models(2, dtype=jnp.float64)
    beta, alpha = 1.7, 0.3

    def soup_loss(a):
        logits = logits_of(jax.tree.map(lambda x, y: (1 - a) * x + a * y, start, end))
        return jnp.mean(classification.cross_entropy(beta * logits, Y))

    gap = jax.jit(lambda: soup_ensemble_gap(logits_of, start, end, Y, alpha=alpha, beta=beta))()
    np.testing.assert_allclose(gap.soup_loss, jax.jit(soup_loss)(alpha), rtol=1e-12)
    second = jax.jit(jax.grad(jax.grad(soup_loss)))(alpha)
    np.testing.assert_allclose(gap.second_derivative, second, rtol=1e-9)
    p = np.asarray(jax.nn.softmax(beta * logits_of(interpolate(start, end, alpha))))
    values = np.asarray(logits_of(end) - logits_of(start))
    variance = [np.cov(v, aweights=w, ddof=0) for v, w in zip(values, p)]
    np.testing.assert_allclose(gap.variance, np.mean(variance), rtol=1e-10)


def test_4_gap_at_the_ends_under_jit_vmap_and_for_labels_that_are_none():
    start, end = models(2)
    gap = jax.jit(lambda a, y: soup_ensemble_gap(logits_of, start, end, y, alpha=a))
    alphas = jnp.array([0.0, 0.25, 1.0])
    table = jax.jit(jax.vmap(gap, (0, None)))(alphas, jnp.asarray(Y))
    for i, alpha in enumerate(alphas):
        for found, wanted in zip(table, gap(alpha, Y)):
            np.testing.assert_allclose(found[i], wanted, rtol=1e-4, atol=1e-6)
    for end_point in (0, 2):
        assert float(table.approximation[end_point]) == 0.0
        np.testing.assert_allclose(table.actual[end_point], 0, atol=1e-6)
    assert np.isnan(gap(0.5, np.full(40, 4)).soup_loss)


def test_4_masked_examples_take_no_part_and_bfloat16_is_widened():
    start, end = models(2, dtype=jnp.bfloat16)
    x, where = jnp.asarray(X, jnp.float32), np.arange(40) % 3 > 0
    spoilt = jnp.where(where[:, None], x, jnp.nan)

    @jax.jit
    def masked(p, q):
        return soup_ensemble_gap(lambda p: network(p, spoilt), p, q, Y, where=where)

    @jax.jit
    def subset(p, q):
        return soup_ensemble_gap(lambda p: network(p, x[where]), p, q, Y[where])

    for found, wanted in zip(masked(start, end), subset(start, end)):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
    wide = [jax.tree.map(lambda x: x.astype(jnp.float32), p) for p in (start, end)]
    assert subset(*wide) == subset(start, end)


def test_4_gap_of_extreme_and_of_equal_models_is_finite():
    gap = jax.jit(lambda w, v: soup_ensemble_gap(lambda w: w[None, :], w, v, jnp.array([2])))
    ends = jnp.array([[1e4, 0.0, 0.0], [0.0, 1e4, 0.0]])
    far, same = gap(*ends), gap(ends[0], ends[0])
    assert all(np.isfinite(x) for x in far)
    assert float(same.actual) == float(same.variance) == float(same.approximation) == 0.0


# 5: the learned soup


@pytest.mark.parametrize("off", [-np.inf, -1e4])
def test_5_learned_with_one_hot_weights_is_that_model(off):
    trees = models(4)
    stack = stacked(trees)
    for i, tree in enumerate(trees):
        row = jnp.full(4, off).at[i].set(0.0)
        assert_same(mixed_soup(stack, row), tree)
        each = {name: jnp.roll(row, j) for j, name in enumerate(stack)}
        wanted = {name: trees[(i + j) % 4][name] for j, name in enumerate(stack)}
        assert_same(mixed_soup(stack, each), wanted)
    x = jnp.asarray(X, jnp.float32)
    logits = jax.jit(learned_soup, static_argnums=3)(stack, row, 2.0, network, x)
    np.testing.assert_allclose(logits, 2.0 * network(trees[-1], x), rtol=1e-5, atol=1e-5)


def test_5_learned_with_equal_weights_is_the_uniform_soup():
    trees = models(5)
    for alpha in (jnp.zeros(5), {name: jnp.full(5, 7.0) for name in BASE}):
        mixed = mixed_soup(stacked(trees), alpha)
        wanted = uniform_soup(trees)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), mixed, wanted)


def test_5_learning_lowers_the_loss_and_keeps_rows_on_the_simplex():
    stack = stacked(models(4))
    x = jnp.asarray(X, jnp.float32)

    def loss(raw):
        logits = learned_soup(stack, raw["alpha"], raw["beta"], network, x)
        return jnp.mean(classification.cross_entropy(logits, Y))

    raw = {"alpha": {name: jnp.zeros(4) for name in BASE}, "beta": jnp.float32(1)}
    descent, losses = jax.jit(jax.value_and_grad(loss)), []
    for _ in range(30):
        value, slope = descent(raw)
        losses.append(float(value))
        raw = jax.tree.map(lambda w, g: w - 0.5 * g, raw, slope)
        for row in slope["alpha"].values():
            np.testing.assert_allclose(jnp.sum(row), 0, atol=1e-6)  # a constant changes nothing
    assert losses[-1] < losses[0] - 0.05


def test_5_bfloat16_stacks_are_summed_in_float32():
    stack = {"w": jnp.ones([512, 3], jnp.bfloat16), "steps": jnp.arange(512)}
    mixed = mixed_soup(stack, jnp.zeros(512))
    assert mixed["w"].dtype == jnp.bfloat16 and mixed["steps"] == 0
    assert_same(mixed["w"], jnp.ones(3, jnp.bfloat16))


# Mistakes

TREE = {"w": jnp.zeros(2)}


@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (lambda: mixed_soup(TREE, jnp.zeros(3)), ValueError, r"expected alpha of shape \(2,\)"),
        (lambda: mixed_soup(TREE, jnp.zeros(2, int)), TypeError, "expected alpha of a float dtype"),
        (lambda: mixed_soup(TREE, {"v": jnp.zeros(2)}), ValueError, "alpha to be a prefix"),
        (lambda: mixed_soup({"w": jnp.float32(1)}, jnp.zeros(2)), ValueError, "got a scalar"),
        (lambda: mixed_soup({"v": jnp.ones(3)} | TREE, jnp.zeros(2)), ValueError,
         r"stacks of one length k, got lengths \[2, 3\]"),
        (lambda: learned_soup(TREE, jnp.zeros(2), 1.0, 3), TypeError, "expected apply_fn to be a"),
        (lambda: learned_soup(TREE, jnp.zeros(2), 1.0, lambda p: 1), TypeError,
         r"learned_soup: expected apply_fn\(params\) of a float dtype"),
        (lambda: learned_soup(TREE, jnp.zeros(2), jnp.ones(2), network), ValueError,
         "expected beta to be a scalar"),
        (lambda: soup_ensemble_gap(lambda p: p["w"], TREE, TREE, jnp.int32(0), alpha=1.5),
         ValueError, r"expected alpha in \[0, 1\], got 1.5"),
        (lambda: soup_ensemble_gap(lambda p: p["w"], TREE, TREE, jnp.int32(0), beta=0.0),
         ValueError, r"expected beta in \(0, inf\), got 0"),
        (lambda: soup_ensemble_gap(lambda p: p["w"], TREE, TREE, jnp.zeros(3, int)),
         ValueError, r"expected logits_fn\(params\) of shape \(3,\) \+ \(K,\), got \(2,\)"),
        (lambda: soup_ensemble_gap(lambda p: p["w"], TREE, {"w": jnp.zeros(3)}, jnp.int32(0)),
         ValueError, "to be like the first's"),
    ],
)  # fmt: skip
def test_mistakes_speak_in_the_house_form(make, error, says):
    with pytest.raises(error, match=says):
        make()


def test_weights_whose_sum_overflows():
    trees = [jnp.array(1.0), jnp.array(3.0)]
    assert float(uniform_soup(trees, weights=jnp.array([3e38, 3e38]))) == 2.0
    assert float(uniform_soup(trees, weights=[1e308, 1e308])) == 2.0


def test_a_model_without_a_metric_comes_after_one_of_minus_infinity():
    metrics = {0.0: -jnp.inf, 1.0: jnp.nan}
    soup = greedy_soup([jnp.array(0.0), jnp.array(1.0)], lambda w: metrics.get(float(w), jnp.nan))
    assert soup.ingredients == (0,) and float(soup.params) == 0.0
