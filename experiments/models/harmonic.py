# SPDX-License-Identifier: Apache-2.0
"""The harmonic head as a module: class centres, and the learned matrix of the mahalanobis kinds."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from experiments.data.options import nearest
from xloss.heads import DISTANCES, harmonic_logits

HEADS = ("linear", "harmonic")


def check_head(head: str, distance: str, exponent: float, heads: tuple[str, ...] = HEADS) -> None:
    """Raises ValueError("argument: expected ..., got ...") unless they name a head.

    Args:
      head: one of `heads`.
      distance: checked for a harmonic head and for any other alike.
      exponent: a number > 0.
      heads: those that the model knows.
    """
    for name, value, known in (("head", head, heads), ("distance", distance, DISTANCES)):
        if value not in known:
            raise ValueError(
                f"{name}: expected one of {', '.join(known)}, got {value!r}"
                f"{nearest(str(value), known)}"
            )
    number = isinstance(exponent, (int, float)) and not isinstance(exponent, bool)
    if not number or not 0 < exponent < math.inf:
        raise ValueError(f"exponent: expected a number > 0, got {exponent!r}")


class HarmonicHead(nnx.Module):
    """Logits -exponent * log(distance) to learned class centres.

    Args:
      width: d, of the features.
      num_classes: V.
      distance: one of xloss.heads.DISTANCES, at its published options.
      exponent: n > 0.
      rngs: for the initial centres, normal with standard deviation 1 / sqrt(d).
    """

    def __init__(
        self, width: int, num_classes: int, *, distance: str, exponent: float, rngs: nnx.Rngs
    ):
        draw = jax.random.normal(rngs.params(), (width, num_classes))
        self.centres = nnx.Param(draw / math.sqrt(width))
        # The authors' initial values.
        start = {
            "mahalanobis": lambda: 1.01 * jnp.eye(width),
            "mahalanobis_diagonal": lambda: jnp.zeros(width),
            "mahalanobis_cholesky": lambda: 0.1 * jnp.eye(width),
        }.get(distance)
        if start is not None:
            self.matrix = nnx.Param(start())
        self.has_matrix = start is not None
        self.distance, self.exponent = distance, float(exponent)

    def __call__(self, features: jax.Array, *, rngs: nnx.Rngs | None = None) -> jax.Array:
        """Logits [B, V] of features [B, d]; hamming_gumbel draws only where rngs are given."""
        options: dict[str, Any] = {"matrix": self.matrix[...]} if self.has_matrix else {}
        if self.distance == "hamming_gumbel" and rngs is not None:
            options["key"] = rngs.dropout()
        return harmonic_logits(
            features,
            self.centres[...],
            distance=self.distance,
            exponent=self.exponent,
            **options,
        )
