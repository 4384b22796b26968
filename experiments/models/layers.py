# SPDX-License-Identifier: Apache-2.0
"""How a model runs its layers: keeping what the backward pass needs, or computing it again.

A model's `__call__` takes `run` and runs each of its layers (a block, a hidden layer with its
activation and dropout) as ``run(function)(module, x, rngs)``. What is not a layer of that kind,
such as an embedding or the output layer, is run as it is.
"""

from collections.abc import Callable
from typing import Any

import jax
from flax import nnx

#: (a module of its own kind, inputs, rngs or None) -> outputs.
Layer = Callable[[Any, jax.Array, nnx.Rngs | None], Any]
Layers = Callable[[Layer], Layer]

#: What is kept beside a layer's inputs; None: nothing.
REMAT: dict[str, Callable[..., Any] | None] = {
    "full": None,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}


def keeping(layer: Layer) -> Layer:
    """The layer as it is: all its activations are kept."""
    return layer


def embedding(count: int, width: int, rngs: nnx.Rngs) -> nnx.Embed:
    """An embedding [count, width] that gives rows of the type that its parameter has by then.

    nnx.Embed itself would give those of the type that it was made with.
    """
    return nnx.Embed(count, width, promote_dtype=lambda arrays, **_: arrays, rngs=rngs)


def recomputing(remat: str) -> Layers:
    """How layers are run.

    Args:
      remat: "none"; "full": a layer's activations are computed again from its inputs; "dots": but
        for its products with kernels, which are kept.
    """
    if remat == "none":
        return keeping
    policy = REMAT[remat]
    return lambda layer: nnx.remat(layer, policy=policy)
