# SPDX-License-Identifier: Apache-2.0
"""A small network and fine-tunings of it, for the invariants of model soups."""

import jax
import jax.numpy as jnp
import numpy as np

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 3))
Y = RNG.integers(0, 4, size=40)
BASE = {"W1": RNG.normal(size=(3, 5)), "b": RNG.normal(size=5), "W2": RNG.normal(size=(5, 4))}


def models(size, distance=0.5, dtype=jnp.float32):
    """Fine-tunings of one start: the same parameters, moved."""
    draw = np.random.default_rng(size).normal
    return [
        {n: jnp.asarray(w + distance * draw(size=w.shape), dtype) for n, w in BASE.items()}
        for _ in range(size)
    ]


def network(params, x):
    hidden = jnp.tanh(x @ params["W1"] + params["b"][None, :])
    return hidden @ params["W2"]


def logits_of(params):
    return network(params, jnp.asarray(X, params["b"].dtype))


@jax.jit
def accuracy(params):
    return jnp.mean((jnp.argmax(logits_of(params), axis=-1) == Y).astype(jnp.float32))


def stacked(trees):
    return jax.tree.map(lambda *x: jnp.stack(x), *trees)


def assert_same(found, expected):
    jax.tree.map(np.testing.assert_array_equal, found, expected)
