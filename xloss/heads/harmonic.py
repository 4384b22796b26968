# SPDX-License-Identifier: Apache-2.0
"""The harmonic head: logits from distances to class centres.

Baek, Liu, Tyagi, Tegmark. Reach for it when rows of the output layer should be prototypes that
can be read, or when weights grow without end under cross-entropy. Because the scores are logits,
every loss of the catalogue applies to them, not only cross-entropy.
"""

from typing import Any

import jax
from jax.typing import ArrayLike

from xloss import checks, numerics
from xloss.heads.pairwise import pairwise_distance
from xloss.typing import Array


def harmonic_logits(
    features: ArrayLike,
    centres: ArrayLike,
    *,
    distance: str = "euclidean",
    exponent: ArrayLike = 1.0,
    **options: Any,
) -> Array:
    """Harmonic logits, -n log of the distance of every feature vector to every class centre.

    Definition::

        z_k = -n log D(x, w_k);   softmax(z)_k = D_k^-n / sum_j D_j^-n

    ::

        losses = cross_entropy(harmonic_logits(features, centres, exponent=4.0), labels)

    is the harmonic loss (``classification.harmonic`` of the distances, the same numbers).

    Args:
      features: x [..., d], any float dtype.
      centres: w [d, V], one class a COLUMN as in every kernel of xloss; the papers' [V, d] is
        its transpose. No bias.
      distance: one of ``heads.DISTANCES``; see :func:`pairwise_distance`. "euclidean" is the
        SQUARED distance, as in the authors' code: the paper's exponent is 2 n.
      exponent: n >= 0, scalar, traced.
      **options: of the distance (eps, p, alpha, matrix, key, chunk, ...), as in
        :func:`pairwise_distance`.

    Returns:
      Logits [..., V], float32 (float64 if either input is float64); at most -n log eps.

    Raises:
      TypeError: wrong dtypes.
      ValueError: shapes that do not fit, an unknown distance, an option that it does not have or
        that is out of range.

    Numerics:
      Finite with finite gradient where features sit on a centre. Logarithms only, no powers:
      exponents of hundreds are fine. A common factor on all distances changes all logits by
      the same number, hence no softmax loss.

    Example:
      >>> import jax.numpy as jnp
      >>> centres = jnp.array([[0.0, 1.0, 4.0]])  # d = 1, three classes
      >>> z = harmonic_logits(jnp.array([[2.0]]), centres, exponent=2.0, eps=1e-9)
      >>> [round(float(x), 4) for x in jnp.exp(-z)[0]]  # squared distances, squared
      [16.0, 1.0, 16.0]

    Evidence: authors' code.

    References:
      Baek, Liu, Tyagi, Tegmark, "Harmonic Loss Trains Interpretable AI Models", TMLR 2025,
      arXiv 2502.01628; authors' code KindXiaoming/grow-crystals. Departure: their division by
      the least distance cancels and is left out.
    """
    exponent = checks.number("harmonic_logits", "exponent", exponent, low=0.0)
    distances = pairwise_distance(features, centres, distance=distance, **options)
    return _logits(distances, exponent)


@jax.jit
def _logits(distances, exponent):
    return numerics.inverse_power_logits(distances, exponent)
