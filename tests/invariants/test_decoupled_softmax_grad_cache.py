# SPDX-License-Identifier: Apache-2.0
"""Gradient cache: the whole batch's gradient at the activations of a chunk, dropout included."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from xloss.heads import chunked_decoupled_softmax, grad_cache

EXAMPLES, INPUTS, HIDDEN, WIDTH = 11, 6, 16, 4


def parameters(seed=0, dtype=np.float64):
    rng = np.random.default_rng(seed)
    return {
        "first": jnp.asarray(rng.normal(size=(INPUTS, HIDDEN)).astype(dtype)),
        "second": jnp.asarray(rng.normal(size=(HIDDEN, WIDTH)).astype(dtype)),
    }


def texts(count, seed=1, dtype=np.float64):
    rng = np.random.default_rng(seed)
    return {"x": jnp.asarray(rng.normal(size=(count, INPUTS)).astype(dtype)),
            "kept": jnp.asarray(rng.uniform(size=count) > 0.2)}  # fmt: skip


def encode(params, text, keys=None):
    x = jnp.tanh(text["x"] @ params["first"])
    if keys is not None:
        keep = jax.vmap(lambda key: jax.random.bernoulli(key, 0.7, (HIDDEN,)))(keys)
        x = jnp.where(keep, x / 0.7, 0.0)
    return jnp.where(text["kept"][:, None], x @ params["second"], 0.0)


def assert_same(mine, theirs, **tolerance):
    for a, b in zip(jax.tree.leaves(mine), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, **({"rtol": 1e-12, "atol": 1e-13} | tolerance))


@pytest.mark.parametrize("dropout", [False, True])
@pytest.mark.parametrize("chunk", [1, 4, 11, 50])
def test_the_gradient_is_that_of_the_whole_batch_with_the_same_dropout(chunk, dropout, x64):
    params, text = parameters(), texts(EXAMPLES)
    key = jax.random.key(7) if dropout else None
    rest = () if key is None else (
        jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(EXAMPLES)),
    )  # fmt: skip
    whole, pull_whole = jax.vjp(lambda p: encode(p, text, *rest), params)
    found, pull = grad_cache(encode, params, text, chunk_size=chunk, key=key)
    assert_same(found, whole)
    cotangent = jnp.cos(whole)
    assert_same(pull(cotangent), pull_whole(cotangent)[0])


@pytest.mark.parametrize("chunks", [(3, 5), (11, 20)])
def test_two_encoders_in_a_loss_that_couples_all_embeddings(chunks, x64):
    queries, labels = texts(EXAMPLES, seed=2), texts(20, seed=3)
    params = {"query": parameters(4), "label": parameters(5)}
    ids = np.random.default_rng(6).integers(-1, 20, (EXAMPLES, 3))

    def objective(q, e):
        return jnp.mean(chunked_decoupled_softmax(q, e.T, ids, temperature=0.5, chunk_size=8))

    def direct(params):
        return objective(encode(params["query"], queries), encode(params["label"], labels))

    def cached(params):
        q, _ = grad_cache(encode, params["query"], queries, chunk_size=chunks[0])
        e, _ = grad_cache(encode, params["label"], labels, chunk_size=chunks[1])
        return objective(q, e)

    @jax.jit
    def by_hand(params):
        q, pull_q = grad_cache(encode, params["query"], queries, chunk_size=chunks[0])
        e, pull_e = grad_cache(encode, params["label"], labels, chunk_size=chunks[1])
        value, (dq, de) = jax.value_and_grad(objective, argnums=(0, 1))(q, e)
        return value, {"query": pull_q(dq), "label": pull_e(de)}

    expected = jax.jit(jax.value_and_grad(direct))(params)
    assert_same(by_hand(params), expected)
    assert_same(jax.jit(jax.value_and_grad(cached))(params), expected)


def test_activations_are_those_of_one_chunk():
    width = 4096
    params = {
        "first": jax.ShapeDtypeStruct((INPUTS, width), jnp.float32),
        "second": jax.ShapeDtypeStruct((width, WIDTH), jnp.float32),
    }

    def temporaries(count, chunk):
        def gradient(params, x, cotangent):
            text = {"x": x, "kept": x[:, 0] > 0}
            return grad_cache(encode, params, text, chunk_size=chunk)[1](cotangent)

        shapes = ((count, INPUTS), (count, WIDTH))
        arguments = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
        program = jax.jit(gradient).lower(params, *arguments).compile()
        return program.memory_analysis().temp_size_in_bytes

    few, many = temporaries(512, 64), temporaries(4096, 64)
    assert many - few <= 2 * 4 * (4096 - 512) * (INPUTS + WIDTH + 2)  # inputs and embeddings
    assert many < temporaries(4096, 4096) / 8  # where all activations are kept


def test_low_precision_is_summed_in_float32():
    params, text = parameters(dtype=np.float32), texts(400, dtype=np.float32)
    low = jax.tree.map(lambda x: x.astype(jnp.bfloat16), params)
    text["x"] = text["x"].astype(jnp.bfloat16)

    def gradient(chunk):
        found, pull = grad_cache(encode, low, text, chunk_size=chunk)
        return pull(jnp.ones_like(found))

    each, whole = gradient(1), gradient(400)
    assert all(x.dtype == jnp.bfloat16 for x in jax.tree.leaves(each))
    for a, b in zip(jax.tree.leaves(each), jax.tree.leaves(whole), strict=True):
        a, b = (np.asarray(x, np.float64) for x in (a, b))
        assert np.linalg.norm(a - b) <= 0.01 * np.linalg.norm(b)


def test_bad_arguments_are_named():
    params, text = parameters(dtype=np.float32), texts(3, dtype=np.float32)
    with pytest.raises(TypeError, match="expected encode to be callable"):
        grad_cache(None, params, text, chunk_size=2)
    with pytest.raises(ValueError, match="expected chunk_size to be an int >= 1, got 0"):
        grad_cache(encode, params, text, chunk_size=0)
    with pytest.raises(ValueError, match="one number >= 1 of examples"):
        grad_cache(encode, params, {"x": text["x"], "kept": text["kept"][:2]}, chunk_size=2)
