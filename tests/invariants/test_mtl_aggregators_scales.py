# SPDX-License-Identifier: Apache-2.0
"""Aggregators that look at angles: lengths any factor apart, NaN, leaves of several dtypes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from xloss.optim import aggregators

#: Cosine -1 / sqrt(10); the square of the second vanishes beside that of the first.
FAR_APART = jnp.array([[1.0, -1.0], [1e-25, 2e-25]])


def test_conflict_sees_the_angle_of_gradients_of_any_lengths():
    found = aggregators.conflict(FAR_APART)
    np.testing.assert_allclose(found.cosines[0, 1], -(0.1**0.5), rtol=1e-6)
    np.testing.assert_allclose(found.similarities[0, 1], 2e-25 * 2.5**0.5, rtol=1e-5)
    assert float(found.rate) == 1.0
    # A ratio that no float32 holds, and a gradient of 0 beside it.
    found = aggregators.conflict(jnp.array([[1e30, -1e30], [1e-30, 2e-30], [0.0, 0.0]]))
    np.testing.assert_allclose(found.cosines[0, 1], -(0.1**0.5), rtol=1e-6)
    np.testing.assert_array_equal(found.similarities, np.diag([1.0, 1.0, 0.0]))
    np.testing.assert_allclose(found.rate, 1 / 3, rtol=1e-6)


def test_db_mtl_brings_the_shortest_gradient_to_full_length():
    direction, weights = aggregators.db_mtl(FAR_APART, eps=0.0)
    np.testing.assert_allclose(direction, [1 + 0.4**0.5, -1 + 2 * 0.4**0.5], rtol=1e-5)
    np.testing.assert_allclose(weights, [1.0, 1e25 * 0.4**0.5], rtol=1e-5)


def test_upgrad_spares_the_shortest_gradient_too():
    # P of the first is (0.6, -0.3) * 2; what is left of the second is not seen beside it.
    direction, weights = aggregators.upgrad(FAR_APART)
    np.testing.assert_allclose(direction, [0.6, -0.3], rtol=1e-5)
    assert float(weights[1]) > 1e23
    # Where a float32 cannot hold the weight the direction is finite all the same.
    direction, _ = aggregators.upgrad(jnp.array([[1e30, -1e30], [1e-30, 2e-30]]))
    assert np.all(np.isfinite(direction))


def test_the_greatest_floats_are_no_gradients_of_0():
    huge = jnp.array([[2e38, -1e38], [-2e38, 2e38]])
    found, small = aggregators.conflict(huge), aggregators.conflict(huge / 1e20)
    np.testing.assert_allclose(found.cosines, small.cosines, rtol=1e-6)
    assert float(found.cosines[0, 1]) < -0.9
    direction, _ = aggregators.upgrad(huge)
    np.testing.assert_allclose(direction, aggregators.upgrad(huge / 1e20)[0] * 1e20, rtol=1e-4)


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf])
@pytest.mark.parametrize("name", ["db_mtl", "upgrad"])
def test_nan_in_a_gradient_is_not_taken_for_a_gradient_of_0(name, bad):
    grads = jnp.array([[1.0, bad], [1.0, 2.0]])
    direction, weights = getattr(aggregators, name)(grads)
    assert np.all(np.isnan(direction)) and np.all(np.isnan(weights))


def test_nan_in_a_gradient_is_no_absence_of_conflict():
    found = aggregators.conflict(jnp.array([[1.0, jnp.nan], [1.0, 2.0]]))
    assert np.isnan(found.rate) and np.isnan(found.cosines[0, 1])


def test_leaves_of_two_dtypes(x64):
    grads = {
        "narrow": jnp.array([[1.0, -1.0], [2.0, 1.0]], jnp.float32),
        "wide": jnp.array([[3.0], [-1.0]], jnp.float64),
    }
    for name in ("graddrop", "db_mtl", "upgrad"):
        direction, weights = getattr(aggregators, name)(grads, key=jax.random.key(0))
        assert direction["narrow"].dtype == jnp.float32 and weights.dtype == jnp.float64
    assert aggregators.conflict(grads).rate.dtype == jnp.float64
