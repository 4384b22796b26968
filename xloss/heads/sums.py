# SPDX-License-Identifier: Apache-2.0
"""The statistics of logits that come a block of classes at a time, and their cotangents.

``absorb`` takes blocks in any order, ``over_devices`` joins what devices found, ``fields`` makes
the numbers that losses read, and ``onto_logits`` is the transpose of it all for one block: what a
cotangent of each field means for the logits of that block. The heads' two schedules
(:mod:`xloss.heads.streaming`, :mod:`xloss.heads.mean_loss`) differ only in which block they take
when.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

from xloss import numerics
from xloss.typing import Array


class Block(NamedTuple):
    """Which classes a block of logits holds, for n examples.

    Attributes:
      hit: bool [n, v], the column of the example's own class.
      here: bool [n], whether the block has that column.
      place: int32 [n], which it is, where it has.
      alive: bool [v], columns that count: not seen before, no padding, not masked out; or None
        where all of them do.
      index: int32 [v], the columns' numbers.
    """

    hit: Array
    here: Array
    place: Array
    alive: Array | None
    index: Array


class Sums(NamedTuple):
    """What is known of n examples after some of the classes; "others" are all but their own.

    Attributes:
      top: greatest logit of the others, -inf if there is none.
      total: sum over the others of exp(z - top).
      ties: how many of the others reach top.
      winner: the number of one of them.
      target: the example's own logit; 0 until its block has come.
      count: how many classes have come (the same for all).
      mean: of their logits.
      spread: sum of (z - mean)^2 over them.
    """

    top: Array
    total: Array
    ties: Array
    winner: Array
    target: Array
    count: Array
    mean: Array
    spread: Array


def nothing(like: Array) -> Sums:
    """Sums before any class, [n] as ``like`` (and varying over the devices that it varies over)."""
    zero = jnp.zeros_like(like)
    return Sums(
        top=jnp.full_like(like, -jnp.inf),
        total=zero,
        ties=zero,
        winner=jnp.zeros_like(like, jnp.int32),
        target=zero,
        count=zero,
        mean=zero,
        spread=zero,
    )


def absorb(sums: Sums, z: Array, block: Block) -> Sums:
    """Sums after the logits z [n, v] of one more block."""
    kept = z if block.alive is None else jnp.where(block.alive[None, :], z, -jnp.inf)
    others = jnp.where(block.hit, -jnp.inf, kept)
    block_top = numerics.max_last(others)
    top = jnp.maximum(sums.top, block_top)
    shift = _shift(top)
    reach = others == block_top[:, None]
    first = jnp.min(jnp.where(reach, block.index[None, :], jnp.iinfo(jnp.int32).max), axis=-1)
    higher, level = block_top > sums.top, block_top == sums.top
    ties = jnp.sum(reach, axis=-1, dtype=z.dtype)

    # A gather, because a masked sum makes XLA write another [n, v] array; its transpose, a scatter,
    # is not needed.
    own = jnp.take_along_axis(z, block.place[:, None], axis=-1, mode="clip")

    alive = jnp.ones(z.shape[-1], jnp.bool_) if block.alive is None else block.alive
    fresh = jnp.sum(alive, dtype=z.dtype)
    count = sums.count + fresh
    block_mean = jnp.sum(jnp.where(alive[None, :], z, 0.0), axis=-1) / jnp.maximum(fresh, 1.0)
    deviation = jnp.where(alive[None, :], z - block_mean[:, None], 0.0)
    apart = block_mean - sums.mean
    share = fresh / jnp.maximum(count, 1.0)
    return Sums(
        top=top,
        total=sums.total * jnp.exp(jax.lax.stop_gradient(sums.top) - shift)
        + jnp.sum(jnp.exp(others - shift[:, None]), axis=-1),
        ties=jnp.where(higher, ties, jnp.where(level, sums.ties + ties, sums.ties)),
        winner=jnp.where(higher, first, sums.winner),
        target=jnp.where(block.here, own[:, 0], sums.target),
        count=count,
        mean=sums.mean + apart * share,
        spread=sums.spread
        + jnp.sum(jnp.square(deviation), axis=-1)
        + jnp.square(apart) * sums.count * share,
    )


def over_devices(sums: Sums, axis: str, classes: int | None) -> Sums:
    """Sums over all classes from those of each device's; one maximum and the sums that are used.

    Args:
      sums: of this device's classes.
      axis: mesh axis that the classes are spread over.
      classes: how many there are, if none can be masked out; saves an exchange.
    """
    top = _greatest(sums.top, axis)
    here = jnp.exp(jax.lax.stop_gradient(sums.top) - _shift(top))
    if classes is None:
        count = jax.lax.psum(sums.count[0], axis)
    else:
        count = jnp.asarray(classes, sums.count.dtype)
    count = jnp.broadcast_to(count, top.shape)
    mean = jax.lax.psum(sums.mean * (sums.count / jnp.maximum(count, 1.0)), axis)
    spread = sums.spread + sums.count * jnp.square(sums.mean - mean)
    owner = sums.top == top
    return Sums(
        top=top,
        total=jax.lax.psum(sums.total * here, axis),
        ties=jax.lax.psum(jnp.where(owner, sums.ties, 0.0), axis),
        # Only a device that owns the winner has its number: elsewhere none of the columns.
        winner=jnp.where(owner, sums.winner, -1),
        target=jax.lax.psum(sums.target, axis),
        count=count,
        mean=mean,
        spread=jax.lax.psum(spread, axis),
    )


def fields(sums: Sums, found: Array) -> tuple[Array, ...]:
    """``statistics.FIELDS``, each [n]; NaN where the label is no class (``found`` is False)."""
    target = jnp.where(found, sums.target, jnp.nan)
    shift = _shift(sums.top)
    alone = sums.total == 0
    log_total = jnp.log(jnp.where(alone, jnp.ones_like(sums.total), sums.total))
    certain = jnp.where(jnp.isfinite(target), jnp.inf, jnp.nan)
    return (
        jnp.where(alone, certain, (target - shift) - log_total),
        jnp.where(jnp.isneginf(sums.top), certain, target - sums.top),
        target - sums.mean,
        sums.spread / sums.count,
        target,
        sums.count,
    )


def onto_logits(z: Array, block: Block, sums: Sums, cotangents: tuple[Array | None, ...]) -> Array:
    """Cotangent of the logits z [n, v] of a block from those of the fields (None for a zero)."""
    log_odds, lead, centred, variance, target, _ = cotangents
    onto_hit = jnp.zeros_like(z[:, 0])
    dz = jnp.zeros_like(z)
    if log_odds is not None:
        alone = sums.total == 0
        pull = jnp.where(alone, 0.0, log_odds)
        weight = pull / jnp.where(alone, 1.0, sums.total)
        others = jnp.where(block.hit, -jnp.inf, z)
        dz -= weight[:, None] * jnp.exp(others - _shift(sums.top)[:, None])
        onto_hit += pull
    if lead is not None:
        pull = jnp.where(jnp.isneginf(sums.top), 0.0, lead)
        dz -= jnp.where(_winners(z, block, sums), (pull / sums.ties)[:, None], 0.0)
        onto_hit += pull
    if centred is not None:
        dz -= (centred / sums.count)[:, None]
        onto_hit += centred
    if variance is not None:
        dz += (2.0 * variance / sums.count)[:, None] * (z - sums.mean[:, None])
    if target is not None:
        onto_hit += target
    dz += jnp.where(block.hit, onto_hit[:, None], 0.0)
    return dz if block.alive is None else jnp.where(block.alive[None, :], dz, 0.0)


def used(cotangents: tuple) -> tuple[Array | None, ...]:
    """Cotangents with None in place of symbolic zeros."""
    return tuple(None if isinstance(c, SymbolicZero) else c for c in cotangents)


def _winners(z, block, sums):
    # The logits are computed again, and a compiler may round them otherwise than before: a
    # comparison with the maximum could find nobody. A single winner is known by its number; ties
    # come from equal columns, which stay within rounding of each other.
    slack = 8.0 * jnp.finfo(z.dtype).eps * jnp.abs(sums.top)
    level = (z >= (sums.top - slack)[:, None]) & ~block.hit
    single = block.index[None, :] == sums.winner[:, None]
    return jnp.where((sums.ties == 1)[:, None], single, level)


def _shift(top: Array) -> Array:
    """What is subtracted before exp: near the maximum, without a gradient, 0 if it is infinite."""
    top = jax.lax.stop_gradient(top)
    return jnp.where(jnp.isfinite(top), top, jnp.zeros_like(top))


def _greatest(top: Array, axis: str) -> Array:
    """The maximum over devices; ties share its derivative (pmax has none of its own)."""

    @jax.custom_jvp
    def greatest(x):
        return jax.lax.pmax(x, axis)

    @greatest.defjvp
    def _(primals, tangents):
        (x,), (x_dot,) = primals, tangents
        best = greatest(x)
        owner = x == best
        owners = jax.lax.psum(owner.astype(x.dtype), axis)
        return best, jax.lax.psum(jnp.where(owner, x_dot, 0.0), axis) / jnp.maximum(owners, 1.0)

    return greatest(top)
