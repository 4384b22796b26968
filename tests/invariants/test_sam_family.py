# SPDX-License-Identifier: Apache-2.0
"""SAM and its kin, and sharpness: the invariants of their specification."""

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from xloss import optim

RNG = np.random.default_rng(0)
PARAMS = {
    "kernel": jnp.asarray(RNG.normal(size=(8, 4)), jnp.float32),
    "bias": jnp.asarray(RNG.normal(size=4), jnp.float32),
}
INPUTS = jnp.asarray(RNG.normal(size=(16, 8)), jnp.float32)


def loss(params, inputs=INPUTS):
    out = jnp.tanh(inputs @ params["kernel"] + params["bias"][None, :])
    return jnp.mean(jnp.square(out - 0.3))


gradient = jax.jit(jax.grad(loss))
GRADIENT = gradient(PARAMS)


def perturbation(transform, updates=GRADIENT, params=PARAMS):
    """e, from where grad_fn is asked."""
    seen = []

    def grad_fn(at):
        seen.append(at)
        return updates

    transform.update(updates, transform.init(params), params, grad_fn=grad_fn)
    assert len(seen) == 1  # with the incoming gradient: 2 a step
    return jax.tree.map(lambda a, b: a - b.astype(a.dtype), seen[0], params)


def test_1_rho_zero_is_the_base_optimizer_bitwise():
    plain = optax.sgd(0.1, momentum=0.9)
    for transform in (optim.sam(rho=0.0), optim.asam(rho=0.0), optim.fisher_sam(rho=0.0)):
        chained = optax.chain(transform, plain)
        params, state = PARAMS, chained.init(PARAMS)
        base, base_state = PARAMS, plain.init(PARAMS)
        for _ in range(3):
            updates, state = chained.update(gradient(params), state, params, grad_fn=gradient)
            params = optax.apply_updates(params, updates)
            updates, base_state = plain.update(gradient(base), base_state, base)
            base = optax.apply_updates(base, updates)
        jax.tree.map(np.testing.assert_array_equal, params, base)


def updates_of(transform, steps=1):
    """The last of a few updates, and how often grad_fn was asked for each."""
    calls, state, found = [], transform.init(PARAMS), None
    step = jax.jit(
        lambda state: transform.update(GRADIENT, state, PARAMS, grad_fn=counted(gradient, calls))
    )
    for _ in range(steps):
        found, state = step(state)
    jax.effects_barrier()
    return found, len(calls)


def counted(function, calls):
    def call(params):
        jax.debug.callback(lambda: calls.append(None))
        return function(params)

    return call


def sam_updates(rho=0.3):
    return updates_of(optim.sam(rho=rho))[0]


def assert_same(found, expected, rtol=1e-5):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-7), found, expected
    )


def test_4_gsam_is_sam_without_alpha_and_what_it_takes_off_is_orthogonal():
    there = sam_updates()
    assert_same(updates_of(optim.gsam(rho=0.3, alpha=0.0))[0], there)
    found, _ = updates_of(optim.gsam(rho=0.3, alpha=0.4))
    taken = jax.tree.map(jnp.subtract, found, there)
    size = optax.tree.norm(taken) * optax.tree.norm(there)
    assert optax.tree.norm(taken) > 1e-3 * optax.tree.norm(there)
    assert abs(optax.tree.vdot(taken, there)) < 1e-5 * size
    clean, _ = updates_of(optim.gsam(rho=0.3, alpha=0.4, minimize_clean=True))
    added = jax.tree.map(jnp.subtract, clean, GRADIENT)
    assert abs(optax.tree.vdot(added, GRADIENT)) < 1e-5 * optax.tree.norm(GRADIENT)


def test_5_the_gradient_norm_penalty_runs_from_plain_descent_to_sam():
    full = optim.gradient_norm_penalty(lam=0.3, radius=0.3)
    assert_same(updates_of(full)[0], sam_updates())
    assert_same(updates_of(optim.gradient_norm_penalty(lam=0.0, radius=0.3))[0], GRADIENT)

    def penalised(params):
        return loss(params) + 0.05 * optax.tree.norm(jax.grad(loss)(params))

    small, _ = updates_of(optim.gradient_norm_penalty(lam=0.05, radius=0.01))
    exact = jax.grad(penalised)(PARAMS)
    off = optax.tree.norm(jax.tree.map(jnp.subtract, small, exact))
    assert off < 0.01 * optax.tree.norm(jax.tree.map(jnp.subtract, exact, GRADIENT)) + 1e-3


