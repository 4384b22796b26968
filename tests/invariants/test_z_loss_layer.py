# SPDX-License-Identifier: Apache-2.0
"""The O(d^2) layer of the spherical family takes exactly the steps of dense SGD."""

import functools
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import xloss
from xloss import heads
from xloss.classification import spherical_softmax, taylor_softmax, z_loss


class Run(NamedTuple):
    """One problem: sizes, loss and hyperparameters."""

    classes: int
    width: int
    batch: int
    loss: Callable[..., Any] = z_loss
    loss_args: Mapping[str, float] = MappingProxyType({})
    rate: float = 5.0
    decay: float = 0.0
    labels: int = 0  # K; 0 for one label an example
    drawn: int = 0  # labels come from the first so many classes; 0 for all
    offset: float = 0.0


Z = {"a": 0.5, "b": 3.0}
RUNS = {
    "z_loss": Run(300, 16, 8, loss_args=Z),
    "duplicate targets": Run(300, 16, 8, loss_args=Z, drawn=2),
    "batch beyond the width": Run(60, 5, 40, loss_args=Z),
    "large batch, equal targets sorted": Run(40, 4, 600, loss_args=Z, rate=20.0),
    "one example": Run(50, 8, 1, loss_args=Z, rate=1.0),
    "weight decay": Run(300, 16, 8, loss_args=Z, decay=2e-3),
    "mean far from zero": Run(300, 16, 8, loss_args=Z, offset=10.0),
    "taylor": Run(80, 8, 8, taylor_softmax, rate=0.1, decay=1e-2),
    "spherical": Run(80, 8, 8, spherical_softmax, {"eps": 0.1}, rate=0.05),
    "squared error": Run(80, 8, 6, heads.sparse_squared_error, rate=0.02, labels=3),
    "average over labels": Run(90, 20, 16, loss_args=Z, labels=40),
}


def problem(run: Run, steps: int, seed: int = 0):
    """(kernel [d, D], hidden [T, m, d], labels, target values or None) in float64."""
    rng = np.random.default_rng(seed)
    kernel = rng.normal(size=(run.width, run.classes)) / run.width**0.5
    kernel += run.offset * rng.normal(size=(run.width, 1))
    hidden = rng.normal(size=(steps, run.batch, run.width))
    size = (steps, run.batch, *([run.labels] if run.labels else []))
    top = run.drawn or run.classes
    labels, values = rng.integers(0, top, size), None
    if run.labels:
        shuffled = np.argsort(rng.random((steps, run.batch, top)), axis=-1)
        labels = np.where(rng.random(size) < 0.3, -1, shuffled[..., : run.labels])
        if run.loss is heads.sparse_squared_error:
            values = rng.normal(size=size)
    return kernel, hidden, labels, values


def dense_objective(run: Run, kernel, hidden, labels, values):
    """The mean loss through all logits."""
    logits = hidden @ kernel
    if run.loss is heads.sparse_squared_error:
        real = labels >= 0
        y = jnp.zeros_like(logits)
        y = y.at[jnp.arange(run.batch)[:, None], labels].add(jnp.where(real, values, 0.0))
        return jnp.mean(jnp.sum(jnp.square(logits - y), axis=1))
    if run.labels:
        real = labels >= 0
        repeated = jnp.broadcast_to(logits[:, None, :], (*labels.shape, run.classes))
        losses = run.loss(repeated, jnp.maximum(labels, 0), **run.loss_args)
        count = jnp.maximum(jnp.sum(real, axis=1), 1).astype(logits.dtype)
        return jnp.mean(jnp.sum(jnp.where(real, losses, 0.0), axis=1) / count)
    return jnp.mean(run.loss(logits, labels, **run.loss_args))


def dense_steps(run: Run, kernel, data):
    """Kernel after the steps, and grad_hidden of each."""

    def step(kernel, batch):
        hidden, labels, values = batch
        gradient = jax.grad(functools.partial(dense_objective, run), argnums=(0, 1))
        by_kernel, by_hidden = gradient(kernel, hidden, labels, values)
        return kernel - run.rate * (by_kernel + run.decay * kernel), by_hidden

    return jax.jit(functools.partial(jax.lax.scan, step))(jnp.asarray(kernel), data)


