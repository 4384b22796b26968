# SPDX-License-Identifier: Apache-2.0
"""The mean of any loss over a huge vocabulary, at the price of plain autodiff.

Liger's trick (the gradient is taken in the forward pass) for every loss that is a function of
LogitStatistics. Reach for it to train; for the losses of single tokens, or several objectives on
one head, there is :func:`xloss.heads.linear_statistics`.
"""

import dataclasses
import functools
import numbers
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.typing import ArrayLike

from xloss import checks, numerics, reduction
from xloss.heads import arguments, one_pass, plan
from xloss.heads.engine import Layer
from xloss.heads.linear import PLAIN, as_statistics, linear_head
from xloss.heads.sharded import divided, spread
from xloss.typing import Array

NAME = "linear_mean_loss"


def linear_mean_loss(
    hidden: ArrayLike,
    kernel: ArrayLike,
    labels: ArrayLike,
    *,
    loss: Callable[..., Array],
    loss_args: Mapping[str, Any] | None = None,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    axis_name: str | tuple[str, ...] | None = None,
    bias: ArrayLike | None = None,
    soft_cap: ArrayLike | None = None,
    temperature: ArrayLike = 1.0,
    normalize: bool = False,
    num_classes: int | None = None,
    max_temp_bytes: int | None = None,
    mesh: Mesh | None = None,
    class_axis: str | None = None,
) -> Array:
    """The mean loss of z = hidden @ kernel, whose gradient is taken in the forward pass.

    Definition::

        reduce(loss(linear_statistics(hidden, kernel, labels, ...), **loss_args), where=, weights=)

    the same number and gradients in hidden, kernel, bias, soft_cap, temperature, weights and
    loss_args. Because the mean is inside, a chunk of tokens gives its gradient as soon as its
    logits are there: three matrix products, as plain autodiff, and two chunks of logits::

        value, grads = jax.value_and_grad(linear_mean_loss, argnums=(0, 1))(
            hidden, kernel, labels, loss=comp_sum, loss_args={"tau": 0.7})

    Args:
      hidden, kernel, labels: h [..., d], W [d, V], integer [...], as in
        :func:`linear_statistics`.
      loss: loss(statistics, **loss_args) -> [tokens], a loss of the catalogue or a function of
        yours at module level: a new lambda at every call compiles anew, and what it closes over
        gets no gradient.
      loss_args: hyperparameters and arrays by name. Arrays whose leading axes are the token axes
        [...] are taken apart with the tokens, their last axes left; all others, and numbers, are
        shared. Both are traced and differentiable; strings and functions are static.
      where: bool [...]; masked tokens are not read and do not count.
      weights: float [...] >= 0; the mean divides by their sum, and is differentiable in them.
      axis_name: inside ``shard_map``, the axes over which the tokens are spread: the mean is over
        all of them.
      bias, soft_cap, temperature, normalize, num_classes, mesh, class_axis: the head, as in
        :func:`linear_statistics`. Give ``mesh`` wherever tokens are sharded: each device then
        takes its own and the kernel's gradient is summed once, if they divide over all axes but
        ``class_axis``; otherwise once a chunk.
      max_temp_bytes: what a device may use beside arguments and gradients; None takes chunks of
        128 to 512 tokens on a CPU and of 4096 elsewhere. A kernel of low precision has its
        gradient accumulated in float32, which counts.

    Returns:
      Scalar, float32 (float64 if hidden or kernel is); 0 if no token counts.

    Raises:
      TypeError: wrong dtypes, a loss that is not a function, plain forward mode.
      ValueError: shapes that do not fit, numbers out of range, a byte budget that cannot be met, a
        loss that couples the batch (EnsLoss: its terms need all tokens at once) or that does not
        return one number a token.

    Numerics:
      As :func:`linear_statistics`. Differentiable again by forward over reverse.

    Example:
      >>> import jax.numpy as jnp, xloss
      >>> hidden, kernel = jnp.array([[1.0, 2.0]]), jnp.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.5]])
      >>> mean = linear_mean_loss(hidden, kernel, jnp.array([1]), loss=xloss.get("cross_entropy"))
      >>> round(float(mean), 4)
      0.5514

    Evidence: published formula, derived and checked.

    References:
      Hsu et al., "Liger Kernel: Efficient Triton Kernels for LLM Training", 2024, arXiv
      2410.10989 (chunks of tokens, gradient in the forward pass). Departures: any loss of the
      statistics, exact second derivatives, masked and weighted means inside.
    """
    given = arguments.check(
        NAME, hidden, kernel, labels, bias=bias, where=where, num_classes=num_classes,
        max_temp_bytes=max_temp_bytes, mesh=mesh, class_axis=class_axis,
    )  # fmt: skip
    head, settings = linear_head(NAME, soft_cap, temperature, normalize)
    if weights is not None:
        weights = checks.floating(NAME, "weights", weights)
        checks.same_shape(NAME, "weights", weights, given.hidden.shape[:-1])
    token_axes = divided(given.hidden, given.size.tokens, mesh, class_axis)
    sizes = plan.one_pass(given.size)
    if token_axes:  # each device cuts its own tokens
        sizes = dataclasses.replace(sizes, shards=1)
    layer = given.layer(head, sizes)
    bound, parts = _bind(loss, loss_args or {}, layer, given)
    return arguments.call(
        NAME, PLAIN, _mean_loss, given.hidden, given.kernel, given.bias, settings, given.labels,
        given.where, weights, parts, bound=bound, layer=layer, mesh=mesh, token_axes=token_axes,
        normalize=normalize, axis_name=axis_name,
    )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class _Bound:
    """A loss with the static part of its arguments: hashable, called with the arrays alone.

    ``kinds`` says for each leaf of the arguments where its array is: (group, place in it), or
    ("static", value).
    """

    loss: Callable[..., Array]
    layer: Layer
    tree: Any
    kinds: tuple[tuple[str, Any], ...]

    def __call__(self, fields, token_arguments, token_fixed, shared_arguments, shared_fixed):
        settings, *shared = shared_arguments
        groups = {
            "token": token_arguments,
            "token fixed": token_fixed,
            "shared": shared,
            "shared fixed": shared_fixed,
        }
        leaves = [at if group == "static" else groups[group][at] for group, at in self.kinds]
        stats = as_statistics(fields, fields[0].shape, self.layer, settings, NAME)
        return self.loss(stats, **jax.tree.unflatten(self.tree, leaves))


