# SPDX-License-Identifier: Apache-2.0
"""Scalar functions that keep their accuracy and their gradient at the edges.

What losses need beside ``jax.nn``: limits without a branch on a value, gradients that stay
finite where the value overflows, reductions that survive masked classes. Everything here is
differentiable to any order and elementwise unless it says otherwise.
"""

import math

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike


def working_dtype(dtype: jnp.dtype) -> jnp.dtype:
    """Returns the dtype in which losses are computed and returned: float64 for float64, else
    float32."""
    return jnp.dtype(jnp.float64 if dtype == jnp.float64 else jnp.float32)


def promote(x: jax.Array) -> jax.Array:
    """Casts to the working dtype; the cast's transpose gives gradients in the input's dtype."""
    return x.astype(working_dtype(x.dtype))


def scalar(value: ArrayLike, like: jax.Array) -> jax.Array:
    """Casts a hyperparameter to the dtype of the computation, so that it may be traced."""
    return jnp.asarray(value, like.dtype)


def masked(losses: jax.Array, where: jax.Array | None) -> jax.Array:
    """Sets masked losses to exactly 0; the gradient into them is exactly 0 too."""
    return losses if where is None else jnp.where(where, losses, jnp.zeros_like(losses))


def nats(log_odds: jax.Array) -> jax.Array:
    """-log p from the log-odds of p: softplus(-m), to a few ulp for every m, 0 at m = +inf."""
    return jax.nn.softplus(-log_odds)


@jax.custom_jvp
def exp(x: jax.Array) -> jax.Array:
    """exp(x) whose derivative saturates at the greatest finite float.

    Where exp overflows the value is inf, as it must be, but an infinite derivative would meet a
    zero further down the chain (a class of probability 0) and give NaN.
    """
    return jnp.exp(x)


@exp.defjvp
def _exp_jvp(primals, tangents):
    (x,), (x_dot,) = primals, tangents
    return exp(x), _bounded(exp(x)) * x_dot


@jax.custom_jvp
def square(x: jax.Array) -> jax.Array:
    """x^2 whose derivative saturates at the greatest finite float, as that of :func:`exp`."""
    return jnp.square(x)


@square.defjvp
def _square_jvp(primals, tangents):
    (x,), (x_dot,) = primals, tangents
    return square(x), _bounded(2.0 * x) * x_dot


@jax.custom_jvp
def scaled_expm1(rate: jax.Array, x: jax.Array) -> jax.Array:
    """expm1(rate * x) / rate, with its limit x at rate = 0.

    The bridge of every family that contains cross-entropy as a limit: with x = -log p,
    rate = 1 - tau gives comp-sum and rate = -q generalised cross-entropy. Value and both
    derivatives are accurate through rate = 0, so nothing branches on a hyperparameter.

    Args:
      rate: float array, broadcast against x.
      x: float array.

    Returns:
      Float array; inf where the true value exceeds the largest float, with derivatives that
      saturate there (see :func:`exp`).
    """
    t = multiply_no_nan(rate, x)
    zero = t == 0
    return jnp.where(zero, x, jnp.expm1(t) / jnp.where(zero, jnp.ones_like(t), rate))


@scaled_expm1.defjvp
def _scaled_expm1_jvp(primals, tangents):
    rate, x = primals
    rate_dot, x_dot = tangents
    t = multiply_no_nan(rate, x)
    # d/d rate = x^2 ((t - 1) e^t + 1) / t^2: the series where that cancels; t is held above -200
    # (where e^t is 0 in any case) so that -inf does not meet that 0.
    small = jnp.abs(t) < 0.5
    near = jnp.square(x) * _expm1_ratio_slope(jnp.where(small, t, jnp.zeros_like(t)))
    held = jnp.maximum(t, -200.0)
    far = ((held - 1.0) * exp(held) + 1.0) / jnp.square(jnp.where(small, jnp.ones_like(t), rate))
    slope_rate = jnp.where(small, near, far)
    return scaled_expm1(rate, x), _bounded(exp(t)) * x_dot + _bounded(slope_rate) * rate_dot


