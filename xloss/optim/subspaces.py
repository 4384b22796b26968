# SPDX-License-Identifier: Apache-2.0
"""Which part of a weight has moments at present: the splits of :func:`xloss.optim.frugal`.

A split is static; what is chosen, its `subspace`, lives in the optimizer's state, and so do the
moments, in the shape of the chosen part. Lists run over the projectable leaves, in their order.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from xloss import numerics
from xloss.optim import trees
from xloss.typing import Array

#: (leaves, switch, n, r) -> for each leaf the first r of a permutation of n, [leaves, r], int32.
Draw = Callable[[Sequence[int], Array, int, int], Array]

#: What is done with the part that has no moments, elementwise; 0 at 0.
Rule = Callable[[Array], Array]


@dataclasses.dataclass(frozen=True)
class Permutations:
    """Stands in for a key where the permutations are given, as those of golden files are."""

    draw: Draw


class Split(Protocol):
    """What the optimizer asks of a split."""

    def start(self, leaves: Sequence[Any]) -> tuple[Any, Any]:
        """(a subspace to be replaced at step 0, moments of zeros) for arrays or their shapes."""

    def choose(self, draw: Draw, switch: Array, gradients: Sequence[Array]) -> Any:
        """The subspace of the ``switch``-th period."""

    def project(self, subspace: Any, gradients: Sequence[Array]) -> Any:
        """The gradient's part that has moments, in their shapes."""

    def lift(self, subspace: Any, found: Any, gradients: Sequence[Array], free: Rule) -> list:
        """``found`` put back in its place, and the free rule of the gradient everywhere else."""


@dataclasses.dataclass(frozen=True)
class Coordinates:
    """floor(n density) columns (axis -1), rows (axis -2) or entries (axis None) of each leaf.

    Leading axes share the choice. What is left needs no subtraction: the chosen part is written
    over it, so that no rounding can pass for a gradient.
    """

    axis: int | None
    density: float

    def start(self, leaves):
        counts = [int(self._length(w.shape) * self.density) for w in leaves]
        subspace = [jnp.zeros(r, jnp.int32) for r in counts]
        return subspace, [self._zeros(w, r) for w, r in zip(leaves, counts, strict=True)]

    def choose(self, draw, switch, gradients):
        # All leaves of a length at once: a sort is slow to compile, and models have many leaves.
        lengths = [self._length(g.shape) for g in gradients]
        chosen: list[Any] = [None] * len(lengths)
        for n in dict.fromkeys(lengths):
            leaves = [i for i, length in enumerate(lengths) if length == n]
            for i, index in zip(
                leaves, draw(leaves, switch, n, int(n * self.density)), strict=True
            ):
                chosen[i] = index
        return chosen

    def project(self, subspace, gradients):
        return [self._take(g, x) for g, x in zip(gradients, subspace, strict=True)]

    def lift(self, subspace, found, gradients, free):
        return [self._put(*leaf, free) for leaf in zip(subspace, found, gradients, strict=True)]

    def _take(self, g: Array, index: Array) -> Array:
        # No index is out of range, and the default mode would compare all of them.
        whole, axis = (g.reshape(-1), 0) if self.axis is None else (g, self.axis)
        return jnp.take(whole, index, axis=axis, mode="clip", unique_indices=True)

    def _put(self, index: Array, found: Array, g: Array, free: Rule) -> Array:
        rest = free(g)
        if self.axis is None:
            flat = rest.reshape(-1).at[index]
            return flat.set(found, mode="promise_in_bounds", unique_indices=True).reshape(g.shape)
        if not index.size:
            return rest
        # Where each slice of the leaf stands among the chosen ones: gathered, it can be fused with
        # the free rule; scattered it took ten times as long on a CPU.
        absent = jnp.full(g.shape[self.axis], index.size, jnp.int32)
        order = jnp.arange(index.size, dtype=jnp.int32)
        at = absent.at[index].set(order, mode="promise_in_bounds", unique_indices=True)
        beside = [1] * g.ndim
        beside[self.axis] = -1
        here = jnp.broadcast_to((at < index.size).reshape(beside), g.shape)
        return jnp.where(here, jnp.take(found, at, axis=self.axis, mode="clip"), rest)

    def _length(self, shape: tuple[int, ...]) -> int:
        return math.prod(shape) if self.axis is None else shape[self.axis]

    def _zeros(self, w: Any, count: int) -> Array:
        if self.axis is None:
            return jnp.zeros(count, numerics.working_dtype(w.dtype))
        return _zeros_beside(w, self.axis, count)


