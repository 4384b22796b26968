# SPDX-License-Identifier: Apache-2.0
"""UPGrad: the mean of the gradients, each projected to where it hurts no task.

"Jacobian Descent for Multi-Objective Optimization". Reach for it where no loss may rise (to first
order) and, unlike with MGDA, large gradients should keep their weight.
"""

import jax
import jax.numpy as jnp

from xloss.optim.aggregators import gram
from xloss.optim.aggregators.simplex import reach, unless_broken
from xloss.typing import Array, PRNGKey, PyTree

#: Interior-point steps; float64 is at rounding after about 20.
STEPS = 40


def upgrad(grads: PyTree, *, key: PRNGKey | None = None) -> tuple[PyTree, Array]:
    """The mean of the projections of the gradients onto their dual cone.

    Definition::

        d = mean over t of P(g_t),   P(g) = argmin over x of || x - g ||, x . g_s >= 0 for all s

    so that d . g_s >= 0 for every s. Without conflicts P(g_t) = g_t and d is the mean.

    Args:
      grads: tree of float arrays [T, ...], the tasks first.
      key: not used.

    Returns:
      (direction, weights): the tree without its task axis, in the dtypes of ``grads``, and its
      coefficients [T] >= 1/T, float32 (float64 beside float64 gradients).

    Raises:
      TypeError: wrong dtypes.
      ValueError: leaves without a common task axis.

    Numerics:
      P(g_t) = g_t + sum over s of x_s g_s with x >= 0 of the least length: T quadratic programs of
      T numbers on the cosines, by an interior-point method of a fixed number of steps, together.
      The reference adds 1e-4 to the diagonal; here it is rounding, so d . g_s falls below 0 by
      rounding alone. A gradient of 0 takes no part, one that is 1e-20 times as long as another
      does. Of opposite gradients nothing is left. NaN in a gradient gives NaN weights.

    Example:
      >>> import jax.numpy as jnp
      >>> direction, _ = upgrad(jnp.array([[1.0, 0.0], [-1.0, 1.0]]))
      >>> [round(x, 4) for x in direction.tolist()]  # P: (1/2, 1/2) and (0, 1)
      [0.25, 0.75]

    Evidence: published formula, derived and checked.

    References:
      "Jacobian Descent for Multi-Objective Optimization", arXiv 2406.16232. Authors' code:
      TorchJD/torchjd.
    """
    del key
    return _upgrad(gram.check_grads("upgrad", grads))


@jax.jit
def _upgrad(grads):
    matrix, scales = gram.by_task(grads)
    cosines, inverse = gram.cosines(matrix)
    there = inverse != 0  # NaN is there
    # A task without gradient gets a 1 on the diagonal and no pull: its x is 0.
    filled = cosines + jnp.diag(jnp.where(there, 0.0, 1.0))
    found = jax.vmap(lambda pull: _least(filled, pull))(cosines)
    # Coefficients of the unit vectors: row t projects g_t / ||g_t||. A coefficient that no float
    # holds is held below the greatest, with room for the sum.
    most = 1e-10 * float(jnp.finfo(matrix.dtype).max)
    ratios = jnp.minimum(gram.length_ratios(matrix, scales), most)
    total = jnp.ones_like(inverse) + jnp.sum(ratios * found, axis=0)
    weights = jnp.where(there, total, 1.0) / inverse.size
    return gram.combine(grads, weights), weights


def _least(matrix: Array, pull: Array) -> Array:
    """argmin over x >= 0 of x^T M x / 2 + pull . x, M [T, T] with ones on the diagonal.

    Mehrotra's predictor and corrector. M may be singular, and the minimisers then reach to
    infinity; the ridge of rounding's size keeps them near.
    """
    size, dtype = pull.size, matrix.dtype
    floor = jnp.asarray(float(jnp.finfo(dtype).tiny) ** 0.5, dtype)
    ridge = gram.rounding(matrix) * jnp.eye(size, dtype=dtype)

    def step(_, carry):
        x, slack = carry
        ratio = slack / x
        factor = jax.scipy.linalg.cho_factor(matrix + ridge + jnp.diag(ratio), lower=True)
        residual = matrix @ x + ridge @ x + pull - slack

        def direction(complementarity):
            move = jax.scipy.linalg.cho_solve(factor, complementarity / x - residual - slack)
            return move, complementarity / x - slack - ratio * move

        gap = jnp.dot(x, slack) / size
        move, slack_move = direction(jnp.zeros_like(x))
        ahead, slack_ahead = reach(x, move), reach(slack, slack_move)
        predicted = jnp.dot(x + ahead * move, slack + slack_ahead * slack_move) / size
        target = gap * (predicted / gap) ** 3
        move, slack_move = direction(target - move * slack_move)
        length = jnp.minimum(reach(x, move), reach(slack, slack_move))
        x = jnp.maximum(x + length * move, floor)
        return unless_broken(carry, (x, jnp.maximum(slack + length * slack_move, floor)))

    one = jnp.ones_like(pull)
    x, _ = jax.lax.fori_loop(0, STEPS, step, (one, one))
    return x
