# SPDX-License-Identifier: Apache-2.0
"""The lower convex envelope of a sampled function: the greatest convex function below it.

What the psi-transform of a loss that is not convex needs: Jensen's inequality turns a pointwise
bound into one on expectations only if the transform is convex.
"""

import numpy as np
from numpy.typing import ArrayLike

from xloss.consistency import host


def convex_envelope(theta: ArrayLike, values: ArrayLike) -> np.ndarray:
    """The lower convex envelope of points (theta, values), at theta.

    Definition: the biconjugate of the function that is ``values`` at ``theta`` and +inf elsewhere,
    by the monotone chain (the lower half of the points' convex hull).

    Args:
      theta: places [N], strictly increasing.
      values: [N]; +inf is allowed and stays +inf beyond the finite ones.

    Returns:
      float64 [N], <= values, convex in theta.

    Raises:
      TypeError: not numeric.
      ValueError: shapes differ, theta not strictly increasing, NaN.

    Numerics:
      Points on the envelope keep their value to the bit; a convex input comes back unchanged, a
      second application changes nothing beyond rounding.

    Example:
      >>> convex_envelope([0.0, 1.0, 2.0], [0.0, 3.0, 2.0]).tolist()
      [0.0, 1.0, 2.0]

    References:
      Bartlett, Jordan, McAuliffe, "Convexity, Classification, and Risk Bounds", JASA 2006.
    """
    name = "convex_envelope"
    theta = host.array(name, "theta", theta)
    values = host.array(name, "values", values)
    if theta.ndim != 1 or theta.shape != values.shape:
        raise ValueError(
            f"{name}: expected theta [N] and values [N], got {list(theta.shape)} and "
            f"{list(values.shape)}"
        )
    if not (np.isfinite(theta).all() and (np.diff(theta) > 0).all()):
        raise ValueError(f"{name}: expected theta to be finite and strictly increasing")
    finite = np.flatnonzero(values < np.inf)
    if finite.size < 3:
        return _interpolate(theta, values, finite)
    hull: list[int] = []
    for i in finite.tolist():
        while len(hull) >= 2 and _above(theta, values, hull[-2], hull[-1], i):
            hull.pop()
        hull.append(i)
    return _interpolate(theta, values, np.array(hull))


def _above(theta: np.ndarray, values: np.ndarray, a: int, b: int, c: int) -> bool:
    """Whether point b lies strictly above the line from a to c."""
    left = (values[b] - values[a]) * (theta[c] - theta[a])
    return bool(left > (values[c] - values[a]) * (theta[b] - theta[a]))


def _interpolate(theta: np.ndarray, values: np.ndarray, hull: np.ndarray) -> np.ndarray:
    if hull.size == 0:
        return values.copy()
    found = np.interp(theta, theta[hull], values[hull], left=np.inf, right=np.inf)
    # Rounding must not lift the envelope above the function, nor move the hull's own points.
    found = np.minimum(found, values)
    found[hull] = values[hull]
    return found
