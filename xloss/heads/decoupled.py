# SPDX-License-Identifier: Apache-2.0
"""Decoupled softmax over more labels than scores fit into memory.

Gupta et al., DEXML: the loss over all labels of a catalogue (1.3 million in the paper), without the
[examples, labels] scores. Reach for it with :func:`xloss.heads.grad_cache`, which encodes the
labels; where the scores fit, :func:`xloss.classification.decoupled_softmax` is the same loss.
"""

import functools

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.typing import ArrayLike

from xloss import checks, multi_label, numerics
from xloss.heads import arguments
from xloss.heads.engine import Arrays, Layer, add_block, cut
from xloss.heads.plan import Plan
from xloss.heads.scoring import Linear
from xloss.heads.sharded import spread
from xloss.typing import Array

#: Bytes of the scores of one chunk, where no chunk_size is given.
_CHUNK_BYTES = 32 * 2**20


def chunked_decoupled_softmax(
    query: ArrayLike,
    kernel: ArrayLike,
    label_ids: ArrayLike,
    *,
    temperature: ArrayLike = 1.0,
    reduce_positives: str = "mean",
    num_classes: int | None = None,
    chunk_size: int | None = None,
    where: ArrayLike | None = None,
    mesh: Mesh | None = None,
    class_axis: str | None = None,
) -> Array:
    """Decoupled softmax of scores query @ kernel / temperature, a chunk of labels at a time.

    Definition: ``decoupled_softmax(query @ kernel, multi_hot, temperature=temperature)`` with
    multi_hot 1 at the label_ids; the same losses and gradients.

    Args:
      query: [B, d], any float dtype.
      kernel: [d, L], a label's embedding in each column.
      label_ids: integer [B, P] in [0, L), the true labels; rows filled up with -1 (any negative).
        A label that stands twice counts once.
      temperature: scalar > 0, traced and differentiable.
      reduce_positives: "mean" or "sum" over the true labels.
      num_classes: how many of the columns are labels; the others are padding and never enter.
      chunk_size: labels at a time; None takes as many as 32 MiB of scores hold.
      where: bool [B]; False means loss and gradient exactly 0.
      mesh, class_axis: labels spread over devices, as in :func:`xloss.heads.linear_statistics`.
        Devices exchange [B] sums and the [B, P] scores of the true labels.

    Returns:
      Losses [B] >= 0, float32 (float64 if query or kernel is).

    Raises:
      TypeError: wrong dtypes; plain forward mode.
      ValueError: shapes that do not fit, numbers out of range, labels that do not divide over the
        devices.

    Numerics:
      Temporaries are one chunk of scores and the kernel's gradient, O(B chunk + d L); scores are
      computed again for the gradient. A label that is none gives NaN.

    Example:
      >>> import jax.numpy as jnp
      >>> query, kernel = jnp.array([[1.0, 2.0]]), jnp.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.5]])
      >>> loss = chunked_decoupled_softmax(query, kernel, jnp.array([[1, -1]]), chunk_size=2)
      >>> [round(float(x), 4) for x in loss]  # scores 1, 2, 1
      [0.5514]

    Evidence: authors' code.

    References:
      Gupta, Khatri, Rawat, Bhojanapalli, Jain, Dhillon, "Dual-Encoders for Extreme Multi-Label
      Classification", ICLR 2024, arXiv 2310.10636; authors' code nilesh2797/DEXML.
    """
    name = "chunked_decoupled_softmax"
    label_ids = checks.integer(name, "label_ids", label_ids)
    given = arguments.check(
        name,
        query,
        kernel,
        None,
        where=where,
        num_classes=num_classes,
        mesh=mesh,
        class_axis=class_axis,
    )
    if given.hidden.ndim != 2:
        raise ValueError(f"{name}: expected query of shape (B, d), got {given.hidden.shape}")
    if label_ids.ndim != 2 or label_ids.shape[0] != given.hidden.shape[0]:
        raise ValueError(
            f"{name}: expected label_ids of shape ({given.hidden.shape[0]}, P), got "
            f"{label_ids.shape}"
        )
    checks.choice(name, "reduce_positives", reduce_positives, multi_label.REDUCTIONS)
    temperature = checks.number(name, "temperature", temperature, low=0.0, open_low=True)
    if chunk_size is not None and (type(chunk_size) is not int or chunk_size < 1):
        raise ValueError(f"{name}: expected chunk_size to be an int >= 1, got {chunk_size!r}")
    size = given.size
    chunk = chunk_size or max(_CHUNK_BYTES // (size.itemsize * max(size.tokens, 1)), 128)
    layer = given.layer(Linear(tempered=True), Plan(min(chunk, size.held)))
    return arguments.call(
        name, "decoupled_softmax(query @ kernel, labels)", _chunked, given.hidden, given.kernel,
        label_ids, temperature, given.where, layer=layer, mesh=mesh,
        mean=reduce_positives == "mean",
    )  # fmt: skip


@functools.partial(jax.jit, static_argnames=("layer", "mesh", "mean"))
def _chunked(query, kernel, ids, temperature, where, *, layer, mesh, mean):
    arrays = arguments.arrays(
        query, kernel, None, {"temperature": temperature}, None, where, layer=layer
    )
    if where is not None:
        ids = jnp.where(where[:, None], ids, jnp.full_like(ids, -1))
    legal = jnp.all(ids < layer.classes, axis=-1)
    ids = ids.astype(jnp.int32)
    # A label that stands twice counts where it stands first.
    same = ids[:, :, None] == ids[:, None, :]
    earlier = jnp.tril(jnp.ones(same.shape[1:], jnp.bool_), -1)
    positive = (ids >= 0) & ~jnp.any(same & earlier[None], axis=-1)

    target, against = spread(
        lambda arrays, ids, _: _scores(layer, arrays, ids),
        arrays,
        ids,
        mesh=mesh,
        class_axis=layer.axis,
    )
    found = multi_label.per_positive(against, target, positive, None, mean)
    return numerics.masked(jnp.where(legal, found, jnp.full_like(found, jnp.nan)), where)


def _scores(layer, arrays, ids):
    """(scores of the true labels [B, P], log-sum-exp over all others [B]), of all devices."""
    local = ids if arrays.first is None else ids - arrays.first
    here = (ids >= 0) & (local >= 0) & (local < arrays.held)
    place = jnp.where(here, local, jnp.zeros_like(local))
    own = jnp.take(arrays.columns, place, axis=-1)  # [d, B, P]
    own = jnp.where(here[None], own, jnp.zeros_like(own))  # padding may hold NaN
    dtype = jnp.promote_types(arrays.hidden.dtype, own.dtype)
    target = jnp.einsum(
        "bd,dbp->bp",
        arrays.hidden.astype(dtype),
        own.astype(dtype),
        preferred_element_type=numerics.working_dtype(dtype),
    )
    target = layer.head.finish(target, None, arrays.settings)
    target = jnp.where(here, target, jnp.zeros_like(target))
    against = _others(layer)(arrays.learned, (arrays.first, jnp.where(here, local, -1)))
    if layer.axis is None:
        return target, against
    top = jax.lax.pmax(jax.lax.stop_gradient(against), layer.axis)
    top = jnp.where(jnp.isfinite(top), top, jnp.zeros_like(top))
    total = jax.lax.psum(jnp.exp(against - top), layer.axis)
    alone = total == 0
    total = jnp.where(alone, jnp.ones_like(total), total)
    against = jnp.where(alone, -jnp.inf, jnp.log(total) + top)
    return jax.lax.psum(target, layer.axis), against


@functools.cache
def _others(layer: Layer):
    """log-sum-exp [B] over the labels held here but the true ones, in chunks."""

    def block_of(learned, known, i):
        first, local = known
        hidden, kernel, _, settings = learned
        arrays = Arrays(
            hidden, kernel, None, settings, jnp.zeros_like(hidden[:, 0], jnp.int32), first
        )
        start, fresh = layer.plan.start(i, arrays.held)
        columns, _, block = cut(layer, arrays, start, fresh, layer.plan.block)
        a = layer.head.product(arrays.hidden, columns, arrays.settings)
        z, unfinish = jax.vjp(lambda a, s: layer.head.finish(a, None, s), a, arrays.settings)
        alive = block(arrays.labels).alive
        # Out of range: dropped. A negative index would count from the end.
        column = jnp.where(local >= 0, local - start, layer.plan.block)
        column = jnp.where(column >= 0, column, layer.plan.block)
        rows = jnp.arange(z.shape[0], dtype=jnp.int32)[:, None]
        others = z.at[rows, column].set(-jnp.inf, mode="drop")
        others = others if alive is None else jnp.where(alive[None, :], others, -jnp.inf)
        return others, columns, unfinish, start

    def forward(learned, known):
        hidden, kernel, _, _ = learned
        wide = numerics.working_dtype(jnp.promote_types(hidden.dtype, kernel.dtype))

        def step(i, carry):
            top, total = carry
            others = block_of(learned, known, i)[0]
            new = jnp.maximum(top, jnp.max(others, axis=-1))
            shift = jnp.where(jnp.isfinite(new), new, jnp.zeros_like(new))
            added = jnp.sum(jnp.exp(others - shift[:, None]), axis=-1)
            return new, total * jnp.exp(top - shift) + added

        zero = jnp.zeros_like(hidden[:, 0], wide)
        top, total = layer.plan.over_blocks(step, (zero - jnp.inf, zero), kernel.shape[-1])
        alone = total == 0
        found = jnp.log(jnp.where(alone, jnp.ones_like(total), total)) + top
        return jnp.where(alone, -jnp.inf, found)

    @jax.custom_vjp
    def call(learned, known):
        return forward(learned, known)

    def forward_rule(learned, known):
        found = forward(learned, known)
        return found, (learned, known, found)

    def backward_rule(residuals, cotangent):
        learned, known, found = residuals
        hidden, kernel, _, settings = learned
        shift = jnp.where(jnp.isfinite(found), found, jnp.zeros_like(found))
        wide = found.dtype

        def step(i, carry):
            dh, dkernel, dsettings = carry
            others, columns, unfinish, start = block_of(learned, known, i)
            da, from_finish = unfinish(cotangent[:, None] * jnp.exp(others - shift[:, None]))
            part, into, from_product = layer.head.pull(hidden, columns, settings, da)
            dsettings = jax.tree.map(
                lambda *x: sum(x[1:], x[0]), dsettings, from_finish, from_product
            )
            return dh + part, add_block(dkernel, into, start), dsettings

        zeros = (
            jnp.zeros_like(hidden, wide),
            jnp.zeros_like(kernel),
            jax.tree.map(jnp.zeros_like, settings),
        )
        dh, dkernel, dsettings = layer.plan.over_blocks(step, zeros, kernel.shape[-1])
        return (dh.astype(hidden.dtype), dkernel, None, dsettings), None

    call.defvjp(forward_rule, backward_rule)
    return call
