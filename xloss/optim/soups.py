# SPDX-License-Identifier: Apache-2.0
"""Model soups: the average of fine-tuned models' parameters, which costs no more to run than one.

"Model soups: averaging weights of multiple fine-tuned models improves accuracy without increasing
inference time". Reach for it after a sweep of fine-tunings FROM THE SAME INITIALISATION, in place
of keeping the best run only; models trained from scratch apart do not average.

:func:`uniform_soup` averages all of them; ``greedy_soup`` leaves out those that do harm.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from xloss import checks, numerics
from xloss.typing import Array, PyTree

#: Parameters, or a function of no argument that reads them (from a checkpoint, say).
Ingredient = PyTree | Callable[[], PyTree]


def interpolate(a: PyTree, b: PyTree, alpha: ArrayLike) -> PyTree:
    """The point between two models: a soup of two, and WiSE-FT where ``a`` is the zero-shot model.

    Definition, leaf by leaf::

        (1 - alpha) a + alpha b

    Args:
      a: tree of parameters; leaves that are not of a float dtype are taken from it.
      b: tree of the same structure and shapes.
      alpha: scalar, traced: 0 gives ``a``, 1 gives ``b``; outside [0, 1] it extrapolates.

    Returns:
      Tree in the dtypes of ``a``.

    Raises:
      TypeError: alpha is not a number.
      ValueError: structures or shapes differ, alpha is not a scalar.

    Numerics:
      Computed in float32 (float64 for float64 leaves) from the nearer end, so that both ends and
      two equal trees come out exactly. Differentiable in all three. Batch normalisation's running
      statistics are averaged as any leaf and then belong to no model: compute them anew.

    Example:
      >>> import jax.numpy as jnp
      >>> a, b = {"w": jnp.zeros(2), "step": 3}, {"w": jnp.ones(2), "step": 5}
      >>> {name: jnp.asarray(x).tolist() for name, x in interpolate(a, b, 0.25).items()}
      {'step': 3, 'w': [0.25, 0.25]}

    Evidence: published formula, derived and checked.

    References:
      "Model soups: averaging weights of multiple fine-tuned models improves accuracy without
      increasing inference time", ICML 2022, arXiv 2203.05482, section 4. The path of "Robust
      fine-tuning of zero-shot models" (WiSE-FT), in mlfoundations/model-soups's
      wise-ft-example.py.
    """
    name = "interpolate"
    alpha = checks.number(name, "alpha", alpha)
    soup = Soup(name, "b", a)
    soup.stir(b, alpha)
    return soup.served()


def uniform_soup(trees: Sequence[Ingredient], *, weights: ArrayLike | None = None) -> PyTree:
    """The mean of k models' parameters, held one at a time.

    Definition::

        sum_i weights_i theta_i / sum_i weights_i

    as a running mean: mean += weights_n / (weights_1 + ... + weights_n) (theta_n - mean).

    Args:
      trees: k >= 1 trees of one structure and shapes, or functions of no argument that return
        them; a function is called once, and what it returned is dropped before the next call.
      weights: [k], >= 0, a sequence of numbers (an ingredient of weight 0 is then neither read nor
        loaded) or a JAX array, traced; None for equal ones.

    Returns:
      Tree in the dtypes of the first ingredient (the first of a positive weight). Leaves that are
      not of a float dtype (step counters, random keys) are taken from it.

    Raises:
      TypeError: trees is not a sequence, weights are not real numbers.
      ValueError: no tree, structures or shapes differ, weights of another shape, negative, not
        finite or all 0.

    Numerics:
      The mean is kept in float32 (float64 for float64 leaves): added up in bfloat16 it drifts. With
      loaders at most two trees are alive, the mean and the one just read. Equal ingredients come
      out exactly; another order changes rounding only. Leaves keep their sharding. Batch
      normalisation's running statistics are averaged like any leaf: compute them anew.

    Example:
      >>> import jax.numpy as jnp
      >>> uniform_soup([jnp.array([0.0, 3.0]), lambda: jnp.array([2.0, 3.0])]).tolist()
      [1.0, 3.0]

    Evidence: published formula, derived and checked.

    References:
      "Model soups: averaging weights of multiple fine-tuned models improves accuracy without
      increasing inference time", ICML 2022, arXiv 2203.05482; authors' code
      mlfoundations/model-soups, which adds up theta_i / k in the checkpoints' dtype, counters
      included; its means have no weights.
    """
    name = "uniform_soup"
    size = count_ingredients(name, trees)
    soup = None
    for index, share in _shares(name, size, weights):
        if soup is None:
            soup = Soup(name, f"trees[{index}]", load(trees[index]))
        else:
            soup.argument = f"trees[{index}]"
            soup.stir(load(trees[index]), share)
    assert soup is not None  # some weight is positive
    return soup.served()


class Soup:
    """A running mean of trees: leaves in float32 (float64), and what to serve them in.

    Attributes:
      argument: what a message calls the tree that is stirred in.
      leaves: the mean; leaves that are not averaged as they came.
    """

    def __init__(self, name: str, argument: str, tree: PyTree):
        self.argument = argument
        leaves, self._structure = jax.tree.flatten(tree)
        self._name, self._dtypes = name, [_dtype(leaf) for leaf in leaves]
        self.leaves = [
            leaf if dtype is None else _widened(jnp.asarray(leaf))
            for leaf, dtype in zip(leaves, self._dtypes)
        ]

    def stir(self, tree: PyTree, share: ArrayLike) -> None:
        """Moves the mean towards a tree by a share of the way."""
        self.leaves = self.stirred(tree, share, into=self.leaves)

    def stirred(self, tree: PyTree, share: ArrayLike, into: list | None = None) -> list:
        """Leaves of the mean after :meth:`stir`, the soup itself left as it is.

        A leaf of the tree (or of ``into``) is let go as soon as its successor is there, so that no
        third tree is held.
        """
        leaves, structure = jax.tree.flatten(tree)
        del tree
        if structure != self._structure:
            raise ValueError(
                f"{self._name}: expected {self.argument} in the structure of the first, got "
                f"{structure} instead of {self._structure}"
            )
        into = leaves if into is None else into
        for i, dtype in enumerate(self._dtypes):
            mean, leaf = self.leaves[i], leaves[i]
            leaves[i] = None
            same = (_dtype(leaf) is None) == (dtype is None)
            if not same or (dtype is not None and jnp.shape(leaf) != mean.shape):
                raise ValueError(
                    f"{self._name}: expected leaf {i} of {self.argument} to be like the first's, "
                    f"{checks.describe(mean)}, got {checks.describe(leaf)}"
                )
            into[i] = mean if dtype is None else _between(mean, jnp.asarray(leaf), share)
        return into

    def served(self, leaves: list | None = None) -> PyTree:
        """Leaves (the mean's unless others are given) as a tree in the first tree's dtypes."""
        leaves = self.leaves if leaves is None else leaves
        cast = [x if d is None else x.astype(d) for x, d in zip(leaves, self._dtypes)]
        return jax.tree.unflatten(self._structure, cast)


def count_ingredients(name: str, trees: Sequence[Ingredient]) -> int:
    """The number of ingredients.

    Raises:
      TypeError: not a sequence.
      ValueError: none at all.
    """
    if isinstance(trees, str) or not isinstance(trees, Sequence):
        raise TypeError(
            f"{name}: expected trees to be a sequence of trees or of functions that load them, got "
            f"{type(trees).__name__}"
        )
    if not trees:
        raise ValueError(f"{name}: expected one tree at least, got none")
    return len(trees)


def load(ingredient: Ingredient) -> PyTree:
    """The tree itself; a function of no argument is called, a module that can be called is not."""
    if callable(ingredient) and jax.tree_util.all_leaves([ingredient]):
        return ingredient()
    return ingredient


def _shares(name: str, size: int, weights: ArrayLike | None) -> list[tuple[int, Any]]:
    """(index, share of the way that the running mean moves) of those of a positive weight."""
    if weights is None:
        return [(n, 1.0 / (n + 1)) for n in range(size)]
    if isinstance(weights, jax.Array):
        weights = numerics.promote(checks.floating(name, "weights", weights))
        checks.same_shape(name, "weights", weights, (size,))
        # So that no sum overflows; not over the peak, whose reciprocal may be flushed to 0.
        weights = jnp.where(jnp.max(weights) > 1, weights / (2.0 * size), weights)
        total = jnp.cumsum(weights)
        none = total == 0
        shares = jnp.where(none, 0.0, weights / jnp.where(none, 1.0, total))
        return list(enumerate(shares))
    values = np.asarray(weights)
    if values.dtype.kind not in "iuf":
        raise TypeError(f"{name}: expected weights to be real numbers, got {weights!r}")
    values = values.astype(np.float64)
    if values.shape != (size,):
        raise ValueError(f"{name}: expected weights of shape {(size,)}, got {values.shape}")
    if not (np.all(np.isfinite(values)) and np.all(values >= 0) and np.any(values > 0)):
        raise ValueError(
            f"{name}: expected weights to be finite and >= 0, not all 0, got {weights!r}"
        )
    values = values / np.max(values)  # so that no sum overflows
    total = np.cumsum(values)
    return [(int(n), float(values[n] / total[n])) for n in np.flatnonzero(values)]


def _dtype(leaf: Any) -> Any:
    """The dtype in which to serve a leaf that is averaged; None for one that is not."""
    dtype = jnp.asarray(leaf).dtype if isinstance(leaf, float) else getattr(leaf, "dtype", None)
    return dtype if dtype is not None and jnp.issubdtype(dtype, jnp.inexact) else None


def _widened(x: Array) -> Array:
    return x if jnp.issubdtype(x.dtype, jnp.complexfloating) else numerics.promote(x)


@jax.jit
def _between(x: Array, y: Array, share: ArrayLike) -> Array:
    """(1 - share) x + share y in x's dtype, exact at both ends and where x = y."""
    difference = y.astype(x.dtype) - x
    near = x + jnp.asarray(share).astype(x.dtype) * difference
    far = y.astype(x.dtype) - (1.0 - jnp.asarray(share)).astype(x.dtype) * difference
    return jnp.where(jnp.asarray(share) < 0.5, near, far)