@dataclasses.dataclass(frozen=True)
class Singular:
    """The round(min(m, n) density) leading singular directions of the gradient, on its short side.

    [.., m, n] with m >= n keeps right vectors [.., r, n] and moments [.., m, r], else left vectors
    [.., m, r] and moments [.., r, n]. Leading axes are a batch of matrices.
    """

    density: float

    def start(self, leaves):
        ranks = [self._rank(w.shape) for w in leaves]
        subspace, moments = [], []
        for w, r in zip(leaves, ranks, strict=True):
            kept, lost = (-2, -1) if _is_tall(w.shape) else (-1, -2)
            subspace.append(_zeros_beside(w, kept, r))
            moments.append(_zeros_beside(w, lost, r))
        return subspace, moments

    def choose(self, draw, switch, gradients):
        del draw, switch
        found = []
        for g in gradients:
            r = self._rank(g.shape)
            # A unit matrix: neither tiny nor huge gradients leave the range of float32 on the way.
            _, unit = trees.norm_and_unit(g)
            left, _, right = jnp.linalg.svd(unit, full_matrices=False)
            found.append(right[..., :r, :] if _is_tall(g.shape) else left[..., :, :r])
        return found

    def project(self, subspace, gradients):
        return [
            _product(g, _transposed(p)) if _is_tall(g.shape) else _product(_transposed(p), g)
            for g, p in zip(gradients, subspace, strict=True)
        ]

    def lift(self, subspace, found, gradients, free):
        def back(x: Array, p: Array) -> Array:
            return _product(x, p) if _is_tall(whole.shape) else _product(p, x)

        directions = []
        parts = self.project(subspace, gradients)
        for whole, p, u, part in zip(gradients, subspace, found, parts, strict=True):
            if self._rank(whole.shape) == min(whole.shape[-2:]):
                directions.append(back(u, p))
                continue
            rest = whole - back(part, p)
            # Where rounding alone decides an entry (a gradient of low rank), its sign would be a
            # full step along noise.
            norm, _ = trees.norm_and_unit(whole)
            noise = 8 * jnp.finfo(rest.dtype).eps * norm
            rest = jnp.where(jnp.abs(rest) <= noise, jnp.zeros_like(rest), rest)
            directions.append(back(u, p) + free(rest))
        return directions

    def _rank(self, shape: tuple[int, ...]) -> int:
        return round(min(shape[-2:]) * self.density)


ORDERS = ("random", "uniform", "ascending", "descending", "mirror")