def test_6_fisher_sam_is_sam_without_eta_and_stays_on_its_ellipsoid():
    assert_same(updates_of(optim.fisher_sam(rho=0.3, eta=0.0))[0], sam_updates())
    e = perturbation(optim.fisher_sam(rho=0.3, eta=50.0))
    inside = jax.tree.map(lambda e, g: jnp.sum(e**2 * (1 + 50.0 * g**2)), e, GRADIENT)
    np.testing.assert_allclose(jnp.sqrt(sum(jax.tree.leaves(inside))), 0.3, rtol=1e-4)


def test_7_look_sam_is_sam_every_step_or_skips_the_second_gradient():
    assert_same(updates_of(optim.look_sam(rho=0.3, every=1))[0], sam_updates())
    look = optim.look_sam(rho=0.3, every=5, alpha=0.7)
    found, calls = updates_of(look, steps=12)
    assert calls == 3  # of 12: steps 0, 5 and 10; with the incoming gradient 1 + 1 / 4
    across = jax.tree.map(jnp.subtract, found, GRADIENT)
    ratio = optax.tree.norm(across) / optax.tree.norm(GRADIENT)
    np.testing.assert_allclose(ratio, 0.7, rtol=1e-4)
    assert abs(optax.tree.vdot(across, GRADIENT)) < 1e-4 * optax.tree.norm(GRADIENT) ** 2
    _, calls = updates_of(optim.sam(rho=0.3), steps=12)
    assert calls == 12


def test_groups_of_one_batch_each_have_their_own_worst_point():
    parts = INPUTS.reshape(4, 4, 8)
    asked = []

    def grad_fn(params, group):
        asked.append(params)
        return jax.grad(loss)(params, parts[group])

    transform = optim.sam(rho=0.3, num_groups=4)
    found, _ = transform.update(GRADIENT, transform.init(PARAMS), PARAMS, grad_fn=grad_fn)
    each = []
    for part in parts:
        slope = jax.grad(loss)(PARAMS, part)
        share = 0.3 / optax.tree.norm(slope)
        e = jax.tree.map(lambda g, share=share: share * g, slope)
        each.append(jax.grad(loss)(jax.tree.map(jnp.add, PARAMS, e), part))
    assert_same(found, jax.tree.map(lambda *x: sum(x) / 4, *each))
    with pytest.raises(ValueError, match="sam: expected num_groups an integer >= 1, got 0"):
        optim.sam(num_groups=0)
    with pytest.raises(ValueError, match="look_sam: expected every an integer >= 1, got 0"):
        optim.look_sam(every=0)


@pytest.mark.parametrize("rho", [0.05, 2.0])
def test_2_the_perturbation_of_sam_has_norm_rho(rho):
    found = perturbation(optim.sam(rho=rho))
    np.testing.assert_allclose(optax.tree.norm(found), rho, rtol=1e-4)
    towards = optax.tree.vdot(found, GRADIENT) / optax.tree.norm(GRADIENT)
    np.testing.assert_allclose(towards, rho, rtol=1e-4)  # and is along the gradient


def test_2_the_perturbation_of_asam_has_norm_rho_relative_to_the_weights():
    found = perturbation(optim.asam(rho=0.5, eta=0.01))
    scale = {"kernel": jnp.abs(PARAMS["kernel"]) + 0.01, "bias": jnp.ones(4)}
    relative = jax.tree.map(jnp.divide, found, scale)
    np.testing.assert_allclose(optax.tree.norm(relative), 0.5, rtol=1e-5)


@pytest.mark.parametrize("c", [0.1, 30.0])
def test_3_asam_moves_with_the_scale_of_the_weights(c):
    """eta = 0 and biases left out: w -> c w, g -> g / c turns e into c e."""
    transform = optim.asam(rho=0.5, eta=0.0, mask={"kernel": True, "bias": False})
    before = perturbation(transform)["kernel"]
    scaled = {"kernel": c * PARAMS["kernel"], "bias": PARAMS["bias"]}
    updates = {"kernel": GRADIENT["kernel"] / c, "bias": GRADIENT["bias"]}
    after = perturbation(transform, updates, scaled)["kernel"]
    np.testing.assert_allclose(after, c * before, rtol=1e-4, atol=1e-5 * c)


