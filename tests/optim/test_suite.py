# SPDX-License-Identifier: Apache-2.0
"""The contract that every transform of xloss.optim keeps (DESIGN, "The optimizer contract").

Each test runs over the rows of `cases.py`; a new transform is covered by its row.
"""

import functools
import inspect

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from tests.optim.cases import ROWS, gradient, make_batch, parameters, step
from xloss import optim
from xloss.catalogue import METHODS

each_row = pytest.mark.parametrize("row", ROWS, ids=str)
each_with_extra = pytest.mark.parametrize("row", [r for r in ROWS if r.extra], ids=str)

TRANSFORMS = (optax.GradientTransformation, optax.GradientTransformationExtraArgs)


def makes_a_transform(function) -> bool:
    return callable(function) and inspect.signature(function).return_annotation in TRANSFORMS


def test_every_factory_has_a_row():
    public = {n for n in optim.__all__ if inspect.isfunction(getattr(optim, n))}
    factories = {n for n in public if makes_a_transform(getattr(optim, n))}
    registered = {n for n, m in METHODS.items() if m.family == "optim"}
    assert factories <= registered
    assert factories == {row.name for row in ROWS}
    for row in ROWS:
        assert METHODS[row.name].function is row.factory


def chained(transform):
    return optax.chain(transform, optax.sgd(0.1, momentum=0.9))


@functools.cache
def two_steps(row):
    """The reference: two jitted steps in a chain, on one device."""
    optimizer = chained(row.make())
    jitted = jax.jit(lambda p, s, b: step(optimizer, row, p, s, b))
    params, state = parameters(), optimizer.init(parameters())
    for seed in (1, 2):
        params, state = jitted(params, state, make_batch(seed))
    return params, state


def assert_close(found, expected, rtol=1e-5, atol=1e-6):
    chex.assert_trees_all_equal_structs(found, expected)
    chex.assert_trees_all_close(found, expected, rtol=rtol, atol=atol)


@each_row
def test_jit_equals_eager(row):
    optimizer = chained(row.make())
    params, state = parameters(), optimizer.init(parameters())
    for seed in (1, 2):
        params, state = step(optimizer, row, params, state, make_batch(seed))
    assert_close((params, state), two_steps(row), atol=row.atol)


@each_row
def test_it_does_something_in_a_chain(row):
    plain = chained(optax.identity())
    params, state = parameters(), plain.init(parameters())
    for seed in (1, 2):
        updates, state = plain.update(gradient(params, make_batch(seed)), state, params)
        params = optax.apply_updates(params, updates)
    difference = optax.tree.norm(optax.tree.sub(params, two_steps(row)[0]))
    assert float(difference) > 1e-4


@each_row
def test_inject_hyperparams_keeps_the_result_and_takes_schedules(row):
    """Hyperparameters in the state, driven by schedules: the same numbers, and one trace."""
    parameters_of = inspect.signature(row.factory).parameters
    values = {name: row.hyper.get(name, parameters_of[name].default) for name in row.numeric}
    schedules = {name: optax.constant_schedule(value) for name, value in values.items()}
    for changes in ({}, schedules):
        optimizer = chained(row.injected(**changes))
        traces = []

        def whole(params, state, batch, optimizer=optimizer, traces=traces):
            traces.append(None)
            return step(optimizer, row, params, state, batch)

        jitted = jax.jit(whole)
        params, state = parameters(), jax.jit(optimizer.init)(parameters())
        for seed in (1, 2):
            params, state = jitted(params, state, make_batch(seed))
        assert len(traces) == 1
        assert set(row.numeric) <= set(state[0].hyperparams)
        assert_close((params, state[0].inner_state), (two_steps(row)[0], two_steps(row)[1][0]))


