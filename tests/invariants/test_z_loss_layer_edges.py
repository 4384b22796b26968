# SPDX-License-Identifier: Apache-2.0
"""The O(d^2) layer at its edges: singular updates, bad labels, masks, dtypes, refused input."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from xloss import heads
from xloss.classification import cross_entropy, z_loss

RNG = np.random.default_rng(0)
KERNEL = RNG.normal(size=(6, 30)).astype(np.float32)
HIDDEN = RNG.normal(size=(8, 6)).astype(np.float32)
LABELS = RNG.integers(0, 30, 8)
EVERYONE = np.ones(8, bool)


@jax.jit
def z_step(state, hidden, labels, rate, where):
    return heads.spherical_step(
        state, hidden, labels, loss=z_loss, learning_rate=rate, where=where, weight_decay=0.01
    )


@jax.jit
def square_step(state, hidden, labels, rate):
    return heads.spherical_step(
        state, hidden, labels, loss=heads.sparse_squared_error, learning_rate=rate
    )


def same(found, wanted, rtol=1e-5):
    for name, x, y in zip(wanted._fields, found, wanted, strict=True):
        np.testing.assert_allclose(x, y, rtol=rtol, atol=1e-6, err_msg=name)


def unchanged(found, wanted, skipped=1):
    """The layer is bit for bit what it was, and the skipped step was counted."""
    for name in ("rows", "mixing", "inverse", "offset", "mean", "covariance"):
        np.testing.assert_array_equal(getattr(found, name), getattr(wanted, name), err_msg=name)
    assert int(found.skipped) == int(wanted.skipped) + skipped


def test_a_rate_that_makes_the_update_singular_is_flagged_and_skipped():
    # The squared error has d loss / d o = 2 o - ...: at rate 1 / 2 and |h| = 1 one step maps h's
    # direction to 0, exactly or up to rounding.
    for hidden in (np.eye(6, dtype=np.float32)[:1], HIDDEN[:1] / np.linalg.norm(HIDDEN[0])):
        state = heads.spherical_init(KERNEL)
        losses, gradient, found = square_step(state, hidden, LABELS[:1], 0.5)
        unchanged(found, state)
        assert np.isfinite(losses).all() and np.isfinite(gradient).all()
        with pytest.raises(FloatingPointError, match="1 of 1 skipped.*Lower learning_rate"):
            heads.spherical_check(found)
        _, _, after = square_step(found, hidden, LABELS[:1], 0.2)
        assert int(after.skipped) == 1 and int(after.step) == 2
        assert not np.array_equal(after.rows, found.rows)


def test_the_same_in_float64_and_just_beside_it_the_step_is_exact(x64):
    hidden = np.eye(6)[1:2]
    for rate, skipped in ((0.5, 1), (0.5 * (1 + 1e-6), 0)):
        state = heads.spherical_init(KERNEL.astype(float))
        _, _, found = square_step(state, hidden, LABELS[:1], rate)
        assert int(found.skipped) == skipped
    target = np.zeros(30)
    target[LABELS[0]] = 1.0
    wanted = KERNEL - rate * 2 * np.outer(hidden[0], KERNEL.T @ hidden[0] - target)
    np.testing.assert_allclose(heads.spherical_to_dense(found), wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("rate", [1e4, 1e30, np.nan, np.inf])
def test_no_rate_brings_nan_into_the_weights(rate):
    state = heads.spherical_init(KERNEL)
    for _ in range(30):
        _, _, state = square_step(state, 100 * HIDDEN, LABELS, jnp.float32(rate))
        for x in state:
            assert np.isfinite(x).all()
    assert int(state.skipped) > 0


def test_accumulated_ill_condition_stops_updates_until_stabilised():
    state = heads.spherical_init(KERNEL)
    values = jnp.array([1.0, 1.0, 1.0, 1.0, 1.0, 1e-3], jnp.float32)
    state = state._replace(mixing=jnp.diag(values), inverse=jnp.diag(1 / values))
    dense = heads.spherical_to_dense(state)
    covariance = jnp.cov(dense, bias=True)
    state = state._replace(
        covariance=covariance, mean=jnp.zeros(6), offset=jnp.zeros(6), step=jnp.int32(5)
    )
    _, _, state = z_step(state, HIDDEN, LABELS, 0.1, EVERYONE)
    assert int(state.skipped) == 0
    worse = state._replace(mixing=state.mixing * 1.0, inverse=state.inverse * 1e3)
    _, _, found = z_step(worse, HIDDEN, LABELS, 0.1, EVERYONE)
    unchanged(found, worse)
    with pytest.raises(FloatingPointError, match="stabilize more often"):
        heads.spherical_check(worse)
    _, _, found = z_step(heads.spherical_stabilize(worse), HIDDEN, LABELS, 0.1, EVERYONE)
    assert int(found.skipped) == 0
    heads.spherical_check(found)


def test_masked_examples_take_no_part_even_if_nan():
    where = np.arange(8) % 3 != 0
    hidden = np.where(where[:, None], HIDDEN, np.nan).astype(np.float32)
    labels = np.where(where, LABELS, -100)
    state = heads.spherical_init(KERNEL)
    losses, gradient, found = z_step(state, hidden, labels, 2.0, where)
    assert (np.asarray(losses)[~where] == 0).all() and (np.asarray(gradient)[~where] == 0).all()
    subset = z_step(state, HIDDEN[where], LABELS[where], 2.0, np.ones(where.sum(), bool))
    np.testing.assert_allclose(np.asarray(losses)[where], subset[0], rtol=1e-5)
    np.testing.assert_allclose(np.asarray(gradient)[where], subset[1], rtol=1e-5, atol=1e-7)
    same(found, subset[2])


def test_an_empty_batch_only_decays():
    state = heads.spherical_init(KERNEL)
    nan = np.full_like(HIDDEN, np.nan)
    losses, gradient, found = z_step(state, nan, LABELS, 2.0, np.zeros(8, bool))
    assert not np.any(losses) and not np.any(gradient) and int(found.skipped) == 0
    np.testing.assert_allclose(heads.spherical_to_dense(found), 0.98 * KERNEL, rtol=1e-5, atol=1e-6)
    assert float(found.covariance[0, 0]) == pytest.approx(0.98**2 * float(state.covariance[0, 0]))


@pytest.mark.parametrize("bad", [-1, -30, -100, 30, 2**31 - 1])
def test_a_label_out_of_range_is_loud_and_leaves_no_trace(bad):
    labels, fine = LABELS.copy(), np.arange(8) != 2
    labels[2] = bad
    state = heads.spherical_init(KERNEL)
    losses, gradient, found = z_step(state, HIDDEN, labels, 2.0, EVERYONE)
    assert np.isnan(losses[2]) and np.isfinite(np.asarray(losses)[fine]).all()
    assert (np.asarray(gradient)[2] == 0).all()
    same(found, z_step(state, HIDDEN, labels, 2.0, fine)[2])
    target = heads.spherical_statistics(state, HIDDEN, labels).target
    assert np.isnan(target[2]) and np.isfinite(np.asarray(target)[fine]).all()


def test_bad_numbers_in_hidden_skip_the_update():
    for bad in (np.nan, np.inf, 3e38):
        hidden = HIDDEN.copy()
        hidden[3] = bad
        state = heads.spherical_init(KERNEL)
        losses, _, found = z_step(state, hidden, LABELS, 2.0, EVERYONE)
        unchanged(found, state)
        assert np.isfinite(np.delete(losses, 3)).all()


def test_padding_and_wrong_labels_of_several():
    labels = np.array([[3, -100, 5], [-1, -1, -1], [1, 2, 30], [2**31 - 1, 7, -1]])
    values = np.where(labels < 0, np.nan, 2.0).astype(np.float32)
    state = heads.spherical_init(KERNEL)
    losses, gradient, found = heads.spherical_step(
        jax.tree.map(jnp.copy, state),
        HIDDEN[:4],
        labels,
        loss=heads.sparse_squared_error,
        learning_rate=1e-3,
        target_values=values,
    )
    target = np.zeros((2, 30))
    target[0, [3, 5]] = 2.0
    logits = HIDDEN[:2] @ KERNEL
    np.testing.assert_allclose(losses[:2], np.sum((logits - target) ** 2, -1), rtol=1e-5)
    assert np.isnan(losses[2:]).all() and not np.any(gradient[2:])
    by_logits = 2 * (logits - target) / 2  # the mean over the two that count
    np.testing.assert_allclose(gradient[:2], by_logits @ KERNEL.T, rtol=1e-4, atol=1e-4)
    dense = KERNEL - 1e-3 * HIDDEN[:2].T @ by_logits
    np.testing.assert_allclose(heads.spherical_to_dense(found), dense, rtol=1e-4, atol=1e-5)


def test_bfloat16_features_get_their_gradient_in_bfloat16():
    state = heads.spherical_init(KERNEL.astype(jnp.bfloat16))
    hidden = jnp.asarray(HIDDEN, jnp.bfloat16)
    losses, gradient, found = z_step(state, hidden, LABELS, 2.0, EVERYONE)
    assert losses.dtype == found.rows.dtype == jnp.float32 and gradient.dtype == jnp.bfloat16
    wanted = z_step(state, hidden.astype(jnp.float32), LABELS, 2.0, EVERYONE)
    np.testing.assert_allclose(losses, wanted[0], rtol=1e-6)
    np.testing.assert_allclose(gradient.astype(np.float32), wanted[1], rtol=0.01, atol=1e-4)
    same(found, wanted[2])


def test_a_loss_that_reads_what_the_layer_does_not_know_is_told_so():
    state = heads.spherical_init(KERNEL)
    arguments = {"loss": cross_entropy, "learning_rate": 1.0}
    with pytest.raises(ValueError, match="log_odds, got statistics from spherical, which gives"):
        heads.spherical_step(state, HIDDEN, LABELS, **arguments)
    for field in ("rest", "runner_up", "log_partition", "log_prob"):
        loss = functools.partial(lambda stats, field: getattr(stats, field), field=field)
        with pytest.raises(ValueError, match="from spherical"):
            heads.spherical_step(state, HIDDEN, LABELS, **arguments | {"loss": loss})


def test_wrong_input_is_refused_before_anything_compiles():
    state = heads.spherical_init(KERNEL)
    step = functools.partial(heads.spherical_step, loss=z_loss, learning_rate=1.0)
    with pytest.raises(ValueError, match=r"hidden of shape \(m, 6\), got \(8, 5\)"):
        step(state, HIDDEN[:, :5], LABELS)
    with pytest.raises(ValueError, match=r"labels of shape \(8,\) or \(8, K\), got \(7,\)"):
        step(state, HIDDEN, LABELS[:7])
    with pytest.raises(TypeError, match="state to be a SphericalState"):
        step(KERNEL, HIDDEN, LABELS)
    with pytest.raises(TypeError, match="loss to be callable"):
        step(state, HIDDEN, LABELS, loss="z_loss")
    with pytest.raises(ValueError, match=r"learning_rate \* weight_decay < 1, got 2 \* 0.5"):
        step(state, HIDDEN, LABELS, learning_rate=2.0, weight_decay=0.5)
    with pytest.raises(ValueError, match="with target_values"):
        step(state, HIDDEN, LABELS, target_values=np.ones(8, np.float32))
    with pytest.raises(ValueError, match=r"what loss returns of shape \(8,\), got \(\)"):
        step(state, HIDDEN, LABELS, loss=lambda stats: stats.target.sum())
    with pytest.raises(ValueError, match=r"kernel of shape \(d, classes\)"):
        heads.spherical_init(KERNEL[0])
    with pytest.raises(TypeError, match="got a tracer"):
        jax.jit(heads.spherical_check)(state)
