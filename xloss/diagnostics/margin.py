# SPDX-License-Identifier: Apache-2.0
"""How far the true class leads: margins of a training set and their low percentile.

The output margin of Jiang et al., "Fantastic Generalization Measures and Where to Find Them".
Reach for it to compare models that all fit their training data; :func:`norm_measures` divides by
it. The mean margin is another number: it says little about the examples that are nearly lost.
"""

import functools

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from xloss import checks, numerics
from xloss.statistics import logit_statistics
from xloss.typing import Array


def margins(logits: ArrayLike, labels: ArrayLike, *, where: ArrayLike | None = None) -> Array:
    """By how much the logit of the true class exceeds the greatest other one.

    Definition, logits f [..., K] and true class y::

        margin = f_y - max over j != y of f_j          [...]

    Args:
      logits: [..., K], any float dtype; -inf marks a class that is masked out.
      labels: integer [...] in [0, K).
      where: bool [...]; False means the example is masked.

    Returns:
      Margins [...] in the unit of the logits, float32 (float64 for float64); > 0 iff the
      prediction is right, and exactly 0 where masked: give :func:`margin_percentile` the same
      ``where``.

    Raises:
      TypeError: wrong dtypes.
      ValueError: shapes that do not fit.

    Numerics:
      Labels outside [0, K), negative ones too, give NaN. K = 1 gives +inf.

    Example:
      >>> import jax.numpy as jnp
      >>> margins(jnp.array([[3.0, 1.0, 0.0], [0.0, 1.0, 3.0]]), jnp.array([0, 1])).tolist()
      [2.0, -2.0]

    Evidence: authors' code.

    References:
      Jiang, Neyshabur, Mobahi, Krishnan, Bengio, "Fantastic Generalization Measures and Where to
      Find Them", ICLR 2020, arXiv 1912.02178; code nitarshan/robust-generalization-measures of
      Dziugaite et al.
    """
    lead = logit_statistics(logits, labels, where=where).lead
    return numerics.masked(lead, checks.mask("margins", where, lead.shape))


def margin_percentile(
    margins: ArrayLike, *, percent: int = 10, where: ArrayLike | None = None
) -> Array:
    """The margin that all but a few per cent of the examples reach, with its sign.

    Definition, of m margins: the k-th smallest, k = max(1, floor(m percent / 100)).

    Args:
      margins: [...], any float dtype and shape, all of the training set.
      percent: int in [1, 100], static; 10 in the paper, so that k = m // 10.
      where: bool [...]; masked margins are neither ranked nor counted in m.

    Returns:
      Scalar, float32 (float64 for float64). It is negative where more than percent of the examples
      are misclassified: measures "over margin" then speak of a network that does not fit.

    Raises:
      TypeError: wrong dtypes.
      ValueError: no margins, percent outside [1, 100], where of another shape.

    Numerics:
      NaN if one of the margins is NaN (a label outside its range), or if all are masked.

    Example:
      >>> import jax.numpy as jnp
      >>> float(margin_percentile(jnp.arange(-1.0, 29.0)))  # the third of 30
      1.0

    Evidence: authors' code.

    References:
      Jiang, Neyshabur, Mobahi, Krishnan, Bengio, "Fantastic Generalization Measures and Where to
      Find Them", ICLR 2020, arXiv 1912.02178; code nitarshan/robust-generalization-measures of
      Dziugaite et al., which takes the absolute value of it (here the sign is kept) and fails for
      fewer than 10 examples (here k is 1).
    """
    name = "margin_percentile"
    values = numerics.promote(checks.floating(name, "margins", margins))
    if values.size == 0:
        raise ValueError(f"{name}: expected at least one margin, got shape {values.shape}")
    if type(percent) is not int or not 1 <= percent <= 100:
        raise ValueError(f"{name}: expected percent to be an int in [1, 100], got {percent!r}")
    where = checks.mask(name, where, values.shape)
    return _percentile(values, where, percent=percent)


@functools.partial(jax.jit, static_argnames="percent")
def _percentile(values, where, *, percent):
    if where is None:
        where = jnp.ones(values.shape, jnp.bool_)
    count = jnp.sum(where, dtype=jnp.int32)
    # floor(count percent / 100) in integers that do not overflow.
    rank = count // 100 * percent + count % 100 * percent // 100
    rank = jnp.clip(rank, 1, jnp.maximum(count, 1))
    ordered = jnp.sort(jnp.where(where, values, jnp.inf), axis=None)
    # sort puts NaN last, where it would pass for a great margin.
    lost = (count == 0) | jnp.any(where & jnp.isnan(values))
    return jnp.where(lost, jnp.nan, ordered[rank - 1])
