# SPDX-License-Identifier: Apache-2.0
"""xloss.reduce: weights, masks, emptiness, micro-batches and devices."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from tests.derivatives import check_derivatives
from xloss import reduce

LOSSES = jnp.array([[1.0, 2.0, 4.0], [8.0, 16.0, 32.0]])
WEIGHTS = jnp.array([[1.0, 0.0, 2.0], [0.5, 3.0, 1.0]])
WHERE = jnp.array([[True, True, False], [True, False, True]])


def test_mean_sum_and_weight():
    assert float(reduce(LOSSES)) == 63.0 / 6
    assert float(reduce(LOSSES, how="sum")) == 63.0
    total, weight = reduce(LOSSES, how="sum_and_weight")
    assert (float(total), float(weight)) == (63.0, 6.0)


def test_a_weighted_mean_divides_by_the_sum_of_the_weights():
    total, weight = float(jnp.sum(LOSSES * WEIGHTS)), float(jnp.sum(WEIGHTS))
    np.testing.assert_allclose(reduce(LOSSES, weights=WEIGHTS), total / weight, rtol=1e-6)
    np.testing.assert_allclose(reduce(LOSSES, weights=100 * WEIGHTS), total / weight, rtol=1e-6)
    assert float(reduce(LOSSES, weights=WEIGHTS, how="sum")) == total


def test_a_mask_removes_examples_from_numerator_and_denominator():
    dirty = jnp.where(WHERE, LOSSES, jnp.nan)
    assert float(reduce(dirty, where=WHERE)) == 43.0 / 4
    weighted = reduce(dirty, where=WHERE, weights=jnp.where(WHERE, WEIGHTS, jnp.nan))
    np.testing.assert_allclose(weighted, (1.0 + 4.0 + 32.0) / 2.5, rtol=1e-6)
    gradient = jax.grad(lambda x: reduce(x, where=WHERE))(dirty)
    np.testing.assert_array_equal(gradient, np.asarray(WHERE) * 0.25)


@pytest.mark.parametrize("how", ["mean", "sum"])
def test_nothing_left_is_zero_with_zero_gradient(how):
    nan, nothing = jnp.full(3, jnp.nan), jnp.zeros(3, jnp.bool_)
    value, gradient = jax.value_and_grad(lambda x: reduce(x, where=nothing, how=how))(nan)
    assert float(value) == 0.0
    np.testing.assert_array_equal(gradient, 0.0)
    value, gradient = jax.value_and_grad(lambda x: reduce(x, weights=jnp.zeros(3), how=how))(
        jnp.ones(3)
    )
    assert float(value) == 0.0
    np.testing.assert_array_equal(gradient, 0.0)
    assert float(reduce(jnp.zeros((0, 4)), how=how)) == 0.0


def test_micro_batches_add_up_to_the_full_batch():
    pairs = [
        reduce(LOSSES[i], where=WHERE[i], weights=WEIGHTS[i], how="sum_and_weight")
        for i in range(2)
    ]
    total, weight = jax.tree.map(lambda *parts: sum(parts), *pairs)
    np.testing.assert_allclose(
        total / weight, reduce(LOSSES, where=WHERE, weights=WEIGHTS), rtol=1e-6
    )
    # The mean of the means is another number, which is why there is a pair.
    means = [reduce(LOSSES[i], where=WHERE[i], weights=WEIGHTS[i]) for i in range(2)]
    assert abs(float(sum(means)) / 2 - float(total / weight)) > 1.0


def test_gradients_in_losses_and_weights(x64):
    losses, weights = (jnp.asarray(np.asarray(x), jnp.float64) for x in (LOSSES, WEIGHTS + 0.1))
    check_derivatives(lambda x, w: reduce(x, where=WHERE, weights=w), losses, weights)
    assert reduce(losses, weights=weights.astype(jnp.float32)).dtype == jnp.float64
    assert reduce(losses.astype(jnp.float32), weights=weights).dtype == jnp.float32


def test_low_precision_losses_accumulate_in_float32():
    losses = jnp.full(10_000, 0.1, jnp.bfloat16)
    mean = reduce(losses)
    assert mean.dtype == jnp.float32
    np.testing.assert_allclose(mean, float(losses[0]), rtol=1e-5)
    total, weight = reduce(losses, how="sum_and_weight")
    assert float(weight) == 10_000.0 and total.dtype == weight.dtype == jnp.float32
    assert jax.grad(lambda x: reduce(x))(losses).dtype == jnp.bfloat16


def test_scalars_and_host_values():
    assert float(reduce(jnp.float32(3.0))) == float(reduce(3.0)) == 3.0
    assert float(reduce(jnp.float32(3.0), where=jnp.asarray(False))) == 0.0
    assert float(reduce([1.0, 3.0], weights=[3.0, 1.0], where=[True, True])) == 1.5


def test_uneven_masks_over_eight_devices():
    rng = np.random.default_rng(0)
    losses = jnp.asarray(rng.normal(size=32).astype(np.float32))
    weights = jnp.asarray(rng.uniform(size=32).astype(np.float32))
    where = jnp.asarray(rng.random(32) < 0.4).at[4:8].set(False).at[8:12].set(True)
    expected, gradient = jax.value_and_grad(lambda x: reduce(x, where=where, weights=weights))(
        losses
    )
    for axis_type in (AxisType.Auto, AxisType.Explicit):
        mesh = jax.make_mesh((8,), ("data",), axis_types=(axis_type,))
        spread = jax.device_put((losses, weights, where), NamedSharding(mesh, P("data")))

        def local(x, w, keep):
            return reduce(x, weights=w, where=keep, axis_name="data")

        mapped = jax.shard_map(local, mesh=mesh, in_specs=(P("data"),) * 3, out_specs=P())
        found = jax.jit(jax.value_and_grad(mapped))(*spread)
        chex.assert_trees_all_close(found, (expected, gradient), rtol=1e-5, atol=1e-7)

        whole = jax.jit(lambda x, w, keep: reduce(x, weights=w, where=keep))(*spread)
        np.testing.assert_allclose(whole, expected, rtol=1e-5)


def test_devices_without_a_valid_example_and_none_at_all():
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    mapped = jax.jit(
        jax.shard_map(
            lambda x, keep: reduce(x, where=keep, how="sum_and_weight", axis_name="data"),
            mesh=mesh,
            in_specs=(P("data"),) * 2,
            out_specs=P(),
        )
    )
    total, weight = mapped(jnp.full(8, 5.0), jnp.arange(8) == 3)
    assert (float(total), float(weight)) == (5.0, 1.0)
    total, weight = mapped(jnp.full(8, jnp.nan), jnp.zeros(8, jnp.bool_))
    assert (float(total), float(weight)) == (0.0, 0.0)


def test_axis_name_of_a_vmap():
    mapped = jax.vmap(lambda x: reduce(x, axis_name="rows"), axis_name="rows")
    np.testing.assert_allclose(mapped(LOSSES), 63.0 / 6)


def test_wrong_calls_are_refused():
    with pytest.raises(TypeError, match="expected losses of a float dtype, got int32"):
        reduce(jnp.ones(3, jnp.int32))
    with pytest.raises(ValueError, match=r"expected weights of shape \(2, 3\), got \(3,\)"):
        reduce(LOSSES, weights=jnp.ones(3))
    with pytest.raises(TypeError, match="expected weights of a float dtype, got bool"):
        reduce(LOSSES, weights=WHERE)
    with pytest.raises(TypeError, match="expected where of dtype bool, got float32"):
        reduce(LOSSES, where=WEIGHTS)
    with pytest.raises(ValueError, match=r"expected where of shape \(2, 3\), got \(2, 1\)"):
        reduce(LOSSES, where=WHERE[:, :1])
    with pytest.raises(ValueError, match="expected how to be one of .*, got 'none'"):
        reduce(LOSSES, how="none")