def layer_steps(run: Run, state, data):
    """State after the steps, and (losses, grad_hidden) of each."""

    def step(state, batch):
        hidden, labels, values = batch
        losses, gradient, state = heads.spherical_step(
            state,
            hidden,
            labels,
            loss=run.loss,
            learning_rate=run.rate,
            loss_args=run.loss_args,
            target_values=values,
            weight_decay=run.decay,
        )
        return state, (losses, gradient)

    return jax.jit(functools.partial(jax.lax.scan, step), donate_argnums=0)(state, data)


def cast(data, dtype):
    return jax.tree.map(lambda x: jnp.asarray(x, dtype if x.dtype == float else None), data)


def relative(found, wanted):
    return np.linalg.norm(np.asarray(found, float) - wanted) / np.linalg.norm(wanted)


def check_sums(state, kernel, tolerance):
    """Mean, covariance, Q, W^T 1 and the inverse say what the kernel says."""
    rows = np.asarray(kernel, float).T
    centred, classes = rows - rows.mean(0), len(rows)
    assert relative(state.covariance, centred.T @ centred / classes) < tolerance
    square = state.covariance + jnp.outer(state.mean, state.mean)
    assert relative(classes * square, rows.T @ rows) < tolerance
    size = np.linalg.norm(rows) / classes**0.5
    np.testing.assert_allclose(state.mean, rows.mean(0), rtol=0, atol=tolerance * size)
    identity = np.eye(rows.shape[1])
    assert relative(np.asarray(state.mixing) @ np.asarray(state.inverse), identity) < tolerance


@pytest.mark.parametrize("name", RUNS)
def test_a_hundred_factored_steps_are_a_hundred_dense_steps(name, x64):
    run = RUNS[name]
    kernel, *data = problem(run, 100)
    wanted, by_hidden = dense_steps(run, kernel, data)
    half = [jax.tree.map(lambda x, s=s: x[s], data) for s in (slice(0, 50), slice(50, 100))]
    state, (_, first) = layer_steps(run, heads.spherical_init(kernel), half[0])
    state = heads.spherical_stabilize(state)
    state, (_, second) = layer_steps(run, state, half[1])
    found = heads.spherical_to_dense(heads.spherical_check(state))
    assert relative(wanted, kernel) > 0.01  # they went somewhere
    assert relative(found, np.asarray(wanted)) < 1e-13
    np.testing.assert_allclose(
        np.concatenate([first, second]), by_hidden, rtol=1e-9, atol=1e-12 * np.abs(by_hidden).max()
    )
    check_sums(state, found, 2e-13)


def test_a_thousand_float32_steps_stay_within_five_millionths():
    run = Run(2000, 32, 16, loss_args=Z, rate=10.0, drawn=50, decay=1e-5)
    with jax.enable_x64(True):
        kernel, *data = problem(run, 1000)
        wanted = np.asarray(dense_steps(run, kernel, data)[0])
    state, _ = layer_steps(
        run, heads.spherical_init(np.asarray(kernel, np.float32)), cast(data, jnp.float32)
    )
    found = heads.spherical_to_dense(heads.spherical_check(state))
    assert found.dtype == jnp.float32
    assert relative(wanted, kernel) > 0.1
    assert relative(found, wanted) < 5e-6
    check_sums(state, found, 1e-5)


def test_sums_and_inverse_hold_after_every_step(x64):
    run = Run(30, 5, 4, loss_args=Z, rate=8.0, decay=1e-2, offset=1.0)
    kernel, *data = problem(run, 12)
    state, weights = heads.spherical_init(kernel), kernel
    for step in range(12):
        batch = jax.tree.map(lambda x, s=step: x[s : s + 1], data)
        state, _ = layer_steps(run, state, batch)
        weights, _ = dense_steps(run, weights, batch)
        check_sums(state, weights, 1e-13)
        assert relative(heads.spherical_to_dense(state), np.asarray(weights)) < 1e-13
    assert int(state.step) == 12 and int(state.skipped) == 0
    assert np.abs(state.offset).max() > 1e-3  # omega took part


