# SPDX-License-Identifier: Apache-2.0
"""LogitStatistics: every field against float64, the tail, masks and labels."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import xloss
from tests.derivatives import check_derivatives
from xloss import as_statistics, binary_statistics, logit_statistics
from xloss.classification import cross_entropy, soft_cross_entropy
from xloss.statistics import FIELDS

EPS = np.finfo(np.float32).eps
PROPERTIES = ("log_prob", "log_partition", "rest", "runner_up", "mean")


def reference(logits, labels, temperature=1.0):
    """The fields and the derived numbers in float64, example by example."""
    rows = []
    for z, y in zip(np.asarray(logits, np.float64), np.asarray(labels), strict=True):
        z = z / temperature
        others = np.delete(z, y)
        others = others[np.isfinite(others)]
        finite = z[np.isfinite(z)]
        top = others.max() if others.size else 0.0
        rest = top + np.log(np.exp(others - top).sum()) if others.size else -np.inf
        runner_up = others.max() if others.size else -np.inf
        rows.append(
            {
                "log_odds": z[y] - rest,
                "lead": z[y] - runner_up,
                "centred": z[y] - finite.mean(),
                "variance": finite.var(),
                "target": z[y],
                "class_count": finite.size,
                "rest": rest,
                "runner_up": runner_up,
                "mean": finite.mean(),
                "log_prob": -np.logaddexp(0.0, rest - z[y]),
                "log_partition": np.logaddexp(z[y], rest),
            }
        )
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def examples():
    """Random logits, ties, masked classes, all others masked, far offsets."""
    rng = np.random.default_rng(0)
    logits = rng.normal(scale=3.0, size=(14, 5))
    logits[1] = 2.0
    logits[2, :3] = 4.0
    logits[3, [0, 4]] = -np.inf
    logits[4, 1:] = -np.inf
    logits[5] += 1000.0
    logits[6] -= 1000.0
    labels = np.array([0, 1, 2, 3, 0, 4, 2, 1, 0, 4, 3, 3, 2, 1])
    return logits, labels


@pytest.mark.parametrize("temperature", [1.0, 0.25])
def test_fields_and_properties_match_float64(temperature, x64):
    logits, labels = examples()
    stats = logit_statistics(logits, labels, temperature=temperature)
    expected = reference(logits, labels, temperature)
    for name in (*FIELDS, *PROPERTIES):
        got = getattr(stats, name)
        assert got.dtype == jnp.float64 and got.shape == (14,), name
        np.testing.assert_allclose(got, expected[name], rtol=1e-11, atol=1e-11, err_msg=name)
    assert float(stats.temperature) == temperature
    assert (stats.num_classes, stats.provider) == (5, "logit_statistics")


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_low_precision_fields_are_float32_of_the_rounded_logits(dtype):
    logits, labels = examples()
    rounded = jnp.asarray(logits, dtype)
    stats = logit_statistics(rounded, labels)
    expected = reference(np.asarray(rounded.astype(jnp.float32)), labels)
    for name in FIELDS:
        got = getattr(stats, name)
        assert got.dtype == jnp.float32
        np.testing.assert_allclose(got, expected[name], rtol=2e-6, atol=2e-4, err_msg=name)
    assert stats.shape == (14,) and stats.dtype == jnp.float32


def test_leading_axes_are_the_batch():
    logits, labels = examples()
    logits = jnp.asarray(logits, jnp.float32)
    nested = logit_statistics(logits.reshape(7, 2, 5), labels.reshape(7, 2))
    flat = logit_statistics(logits, labels)
    assert nested.shape == (7, 2)
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(nested, name).ravel(), getattr(flat, name))


def tail_cases(classes):
    """Gaps 0 to 80 at three offsets, the other logits tied or spread, [N, K] with label last."""
    gaps = np.arange(0.0, 80.25, 0.25)
    spread = -np.abs(np.random.default_rng(1).normal(scale=4.0, size=(gaps.size, classes)))
    spread[:, 0] = 0.0
    rows = []
    for others in (np.zeros((gaps.size, classes)), spread):
        for offset in (0.0, 1000.0, -1000.0):
            z = others + offset
            z[:, -1] = gaps + offset
            rows.append(z)
    return np.concatenate(rows)


@pytest.mark.parametrize("classes", [2, 10, 1000])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_the_tail_keeps_its_digits(classes, dtype):
    logits = jnp.asarray(tail_cases(classes).astype(np.float32), dtype)
    labels = jnp.full(logits.shape[0], classes - 1)
    rounded = np.asarray(logits.astype(jnp.float32), np.float64)
    top = rounded[:, :-1].max(-1)
    m = (rounded[:, -1] - top) - np.log(np.exp(rounded[:, :-1] - top[:, None]).sum(-1))
    exact = np.logaddexp(0.0, -m)
    # With more classes than e^gap the log-odds are negative: there the plain 4 eps hold.
    allowed = (4.0 + np.maximum(m, 0.0) / 2.0) * EPS
    stats = logit_statistics(logits, labels)
    one_hot = jax.nn.one_hot(labels, classes, dtype=jnp.float32)
    for name, loss in {
        "cross_entropy": cross_entropy(logits, labels),
        "statistics": jax.nn.softplus(-stats.log_odds),
        "log_prob": -stats.log_prob,
        "soft_cross_entropy": soft_cross_entropy(logits, one_hot),
    }.items():
        loss = np.asarray(loss, np.float64)
        assert (loss > 0).all(), name
        assert (np.abs(loss - exact) / exact <= allowed).all(), name
    assert (np.abs(np.asarray(stats.log_odds, np.float64) - m) <= allowed).all()


def test_the_gradient_survives_in_the_tail():
    gaps = jnp.array([0.0, 17.0, 50.0, 80.0])
    logits = jnp.stack([gaps, jnp.zeros(4), jnp.zeros(4)], axis=-1)
    labels = jnp.zeros(4, jnp.int32)
    gradient = jax.grad(lambda z: jnp.sum(cross_entropy(z, labels)))(logits)
    others = 1.0 / (2.0 + np.exp(np.asarray(gaps, np.float64)))
    np.testing.assert_allclose(gradient[:, 1], others, rtol=1e-5)
    np.testing.assert_allclose(gradient[:, 0], -2 * others, rtol=1e-5)


def test_one_class_is_certain_and_has_no_gradient():
    logits, labels = jnp.array([[3.0], [-2.0]]), jnp.zeros(2, jnp.int32)
    stats = logit_statistics(logits, labels)
    np.testing.assert_array_equal(stats.log_odds, np.inf)
    np.testing.assert_array_equal(stats.lead, np.inf)
    np.testing.assert_array_equal(stats.log_prob, 0.0)
    np.testing.assert_array_equal(stats.log_partition, [3.0, -2.0])
    np.testing.assert_array_equal(stats.variance, 0.0)
    np.testing.assert_array_equal(stats.centred, 0.0)
    for name in ("log_odds", "lead"):

        def total(z, name=name):
            return jnp.sum(getattr(logit_statistics(z, labels), name))

        np.testing.assert_array_equal(jax.grad(total)(logits), 0.0)


def test_a_label_on_a_masked_class_is_impossible_not_undefined():
    logits = jnp.array([[1.0, -jnp.inf, 0.5]])
    stats = logit_statistics(logits, jnp.array([1]))
    assert float(stats.log_odds[0]) == float(stats.lead[0]) == -np.inf
    loss, gradient = jax.value_and_grad(lambda z: cross_entropy(z, jnp.array([1]))[0])(logits)
    assert float(loss) == np.inf and np.isfinite(gradient).all()


def test_variance_survives_an_outlier_and_an_offset():
    logits = np.random.default_rng(0).normal(size=(3, 100)).astype(np.float32)
    logits[0, 0] = 1e4
    logits[1] += 1e3
    expected = reference(logits, [1, 1, 1])["variance"]
    np.testing.assert_allclose(
        logit_statistics(logits, np.array([1, 1, 1])).variance, expected, rtol=1e-5
    )


@pytest.mark.parametrize("label", [-1, -3, -100, 3, 2**31 - 1])
def test_labels_out_of_range_give_nan(label):
    logits, labels = jnp.ones((2, 3)), jnp.array([label, 1])
    stats = logit_statistics(logits, labels)
    for name in ("log_odds", "lead", "centred", "target"):
        assert np.isnan(getattr(stats, name)[0]) and np.isfinite(getattr(stats, name)[1])


def test_wide_and_unsigned_labels_never_wrap_into_another_class():
    logits = jnp.arange(6.0).reshape(2, 3)
    for labels in (
        np.array([2**32 - 1, 1], np.uint32),
        np.array([2**32, 1], np.int64),
        np.array([2**32 + 1, 1], np.uint64),
        np.array([-(2**40), 1], np.int64),
        np.array([255, 1], np.uint8),
        np.array([-128, 1], np.int8),
    ):
        losses = cross_entropy(logits, labels)
        assert np.isnan(losses[0]), labels
        np.testing.assert_array_equal(losses[1], cross_entropy(logits, jnp.array([0, 1]))[1])
        with jax.enable_x64(True):
            assert np.isnan(cross_entropy(logits, jnp.asarray(labels))[0]), labels


def test_masked_examples_are_not_read():
    logits, labels = examples()
    clean = jnp.asarray(logits[7:11], jnp.float32)
    labels = jnp.asarray(labels[7:11])
    where = jnp.array([True, False, False, True])
    dirty = clean.at[1].set(jnp.nan).at[2].set(jnp.inf)

    def total(z, temperature, y):
        stats = logit_statistics(z, y, where=where, temperature=temperature)
        return sum(jnp.sum(jnp.where(where, getattr(stats, name), 0.0)) for name in FIELDS)

    step = jax.jit(jax.value_and_grad(total, argnums=(0, 1)))
    expected, (gradient, slope) = step(clean, 2.0, labels)
    found, (dirty_gradient, dirty_slope) = step(dirty, 2.0, labels.at[1].set(-7))
    assert float(found) == float(expected) and float(slope) == float(dirty_slope)
    np.testing.assert_array_equal(dirty_gradient, gradient)
    np.testing.assert_array_equal(dirty_gradient[1:3], 0.0)
    stats = logit_statistics(dirty, labels, where=where)
    assert all(np.isfinite(getattr(stats, name)).all() for name in FIELDS)


def fields_total(stats):
    weights = {"log_odds": 1.0, "lead": 0.7, "centred": -0.4, "variance": 0.3, "target": 0.2}
    return sum(w * jnp.sum(jnp.sin(getattr(stats, name))) for name, w in weights.items())


def test_derivatives_of_every_field_to_second_order(x64):
    logits = jnp.asarray(np.random.default_rng(2).normal(size=(3, 4)))
    labels = jnp.array([0, 3, 1])

    def objective(z, temperature):
        return fields_total(logit_statistics(z, labels, temperature=temperature))

    check_derivatives(objective, logits, 0.8)


def test_forward_and_reverse_mode_agree_with_masked_classes_and_ties():
    logits = jnp.array([[1.0, -jnp.inf, 0.3, 0.3], [2.0, 2.0, -1.0, 2.0]])
    labels = jnp.array([0, 1])

    def fields(z):
        stats = logit_statistics(z, labels)
        return jnp.stack([getattr(stats, name) for name in FIELDS])

    forward, backward = jax.jit(lambda z: (jax.jacfwd(fields)(z), jax.jacrev(fields)(z)))(logits)
    chex.assert_tree_all_finite((forward, backward))
    chex.assert_trees_all_close(forward, backward, atol=1e-6)
    np.testing.assert_array_equal(forward[..., 0, 1], 0.0)  # nothing flows to a masked class
    # Ties share the gradient of the runner-up.
    np.testing.assert_allclose(forward[1, 1, 1], [-0.5, 1.0, 0.0, -0.5])


def test_temperature_derivative_ignores_masked_classes():
    logits = jnp.array([[1.0, -0.5, 0.3]])
    padded = jnp.concatenate([logits, jnp.full((1, 2), -jnp.inf)], axis=-1)

    def loss(temperature, z):
        return cross_entropy(logit_statistics(z, jnp.array([0]), temperature=temperature))[0]

    slope = jax.jit(jax.grad(loss))
    np.testing.assert_allclose(slope(1.7, padded), slope(1.7, logits), rtol=1e-6)


def test_temperature_divides_the_logits_and_stays_readable():
    logits, labels = jnp.array([[1.0, 3.0], [0.0, -2.0]]), jnp.array([1, 0])
    scaled = logit_statistics(logits / 4.0, labels)
    for spelling in (4, 4.0, np.float64(4.0), jnp.float32(4.0)):
        stats = logit_statistics(logits, labels, temperature=spelling)
        chex.assert_trees_all_close(stats.log_odds, scaled.log_odds, rtol=1e-6)
        assert float(stats.temperature) == 4.0 and stats.temperature.shape == ()
    assert float(scaled.temperature) == 1.0


def test_binary_equals_the_two_class_logits():
    scores = jnp.array([0.3, -2.0, 4.0, 0.0, -jnp.inf, -jnp.inf, 700.0, -700.0])
    labels = jnp.array([1, 1, 0, 0, 0, 1, 1, 1])
    binary = binary_statistics(scores, labels)
    two = logit_statistics(jnp.stack([jnp.zeros_like(scores), scores], axis=-1), labels)
    for name in FIELDS:
        np.testing.assert_allclose(
            getattr(binary, name), getattr(two, name), rtol=1e-6, err_msg=name
        )
    assert (binary.num_classes, binary.provider) == (2, "binary_statistics")
    chex.assert_trees_all_equal(binary_statistics(scores, labels == 1).log_odds, binary.log_odds)


def test_binary_labels_are_zero_or_one():
    scores = jnp.ones(4)
    stats = binary_statistics(scores, jnp.array([-1, 2, 0, 1]))
    for name in ("log_odds", "lead", "centred", "target"):
        np.testing.assert_array_equal(np.isnan(getattr(stats, name)), [True, True, False, False])
    where = jnp.array([False, True, True, True])
    masked = binary_statistics(scores.at[0].set(jnp.nan), jnp.array([-5, 1, 0, 1]), where=where)
    assert all(np.isfinite(getattr(masked, name)).all() for name in FIELDS)
    assert binary_statistics(scores.astype(jnp.float16), jnp.ones(4, jnp.int8)).dtype == jnp.float32
    with pytest.raises(TypeError, match="expected labels of an integer dtype, got float32"):
        binary_statistics(scores, jnp.ones(4))
    with pytest.raises(ValueError, match=r"expected labels of shape \(4,\), got \(4, 1\)"):
        binary_statistics(scores, jnp.ones((4, 1), jnp.int32))


def test_wrong_calls_are_refused():
    logits, labels = jnp.ones((4, 3)), jnp.zeros(4, jnp.int32)
    stats = logit_statistics(logits, labels)
    with pytest.raises(TypeError, match="as_statistics: expected labels to be an array, got None"):
        as_statistics(logits)
    with pytest.raises(TypeError, match="expected labels=None beside LogitStatistics"):
        as_statistics(stats, labels)
    with pytest.raises(TypeError, match="xloss.binary_statistics"):
        logit_statistics(jnp.ones(4), labels)
    with pytest.raises(ValueError, match=r"K >= 1, got shape \(4, 0\)"):
        logit_statistics(jnp.ones((4, 0)), labels)
    for bad in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match=r"expected temperature in \(0, inf\)"):
            logit_statistics(logits, labels, temperature=bad)
    with pytest.raises(TypeError, match="expected where of dtype bool, got int32"):
        as_statistics(stats, where=jnp.ones(4, jnp.int32))


def test_an_empty_batch_is_legal():
    stats = logit_statistics(jnp.zeros((0, 3)), jnp.zeros(0, jnp.int32))
    assert stats.shape == (0,)
    assert float(xloss.reduce(cross_entropy(stats))) == 0.0


def test_host_arrays_of_any_width_are_taken():
    logits, labels = np.array([[1.0, 2.0, 0.0]]), np.array([1])
    expected = cross_entropy(jnp.asarray(logits, jnp.float32), jnp.asarray(labels))
    for scores, y in ((logits, labels), (logits.tolist(), [1]), (logits.astype(np.float32), [1])):
        chex.assert_trees_all_equal(cross_entropy(scores, y), expected)
        chex.assert_trees_all_close(cross_entropy(as_statistics(scores, y)), expected, rtol=1e-6)
    with jax.enable_x64(True):  # float32 logits beside 64-bit labels, under strict promotion
        narrow = cross_entropy(jnp.asarray(logits, jnp.float32), jnp.asarray(labels))
        assert narrow.dtype == jnp.float32 and labels.dtype == np.int64


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("gone", [0, 3])
def test_classes_over_devices_give_the_same_field_and_gradient(field, gone):
    """Whatever a reduction does inside: the partitioner must be able to do it piece by piece."""
    mesh = jax.make_mesh((2, 4), ("data", "model"), axis_types=(AxisType.Auto,) * 2)
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(4, 16)).astype(np.float32)
    logits[:, 16 - gone :] = -np.inf
    labels = rng.integers(0, 10, 4).astype(np.int32)

    def total(z, y):
        return jnp.sum(getattr(logit_statistics(z, y), field))

    run = jax.jit(jax.value_and_grad(total))
    spread = jax.device_put(logits, NamedSharding(mesh, P("data", "model")))
    found = run(spread, jax.device_put(labels, NamedSharding(mesh, P("data"))))
    chex.assert_trees_all_close(found, run(logits, labels), rtol=1e-5, atol=1e-6)
