# SPDX-License-Identifier: Apache-2.0
"""The contract that every loss of the catalogue keeps (DESIGN, "The loss contract").

Each test runs over all losses; a new loss is covered by being registered.
"""

import functools
import importlib

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import xloss
from tests.contract.cases import (
    ALL,
    EXAMPLES,
    TOO_LOW,
    VALUES,
    batch,
    call,
    call_statistics,
    inputs_of,
    label,
    logits_for,
)
from tests.derivatives import check_derivatives
from xloss import catalogue

each_loss = pytest.mark.parametrize("name", catalogue.LOSSES)
each_call = pytest.mark.parametrize(("name", "hyper"), ALL, ids=map(label, ALL))
INTEGER_LABELS = [
    n for n, e in catalogue.LOSSES.items() if not {"probabilities", "multi_hot"} & set(e.needs)
]
FROM_STATISTICS = [n for n, e in catalogue.LOSSES.items() if e.takes_statistics]


@functools.cache
def program(name, hyper):
    """One compiled program for all tests of a loss: most of their time would be compiling."""

    def objective(z, labels, where):
        losses = call(name, z, labels, where, **dict(hyper))
        return jnp.sum(losses), losses

    return jax.jit(jax.value_and_grad(objective, has_aux=True))


def value_and_grad(name, logits, labels, where=None, **hyper):
    (_, losses), gradient = program(name, tuple(hyper.items()))(logits, labels, where)
    return losses, gradient


def extreme_logits():
    rows = [
        [0.0, 0.0, 0.0],
        [88.0, -88.0, 0.0],
        [1e4, -1e4, 1e4],
        [-1e4, -1e4, -1e4],
        [1e30, -1e30, 0.0],
        [1e-40, 0.0, -1e-40],
        [200.0, 0.0, 0.0],
    ]
    logits = np.repeat(np.array(rows, np.float32), 3, axis=0)
    assert len(logits) == EXAMPLES  # one shape, one program
    return jnp.asarray(logits), jnp.tile(jnp.arange(3), len(rows))


@each_call
def test_extreme_logits_give_no_nan_and_inf_only_on_overflow(name, hyper):
    logits, labels = extreme_logits()
    losses, gradient = value_and_grad(name, logits, labels, **hyper)
    assert not np.isnan(losses).any()
    assert not np.isnan(gradient).any()
    with jax.enable_x64(True):
        wide = call(name, jnp.asarray(np.asarray(logits, np.float64)), labels, **hyper)
    overflow = np.abs(np.asarray(wide)) > np.finfo(np.float32).max
    infinite = np.isinf(np.asarray(losses))
    if catalogue.entry(name).exact_gradient:  # EnsLoss draws other numbers in float64
        np.testing.assert_array_equal(infinite, overflow)
    else:
        assert not infinite.any()


@pytest.mark.parametrize("name", INTEGER_LABELS)
def test_labels_out_of_range_give_nan_and_leave_the_others_alone(name):
    logits, labels = batch((6, 3))
    right = call(name, logits, labels)
    wrong = call(name, logits, labels.at[:4].set(jnp.array([-1, -3, 3, -100])))
    assert np.isnan(wrong[:4]).all()
    assert not np.isnan(wrong[4:]).any()
    if not catalogue.entry(name).couples_batch:
        np.testing.assert_array_equal(wrong[4:], right[4:])


@pytest.mark.parametrize("name", INTEGER_LABELS)
@pytest.mark.parametrize("dtype", [jnp.int8, jnp.uint8, jnp.int16])
def test_narrow_label_dtypes_reach_every_class(name, dtype):
    logits, _ = batch((3, 300))
    labels = jnp.array([0, 5, 120], jnp.int32)
    chex.assert_trees_all_equal(
        call(name, logits, labels.astype(dtype)), call(name, logits, labels)
    )


@each_call
def test_jit_equals_eager(name, hyper):
    logits, labels = batch()
    jitted = jax.jit(lambda z, y: call(name, z, y, **hyper))(logits, labels)
    chex.assert_trees_all_close(jitted, call(name, logits, labels, **hyper), rtol=1e-6)


@each_loss
def test_vmap_equals_loop(name):
    logits, labels = batch((3, 4, 5))
    mapped = jax.vmap(lambda z, y: call(name, z, y))(logits, labels)
    looped = jnp.stack([call(name, z, y) for z, y in zip(logits, labels, strict=True)])
    chex.assert_trees_all_close(mapped, looped, rtol=1e-6)