def _bind(loss, loss_args, layer, given) -> tuple[_Bound, dict[str, list[Array]]]:
    """The loss and the arrays among its arguments, by group, after its own static checks."""
    if not callable(loss):
        raise TypeError(f"{NAME}: expected loss to be a function, got {loss!r}")
    shown = getattr(loss, "__name__", None) or repr(loss)
    if checks.couples_batch(loss):
        raise ValueError(
            f"{NAME}: expected a loss whose terms depend on one token each, got {shown}, which "
            "couples the batch; apply it to linear_statistics"
        )
    batch = given.hidden.shape[:-1]
    tokens = given.hidden.size // given.hidden.shape[-1]
    leaves, tree = jax.tree.flatten(dict(loss_args))
    kinds: list[tuple[str, Any]] = []
    parts: dict[str, list[Array]] = {
        "token": [], "token fixed": [], "shared": [], "shared fixed": []
    }  # fmt: skip
    flat: list[Any] = []
    for leaf in leaves:
        if isinstance(leaf, numbers.Real) and not isinstance(leaf, bool):
            array = jnp.asarray(float(leaf))
        elif isinstance(leaf, jax.Array | np.ndarray | np.generic):
            array = jnp.asarray(leaf)
        else:
            kinds.append(("static", leaf))
            flat.append(leaf)
            continue
        of_tokens = bool(batch) and array.shape[: len(batch)] == batch
        group = "token" if of_tokens else "shared"
        group += "" if jnp.issubdtype(array.dtype, jnp.floating) else " fixed"
        if of_tokens:
            array = array.reshape(tokens, *array.shape[len(batch) :])
        kinds.append((group, len(parts[group])))
        parts[group].append(array)
        # Numbers stay numbers here, so that the loss can check their range.
        flat.append(array if of_tokens else leaf)
    _try(loss, jax.tree.unflatten(tree, flat), layer, given.size, tokens, shown)
    return _Bound(loss, layer, tree, tuple(kinds)), parts


def _try(loss, loss_args, layer, size, tokens, shown) -> None:
    """Traces the loss once, without computing: its own errors come before any compile."""
    dtype = jnp.dtype(jnp.float64 if size.itemsize == 8 else jnp.float32)
    fields = [jax.ShapeDtypeStruct((tokens,), dtype)] * 6

    def losses(fields):
        return loss(as_statistics(fields, (tokens,), layer, {}, NAME), **loss_args)

    found = jax.eval_shape(losses, fields)
    if not hasattr(found, "shape") or found.shape != (tokens,):
        raise ValueError(
            f"{NAME}: expected {shown} to return losses of shape {(tokens,)}, one a token, got "
            f"{found}"
        )


@functools.partial(
    jax.jit,
    static_argnames=("bound", "layer", "mesh", "token_axes", "normalize", "axis_name"),
)
def _mean_loss(
    hidden, kernel, bias, settings, labels, where, weights, parts, *,
    bound, layer, mesh, token_axes, normalize, axis_name,
):  # fmt: skip
    arrays = arguments.arrays(
        hidden, kernel, bias, settings, labels, where, layer=layer, normalize=normalize
    )
    wide = numerics.working_dtype(jnp.promote_types(hidden.dtype, kernel.dtype))
    shares = _shares(labels.shape, where, weights, axis_name, wide)
    kept = jnp.ones(labels.shape, jnp.bool_) if where is None else where

    def total(arrays, tokens, shared):
        return one_pass.weighted_sum(layer, arrays, bound, tokens, shared)

    tokens = one_pass.Tokens(
        shares.reshape(-1), parts["token"], parts["token fixed"], kept.reshape(-1)
    )
    shared = one_pass.Shared([arrays.settings, *parts["shared"]], parts["shared fixed"])
    value = spread(
        total, arrays, tokens, shared, mesh=mesh, class_axis=layer.axis, token_axes=token_axes
    )
    return value if axis_name is None else jax.lax.psum(value, axis_name)


def _shares(shape, where, weights, axis_name, dtype) -> Array:
    """What each token's loss counts in the mean; they add up to 1, or are all 0."""
    mass = jnp.ones(shape, dtype) if weights is None else weights.astype(dtype)
    mass = numerics.masked(mass, where)
    _, weight = reduction.reduce(mass, how="sum_and_weight", weights=mass, axis_name=axis_name)
    empty = weight == 0
    return jnp.where(empty, jnp.zeros_like(mass), mass / jnp.where(empty, 1.0, weight))
