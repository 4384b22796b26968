# SPDX-License-Identifier: Apache-2.0
"""How a block of classes is scored: what the streaming engine does not know of an output layer.

A head is a static, hashable object. The engine gives it features h [n, d] and a block of columns
(arrays whose last axis is the class) and asks for three things:

    product(h, columns, settings) -> a [n, v]         the expensive part
    finish(a, bias, settings) -> z [n, v]             elementwise: bias, soft cap, temperature
    pull(h, columns, settings, da) -> (dh, dcolumns, dsettings)       what product gives back

They are apart because the products decide what a head costs, and because ``finish`` is done again
wherever that is cheaper than keeping its result. ``settings`` is a dict of the arrays that all
classes share. Everything comes in the working dtype (float32, float64 for float64).
"""

import dataclasses
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from xloss import numerics
from xloss.heads import distances
from xloss.typing import Array, PyTree

Settings = dict[str, Any]


class Head(Protocol):
    """What the engine asks of an output layer; implementations are frozen dataclasses."""

    def product(self, h: Array, columns: PyTree, settings: Settings) -> Array:
        """Scores before they are finished."""
        ...

    def finish(self, a: Array, bias: Array | None, settings: Settings) -> Array:
        """The logits."""
        ...

    def pull(
        self, h: Array, columns: PyTree, settings: Settings, da: Array
    ) -> tuple[Array, PyTree, Settings]:
        """Cotangents of product's arguments, not rounded to their dtype."""
        ...


@dataclasses.dataclass(frozen=True)
class Linear:
    """z = cap tanh((h W + b) / cap) / temperature, each part where it is asked for.

    Attributes:
      normalize: whether the columns of W are scaled to length 1 (h comes scaled already).
      capped: whether settings hold "soft_cap".
      tempered: whether settings hold "temperature".
    """

    normalize: bool = False
    capped: bool = False
    tempered: bool = False

    def product(self, h: Array, columns: Array, settings: Settings) -> Array:
        """h W, accumulated in the working dtype."""
        del settings
        return _dot(h, self._weights(columns)[0], 1, 0)

    def finish(self, a: Array, bias: Array | None, settings: Settings) -> Array:
        """Adds the bias, then caps, then divides by the temperature."""
        if bias is not None:
            a = a + bias.astype(a.dtype)[None, :]
        if self.capped:
            # A class that is masked out (-inf) must not be capped to one like the others.
            gone, cap = jnp.isneginf(a), settings["soft_cap"]
            a = jnp.where(gone, a, cap * jnp.tanh(jnp.where(gone, jnp.zeros_like(a), a) / cap))
        return numerics.tempered(a, settings["temperature"]) if self.tempered else a

    def pull(
        self, h: Array, columns: Array, settings: Settings, da: Array
    ) -> tuple[Array, Array, Settings]:
        """By hand, because autodiff of a product of low precision rounds what it gives back."""
        weights, back = self._weights(columns)
        low = da.astype(jnp.promote_types(h.dtype, columns.dtype))
        dh, dw = _dot(low, weights, 1, 1), _dot(h, low, 0, 0)
        return dh, back(dw), jax.tree.map(jnp.zeros_like, settings)

    def _weights(self, columns):
        if not self.normalize:
            return columns, lambda dw: dw
        unit, back = jax.vjp(lambda w: unit_length(w, 0), numerics.promote(columns))
        return unit.astype(columns.dtype), lambda dw: back(dw)[0]


@dataclasses.dataclass(frozen=True)
class Harmonic:
    """z = -n log D(h, w) of features and centres that are prepared already.

    Settings hold n as "exponent", the options of the distance, and its matrix if it has one.
    """

    distance: str

    def product(self, h: Array, columns: Array, settings: Settings) -> Array:
        """Everything: a distance has no part that would be cheaper to do twice."""
        options = dict(settings)
        exponent, matrix = options.pop("exponent"), options.pop("matrix", None)
        w = columns.T
        if self.distance in distances.THROUGH_MATMUL:
            found = distances.THROUGH_MATMUL[self.distance](h, w, matrix, options)
        else:
            found = distances.ELEMENTWISE[self.distance](h[:, None, :], w[None], options)
        return numerics.inverse_power_logits(found, exponent)

    def finish(self, a: Array, bias: Array | None, settings: Settings) -> Array:
        """Nothing."""
        del bias, settings
        return a

    def pull(
        self, h: Array, columns: Array, settings: Settings, da: Array
    ) -> tuple[Array, Array, Settings]:
        """By autodiff: features and centres come in the working dtype."""
        return jax.vjp(self.product, h, columns, settings)[1](da)


def unit_length(x: Array, axis: int) -> Array:
    """x scaled to Euclidean length 1 along an axis; 0 stays 0, with gradient 0."""
    # The floor on the square is that of 1e-12 on the norm, and keeps the gradient at 0 finite.
    square = jnp.sum(x * x, axis=axis, keepdims=True)
    return x * jax.lax.rsqrt(jnp.maximum(square, 1e-24))


def _dot(x: Array, y: Array, over_x: int, over_y: int) -> Array:
    dtype = jnp.promote_types(x.dtype, y.dtype)
    return jax.lax.dot_general(
        x.astype(dtype),
        y.astype(dtype),
        (((over_x,), (over_y,)), ((), ())),
        preferred_element_type=numerics.working_dtype(dtype),
    )
