# SPDX-License-Identifier: Apache-2.0
"""Norms, margins and PAC-Bayes measures of a network: the invariants of their specification."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from xloss import diagnostics
from xloss.diagnostics import generalization

RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.normal(size=(40, 5)), jnp.float32)
Y = jnp.asarray(RNG.integers(3, size=40), jnp.int32)
WEIGHTS = [jnp.asarray(RNG.normal(size=s), jnp.float32) for s in ((5, 7), (7, 3))]
START = [jnp.asarray(RNG.normal(size=s), jnp.float32) for s in ((5, 7), (7, 3))]
OVER_SPEC_AND_FRO = [
    f"log_{kind}_of_{norm}_over_margin" for kind in ("prod", "sum") for norm in ("spec", "fro")
]


def network(params, x):
    return jax.nn.relu(x @ params[0]) @ params[1]


def tenth(weights):
    return diagnostics.margin_percentile(diagnostics.margins(network(weights, X), Y))


def measures(weights, start=START, **options):
    margin = options.pop("margin", None)
    return diagnostics.norm_measures(
        weights,
        start,
        margin=tenth(weights) if margin is None else margin,
        path_norm=diagnostics.path_norm(network, weights, (5,)),
        num_samples=40,
        **options,
    )


def test_1_rescaling_two_layers_against_each_other_changes_norms_but_no_product():
    c = 8.0
    moved = [c * WEIGHTS[0], WEIGHTS[1] / c]
    before, after = measures(WEIGHTS), measures(moved)
    np.testing.assert_allclose(
        diagnostics.margins(network(moved, X), Y),
        diagnostics.margins(network(WEIGHTS, X), Y),
        rtol=1e-5,
        atol=1e-5,
    )
    for name in ("path_norm", "log_prod_of_spec", "log_prod_of_fro", "fro_over_spec"):
        np.testing.assert_allclose(after[name], before[name], rtol=1e-5)
    for name in ("param_norm", "l2", "fro_dist"):
        assert abs(float(after[name] / before[name]) - 1) > 0.1


def test_2_scaling_the_last_layer_scales_the_margin_and_nothing_over_it():
    scaled = [WEIGHTS[0], 3.0 * WEIGHTS[1]]
    np.testing.assert_allclose(tenth(scaled), 3.0 * tenth(WEIGHTS), rtol=1e-5)
    before, after = measures(WEIGHTS), measures(scaled)
    for name in [*OVER_SPEC_AND_FRO, "path_norm_over_margin", "log_spec_orig_main"]:
        np.testing.assert_allclose(after[name], before[name], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(after["inverse_margin"], before["inverse_margin"] / 3.0, rtol=1e-5)


def test_3_frobenius_over_spectral_is_between_depth_and_the_sum_of_ranks():
    found = measures(WEIGHTS, adjust=False)["fro_over_spec"]
    assert 2.0 <= float(found) <= 5 + 3
    least = [jnp.ones((5, 7)), jnp.ones((7, 3))]  # rank 1 each
    most = [jnp.eye(5, 7), jnp.eye(7, 3)]
    np.testing.assert_allclose(measures(least, adjust=False)["fro_over_spec"], 2.0, rtol=1e-5)
    np.testing.assert_allclose(measures(most, adjust=False)["fro_over_spec"], 8.0, rtol=1e-5)


def test_4_the_norm_of_a_one_by_one_convolution_is_that_of_the_matrix():
    kernel = WEIGHTS[0][None, None]
    matrix = diagnostics.spectral_norm(WEIGHTS[0])
    np.testing.assert_allclose(matrix, np.linalg.norm(WEIGHTS[0], 2), rtol=1e-5)
    np.testing.assert_allclose(diagnostics.conv_spectral_norm(kernel, (4, 3)), matrix, rtol=1e-5)
    np.testing.assert_allclose(diagnostics.spectral_norm(kernel), matrix, rtol=1e-5)


@pytest.mark.parametrize("size", [(5, 4), (2, 2), (1, 1)])
def test_the_norm_of_a_convolution_is_that_of_its_matrix(size):
    """Also where the kernel is larger than the map and wraps around."""
    kernel = jnp.asarray(RNG.normal(size=(3, 3, 2, 3)), jnp.float32)

    def periodic(x):
        total = jnp.zeros((*size, 3))
        for i in range(3):
            for j in range(3):
                total += jnp.roll(x, (-i, -j), axis=(0, 1)) @ kernel[i, j]
        return total

    matrix = jax.jit(jax.jacobian(periodic))(jnp.zeros((*size, 2)))
    matrix = matrix.reshape(3 * size[0] * size[1], -1)
    found = diagnostics.conv_spectral_norm(kernel, size)
    np.testing.assert_allclose(found, np.linalg.norm(matrix, 2), rtol=1e-5)


def test_5_log_sum_is_at_most_the_log_of_the_sum():
    """The inequality of arithmetic and geometric means; equal for equal norms."""
    for weights in (WEIGHTS, [10.0 * WEIGHTS[0], WEIGHTS[1]]):
        found = measures(weights, adjust=False)
        spec = sum(np.linalg.norm(w, 2) ** 2 for w in weights)
        assert float(found["log_sum_of_spec"]) <= np.log(spec) + 1e-5
        assert float(found["log_sum_of_fro"]) <= np.log(found["param_norm"]) + 1e-5
    same = measures([jnp.eye(5, 7), jnp.eye(7, 3)], adjust=False)
    np.testing.assert_allclose(same["log_sum_of_spec"], np.log(2.0), rtol=1e-5)


def test_6_at_the_start_every_distance_is_zero():
    found = measures(WEIGHTS, WEIGHTS)
    for name in ("l2_dist", "fro_dist", "dist_spec_init"):
        assert float(found[name]) == 0.0
    assert np.isneginf(found["log_spec_init_main"])
    assert not np.isnan(np.array([*found.values()])).any()
    bounds = diagnostics.pac_bayes_measures(
        WEIGHTS, WEIGHTS, sigma=0.5, num_samples=40, adjust=False
    )
    np.testing.assert_allclose(bounds["pacbayes_init"], np.log(80.0) + 10.0, rtol=1e-6)


@functools.partial(jax.jit, static_argnames=("magnitude_eps", "tolerance"))
def sigma_of(target, seed=0, params=WEIGHTS, **options):
    """sigma of the network on labels that it gets right."""
    labels = jnp.argmax(network(WEIGHTS, X), axis=-1).astype(jnp.int32)
    key = jax.random.key(seed)
    data = (X, labels)
    return diagnostics.pac_bayes_sigma(key, network, params, data, target_drop=target, **options)


@pytest.mark.parametrize("eps", [None, 1e-3])
def test_7_sigma_rises_with_the_target_drop(eps):
    targets = jnp.linspace(0.0, 0.9, 19)
    found = jax.vmap(lambda t: sigma_of(t, magnitude_eps=eps))(targets)
    assert (np.diff(found) >= 0).all()
    assert 0.0 < float(found[0]) < float(found[10]) < 2.0


def test_sigma_is_where_the_accuracy_falls_by_the_target():
    """Against the closed form of one weight: w + sigma z > 0 with probability Phi(w / sigma)."""
    data = jnp.ones((1, 1)), jnp.zeros(1, jnp.int32)

    def apply(w, x):
        return x @ jnp.stack([w[None], -w[None]], axis=1)

    def find(**options):
        return diagnostics.pac_bayes_sigma(
            jax.random.key(1), apply, jnp.array(0.4), data, num_draws=4000, **options
        )

    wanted = 0.4 / 1.2815515655446004  # the 90th percentile of a normal
    np.testing.assert_allclose(find(), wanted, rtol=0.06)
    np.testing.assert_allclose(find(squared_std=True), np.sqrt(wanted), rtol=0.03)
    # With magnitude: sigma 0.4 in place of sigma.
    np.testing.assert_allclose(find(magnitude_eps=1e-3), wanted / 0.4, rtol=0.06)
    # No noise up to 0.05 does it: as near the end as the steps allow.
    assert float(find(upper=0.05, search_steps=5)) == pytest.approx(0.05 - 0.05 / 32)


def test_sigma_with_a_tolerance_stops_early_and_bf16_is_perturbed_in_float32():
    assert float(sigma_of(0.5, tolerance=1.0)) == 1.0  # the first midpoint
    half = jax.tree.map(lambda w: w.astype(jnp.bfloat16), WEIGHTS)
    assert jax.eval_shape(lambda w: sigma_of(0.1, params=w), half).dtype == jnp.float32


def test_the_margin_keeps_its_sign_and_ranks_as_the_paper_does():
    values = jnp.asarray(RNG.permutation(np.arange(-2.0, 28.0)), jnp.float32)
    assert float(diagnostics.margin_percentile(values)) == 0.0  # the third of 30
    assert float(diagnostics.margin_percentile(values, percent=100)) == 27.0
    assert float(diagnostics.margin_percentile(values[:5])) == float(values[:5].min())
    assert float(diagnostics.margin_percentile(values - 10)) == -10.0
    signs = [measures(WEIGHTS, margin=g)["margin_sign"] for g in (-0.5, 0.0, 0.5)]
    assert [float(s) for s in signs] == [-1.0, 0.0, 1.0]
    # Squares of the margin: the sign is in no other measure.
    minus, plus = measures(WEIGHTS, margin=-0.5), measures(WEIGHTS, margin=0.5)
    for name in plus.keys() - {"margin_sign"}:
        assert float(minus[name]) == float(plus[name])


def test_margins_with_a_mask_bad_labels_and_nothing_left():
    logits = jnp.array([[3.0, 1.0], [jnp.nan, 1.0], [0.0, 1.0], [2.0, 0.0]])
    where = jnp.array([True, False, True, True])
    found = diagnostics.margins(logits, jnp.array([0, 0, 0, 0]), where=where)
    assert found.tolist() == [2.0, 0.0, -1.0, 2.0]
    # Two of the three: the masked 0 is neither ranked nor counted.
    assert float(diagnostics.margin_percentile(found, percent=67, where=where)) == 2.0
    assert np.isnan(diagnostics.margin_percentile(found, where=jnp.zeros(4, jnp.bool_)))
    bad = diagnostics.margins(logits[2:], jnp.array([-1, 0]))
    assert np.isnan(bad[0]) and np.isnan(diagnostics.margin_percentile(bad))
    half = diagnostics.margins(logits.astype(jnp.bfloat16), jnp.array([0, 0, 0, 0]))
    assert half.dtype == jnp.float32


def test_a_margin_of_zero_and_a_layer_of_zeros_are_told_apart_from_nan():
    found = measures(WEIGHTS, margin=0.0)
    assert np.isposinf(found["inverse_margin"]) and np.isposinf(found["path_norm_over_margin"])
    assert np.isposinf([found[name] for name in OVER_SPEC_AND_FRO]).all()
    found = measures([WEIGHTS[0], jnp.zeros((7, 3))], margin=1.0, adjust=False)
    assert not np.isnan(np.array([*found.values()])).any()
    assert np.isneginf(found["log_prod_of_spec"]) and np.isneginf(found["log_spec_orig_main"])
    # prod_i s_i sum_j F_j / s_j has a limit: F_2 s_1.
    wanted = 2 * np.log(np.linalg.norm(WEIGHTS[0], 2) * np.linalg.norm(START[1]))
    np.testing.assert_allclose(found["log_spec_init_main"], wanted, rtol=1e-5)
    np.testing.assert_allclose(
        found["fro_over_spec"], measures(WEIGHTS[:1] * 1 + [jnp.ones((7, 3))], margin=1.0,
                                         adjust=False)["fro_over_spec"] - 1.0, rtol=1e-4
    )  # fmt: skip


@pytest.mark.parametrize("scale", [1e30, 1e-30])
def test_squares_of_huge_and_tiny_weights_are_not_formed(scale):
    plain = diagnostics.norm_measures(WEIGHTS, START, margin=1.0, num_samples=40)
    weights, start = ([scale * w for w in tree] for tree in (WEIGHTS, START))
    found = diagnostics.norm_measures(weights, start, margin=1.0, num_samples=40)
    for name in ("param_norm", "fro_dist", "dist_spec_init"):
        np.testing.assert_allclose(found[name], scale * plain[name], rtol=1e-5)
    np.testing.assert_allclose(found["fro_over_spec"], plain["fro_over_spec"], rtol=1e-5)
    shift = 2 * np.log(scale)  # half the log of two squares
    np.testing.assert_allclose(
        found["log_prod_of_spec"], plain["log_prod_of_spec"] + shift, rtol=1e-5
    )
    power = diagnostics.spectral_norm(weights[0], num_iters=50, key=jax.random.key(0))
    np.testing.assert_allclose(power, scale * np.linalg.norm(WEIGHTS[0], 2), rtol=1e-4)
    assert np.isnan(diagnostics.spectral_norm(WEIGHTS[0].at[0, 0].set(jnp.inf)))


def test_the_power_iteration_stays_below_the_norm_and_has_its_gradient(x64):
    w = jnp.asarray(RNG.normal(size=(6, 4)))
    exact, gradient = jax.value_and_grad(diagnostics.spectral_norm)(w)
    for iters in (1, 5):
        found = diagnostics.spectral_norm(w, num_iters=iters, key=jax.random.key(0))
        assert float(found) <= float(exact) * (1 + 1e-12)
    found, slope = jax.value_and_grad(
        lambda w: diagnostics.spectral_norm(w, num_iters=300, key=jax.random.key(0))
    )(w)
    np.testing.assert_allclose(found, exact, rtol=1e-10)
    np.testing.assert_allclose(slope, gradient, atol=1e-6)
    zero = jnp.zeros((3, 2))
    assert float(diagnostics.spectral_norm(zero, num_iters=3, key=jax.random.key(0))) == 0.0
    assert float(diagnostics.spectral_norm(zero)) == 0.0
    assert np.isfinite(jax.grad(diagnostics.spectral_norm)(jnp.eye(3))).all()  # repeated


def test_path_norm_counts_biases_and_has_a_form_that_does_not_overflow(x64):
    layers = [(5, 4), (4, 4), (4, 3)]
    params = [
        {"kernel": jnp.asarray(RNG.normal(size=s)), "bias": jnp.asarray(RNG.normal(size=s[1]))}
        for s in layers
    ]

    def apply(params, x):
        for i, layer in enumerate(params):
            x = (jax.nn.relu(x) if i else x) @ layer["kernel"] + layer["bias"][None, :]
        return x

    path = diagnostics.path_norm(apply, params, (5,))
    v = np.ones(5)
    for layer in params:
        v = v @ np.square(layer["kernel"]) + np.square(layer["bias"])
    np.testing.assert_allclose(path, v.sum(), rtol=1e-12)
    kernels, biases = ([layer[name] for layer in params] for name in ("kernel", "bias"))
    np.testing.assert_allclose(diagnostics.log_path_norm(kernels, biases), np.log(v.sum()), 1e-12)
    low = [k.astype(jnp.bfloat16) for k in kernels]
    assert diagnostics.log_path_norm(low).dtype == jnp.float32
    deep = [1e4 * jnp.ones((4, 4), jnp.float32)] * 9
    assert np.isposinf(diagnostics.path_norm(lambda p, x: _chain(p, x), deep, (4,)))
    found = diagnostics.log_path_norm(deep)
    np.testing.assert_allclose(found, 9 * np.log(4e8) + np.log(4.0), rtol=1e-6)
    assert np.isneginf(diagnostics.log_path_norm([jnp.zeros((2, 2))]))


def _chain(params, x):
    for w in params:
        x = x @ w
    return x


def test_jit_vmap_and_dtypes():
    found = jax.jit(lambda w, s: diagnostics.norm_measures(w, s, margin=0.5, num_samples=40))(
        WEIGHTS, START
    )
    plain = diagnostics.norm_measures(WEIGHTS, START, margin=0.5, num_samples=40)
    for name, value in plain.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-6)
    half = jax.tree.map(lambda w: w.astype(jnp.bfloat16), WEIGHTS)
    shapes = jax.eval_shape(
        lambda w, s, g: diagnostics.norm_measures(
            {"a": w}, {"a": s}, margin=g, num_samples=1, input_sizes=[None, None]
        ),
        half,
        half,
        1.0,
    )
    assert {x.dtype for x in shapes.values()} == {jnp.dtype(jnp.float32)}
    stack = jnp.stack([WEIGHTS[0], START[0]])
    each = jax.vmap(diagnostics.spectral_norm)(stack)
    np.testing.assert_allclose(each, [np.linalg.norm(w, 2) for w in stack], rtol=1e-5)


def test_the_warning_is_there():
    for text in (generalization.__doc__, diagnostics.norm_measures.__doc__):
        assert "2309.13658" in text
    assert re.search(r"None of these numbers is a safe bound", generalization.__doc__)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: diagnostics.norm_measures([Y / 2], [Y / 2], margin=1.0, num_samples=4),
            ValueError,
            "weights",
        ),
        (lambda: measures(WEIGHTS, START[:1]), ValueError, "init_weights in the structure"),
        (lambda: measures(WEIGHTS, START[::-1]), ValueError, "init_weights of shape"),
        (lambda: measures(WEIGHTS, input_sizes=[(4, 4)]), ValueError, "input_sizes"),
        (lambda: measures(WEIGHTS, margin="big"), TypeError, "margin"),
        (lambda: diagnostics.spectral_norm(X, num_iters=0), ValueError, "num_iters"),
        (lambda: diagnostics.spectral_norm(X, num_iters=2), TypeError, "key"),
        (lambda: diagnostics.conv_spectral_norm(X, (2, 2)), ValueError, "kernel"),
        (
            lambda: diagnostics.conv_spectral_norm(X[None, None], (2, 0)),
            ValueError,
            "input_size",
        ),
        (lambda: diagnostics.path_norm(network, WEIGHTS, (0,)), ValueError, "input_shape"),
        (lambda: diagnostics.path_norm(network, [jnp.ones(2, int)], (5,)), ValueError, "params"),
        (lambda: diagnostics.log_path_norm(WEIGHTS[::-1]), ValueError, r"kernels\[1\]"),
        (lambda: diagnostics.margin_percentile(X, percent=0), ValueError, "percent"),
        (lambda: diagnostics.margin_percentile(X, percent=2.5), ValueError, "percent"),
        (lambda: diagnostics.margin_percentile(X[:0]), ValueError, "margin"),
        (
            lambda: diagnostics.norm_measures(WEIGHTS, START, margin=1.0, num_samples=0),
            ValueError,
            "num_samples",
        ),
        (
            lambda: diagnostics.pac_bayes_measures(WEIGHTS, START, sigma=0.0, num_samples=4),
            ValueError,
            "sigma",
        ),
        (
            lambda: diagnostics.pac_bayes_sigma(
                jax.random.key(0), network, WEIGHTS, (X, Y), num_draws=True
            ),
            ValueError,
            "num_draws",
        ),
        (
            lambda: diagnostics.pac_bayes_sigma(jax.random.key(0), network, WEIGHTS, X),
            TypeError,
            "data",
        ),
        (
            lambda: diagnostics.pac_bayes_sigma(
                jax.random.key(0), network, WEIGHTS, (X, Y[:5])
            ),
            ValueError,
            "apply_fn",
        ),
        (
            lambda: diagnostics.pac_bayes_sigma(
                jax.random.key(0), network, WEIGHTS, (X, Y), target_drop=1.5
            ),
            ValueError,
            "target_drop",
        ),
    ],
)  # fmt: skip
def test_wrong_arguments_are_named(call, error, message):
    with pytest.raises(error, match=rf"expected .*{message}|{message}.* expected"):
        call()
