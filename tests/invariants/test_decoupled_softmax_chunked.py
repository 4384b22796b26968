# SPDX-License-Identifier: Apache-2.0
"""Decoupled softmax in chunks of labels: the dense loss, at the memory of a chunk."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from tests.xloss.test_heads_sharded import exchanged
from xloss.classification import decoupled_softmax
from xloss.heads import chunked_decoupled_softmax

BATCH, WIDTH, LABELS, POSITIVES = 8, 5, 24, 4
COTANGENT = np.cos(np.arange(BATCH))


def problem(dtype=np.float64):
    rng = np.random.default_rng(0)
    query, kernel = (
        jnp.asarray(rng.normal(size=s).astype(dtype)) for s in ((BATCH, WIDTH), (WIDTH, LABELS))
    )
    ids = rng.integers(-1, LABELS, (BATCH, POSITIVES)).astype(np.int32)
    ids[1] = -1  # no label
    ids[2] = 7  # one, four times
    return query, kernel, ids


def multi_hot(ids):
    labels = np.zeros((len(ids), LABELS + 1), np.int32)
    np.put_along_axis(labels, np.where(ids < 0, LABELS, ids), 1, axis=-1)
    return labels[:, :LABELS]


def value_and_gradient(loss):
    def total(query, kernel, temperature):
        losses = loss(query, kernel, temperature)
        return jnp.sum(jnp.asarray(COTANGENT, losses.dtype) * losses), losses

    return jax.jit(jax.value_and_grad(total, argnums=(0, 1, 2), has_aux=True))


@functools.cache
def dense_result():
    query, kernel, ids = problem()
    dense = value_and_gradient(
        lambda q, w, t: decoupled_softmax(q @ w, multi_hot(ids), temperature=t)
    )
    return dense(query, kernel, jnp.asarray(0.3))


def assert_same(mine, theirs):
    for a, b in zip(jax.tree.leaves(mine), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("chunk", [1, 5, 8, 24, 100, None])
def test_every_chunk_size_gives_the_dense_losses_and_gradients(chunk, x64):
    query, kernel, ids = problem()
    run = value_and_gradient(
        lambda q, w, t: chunked_decoupled_softmax(q, w, ids, temperature=t, chunk_size=chunk)
    )
    assert_same(run(query, kernel, jnp.asarray(0.3)), dense_result())


@pytest.mark.parametrize("padding", [0, 4, 8])
def test_labels_over_four_devices_give_the_same(padding, x64):
    query, kernel, ids = problem()
    mesh = jax.make_mesh((2, 4), ("data", "model"), axis_types=(AxisType.Auto,) * 2)
    options = {"mesh": mesh, "class_axis": "model", "chunk_size": 5}
    options["num_classes"] = LABELS
    kernel = jnp.concatenate([kernel, jnp.full((WIDTH, padding), jnp.nan)], axis=1)
    run = value_and_gradient(
        lambda q, w, t: chunked_decoupled_softmax(q, w, ids, temperature=t, **options)
    )
    spread = jax.device_put(kernel, NamedSharding(mesh, P(None, "model")))
    found, (into_query, into_kernel, *rest) = run(query, spread, jnp.asarray(0.3))
    assert_same((found, (into_query, into_kernel[:, :LABELS], *rest)), dense_result())
    assert not np.any(into_kernel[:, LABELS:])


def test_devices_exchange_no_embeddings_and_no_scores():
    mesh = jax.make_mesh((4,), ("model",), axis_types=(AxisType.Auto,), devices=jax.devices()[:4])

    def mean(query, kernel, ids):
        return jnp.mean(chunked_decoupled_softmax(
            query, kernel, ids, mesh=mesh, class_axis="model", chunk_size=64))  # fmt: skip

    batch, width, labels = 16, 8, 4096
    program = (
        jax.jit(jax.value_and_grad(mean, argnums=(0, 1)))
        .lower(
            jax.ShapeDtypeStruct((batch, width), jnp.float32),
            jax.ShapeDtypeStruct(
                (width, labels), jnp.float32, sharding=NamedSharding(mesh, P(None, "model"))
            ),
            jax.ShapeDtypeStruct((batch, POSITIVES), jnp.int32),
        )
        .compile()
    )
    reduced, others = exchanged(program)
    assert others == []
    # A maximum, a sum, the labels' scores; the query's gradient from both.
    assert reduced <= 4 * (2 * batch + batch * POSITIVES + 2 * batch * width)


def test_memory_is_that_of_a_chunk_and_of_the_kernels_gradient():
    def temporaries(labels, batch, chunk):
        def mean(query, kernel, ids):
            return jnp.mean(chunked_decoupled_softmax(query, kernel, ids, chunk_size=chunk))

        shapes = ((batch, 64), jnp.float32), ((64, labels), jnp.float32), ((batch, 8), jnp.int32)
        arguments = [jax.ShapeDtypeStruct(*shape) for shape in shapes]
        program = jax.jit(jax.value_and_grad(mean, argnums=(0, 1))).lower(*arguments).compile()
        return program.memory_analysis().temp_size_in_bytes

    # 1e5 labels: the scores alone would be 205 MB; the kernel is 25.6.
    limit = 2.2 * 4 * 64 * 100_000 + 4 * 4 * 512 * 2048
    assert temporaries(100_000, 512, 2048) <= limit
    # No part of it is batch x labels.
    growth = temporaries(100_000, 512, 1024) - temporaries(100_000, 256, 1024)
    assert growth <= 8 * 256 * 1024 * 4


def test_masks_wrong_labels_and_low_precision():
    query, kernel, ids = problem(np.float32)
    where = np.arange(BATCH) != 3
    ids[4, 0] = LABELS
    query = query.at[3].set(jnp.nan)

    def losses(query, kernel):
        return chunked_decoupled_softmax(query, kernel, ids, where=where, chunk_size=7)

    found, pull = jax.vjp(losses, query, kernel)
    np.testing.assert_array_equal(np.isnan(found), np.arange(BATCH) == 4)
    assert found[1] == 0 and found[3] == 0
    into_query, into_kernel = pull(jnp.where(jnp.isnan(found), 0.0, 1.0))
    assert np.all(np.isfinite(into_kernel)) and not np.any(into_query[np.asarray([1, 3])])

    low = [x.astype(jnp.bfloat16) for x in (query, kernel)]
    rough, pull = jax.vjp(losses, *low)
    assert rough.dtype == jnp.float32 and all(x.dtype == jnp.bfloat16 for x in pull(rough * 0))
    np.testing.assert_allclose(rough, found, atol=0.1)

    nothing = chunked_decoupled_softmax(query, kernel, ids[:, :0], where=where)
    np.testing.assert_array_equal(nothing, 0.0)
    every = np.arange(LABELS)[None].repeat(BATCH, 0)
    value, pull = jax.vjp(lambda w: chunked_decoupled_softmax(query, w, every, where=where), kernel)
    assert not np.any(value) and not np.any(pull(jnp.ones_like(value))[0])


def test_bad_arguments_are_named():
    query, kernel, ids = problem(np.float32)
    for call, error, message in (
        (lambda: chunked_decoupled_softmax(query, kernel.T, ids), ValueError, "transpose it"),
        (lambda: chunked_decoupled_softmax(query, kernel, ids[:2]), ValueError, r"shape \(8, P\)"),
        (lambda: chunked_decoupled_softmax(query[0], kernel, ids), ValueError, "query of shape"),
        (lambda: chunked_decoupled_softmax(query, kernel, ids * 1.0), TypeError, "integer dtype"),
        (
            lambda: chunked_decoupled_softmax(query, kernel, ids, chunk_size=0),
            ValueError,
            "chunk_size to be an int >= 1",
        ),
    ):
        with pytest.raises(error, match=message):
            call()
