# SPDX-License-Identifier: Apache-2.0
"""What a step of the O(d^2) layer costs, read off the compiled program, and where its state lives.

Nothing of the big sizes is run.
"""

import functools
import os
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from xloss import heads
from xloss.classification import z_loss

WIDTH, BATCH = 256, 128

#: `make test` turns these off where XLA knows them, and a scatter becomes a loop of its own.
EMITTERS = "xla_cpu_use_fusion_emitters"


def step(state, hidden, labels, rate=1.0):
    return heads.spherical_step(
        state, hidden, labels, loss=z_loss, learning_rate=rate, loss_args={"a": 0.5, "b": 10.0}
    )


def shapes(classes, width=WIDTH, batch=BATCH):
    kernel = jax.ShapeDtypeStruct((width, classes), jnp.float32)
    state = jax.eval_shape(heads.spherical_init, kernel)
    hidden = jax.ShapeDtypeStruct((batch, width), jnp.float32)
    return state, hidden, jax.ShapeDtypeStruct((batch,), jnp.int32)


@functools.cache
def program(classes, width=WIDTH, batch=BATCH):
    lowered = jax.jit(step, donate_argnums=0).lower(*shapes(classes, width, batch))
    return lowered.compile({EMITTERS: True} if EMITTERS in os.environ["XLA_FLAGS"] else None)


def flops(compiled):
    return compiled.cost_analysis()["flops"]


@pytest.mark.parametrize("size", [(793_471, 256, 128), (100_000, 512, 128)], ids=str)
def test_big_array_is_updated_in_place_with_small_temporaries(size):
    classes, width, batch = size
    memory = program(*size).memory_analysis()
    assert memory.alias_size_in_bytes >= 4 * classes * width
    assert memory.temp_size_in_bytes <= 4 * (6 * width**2 + 16 * batch * width)
    # rows as argument and as result of its scatter, and nothing else of its size
    made = re.findall(rf"= f32\[{classes},{width}\]\S* (\S+?)\(", program(*size).as_text())
    assert set(made) <= {"parameter", "scatter", "fusion"} and made.count("scatter") == 1
    assert made.count("fusion") <= 1
    assert not re.search(rf"\[{batch},{classes}\]|\[{classes},{batch}\]", program(*size).as_text())


def test_the_step_does_the_same_work_for_a_hundred_times_the_classes():
    small, large = program(10_000), program(1_000_000)
    assert flops(small) == flops(large) <= 20 * BATCH * WIDTH**2
    assert small.memory_analysis().temp_size_in_bytes == large.memory_analysis().temp_size_in_bytes


def test_large_batches_and_wide_layers_stay_within_their_share():
    batch, width = 512, 64
    wide = program(50_000, width, batch)
    assert flops(wide) <= 20 * batch * width**2 + batch**3
    assert wide.memory_analysis().temp_size_in_bytes <= 4 * 16 * batch * (width + batch)


def scan(state, batches):
    def body(state, batch):
        losses, _, state = step(state, *batch)
        return state, jnp.sum(losses)

    return jax.lax.scan(body, state, batches)


def test_a_scan_over_steps_keeps_the_big_array_in_place():
    state, hidden, labels = shapes(793_471)
    many = jax.tree.map(lambda x: jax.ShapeDtypeStruct((10, *x.shape), x.dtype), (hidden, labels))
    memory = jax.jit(scan, donate_argnums=0).lower(state, many).compile().memory_analysis()
    assert memory.alias_size_in_bytes >= 4 * 793_471 * WIDTH
    assert memory.temp_size_in_bytes <= 4 * (10 * WIDTH**2 + 16 * BATCH * WIDTH)


def sharded(state, mesh):
    everywhere = NamedSharding(mesh, PartitionSpec())
    placed = jax.tree.map(lambda _: everywhere, state)
    return placed._replace(rows=NamedSharding(mesh, PartitionSpec("rows", None))), everywhere


def collectives(compiled):
    pattern = r"= (\S+) (all-\w+|collective-\w+|reduce-scatter)(?:-start)?\("
    return re.findall(pattern, compiled.as_text())


def test_rows_over_four_devices_need_one_reduction_of_the_gathered_rows():
    mesh = Mesh(np.array(jax.devices()[:4]), ("rows",))
    state, hidden, labels = shapes(100_000)
    placed, everywhere = sharded(state, mesh)
    arguments = jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
        (state, hidden, labels),
        (placed, everywhere, everywhere),
    )
    compiled = jax.jit(step, donate_argnums=0).lower(*arguments).compile()
    found = collectives(compiled)
    assert [kind for _, kind in found] == ["all-reduce"]
    size = np.prod([int(n) for n in re.search(r"\[([\d,]+)\]", found[0][0])[1].split(",")])
    assert size == BATCH * WIDTH
    assert compiled.output_shardings[2].rows.spec == PartitionSpec("rows", None)
    assert compiled.memory_analysis().alias_size_in_bytes >= 100_000 * WIDTH  # its quarter
    stabilise = jax.jit(heads.spherical_stabilize, donate_argnums=0).lower(arguments[0])
    assert collectives(stabilise.compile()) == []


