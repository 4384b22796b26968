# SPDX-License-Identifier: Apache-2.0
"""Square: an attack by random search that asks for no gradient.

Andriushchenko, Croce, Flammarion, Hein, "Square Attack: a query-efficient black-box adversarial
attack via random search". Reach for it beside gradient attacks: a model that it breaks and they do
not hides its gradients.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from xloss import checks, numerics
from xloss.adversarial import ascent
from xloss.adversarial import ball as balls
from xloss.adversarial.ball import Ball
from xloss.statistics import logit_statistics
from xloss.typing import Array, PRNGKey

#: Up to these queries of 10,000 the window keeps its area; beyond each it is halved.
_HALVED_AFTER = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)


class SquareResult(NamedTuple):
    """What the search found; float32 (float64 for float64 inputs).

    Attributes:
      x_adv: the inputs of least margin, of the inputs' shape.
      margin: z_y - max over k != y of z_k there [...]; <= 0 where it succeeded; 0 where masked.
      success: bool [...], whether x_adv is misclassified; False where masked.
      queries: integer [...], evaluations until success or the end; 0 where masked.
    """

    x_adv: Array
    margin: Array
    success: Array
    queries: Array


def square(
    apply_fn: Any,
    inputs: ArrayLike,
    labels: ArrayLike,
    *,
    key: PRNGKey,
    radius: ArrayLike,
    queries: int = 5000,
    share: float = 0.8,
    rescale: bool = False,
    bounds: tuple[ArrayLike, ArrayLike] | None = (0.0, 1.0),
    where: ArrayLike | None = None,
) -> SquareResult:
    """Lowers the margin by random windows on the faces of the linf ball.

    Definition: it starts at x + radius times a random sign for each column and channel. A query
    draws a square window at a random place and a sign for each channel, adds 2 radius sign there,
    clips to ball and box, and keeps the result where the margin falls or is <= 0. An example
    whose margin is <= 0 is done. :func:`window_shares` says how the window shrinks.

    Args:
      apply_fn: inputs [..., features] -> logits [..., K], as in :func:`pgd`. It need not be
        differentiable.
      inputs: [..., H, W, C], [..., H, W] or [..., d], within ``bounds``; of a vector the window is
        a stretch of it.
      labels: integer y [...] in [0, K).
      key: PRNG key, whose windows are shared by all examples, as the authors' are; or keys [...],
        one for each example, whose search then does not depend on the batch that it is in.
      radius: of the ball, scalar >= 0, traced, in the unit of the inputs.
      queries: the most windows that are tried, static; fewer once all examples are done.
      share: of the features that the first windows cover, in (0, 1], static.
      rescale: whether the windows shrink over ``queries`` as they would over 10,000.
      bounds: (low, high) of legal inputs, as in :func:`pgd`.
      where: bool [...]; masked examples are returned as they are.

    Returns:
      :class:`SquareResult`. It costs queries + 1 evaluations of the whole batch at most, and no
      gradient.

    Raises:
      TypeError: wrong dtypes, no key, functions that are not callable.
      ValueError: shapes that do not fit, numbers out of range.

    Numerics:
      As :func:`pgd`. An example whose logits are NaN is never done and keeps its start.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> apply = jax.tree_util.Partial(lambda w, x: jnp.sign(x @ w), jnp.array([[1.0, -1.0]]))
      >>> x, y = jnp.array([[0.1]]), jnp.array([0])
      >>> found = square(apply, x - 0.05, y, key=jax.random.key(0), radius=0.2, bounds=None)
      >>> found.success.tolist()  # no gradient leads there
      [True]

    Evidence: authors' code.

    References:
      Andriushchenko, Croce, Flammarion, Hein, "Square Attack: a query-efficient black-box
      adversarial attack via random search", ECCV 2020, arXiv 1912.00049; the linf form in
      fra31/auto-attack. Departures: the last row and column are reached (their windows never are
      at the far edge); channels come last.
    """
    name = "square"
    inputs, labels, where, settings, _ = ascent.check(
        name,
        inputs,
        labels,
        key=key,
        radius=radius,
        norm="linf",
        steps=0,
        step_size=None,
        bounds=bounds,
        restarts=1,
        random_start=True,
        start=None,
        best=True,
        where=where,
    )
    if not 1 <= inputs.ndim - labels.ndim <= 3:
        raise ValueError(
            f"{name}: expected inputs [..., H, W, C], [..., H, W] or [..., d] for labels of shape "
            f"{labels.shape}, got shape {inputs.shape}"
        )
    shares = window_shares(queries, share=share, rescale=rescale)
    apply_fn = ascent.callable_pytree(name, "apply_fn", apply_fn)
    features = inputs.shape[labels.ndim :]
    sides = tuple(sides_of(features, shares).tolist())
    return _square(apply_fn, inputs, labels, where, settings, sides)


def window_shares(queries: int, *, share: float = 0.8, rescale: bool = False) -> np.ndarray:
    """The share of the features that each window covers, on the host.

    Definition: ``share``, halved after 10, 50, 200, 500, 1000, 2000, 4000, 6000 and 8000 queries;
    with ``rescale`` query i counts as query 10,000 i / queries.

    Args:
      queries: how many, >= 0.
      share: of the first windows, in (0, 1].
      rescale: see there.

    Returns:
      float64 [queries].

    Raises:
      ValueError: numbers out of range.

    Numerics:
      Exact: powers of 1/2 times ``share``.

    Example:
      >>> window_shares(60)[[10, 11, 51]].tolist()
      [0.8, 0.4, 0.2]

    Evidence: authors' code.

    References:
      Andriushchenko, Croce, Flammarion, Hein, "Square Attack: a query-efficient black-box
      adversarial attack via random search", ECCV 2020, arXiv 1912.00049.
    """
    name = "window_shares"
    if isinstance(queries, bool) or not isinstance(queries, int) or queries < 0:
        raise ValueError(f"{name}: expected queries an integer >= 0, got {queries!r}")
    share = checks.number(name, "share", share, low=0.0, high=1.0, open_low=True)
    query = np.arange(queries)
    if rescale:
        query = (query / max(queries, 1) * 10000).astype(np.int64)
    halvings = np.searchsorted(np.asarray(_HALVED_AFTER), query, side="left")
    return share / 2.0**halvings


def sides_of(features: tuple[int, ...], shares: np.ndarray) -> np.ndarray:
    """How long the windows of these shares are: at least 1, at most the shorter side."""
    places = features[:2]
    side = np.rint((shares * math.prod(places)) ** (1 / len(places)))
    return np.clip(side, 1, max(min(places), 1)).astype(np.int32)


@functools.partial(jax.jit, static_argnames="sides")
def _square(apply_fn, inputs, labels, where, settings, sides):
    apply_fn = jax.lax.stop_gradient(apply_fn)
    labels = numerics.masked(labels, where)
    given = jax.lax.stop_gradient(numerics.promote(inputs))
    ball = Ball(
        ascent.without_masked(given, where),
        batch=labels.shape,
        norm="linf",
        radius=settings.radius,
        bounds=settings.bounds,
        eps=0.0,
    )
    features = given.shape[labels.ndim :]
    places, channels = features[:2], features[2:]
    first, rest = balls.split(settings.key, 2)
    # Of a picture every column has one sign, of a vector every feature.
    stripes = (1, *features[1:]) if len(places) == 2 else features
    signs = balls.drawn(jax.random.rademacher, first, labels.shape, stripes, given.dtype)

    def draw(query):
        """Where a window is, in [0, 1), and its signs; for all examples or for each."""
        keys = balls.split(_folded(rest, query), 2)
        batch = labels.shape if rest.ndim else ()
        place = balls.drawn(jax.random.uniform, keys[0], batch, (len(places),), given.dtype)
        return place, balls.drawn(jax.random.rademacher, keys[1], batch, channels, given.dtype)

    def margin_of(x):
        logits = ascent.logits_of("square", apply_fn, x, labels)
        return logit_statistics(logits, labels).lead

    d, margin, used = search(margin_of, ball, signs, draw, np.asarray(sides, np.int32), where)
    x_adv = ball.point(d)
    if where is not None:
        x_adv = balls.where(where, x_adv, given)
    found = SquareResult(
        x_adv,
        numerics.masked(margin, where),
        numerics.masked(margin <= 0, where),
        numerics.masked(used, where),
    )
    return jax.lax.stop_gradient(found)


def search(margin_of, ball, stripes, draw, sides, where):
    """The random search itself, whatever draws the windows.

    Args:
      margin_of: inputs -> margins [...].
      ball: a linf Ball.
      stripes: signs to start from, to be broadcast to the inputs.
      draw: query -> (place in [0, 1) for each axis [axes] or [..., axes], signs [C] or [..., C]).
      sides: int [queries].
      where: bool [...] or None.

    Returns:
      (displacements, margins [...], evaluations [...]).
    """
    examples = len(ball.batch)
    places = ball.x.shape[examples:][:2]
    lengths = jnp.asarray(places, jnp.int32)
    sides = jnp.asarray(sides)

    def window(query):
        place, sign = draw(query)
        side = sides[query]
        if place.ndim == 1:  # one window for all
            place = place.reshape((1,) * examples + place.shape)
            sign = sign.reshape((1,) * examples + sign.shape)
        room = (lengths - side + 1).astype(place.dtype).reshape((1,) * examples + lengths.shape)
        corner = jnp.floor(place * room).astype(jnp.int32)
        inside = jnp.ones(corner.shape[:-1] + (1,) * len(places), jnp.bool_)
        for axis, length in enumerate(places):
            start = corner[..., axis][..., None]
            at = jax.lax.broadcasted_iota(jnp.int32, (*(1 for _ in ball.batch), length), examples)
            hit = (at >= start) & (at < start + side)
            shape = [1] * len(places)
            shape[axis] = length
            inside = inside & hit.reshape(*hit.shape[:-1], *shape)
        if ball.x.ndim - examples == 3:
            inside, sign = inside[..., None], sign[..., None, None, :]
        else:
            sign = sign.reshape(sign.shape + (1,) * len(places))
        return jnp.where(inside, 2.0 * ball.radius * sign, jnp.zeros_like(sign))

    def open_ones(margin):
        return margin > 0 if where is None else (margin > 0) & where

    def body(state):
        query, d, margin, used = state
        still = open_ones(margin)
        new = ball.projected(d + window(query))
        found = margin_of(ball.point(new))
        accepted = still & ((found < margin) | (found <= 0))
        d = balls.where(accepted, new, d)
        return query + 1, d, jnp.where(accepted, found, margin), used + still.astype(used.dtype)

    def goes_on(state):
        return (state[0] < sides.shape[0]) & jnp.any(open_ones(state[2]))

    d = ball.projected(jnp.broadcast_to(ball.radius * stripes, ball.x.shape))
    state = (jnp.zeros([], jnp.int32), d, margin_of(ball.point(d)), jnp.ones(ball.batch, jnp.int32))
    if sides.shape[0] == 0:
        return state[1:]
    return jax.lax.while_loop(goes_on, body, state)[1:]


def _folded(key, number):
    if key.ndim == 0:
        return jax.random.fold_in(key, number)
    each = jax.vmap(lambda k: jax.random.fold_in(k, number))(jnp.ravel(key))
    return each.reshape(key.shape)
