# SPDX-License-Identifier: Apache-2.0
"""Model soups: what averaging promises, one named test each."""

import csv
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from tests.invariants.soup_models import BASE, RNG, accuracy, assert_same, models, stacked
from xloss.optim import greedy_soup, interpolate, mixed_soup, uniform_soup

# 1 and 7: the greedy soup


@pytest.mark.parametrize("strict", [True, False])
def test_1_greedy_is_at_least_as_good_as_the_best_single_model(strict):
    for size in range(2, 10):
        trees = models(size)
        soup = greedy_soup(trees, accuracy, strict=strict)
        singles = [float(accuracy(tree)) for tree in trees]
        assert float(accuracy(soup.params)) >= max(singles)
        # The soup is the uniform one of its ingredients, and the history says how it came to be.
        mean = uniform_soup([trees[i] for i in soup.ingredients])
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), soup.params, mean)
        assert soup.ingredients == tuple(t.index for t in soup.history if t.accepted)
        assert [t.single for t in soup.history] == sorted(singles, reverse=True)
        assert all(t.single == singles[t.index] for t in soup.history)
        accepted = [t.candidate for t in soup.history if t.accepted]
        assert accepted == sorted(accepted) and accepted[-1] == float(accuracy(soup.params))
        if strict:
            assert len(set(accepted)) == len(accepted)


def test_1_ties_are_tried_in_descending_index_and_accepted_unless_strict():
    trees = [jnp.float32(x) for x in (1, 2, 3, 4)]
    constant = greedy_soup(trees, lambda w: 0.5)
    assert [t.index for t in constant.history] == [3, 2, 1, 0]
    assert constant.ingredients == (3,) and float(constant.params) == 4.0
    everything = greedy_soup(trees, lambda w: 0.5, strict=False)
    assert everything.ingredients == (3, 2, 1, 0) and float(everything.params) == 2.5


def test_1_a_model_that_diverged_comes_last_and_stays_out():
    trees = [jnp.float32(x) for x in (np.nan, -1.0, 2.0)]
    soup = greedy_soup(trees, lambda w: -jnp.abs(w))
    assert [t.index for t in soup.history] == [1, 2, 0]
    assert soup.ingredients == (1, 2) and float(soup.params) == 0.5
    assert np.isnan(soup.history[-1].single) and np.isnan(soup.history[-1].candidate)
    with pytest.raises(ValueError, match="expected a metric for one tree at least, got NaN"):
        greedy_soup(trees, lambda w: np.nan)


@pytest.mark.parametrize("size", [1, 2, 7])
def test_7_evaluate_is_called_2k_minus_1_times(size):
    calls, loads = [], []

    def evaluate(params):
        calls.append(params)
        return accuracy(params)

    def loader(tree):
        return lambda: loads.append(1) or tree

    greedy_soup([loader(tree) for tree in models(size)], evaluate)
    assert len(calls) == 2 * size - 1
    assert len(loads) == 2 * size


# 2, 3, 6: means


def test_2_the_soup_of_identical_ingredients_is_the_ingredient():
    for dtype in (jnp.float32, jnp.bfloat16):
        (tree,) = models(1, dtype=dtype)
        for soup in (
            uniform_soup([tree] * 7),
            uniform_soup([tree] * 3, weights=[0.2, 0.3, 0.7]),
            uniform_soup([tree] * 3, weights=jnp.array([0.2, 0.3, 0.7])),
            greedy_soup([tree] * 3, accuracy, strict=False).params,
            interpolate(tree, tree, 0.3),
        ):
            assert_same(soup, tree)
            assert jax.tree.map(lambda x: x.dtype, soup) == jax.tree.map(lambda x: x.dtype, tree)


def test_3_the_order_of_the_uniform_mean_is_irrelevant():
    trees = models(9)
    weights = np.linspace(0.0, 2.0, 9)
    orders = [np.arange(9), np.arange(9)[::-1], RNG.permutation(9)]
    for share in (np.ones(9), weights):
        exact = {n: np.average([np.asarray(t[n], np.float64) for t in trees], axis=0, weights=share)
                 for n in BASE}  # fmt: skip
        for order in orders:
            soup = uniform_soup([trees[i] for i in order], weights=share[order])
            jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), soup, exact)
    assert_same(uniform_soup(trees), uniform_soup(trees, weights=[3] * 9))


def test_3_the_mean_of_bfloat16_models_does_not_drift():
    trees = [jnp.bfloat16(1.0)] * 130 + [jnp.bfloat16(1.5)] * 130
    soup = uniform_soup(trees)
    assert soup.dtype == jnp.bfloat16 and float(soup) == 1.25
    # A mean kept in bfloat16 stops at 1: what the 131st model adds is below half its spacing.
    assert jnp.bfloat16(1) + jnp.bfloat16(0.5 / 131) == 1


