# SPDX-License-Identifier: Apache-2.0
"""Nash-MTL and FairGrad: the direction that tasks would agree on in bargaining.

"Multi-Task Learning as a Bargaining Game"; "Fair Resource Allocation in Multi-Task Learning". Reach
for Nash-MTL where losses have different units: the scale of a gradient does not matter to it.
FairGrad's alpha leads from there (1) towards the worst-off task (infinity).
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from xloss import checks
from xloss.optim.aggregators import gram
from xloss.typing import Array, PRNGKey, PyTree

#: Newton steps; from T = 20 tasks in conflict about 20 are needed, and none does harm.
STEPS = 60
#: Lengths of a step that are tried, in halves of the greatest.
HALVINGS = 16


def nash_mtl(
    grads: PyTree, *, max_norm: ArrayLike = 1.0, key: PRNGKey | None = None
) -> tuple[PyTree, Array]:
    """The Nash bargaining solution: every task gains in proportion to its own weight's inverse.

    Definition, with M the inner products of the gradients::

        w > 0 with (M w)_t = 1 / w_t for all t,   d = sum over t of w_t g_t,   ||d||^2 = T
        then d <- d min(1, max_norm / ||d||)

    Args:
      grads: tree of float arrays [T, ...], the tasks first.
      max_norm: scalar >= 0, traced: the length of the result; 0 leaves it at sqrt(T).
      key: not used.

    Returns:
      (direction, weights): the tree without its task axis, in the dtypes of ``grads``, and its
      coefficients [T], float32 (float64 beside float64 gradients).

    Raises:
      TypeError: wrong dtypes.
      ValueError: leaves without a common task axis, max_norm < 0.

    Numerics:
      The minimum of w^T M w / 2 - sum log w by damped Newton steps on the cosines, a fixed number:
      exact to rounding whatever the scale of each gradient. A task of gradient 0 takes no part.
      Opposite gradients have no solution: weights grow with the steps and d is what rounding
      leaves; the authors' loop then silently keeps the weights that it started from.

    Example:
      >>> import jax.numpy as jnp
      >>> direction, _ = nash_mtl(jnp.array([[5.0, 0.0], [0.0, 0.1]]), max_norm=0.0)
      >>> [round(x, 4) for x in direction.tolist()]
      [1.0, 1.0]

    Evidence: authors' code.

    References:
      "Multi-Task Learning as a Bargaining Game", ICML 2022, arXiv 2202.01017. Numbers: LibMTL
      (median-research-group/LibMTL) where it converges, and exact solutions.
    """
    name = "nash_mtl"
    del key
    grads = gram.check_grads(name, grads)
    return _nash_mtl(grads, checks.number(name, "max_norm", max_norm, low=0.0))


def fairgrad(
    grads: PyTree, *, alpha: ArrayLike = 2.0, key: PRNGKey | None = None
) -> tuple[PyTree, Array]:
    """The alpha-fair direction: (M w)_t = w_t^(-1 / alpha).

    Definition, with M the inner products of the gradients, it maximises over d of a bounded length
    the sum over t of the alpha-fair utility u(x) = x^(1 - alpha) / (1 - alpha) of x = g_t . d::

        w > 0 with (M w)_t = w_t^(-1 / alpha) for all t,   d = sum over t of w_t g_t

    Args:
      grads: tree of float arrays [T, ...], the tasks first.
      alpha: scalar > 0, traced; 1 is Nash-MTL, the authors take 1, 2 or 5.
      key: not used.

    Returns:
      (direction, weights): the tree without its task axis, in the dtypes of ``grads``, and its
      coefficients [T], float32 (float64 beside float64 gradients).

    Raises:
      TypeError: wrong dtypes.
      ValueError: leaves without a common task axis, alpha <= 0.

    Numerics:
      As :func:`nash_mtl`, by the convex function that belongs to it; the authors' least squares
      leave a residual. Weights go with the gradients' size to the power of -2 alpha / (1 + alpha):
      they may overflow where the direction does not.

    Example:
      >>> import jax.numpy as jnp
      >>> _, weights = fairgrad(jnp.array([[2.0, 0.0], [0.0, 1.0]]), alpha=2.0)
      >>> [round(x, 4) for x in weights.tolist()]  # 4 w = w^(-1/2)
      [0.3969, 1.0]

    Evidence: authors' code.

    References:
      "Fair Resource Allocation in Multi-Task Learning", ICML 2024, arXiv 2402.15638. Numbers:
      LibMTL (median-research-group/LibMTL).
    """
    name = "fairgrad"
    del key
    grads = gram.check_grads(name, grads)
    return _fairgrad(grads, checks.number(name, "alpha", alpha, low=0.0, open_low=True))


@jax.jit
def _nash_mtl(grads, max_norm):
    matrix, unit = gram.gram(grads)
    cosines, inverse = gram.cosines(matrix)
    one = jnp.ones([], matrix.dtype)
    b = _balanced(cosines, jnp.ones_like(inverse), inverse > 0, one)
    length = jnp.sqrt(jnp.maximum(b @ cosines @ b, 0.0))
    limit = jnp.asarray(max_norm, matrix.dtype)
    clip = jnp.where((limit > 0) & (length > limit), limit / jnp.where(length > 0, length, 1), one)
    weights = clip * b * inverse / unit
    return gram.combine(grads, weights), weights


@jax.jit
def _fairgrad(grads, alpha):
    matrix, unit = gram.gram(grads)
    cosines, inverse = gram.cosines(matrix)
    power = 1.0 / jnp.asarray(alpha, matrix.dtype)
    # With w_t = b_t / ||g_t|| the lengths move to the right side: (C b)_t = pull_t b_t^-power.
    lengths = jnp.where(inverse > 0, 1.0 / jnp.where(inverse > 0, inverse, 1.0), 1.0)
    # And with b = s b', s^(1 + power) = unit^(power - 1), so does what all share.
    b = _balanced(cosines, lengths ** (power - 1.0), inverse > 0, power)
    shared = unit ** ((power - 1.0) / (1.0 + power))
    weights = shared * b * inverse
    # Weights of gradients divided by unit: those of the gradients themselves may overflow.
    scaled = jax.tree.map(lambda x: x.astype(weights.dtype) / unit, grads)
    direction = jax.tree.map(lambda d, x: d.astype(x.dtype), gram.combine(scaled, weights), grads)
    return direction, weights / unit


def _balanced(cosines, pull, there, power):
    """b > 0 with (C b)_t = pull_t b_t^-power for the tasks that are there, 0 for the others.

    It is the minimum of f(b) = b^T C b / 2 - sum of pull_t b_t^(1 - power) / (1 - power), which is
    convex; for power = 1 the last term is a logarithm.
    """
    exponent = 1.0 - power
    plain = jnp.abs(exponent) < 1e-6

    def value(b):
        log_b = jnp.log(b)
        gain = jnp.where(plain, log_b, jnp.expm1(exponent * log_b) / jnp.where(plain, 1, exponent))
        return 0.5 * b @ cosines @ b - jnp.sum(jnp.where(there, pull * gain, 0.0))

    def step(_, b):
        push = pull * b**-power
        slope = jnp.where(there, cosines @ b - push, 0.0)
        bend = jnp.where(there, power * push / b, 1.0)
        move = -jnp.linalg.solve(cosines + jnp.diag(bend), slope)
        falling = move < 0
        room = jnp.min(jnp.where(falling, -b / jnp.where(falling, move, -1.0), jnp.inf))
        lengths = jnp.minimum(1.0, 0.95 * room) * 0.5 ** jnp.arange(HALVINGS, dtype=b.dtype)
        tried = b[None, :] + lengths[:, None] * move[None, :]
        values = jax.vmap(value)(tried)
        best = tried[jnp.argmin(jnp.where(jnp.isnan(values), jnp.inf, values))]
        # In the end values differ by rounding alone: the full Newton step is right there.
        small = jnp.max(jnp.abs(move) / b) < 1e-2
        new = jnp.where(small, b + move, best)
        return jnp.where(jnp.all(jnp.isfinite(new) & (new > 0)), new, b)

    start = jnp.where(there, pull ** (1.0 / (1.0 + power)), 1.0)
    b = jax.lax.fori_loop(0, STEPS, step, start)
    return jnp.where(there, b, 0.0)
