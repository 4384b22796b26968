# SPDX-License-Identifier: Apache-2.0
"""The harmonic head: logits from distances to class centres.

Baek, Liu, Tyagi, Tegmark. Reach for it when rows of the output layer should be prototypes that
can be read, or when weights grow without end under cross-entropy. Because the scores are logits,
every loss of the catalogue applies to them, not only cross-entropy.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.typing import ArrayLike

from xloss import checks, numerics
from xloss.heads import arguments, distances, engine, plan
from xloss.heads.linear import as_statistics
from xloss.heads.pairwise import check_options, pairwise_distance, prepare
from xloss.heads.scoring import Harmonic
from xloss.heads.sharded import spread
from xloss.statistics import LogitStatistics
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
    found = pairwise_distance(features, centres, distance=distance, **options)
    return _logits(found, exponent)


@jax.jit
def _logits(found, exponent):
    return numerics.inverse_power_logits(found, exponent)


def harmonic_statistics(
    features: ArrayLike,
    centres: ArrayLike,
    labels: ArrayLike,
    *,
    distance: str = "euclidean",
    exponent: ArrayLike = 1.0,
    where: ArrayLike | None = None,
    num_classes: int | None = None,
    max_temp_bytes: int | None = None,
    mesh: Mesh | None = None,
    class_axis: str | None = None,
    matrix: ArrayLike | None = None,
    key: jax.Array | None = None,
    **options: Any,
) -> LogitStatistics:
    """Statistics of the harmonic logits at the labels, a block of classes at a time.

    The same numbers and gradients as ``logit_statistics(harmonic_logits(...), labels)``, by the
    engine of :func:`xloss.heads.linear_statistics`: neither [tokens, V] nor, for the elementwise
    distances, [tokens, V, d] ever exists.

    Args:
      features, centres: x [..., d] and w [d, V], one class a column.
      labels: integer [...] in [0, num_classes).
      distance, exponent: as in :func:`harmonic_logits`.
      where, num_classes, max_temp_bytes, mesh, class_axis: as in
        :func:`xloss.heads.linear_statistics`.
      matrix, key, **options: of the distance, as in :func:`pairwise_distance` (without chunk).

    Returns:
      LogitStatistics [...] with every field, float32 (float64 if an input is).

    Raises:
      TypeError, ValueError: as :func:`pairwise_distance` and ``linear_statistics``.

    Numerics:
      As :func:`harmonic_logits` and ``linear_statistics``; low-precision inputs are widened first.

    Example:
      >>> import jax.numpy as jnp, xloss
      >>> centres = jnp.array([[0.0, 1.0, 4.0]])
      >>> stats = harmonic_statistics(jnp.array([[2.0]]), centres, jnp.array([1]), exponent=2.0)
      >>> round(float(jnp.exp(stats.log_prob)[0]), 3)  # 1 against 1/16 and 1/16
      0.889

    Evidence: published formula, derived and checked.

    References:
      Baek, Liu, Tyagi, Tegmark, "Harmonic Loss Trains Interpretable AI Models", TMLR 2025,
      arXiv 2502.01628; the distances as :func:`pairwise_distance`.
    """
    name = "harmonic_statistics"
    given = arguments.check(
        name, features, centres, labels, kernel_name="centres", where=where,
        num_classes=num_classes, max_temp_bytes=max_temp_bytes, mesh=mesh, class_axis=class_axis,
    )  # fmt: skip
    width = given.hidden.shape[-1]
    settings, matrix = check_options(name, distance, width, options, matrix, key)
    settings["exponent"] = checks.number(name, "exponent", exponent, low=0.0)
    if matrix is not None:
        settings["matrix"] = matrix
    # An elementwise distance holds the differences of a block, and what their gradient needs.
    inner = 0 if distance in distances.THROUGH_MATMUL else 4 * width
    layer = given.layer(Harmonic(distance), plan.lean(dataclasses.replace(given.size, inner=inner)))
    plain = "xloss.logit_statistics(harmonic_logits(...), labels)"
    return arguments.call(
        name, plain, _statistics, given.hidden, given.kernel, settings, given.labels, given.where,
        key, layer=layer, mesh=mesh,
    )  # fmt: skip


@functools.partial(jax.jit, static_argnames=("layer", "mesh"))
def _statistics(features, centres, settings, labels, where, key, *, layer, mesh):
    wide = numerics.working_dtype(jnp.promote_types(features.dtype, centres.dtype))
    features, centres = features.astype(wide), centres.astype(wide)
    arrays = arguments.arrays(features, centres, None, settings, labels, where, layer=layer)
    alone = {k: v for k, v in arrays.settings.items() if k not in ("exponent", "matrix")}
    x, w = prepare(layer.head.distance, arrays.hidden, arrays.columns.T, key, alone)
    arrays = dataclasses.replace(arrays, hidden=x, columns=w.T)
    fields = spread(
        lambda arrays, *_: engine.statistics(layer, arrays),
        arrays,
        mesh=mesh,
        class_axis=layer.axis,
    )
    return as_statistics(fields, labels.shape, layer, {}, "harmonic_statistics")