def test_3_weights_of_zero_leave_a_model_unread_and_huge_ones_do_not_overflow():
    def never():
        raise AssertionError

    soup = uniform_soup(
        [never, jnp.float32(1), never, jnp.float32(4)], weights=[0, 1.2e308, 0, 0.6e308]
    )
    assert float(soup) == 2.0
    with jax.enable_x64(True):
        assert float(uniform_soup([jnp.array(1.0), jnp.array(4.0)], weights=[2, 1])) == 2.0

    def traced(w):
        return uniform_soup([jnp.float32(5), jnp.float32(1), jnp.float32(4)], weights=w)

    weights = jnp.array([0.0, 2.0, 1.0])
    assert float(jax.jit(traced)(weights)) == 2.0
    np.testing.assert_allclose(
        jax.grad(traced)(jnp.array([1.0, 2.0, 1.0])), [0.5625, -0.4375, 0.3125]
    )


@pytest.mark.parametrize("strict", [True, False])
def test_6_one_model_is_its_own_soup(strict):
    (tree,) = models(1)
    assert_same(uniform_soup([tree]), tree)
    assert_same(uniform_soup([lambda: tree], weights=[0.1]), tree)
    soup = greedy_soup([tree], accuracy, strict=strict)
    assert_same(soup.params, tree)
    assert soup.ingredients == (0,)
    metric = float(accuracy(tree))
    assert soup.history == ((0, metric, metric, True),)
    assert_same(mixed_soup(stacked([tree]), jnp.array([-3.0])), tree)


# Trees


def test_leaves_that_are_no_floats_are_the_firsts():
    def tree(i):
        return {
            "w": jnp.float32(i),
            "step": jnp.int32(10 * i),
            "flag": jnp.array(i == 1),
            "key": jax.random.key(i),
            "rate": float(i),
            "name": f"run {i}",
            "phase": jnp.complex64(1j * i),
            "none": None,
        }

    soup = uniform_soup([tree(1), tree(2), tree(6)])
    assert float(soup["w"]) == float(soup["rate"]) == 3.0 and soup["phase"] == 3j
    assert soup["step"] == 10 and soup["flag"] and soup["name"] == "run 1" and soup["none"] is None
    assert_same(jax.random.key_data(soup["key"]), jax.random.key_data(jax.random.key(1)))
    best = greedy_soup([tree(1), tree(2)], lambda t: t["w"])
    assert best.params["step"] == 20


def test_a_module_that_can_be_called_is_a_tree_and_not_a_loader():
    @jax.tree_util.register_pytree_node_class
    class Module:
        def __init__(self, w):
            self.w = w

        def __call__(self, x):
            return self.w * x

        def tree_flatten(self):
            return (self.w,), None

        @classmethod
        def tree_unflatten(cls, _, leaves):
            return cls(*leaves)

    trees = [Module(jnp.float32(1)), Module(jnp.float32(2))]
    assert float(uniform_soup(trees)(2.0)) == 3.0
    assert float(greedy_soup(trees, lambda m: m(1.0)).params.w) == 2.0


def alive(shape):
    return sum(x.shape == shape for x in jax.live_arrays())


@pytest.mark.parametrize("strict", [True, False])
def test_with_loaders_two_trees_are_alive_at_most(strict):
    leaves, shape, most = 5, (17, 3), []
    assert alive(shape) == 0

    def loader(i):
        def load():
            tree = {n: jnp.full(shape, i + n, jnp.float32) for n in range(leaves)}
            most.append(alive(shape))
            return tree

        return load

    def evaluate(tree):
        most.append(alive(shape))
        return -jnp.abs(tree[0][0, 0] - 2.4)

    loaders = [loader(i) for i in range(5)]
    soup = greedy_soup(loaders, evaluate, strict=strict)
    assert len(soup.ingredients) > 1
    del soup
    assert max(most) == 2 * leaves
    most.clear()
    uniform_soup(loaders, weights=[1, 2, 3, 4, 5])
    assert max(most) == 2 * leaves and alive(shape) == 0


def test_sharded_trees_keep_their_sharding_and_inputs_stay_usable():
    mesh = jax.make_mesh((8,), ("model",), axis_types=(AxisType.Auto,))
    sharding = NamedSharding(mesh, P("model", None))
    trees = [jax.device_put(jnp.full([16, 2], float(i)), sharding) for i in range(3)]
    for soup in (
        uniform_soup(trees),
        greedy_soup(trees, jnp.max).params,
        interpolate(*trees[:2], 1),
    ):
        assert soup.sharding.is_equivalent_to(sharding, 2)
    assert [float(tree[0, 0]) for tree in trees] == [0.0, 1.0, 2.0]