@each_call
def test_a_mask_leaves_the_others_as_they_were(name, hyper):
    logits, labels = batch()
    where = jnp.arange(len(labels)) % 2 == 0
    masked, gradient = value_and_grad(name, logits, labels, where, **hyper)
    np.testing.assert_array_equal(masked[~where], 0.0)
    np.testing.assert_array_equal(gradient[~where], 0.0)
    if not catalogue.entry(name).couples_batch:  # EnsLoss: see its own tests, with given draws
        every, every_gradient = value_and_grad(name, logits, labels, **hyper)
        chex.assert_trees_all_close(masked[where], every[where], rtol=1e-6)
        chex.assert_trees_all_close(gradient[where], every_gradient[where], rtol=1e-5, atol=1e-7)


@each_call
def test_masked_nan_and_bad_labels_touch_nothing(name, hyper):
    logits, labels = batch()
    where = jnp.arange(len(labels)) % 2 == 0
    clean, clean_gradient = value_and_grad(name, logits, labels, where, **hyper)
    dirty = logits.at[1].set(jnp.nan).at[3].set(jnp.inf).at[5].set(-jnp.inf)
    bad = labels.at[3].set(-100)
    losses, gradient = value_and_grad(name, dirty, bad, where, **hyper)
    np.testing.assert_array_equal(losses, clean)
    np.testing.assert_array_equal(gradient, clean_gradient)


@each_call
def test_all_masked_is_zero(name, hyper):
    logits, labels = batch()
    where = jnp.zeros(labels.shape, jnp.bool_)
    losses, gradient = value_and_grad(name, jnp.full_like(logits, jnp.nan), labels, where, **hyper)
    np.testing.assert_array_equal(losses, 0.0)
    np.testing.assert_array_equal(gradient, 0.0)
    assert float(xloss.reduce(losses, where=where)) == 0.0


@pytest.mark.parametrize(
    ("name", "hyper", "dtype"),
    [(*c, jnp.bfloat16) for c in ALL] + [(name, {}, jnp.float16) for name in catalogue.LOSSES],
    ids=[f"bfloat16-{label(c)}" for c in ALL] + [f"float16-{name}" for name in catalogue.LOSSES],
)
def test_low_precision_logits_give_float32_losses(name, hyper, dtype):
    logits, labels = batch()
    low = inputs_of(name, logits.astype(dtype))
    if "distances" in catalogue.entry(name).needs:
        hyper = {**hyper, "given": True}
    losses, gradient = value_and_grad(name, low, labels, **hyper)
    wide, wide_gradient = value_and_grad(name, low.astype(jnp.float32), labels, **hyper)
    assert losses.dtype == jnp.float32 and gradient.dtype == dtype
    chex.assert_trees_all_close(losses, wide, rtol=1e-6)
    atol = 1e-6
    if catalogue.entry(name).takes_attacked:  # two rounded gradients meet outside the loss
        atol = 4 * float(jnp.finfo(dtype).eps) * float(jnp.max(jnp.abs(wide_gradient)))
    chex.assert_trees_all_close(gradient, wide_gradient.astype(dtype), rtol=1e-2, atol=atol)


@pytest.mark.parametrize("name", [n for n, e in catalogue.LOSSES.items() if e.exact_gradient])
def test_half_precision_logits_lose_no_digits_of_the_loss(name):
    """Against float64 of the same rounded logits, at gaps up to 80."""
    rng = np.random.default_rng(0)
    scale = np.repeat([1.0, 10.0, 40.0], 16)[:, None]
    # Distances of gaps of 80 are no float16.
    limit = 10.0 if "distances" in catalogue.entry(name).needs else 40.0
    logits = np.clip(scale * rng.normal(size=(48, 7)), -limit, limit).astype(np.float32)
    labels = jnp.asarray(rng.integers(0, 7, 48), jnp.int32)
    # The LDR losses cross 0, where what counts is the error beside their terms.
    least = 0.1 if name in ("ldr_kl", "aldr_kl") else 1e-30
    for dtype in (jnp.bfloat16, jnp.float16):
        low = inputs_of(name, jnp.asarray(logits).astype(dtype))
        losses = np.float64(call(name, low, labels, given=True))
        with jax.enable_x64(True):
            exact = np.asarray(call(name, low.astype(jnp.float64), labels, given=True))
        assert exact.dtype == np.float64
        assert np.max(np.abs(losses - exact) / np.maximum(np.abs(exact), least)) < 1e-5


