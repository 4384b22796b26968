# SPDX-License-Identifier: Apache-2.0
"""Dice and Tversky losses: one minus a soft F1, for a few positives among many negatives.

Li et al.; Milletari et al.; Salehi et al. Reach for ``level="set"`` (one loss of the whole batch)
where F1 is what counts and positives are rare; an example at a time (``level="example"``) the loss
of saying no to everything is small, and training from scratch may end there.
"""

import functools

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from xloss import checks, numerics
from xloss.typing import Array

LEVELS = ("set", "macro", "example")


def dice(
    scores: ArrayLike,
    labels: ArrayLike,
    *,
    level: str = "set",
    alpha: ArrayLike = 0.0,
    smooth: ArrayLike = 1.0,
    squared: bool = True,
    where: ArrayLike | None = None,
    axis_name: str | tuple[str, ...] | None = None,
) -> Array:
    """Soft Dice loss, self-adjusting for alpha > 0.

    Definition, with p = sigmoid(score) of one score an example or softmax(logits), y 0/1 (one-hot),
    q = (1 - p)^alpha p, and e = 2 for squared, else 1::

        D(S) = 1 - (2 sum_S q y + smooth) / (sum_S q^e + sum_S y^e + smooth)
        set:      D of all elements                        scalar
        macro:    mean over classes of D of a class        scalar
        example:  sum over classes of D of one element     [...]

    Args:
      scores: f [...] of one score an example, or logits z [..., K], any float dtype.
      labels: 0 or 1 [...] beside f, integer [...] in [0, K) beside z.
      level: "set", "macro" (of logits) or "example".
      alpha: scalar >= 0, traced; turns easy examples down (the authors' 0.01).
      smooth: scalar >= 0, traced.
      squared: whether the denominator has squares.
      where: bool [...]; False takes an example out, as if it were not there.
      axis_name: inside ``shard_map``, the axes over which examples are spread: the sums of "set"
        and "macro" are over all of them.

    Returns:
      Losses in [0, 1] (a class's share of an example's is, too), float32 (float64 for float64).

    Raises:
      TypeError: wrong dtypes.
      ValueError: shapes that do not fit, numbers out of range, an unknown level, "macro" of one
        score an example.

    Numerics:
      1 - p comes from the other side's score and not from p, so that (1 - p)^alpha has a finite
      gradient where p rounds to 1 (the authors' has not). Labels out of range give NaN; smooth = 0
      of nothing gives 0. With alpha > 0 a perfect prediction does not cost 0.

    Example:
      >>> import jax.numpy as jnp
      >>> scores, labels = jnp.array([90.0, 90.0, -90.0]), jnp.array([1, 0, 0])
      >>> round(float(dice(scores, labels, smooth=0.0, squared=False)), 4)  # 1 - F1
      0.3333

    Evidence: authors' code.

    References:
      Li, Sun, Meng, Liang, Wu, Li, "Dice Loss for Data-imbalanced NLP Tasks", ACL 2020, arXiv
      1911.02855; authors' code ShannonAI/dice_loss_for_NLP. Departures: their multi-class form
      without squares divides an element by a sum over the batch; here it is a Dice loss like the
      others.
    """
    name = "dice"
    scores, labels, where = _check(name, scores, labels, where)
    checks.choice(name, "level", level, LEVELS)
    if level == "macro" and scores.shape == labels.shape:
        raise ValueError(f"{name}: expected logits [..., K] for level='macro', got one score each")
    alpha = checks.number(name, "alpha", alpha, low=0.0)
    smooth = checks.number(name, "smooth", smooth, low=0.0)
    return _dice(
        scores,
        labels,
        where,
        alpha,
        smooth,
        level=level,
        squared=bool(squared),
        axis_name=axis_name,
    )