@each_row
def test_jit_with_donation_keeps_the_result(row):
    optimizer = chained(row.make())
    jitted = jax.jit(lambda p, s, b: step(optimizer, row, p, s, b), donate_argnums=(0, 1))
    params, state = parameters(), jax.jit(optimizer.init)(parameters())
    for seed in (1, 2):
        given = params
        params, state = jitted(params, state, make_batch(seed))
        assert all(leaf.is_deleted() for leaf in jax.tree.leaves(given))
    assert_close((params, state), two_steps(row), atol=row.atol)


@each_row
def test_vmap_over_seeds_equals_one_at_a_time(row):
    """How a sweep trains the seeds of one shape together."""
    optimizer = chained(row.make())
    members = [parameters(), parameters(seed=5)]
    together = jax.tree.map(lambda *leaves: jnp.stack(leaves), *members)

    @jax.jit
    @functools.partial(jax.vmap, in_axes=(0, None, None))
    def train(params, first, second):
        state = optimizer.init(params)
        params, state = step(optimizer, row, params, state, first)
        return step(optimizer, row, params, state, second)

    found = train(together, make_batch(1), make_batch(2))
    assert_close(jax.tree.map(lambda x: x[0], found), two_steps(row), atol=row.atol)


@each_row
def test_state_follows_the_parameters_and_the_mesh_does_not_matter(row):
    mesh = jax.make_mesh((4, 2), ("data", "model"), axis_types=(AxisType.Auto,) * 2)

    def place(leaf):
        spec = P("data", *("model",) * (leaf.ndim == 2 and leaf.shape[1] % 2 == 0))
        return jax.device_put(leaf, NamedSharding(mesh, spec))

    optimizer = chained(row.make())
    params = jax.tree.map(place, parameters())
    shardings = {leaf.shape: leaf.sharding for leaf in jax.tree.leaves(params)}
    state = optimizer.init(params)
    jitted = jax.jit(lambda p, s, b: step(optimizer, row, p, s, b))

    def assert_placed(tree):
        for leaf in jax.tree.leaves(tree):
            if leaf.shape in shardings:
                assert leaf.sharding.is_equivalent_to(shardings[leaf.shape], leaf.ndim)

    assert_placed(state)
    for seed in (1, 2):
        batch = jax.device_put(make_batch(seed), NamedSharding(mesh, P("data")))
        params, state = jitted(params, state, batch)
        assert_placed((params, state))
    assert_close((params, state), two_steps(row), atol=row.atol)


@each_row
def test_a_zero_gradient_gives_a_finite_zero_update(row):
    optimizer = row.make()
    params, batch = parameters(), make_batch()
    zeros = optax.tree.zeros_like(params)

    @jax.jit
    def two_updates(params):
        updates, state = optimizer.update(
            zeros, optimizer.init(params), params, **row.extras(batch, scale=0.0)
        )
        return updates, optimizer.update(updates, state, params, **row.extras(batch, scale=0.0))

    first, (second, state) = two_updates(params)
    chex.assert_trees_all_equal(first, zeros)
    chex.assert_trees_all_equal(second, zeros)
    chex.assert_tree_all_finite(state)


@each_row
@pytest.mark.parametrize("scale", [1e-25, 1e25])
def test_a_tiny_or_huge_gradient_stays_finite(row, scale):
    """Squares of 1e-25 or 1e25 vanish or overflow in float32; the transform must not."""
    optimizer = row.make()
    params, batch = parameters(), make_batch()

    @jax.jit
    def one_update(params):
        gradients = jax.tree.map(lambda g: scale * g, gradient(params, batch))
        extras = row.extras(batch, scale=scale)
        return optimizer.update(gradients, optimizer.init(params), params, **extras)

    chex.assert_tree_all_finite(one_update(params))


