# SPDX-License-Identifier: Apache-2.0
"""FRUGAL at the edges: rounding, zeros, dtypes, wrappers and wrong arguments."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.invariants.test_frugal import GRADIENTS, KEY, LR, PARAMS, SPLITS, make
from xloss import optim

RNG = np.random.default_rng(1)


def test_svd_takes_no_sign_step_along_rounding():
    """A gradient of rank 1 lies in the two directions that are kept: nothing is left."""
    w = jnp.asarray(RNG.normal(size=(12, 7)), jnp.float32)
    gradient = jnp.asarray(np.outer(RNG.normal(size=12), RNG.normal(size=7)), jnp.float32)
    for shape in ((12, 7), (7, 12)):
        g = gradient.reshape(12, 7) if shape == (12, 7) else gradient.T
        updates = {}
        for rule in ("sign", "none"):
            tx = make(split="svd", projectable=True, density=0.3, state_free=rule)
            updates[rule], state = jax.jit(tx.update)(g, tx.init(g), w.reshape(shape))
            assert state.projected_mu.shape == ((12, 2) if shape == (12, 7) else (2, 12))
        np.testing.assert_array_equal(updates["sign"], updates["none"])


def test_svd_with_all_directions_leaves_nothing():
    g = jnp.asarray(RNG.normal(size=(6, 4)), jnp.float32)
    found = []
    for rule in ("sign", "none"):
        tx = make(split="svd", projectable=True, density=1.0, state_free=rule)
        found.append(jax.jit(tx.update)(g, tx.init(g), g)[0])
    np.testing.assert_array_equal(*found)


@pytest.mark.parametrize("split", SPLITS)
def test_a_zero_entry_takes_no_step_and_stacked_leaves_work(split):
    g = jnp.asarray(RNG.normal(size=(3, 4, 6)), jnp.float32).at[1].set(0.0)
    tx = make(split=split, projectable=True)
    updates, state = jax.jit(lambda g: tx.update(g, tx.init(g), g))(g)
    assert updates.shape == g.shape and not updates[1].any()
    (mu,) = jax.tree.leaves(state.projected_mu) or [None]
    expected = {
        "columns": (3, 4, 3),
        "rows": (3, 2, 6),
        "entries": (36,),
        "svd": (3, 2, 6),
    }
    assert split == "block" or mu.shape == expected[split]


def test_bfloat16_parameters_have_float32_moments_and_bfloat16_updates():
    params = jax.tree.map(lambda w: w.astype(jnp.bfloat16), PARAMS)
    for split in SPLITS:
        tx = make(split=split)
        updates, state = jax.jit(tx.update)(params, tx.init(params), params)
        assert {x.dtype for x in jax.tree.leaves(updates)} == {jnp.dtype(jnp.bfloat16)}
        moments = (state.mu, state.nu, state.projected_mu, state.projected_nu)
        assert {x.dtype for x in jax.tree.leaves(moments)} == {jnp.dtype(jnp.float32)}
    mixed, _ = jax.jit(tx.update)(PARAMS, tx.init(params), params)  # float32 gradients
    assert jax.tree.leaves(mixed)[0].dtype == jnp.bfloat16


def test_schedules_are_read_at_the_step_and_nan_is_loud():
    tx = optim.frugal(
        lambda step: 0.1 / (step.astype(float) + 1), projectable=True, density=0.0, key=KEY
    )
    update, w = jax.jit(tx.update), jnp.ones((2, 2))
    updates, state = update(w, tx.init(w), w)
    later, _ = update(w.at[0, 0].set(jnp.nan), state, w)
    np.testing.assert_allclose(updates, -LR, rtol=1e-6)
    np.testing.assert_allclose(later[1], -LR / 2, rtol=1e-6)
    assert jnp.isnan(later[0, 0]) and jnp.isfinite(later).sum() == 3
    full = make(projectable=True, density=1.0)
    update = jax.jit(full.update)
    for bad in (jnp.nan, jnp.inf):
        updates, _ = update(w.at[0, 0].set(bad), full.init(w), w)
        assert jnp.isnan(updates[0, 0]) and jnp.isfinite(updates).sum() == 3


def test_a_huge_gradient_is_a_sign_and_not_nothing():
    tx = make(projectable=True, density=1.0)
    w = jnp.full((2, 2), 1e30)
    updates, state = tx.update(w, tx.init(w), w)
    np.testing.assert_allclose(updates, -LR, rtol=1e-3)
    assert all(jnp.isfinite(x).all() for x in jax.tree.leaves(state))


def test_holes_of_masked_and_partition_are_leaves_that_are_not_there():
    labels = {"a": "frugal", "b": "frugal", "c": "sgd"}
    optimizer = optax.partition({"frugal": make(), "sgd": optax.sgd(LR)}, labels)
    updates, _ = jax.jit(optimizer.update)(GRADIENTS[0], optimizer.init(PARAMS), PARAMS)
    np.testing.assert_allclose(updates["c"]["kernel"], -LR * GRADIENTS[0]["c"]["kernel"], rtol=1e-6)


def test_kernels_of_jax_split_by_rows_are_weights_of_torch_split_by_columns():
    w = jnp.asarray(RNG.normal(size=(6, 4)), jnp.float32)
    rows, columns = make(split="rows", projectable=True), make(projectable=True)
    mine, _ = jax.jit(rows.update)(jnp.sin(3 * w), rows.init(w), w)
    theirs, _ = jax.jit(columns.update)(jnp.sin(3 * w.T), columns.init(w.T), w.T)
    np.testing.assert_allclose(mine, theirs.T, rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"density": 1.5}, ValueError, r"expected density in \[0, 1\], got 1.5"),
        ({"density": jnp.float32(0.5)}, TypeError, "expected density a Python number"),
        ({"update_gap": 0}, ValueError, "expected update_gap an integer >= 1, got 0"),
        ({"update_gap": 2.0}, ValueError, "expected update_gap an integer >= 1, got 2.0"),
        ({"split": "column"}, ValueError, "expected split to be one of"),
        ({"order": "shuffled"}, ValueError, "expected order to be one of"),
        ({"state_free": "no"}, ValueError, "expected state_free to be one of"),
        ({"state_free_scale": -1.0}, ValueError, "expected state_free_scale in"),
        ({"b1": 1.0}, ValueError, r"expected b1 in \[0, 1\), got 1"),
        ({"weight_decay": "no"}, TypeError, "expected weight_decay to be a number"),
        ({"split": "block", "reset": False}, ValueError, "expected reset=True with split='block'"),
        ({"key": None}, TypeError, "expected key to draw columns from, got None"),
        ({"key": 0}, TypeError, "expected key to be a PRNG key, got 0"),
        ({"split": "block", "key": None}, TypeError, "expected key to draw block from, got None"),
    ],
)
def test_static_mistakes_are_named(options, error, message):
    with pytest.raises(error, match=f"frugal: {message}"):
        make(**options)


def test_mistakes_about_leaves_are_named():
    with pytest.raises(ValueError, match="projectable to choose at least one leaf, got none"):
        make(projectable=lambda path: False).init(PARAMS)
    with pytest.raises(ValueError, match=r"2 axes.*split='rows', got float32\[8\] at 'a/bias'"):
        make(projectable=True, split="rows").init(PARAMS)
    with pytest.raises(TypeError, match=r"float dtype, got int32\[2\] at 'x'"):
        make(projectable=True).init({"x": jnp.zeros(2, jnp.int32)})
    with pytest.raises(TypeError, match="expected bools from projectable"):
        make(projectable={"a": 1, "b": True, "c": True}).init(PARAMS)
    huge = jax.ShapeDtypeStruct((2**16, 2**15), jnp.float32)
    with pytest.raises(ValueError, match=r"less than 2\*\*31 entries.*'entries'"):
        jax.eval_shape(make(projectable=True, split="entries").init, huge)
    tx = make()
    with pytest.raises(ValueError, match="frugal: expected params in update"):
        tx.update(PARAMS, tx.init(PARAMS))
    make(split="svd", key=None).init(PARAMS)  # need no key
    make(split="block", order="mirror", key=None).init(PARAMS)


def test_hyperparameters_have_the_published_defaults():
    defaults = {n: p.default for n, p in inspect.signature(optim.frugal).parameters.items()}
    assert (defaults["density"], defaults["update_gap"], defaults["eps"]) == (0.25, 200, 1e-8)
    assert (defaults["b1"], defaults["b2"], defaults["weight_decay"]) == (0.9, 0.999, 0.0)
    assert (defaults["state_free"], defaults["state_free_scale"]) == ("sign", 1.0)
