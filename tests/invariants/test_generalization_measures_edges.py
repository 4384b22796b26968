# SPDX-License-Identifier: Apache-2.0
"""Measures of generalization at the edges: dtypes, zeros, ties, sharded weights, bad input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from xloss import diagnostics


@pytest.mark.parametrize("dtype", [jnp.int32, jnp.uint32, jnp.int8])
def test_labels_of_any_integer_dtype(x64, dtype):
    eye = jnp.eye(2, dtype=jnp.float32)
    data = eye, jnp.array([0, 1], dtype)
    sigma = diagnostics.pac_bayes_sigma(
        jax.random.key(0), lambda w, x: x @ w, 3 * eye, data, num_draws=2, search_steps=2
    )
    assert 0 < float(sigma) < 2


def test_no_examples_have_no_accuracy():
    data = jnp.ones((0, 2)), jnp.ones(0, jnp.int32)
    with pytest.raises(ValueError, match="pac_bayes_sigma: expected at least one example"):
        diagnostics.pac_bayes_sigma(jax.random.key(0), lambda w, x: x @ w, jnp.eye(2), data)


def test_the_log_path_norm_has_the_gradient_of_its_exp_where_weights_are_0():
    # The second hidden unit is dead, the biases are 0 as at the start of training.
    kernels = [jnp.array([[1.0, 0.0], [2.0, 0.0]]), jnp.array([[3.0], [0.5]])]
    biases = [jnp.zeros(2), jnp.zeros(1)]

    def by_squares(kernels, biases):
        v = jnp.ones(2)
        for w, b in zip(kernels, biases, strict=True):
            v = v @ jnp.square(w) + jnp.square(b)
        return jnp.log(jnp.sum(v))

    both = (by_squares, diagnostics.log_path_norm)
    want, found = (jax.value_and_grad(f, argnums=(0, 1))(kernels, biases) for f in both)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(b, a, rtol=1e-6), want, found)
    nothing = [jnp.zeros((2, 2)), kernels[1]]
    value, slope = jax.value_and_grad(diagnostics.log_path_norm)(nothing)
    assert float(value) == -np.inf and all(np.all(np.isfinite(x)) for x in slope)


def test_the_gradient_of_a_repeated_singular_value_is_that_of_one_pair():
    slope = jax.grad(diagnostics.spectral_norm)(jnp.eye(3))
    assert np.linalg.matrix_rank(slope) == 1
    np.testing.assert_allclose(np.linalg.norm(slope), 1.0, rtol=1e-6)


@pytest.mark.parametrize(
    ("sizes", "match"),
    [
        ([4], "norm_measures: expected input_sizes to be 2 ints >= 1, got 4"),
        ([(4, 4)], "norm_measures: expected input_sizes None beside weights"),
        ([None, None], "norm_measures: expected input_sizes, one for each of 1"),
    ],
)
def test_sizes_that_do_not_fit_are_refused_by_name(sizes, match):
    w = [jnp.ones((2, 2))]
    with pytest.raises(ValueError, match=match):
        diagnostics.norm_measures(w, w, margin=1.0, num_samples=5, input_sizes=sizes)


def test_pac_bayes_measures_never_gather_sharded_weights():
    mesh = jax.make_mesh((8,), ("d",))
    split = NamedSharding(mesh, PartitionSpec("d"))
    rng = np.random.default_rng(0)
    weights = [jnp.asarray(rng.normal(size=s), jnp.float32) for s in ((16, 4), (8, 3, 2))]
    start = [0.5 * w for w in weights]

    def measures(weights, start):
        return diagnostics.pac_bayes_measures(
            weights, start, sigma=0.3, magnitude_sigma=0.2, num_samples=50, adjust=False
        )

    placed = jax.device_put((weights, start), split)
    compiled = jax.jit(measures).lower(*placed).compile()
    assert "all-gather" not in compiled.as_text() and "all-to-all" not in compiled.as_text()
    found = compiled(*placed)
    w = np.concatenate([np.ravel(x) for x in weights]).astype(np.float64)
    shift = w / 2
    tail = np.log(50 / 0.2) + 10
    for of, reference in (("init", shift), ("orig", w)):
        above = 1e-6 + (0.2**2 + 1) * np.sum(reference**2) / w.size
        want = np.sum(np.log(above / (1e-6 + 0.2**2 * shift**2))) / 4 + tail
        np.testing.assert_allclose(found[f"pacbayes_mag_{of}"], want, rtol=1e-5)
        want = np.sum(reference**2) / (4 * 0.3**2) + np.log(50 / 0.3) + 10
        np.testing.assert_allclose(found[f"pacbayes_{of}"], want, rtol=1e-5)


def test_the_reports_columns_stand_below_each_other():
    gap = jnp.array([0.1, 0.2, 0.3])
    measures = {"up": jnp.array([1.0, 2.0, 3.0]), "downwards": jnp.array([3.0, 2.0, 1.0])}
    rows = str(diagnostics.correlation_report(measures, gap)).splitlines()[1:4]
    assert len({len(row) for row in rows}) == 1