@each_row
def test_bfloat16_parameters_with_float32_norms(row):
    """Sums of 4,096 squares stall in bfloat16; updates keep their dtype, scalars are float32."""
    width = 4096
    params = {"shared": {"kernel": jnp.full([1, width], 0.5), "bias": jnp.zeros(width)}}
    params["heads"] = {t: {"kernel": jnp.full([width, 1], 0.125)} for t in ("left", "right")}
    batch = {"inputs": jnp.ones([4, 1]), "left": jnp.zeros([4, 1]), "right": jnp.ones([4, 1])}
    optimizer = row.make()

    @jax.jit
    def one_update(params, batch):
        state = optimizer.init(params)
        gradients = gradient(params, batch)
        updates, state = optimizer.update(gradients, state, params, **row.extras(batch))
        return updates, state

    low = [optax.tree.cast(tree, jnp.bfloat16) for tree in (params, batch)]
    updates, state = one_update(*low)
    wide_updates, wide_state = one_update(params, batch)
    assert all(leaf.dtype == jnp.bfloat16 for leaf in jax.tree.leaves(updates))
    scalars = [x for x in jax.tree.leaves(state) if x.ndim == 0 and x.dtype != jnp.int32]
    assert all(leaf.dtype == jnp.float32 for leaf in scalars)
    for leaf, wide in zip(jax.tree.leaves(state), jax.tree.leaves(wide_state), strict=True):
        if leaf.ndim == 0 and leaf.dtype == jnp.float32:
            np.testing.assert_allclose(leaf, wide, rtol=0.02)
    error = optax.tree.sub(optax.tree.cast(updates, jnp.float32), wide_updates)
    assert float(optax.tree.norm(error)) < 0.05 * float(optax.tree.norm(wide_updates))


@each_row
def test_init_on_shapes_alone(row):
    optimizer = chained(row.make())
    shapes = jax.eval_shape(parameters)
    expected = jax.eval_shape(optimizer.init, parameters())
    for found in (optimizer.init(shapes), jax.eval_shape(optimizer.init, shapes)):
        chex.assert_trees_all_equal_shapes_and_dtypes(found, expected)


@each_row
def test_accumulation_equals_the_full_batch(row):
    """MultiSteps, with the extra function over all micro-batches."""
    batch = make_batch()
    halves = [jax.tree.map(lambda x, i=i: x[8 * i : 8 * i + 8], batch) for i in range(2)]
    inner = optax.chain(row.make(), optax.sgd(0.1))
    optimizer = optax.MultiSteps(inner, every_k_schedule=2)

    @jax.jit
    def accumulated(params):
        start, state = params, optimizer.init(params)
        for half in halves:
            gradients = gradient(start, half)
            updates, state = optimizer.update(gradients, state, params, **row.extras(batch))
            params = optax.apply_updates(params, updates)
        return params

    @jax.jit
    def whole(params):
        return step(inner, row, params, inner.init(params), batch)[0]

    with jax.numpy_dtype_promotion("standard"):  # optax's MultiSteps divides floats by integers
        found = accumulated(parameters())
    assert_close(found, whole(parameters()))


@each_with_extra
def test_the_docstring_says_what_accumulation_needs(row):
    assert "MultiSteps" in row.factory.__doc__
    assert row.argument in row.factory.__doc__


@each_with_extra
def test_a_missing_extra_argument_is_named(row):
    optimizer = chained(row.make())
    params = parameters()
    state = optimizer.init(params)
    missing = f"{row.name}: expected {row.argument} to be .*{row.argument}=..."
    with pytest.raises(TypeError, match=missing):
        optimizer.update(params, state, params)
    with pytest.raises(ValueError, match=f"{row.name}: expected params"):
        optimizer.update(params, state, **row.extras(make_batch()))


@each_with_extra
def test_holes_in_the_parameters_are_named(row):
    params = parameters()
    only_heads = {"shared": False, "heads": True}
    optimizer = optax.masked(row.make(), only_heads)
    with pytest.raises(ValueError, match=f"{row.name}: expected whole params.*mask="):
        optimizer.update(params, optimizer.init(params), params, **row.extras(make_batch()))


@each_row
def test_the_parameters_are_left_as_they_were(row):
    optimizer = row.make()
    params, before = parameters(), parameters()
    optimizer.update(params, optimizer.init(params), params, **row.extras(make_batch()))
    chex.assert_trees_all_equal(params, before)
