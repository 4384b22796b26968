# SPDX-License-Identifier: Apache-2.0
"""Multi-task gradient aggregators: the invariants of their specification.

Those of the loss weightings (1 and 8) are in test_mtl_loss_weighting.py.
"""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from xloss.optim import aggregators, weighting
from xloss.optim.aggregators import (
    aligned_mtl,
    cagrad,
    db_mtl,
    fairgrad,
    graddrop,
    imtl_g,
    linear,
    mgda,
    nash_mtl,
    pcgrad,
    upgrad,
)

KEY = jax.random.key(0)
EVERY = {
    "linear": linear,
    "mgda": mgda,
    "mgda-l2": functools.partial(mgda, normalization="l2"),
    "pcgrad": functools.partial(pcgrad, key=KEY, eps=0.0),
    "cagrad": functools.partial(cagrad, c=0.4),
    "imtl_g": imtl_g,
    "nash_mtl": nash_mtl,
    "aligned_mtl": aligned_mtl,
    "fairgrad": fairgrad,
    "db_mtl": functools.partial(db_mtl, eps=0.0),
    "upgrad": upgrad,
}
each = pytest.mark.parametrize("name", EVERY)


def gradients(tasks, width, kind="plain", seed=0):
    """[T, P], float32; every kind is one in which solvers fail."""
    rng = np.random.default_rng(seed)
    g = rng.normal(size=(tasks, width))
    if kind == "scaled":
        g *= 10.0 ** rng.uniform(-3, 3, size=(tasks, 1))
    elif kind == "conflict":
        g -= 1.5 * g.mean(axis=0)
    elif kind == "same":
        g[:] = g[0]
    elif kind == "zero":
        g[0] = 0.0
    elif kind == "opposite":
        g[1] = -g[0]
    return jnp.asarray(g, jnp.float32)


KINDS = ("plain", "scaled", "conflict", "same", "zero", "opposite")
PROBLEMS = [(3, 6, kind) for kind in KINDS] + [(6, 3, kind) for kind in KINDS]


@pytest.mark.parametrize("kind", ["plain", "scaled", "conflict", "opposite"])
@pytest.mark.parametrize("name", [name for name in EVERY if name != "pcgrad"])
def test_1_permuting_the_tasks_permutes_the_weights(name, kind, x64):
    g, order = gradients(3, 6, kind).astype(jnp.float64), np.array([2, 0, 1])
    direction, weights = EVERY[name](g)
    permuted, permuted_weights = EVERY[name](g[order])
    size = float(jnp.max(jnp.abs(g)))
    # With opposite tasks CAGrad's g_w vanishes, and what rounding leaves of it has the direction.
    rtol = 1e-5 if (name, kind) == ("cagrad", "opposite") else 1e-8
    if name in ("nash_mtl", "fairgrad") and kind == "opposite":
        pytest.skip("opposite gradients have no solution (spec mtl_aggregators)")
    np.testing.assert_allclose(permuted, direction, rtol=rtol, atol=1e-9 * size)
    np.testing.assert_allclose(permuted_weights, weights[order], rtol=rtol, atol=1e-9)


@pytest.mark.parametrize(("tasks", "width", "kind"), PROBLEMS)
def test_2_mgda_descends_on_every_task(tasks, width, kind):
    """d . g_t >= ||d||^2 for every t, which only the min-norm point satisfies."""
    g = gradients(tasks, width, kind)
    direction, weights = (np.asarray(x, np.float64) for x in mgda(g))
    largest = np.max(np.sum(np.square(g), axis=1))
    assert np.all(g @ direction >= direction @ direction - 1e-6 * largest)
    assert np.all(weights >= 0) and abs(np.sum(weights) - 1) < 1e-5


