# SPDX-License-Identifier: Apache-2.0
"""FRUGAL: the invariants of its specification, what its state takes, and its edges."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from xloss import optim
from xloss.optim import subspaces

KEY = jax.random.PRNGKey(0)
SPLITS = ("columns", "rows", "entries", "block", "svd")
COORDINATES = ("columns", "rows", "entries")
RNG = np.random.default_rng(0)
LR = 0.1
SHAPES = {"a": {"kernel": (6, 8), "bias": (8,)}, "b": {"kernel": (8, 4)}, "c": {"kernel": (8, 6)}}


def is_shape(x):
    return isinstance(x, tuple)


def draw(dtype=jnp.float32):
    return jax.tree.map(lambda s: jnp.asarray(RNG.normal(size=s), dtype), SHAPES, is_leaf=is_shape)


PARAMS = draw()
GRADIENTS = [draw() for _ in range(7)]


def is_kernel(path):
    return path.endswith("kernel")


def make(**options):
    defaults = {"projectable": is_kernel, "density": 0.5, "update_gap": 3, "key": KEY}
    return optim.frugal(LR, **(defaults | options))


def run(optimizer, gradients=GRADIENTS, params=PARAMS):
    """[(params, state)] after each step, and how often the step was traced."""
    traces = []

    @jax.jit
    def step(params, state, gradient):
        traces.append(None)
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    path, state = [], optimizer.init(params)
    for gradient in gradients:
        params, state = step(params, state, gradient)
        path.append((params, state))
    return path, len(traces)


@functools.cache
def usual(split):
    """What `run` gives at the defaults: compiled once for the tests that look at it."""
    return run(make(split=split))


def kernels(tree):
    return [tree[name]["kernel"] for name in "abc"]


def optax_update(optimizer, gradient, state, params):
    with jax.numpy_dtype_promotion("standard"):  # optax raises floats to integer powers
        return jax.jit(optimizer.update)(gradient, state, params)


def assert_close(found, expected, rtol=1e-5, atol=1e-6):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=atol), found, expected
    )


@pytest.mark.parametrize("split", COORDINATES)
def test_1_density_one_is_adamw_that_starts_anew_at_every_switch(split):
    path, _ = run(make(split=split, density=1.0, weight_decay=0.1))
    plain = optax.adamw(LR, weight_decay=0.1)
    params, states = PARAMS, {"full": plain.init(PARAMS)}
    for i, gradient in enumerate(GRADIENTS):
        if i % 3 == 0:
            states["split"] = plain.init(PARAMS)
        steps = {}
        for name in states:
            steps[name], states[name] = optax_update(plain, gradient, states[name], params)
        updates = jax.tree_util.tree_map_with_path(
            lambda where, u, v: u if "kernel" in jax.tree_util.keystr(where) else v,
            steps["split"],
            steps["full"],
        )
        params = optax.apply_updates(params, updates)
        assert_close(path[i][0], params, atol=1e-5)


@pytest.mark.parametrize("split", SPLITS)
def test_2_density_zero_is_a_sign_step_on_every_projectable_weight(split):
    path, _ = run(make(split=split, density=0.0), GRADIENTS[:1])
    found = jax.tree.map(jnp.subtract, path[0][0], PARAMS)
    expected = [-LR * jnp.sign(g) for g in kernels(GRADIENTS[0])]
    assert_close(kernels(found), expected)
    adam = optax.adam(LR)
    full, _ = optax_update(adam, GRADIENTS[0], adam.init(PARAMS), PARAMS)
    assert_close(found["a"]["bias"], full["a"]["bias"])


def test_3_without_a_rule_inactive_columns_change_by_decay_only():
    path, _ = run(make(state_free="none", weight_decay=0.1), GRADIENTS[:1])
    for before, after, chosen in zip(
        kernels(PARAMS), kernels(path[0][0]), kernels(path[0][1].subspace), strict=True
    ):
        rest = np.setdiff1d(np.arange(before.shape[1]), chosen)
        np.testing.assert_allclose(after[:, rest], before[:, rest] * (1 - LR * 0.1), rtol=1e-6)
        moved = np.abs(after - before * (1 - LR * 0.1))[:, chosen]
        np.testing.assert_allclose(moved, LR, rtol=1e-4)  # Adam's first step


@pytest.mark.parametrize("split", COORDINATES)
def test_4_inactive_entries_move_by_the_product_of_the_scales_exactly(split):
    optimizer = make(split=split, density=0.25, projectable_scale=0.5, state_free_scale=0.25)
    # Small gradients in the second step: Adam's updates differ from signs there.
    update = jax.jit(optimizer.update)
    _, state = update(GRADIENTS[0], optimizer.init(PARAMS), PARAMS)
    small = jax.tree.map(lambda g: 1e-3 * g, GRADIENTS[1])
    updates, state = update(small, state, PARAMS)
    for u, chosen in zip(kernels(updates), kernels(state.subspace), strict=True):
        active = np.zeros(u.shape, bool)
        if split == "columns":
            active[:, chosen] = True
        elif split == "rows":
            active[chosen] = True
        else:
            active.reshape(-1)[chosen] = True
        exact = np.abs(u) == np.float32(LR) * np.float32(0.5 * 0.25)
        assert np.array_equal(exact, ~active) and active.any()


@pytest.mark.parametrize("split", SPLITS)
def test_5_a_switch_starts_from_zero_moments(split):
    path, _ = usual(split)
    optimizer = make(split=split, update_gap=1)  # every step is a first step
    update = jax.jit(optimizer.update)
    for i in (3, 6):
        state = path[i][1]
        fresh = optimizer.init(PARAMS)._replace(count=jnp.asarray(i // 3, jnp.int32))
        _, fresh = update(GRADIENTS[i], fresh, path[i - 1][0])
        assert_close(state.subspace, fresh.subspace)
        assert_close((state.projected_mu, state.projected_nu), (fresh[5], fresh[6]), rtol=1e-4)
    chosen = optimizer.init(PARAMS).projected_mu
    for mu in jax.tree.leaves(chosen):
        assert not mu.any()


def test_5_without_reset_moments_stay_where_they_were():
    path, _ = run(make(reset=False, state_free="none"))
    before, after = path[2][1], path[3][1]
    for g, chosen, m, new in zip(
        kernels(GRADIENTS[3]),
        kernels(after.subspace),
        kernels(before.projected_mu),
        kernels(after.projected_mu),
        strict=True,
    ):
        np.testing.assert_allclose(new, 0.9 * m + 0.1 * g[:, chosen], rtol=1e-5, atol=1e-7)
    assert any(
        not np.array_equal(x, y)
        for x, y in zip(kernels(before.subspace), kernels(after.subspace), strict=True)
    )


# ---- bytes --------------------------------------------------------------------------------------


def transformer(layers, width=64, fused=False):
    attention = {"qkv": (width, 3 * width)} if fused else dict.fromkeys("qkv", (width, width))
    layer = {**attention, "o": (width, width), "up": (width, 4 * width), "down": (4 * width, width)}
    shapes = {f"layer_{i}": {n: {"kernel": s} for n, s in layer.items()} for i in range(layers)}
    shapes |= {"embedding": (100, width), "norm": {"scale": (width,)}}
    return jax.tree.map(lambda s: jax.ShapeDtypeStruct(s, jnp.bfloat16), shapes, is_leaf=is_shape)


def share(shapes, **options):
    """Bytes of the projectable part over those of AdamW with float32 moments."""
    options = {"density": 0.25, "key": KEY} | options
    optimizer = optim.frugal(LR, projectable=is_kernel, **options)
    state = jax.eval_shape(optimizer.init, shapes)
    part = (state.subspace, state.projected_mu, state.projected_nu)
    entries = sum(
        leaf.size
        for path, leaf in jax.tree_util.tree_leaves_with_path(shapes)
        if "kernel" in jax.tree_util.keystr(path)
    )
    return optim.optimizer_state_bytes(part) / (8 * entries)


@pytest.mark.parametrize("layers", [2, 3, 4, 12])
@pytest.mark.parametrize("fused", [False, True])
def test_6_a_quarter_has_moments_at_a_quarter_of_the_bytes(layers, fused):
    shapes = transformer(layers, fused=fused)
    found = {split: share(shapes, split=split) for split in SPLITS}
    found |= {
        order: share(shapes, split="block", order=order)
        for order in ("uniform", "ascending", "descending", "mirror")
    }
    print({name: round(value, 3) for name, value in found.items()})
    assert max(found["columns"], found["rows"]) <= 0.26
    # Three blocks of twelve: choices of whole leaves of these sizes are uneven, and the slots must
    # hold the largest, 0.306. The goal of 0.30 is missed there.
    assert found["block"] <= (0.31 if (layers, fused) == (3, True) else 0.30)
    assert found["entries"] <= 0.38 and found["svd"] <= 0.32


def test_6_bytes_are_linear_in_density():
    shapes = transformer(4)
    for split in SPLITS:
        quarter, half, whole = (share(shapes, split=split, density=d) for d in (0.25, 0.5, 1.0))
        assert share(shapes, split=split, density=0.0) < 1e-3
        np.testing.assert_allclose([2 * quarter, 2 * half], [half, whole], rtol=1e-2)


def test_6_bytes_of_arrays_and_of_shapes_are_the_same():
    optimizer = make()
    state = optimizer.init(PARAMS)
    shapes = jax.eval_shape(optimizer.init, PARAMS)
    by_hand = sum(x.nbytes for x in jax.tree.leaves(state))
    assert optim.optimizer_state_bytes(state) == optim.optimizer_state_bytes(shapes) == by_hand
    assert optim.optimizer_state_bytes(()) == 0
    assert optim.optimizer_state_bytes(jax.random.key(0)) == 8
    with pytest.raises(TypeError, match="expected state to hold arrays, got 1.0"):
        optim.optimizer_state_bytes({"a": 1.0})


# ---- randomness and compilation -----------------------------------------------------------------


@pytest.mark.parametrize("split", [*COORDINATES, "block"])
def test_7_the_key_decides(split):
    first, again = usual(split)[0], run(make(split=split))[0]
    other, _ = run(make(split=split, key=jax.random.PRNGKey(1)))
    assert_close(first, again, rtol=0, atol=0)
    differ = [
        not np.array_equal(x, y)
        for i in (0, 3, 6)
        for x, y in zip(
            jax.tree.leaves(first[i][1].subspace),
            jax.tree.leaves(other[i][1].subspace),
            strict=True,
        )
    ]
    assert any(differ)


@pytest.mark.parametrize("split", SPLITS)
def test_8_a_switch_compiles_nothing(split):
    path, traces = usual(split)  # switches before steps 0, 3 and 6
    assert traces == 1
    first = jax.tree.leaves(path[0][1].subspace)
    same = [
        all(
            np.array_equal(x, y)
            for x, y in zip(first, jax.tree.leaves(path[i][1].subspace), strict=True)
        )
        for i in range(7)
    ]
    assert same[1] and same[2] and not (same[3] and same[6])


def test_leaves_and_switches_draw_their_own():
    params = {"a": jnp.zeros((2, 40)), "b": jnp.zeros((2, 40))}
    path, _ = run(make(projectable=True, update_gap=1), [params] * 2, params)
    choices = [state.subspace[name] for _, state in path for name in "ab"]
    assert all(len(np.unique(choice)) == 20 for choice in choices)
    for i in range(4):
        for j in range(i):
            assert not np.array_equal(np.sort(choices[i]), np.sort(choices[j]))


def test_a_resumed_run_is_the_uninterrupted_one():
    optimizer = make(split="block")
    path, _ = usual("block")
    params, state = path[3]
    saved = jax.tree.map(np.asarray, state)  # what a checkpoint keeps
    state = jax.tree.map(jnp.asarray, saved)
    step = jax.jit(optimizer.update)
    for i in range(4, 7):
        updates, state = step(GRADIENTS[i], state, params)
        params = optax.apply_updates(params, updates)
    assert_close((params, state), path[6], rtol=0, atol=0)


# ---- blocks -------------------------------------------------------------------------------------


def block_choices(shapes, order, density, switches):
    """Which of the leaves are active, [switches, n], and the slots' shapes."""
    split = subspaces.make("block", density, order)
    leaves = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]

    def choose(switch):
        def permutations(which, at, n, r):
            keys = [jax.random.fold_in(jax.random.fold_in(KEY, leaf), at) for leaf in which]
            return jnp.stack([jax.random.permutation(key, n)[:r] for key in keys])

        return split.choose(permutations, switch, leaves)

    found = jax.jit(jax.vmap(choose))(jnp.arange(switches))
    return np.asarray(found), [x.shape for x in split.start(leaves)[1]]


