# SPDX-License-Identifier: Apache-2.0
"""LDR-KL: the worst case over what the label may have been, with a KL penalty.

Zhu, Ying and Yang. A temperature with a margin: between the multi-class hinge, cross-entropy and a
linear loss. Reach for it under label noise; :func:`aldr_kl` chooses the
temperature of each example.
"""

import functools

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from xloss import checks, numerics
from xloss.statistics import LogitStatistics, as_statistics, check_scores, logit_statistics
from xloss.typing import Array, Scores

NORMALIZATIONS = ("softplus_mean", "l1_mean")


def ldr_kl(
    scores: Scores,
    labels: ArrayLike | None = None,
    *,
    lam: ArrayLike = 1.0,
    margin: ArrayLike = 0.1,
    normalize: str | None = None,
    where: ArrayLike | None = None,
) -> Array:
    """Label-distributionally-robust loss with a KL penalty.

    Definition, with p = softmax(z)::

        d_k = z_k - z_y + margin for k != y, d_y = 0
        loss = max over distributions p of sum_k p_k d_k - lam KL(p || uniform)
             = lam log(sum_k exp(d_k / lam) / K)

    Args:
      scores: logits z [..., K] of any float dtype, or LogitStatistics.
      labels: integer y [...] in [0, K); None beside LogitStatistics.
      lam: scalar > 0, traced; towards 0 the loss is crammer_singer, lam = 1 with margin 0 is
        cross-entropy - log K, and a large lam tends to the mean of d, which is robust to noise.
      margin: scalar >= 0, traced.
      normalize: of logits, before everything: "softplus_mean", softplus(z) over its mean (as the
        authors train), "l1_mean", z over the mean of |z|, or None.
      where: bool [...]; False means loss and gradient exactly 0.

    Returns:
      Losses [...] >= -lam log K: it can be negative, float32 (float64 for float64 scores).

    Raises:
      TypeError: wrong dtypes, or scores and labels of the same shape (see binary_statistics).
      ValueError: shapes that do not fit, lam <= 0, margin < 0, an unknown normalize.

    Numerics:
      lam (softplus(margin / lam - m) - log K) with the log-odds m of z / lam: nothing overflows at
      a small lam. Of LogitStatistics the logits must be divided by lam already
      (``logit_statistics(z, y, temperature=lam)``). Where every logit is so negative that softplus
      underflows, or every logit is 0 under "l1_mean", the normaliser is held above 1e-12.

    Example:
      >>> import jax.numpy as jnp
      >>> round(float(ldr_kl(jnp.array([[1.0, 0.0]]), jnp.array([0]), margin=0.0)[0]), 4)
      -0.3799

    Evidence: authors' code.

    References:
      Zhu, Ying, Yang, "Label Distributionally Robust Losses for Multi-class Classification:
      Consistency, Robustness and Adaptivity", ICML 2023, arXiv 2112.14869; authors' code
      Optimization-AI/ICML2023_LDR.
    """
    name = "ldr_kl"
    scores, labels, where = check_scores(name, scores, labels, where)
    lam = checks.number(name, "lam", lam, low=0.0, open_low=True)
    margin = checks.number(name, "margin", margin, low=0.0)
    check_normalize(name, scores, normalize)
    return _ldr_kl(scores, labels, lam, margin, where, normalize=normalize)


@functools.partial(jax.jit, static_argnames="normalize")
def _ldr_kl(scores, labels, lam, margin, where, *, normalize):
    if isinstance(scores, LogitStatistics):
        stats = as_statistics(scores, where=where)
    else:
        z = normalized(scores, where, normalize)
        stats = logit_statistics(z, labels, where=where, temperature=numerics.scalar(lam, z))
    m = stats.log_odds
    lam, margin = numerics.scalar(lam, m), numerics.scalar(margin, m)
    losses = lam * (jax.nn.softplus(margin / lam - m) - jnp.log(stats.class_count))
    return numerics.masked(losses, where)


def check_normalize(function: str, scores: Scores, normalize: str | None) -> None:
    """Raises ValueError for an unknown normalisation, TypeError for one of LogitStatistics."""
    if normalize is None:
        return
    checks.choice(function, "normalize", normalize, NORMALIZATIONS)
    if isinstance(scores, LogitStatistics):
        raise TypeError(
            f"{function}: expected logits beside normalize={normalize!r}, got LogitStatistics from "
            f"{scores.provider}"
        )


def normalized(scores: Array, where: Array | None, normalize: str | None) -> Array:
    """Logits [..., K] in the working dtype, over what the authors divide them by."""
    z = numerics.promote(scores)
    if where is not None:
        z = jnp.where(where[..., None], z, jnp.zeros_like(z))
    if normalize is None:
        return z
    alive = ~jnp.isneginf(z)
    count = jnp.maximum(jnp.sum(alive, axis=-1, keepdims=True, dtype=z.dtype), 1.0)
    if normalize == "softplus_mean":
        z = jnp.where(alive, jax.nn.softplus(z), -jnp.inf)
    kept = jnp.where(alive, z, jnp.zeros_like(z))
    mean = jnp.sum(jnp.abs(kept), axis=-1, keepdims=True) / count
    return jnp.where(alive, kept / jnp.maximum(mean, 1e-12), -jnp.inf)
