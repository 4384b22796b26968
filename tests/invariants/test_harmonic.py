# SPDX-License-Identifier: Apache-2.0
"""Harmonic loss and heads: what the papers promise, one named test each."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from xloss.classification import cross_entropy, focal, harmonic
from xloss.heads import DISTANCES, harmonic_logits, pairwise_distance
from xloss.heads.distances import ELEMENTWISE

RNG = np.random.default_rng(0)
X, W = RNG.normal(size=(5, 6)), RNG.normal(size=(6, 7))
Y = RNG.integers(0, 7, 5)
PRECISION = {
    "mahalanobis": np.eye(6) + 0.1 * RNG.normal(size=(6, 6)),
    "mahalanobis_diagonal": 0.3 * RNG.normal(size=6),
    "mahalanobis_cholesky": 0.1 * np.eye(6) + 0.1 * RNG.normal(size=(6, 6)),
}
TRANSLATABLE = ("euclidean", "manhattan", "minkowski", "chebyshev", "chebyshev_smooth",
                "chebyshev_vision", "chebyshev_vision_smooth", *PRECISION)  # fmt: skip


def options(distance, **more):
    matrix = {"matrix": jnp.asarray(PRECISION[distance])} if distance in PRECISION else {}
    return {"distance": distance, **matrix, **more}


def probabilities(x, w, exponent=2.0, **more):
    return jax.nn.softmax(harmonic_logits(x, w, exponent=exponent, **more))


@pytest.mark.parametrize("distance", ["euclidean", "manhattan", "minkowski", "chebyshev"])
def test_scaling_features_and_centres_together_changes_nothing_as_eps_vanishes(distance, x64):
    more = {"distance": distance, "eps": 1e-13}
    np.testing.assert_allclose(
        probabilities(30 * X, 30 * W, **more), probabilities(X, W, **more), rtol=1e-8
    )


def test_cosine_allows_separate_scales(x64):
    more = {"distance": "cosine", "eps": 1e-13}
    np.testing.assert_allclose(
        probabilities(30 * X, 0.2 * W, **more), probabilities(X, W, **more), rtol=1e-8
    )


@pytest.mark.parametrize("distance", TRANSLATABLE)
def test_moving_features_and_centres_together_changes_nothing(distance, x64):
    move = RNG.normal(size=6)
    moved = pairwise_distance(X + move, W + move[:, None], **options(distance))
    np.testing.assert_allclose(moved, pairwise_distance(X, W, **options(distance)), rtol=1e-9)


def test_a_large_common_offset_costs_the_squares_no_digits():
    x, w = (np.round(v * 64).astype(np.float32) / 64 for v in (X, W))
    np.testing.assert_allclose(
        pairwise_distance(x + 1000, w + 1000), pairwise_distance(x, w), rtol=1e-4
    )


def test_minkowski_of_order_1_is_manhattan_and_of_order_2_the_euclidean_length(x64):
    eps = 1e-13

    def minkowski(p):
        return pairwise_distance(X, W, distance="minkowski", p=p, eps=eps)

    manhattan = pairwise_distance(X, W, distance="manhattan", eps=eps)
    squared = pairwise_distance(X, W, distance="euclidean", eps=eps)
    np.testing.assert_allclose(minkowski(1.0), manhattan, rtol=1e-9)
    np.testing.assert_allclose(minkowski(2.0), jnp.sqrt(squared), rtol=1e-9)
    np.testing.assert_allclose(
        harmonic(squared, Y, exponent=3.0), harmonic(minkowski(2.0), Y, exponent=6.0), rtol=1e-9
    )


def test_equal_distances_are_equally_probable():
    losses = harmonic(jnp.full((2, 7), 0.3), jnp.array([0, 6]), exponent=5.0)
    np.testing.assert_allclose(losses, np.log(7.0), rtol=1e-6)


def test_exponent_zero_is_uniform_and_a_large_one_the_nearest_centre():
    nearest = np.asarray(pairwise_distance(X, W)).argmin(-1)
    np.testing.assert_allclose(probabilities(X, W, 0.0), 1 / 7, rtol=1e-6)
    np.testing.assert_allclose(probabilities(X, W, 1e4), np.eye(7)[nearest], atol=1e-6)


def test_dividing_by_the_least_distance_changes_nothing(x64):
    d = pairwise_distance(X, W)
    scaled = d / jnp.min(d, axis=-1, keepdims=True)
    for n in (1.0, 28.0):
        np.testing.assert_allclose(
            harmonic(scaled, Y, exponent=n), harmonic(d, Y, exponent=n), rtol=1e-9
        )


def test_mahalanobis_with_the_identity_is_the_euclidean_length(x64):
    eps = 1e-13
    length = jnp.sqrt(pairwise_distance(X, W, eps=eps))
    identities = {
        "mahalanobis": ({"ridge": 0.0}, np.eye(6)),
        "mahalanobis_diagonal": ({}, np.zeros(6)),
        "mahalanobis_cholesky": ({}, np.eye(6)),
    }
    for distance, (more, matrix) in identities.items():
        found = pairwise_distance(X, W, distance=distance, eps=eps, matrix=matrix, **more)
        np.testing.assert_allclose(found, length, rtol=1e-9)


def test_gradients_are_finite_where_a_feature_sits_on_a_centre():
    features = jnp.asarray(W.T[:3], jnp.float32)  # the first three centres
    centres = jnp.asarray(W, jnp.float32).at[:, 6].set(0.0)

    @jax.jit
    def gradients(x, w):
        def total(x, w):
            return sum(
                jnp.sum(
                    cross_entropy(harmonic_logits(x, w, exponent=4.0, **options(d)), jnp.arange(3))
                )
                for d in DISTANCES
            )

        return jax.grad(total, (0, 1))(x, w)

    for x in (features, jnp.zeros_like(features), 1e4 * features):
        for gradient in gradients(x, centres):
            assert np.isfinite(gradient).all()


def test_the_gradient_at_a_centre_is_zero_for_distances_with_a_corner_there():
    x = jnp.asarray(W.T[:1], jnp.float32)
    for distance in ("euclidean", "manhattan", "minkowski", "chebyshev"):

        def own(x, d=distance):
            return pairwise_distance(x, jnp.asarray(W, jnp.float32)[:, :1], distance=d)[0, 0]

        np.testing.assert_allclose(jax.grad(own)(x), 0.0, atol=1e-6)


def test_harmonic_logits_make_a_harmonic_loss_of_every_loss(x64):
    logits = harmonic_logits(X, W, exponent=3.0)
    d = pairwise_distance(X, W)
    np.testing.assert_allclose(cross_entropy(logits, Y), harmonic(d, Y, exponent=3.0), rtol=1e-12)
    smooth = cross_entropy(logits, Y, label_smoothing=0.1)
    found = harmonic(d, Y, exponent=3.0, label_smoothing=0.1)
    np.testing.assert_allclose(smooth, found, rtol=1e-12)
    p = jnp.exp(-cross_entropy(logits, Y))
    np.testing.assert_allclose(focal(logits, Y), -((1 - p) ** 2) * jnp.log(p), rtol=1e-9)


def test_exponents_of_hundreds_do_not_overflow():
    d = jnp.array([[1e-30, 1.0, 1e30]])
    losses = [float(harmonic(d, jnp.array([y]), exponent=768.0)[0]) for y in range(3)]
    step = 768 * 30 * np.log(10.0)
    np.testing.assert_allclose(losses, [0.0, step, 2 * step], rtol=1e-5)


def test_distances_of_zero_infinity_and_below_zero():
    d = jnp.array([[0.0, 1.0, jnp.inf], [2.0, 2.0, jnp.inf], [-1.0, 1.0, 1.0]])
    losses, pull = jax.vjp(lambda d: harmonic(d, jnp.array([0, 1, 1])), d)
    np.testing.assert_allclose(losses[:2], [0.0, np.log(2.0)], atol=1e-6)
    assert np.isnan(losses[2])  # no distance: loud
    assert np.isfinite(pull(jnp.array([1.0, 1.0, 0.0]))[0][:2]).all()


@pytest.mark.parametrize("distance", sorted(ELEMENTWISE))
def test_blocks_and_leading_axes_change_nothing(distance, x64):
    x, w = jnp.asarray(np.stack([X, -X])), jnp.asarray(W)

    def value_and_pull(x, w, **more):
        found, pull = jax.vjp(
            lambda x, w: pairwise_distance(x, w, **options(distance), **more), x, w
        )
        return found, *pull(jnp.cos(found))

    whole = jax.jit(lambda: value_and_pull(x, w))()
    blocks = jax.jit(lambda: value_and_pull(x, w, chunk=3))()
    assert whole[0].shape == (2, 5, 7)
    for mine, theirs in zip(blocks, whole, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-9, atol=1e-9)


def test_blocks_bound_the_memory_of_the_gradient():
    shapes = [jax.ShapeDtypeStruct(s, jnp.float32) for s in ((64, 128), (128, 512))]

    def temporaries(**more):
        def total(x, w):
            return jnp.sum(jnp.sqrt(pairwise_distance(x, w, **more)))

        compiled = jax.jit(jax.grad(total, (0, 1))).lower(*shapes).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    everything = 4 * 64 * 128 * 512
    for distance in ("manhattan", "canberra", "chebyshev_smooth"):
        assert temporaries(distance=distance, chunk=16) < everything / 4, distance
    assert temporaries(distance="euclidean") < everything / 16


def test_gumbel_noise_needs_a_key_and_is_left_out_without():
    soft = pairwise_distance(X, W, distance="hamming_soft", temperature=0.5)
    gumbel = {"distance": "hamming_gumbel"}
    np.testing.assert_array_equal(pairwise_distance(X, W, **gumbel), soft)
    draws = [pairwise_distance(X, W, **gumbel, key=jax.random.key(k)) for k in (0, 0, 1)]
    np.testing.assert_array_equal(draws[0], draws[1])
    assert not np.allclose(draws[0], draws[2]) and not np.allclose(draws[0], soft)


def test_smooth_chebyshev_overestimates_by_at_most_log_d_over_alpha():
    hard = pairwise_distance(X, W, distance="chebyshev")
    for alpha in (1.0, 10.0, 100.0):
        soft = pairwise_distance(X, W, distance="chebyshev_smooth", alpha=alpha)
        assert (soft >= hard - 1e-6).all()
        assert (soft <= hard + np.log(6.0) / alpha + 1e-6).all()


def test_dtypes_tracing_and_sharding_of_the_head():
    x, w = jnp.asarray(np.tile(X[:4], (4, 1)), jnp.float32), jnp.asarray(W, jnp.float32)
    traced = jax.jit(
        chex.assert_max_traces(lambda x, w, n, eps: harmonic_logits(x, w, exponent=n, eps=eps), n=1)
    )
    for n, eps in ((1.0, 1e-4), (28.0, 1e-2)):
        alone = traced(x, w, n, eps)
        np.testing.assert_allclose(alone, harmonic_logits(x, w, exponent=n, eps=eps), rtol=1e-5)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    spread = jax.device_put(x, NamedSharding(mesh, PartitionSpec("data")))
    np.testing.assert_allclose(
        jax.jit(harmonic_logits)(spread, w), harmonic_logits(x, w), rtol=1e-5
    )

    half = x.astype(jnp.bfloat16)
    found, pull = jax.vjp(lambda x: pairwise_distance(x, w, distance="manhattan", chunk=2), half)
    assert found.dtype == jnp.float32 and pull(found)[0].dtype == jnp.bfloat16
    wide = pairwise_distance(half.astype(jnp.float32), w, distance="manhattan")
    np.testing.assert_allclose(found, wide, rtol=1e-6)


def test_wrong_calls_are_refused_by_name():
    with pytest.raises(ValueError, match=r"got \(5, 6\) and \(7, 6\) \(centres are columns"):
        pairwise_distance(X, W.T)
    with pytest.raises(ValueError, match="expected distance to be one of .*'manhattan'"):
        harmonic_logits(X, W, distance="manhatten")
    with pytest.raises(ValueError, match=r"options among \(eps\) for euclidean, got p=2"):
        pairwise_distance(X, W, p=2.0)
    with pytest.raises(TypeError, match="expected matrix to be an array for mahalanobis, got None"):
        pairwise_distance(X, W, distance="mahalanobis")
    with pytest.raises(ValueError, match=r"expected matrix of shape \(6,\), got \(6, 6\)"):
        pairwise_distance(X, W, distance="mahalanobis_diagonal", matrix=np.eye(6))
    with pytest.raises(ValueError, match="expected key=None for cosine"):
        pairwise_distance(X, W, distance="cosine", key=jax.random.key(0))
    with pytest.raises(ValueError, match="expected chunk to be an int >= 1"):
        pairwise_distance(X, W, chunk=0)
    with pytest.raises(ValueError, match=r"expected eps in \(0, inf\), got 0"):
        pairwise_distance(X, W, eps=0.0)
    with pytest.raises(ValueError, match="expected d >= 2 for chebyshev_vision"):
        pairwise_distance(X[:, :1], W[:1], distance="chebyshev_vision")