@pytest.mark.parametrize("transform", [optim.sam(), optim.asam(eta=0.0)], ids=["sam", "asam"])
def test_8_a_zero_gradient_gives_a_finite_zero_update(transform):
    zeros = optax.tree.zeros_like(PARAMS)
    for params in (PARAMS, zeros):
        found = perturbation(transform, zeros, params)
        jax.tree.map(np.testing.assert_array_equal, found, zeros)
        updates, _ = transform.update(
            zeros, transform.init(params), params, grad_fn=lambda _: zeros
        )
        jax.tree.map(np.testing.assert_array_equal, updates, zeros)


def test_9_the_result_does_not_depend_on_the_mesh():
    def step(params, inputs):
        def grad_fn(at):
            return jax.grad(loss)(at, inputs)

        sam, asam = optim.sam(rho=0.5), optim.asam()
        return [
            t.update(grad_fn(params), t.init(params), params, grad_fn=grad_fn)[0]
            for t in (sam, asam)
        ]

    mesh = jax.make_mesh((4, 2), ("data", "model"), axis_types=(AxisType.Auto,) * 2)
    places = {"kernel": P("data", "model"), "bias": P("model")}
    spread = {n: jax.device_put(PARAMS[n], NamedSharding(mesh, places[n])) for n in PARAMS}
    inputs = jax.device_put(INPUTS, NamedSharding(mesh, P("data")))
    found, expected = jax.jit(step)(spread, inputs), jax.jit(step)(PARAMS, INPUTS)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), found, expected
    )


@pytest.mark.parametrize("c", [1e-4, 1e6, 1e25])
def test_10_the_scale_of_the_loss_does_not_matter(c):
    for transform in (optim.sam(), optim.asam()):
        found = perturbation(transform, jax.tree.map(lambda g: c * g, GRADIENT))
        expected = perturbation(transform)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-6), found, expected
        )


def test_a_norm_per_tensor_would_be_another_method():
    found = perturbation(optim.sam(rho=1.0))
    assert all(float(jnp.linalg.norm(leaf)) < 0.999 for leaf in found.values())


def test_masked_leaves_stay_and_do_not_count():
    found = perturbation(optim.sam(rho=0.5, mask={"kernel": False, "bias": True}))
    np.testing.assert_array_equal(found["kernel"], 0.0)
    np.testing.assert_allclose(jnp.linalg.norm(found["bias"]), 0.5, rtol=1e-4)


def test_rho_follows_a_schedule():
    transform = optim.sam(rho=optax.linear_schedule(0.0, 1.0, 4))
    state = transform.init(PARAMS)
    for expected in (0.0, 0.25, 0.5):
        seen = []
        _, state = transform.update(
            GRADIENT, state, PARAMS, grad_fn=lambda at, seen=seen: (seen.append(at), GRADIENT)[1]
        )
        moved = optax.tree.norm(optax.tree.sub(seen[0], PARAMS))
        np.testing.assert_allclose(moved, expected, rtol=1e-4)
    assert int(state.count) == 3


def test_bfloat16_would_lose_the_perturbation():
    """Steps of 1e-4 at weights of 1: below bfloat16's resolution, so they are taken in float32."""
    params = jnp.ones([256], jnp.bfloat16)
    found = perturbation(optim.sam(rho=1.6e-3), jnp.ones_like(params), params)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, 1e-4, rtol=1e-2)
    updates, _ = optim.sam().update(
        params, optim.SamState(jnp.int32(0)), params, grad_fn=lambda w: w
    )
    assert updates.dtype == jnp.bfloat16


def test_nothing_is_differentiated_through_the_perturbation():
    transform = optim.sam(rho=1.0)

    def after(w):
        updates, _ = transform.update(w, transform.init(w), w, grad_fn=lambda at: at)
        return jnp.sum(updates)

    np.testing.assert_allclose(jax.grad(after)(jnp.array([3.0, 4.0])), 1.0)


def test_sharpness_of_a_quadratic():
    """L = sum h w^2 / 2: along the gradient exactly, at the minimum in random directions."""
    h = jnp.array([1.0, 4.0, 10.0, 2.0])

    def quadratic(w):
        return jnp.sum(h * jnp.square(w)) / 2

    w = jnp.array([1.0, -1.0, 0.5, 0.0])
    e = 0.3 * h * w / jnp.linalg.norm(h * w)
    ascent = optim.sharpness(quadratic, w, rho=0.3)
    np.testing.assert_allclose(ascent, quadratic(w + e) - quadratic(w), rtol=1e-5)
    rise = optim.sharpness(
        quadratic, jnp.zeros(4), rho=0.3, kind="random", key=jax.random.key(0), num_samples=4000
    )
    np.testing.assert_allclose(rise, 0.09 * jnp.mean(h) / 2, rtol=0.05)
    assert float(optim.sharpness(quadratic, jnp.zeros(4), rho=0.3)) == 0.0


