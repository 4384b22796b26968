# SPDX-License-Identifier: Apache-2.0
"""FRUGAL: Adam's moments for a changing part of the weights, signs for the rest.

"FRUGAL: Memory-Efficient Optimization by Reducing State Overhead for Scalable Training". Reach for
it when Adam's state does not fit: a quarter of it goes most of the way, no direction is frozen.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike

from xloss import checks, numerics
from xloss.optim import perturbation, subspaces
from xloss.typing import Array, PRNGKey, PyTree

SPLITS = ("columns", "rows", "entries", "block", "svd")
RULES = {"sign": jnp.sign, "sgd": lambda rest: rest, "none": jnp.zeros_like}


class FrugalState(NamedTuple):
    """What FRUGAL carries from step to step; moments are float32 (float64 for float64 leaves).

    Attributes:
      count: steps taken, int32 scalar.
      key: data of the PRNG key, uint32 (as data, so that any wrapper can select and cast it); None
        if none was given.
      mu: first moments of the leaves that are not projectable, in the parameters' structure, with
        None at the projectable ones.
      nu: their second moments.
      subspace: what has moments at present, None at the other leaves: int32 indices [r], for
        "svd" the directions. For "block" int32 [n]: the slot of each of the n projectable leaves,
        -1 where it has none.
      projected_mu: first moments of what is chosen, in its shape: [.., m, r] for "columns",
        [.., r, n] for "rows", [k] for "entries", either for "svd"; None at the other leaves. For
        "block" a list of slots [slots, rows, columns].
      projected_nu: their second moments.
    """

    count: Array
    key: PyTree
    mu: PyTree
    nu: PyTree
    subspace: PyTree
    projected_mu: PyTree
    projected_nu: PyTree


def frugal(
    learning_rate: ArrayLike | optax.Schedule,
    *,
    projectable: PyTree,
    density: float = 0.25,
    update_gap: int = 200,
    split: str = "columns",
    order: str = "random",
    state_free: str = "sign",
    state_free_scale: ArrayLike = 1.0,
    projectable_scale: ArrayLike = 1.0,
    b1: ArrayLike = 0.9,
    b2: ArrayLike = 0.999,
    eps: ArrayLike = 1e-8,
    weight_decay: ArrayLike = 0.0,
    reset: bool = True,
    key: PRNGKey | None = None,
) -> optax.GradientTransformationExtraArgs:
    """AdamW with moments for a part of the weights only, which changes every ``update_gap`` steps.

    A whole optimizer, like ``optax.adamw``: the learning rate is in it::

        optimizer = optim.frugal(
            1e-3, projectable=lambda path: path.endswith("kernel") and "head" not in path,
            key=jax.random.key(0),
        )

    Definition, for a projectable leaf w with gradient G, chosen part P(G), rest R and learning
    rate eta; c counts the steps since the choice (since the start with reset=False)::

        m = b1 m + (1 - b1) P(G),  v = b2 v + (1 - b2) P(G)^2          in the shape of P(G)
        u = (m / (1 - b1^c)) / (sqrt(v) / sqrt(1 - b2^c) + eps)
        w <- (1 - eta weight_decay) w
             - eta projectable_scale (P^T u + state_free_scale rule(R))

        columns, rows  floor(n density) slices of axis -1 or -2, at random
        entries        floor(size density) single entries, at random
        block          round(n density) whole leaves of the n projectable ones
        svd            round(min(m, n) density) leading singular directions of G: right ones for
                       m >= n, else left ones; R = G - P^T P G

    For all but svd R is G where nothing is chosen and exactly 0 elsewhere. The other leaves take
    AdamW steps. A choice is made before the update of steps 0, update_gap, 2 update_gap, ...

    Args:
      learning_rate: eta, scalar >= 0, traced, or a schedule step -> eta.
      projectable: leaves that are split, a tree of bools (a prefix will do) or a predicate of the
        leaf's path such as "layer_0/kernel": weights of the linear layers. Embeddings, norms,
        biases and the output layer need their moments: leave them out.
      density: share that has moments, a Python number in [0, 1], static. 0 is signs alone.
      update_gap: steps between choices, an integer >= 1, static.
      split: "columns", "rows", "entries", "block" or "svd", see Definition. They are those of the
        ARRAY: for kernels [in, out] the authors' columns, which are inputs of torch's [out, in],
        are "rows". Leading axes (stacked layers, taps of a convolution) share the columns or rows,
        are a batch of matrices for svd; a leaf is ONE block, so unstack layers for it.
      order: of blocks. "random": all equally often, some of each size, so that every choice is
        about equally large; among leaves of one shape any of them. "uniform": any leaves, the
        authors' random; the state must then hold the largest ones. "ascending", "descending" (the
        authors' pre-training scripts), "mirror" (pairs from both ends): in turn, going on where
        the last choice ended.
      state_free: rule for R: "sign", "sgd" (R itself) or "none" (0: GaLore, BAdam).
      state_free_scale: scalar >= 0, traced; the authors have 1 in pre-training, 0.1 in
        fine-tuning.
      projectable_scale: scalar >= 0, traced: learning rate of projectable leaves over eta.
      b1: decay of the first moment, scalar in [0, 1), traced.
      b2: decay of the second moment, the same.
      eps: scalar >= 0, traced.
      weight_decay: decoupled, scalar >= 0, traced, of every leaf.
      reset: True starts moments and c anew at every choice. False keeps them, now for other
        coordinates, as GaLore does; blocks are always started anew.
      key: PRNG key that choices are drawn from; None will do for svd and blocks in turn.

    Returns:
      A transformation with state :class:`FrugalState`; ``update(updates, state, params)`` takes
      gradients and returns what ``optax.apply_updates`` adds, in the dtypes of params.

    Raises:
      TypeError: density not a Python number, a leaf that is not float, projectable has no bools,
        no key where one is needed.
      ValueError: numbers out of range, unknown names, reset=False with blocks, no projectable
        leaf, one that is empty, has too few axes (columns, rows, svd: 2) or 2**31 entries to
        choose from; from update, params missing.

    Numerics:
      Bytes on projectable leaves over AdamW's, which are 8 an entry: density for columns and rows
      (and 4 bytes an index), 1.5 density for entries (an index beside two moments) and for svd of
      square matrices (the directions). Blocks take slots for k leaves, each as large as ``order``
      can make its tenant: density where k leaves can be of the average size, that is in a few
      layers of a transformer or more; "uniform" up to the k largest leaves, half of the whole at
      density 0.25. ``optimizer_state_bytes`` counts them before anything is allocated.

      Nothing is compiled again at a switch, and what comes out depends on key, leaf and step only,
      not on the mesh. Slots are sharded as their leaves are, columns and rows along the axes that
      are not split: split along one that is not sharded. Entries and svd gather the gradient.

      Gradients of bfloat16 are taken to float32 first. A gradient whose square overflows counts as
      sqrt(max) in the moments; inf and NaN stay loud. For svd entries of R below rounding
      (8 eps of G's norm) are 0: the sign of noise would be a full step. An entry of G that is 0
      gets no sign step.

      ``optax.inject_hyperparams`` must be told ``static_args=("projectable", "density",
      "update_gap", "reset", "key")``. Under ``optax.MultiSteps`` steps are those of the whole
      batch. In ``optax.masked`` and ``optax.partition`` the leaves that are there count.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> tx = frugal(0.1, projectable=True, density=0.5, update_gap=10, key=jax.random.key(0))
      >>> w = jnp.ones([3, 4])
      >>> updates, state = tx.update(2.0 * w, tx.init(w), w)
      >>> state.projected_mu.shape, updates[0].round(4).tolist()   # Adam's first step is a sign
      ((3, 2), [-0.1, -0.1, -0.1, -0.1])

    Evidence: authors' code.

    References:
      "FRUGAL: Memory-Efficient Optimization by Reducing State Overhead for Scalable Training",
      arXiv 2411.07837; authors' code fzmushko/FRUGAL. Departures: order="random" evens out the
      sizes of choices (theirs is "uniform"; for equally large leaves the two are the same);
      the residual of svd is cut at rounding; a square matrix counts as tall as it is stored, so
      that [in, out] kernels keep the other side's directions than torch's.
    """
    name = "frugal"
    if not callable(learning_rate):
        learning_rate = checks.number(name, "learning_rate", learning_rate, low=0.0)
    if isinstance(density, jax.Array):
        raise TypeError(
            f"{name}: expected density a Python number (it decides shapes), got an array"
        )
    density = checks.number(name, "density", density, low=0.0, high=1.0)
    if isinstance(update_gap, bool) or not isinstance(update_gap, int) or update_gap < 1:
        raise ValueError(f"{name}: expected update_gap an integer >= 1, got {update_gap!r}")
    checks.choice(name, "split", split, SPLITS)
    checks.choice(name, "order", order, subspaces.ORDERS)
    checks.choice(name, "state_free", state_free, tuple(RULES))
    numbers = {"state_free_scale": state_free_scale, "projectable_scale": projectable_scale}
    numbers |= {"eps": eps, "weight_decay": weight_decay, "b1": b1, "b2": b2}
    hyper = {n: checks.number(name, n, value, low=0.0) for n, value in numbers.items()}
    for decay in ("b1", "b2"):
        if isinstance(hyper[decay], float) and hyper[decay] >= 1:
            raise ValueError(f"{name}: expected {decay} in [0, 1), got {hyper[decay]:g}")
    if split == "block" and not reset:
        raise ValueError(f"{name}: expected reset=True with split='block', got {reset!r}")
    drawn = split in ("columns", "rows", "entries") or (
        split == "block" and order in ("random", "uniform")
    )
    if key is None and drawn:
        raise TypeError(f"{name}: expected key to draw {split} from, got None")
    if not isinstance(key, type(None) | jax.Array | np.ndarray | subspaces.Permutations):
        raise TypeError(f"{name}: expected key to be a PRNG key, got {checks.describe(key)}")
    splitter = subspaces.make(split, density, order)
    axes = 0 if split in ("entries", "block") else 2

    def parts(params: PyTree) -> tuple[list[bool], list[Any], Any]:
        """(which leaves are split, all leaves, their structure)."""
        flags = perturbation.flags(name, "projectable", projectable, params)
        with_paths, structure = jax.tree_util.tree_flatten_with_path(params)
        if not any(flags):
            raise ValueError(f"{name}: expected projectable to choose at least one leaf, got none")
        for flag, (path, leaf) in zip(flags, with_paths, strict=True):
            where = jax.tree_util.keystr(path, simple=True, separator="/")
            if not jnp.issubdtype(leaf.dtype, jnp.floating):
                raise TypeError(
                    f"{name}: expected params of a float dtype, got {checks.describe(leaf)} "
                    f"at {where!r}"
                )
            if flag and (leaf.ndim < axes or leaf.size == 0):
                raise ValueError(
                    f"{name}: expected projectable leaves of at least {axes} axes, not empty, for "
                    f"split={split!r}, got {checks.describe(leaf)} at {where!r}"
                )
            if flag and split == "entries" and leaf.size >= 2**31:  # indices are int32
                raise ValueError(
                    f"{name}: expected projectable leaves of less than 2**31 entries for "
                    f"split='entries', got {checks.describe(leaf)} at {where!r}"
                )
        return flags, [leaf for _, leaf in with_paths], structure

    def spread(flags: list[bool], structure: Any, values: list, of: bool) -> PyTree:
        """A tree with one value for each leaf whose flag is ``of``, and None elsewhere."""
        rest = iter(values)
        return structure.unflatten([next(rest) if flag == of else None for flag in flags])

    def gather(flags: list[bool], structure: Any, tree: PyTree, of: bool) -> list:
        leaves = structure.flatten_up_to(tree)
        return [x for flag, x in zip(flags, leaves, strict=True) if flag == of]

    def init(params: PyTree) -> FrugalState:
        flags, leaves, structure = parts(params)
        given = key is None or isinstance(key, subspaces.Permutations)
        data = None if given else jax.random.key_data(key)

        def full() -> PyTree:
            chosen = [w for flag, w in zip(flags, leaves, strict=True) if not flag]
            zeros = [jnp.zeros_like(w, dtype=numerics.working_dtype(w.dtype)) for w in chosen]
            return spread(flags, structure, zeros, False)

        def placed(values: list) -> PyTree:
            return values if split == "block" else spread(flags, structure, values, True)

        # Two calls each: no two entries of a state that is donated may be the same buffer.
        split_leaves = [w for flag, w in zip(flags, leaves, strict=True) if flag]
        (subspace, mu), (_, nu) = splitter.start(split_leaves), splitter.start(split_leaves)
        return FrugalState(
            count=jnp.zeros([], jnp.int32),
            key=data,
            mu=full(),
            nu=full(),
            subspace=placed(subspace),
            projected_mu=placed(mu),
            projected_nu=placed(nu),
        )

    def update(
        updates: PyTree, state: Any, params: PyTree | None = None, **extra_args: Any
    ) -> tuple[PyTree, FrugalState]:
        del extra_args  # of other transforms in the chain
        if params is None:
            raise ValueError(f"{name}: expected params in update(updates, state, params), got None")
        flags, leaves, structure = parts(params)
        gradients = structure.flatten_up_to(updates)
        gradients = [
            g.astype(numerics.working_dtype(w.dtype))
            for g, w in zip(gradients, leaves, strict=True)
        ]
        of_full = [g for flag, g in zip(flags, gradients, strict=True) if not flag]
        of_split = [g for flag, g in zip(flags, gradients, strict=True) if flag]

        def taken(tree: PyTree) -> Any:
            return tree if split == "block" else gather(flags, structure, tree, True)

        def placed(values: list) -> PyTree:
            return values if split == "block" else spread(flags, structure, values, True)

        switch, since = state.count // update_gap, state.count % update_gap
        draw = _drawn(key, state.key)
        subspace = jax.lax.cond(
            since == 0,
            lambda: splitter.choose(draw, switch, of_split),
            lambda: taken(state.subspace),
        )
        old_mu, old_nu = taken(state.projected_mu), taken(state.projected_nu)
        if reset:
            old_mu, old_nu = (
                [jnp.where(since == 0, jnp.zeros_like(x), x) for x in tree]
                for tree in (old_mu, old_nu)
            )
        count = jnp.asarray(optax.safe_increment(state.count))
        age = since + 1 if reset else count
        projected = splitter.project(subspace, of_split)
        directions, mu, nu = _adam(projected, old_mu, old_nu, age, hyper)

        def free(rest: Array) -> Array:
            return numerics.scalar(hyper["state_free_scale"], rest) * RULES[state_free](rest)

        lifted = splitter.lift(subspace, directions, of_split, free)
        split_steps = [numerics.scalar(hyper["projectable_scale"], d) * d for d in lifted]
        full_steps, full_mu, full_nu = _adam(
            of_full,
            gather(flags, structure, state.mu, False),
            gather(flags, structure, state.nu, False),
            count,
            hyper,
        )
        eta = learning_rate(state.count) if callable(learning_rate) else learning_rate
        steps = {True: iter(split_steps), False: iter(full_steps)}
        found = [
            _descent(next(steps[flag]), w, eta, hyper["weight_decay"])
            for flag, w in zip(flags, leaves, strict=True)
        ]
        return structure.unflatten(found), FrugalState(
            count=count,
            key=state.key,
            mu=spread(flags, structure, full_mu, False),
            nu=spread(flags, structure, full_nu, False),
            subspace=placed(subspace),
            projected_mu=placed(mu),
            projected_nu=placed(nu),
        )

    return optax.GradientTransformationExtraArgs(init, update)


def _adam(
    gradients: list, mu: list, nu: list, count: Array, hyper: dict[str, Any]
) -> tuple[list, list, list]:
    """(directions, mu, nu) of Adam, array by array."""
    directions, new_mu, new_nu = [], [], []
    for g, m, v in zip(gradients, mu, nu, strict=True):
        b1, b2, eps = (numerics.scalar(hyper[n], g) for n in ("b1", "b2", "eps"))
        # Below the root of the greatest float: the square of a huge gradient must not be inf, which
        # would end all steps of this entry. What is inf already stays so.
        most = 0.999 * float(jnp.finfo(g.dtype).max) ** 0.5
        g = jnp.where(jnp.isfinite(g), jnp.clip(g, -most, most), g)
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * jnp.square(g)
        c = count.astype(g.dtype)
        root = jnp.sqrt(v) / jnp.sqrt(1 - b2**c)
        directions.append(m / (1 - b1**c) / (root + eps))
        new_mu.append(m)
        new_nu.append(v)
    return directions, new_mu, new_nu


def _descent(direction: Array, w: Array, eta: ArrayLike, decay: ArrayLike) -> Array:
    """-eta (direction + decay w) in the dtype of w."""
    if not (isinstance(decay, float) and decay == 0):
        wide = w.astype(direction.dtype)
        direction = direction + numerics.scalar(decay, wide) * wide
    return (-numerics.scalar(eta, direction) * direction).astype(w.dtype)


def _drawn(key: Any, data: PyTree) -> subspaces.Draw:
    """What permutations come from: one for each leaf and switch."""
    if isinstance(key, subspaces.Permutations):
        return key.draw

    def draw(leaves: Sequence[int], switch: Array, n: int, r: int) -> Array:
        whole = jax.random.wrap_key_data(data, impl=jax.random.key_impl(key))

        def one(leaf: Array) -> Array:
            mine = jax.random.fold_in(jax.random.fold_in(whole, leaf), switch)
            return jax.random.permutation(mine, jnp.arange(n, dtype=jnp.int32))[:r]

        # One after another: the permutations of all entries of a model would not fit.
        return jax.lax.map(one, jnp.asarray(leaves, jnp.int32))

    return draw
