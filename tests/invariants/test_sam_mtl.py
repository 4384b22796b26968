# SPDX-License-Identifier: Apache-2.0
"""Sharpness-aware multi-task learning: the seven invariants of its specification, and its cost."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from xloss import optim
from xloss.optim import aggregators

TASKS = 3
RNG = np.random.default_rng(0)


def draw(*shape):
    return jnp.asarray(RNG.normal(size=shape), jnp.float32)


PARAMS = {
    "trunk": {"kernel": draw(4, 6), "bias": draw(6)},
    "heads": [draw(6, 2) for _ in range(TASKS)],
}
SHARED = {"trunk": True, "heads": False}
INPUTS, TARGETS = draw(8, 4), draw(TASKS, 8, 2)


def task_losses(params, scale=(1.0,) * TASKS):
    trunk = params["trunk"]
    hidden = jnp.tanh(INPUTS @ trunk["kernel"] + trunk["bias"][None, :])
    errors = [
        s * jnp.mean(jnp.square(hidden @ head - target))
        for s, head, target in zip(scale, params["heads"], TARGETS, strict=True)
    ]
    return jnp.stack(errors)


@functools.partial(
    jax.jit, static_argnames=("aggregator", "split", "sequential", "adaptive", "scale")
)
def run(
    params,
    rho_shared=0.3,
    rho_heads=0.1,
    *,
    aggregator=aggregators.linear,
    scale=(1.0,) * TASKS,
    **how,
):
    return optim.sam_multitask_gradients(
        functools.partial(task_losses, scale=scale),
        params,
        shared=SHARED,
        rho_shared=rho_shared,
        rho_heads=rho_heads,
        aggregator=aggregator,
        **how,
    )


def assert_close(found, expected, rtol=1e-5, atol=1e-6):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=atol), found, expected
    )


def test_1_a_linear_aggregator_does_not_see_the_split():
    _, whole, aux = run(PARAMS)
    _, direct, _ = run(PARAMS, split=False)
    assert_close(whole, direct)
    total = jax.tree.map(
        lambda g, f: jnp.sum(g + f, axis=0), aux.loss_gradients, aux.flat_gradients
    )
    assert_close(whole["trunk"], total["trunk"])


@pytest.mark.parametrize("aggregator", [aggregators.mgda, aggregators.cagrad])
def test_1_a_nonlinear_aggregator_does(aggregator):
    _, split, _ = run(PARAMS, aggregator=aggregator)
    _, direct, _ = run(PARAMS, aggregator=aggregator, split=False)
    gap = optax.tree.norm(optax.tree.sub(split["trunk"], direct["trunk"]))
    assert float(gap) > 0.01 * float(optax.tree.norm(direct["trunk"]))
    assert_close(split["heads"], direct["heads"])


def test_2_one_task_is_sam():
    """Everything shared, one task: SAM with every aggregator that leaves one gradient alone."""

    def loss(params):
        return jnp.sum(task_losses(params))

    gradient = jax.grad(loss)
    sam = optim.sam(rho=0.3)
    expected, _ = sam.update(gradient(PARAMS), sam.init(PARAMS), PARAMS, grad_fn=gradient)
    pcgrad = functools.partial(aggregators.pcgrad, key=None, order=jnp.zeros([1, 1], jnp.int32))
    for aggregator in (aggregators.linear, aggregators.mgda, lambda g, key: pcgrad(g)):
        _, found, _ = optim.sam_multitask_gradients(
            lambda p: loss(p)[None],
            PARAMS,
            shared=True,
            rho_shared=0.3,
            rho_heads=0.0,
            aggregator=aggregator,
        )
        assert_close(found, expected)


def test_3_without_radius_it_is_the_aggregator_of_the_gradients():
    jacobian = jax.jacrev(task_losses)(PARAMS)
    for aggregator in (aggregators.mgda, aggregators.cagrad):
        expected, _ = aggregator(jacobian["trunk"])
        for rho, rtol in ((0.0, 1e-5), (1e-3, 5e-2)):
            _, found, _ = run(PARAMS, rho, 0.0, aggregator=aggregator)
            gap = optax.tree.norm(optax.tree.sub(found["trunk"], expected))
            assert float(gap) <= rtol * float(optax.tree.norm(expected)), rho


def test_4_the_perturbations_have_the_norms_asked_for():
    _, _, aux = run(PARAMS)
    np.testing.assert_allclose(aux.shared_norms, 0.3, rtol=1e-5)
    np.testing.assert_allclose(aux.heads_norms, 0.1, rtol=1e-5)
    squares = jax.tree.map(
        lambda e: jnp.sum(jnp.square(e).reshape(TASKS, -1), axis=1), aux.perturbations
    )
    np.testing.assert_allclose(sum(jax.tree.leaves(squares["trunk"])), 0.09, rtol=1e-5)
    for task, square in enumerate(squares["heads"]):  # each task moves its own head alone
        np.testing.assert_allclose(square, 0.01 * np.eye(TASKS)[task], rtol=1e-5, atol=1e-9)


def test_4_the_adaptive_perturbations_have_them_relative_to_the_weights():
    _, _, aux = run(PARAMS, adaptive=True)
    relative = jax.tree.map(lambda e, w: e / jnp.abs(w)[None], aux.perturbations, PARAMS)
    squares = jax.tree.map(lambda e: jnp.sum(jnp.square(e).reshape(TASKS, -1), axis=1), relative)
    np.testing.assert_allclose(sum(jax.tree.leaves(squares["trunk"])), 0.09, rtol=1e-4)
    np.testing.assert_allclose(sum(squares["heads"]), 0.01, rtol=1e-4)


def test_5_a_head_does_not_depend_on_the_other_tasks():
    _, found, _ = run(PARAMS)
    changed = PARAMS | {"heads": [PARAMS["heads"][0], *(5 * h for h in PARAMS["heads"][1:])]}
    _, after, _ = run(changed, scale=(1.0, 7.0, 0.0))
    np.testing.assert_allclose(after["heads"][0], found["heads"][0], rtol=1e-5)
    np.testing.assert_array_equal(after["heads"][2], 0.0)  # a task that is masked out
    assert np.isfinite(after["trunk"]["kernel"]).all()


def test_6_the_scale_of_a_task_does_not_change_its_perturbation():
    _, _, aux = run(PARAMS)
    _, _, scaled = run(PARAMS, scale=(1e-3, 1.0, 1e4))
    assert_close(scaled.perturbations, aux.perturbations, rtol=1e-4)


def test_7_the_flatness_part_of_a_quadratic_is_exact():
    """L_t = w' H_t w / 2: the flatness part is rho H_t u_t."""
    roots = draw(2, 5, 5)
    hessians = roots @ jnp.swapaxes(roots, 1, 2)
    w = draw(5)
    _, _, aux = optim.sam_multitask_gradients(
        lambda w: jnp.einsum("i,tij,j->t", w, hessians, w) / 2,
        w,
        shared=True,
        rho_shared=0.5,
        rho_heads=0.0,
        aggregator=aggregators.linear,
    )
    gradients = hessians @ w
    units = gradients / jnp.linalg.norm(gradients, axis=1, keepdims=True)
    expected = 0.5 * jnp.einsum("tij,tj->ti", hessians, units)
    np.testing.assert_allclose(aux.flat_gradients, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("sequential", [False, True])
def test_two_gradients_a_task_and_no_more(sequential):
    """Counts the backward passes through the shared layer as they run."""
    ran = []

    @jax.custom_vjp
    def watched(x):
        return x

    def backward(_, cotangent):
        jax.debug.callback(lambda _: ran.append(None), cotangent)
        return (cotangent,)

    watched.defvjp(lambda x: (x, None), backward)

    def losses(params):
        return task_losses(
            params
            | {
                "trunk": jax.tree.map(lambda x: x, params["trunk"])
                | {"bias": watched(params["trunk"]["bias"])}
            }
        )

    @jax.jit
    def step(params):
        return optim.sam_multitask_gradients(
            losses,
            params,
            shared=SHARED,
            rho_shared=0.3,
            rho_heads=0.1,
            aggregator=aggregators.linear,
            sequential=sequential,
        )[1]

    jax.block_until_ready(step(PARAMS))
    jax.effects_barrier()
    assert len(ran) == 2 * TASKS


def test_one_task_after_another_is_the_same_in_less_memory():
    assert_close(run(PARAMS, sequential=True), run(PARAMS), rtol=1e-4)

    inputs = jnp.ones([512, 16])

    def wide_losses(w):
        return jnp.stack([jnp.mean(jnp.tanh(t * jnp.tanh(inputs @ w))) for t in range(1, 9)])

    def temporaries(sequential):
        def step(w):
            return optim.sam_multitask_gradients(
                wide_losses,
                w,
                shared=True,
                rho_shared=0.1,
                rho_heads=0.0,
                aggregator=aggregators.linear,
                sequential=sequential,
            )[1]

        compiled = jax.jit(step).lower(jnp.ones([16, 128])).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert temporaries(True) < 0.5 * temporaries(False)


def test_a_path_predicate_says_what_is_shared():
    found = optim.sam_multitask_gradients(
        task_losses,
        PARAMS,
        shared=lambda path: path.startswith("trunk/"),
        rho_shared=0.3,
        rho_heads=0.1,
        aggregator=aggregators.linear,
    )
    assert_close(found, run(PARAMS))
    assert found[2].loss_gradients["heads"] == [None] * TASKS


def test_leaves_that_the_mask_leaves_out_are_not_perturbed():
    _, _, aux = optim.sam_multitask_gradients(
        task_losses,
        PARAMS,
        shared=SHARED,
        rho_shared=0.3,
        rho_heads=0.1,
        aggregator=aggregators.linear,
        mask={"trunk": {"kernel": True, "bias": False}, "heads": False},
    )
    np.testing.assert_array_equal(aux.perturbations["trunk"]["bias"], 0.0)
    np.testing.assert_allclose(aux.shared_norms, 0.3, rtol=1e-5)
    np.testing.assert_array_equal(aux.heads_norms, 0.0)


def test_heads_of_zeros_are_not_perturbed_when_adaptive():
    zeros = PARAMS | {"heads": [jnp.zeros_like(h) for h in PARAMS["heads"]]}
    _, found, aux = run(zeros, adaptive=True)
    np.testing.assert_array_equal(aux.heads_norms, 0.0)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(found))


