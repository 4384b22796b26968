# SPDX-License-Identifier: Apache-2.0
"""The log-partition penalty ("z-loss" of PaLM): keeps the softmax normaliser near 1.

Wortsman et al., "Small-scale proxies for large-scale Transformer training instabilities". Reach
for it when output logits drift in long runs or at high learning rates: add it to cross-entropy.
Not the Z-loss of de Brebisson and Vincent, which is a loss of its own.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from xloss import checks, numerics
from xloss.statistics import LogitStatistics, as_statistics, check_scores
from xloss.typing import Array, Scores


def log_partition_penalty(
    scores: Scores,
    labels: ArrayLike | None = None,
    *,
    coef: ArrayLike = 1e-4,
    where: ArrayLike | None = None,
) -> Array:
    """coef times the squared log-partition, to be added to another loss.

    Definition::

        log Z = log sum_k exp z_k;  penalty = coef (log Z)^2;  gradient: 2 coef log Z softmax(z)

    Add it to cross-entropy on the same statistics, at no further pass over the logits::

        stats = xloss.logit_statistics(logits, labels)
        losses = cross_entropy(stats) + log_partition_penalty(stats)

    Args:
      scores: logits z [..., K] of any float dtype, or LogitStatistics. Soft-capped or tempered
        logits are given as such.
      labels: integer [...] in [0, K), or None: the value does not depend on them, but given
        ones are checked and share the pass with a loss on the same labels.
      coef: scalar >= 0, traced.
      where: bool [...]; False means penalty and gradient exactly 0.

    Returns:
      Penalties [...] >= 0, float32 (float64 for float64 scores).

    Raises:
      TypeError: wrong dtypes, or scores and labels of the same shape (see binary_statistics).
      ValueError: shapes that do not fit, coef < 0.

    Numerics:
      Natural logarithm, in float32 whatever the logits' dtype. Large negative logits are
      punished like large positive ones: log Z = -500 costs 25 at the default and pushes up.
      The gradient sums to 2 coef log Z over the classes: it fixes the common offset, which
      cross-entropy leaves free. A label on a class of logit -inf gives NaN.

    Example:
      >>> import jax.numpy as jnp
      >>> penalty = log_partition_penalty(jnp.zeros([1, 8]), jnp.array([0]), coef=1.0)
      >>> bool(jnp.allclose(penalty, jnp.log(8.0) ** 2))
      True

    Evidence: published formula, derived and checked.

    References:
      Wortsman et al., "Small-scale proxies for large-scale Transformer training instabilities",
      ICLR 2024, arXiv 2309.14322; the penalty is from PaLM, arXiv 2204.02311.
    """
    name = "log_partition_penalty"
    if labels is None and not isinstance(scores, LogitStatistics):
        # Any label gives the same log Z; the greatest logit is never a masked class.
        scores = checks.floating(name, "scores", scores)
        labels = jnp.argmax(scores, axis=-1) if scores.ndim else jnp.zeros((), jnp.int32)
    scores, labels, where = check_scores(name, scores, labels, where)
    return _penalty(scores, labels, checks.number(name, "coef", coef, low=0.0), where)


@jax.jit
def _penalty(scores, labels, coef, where):
    stats = as_statistics(scores, labels, where)
    log_z = stats.log_partition
    # Not coef times the square, which overflows where the penalty does not.
    return numerics.masked((numerics.scalar(coef, log_z) * log_z) * log_z, where)
