# SPDX-License-Identifier: Apache-2.0
"""TRADES: cross-entropy on clean inputs plus how far the attack moves the prediction.

Zhang, Yu, Jiao, Xing, El Ghaoui, Jordan, "Theoretically Principled Trade-off between Robustness
and Accuracy". Reach for it to trade clean against robust accuracy by one weight; its own attack
is :func:`xloss.adversarial.pgd` with ``objective="kl"``.
"""

import jax
from jax.typing import ArrayLike

from xloss import checks, numerics
from xloss.adversarial.logits import check_pair, kl_divergence, promote_pair
from xloss.statistics import logit_statistics
from xloss.typing import Array


def trades(
    logits: ArrayLike,
    adversarial_logits: ArrayLike,
    labels: ArrayLike,
    *,
    beta: ArrayLike = 6.0,
    where: ArrayLike | None = None,
) -> Array:
    """Clean cross-entropy plus beta times the divergence of the attacked prediction.

    Definition, with p = softmax(z) at x and p' = softmax(z') at x'::

        loss = -log p_y + beta sum_k p_k log(p_k / p'_k)

    Args:
      logits: clean scores z [..., K] of any float dtype.
      adversarial_logits: scores z' at the attacked inputs, of the same shape. The gradient flows
        through both, through p in the divergence too.
      labels: integer y [...] in [0, K).
      beta: weight of the divergence, scalar >= 0, traced; 6 is the paper's for CIFAR-10 (the
        default of the authors' function is 1).
      where: bool [...]; False means loss and gradient exactly 0.

    Returns:
      Losses [...] >= 0, float32 (float64 if either logits are).

    Raises:
      TypeError: wrong dtypes, LogitStatistics (the divergence reads every logit).
      ValueError: shapes that do not fit, beta < 0.

    Numerics:
      The divergence is a sum of terms >= 0 that do not cancel where p and p' are close; it is
      exactly 0 for equal logits. Classes of probability 0 and classes of logit -inf in both cost
      nothing; one that is -inf in z' alone makes the loss inf.

    Example:
      >>> import jax.numpy as jnp
      >>> z = jnp.array([[0.0, 0.0]])
      >>> loss = trades(z, jnp.log(jnp.array([[0.25, 0.75]])), jnp.array([0]), beta=2.0)
      >>> bool(jnp.allclose(loss, jnp.log(2.0) + 2.0 * 0.5 * jnp.log(4.0 / 3.0)))
      True

    Evidence: authors' code.

    References:
      Zhang, Yu, Jiao, Xing, El Ghaoui, Jordan, "Theoretically Principled Trade-off between
      Robustness and Accuracy", ICML 2019, arXiv 1901.08573; authors' code yaodongyu/TRADES. It
      reduces to the batch mean; here every example has its own loss.
    """
    name = "trades"
    logits, adversarial, labels, where = check_pair(name, logits, adversarial_logits, labels, where)
    return _trades(logits, adversarial, labels, checks.number(name, "beta", beta, low=0.0), where)


@jax.jit
def _trades(logits, adversarial, labels, beta, where):
    logits, adversarial = promote_pair(logits, adversarial, where)
    labels = numerics.masked(labels, where)
    clean = numerics.nats(logit_statistics(logits, labels).log_odds)
    weight = numerics.scalar(beta, logits)
    moved = numerics.multiply_no_nan(weight, kl_divergence(logits, adversarial))
    return numerics.masked(clean + moved, where)