@pytest.mark.parametrize("order", subspaces.ORDERS)
@pytest.mark.parametrize("density", [0.25, 0.4])
def test_every_block_has_its_turn_in_a_slot_that_holds_it(order, density):
    shapes = [(4, 16), (4, 4), (16, 4), (4, 4), (12, 4), (3, 5), (7,), (4, 4), (2, 2, 9), ()]
    slots, rooms = block_choices(shapes, order, density, 2000)
    k = round(len(shapes) * density)
    assert ((slots >= 0).sum(axis=1) == k).all()
    assert (np.sort(slots, axis=1)[:, -k:] == np.arange(k)).all()
    often = (slots >= 0).mean(axis=0)
    np.testing.assert_allclose(often, k / len(shapes), atol=0.05)
    assert sum(shape[0] for shape in rooms) == k
    # Put in and taken out again, each leaf is what it was, and so is the free part.
    leaves = [jnp.asarray(RNG.normal(size=shape), jnp.float32) for shape in shapes]
    split = subspaces.make("block", density, order)

    @jax.jit
    def there_and_back(chosen):
        found = split.project(chosen, leaves)
        return split.lift(chosen, [2 * x for x in found], leaves, jnp.negative)

    for chosen in np.unique(slots, axis=0)[:20]:
        for x, y, slot in zip(leaves, there_and_back(jnp.asarray(chosen)), chosen, strict=True):
            np.testing.assert_array_equal(y, 2 * x if slot >= 0 else -x)


