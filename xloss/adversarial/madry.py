# SPDX-License-Identifier: Apache-2.0
"""Adversarial training as it began: cross-entropy at the attacked inputs.

Madry, Makelov, Schmidt, Tsipras, Vladu, "Towards Deep Learning Models Resistant to Adversarial
Attacks". Reach for it as the baseline of every other method; attack with
:func:`xloss.adversarial.pgd`.
"""

import jax
from jax.typing import ArrayLike

from xloss import numerics
from xloss.statistics import as_statistics, check_scores
from xloss.typing import Array, Scores


def madry(
    adversarial_logits: Scores,
    labels: ArrayLike | None = None,
    *,
    where: ArrayLike | None = None,
) -> Array:
    """Cross-entropy of the adversarial logits.

    Definition, with p' = softmax(z') at x' = the attack's result::

        loss = -log p'_y

    The same function as ``classification.cross_entropy``, under the name of what is trained: it
    is given adversarial logits alone.

    Args:
      adversarial_logits: scores z' [..., K] at the attacked inputs, of any float dtype, or
        LogitStatistics of them.
      labels: integer y [...] in [0, K); None beside LogitStatistics.
      where: bool [...]; False means loss and gradient exactly 0.

    Returns:
      Losses [...] >= 0, float32 (float64 for float64 scores).

    Raises:
      TypeError: wrong dtypes, or scores and labels of the same shape (see binary_statistics).
      ValueError: shapes that do not fit.

    Numerics:
      softplus(-m) of the log-odds: finite and accurate for every finite logit.

    Example:
      >>> import jax.numpy as jnp
      >>> bool(jnp.allclose(madry(jnp.zeros([1, 4]), jnp.array([0])), jnp.log(4.0)))
      True

    Evidence: published formula, derived and checked.

    References:
      Madry, Makelov, Schmidt, Tsipras, Vladu, "Towards Deep Learning Models Resistant to
      Adversarial Attacks", ICLR 2018, arXiv 1706.06083.
    """
    return _madry(*check_scores("madry", adversarial_logits, labels, where))


@jax.jit
def _madry(scores, labels, where):
    stats = as_statistics(scores, labels, where)
    return numerics.masked(numerics.nats(stats.log_odds), where)
