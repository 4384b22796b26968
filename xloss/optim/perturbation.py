# SPDX-License-Identifier: Apache-2.0
"""The step to a nearby worst-case point that every sharpness-aware method takes.

Shared by SAM, ASAM, their multi-task form and :func:`xloss.optim.sharpness`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from xloss import checks, numerics
from xloss.optim import trees
from xloss.typing import Array, PyTree

#: A radius: a number >= 0, or a schedule step -> radius.
Radius = ArrayLike | optax.Schedule


class SamState(NamedTuple):
    """What SAM and its kin carry from step to step.

    Attributes:
      count: steps taken, int32 scalar: where a schedule of rho stands.
    """

    count: Array


def check_radius(function: str, name: str, rho: Radius) -> Radius:
    """Returns a radius as numbers are spelled; a schedule passes as it is."""
    return rho if callable(rho) else checks.number(function, name, rho, low=0.0)


def radius_at(rho: Radius, count: Array) -> ArrayLike:
    """The radius at step ``count``."""
    return rho(count) if callable(rho) else rho


def magnitudes(params: PyTree, eta: ArrayLike = 0.0) -> PyTree:
    """|w| + eta for every parameter, in float32 (float64): the adaptive scale."""

    def magnitude(w: Array) -> Array:
        wide = jnp.abs(numerics.promote(w))
        return wide + jnp.asarray(eta, wide.dtype)

    return jax.tree.map(magnitude, params)


def ascent(
    gradient: PyTree, rho: ArrayLike, *, scale: PyTree | None = None, eps: float = 1e-12
) -> PyTree:
    """rho g / (||g|| + eps), or with a scale T: rho T^2 g / (||T g|| + eps).

    Args:
      gradient: float arrays; one norm over all of them.
      rho: scalar.
      scale: T, in the structure of ``gradient``.
      eps: in the unit of the norm; keeps noise from being blown up to rho.

    Returns:
      The perturbation, float32 (float64), 0 where the gradient is 0. It is data: nothing is
      differentiated through it.
    """
    dtype = trees.dtype_of(gradient)
    if scale is not None:
        gradient = _times(scale, gradient, dtype)
    norm, unit = trees.norm_and_unit(gradient)
    # 1 / (1 + eps / norm) instead of norm / (norm + eps): right for norms of 0 and inf too.
    length = jnp.asarray(rho, dtype) / (1 + jnp.asarray(eps, dtype) / norm)
    step = jax.tree.map(lambda u: length * u, unit)
    step = step if scale is None else _times(scale, step, dtype)
    return jax.lax.stop_gradient(step)


def moved(params: PyTree, step: PyTree) -> PyTree:
    """params + step, at least float32: bfloat16 would round most of a small step away."""

    def add(w: Array, e: Array) -> Array:
        wide = numerics.promote(w)
        return wide + e.astype(wide.dtype)

    return jax.tree.map(add, params, step)


def cast_like(tree: PyTree, like: PyTree) -> PyTree:
    """The tree in the dtypes of another one."""
    return jax.tree.map(lambda x, y: x.astype(y.dtype), tree, like)


def flags(function: str, name: str, chosen: PyTree | Callable, params: PyTree) -> list[bool]:
    """One bool per leaf of params, from a tree of bools (a prefix will do) or a path predicate.

    Raises:
      TypeError: the tree holds something else than bools.
      ValueError: the tree does not fit params.
    """
    leaves, _ = jax.tree_util.tree_flatten_with_path(params)
    if callable(chosen):
        paths = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in leaves]
        found = [chosen(path) for path in paths]
    else:
        try:
            spread = jax.tree.map(
                lambda flag, part: jax.tree.map(lambda _: flag, part), chosen, params
            )
        except ValueError as error:
            raise ValueError(
                f"{function}: expected {name} in the structure of params or a prefix of it: {error}"
            ) from error
        found = jax.tree.leaves(spread)
    wrong = [flag for flag in found if not isinstance(flag, bool | jnp.bool_)]
    if wrong:
        raise TypeError(f"{function}: expected bools from {name}, got {checks.describe(wrong[0])}")
    return [bool(flag) for flag in found]


def perturbed(
    name: str,
    rho: Radius,
    mask: trees.Mask,
    step: Callable[[PyTree, PyTree, ArrayLike], PyTree],
    *,
    merge: Callable[[PyTree, PyTree], PyTree] | None = None,
    num_groups: int | None = None,
) -> optax.GradientTransformationExtraArgs:
    """The transformation whose update is grad_fn at params + step(gradient, params, rho).

    Args:
      name: of the public factory, for messages.
      rho: radius or schedule.
      mask: which leaves are perturbed.
      step: (gradient, params, radius) -> perturbation.
      merge: (gradient, gradient there) -> update; None takes the latter.
      num_groups: parts of the batch, each with its own perturbation; None is the whole batch.
    """

    def init(params: PyTree) -> SamState:
        del params
        return SamState(count=jnp.zeros([], jnp.int32))

    def update(
        updates: PyTree,
        state: Any,
        params: PyTree | None = None,
        *,
        grad_fn: Any = None,
        **extra_args: Any,
    ) -> tuple[PyTree, SamState]:
        del extra_args  # of other transforms in the chain
        grad_fn = trees.check_function(name, "grad_fn", grad_fn)
        trees.check_params(name, params)
        radius = radius_at(rho, state.count)

        def there(gradient: PyTree, *group: Array) -> PyTree:
            away = step(trees.select(gradient, mask, params), params, radius)
            return grad_fn(moved(params, trees.select(away, mask, params)), *group)

        if num_groups is None:
            found = there(updates)
        else:
            each = jax.lax.map(
                lambda group: there(grad_fn(params, group), group),
                jnp.arange(num_groups, dtype=jnp.int32),
            )
            found = jax.tree.map(lambda x: jnp.mean(numerics.promote(x), axis=0), each)
        found = found if merge is None else merge(updates, found)
        count = jnp.asarray(optax.safe_increment(state.count))
        return cast_like(found, updates), SamState(count=count)

    return optax.GradientTransformationExtraArgs(init, update)


def _times(scale: PyTree, tree: PyTree, dtype: jnp.dtype) -> PyTree:
    return jax.tree.map(lambda t, x: t.astype(dtype) * x.astype(dtype), scale, tree)
