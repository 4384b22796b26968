# SPDX-License-Identifier: Apache-2.0
"""Sampled softmax: cross-entropy against a few classes that are drawn, for training only.

Bengio & Senecal; Jean et al. The baseline that everyone with a large vocabulary knows. Reach for it
to compare, or where even one pass over all classes a step is too much and the loss must be
cross-entropy; for exact gradients there are :func:`xloss.heads.linear_mean_loss` (every loss, no
logits in memory) and :func:`xloss.heads.spherical_step` (a cost that does not grow with V).
"""

import functools

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from xloss import checks, numerics
from xloss.heads import arguments
from xloss.typing import Array

PROPOSALS = ("log_uniform", "uniform")


def sampled_softmax(
    key: Array,
    hidden: ArrayLike,
    kernel: ArrayLike,
    labels: ArrayLike,
    *,
    num_samples: int,
    proposal: str | ArrayLike = "log_uniform",
    bias: ArrayLike | None = None,
    where: ArrayLike | None = None,
) -> Array:
    """Cross-entropy whose sum over the other classes is estimated from a sample.

    Definition, with s_1..s_n drawn from q with replacement, the same for all examples::

        z = h W + b;   loss = log(exp(z_y) + sum_{j: s_j != y} exp(z_{s_j}) / (n q(s_j))) - z_y

    The sum is an unbiased estimate of the sum over all k != y, so that loss and gradient tend to
    those of cross-entropy as n grows; for a finite n the loss lies below it on the average
    (Jensen). Only the columns of the labels and of the sample are read, and only they get a
    gradient.

    Args:
      key: PRNG key, another one every step.
      hidden: h [..., d], any float dtype.
      kernel: W [d, V], one class a column.
      labels: integer y [...] in [0, V).
      num_samples: n >= 1.
      proposal: q. "log_uniform", q(k) = log((k + 2) / (k + 1)) / log(V + 1), is Zipf's law: classes
        must be numbered by decreasing frequency. "uniform"; or an array [V] of probabilities or
        counts >= 0, which are divided by their sum. A class with q = 0 is never drawn, and missing
        from the sum of every other class.
      bias: b [V] or None.
      where: bool [...]; False means loss and gradient exactly 0.

    Returns:
      Losses [...] >= 0, float32 (float64 if hidden or kernel is).

    Raises:
      TypeError: wrong dtypes.
      ValueError: shapes that do not fit, n < 1, an unknown proposal.

    Numerics:
      Operands are multiplied in the wider dtype of the two and accumulated in float32. Labels out
      of range give NaN. If every draw hits the label, the loss is 0 with gradient 0. log_uniform
      draws by inversion in float32, which resolves single classes up to about a million.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> hidden, kernel = jnp.ones([1, 1]), jnp.log(jnp.array([[2.0, 1.0, 1.0]]))
      >>> draw = lambda key: sampled_softmax(
      ...     key, hidden, kernel, jnp.array([0]), num_samples=1000, proposal="uniform")
      >>> bool(abs(draw(jax.random.key(0))[0] - jnp.log(2.0)) < 0.05)
      True

    Evidence: published formula, derived and checked.

    References:
      Jean, Cho, Memisevic, Bengio, "On Using Very Large Target Vocabulary for Neural Machine
      Translation", ACL 2015, arXiv 1412.2007; Bengio, Senecal, "Adaptive Importance Sampling to
      Accelerate Training of a Neural Probabilistic Language Model", 2008; TensorFlow's
      sampled_softmax_loss. Departures from the latter: drawn with replacement, so that the estimate
      is unbiased and shapes are static; the label, which is always there, is not corrected (its
      probability of being in the sum is 1).
    """
    name = "sampled_softmax"
    given = arguments.check(name, hidden, kernel, labels, bias=bias, where=where)
    if type(num_samples) is not int or num_samples < 1:
        raise ValueError(f"{name}: expected num_samples to be an int >= 1, got {num_samples!r}")
    weights = None
    if isinstance(proposal, str):
        checks.choice(name, "proposal", proposal, PROPOSALS)
    else:
        weights, proposal = checks.floating(name, "proposal", proposal), "weights"
        checks.same_shape(name, "proposal", weights, given.kernel.shape[1:])
    return _sampled(
        key, given.hidden, given.kernel, given.labels, given.bias, given.where, weights,
        num_samples=num_samples, proposal=proposal,
    )  # fmt: skip


@functools.partial(jax.jit, static_argnames=("num_samples", "proposal"))
def _sampled(key, hidden, kernel, labels, bias, where, weights, *, num_samples, proposal):
    dtype = jnp.promote_types(hidden.dtype, kernel.dtype)
    wide = numerics.working_dtype(dtype)
    classes = kernel.shape[-1]
    if where is not None:
        hidden = jnp.where(where[..., None], hidden, jnp.zeros_like(hidden))
        labels = numerics.masked(labels, where)
    drawn, log_mean = _draw(key, num_samples, classes, proposal, weights, wide)
    found = (labels >= 0) & (labels < classes)
    own = jnp.where(found, labels, jnp.zeros_like(labels))

    def scores(columns, product, lift):
        z = product(hidden.astype(dtype), jnp.take(kernel, columns, axis=-1).astype(dtype))
        return z if bias is None else z + lift(jnp.take(bias, columns).astype(wide))

    def over_batch(x):
        return x.reshape((1,) * labels.ndim + x.shape)

    one = functools.partial(jnp.einsum, "...d,d...->...", preferred_element_type=wide)
    many = functools.partial(jnp.matmul, preferred_element_type=wide)
    target = scores(own, one, lambda x: x)
    others = scores(drawn, many, over_batch) - over_batch(log_mean)
    hit = own[..., None].astype(jnp.int32) == over_batch(drawn)
    # log-odds of the label; -inf where nothing but the label was drawn, which is no NaN below.
    rest = jnp.where(hit, -jnp.inf, others)
    top = jax.lax.stop_gradient(jnp.max(rest, axis=-1))
    top = jnp.where(jnp.isfinite(top), top, jnp.zeros_like(top))
    total = jnp.sum(jnp.exp(rest - top[..., None]), axis=-1)
    alone = total == 0
    log_total = jnp.log(jnp.where(alone, jnp.ones_like(total), total)) + top
    losses = numerics.nats(jnp.where(alone, jnp.inf, target - log_total))
    return numerics.masked(jnp.where(found, losses, jnp.full_like(losses, jnp.nan)), where)


def _draw(key, count, classes, proposal, weights, dtype):
    """(classes [n], log of how often each is expected among them [n])."""
    if proposal == "uniform":
        drawn = jax.random.randint(key, (count,), 0, classes)
        share = jnp.full((count,), 1.0 / classes, dtype)
    elif proposal == "log_uniform":
        scale = jnp.log(jnp.asarray(classes + 1.0, dtype))
        u = jax.random.uniform(key, (count,), dtype)
        drawn = jnp.clip(jnp.expm1(u * scale).astype(jnp.int32), 0, classes - 1)
        share = jnp.log1p(1.0 / (drawn.astype(dtype) + 1.0)) / scale
    else:
        weights = jax.lax.stop_gradient(weights.astype(dtype))
        chance = weights / jnp.sum(weights)
        drawn = jax.random.choice(key, classes, (count,), p=chance)
        share = chance[drawn]
    return drawn.astype(jnp.int32), jnp.log(share) + jnp.log(jnp.asarray(float(count), dtype))