@each_call
def test_float64_stays_and_derivatives_are_right(name, hyper, x64):
    logits, labels = batch((3, 4), dtype=np.float64)
    losses = call(name, logits, labels, **hyper)
    assert losses.dtype == jnp.float64
    if catalogue.entry(name).exact_gradient:
        check_derivatives(lambda z: call(name, z, labels, **hyper), logits, rtol=1e-5)


@pytest.mark.parametrize("name", [n for n in VALUES if catalogue.entry(n).exact_gradient])
def test_derivative_in_the_hyperparameters_is_right(name, x64):
    logits, labels = batch((3, 4), dtype=np.float64)
    for key, values in VALUES[name].items():
        inside = jnp.array(values[1:-1] or values)  # the range: differences need room
        losses_at = jax.vmap(lambda h, key=key: call(name, logits, labels, **{key: h}))
        check_derivatives(losses_at, inside, rtol=1e-5)


@each_call
def test_leading_axes_are_batch(name, hyper):
    logits, labels = batch((2, 3, 5))
    nested = call(name, logits, labels, **hyper)
    flat = call(name, logits.reshape(6, 5), labels.reshape(6), **hyper)
    assert nested.shape == (2, 3)
    # EnsLoss draws by position in the flattened batch, so it agrees too.
    chex.assert_trees_all_close(nested.reshape(6), flat, rtol=1e-6)


@each_loss
def test_a_single_example_needs_no_batch_axis(name):
    logits, labels = batch((1, 5))
    chex.assert_trees_all_close(
        call(name, logits[0], labels[0]), call(name, logits, labels)[0], rtol=1e-6
    )


@pytest.mark.parametrize(
    ("name", "hyper"),
    [c for c in ALL if c[0] in FROM_STATISTICS],
    ids=[label(c) for c in ALL if c[0] in FROM_STATISTICS],
)
def test_statistics_equal_logits(name, hyper):
    logits, labels = batch()
    where = jnp.arange(len(labels)) != 1
    stats = xloss.logit_statistics(logits, labels, where=where)
    chex.assert_trees_all_close(
        call_statistics(name, stats, where, **hyper),
        call(name, logits, labels, where, **hyper),
        rtol=1e-6,
    )


@pytest.mark.parametrize("name", FROM_STATISTICS)
def test_binary_scores_equal_two_class_logits(name):
    scores = jnp.array([0.3, -2.0, 4.0, 0.0])
    labels = jnp.array([1, 1, 0, 0])
    two = jnp.stack([jnp.zeros_like(scores), scores], axis=-1)
    binary = call_statistics(name, xloss.binary_statistics(scores, labels))
    chex.assert_trees_all_close(binary, call(name, two, labels), rtol=1e-6)


@pytest.mark.parametrize("name", VALUES)
def test_one_trace_serves_many_values(name):
    logits, labels = batch()
    module = importlib.import_module(catalogue.entry(name).function.__module__)
    cores = [f for f in vars(module).values() if hasattr(f, "_cache_size")]
    for key, values in VALUES[name].items():
        first = values[0]
        call(name, logits, labels, **{key: first})
        before = sum(core._cache_size() for core in cores)
        spelled = [np.float32(first), np.float64(first), np.array(first), *values]
        if first == int(first):
            spelled += [int(first), np.int64(first)]
        for value in spelled:
            call(name, logits, labels, **{key: value})
        assert sum(core._cache_size() for core in cores) == before

        traced = jax.jit(
            chex.assert_max_traces(lambda h, key=key: call(name, logits, labels, **{key: h}), n=1)
        )
        chex.clear_trace_counter()
        for value in values:
            chex.assert_trees_all_close(
                traced(value), call(name, logits, labels, **{key: value}), rtol=1e-5, atol=1e-6
            )


@each_call
def test_sharded_over_eight_devices_equals_one(name, hyper):
    logits, labels = batch((16, 5))
    where = jnp.arange(16) % 3 > 0
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    sharding = NamedSharding(mesh, P("data"))
    spread = jax.device_put((logits, labels, where), sharding)

    def objective(z, y, w):
        losses = call(name, z, y, w, **hyper)
        return xloss.reduce(losses, where=w), losses

    step = jax.jit(jax.value_and_grad(objective, has_aux=True))
    (total, losses), gradient = step(*spread)
    (alone, lone_losses), lone_gradient = step(logits, labels, where)
    chex.assert_trees_all_close(losses, lone_losses, rtol=1e-5, atol=1e-6)
    chex.assert_trees_all_close(total, alone, rtol=1e-5)
    chex.assert_trees_all_close(gradient, lone_gradient, rtol=1e-4, atol=1e-7)
    assert gradient.sharding.is_equivalent_to(sharding, 2)

    extra = {"axis_name": "data"} if catalogue.entry(name).couples_batch else {}

    def local(z, y, w):
        losses = call(name, z, y, w, **hyper, **extra)
        return xloss.reduce(losses, where=w, axis_name="data"), losses

    mapped = jax.jit(
        jax.shard_map(local, mesh=mesh, in_specs=(P("data"),) * 3, out_specs=(P(), P("data")))
    )
    chex.assert_trees_all_close(mapped(*spread), (alone, lone_losses), rtol=1e-5, atol=1e-6)


