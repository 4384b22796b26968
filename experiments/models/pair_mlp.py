# SPDX-License-Identifier: Apache-2.0
"""Two symbols in, one symbol out: the embedding MLP of the algorithmic tasks.

The model of "Harmonic Loss Trains Interpretable AI Models" (arXiv 2502.01628; authors' code
KindXiaoming/grow-crystals): the output layer is the embedding itself.
"""

import math

import jax
import jax.numpy as jnp
from flax import nnx

from experiments.models import layers
from experiments.models.harmonic import check_head
from xloss.heads import harmonic_logits

HEADS = ("dot_product", "harmonic")


class PairMLP(nnx.Module):
    """Embeddings of two symbols -> hidden layer with SiLU -> linear -> tied output layer.

    Args:
      input_shape: (2,); inputs are whole numbers in [0, num_scores) held as floats.
      num_scores: V, symbols in and out.
      embedding: d, width of an embedding.
      hidden: width of the hidden layer.
      head: dot_product, <x, e_v>; harmonic, -exponent log distance(x, e_v).
      distance: of the harmonic head, one of xloss.heads.DISTANCES that learn no matrix.
      exponent: of the harmonic head, > 0.
      rngs: for the initial parameters.

    Raises:
      ValueError: an argument out of range, or data that are not pairs.
    """

    def __init__(
        self,
        *,
        input_shape: tuple[int, ...],
        num_scores: int | None,
        embedding: int = 16,
        hidden: int = 100,
        head: str = "harmonic",
        distance: str = "euclidean",
        exponent: float = 1.0,
        rngs: nnx.Rngs,
    ):
        if input_shape != (2,) or num_scores is None:
            raise ValueError(
                "name: expected a model for these data (pair_mlp takes two symbols and gives one "
                f"of three or more), got pair_mlp for inputs {input_shape}"
            )
        for name, value in (("embedding", embedding), ("hidden", hidden)):
            if type(value) is not int or value < 1:
                raise ValueError(f"{name}: expected an integer >= 1, got {value!r}")
        check_head(head, distance, exponent, HEADS)
        if distance.startswith("mahalanobis"):
            raise ValueError(f"distance: expected one without a learned matrix, got {distance!r}")
        # As a dense layer's kernel: it is the output layer too.
        draw = jax.random.normal(rngs.params(), (num_scores, embedding))
        self.embedding = nnx.Param(draw / math.sqrt(embedding))
        self.hidden = nnx.Linear(2 * embedding, hidden, rngs=rngs)
        self.out = nnx.Linear(hidden, embedding, rngs=rngs)
        self.head, self.distance, self.exponent = head, distance, float(exponent)

    def __call__(
        self,
        inputs: jax.Array,
        *,
        rngs: nnx.Rngs | None = None,
        run: layers.Layers = layers.keeping,
    ) -> jax.Array:
        """Logits [B, V] of pairs [B, 2]."""

        def hidden(linear: nnx.Linear, x: jax.Array, rngs: nnx.Rngs | None) -> jax.Array:
            return jax.nn.silu(linear(x))

        table = self.embedding[...]
        pairs = table[inputs.astype(jnp.int32)].reshape(inputs.shape[0], -1)
        x = self.out(run(hidden)(self.hidden, pairs, rngs))
        if self.head == "dot_product":
            return x @ table.T
        return harmonic_logits(x, table.T, distance=self.distance, exponent=self.exponent)
