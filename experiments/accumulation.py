# SPDX-License-Identifier: Apache-2.0
"""Gradient accumulation: a batch in micro-batches, with the numbers of the whole batch.

For a step whose activations do not fit. `mean_and_gradient` is the gradient of one objective: the
activations of one micro-batch at a time are in memory. `means` gives the means themselves, to be
differentiated by whoever needs more than one gradient of them; there the forward pass of a
micro-batch is done again on the way back. Sums and weights are added up before anything is divided:
the mean of the means is another number where micro-batches differ in weight.

Each micro-batch is spread over the mesh axis `data` as the batch is, and no row changes its device.
With one micro-batch the key of its random draws is the step's; with more, number i has
`fold_in(key, i)`: dropout and drawn samples are then others than in one batch, of the same
distribution.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

import xloss

Batch = Mapping[str, jax.Array]


class Terms(NamedTuple):
    """What an objective is the mean of.

    Attributes:
      losses: float [...], one for each example (or token); or a scalar, which is then the mean of
        the micro-batch, all its examples having the same weight.
      metrics: name -> bool or float, of the shape of losses; their mean is logged.
      where: bool, of the shape of losses, as in `xloss.reduce`; for the metrics, too.
      weights: float, of the shape of losses, as in `xloss.reduce`; not for the metrics.

    With a mask or weights the metric "fraction_masked" says which part of the terms counts for
    nothing.
    """

    losses: jax.Array
    metrics: Mapping[str, jax.Array] = MappingProxyType({})
    where: jax.Array | None = None
    weights: jax.Array | None = None


#: (parameters, batch, key) -> terms, each of which depends on its own example alone.
Objective = Callable[[Any, Batch, jax.Array], Terms]


def mean_and_gradient(
    objective: Objective, params: Any, batch: Batch, key: jax.Array, count: int
) -> tuple[jax.Array, dict[str, jax.Array], Any]:
    """(mean of the losses, means of the metrics, gradient of the former) over the batch.

    Args:
      objective: the terms.
      params: at which.
      batch: arrays [B, ...], B a multiple of `count`.
      key: of the step.
      count: micro-batches, >= 1. The objective of one alone may couple its examples.
    """

    def sums(where: Any, piece: Batch, piece_key: jax.Array) -> tuple[jax.Array, Any]:
        terms = objective(where, piece, piece_key)
        total, weight = xloss.reduce(
            terms.losses, where=terms.where, weights=terms.weights, how="sum_and_weight"
        )
        metrics = {
            name: xloss.reduce(values.astype(total.dtype), where=terms.where, how="sum_and_weight")
            for name, values in terms.metrics.items()
        }
        if (masked := _masked(terms)) is not None:
            metrics["fraction_masked"] = xloss.reduce(
                masked.astype(total.dtype), how="sum_and_weight"
            )
        return total, (jax.lax.stop_gradient(weight), metrics)

    if count == 1:  # divided inside: the cotangents that the losses get are those of a mean

        def mean(where: Any) -> tuple[jax.Array, Any]:
            total, (weight, metrics) = sums(where, batch, key)
            return _divided(total, weight), metrics

        (loss, metrics), gradient = jax.value_and_grad(mean, has_aux=True)(params)
    else:

        def of_piece(piece: Batch, piece_key: jax.Array) -> tuple[tuple[jax.Array, Any], Any]:
            return jax.value_and_grad(sums, has_aux=True)(params, piece, piece_key)

        (total, (weight, metrics)), gradient = _added(of_piece, batch, key, count)
        loss = _divided(total, weight)
        gradient = jax.tree.map(lambda leaf: _divided(leaf, weight.astype(leaf.dtype)), gradient)
    return loss, {name: _divided(*pair) for name, pair in metrics.items()}, gradient


def means(
    function: Callable[[Any, Batch, jax.Array], Any],
    params: Any,
    batch: Batch,
    key: jax.Array,
    count: int,
) -> Any:
    """The means over the examples of what a function says of each, differentiable in `params`.

    Args:
      function: (parameters, batch, key) -> pytree of float arrays [B, ...], a row for each example.
      params, batch, key, count: as for `mean_and_gradient`.

    Returns:
      The function's pytree without the first axes.
    """
    size = jax.tree.leaves(batch)[0].shape[0]

    def sums(where: Any, piece: Batch, piece_key: jax.Array) -> Any:
        return jax.tree.map(lambda v: jnp.sum(v, axis=0), function(where, piece, piece_key))

    if count == 1:
        total = sums(params, batch, key)
    else:  # in a scan nothing is merged with the forward pass anyway
        again = jax.checkpoint(sums, prevent_cse=False)
        total = _added(lambda piece, k: again(params, piece, k), batch, key, count)
    return jax.tree.map(lambda v: v / size, total)


def _added(
    function: Callable[[Batch, jax.Array], Any], batch: Batch, key: jax.Array, count: int
) -> Any:
    """The sum over the micro-batches of what a function says of each and its key."""
    # Row r of micro-batch i is row r * count + i of the batch: the axis that is cut stays the outer
    # one, so that the rows of a device stay on it.
    pieces = {
        name: jnp.swapaxes(rows.reshape(-1, count, *rows.shape[1:]), 0, 1)
        for name, rows in batch.items()
    }

    def add(total: Any, numbered: tuple[jax.Array, Batch]) -> tuple[Any, None]:
        number, piece = numbered
        found = function(piece, jax.random.fold_in(key, number))
        return jax.tree.map(jnp.add, total, found), None

    first = {name: rows[0] for name, rows in pieces.items()}
    shapes = jax.eval_shape(function, first, key)
    start = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    return jax.lax.scan(add, start, (jnp.arange(count), pieces))[0]


def _masked(terms: Terms) -> jax.Array | None:
    """Bool, of the shape of the losses: which terms count for nothing. None where all must."""
    masked = None if terms.where is None else ~terms.where
    if terms.weights is not None:
        without = terms.weights == 0
        masked = without if masked is None else masked | without
    return masked


def _divided(total: jax.Array, weight: jax.Array) -> jax.Array:
    """total / weight; 0 where nothing has a weight."""
    return jnp.where(weight == 0, jnp.zeros_like(total), total / jnp.where(weight == 0, 1, weight))
