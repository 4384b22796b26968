# SPDX-License-Identifier: Apache-2.0
"""STCH: a smooth maximum of the losses, each relative to where it stood early in training.

"Smooth Tchebycheff Scalarization for Multi-Objective Optimization". Reach for it where the worst
task counts; unlike weighted sums it reaches every point of a Pareto front that is not convex.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from xloss import checks, numerics
from xloss.optim.weighting.losses import check_losses
from xloss.typing import Array


def stch(
    losses: ArrayLike, *, nadir: ArrayLike, mu: ArrayLike = 1.0, eps: ArrayLike = 1e-20
) -> Array:
    """T times the smooth maximum of the log losses.

    Definition::

        T mu logsumexp over t of log(L_t / z_t + eps) / mu

    mu to 0 gives T times the maximum of log(L_t / z_t); mu = 1 the log of a sum.

    Args:
      losses: L [T] >= 0, any float dtype.
      nadir: z [T] > 0: the mean losses of the last epoch of a warm-up (LibMTL: the fourth), during
        which :func:`log_losses` is minimised.
      mu: scalar > 0, traced; how smooth the maximum is.
      eps: scalar >= 0, what stands beside a loss of 0.

    Returns:
      Scalar objective, float32 (float64 if either is), in nats.

    Raises:
      TypeError: wrong dtypes.
      ValueError: losses that are not [T], nadir of another shape, mu <= 0, eps < 0.

    Numerics:
      Losses below 1e-20 of their nadir have a gradient of up to 1e20. With eps = 0 a loss of 0 has
      the gradient NaN.

    Example:
      >>> import jax.numpy as jnp
      >>> round(float(stch(jnp.array([1.0, 2.0]), nadir=jnp.array([2.0, 2.0]), mu=0.01)), 4)
      0.0

    Evidence: authors' code.

    References:
      "Smooth Tchebycheff Scalarization for Multi-Objective Optimization", ICML 2024, arXiv
      2402.19078. Numbers: LibMTL (median-research-group/LibMTL), whose gradients these are; its
      reported value lacks T times the greatest term.
    """
    name = "stch"
    losses, nadir = check_losses(name, losses, nadir=nadir)
    mu = checks.number(name, "mu", mu, low=0.0, open_low=True)
    return _stch(losses, nadir, mu, checks.number(name, "eps", eps, low=0.0))


def log_losses(losses: ArrayLike, *, eps: ArrayLike = 1e-20) -> Array:
    """The sum of the logarithms: what STCH minimises while it warms up.

    Definition::

        sum over t of log(L_t + eps),   weight of task t: 1 / (L_t + eps)

    Args:
      losses: L [T] >= 0, any float dtype.
      eps: scalar >= 0, what stands beside a loss of 0.

    Returns:
      Scalar objective, float32 (float64), in nats.

    Raises:
      TypeError: wrong dtype.
      ValueError: losses that are not [T], eps < 0.

    Numerics:
      As :func:`stch`. It is T times the logarithm of :func:`gls`: the same direction, of a length
      that does not fall with the losses.

    Example:
      >>> import jax.numpy as jnp
      >>> round(float(log_losses(jnp.array([1.0, 2.0]))), 4)
      0.6931

    Evidence: authors' code.

    References:
      "Smooth Tchebycheff Scalarization for Multi-Objective Optimization", ICML 2024, arXiv
      2402.19078. Numbers: LibMTL (median-research-group/LibMTL).
    """
    name = "log_losses"
    (losses,) = check_losses(name, losses)
    return _log_losses(losses, checks.number(name, "eps", eps, low=0.0))


@jax.jit
def _stch(losses, nadir, mu, eps):
    mu = numerics.scalar(mu, losses)
    terms = jnp.log(losses / nadir + numerics.scalar(eps, losses)) / mu
    return losses.size * mu * jax.nn.logsumexp(terms)


@jax.jit
def _log_losses(losses, eps):
    return jnp.sum(jnp.log(losses + numerics.scalar(eps, losses)))
