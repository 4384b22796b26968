# SPDX-License-Identifier: Apache-2.0
"""CAGrad: near the mean gradient, the direction that serves the worst-off task best.

"Conflict-Averse Gradient Descent for Multi-task Learning". Reach for it to keep converging to the
minimum of the mean loss (c < 1) while no task is left behind on the way.
"""

import functools

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from xloss import checks
from xloss.optim.aggregators import gram, simplex
from xloss.typing import Array, PRNGKey, PyTree

#: What d is divided by.
RESCALES = (0, 1, 2)

#: Steps of the interior-point method; float64 is at rounding after about 25.
STEPS = 40


def cagrad(
    grads: PyTree,
    *,
    c: ArrayLike = 0.4,
    rescale: int = 1,
    eps: ArrayLike = 0.0,
    key: PRNGKey | None = None,
) -> tuple[PyTree, Array]:
    """The direction within c ||g0|| of the mean gradient g0 that is best for the worst task.

    Definition, with g0 = mean over t of g_t and g_w = sum over t of w_t g_t::

        d = argmax over ||d - g0|| <= c ||g0|| of min over t of d . g_t
          = g0 + c ||g0|| g_w / ||g_w||,
        w = argmin over w >= 0, sum w = 1 of g_w . g0 + c ||g0|| ||g_w||
        rescale 0: d     1: d / (1 + c^2)     2: d / (1 + c)

    Args:
      grads: tree of float arrays [T, ...], the tasks first.
      c: radius in units of ||g0||, scalar in [0, 1], traced; 0 is the mean gradient, 0.4 the
        paper's value on NYUv2.
      rescale: 0, 1 or 2; static.
      eps: scalar >= 0, added to the squares under both roots (||g0||, ||g_w||), to the radius and
        to ||g_w|| as a divisor: the authors' code has 1e-8, which outgrows small gradients; the
        paper and xloss have 0.
      key: not used.

    Returns:
      (direction, weights): the tree without its task axis, in the dtypes of ``grads``, and its
      coefficients 1 / T + c ||g0|| w_t / ||g_w||, rescaled, [T], float32 (float64 beside float64
      gradients).

    Raises:
      TypeError: wrong dtypes.
      ValueError: leaves without a common task axis, c outside [0, 1], an unknown rescale.

    Numerics:
      Solved on the inner products divided by their mean diagonal, in float32 (float64), by an
      interior-point method of a fixed number of steps, for the direction itself: where the optimal
      g_w is 0 and g_w / ||g_w|| means nothing, d is still optimal. g0 = 0 gives d = 0. Gradients
      of any scale, and of different scales, are solved alike.

    Example:
      >>> import jax.numpy as jnp
      >>> direction, _ = cagrad(jnp.array([[2.0, 0.0], [-1.0, 1.0]]), c=0.5, rescale=0)
      >>> [round(x, 3) for x in direction.tolist()]
      [0.251, 0.751]

    Evidence: authors' code.

    References:
      "Conflict-Averse Gradient Descent for Multi-task Learning", NeurIPS 2021, arXiv 2110.14048.
      Numbers: LibMTL (median-research-group/LibMTL) and exact solutions. Departures: their eps is 0
      here; on badly scaled gradients their solver stops at uniform weights, here the weights are
      those of the definition.
    """
    name = "cagrad"
    del key
    grads = gram.check_grads(name, grads)
    c = checks.number(name, "c", c, low=0.0, high=1.0)
    eps = checks.number(name, "eps", eps, low=0.0)
    if isinstance(rescale, bool) or rescale not in RESCALES:
        raise ValueError(f"{name}: expected rescale to be one of {RESCALES}, got {rescale!r}")
    return _cagrad(grads, c, eps, rescale=rescale)


