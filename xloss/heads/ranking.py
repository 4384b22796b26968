# SPDX-License-Identifier: Apache-2.0
"""Evaluation over a huge vocabulary without its logits: the best classes, the true one's rank.

Reach for :func:`linear_rank` for top-k accuracy at every k at once (the label is among the k best
iff its rank is < k) and for mean reciprocal rank; for :func:`linear_top_k` to see the classes.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.typing import ArrayLike

from xloss.heads import arguments, engine, plan
from xloss.heads.linear import linear_head
from xloss.heads.sharded import spread
from xloss.typing import Array


def linear_top_k(
    hidden: ArrayLike,
    kernel: ArrayLike,
    k: int,
    *,
    bias: ArrayLike | None = None,
    soft_cap: ArrayLike | None = None,
    temperature: ArrayLike = 1.0,
    normalize: bool = False,
    num_classes: int | None = None,
    max_temp_bytes: int | None = None,
    mesh: Mesh | None = None,
    class_axis: str | None = None,
) -> tuple[Array, Array]:
    """The k greatest logits of hidden @ kernel and their classes, a block of classes at a time.

    Args:
      hidden, kernel: h [..., d] and W [d, V].
      k: how many, static, 1 <= k <= num_classes.
      bias, soft_cap, temperature, normalize, num_classes, max_temp_bytes, mesh, class_axis: as in
        :func:`xloss.heads.linear_statistics`. Over devices each sends its own k best, no logits.

    Returns:
      (logits [..., k] from the greatest down, classes int32 [..., k]), the same as
      ``jax.lax.top_k`` of the logits: of equal ones the lower class first. Without a gradient.

    Raises:
      TypeError: wrong dtypes.
      ValueError: shapes that do not fit, k or another number out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> logits, classes = linear_top_k(jnp.array([[1.0]]), jnp.array([[3.0, 7.0, 5.0]]), 2)
      >>> logits.tolist(), classes.tolist()
      ([[7.0, 5.0]], [[1, 2]])
    """
    name = "linear_top_k"
    given = arguments.check(
        name, hidden, kernel, None, bias=bias, num_classes=num_classes,
        max_temp_bytes=max_temp_bytes, mesh=mesh, class_axis=class_axis,
    )  # fmt: skip
    if type(k) is not int or not 1 <= k <= given.classes:
        raise ValueError(f"{name}: expected k to be an int in [1, {given.classes}], got {k!r}")
    head, settings = linear_head(name, soft_cap, temperature, normalize)
    layer = given.layer(head, plan.lean(given.size))
    return _top_k(
        given.hidden, given.kernel, given.bias, settings,
        layer=layer, k=k, mesh=mesh, normalize=bool(normalize),
    )  # fmt: skip


def linear_rank(
    hidden: ArrayLike,
    kernel: ArrayLike,
    labels: ArrayLike,
    *,
    bias: ArrayLike | None = None,
    soft_cap: ArrayLike | None = None,
    temperature: ArrayLike = 1.0,
    normalize: bool = False,
    num_classes: int | None = None,
    max_temp_bytes: int | None = None,
    where: ArrayLike | None = None,
    mesh: Mesh | None = None,
    class_axis: str | None = None,
) -> Array:
    """How many classes come before the true one in ``jax.lax.top_k`` of hidden @ kernel.

    Args:
      hidden, kernel, labels: h [..., d], W [d, V], integer [...].
      where: bool [...]; masked tokens get num_classes, a rank that is no hit at any k.
      bias, soft_cap, temperature, normalize, num_classes, max_temp_bytes, mesh, class_axis: as in
        :func:`xloss.heads.linear_statistics`.

    Returns:
      int32 [...]: 0 if the label has the greatest logit; of equal logits the lower class comes
      first. num_classes where the label is no class or its logit is NaN.

    Raises:
      TypeError: wrong dtypes.
      ValueError: shapes that do not fit, numbers out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> linear_rank(jnp.ones((3, 1)), jnp.array([[3.0, 7.0, 5.0]]), jnp.array([0, 1, 9])).tolist()
      [2, 0, 3]
    """
    name = "linear_rank"
    given = arguments.check(
        name, hidden, kernel, labels, bias=bias, where=where, num_classes=num_classes,
        max_temp_bytes=max_temp_bytes, mesh=mesh, class_axis=class_axis,
    )  # fmt: skip
    head, settings = linear_head(name, soft_cap, temperature, normalize)
    layer = given.layer(head, plan.lean(given.size))
    return _rank(
        given.hidden, given.kernel, given.bias, settings, given.labels, given.where,
        layer=layer, mesh=mesh, normalize=bool(normalize),
    )  # fmt: skip


@functools.partial(jax.jit, static_argnames=("layer", "k", "mesh", "normalize"))
def _top_k(hidden, kernel, bias, settings, *, layer, k, mesh, normalize):
    tensors = jax.lax.stop_gradient((hidden, kernel, bias, settings))
    arrays = arguments.arrays(*tensors, None, None, layer=layer, normalize=normalize)
    found = spread(
        lambda arrays, *_: _best(layer, arrays, k), arrays, mesh=mesh, class_axis=layer.axis
    )
    return jax.tree.map(lambda x: x.reshape(*hidden.shape[:-1], k), found)


def _logits(layer: engine.Layer, arrays: engine.Arrays, h: Array, i: Any):
    """(logits [n, v] of block i, their classes [v], which of them no earlier block had)."""
    start, fresh = layer.plan.start(i, arrays.held)
    columns, bias, _ = engine.cut(layer, arrays, start, fresh, layer.plan.block)
    z = layer.head.finish(layer.head.product(h, columns, arrays.settings), bias, arrays.settings)
    local = start + jnp.arange(layer.plan.block, dtype=jnp.int32)
    classes = local if arrays.first is None else local + arrays.first
    return z, classes, (local >= fresh) & (classes < layer.classes)


def _best(layer, arrays, k):
    def of_chunk(tokens):
        h, _ = tokens

        def step(i, best):
            z, classes, counts = _logits(layer, arrays, h, i)
            # A class that is masked out comes last, but before what only fills up.
            z = jnp.maximum(z, jnp.finfo(z.dtype).min)
            z = jnp.where(counts[None, :], z, -jnp.inf)
            classes = jnp.broadcast_to(classes[None, :], z.shape)
            return _merge(k, best[0], best[1], z, classes)

        nothing = jnp.zeros_like(h, engine.wide_dtype(arrays), shape=(h.shape[0], k)) - jnp.inf
        return layer.plan.over_blocks(
            step, (nothing, jnp.zeros_like(nothing, jnp.int32)), arrays.held
        )

    scores, classes = layer.plan.over_tokens(of_chunk, (arrays.hidden, arrays.labels))
    if layer.axis is not None:
        scores, classes = _over_devices(scores, classes, k, layer.axis)
    return jnp.where(scores == jnp.finfo(scores.dtype).min, -jnp.inf, scores), classes


def _merge(k, scores, classes, more_scores, more_classes):
    """The k best of both, by score and then by class."""
    scores = jnp.concatenate([scores, more_scores], axis=-1)
    classes = jnp.concatenate([classes, more_classes], axis=-1)
    # Blocks come in the order of their classes, so that top_k's own rule for ties is the right one.
    best, place = jax.lax.top_k(scores, k)
    return best, jnp.take_along_axis(classes, place, axis=-1)


def _over_devices(scores, classes, k, axis):
    # Each device writes its k best in a row of its own and the rows are added: what psum returns
    # is known to be the same on all devices, which an all-gather's result is not.
    devices, mine = jax.lax.axis_size(axis), jax.lax.axis_index(axis)
    place = jnp.arange(devices)[:, None, None] == mine
    rows = (
        jax.lax.psum(jnp.where(place, x[None], jnp.zeros_like(x)[None]), axis)
        for x in (scores, classes)
    )
    scores, classes = (jnp.moveaxis(x, 0, 1).reshape(x.shape[1], -1) for x in rows)
    best, place = jax.lax.top_k(scores, k)
    return best, jnp.take_along_axis(classes, place, axis=-1)


@functools.partial(jax.jit, static_argnames=("layer", "mesh", "normalize"))
def _rank(hidden, kernel, bias, settings, labels, where, *, layer, mesh, normalize):
    tensors = jax.lax.stop_gradient((hidden, kernel, bias, settings))
    arrays = arguments.arrays(*tensors, labels, where, layer=layer, normalize=normalize)
    ranks = spread(
        lambda arrays, *_: _before(layer, arrays), arrays, mesh=mesh, class_axis=layer.axis
    ).reshape(labels.shape)
    return ranks if where is None else jnp.where(where, ranks, layer.classes)


def _before(layer, arrays):
    plan = layer.plan

    def targets(tokens):
        h, labels = tokens

        def step(i, target):
            z, classes, counts = _logits(layer, arrays, h, i)
            hit = (labels[:, None] == classes[None, :]) & counts[None, :]
            return target + jnp.sum(jnp.where(hit, z, 0.0), axis=-1)

        nothing = jnp.zeros_like(h[:, 0], engine.wide_dtype(arrays))
        return plan.over_blocks(step, nothing, arrays.held)

    def ahead(tokens):
        h, labels, target = tokens

        def step(i, before):
            z, classes, counts = _logits(layer, arrays, h, i)
            earlier = classes[None, :] < labels[:, None]
            own = classes[None, :] == labels[:, None]
            level = (z == target[:, None]) & earlier
            found = ((z > target[:, None]) | level) & ~own & counts[None, :]
            return before + jnp.sum(found, axis=-1, dtype=jnp.int32)

        return plan.over_blocks(step, jnp.zeros_like(h[:, 0], jnp.int32), arrays.held)

    target = plan.over_tokens(targets, (arrays.hidden, arrays.labels))
    if layer.axis is not None:
        target = jax.lax.psum(target, layer.axis)
    before = plan.over_tokens(ahead, (arrays.hidden, arrays.labels, target))
    if layer.axis is not None:
        before = jax.lax.psum(before, layer.axis)
    known = engine.is_class(layer, arrays.labels) & ~jnp.isnan(target)
    return jnp.where(known, before, layer.classes)
