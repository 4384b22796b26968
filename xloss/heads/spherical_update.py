# SPDX-License-Identifier: Apache-2.0
"""The algebra of one exact SGD step on a factored output layer.

``spherical.py`` turns a loss into its derivatives in the target logits, the mean and the variance;
here they become the step on W and the gradient in h, all in O(d^2) an example. Let H [m, d] be the
hidden rows, W_c = W - 1 mean^T and D the number of classes; every sum over classes is of W_c.
"""

import jax
import jax.numpy as jnp

from xloss import numerics
from xloss.heads.spherical_state import SphericalState, matmul

#: Up to so many targets in a batch, equal ones are found by comparing all pairs, else by sorting.
_PAIRS = 512


def forward(state, h, index, real):
    """The pieces that the update takes up again, and what the loss is told.

    Args:
      state: SphericalState.
      h: [m, d] in the state's dtype.
      index: [m, K], target rows, all within range.
      real: bool [m, K], False at empty places.

    Returns:
      (pieces, (centred target logits [m, K], mean logits [m], variances [m])).
    """
    rows = state.rows.at[index].get(mode="promise_in_bounds")  # [m, K, d]
    mixed, spread = matmul(h, state.mixing.T), matmul(h, state.covariance)
    common = matmul(h, state.offset)
    centred = jnp.sum(rows * mixed[:, None, :], axis=-1) + common[:, None]
    centred = jnp.where(real, centred, jnp.zeros_like(centred))
    variance = jnp.maximum(jnp.sum(spread * h, axis=-1), 0.0)
    return (rows, mixed, spread, common), (centred, matmul(h, state.mean), variance)


def exact_step(state, h, index, pieces, derivatives, rate, decay):
    """The layer after W <- W - rate (dL/dW + decay W), and dL/dH at the old W.

    Args:
      state: SphericalState.
      h: [m, d] in the state's dtype.
      index: [m, K], target rows, all within range.
      pieces: what :func:`forward` returned first.
      derivatives: of L in the centred target logits [m, K] (0 at empty places), with the means
        fixed; in the means [m]; in the variances [m].
      rate: scalar.
      decay: scalar.

    Returns:
      (dL/dH [m, d], SphericalState): the old weights where the update is not regular.
    """
    rows, mixed, spread, common = pieces
    by_target, by_mean, by_variance = derivatives
    width, dtype = h.shape[1], h.dtype
    rate, decay = numerics.scalar(rate, h), numerics.scalar(decay, h)

    # dL/dW = 1 (H^T by_mean)^T / D + W_c H^T diag(curve) H + sum (e_y - 1/D) by_target h^T
    # with W_c the rows without their mean.
    classes = float(state.rows.shape[0])  # an int of 32 bits could not be squared
    curve, by_all = 2.0 * by_variance / classes, jnp.sum(by_target, axis=1)
    pulled = jnp.sum(by_target[:, :, None] * rows, axis=1)
    pulled = matmul(pulled, state.mixing) + by_all[:, None] * state.offset[None, :]
    gradient = 2.0 * by_variance[:, None] * spread + pulled + by_mean[:, None] * state.mean[None, :]

    # W - lost W - rate dL/dW is (1 - lost) (W - inner dL/dW).
    lost = rate * decay
    inner = rate / (1.0 - lost)
    inverse, steps = _invert(state.inverse, h, inner * curve)
    # The covariance of the new W, expanded: every term has H^T in front or behind.
    bent, drawn = curve[:, None] * spread, pulled / classes
    second = _second_order(h, bent + 2.0 * drawn, curve, index, by_target, classes)
    half = matmul(h.T, bent + drawn - 0.5 * inner * second)
    # x - lost x, never x (1 - lost): the rounding error of 1 - lost would add up over the steps.
    old = {name: getattr(state, name) for name in ("mixing", "offset", "mean", "covariance")}
    new = {
        "mixing": matmul(mixed.T, (-rate * curve)[:, None] * h) - lost * old["mixing"],
        "offset": matmul(rate * (by_all / classes - curve * common), h) - lost * old["offset"],
        "mean": matmul(-rate / classes * by_mean, h) - lost * old["mean"],
        "covariance": -rate * (1.0 - lost) * (half + half.T)
        - lost * (2.0 - lost) * old["covariance"],
    }
    new = {name: old[name] + change for name, change in new.items()}
    new["inverse"] = inverse + inverse * (lost / (1.0 - lost))
    moved = (-inner * by_target)[:, :, None] * steps[:, None, :]

    # Frobenius norms: 1 for an orthogonal matrix, and no smaller than cond(mixing) / d.
    condition = jnp.linalg.norm(new["mixing"]) * jnp.linalg.norm(new["inverse"]) / width
    sizes = [jnp.sum(jnp.abs(x)) for x in (moved, *new.values())]
    regular = (condition <= jnp.finfo(dtype).eps ** -0.5) & jnp.isfinite(sum(sizes)) & (lost < 1.0)
    moved = jnp.where(regular, moved, jnp.zeros_like(moved))
    new = {name: jnp.where(regular, value, getattr(state, name)) for name, value in new.items()}
    return gradient, SphericalState(
        rows=state.rows.at[index].add(moved, mode="promise_in_bounds"),
        step=state.step + 1,
        skipped=state.skipped + (~regular).astype(jnp.int32),
        **new,
    )


