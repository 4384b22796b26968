# SPDX-License-Identifier: Apache-2.0
"""MGDA: the shortest vector in the convex hull of the task gradients.

"Multi-Task Learning as Multi-Objective Optimization". Reach for it to decrease all losses at once;
it follows the smallest gradient, so tasks of different scale want a normalization.
"""

import functools

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from xloss import checks
from xloss.optim.aggregators import gram, simplex
from xloss.typing import Array, PRNGKey, PyTree

NORMALIZATIONS = ("none", "l2", "loss", "loss+")


def mgda(
    grads: PyTree,
    *,
    normalization: str = "none",
    losses: ArrayLike | None = None,
    key: PRNGKey | None = None,
) -> tuple[PyTree, Array]:
    """The min-norm point of the convex hull of the (normalised) task gradients.

    Definition, with s_t the scale that ``normalization`` names::

        none 1     l2 ||g_t||     loss L_t     loss+ L_t ||g_t||
        w = argmin over w >= 0, sum w = 1 of || sum over t of w_t g_t / s_t ||
        d = sum over t of w_t g_t / s_t

    A step along -d decreases every (normalised) loss: d . g_t / s_t >= ||d||^2, with equality for
    the tasks of positive weight. d = 0 at a Pareto-stationary point.

    Args:
      grads: tree of float arrays [T, ...], the tasks first.
      normalization: "none", "l2", "loss" or "loss+"; static.
      losses: L [T] > 0, read by "loss" and "loss+" only.
      key: not used.

    Returns:
      (direction, weights): the tree without its task axis, in the dtypes of ``grads``, and w_t /
      s_t [T], float32 (float64 beside float64 gradients).

    Raises:
      TypeError: wrong dtypes; losses missing where they are needed.
      ValueError: leaves without a common task axis, losses that are not [T], an unknown
        normalization.

    Numerics:
      The weights are those of the inner products in float32 (float64), by an interior-point
      method of a fixed number of steps that is exact to rounding for any T; where they are not
      unique (equal gradients, or more tasks than dimensions) the analytic centre is taken. A task
      of gradient 0 makes d = 0 under "none", and has no direction under "l2": it then counts as a
      zero vector, with the same result. Losses of 0 count likewise.

    Example:
      >>> import jax.numpy as jnp
      >>> direction, weights = mgda(jnp.array([[1.0, 0.0], [0.0, 2.0]]))
      >>> [round(x, 4) for x in weights.tolist()], [round(x, 4) for x in direction.tolist()]
      ([0.8, 0.2], [0.8, 0.4])

    Evidence: authors' code.

    References:
      "Multi-Task Learning as Multi-Objective Optimization", NeurIPS 2018, arXiv 1810.04650.
      Numbers: LibMTL (median-research-group/LibMTL) and exact solutions. Departures: LibMTL holds
      the weights of two tasks in [.001, .999] and stops at 1e-5 for more; here they are exact.
    """
    name = "mgda"
    del key
    grads = gram.check_grads(name, grads)
    checks.choice(name, "normalization", normalization, NORMALIZATIONS)
    if normalization.startswith("loss"):
        if losses is None:
            raise TypeError(f"{name}: expected losses [T] with {normalization=}, got None")
        losses = checks.floating(name, "losses", losses)
        checks.same_shape(name, "losses", losses, (gram.num_tasks(grads),))
    else:
        losses = None
    return _mgda(grads, losses, normalization=normalization)


@functools.partial(jax.jit, static_argnames="normalization")
def _mgda(grads, losses, *, normalization):
    matrix, unit = gram.gram(grads)
    # Of the gradients divided by `unit`; the minimiser does not see a common factor.
    lengths = jnp.sqrt(jnp.diagonal(matrix))
    ones = jnp.ones_like(lengths)
    scales = ones if losses is None else losses.astype(matrix.dtype)
    if normalization in ("l2", "loss+"):
        scales = scales * lengths
    inverse = jnp.where(scales == 0, jnp.zeros_like(ones), 1 / jnp.where(scales == 0, 1, scales))
    matrix = matrix * inverse[:, None] * inverse[None, :]
    matrix = matrix / gram.mean_square(matrix)

    def derivatives(w):
        return matrix @ w, matrix, jnp.diagonal(matrix)

    weights = simplex.minimise(derivatives, ones / ones.size) * inverse
    if normalization in ("l2", "loss+"):
        weights = weights / unit
    return gram.combine(grads, weights), weights
