# SPDX-License-Identifier: Apache-2.0
"""Multi-layer perceptron: for tables, digits and other inputs of a few hundred numbers."""

import math

import jax
import jax.numpy as jnp
from flax import nnx

from experiments.models import layers
from experiments.models.harmonic import HarmonicHead, check_head

ACTIVATIONS = {"relu": jax.nn.relu, "gelu": jax.nn.gelu, "silu": jax.nn.silu, "tanh": jnp.tanh}


class MLP(nnx.Module):
    """Dense layers with an activation and dropout between them.

    Args:
      input_shape: shape of one example; inputs are flattened.
      num_scores: K logits, or None for one score an example.
      hidden: widths of the hidden layers; () is a linear model.
      activation: relu, gelu, silu or tanh.
      dropout: rate in [0, 1), after each hidden layer.
      head: linear, or harmonic: distances to class centres (xloss.heads); not for one score.
      distance: of the harmonic head, one of xloss.heads.DISTANCES at its published options.
      exponent: of the harmonic head, > 0.
      rngs: for the initial parameters.

    Raises:
      ValueError: an argument out of range.
    """

    def __init__(
        self,
        *,
        input_shape: tuple[int, ...],
        num_scores: int | None,
        hidden: tuple[int, ...] = (64,),
        activation: str = "relu",
        dropout: float = 0.0,
        head: str = "linear",
        distance: str = "euclidean",
        exponent: float = 1.0,
        rngs: nnx.Rngs,
    ):
        wide = isinstance(hidden, (tuple, list))
        if not wide or not all(type(width) is int and width > 0 for width in hidden):
            raise ValueError(f"hidden: expected a tuple of integers > 0, got {hidden!r}")
        if activation not in ACTIVATIONS:
            raise ValueError(
                f"activation: expected one of {', '.join(ACTIVATIONS)}, got {activation!r}"
            )
        if not isinstance(dropout, (int, float)) or not 0 <= dropout < 1:
            raise ValueError(f"dropout: expected a rate in [0, 1), got {dropout!r}")
        widths = (math.prod(input_shape), *hidden)
        for layer, (inputs, outputs) in enumerate(zip(widths, hidden, strict=False)):
            setattr(self, f"hidden_{layer}", nnx.Linear(inputs, outputs, rngs=rngs))
        check_head(head, distance, exponent)
        if head == "linear":
            self.head = nnx.Linear(widths[-1], num_scores or 1, rngs=rngs)
        elif num_scores is None:
            raise ValueError("head: expected linear for one score an example, got harmonic")
        else:
            self.head = HarmonicHead(
                widths[-1], num_scores, distance=distance, exponent=exponent, rngs=rngs
            )
        self.dropout = nnx.Dropout(dropout)
        self.depth = len(hidden)
        self.activation = activation
        self.one_score = num_scores is None

    def __call__(
        self,
        inputs: jax.Array,
        *,
        rngs: nnx.Rngs | None = None,
        run: layers.Layers = layers.keeping,
    ) -> jax.Array:
        """Scores [B, K] (or [B]) of inputs [B, ...]; dropout only where rngs are given."""

        def hidden(linear: nnx.Linear, x: jax.Array, rngs: nnx.Rngs | None) -> jax.Array:
            x = ACTIVATIONS[self.activation](linear(x))
            return self.dropout(x, deterministic=rngs is None, rngs=rngs)

        x = inputs.reshape(inputs.shape[0], -1)
        for layer in range(self.depth):
            x = run(hidden)(getattr(self, f"hidden_{layer}"), x, rngs)
        scores = self.head(x, rngs=rngs) if isinstance(self.head, HarmonicHead) else self.head(x)
        return scores[:, 0] if self.one_score else scores
