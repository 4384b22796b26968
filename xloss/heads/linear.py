# SPDX-License-Identifier: Apache-2.0
"""The linear head over a huge vocabulary: any loss, without the logits.

Cut cross-entropy (Wijmans et al.) and Liger's fused linear cross-entropy keep [tokens, classes]
out of memory for one loss. Here the head gives statistics, and every loss that is a function of
them comes for the same price. Reach for :func:`linear_mean_loss` for a scalar objective (fastest),
for :func:`linear_statistics` for losses of single tokens, several losses at once, or least memory.
"""

import functools
from typing import Any

import jax
from jax.sharding import Mesh
from jax.typing import ArrayLike

from xloss import checks, numerics
from xloss.heads import arguments, engine, plan
from xloss.heads.scoring import Linear, Settings
from xloss.heads.sharded import spread
from xloss.statistics import FIELDS, LogitStatistics

PLAIN = "xloss.logit_statistics(hidden @ kernel, labels)"


def linear_statistics(
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
) -> LogitStatistics:
    """Statistics of z = hidden @ kernel at the labels, a block of classes at a time.

    Definition::

        a = h W + b;   a = cap tanh(a / cap) with a soft cap;   z = a / temperature
        with normalize: columns of W and rows h scaled to length 1, so that a is a cosine (+ b)

    the same numbers and gradients as ``logit_statistics(z, labels)``, with four matrix products
    instead of three and temporaries of one block instead of two arrays [tokens, V]::

        stats = linear_statistics(hidden, kernel, labels)
        losses = comp_sum(stats, tau=0.7) + log_partition_penalty(stats)

    Args:
      hidden: h [..., d], any float dtype.
      kernel: W [d, V], one class a column. Operands are multiplied in the wider dtype of the two
        and accumulated in float32 (float64 if either is float64), the gradients too.
      labels: integer [...] in [0, num_classes).
      bias: b [V] or None; -inf masks a class out.
      soft_cap: scalar > 0 or None.
      temperature: scalar > 0; the statistics are those of logits / temperature.
      normalize: whether a is a cosine.
      num_classes: how many of the columns are classes; the others are padding and never enter.
      max_temp_bytes: what a device may use beside arguments, results and gradients; None takes
        1024 classes at a time, fewer where their logits would pass 128 MiB.
      where: bool [...]; masked rows are zeroed before the product, so NaN there is harmless. Their
        statistics are finite and meaningless: mask the loss too.
      mesh: under jit, the mesh whose ``class_axis`` the kernel's columns are sharded over. Without
        class_axis: the mesh over which tokens are spread, for the choice of blocks.
      class_axis: mesh axis of the classes; without mesh, inside ``shard_map``, where kernel and
        bias are this device's columns. Devices exchange one maximum and the sums that the used
        fields need, [tokens] each: no kernel, no logits.

    Returns:
      LogitStatistics [...] with every field. Only fields that are used cost anything under jit.

    Raises:
      TypeError: wrong dtypes; plain forward mode (see Numerics).
      ValueError: shapes that do not fit, numbers out of range, classes that do not divide over
        the devices, a byte budget that cannot be met (it says what the least is).

    Numerics:
      As :func:`xloss.logit_statistics`: labels outside the classes give NaN, V = 1 gives +inf with
      gradient 0. The variance comes from pairs of means and spreads and does not cancel. Where
      several classes tie for the greatest logit, the gradient of ``lead`` is shared among them.
      Differentiable by reverse mode and by forward over reverse: ``jvp(grad(f))`` is an exact
      Hessian-vector product at the same memory. Reverse over reverse works, and holds what plain
      autodiff would. Plain forward mode (jvp, jacfwd) raises a TypeError; inside your own jit it
      is JAX's, about custom_vjp: use ``logit_statistics(hidden @ kernel, labels)`` there.

    Example:
      >>> import jax, jax.numpy as jnp, xloss
      >>> hidden, kernel = jnp.array([[1.0, 2.0]]), jnp.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.5]])
      >>> stats = linear_statistics(hidden, kernel, jnp.array([1]))  # z = 1, 2, 1
      >>> float(stats.lead[0]), round(float(xloss.get("cross_entropy")(stats)[0]), 4)
      (1.0, 0.5514)

    Evidence: published formula, derived and checked.

    References:
      Wijmans, Huval, Hertzberg, Koltun, Krähenbühl, "Cut Your Losses in Large-Vocabulary
      Language Models", ICLR 2025, arXiv 2411.09009 (class blocks, recomputed); Shoeybi et al.,
      "Megatron-LM", 2019, arXiv 1909.08053 (classes over devices). Departure from the former: no
      gradient is filtered, every one is exact.
    """
    name = "linear_statistics"
    given = arguments.check(
        name, hidden, kernel, labels, bias=bias, where=where, num_classes=num_classes,
        max_temp_bytes=max_temp_bytes, mesh=mesh, class_axis=class_axis,
    )  # fmt: skip
    head, settings = linear_head(name, soft_cap, temperature, normalize)
    layer = given.layer(head, plan.lean(given.size))
    return arguments.call(
        name, PLAIN, _statistics, given.hidden, given.kernel, given.bias, settings,
        given.labels, given.where, layer=layer, mesh=mesh, normalize=normalize, provider=name,
    )  # fmt: skip


def linear_head(
    function: str, soft_cap: ArrayLike | None, temperature: ArrayLike, normalize: bool
) -> tuple[Linear, Settings]:
    """The head and its settings, with what is left out of the computation left out."""
    settings: Settings = {}
    if soft_cap is not None:
        settings["soft_cap"] = checks.number(function, "soft_cap", soft_cap, low=0.0, open_low=True)
    temperature = checks.number(function, "temperature", temperature, low=0.0, open_low=True)
    if not isinstance(temperature, float) or temperature != 1.0:
        settings["temperature"] = temperature
    head = Linear(
        normalize=bool(normalize),
        capped="soft_cap" in settings,
        tempered="temperature" in settings,
    )
    return head, settings


@functools.partial(jax.jit, static_argnames=("layer", "mesh", "normalize", "provider"))
def _statistics(
    hidden, kernel, bias, settings, labels, where, *, layer, mesh, normalize, provider
) -> LogitStatistics:
    arrays = arguments.arrays(
        hidden, kernel, bias, settings, labels, where, layer=layer, normalize=normalize
    )
    fields = spread(
        lambda arrays, *_: engine.statistics(layer, arrays),
        arrays,
        mesh=mesh,
        class_axis=layer.axis,
    )
    return as_statistics(fields, hidden.shape[:-1], layer, arrays.settings, provider)


def as_statistics(
    fields: Any, shape: tuple[int, ...], layer: engine.Layer, settings: Settings, provider: str
) -> LogitStatistics:
    """The engine's fields [N] as LogitStatistics [...]."""
    values = dict(zip(FIELDS, (x.reshape(shape) for x in fields), strict=True))
    one = numerics.scalar(1.0, fields[0])
    return LogitStatistics(
        **values,
        temperature=settings.get("temperature", one),
        num_classes=layer.classes,
        provider=provider,
    )
