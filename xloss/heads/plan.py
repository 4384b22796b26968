# SPDX-License-Identifier: Apache-2.0
"""How many classes and tokens a head takes at a time, and the loops that take them."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NoReturn

import jax
import jax.numpy as jnp

from xloss.typing import Array, PyTree

#: The least sizes that are tried, below which a product is all overhead.
LEAST = 128
MIB = 2**20


@dataclasses.dataclass(frozen=True)
class Plan:
    """Sizes of the blocks.

    Attributes:
      block: classes in a block.
      chunk: tokens in a chunk, of each shard; None takes all of them at once.
      shards: into how many equal parts devices split the tokens. A chunk has its share of each
        part, so that no token moves.
    """

    block: int
    chunk: int | None = None
    shards: int = 1

    def start(self, i: Array | int, classes: int) -> tuple[Array | int, Array | int]:
        """Where block i starts, and from which class on it is new: the last one overlaps."""
        fresh = i * self.block
        if isinstance(fresh, int):
            return min(fresh, classes - self.block), fresh
        return jnp.minimum(fresh, classes - self.block), fresh

    def over_blocks(self, step: Callable[[Any, Any], Any], carry: Any, classes: int) -> Any:
        """carry after step(i, carry) for every block i of so many classes."""
        blocks = math.ceil(classes / self.block)
        return step(0, carry) if blocks == 1 else jax.lax.fori_loop(0, blocks, step, carry)

    def over_tokens(self, function: Callable[[PyTree], PyTree], tokens: PyTree) -> PyTree:
        """function of a chunk of tokens [n, ...], for all of them [N, ...]."""
        if self.chunk is None:
            return function(tokens)
        count = jax.tree.leaves(tokens)[0].shape[0]
        return self.join(jax.lax.map(function, self.split(tokens)), count)

    def accumulate(
        self,
        function: Callable[[PyTree], tuple[Array, PyTree]],
        chunks: PyTree,
        own: Array,
        shared: PyTree,
    ) -> tuple[Array, PyTree]:
        """Adds up what the chunks of tokens give.

        Args:
          function: of one chunk: (its own part [n, ...], a tree of parts that all share).
          chunks: as from :meth:`split`.
          own: [chunks, n, ...], to which the own parts are added, in place.
          shared: tree of zeros for the shared parts.
        """
        if self.chunk is None:
            part, found = function(jax.tree.map(lambda x: x[0], chunks))
            return own + part[None], found

        def step(j, carry):
            own, shared = carry
            part, found = function(jax.tree.map(lambda x: x[j], chunks))
            return own.at[j].add(part), jax.tree.map(jnp.add, shared, found)

        return jax.lax.fori_loop(0, own.shape[0], step, (own, shared))

    def split(self, tokens: PyTree) -> PyTree:
        """[N, ...] -> [chunks, n, ...], padded with zeros."""

        def cut(x):
            if self.chunk is None:
                return x[None]
            n, rest = x.shape[0], x.shape[1:]
            whole = self.shards * self.chunk
            missing = -n % whole
            if missing:
                x = jnp.concatenate([x, jnp.zeros_like(x, shape=(missing, *rest))])
            x = x.reshape(self.shards, -1, self.chunk, *rest)
            return jnp.moveaxis(x, 1, 0).reshape(-1, whole, *rest)

        return jax.tree.map(cut, tokens)

    def join(self, chunks: PyTree, tokens: int) -> PyTree:
        """The inverse of split."""

        def glue(x):
            if self.chunk is None:
                return x[0]
            rest = x.shape[2:]
            x = x.reshape(-1, self.shards, self.chunk, *rest)
            return jnp.moveaxis(x, 0, 1).reshape(-1, *rest)[:tokens]

        return jax.tree.map(glue, chunks)


@dataclasses.dataclass(frozen=True)
class Size:
    """What decides how large blocks may be.

    Attributes:
      function: whose arguments these are, for messages.
      tokens: N.
      width: d.
      held: columns on a device.
      itemsize: bytes of a number in the working dtype.
      low: whether an operand has fewer, so that gradients need accumulators of their own.
      shards: into how many parts devices split the tokens.
      inner: numbers that scoring one pair holds at once; 0 for a matrix product.
      budget: bytes of temporaries a device may use, or None for a good default.
    """

    function: str
    tokens: int
    width: int
    held: int
    itemsize: int
    low: bool
    shards: int
    inner: int
    budget: int | None


def lean(size: Size) -> Plan:
    """Blocks of classes, all tokens at once where the budget allows it."""
    tokens = math.ceil(size.tokens / size.shards)
    unit, columns = size.itemsize, 3 * size.width * size.itemsize
    carried = size.itemsize * tokens * size.width * (2 if size.low else 1)
    # Without a budget the typical need counts, with one what any loss may need (all fields used).
    scores = unit * ((1 if size.budget is None else 4) + size.inner)
    if size.budget is None:
        # 1024 classes keep a product busy; what is needed then does not depend on V.
        room = min(1024 * scores * tokens, (64 if size.inner else 128) * MIB)
        least = 1 if size.inner else min(LEAST, size.held)
        budget = carried + max(room, least * scores * tokens) + 1024 * columns
    else:
        budget = size.budget
    block = (budget - carried) // (scores * tokens + columns)
    block = min(block, 1024) if size.budget is None else block
    if block >= min(size.held, LEAST):
        return Plan(_aligned(size.held, block), None, size.shards)
    # Fewer tokens at a time, too. The products over d count, because accumulating them does.
    block, token = min(size.held, LEAST), scores * min(size.held, LEAST) + 2 * unit * size.width
    chunk = (budget - carried - block * columns) // token
    least = min(tokens, 1 if size.inner else LEAST)
    if chunk < least:
        if size.budget is not None:
            _refuse(size, carried + block * columns + least * token)
        chunk = least
    return Plan(block, _even(tokens, chunk), size.shards)


def one_pass(size: Size) -> Plan:
    """Chunks of tokens with all classes; their gradients go into the kernel's by blocks."""
    tokens = math.ceil(size.tokens / size.shards)
    unit, held = size.itemsize, size.held
    column, least = unit * size.width, min(tokens, LEAST // 8)
    carried = column * held if size.low else 0
    # A chunk's logits and their cotangents; with a budget, what a loss of every field may need.
    row = unit * (held * (2 if size.budget is None else 4) + 2 * size.width)
    if size.budget is None:
        most = 512 if jax.default_backend() == "cpu" else 4096
        chunk = max(min(128 * MIB // (unit * held), most), LEAST)
        block = held if column * held <= 128 * MIB else _even(held, 32 * MIB // column)
    else:
        # A quarter for what one block adds to the kernel's gradient, the rest for the chunk.
        free = size.budget - carried
        block = min(held, max(free // 4 // (2 * column), 1))
        chunk = (free - 2 * block * column) // row
        if chunk < least or block < min(held, LEAST):
            block, chunk = min(held, LEAST), least
            needed = carried + 2 * block * column + chunk * row
            if needed > size.budget:
                _refuse(size, needed)
        block = _even(held, block)
    return Plan(block, _even(tokens, min(chunk, tokens)), size.shards)


def _even(count: int, size: int) -> int:
    """The size of equal parts, none above ``size``, in steps of 128 where that fits."""
    if size >= count:
        return max(count, 1)
    parts = math.ceil(count / size)
    even = math.ceil(count / parts)
    rounded = math.ceil(even / LEAST) * LEAST
    return rounded if rounded <= size else even


def _aligned(classes: int, size: int) -> int:
    """As _even, and in steps of 128 always where ``size`` has one.

    A TPU whose blocks start elsewhere copies the kernel's whole gradient.
    """
    return _even(classes, size if size >= classes else max(size - size % LEAST, min(size, LEAST)))


def _refuse(size: Size, least: int) -> NoReturn:
    raise ValueError(
        f"{size.function}: expected max_temp_bytes >= {least} for {size.tokens} tokens of width "
        f"{size.width} and {size.held} classes on a device, got {size.budget}"
    )
