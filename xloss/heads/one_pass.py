# SPDX-License-Identifier: Apache-2.0
"""The fast schedule: token chunks, with the gradient taken in the forward pass.

Where the reduction is known, so is the cotangent of every token's loss, and a chunk's logits need
not be computed again: three matrix products, and the memory of a chunk's logits. What the backward
pass does is one multiplication by the cotangent of the scalar.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from xloss.heads import sums
from xloss.heads.engine import Arrays, Layer, add_block, cut, is_class, is_primal, join
from xloss.typing import Array, PyTree


class Tokens(NamedTuple):
    """What the loss of every token depends on beside its statistics, each [N, ...].

    Attributes:
      weights: in the working dtype.
      arguments: tree of float arrays.
      fixed: tree of other arrays (integers, keys).
      kept: bool; the loss of a token that is not kept is 0.
    """

    weights: Array
    arguments: PyTree
    fixed: PyTree
    kept: Array


class Shared(NamedTuple):
    """What the losses of all tokens depend on: trees of float arrays and of others."""

    arguments: PyTree
    fixed: PyTree


#: (fields of n tokens, token arguments, fixed ones, shared arguments, fixed ones) -> losses [n]
TokenLoss = Callable[[tuple[Array, ...], PyTree, PyTree, PyTree, PyTree], Array]


def weighted_sum(
    layer: Layer, arrays: Arrays, loss: TokenLoss, tokens: Tokens, shared: Shared
) -> Array:
    """sum_i weights_i loss_i, differentiable in all float arrays.

    Args:
      layer, arrays: the output layer.
      loss: hashable; one compile for each.
      tokens, shared: what the loss is given.
    """
    learned = (arrays.learned, tokens.weights, tokens.arguments, shared.arguments)
    known = (arrays.known, tokens.fixed, tokens.kept, shared.fixed)
    return _weighted_sum(layer, loss)(learned, known)


@functools.lru_cache(maxsize=256)
def _weighted_sum(layer: Layer, loss: TokenLoss):
    @jax.custom_vjp
    def call(learned, known):
        arrays, tokens, shared = _unpack(learned, known)
        columns, bias, block = cut(layer, arrays, 0, 0, arrays.held)

        def of_chunk(chunk):
            h, labels, tokens = chunk
            a = layer.head.product(h, columns, arrays.settings)
            z = layer.head.finish(a, bias, arrays.settings)
            return _chunk_sum(layer, loss, z, block, bias, labels, tokens, shared)[0]

        chunks = layer.plan.split((arrays.hidden, arrays.labels, tokens))
        return jnp.sum(jax.lax.map(of_chunk, chunks))

    def forward_rule(*primals):
        wanted = jax.tree.map(lambda x: x.perturbed, primals[0], is_leaf=is_primal)
        learned, known = jax.tree.map(lambda x: x.value, primals, is_leaf=is_primal)
        return _value_and_gradient(layer, loss, learned, known, any(jax.tree.leaves(wanted[0][1])))

    def backward_rule(gradient, cotangent):
        if isinstance(cotangent, jax.custom_derivatives.SymbolicZero):
            return None, None
        return jax.tree.map(
            lambda g: (cotangent * g.astype(cotangent.dtype)).astype(g.dtype), gradient
        ), None

    call.defvjp(forward_rule, backward_rule, symbolic_zeros=True)
    return call


def _unpack(learned, known):
    (hidden, columns, bias, settings), weights, token_arguments, shared_arguments = learned
    (labels, first), token_fixed, kept, shared_fixed = known
    return (
        Arrays(hidden, columns, bias, settings, labels, first),
        Tokens(weights, token_arguments, token_fixed, kept),
        Shared(shared_arguments, shared_fixed),
    )


def _chunk_sum(layer, loss, z, block, bias, labels, tokens, shared):
    """(weighted sum, losses) of a chunk, from its logits [n, V]."""
    fields = _fields(layer, bias is not None)(z, (block(labels), is_class(layer, labels)))
    losses = loss(fields, tokens.arguments, tokens.fixed, shared.arguments, shared.fixed)
    losses = jnp.where(tokens.kept, losses, jnp.zeros_like(losses))
    return jnp.sum(tokens.weights * losses), losses


def _value_and_gradient(layer, loss, learned, known, kernel_wanted):
    arrays, tokens, shared = _unpack(learned, known)
    head, wide = layer.head, tokens.weights.dtype
    columns, bias, block = cut(layer, arrays, 0, 0, arrays.held)

    def zeros(tree):
        return jax.tree.map(lambda x: jnp.zeros_like(x, wide), tree)

    def step(carry, chunk):
        value, dcolumns, dbias, dsettings, dshared = carry
        h, labels, tokens = chunk
        a = head.product(h, columns, arrays.settings)
        z, unfinish = jax.vjp(head.finish, a, bias, arrays.settings)

        def objective(z, arguments, shared_arguments):
            mine = tokens._replace(arguments=arguments)
            ours = shared._replace(arguments=shared_arguments)
            return _chunk_sum(layer, loss, z, block, bias, labels, mine, ours)

        total, back, losses = jax.vjp(
            objective, z, tokens.arguments, shared.arguments, has_aux=True
        )
        dz, darguments, into_shared = back(jnp.ones_like(total))
        da, into_bias, from_finish = unfinish(dz)
        dh, dcolumns, from_product = _pull(layer, arrays, h, da, dcolumns, kernel_wanted)
        carry = (
            value + total,
            dcolumns,
            _add(dbias, into_bias),
            _add(_add(dsettings, from_finish), from_product),
            _add(dshared, into_shared),
        )
        return carry, (dh.astype(h.dtype), losses, darguments)

    shared_zeros = zeros((arrays.columns, bias, arrays.settings, shared.arguments))
    start = (jnp.sum(jnp.zeros_like(tokens.weights)), *shared_zeros)
    chunks = layer.plan.split((arrays.hidden, arrays.labels, tokens))
    (value, *found), per_token = jax.lax.scan(step, start, chunks)
    dcolumns, dbias, dsettings, dshared = found
    dh, losses, darguments = layer.plan.join(per_token, arrays.hidden.shape[0])
    gradient = ((dh, dcolumns, dbias, dsettings), losses, darguments, dshared)
    return value, jax.tree.map(lambda g, x: g.astype(x.dtype), gradient, learned)


def _pull(layer, arrays, h, da, dcolumns, kernel_wanted):
    """(dh, dcolumns with this chunk's part added, dsettings) of a chunk, by blocks of classes."""
    plan, head, held = layer.plan, layer.head, arrays.held

    def pull(columns, part):
        dh, into, settings = head.pull(h, columns, arrays.settings, part)
        # What nobody wants is left out here; XLA then leaves out its product.
        return dh, into if kernel_wanted else None, settings

    def step(i, carry):
        dh, dcolumns, dsettings = carry
        start, fresh = plan.start(i, held)
        columns, _, _ = cut(layer, arrays, start, fresh, plan.block)
        part = jax.lax.dynamic_slice_in_dim(da, start, plan.block, -1)
        if held % plan.block:
            seen = start + jnp.arange(plan.block) < fresh
            part = jnp.where(seen[None, :], jnp.zeros_like(part), part)
        dh_part, into, settings = pull(columns, part)
        if into is not None:
            dcolumns = jax.tree.map(lambda x, dx: add_block(x, dx, start), dcolumns, into)
        return dh + dh_part, dcolumns, _add(dsettings, settings)

    if plan.block < held:
        empty = (
            jnp.zeros_like(h, da.dtype),
            dcolumns,
            jax.tree.map(jnp.zeros_like, arrays.settings),
        )
        return plan.over_blocks(step, empty, held)
    dh, into, settings = pull(cut(layer, arrays, 0, 0, held)[0], da)
    return dh, dcolumns if into is None else _add(dcolumns, into), settings


def _add(tree: PyTree, more: PyTree) -> PyTree:
    return jax.tree.map(lambda x, y: x + y.astype(x.dtype), tree, more)


@functools.cache
def _fields(layer: Layer, masked: bool):
    """``statistics.FIELDS`` of logits that hold all classes; only fields that are used cost."""

    def forward(z, known):
        block, is_class = known
        found = sums.absorb(sums.nothing(jnp.zeros_like(z[:, 0])), z, block)
        found = join(layer, found, masked)
        return sums.fields(found, is_class), found

    @jax.custom_vjp
    def call(z, known):
        return forward(z, known)[0]

    def forward_rule(*primals):
        z, known = jax.tree.map(lambda x: x.value, primals, is_leaf=is_primal)
        outputs, found = forward(z, known)
        return outputs, (z, known[0], found)

    def backward_rule(residuals, cotangents):
        z, block, found = residuals
        return sums.onto_logits(z, block, found, sums.used(cotangents)), None

    call.defvjp(forward_rule, backward_rule, symbolic_zeros=True)
    return call