def test_in_bfloat16_the_flatness_part_is_that_of_float32():
    low = jax.tree.map(lambda x: x.astype(jnp.bfloat16), PARAMS)
    _, gradients, aux = run(low, 0.01, 0.01)
    _, _, wide = run(jax.tree.map(lambda x: x.astype(jnp.float32), low), 0.01, 0.01)
    assert_close(aux.flat_gradients, wide.flat_gradients)
    assert gradients["trunk"]["kernel"].dtype == jnp.bfloat16


def test_every_step_draws_another_order_and_the_key_repeats_it():
    def four_updates(seed):
        transform = optim.sam_multitask(
            shared=SHARED,
            aggregator=aggregators.pcgrad,
            rho_shared=0.3,
            rho_heads=0.1,
            key=jax.random.key(seed),
        )
        update = jax.jit(
            lambda state: transform.update(PARAMS, state, PARAMS, task_losses_fn=conflicting)
        )
        state, found = transform.init(PARAMS), []
        for _ in range(4):
            updates, state = update(state)
            found.append(np.asarray(updates["trunk"]["bias"]))
        return np.stack(found)

    def conflicting(params):
        b = params["trunk"]["bias"]
        return jnp.stack([jnp.sum(b * turn) for turn in draws])

    draws = draw(4, 6) - 1.2 * jnp.mean(draw(4, 6), axis=0, keepdims=True)
    first = four_updates(0)
    assert len(np.unique(first.round(5), axis=0)) > 1
    np.testing.assert_array_equal(four_updates(0), first)


