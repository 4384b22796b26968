# SPDX-License-Identifier: Apache-2.0
"""AnyLoss: train for a metric of the confusion matrix, made soft by a steep sigmoid.

Han, Moniz, Chawla, "AnyLoss: Transforming Classification Metrics into Loss Functions". Reach for it
where F1, balanced accuracy or G-mean is what counts and classes are uneven: no weights and no
threshold to tune. A confident mistake has hardly any gradient: start at a steepness near 10, or
from weights trained with cross-entropy.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from xloss import checks, numerics
from xloss.typing import Array


class SoftConfusionMatrix(NamedTuple):
    """Sums of soft decisions: [] of a set, [K] of one class against the rest each."""

    tn: Array
    fp: Array
    fn: Array
    tp: Array


def soft_confusion_matrix(
    probabilities: ArrayLike,
    labels: ArrayLike,
    *,
    steepness: ArrayLike = 73.0,
    where: ArrayLike | None = None,
    axis_name: str | tuple[str, ...] | None = None,
) -> SoftConfusionMatrix:
    """The confusion matrix of decisions that are sigmoids about 1/2.

    Definition, with A(p) = sigmoid(steepness (p - 1/2))::

        tp = sum of y A(p)          fn = sum of y (1 - A(p))
        fp = sum of (1 - y) A(p)    tn = sum of (1 - y) (1 - A(p))

    Args:
      probabilities: f [...] in [0, 1], any float dtype.
      labels: 0 or 1 [...].
      steepness: L, scalar > 0, traced.
      where: bool [...]; False takes an example out, as if it were not there.
      axis_name: inside ``shard_map``, the axes over which examples are spread.

    Returns:
      SoftConfusionMatrix of scalars, float32 (float64 for float64).

    Raises:
      TypeError: wrong dtypes.
      ValueError: shapes that do not fit, steepness <= 0.

    Numerics:
      As :func:`anyloss`. Labels out of range give NaN.

    Example:
      >>> import jax.numpy as jnp
      >>> found = soft_confusion_matrix(jnp.array([1.0, 0.9, 0.0]), jnp.array([1, 0, 1]))
      >>> [round(float(count), 4) for count in found]
      [0.0, 1.0, 1.0, 1.0]

    Evidence: authors' code.

    References:
      Han, Moniz, Chawla, "AnyLoss: Transforming Classification Metrics into Loss Functions",
      KDD 2024, arXiv 2405.14745; authors' code doheonhan/anyloss.
    """
    name = "soft_confusion_matrix"
    probabilities = checks.floating(name, "probabilities", probabilities)
    labels = checks.integer(name, "labels", labels, allow_bool=True)
    checks.same_shape(name, "labels", labels, probabilities.shape)
    where = checks.mask(name, where, labels.shape)
    steepness = checks.number(name, "steepness", steepness, low=0.0, open_low=True)
    return _of_probabilities(probabilities, labels, where, steepness, axis_name=axis_name)


def anyloss(
    scores: ArrayLike,
    labels: ArrayLike,
    *,
    metric: str | Callable[[SoftConfusionMatrix], Array] = "f_beta",
    beta: ArrayLike = 1.0,
    steepness: ArrayLike = 73.0,
    where: ArrayLike | None = None,
    axis_name: str | tuple[str, ...] | None = None,
) -> Array:
    """One minus a metric of the soft confusion matrix of the whole batch.

    Definition, with p = sigmoid(score) of one score an example, or softmax(logits) and each class
    against the rest, and the counts of :func:`soft_confusion_matrix`, n their sum::

        accuracy           (tp + tn) / n
        f_beta             (1 + b^2) tp / ((1 + b^2) tp + b^2 fn + fp)
        g_mean             sqrt(tp / (tp + fn) * tn / (tn + fp))
        balanced_accuracy  (tp / (tp + fn) + tn / (tn + fp)) / 2
        matthews           (tp tn - fp fn) / sqrt((tp + fp) (tp + fn) (tn + fp) (tn + fn))
        precision, recall, specificity, jaccard
        loss = 1 - metric, of logits its mean over classes

    Args:
      scores: f [...] of one score an example, or logits z [..., K], any float dtype.
      labels: 0 or 1 [...] beside f, integer [...] in [0, K) beside z.
      metric: one of the names above, or a function of a SoftConfusionMatrix (of scalars, or of [K]
        where scores are logits) to be maximised; static.
      beta: of f_beta, scalar > 0, traced; above 1 recall counts more.
      steepness: L, scalar > 0, traced. 73 is the authors' choice, the greatest whole number with
        A(1) < 1 in float64; about 10 trains from scratch where 73 may stay with the majority.
      where: bool [...]; False takes an example out, as if it were not there.
      axis_name: inside ``shard_map``, the axes over which examples are spread: the counts are of
        all of them.

    Returns:
      Scalar in [0, 1] (Matthews: [0, 2]), float32 (float64 for float64).

    Raises:
      TypeError: wrong dtypes, a metric that is neither name nor function.
      ValueError: shapes that do not fit, numbers out of range, an unknown metric, a function that
        does not return one number a class.

    Numerics:
      A and 1 - A come from a sigmoid each and their slopes from the product of the two, so that at
      steepness 73 nothing rounds to 1 in float32 and no slope to 0, unlike the authors' code. A
      class without examples has rate 1 (it costs nothing) in recall, specificity, g_mean and
      balanced_accuracy; its F_beta, precision, Jaccard index and Matthews correlation are 0.
      Labels out of range give NaN.

    Example:
      >>> import jax.numpy as jnp
      >>> scores, labels = jnp.array([90.0, 90.0, -90.0]), jnp.array([1, 0, 0])
      >>> round(float(anyloss(scores, labels)), 4)  # 1 - F1
      0.3333
      >>> gain = lambda m: (m.tp - 2.0 * m.fp) / (m.tp + m.fn)  # a metric of one's own
      >>> round(float(anyloss(scores, labels, metric=gain)), 4)
      2.0

    Evidence: authors' code.

    References:
      Han, Moniz, Chawla, "AnyLoss: Transforming Classification Metrics into Loss Functions",
      KDD 2024, arXiv 2405.14745; authors' code doheonhan/anyloss. Departures: n is that of the
      batch (their Keras losses divide by the size of the training set); p is a probability (their
      MLP puts raw outputs in); several classes are ours.
    """
    name = "anyloss"
    scores = checks.floating(name, "scores", scores)
    labels = checks.integer(name, "labels", labels, allow_bool=True)
    logits = labels.shape == scores.shape[:-1] and 0 not in scores.shape[-1:]
    if labels.shape != scores.shape and not logits:
        raise ValueError(
            f"{name}: expected labels of shape {scores.shape} (one score an example) or "
            f"{scores.shape[:-1]} (logits), got {labels.shape}"
        )
    where = checks.mask(name, where, labels.shape)
    if isinstance(metric, str):
        checks.choice(name, "metric", metric, tuple(METRICS))
    elif not callable(metric):
        raise TypeError(
            f"{name}: expected metric a name or a function, got {checks.describe(metric)}"
        )
    beta = checks.number(name, "beta", beta, low=0.0, open_low=True)
    steepness = checks.number(name, "steepness", steepness, low=0.0, open_low=True)
    return _anyloss(
        scores, labels, where, beta, steepness, metric=metric, axis_name=axis_name
    )  # fmt: skip


def _ratio(top, bottom, empty):
    """top / bottom, and ``empty`` where bottom is 0, with a gradient of 0 there."""
    nothing = bottom == 0
    return jnp.where(nothing, empty, top / jnp.where(nothing, 1.0, bottom))


def _f_beta(m, beta):
    weight = jnp.square(beta)
    hits = (1.0 + weight) * m.tp
    return _ratio(hits, hits + weight * m.fn + m.fp, 0.0)


def _recall(m, beta):
    return _ratio(m.tp, m.tp + m.fn, 1.0)


def _specificity(m, beta):
    return _ratio(m.tn, m.tn + m.fp, 1.0)


def _g_mean(m, beta):
    # Roots one by one: the product of two small rates may underflow.
    return _root(_recall(m, beta)) * _root(_specificity(m, beta))


def _matthews(m, beta):
    sizes = (m.tp + m.fp, m.tp + m.fn, m.tn + m.fp, m.tn + m.fn)
    # Shares of the roots: products of four counts overflow.
    a, b, c, d = map(_root, sizes)
    right = _ratio(m.tp, a * b, 0.0) * _ratio(m.tn, c * d, 0.0)
    wrong = _ratio(m.fp, a * c, 0.0) * _ratio(m.fn, b * d, 0.0)
    return right - wrong


def _root(x):
    """sqrt with a gradient of 0 at 0."""
    return jnp.where(x > 0, jnp.sqrt(jnp.where(x > 0, x, 1.0)), 0.0)


#: What :func:`anyloss` knows by name.
METRICS = {
    "accuracy": lambda m, beta: _ratio(m.tp + m.tn, m.tp + m.tn + m.fp + m.fn, 1.0),
    "f_beta": _f_beta,
    "g_mean": _g_mean,
    "balanced_accuracy": lambda m, beta: 0.5 * (_recall(m, beta) + _specificity(m, beta)),
    "matthews": _matthews,
    "precision": lambda m, beta: _ratio(m.tp, m.tp + m.fp, 0.0),
    "recall": _recall,
    "specificity": _specificity,
    "jaccard": lambda m, beta: _ratio(m.tp, m.tp + m.fn + m.fp, 0.0),
}


@jax.custom_jvp
def _sigmoid(u):
    """sigmoid whose slope is s(u) s(-u), which does not vanish where s rounds to 1."""
    return jax.nn.sigmoid(u)


@_sigmoid.defjvp
def _sigmoid_jvp(primals, tangents):
    (u,), (u_dot,) = primals, tangents
    value = _sigmoid(u)
    return value, value * _sigmoid(-u) * u_dot


def _counts(distance, y, legal, where, axis_name, over):
    """The soft confusion matrix of L (p - 1/2), summed over the axes of examples."""
    counts = jnp.ones(y.shape, jnp.bool_) if where is None else where
    yes, no = _sigmoid(distance), _sigmoid(-distance)
    yes = jnp.where(legal, yes, jnp.nan)
    terms = ((~y, no), (~y, yes), (y, no), (y, yes))
    sums = [jnp.sum(jnp.where(counts & kind, side, 0.0), axis=over) for kind, side in terms]
    if axis_name is not None:
        sums = jax.lax.psum(sums, axis_name)
    return SoftConfusionMatrix(*sums)


@functools.partial(jax.jit, static_argnames="axis_name")
def _of_probabilities(probabilities, labels, where, steepness, *, axis_name):
    p = numerics.promote(probabilities)
    p = p if where is None else jnp.where(where, p, 0.5)
    legal = (labels == 0) | (labels == 1)
    distance = numerics.scalar(steepness, p) * (p - 0.5)
    return _counts(distance, labels == 1, legal, where, axis_name, tuple(range(p.ndim)))


@functools.partial(jax.jit, static_argnames=("metric", "axis_name"))
def _anyloss(scores, labels, where, beta, steepness, *, metric, axis_name):
    z = numerics.promote(scores)
    beta, steepness = numerics.scalar(beta, z), numerics.scalar(steepness, z)
    over = tuple(range(labels.ndim))
    if z.shape == labels.shape:
        z = numerics.masked(z, where)
        legal, y = (labels == 0) | (labels == 1), labels == 1
        # p - 1/2 from both sides: near 1 the slope of p alone rounds to 0.
        half = 0.5 * (_sigmoid(z) - _sigmoid(-z))
    else:
        where = None if where is None else where[..., None]
        z = z if where is None else jnp.where(where, z, 0.0)
        legal = ((labels >= 0) & (labels < z.shape[-1]))[..., None]
        y = numerics.one_hot_last(labels, z.shape)
        half = jax.nn.softmax(z, axis=-1) - 0.5
    matrix = _counts(steepness * half, y, legal, where, axis_name, over)
    if isinstance(metric, str):
        return jnp.mean(1.0 - METRICS[metric](matrix, beta))
    found = metric(matrix)
    if getattr(found, "shape", None) != matrix.tp.shape:
        raise ValueError(
            f"anyloss: expected metric to return shape {matrix.tp.shape}, got "
            f"{checks.describe(found)}"
        )
    return jnp.mean(1.0 - found)