@each_loss
def test_one_class(name):
    if name == "log_partition_penalty":
        pytest.skip("not a loss of the label: with one class it is coef z^2 (spec logit_stability)")
    if name == "soft_top_k_loss":
        pytest.skip("0 < k < 1 has no k (spec decoupled_softmax); test_bad_arguments_are_named")
    losses, gradient = value_and_grad(name, jnp.array([[3.0], [-2.0]]), jnp.zeros(2, jnp.int32))
    # No Z-loss is ever 0: z = 0 standard deviations cost softplus(a b) / a, a constant.
    # MART without a rival is -log of the authors' 1.0001.
    want = {"z_loss": np.log(2.0), "mart": -np.log1p(1e-4)}.get(name, 0.0)
    np.testing.assert_allclose(losses, want, rtol=1e-6)
    np.testing.assert_array_equal(gradient, 0.0)


@each_call
def test_classes_of_logit_minus_inf_are_left_out(name, hyper):
    logits, labels = batch((EXAMPLES, 3))
    gone = jnp.full((EXAMPLES, 2), -jnp.inf)
    padded = jnp.concatenate([logits, gone], axis=-1)
    losses, gradient = value_and_grad(name, padded, labels, **hyper)
    want, want_gradient = value_and_grad(name, logits, labels, **hyper)
    chex.assert_trees_all_close(losses, want, rtol=1e-6)
    chex.assert_trees_all_close(gradient[:, :3], want_gradient, rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(gradient[:, 3:], 0.0)


@each_loss
def test_wrong_inputs_are_refused_by_name(name):
    logits, labels = batch((4, 3))
    with pytest.raises(TypeError, match=f"{name}: expected (scores|logits|distances) of a float"):
        call(name, jnp.ones((4, 3), jnp.int32), labels)
    with pytest.raises(ValueError, match=r"expected .* \(4, 3\).*, got .*\(5"):
        call(name, logits, jnp.zeros(5, jnp.int32))
    with pytest.raises(ValueError, match=r"expected where of shape \(4,\), got \(4, 1\)"):
        call(name, logits, labels, jnp.ones((4, 1), jnp.bool_))
    with pytest.raises(TypeError, match="expected where of dtype bool, got float32"):
        call(name, logits, labels, jnp.ones(4))
    if name in INTEGER_LABELS:
        hint = "same shape" if "distances" in catalogue.entry(name).needs else "binary_statistics"
        with pytest.raises(TypeError, match=hint):
            call(name, jnp.ones(4), labels)
        with pytest.raises(TypeError, match="expected labels of an integer dtype, got float32"):
            call(name, logits, jnp.ones(4))
    stats = xloss.logit_statistics(logits, labels)
    with pytest.raises(TypeError, match="LogitStatistics"):
        entry = catalogue.entry(name)
        entry.function(
            *[stats, *logits_for(entry, logits)[1:]],
            labels,
            **({"key": jax.random.key(0)} if name == "ensloss" else {}),
        )


@pytest.mark.parametrize("name", VALUES)
def test_hyperparameters_out_of_range_are_refused_by_name(name):
    logits, labels = batch()
    for key in VALUES[name]:
        with pytest.raises(TypeError, match=f"{name}: expected {key} to be a number"):
            call(name, logits, labels, **{key: "0.5"})
        with pytest.raises(ValueError, match=f"{name}: expected {key} "):
            call(name, logits, labels, **{key: float("nan")})
        with pytest.raises(ValueError, match=f"{name}: expected {key} to be a scalar"):
            call(name, logits, labels, **{key: jnp.ones(3)})
        too_low = TOO_LOW.get((name, key), -1.0)
        if too_low is not None:
            with pytest.raises(ValueError, match=rf"{name}: expected {key} in .*, got {too_low:g}"):
                call(name, logits, labels, **{key: too_low})
