# SPDX-License-Identifier: Apache-2.0
"""Auto-PGD: an attack without a step size to choose.

Croce, Hein, "Reliable evaluation of adversarial robustness with an ensemble of diverse
parameter-free attacks". Reach for it to evaluate a trained model, through
:func:`xloss.adversarial.robust_accuracy`: it halves its step where progress stalls and goes on from
the best point found, example by example.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from xloss import checks, numerics
from xloss.adversarial import ascent
from xloss.adversarial import ball as balls
from xloss.adversarial.ball import Ball
from xloss.adversarial.dlr import check_classes, dlr
from xloss.statistics import logit_statistics
from xloss.typing import Array, PRNGKey

_OBJECTIVES = ("ce", "dlr", "dlr_targeted")
#: Of the step that is new, the rest going on as before.
_MOMENTUM = 0.75


class APGDResult(NamedTuple):
    """What the attack found, constants for differentiation; float32 (float64 for float64 inputs).

    Attributes:
      x_adv: a misclassified input where there is one, else where the attack started.
      x_best: the input of greatest objective.
      loss: the objective there [...]; 0 where masked.
      success: bool [...], whether any input that was visited is misclassified; False where masked.
      step_size: the step that was left at the end [...], 2 radius times a power of 1/2.
      points: [steps + 1, ..., features] where gradients were taken, or None.
      step_sizes: [steps, ...] after each step, or None.
    """

    x_adv: Array
    x_best: Array
    loss: Array
    success: Array
    step_size: Array
    points: Array | None
    step_sizes: Array | None


def apgd(
    apply_fn: Any,
    inputs: ArrayLike,
    labels: ArrayLike,
    *,
    key: PRNGKey | None = None,
    radius: ArrayLike,
    norm: str = "linf",
    objective: Any = "ce",
    targets: ArrayLike | None = None,
    steps: int = 100,
    rho: ArrayLike = 0.75,
    bounds: tuple[ArrayLike, ArrayLike] | None = (0.0, 1.0),
    restarts: int = 1,
    random_start: bool = True,
    start: ArrayLike | None = None,
    trace: bool = False,
    where: ArrayLike | None = None,
) -> APGDResult:
    """Projected ascent with momentum whose step is halved, example by example, at checkpoints.

    Definition, P being the projection on ball and box and s = 2 radius at first::

        z   = P(x + s dir(g)),  dir = sign (linf) or g / ||g|| (l2)
        x  <- P(x + a (z - x) + (1 - a) (x - x_before)),  a = 3/4, 1 in the first step

    At a checkpoint s is halved and x set back to the best point if the objective rose in at most
    rho of the steps since the last one, or if the best value did not change since then and s was
    not halved there. :func:`checkpoints` says when: sparse at first, then closer.

    Args:
      apply_fn: inputs [..., features] -> logits [..., K], as in :func:`pgd`.
      inputs: [..., features], within ``bounds``.
      labels: integer y [...] in [0, K).
      key: PRNG key, needed for a random start; or keys [...], one for each example.
      radius: of the ball, scalar >= 0, traced, in the unit of the inputs.
      norm: "linf" or "l2", over the features of an example.
      objective: "ce" (-log p_y), "dlr", "dlr_targeted" (see :func:`xloss.adversarial.dlr`), or
        (logits, labels) -> [...] to be maximised.
      targets: integer [...], for "dlr_targeted" and only there.
      steps: ascent steps, static.
      rho: scalar in [0, 1], traced.
      bounds: (low, high) of legal inputs, as in :func:`pgd`.
      restarts: random starts, static; every example keeps its best.
      random_start: False starts at the inputs; a random start is on the face of the ball.
      start: inputs to start from instead; of the inputs' shape.
      trace: True returns every point and step size too; needs restarts=1.
      where: bool [...]; masked examples are returned as they are.

    Returns:
      :class:`APGDResult`. A restart costs steps + 1 evaluations with gradient.

    Raises:
      TypeError: wrong dtypes, no key for a random start, functions that are not callable.
      ValueError: shapes that do not fit, unknown names, numbers out of range, targets that are
        missing or not wanted, too few classes for DLR.

    Numerics:
      As :func:`pgd`: float32 whatever the inputs' dtype, "ce" through the log-odds, which do not
      saturate. Signs make iterates chaotic: compare them in float64 only.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> apply = jax.tree_util.Partial(lambda w, x: x @ w, jnp.array([[1.0, -1.0]]))
      >>> x, y = jnp.array([[0.5]]), jnp.array([0])
      >>> found = apgd(apply, x, y, key=jax.random.key(0), radius=0.25, steps=10)
      >>> found.x_best.tolist(), found.success.tolist()
      ([[0.25]], [False])

    Evidence: authors' code.

    References:
      Croce, Hein, "Reliable evaluation of adversarial robustness with an ensemble of diverse
      parameter-free attacks", ICML 2020, arXiv 2003.01690; authors' code fra31/auto-attack. Like
      theirs, and unlike the paper, the first step counts as an improvement if the objective after
      it is > 0. Departures: a start outside the ball is projected; NaN ends nothing.
    """
    name = "apgd"
    inputs, labels, where, settings, plan = ascent.check(
        name,
        inputs,
        labels,
        key=key,
        radius=radius,
        norm=norm,
        steps=steps,
        step_size=None,
        bounds=bounds,
        restarts=restarts,
        random_start=random_start,
        start=start,
        best=True,
        where=where,
    )
    rho = checks.number(name, "rho", rho, low=0.0, high=1.0)
    apply_fn = ascent.callable_pytree(name, "apply_fn", apply_fn)
    if isinstance(objective, str):
        kind, custom = checks.choice(name, "objective", objective, _OBJECTIVES), None
    else:
        kind, custom = "", ascent.callable_pytree(name, "objective", objective)
    if (kind == "dlr_targeted") != (targets is not None):
        raise ValueError(
            f"{name}: expected targets with objective='dlr_targeted' and nothing else, got "
            f"objective={objective!r} and targets={checks.describe(targets)}"
        )
    if targets is not None:
        targets = checks.integer(name, "targets", targets)
        checks.same_shape(name, "targets", targets, labels.shape)
    if trace and restarts > 1:
        raise ValueError(f"{name}: expected restarts=1 with trace=True, got {restarts}")
    arrays = (inputs, labels, targets, where)
    return _apgd(apply_fn, custom, *arrays, settings, rho, plan, kind, bool(trace))


def checkpoints(steps: int) -> list[int]:
    """The steps, counted from 1, after which APGD decides about halving.

    Args:
      steps: of the attack, >= 0.

    Returns:
      Increasing integers, the periods being 0.22 steps at first and 0.03 steps less each time,
      down to 0.06 steps.

    Raises:
      ValueError: steps < 0 or no integer.

    Numerics:
      Shares of the steps are rounded down, to 1 at least.

    Example:
      >>> checkpoints(100)
      [22, 41, 57, 70, 80, 87, 93, 99]

    Evidence: authors' code.

    References:
      Croce, Hein, "Reliable evaluation of adversarial robustness with an ensemble of diverse
      parameter-free attacks", ICML 2020, arXiv 2003.01690.
    """
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 0:
        raise ValueError(f"checkpoints: expected steps an integer >= 0, got {steps!r}")
    period, least, less = (max(int(share * steps), 1) for share in (0.22, 0.06, 0.03))
    found, at = [], period
    while at <= steps:
        found.append(at)
        period = max(period - less, least)
        at += period
    return found


class _State(NamedTuple):
    """Of every example: where it is and was, the best so far, and how the last steps went.

    Displacements and slopes are [..., features], the others [...].
    """

    d: Array
    before: Array
    slope: Array
    value: Array
    best_d: Array
    best: Array
    best_slope: Array
    wrong_d: Array
    wrong: Array
    step_size: Array
    rises: Array
    checked: Array
    halved: Array


@functools.partial(jax.jit, static_argnames=("plan", "kind", "trace"))
def _apgd(apply_fn, custom, inputs, labels, targets, where, settings, rho, plan, kind, trace):
    apply_fn, custom = jax.lax.stop_gradient((apply_fn, custom))
    labels = numerics.masked(labels, where)
    targets = None if targets is None else numerics.masked(targets, where)

    def value_of(x):
        logits = ascent.logits_of("apgd", apply_fn, x, labels)
        stats = logit_statistics(logits, labels)
        if kind == "ce":
            return -stats.log_odds, stats.lead
        if kind:
            check_classes("apgd", logits.shape[-1], targeted=targets is not None)
            return dlr(logits, labels, targets=targets), stats.lead
        values = custom(logits, labels)
        if getattr(values, "shape", None) != labels.shape:
            raise ValueError(
                f"apgd: expected objective to return shape {labels.shape}, got "
                f"{checks.describe(values)}"
            )
        return values, stats.lead

    given = jax.lax.stop_gradient(numerics.promote(inputs))
    ball = Ball(
        ascent.without_masked(given, where),
        batch=labels.shape,
        norm=plan.norm,
        radius=settings.radius,
        bounds=settings.bounds,
        eps=1e-12,
    )
    # The authors compare the first value with an unused row of their buffer, 0; with one step the
    # row is its own. Cross-entropy is above 0 always, the log-odds that stand for it are not.
    floor = np.inf if plan.steps == 1 else -np.inf if kind == "ce" else 0.0
    body = functools.partial(
        _step, functools.partial(_evaluate, value_of), ball, numerics.scalar(rho, ball.x), floor
    )
    ends = np.zeros(plan.steps, np.int32)  # at a checkpoint the period that ends there, else 0
    marks = checkpoints(plan.steps)
    for mark, previous in zip(marks, [0, *marks], strict=False):
        ends[mark - 1] = mark - previous
    timetable = (jnp.asarray(ends), jnp.asarray(np.arange(plan.steps) == 0))

    def run(key) -> tuple[Array, _State, Any]:
        if settings.start is not None:
            d = settings.start.astype(given.dtype) - ball.x
        else:
            d = jnp.zeros_like(ball.x) if key is None else ball.face(key)
        first = _begin(functools.partial(_evaluate, value_of), ball, ball.projected(d))

        def advance(state, when):
            d, state = body(state, when)
            return state, (d, state.step_size) if trace else None

        return first.d, *jax.lax.scan(advance, first, timetable)

    if plan.restarts == 1:
        first, state, history = run(settings.key)
    else:
        keys = balls.split(settings.key, plan.restarts)
        first, state, history = run(keys[0])
        state, _ = jax.lax.scan(
            lambda best, key: (_merged(run(key)[1], best), None), state, keys[1:]
        )
    x_best, x_adv = ball.point(state.best_d), ball.point(state.wrong_d)
    if where is not None:
        x_best, x_adv = balls.where(where, (x_best, x_adv), (given, given))
    loss = jax.nn.softplus(state.best) if kind == "ce" else state.best
    points = step_sizes = None
    if trace:
        moves, step_sizes = history
        points = jax.vmap(ball.point)(jnp.concatenate([first[None], moves]))
    found = APGDResult(
        x_adv,
        x_best,
        numerics.masked(loss, where),
        numerics.masked(state.wrong, where),
        state.step_size,
        points,
        step_sizes,
    )
    return jax.lax.stop_gradient(found)


def _evaluate(value_of, x):
    """(values, slopes, whether misclassified), a tie being a mistake."""

    def total(x):
        values, lead = value_of(x)
        return jnp.sum(values), (values, lead)

    (_, (values, lead)), slope = jax.value_and_grad(total, has_aux=True)(x)
    return jax.lax.stop_gradient((values, slope, lead <= 0))


def _begin(evaluate, ball, d):
    values, slope, wrong = evaluate(ball.point(d))
    return _State(
        d=d,
        before=d,
        slope=slope,
        value=values,
        best_d=d,
        best=values,
        best_slope=slope,
        wrong_d=d,
        wrong=wrong,
        step_size=jnp.full(values.shape, 2.0, ball.x.dtype) * ball.radius,
        rises=jnp.zeros(values.shape, jnp.int32),
        checked=values,
        halved=jnp.ones(values.shape, jnp.bool_),
    )


def _step(evaluate, ball, rho, floor, state, when):
    """One step, and what is decided at a checkpoint: (where it went, state)."""
    period, is_first = when
    share = jnp.where(is_first, 1.0, _MOMENTUM).astype(ball.x.dtype)
    size = balls.spread(state.step_size, ball.x)
    ahead = ball.projected(state.d + size * ball.direction(state.slope))
    d = ball.projected(
        state.d + share * (ahead - state.d) + (1.0 - share) * (state.d - state.before)
    )
    value, slope, wrong = evaluate(ball.point(d))
    best_d, best_slope, best = balls.better(
        (d, slope, value), (state.best_d, state.best_slope, state.best), (value, state.best)
    )
    rose = value > jnp.where(is_first, jnp.asarray(floor, value.dtype), state.value)
    rises = state.rises + rose.astype(jnp.int32)
    few = rises.astype(rho.dtype) <= rho * period.astype(rho.dtype)
    stuck = ~state.halved & (state.checked >= best)
    at_checkpoint = period > 0
    halve = at_checkpoint & (few | stuck)
    next_d, next_slope = balls.where(halve, (best_d, best_slope), (d, slope))
    return d, _State(
        d=next_d,
        before=state.d,
        slope=next_slope,
        value=value,
        best_d=best_d,
        best=best,
        best_slope=best_slope,
        wrong_d=balls.where(wrong, d, state.wrong_d),
        wrong=state.wrong | wrong,
        step_size=jnp.where(halve, 0.5 * state.step_size, state.step_size),
        rises=jnp.where(at_checkpoint, 0, rises),
        checked=jnp.where(at_checkpoint, best, state.checked),
        halved=jnp.where(at_checkpoint, halve, state.halved),
    )


def _merged(new, best):
    """Of two restarts the better one, and a mistake of either."""
    state = balls.better(new, best, (new.best, best.best))
    wrong_d = balls.where(new.wrong, new.wrong_d, best.wrong_d)
    return state._replace(wrong_d=wrong_d, wrong=new.wrong | best.wrong)
