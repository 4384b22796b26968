# SPDX-License-Identifier: Apache-2.0
"""Streaming top-k and rank against the dense ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from xloss.heads import linear_rank, linear_top_k

WIDTH = 5


def problem(tokens, classes, ties=False, seed=0):
    rng = np.random.default_rng(seed)

    def draw(*shape):
        values = rng.integers(-1, 2, shape) if ties else rng.normal(size=shape)
        return jnp.asarray(values.astype(np.float32))

    labels = jnp.asarray(rng.integers(0, classes, tokens), jnp.int32)
    return draw(tokens, WIDTH), draw(WIDTH, classes), draw(classes), labels


def dense_rank(logits, labels):
    order = np.argsort(-np.asarray(logits, np.float64), axis=-1, kind="stable")
    return np.argmax(order == np.asarray(labels)[:, None], axis=-1)


@pytest.mark.parametrize(
    ("tokens", "classes", "k", "ties", "budget"),
    [
        (4, 1, 1, False, None),
        (4, 7, 7, True, None),
        (140, 1000, 5, False, 700_000),
        (300, 1500, 20, True, 900_000),  # tokens in chunks, classes in blocks, many ties
    ],
)
def test_the_same_as_of_plain_logits(tokens, classes, k, ties, budget):
    h, w, b, labels = problem(tokens, classes, ties)
    b = b.at[0].set(-jnp.inf) if classes > k else b
    logits = h @ w + b[None, :]
    scores, best = linear_top_k(h, w, k, bias=b, max_temp_bytes=budget)
    true_scores, true_best = jax.lax.top_k(logits, k)
    np.testing.assert_allclose(scores, true_scores, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(best, true_best)
    rank = linear_rank(h, w, labels, bias=b, max_temp_bytes=budget)
    np.testing.assert_array_equal(rank, dense_rank(logits, labels))
    assert best.dtype == rank.dtype == jnp.int32


def test_options_of_the_head_change_what_they_change():
    h, w, _, labels = problem(6, 40)
    unit = w / jnp.linalg.norm(w, axis=0, keepdims=True)
    cosines = (h / jnp.linalg.norm(h, axis=-1, keepdims=True)) @ unit
    scores, best = linear_top_k(h.reshape(2, 3, WIDTH), w, 3, normalize=True, temperature=0.5)
    true_scores, true_best = jax.lax.top_k(cosines / 0.5, 3)
    np.testing.assert_allclose(scores.reshape(6, 3), true_scores, rtol=1e-5)
    np.testing.assert_array_equal(best.reshape(6, 3), true_best)
    padded = jnp.concatenate([w, jnp.full((WIDTH, 3), jnp.nan)], axis=1)
    np.testing.assert_array_equal(
        linear_rank(h, padded, labels, num_classes=40), linear_rank(h, w, labels)
    )


def test_what_has_no_rank_is_no_hit():
    h, w, _, _ = problem(5, 7)
    labels = jnp.array([-1, 7, 3, 3, 0])
    where = jnp.array([True, True, True, False, True])
    rank = linear_rank(h.at[2].set(jnp.nan), w, labels, where=where)
    np.testing.assert_array_equal(rank[:4], 7)
    assert rank[4] < 7


def test_classes_over_devices_give_the_same():
    h, w, b, labels = problem(12, 58, ties=True)
    mesh = jax.make_mesh((2, 4), ("data", "model"), axis_types=(AxisType.Auto,) * 2)
    wide = jnp.concatenate([w, jnp.full((WIDTH, 2), jnp.nan)], axis=1)
    long = jnp.concatenate([b, jnp.zeros(2)])
    placed = [
        jax.device_put(x, NamedSharding(mesh, P(*spec)))
        for x, spec in [(h, ("data",)), (wide, (None, "model")), (long, ("model",))]
    ]

    @jax.jit
    def spread(h, w, b):
        options = {"bias": b, "num_classes": 58, "mesh": mesh, "class_axis": "model"}
        return linear_top_k(h, w, 6, **options), linear_rank(h, w, labels, **options)

    (_, best), rank = spread(*placed)
    np.testing.assert_array_equal(best, linear_top_k(h, w, 6, bias=b)[1])
    np.testing.assert_array_equal(rank, linear_rank(h, w, labels, bias=b))

    def local(h, w, b, labels):
        return linear_rank(h, w, labels, bias=b, num_classes=58, class_axis="model")

    inside = jax.shard_map(
        local,
        mesh=mesh,
        in_specs=(P("data"), P(None, "model"), P("model"), P("data")),
        out_specs=P("data"),
    )
    np.testing.assert_array_equal(inside(h, wide, long, labels), rank)


def test_the_logits_are_never_there():
    shapes = (
        jax.ShapeDtypeStruct((512, 64), jnp.float32),
        jax.ShapeDtypeStruct((64, 64_000), jnp.float32),
    )
    for function in (
        lambda h, w: linear_top_k(h, w, 10),
        lambda h, w: linear_rank(h, w, jnp.zeros(512, jnp.int32)),
    ):
        memory = jax.jit(function).lower(*shapes).compile().memory_analysis()
        assert memory.temp_size_in_bytes <= 0.1 * 4 * 512 * 64_000


def test_k_out_of_range_is_an_error():
    h, w, _, _ = problem(3, 7)
    for k in (0, 8, 2.0):
        with pytest.raises(ValueError, match=r"expected k to be an int in \[1, 7\]"):
            linear_top_k(h, w, k)
