# SPDX-License-Identifier: Apache-2.0
"""The words before one, to the features that an output layer takes: a neural n-gram model.

The network of Bengio et al. (2003), with which "An Exploration of Softmax Alternatives Belonging to
the Spherical Loss Family" (1511.05042) and "The Z-loss" (1604.08859) measure output layers. The
output layer itself is the task's.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from experiments.models import layers


class ContextMLP(nnx.Module):
    """Embeddings of n words, side by side -> tanh layers -> features [B, hidden[-1]].

    Args:
      input_shape: (n,); inputs are whole numbers in [0, num_scores) held as floats.
      num_scores: V, words.
      embedding: width of a word's embedding.
      hidden: widths of the layers; the last is that of the features.
      dropout: rate on every layer's output, in [0, 1).
      rngs: for the initial parameters.

    Raises:
      ValueError: an argument out of range, or data that are no contexts of words.
    """

    def __init__(
        self,
        *,
        input_shape: tuple[int, ...],
        num_scores: int | None,
        embedding: int = 64,
        hidden: tuple[int, ...] = (128,),
        dropout: float = 0.0,
        rngs: nnx.Rngs,
    ):
        if len(input_shape) != 1 or num_scores is None:
            raise ValueError(
                f"name: expected a model for these data (context_mlp takes the words before one), "
                f"got context_mlp for inputs {input_shape}"
            )
        if type(embedding) is not int or embedding < 1:
            raise ValueError(f"embedding: expected an integer >= 1, got {embedding!r}")
        if not hidden or any(type(width) is not int or width < 1 for width in hidden):
            raise ValueError(f"hidden: expected one or more integers >= 1, got {hidden!r}")
        if not 0.0 <= dropout < 1.0:
            raise ValueError(f"dropout: expected a number in [0, 1), got {dropout!r}")
        self.embedding = layers.embedding(num_scores, embedding, rngs)
        widths = (input_shape[0] * embedding, *hidden)
        for layer, (before, after) in enumerate(zip(widths, hidden, strict=False)):
            setattr(self, f"hidden_{layer}", nnx.Linear(before, after, rngs=rngs))
        self.dropout = nnx.Dropout(dropout)
        self.depth = len(hidden)

    def __call__(
        self,
        inputs: jax.Array,
        *,
        rngs: nnx.Rngs | None = None,
        run: layers.Layers = layers.keeping,
    ) -> jax.Array:
        """Features [B, hidden[-1]] of contexts [B, n]."""

        def hidden(linear: nnx.Linear, x: jax.Array, rngs: nnx.Rngs | None) -> jax.Array:
            return self.dropout(jnp.tanh(linear(x)), deterministic=rngs is None, rngs=rngs)

        x = self.embedding(inputs.astype(jnp.int32)).reshape(inputs.shape[0], -1)
        for layer in range(self.depth):
            x = run(hidden)(getattr(self, f"hidden_{layer}"), x, rngs)
        return x
