# SPDX-License-Identifier: Apache-2.0
"""Heads whose classes are spread over devices: the same numbers, and what is exchanged."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from tests.xloss.test_heads import FIELDS, WIDTH, mixed, problem
from xloss.classification import comp_sum, cross_entropy
from xloss.heads import linear_mean_loss, linear_statistics

TOKENS, CLASSES = 24, 60


def mesh_of(data, model):
    return jax.make_mesh((data, model), ("data", "model"), axis_types=(AxisType.Auto,) * 2)


def placed(mesh, h, w, b, labels):
    def put(x, *spec):
        return jax.device_put(x, NamedSharding(mesh, P(*spec)))

    return put(h, "data"), put(w, None, "model"), put(b, "model"), put(labels, "data")


def objective(h, w, b, labels, **where_classes):
    stats = linear_statistics(h, w, labels, bias=b, soft_cap=3.0, **where_classes)
    loss_args = {"tau": 0.7}
    fast = linear_mean_loss(
        h, w, labels, bias=b, loss=comp_sum, loss_args=loss_args, **where_classes
    )
    return mixed(stats) + fast


def value_and_gradient(**where_classes):
    def call(*arrays):
        return objective(*arrays, **where_classes)

    return jax.jit(jax.value_and_grad(call, argnums=(0, 1, 2)))


def assert_same(mine, theirs):
    for a, b in zip(jax.tree.leaves(mine), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("shape", [(1, 4), (2, 4), (4, 1)])
def test_under_jit_classes_over_devices_give_the_same_gradients(shape, x64):
    arrays = problem(TOKENS, CLASSES)
    mesh = mesh_of(*shape)
    found = value_and_gradient(mesh=mesh, class_axis="model")(*placed(mesh, *arrays))
    assert_same(found, value_and_gradient()(*arrays))


@pytest.mark.parametrize("tokens", [TOKENS, TOKENS - 3])
def test_tokens_over_devices_give_the_same_mean_and_gradients(tokens, x64):
    h, w, b, labels = problem(tokens, CLASSES)
    rng = np.random.default_rng(5)
    weights = jnp.asarray(rng.uniform(0.5, 2.0, tokens))
    where, tau = jnp.asarray(rng.uniform(size=tokens) > 0.3), jnp.asarray(0.7)

    def call(mesh):
        def mean(h, w, b, weights, tau):
            return linear_mean_loss(
                h, w, labels, loss=comp_sum, loss_args={"tau": tau}, bias=b, weights=weights,
                where=where, mesh=mesh, max_temp_bytes=40_000,
            )  # fmt: skip

        return jax.jit(jax.value_and_grad(mean, argnums=(0, 1, 2, 3, 4)))(h, w, b, weights, tau)

    assert_same(call(mesh_of(4, 2)), call(None))


def test_the_fast_door_sums_the_gradient_over_devices_once_and_not_once_a_chunk():
    mesh, tokens, width, classes = mesh_of(8, 1), 2048, 16, 1000

    def mean(h, w, labels):
        return linear_mean_loss(h, w, labels, loss=cross_entropy, mesh=mesh)

    by_token = NamedSharding(mesh, P("data"))
    program = (
        jax.jit(jax.value_and_grad(mean, argnums=(0, 1)))
        .lower(
            jax.ShapeDtypeStruct((tokens, width), jnp.float32, sharding=by_token),
            jax.ShapeDtypeStruct((width, classes), jnp.float32),
            jax.ShapeDtypeStruct((tokens,), jnp.int32, sharding=by_token),
        )
        .compile()
    )
    reduced, others = exchanged(program)
    assert others == []
    assert reduced == 4 * (width * classes + 1)
    for line in (program.as_text() or "").splitlines():
        assert " all-reduce(" not in line or "while" not in line.partition("op_name=")[2]


@pytest.mark.parametrize("padding", [3, 19])  # the last device has nothing but padding
def test_classes_that_do_not_divide_are_padded_and_padding_never_enters(padding, x64):
    h, w, b, labels = problem(TOKENS, 57)
    pad = jnp.full((WIDTH, padding), jnp.nan)
    wide, long = jnp.concatenate([w, pad], 1), jnp.concatenate([b, jnp.full(padding, jnp.nan)])
    mesh = mesh_of(2, 4)
    options = {"mesh": mesh, "class_axis": "model", "num_classes": 57}
    value, (dh, dw, db) = value_and_gradient(**options)(*placed(mesh, h, wide, long, labels))
    assert_same((value, (dh, dw[:, :57], db[:57])), value_and_gradient()(h, w, b, labels))
    np.testing.assert_array_equal(dw[:, 57:], 0.0)
    with pytest.raises(ValueError, match="divide over the 4 devices"):
        linear_statistics(h, w, labels, mesh=mesh, class_axis="model")


def test_inside_shard_map_both_doors_give_the_same_gradients(x64):
    arrays = problem(TOKENS, CLASSES)
    mesh = mesh_of(2, 4)

    def local(h, w, b, labels):
        stats = linear_statistics(h, w, labels, bias=b, class_axis="model")
        fast = linear_mean_loss(
            h, w, labels, bias=b, loss=cross_entropy, class_axis="model", axis_name="data"
        )
        fields = jnp.stack([getattr(stats, name) for name in FIELDS])
        return fields, fast

    spread = jax.shard_map(
        local,
        mesh=mesh,
        in_specs=(P("data"), P(None, "model"), P("model"), P("data")),
        out_specs=(P(None, "data"), P()),
    )

    def whole(h, w, b, labels):
        stats = linear_statistics(h, w, labels, bias=b)
        fast = linear_mean_loss(h, w, labels, bias=b, loss=cross_entropy)
        return jnp.stack([getattr(stats, name) for name in FIELDS]), fast

    weights = jnp.asarray(np.random.default_rng(3).normal(size=(len(FIELDS), TOKENS)))

    def scalar(function):
        def call(*arrays):
            fields, fast = function(*arrays)
            return jnp.sum(weights * jnp.sin(fields)) + fast

        return jax.jit(jax.value_and_grad(call, argnums=(0, 1, 2)))

    assert_same(scalar(spread)(*arrays), scalar(whole)(*arrays))
    with pytest.raises(ValueError, match="check_vma=True"):
        jax.shard_map(
            lambda h, w, labels: linear_statistics(h, w, labels, class_axis="model").log_odds,
            mesh=mesh, in_specs=(P(), P(None, "model"), P()), out_specs=P(), check_vma=False,
        )(arrays[0], arrays[1], arrays[3])  # fmt: skip


def test_hessian_vector_products_are_exact_over_devices(x64):
    arrays = problem(TOKENS, CLASSES)
    mesh = mesh_of(1, 4)

    def product(h, w, b, labels, **options):
        def gradient(h, w):
            return jax.grad(lambda h, w: objective(h, w, b, labels, **options), (0, 1))(h, w)

        return jax.jvp(gradient, (h, w), (jnp.cos(h), jnp.sin(w)))[1]

    spread = jax.jit(lambda *a: product(*a, mesh=mesh, class_axis="model"))
    found = spread(*placed(mesh, *arrays))
    assert_same(found, jax.jit(product)(*arrays))


def exchanged(program):
    """(bytes all-reduced, names of other collectives) of a compiled program."""
    text, sizes = program.as_text(), {"f32": 4, "s32": 4, "pred": 1}
    total = 0
    for result in re.findall(r"= (.*?) all-reduce(?:-start)?\(", text):
        for dtype, dims in re.findall(r"(\w+)\[([\d,]*)\]", result):
            total += sizes[dtype] * int(np.prod([int(x) for x in dims.split(",") if x]))
    return total, re.findall(r" (all-gather|all-to-all|collective-permute|reduce-scatter)", text)


@pytest.mark.parametrize(
    ("fields", "numbers"), [(("log_odds",), 3), (("log_odds", "centred", "variance", "target"), 5)]
)
def test_devices_exchange_one_maximum_and_the_sums_that_are_used(fields, numbers):
    tokens, width, classes = 64, 32, 4000
    mesh = mesh_of(1, 4)

    def loss(h, w, labels):
        stats = linear_statistics(h, w, labels, mesh=mesh, class_axis="model")
        return sum(jnp.mean(jnp.sin(getattr(stats, name))) for name in fields)

    def struct(shape, dtype, *spec):
        return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, P(*spec)))

    program = (
        jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))
        .lower(
            struct((tokens, width), jnp.float32),
            struct((width, classes), jnp.float32, None, "model"),
            struct((tokens,), jnp.int32),
        )
        .compile()
    )
    reduced, others = exchanged(program)
    assert others == []
    assert reduced <= 4 * (numbers * tokens + tokens * width)


def test_bfloat16_under_jit_is_summed_over_devices_in_float32():
    arrays = problem(TOKENS, CLASSES)
    h, w, _, labels = placed(mesh_of(2, 4), *arrays)
    h, w = h.astype(jnp.bfloat16), w.astype(jnp.bfloat16)

    def loss(h, w, **where_classes):
        return jnp.mean(-linear_statistics(h, w, labels, **where_classes).log_prob)

    gradient = jax.jit(jax.grad(loss, argnums=(0, 1)), static_argnames=("mesh", "class_axis"))
    spread = gradient(h, w, mesh=mesh_of(2, 4), class_axis="model")
    for mine, theirs in zip(spread, gradient(h, w), strict=True):
        assert mine.dtype == jnp.bfloat16
        np.testing.assert_allclose(
            mine.astype(jnp.float32), theirs.astype(jnp.float32), rtol=0.02, atol=2e-4
        )
