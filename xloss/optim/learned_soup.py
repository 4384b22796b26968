# SPDX-License-Identifier: Apache-2.0
"""Learned soup: mixing weights of several models, one set for each tensor, found by gradient.

"Model soups: averaging weights of multiple fine-tuned models improves accuracy without increasing
inference time", appendix I. Reach for it when all models fit into memory together and the greedy
soup has been tried; its authors recommend the greedy one.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from xloss import checks, numerics
from xloss.optim import trees
from xloss.typing import Array, PyTree


def mixed_soup(stacked_params: PyTree, alpha: PyTree) -> PyTree:
    """Parameters mixed with softmax weights, tensor by tensor.

    Definition, for a tensor's stack theta [k, ...] and its row alpha [k]::

        sum_i softmax(alpha)_i theta_i

    Args:
      stacked_params: the k models' trees stacked, leaves [k, ...]:
        ``jax.tree.map(lambda *x: jnp.stack(x), *models)``.
      alpha: raw weights: a tree in the structure of the parameters with leaves [k], float, or a
        prefix of one; a single [k] mixes all tensors alike. -inf leaves a model out.

    Returns:
      Tree of one model, leaves [...] in the dtypes of the stacks; those that are not of a float
      dtype are the first model's.

    Raises:
      TypeError: alpha is not of a float dtype.
      ValueError: alpha is no prefix of the structure, lengths differ, leaves without a first axis.

    Numerics:
      Summed in float32 (float64 for float64 stacks). Weights of 0 (alpha 1e3 below the greatest, or
      -inf) leave a finite model out exactly. Adding a constant to a row changes nothing.

    Example:
      >>> import jax.numpy as jnp
      >>> stack = {"w": jnp.array([[0.0, 0.0], [1.0, 2.0]]), "b": jnp.array([0.0, 8.0])}
      >>> rows = {"w": jnp.zeros(2), "b": jnp.array([-jnp.inf, 0.0])}
      >>> {name: x.tolist() for name, x in sorted(mixed_soup(stack, rows).items())}
      {'b': 8.0, 'w': [0.5, 1.0]}

    Evidence: published formula, derived and checked.

    References:
      "Model soups: averaging weights of multiple fine-tuned models improves accuracy without
      increasing inference time", ICML 2022, arXiv 2203.05482, appendix I; authors' code
      mlfoundations/model-soups (learned_bylayer.py), where alpha is one array [tensors, k].
    """
    return _mixed("mixed_soup", stacked_params, alpha)


def learned_soup(
    stacked_params: PyTree,
    alpha: PyTree,
    beta: ArrayLike,
    apply_fn: Callable[..., Array],
    *inputs: Any,
) -> Array:
    """Logits of a softmax mixture of models: the function whose alpha and beta are learned.

    Definition, theta(alpha) = ``mixed_soup(stacked_params, alpha)``::

        beta apply_fn(theta(alpha), *inputs)

    Args:
      stacked_params: the k models' trees stacked, leaves [k, ...].
      alpha: raw weights, float [k] for each tensor, or for a prefix of the tree. Start from zeros,
        which is the uniform soup.
      beta: inverse temperature of the logits, scalar, traced; start from 1.
      apply_fn: (params, *inputs) -> logits [..., K]; static, as any function.
      *inputs: handed on to apply_fn.

    Returns:
      Logits [..., K], float32 (float64 for float64).

    Raises:
      TypeError: alpha or the logits are not of a float dtype, apply_fn is not a function.
      ValueError: alpha is no prefix of the structure, lengths differ, beta is not a scalar.

    Numerics:
      Pure: it can be jitted and differentiated in alpha and beta, while stacked_params are data.
      The authors minimise the cross-entropy on the held-out split with AdamW, rate 0.05, no weight
      decay, 5 epochs. When beta is learned it scales the logits only; predictions do not change.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import xloss
      >>> stack, x, labels = jnp.stack([-jnp.eye(2), jnp.eye(2)]), jnp.eye(2), jnp.arange(2)
      >>> def loss(alpha, beta):
      ...     logits = learned_soup(stack, alpha, beta, lambda w, x: x @ w, x)
      ...     return xloss.reduce(xloss.classification.cross_entropy(logits, labels))
      >>> bool(jax.grad(loss)(jnp.zeros(2), 1.0)[1] < 0)  # more of the second model
      True

    Evidence: published formula, derived and checked.

    References:
      "Model soups: averaging weights of multiple fine-tuned models improves accuracy without
      increasing inference time", ICML 2022, arXiv 2203.05482, appendix I; authors' code
      mlfoundations/model-soups (learned_bylayer.py).
    """
    name = "learned_soup"
    beta = checks.number(name, "beta", beta)
    apply_fn = trees.check_function(name, "apply_fn", apply_fn)
    logits = apply_fn(_mixed(name, stacked_params, alpha), *inputs)
    logits = numerics.promote(checks.floating(name, "apply_fn(params)", logits))
    return numerics.scalar(beta, logits) * logits


def _mixed(name: str, stacked_params: PyTree, alpha: PyTree) -> PyTree:
    leaves = jax.tree.leaves(stacked_params)
    if not leaves or any(jnp.ndim(leaf) == 0 for leaf in leaves):
        raise ValueError(f"{name}: expected stacked_params with leaves [k, ...], got a scalar")
    sizes = sorted({jnp.shape(leaf)[0] for leaf in leaves})
    if len(sizes) > 1:
        raise ValueError(f"{name}: expected stacks of one length k, got lengths {sizes}")

    def mix(row: ArrayLike, part: PyTree) -> PyTree:
        row = checks.floating(name, "alpha", row)
        checks.same_shape(name, "alpha", row, (sizes[0],))
        weights = jax.nn.softmax(numerics.promote(row))
        return jax.tree.map(lambda stack: _weighted(jnp.asarray(stack), weights), part)

    try:
        return jax.tree.map(mix, alpha, stacked_params)
    except ValueError as error:
        if str(error).startswith(f"{name}: "):
            raise
        raise ValueError(
            f"{name}: expected alpha to be a prefix of the parameters' tree, got "
            f"{jax.tree.structure(alpha)}"
        ) from error


def _weighted(stack: Array, weights: Array) -> Array:
    if not jnp.issubdtype(stack.dtype, jnp.floating):
        return stack[0]
    wide = numerics.promote(stack)
    # A product and a sum, which fuse: a matrix product would round to bfloat16 on some devices.
    column = weights.astype(wide.dtype).reshape(-1, *[1] * (stack.ndim - 1))
    return jnp.sum(column * wide, axis=0).astype(stack.dtype)
