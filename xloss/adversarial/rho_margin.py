# SPDX-License-Identifier: Apache-2.0
"""Adversarial rho-margin comp-sum loss: the worst of a finite set of perturbed inputs.

Mao, Mohri, Zhong, "Cross-Entropy Loss Functions: Theoretical Analysis and Applications". The
theory's loss, bounded and of vanishing gradient beyond the margin: reach for it to evaluate and
to compare with its smooth bound :func:`smooth_adversarial_comp_sum`, which is the one to train.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from xloss import checks, numerics, surrogates
from xloss.statistics import check_scores
from xloss.typing import Array


def adversarial_rho_margin(
    candidate_logits: ArrayLike,
    labels: ArrayLike,
    *,
    tau: ArrayLike = 1.0,
    rho: ArrayLike = 1.0,
    where: ArrayLike | None = None,
) -> Array:
    """Comp-sum of rho-margin losses, at the worst of M candidates.

    Definition, with scores z^m at the m-th candidate input of an example::

        S_m = sum over k != y of min(max(0, 1 - (z^m_y - z^m_k) / rho), 1)
        loss = max over m of Phi_tau(S_m);  Phi_tau(u) = ((1 + u)^(1 - tau) - 1) / (1 - tau)

    If a candidate is misclassified then S >= 1, so Phi_tau(1) times the adversarial zero-one loss
    is below the loss (over the same candidates).

    Args:
      candidate_logits: scores [M, ..., K] of any float dtype: the same examples at M inputs, the
        clean one and the results of attacks, say.
      labels: integer y [...] in [0, K).
      tau: comp-sum parameter, scalar >= 0, traced.
      rho: margin, scalar > 0, traced.
      where: bool [...]; False means loss and gradient exactly 0.

    Returns:
      Losses [...] in [0, Phi_tau(K - 1)], float32 (float64 for float64 scores).

    Raises:
      TypeError: wrong dtypes, LogitStatistics.
      ValueError: shapes that do not fit, no candidates, hyperparameters out of range.

    Numerics:
      Phi_tau increases, so the worst candidate does not depend on tau; candidates that tie share
      the gradient. Classes of logit -inf contribute 0.

    Example:
      >>> import jax.numpy as jnp
      >>> candidates = jnp.array([[[2.0, 0.0]], [[0.5, 0.0]]])
      >>> loss = adversarial_rho_margin(candidates, jnp.array([0]), tau=1.0)
      >>> bool(jnp.allclose(loss, jnp.log1p(0.5)))
      True

    Evidence: published formula, derived and checked.

    References:
      Mao, Mohri, Zhong, "Cross-Entropy Loss Functions: Theoretical Analysis and Applications",
      ICML 2023, arXiv 2304.07288. No authors' code is known. The supremum over the ball is taken
      here over the candidates that are given: a lower bound of the paper's.
    """
    name = "adversarial_rho_margin"
    if not hasattr(candidate_logits, "log_odds"):  # statistics are refused below, by their name
        candidate_logits = checks.floating(name, "scores", candidate_logits)
        if candidate_logits.ndim == 0 or candidate_logits.shape[0] == 0:
            raise ValueError(
                f"{name}: expected candidate_logits [M, ..., K] with M >= 1, got shape "
                f"{candidate_logits.shape}"
            )
        one = candidate_logits[0]
    else:
        one = candidate_logits
    _, labels, where = check_scores(name, one, labels, where, needs_logits=True)
    tau = checks.number(name, "tau", tau, low=0.0)
    rho = checks.number(name, "rho", rho, low=0.0, open_low=True)
    return _adversarial_rho_margin(candidate_logits, labels, tau, rho, where)


@jax.jit
def _adversarial_rho_margin(logits, labels, tau, rho, where):
    if where is not None:
        logits = jnp.where(where[..., None], logits, jnp.zeros_like(logits))
        labels = numerics.masked(labels, where)
    z = numerics.promote(logits)
    labels = jnp.broadcast_to(labels, z.shape[:-1])
    rho = numerics.scalar(rho, z)
    target = numerics.take_last(z, labels)[..., None]
    # The margin loss is constant outside [0, rho]; held near it, an infinite gap (a masked class)
    # does not meet that 0 slope in the derivatives.
    edge = jax.lax.stop_gradient(rho)
    gaps = jnp.where(jnp.isneginf(z), 2.0 * edge, jnp.clip(target - z, -edge, 2.0 * edge))
    hit = numerics.one_hot_last(labels, z.shape)
    margins = jnp.where(hit, jnp.zeros_like(z), surrogates.rho_margin(gaps, rho=rho))
    worst = numerics.max_last(jnp.moveaxis(jnp.sum(margins, axis=-1), 0, -1))
    losses = numerics.scaled_expm1(1.0 - numerics.scalar(tau, z), jnp.log1p(worst))
    return numerics.masked(losses, where)
