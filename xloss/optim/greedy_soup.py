# SPDX-License-Identifier: Apache-2.0
"""Greedy soup: an average of models that takes in only what helps on held-out data.

"Model soups: averaging weights of multiple fine-tuned models improves accuracy without increasing
inference time". Reach for it when some runs of a sweep went astray (a learning rate too large puts
a barrier between the models), where the uniform soup suffers; on the held-out data it is never
worse than the best single model.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jax.typing import ArrayLike

from xloss.optim import trees as tree_checks
from xloss.optim.soups import Ingredient, Soup, count_ingredients, load
from xloss.typing import PyTree


class GreedyTrial(NamedTuple):
    """One ingredient's trial.

    Attributes:
      index: its place among the trees.
      single: the metric of its own.
      candidate: the metric of the soup with it; of the first tried, ``single``.
      accepted: whether it went into the soup.
    """

    index: int
    single: float
    candidate: float
    accepted: bool


class GreedySoup(NamedTuple):
    """What :func:`greedy_soup` returns.

    Attributes:
      params: the soup, in the dtypes of its first ingredient.
      ingredients: places of what went in, in the order of acceptance, best single model first.
      history: one trial for each tree, in the order they were tried.
    """

    params: PyTree
    ingredients: tuple[int, ...]
    history: tuple[GreedyTrial, ...]


def greedy_soup(
    trees: Sequence[Ingredient], evaluate: Callable[[PyTree], ArrayLike], *, strict: bool = True
) -> GreedySoup:
    """Adds models to an average in the order of their metric, each only if the average gains.

    Definition, A = evaluate, n the number of ingredients so far::

        order: decreasing A(theta_i);  soup = the first, best = A(first)
        for each next theta: candidate = n / (n + 1) soup + theta / (n + 1)
                             A(candidate) > best: soup = candidate, best = A(candidate)

    Args:
      trees: k >= 1 trees of one structure and shapes, or functions of no argument that return
        them; a function is called twice, once for the metric of its own and once for its trial.
      evaluate: params -> metric, a number, the higher the better, on HELD-OUT data: neither the
        training set nor the test set that the result is reported on. Called 2 k - 1 times.
      strict: True accepts a candidate with A > best, as the authors' code does; False one with
        A >= best, as the paper's Recipe 1 says; static.

    Returns:
      GreedySoup (params, ingredients, history). Leaves that are not of a float dtype are those of
      the best single model.

    Raises:
      TypeError: trees is not a sequence, evaluate is not a function or returns no number.
      ValueError: no tree, structures or shapes differ, a metric that is not a scalar, or NaN for
        every tree.

    Numerics:
      A loop on the host; jit ``evaluate``. The soup is kept in float32 (float64) and evaluated as
      it is returned, rounded to the dtypes of the models. With loaders at most two trees are alive,
      the soup and the one on trial (and for bfloat16 the rounded candidate). Equal metrics are
      tried in the order of descending index. A model whose metric is NaN comes last, a candidate
      whose metric is NaN is not accepted. Averaged batch normalisation statistics belong to no
      model: let ``evaluate`` compute them anew.

    Example:
      >>> import jax.numpy as jnp
      >>> models = [jnp.array(2.0), jnp.array(-1.0), jnp.array(9.0)]
      >>> soup = greedy_soup(models, lambda w: -jnp.abs(w))
      >>> float(soup.params), soup.ingredients
      (0.5, (1, 0))
      >>> [(trial.index, round(trial.candidate, 2)) for trial in soup.history]
      [(1, -1.0), (0, -0.5), (2, -3.33)]

    Evidence: published formula, derived and checked.

    References:
      "Model soups: averaging weights of multiple fine-tuned models improves accuracy without
      increasing inference time", ICML 2022, arXiv 2203.05482, Recipe 1; authors' code
      mlfoundations/model-soups (main.py), whose strict inequality and order of ties these are.
    """
    name = "greedy_soup"
    size = count_ingredients(name, trees)
    evaluate = tree_checks.check_function(name, "evaluate", evaluate)

    singles = [_metric(name, evaluate(load(trees[i]))) for i in range(size)]
    if all(math.isnan(single) for single in singles):
        raise ValueError(f"{name}: expected a metric for one tree at least, got NaN for all")
    ascending = sorted(
        range(size),
        key=lambda i: (False, 0.0) if math.isnan(singles[i]) else (True, singles[i]),
    )
    first, *rest = reversed(ascending)

    soup = Soup(name, f"trees[{first}]", load(trees[first]))
    best, ingredients = singles[first], [first]
    history = [GreedyTrial(first, best, best, True)]
    for index in rest:
        soup.argument = f"trees[{index}]"
        candidate = soup.stirred(load(trees[index]), 1.0 / (len(ingredients) + 1))
        metric = _metric(name, evaluate(soup.served(candidate)))
        accepted = metric > best or (not strict and metric == best)
        if accepted:
            soup.leaves, best = candidate, metric
            ingredients.append(index)
        del candidate  # before the next tree is loaded
        history.append(GreedyTrial(index, singles[index], metric, accepted))
    return GreedySoup(soup.served(), tuple(ingredients), tuple(history))


def _metric(name: str, value: Any) -> float:
    if np.shape(value) != ():
        raise ValueError(
            f"{name}: expected evaluate to return a scalar, got one of shape {np.shape(value)}"
        )
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name}: expected evaluate to return a number, got {value!r}") from error
