# SPDX-License-Identifier: Apache-2.0
"""Any surrogate phi applied to the margin: hinge, exponential, savage, the user's own.

Bartlett, Jordan, McAuliffe, "Convexity, Classification, and Risk Bounds". Reach for it for the
fixed surrogates of binary classification, and for a surrogate of one's own, in training and in
``consistency`` alike. With K classes the margin is the log-odds of the true class.
"""

import jax
from jax.typing import ArrayLike

from xloss import numerics
from xloss.statistics import as_statistics, check_scores
from xloss.surrogates import logistic
from xloss.typing import Array, Scores, Surrogate


def margin_loss(
    scores: Scores,
    labels: ArrayLike | None = None,
    surrogate: Surrogate = logistic,
    *,
    where: ArrayLike | None = None,
) -> Array:
    """phi(m) of the margin m.

    Definition::

        loss = phi(m);  binary: m = (2 y - 1) f;  K classes: m = log p_y / (1 - p_y)

    Args:
      scores: logits [..., K] of any float dtype, or LogitStatistics (``binary_statistics`` for
        one score per example).
      labels: integer [...] in [0, K); None beside LogitStatistics.
      surrogate: elementwise function of a margin array: one of ``xloss.surrogates``, one bound
        to hyperparameters with ``surrogates.bind``, or the user's own. A new lambda in every
        call compiles in every call; a module-level function does not.
      where: bool [...]; False means loss and gradient exactly 0.

    Returns:
      Losses [...], in the dtype that the surrogate returns (float32 for xloss's own).

    Raises:
      TypeError: wrong dtypes, a surrogate that is not callable.
      ValueError: shapes that do not fit, a surrogate that changes the shape.

    Numerics:
      Those of the surrogate; a masked example's margin is 0 before the surrogate sees it.

    Example:
      >>> import jax.numpy as jnp, xloss
      >>> stats = xloss.binary_statistics(jnp.array([0.25, -3.0]), jnp.array([1, 0]))
      >>> margin_loss(stats, surrogate=xloss.surrogates.hinge).tolist()
      [0.75, 0.0]

    Evidence: published formula, derived and checked.

    References:
      Bartlett, Jordan, McAuliffe, "Convexity, Classification, and Risk Bounds", JASA 2006. That
      paper is about the binary case; phi of the log-odds is its K-class form.
    """
    name = "margin_loss"
    scores, labels, where = check_scores(name, scores, labels, where)
    if not callable(surrogate):
        raise TypeError(f"{name}: expected surrogate to be callable, got {surrogate!r}")
    if not isinstance(surrogate, jax.tree_util.Partial):
        surrogate = jax.tree_util.Partial(surrogate)
    return _margin_loss(scores, labels, surrogate, where)


@jax.jit
def _margin_loss(scores, labels, surrogate, where):
    margins = as_statistics(scores, labels, where).log_odds
    if where is not None:
        margins = numerics.masked(margins, where)
    losses = surrogate(margins)
    if getattr(losses, "shape", None) != margins.shape:
        raise ValueError(
            f"margin_loss: expected surrogate to map shape {margins.shape} to itself, "
            f"got {getattr(losses, 'shape', losses)}"
        )
    return numerics.masked(losses, where)
