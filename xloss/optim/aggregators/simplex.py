# SPDX-License-Identifier: Apache-2.0
"""Minimises a smooth convex function of T weights over the probability simplex.

A primal-dual interior-point method (Mehrotra's predictor and corrector) with a fixed number of
steps: it runs inside jit, needs no start, and ends at the analytic centre where the minimiser is
not unique, so that the answer does not depend on the order of the tasks.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from xloss.typing import Array

Iterates = tuple[Array, ...]

#: Each step divides the duality gap by up to 200; float64 is at rounding after about 15.
STEPS = 30


def minimise(derivatives: Callable[[Array], tuple[Array, Array, Array]], start: Array) -> Array:
    """argmin over w >= 0, sum w = 1 of f(w).

    Args:
      derivatives: w [T] -> (gradient [T], Hessian [T, T] positive semidefinite up to rounding,
        magnitude [T] of the terms of which the Hessian's diagonal is made). f should be of order
        1 somewhere on the simplex.
      start: a point inside the simplex, [T], float32 or float64.

    Returns:
      w [T]; weights that are 0 at the optimum are below rounding. NaN in the derivatives gives NaN.
    """
    limits, size = jnp.finfo(start.dtype), start.size
    floor = jnp.asarray(float(limits.tiny) ** 0.5, start.dtype)
    jitter = jnp.asarray(10 * size * float(limits.eps), start.dtype)
    one = jnp.ones_like(start)

    def step(_: Array, carry: Iterates) -> Iterates:
        w, slack, level = carry
        gradient, hessian, magnitude = derivatives(w)
        ratio = slack / w
        # Relative to its own terms: tasks may differ in scale by many orders.
        ridge = ratio + jitter * (magnitude + ratio)
        factor = jax.scipy.linalg.cho_factor(hessian + jnp.diag(ridge), lower=True)
        centre = jax.scipy.linalg.cho_solve(factor, one)

        def direction(complementarity: Array) -> tuple[Array, Array, Array]:
            right = complementarity / w - (gradient - level)
            free = jax.scipy.linalg.cho_solve(factor, right)
            level_move = -jnp.sum(free) / jnp.sum(centre)
            move = free + level_move * centre
            return move, complementarity / w - slack - ratio * move, level_move

        gap = jnp.dot(w, slack) / size
        move, slack_move, _ = direction(jnp.zeros_like(w))
        ahead, slack_ahead = reach(w, move), reach(slack, slack_move)
        predicted = jnp.dot(w + ahead * move, slack + slack_ahead * slack_move) / size
        target = gap * (predicted / gap) ** 3
        move, slack_move, level_move = direction(target - move * slack_move)
        length = jnp.minimum(reach(w, move), reach(slack, slack_move))
        w = jnp.maximum(w + length * move, floor)
        slack = jnp.maximum(slack + length * slack_move, floor)
        return unless_broken(carry, (w / jnp.sum(w), slack, level + length * level_move))

    gradient, _, _ = derivatives(start)
    level = jnp.min(gradient) - jnp.max(jnp.abs(gradient)) - jnp.asarray(1e-3, start.dtype)
    w, _, _ = jax.lax.fori_loop(0, STEPS, step, (start, gradient - level, level))
    return w


def unless_broken(old: Iterates, new: Iterates) -> Iterates:
    """new, or old where a number of it is not finite: rounding has the last word in float32."""
    fine = jnp.all(jnp.stack([jnp.all(jnp.isfinite(x)) for x in new]))
    return tuple(jnp.where(fine, n, o) for o, n in zip(old, new, strict=True))


def reach(x: Array, move: Array) -> Array:
    """The greatest step in [0, 1] that keeps x > 0, with a margin."""
    falling = move < 0
    ratios = jnp.where(falling, -x / jnp.where(falling, move, -jnp.ones_like(move)), jnp.inf)
    return jnp.minimum(jnp.ones([], x.dtype), 0.995 * jnp.min(ratios))
