# SPDX-License-Identifier: Apache-2.0
"""FAMO: weights that let the logarithms of all losses fall at one rate, for one gradient a step.

"FAMO: Fast Adaptive Multitask Optimization". Reach for it where T gradients a step are too dear:
it sees from the losses alone which task a step helped least.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from xloss import checks, numerics
from xloss.optim.weighting.losses import check_losses
from xloss.typing import Array, PyTree

#: What stands beside a loss that has reached its minimum (the authors').
EPS = 1e-8


class FamoState(NamedTuple):
    """What FAMO carries from step to step.

    Attributes:
      logits: xi [T], of the tasks' shares softmax(xi).
      adam: moments of xi, of ``optax.scale_by_adam``.
    """

    logits: Array
    adam: PyTree


def famo_init(num_tasks: int, *, dtype: jnp.dtype = jnp.float32) -> FamoState:
    """Equal shares.

    Definition::

        xi = 0

    Args:
      num_tasks: T >= 1.
      dtype: of the logits, float32 or float64.

    Returns:
      The state of step 0.

    Raises:
      TypeError: another dtype.
      ValueError: num_tasks < 1.

    Numerics:
      :func:`famo` and :func:`famo_step` compute in the wider of the losses' and this dtype; the
      logits keep this one.

    Example:
      >>> famo_init(2).logits.tolist()
      [0.0, 0.0]

    Evidence: authors' code.

    References:
      "FAMO: Fast Adaptive Multitask Optimization", NeurIPS 2023, arXiv 2306.03792.
    """
    if isinstance(num_tasks, bool) or not isinstance(num_tasks, int) or num_tasks < 1:
        raise ValueError(f"famo_init: expected num_tasks an integer >= 1, got {num_tasks!r}")
    if jnp.dtype(dtype) not in (jnp.dtype(jnp.float32), jnp.dtype(jnp.float64)):
        raise TypeError(f"famo_init: expected dtype float32 or float64, got {dtype!r}")
    logits = jnp.zeros([num_tasks], dtype)
    return FamoState(logits, optax.scale_by_adam().init(logits))


def famo(losses: ArrayLike, state: FamoState, *, minima: ArrayLike = 0.0) -> Array:
    """The weighted losses, whose gradient moves the model.

    Definition::

        D = L - minima + 1e-8,   z = softmax(xi)
        sum over t of z_t log(D_t) / c,   c = sum over t of z_t / D_t, a constant

    so that the weights of the losses, z_t / D_t / c, sum to 1.

    Args:
      losses: L [T] >= minima, any float dtype.
      state: of :func:`famo_init`; a constant here.
      minima: what each loss can reach at best, a scalar or [T].

    Returns:
      Scalar objective, float32 (float64 if losses are).

    Raises:
      TypeError: wrong dtypes.
      ValueError: losses or minima that are not [T] of the state.

    Numerics:
      A loss below its minimum gives NaN.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> weights = jax.grad(famo)(jnp.array([1.0, 3.0]), famo_init(2))
      >>> [round(x, 4) for x in weights.tolist()]
      [0.75, 0.25]

    Evidence: authors' code.

    References:
      "FAMO: Fast Adaptive Multitask Optimization", NeurIPS 2023, arXiv 2306.03792. Numbers: LibMTL
      (median-research-group/LibMTL).
    """
    name = "famo"
    losses, minima, logits = check_losses(
        name, losses, minima=_minima(name, minima, "losses", losses), logits=state.logits
    )
    return _famo(losses, minima, logits)


def famo_step(
    state: FamoState,
    losses_before: ArrayLike,
    losses_after: ArrayLike,
    *,
    learning_rate: ArrayLike = 0.025,
    decay: ArrayLike = 1e-3,
    minima: ArrayLike = 0.0,
) -> FamoState:
    """The shares after a step of the model: more for the tasks that it helped least.

    Definition, with D and z of :func:`famo`::

        delta = log D(before) - log D(after)
        xi <- a step of Adam along J^T delta + decay xi,   J = d z / d xi

    Args:
      state: of :func:`famo_init` or the last step.
      losses_before: [T], those of :func:`famo`.
      losses_after: [T], of the SAME batch with the updated parameters (a forward pass more, dropout
        key included). The next batch's losses would measure the batches instead of the step.
      learning_rate: of xi, scalar > 0, traced.
      decay: gamma, scalar >= 0, traced: pulls the shares together.
      minima: as in :func:`famo`.

    Returns:
      The new state.

    Raises:
      TypeError: wrong dtypes.
      ValueError: losses that are not [T] of the state, numbers out of range.

    Numerics:
      The learning rate and the decay have the paper's defaults, of thousands of steps; Adam's steps
      are about learning_rate whatever the size of delta.

    Example:
      >>> import jax.numpy as jnp
      >>> state = famo_step(famo_init(2), jnp.array([1.0, 1.0]), jnp.array([0.5, 1.0]))
      >>> [round(x, 3) for x in state.logits.tolist()]  # the second task did not gain
      [-0.025, 0.025]

    Evidence: authors' code.

    References:
      "FAMO: Fast Adaptive Multitask Optimization", NeurIPS 2023, arXiv 2306.03792. Numbers: LibMTL
      (median-research-group/LibMTL), with torch's Adam and its decay inside the moments.
    """
    name = "famo_step"
    before, after, minima, logits = check_losses(
        name,
        losses_before,
        "losses_before",
        losses_after=losses_after,
        minima=_minima(name, minima, "losses_before", losses_before),
        logits=state.logits,
    )
    rate = checks.number(name, "learning_rate", learning_rate, low=0.0, open_low=True)
    decay = checks.number(name, "decay", decay, low=0.0)
    found, adam = _famo_step(before, after, minima, logits, state.adam, rate, decay)
    return FamoState(found.astype(state.logits.dtype), adam)


def _minima(name: str, minima: ArrayLike, argument: str, losses: ArrayLike) -> ArrayLike:
    """minima for every loss; a scalar takes the losses' dtype, as any other number."""
    losses = numerics.promote(checks.floating(name, argument, losses))
    if jnp.ndim(minima) > 0:
        return minima
    minima = checks.number(name, "minima", minima)
    return jnp.full(losses.shape, numerics.scalar(minima, losses))


@jax.jit
def _famo(losses, minima, logits):
    gaps = losses - minima + numerics.scalar(EPS, losses)
    shares = jax.lax.stop_gradient(jax.nn.softmax(logits))
    total = jax.lax.stop_gradient(jnp.sum(shares / gaps))
    return jnp.sum(shares * jnp.log(gaps)) / total


@jax.jit
def _famo_step(before, after, minima, logits, adam, rate, decay):
    eps = numerics.scalar(EPS, before)
    gain = jnp.log(before - minima + eps) - jnp.log(after - minima + eps)
    _, pull = jax.vjp(jax.nn.softmax, logits)
    (slope,) = pull(gain)
    slope = slope + numerics.scalar(decay, slope) * logits
    with jax.numpy_dtype_promotion("standard"):  # optax mixes dtypes, which the user may forbid
        update, adam = optax.scale_by_adam().update(slope.astype(adam.mu.dtype), adam)
    return logits - numerics.scalar(rate, logits) * jnp.asarray(update, logits.dtype), adam
