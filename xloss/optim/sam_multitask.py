# SPDX-License-Identifier: Apache-2.0
"""Sharpness-aware multi-task learning: every task has its own worst-case perturbation.

"Improving Multi-task Learning via Seeking Task-based Flat Regions". Reach for it when several tasks
share parameters, their gradients conflict and plain aggregation overfits; it costs two gradients
for each task.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from xloss import checks, numerics
from xloss.optim import perturbation, trees
from xloss.typing import Array, PRNGKey, PyTree

#: (grads [T, ...], key=...) -> (direction, weights); see :mod:`xloss.optim.aggregators`.
Aggregator = Callable[..., tuple[PyTree, Array | None]]

#: Which leaves the tasks share: a tree of bools (a prefix will do), or "trunk/kernel" -> bool.
Shared = PyTree | Callable[[str], bool]


class SamMultitaskAux(NamedTuple):
    """What :func:`sam_multitask_gradients` did, beside the gradients.

    Trees of the shared parameters have the structure of ``params`` with None at the heads.

    Attributes:
      loss_gradients: g_t of the shared parameters at the current point, [T, ...].
      flat_gradients: the flatness part, gradient at the perturbed point minus g_t, [T, ...].
      loss_direction: aggregated loss part; None with split=False.
      flat_direction: aggregated flatness part; None with split=False.
      perturbations: of every task, [T, ...] for all of ``params``.
      shared_norms: norm of each task's perturbation of the shared parameters, [T].
      heads_norms: the same of the heads, [T].
    """

    loss_gradients: PyTree
    flat_gradients: PyTree
    loss_direction: PyTree | None
    flat_direction: PyTree | None
    perturbations: PyTree
    shared_norms: Array
    heads_norms: Array


class SamMultitaskState(NamedTuple):
    """What :func:`sam_multitask` carries from step to step.

    Attributes:
      count: steps taken, int32 scalar: where schedules of the radii stand, and what is folded into
        the key.
      key: data of the PRNG key, uint32 (as data, so that any wrapper can select and cast it); None
        if none was given.
    """

    count: Array
    key: PyTree


def sam_multitask_gradients(
    task_losses_fn: Callable[[PyTree], Array],
    params: PyTree,
    *,
    shared: Shared,
    rho_shared: ArrayLike,
    rho_heads: ArrayLike,
    aggregator: Aggregator,
    adaptive: bool = False,
    split: bool = True,
    sequential: bool = False,
    mask: trees.Mask = None,
    key: PRNGKey | None = None,
) -> tuple[Array, PyTree, SamMultitaskAux]:
    """Gradients of T tasks at their own worst-case points, merged in two parts.

    Definition, for the losses L_t [T], shared parameters s and heads h; norms over all shared
    tensors together and over all head tensors together, perturbations are constants::

        (g_t, q_t) = grad of L_t at (s, h)
        e_t = rho_shared g_t / (||g_t|| + 1e-12),   f_t = rho_heads q_t / (||q_t|| + 1e-12)
              adaptive: rho w^2 g / (|| |w| g || + 1e-12), elementwise in the parameters w
        (G_t, Q_t) = grad of L_t at (s + e_t, h + f_t)
        shared gradient   Agg({g_t}) + Agg({G_t - g_t})      loss part + flatness part
                          split=False: Agg({G_t}), the ablation
        head gradient     sum over t of Q_t

    A head's loss does not depend on the other heads, so Q_t is 0 there and each head gets its own
    task's SAM gradient; which head belongs to which task need not be said.

    Args:
      task_losses_fn: params -> losses [T] over ONE batch, dropout key included; batch statistics
        must not be updated in it.
      params: tree of float arrays.
      shared: which leaves the tasks share: a tree of bools (a prefix will do), or a predicate of
        the leaf's path, such as ``lambda path: path.startswith("trunk/")``.
      rho_shared: radius for the shared parameters, scalar >= 0, traced. The authors' script: 2,
        with adaptive=True.
      rho_heads: radius for the heads, scalar >= 0, traced.
      aggregator: ``(grads, key=...) -> (direction, weights)``, such as
        ``xloss.optim.aggregators.pcgrad`` or ``functools.partial(cagrad, c=0.4)``; of a linear one
        split makes no difference.
      adaptive: perturb each parameter in proportion to its size (the authors' default).
      split: False aggregates the SAM gradients directly, the paper's ablation.
      sequential: one task after another: memory of one backward pass instead of T.
      mask: leaves that are perturbed, a tree of bools or a function params -> tree.
      key: PRNG key for the aggregator; each part gets a key of its own. None if it needs none.

    Returns:
      (losses [T] at the current point, gradients as ``params``, :class:`SamMultitaskAux`).

    Raises:
      TypeError: task_losses_fn cannot be called or its losses are not of a float dtype, shared has
        no bools, aggregator returns no pair.
      ValueError: losses that are not [T], no shared leaf, radii < 0, params with holes.

    Numerics:
      2 T gradients: T backward passes from one forward pass, then T forward and backward passes,
      written out one after another unless sequential: compiling takes longer with more tasks.
      Memory beside the model's: 2 T copies of the shared gradient; aux costs nothing more if it is
      dropped inside ``jax.jit``, where this function belongs.

      task_losses_fn always sees at least float32 parameters: in bfloat16 the flatness part, a
      difference of nearly equal gradients, would be rounding. It is noise anyhow where rho is
      tiny (relative error about 1e-7 ||g|| / (rho ||H||) in float32). A task of zero gradient, or a
      head of zeros under ``adaptive``, is not perturbed. The gradients return in the dtypes of
      params, losses in float32 (float64).

    Example:
      >>> import jax.numpy as jnp
      >>> from xloss.optim import aggregators
      >>> losses, gradients, aux = sam_multitask_gradients(
      ...     lambda p: jnp.stack([p["trunk"] ** 2, p["trunk"] * p["head"]]) / 2,
      ...     {"trunk": jnp.array(2.0), "head": jnp.array(1.0)},
      ...     shared={"trunk": True, "head": False}, rho_shared=1.0, rho_heads=0.0,
      ...     aggregator=aggregators.linear,
      ... )
      >>> losses.tolist(), float(gradients["trunk"]), float(aux.flat_direction["trunk"])
      ([2.0, 1.0], 3.5, 1.0)

    Evidence: published formula, derived and checked.

    References:
      "Improving Multi-task Learning via Seeking Task-based Flat Regions", arXiv 2211.13723.
      Departures: the script multiplies MGDA's direction by T in the split variant only; not here.
    """
    name = "sam_multitask_gradients"
    trees.check_function(name, "task_losses_fn", task_losses_fn)
    trees.check_function(name, "aggregator", aggregator)
    trees.check_params(name, params)
    radii = [
        checks.number(name, argument, rho, low=0.0)
        for argument, rho in (("rho_shared", rho_shared), ("rho_heads", rho_heads))
    ]
    flags = perturbation.flags(name, "shared", shared, params)
    if not any(flags):
        raise ValueError(f"{name}: expected shared to choose at least one leaf, got none")
    wide = jax.tree.map(numerics.promote, params)
    structure = jax.tree.structure(wide)

    def part(tree: PyTree, of_shared: bool) -> PyTree:
        leaves = zip(flags, structure.flatten_up_to(tree), strict=True)
        return structure.unflatten([x if flag == of_shared else None for flag, x in leaves])

    def whole(of_shared: PyTree, of_heads: PyTree) -> PyTree:
        left, right = (structure.flatten_up_to(tree) for tree in (of_shared, of_heads))
        return structure.unflatten(
            [x if flag else y for flag, x, y in zip(flags, left, right, strict=True)]
        )

    def losses_at(params: PyTree) -> Array:
        losses = checks.floating(name, "task_losses_fn(params)", task_losses_fn(params))
        if losses.ndim != 1 or losses.size == 0:
            raise ValueError(f"{name}: expected losses [T] with T >= 1, got {losses.shape}")
        return numerics.promote(losses)

    losses, pull = jax.vjp(losses_at, wide)
    scale = perturbation.magnitudes(wide) if adaptive else None

    def step(gradient: PyTree, rho: ArrayLike, of_shared: bool) -> PyTree:
        sizes = None if scale is None else part(scale, of_shared)
        return perturbation.ascent(part(gradient, of_shared), rho, scale=sizes)

    def one_task(task: Array) -> tuple[PyTree, tuple[PyTree, ...]]:
        (gradient,) = pull(task)
        steps = [
            step(trees.select(gradient, mask, wide), rho, of_shared)
            for rho, of_shared in zip(radii, (True, False), strict=True)
        ]
        away = whole(*steps)
        _, pull_away = jax.vjp(losses_at, perturbation.moved(wide, away))
        (sharp,) = pull_away(task)
        norms = tuple(trees.norm_and_unit(tree)[0] for tree in steps)
        return part(sharp, False), (part(gradient, True), part(sharp, True), away, norms)

    tasks = jnp.eye(losses.size, dtype=losses.dtype)
    if sequential:

        def after_another(heads: PyTree, task: Array) -> tuple[PyTree, tuple[PyTree, ...]]:
            mine, found = one_task(task)
            return jax.tree.map(jnp.add, heads, mine), found

        nothing = jax.tree.map(jnp.zeros_like, part(wide, False))
        heads, found = jax.lax.scan(after_another, nothing, tasks)
    else:
        every, found = _each(one_task, tasks)
        heads = jax.tree.map(lambda x: jnp.sum(x, axis=0), every)
    gradients, sharp, away, norms = found
    flat = jax.tree.map(jnp.subtract, sharp, gradients)

    def aggregate(grads: PyTree, key: PRNGKey | None) -> PyTree:
        result = aggregator(grads, key=key)
        if not isinstance(result, tuple) or len(result) != 2:
            raise TypeError(
                f"{name}: expected aggregator to return (direction, weights), got {type(result)}"
            )
        return result[0]

    loss_direction = flat_direction = None
    if split:
        keys = (None, None) if key is None else jax.random.split(key)
        loss_direction, flat_direction = aggregate(gradients, keys[0]), aggregate(flat, keys[1])
        direction = jax.tree.map(jnp.add, loss_direction, flat_direction)
    else:
        direction = aggregate(sharp, key)
    aux = SamMultitaskAux(gradients, flat, loss_direction, flat_direction, away, *norms)
    return losses, perturbation.cast_like(whole(direction, heads), params), aux


def _each(function: Callable[[Array], PyTree], rows: Array) -> PyTree:
    """What vmap gives, one row after another in the program: T products of whole matrices, where a
    batch of T matrices is several times as slow on a CPU."""
    found = [function(row) for row in rows]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *found)


def sam_multitask(
    *,
    shared: Shared,
    aggregator: Aggregator,
    rho_shared: perturbation.Radius,
    rho_heads: perturbation.Radius,
    adaptive: bool = False,
    split: bool = True,
    sequential: bool = False,
    mask: trees.Mask = None,
    key: PRNGKey | None = None,
) -> optax.GradientTransformationExtraArgs:
    """:func:`sam_multitask_gradients` as a transformation: the gradient of an optimizer's step.

    It stands FIRST in a chain, takes ``task_losses_fn`` in update's extra arguments and DOES NOT
    USE the incoming updates (give it anything in the structure of the parameters)::

        optimizer = optax.chain(
            optim.sam_multitask(
                shared=lambda path: path.startswith("trunk/"),
                aggregator=optim.aggregators.pcgrad, key=jax.random.key(0),
                rho_shared=0.05, rho_heads=0.05,
            ),
            optax.adam(1e-3),
        )
        task_losses_fn = lambda p: jnp.stack([loss_a(p, batch), loss_b(p, batch)])
        updates, state = optimizer.update(params, state, params, task_losses_fn=task_losses_fn)

    Args:
      shared: which leaves the tasks share, a tree of bools or a predicate of the leaf's path.
      aggregator: what merges T gradients, such as ``xloss.optim.aggregators.pcgrad``.
      rho_shared: radius for the shared parameters, scalar >= 0, traced, or a schedule.
      rho_heads: radius for the heads, the same.
      adaptive: perturb each parameter in proportion to its size.
      split: False aggregates the SAM gradients directly, the paper's ablation.
      sequential: one task after another: memory of one backward pass instead of T.
      mask: leaves that are perturbed, a tree of bools or a function params -> tree.
      key: PRNG key from which every step draws one for the aggregator; None if it needs none.

    Returns:
      A transformation with state :class:`SamMultitaskState`; ``update(updates, state, params, *,
      task_losses_fn)`` with ``task_losses_fn(params) -> losses [T]``.

    Raises:
      TypeError: from update, task_losses_fn missing, or as :func:`sam_multitask_gradients`.
      ValueError: radii < 0; from update, params missing or with holes, or as
        :func:`sam_multitask_gradients`.

    Numerics:
      2 T gradients, in float32 (float64); see :func:`sam_multitask_gradients`. The result does not
      depend on the mesh; the aggregators reduce [T, T] numbers and gather no gradient.

      ``optax.inject_hyperparams`` must be told ``static_args=("shared", "aggregator", "mask",
      "key")``. Under ``optax.MultiSteps`` task_losses_fn is the last call's: it must cover all
      micro-batches, else the step is that of the last micro-batch alone. This cannot be seen here.

    Example:
      >>> import jax.numpy as jnp
      >>> from xloss.optim import aggregators
      >>> tx = sam_multitask(
      ...     shared=True, aggregator=aggregators.linear, rho_shared=1.0, rho_heads=0.0
      ... )
      >>> w = jnp.array([3.0, 4.0])
      >>> gradient, _ = tx.update(
      ...     w, tx.init(w), w, task_losses_fn=lambda p: jnp.sum(p**2)[None] / 2
      ... )
      >>> [round(x, 4) for x in gradient.tolist()]   # w + w / 5
      [3.6, 4.8]

    Evidence: published formula, derived and checked.

    References:
      "Improving Multi-task Learning via Seeking Task-based Flat Regions", arXiv 2211.13723.
    """
    name = "sam_multitask"
    radii = {
        argument: perturbation.check_radius(name, argument, rho)
        for argument, rho in (("rho_shared", rho_shared), ("rho_heads", rho_heads))
    }
    trees.check_function(name, "aggregator", aggregator)

    def init(params: PyTree) -> SamMultitaskState:
        del params
        data = None if key is None else jax.random.key_data(key)
        return SamMultitaskState(count=jnp.zeros([], jnp.int32), key=data)

    def update(
        updates: PyTree,
        state: Any,
        params: PyTree | None = None,
        *,
        task_losses_fn: Any = None,
        **extra_args: Any,
    ) -> tuple[PyTree, SamMultitaskState]:
        del updates, extra_args  # the latter of other transforms in the chain
        task_losses_fn = trees.check_function(name, "task_losses_fn", task_losses_fn)
        trees.check_params(name, params)
        now = None
        if key is not None:
            now = jax.random.wrap_key_data(state.key, impl=jax.random.key_impl(key))
            now = jax.random.fold_in(now, state.count)
        _, gradients, _ = sam_multitask_gradients(
            task_losses_fn,
            params,
            shared=shared,
            aggregator=aggregator,
            adaptive=adaptive,
            split=split,
            sequential=sequential,
            mask=mask,
            key=now,
            **{n: perturbation.radius_at(rho, state.count) for n, rho in radii.items()},
        )
        return gradients, state._replace(count=jnp.asarray(optax.safe_increment(state.count)))

    return optax.GradientTransformationExtraArgs(init, update)