def test_interpolation_is_exact_at_both_ends_and_differentiable():
    a, b = models(2)
    assert_same(interpolate(a, b, 0), a)
    assert_same(interpolate(a, b, 1.0), b)
    jax.tree.map(
        lambda x, y, z: np.testing.assert_allclose(x, 2 * np.asarray(z) - y, atol=1e-5),
        interpolate(a, b, 2.0), a, b,
    )  # fmt: skip
    slopes = jax.vmap(jax.grad(lambda t: interpolate(1.0, 4.0, t)))(jnp.array([0.0, 0.5, 1.0, 2.0]))
    assert slopes.tolist() == [3.0] * 4
    sensitivity = jax.grad(lambda x, y: interpolate(x, y, 0.75), (0, 1))(1.0, 4.0)
    assert [float(s) for s in sensitivity] == [0.25, 0.75]
    under_jit = jax.jit(interpolate)(a, b, jnp.float32(0.3))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-6),
                 under_jit, interpolate(a, b, 0.3))  # fmt: skip


# What the authors released


def test_released_results_agree_with_the_rule():
    lines = (Path(__file__).parent / "model_soups_released.csv").read_text().splitlines()
    rows = list(csv.DictReader(line for line in lines if not line.startswith("#")))
    *singles, greedy, uniform = ({k: float(v) for k, v in r.items() if k != "model"} for r in rows)
    assert [row["model"] for row in rows[72:]] == ["greedy_soup", "uniform_soup"]
    held_out = np.array([single["held_out"] for single in singles])

    # A model is told by the place of its 1; no average of two is as good as any single one.
    def evaluate(tree):
        place = int(np.argmax(tree))
        return held_out[place] if tree[place] == 1.0 else 0.0

    soup = greedy_soup(list(np.eye(72, dtype=np.float32)), evaluate)
    order = [trial.index for trial in soup.history]
    assert order == np.argsort(held_out, kind="stable")[::-1].tolist()
    best = singles[soup.ingredients[0]]
    assert soup.ingredients == (order[0],)
    assert [round(100 * row["imagenet"], 2) for row in (best, uniform, greedy)] == [
        80.39, 79.97, 81.03]  # fmt: skip
    assert [round(100 * row["shifts"], 1) for row in (best, uniform, greedy)] == [48.0, 51.6, 50.9]
    assert greedy["held_out"] >= best["held_out"] == held_out.max()


# Mistakes

TREE = {"w": jnp.zeros(2)}


@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (lambda: uniform_soup([]), ValueError, "uniform_soup: expected one tree at least"),
        (lambda: uniform_soup(TREE), TypeError, "expected trees to be a sequence of trees.*dict"),
        (lambda: uniform_soup(iter([TREE])), TypeError, "expected trees to be a sequence of trees"),
        (lambda: uniform_soup([TREE, {"v": jnp.zeros(2)}]), ValueError,
         r"expected trees\[1\] in the structure of the first"),
        (lambda: uniform_soup([TREE, {"w": jnp.zeros(1)}]), ValueError,
         r"expected leaf 0 of trees\[1\] to be like the first's, float32\[2\], got float32\[1\]"),
        (lambda: uniform_soup([TREE, {"w": jnp.zeros(2, int)}]), ValueError, "got int32"),
        (lambda: uniform_soup([{"w": jnp.zeros(2, int)}, TREE]), ValueError, "got float32"),
        (lambda: uniform_soup([TREE], weights=[1, 2]), ValueError, r"of shape \(1,\), got \(2,\)"),
        (lambda: uniform_soup([TREE], weights=[-1]), ValueError, "finite and >= 0, not all 0"),
        (lambda: uniform_soup([TREE], weights=[0.0]), ValueError, "finite and >= 0, not all 0"),
        (lambda: uniform_soup([TREE], weights=[np.nan]), ValueError, "finite and >= 0, not all 0"),
        (lambda: uniform_soup([TREE], weights=["1"]), TypeError, "weights to be real numbers"),
        (lambda: uniform_soup([TREE], weights=jnp.ones(2)), ValueError, r"of shape \(1,\)"),
        (lambda: interpolate(TREE, {}, 0.5), ValueError, "expected b in the structure"),
        (lambda: interpolate(TREE, TREE, jnp.ones(2)), ValueError, "expected alpha to be a scalar"),
        (lambda: interpolate(TREE, TREE, "1"), TypeError, "expected alpha to be a number"),
        (lambda: greedy_soup((), accuracy), ValueError, "greedy_soup: expected one tree at least"),
        (lambda: greedy_soup([TREE], 0.5), TypeError, "expected evaluate to be a function"),
        (lambda: greedy_soup([TREE], lambda t: t["w"]), ValueError, r"a scalar, got .* \(2,\)"),
        (lambda: greedy_soup([TREE], lambda t: None), TypeError, "return a number, got None"),
        (lambda: greedy_soup([TREE, {"w": jnp.zeros(3)}], lambda t: jnp.size(t["w"])), ValueError,
         r"greedy_soup: expected leaf 0 of trees\[0\] to be like the first's"),
    ],
)  # fmt: skip
def test_mistakes_speak_in_the_house_form(make, error, says):
    with pytest.raises(error, match=says):
        make()
