# SPDX-License-Identifier: Apache-2.0
"""DB-MTL: gradients of the LOG losses, averaged over steps, all brought to the greatest length.

"Dual-Balancing for Multi-Task Learning". Reach for it where losses differ in unit (the logarithm
takes that away) and gradients in length (so does the rescaling).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from xloss import checks
from xloss.optim import trees
from xloss.optim.aggregators import gram
from xloss.typing import Array, PRNGKey, PyTree


class DbMtlState(NamedTuple):
    """What :func:`db_mtl_average` carries from step to step.

    Attributes:
      count: steps taken, int32 scalar.
      average: of the gradients of the log losses, [T, ...], float32 (float64).
    """

    count: Array
    average: PyTree


def db_mtl(
    grads: PyTree,
    *,
    losses: ArrayLike | None = None,
    eps: ArrayLike = 1e-8,
    key: PRNGKey | None = None,
) -> tuple[PyTree, Array]:
    """The sum of the gradients, every one as long as the longest.

    Definition, with h_t = g_t / (L_t + eps), the gradient of log(L_t + eps); without losses h = g::

        d = sum over t of h_t max_u ||h_u|| / (||h_t|| + eps)

    Args:
      grads: tree of float arrays [T, ...], the tasks first: gradients of the losses, or without
        ``losses`` those of the log losses, such as :func:`db_mtl_average` returns.
      losses: L [T] > 0.
      eps: scalar >= 0, traced.
      key: not used.

    Returns:
      (direction, weights): the tree without its task axis, in the dtypes of ``grads``, and the
      coefficients of ``grads`` [T], float32 (float64 beside float64 gradients).

    Raises:
      TypeError: wrong dtypes.
      ValueError: leaves without a common task axis, losses that are not [T], eps < 0.

    Numerics:
      A gradient of 0 takes no part. One that is shorter than eps is not brought to full length.
      NaN in a gradient gives NaN weights.

    Example:
      >>> import jax.numpy as jnp
      >>> direction, _ = db_mtl(jnp.array([[4.0, 0.0], [0.0, 1.0]]), eps=0.0)
      >>> direction.tolist()
      [4.0, 4.0]

    Evidence: authors' code.

    References:
      "Dual-Balancing for Multi-Task Learning", arXiv 2308.12029. Numbers: LibMTL
      (median-research-group/LibMTL).
    """
    name = "db_mtl"
    del key
    grads = gram.check_grads(name, grads)
    losses = None if losses is None else _losses(name, losses, grads)
    return _db_mtl(grads, losses, checks.number(name, "eps", eps, low=0.0))


def db_mtl_init(grads: PyTree) -> DbMtlState:
    """The state before the first step.

    Definition::

        average = 0

    Args:
      grads: tree of arrays [T, ...], or of anything with shapes and dtypes, like those to come.

    Returns:
      The state of step 0.

    Raises:
      ValueError: leaves without a common task axis.

    Numerics:
      The average is float32 (float64 if a leaf is) whatever the other leaves' dtypes.

    Example:
      >>> import jax.numpy as jnp
      >>> db_mtl_init(jnp.ones([2, 3])).average.shape
      (2, 3)

    Evidence: authors' code.

    References:
      "Dual-Balancing for Multi-Task Learning", arXiv 2308.12029.
    """
    gram.check_task_axis("db_mtl_init", grads)
    dtype = trees.dtype_of(grads)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, dtype), grads)
    return DbMtlState(jnp.zeros([], jnp.int32), zeros)


def db_mtl_average(
    grads: PyTree,
    losses: ArrayLike,
    state: DbMtlState,
    *,
    beta: ArrayLike = 0.9,
    beta_sigma: ArrayLike = 0.5,
    eps: ArrayLike = 1e-8,
) -> tuple[PyTree, DbMtlState]:
    """A moving average of the gradients of the log losses, that forgets faster and faster.

    Definition, at step k = 1, 2, ..., with h_t = g_t / (L_t + eps)::

        average <- h + (beta / k^beta_sigma) (average - h)

    ``db_mtl`` of the result is the method's direction.

    Args:
      grads: tree of float arrays [T, ...], the tasks first: gradients of the losses.
      losses: L [T] > 0, of the same batch.
      state: of :func:`db_mtl_init` or of the last step.
      beta: scalar in [0, 1], traced; 0 averages nothing.
      beta_sigma: scalar >= 0, traced; 0 keeps the weight of the past at beta.
      eps: scalar >= 0, traced.

    Returns:
      (average, state): the tree in the dtypes of ``grads``, and the new state.

    Raises:
      TypeError: wrong dtypes.
      ValueError: leaves without a common task axis, losses that are not [T], a state of other
        shapes, numbers out of range.

    Numerics:
      The average is held in float32 (float64): T copies of the shared parameters.

    Example:
      >>> import jax.numpy as jnp
      >>> grads = jnp.array([[4.0], [1.0]])
      >>> average, state = db_mtl_average(
      ...     grads, jnp.array([2.0, 1.0]), db_mtl_init(grads), beta=0.5, eps=0.0
      ... )
      >>> average.tolist(), int(state.count)
      ([[1.0], [0.5]], 1)

    Evidence: authors' code.

    References:
      "Dual-Balancing for Multi-Task Learning", arXiv 2308.12029. Numbers: LibMTL
      (median-research-group/LibMTL).
    """
    name = "db_mtl_average"
    grads = gram.check_grads(name, grads)
    losses = _losses(name, losses, grads)
    if jax.tree.structure(grads) != jax.tree.structure(state.average):
        raise ValueError(f"{name}: expected a state in the structure of grads, got another")
    for a, g in zip(jax.tree.leaves(state.average), jax.tree.leaves(grads), strict=True):
        checks.same_shape(name, "state.average", a, g.shape)
    beta = checks.number(name, "beta", beta, low=0.0, high=1.0)
    sigma = checks.number(name, "beta_sigma", beta_sigma, low=0.0)
    return _average(grads, losses, state, beta, sigma, checks.number(name, "eps", eps, low=0.0))


def _losses(name: str, losses: ArrayLike, grads: PyTree) -> Array:
    losses = checks.floating(name, "losses", losses)
    checks.same_shape(name, "losses", losses, (gram.num_tasks(grads),))
    return losses


@jax.jit
def _db_mtl(grads, losses, eps):
    matrix, scales = gram.by_task(grads)
    eps = jnp.asarray(eps, matrix.dtype)
    of_log = 1.0 if losses is None else 1.0 / (losses.astype(matrix.dtype) + eps)
    lengths = jnp.sqrt(jnp.diagonal(matrix)) * scales * of_log
    reach = lengths + eps
    weights = of_log * jnp.max(lengths) / jnp.where(reach == 0, 1.0, reach)
    weights = jnp.where(lengths == 0, 0.0, weights)
    return gram.combine(grads, weights), weights


@jax.jit
def _average(grads, losses, state, beta, sigma, eps):
    dtype = jax.tree.leaves(state.average)[0].dtype
    count = state.count + 1
    keep = jnp.asarray(beta, dtype) / count.astype(dtype) ** jnp.asarray(sigma, dtype)
    of_log = 1.0 / (losses.astype(dtype) + jnp.asarray(eps, dtype))

    def average(old, g):
        new = g.astype(dtype) * jnp.expand_dims(of_log, tuple(range(1, g.ndim)))
        return new + keep * (old - new)

    found = jax.tree.map(average, state.average, grads)
    return jax.tree.map(lambda a, g: a.astype(g.dtype), found, grads), DbMtlState(count, found)
