# SPDX-License-Identifier: Apache-2.0
"""An output layer whose training step costs the same for ten thousand classes as for a million.

Vincent, de Brebisson, Bouthillier. Losses of the spherical family know the logits by the target's
logit, their mean and their variance only; for them the exact SGD step on the dense W [D, d] takes
O(d^2) an example in place of O(D d). Reach for it with tens of thousands of classes or more, plain
SGD for the output layer, and ``classification.z_loss`` (a = 0.5, b = 10) as the loss.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from xloss import checks, numerics
from xloss.heads.spherical_state import SphericalState, check_state, matmul
from xloss.heads.spherical_update import exact_step, forward
from xloss.statistics import LogitStatistics
from xloss.typing import Array


def spherical_step(
    state: SphericalState,
    hidden: ArrayLike,
    labels: ArrayLike,
    *,
    loss: Callable[..., Array],
    learning_rate: ArrayLike,
    loss_args: Mapping[str, Any] | None = None,
    target_values: ArrayLike | None = None,
    weight_decay: ArrayLike = 0.0,
    where: ArrayLike | None = None,
) -> tuple[Array, Array, SphericalState]:
    """One exact SGD step of a huge output layer, without ever forming its logits.

    Definition, with logits o_i = W h_i [D] of W in the factored form of SphericalState::

        L = mean_i loss(o_y, mean_k o_k, var_k o_k)                      over where
        W <- (1 - learning_rate weight_decay) W - learning_rate dL/dW    plain SGD, nothing else
        grad_hidden = dL/dh at the old W, for the network below and its own optimizer

    The layer is its own optimizer: no momentum, no Adam, no clipping of dL/dW can be expressed.
    An example costs about 16 d^2 flops whatever D is, against 6 D d for the dense step: on two
    CPU cores they meet at 2,000 to 4,000 classes, below which the dense layer is the better
    choice; at D = 100,000 the gain is about D / (4 d). Looking at every logit (top-k, rank) still
    costs O(D d), see :func:`spherical_evaluation`.

    Several true classes: labels [m, K], rows filled up with -1 (any negative). The loss then reads
    statistics [m, K] (the variance repeated). If it returns [m, K], an example's loss is the
    average over its labels; if it returns [m], as :func:`sparse_squared_error` does, that is it.

    Args:
      state: SphericalState. Outside of jit it is donated: its rows are updated in place and only
        the state that comes back may be used. Inside your own jit, donate it yourself
        (``jax.jit(..., donate_argnums=0)``), or every step copies all rows.
      hidden: h [m, d], any float dtype. A bias is a constant in one column.
      labels: integer y [m] in [0, D), or [m, K] filled up with -1.
      loss: loss(LogitStatistics, **loss_args) -> losses; ``classification.z_loss``,
        ``taylor_softmax``, ``spherical_softmax``, or one of your own that reads target, mean,
        centred, variance and class_count. A new lambda in every call compiles in every call.
      learning_rate: scalar > 0, traced.
      loss_args: keyword arguments of the loss, traced.
      target_values: float [m, K], handed to the loss as ``target_values`` with 0 where the label
        is -1.
      weight_decay: scalar >= 0, traced.
      where: bool [m]; a masked example has loss and gradient exactly 0 and no part in the update.

    Returns:
      (losses [m] before the step, grad_hidden [m, d] of the mean loss in hidden's dtype, state).

    Raises:
      TypeError: wrong dtypes, a state that is none.
      ValueError: shapes that do not fit; numbers out of range; a loss that reads a field that
        this layer does not know (log_odds, lead, and what derives from them).

    Numerics:
      The update is singular where learning_rate * dL/d(variance) * 2 |h|^2 / D reaches 1 in some
      direction. Where mixing would become worse conditioned than 1 / sqrt(eps), or anything not
      finite (a NaN in hidden, an overflow), the layer keeps its weights and ``state.skipped``
      counts it: see :func:`spherical_check`. A label out of range gives that example a NaN loss,
      gradient 0 and no part in the update. All matrix products run in full float32: rounding
      errors grow with the steps (about 1e-6 of W after 1000 in float32) and with cond(mixing),
      which :func:`spherical_stabilize`, called every 10 to 100 steps, keeps small. A variance
      that rounding made negative is 0.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from xloss.classification import z_loss
      >>> from xloss.heads import spherical_init
      >>> state = spherical_init(jax.random.normal(jax.random.key(0), [4, 1000]))
      >>> hidden, labels = jnp.eye(4)[:2], jnp.array([7, 7])
      >>> first, _, state = spherical_step(state, hidden, labels, loss=z_loss, learning_rate=9.0)
      >>> second, _, state = spherical_step(state, hidden, labels, loss=z_loss, learning_rate=9.0)
      >>> bool((second < first).all())
      True

    Evidence: published formula, derived and checked.

    References:
      Vincent, de Brebisson, Bouthillier, "Efficient Exact Gradient Update for training Deep
      Networks with Very Large Sparse Targets", NIPS 2015, arXiv 1412.7091, 1606.08061; authors'
      code pascal20100/factored_output_layer. Departures: mean and covariance instead of W^T 1 and
      W^T W, both of which weight decay scales too (the authors' code forgets them).
    """
    name = "spherical_step"
    hidden, labels, where = _check(name, state, hidden, labels, where)
    if not callable(loss):
        raise TypeError(f"{name}: expected loss to be callable, got {loss!r}")
    arguments = dict(loss_args or {})
    if target_values is not None:
        values = checks.floating(name, "target_values", target_values)
        if labels.ndim != 2:
            raise ValueError(f"{name}: expected labels of shape (m, K) with target_values")
        checks.same_shape(name, "target_values", values, labels.shape)
        arguments["target_values"] = values.astype(state.rows.dtype)
    rate = checks.number(name, "learning_rate", learning_rate, low=0.0, open_low=True)
    decay = checks.number(name, "weight_decay", weight_decay, low=0.0)
    if isinstance(rate, float) and isinstance(decay, float) and rate * decay >= 1.0:
        raise ValueError(
            f"{name}: expected learning_rate * weight_decay < 1, got {rate:g} * {decay:g}"
        )
    if not isinstance(loss, jax.tree_util.Partial):
        loss = jax.tree_util.Partial(loss)
    return _step(state, hidden, labels, loss, arguments, rate, decay, where)


def spherical_statistics(
    state: SphericalState,
    hidden: ArrayLike,
    labels: ArrayLike,
    *,
    where: ArrayLike | None = None,
) -> LogitStatistics:
    """The layer's statistics of a batch without a step, in O(d^2): losses on held-out data.

    Args:
      state: SphericalState; only read.
      hidden: h [m, d], any float dtype.
      labels: integer y [m] in [0, D), or [m, K] filled up with -1.
      where: bool [m]; masked examples have statistics of a zero h.

    Returns:
      LogitStatistics [m] (or [m, K]) with target, centred, variance and class_count. A label out
      of range has a NaN target; at a label of -1 in [m, K] the target is the mean.

    Raises:
      TypeError: wrong dtypes, a state that is none.
      ValueError: shapes that do not fit.
    """
    hidden, labels, where = _check("spherical_statistics", state, hidden, labels, where)
    return _statistics_of(state, hidden, labels, where)


def spherical_evaluation(state: SphericalState, hidden: ArrayLike) -> tuple[Array, Array, Array]:
    """Features and kernel for a search through all classes, without forming the dense kernel.

    Definition::

        logits [..., D] = features @ kernel + common[..., None];   features = h U^T, kernel = V^T

    The common part is the same for every class of an example: order, top-k and rank do not need
    it. Streaming over blocks of the kernel keeps [..., D] out of memory.

    Args:
      state: SphericalState; only read.
      hidden: h [..., d], any float dtype.

    Returns:
      (features [..., d], kernel [d, D], common [...]) in the state's dtype. Call it inside jit:
      there the transposed view of the rows costs no copy.

    Raises:
      TypeError: wrong dtypes, a state that is none.
      ValueError: shapes that do not fit.
    """
    name = "spherical_evaluation"
    check_state(name, state)
    hidden = checks.floating(name, "hidden", hidden)
    checks.same_shape(name, "hidden", hidden, (*hidden.shape[:-1], state.rows.shape[1]))
    h = hidden.astype(state.rows.dtype)
    return matmul(h, state.mixing.T), state.rows.T, matmul(h, state.offset + state.mean)


def sparse_squared_error(stats: LogitStatistics, *, target_values: ArrayLike | None = None):
    """Squared error of all logits to a target vector of which only a few entries are not 0.

    Definition::

        loss = sum_k (o_k - y_k)^2 = sum_k o_k^2 - 2 sum_j y_j o_j + sum_j y_j^2

    Args:
      stats: LogitStatistics [...] at the one class with y = 1; or [..., K] at K distinct classes.
      target_values: y [..., K], 0 where there is no class; None for one class with y = 1.

    Returns:
      Losses [...].

    Raises:
      ValueError: target_values of another shape than stats.
    """
    dtype = stats.dtype
    target, count = stats.target, stats.class_count
    squares = count * (stats.variance + jnp.square(stats.mean))
    if target_values is None:
        return squares - 2.0 * target + 1.0
    y = checks.floating("sparse_squared_error", "target_values", target_values).astype(dtype)
    checks.same_shape("sparse_squared_error", "target_values", y, stats.shape)
    return squares[..., 0] + jnp.sum(jnp.square(y) - 2.0 * y * target, axis=-1)


def _check(name, state, hidden, labels, where):
    check_state(name, state)
    width = state.rows.shape[1]
    hidden = checks.floating(name, "hidden", hidden)
    labels = checks.integer(name, "labels", labels)
    if hidden.ndim != 2 or hidden.shape[1] != width:
        raise ValueError(f"{name}: expected hidden of shape (m, {width}), got {hidden.shape}")
    if labels.ndim not in (1, 2) or labels.shape[0] != hidden.shape[0] or 0 in labels.shape[1:]:
        raise ValueError(
            f"{name}: expected labels of shape ({hidden.shape[0]},) or ({hidden.shape[0]}, K), got "
            f"{labels.shape}"
        )
    return hidden, labels, checks.mask(name, where, hidden.shape[:1])


def _prepare(state, hidden, labels, where):
    """(h [m, d] in the state's dtype, index [m, K], real [m, K], live [m], wanted [m])."""
    h = hidden.astype(state.rows.dtype)
    wanted = jnp.ones(h.shape[:1], bool) if where is None else where
    if where is not None:
        h = jnp.where(where[:, None], h, jnp.zeros_like(h))
    several = labels.ndim == 2
    labels = labels if several else labels[:, None]
    real = (labels >= 0) & (labels < state.rows.shape[0])
    # In [m, K] a negative label is an empty place; in [m] it is a wrong label.
    fine = jnp.all(real | (labels < 0) if several else real, axis=1)
    live = wanted & fine
    real &= live[:, None]
    return h, jnp.where(real, labels, jnp.zeros_like(labels)), real, live, wanted


def _statistics(state, labels, centred, mean, variance):
    classes = state.rows.shape[0]
    if labels.ndim == 1:
        centred = centred[:, 0]
    else:
        mean, variance = (jnp.broadcast_to(x[:, None], centred.shape) for x in (mean, variance))
    return LogitStatistics(
        target=mean + centred,
        centred=centred,
        variance=variance,
        class_count=jnp.full_like(centred, classes),
        num_classes=classes,
        provider="spherical",
    )


@jax.jit
def _statistics_of(state, hidden, labels, where):
    h, index, real, live, wanted = _prepare(state, hidden, labels, where)
    centred, mean, variance = forward(state, h, index, real)[1]
    bad = (wanted & ~live)[:, None]
    centred = jnp.where(bad, jnp.full_like(centred, jnp.nan), centred)
    return _statistics(state, labels, centred, mean, variance)


@functools.partial(jax.jit, donate_argnames="state")
def _step(state, hidden, labels, loss, arguments, rate, decay, where):
    h, index, real, live, wanted = _prepare(state, hidden, labels, where)
    pieces, known = forward(state, h, index, real)

    if "target_values" in arguments:
        values = arguments["target_values"]
        arguments = arguments | {"target_values": jnp.where(real, values, jnp.zeros_like(values))}

    def losses_of(centred, mean, variance):
        losses = loss(_statistics(state, labels, centred, mean, variance), **arguments)
        if jnp.shape(losses) == labels.shape and labels.ndim == 2:
            kept = jnp.where(real, losses, jnp.zeros_like(losses))
            return jnp.sum(kept, axis=1) / jnp.maximum(jnp.sum(real, axis=1, dtype=h.dtype), 1.0)
        checks.same_shape("spherical_step", "what loss returns", losses, h.shape[:1])
        return losses

    losses, pull = jax.vjp(losses_of, *known)
    share = live.astype(losses.dtype)
    share = share / jnp.maximum(jnp.sum(share), 1.0)
    derivatives = [
        jnp.where(live if g.ndim == 1 else real, g, jnp.zeros_like(g)) for g in pull(share)
    ]
    losses = numerics.masked(jnp.where(live, losses, jnp.full_like(losses, jnp.nan)), wanted)

    gradient, state = exact_step(state, h, index, pieces, derivatives, rate, decay)
    return losses, gradient.astype(hidden.dtype), state
