# SPDX-License-Identifier: Apache-2.0
"""The streaming head against plain logits: every number and every gradient."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import xloss
from tests.contract.cases import ALL, call_statistics, label
from xloss import catalogue
from xloss.classification import comp_sum, cross_entropy, ensloss, log_partition_penalty
from xloss.heads import linear_mean_loss, linear_statistics

FIELDS = ("log_odds", "lead", "centred", "variance", "target")
WIDTH = 6
#: Losses whose needs are fields of the statistics, with variants: both doors take them all.
ON_STATISTICS = [c for c in ALL if catalogue.entry(c[0]).takes_statistics]


def problem(tokens, classes, seed=0, dtype=np.float64):
    rng = np.random.default_rng(seed)
    h, w, b = (
        jnp.asarray(rng.normal(size=s).astype(dtype))
        for s in ((tokens, WIDTH), (WIDTH, classes), (classes,))
    )
    return h, w, b, jnp.asarray(rng.integers(0, classes, tokens), jnp.int32)


def mixed(stats, seed=1):
    """A scalar of all fields that weights each token and field differently; inf left out."""
    weights = np.random.default_rng(seed).normal(size=(len(FIELDS), *stats.shape))
    values = jnp.stack([getattr(stats, f) for f in FIELDS])
    values = jnp.where(jnp.isfinite(values), values, 0.0)
    return jnp.sum(jnp.asarray(weights, values.dtype) * jnp.sin(values))


def dense(h, w, b, cap, temperature, labels, normalize=False):
    if normalize:
        h = h / jnp.linalg.norm(h, axis=-1, keepdims=True)
        w = w / jnp.linalg.norm(w, axis=0, keepdims=True)
    z = h @ w + b[None, :]
    return xloss.logit_statistics(cap * jnp.tanh(z / cap), labels, temperature=temperature)


@functools.cache
def gradients(normalize, budget):
    def streamed(h, w, b, cap, t, labels):
        options = {"bias": b, "soft_cap": cap, "temperature": t, "normalize": normalize}
        return mixed(linear_statistics(h, w, labels, max_temp_bytes=budget, **options))

    def plain(h, w, b, cap, t, labels):
        return mixed(dense(h, w, b, cap, t, labels, normalize))

    return tuple(jax.jit(jax.value_and_grad(f, argnums=range(5))) for f in (streamed, plain))


@pytest.mark.parametrize(
    ("tokens", "classes", "normalize", "budget"),
    [
        (5, 1, False, None),
        (5, 7, True, None),
        (130, 1000, False, 700_000),  # several blocks, the last one overlapping
        (130, 1500, True, 700_000),
        (300, 1500, False, 900_000),  # tokens in chunks, too
    ],
)
def test_fields_and_gradients_equal_those_of_plain_logits(tokens, classes, normalize, budget, x64):
    h, w, b, labels = problem(tokens, classes)
    arguments = (h, w, b, jnp.asarray(2.0), jnp.asarray(0.7), labels)
    streamed, plain = (f(*arguments) for f in gradients(normalize, budget))
    for mine, theirs in zip(jax.tree.leaves(streamed), jax.tree.leaves(plain), strict=True):
        size = max(float(jnp.linalg.norm(theirs)), 1.0)
        assert float(jnp.linalg.norm(mine - theirs)) <= 1e-12 * size


@pytest.mark.parametrize("door", ["lean", "fast"])
def test_float32_gradients_of_scalar_temperature_and_cap(door, x64):
    h, w, b, labels = problem(130, 1500)

    def mean(cap, t, h, w, b, plain=False):
        if plain:
            return xloss.reduce(comp_sum(dense(h, w, b, cap, t, labels), tau=0.7))
        options = {"bias": b, "soft_cap": cap, "temperature": t}
        if door == "lean":
            stats = linear_statistics(h, w, labels, max_temp_bytes=400_000, **options)
            return xloss.reduce(comp_sum(stats, tau=0.7))
        return linear_mean_loss(
            h, w, labels, loss=comp_sum, loss_args={"tau": 0.7}, max_temp_bytes=600_000, **options
        )

    arguments = (jnp.asarray(2.0), jnp.asarray(0.7), h, w, b)
    low = jax.tree.map(lambda x: x.astype(jnp.float32), arguments)
    found = jax.jit(jax.grad(mean, argnums=(0, 1)))(*low)
    assert all(x.dtype == jnp.float32 for x in found)
    # The same numbers in float64: what is left is the error of the streamed computation.
    exact = jax.jit(jax.grad(functools.partial(mean, plain=True), argnums=(0, 1)))(
        *jax.tree.map(lambda x: x.astype(jnp.float64), low)
    )
    np.testing.assert_allclose(found, exact, rtol=1e-5)


@pytest.mark.parametrize("classes", [1, 7, 1000, 1500, 32001])
@pytest.mark.parametrize("door", ["lean", "fast"])
def test_float32_gradients_are_as_exact_as_float32_allows(door, classes):
    tokens = 37
    h, w, _, labels = problem(tokens, classes, dtype=np.float32)

    def streamed(h, w):
        if door == "fast":
            return linear_mean_loss(h, w, labels, loss=comp_sum, loss_args={"tau": 0.7})
        return xloss.reduce(comp_sum(linear_statistics(h, w, labels), tau=0.7))

    found = jax.jit(jax.grad(streamed, argnums=(0, 1)))(h, w)
    with jax.enable_x64(True):
        h, w = (jnp.asarray(np.asarray(x, np.float64)) for x in (h, w))
        plain = jax.grad(lambda h, w: xloss.reduce(comp_sum(h @ w, labels, tau=0.7)), (0, 1))(h, w)
        plain = [np.asarray(x) for x in plain]
    for mine, true in zip(found, plain, strict=True):
        size = np.linalg.norm(true)
        assert np.linalg.norm(np.asarray(mine) - true) <= 2e-6 * (size if size > 0 else 1.0)


@pytest.mark.parametrize(("name", "hyper"), ON_STATISTICS, ids=map(label, ON_STATISTICS))
def test_every_loss_of_the_statistics_works_on_both_doors(name, hyper, x64):
    h, w, _, labels = problem(9, 11)
    where = jnp.arange(9) % 4 > 0

    def plain(h, w):
        stats = xloss.logit_statistics(h @ w, labels, where=where)
        return xloss.reduce(call_statistics(name, stats, where, **hyper), where=where)

    def lean(h, w):
        stats = linear_statistics(h, w, labels, where=where)
        return xloss.reduce(call_statistics(name, stats, where, **hyper), where=where)

    def fast(h, w):
        loss = catalogue.entry(name).function
        return linear_mean_loss(h, w, labels, loss=loss, loss_args=hyper, where=where)

    doors = [lean] if catalogue.entry(name).couples_batch else [lean, fast]
    everything = jax.jit(
        lambda h, w: [jax.value_and_grad(f, argnums=(0, 1))(h, w) for f in (plain, *doors)]
    )
    true, *found = everything(h, w)
    for door in found:
        for mine, theirs in zip(jax.tree.leaves(door), jax.tree.leaves(true), strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=1e-10, atol=1e-13)


def scored(stats, tau, extra):
    return comp_sum(stats, tau=tau) * extra[:, 0] + 0.1 * log_partition_penalty(stats)


def test_the_mean_is_differentiable_in_all_that_it_is_given(x64):
    h, w, b, labels = problem(15, 40)
    h, labels = h.reshape(3, 5, WIDTH), labels.reshape(3, 5)
    rng = np.random.default_rng(2)
    extra, weights = jnp.asarray(rng.random((3, 5, 2))), jnp.asarray(rng.random((3, 5)))
    where = jnp.asarray(rng.random((3, 5)) < 0.7)

    def fast(h, w, b, cap, t, tau, extra, weights):
        return linear_mean_loss(
            h, w, labels, loss=scored, loss_args={"tau": tau, "extra": extra}, where=where,
            weights=weights, bias=b, soft_cap=cap, temperature=t,
        )  # fmt: skip

    def plain(h, w, b, cap, t, tau, extra, weights):
        stats = dense(h.reshape(15, WIDTH), w, b, cap, t, labels.reshape(15))
        losses = scored(stats, tau, extra.reshape(15, 2))
        return xloss.reduce(losses, where=where.reshape(15), weights=weights.reshape(15))

    arguments = (h, w, b, 2.0, 0.7, 1.3, extra, weights)
    direction = jax.tree.map(lambda x: jnp.cos(3.0 * jnp.asarray(x)), arguments)

    def everything(f):
        gradient = jax.grad(f, argnums=range(8))
        curvature = jax.jvp(gradient, arguments, direction)[1]
        return f(*arguments), gradient(*arguments), curvature

    found, true = jax.jit(lambda: (everything(fast), everything(plain)))()
    for mine, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(true), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-9, atol=1e-12)


def test_hessian_vector_products_are_exact_through_several_blocks(x64):
    h, w, b, labels = problem(130, 700)
    arguments = (h, w, b, jnp.asarray(2.0), jnp.asarray(0.7))
    direction = jax.tree.map(lambda x: jnp.cos(3.0 * x), arguments)

    def products(f):
        gradient = jax.grad(lambda *x: f(*x, labels), argnums=range(5))
        return jax.jvp(gradient, arguments, direction)[1]

    def streamed(h, w, b, cap, t, labels):
        stats = linear_statistics(
            h, w, labels, bias=b, soft_cap=cap, temperature=t, max_temp_bytes=700_000
        )
        return mixed(stats)

    def plain(*x):
        return mixed(dense(*x))

    for mine, theirs in zip(*jax.jit(lambda: (products(streamed), products(plain)))(), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-8, atol=1e-9)


def test_ties_share_the_gradient_of_the_lead_as_on_plain_logits(x64):
    h, _, _, labels = problem(6, 300)
    w = jnp.zeros((WIDTH, 300))
    streamed = jax.grad(lambda h, w: jnp.sum(linear_statistics(h, w, labels).lead), (0, 1))
    plain = jax.grad(lambda h, w: jnp.sum(xloss.logit_statistics(h @ w, labels).lead), (0, 1))
    for mine, theirs in zip(streamed(h, w), plain(h, w), strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-14)


def test_labels_that_are_no_classes_give_nan_and_leave_the_others_alone():
    h, w, _, _ = problem(5, 7, dtype=np.float32)
    labels = jnp.array([-1, 7, -100, 3, 6])
    losses = cross_entropy(linear_statistics(h, w, labels))
    plain = cross_entropy(h @ w, labels)
    np.testing.assert_array_equal(np.isnan(losses), [True, True, True, False, False])
    np.testing.assert_allclose(losses[3:], plain[3:], rtol=1e-5)


def test_masked_tokens_and_padded_columns_never_enter():
    h, w, _, labels = problem(8, 300, dtype=np.float32)
    where = jnp.arange(8) < 5
    dirty = h.at[6].set(jnp.nan)
    padded = jnp.concatenate([w, jnp.full((WIDTH, 20), jnp.nan, w.dtype)], axis=1)

    def objective(h, w, where, classes):
        options = {"where": where, "num_classes": classes}
        fast = linear_mean_loss(h, w, labels, loss=cross_entropy, **options)
        losses = cross_entropy(linear_statistics(h, w, labels, **options), where=where)
        return fast + xloss.reduce(losses, where=where)

    value, (dh, dw) = jax.value_and_grad(objective, (0, 1))(dirty, padded, where, 300)
    clean, (_, dw_clean) = jax.value_and_grad(objective, (0, 1))(h, w, where, None)
    np.testing.assert_allclose(value, clean, rtol=1e-6)
    np.testing.assert_array_equal(dh[5:], 0.0)
    np.testing.assert_array_equal(dw[:, 300:], 0.0)
    np.testing.assert_allclose(dw[:, :300], dw_clean, rtol=1e-5, atol=1e-8)
    assert float(objective(dirty, padded, jnp.zeros(8, bool), 300)) == 0.0


def test_a_bias_of_minus_infinity_masks_a_class_out(x64):
    h, w, b, labels = problem(7, 300)
    b = b.at[jnp.array([3, 250])].set(-jnp.inf)
    labels = jnp.where((labels == 3) | (labels == 250), 0, labels)

    def streamed(h, w, b):
        return mixed(linear_statistics(h, w, labels, bias=b, soft_cap=5.0, max_temp_bytes=200_000))

    def plain(h, w, b):
        a = h @ w + b[None, :]
        gone = jnp.isneginf(a)
        z = jnp.where(gone, a, 5.0 * jnp.tanh(jnp.where(gone, 0.0, a) / 5.0))
        return mixed(xloss.logit_statistics(z, labels))

    found = jax.jit(jax.value_and_grad(streamed, (0, 1, 2)))(h, w, b)
    true = jax.jit(jax.value_and_grad(plain, (0, 1, 2)))(h, w, b)
    for mine, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(true), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("door", ["lean", "fast"])
def test_low_precision_operands_are_accumulated_in_float32(door):
    h, w, _, labels = problem(64, 300, dtype=np.float32)
    h, w = h.astype(jnp.bfloat16), w.astype(jnp.bfloat16)

    def objective(h, w):
        if door == "fast":
            return linear_mean_loss(h, w, labels, loss=cross_entropy, max_temp_bytes=300_000)
        stats = linear_statistics(h, w, labels, max_temp_bytes=300_000)
        return xloss.reduce(cross_entropy(stats))

    value, found = jax.value_and_grad(objective, (0, 1))(h, w)
    wide = [x.astype(jnp.float32) for x in (h, w)]
    true, plain = jax.value_and_grad(
        lambda h, w: xloss.reduce(cross_entropy(h @ w, labels)), (0, 1)
    )(*wide)
    np.testing.assert_allclose(value, true, rtol=1e-6)
    for mine, theirs in zip(found, plain, strict=True):
        assert mine.dtype == jnp.bfloat16
        error = jnp.linalg.norm(mine.astype(jnp.float32) - theirs) / jnp.linalg.norm(theirs)
        assert float(error) <= 3e-3  # the floor, rounding the result to bfloat16, is 1.6e-3


def test_vmap_over_seeds_equals_a_loop(x64):
    problems = [problem(5, 20, seed) for seed in range(3)]
    h, w, _, labels = (jnp.stack(x) for x in zip(*problems, strict=True))

    def gradient(h, w, labels):
        return jax.grad(lambda h, w: mixed(linear_statistics(h, w, labels)), (0, 1))(h, w)

    mapped = jax.vmap(gradient)(h, w, labels)
    looped = [gradient(*x) for x in zip(h, w, labels, strict=True)]
    for k, mine in enumerate(mapped):
        np.testing.assert_allclose(mine, jnp.stack([x[k] for x in looped]), atol=1e-12)


def test_errors_say_what_was_expected():
    h, w, _, labels = problem(2000, 40, dtype=np.float32)

    def lean(**options):
        return lambda: linear_statistics(h, options.pop("kernel", w), labels, **options)

    def fast(loss, **loss_args):
        return lambda: linear_mean_loss(h, w, labels, loss=loss, loss_args=loss_args)

    def forward():
        return jax.jvp(lambda h: linear_statistics(h, w, labels).target, (h,), (h,))

    cases = [
        (ValueError, "max_temp_bytes >= ", lean(max_temp_bytes=1000)),
        (ValueError, "transpose it", lean(kernel=w.T)),
        (ValueError, "num_classes <= 40", lean(num_classes=41)),
        (ValueError, "inside shard_map", lean(class_axis="model")),
        (ValueError, "ensloss, which couples the batch", fast(ensloss, key=jax.random.key(0))),
        (ValueError, "one a token", fast(lambda stats: jnp.sum(stats.lead))),
        (ValueError, "label_smoothing in", fast(cross_entropy, label_smoothing=2.0)),
        (TypeError, "logit_statistics", forward),
    ]
    for kind, message, call in cases:
        with pytest.raises(kind, match=message):
            call()
