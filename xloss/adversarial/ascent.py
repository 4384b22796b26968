# SPDX-License-Identifier: Apache-2.0
"""Projected ascent inside a ball and a box: the engine of PGD and its kin.

An attack says what to ascend; here are the steps, the restarts and the best iterate of every
example, and the checks that all attacks share. Everything is per example: nothing is exchanged
where the batch is sharded.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from xloss import checks, numerics
from xloss.adversarial import ball as balls
from xloss.adversarial.ball import Ball
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
    if random_start:
        key = check_key(function, key, labels.shape)
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


def check_key(function: str, key: Any, batch: tuple[int, ...]) -> PRNGKey:
    """A PRNG key, typed: one for all examples or one for each.

    Raises:
      TypeError: it is none.
      ValueError: keys of another shape than the examples'.
    """
    typed = hasattr(key, "dtype") and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    if not typed and not (hasattr(key, "dtype") and key.dtype == jnp.uint32):
        raise TypeError(
            f"{function}: expected key to be a PRNG key such as jax.random.key(0), "
            f"got {checks.describe(key)}"
        )
    key = key if typed else jax.random.wrap_key_data(key)
    if key.shape not in ((), batch):
        raise ValueError(
            f"{function}: expected one key or keys of shape {batch}, one for each example, got "
            f"{key.shape}"
        )
    return key


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
    ball = Ball(
        without_masked(given, where),
        batch=labels.shape,
        norm=plan.norm,
        radius=settings.radius,
        bounds=settings.bounds,
        eps=1e-7,
    )
    x, step_size = ball.x, numerics.scalar(settings.step_size, ball.x)

    def projected(d: Array) -> Array:
        return ball.projected(d, plan.project_last)

    def start(key: Array | None) -> Array:
        if settings.start is not None:
            return projected(settings.start.astype(x.dtype) - x)
        return projected(jnp.zeros_like(x) if key is None else ball.inside(key))

    def step(carry, _):
        d, best = carry

        def total(point):
            values, others = value_of(point)
            return jnp.sum(values), (values, others)

        # The slope at the point, not through its clip, whose slope at a bound is arbitrary.
        (_, (values, others)), slope = jax.value_and_grad(total, has_aux=True)(ball.point(d))
        found = jax.lax.stop_gradient((d, values, others))
        best = balls.better(found, best, (values, best[1])) if plan.best else best
        d = projected(d + step_size * ball.direction(slope))
        return jax.lax.stop_gradient((d, best)), None

    def run(key: Array | None):
        d = start(key)
        values, others = jax.eval_shape(value_of, x)
        nothing = jax.tree.map(
            lambda leaf: jnp.full(leaf.shape, jnp.nan, leaf.dtype), (values, others)
        )
        (d, best), _ = jax.lax.scan(step, (d, (d, *nothing)), length=plan.steps)
        found = (d, *value_of(ball.point(d)))
        return balls.better(found, best, (found[1], best[1])) if plan.best else found

    d, values, others = best_of(run, settings.key, plan.restarts)
    result = ball.point(d)
    if where is not None:
        result = balls.where(where, result, given)
        values, others = jax.tree.map(lambda leaf: numerics.masked(leaf, where), (values, others))
    return jax.lax.stop_gradient((result, values, others))


def best_of(run: Callable[[Any], Any], key: Any, restarts: int) -> Any:
    """What ``run(key)`` finds from each start, the best for every example.

    Args:
      run: key -> tuple of arrays [..., features] or [...], of which the second is what is best.
      key: PRNG key or keys, or None for one start.
      restarts: how many.
    """
    if restarts == 1:
        return run(key)
    keys = balls.split(key, restarts)

    def another(best, key):
        found = run(key)
        return balls.better(found, best, (found[1], best[1])), None

    return jax.lax.scan(another, run(keys[0]), keys[1:])[0]


def without_masked(inputs: Array, where: Array | None) -> Array:
    """The inputs with those of masked examples replaced by 0."""
    if where is None:
        return inputs
    return balls.where(where, inputs, jnp.zeros_like(inputs))


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
