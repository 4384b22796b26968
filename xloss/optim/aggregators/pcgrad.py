# SPDX-License-Identifier: Apache-2.0
"""PCGrad: each task gradient loses what points against another task, then all are summed.

"Gradient Surgery for Multi-Task Learning". Reach for it when task gradients conflict (negative
cosines) and differ in size, so that the larger one undoes the smaller one's progress.
"""

import functools

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from xloss import checks
from xloss.optim.aggregators import gram
from xloss.typing import Array, PRNGKey, PyTree

REDUCTIONS = ("sum", "mean")


def pcgrad(
    grads: PyTree,
    *,
    key: PRNGKey | None = None,
    order: ArrayLike | None = None,
    reduction: str = "sum",
    eps: ArrayLike = 1e-8,
) -> tuple[PyTree, Array]:
    """The sum of the task gradients after projecting conflicts away.

    Definition::

        p_i = g_i; then for j in order[i], one after another:
            p_i <- p_i - (p_i . g_j) / (||g_j||^2 + eps) g_j     if p_i . g_j < 0
        d = sum over i of p_i

    g_j is the original gradient of task j, p_i the running one, so the order matters from three
    tasks on: the method draws it at random, for every i and every step.

    Args:
      grads: tree of float arrays [T, ...], the tasks first.
      key: PRNG key from which the order is drawn, a fresh one for every step.
      order: integer [T, J], instead of ``key``: row i are the tasks against which g_i is projected.
        i itself may stand there (it does in the authors' code); what is outside [0, T) is skipped.
      reduction: "sum", or "mean": divided by T; static.
      eps: scalar >= 0, in the unit of a squared gradient; where gradients are tiny it weakens the
        projection, 0 does not.

    Returns:
      (direction, weights): the tree without its task axis, in the dtypes of ``grads``, and its
      coefficients [T], float32 (float64 beside float64 gradients).

    Raises:
      TypeError: neither key nor order, or both; wrong dtypes.
      ValueError: leaves without a common task axis, an order that is not [T, J], an unknown
        reduction, eps < 0.

    Numerics:
      Runs on the inner products, T^3 operations beside them, without a second pass over the
      gradients. A zero gradient neither projects nor is projected, for eps = 0 too.

    Example:
      >>> import jax.numpy as jnp
      >>> grads = jnp.array([[1.0, 0.0], [-1.0, 1.0]])
      >>> direction, _ = pcgrad(grads, order=jnp.array([[1], [0]]), eps=0.0)
      >>> direction.tolist()
      [0.5, 1.5]

    Evidence: authors' code.

    References:
      "Gradient Surgery for Multi-Task Learning", NeurIPS 2020, arXiv 2001.06782. Numbers: LibMTL
      (median-research-group/LibMTL), whose eps is the default here.
    """
    name = "pcgrad"
    grads = gram.check_grads(name, grads)
    tasks = gram.num_tasks(grads)
    checks.choice(name, "reduction", reduction, REDUCTIONS)
    eps = checks.number(name, "eps", eps, low=0.0)
    if (key is None) == (order is None):
        raise TypeError(
            f"{name}: expected a key, from which to draw the order, or the order itself, got "
            f"{'neither' if key is None else 'both'}"
        )
    if order is None:
        return _pcgrad_drawn(grads, key, eps, mean=reduction == "mean")
    order = checks.integer(name, "order", order)
    if order.ndim != 2 or order.shape[0] != tasks:
        raise ValueError(f"{name}: expected order of shape ({tasks}, J), got {order.shape}")
    return _pcgrad(grads, order, eps, mean=reduction == "mean")


@functools.partial(jax.jit, static_argnames="mean")
def _pcgrad_drawn(grads, key, eps, *, mean):
    tasks = gram.num_tasks(grads)
    keys = jax.random.split(key, tasks)
    order = jax.vmap(lambda k: jax.random.permutation(k, tasks))(keys)
    return _pcgrad(grads, order, eps, mean=mean)


@functools.partial(jax.jit, static_argnames="mean")
def _pcgrad(grads, order, eps, *, mean):
    matrix, unit = gram.gram(grads)
    # eps is in the unit of the gradients, whose square may underflow: not even 0 is divided by it.
    eps = jnp.asarray(eps, matrix.dtype)
    squares = jnp.diagonal(matrix) + jnp.where(eps == 0, eps, eps / unit / unit)
    inverse = jnp.where(squares == 0, 0, 1 / jnp.where(squares == 0, 1, squares))

    def project(parts, against):
        """Row i of parts are the coefficients of p_i in the gradients; against holds its j."""
        chosen = jax.nn.one_hot(against, matrix.shape[0], dtype=matrix.dtype)
        product = jnp.sum((parts @ matrix) * chosen, axis=1)
        step = jnp.minimum(product, 0) * (chosen @ inverse)
        return parts - step[:, None] * chosen, None

    start = jnp.eye(matrix.shape[0], dtype=matrix.dtype)
    parts, _ = jax.lax.scan(project, start, order.T)
    weights = (jnp.mean if mean else jnp.sum)(parts, axis=0)
    return gram.combine(grads, weights), weights