@functools.partial(jax.jit, static_argnames="rescale")
def _cagrad(grads, c, eps, *, rescale):
    products, unit = gram.gram(grads)
    size = gram.mean_square(products)
    matrix = products / size
    tasks, dtype = matrix.shape[0], matrix.dtype
    c, zero = jnp.asarray(c, dtype), jnp.zeros([], dtype)
    # eps is in the unit of the gradients, whose square may underflow: not even 0 is divided by it.
    eps, largest = jnp.asarray(eps, dtype), unit * jnp.sqrt(size)
    extra = jnp.where(eps == 0, eps, eps / largest)
    eps = jnp.where(eps == 0, eps, extra / largest)
    along_mean = jnp.mean(matrix, axis=1)
    # Rounding may leave the square of a vanishing mean just below 0.
    mean_norm = jnp.sqrt(jnp.maximum(jnp.mean(along_mean), zero) + eps)
    radius = c * mean_norm + extra
    # In units of ||g0||, so that a small mean gradient is solved as well as a large one.
    shrink = jnp.where(mean_norm == 0, jnp.ones_like(c), mean_norm)
    ball = jnp.where(radius == 0, jnp.full_like(c, 0.5), radius / shrink)

    # Rows of coordinates with the same inner products, each task relative to its own length.
    lengths = jnp.sqrt(jnp.diagonal(matrix))
    cosines, inverse = gram.cosines(matrix)
    values, vectors = jnp.linalg.eigh(cosines)
    kept = values > gram.rounding(matrix) * values[-1]
    roots = jnp.sqrt(jnp.where(kept, values, zero))
    rows = lengths[:, None] * vectors * roots[None, :]
    # eps under the root of ||g_w|| is one coordinate more, in which all tasks agree.
    rows = jnp.concatenate([rows, jnp.broadcast_to(jnp.sqrt(eps), (tasks, 1))], axis=1)

    u = _best_in_ball(rows, along_mean / shrink, ball)
    u, shared = u[:-1], u[-1]
    # u is g_w / sqrt(||g_w||^2 + eps), wanted is g_w / (||g_w|| + eps).
    root = jnp.sqrt(eps)
    u = u * jnp.where(root == 0, 1, ball * root / (root * jnp.linalg.norm(u) + extra * shared))
    pull = inverse * (vectors @ jnp.where(kept, u / jnp.where(kept, roots, 1), zero))
    weights = 1 / tasks + jnp.where(radius == 0, zero, mean_norm * pull)
    weights = weights / {0: jnp.ones_like(c), 1: 1 + jnp.square(c), 2: 1 + c}[rescale]
    return gram.combine(grads, weights), weights


def _best_in_ball(rows, offsets, radius):
    """argmax over ||u|| <= radius of min over t of offsets_t + rows_t . u, by interior point."""
    tasks, dtype = offsets.size, offsets.dtype
    limits = jnp.finfo(dtype)
    floor = jnp.asarray(float(limits.tiny) ** 0.5, dtype)
    jitter = jnp.asarray(10 * tasks * float(limits.eps), dtype)
    planes = jnp.concatenate([rows, -jnp.ones([tasks, 1], dtype)], axis=1)
    worst = jnp.zeros([planes.shape[1]], dtype).at[-1].set(1)
    ball = jnp.square(radius)

    def step(_, carry):
        x, slack, weights, bound = carry
        u = x.at[-1].set(0)
        room = jnp.maximum(ball - jnp.dot(u, u), limits.eps * ball) / 2
        residual = bound * u - planes.T @ weights - worst
        ratio = weights / slack
        hessian = planes.T @ (ratio[:, None] * planes) + bound * jnp.diag(1 - worst)
        hessian = hessian + bound / room * u[:, None] * u[None, :]
        hessian = hessian + jitter * jnp.diag(jnp.diagonal(hessian))
        factor = jax.scipy.linalg.cho_factor(hessian, lower=True)

        def direction(pairs, pair):
            right = planes.T @ (pairs / slack) - residual - u * pair / room
            move = jax.scipy.linalg.cho_solve(factor, right)
            slack_move, room_move = planes @ move, -jnp.dot(u, move)
            weights_move = (pairs - weights * slack_move) / slack
            return move, slack_move, weights_move, room_move, (pair - bound * room_move) / room

        def furthest(moves):
            old = jnp.concatenate([slack, weights, bound[None]])
            new = jnp.concatenate([moves[1], moves[2], moves[4][None]])
            along = moves[0].at[-1].set(0)
            a, b = jnp.dot(along, along), jnp.dot(along, u)
            exit_ = 2 * room / (b + jnp.sqrt(jnp.square(b) + 2 * a * room) + limits.tiny)
            return jnp.minimum(0.955 * simplex.reach(old, new), 0.95 * exit_)

        gap = (jnp.dot(slack, weights) + room * bound) / (tasks + 1)
        ahead = furthest(direction(-slack * weights, -room * bound))
        # Never all the way, and no second-order terms: the ball is curved, and an iterate that
        # lands at its edge with the planes still far is stuck there.
        target = gap * jnp.maximum((1 - ahead) ** 3, 0.02)
        moves = direction(target - slack * weights, target - room * bound)
        ahead = furthest(moves)
        return simplex.unless_broken(
            carry,
            (
                x + ahead * moves[0],
                jnp.maximum(slack + ahead * moves[1], floor),
                jnp.maximum(weights + ahead * moves[2], floor),
                jnp.maximum(bound + ahead * moves[4], floor),
            ),
        )

    start = worst * (jnp.min(offsets) - 1)
    weights = jnp.full([tasks], 1 / tasks, dtype)
    slack = offsets - start[-1]
    bound = 2 * jnp.dot(slack, weights) / (tasks * ball)
    carry = (start, slack, weights, bound)
    x, *_ = jax.lax.fori_loop(0, STEPS, step, carry)
    return x[:-1]