def power(log_base: jax.Array, exponent: jax.Array) -> jax.Array:
    """base ** exponent from log(base) <= 0, with base ** 0 = 1 even at base = 0.

    A base of 0 (log -inf) is moved to the least finite logarithm, so that neither the value nor
    the derivatives in base and exponent form 0 * inf.
    """
    return jnp.exp(exponent * jnp.maximum(log_base, jnp.finfo(log_base.dtype).min))


def multiply_no_nan(weight: jax.Array, x: jax.Array) -> jax.Array:
    """weight * x with 0 * inf = 0 (an impossible class of weight 0 costs nothing)."""
    lost = (weight == 0) & jnp.isinf(x)
    return weight * jnp.where(lost, jnp.zeros_like(x), x)


def inverse_power_logits(distances: jax.Array, exponent: ArrayLike) -> jax.Array:
    """-exponent * log(distances): the logits of classes as probable as distance^-exponent.

    A distance of 0 counts as the smallest normal float, with derivative 0 there; +inf is a class
    that is masked out (-inf, whatever the exponent); a negative distance gives NaN.

    Args:
      distances: float array >= 0.
      exponent: scalar >= 0.

    Returns:
      Logits of the same shape in the working dtype.
    """
    d = promote(distances)
    far = jnp.isposinf(d)
    least = jnp.finfo(d.dtype).tiny
    near = jnp.maximum(jnp.where(far | (d < 0), jnp.ones_like(d), d), least)
    logits = -scalar(exponent, d) * jnp.log(near)
    return jnp.where(far, -jnp.inf, jnp.where(d < 0, jnp.nan, logits))


@jax.custom_jvp
def tempered(z: jax.Array, temperature: jax.Array) -> jax.Array:
    """z / temperature, where a logit that is not finite has derivative 0 in the temperature.

    That derivative is proportional to the logit; at a masked class (-inf) or a masked example
    (anything) it would turn the 0 that comes back from the loss into NaN.
    """
    return z / temperature


@tempered.defjvp
def _tempered_jvp(primals, tangents):
    z, temperature = primals
    z_dot, temperature_dot = tangents
    finite = jnp.where(jnp.isfinite(z), z, jnp.zeros_like(z))
    slope = -finite / jnp.square(temperature)
    return tempered(z, temperature), z_dot / temperature + slope * temperature_dot


@jax.custom_jvp
def max_last(x: jax.Array) -> jax.Array:
    """Maximum over the last axis; ties share the gradient equally.

    The same function and gradient as ``jnp.max``, at two thirds of its time and without the
    [..., K] temporary that autodiff of max keeps.
    """
    return jnp.max(x, axis=-1)


@max_last.defjvp
def _max_last_jvp(primals, tangents):
    (x,), (x_dot,) = primals, tangents
    greatest = max_last(x)
    return greatest, max_last_tangent(x, greatest, x_dot)


def max_last_tangent(x: jax.Array, greatest: jax.Array, x_dot: jax.Array) -> jax.Array:
    """The derivative of the maximum ``greatest`` of x [..., K] along x_dot; ties share equally."""
    winner = x == greatest[..., None]
    share = jnp.sum(winner, axis=-1, dtype=x.dtype)
    tangent = jnp.sum(jnp.where(winner, x_dot, jnp.zeros_like(x_dot)), axis=-1)
    # A NaN row has no winner; its maximum is NaN already and 0 / 1 keeps the tangent defined.
    return tangent / jnp.maximum(share, jnp.ones_like(share))


@jax.custom_jvp
def take_last(x: jax.Array, index: jax.Array) -> jax.Array:
    """x[..., index] over the last axis, NaN where index is outside it (negative ones too).

    The transpose of a gather is a scatter, which XLA cannot fuse with the rest of a loss's
    gradient; that of the masked sum that stands in for it here is a select, which it can.

    Args:
      x: float [..., K].
      index: integer [...].

    Returns:
      Float [...].
    """
    # Gathers wrap negative indices and those beyond 32 bits: send them where "fill" answers NaN.
    outside = (index < 0) | (index >= x.shape[-1])
    index = jnp.where(outside, x.shape[-1], index)[..., None]
    taken = jnp.take_along_axis(x, index, axis=-1, mode="fill", fill_value=jnp.nan)
    return taken[..., 0]


