# SPDX-License-Identifier: Apache-2.0
"""Projected ascent inside a ball and a box: the engine of the attacks of this family.

An attack says what to ascend; here are the random start, the steps, the projections, the restarts
and the best iterate of every example. Everything is per example: nothing is exchanged where the
batch is sharded.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from xloss import checks, numerics
from xloss.typing import Array, PRNGKey

NORMS = ("linf", "l2")
#: float32's greatest number: a radius of infinity has no random start.
_LARGEST = float(np.finfo(np.float32).max)


class Settings(NamedTuple):
    """The traced part of an attack: one compile serves all values.

    Attributes:
      key: PRNG key, or None without a random start.
      radius: of the ball, scalar.
      step_size: scalar.
      bounds: (low, high), each a scalar or broadcastable to the inputs; or None.
      start: inputs to start from instead of a random point, or None.
    """

    key: Any
    radius: Any
    step_size: Any
    bounds: Any
    start: Any


class Plan(NamedTuple):
    """The static part of an attack.

    Attributes:
      norm: "linf" or "l2".
      steps: ascent steps.
      restarts: independent random starts.
      random_start: False starts at the inputs.
      best: whether the best iterate is returned rather than the last.
      project_last: "box" or "ball", which of the two projections comes last.
    """

    norm: str
    steps: int
    restarts: int
    random_start: bool
    best: bool
    project_last: str


def check(
    function: str,
    inputs: ArrayLike,
    labels: ArrayLike,
    *,
    key: PRNGKey | None,
    radius: ArrayLike,
    norm: str,
    steps: int,
    step_size: ArrayLike | None,
    bounds: tuple[ArrayLike, ArrayLike] | None,
    restarts: int,
    random_start: bool,
    start: ArrayLike | None,
    best: bool,
    project_last: str = "box",
    where: ArrayLike | None,
) -> tuple[Array, Array, Array | None, Settings, Plan]:
    """The static checks that the attacks share.

    Raises:
      TypeError, ValueError: "FUNCTION: expected ARGUMENT ..., got ...".
    """
    inputs = checks.floating(function, "inputs", inputs)
    labels = checks.integer(function, "labels", labels)
    if inputs.shape[: labels.ndim] != labels.shape:
        raise ValueError(
            f"{function}: expected inputs [..., features] for labels of shape {labels.shape}, got "
            f"shape {inputs.shape}"
        )
    where = checks.mask(function, where, labels.shape)
    radius = checks.number(function, "radius", radius, low=0.0, high=_LARGEST)
    checks.choice(function, "norm", norm, NORMS)
    for name, count, least in (("steps", steps, 0), ("restarts", restarts, 1)):
        if isinstance(count, bool) or not isinstance(count, int) or count < least:
            raise ValueError(f"{function}: expected {name} an integer >= {least}, got {count!r}")
    if step_size is None:
        step_size = 2.5 * radius / max(steps, 1)
    step_size = checks.number(function, "step_size", step_size, low=0.0, high=_LARGEST)
    if start is not None:
        start = checks.floating(function, "start", start)
        checks.same_shape(function, "start", start, inputs.shape)
        random_start = False
    if restarts > 1 and not random_start:
        raise ValueError(
            f"{function}: expected restarts=1 without a random start (all would be the same), got "
            f"{restarts}"
        )
    if random_start and not (
        hasattr(key, "dtype")
        and (jnp.issubdtype(key.dtype, jax.dtypes.prng_key) or key.dtype == jnp.uint32)
    ):
        raise TypeError(
            f"{function}: expected key to be a PRNG key such as jax.random.key(0), "
            f"got {checks.describe(key)}"
        )
    settings = Settings(
        key if random_start else None,
        radius,
        step_size,
        _check_bounds(function, bounds, inputs.shape),
        start,
    )
    checks.choice(function, "project_last", project_last, ("box", "ball"))
    plan = Plan(norm, steps, restarts, bool(random_start), bool(best), project_last)
    return inputs, labels, where, settings, plan


def callable_pytree(function: str, name: str, value: Any) -> jax.tree_util.Partial:
    """A function as a pytree: the arrays of a Partial are traced, the function itself is static.

    Raises:
      TypeError: it is not callable.
    """
    if not callable(value):
        raise TypeError(f"{function}: expected {name} to be callable, got {checks.describe(value)}")
    return value if isinstance(value, jax.tree_util.Partial) else jax.tree_util.Partial(value)


def logits_of(function: str, apply_fn: Callable[[Array], Array], x: Array, labels: Array) -> Array:
    """apply_fn(x), checked to be logits of these labels."""
    logits = apply_fn(x)
    shape = getattr(logits, "shape", None)
    if not shape or shape[:-1] != labels.shape:
        raise ValueError(
            f"{function}: expected apply_fn to return logits of shape {labels.shape} + (K,), got "
            f"{checks.describe(logits)}"
        )
    return logits


def ascend(
    value_of: Callable[[Array], tuple[Array, Any]],
    inputs: Array,
    labels: Array,
    where: Array | None,
    settings: Settings,
    plan: Plan,
) -> tuple[Array, Array, Any]:
    """Ascends ``value_of`` from each start and keeps the best of every example.

    Args:
      value_of: inputs -> (values [...], pytree of other numbers [...] to carry along).
      inputs: [..., features].
      labels: integer [...]; its rank says which axes of the inputs are examples.
      where: bool [...] or None; masked examples keep their inputs.
      settings: traced.
      plan: static.

    Returns:
      (inputs, values, others), constants for differentiation. Inputs are float32 (float64 for
      float64 inputs), within the ball and the box to rounding.
    """
    given = jax.lax.stop_gradient(numerics.promote(inputs))
    x = without_masked(given, where)
    features = tuple(range(labels.ndim, x.ndim))
    radius, step_size = (numerics.scalar(s, x) for s in settings[1:3])
    low, high = (
        (None, None)
        if settings.bounds is None
        else (jnp.broadcast_to(jnp.asarray(bound, x.dtype), x.shape) for bound in settings.bounds)
    )

    def moved(d: Array) -> Array:
        return x + d if low is None else jnp.clip(x + d, low, high)

    def boxed(d: Array) -> Array:
        return d if low is None else moved(d) - x

    def projected(d: Array) -> Array:
        """Both pull towards the inputs, so in either order the result is in ball and box."""
        if plan.project_last == "ball":
            d = boxed(d)
        if plan.norm == "linf":
            d = jnp.clip(d, -radius, radius)
        else:
            size = _l2(d, features)
            d = d * jnp.where(size > radius, radius / (size + 1e-7), jnp.ones_like(size))
        return d if plan.project_last == "ball" else boxed(d)

    def start(key: Array | None) -> Array:
        if settings.start is not None:
            return projected(settings.start.astype(x.dtype) - x)
        if key is None:
            return projected(jnp.zeros_like(x))
        place, length = jax.random.split(key)
        if plan.norm == "linf":
            return projected(jax.random.uniform(place, x.shape, x.dtype, -1.0, 1.0) * radius)
        normal = jax.random.normal(place, x.shape, x.dtype)
        share = _spread(jax.random.uniform(length, labels.shape, x.dtype), x)
        return projected(_unit(normal, features) * share * radius)

    def better(found, best):
        wins = (found[1] > best[1]) | jnp.isnan(best[1])
        return jax.tree.map(lambda new, old: jnp.where(_spread(wins, new), new, old), found, best)

    def step(carry, _):
        d, best = carry

        def total(point):
            values, others = value_of(point)
            return jnp.sum(values), (values, others)

        # The slope at the point, not through its clip, whose slope at a bound is arbitrary.
        (_, (values, others)), slope = jax.value_and_grad(total, has_aux=True)(moved(d))
        found = jax.lax.stop_gradient((d, values, others))
        best = better(found, best) if plan.best else best
        direction = jnp.sign(slope) if plan.norm == "linf" else _unit(slope, features)
        # A point where the model breaks down (NaN) must not end the search.
        direction = jnp.where(jnp.isnan(direction), jnp.zeros_like(direction), direction)
        return jax.lax.stop_gradient((projected(d + step_size * direction), best)), None

    def run(key: Array | None):
        d = start(key)
        values, others = jax.eval_shape(value_of, x)
        nothing = jax.tree.map(
            lambda leaf: jnp.full(leaf.shape, jnp.nan, leaf.dtype), (values, others)
        )
        (d, best), _ = jax.lax.scan(step, (d, (d, *nothing)), length=plan.steps)
        found = (d, *value_of(moved(d)))
        return better(found, best) if plan.best else found

    if plan.restarts == 1:
        d, values, others = run(settings.key)
    else:
        keys = jax.random.split(settings.key, plan.restarts)
        first = run(keys[0])
        (d, values, others), _ = jax.lax.scan(
            lambda best, key: (better(run(key), best), None), first, keys[1:]
        )
    result = moved(d)
    if where is not None:
        result = jnp.where(_spread(where, x), result, given)
        values, others = jax.tree.map(lambda leaf: numerics.masked(leaf, where), (values, others))
    return jax.lax.stop_gradient((result, values, others))


def without_masked(inputs: Array, where: Array | None) -> Array:
    """The inputs with those of masked examples replaced by 0."""
    if where is None:
        return inputs
    return jnp.where(_spread(where, inputs), inputs, jnp.zeros_like(inputs))


def _check_bounds(function: str, bounds: Any, shape: tuple[int, ...]) -> Any:
    if bounds is None:
        return None
    if not isinstance(bounds, tuple | list) or len(bounds) != 2:
        raise ValueError(f"{function}: expected bounds (low, high) or None, got {bounds!r}")
    pair = []
    for bound in bounds:
        if np.ndim(bound) == 0:
            pair.append(checks.number(function, "bounds", bound))
            continue
        bound = checks.floating(function, "bounds", bound)
        try:
            fits = jnp.broadcast_shapes(bound.shape, shape) == shape
        except ValueError:
            fits = False
        if not fits:
            raise ValueError(
                f"{function}: expected bounds that broadcast to the inputs {shape}, got "
                f"{bound.shape}"
            )
        pair.append(bound)
    low, high = pair
    if isinstance(low, float) and isinstance(high, float) and low > high:
        raise ValueError(f"{function}: expected bounds low <= high, got {low:g} > {high:g}")
    return low, high


def _spread(x: Array, like: Array) -> Array:
    """[...] -> [..., 1, 1], to stand against inputs."""
    return x.reshape(x.shape + (1,) * (like.ndim - x.ndim))


def _l2(x: Array, axes: tuple[int, ...]) -> Array:
    return jnp.sqrt(jnp.sum(jnp.square(x), axis=axes, keepdims=True))


def _unit(x: Array, axes: tuple[int, ...]) -> Array:
    """x / ||x||_2 over the axes, 0 for 0; scaled first, so that a tiny gradient has a direction."""
    if math.prod(x.shape[axis] for axis in axes) == 0:
        return x
    size = jnp.max(jnp.abs(x), axis=axes, keepdims=True)
    safe = x / jnp.where((size > 0) & jnp.isfinite(size), size, jnp.ones_like(size))
    length = _l2(safe, axes)
    return safe / jnp.where(length > 0, length, jnp.ones_like(length))
