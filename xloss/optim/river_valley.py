# SPDX-License-Identifier: Apache-2.0
"""A loss with a river and hills: the picture behind warmup-stable-decay, in two dimensions.

"Understanding Warmup-Stable-Decay Learning Rates: A River Valley Loss Landscape Perspective". Reach
for it to see a schedule at work in a second: a high rate moves fast along the river while noise
keeps it up the hills, and a decay takes it down without losing the way made.
"""

import jax.numpy as jnp
from jax.typing import ArrayLike

from xloss import checks, numerics
from xloss.typing import Array


def river_valley_loss(
    params: ArrayLike, *, slope: ArrayLike = 0.5, hill_curvature: ArrayLike = 4.0
) -> Array:
    """A curved valley floor that descends slowly, between walls that are steep.

    Definition, for params (x, y)::

        -slope x + hill_curvature / 2 (y - sin x)^2

    The river is y = sin x, the progress along it x; the second term is the height on the hill.

    Args:
      params: [..., 2], any float dtype, the pair (x, y).
      slope: descent of the river per unit of x, scalar, traced.
      hill_curvature: second derivative across the river (in y), scalar >= 0, traced. Gradient
        descent is stable at rates below 2 / (hill_curvature (1 + cos^2 x)).

    Returns:
      Losses [...], float32 (float64 for float64).

    Raises:
      TypeError: params not of a float dtype.
      ValueError: a last axis that is not of length 2, hill_curvature < 0.

    Numerics:
      Unbounded below. In float32 the descent is lost in rounding once x exceeds about 1e6.

    Example:
      >>> import jax.numpy as jnp
      >>> on_the_river, on_a_hill = jnp.array([[0.0, 0.0], [0.0, 1.0]])
      >>> float(river_valley_loss(on_the_river)), float(river_valley_loss(on_a_hill))
      (0.0, 2.0)

    Evidence: reconstruction.

    References:
      "Understanding Warmup-Stable-Decay Learning Rates: A River Valley Loss Landscape Perspective",
      ICLR 2025, arXiv 2410.05192. The paper defines the landscape by its properties; this formula
      is a smallest example of them and not the paper's.
    """
    name = "river_valley_loss"
    params = numerics.promote(checks.floating(name, "params", params))
    if params.ndim == 0 or params.shape[-1] != 2:
        raise ValueError(f"{name}: expected params of shape [..., 2], got {params.shape}")
    slope = checks.number(name, "slope", slope)
    hill_curvature = checks.number(name, "hill_curvature", hill_curvature, low=0.0)
    x, y = params[..., 0], params[..., 1]
    height = 0.5 * numerics.scalar(hill_curvature, x) * jnp.square(y - jnp.sin(x))
    return height - numerics.scalar(slope, x) * x
