# SPDX-License-Identifier: Apache-2.0
"""APGD, DLR, Square, MART, AWP and robust_accuracy: invariants of the spec adversarial_attacks."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from xloss.adversarial import apgd, checkpoints, dlr, mart, pgd, robust_accuracy, square
from xloss.classification import cross_entropy
from xloss.optim import awp_perturb

RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.uniform(size=(16, 6)), jnp.float32)
LABELS = jnp.asarray(RNG.integers(0, 4, 16), jnp.int32)
WEIGHTS = {
    "hidden": jnp.asarray(RNG.normal(size=(6, 8)), jnp.float32),
    "head": jnp.asarray(RNG.normal(size=(8, 4)), jnp.float32),
}
KEY = jax.random.key(0)


def network(weights, x):
    return jnp.tanh(x @ weights["hidden"]) @ weights["head"]


NETWORK = jax.tree_util.Partial(network, WEIGHTS)
attack = functools.partial(apgd, NETWORK, X, LABELS, steps=10)


def linear(weights, x):
    return x @ weights


def size(d, norm):
    d = np.abs(np.asarray(d, np.float64))
    return d.max(-1) if norm == "linf" else np.sqrt(np.square(d).sum(-1))


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_every_point_is_in_ball_and_box_even_for_large_radii(norm):
    for radius in (0.1, 5.0):
        found = attack(key=KEY, radius=radius, norm=norm, trace=True)
        for x in (found.x_adv, found.x_best, *found.points):
            assert np.all(size(x - X, norm) <= radius * (1 + 1e-6))
            assert np.all((x >= 0) & (x <= 1))
    if norm == "linf":
        found = square(NETWORK, X, LABELS, key=KEY, radius=0.1, queries=20)
        assert np.all(size(found.x_adv - X, norm) <= 0.1 * (1 + 1e-6))
        assert np.all((found.x_adv >= 0) & (found.x_adv <= 1))


def test_the_best_point_is_the_best_of_the_trace_and_steps_are_halved():
    found = attack(key=KEY, radius=0.3, trace=True)
    losses = jax.vmap(lambda x: cross_entropy(network(WEIGHTS, x), LABELS))(found.points)
    np.testing.assert_allclose(found.loss, losses.max(0), rtol=1e-5)
    assert np.all(found.loss >= losses[0] * (1 - 1e-6))
    running = np.maximum.accumulate(losses, axis=0)
    assert np.all(np.diff(running, axis=0) >= 0)
    halvings = np.log2(np.asarray(found.step_sizes) / 0.6)
    np.testing.assert_allclose(halvings, np.round(halvings), atol=1e-5)
    assert np.all(np.diff(halvings, axis=0) <= 1e-5) and halvings.min() < -1
    assert checkpoints(7) == [1, 2, 3, 4, 5, 6, 7] and checkpoints(0) == []


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_all_targets_reach_the_worst_margin_of_a_linear_model(norm, x64):
    rng = np.random.default_rng(1)
    W, x, y = rng.normal(size=(8, 5)), rng.normal(size=(32, 8)), rng.integers(0, 5, 32)
    z = x @ W
    gaps = W[:, None, :] - W[:, y].T[None].transpose(2, 1, 0)
    reach = np.abs(gaps).sum(0) if norm == "linf" else np.sqrt(np.square(gaps).sum(0))
    worst = z - z[np.arange(32), y][:, None] + 0.2 * reach
    worst[np.arange(32), y] = -np.inf

    def towards(target, logits, labels):
        rows = jnp.arange(labels.shape[0])
        return logits[:, target] - logits[rows, labels]

    run = jax.vmap(
        lambda target: (
            apgd(
                jax.tree_util.Partial(linear, jnp.asarray(W)), x, y, key=KEY, radius=0.2,
                norm=norm, steps=50, bounds=None,
                objective=jax.tree_util.Partial(towards, target),
            ).loss
        )
    )  # fmt: skip
    found = np.array(run(jnp.arange(5)))
    found[y, np.arange(32)] = -np.inf
    np.testing.assert_allclose(found.max(0), worst.max(-1), rtol=1e-3)
    assert np.all(found.max(0) <= worst.max(-1) + 1e-9)


def test_dlr_does_not_change_with_scale_and_shift(x64):
    rng = np.random.default_rng(2)
    z, y = jnp.asarray(rng.normal(size=(12, 5))), jnp.asarray(rng.integers(0, 5, 12))
    targets = (y + 1) % 5
    for aims in (None, targets):
        np.testing.assert_allclose(
            dlr(1e4 * z + 7.0, y, targets=aims), dlr(z, y, targets=aims), rtol=1e-9
        )
    wrong = np.argmax(z, -1) != np.asarray(y)
    np.testing.assert_array_equal(np.asarray(dlr(z, y)) > 0, wrong)
    where = jnp.arange(12) > 5
    masked, gradient = jax.value_and_grad(lambda z: jnp.sum(dlr(z, y, where=where)))(
        z.at[0].set(jnp.nan)
    )
    assert np.isfinite(masked) and not np.any(gradient[:6]) and np.all(np.isfinite(gradient))


def test_radius_0_and_masks_return_the_inputs():
    for norm in ("linf", "l2"):
        found = attack(key=KEY, radius=0.0, norm=norm)
        np.testing.assert_array_equal(found.x_best, X)
    np.testing.assert_array_equal(
        square(NETWORK, X, LABELS, key=KEY, radius=0.0, queries=3).x_adv, X
    )
    where = jnp.arange(16) % 3 > 0
    broken = X.at[0].set(jnp.nan)
    found = apgd(NETWORK, broken, LABELS, key=KEY, radius=0.3, steps=10, where=where)
    plain = attack(key=KEY, radius=0.3)
    kept = np.asarray(where)
    np.testing.assert_allclose(found.x_best[kept], plain.x_best[kept], rtol=1e-6)
    np.testing.assert_array_equal(found.x_best[~kept], broken[~kept])
    assert not np.any(found.success[~kept]) and not np.any(found.loss[~kept])
    found = square(NETWORK, broken, LABELS, key=KEY, radius=0.3, queries=5, where=where)
    np.testing.assert_array_equal(found.x_adv[~kept], broken[~kept])
    assert not np.any(found.success[~kept]) and not np.any(found.queries[~kept])


def test_no_steps_and_no_queries_leave_the_start_and_jit_takes_keys_of_either_kind():
    found = attack(key=KEY, radius=0.2, steps=0, trace=True)
    np.testing.assert_array_equal(found.x_best, found.points[0])
    assert found.points.shape == (1, *X.shape) and found.step_sizes.shape == (0, 16)
    start = square(NETWORK, X, LABELS, key=KEY, radius=0.2, queries=0)
    assert np.all(start.queries == 1) and np.all(np.abs(start.x_adv - X) <= 0.2 + 1e-6)
    raw = jax.jit(lambda key: attack(key=key, radius=0.2).x_best)(jax.random.PRNGKey(0))
    np.testing.assert_allclose(raw, attack(key=KEY, radius=0.2).x_best, atol=1e-6)
    none = apgd(NETWORK, X[:0], LABELS[:0], key=KEY, radius=0.2, steps=3)
    assert none.x_best.shape == (0, 6)


def test_restarts_keep_the_best_value_and_any_mistake():
    keys = jax.random.split(KEY, 3)
    single = [attack(key=key, radius=0.15) for key in keys]
    found = attack(key=KEY, radius=0.15, restarts=3)
    np.testing.assert_allclose(found.loss, np.max([s.loss for s in single], axis=0), rtol=1e-5)
    np.testing.assert_array_equal(found.success, np.any([s.success for s in single], axis=0))
    wrong = np.argmax(network(WEIGHTS, found.x_adv), -1) != np.asarray(LABELS)
    np.testing.assert_array_equal(np.asarray(found.success), wrong)


def test_with_a_key_each_an_example_does_not_depend_on_its_batch():
    keys = jax.random.split(KEY, 16)
    for norm in ("linf", "l2"):
        whole = attack(key=keys, radius=0.2, norm=norm)
        part = apgd(NETWORK, X[4:8], LABELS[4:8], key=keys[4:8], radius=0.2, norm=norm, steps=10)
        np.testing.assert_allclose(part.x_best, whole.x_best[4:8], atol=1e-6)
    whole = square(NETWORK, X, LABELS, key=keys, radius=0.2, queries=10)
    part = square(NETWORK, X[4:8], LABELS[4:8], key=keys[4:8], radius=0.2, queries=10)
    np.testing.assert_allclose(part.x_adv, whole.x_adv[4:8], atol=1e-6)
    np.testing.assert_array_equal(part.queries, whole.queries[4:8])
    with pytest.raises(ValueError, match="keys of shape"):
        attack(key=keys[:3], radius=0.2)


def test_square_lowers_the_margin_and_stops_where_it_is_done():
    pictures = jnp.asarray(RNG.uniform(size=(12, 5, 4, 2)), jnp.float32)
    kernel = jnp.asarray(RNG.normal(size=(40, 3)), jnp.float32)
    labels = jnp.asarray(np.argmax(pictures.reshape(12, -1) @ kernel, -1), jnp.int32)
    model = jax.tree_util.Partial(lambda w, x: x.reshape(x.shape[0], -1) @ w, kernel)
    few, many = (square(model, pictures, labels, key=KEY, radius=0.08, queries=n) for n in (1, 200))
    assert np.all(many.margin <= few.margin) and np.mean(many.success) > np.mean(few.success)
    np.testing.assert_array_equal(np.asarray(many.margin) <= 0, many.success)
    assert np.all((many.queries < 201) | ~many.success)
    assert np.all(np.asarray(many.queries)[~np.asarray(many.success)] == 201)


def test_mart_loses_its_divergence_where_the_model_is_sure(x64):
    labels = jnp.asarray([0, 1])
    other = jnp.asarray([[1.0, 0.5, -1.0], [0.0, 2.0, 0.0]])
    sure = 60.0 * jax.nn.one_hot(labels, 3)
    moved = mart(sure, other, labels, beta=5.0) - mart(sure, other, labels, beta=0.0)
    unsure = mart(other[::-1], other, labels, beta=5.0) - mart(other, other, labels, beta=0.0)
    assert np.all(np.abs(moved) < 2e-5) and np.all(unsure > 0.1)  # 5 * 1e-7 * 30 nats


def test_awp_moves_each_tensor_by_a_share_of_its_size_and_keeps_the_others():
    params = {**WEIGHTS, "bias": jnp.ones(4)}
    gradients = jax.tree.map(lambda w: 3e-30 * jnp.cos(w), params)  # squares underflow
    worst = awp_perturb(params, gradients, gamma=0.05)
    for name in WEIGHTS:
        moved = np.linalg.norm(np.float64(worst[name]) - np.float64(params[name]))
        np.testing.assert_allclose(moved, 0.05 * np.linalg.norm(params[name]), rtol=1e-5)
    np.testing.assert_array_equal(worst["bias"], params["bias"])
    scaled = awp_perturb(params, jax.tree.map(lambda g: 1e20 * g, gradients), gamma=0.05)
    np.testing.assert_allclose(scaled["head"], worst["head"], rtol=1e-6)
    still = awp_perturb(params, jax.tree.map(jnp.zeros_like, params), gamma=0.05)
    np.testing.assert_array_equal(still["head"], params["head"])
    only = awp_perturb(
        params, gradients, gamma=0.05, mask={"hidden": True, "head": False, "bias": False}
    )
    np.testing.assert_array_equal(only["head"], params["head"])
    assert np.any(only["hidden"] != params["hidden"])

    def loss(params):  # what a training step does: the step is taken from the old weights
        return jnp.mean(cross_entropy(network(params, X) + params["bias"][None], LABELS))

    step = jax.jit(
        lambda p: optax.apply_updates(
            p, jax.tree.map(lambda g: -0.1 * g, jax.grad(loss)(awp_perturb(p, jax.grad(loss)(p))))
        )
    )
    assert loss(step(params)) < loss(params)
    with pytest.raises(ValueError, match="expected gradients in the structure"):
        awp_perturb(params, WEIGHTS)


def report(**options):
    settings = {"key": KEY, "radius": 0.15, "steps": 10, "queries": 30, "batch_size": 8}
    return robust_accuracy(NETWORK, X, np.asarray(LABELS), **settings | options)


def test_the_cascade_falls_from_clean_accuracy_and_is_the_worst_case():
    labels = np.argmax(network(WEIGHTS, X), -1)
    run = functools.partial(
        robust_accuracy, NETWORK, X, labels, key=KEY, radius=0.15, steps=10, queries=30
    )
    attacks = ("apgd-ce", "apgd-dlr", "apgd-t", "square", "pgd-40")
    found = run(attacks=attacks, batch_size=8)
    values = list(found.accuracy_after.values())
    assert list(found.accuracy_after) == ["clean", *attacks] and values[0] == 1.0
    assert np.all(np.diff(values) <= 0) and found.robust_accuracy == values[-1] < 1.0
    # Alone an attack breaks the same examples, whatever stands before it and in what batches.
    alone = [run(attacks=(a,), batch_size=b) for a, b in zip(attacks, (16, 8, 16, 5, 7))]
    np.testing.assert_array_equal(found.robust, np.all([a.robust for a in alone], axis=0))
    assert found.robust_accuracy <= run(attacks=("pgd-40",)).robust_accuracy
    wrong = np.argmax(network(WEIGHTS, jnp.asarray(found.x_adv)), -1) != labels
    np.testing.assert_array_equal(wrong, ~found.robust)
    assert np.all(np.abs(found.x_adv - X) <= 0.15 + 1e-6)
    text = str(found)
    assert all(a in text for a in attacks) and "autoattack" not in text.lower()
    assert "upper bound" in text


def test_each_attack_is_compiled_once_whatever_is_left(monkeypatch):
    traces = []

    def counted(weights, x):
        traces.append(x.shape)
        return network(weights, x)

    model = jax.tree_util.Partial(counted, WEIGHTS)
    how = {"key": KEY, "steps": 5, "queries": 5, "batch_size": 4, "attacks": ("apgd-t", "square")}
    labels = np.argmax(network(WEIGHTS, X), -1)
    robust_accuracy(model, X, labels, radius=0.05, **how)
    first = len(traces)
    robust_accuracy(model, X[:11], labels[:11], radius=0.3, **how)
    assert len(traces) == first
    assert set(traces) == {(4, 6)}


def test_a_data_set_over_eight_devices_gives_the_same_report():
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    spread = report(sharding=NamedSharding(mesh, P("data")), attacks=("apgd-ce", "square"))
    single = report(attacks=("apgd-ce", "square"))
    np.testing.assert_array_equal(spread.robust, single.robust)
    assert spread.accuracy_after == single.accuracy_after


def test_square_sees_through_a_model_that_hides_its_gradients():
    rng = np.random.default_rng(3)
    rows = np.linspace(-1, 1, 8)
    kernel = np.stack([np.outer(np.sin(2 * rows), np.cos(rows + k)).ravel() for k in range(3)], -1)
    x = rng.uniform(0.3, 0.7, size=(64, 8, 8)).astype(np.float32)

    def model(w, x):  # rounding has no gradient
        return jnp.floor(32.0 * x).reshape(x.shape[0], -1) / 32.0 @ w

    apply = jax.tree_util.Partial(model, jnp.asarray(kernel, jnp.float32))
    labels = np.argmax(apply(x), -1)
    gaps = np.sort(apply(x), -1)
    clear = gaps[:, -1] - gaps[:, -2] > 0.35
    x, labels = x[clear][:32], labels[clear][:32]
    found = robust_accuracy(
        apply, x, labels, key=KEY, radius=0.15, attacks=("pgd-20", "square"), queries=300,
        batch_size=32,
    )  # fmt: skip
    assert found.accuracy_after["pgd-20"] >= 0.8 and found.robust_accuracy <= 0.2
    assert any("hide its gradients" in note for note in found.notes)


def test_suspicious_models_are_noted_and_bad_arguments_named():
    probabilities = jax.tree_util.Partial(lambda w, x: jax.nn.softmax(network(w, x)), WEIGHTS)
    found = robust_accuracy(
        probabilities, X, LABELS, key=KEY, radius=0.1, attacks=("pgd-1",), batch_size=16
    )
    assert any("probabilities" in note for note in found.notes)
    three, two = (jax.tree_util.Partial(linear, WEIGHTS["hidden"][:, :k]) for k in (3, 2))
    labels = jnp.zeros(16, jnp.int32)
    for call, error, message in (
        (lambda: dlr(jnp.zeros([1, 2]), labels[:1]), ValueError, "at least 3 classes for DLR"),
        (lambda: dlr(jnp.zeros([1, 3]), labels[:1], targets=labels[:1]), ValueError, "least 4"),
        (
            lambda: apgd(two, X, labels, key=KEY, radius=0.1, objective="dlr", steps=1),
            ValueError, "least 3",
        ),
        (
            lambda: robust_accuracy(three, X, labels, key=KEY, radius=0.1, attacks=("apgd-t",)),
            ValueError, "at least 4 classes for targeted DLR",
        ),
        (lambda: report(attacks=("fab",)), ValueError, "expected attacks among"),
        (lambda: report(attacks=("square",), norm="l2"), ValueError, "norm='linf' with"),
        (lambda: report(attacks="square"), ValueError, "names, each once"),
        (lambda: report(batch_size=0), ValueError, "batch_size"),
        (lambda: attack(key=KEY, radius=0.1, objective="dlr_targeted"), ValueError, "targets"),
        (lambda: attack(key=KEY, radius=0.1, restarts=2, trace=True), ValueError, "restarts=1"),
        (lambda: attack(radius=0.1), TypeError, "PRNG key"),
        (lambda: square(NETWORK, X[:, None, None, None], LABELS, key=KEY, radius=0.1), ValueError,
         r"\[..., H, W, C\]"),
        (lambda: square(NETWORK, X, LABELS, key=KEY, radius=0.1, queries=-1), ValueError,
         "queries"),
    ):  # fmt: skip
        with pytest.raises(error, match=message):
            call()


@pytest.mark.parametrize("objective", ["ce", "dlr"])
def test_huge_logits_do_not_blind_the_attack(objective):
    # A defence by scale: in float32 the cross-entropy of every clean input is 0.
    loud = jax.tree_util.Partial(lambda w, x: 1e6 * network(w, x), WEIGHTS)
    labels = np.argmax(network(WEIGHTS, X), -1)
    plain, scaled = (
        apgd(model, X, labels, key=KEY, radius=0.3, steps=10, objective=objective)
        for model in (NETWORK, loud)
    )
    assert np.sum(scaled.success) >= np.sum(plain.success) - 1
    assert pgd(loud, X, labels, key=KEY, radius=0.3).success.sum() > 0
