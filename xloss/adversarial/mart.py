# SPDX-License-Identifier: Apache-2.0
"""MART: adversarial training that looks hardest at what is misclassified already.

Wang, Zou, Yi, Bailey, Ma, Gu, "Improving Adversarial Robustness Requires Revisiting Misclassified
Examples". Reach for it beside TRADES; its attack is :func:`xloss.adversarial.pgd` on cross-entropy.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from xloss import checks, numerics
from xloss.adversarial.logits import check_pair, kl_divergence, promote_pair
from xloss.statistics import logit_statistics
from xloss.typing import Array

#: What the authors add to 1 - max p', to 1 - p and to p' in logarithms.
_RIVAL, _WRONG, _FLOOR = 1e-4 + 1e-12, 1e-7, 1e-12


def mart(
    logits: ArrayLike,
    adversarial_logits: ArrayLike,
    labels: ArrayLike,
    *,
    beta: ArrayLike = 5.0,
    where: ArrayLike | None = None,
) -> Array:
    """Boosted cross-entropy at the attack, plus its divergence weighted by how wrong the model is.

    Definition, with p = softmax(z) at x and p' = softmax(z') at x'::

        loss = -log p'_y - log(1.0001 - max over k != y of p'_k)
               + beta (1.0000001 - p_y) sum_k p_k log(p_k / (p'_k + 1e-12))

    Args:
      logits: clean scores z [..., K] of any float dtype.
      adversarial_logits: scores z' at the attacked inputs, of the same shape. The gradient flows
        through both, through the weight 1 - p_y too.
      labels: integer y [...] in [0, K).
      beta: weight of the divergence, scalar >= 0, traced; 5 is that of the authors' training
        script (the default of their function is 6).
      where: bool [...]; False means loss and gradient exactly 0.

    Returns:
      Losses [...], float32 (float64 if either logits are); down to -log(1.0001) for a sure and
      right prediction.

    Raises:
      TypeError: wrong dtypes, LogitStatistics (the divergence reads every logit).
      ValueError: shapes that do not fit, beta < 0.

    Numerics:
      The authors' constants are part of the loss: they cap the logarithms at saturation. 1 - p is
      the sum of the other classes, which does not cancel. The rival's gradient goes to the first of
      tied classes. A class of logit -inf in z' alone costs its log of 1e-12.

    Example:
      >>> import jax.numpy as jnp
      >>> z = jnp.zeros([1, 2])
      >>> bool(jnp.allclose(mart(z, z, jnp.array([0])), jnp.log(2.0) - jnp.log(0.5001)))
      True

    Evidence: authors' code.

    References:
      Wang, Zou, Yi, Bailey, Ma, Gu, "Improving Adversarial Robustness Requires Revisiting
      Misclassified Examples", ICLR 2020; authors' code YisenWang/MART. It reduces to the batch
      mean; here every example has its own loss.
    """
    name = "mart"
    logits, adversarial, labels, where = check_pair(name, logits, adversarial_logits, labels, where)
    return _mart(logits, adversarial, labels, checks.number(name, "beta", beta, low=0.0), where)


@jax.jit
def _mart(logits, adversarial, labels, beta, where):
    logits, adversarial = promote_pair(logits, adversarial, where)
    labels = numerics.masked(labels, where)
    own = numerics.one_hot_last(labels, logits.shape)
    rival = jnp.argmax(jnp.where(own, -jnp.inf, adversarial), axis=-1).astype(labels.dtype)
    rival = jax.lax.stop_gradient(rival)
    odds = logit_statistics(adversarial, rival).log_odds
    if logits.shape[-1] == 1:  # no rival
        odds = jnp.full_like(odds, -jnp.inf)
    q, rest = jax.nn.sigmoid(odds), jax.nn.sigmoid(-odds)
    # log(1.0001 - q), from 1 - q where q is near 1 and from q where it is near 0.
    likely = q > 0.5
    spared = jnp.where(
        likely, jnp.log(rest + _RIVAL), jnp.log1p(_RIVAL - jnp.where(likely, 0.0, q))
    )
    boosted = numerics.nats(logit_statistics(adversarial, labels).log_odds)
    boosted = boosted - spared
    wrong = jax.nn.sigmoid(-logit_statistics(logits, labels).log_odds) + _WRONG
    moved = kl_divergence(logits, adversarial, floor=_FLOOR)
    weight = numerics.scalar(beta, logits) * wrong
    return numerics.masked(boosted + numerics.multiply_no_nan(weight, moved), where)