KERNEL = np.random.default_rng(0).normal(size=(8, 40)).astype(np.float32)
HIDDEN = np.random.default_rng(1).normal(size=(5, 4, 8)).astype(np.float32)
LABELS = np.random.default_rng(2).integers(0, 40, (5, 4)).astype(np.int32)


def test_sharded_rows_give_the_same_layer():
    mesh = Mesh(np.array(jax.devices()[:4]), ("rows",))
    state = heads.spherical_init(KERNEL)
    wanted, losses = jax.jit(scan)(state, (HIDDEN, LABELS))
    placed = jax.device_put(state, sharded(state, mesh)[0])
    found, same = jax.jit(scan)(placed, (HIDDEN, LABELS))
    assert found.rows.sharding.spec == PartitionSpec("rows", None)
    np.testing.assert_allclose(same, losses, rtol=1e-6)
    for x, y in zip(found, wanted, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)


def test_eager_steps_donate_the_state_but_never_the_callers_kernel():
    kernel = jnp.asarray(KERNEL)
    state = heads.spherical_init(kernel)
    place = state.rows.unsafe_buffer_pointer()
    losses, _, after = step(state, HIDDEN[0], LABELS[0])
    assert after.rows.unsafe_buffer_pointer() == place and state.rows.is_deleted()
    np.testing.assert_array_equal(kernel, KERNEL)
    wanted = jax.jit(step)(heads.spherical_init(kernel), HIDDEN[0], LABELS[0])
    np.testing.assert_allclose(losses, wanted[0], rtol=1e-6)
    stabilised = heads.spherical_stabilize(after)
    assert after.rows.is_deleted() and not stabilised.rows.is_deleted()


def test_one_trace_serves_every_rate():
    count = 0

    @jax.jit
    def counted(state, rate):
        nonlocal count
        count += 1
        return step(state, HIDDEN[0], LABELS[0], rate)[2]

    state = heads.spherical_init(KERNEL)
    for rate in (0.1, 0.2, 1.0):
        state = counted(state, rate)
    assert count == 1


def test_state_is_a_tree_of_arrays_and_resumes_bit_for_bit():
    run = jax.jit(scan)
    state = heads.spherical_init(KERNEL)
    whole, _ = run(run(state, (HIDDEN, LABELS))[0], (HIDDEN, LABELS))
    half = run(state, (HIDDEN, LABELS))[0]
    leaves, tree = jax.tree.flatten(half)
    assert all(isinstance(leaf, jax.Array) for leaf in leaves)
    stored = [np.array(leaf) for leaf in leaves]
    resumed, _ = run(jax.tree.unflatten(tree, map(jnp.asarray, stored)), (HIDDEN, LABELS))
    for x, y in zip(resumed, whole, strict=True):
        np.testing.assert_array_equal(x, y)


def test_it_trains_a_network_beside_an_optax_optimizer():
    rng = np.random.default_rng(5)
    inputs = rng.normal(size=(64, 6)).astype(np.float32)
    labels = np.argmax(inputs, axis=1) + 6 * (inputs[:, 0] > 0)
    optimizer = optax.sgd(0.02, momentum=0.9)

    def body(carry, _):
        weights, moments, state = carry
        hidden, pull = jax.vjp(lambda w: jnp.tanh(inputs @ w), weights)
        losses, gradient, state = step(state, hidden, labels, 3.0)
        updates, moments = optimizer.update(pull(gradient)[0], moments, weights)
        return (optax.apply_updates(weights, updates), moments, state), jnp.mean(losses)

    def block(carry, _):
        (weights, moments, state), losses = jax.lax.scan(body, carry, length=20)
        return (weights, moments, heads.spherical_stabilize(state)), losses

    weights = jnp.asarray(rng.normal(size=(6, 8)), jnp.float32)
    carry = (weights, optimizer.init(weights), heads.spherical_init(KERNEL))
    carry, losses = jax.jit(lambda c: jax.lax.scan(block, c, length=10))(carry)
    state = heads.spherical_check(carry[2])
    assert losses[-1, -1] < losses[0, 0] - 1.0
    assert np.linalg.cond(state.mixing) <= 4.0