@take_last.defjvp
def _take_last_jvp(primals, tangents):
    x, index = primals
    x_dot, _ = tangents
    masked_dot = jnp.where(one_hot_last(index, x.shape), x_dot, jnp.zeros_like(x_dot))
    return take_last(x, index), jnp.sum(masked_dot, axis=-1)


def one_hot_last(index: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """bool [..., K], True at ``index`` of the last axis; nowhere if it is out of range."""
    return jax.lax.broadcasted_iota(index.dtype, shape, len(shape) - 1) == index[..., None]


def others_last(z: jax.Array, labels: jax.Array) -> jax.Array:
    """z [..., K] with -inf in place of the label's entry."""
    return jnp.where(one_hot_last(labels, z.shape), -jnp.inf, z)


@jax.custom_jvp
def max_of_others_last(z: jax.Array, labels: jax.Array) -> jax.Array:
    """The greatest of z [..., K] but the label's entry; ties share the gradient equally."""
    return jnp.max(others_last(z, labels), axis=-1)


@max_of_others_last.defjvp
def _max_of_others_last_jvp(primals, tangents):
    (z, labels), (z_dot, _) = primals, tangents
    greatest = max_of_others_last(z, labels)
    # The same logits, which XLA may not take for the same: else it keeps what the reduction read,
    # an array of the logits' size, to read it here again.
    others = others_last(jax.lax.optimization_barrier(z), labels)
    return greatest, max_last_tangent(others, greatest, z_dot)


@jax.custom_jvp
def squared_deviations_last(z: jax.Array, mean: jax.Array) -> jax.Array:
    """Sum of (z - mean)^2 over the finite z of [..., K]; mean [...] must be theirs."""
    return jnp.sum(jnp.square(_deviation(z, mean)), axis=-1)


@squared_deviations_last.defjvp
def _squared_deviations_last_jvp(primals, tangents):
    (z, mean), (z_dot, _) = primals, tangents
    # The mean moves too, but the deviations sum to 0. The barrier is that of the maximum above.
    deviation = _deviation(jax.lax.optimization_barrier(z), mean)
    return squared_deviations_last(z, mean), 2.0 * jnp.sum(deviation * z_dot, axis=-1)


@jax.custom_jvp
def sum_and_count_finite_last(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Sum over the last axis, and how many entries it has, without those of -inf.

    Entries of -inf are classes that are masked out. The masked sums write [..., K] arrays before
    they reduce (their memory is reserved, needed or not); they run only if some plain sum, which
    does not, shows that they are needed. A reduction that masks inside itself would need no memory,
    but cannot be partitioned where the classes are sharded.
    """
    total = jnp.sum(x, axis=-1)

    def all_of_them():
        return total, x.shape[-1] * jnp.isfinite(total).astype(x.dtype)

    def all_but_minus_inf():
        kept = ~jnp.isneginf(x)
        return (
            jnp.sum(jnp.where(kept, x, jnp.zeros_like(x)), axis=-1),
            jnp.sum(kept, axis=-1, dtype=x.dtype),
        )

    return jax.lax.cond(jnp.all(jnp.isfinite(total)), all_of_them, all_but_minus_inf)


@sum_and_count_finite_last.defjvp
def _sum_and_count_finite_last_jvp(primals, tangents):
    (x,), (x_dot,) = primals, tangents
    total, count = sum_and_count_finite_last(x)
    kept = jnp.where(jnp.isneginf(x), jnp.zeros_like(x_dot), x_dot)
    return (total, count), (jnp.sum(kept, axis=-1), jnp.zeros_like(count))


def _deviation(z: jax.Array, mean: jax.Array) -> jax.Array:
    return jnp.where(jnp.isneginf(z), jnp.zeros_like(z), z - mean[..., None])


def _bounded(x: jax.Array) -> jax.Array:
    limit = jnp.finfo(x.dtype)
    return jnp.clip(x, limit.min, limit.max)


def _expm1_ratio_slope(t: jax.Array) -> jax.Array:
    """d/dt of expm1(t) / t for |t| < 1/2: sum over k >= 1 of k t^(k-1) / (k+1)!."""
    total = jnp.zeros_like(t)
    for k in range(15, 0, -1):  # 15 terms: below an ulp of float64 at |t| = 1/2
        total = total * t + k / math.factorial(k + 1)
    return total
