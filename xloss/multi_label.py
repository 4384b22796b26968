# SPDX-License-Identifier: Apache-2.0
"""Several true labels an example: what the losses of classification and of the heads share."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from xloss import checks, numerics

#: How the terms of an example's true labels become one loss.
REDUCTIONS = ("mean", "sum")


def check(
    function: str, scores: ArrayLike, labels: ArrayLike
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """(scores [..., L], which labels are true [..., L], whether all are 0 or 1 [...]), checked.

    Raises:
      TypeError: wrong dtypes.
      ValueError: shapes that do not fit.
    """
    scores = checks.floating(function, "scores", scores)
    if scores.ndim == 0 or scores.shape[-1] == 0:
        raise ValueError(f"{function}: expected scores of shape (..., labels), got {scores.shape}")
    labels = checks.integer(function, "labels", labels, allow_bool=True)
    checks.same_shape(function, "labels", labels, scores.shape)
    return scores, labels == 1, jnp.all((labels == 0) | (labels == 1), axis=-1)


def per_positive(
    against: jax.Array, target: jax.Array, positive: jax.Array, relevance: jax.Array | None,
    mean: bool,
) -> jax.Array:  # fmt: skip
    """The loss from the log-sum-exp of the false labels [...] and scores [..., P] of others.

    Args:
      against: [...]; -inf where there is no false label.
      target: [..., P], scores.
      positive: bool [..., P], which of them are true labels.
      relevance: [..., P] or None.
      mean: whether to divide by the number of true labels.
    """
    # Without false labels -inf - s is the right odds, but its derivative is NaN: 0 takes its place.
    alone = jnp.isneginf(against)[..., None]
    odds = target - jnp.where(alone, jnp.zeros_like(target), against[..., None])
    terms = jnp.where(positive & ~alone, numerics.nats(odds), jnp.zeros_like(odds))
    if relevance is not None:
        weight = jnp.where(positive, relevance.astype(terms.dtype), jnp.zeros_like(terms))
        terms = numerics.multiply_no_nan(weight, terms)
    total = jnp.sum(terms, axis=-1)
    if not mean:
        return total
    return total / jnp.maximum(jnp.sum(positive, axis=-1, dtype=total.dtype), 1.0)
