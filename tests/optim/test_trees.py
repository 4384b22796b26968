# SPDX-License-Identifier: Apache-2.0
"""Norms, masks and checks that the transforms share."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from xloss.optim import trees

measure = jax.jit(trees.norm_and_unit)


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30, 6e37])
def test_norm_and_unit_neither_overflow_nor_vanish(scale):
    norm, unit = measure({"a": jnp.array([3.0 * scale]), "b": jnp.array([[0.0, -4.0 * scale]])})
    np.testing.assert_allclose(norm, 5.0 * scale, rtol=1e-6)
    np.testing.assert_allclose(unit["a"], [0.6], rtol=1e-6)
    np.testing.assert_allclose(unit["b"], [[0.0, -0.8]], rtol=1e-6)


def test_a_zero_or_subnormal_tree_has_a_finite_direction():
    for tiny in (0.0, 1e-44):
        norm, unit = measure({"a": jnp.array([tiny, 0.0])})
        assert float(norm) <= 1e-43
        assert np.isfinite(unit["a"]).all() and float(jnp.max(unit["a"])) <= 1.0 + 1e-6
    norm, unit = trees.norm_and_unit({"a": jnp.zeros([0, 3])})
    assert float(norm) == 0.0 and unit["a"].shape == (0, 3)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_stays_loud(bad):
    norm, unit = measure({"a": jnp.array([bad, 1.0])})
    assert not np.isfinite(norm)
    assert np.isnan(unit["a"]).any()


def test_norms_of_low_precision_trees_are_float32_and_of_double_trees_float64(x64):
    low = {"a": jnp.ones(4096, jnp.bfloat16)}
    norm, unit = trees.norm_and_unit(low)
    assert norm.dtype == unit["a"].dtype == jnp.float32
    assert float(norm) == 64.0
    norm, unit = trees.norm_and_unit(low | {"b": jnp.ones(1, jnp.float64)})
    assert norm.dtype == unit["a"].dtype == jnp.float64


def test_a_mask_may_be_a_prefix_or_a_function():
    params = {"body": {"w": jnp.ones(2), "b": jnp.ones(1)}, "head": jnp.ones(3)}
    for mask in ({"body": True, "head": False}, lambda p: {"body": True, "head": "x" in p}):
        found = trees.select(params, mask, params)
        np.testing.assert_array_equal(found["body"]["w"], 1.0)
        np.testing.assert_array_equal(found["head"], 0.0)
    assert trees.select(params, None, params) is params