def tversky(
    scores: ArrayLike,
    labels: ArrayLike,
    *,
    level: str = "set",
    fp_weight: ArrayLike = 0.5,
    fn_weight: ArrayLike = 0.5,
    smooth: ArrayLike = 1.0,
    where: ArrayLike | None = None,
    axis_name: str | tuple[str, ...] | None = None,
) -> Array:
    """Tversky loss: Dice with a price each for false positives and false negatives.

    Definition, with p and y as in :func:`dice`::

        T(S) = 1 - (sum_S p y + smooth)
                   / (sum_S p y + fp_weight sum_S p (1 - y) + fn_weight sum_S (1 - p) y + smooth)

    Both weights 0.5 and half the smoothing are dice without squares.

    Args:
      scores: f [...] of one score an example, or logits z [..., K], any float dtype.
      labels: 0 or 1 [...] beside f, integer [...] in [0, K) beside z.
      level: "set", "macro" or "example", as in :func:`dice`.
      fp_weight: of false positives, scalar >= 0, traced.
      fn_weight: of false negatives, scalar >= 0, traced.
      smooth: scalar >= 0, traced.
      where: bool [...]; False takes an example out, as if it were not there.
      axis_name: as in :func:`dice`.

    Returns:
      Losses in [0, 1], float32 (float64 for float64).

    Raises:
      TypeError: wrong dtypes.
      ValueError: as :func:`dice`.

    Numerics:
      As :func:`dice`.

    Example:
      >>> import jax.numpy as jnp
      >>> scores, labels = jnp.array([90.0, 90.0, -90.0]), jnp.array([1, 0, 0])
      >>> round(float(tversky(scores, labels, fp_weight=1.0, fn_weight=0.0, smooth=0.0)), 4)
      0.5

    Evidence: authors' code.

    References:
      Salehi, Erdogmus, Gholipour, "Tversky loss function for image segmentation using 3D fully
      convolutional deep networks", 2017, arXiv 1706.05721; Li, Sun, Meng, Liang, Wu, Li, "Dice Loss
      for Data-imbalanced NLP Tasks", ACL 2020, arXiv 1911.02855.
    """
    name = "tversky"
    scores, labels, where = _check(name, scores, labels, where)
    checks.choice(name, "level", level, LEVELS)
    if level == "macro" and scores.shape == labels.shape:
        raise ValueError(f"{name}: expected logits [..., K] for level='macro', got one score each")
    weights = (
        checks.number(name, "fp_weight", fp_weight, low=0.0),
        checks.number(name, "fn_weight", fn_weight, low=0.0),
        checks.number(name, "smooth", smooth, low=0.0),
    )
    return _tversky(scores, labels, where, *weights, level=level, axis_name=axis_name)


def hard_negative_mask(
    scores: ArrayLike, labels: ArrayLike, *, ratio: float, where: ArrayLike | None = None
) -> Array:
    """All positives, and the negatives with the greatest scores: what a loss should look at.

    Args:
      scores: f [N] of one score an example, any float dtype.
      labels: 0 or 1 [N].
      ratio: negatives to keep for each positive, rounded down to whole ones, >= 0.
      where: bool [N]; False is never kept.

    Returns:
      bool [N], for ``where=`` of a loss. Of equal scores the first is kept.

    Raises:
      TypeError: wrong dtypes.
      ValueError: shapes that do not fit, ratio < 0.

    Numerics:
      No gradient. NaN scores come last.

    Example:
      >>> import jax.numpy as jnp
      >>> scores, labels = jnp.array([0.0, 3.0, 1.0, 2.0]), jnp.array([1, 0, 0, 0])
      >>> hard_negative_mask(scores, labels, ratio=2.0).tolist()
      [True, True, False, True]

    Evidence: authors' code.

    References:
      Li, Sun, Meng, Liang, Wu, Li, "Dice Loss for Data-imbalanced NLP Tasks", ACL 2020, arXiv
      1911.02855; authors' code ShannonAI/dice_loss_for_NLP. Departure: theirs keeps two negatives
      fewer, by an index that is off, and nearly all for one or none.
    """
    name = "hard_negative_mask"
    scores = checks.floating(name, "scores", scores)
    labels = checks.integer(name, "labels", labels, allow_bool=True)
    if scores.ndim != 1:
        raise ValueError(f"{name}: expected scores of shape (N,), got {scores.shape}")
    checks.same_shape(name, "labels", labels, scores.shape)
    where = checks.mask(name, where, scores.shape)
    ratio = checks.number(name, "ratio", ratio, low=0.0)
    return _hard_negatives(scores, labels, where, ratio)


def _check(name, scores, labels, where):
    scores = checks.floating(name, "scores", scores)
    labels = checks.integer(name, "labels", labels, allow_bool=True)
    logits = labels.shape == scores.shape[:-1] and 0 not in scores.shape[-1:]
    if labels.shape != scores.shape and not logits:
        raise ValueError(
            f"{name}: expected labels of shape {scores.shape} (one score an example) or "
            f"{scores.shape[:-1]} (logits), got {labels.shape}"
        )
    return scores, labels, checks.mask(name, where, labels.shape)


