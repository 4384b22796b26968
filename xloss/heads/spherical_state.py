# SPDX-License-Identifier: Apache-2.0
"""The factored output layer of the spherical family: what it stores, and its rare operations.

Vincent, de Brebisson, Bouthillier. The D x d weight matrix W is never updated as a whole; it is
kept as a product of a big matrix of which a step touches the target rows only and of a small one
that takes the dense part of every update. ``spherical.py`` has the step.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from xloss import checks, numerics
from xloss.typing import Array

#: Singular values of ``mixing`` that spherical_stabilize leaves alone.
LOW, HIGH = 0.5, 2.0


class SphericalState(NamedTuple):
    """The output layer W [D, d] (one class a row) in factored form, a pytree of arrays.

    ::

        W = rows mixing + 1 (offset + mean)^T;     kernel [d, D] = W^T

    Everything but ``rows`` is small; ``rows`` may be sharded over devices by its first axis and
    the rest replicated. The sums of the papers are Q = W^T W = D (covariance + mean mean^T) and
    W^T 1 = D mean: centred, because q / D - mean^2 loses every digit where the mean is large.

    Attributes:
      rows: V [D, d].
      mixing: U [d, d].
      inverse: U^-1 [d, d].
      offset: [d], W's common row beside the mean (the papers' omega is offset + mean).
      mean: mean of the rows of W [d].
      covariance: biased covariance of the rows of W [d, d].
      step: int32, how many steps were taken.
      skipped: int32, how many of them left the layer as it was, because the update was singular
        or not finite (see :func:`spherical_check`).
    """

    rows: Array
    mixing: Array
    inverse: Array
    offset: Array
    mean: Array
    covariance: Array
    step: Array
    skipped: Array


def spherical_init(kernel: ArrayLike) -> SphericalState:
    """The factored form of a dense kernel; the one call that costs O(D d^2).

    Definition::

        mean = W^T 1 / D;   V = W - 1 mean^T;   U = U^-1 = I;   offset = 0;   covariance = V^T V / D

    Args:
      kernel: W^T [d, D], any float dtype, drawn at random (the Z-loss is not differentiable where
        all logits are equal). It is copied: donating the state later does not touch it.

    Returns:
      SphericalState in float32 (float64 for a float64 kernel).

    Raises:
      TypeError: not of a float dtype.
      ValueError: not a matrix.

    Numerics:
      The mean is taken out before anything is squared.

    Example:
      >>> import jax.numpy as jnp
      >>> state = spherical_init(jnp.array([[1.0, 2.0, 6.0]]))  # d = 1, three classes
      >>> state.mean.tolist(), state.rows[:, 0].tolist()
      ([3.0], [-2.0, -1.0, 3.0])

    Evidence: published formula, derived and checked.

    References:
      Vincent, de Brebisson, Bouthillier, "Efficient Exact Gradient Update for training Deep
      Networks with Very Large Sparse Targets", NIPS 2015, arXiv 1412.7091. Departure: mean and
      covariance in place of W^T 1 and W^T W.
    """
    kernel = checks.floating("spherical_init", "kernel", kernel)
    if kernel.ndim != 2 or 0 in kernel.shape:
        raise ValueError(
            f"spherical_init: expected kernel of shape (d, classes), got {kernel.shape}"
        )
    return _init(kernel)


def spherical_to_dense(state: SphericalState) -> Array:
    """The kernel [d, D] that the state stands for; O(D d^2), for export and for tests.

    To evaluate, :func:`spherical_evaluation` is cheaper. ``spherical_init`` of the result starts
    afresh, with every rounding error of the sums gone.

    Args:
      state: SphericalState.

    Returns:
      Kernel [d, D] in the state's dtype.

    Raises:
      TypeError: not a SphericalState.
    """
    check_state("spherical_to_dense", state)
    return _to_dense(state)


def spherical_stabilize(state: SphericalState) -> SphericalState:
    """Brings the singular values of ``mixing`` back into [0.5, 2], without a change of the layer.

    Call it every 10 to 100 steps, more often with large learning rates: with a loss that never
    comes to rest, as the Z-loss, cond(mixing) grows by a constant factor a step, and the step
    begins to skip updates where it has become too large.

    Definition, with the singular value decomposition U = L diag(t) R^T::

        t' = t where 0.5 <= t <= 2, else 1;    U' = L diag(t') R^T;    U'^-1 from the same factors
        V' = V L diag(t / t') L^T;             W, mean and covariance are unchanged

    Args:
      state: SphericalState. It is donated outside of jit: use the one that comes back.

    Returns:
      SphericalState with cond(mixing) <= 4.

    Raises:
      TypeError: not a SphericalState.

    Numerics:
      U^-1 is exact again, up to rounding, in any case. V is multiplied only if some singular
      value left the interval: that takes O(D d^2) time and a second V while it runs, and no
      communication where rows are sharded. Inside a scan too, nothing of V is copied otherwise.

    Example:
      >>> import jax.numpy as jnp
      >>> state = spherical_init(jnp.eye(2))._replace(
      ...     mixing=jnp.diag(jnp.array([4.0, 1.0])), inverse=jnp.diag(jnp.array([0.25, 1.0])))
      >>> spherical_stabilize(state).rows.tolist()  # the first column took the 4
      [[2.0, -0.5], [-2.0, 0.5]]

    Evidence: published formula, derived and checked.

    References:
      Vincent, de Brebisson, Bouthillier, "Efficient Exact Gradient Update for training Deep
      Networks with Very Large Sparse Targets", NIPS 2015, arXiv 1412.7091; authors' code
      pascal20100/factored_output_layer. Departure: all directions at once through one
      decomposition, where the authors take them one by one.
    """
    check_state("spherical_stabilize", state)
    return _stabilize(state)


def spherical_check(state: SphericalState) -> SphericalState:
    """Raises if the layer left out an update or its inverse has drifted; on the host.

    Call it where the losses are looked at (it waits for the device), not inside jit.

    Args:
      state: SphericalState with concrete arrays.

    Returns:
      The state.

    Raises:
      TypeError: not a SphericalState, or called inside jit.
      FloatingPointError: updates were skipped, or ||U U^-1 - I|| exceeds 1e-3.
    """
    check_state("spherical_check", state)
    if isinstance(state.skipped, jax.core.Tracer):
        raise TypeError("spherical_check: expected concrete arrays, got a tracer (call it on host)")
    skipped, steps = int(state.skipped), int(state.step)
    if skipped:
        raise FloatingPointError(
            f"spherical_check: expected every update to be regular, got {skipped} of {steps} "
            "skipped: learning_rate * d loss / d variance * |hidden|^2 made the update singular, "
            "or something was not finite. Lower learning_rate, bound hidden, or call "
            "spherical_stabilize more often"
        )
    drift = float(_drift(state))
    if not drift <= 1e-3:
        raise FloatingPointError(
            f"spherical_check: expected mixing and inverse to fit to 1e-3, got {drift:.1e} after "
            f"{steps} steps: call spherical_stabilize more often"
        )
    return state


def check_state(function: str, state: Any) -> None:
    """Raises TypeError unless ``state`` is a SphericalState."""
    if not isinstance(state, SphericalState):
        raise TypeError(
            f"{function}: expected state to be a SphericalState, got {checks.describe(state)}"
        )


def matmul(a: Array, b: Array) -> Array:
    """a @ b in full precision: the factors describe one matrix, and rounding them to the 10 or 8
    bits that accelerators use by default would pull them apart."""
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


@jax.jit
def _init(kernel):
    weights = numerics.promote(kernel).T
    classes, width = weights.shape
    mean = jnp.mean(weights, axis=0)
    rows = weights - mean[None, :]
    rest = jnp.mean(rows, axis=0)  # what rounding left of the mean
    rows, mean = rows - rest[None, :], mean + rest
    identity = jnp.eye(width, dtype=weights.dtype)
    return SphericalState(
        rows=rows,
        mixing=identity,
        inverse=identity,
        offset=jnp.zeros_like(mean),
        mean=mean,
        covariance=matmul(rows.T, rows) / classes,
        step=jnp.zeros((), jnp.int32),
        skipped=jnp.zeros((), jnp.int32),
    )


@jax.jit
def _to_dense(state):
    common = state.offset + state.mean
    return matmul(state.mixing.T, state.rows.T) + common[:, None]


@functools.partial(jax.jit, donate_argnames="state")
def _stabilize(state):
    left, values, right = jnp.linalg.svd(state.mixing)
    keep = (values >= LOW) & (values <= HIGH)
    target = jnp.where(keep, values, jnp.ones_like(values))
    # A value of exactly 0 cannot arise (such updates are skipped); NaN would mean no convergence.
    sound = jnp.all(jnp.isfinite(values)) & jnp.all(values > 0)
    mixing = matmul(left * target[None, :], right)
    inverse = matmul(right.T / target[None, :], left.T)
    change = matmul(left * (values / target)[None, :], left.T)

    rows = jax.lax.cond(
        sound & ~jnp.all(keep), lambda rows: matmul(rows, change), lambda rows: rows, state.rows
    )
    return state._replace(
        rows=rows,
        mixing=jnp.where(sound & ~jnp.all(keep), mixing, state.mixing),
        inverse=jnp.where(sound, inverse, state.inverse),
    )


@jax.jit
def _drift(state):
    product = matmul(state.mixing, state.inverse)
    return jnp.max(jnp.abs(product - jnp.eye(*product.shape, dtype=product.dtype)))
