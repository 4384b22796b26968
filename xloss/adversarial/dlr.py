# SPDX-License-Identifier: Apache-2.0
"""Difference of logits ratio (DLR): an attack objective that no scaling of the logits can blind.

Croce, Hein, "Reliable evaluation of adversarial robustness with an ensemble of diverse
parameter-free attacks". Reach for it, through :func:`xloss.adversarial.apgd`, where cross-entropy
has no gradient left because logits are large, or were made large by a defence.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from xloss import checks, numerics
from xloss.statistics import check_scores, logit_statistics
from xloss.typing import Array

#: What keeps the ratio finite where the leading logits are tied, the authors'.
_EPS = 1e-12


def dlr(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    targets: ArrayLike | None = None,
    where: ArrayLike | None = None,
) -> Array:
    """How far the true class is behind, in units of the spread of the leading logits.

    Definition, z_(r) being the r-th largest logit; an attack maximises it::

        -(z_y - max over k != y of z_k) / (z_(1) - z_(3) + 1e-12)
        targeted:  -(z_y - z_t) / (z_(1) - (z_(3) + z_(4)) / 2 + 1e-12)

    > 0 exactly if the true class is not in front (targeted: behind the target). z -> a z + b with
    a > 0 changes nothing.

    Args:
      logits: z [..., K] of any float dtype, K >= 3; targeted K >= 4.
      labels: integer y [...] in [0, K).
      targets: integer t [...] in [0, K), the classes to be taken for; None for any.
      where: bool [...]; False means value and gradient exactly 0.

    Returns:
      Values [...], float32 (float64 for float64 logits).

    Raises:
      TypeError: wrong dtypes, LogitStatistics (it reads the third logit).
      ValueError: shapes that do not fit, too few classes: use cross-entropy or the margin there.

    Numerics:
      The gradient flows through numerator and denominator; where the leading logits are tied the
      latter is 1e-12 and the gradient 1e12. Classes of logit -inf need three (four) others.

    Example:
      >>> import jax.numpy as jnp
      >>> dlr(jnp.array([[4.0, 3.0, 2.0]]), jnp.array([0])).tolist()
      [-0.5]

    Evidence: authors' code.

    References:
      Croce, Hein, "Reliable evaluation of adversarial robustness with an ensemble of diverse
      parameter-free attacks", ICML 2020, arXiv 2003.01690; authors' code fra31/auto-attack, which
      fails without a word about it for fewer classes.
    """
    name = "dlr"
    logits, labels, where = check_scores(name, logits, labels, where, needs_logits=True)
    check_classes(name, logits.shape[-1], targeted=targets is not None)
    if targets is not None:
        targets = checks.integer(name, "targets", targets)
        checks.same_shape(name, "targets", targets, labels.shape)
    return _dlr(logits, labels, targets, where)


def check_classes(function: str, classes: int, *, targeted: bool) -> None:
    """Raises ValueError where there are too few classes for the objective."""
    least = 4 if targeted else 3
    if classes < least:
        kind = "targeted DLR" if targeted else "DLR"
        raise ValueError(
            f"{function}: expected at least {least} classes for {kind}, got {classes}; use "
            "cross-entropy or the margin"
        )


@jax.jit
def _dlr(logits, labels, targets, where):
    z = numerics.promote(logits)
    z = z if where is None else jnp.where(where[..., None], z, 0.0)
    labels = numerics.masked(labels, where)
    stats = logit_statistics(z, labels)
    if targets is None:
        top = jax.lax.top_k(z, 3)[0]
        gap, width = stats.lead, top[..., 0] - top[..., 2]
    else:
        targets = numerics.masked(targets, where)
        top = jax.lax.top_k(z, 4)[0]
        gap = numerics.take_last(z, labels) - numerics.take_last(z, targets)
        width = top[..., 0] - 0.5 * (top[..., 2] + top[..., 3])
    return numerics.masked(-gap / (width + _EPS), where)
