# SPDX-License-Identifier: Apache-2.0
"""Gradient cache: a loss over all embeddings at once, with the activations of a few encoders.

Gao et al. A contrastive loss, or decoupled softmax over all labels, couples every embedding with
every other; the encoder's activations for all of them do not fit. Encode without keeping any, take
the loss's gradient in the embeddings, then encode again chunk by chunk and pull it back. Reach for
it with dual encoders; the gradient is that of the whole batch, dropout included.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from xloss import numerics
from xloss.typing import Array, PyTree


def grad_cache(
    encode: Callable[..., PyTree],
    params: PyTree,
    inputs: PyTree,
    *,
    chunk_size: int,
    key: Array | None = None,
) -> tuple[PyTree, Callable[[PyTree], PyTree]]:
    """Embeddings of all examples, and the function that takes their cotangent to the parameters.

    Definition::

        embeddings = encode(params, inputs)        pull(c) = c^T d embeddings / d params

    for an encoder that treats each example by itself, at the activations of ``chunk_size``
    examples. Where several encoders meet in a loss, as in a dual encoder::

        queries, pull_queries = grad_cache(encode, params["query"], texts, chunk_size=64)
        labels, pull_labels = grad_cache(encode, params["label"], titles, chunk_size=256)
        loss, (dq, dl) = jax.value_and_grad(objective, argnums=(0, 1))(queries, labels)
        gradient = {"query": pull_queries(dq), "label": pull_labels(dl)}

    The embeddings are differentiable as they are, too: ``jax.grad`` of a function that calls
    grad_cache and takes a loss of its first result does the same.

    Args:
      encode: encode(params, inputs [n, ...]) -> embeddings [n, ...] (an array or a tree of them),
        or with ``key`` encode(params, inputs, keys [n]). Nothing may flow between examples: no
        batch normalisation.
      params: tree of arrays.
      inputs: tree of arrays [N, ...], of any dtype; not differentiated.
      chunk_size: examples at a time, >= 1; the last chunk may be smaller.
      key: PRNG key. Example i gets ``jax.random.fold_in(key, i)``, whatever the chunk: draw its
        dropout from that, by vmap, and the result does not depend on chunk_size.

    Returns:
      (embeddings [N, ...], pull): pull(cotangents like the embeddings) -> gradient like params.

    Raises:
      TypeError: encode is not callable.
      ValueError: chunk_size < 1, inputs without examples or with different numbers of them.

    Numerics:
      The gradient is summed over chunks in float32 for parameters of lower precision.

    Example:
      >>> import jax.numpy as jnp
      >>> encode = lambda w, x: jnp.tanh(x * w)
      >>> found, pull = grad_cache(encode, jnp.array(0.5), jnp.arange(5.0), chunk_size=2)
      >>> found.shape, round(float(pull(jnp.ones(5))), 4)
      ((5,), 2.4511)

    Evidence: published formula, derived and checked.

    References:
      Gao, Zhang, Han, Callan, "Scaling Deep Contrastive Learning Batch Size under Memory Limited
      Setup", RepL4NLP 2021, arXiv 2101.06983; as used by DEXML, arXiv 2310.10636. Departure: a key
      an example in place of a saved generator state a chunk.
    """
    name = "grad_cache"
    if not callable(encode):
        raise TypeError(f"{name}: expected encode to be callable, got {encode!r}")
    if type(chunk_size) is not int or chunk_size < 1:
        raise ValueError(f"{name}: expected chunk_size to be an int >= 1, got {chunk_size!r}")
    inputs = jax.tree.map(jnp.asarray, inputs)
    shapes = [leaf.shape for leaf in jax.tree.leaves(inputs)]
    counts = {shape[0] if shape else None for shape in shapes}
    if len(counts) != 1 or counts & {None, 0}:
        raise ValueError(
            f"{name}: expected inputs with one number >= 1 of examples along their first axes, got "
            f"shapes {shapes}"
        )
    count = shapes[0][0]
    chunk = min(chunk_size, count)

    def split(x: Array) -> Array:
        # The last chunk is filled up with copies of its last example, whose cotangent is 0.
        filled = jnp.concatenate([x, jnp.broadcast_to(x[-1:], (-count % chunk, *x.shape[1:]))])
        return filled.reshape(-1, chunk, *x.shape[1:])

    rest: tuple[Any, ...] = (jax.tree.map(split, inputs),)
    if key is not None:
        rest += (split(jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(count))),)

    def run(wide: PyTree) -> PyTree:
        @jax.checkpoint
        def of_chunk(part: tuple[Any, ...]) -> PyTree:
            narrow = jax.tree.map(lambda w, p: w.astype(p.dtype), wide, params)
            return encode(narrow, *part)

        chunks = jax.lax.map(of_chunk, rest)
        return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:count], chunks)

    params = jax.tree.map(jnp.asarray, params)
    # Widened outside of the loop, so that the sum over chunks is taken in the wide dtype.
    embeddings, pull = jax.vjp(run, jax.tree.map(_widened, params))

    def pull_back(cotangents: PyTree) -> PyTree:
        (gradient,) = pull(cotangents)
        return jax.tree.map(
            lambda g, p: g.astype(p.dtype) if g.dtype != jax.dtypes.float0 else g, gradient, params
        )

    return embeddings, pull_back


def _widened(x: Array) -> Array:
    return numerics.promote(x) if jnp.issubdtype(x.dtype, jnp.floating) else x
