# SPDX-License-Identifier: Apache-2.0
"""The lean schedule: statistics of an output layer whose [tokens, classes] logits never exist.

Forward, a block of classes at a time is scored and absorbed into a few numbers a token. Backward,
each block is scored once more and its cotangent pulled back at once: four matrix products where
plain autodiff has three, and the memory of one block. Both directions are plain JAX inside a
custom_vjp, so that forward over reverse (an exact Hessian-vector product) streams too.

:mod:`xloss.heads.sums` holds the mathematics, :mod:`xloss.heads.scoring` the heads,
:mod:`xloss.heads.plan` the sizes, :mod:`xloss.heads.one_pass` the fast schedule.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from xloss import numerics
from xloss.heads import sums
from xloss.heads.plan import Plan
from xloss.heads.scoring import Head, Settings
from xloss.typing import Array, PyTree


@dataclasses.dataclass(frozen=True)
class Layer:
    """The static half of an output layer.

    Attributes:
      head: how a block is scored.
      plan: sizes of the blocks.
      classes: how many classes there are in all.
      axis: mesh axis over which they are spread, inside shard_map; None where they are not.
    """

    head: Head
    plan: Plan
    classes: int
    axis: str | None = None

    def padded(self, held: int) -> bool:
        """Whether the columns of all devices, ``held`` on each, are more than the classes."""
        return self.axis is not None and self.classes < held * jax.lax.axis_size(self.axis)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Arrays:
    """The other half: what an output layer computes with.

    Attributes:
      hidden: h [N, d].
      columns: the head's array (or tree of them), the class axis last.
      bias: [V] or None.
      settings: the arrays that all classes share.
      labels: int32 [N].
      first: int32 scalar, the number of the first column that is held here; None for 0.
    """

    hidden: Array
    columns: PyTree
    bias: Array | None
    settings: Settings
    labels: Array
    first: Array | None = None

    @property
    def held(self) -> int:
        """How many columns are held here."""
        return jax.tree.leaves(self.columns)[0].shape[-1]

    @property
    def learned(self) -> tuple[Array, PyTree, Array | None, Settings]:
        """What may be differentiated."""
        return self.hidden, self.columns, self.bias, self.settings

    @property
    def known(self) -> tuple[Array, Array | None]:
        """What may not."""
        return self.labels, self.first


def statistics(layer: Layer, arrays: Arrays) -> tuple[Array, ...]:
    """``statistics.FIELDS`` of every token, each [N], differentiable in ``arrays.learned``."""
    return _statistics(layer)(arrays.learned, arrays.known)


def cut(
    layer: Layer, arrays: Arrays, start: Array | int, fresh: Array | int, size: int
) -> tuple[PyTree, Array | None, Callable[[Array], sums.Block]]:
    """A block of ``size`` classes from ``start``: (columns, bias, labels -> sums.Block).

    Classes before ``fresh`` do not count, because an earlier block had them (the last block
    overlaps, so that all have one size); nor do padding and classes that the bias masks out.
    """

    def part(x):
        return x if x.shape[-1] == size else jax.lax.dynamic_slice_in_dim(x, start, size, -1)

    columns = jax.tree.map(part, arrays.columns)
    bias = None if arrays.bias is None else part(arrays.bias)
    index = start + jnp.arange(size, dtype=jnp.int32)
    counts = index >= fresh if arrays.held % size else None
    if arrays.first is not None and layer.padded(arrays.held):
        inside = index < layer.classes - arrays.first
        counts = inside if counts is None else counts & inside
        # Padding may hold anything, and 0 * NaN is NaN.
        columns = jax.tree.map(lambda x: jnp.where(inside[None, :], x, 0), columns)
        bias = None if bias is None else jnp.where(inside, bias, 0)
    alive = counts
    if bias is not None:
        kept = ~jnp.isneginf(bias)
        alive = kept if alive is None else alive & kept

    def block(labels: Array) -> sums.Block:
        local = labels if arrays.first is None else labels - arrays.first
        place = local - start
        here = (local >= fresh) & (place >= 0) & (place < size) & (labels < layer.classes)
        column = jnp.where(here, place, -1)
        hit = column[:, None] == jnp.arange(size, dtype=jnp.int32)[None, :]
        return sums.Block(hit, here, place, alive, index)

    return columns, bias, block


def is_class(layer: Layer, labels: Array) -> Array:
    """Which labels are classes."""
    return (labels >= 0) & (labels < layer.classes)


def join(layer: Layer, found: sums.Sums, masked: bool) -> sums.Sums:
    """Sums over all classes from those over the columns that are held here.

    ``masked`` says whether classes may be masked out, so that their number must be asked for.
    """
    if layer.axis is None:
        return found
    return sums.over_devices(found, layer.axis, None if masked else layer.classes)


def add_block(whole: Array, part: Array, start: Array | int) -> Array:
    """``whole`` with ``part`` added from column ``start`` on, in place."""
    if whole.shape == part.shape:
        return whole + part.astype(whole.dtype)
    # Added, not written: where the last block overlaps an earlier one, its part is 0.
    before = jax.lax.dynamic_slice_in_dim(whole, start, part.shape[-1], -1)
    return jax.lax.dynamic_update_slice_in_dim(whole, before + part.astype(whole.dtype), start, -1)


def is_primal(x: Any) -> bool:
    """Whether x is an argument of a forward rule with symbolic zeros."""
    return isinstance(x, jax.custom_derivatives.CustomVJPPrimal)


@functools.cache
def _statistics(layer: Layer):
    def forward(learned, known):
        arrays = Arrays(*learned, *known)
        found = join(layer, _absorb_all(layer, arrays), arrays.bias is not None)
        return sums.fields(found, is_class(layer, arrays.labels)), found

    @jax.custom_vjp
    def call(learned, known):
        return forward(learned, known)[0]

    def forward_rule(*primals):
        learned, known = jax.tree.map(lambda x: x.value, primals, is_leaf=is_primal)
        outputs, found = forward(learned, known)
        return outputs, (learned, known, found)

    def backward_rule(residuals, cotangents):
        learned, known, found = residuals
        return _pull_all(layer, Arrays(*learned, *known), found, sums.used(cotangents)), None

    call.defvjp(forward_rule, backward_rule, symbolic_zeros=True)
    return call


def _absorb_all(layer: Layer, arrays: Arrays) -> sums.Sums:
    plan, head = layer.plan, layer.head

    def of_chunk(chunk):
        h, labels = chunk

        def step(i, found):
            columns, bias, block = cut(layer, arrays, *plan.start(i, arrays.held), plan.block)
            a = head.product(h, columns, arrays.settings)
            z = head.finish(a, bias, arrays.settings)
            return sums.absorb(found, z, block(labels))

        nothing = sums.nothing(jnp.zeros_like(h[:, 0], wide_dtype(arrays)))
        return plan.over_blocks(step, nothing, arrays.held)

    return plan.over_tokens(of_chunk, (arrays.hidden, arrays.labels))


def _pull_all(layer, arrays, found, cotangents):
    plan, head, wide = layer.plan, layer.head, wide_dtype(arrays)
    chunks = plan.split((arrays.hidden, arrays.labels, found, cotangents))

    def zeros(tree, dtype=None):
        return jax.tree.map(lambda x: jnp.zeros_like(x, dtype), tree)

    def step(i, carry):
        dh, dcolumns, dbias, dsettings = carry
        start, fresh = plan.start(i, arrays.held)
        columns, bias, block = cut(layer, arrays, start, fresh, plan.block)

        def of_chunk(chunk):
            h, labels, found, cotangents = chunk
            a = head.product(h, columns, arrays.settings)
            z, unfinish = jax.vjp(head.finish, a, bias, arrays.settings)
            da, into_bias, from_finish = unfinish(
                sums.onto_logits(z, block(labels), found, cotangents)
            )
            part, into_columns, from_product = head.pull(h, columns, arrays.settings, da)
            into_settings = jax.tree.map(jnp.add, from_finish, from_product)
            return part, (into_columns, into_bias, into_settings)

        empty = zeros((columns, bias, arrays.settings), wide)
        dh, (into_columns, into_bias, into_settings) = plan.accumulate(of_chunk, chunks, dh, empty)
        dcolumns = jax.tree.map(lambda x, dx: add_block(x, dx, start), dcolumns, into_columns)
        if bias is not None:
            dbias = add_block(dbias, into_bias, start)
        return dh, dcolumns, dbias, jax.tree.map(jnp.add, dsettings, into_settings)

    start = (zeros(chunks[0], wide), *zeros((arrays.columns, arrays.bias, arrays.settings)))
    dh, *rest = plan.over_blocks(step, start, arrays.held)
    return plan.join(dh, arrays.hidden.shape[0]).astype(arrays.hidden.dtype), *rest


def wide_dtype(arrays: Arrays) -> jnp.dtype:
    """The dtype in which logits are computed and gradients are accumulated."""
    leaves = (arrays.hidden, *jax.tree.leaves(arrays.columns))
    return numerics.working_dtype(functools.reduce(jnp.promote_types, (x.dtype for x in leaves)))
