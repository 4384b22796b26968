# SPDX-License-Identifier: Apache-2.0
"""The streaming harmonic head against plain harmonic logits, for every distance."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import xloss
from tests.xloss.test_heads import mixed
from xloss.heads import DISTANCES, harmonic_logits, harmonic_statistics
from xloss.heads.distances import THROUGH_MATMUL

TOKENS, CLASSES, WIDTH = 6, 150, 4


def matrix_of(distance):
    if distance == "mahalanobis_diagonal":
        return {"matrix": 0.1 * jnp.arange(WIDTH, dtype=float)}
    if distance.startswith("mahalanobis"):
        return {"matrix": jnp.eye(WIDTH) + 0.1}
    return {}


@pytest.mark.parametrize("distance", DISTANCES)
def test_every_distance_streams_to_the_same_gradients(distance, x64):
    rng = np.random.default_rng(0)
    x, w = (
        jnp.asarray(rng.normal(size=(TOKENS, WIDTH))),
        jnp.asarray(rng.normal(size=(WIDTH, CLASSES))),
    )
    labels = jnp.asarray(rng.integers(0, CLASSES, TOKENS), jnp.int32)
    options = {"distance": distance, **matrix_of(distance)}
    # Too little for all classes at once: two blocks of 128, the second one overlapping.
    budget = 40_000 if distance in THROUGH_MATMUL else 150_000

    def streamed(x, w, n):
        return mixed(
            harmonic_statistics(x, w, labels, exponent=n, max_temp_bytes=budget, **options)
        )

    def plain(x, w, n):
        return mixed(xloss.logit_statistics(harmonic_logits(x, w, exponent=n, **options), labels))

    n = jnp.asarray(1.5)
    found, true = jax.jit(
        lambda: tuple(jax.value_and_grad(f, argnums=(0, 1, 2))(x, w, n) for f in (streamed, plain))
    )()
    for mine, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(true), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-8, atol=1e-9)


def test_neither_scores_nor_differences_are_held():
    x = jax.ShapeDtypeStruct((256, 64), jnp.float32)
    w = jax.ShapeDtypeStruct((64, 5000), jnp.float32)
    labels = jax.ShapeDtypeStruct((256,), jnp.int32)

    def objective(x, w, labels):
        stats = harmonic_statistics(x, w, labels, distance="manhattan", max_temp_bytes=20_000_000)
        return xloss.reduce(-stats.log_prob)

    program = jax.jit(jax.value_and_grad(objective, argnums=(0, 1))).lower(x, w, labels).compile()
    assert program.memory_analysis().temp_size_in_bytes <= 20_000_000
    assert 4 * 256 * 64 * 5000 > 300_000_000


def test_errors_name_the_argument():
    x, w, labels = jnp.ones((2, 3)), jnp.ones((3, 4)), jnp.zeros(2, jnp.int32)
    with pytest.raises(ValueError, match="expected options among"):
        harmonic_statistics(x, w, labels, p=2.0)
    with pytest.raises(ValueError, match="centres"):
        harmonic_statistics(x, w.T, labels)
    with pytest.raises(TypeError, match="expected matrix"):
        harmonic_statistics(x, w, labels, distance="mahalanobis")