def test_wrong_arguments_are_named():
    def call(losses=task_losses, **changes):
        how = {"shared": SHARED, "rho_shared": 0.1, "rho_heads": 0.1}
        how |= {"aggregator": aggregators.linear} | changes
        return optim.sam_multitask_gradients(losses, PARAMS, **how)

    with pytest.raises(ValueError, match="expected shared to choose at least one leaf"):
        call(shared=False)
    with pytest.raises(TypeError, match="expected bools from shared, got 0"):
        call(shared={"trunk": 1, "heads": 0})
    with pytest.raises(ValueError, match="expected shared in the structure of params"):
        call(shared={"trunk": True})
    with pytest.raises(ValueError, match=r"expected losses \[T\] with T >= 1, got \(\)"):
        call(losses=lambda p: jnp.sum(task_losses(p)))
    with pytest.raises(ValueError, match="expected rho_heads in"):
        call(rho_heads=-1.0)
    with pytest.raises(TypeError, match=r"expected aggregator to return \(direction, weights\)"):
        call(aggregator=lambda grads, key: jax.tree.map(lambda g: g[0], grads))
    with pytest.raises(TypeError, match="pcgrad: expected a key"):
        call(aggregator=aggregators.pcgrad)
    with pytest.raises(TypeError, match="sam_multitask: expected aggregator to be a function"):
        optim.sam_multitask(shared=True, aggregator="pcgrad", rho_shared=0.1, rho_heads=0.1)
