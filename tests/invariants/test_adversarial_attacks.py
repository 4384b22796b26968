# SPDX-License-Identifier: Apache-2.0
"""Attacks and adversarial training losses: what the papers and the mathematics promise."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from xloss.adversarial import PGDResult, madry, pgd, trades
from xloss.classification import cross_entropy

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


def linear(weights, x):
    return x @ weights


def partial(function, weights):
    return jax.tree_util.Partial(function, weights)


NETWORK = partial(network, WEIGHTS)


def distances(x_adv, norm, x=X):
    moved = np.abs(np.asarray(x_adv - x, np.float64))
    return moved.max(-1) if norm == "linf" else np.sqrt(np.square(moved).sum(-1))


def linear_problem(classes, features=8, examples=64, seed=0):
    """A linear model in float64 and the exact extremes of its margins, without a box."""
    rng = np.random.default_rng(seed)
    W = rng.normal(size=(features, classes))
    x, y = rng.normal(size=(examples, features)), rng.integers(0, classes, examples)
    return W, x, y


def exact_margin(W, x, y, radius, norm):
    """max over the ball of max_k z_k - z_y: the closed form, by the dual norm."""
    gaps = W[:, None, :] - W[:, y].T[None].transpose(2, 1, 0)  # [features, examples, classes]
    reach = np.abs(gaps).sum(0) if norm == "linf" else np.sqrt(np.square(gaps).sum(0))
    margins = x @ W - (x @ W)[np.arange(len(y)), y][:, None] + radius * reach
    margins[np.arange(len(y)), y] = -np.inf
    return margins.max(-1)


def exact_cross_entropy(W, x, y, radius, norm):
    """max over the ball of -log p_y: two classes in closed form, more by all corners (linf)."""
    if W.shape[1] == 2:
        return np.logaddexp(0.0, exact_margin(W, x, y, radius, norm))
    corners = radius * np.array(list(itertools.product([-1, 1], repeat=x.shape[1])))
    z = (x[:, None] + corners) @ W
    return (np.logaddexp.reduce(z, -1) - z[np.arange(len(y)), :, y]).max(-1)


@pytest.mark.parametrize(
    ("norm", "objective", "classes"),
    [
        ("linf", "ce", 2),
        ("l2", "ce", 2),
        ("linf", "ce", 5),
        ("linf", "margin", 5),
        ("l2", "margin", 5),
    ],
)
def test_pgd_reaches_95_percent_of_the_exact_inner_maximum_on_linear_models(
    norm, objective, classes, x64
):
    W, x, y = linear_problem(classes)
    exact = exact_margin if objective == "margin" else exact_cross_entropy
    clean = exact(W, x, y, 0.0, norm)
    apply = partial(linear, jnp.asarray(W))
    options = {"key": KEY, "norm": norm, "objective": objective, "steps": 40, "bounds": None}
    for radius in (0.03, 0.3):
        best = exact(W, x, y, radius, norm)
        one = pgd(apply, x, y, radius=radius, **options).loss
        many = pgd(apply, x, y, radius=radius, restarts=30, **options).loss
        one, many = ((np.asarray(found) - clean) / (best - clean) for found in (one, many))
        assert max(one.max(), many.max()) <= 1 + 1e-9
        assert one.mean() >= 0.95 and many.mean() >= 0.99
        # Of single examples a few end at a corner that is best nearby only.
        assert np.mean(many >= 0.95) >= 0.95


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_pgd_towards_each_class_reaches_it_for_every_example(norm, x64):
    W, x, y = linear_problem(5)

    def towards(target, logits, labels):
        return logits[:, target] - jnp.take_along_axis(logits, labels[:, None], axis=1)[:, 0]

    @jax.jit
    @jax.vmap
    def margins(target):
        goal = jax.tree_util.Partial(towards, target)
        return pgd(
            partial(linear, jnp.asarray(W)), x, y, key=KEY, radius=0.3, norm=norm, objective=goal,
            steps=40, bounds=None,
        ).loss  # fmt: skip

    found = np.array(margins(jnp.arange(5)))
    found[y, np.arange(len(y))] = -np.inf
    clean, best = exact_margin(W, x, y, 0.0, norm), exact_margin(W, x, y, 0.3, norm)
    ratio = (found.max(0) - clean) / (best - clean)
    assert ratio.max() <= 1 + 1e-9 and ratio.min() >= 0.95


def test_pgd_reaches_the_exact_maximum_under_box_bounds_too(x64):
    W, _, y = linear_problem(2)
    x = np.random.default_rng(1).uniform(size=(64, 8))
    radius, other = 0.3, 1 - y
    slope = (W[:, other] - W[:, y]).T
    corner = np.where(slope > 0, np.minimum(x + radius, 1.0), np.maximum(x - radius, 0.0))
    exact = np.sum(corner * slope, -1)
    apply = partial(linear, jnp.asarray(W))
    found = pgd(apply, x, y, key=KEY, radius=radius, objective="margin", steps=20)
    np.testing.assert_allclose(found.loss, exact, rtol=1e-9)
    np.testing.assert_allclose(found.x_adv, corner, atol=1e-12)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_results_stay_inside_ball_and_box_even_for_large_radii(norm):
    attack = jax.jit(
        jax.vmap(
            lambda radius, key: (
                pgd(
                    NETWORK, X, LABELS, key=key, radius=radius, norm=norm, restarts=2, steps=5
                ).x_adv
            )
        )
    )
    radii = np.array([0.0, 1e-6, 0.1, 0.5, 3.0, 100.0], np.float32)
    for radius, x_adv in zip(radii, attack(radii, jax.random.split(KEY, 6)), strict=True):
        assert (distances(x_adv, norm) <= radius * (1 + 1e-6) + 1e-7).all()
        assert (x_adv >= 0).all() and (x_adv <= 1).all()


@pytest.mark.parametrize("project_last", ["box", "ball"])
def test_either_order_of_the_projections_stays_inside_both(project_last):
    corner = jnp.round(X)  # every coordinate at a bound
    x_adv = pgd(
        NETWORK, corner, LABELS, key=KEY, radius=0.7, norm="l2", project_last=project_last
    ).x_adv
    assert (distances(x_adv, "l2", corner) <= 0.7 + 1e-6).all()
    assert (x_adv >= 0).all() and (x_adv <= 1).all()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_radius_zero_returns_the_inputs(norm):
    found = pgd(NETWORK, X, LABELS, key=KEY, radius=0.0, norm=norm, objective="kl")
    np.testing.assert_array_equal(found.x_adv, X)
    np.testing.assert_array_equal(found.loss, 0.0)


def test_best_iterate_is_at_least_the_start_and_never_falls_with_more_steps():
    def losses(steps):
        options = {"radius": 0.2, "step_size": 0.1, "random_start": False}
        return pgd(NETWORK, X, LABELS, steps=steps, **options).loss

    clean = cross_entropy(NETWORK(X), LABELS)
    few, more = losses(3), losses(8)
    assert (few >= clean - 1e-6).all() and (more >= few - 1e-6).all()


def test_every_example_keeps_the_best_of_its_restarts():
    options = {"radius": 0.2, "steps": 3, "objective": "margin"}
    together = pgd(NETWORK, X, LABELS, key=KEY, restarts=4, **options)
    alone = [pgd(NETWORK, X, LABELS, key=k, **options) for k in jax.random.split(KEY, 4)]
    best = np.max([found.loss for found in alone], axis=0)
    np.testing.assert_allclose(together.loss, best, rtol=1e-6)
    assert len(np.unique(np.argmax([found.loss for found in alone], axis=0))) > 1


def test_positive_margin_is_misclassified():
    found = pgd(NETWORK, X, LABELS, key=KEY, radius=0.2, objective="margin")
    np.testing.assert_array_equal(found.success, found.loss > 0)
    wrong = jnp.argmax(NETWORK(found.x_adv), -1) != LABELS
    np.testing.assert_array_equal(found.success, wrong)
    assert 0 < found.success.sum() < 16


def test_a_saturated_model_is_attacked_as_well_as_a_mild_one():
    # -log p_y of float32 is 0 with gradient 0 at the clean inputs; the log-odds are not.
    W = jnp.asarray(RNG.normal(size=(6, 3)), jnp.float32)
    y = jnp.argmax(X @ W, -1)
    mild, sharp = (
        pgd(partial(linear, scale * W), X, y, radius=0.1, random_start=False, steps=5).x_adv
        for scale in (1.0, 1e4)
    )
    assert (cross_entropy(1e4 * X @ W, y) == 0).sum() > 8
    assert (distances(sharp, "linf") > 0.09).all()
    two = np.argsort(X @ W, -1)[:, -2]
    towards = jnp.sign(W[:, two] - W[:, y]).T
    np.testing.assert_allclose(sharp, jnp.clip(X + 0.1 * towards, 0, 1), atol=1e-6)
    assert mild.shape == sharp.shape


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_zero_gradient_and_broken_models_leave_finite_inputs(norm):
    def constant(x):
        return jnp.zeros((*x.shape[:-1], 3)) + 0.0 * x[..., :1]

    def breaks(x):  # NaN beyond a threshold of the first input
        return jnp.where(x[..., :1] > 0.5, jnp.nan, 1.0) * x[..., :3]

    for model in (constant, breaks):
        found = pgd(model, X, LABELS % 3, key=KEY, radius=0.3, norm=norm)
        assert np.isfinite(found.x_adv).all()
    assert np.isfinite(found.loss[X[:, 0] < 0.2]).all()


def test_result_is_a_constant_for_differentiation():
    def objective(weights, x, radius):
        by_argument = pgd(partial(network, weights), x, LABELS, key=KEY, radius=radius, steps=2)
        by_closure = pgd(
            lambda inputs: network(weights, inputs), x, LABELS, key=KEY, radius=radius, steps=2
        )
        return sum(
            jnp.sum(found.x_adv) + jnp.sum(found.loss) for found in (by_argument, by_closure)
        )

    gradients = jax.jit(jax.grad(objective, argnums=(0, 1, 2)))(WEIGHTS, X, 0.1)
    for leaf in jax.tree.leaves(gradients):
        np.testing.assert_array_equal(leaf, 0.0)


def test_one_compile_serves_all_weights_radii_steps_and_bounds():
    traced = []

    def counted(weights, x):
        traced.append(x.shape)
        return network(weights, x)

    pgd(partial(counted, WEIGHTS), X, LABELS, key=KEY, radius=0.1, step_size=0.1)
    before = len(traced)
    for radius in (0.2, np.float32(0.3), 1):
        doubled = jax.tree.map(lambda w: 2 * w, WEIGHTS)
        pgd(
            partial(counted, doubled), X, LABELS, key=jax.random.key(1), radius=radius,
            step_size=np.float64(0.3), bounds=(0, 2),
        )  # fmt: skip
    assert len(traced) == before


def test_jit_vmap_sharding_and_plain_calls_agree():
    def attack(x, labels):
        return pgd(NETWORK, x, labels, radius=0.2, steps=5, random_start=False)

    plain = attack(X, LABELS)
    nested = attack(X.reshape(4, 4, 6), LABELS.reshape(4, 4))
    mapped = jax.jit(jax.vmap(attack))(X, LABELS)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    sharding = NamedSharding(mesh, P("data"))
    spread = jax.jit(attack)(*jax.device_put((X, LABELS), sharding))
    assert spread.x_adv.sharding.is_equivalent_to(sharding, 2)
    for found in (mapped, spread, PGDResult(nested[0].reshape(16, 6), *map(jnp.ravel, nested[1:]))):
        for mine, theirs in zip(found, plain, strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-5)


def test_masked_examples_come_back_as_they_are():
    where = jnp.arange(16) % 2 == 0
    dirty = X.at[1].set(jnp.nan)
    options = {"radius": 0.2, "key": KEY, "steps": 4}
    found = pgd(NETWORK, dirty, LABELS.at[1].set(-1), where=where, **options)
    clean = pgd(NETWORK, X, LABELS, **options)
    np.testing.assert_array_equal(found.x_adv[~where], dirty[~where])
    np.testing.assert_array_equal(found.loss[~where], 0.0)
    assert not found.success[~where].any()
    np.testing.assert_allclose(found.x_adv[where], clean.x_adv[where], atol=1e-6)


def test_bfloat16_inputs_are_attacked_in_float32():
    found = pgd(NETWORK, X.astype(jnp.bfloat16), LABELS, key=KEY, radius=1e-3, steps=2)
    assert found.x_adv.dtype == jnp.float32
    moved = distances(found.x_adv, "linf", X.astype(jnp.bfloat16).astype(jnp.float32))
    assert (moved > 0).all() and (moved <= 1e-3 + 1e-7).all()


def test_trades_without_an_attack_is_cross_entropy_and_madry_is_it_at_the_attack():
    z = NETWORK(X)
    np.testing.assert_array_equal(trades(z, z, LABELS), cross_entropy(z, LABELS))
    np.testing.assert_array_equal(madry(z, LABELS), cross_entropy(z, LABELS))


def test_trades_grows_by_the_divergence_which_is_never_negative(x64):
    z = jnp.asarray(RNG.normal(size=(200, 5)) * 10)
    other = z + jnp.asarray(RNG.normal(size=(200, 5))) * 10.0 ** RNG.integers(-8, 2, (200, 1))
    labels = jnp.asarray(RNG.integers(0, 5, 200))
    p, log_p, log_q = jax.nn.softmax(z), jax.nn.log_softmax(z), jax.nn.log_softmax(other)
    exact = jnp.sum(p * (log_p - log_q), -1)
    grown = trades(z, other, labels, beta=1.0) - cross_entropy(z, labels)
    np.testing.assert_allclose(grown, exact, rtol=1e-9, atol=1e-13)
    single = trades(z.astype(jnp.float32), other.astype(jnp.float32), labels, beta=1e6)
    assert (single >= cross_entropy(z.astype(jnp.float32), labels)).all()


def test_the_gradient_of_trades_flows_into_the_clean_prediction(x64):
    z, other = NETWORK(X).astype(jnp.float64), NETWORK(X + 0.3).astype(jnp.float64)
    p, q = jax.nn.softmax(z), jax.nn.softmax(other)
    ratio = jnp.log(p) - jnp.log(q)
    hit = jax.nn.one_hot(LABELS, 4, dtype=z.dtype)
    divergence = jnp.sum(p * ratio, -1, keepdims=True)
    total = jax.jit(jax.grad(lambda *pair: jnp.sum(trades(*pair, LABELS)), argnums=(0, 1)))
    gradients = total(z, other)
    np.testing.assert_allclose(gradients[0], p - hit + 6.0 * p * (ratio - divergence), rtol=1e-9)
    np.testing.assert_allclose(gradients[1], 6.0 * (q - p), rtol=1e-9)


def test_divergence_of_sure_and_masked_predictions_is_finite_and_one_sided():
    gone = -jnp.inf
    z = jnp.array([[1e4, 0.0, gone], [200.0, 0.0, gone], [0.0, 1e30, gone], [0.0, gone, gone]])
    other = jnp.array([[0.0, 1e4, gone], [0.0, 0.0, gone], [0.0, 1e30, gone], [5.0, gone, gone]])
    labels = jnp.array([0, 0, 1, 0])
    slopes = jax.jit(jax.grad(lambda pair: jnp.sum(trades(*pair, labels, beta=1.0))))((z, other))
    assert all(np.isfinite(slope).all() for slope in slopes)
    np.testing.assert_allclose(
        trades(z, other, labels, beta=1.0), [1e4, np.log(2.0), 0.0, 0.0], rtol=1e-6
    )
    assert np.isposinf(trades(z[:, :2], z.at[:, 0].set(gone)[:, :2], labels)[0])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"norm": "l1"}, ValueError, "pgd: expected norm to be one of"),
        ({"objective": "dlr"}, ValueError, "pgd: expected objective to be one of"),
        ({"objective": 3}, TypeError, "pgd: expected objective to be callable"),
        ({"radius": -0.1}, ValueError, r"pgd: expected radius in \[0"),
        ({"radius": float("inf")}, ValueError, r"pgd: expected radius in \[0"),
        ({"steps": 2.5}, ValueError, "pgd: expected steps an integer >= 0, got 2.5"),
        ({"restarts": 0}, ValueError, "pgd: expected restarts an integer >= 1, got 0"),
        ({"key": None}, TypeError, "pgd: expected key to be a PRNG key"),
        ({"restarts": 2, "random_start": False}, ValueError, "pgd: expected restarts=1"),
        ({"bounds": (1.0, 0.0)}, ValueError, "pgd: expected bounds low <= high"),
        ({"bounds": 1.0}, ValueError, r"pgd: expected bounds \(low, high\)"),
        ({"bounds": (np.zeros(5, np.float32), 1.0)}, ValueError, "pgd: expected bounds that"),
        ({"start": X[:3]}, ValueError, r"pgd: expected start of shape \(16, 6\), got \(3, 6\)"),
        ({"labels": LABELS[:3]}, ValueError, r"pgd: expected inputs .* got shape \(16, 6\)"),
        ({"apply_fn": 3}, TypeError, "pgd: expected apply_fn to be callable, got 3"),
        ({"apply_fn": jnp.sum}, ValueError, "pgd: expected apply_fn to return logits of shape"),
    ],
)
def test_wrong_arguments_are_refused_by_name(options, error, message):
    given = {"apply_fn": NETWORK, "inputs": X, "labels": LABELS, "key": KEY, "radius": 0.1}
    with pytest.raises(error, match=message):
        pgd(**(given | options))