def test_2_mgda_is_the_closed_form_for_two_tasks(x64):
    rng = np.random.default_rng(1)
    for _ in range(20):
        g = rng.normal(size=(2, 3)) * 10.0 ** rng.uniform(-2, 2, size=(2, 1))
        (v11, v12), (_, v22) = g @ g.T
        gamma = np.clip((v22 - v12) / (v11 + v22 - 2 * v12), 0, 1)
        _, weights = mgda(jnp.asarray(g))
        np.testing.assert_allclose(weights, [gamma, 1 - gamma], rtol=1e-9, atol=1e-12)


def test_3_cagrad_without_radius_is_the_mean():
    for tasks, width, kind in PROBLEMS:
        g = gradients(tasks, width, kind)
        direction, weights = cagrad(g, c=0.0)
        np.testing.assert_allclose(direction, jnp.mean(g, axis=0), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(weights, 1 / tasks, rtol=1e-6)


@pytest.mark.parametrize(("tasks", "width", "kind"), PROBLEMS)
def test_3_cagrad_stays_at_its_radius(tasks, width, kind, x64):
    g = gradients(tasks, width, kind).astype(jnp.float64)
    direction, _ = cagrad(g, c=0.4, rescale=0)
    mean = jnp.mean(g, axis=0)
    away, radius = jnp.linalg.norm(direction - mean), 0.4 * jnp.linalg.norm(mean)
    assert float(away) <= float(radius) * (1 + 1e-9)
    if kind not in ("opposite", "zero"):  # where g_w vanishes: an optimal d inside the ball
        np.testing.assert_allclose(away, radius, rtol=1e-8, atol=1e-9)
    for rescale, factor in ((1, 1.16), (2, 1.4)):
        scaled, _ = cagrad(g, c=0.4, rescale=rescale)
        np.testing.assert_allclose(scaled * factor, direction, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize(("tasks", "width", "kind"), PROBLEMS)
def test_3_no_direction_in_the_ball_is_better_for_the_worst_task(tasks, width, kind, x64):
    """Against the dual: min over the simplex of g_w . g0 + c ||g0|| ||g_w||, by mirror descent."""
    g = np.asarray(gradients(tasks, width, kind), np.float64)
    mean = g.mean(axis=0)
    scale = np.linalg.norm(mean) * np.sqrt(np.mean(np.sum(g**2, axis=1)))
    direction, _ = cagrad(jnp.asarray(g), c=0.4, rescale=0)
    value = np.min(g @ np.asarray(direction)) / scale
    products, best = g @ g.T / scale, np.inf
    w = np.full(tasks, 1 / tasks)
    radius = 0.4 * np.linalg.norm(mean)
    for step in range(4000):
        length = np.sqrt(max(w @ products @ w, 1e-300) * scale)
        best = min(best, w @ g @ mean / scale + radius * length / scale)
        slope = products.mean(axis=1) + radius * (products @ w) / length
        w = w * np.exp(-(slope - slope.min()) * 2 / np.sqrt(step + 1) / np.ptp(slope).clip(1e-12))
        w /= w.sum()
    assert value <= best + 1e-9
    assert value >= best - 2e-3


def test_4_pcgrad_without_conflict_is_the_sum():
    g = jnp.abs(gradients(4, 7))
    np.testing.assert_allclose(pcgrad(g, key=KEY)[0], jnp.sum(g, axis=0), rtol=1e-6)
    np.testing.assert_allclose(
        pcgrad(g, key=KEY, reduction="mean")[0], jnp.mean(g, axis=0), rtol=1e-6
    )


def test_4_pcgrad_is_the_loop_over_vectors_in_any_order(x64):
    rng = np.random.default_rng(2)
    for seed in range(5):
        g = np.asarray(gradients(4, 5, "conflict", seed), np.float64)
        order = np.stack([rng.permutation(4) for _ in range(4)])
        parts = g.copy()
        for part, row in zip(parts, order, strict=True):
            for j in row:
                if part @ g[j] < 0:
                    part -= (part @ g[j]) / (g[j] @ g[j] + 1e-8) * g[j]
        found, _ = pcgrad(jnp.asarray(g), order=order)
        np.testing.assert_allclose(found, parts.sum(axis=0), rtol=1e-9)


def test_4_pcgrad_draws_its_order_from_the_key():
    g = gradients(5, 4, "conflict")
    found = [np.asarray(pcgrad(g, key=k)[0]) for k in jax.random.split(KEY, 6)]
    assert len({x.round(4).tobytes() for x in found}) > 1
    np.testing.assert_array_equal(pcgrad(g, key=KEY)[0], pcgrad(g, key=KEY)[0])
    outside = pcgrad(g, order=jnp.full([5, 3], -1))[0]  # nothing to project against
    np.testing.assert_allclose(outside, jnp.sum(g, axis=0), rtol=1e-5)


def test_9_identical_gradients():
    g = gradients(4, 5, "same")
    np.testing.assert_allclose(mgda(g)[0], g[0], rtol=1e-5)
    np.testing.assert_allclose(mgda(g)[1], 0.25, rtol=1e-4)
    np.testing.assert_allclose(pcgrad(g, key=KEY)[0], 4 * g[0], rtol=1e-5)
    np.testing.assert_allclose(cagrad(g, c=0.4, rescale=2)[0], g[0], rtol=1e-4)


@pytest.mark.parametrize(("tasks", "width", "kind"), [(2, 5, "plain"), (4, 6, "scaled")])
def test_5_imtl_g_is_equally_far_along_every_task(tasks, width, kind, x64):
    g = gradients(tasks, width, kind).astype(jnp.float64)
    direction, weights = imtl_g(g)
    along = (g / jnp.linalg.norm(g, axis=1, keepdims=True)) @ direction
    np.testing.assert_allclose(along, along[0], rtol=1e-8)
    np.testing.assert_allclose(jnp.sum(weights), 1.0, rtol=1e-12)
    np.testing.assert_allclose(
        imtl_g(gradients(4, 5, "same"))[0], gradients(4, 5, "same")[0], rtol=1e-5
    )
    np.testing.assert_allclose(imtl_g(gradients(2, 5, "opposite"))[0], 0.0, atol=1e-6)


@pytest.mark.parametrize(
    ("tasks", "width", "kind"),
    [(2, 3, "plain"), (5, 8, "scaled"), (4, 6, "conflict"), (12, 20, "conflict")],
)
def test_6_nash_weights_solve_the_bargaining_whatever_the_scales(tasks, width, kind, x64):
    g = gradients(tasks, width, kind).astype(jnp.float64)
    if kind == "conflict":
        g = g + 0.1  # the sum of all of them is 0, or nearly: without this nobody can gain
    direction, weights = nash_mtl(g, max_norm=0.0)
    assert np.all(weights > 0)
    np.testing.assert_allclose((g @ direction) * weights, 1.0, rtol=1e-6)
    np.testing.assert_allclose(direction @ direction, tasks, rtol=1e-6)
    scaled = nash_mtl(g * 10.0 ** jnp.linspace(-3, 3, tasks)[:, None], max_norm=0.0)[0]
    np.testing.assert_allclose(scaled, direction, rtol=1e-5, atol=1e-8)
    np.testing.assert_allclose(jnp.linalg.norm(nash_mtl(g)[0]), 1.0, rtol=1e-9)
    for alpha in (0.5, 1.0, 5.0):
        direction, weights = fairgrad(g, alpha=alpha)
        np.testing.assert_allclose(g @ direction, weights ** (-1 / alpha), rtol=1e-5)
    np.testing.assert_allclose(fairgrad(g, alpha=1.0)[0], nash_mtl(g, max_norm=0.0)[0], rtol=1e-5)


def test_7_the_aligned_gradients_have_one_singular_value(x64):
    g = gradients(4, 6, "scaled").astype(jnp.float64)
    u, values, v = np.linalg.svd(np.asarray(g), full_matrices=False)
    direction, _ = aligned_mtl(g)
    np.testing.assert_allclose(direction, (values[-1] * u @ v).sum(0), rtol=1e-6)


def test_8_imtl_l_is_at_rest_where_every_scaled_loss_is_1(x64):
    losses = jnp.asarray([0.02, 3.0, 500.0])
    slope = jax.grad(weighting.imtl_l, argnums=1)(losses, -jnp.log(losses))
    np.testing.assert_allclose(slope, 0.0, atol=1e-12)
    with pytest.raises(ValueError, match=r"imtl_l: expected losses \[T\]"):
        weighting.imtl_l(jnp.ones([2, 2]), jnp.ones([2, 2]))


def test_graddrop_keeps_one_sign_a_coordinate_and_all_where_tasks_agree():
    g = gradients(3, 400)
    direction, kept = graddrop(g, key=KEY)
    up, down = jnp.sum(jnp.maximum(g, 0), axis=0), jnp.sum(jnp.minimum(g, 0), axis=0)
    is_up = np.isclose(direction, up, rtol=1e-5)
    assert np.all(is_up | np.isclose(direction, down, rtol=1e-5))
    # Drawn in proportion: on the average over coordinates as often as P says.
    chance = 0.5 * (1 + jnp.sum(g, axis=0) / jnp.sum(jnp.abs(g), axis=0))
    assert abs(np.mean(is_up) - np.mean(chance)) < 0.08
    assert np.all((kept > 0.3) & (kept < 0.8))
    np.testing.assert_allclose(graddrop(jnp.abs(g), key=KEY)[0], jnp.sum(jnp.abs(g), 0), rtol=1e-6)
    np.testing.assert_allclose(graddrop(g, key=KEY, leak=1.0)[0], jnp.sum(g, axis=0), atol=1e-5)
    again, other = graddrop(g, key=KEY)[0], graddrop(g, key=jax.random.key(1))[0]
    assert np.all(again == direction) and np.any(other != direction)
    low = graddrop({"a": g.astype(jnp.bfloat16)}, key=KEY)[0]["a"]
    assert low.dtype == jnp.bfloat16
    with pytest.raises(TypeError, match="graddrop: expected a key.*got neither"):
        graddrop(g)
    with pytest.raises(ValueError, match="graddrop: expected uniform of shape"):
        graddrop(g, uniform=jnp.ones(3))


@each
def test_the_direction_is_the_weighted_sum_over_every_leaf(name):
    g = gradients(3, 6)
    tree = {"matrix": g[:, :4].reshape(3, 2, 2), "scalar": g[:, 4], "row": g[:, 5:]}
    direction, weights = EVERY[name](tree)
    flat, flat_weights = EVERY[name](g)
    np.testing.assert_allclose(weights, flat_weights, rtol=1e-4, atol=1e-5)
    for leaf, part in zip(jax.tree.leaves(direction), jax.tree.leaves(tree), strict=True):
        expected = np.tensordot(np.asarray(weights), np.asarray(part), axes=1)
        np.testing.assert_allclose(leaf, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(direction["scalar"], flat[4], rtol=1e-4, atol=1e-5)


@each
@pytest.mark.parametrize("size", [1e-30, 1e-12, 1e15, 1e30])
def test_the_scale_of_the_gradients_does_not_matter(name, size):
    g = gradients(3, 6, "conflict")
    expected, _ = EVERY[name](g)
    # FairGrad: (M w) = w^(-1/2) makes w of degree -4/3 in the gradients.
    factor = size ** {"mgda-l2": 0.0, "nash_mtl": 0.0, "fairgrad": -1 / 3}.get(name, 1.0)
    np.testing.assert_allclose(EVERY[name](size * g)[0] / factor, expected, rtol=1e-3, atol=1e-5)


@each
def test_one_task_and_no_gradient_at_all(name):
    g = gradients(1, 4)
    direction, _ = EVERY[name](g)
    length = float(jnp.linalg.norm(g[0]))
    expected = g[0] * length ** {"mgda-l2": -1.0, "nash_mtl": -1.0, "fairgrad": -4 / 3}.get(
        name, 0.0
    )
    factor = 1.4 / 1.16 if name == "cagrad" else 1.0
    np.testing.assert_allclose(direction, factor * expected, rtol=1e-4)
    for tasks in (1, 3):
        direction, weights = EVERY[name](jnp.zeros([tasks, 4]))
        np.testing.assert_array_equal(direction, 0.0)
        assert np.isfinite(weights).all()


@each
def test_nan_is_not_hidden_and_bfloat16_is_summed_in_float32(name):
    g = gradients(3, 6)
    assert np.isnan(EVERY[name](g.at[1, 2].set(jnp.nan))[0][2])
    low = jnp.tile(g, (1, 2000)).astype(jnp.bfloat16)
    direction, weights = EVERY[name](low)
    assert direction.dtype == jnp.bfloat16 and weights.dtype == jnp.float32
    _, expected = EVERY[name](low.astype(jnp.float32))
    np.testing.assert_allclose(weights, expected, rtol=1e-4, atol=1e-6)


@each
def test_sharded_gradients_are_reduced_and_never_gathered(name):
    mesh = jax.make_mesh((4, 2), ("data", "model"), axis_types=(AxisType.Auto,) * 2)
    tree = {"kernel": gradients(3, 128, "conflict").reshape(3, 16, 8), "bias": gradients(3, 8)}
    places = {"kernel": P(None, "data", "model"), "bias": P(None, "model")}
    spread = {n: jax.device_put(tree[n], NamedSharding(mesh, places[n])) for n in tree}
    compiled = jax.jit(EVERY[name]).lower(spread).compile()
    text = compiled.as_text()
    assert "all-gather" not in text and "all-to-all" not in text
    for shape in re.findall(r"= \(?f32\[([\d,]*)\]\S* all-reduce", text):
        assert np.prod([int(n) for n in shape.split(",") if n]) <= 9, shape
    found, expected = compiled(spread)[0], EVERY[name](tree)[0]
    assert found["kernel"].sharding.spec == P("data", "model")
    for leaf in tree:
        np.testing.assert_allclose(found[leaf], expected[leaf], rtol=1e-3, atol=1e-5)


def test_wrong_arguments_are_named():
    g = jnp.ones([3, 2])
    with pytest.raises(ValueError, match=r"mgda: expected grads with a leading task axis"):
        mgda({"a": g, "b": jnp.ones([2, 2])})
    with pytest.raises(ValueError, match="linear: expected grads with a leading task axis"):
        linear({})
    with pytest.raises(TypeError, match="cagrad: expected grads of a float dtype"):
        cagrad(jnp.ones([3, 2], jnp.int32))
    with pytest.raises(TypeError, match="mgda: expected losses"):
        mgda(g, normalization="loss")
    with pytest.raises(ValueError, match="mgda: expected normalization to be one of"):
        mgda(g, normalization="l1")
    with pytest.raises(TypeError, match="pcgrad: expected a key.*got neither"):
        pcgrad(g)
    with pytest.raises(ValueError, match=r"pcgrad: expected order of shape \(3, J\)"):
        pcgrad(g, order=jnp.zeros([2, 2], jnp.int32))
    with pytest.raises(ValueError, match=r"cagrad: expected c in \[0, 1\]"):
        cagrad(g, c=1.5)
    with pytest.raises(ValueError, match="cagrad: expected rescale to be one of"):
        cagrad(g, rescale=3)
    with pytest.raises(ValueError, match="linear: expected weights of shape"):
        linear(g, weights=jnp.ones(2))
    with pytest.raises(ValueError, match=r"fairgrad: expected alpha in \(0, inf\)"):
        fairgrad(g, alpha=0.0)
    with pytest.raises(ValueError, match=r"nash_mtl: expected max_norm in \[0, inf"):
        nash_mtl(g, max_norm=-1.0)
    assert {name.partition("-")[0] for name in EVERY} | {"graddrop"} == set(aggregators.AGGREGATORS)