def _invert(inverse, h, weights):
    """The inverse of U (I - H^T S H), S = diag(weights), and H times it."""
    batch, width = h.shape
    if batch > width:
        change = jnp.eye(width, dtype=h.dtype) - matmul(h.T, weights[:, None] * h)
        inverse = jnp.linalg.solve(change, inverse)
        return inverse, matmul(h, inverse)
    # Woodbury in a form that needs no 1 / S: a weight of 0 is fine.
    gram, before = matmul(h, h.T), matmul(h, inverse)
    core = jnp.eye(batch, dtype=h.dtype) - weights[:, None] * gram
    solved = jnp.linalg.solve(core, weights[:, None] * before)
    return inverse + matmul(h.T, solved), before + matmul(gram, solved)


def _second_order(h, left, curve, index, by_target, classes):
    """A H for A = left H^T diag(curve) + (Y - g g^T / D) / D: what the step does to the covariance
    in second order.

    Y [m, m] is the Gram matrix of the sparse gradients, where duplicate targets meet.
    """
    batch, width = h.shape
    narrow, few = batch <= width, index.size <= _PAIRS
    by_all = jnp.sum(by_target, axis=1)
    result = -(by_all / classes**2)[:, None] * matmul(by_all, h)[None, :]
    core = jnp.zeros((batch, batch), h.dtype) if narrow or few else None
    if narrow:
        core = core + matmul(left, h.T) * curve[None, :]
    else:
        result = result + matmul(left, matmul((curve[:, None] * h).T, h))
    if few:
        flat, weights = index.reshape(-1), by_target.reshape(-1) / classes**0.5
        equal = (flat[:, None] == flat[None, :]).astype(h.dtype)
        gram = equal * weights[:, None] * weights[None, :]
        core = core + gram.reshape(index.shape * 2).sum(axis=(1, 3))
    else:
        result = result + _over_equal_targets(index, by_target, h) / classes
    return result if core is None else result + matmul(core, h)


def _over_equal_targets(index, by_target, h):
    """Y H for a large batch: sums over runs of equal targets, in time that does not square it."""
    flat = index.reshape(-1)
    order = jnp.argsort(flat)
    run = jnp.cumsum(jnp.diff(flat[order], prepend=flat[order][:1]) != 0)
    terms = (by_target[:, :, None] * h[:, None, :]).reshape(flat.size, -1)
    sums = jax.ops.segment_sum(terms[order], run, num_segments=flat.size)
    back = sums[run[jnp.argsort(order)]].reshape(*index.shape, -1)
    return jnp.sum(by_target[:, :, None] * back, axis=1)
