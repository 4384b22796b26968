# SPDX-License-Identifier: Apache-2.0
"""Where an attack may go: a ball around every example, within a box of legal inputs.

Shared by the attacks. A point is held as its displacement d from the input, which keeps the digits
of a small one; projections, directions and random starts are here and nowhere else.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp

from xloss import numerics
from xloss.typing import Array, PRNGKey


class Ball:
    """A ball and a box around inputs x [..., features]; all methods are per example.

    Attributes:
      x: the inputs, float32 (float64).
      norm: "linf" or "l2".
      radius: scalar.
      axes: the axes of features.
      batch: the shape of the examples.
    """

    def __init__(
        self, x: Array, *, batch: tuple[int, ...], norm: str, radius: Any, bounds: Any, eps: float
    ):
        self.x, self.norm, self.batch = x, norm, batch
        self.axes = tuple(range(len(batch), x.ndim))
        self.radius = numerics.scalar(radius, x)
        self._eps = eps
        self._bounds = (
            None
            if bounds is None
            else tuple(jnp.broadcast_to(jnp.asarray(bound, x.dtype), x.shape) for bound in bounds)
        )

    def point(self, d: Array) -> Array:
        """The input at a displacement, brought into the box."""
        return self.x + d if self._bounds is None else jnp.clip(self.x + d, *self._bounds)

    def boxed(self, d: Array) -> Array:
        """The displacement of :meth:`point`."""
        return d if self._bounds is None else self.point(d) - self.x

    def projected(self, d: Array, last: str = "box") -> Array:
        """Both pull towards the inputs, so in either order the result is in ball and box."""
        if last == "ball":
            d = self.boxed(d)
        if self.norm == "linf":
            d = jnp.clip(d, -self.radius, self.radius)
        else:
            size = l2(d, self.axes)
            d = d * jnp.where(
                size > self.radius, self.radius / (size + self._eps), jnp.ones_like(size)
            )
        return d if last == "ball" else self.boxed(d)

    def direction(self, slope: Array) -> Array:
        """The steepest way up: signs, or the unit vector. 0 for 0 and for NaN, where a model that
        breaks down must not end a search."""
        way = jnp.sign(slope) if self.norm == "linf" else unit(slope, self.axes)
        return jnp.where(jnp.isnan(way), jnp.zeros_like(way), way)

    def inside(self, key: PRNGKey) -> Array:
        """A random displacement in the ball: uniform, or of uniform direction and length."""
        place, length = split(key, 2)
        if self.norm == "linf":
            return self.radius * self._drawn(jax.random.uniform, place, minval=-1.0, maxval=1.0)
        normal = self._drawn(jax.random.normal, place)
        share = drawn(jax.random.uniform, length, self.batch, (), self.x.dtype)
        return unit(normal, self.axes) * spread(share, self.x) * self.radius

    def on_the_face(self, noise: Array) -> Array:
        """Noise scaled until it touches the face of the ball: where APGD starts."""
        if self.norm == "linf":
            size = jnp.max(jnp.abs(noise), axis=self.axes, keepdims=True, initial=0.0)
            noise = noise / jnp.where(size > 0, size, jnp.ones_like(size))
        else:
            noise = unit(noise, self.axes)
        return self.radius * noise

    def face(self, key: PRNGKey) -> Array:
        """A random displacement on the face of the ball."""
        if self.norm == "linf":
            return self.on_the_face(self._drawn(jax.random.uniform, key, minval=-1.0, maxval=1.0))
        return self.on_the_face(self._drawn(jax.random.normal, key))

    def _drawn(self, draw: Any, key: PRNGKey, **limits: float) -> Array:
        features = self.x.shape[len(self.batch) :]
        return drawn(draw, key, self.batch, features, self.x.dtype, **limits)


def drawn(
    draw: Any, key: PRNGKey, batch: tuple[int, ...], features: tuple[int, ...], *args, **limits
) -> Array:
    """Draws [*batch, *features], with one key for all of them or with a key for each example."""
    if key.ndim == 0:
        return draw(key, batch + features, *args, **limits)
    each = jax.vmap(lambda k: draw(k, features, *args, **limits))(jnp.ravel(key))
    return each.reshape(batch + features)


def split(key: PRNGKey, count: int) -> PRNGKey:
    """Keys [count], or [count, ...] of keys [...]."""
    if key.ndim == 0:
        return jax.random.split(key, count)
    each = jax.vmap(lambda k: jax.random.split(k, count))(jnp.ravel(key))
    return jnp.moveaxis(each, 1, 0).reshape(count, *key.shape)


def better(found: Any, best: Any, values: tuple[Array, Array]) -> Any:
    """Tree ``found`` where its values [...] are greater, or the best ones are NaN."""
    wins = (values[0] > values[1]) | jnp.isnan(values[1])
    return where(wins, found, best)


def where(chosen: Array, left: Any, right: Any) -> Any:
    """Tree ``left`` for the chosen examples [...], else ``right``."""
    return jax.tree.map(lambda a, b: jnp.where(spread(chosen, a), a, b), left, right)


def spread(x: Array, like: Array) -> Array:
    """[...] -> [..., 1, 1], to stand against inputs."""
    return x.reshape(x.shape + (1,) * (like.ndim - x.ndim))


def l2(x: Array, axes: tuple[int, ...]) -> Array:
    """Euclidean norm over the axes, which stay as ones."""
    return jnp.sqrt(jnp.sum(jnp.square(x), axis=axes, keepdims=True))


def unit(x: Array, axes: tuple[int, ...]) -> Array:
    """x / ||x||_2 over the axes, 0 for 0; scaled first, so that a tiny gradient has a direction."""
    if math.prod(x.shape[axis] for axis in axes) == 0:
        return x
    size = jnp.max(jnp.abs(x), axis=axes, keepdims=True)
    safe = x / jnp.where((size > 0) & jnp.isfinite(size), size, jnp.ones_like(size))
    length = l2(safe, axes)
    return safe / jnp.where(length > 0, length, jnp.ones_like(length))