def _probabilities(scores, labels, where):
    """(p, 1 - p, y [..., K], which examples count [..., 1]); K = 1 for one score an example."""
    z = numerics.promote(scores)
    if scores.shape == labels.shape:
        legal = (labels == 0) | (labels == 1)
        z, y = z[..., None], (labels == 1)[..., None]
        z = z if where is None else jnp.where(where[..., None], z, 0.0)
        p, rest = jax.nn.sigmoid(z), jax.nn.sigmoid(-z)
    else:
        legal = (labels >= 0) & (labels < z.shape[-1])
        y = numerics.one_hot_last(labels, z.shape)
        z = z if where is None else jnp.where(where[..., None], z, 0.0)
        p = jax.nn.softmax(z, axis=-1)
        # 1 - p of the greatest is the sum of the others, of which nothing cancels.
        top = numerics.one_hot_last(jnp.argmax(z, axis=-1), z.shape)
        others = jnp.sum(jnp.where(top, 0.0, p), axis=-1, keepdims=True)
        rest = jnp.where(top, others, 1.0 - p)
    counts = jnp.ones(labels.shape, jnp.bool_) if where is None else where
    p = jnp.where(legal[..., None] | ~counts[..., None], p, jnp.nan)
    return p, rest, y, counts[..., None]


def _sums(level, axis_name, *terms):
    """Each term over what a loss is taken of: [] for a set, [K] for classes, [..., K] as it is."""
    if level == "example":
        return terms
    over = tuple(range(terms[0].ndim - (level == "macro")))
    found = tuple(jnp.sum(term, axis=over) for term in terms)
    return found if axis_name is None else jax.lax.psum(found, axis_name)


def _joined(level, numerator, denominator):
    empty = denominator == 0
    losses = 1.0 - numerator / jnp.where(empty, 1.0, denominator)
    losses = jnp.where(empty, 0.0, losses)
    if level == "macro":
        return jnp.mean(losses)
    return jnp.sum(losses, axis=-1) if level == "example" else losses


@functools.partial(jax.jit, static_argnames=("level", "squared", "axis_name"))
def _dice(scores, labels, where, alpha, smooth, *, level, squared, axis_name):
    p, rest, y, counts = _probabilities(scores, labels, where)
    alpha, smooth = numerics.scalar(alpha, p), numerics.scalar(smooth, p)
    # rest = 0 only where its score underflows; q is 0 there, and so is its slope.
    some = rest > 0
    q = p * jnp.where(some | (alpha == 0), jnp.where(some, rest, 1.0) ** alpha, 0.0)
    q = jnp.where(counts, q, 0.0)
    y = jnp.where(counts & y, 1.0, 0.0).astype(q.dtype)
    size = jnp.square(q) if squared else q
    both, ours, theirs = _sums(level, axis_name, q * y, size, y)
    return _joined(level, 2.0 * both + smooth, ours + theirs + smooth)


@functools.partial(jax.jit, static_argnames=("level", "axis_name"))
def _tversky(scores, labels, where, fp_weight, fn_weight, smooth, *, level, axis_name):
    p, rest, y, counts = _probabilities(scores, labels, where)
    hit = jnp.where(counts & y, p, 0.0)
    wrong, missed = jnp.where(counts & ~y, p, 0.0), jnp.where(counts & y, rest, 0.0)
    hit, wrong, missed = _sums(level, axis_name, hit, wrong, missed)
    fp_weight, fn_weight, smooth = (numerics.scalar(x, p) for x in (fp_weight, fn_weight, smooth))
    top = hit + smooth
    return _joined(level, top, top + fp_weight * wrong + fn_weight * missed)


@jax.jit
def _hard_negatives(scores, labels, where, ratio):
    kept = jnp.ones(labels.shape, jnp.bool_) if where is None else where
    positive, negative = kept & (labels == 1), kept & (labels == 0)
    count = jnp.sum(positive, dtype=jnp.float32)
    most = jnp.floor(ratio * count).astype(jnp.int32)
    keys = jnp.where(negative & ~jnp.isnan(scores), -scores, jnp.inf)
    rank = jnp.argsort(jnp.argsort(keys, stable=True), stable=True).astype(jnp.int32)
    return positive | (negative & (rank < most))
