# SPDX-License-Identifier: Apache-2.0
"""Smooth adversarial comp-sum loss: a comp-sum loss plus how far the score gaps can be moved.

Mao, Mohri, Zhong, "Cross-Entropy Loss Functions: Theoretical Analysis and Applications"
(ADV-COMP-SUM). Reach for it to train against perturbed inputs with a bound behind it; find the
adversarial inputs with :func:`xloss.adversarial.maximize_score_displacement`.
"""

import jax
from jax.typing import ArrayLike

from xloss import checks, numerics, surrogates
from xloss.adversarial.logits import check_pair, displacement_norm, promote_pair
from xloss.statistics import logit_statistics
from xloss.typing import Array


def smooth_adversarial_comp_sum(
    logits: ArrayLike,
    adversarial_logits: ArrayLike,
    labels: ArrayLike,
    *,
    tau: ArrayLike = 1.0,
    rho: ArrayLike = 1.0,
    nu: ArrayLike = 1.0,
    where: ArrayLike | None = None,
) -> Array:
    """Comp-sum loss of the clean scores plus nu times the displacement of the score gaps.

    Definition, with scores z at x and z' at x', gaps D = (z_y - z_k) over k != y::

        loss = comp_sum(z / rho, y; tau) + nu ||D' - D||_2

    It bounds the adversarial rho-margin loss (:func:`adversarial_rho_margin`) where x' attains
    the supremum of the norm over the ball and nu >= sqrt(K - 1) / rho.

    Args:
      logits: clean scores z [..., K] of any float dtype.
      adversarial_logits: scores z' at the attacked inputs, of the same shape. The gradient flows
        through both; what must not flow is the gradient through the attack.
      labels: integer y [...] in [0, K).
      tau: comp-sum parameter, scalar >= 0, traced.
      rho: margin scale, scalar > 0, traced.
      nu: weight of the displacement, scalar >= 0, traced. Too large a weight collapses training
        to a constant predictor (tau = nu = 1 does on small data): raise it from about 0.3.
      where: bool [...]; False means loss and gradient exactly 0.

    Returns:
      Losses [...] >= 0, float32 (float64 if either logits are).

    Raises:
      TypeError: wrong dtypes, LogitStatistics (the norm reads every logit).
      ValueError: shapes that do not fit, hyperparameters out of range.

    Numerics:
      Where both logits agree the norm is 0 with gradient 0, a subgradient. Classes of logit -inf
      in both are left out; one that is -inf in one of them alone makes the loss inf. For tau < 1
      the first term overflows as that of ``classification.comp_sum``.

    Example:
      >>> import jax.numpy as jnp
      >>> clean, attacked = jnp.array([[1.0, 0.0]]), jnp.array([[0.5, 0.25]])
      >>> loss = smooth_adversarial_comp_sum(clean, attacked, jnp.array([0]), tau=2.0, nu=2.0)
      >>> bool(jnp.allclose(loss, 1 - 1 / (1 + jnp.exp(-1.0)) + 2.0 * 0.75))
      True

    Evidence: published formula, derived and checked.

    References:
      Mao, Mohri, Zhong, "Cross-Entropy Loss Functions: Theoretical Analysis and Applications",
      ICML 2023, arXiv 2304.07288. No authors' code is known.
    """
    name = "smooth_adversarial_comp_sum"
    logits, adversarial, labels, where = check_pair(name, logits, adversarial_logits, labels, where)
    hyperparameters = (
        checks.number(name, "tau", tau, low=0.0),
        checks.number(name, "rho", rho, low=0.0, open_low=True),
        checks.number(name, "nu", nu, low=0.0),
    )
    return _smooth_adversarial_comp_sum(logits, adversarial, labels, hyperparameters, where)


@jax.jit
def _smooth_adversarial_comp_sum(logits, adversarial, labels, hyperparameters, where):
    logits, adversarial = promote_pair(logits, adversarial, where)
    labels = numerics.masked(labels, where)
    tau, rho, nu = (numerics.scalar(h, logits) for h in hyperparameters)
    clean = surrogates.comp_sum(logit_statistics(logits, labels, temperature=rho).log_odds, tau=tau)
    moved = displacement_norm(logits, adversarial, labels)
    return numerics.masked(clean + numerics.multiply_no_nan(nu, moved), where)