def test_blocks_of_one_shape_are_chosen_as_the_authors_do():
    """All pairs, equally often."""
    slots, rooms = block_choices([(4, 8), (8, 4), (4, 8), (4, 8)], "random", 0.5, 3000)
    assert rooms == [(2, 4, 8)]
    _, counts = np.unique(slots >= 0, axis=0, return_counts=True)
    np.testing.assert_allclose(counts, [500] * 6, atol=80)


def test_blocks_in_turn_go_on_where_the_last_choice_ended():
    shapes = [(2, 2)] * 5
    expected = {"ascending": [[0, 1], [2, 3], [0, 4]], "descending": [[3, 4], [1, 2], [0, 4]]}
    expected["mirror"] = [[0, 4], [1, 3], [0, 2]]
    for order, sets in expected.items():
        slots, _ = block_choices(shapes, order, 0.4, 3)
        assert [np.flatnonzero(row >= 0).tolist() for row in slots] == sets


# ---- meshes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", SPLITS)
def test_the_mesh_does_not_matter_and_moments_are_sharded(split):
    mesh = jax.make_mesh((4, 2), ("data", "model"), axis_types=(AxisType.Auto,) * 2)
    shapes = {"up": (8, 16), "down": (16, 8), "q": (8, 8), "o": (8, 8)}
    specs = {"up": P("data", "model"), "down": P("model", "data")}
    params = {n: jnp.asarray(RNG.normal(size=s), jnp.float32) for n, s in shapes.items()}

    def place(tree):
        return {
            n: jax.device_put(x, NamedSharding(mesh, specs.get(n, P("data", "model"))))
            for n, x in tree.items()
        }

    gradients = [jax.tree.map(lambda w, i=i: jnp.cos(w + i), params) for i in range(4)]
    optimizer = make(split=split, projectable=True)
    alone, _ = run(optimizer, gradients, params)
    spread, _ = run(optimizer, [place(g) for g in gradients], place(params))
    assert_close(spread[-1][0], alone[-1][0], rtol=1e-5, atol=1e-5)
    if split != "svd":  # signs of singular vectors are anyone's choice
        assert_close(spread[-1][1], alone[-1][1], rtol=1e-5, atol=1e-5)
    if split in ("columns", "rows", "block"):
        for state in (optimizer.init(place(params)), spread[-1][1]):
            for moment in jax.tree.leaves((state.projected_mu, state.projected_nu)):
                assert not moment.sharding.is_fully_replicated