def test_stabilise_leaves_the_layer_and_bounds_the_condition(x64):
    rng = np.random.default_rng(3)
    state = heads.spherical_init(rng.normal(size=(6, 40)))
    left, right = (np.linalg.qr(rng.normal(size=(6, 6)))[0] for _ in range(2))
    values = np.array([50.0, 3.0, 1.9, 0.6, 0.3, 1e-3])
    state = state._replace(
        mixing=jnp.asarray(left * values @ right),
        inverse=jnp.asarray(right.T / values @ left.T) * (1 + 1e-6),  # drifted
        offset=jnp.asarray(rng.normal(size=6)),
    )
    wanted = np.asarray(heads.spherical_to_dense(state))
    kept = jax.tree.map(np.asarray, state)
    found = heads.spherical_stabilize(state)
    assert relative(heads.spherical_to_dense(found), wanted) < 1e-12
    assert np.linalg.cond(found.mixing) <= 4.0
    np.testing.assert_allclose(found.mixing @ found.inverse, np.eye(6), atol=1e-14)
    for name in ("covariance", "mean", "offset"):
        np.testing.assert_array_equal(getattr(found, name), getattr(kept, name))
    # Nothing to do the second time: not a bit of rows or mixing changes.
    before = jax.tree.map(np.asarray, found)
    again = heads.spherical_stabilize(found)
    np.testing.assert_array_equal(again.rows, before.rows)
    np.testing.assert_array_equal(again.mixing, before.mixing)


def test_statistics_are_those_of_the_dense_logits(x64):
    run = Run(30, 5, 6)
    kernel, hidden, labels, _ = problem(run, 1)
    state = heads.spherical_init(kernel)
    found = heads.spherical_statistics(state, hidden[0], labels[0])
    wanted = xloss.logit_statistics(hidden[0] @ kernel, labels[0])
    for field in ("target", "centred", "variance", "class_count", "mean"):
        np.testing.assert_allclose(getattr(found, field), getattr(wanted, field), rtol=1e-12)
    several = heads.spherical_statistics(
        state, hidden[0], np.stack([labels[0], -1 + 0 * labels[0]], 1)
    )
    np.testing.assert_allclose(several.target[:, 0], wanted.target, rtol=1e-12)
    np.testing.assert_allclose(several.target[:, 1], wanted.mean, rtol=1e-12)
    np.testing.assert_array_equal(several.centred[:, 1], 0.0)


def test_evaluation_gives_the_logits_up_to_a_common_part(x64):
    run = RUNS["weight decay"]._replace(classes=50)
    kernel, *data = problem(run, 6)
    state, _ = layer_steps(run, heads.spherical_init(kernel), data)
    hidden = data[0][0].reshape(2, 4, 16)
    features, rows, common = jax.jit(heads.spherical_evaluation)(state, hidden)
    wanted = hidden @ np.asarray(heads.spherical_to_dense(state))
    np.testing.assert_allclose(features @ rows + common[..., None], wanted, rtol=1e-10, atol=1e-12)


def test_shift_invariance_keeps_the_mean_and_a_huge_mean_costs_no_digits():
    """In float32 with rows of mean 1e3: q / D - mean^2 would have no digit left."""
    run = Run(200, 8, 8, loss_args=Z, rate=1.0)
    kernel, *data = problem(run, 20)
    kernel = np.round(kernel * 64) / 64  # exact in float32 beside the mean too
    data = cast(data, jnp.float32)
    near, (plain, _) = layer_steps(run, heads.spherical_init(kernel.astype(np.float32)), data)
    shift = 1024.0 * np.arange(1.0, 9.0)[:, None]
    far, (shifted, _) = layer_steps(
        run, heads.spherical_init((kernel + shift).astype(np.float32)), data
    )
    np.testing.assert_allclose(shifted, plain, rtol=2e-5)
    np.testing.assert_allclose(far.covariance, near.covariance, atol=2e-5)
    initial = heads.spherical_init((kernel + shift).astype(np.float32))
    np.testing.assert_array_equal(far.mean, initial.mean)