@pytest.mark.parametrize("top", [10.0, -1.0])
def test_the_top_of_the_hessian_is_the_greatest_eigenvalue_with_its_sign(top):
    """Not the greatest in magnitude (-20), and with every start and more steps than entries."""
    eigenvalues = jnp.array([top, -1.5, -20.0, -4.0])
    q = jnp.linalg.qr(jax.random.normal(jax.random.key(5), (4, 4)))[0]
    hessian = (q * eigenvalues[None, :]) @ q.T

    @jax.jit
    def found(key):
        w = {"a": jnp.ones(3), "b": jnp.array([2.0])}

        def quadratic(w):
            v = jnp.concatenate([w["a"], w["b"]])
            return v @ hessian @ v / 2 + jnp.sum(v)

        return optim.sharpness(quadratic, w, kind="hessian_top", key=key)

    each = [found(jax.random.key(seed)) for seed in range(5)]
    np.testing.assert_allclose(each, top, rtol=1e-4)
    assert float(found(jax.random.key(0))) == float(each[0])


def test_the_top_of_the_hessian_of_a_network_its_mask_and_its_limits(x64):
    params = jax.tree.map(lambda w: w.astype(jnp.float64), PARAMS)
    inputs = INPUTS.astype(jnp.float64)
    flat, unflatten = jax.flatten_util.ravel_pytree(params)
    hessian = jax.jit(jax.hessian(lambda v: loss(unflatten(v), inputs)))(flat)

    @jax.jit
    def tops(params):
        def top(**options):
            key = jax.random.key(0)
            return optim.sharpness(
                lambda p: loss(p, inputs), params, kind="hessian_top", key=key, **options
            )

        return top(), top(num_iters=1), top(mask={"kernel": False, "bias": True}), top(mask=False)

    full, one, part, nothing = tops(params)
    values = np.linalg.eigvalsh(hessian)
    np.testing.assert_allclose(full, values[-1], rtol=1e-8)
    assert values[0] < float(one) < float(full)
    # The bias comes first.
    np.testing.assert_allclose(part, np.linalg.eigvalsh(hessian[:4, :4])[-1], rtol=1e-8)
    assert float(nothing) == 0.0


def test_the_top_of_the_hessian_of_easy_losses():
    losses = (
        lambda w: 3.0 * jnp.sum(w**2),
        jnp.sum,
        lambda w: -1e30 * jnp.sum(w**2),
        lambda w: jnp.nan * jnp.sum(w**2),
    )

    @jax.jit
    def tops(w):
        key = jax.random.key(0)
        return [optim.sharpness(f, w, kind="hessian_top", key=key, num_iters=3) for f in losses]

    equal, linear, huge, lost = tops(jnp.ones(3, jnp.bfloat16))
    assert equal.dtype == jnp.float32
    np.testing.assert_allclose(equal, 6.0, rtol=1e-6)
    assert float(linear) == 0.0
    np.testing.assert_allclose(huge, -2e30, rtol=1e-6)
    assert np.isnan(lost)


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match=r"sam: expected rho in \[0, inf\), got -1"):
        optim.sam(rho=-1.0)
    with pytest.raises(ValueError, match="asam: expected eta"):
        optim.asam(eta=-1.0)
    with pytest.raises(TypeError, match="sharpness: expected a key"):
        optim.sharpness(loss, PARAMS, kind="random")
    with pytest.raises(TypeError, match="sharpness: expected a key with kind='hessian_top'"):
        optim.sharpness(loss, PARAMS, kind="hessian_top")
    with pytest.raises(ValueError, match="sharpness: expected num_iters"):
        optim.sharpness(loss, PARAMS, num_iters=0)
    with pytest.raises(ValueError, match="sharpness: expected kind to be one of"):
        optim.sharpness(loss, PARAMS, kind="top")
    with pytest.raises(ValueError, match="sharpness: expected num_samples"):
        optim.sharpness(loss, PARAMS, num_samples=0)
    with pytest.raises(ValueError, match=r"loss_fn\(params\) of shape \(\)"):
        optim.sharpness(lambda p: p["bias"], PARAMS)