@dataclasses.dataclass(frozen=True)
class Blocks:
    """round(n density) of the n leaves, whole: the others have no moments at all.

    Active leaves sorted by size take the slots 0, 1, ...; a slot is as large as the order can make
    its tenant. Leaves are matrices in it, the long side last (elementwise rules do not mind), so
    that a [d, 4d] and a [4d, d] leaf share a slot and a smaller one fits into its corner. Slots of
    one shape are one array [slots, rows, columns], which can be sharded as the leaves are.

    Attributes:
      density: share of the leaves.
      order: one of :data:`ORDERS`.
    """

    density: float
    order: str

    def start(self, leaves):
        plan = self._plan([w.shape for w in leaves])
        dtype = trees.dtype_of(leaves)
        subspace = jnp.full(len(leaves), -1, jnp.int32)
        moments = []
        for shape, slots in plan.groups.items():
            like = next((w for w in leaves if w.ndim == 2 and _lying(w.shape) == shape), None)
            axes = (1, 0) if like is not None and like.shape != shape else (0, 1)
            moments.append(_zeros((len(slots), *shape), dtype, like, (None, *axes)))
        return subspace, moments

    def choose(self, draw, switch, gradients):
        n = len(gradients)
        plan = self._plan([g.shape for g in gradients])
        k = plan.active
        if self.order == "uniform":
            chosen = draw([0], switch, n, k)[0]
        elif self.order == "random":
            # Any leaf may stand for those of its shape; a random start, then every (n/k)-th.
            mixed, starts = draw([0, 1], switch, n, n)
            ranked = mixed[jnp.argsort(jnp.asarray(plan.kind)[mixed], stable=True)]
            steps = jnp.asarray(np.arange(k) * n, jnp.int32)
            chosen = ranked[jnp.asarray(plan.snake)[(starts[0] + steps) // max(k, 1)]]
        else:
            at = (switch % n * k + jnp.arange(k, dtype=jnp.int32)) % n
            chosen = jnp.asarray(_round_trip(self.order, n))[at]
        ranks = jnp.sort(jnp.asarray(plan.rank)[chosen])
        slots = jnp.arange(k, dtype=jnp.int32)
        return jnp.full(n, -1, jnp.int32).at[jnp.asarray(plan.by_rank)[ranks]].set(slots)

    def project(self, subspace, gradients):
        plan = self._plan([g.shape for g in gradients])
        dtype = trees.dtype_of(gradients)
        found = [jnp.zeros((len(s), *shape), dtype) for shape, s in plan.groups.items()]
        for i, g in enumerate(gradients):
            matrix = _as_matrix(g.astype(dtype))
            for group, local in plan.homes[i]:
                rows, columns = found[group].shape[1:]
                room = ((0, rows - matrix.shape[0]), (0, columns - matrix.shape[1]))
                at = jnp.asarray(local)[subspace[i]]
                found[group] = found[group].at[at].set(jnp.pad(matrix, room), mode="drop")
        return found

    def lift(self, subspace, found, gradients, free):
        plan = self._plan([g.shape for g in gradients])
        directions = []
        for i, g in enumerate(gradients):
            direction = free(g)
            for group, local in plan.homes[i]:
                at = jnp.asarray(local)[subspace[i]]
                slots = found[group].shape[0]
                tenant = found[group][jnp.minimum(at, slots - 1)].astype(g.dtype)
                direction = jnp.where(at < slots, _from_matrix(tenant, g.shape), direction)
            directions.append(direction)
        return directions

    def _plan(self, shapes: Sequence[tuple[int, ...]]) -> "_Plan":
        return _make_plan(tuple(map(tuple, shapes)), self.density, self.order)


def make(split: str, density: float, order: str) -> Split:
    """The split of a name; ``order`` is of blocks."""
    if split == "block":
        return Blocks(density, order)
    if split == "svd":
        return Singular(density)
    return Coordinates({"columns": -1, "rows": -2, "entries": None}[split], density)


@dataclasses.dataclass(frozen=True, eq=False)
class _Plan:
    """What is known of blocks before any is chosen.

    Attributes:
      active: k, how many are active.
      by_rank: leaves by falling size, those of one matrix shape together, [n].
      rank: its inverse, [n].
      kind: number of each leaf's matrix shape, rising with rank, [n].
      snake: ranks in the order in which "random" samples them, [n].
      groups: shape of slots -> their numbers.
      homes: for each leaf the groups that it may live in, each with the table slot -> place in
        the group [k + 1]: one beyond the end for slots of others and, at -1, for none.
    """

    active: int
    by_rank: np.ndarray
    rank: np.ndarray
    kind: np.ndarray
    snake: np.ndarray
    groups: dict[tuple[int, int], list[int]]
    homes: list[list[tuple[int, np.ndarray]]]


def _make_plan(shapes: tuple[tuple[int, ...], ...], density: float, order: str) -> _Plan:
    n = len(shapes)
    k = round(n * density)
    lying = [_lying(shape) for shape in shapes]
    by_rank = sorted(range(n), key=lambda i: (-math.prod(lying[i]), lying[i], i))
    rank = np.empty(n, np.int32)
    rank[by_rank] = np.arange(n)
    kinds = list(dict.fromkeys(lying[i] for i in by_rank))
    kind = np.asarray([kinds.index(shape) for shape in lying], np.int32)
    snake = _snake(n, k)
    # Which matrix shapes each slot may get: row j of `sets` are the ranks of a possible choice.
    if order == "uniform":
        tenants = [range(slot, slot + n - k + 1) for slot in range(k)]
    else:
        every, member = np.arange(n)[:, None], np.arange(k)[None, :]
        if order == "random":
            sets = snake[(every + member * n) // max(k, 1)]
        else:
            sets = rank[_round_trip(order, n)[(every * k + member) % n]]
        tenants = np.sort(sets, axis=1).T.tolist()
    kinds_in = [{int(kind[by_rank[r]]) for r in possible} for possible in tenants]
    groups: dict[tuple[int, int], list[int]] = {}
    for slot, possible in enumerate(kinds_in):
        shape = max(kinds[i][0] for i in possible), max(kinds[i][1] for i in possible)
        groups.setdefault(shape, []).append(slot)
    homes: list[list[tuple[int, np.ndarray]]] = []
    for i in range(n):
        homes.append([])
        for group, slots in enumerate(groups.values()):
            if any(kind[i] in kinds_in[slot] for slot in slots):
                local = np.full(k + 1, len(slots), np.int32)
                local[slots] = np.arange(len(slots))
                homes[i].append((group, local))
    return _Plan(k, np.asarray(by_rank, np.int32), rank, kind, snake, groups, homes)


def _snake(n: int, k: int) -> np.ndarray:
    """Ranks 0 .. n - 1, every other one of k stretches backwards.

    Sampled at equal distances, a choice that takes a large leaf of one stretch takes a small one
    of the next: all choices are about equally large.
    """
    cuts = [-(-i * n // max(k, 1)) for i in range(k + 1)]
    parts = [np.arange(a, b)[:: (-1) ** i] for i, (a, b) in enumerate(itertools.pairwise(cuts))]
    return np.concatenate(parts or [np.arange(n)]).astype(np.int32)


def _round_trip(order: str, n: int) -> np.ndarray:
    """The sequence of leaves that "ascending", "descending" and "mirror" run through, [n]."""
    up = np.arange(n, dtype=np.int32)
    if order == "mirror":
        return np.stack([up, up[::-1]], axis=1).reshape(-1)[:n]
    return up if order == "ascending" else up[::-1]


def _lying(shape: tuple[int, ...]) -> tuple[int, int]:
    """The shape of a leaf as a matrix, the long side last."""
    columns = shape[-1] if shape else 1
    rows = math.prod(shape[:-1])
    return (min(rows, columns), max(rows, columns))


def _as_matrix(x: Array) -> Array:
    matrix = x.reshape(-1, x.shape[-1]) if x.ndim else x.reshape(1, 1)
    return matrix if matrix.shape == _lying(x.shape) else matrix.T


def _from_matrix(slot: Array, shape: tuple[int, ...]) -> Array:
    rows, columns = _lying(shape)
    matrix = slot[:rows, :columns]
    stands = columns != (shape[-1] if shape else 1)
    return (matrix.T if stands else matrix).reshape(shape)


def _is_tall(shape: tuple[int, ...]) -> bool:
    return shape[-2] >= shape[-1]


def _transposed(p: Array) -> Array:
    return jnp.swapaxes(p, -1, -2)


def _product(a: Array, b: Array) -> Array:
    # Accelerators would round the factors, and the residual would be that rounding.
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


def _zeros_beside(like: Any, axis: int, count: int) -> Array:
    """Zeros in the shape of a leaf, ``count`` long on ``axis``, which is not sharded."""
    shape = list(like.shape)
    axes: list[int | None] = list(range(like.ndim))
    shape[axis], axes[axis] = count, None
    return _zeros(tuple(shape), numerics.working_dtype(like.dtype), like, tuple(axes))


def _zeros(shape: tuple[int, ...], dtype: Any, like: Any, axes: tuple[int | None, ...]) -> Array:
    """Zeros whose i-th axis is sharded as axis ``axes[i]`` of another array is."""
    sharding = None if isinstance(like, jax.core.Tracer) else getattr(like, "sharding", None)
    if not isinstance(sharding, NamedSharding):
        return jnp.zeros(shape, dtype)
    spec = (*sharding.spec, *[None] * (like.ndim - len(sharding.spec)))
    placed = PartitionSpec(*(None if axis is None else spec[axis] for axis in axes))
    return jnp.zeros(shape, dtype, device=NamedSharding(sharding.mesh, placed))
