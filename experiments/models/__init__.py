# SPDX-License-Identifier: Apache-2.0
"""Small flax NNX models, used functionally: parameters are a plain pytree of arrays.

A model file has a class whose constructor raises ValueError("argument: expected ..., got ...").
`build` turns a config into two pure functions, which is all that the loop and the losses ever see.
xloss itself knows nothing of models.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from ml_collections import ConfigDict

from experiments.data.options import nearest
from experiments.errors import BadInput
from experiments.models.context_mlp import ContextMLP
from experiments.models.layers import recomputing
from experiments.models.mlp import MLP
from experiments.models.pair_mlp import PairMLP
from experiments.models.transformer import Transformer

MODELS: dict[str, type[nnx.Module]] = {
    "context_mlp": ContextMLP,
    "mlp": MLP,
    "pair_mlp": PairMLP,
    "transformer": Transformer,
}
#: Those whose inputs are whole numbers held as floats: bfloat16 would round the ones above 256.
SYMBOLIC = ("context_mlp", "pair_mlp", "transformer")


class Model(NamedTuple):
    """A model as two pure functions.

    Attributes:
      init: key -> parameters (nested dict of arrays); jit-able, also under `jax.eval_shape`.
      apply: (parameters, inputs [B, ...], dropout key or None) -> scores [B, K], or [B] for one
        score an example. Without a key there is no dropout. A model may take further keyword
        arguments, and give more, or features in place of scores: its class says so. Whatever the
        network computes in, it is given and gives numbers of the parameters' type.
      cast: a pytree with its floating-point numbers in the type that the network computes in: for
        the product of features with an output layer's kernel.
    """

    init: Callable[[jax.Array], Any]
    apply: Callable[..., Any]
    cast: Callable[[Any], Any]


def build(
    config: Mapping[str, Any],
    *,
    input_shape: tuple[int, ...],
    num_scores: int | None,
    compute_dtype: str = "float32",
    remat: str = "none",
) -> Model:
    """The model that a config names.

    Args:
      config: "name" and the arguments of that model's class.
      input_shape: shape of one example's inputs.
      num_scores: K, or None for one score an example.
      compute_dtype: "float32", which is the parameters' own type, or "bfloat16".
      remat: which activations the backward pass computes again, a key of `layers.REMAT`.

    Raises:
      BadInput: unknown model, or arguments that its class does not take.
    """
    arguments = dict(config)
    name = arguments.pop("name", None)
    if name not in MODELS:
        raise BadInput(
            f"config.model.name: expected one of {', '.join(MODELS)}, got {name!r}"
            f"{nearest(str(name), MODELS)}"
        )
    constructor: Callable[..., nnx.Module] = MODELS[name]
    known = set(inspect.signature(MODELS[name].__init__).parameters)
    known -= {"self", "input_shape", "num_scores", "rngs"}
    for key in arguments:
        if key not in known:
            raise BadInput(
                f"config.model.{key}: expected keys of the model {name!r}, got {key!r}"
                f"{nearest(key, known) or '; known: ' + ', '.join(sorted(known))}"
            )

    def create(key: jax.Array) -> nnx.Module:
        return constructor(
            input_shape=input_shape, num_scores=num_scores, rngs=nnx.Rngs(key), **arguments
        )

    try:
        abstract = nnx.eval_shape(lambda: create(jax.random.key(0)))
    except ValueError as error:
        raise BadInput(f"config.model.{error}") from error
    graph, _ = nnx.split(abstract)

    half = None if compute_dtype == "float32" else jnp.dtype(compute_dtype)
    run = recomputing(remat)

    def cast(tree: Any) -> Any:
        return tree if half is None else _converted(tree, half)

    def init(key: jax.Array) -> Any:
        return nnx.to_pure_dict(nnx.split(create(key))[1])

    def apply(params: Any, inputs: jax.Array, key: jax.Array | None, **options: Any) -> Any:
        kept = jnp.result_type(next(leaf for leaf in jax.tree.leaves(params) if _is_float(leaf)))
        params, inputs = cast(params), inputs if name in SYMBOLIC else cast(inputs)
        # copy=True: without it a module with dropout cannot be merged inside a transformation.
        model = nnx.merge(graph, nnx.State(params), copy=True)
        rngs = None if key is None else nnx.Rngs(dropout=key)
        found = model(inputs, rngs=rngs, run=run, **options)
        return found if half is None else _converted(found, kept)

    return Model(init, apply, cast)


def of_config(config: ConfigDict, *, input_shape: tuple[int, ...], num_scores: int | None) -> Model:
    """The model of a whole config: of config.model, computing as the config says.

    Raises:
      BadInput: as `build`.
    """
    return build(
        config.model,
        input_shape=input_shape,
        num_scores=num_scores,
        compute_dtype=config.compute_dtype,
        remat=config.remat,
    )


def _converted(tree: Any, dtype: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf.astype(dtype) if _is_float(leaf) else leaf, tree)


def _is_float(leaf: Any) -> bool:
    return jnp.issubdtype(jnp.result_type(leaf), jnp.floating)
