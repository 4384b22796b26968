# SPDX-License-Identifier: Apache-2.0
"""The harmonic loss: cross-entropy where a class's score is a power of a distance.

Baek, Liu, Tyagi, Tegmark. Reach for it when class centres should be readable as prototypes, or
where weights must not grow without end: the optimum is finite, features sit on their centres.
This is the pure loss of given distances; ``heads.harmonic_logits`` makes logits of features and
centres, and with those every other loss of the catalogue is a harmonic loss too.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from xloss import checks, numerics
from xloss.classification.cross_entropy import cross_entropy
from xloss.statistics import LogitStatistics, check_scores
from xloss.typing import Array


def harmonic(
    distances: ArrayLike,
    labels: ArrayLike,
    *,
    exponent: ArrayLike = 1.0,
    label_smoothing: ArrayLike = 0.0,
    where: ArrayLike | None = None,
) -> Array:
    """Harmonic loss, -log of the inverse-power probability of the true class.

    Definition, with distances D [..., K] from an example to the K class centres::

        p_k = D_k^-n / sum_j D_j^-n;   loss = -log p_y = cross_entropy(-n log D, y)

    WHICH DISTANCE: in the paper D is the Euclidean distance; in the authors' code, and in
    ``heads.pairwise_distance(distance="euclidean")``, its square (plus eps), so that the paper's
    exponent is twice the one given here.

    Args:
      distances: D [..., K] >= 0 of any float dtype; +inf is a class that is masked out. Not
        logits, and no LogitStatistics: statistics of ``heads.harmonic_logits`` go to
        :func:`cross_entropy`.
      labels: integer y [...] in [0, K).
      exponent: n >= 0, scalar, traced; about sqrt(d) of the paper's distance is advised for
        transformers of width d.
      label_smoothing: in [0, 1], as in :func:`cross_entropy`.
      where: bool [...]; False means loss and gradient exactly 0.

    Returns:
      Losses [...] in nats, >= 0, float32 (float64 for float64 distances).

    Raises:
      TypeError: wrong dtypes, LogitStatistics, or distances and labels of the same shape.
      ValueError: shapes that do not fit, hyperparameters out of range.

    Numerics:
      In log space only: no power is formed, so exponents of hundreds do not overflow, and the
      authors' division by the least distance, which cancels, is not needed. A distance of 0
      counts as the smallest normal float, with gradient 0; a negative one gives NaN.

    Example:
      >>> import jax.numpy as jnp
      >>> loss = harmonic(jnp.array([[1.0, 2.0, 2.0]]), jnp.array([0]), exponent=1.0)
      >>> bool(jnp.allclose(loss, jnp.log(2.0)))  # 1 : 1/2 : 1/2
      True

    Evidence: authors' code.

    References:
      Baek, Liu, Tyagi, Tegmark, "Harmonic Loss Trains Interpretable AI Models", TMLR 2025,
      arXiv 2502.01628; authors' code KindXiaoming/grow-crystals. Departures: their GPT-2 head
      gives 0 / 0 at distance 0 and replaces what is not a number afterwards; the 1e-8 that
      other code adds to the probability is left out.
    """
    name = "harmonic"
    if isinstance(distances, LogitStatistics):
        raise TypeError(
            f"{name}: expected distances [..., K], got LogitStatistics from {distances.provider} "
            "(those of heads.harmonic_logits go to cross_entropy)"
        )
    distances = checks.floating(name, "distances", distances)
    if distances.shape == jnp.shape(labels):
        raise TypeError(
            f"{name}: expected distances [..., K] with labels [...], got the same shape "
            f"{distances.shape} for both"
        )
    distances, labels, where = check_scores(name, distances, labels, where)
    exponent = checks.number(name, "exponent", exponent, low=0.0)
    smoothing = checks.number(name, "label_smoothing", label_smoothing, low=0.0, high=1.0)
    logits = _logits(distances, exponent, where)
    return cross_entropy(logits, labels, label_smoothing=smoothing, where=where)


@jax.jit
def _logits(distances, exponent, where):
    if where is not None:
        distances = jnp.where(where[..., None], distances, jnp.ones_like(distances))
    return numerics.inverse_power_logits(distances, exponent)
