# SPDX-License-Identifier: Apache-2.0
"""A decoder-only transformer, to the features that an output layer takes.

Layer norm before every layer ("pre-norm"), learned positions, GELU. Every kernel has two axes, and
names say what a parameter is, for optimizers that treat some apart:

    block_0/attention/{query,key,value,out}/{kernel,bias}    kernels [width, width]
    block_0/attention/{query,key}_scale                      [width / heads], with qk_norm
    block_0/mlp/{up,down}/{kernel,bias}                      kernels [width, mlp_ratio width], back
    block_0/{attention,mlp}_norm/{scale,bias}, final_norm/{scale,bias}
    embedding/embedding [V, width], positions [context, width]

With `stacked` the blocks are one, whose parameters have an axis for the depth before the others:
`blocks/...` in place of `block_0/...`, kernels [depth, width, width]. They are then run in a loop
(`jax.lax.scan`), which compiles in the time of one block whatever the depth.

The output layer itself is the task's. `qk_norm` is the layer norm of queries and keys of "Small-
scale proxies for large-scale Transformer training instabilities" (2309.14322).
"""

import functools
import math

import jax
import jax.numpy as jnp
from flax import nnx

from experiments.models import layers
from xloss import diagnostics


class Attention(nnx.Module):
    """Causal attention of several heads.

    Args:
      width: of the features, a multiple of heads.
      heads: how many.
      qk_norm: whether queries and keys are normalised (`diagnostics.qk_layernorm`).
      scale: of the initial output kernel, times the usual one.
      rngs: for the initial parameters.
    """

    def __init__(self, width: int, heads: int, *, qk_norm: bool, scale: float, rngs: nnx.Rngs):
        self.query = nnx.Linear(width, width, rngs=rngs)
        self.key = nnx.Linear(width, width, rngs=rngs)
        self.value = nnx.Linear(width, width, rngs=rngs)
        self.out = nnx.Linear(width, width, kernel_init=_scaled(scale), rngs=rngs)
        if qk_norm:
            self.query_scale = nnx.Param(jnp.ones(width // heads))
            self.key_scale = nnx.Param(jnp.ones(width // heads))
        self.heads, self.qk_norm = heads, qk_norm

    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Features [B, T, width] to (features, attention logits [B, H, T, T]), -inf if not seen."""
        split = (*x.shape[:2], self.heads, x.shape[2] // self.heads)
        q, k, v = (layer(x).reshape(split) for layer in (self.query, self.key, self.value))
        if self.qk_norm:
            q, k = diagnostics.qk_layernorm(q, k, self.query_scale[...], self.key_scale[...])
        mask = jnp.tri(x.shape[1], dtype=bool)
        logits = jax.vmap(functools.partial(diagnostics.attention_logits, mask=mask))(q, k)
        seen = jax.nn.softmax(logits, axis=-1).astype(v.dtype)  # of logits in float32 or wider
        mixed = jnp.einsum("bhts,bshd->bthd", seen, v)
        return self.out(mixed.reshape(x.shape)), logits


class MLP(nnx.Module):
    """GELU(x W + b) V + c, position by position; arguments as for `Attention`."""

    def __init__(self, width: int, hidden: int, *, scale: float, rngs: nnx.Rngs):
        self.up = nnx.Linear(width, hidden, rngs=rngs)
        self.down = nnx.Linear(hidden, width, kernel_init=_scaled(scale), rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Features [B, T, width] to features."""
        return self.down(jax.nn.gelu(self.up(x)))


class Block(nnx.Module):
    """Attention and an MLP, each added to what it is given."""

    def __init__(
        self, width: int, heads: int, hidden: int, *,
        qk_norm: bool, dropout: float, scale: float, rngs: nnx.Rngs,
    ):  # fmt: skip
        self.attention_norm = nnx.LayerNorm(width, rngs=rngs)
        self.attention = Attention(width, heads, qk_norm=qk_norm, scale=scale, rngs=rngs)
        self.mlp_norm = nnx.LayerNorm(width, rngs=rngs)
        self.mlp = MLP(width, hidden, scale=scale, rngs=rngs)
        self.dropout = nnx.Dropout(dropout)

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None) -> tuple[jax.Array, jax.Array]:
        """Features [B, T, width] to (features, attention logits [B, H, T, T])."""
        drop = functools.partial(self.dropout, deterministic=rngs is None, rngs=rngs)
        mixed, logits = self.attention(self.attention_norm(x))
        x = x + drop(mixed)
        return x + drop(self.mlp(self.mlp_norm(x))), logits


class Transformer(nnx.Module):
    """Tokens [B, T] -> features [B, T, width]; those at t depend on the tokens 0..t alone.

    Args:
      input_shape: (context,); inputs are whole numbers in [0, num_scores).
      num_scores: V, tokens.
      width: of the features.
      depth: blocks.
      heads: of every block; width is a multiple of it.
      mlp_ratio: width of the MLPs' hidden layer, in widths.
      qk_norm: layer norm of queries and keys: no attention logit passes
        sqrt(width / heads) max |query_scale key_scale|.
      dropout: rate on the embedding and on what every layer adds, in [0, 1).
      stacked: whether the blocks are run in a loop over stacked parameters.
      rngs: for the initial parameters.

    Raises:
      ValueError: an argument out of range, or data that are no windows of tokens.
    """

    def __init__(
        self,
        *,
        input_shape: tuple[int, ...],
        num_scores: int | None,
        width: int = 64,
        depth: int = 2,
        heads: int = 4,
        mlp_ratio: int = 4,
        qk_norm: bool = False,
        dropout: float = 0.0,
        stacked: bool = False,
        rngs: nnx.Rngs,
    ):
        if len(input_shape) != 1 or num_scores is None:
            raise ValueError(
                f"name: expected a model for these data (transformer takes windows of tokens), "
                f"got transformer for inputs {input_shape}"
            )
        sizes = {"width": width, "depth": depth, "heads": heads, "mlp_ratio": mlp_ratio}
        for name, value in sizes.items():
            if type(value) is not int or value < 1:
                raise ValueError(f"{name}: expected an integer >= 1, got {value!r}")
        if width % heads:
            raise ValueError(f"heads: expected a divisor of the width {width}, got {heads}")
        for name, value in {"qk_norm": qk_norm, "stacked": stacked}.items():
            if type(value) is not bool:
                raise ValueError(f"{name}: expected True or False, got {value!r}")
        if isinstance(dropout, bool | str) or not 0.0 <= dropout < 1.0:
            raise ValueError(f"dropout: expected a number in [0, 1), got {dropout!r}")
        self.embedding = layers.embedding(num_scores, width, rngs)
        drawn = jax.random.normal(rngs.params(), (input_shape[0], width))
        self.positions = nnx.Param(drawn / math.sqrt(width))  # as large as the embedding
        self.dropout = nnx.Dropout(dropout)
        # Two layers of every block are added up: the sum has the same size whatever the depth.
        scale = 1.0 / math.sqrt(2 * depth)

        def block(rngs: nnx.Rngs) -> Block:
            return Block(
                width, heads, mlp_ratio * width,
                qk_norm=qk_norm, dropout=dropout, scale=scale, rngs=rngs,
            )  # fmt: skip

        if stacked:
            self.blocks = nnx.vmap(block)(rngs.split(depth))
        else:
            for layer in range(depth):
                setattr(self, f"block_{layer}", block(rngs))
        self.final_norm = nnx.LayerNorm(width, rngs=rngs)
        self.depth, self.stacked = depth, stacked

    def __call__(
        self,
        inputs: jax.Array,
        *,
        rngs: nnx.Rngs | None = None,
        run: layers.Layers = layers.keeping,
        greatest: bool = False,
    ) -> jax.Array | tuple[jax.Array, jax.Array]:
        """Features [B, T, width] of tokens [B, T], T at most the context.

        With `greatest`: (features, the greatest attention logit of every example [B], over all
        blocks and heads and the keys that are seen).
        """
        x = self.embedding(inputs.astype(jnp.int32)) + self.positions[...][None, : inputs.shape[1]]
        x = self.dropout(x, deterministic=rngs is None, rngs=rngs)
        x, peaks = (self._looped if self.stacked else self._unrolled)(x, rngs, run, greatest)
        x = self.final_norm(x)
        return x if peaks is None else (x, jnp.max(peaks, axis=0))

    def _unrolled(
        self, x: jax.Array, rngs: nnx.Rngs | None, run: layers.Layers, greatest: bool
    ) -> tuple[jax.Array, jax.Array | None]:
        """(features, with `greatest` the greatest attention logits [depth, B])."""
        peaks = []
        for layer in range(self.depth):
            x, peak = run(_with_peak)(getattr(self, f"block_{layer}"), x, rngs)
            peaks.append(peak)
        return x, jnp.stack(peaks) if greatest else None

    def _looped(
        self, x: jax.Array, rngs: nnx.Rngs | None, run: layers.Layers, greatest: bool
    ) -> tuple[jax.Array, jax.Array | None]:
        graph, stacked = nnx.split(self.blocks)
        keys = None if rngs is None else jax.random.split(rngs.dropout(), self.depth)

        def layer(x: jax.Array, given: tuple) -> tuple[jax.Array, jax.Array | None]:
            params, key = given
            rngs = None if key is None else nnx.Rngs(dropout=key)
            x, peak = run(_with_peak)(nnx.merge(graph, params), x, rngs)
            return x, peak if greatest else None

        return jax.lax.scan(layer, x, (stacked, keys))


def _with_peak(block: Block, x: jax.Array, rngs: nnx.Rngs | None) -> tuple[jax.Array, jax.Array]:
    """(features, the greatest attention logit of every example [B]): no logits leave the block."""
    x, logits = block(x, rngs)
    return x, jnp.max(logits, axis=(1, 2, 3))


def _scaled(scale: float) -> nnx.initializers.Initializer:
    """The initializer of nnx.Linear's kernels (LeCun's), times a number."""
    return nnx.initializers.variance_scaling(scale**2, "fan_in", "truncated_normal")
