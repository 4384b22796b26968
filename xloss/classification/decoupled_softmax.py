# SPDX-License-Identifier: Apache-2.0
"""Decoupled softmax: softmax for several labels an example, which do not compete with each other.

Gupta et al., DEXML. With one softmax over all labels the true ones push each other down: once one
of them is confident, its gradient pulls it back. Here each true label meets the false ones alone.
Reach for it in multi-label retrieval with many labels; over a label embedding matrix too large for
its scores there is :func:`xloss.heads.chunked_decoupled_softmax`.
"""

import functools

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from xloss import checks, multi_label, numerics
from xloss.typing import Array


def decoupled_softmax(
    scores: ArrayLike,
    labels: ArrayLike,
    *,
    temperature: ArrayLike = 1.0,
    reduce_positives: str = "mean",
    relevance: ArrayLike | None = None,
    where: ArrayLike | None = None,
) -> Array:
    """Decoupled softmax over the labels of an example.

    Definition, with s = scores / temperature, true labels P and false ones N::

        loss = sum_{p in P} r_p log(1 + sum_{j in N} exp(s_j - s_p))    / |P| for "mean"

    The paper writes the sum, the authors' code trains the mean. With one true label it is
    cross-entropy.

    Args:
      scores: [..., L] of any float dtype; -inf takes a label out.
      labels: bool or integer in {0, 1} [..., L].
      temperature: scalar > 0, traced.
      reduce_positives: "mean" or "sum" over the true labels.
      relevance: r [..., L] >= 0, float, read at true labels only; None for 1. The authors'
        positive sampling is a one-hot r at the sampled label with "sum".
      where: bool [...]; False means loss and gradient exactly 0.

    Returns:
      Losses [...] >= 0, float32 (float64 for float64 scores); 0 without true labels, and without
      false ones.

    Raises:
      TypeError: wrong dtypes.
      ValueError: shapes that do not fit, a temperature <= 0.

    Numerics:
      The false labels are summed once by log-sum-exp, from the greatest, so that an offset of a row
      costs no digits; nothing is masked by a number (the authors' -100 is not small where scores
      are). A true label of score -inf costs infinity. Labels other than 0 and 1 give NaN.

    Example:
      >>> import jax.numpy as jnp
      >>> scores, labels = jnp.array([[2.0, 5.0, 0.0]]), jnp.array([[1, 1, 0]])
      >>> [round(float(x), 4) for x in decoupled_softmax(scores, labels)]  # (.1269 + .0067) / 2
      [0.0668]

    Evidence: authors' code.

    References:
      Gupta, Khatri, Rawat, Bhojanapalli, Jain, Dhillon, "Dual-Encoders for Extreme Multi-Label
      Classification", ICLR 2024, arXiv 2310.10636; authors' code nilesh2797/DEXML. Departure: true
      labels are taken out of the sum exactly, where theirs are set to -100.
    """
    name = "decoupled_softmax"
    scores, positive, legal = multi_label.check(name, scores, labels)
    checks.choice(name, "reduce_positives", reduce_positives, multi_label.REDUCTIONS)
    temperature = checks.number(name, "temperature", temperature, low=0.0, open_low=True)
    where = checks.mask(name, where, scores.shape[:-1])
    if relevance is not None:
        relevance = checks.floating(name, "relevance", relevance)
        checks.same_shape(name, "relevance", relevance, scores.shape)
    return _decoupled(
        scores, positive, legal, relevance, temperature, where, mean=reduce_positives == "mean"
    )


@functools.partial(jax.jit, static_argnames="mean")
def _decoupled(scores, positive, legal, relevance, temperature, where, *, mean):
    z = numerics.promote(scores)
    if where is not None:
        z = jnp.where(where[..., None], z, jnp.zeros_like(z))
    # Only differences enter: from the greatest false score they survive any offset and temperature.
    top = jnp.max(jnp.where(positive, -jnp.inf, z), axis=-1, keepdims=True)
    top = jax.lax.stop_gradient(jnp.where(jnp.isfinite(top), top, jnp.zeros_like(top)))
    z = numerics.tempered(z - top, numerics.scalar(temperature, z))
    total = jnp.sum(jnp.exp(jnp.where(positive, -jnp.inf, z)), axis=-1)
    alone = total == 0  # no false label is left, and a logarithm would have gradient NaN
    against = jnp.where(alone, -jnp.inf, jnp.log(jnp.where(alone, jnp.ones_like(total), total)))
    losses = multi_label.per_positive(against, z, positive, relevance, mean)
    return numerics.masked(jnp.where(legal, losses, jnp.full_like(losses, jnp.nan)), where)
