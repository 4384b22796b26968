# SPDX-License-Identifier: Apache-2.0
"""What an output layer tells a loss: a few numbers per example instead of K logits.

Most classification losses are functions of the log-odds of the true class and of one or two
more numbers. They are written once, on :class:`LogitStatistics`; where the numbers come from
(plain logits, one binary score, a streamed or sharded head) is the provider's business.

Reach for :func:`logit_statistics` to evaluate several losses on one pass over the logits, for
:func:`binary_statistics` when the model gives one score per example, and for
:func:`as_statistics` when writing a loss.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from xloss import checks, numerics
from xloss.typing import Array, Scores

#: The fields that a provider may know, in the order of the pytree's leaves.
FIELDS = ("log_odds", "lead", "centred", "variance", "target", "class_count")


@jax.tree_util.register_pytree_with_keys_class
@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class LogitStatistics:
    """Statistics of logits z [..., K] at the true class y, each [...] and float32 (or float64).

    With z already divided by ``temperature``:

    Attributes:
      log_odds: m = z_y - logsumexp over k != y of z_k; p_y = sigmoid(m). Taken from the other
        classes, so that -log p = softplus(-m) keeps its digits when p is close to 1, and the
        same for any constant added to all logits.
      lead: z_y - max over k != y of z_k; > 0 iff the prediction is correct.
      centred: z_y - mean over k of z_k.
      variance: of z over the classes (biased).
      target: z_y, the only field that depends on the common offset.
      class_count: how many classes take part (logits of -inf are classes that are masked out;
        mean, variance and this count leave them out).
      temperature: scalar, the temperature at which the statistics were taken.
      num_classes: K, static.
      provider: the name of the function that made them, static.

    A field that the provider does not know is None inside and raises a ValueError when read.
    It is a pytree: jit, vmap, grad, scan and sharding treat it like a dict of arrays, of which
    temperature is a scalar: an axis or a sharding of the batch is for the other leaves.
    """

    log_odds: Any = None
    lead: Any = None
    centred: Any = None
    variance: Any = None
    target: Any = None
    class_count: Any = None
    temperature: Any = 1.0
    num_classes: int = dataclasses.field(kw_only=True)
    provider: str = dataclasses.field(kw_only=True)

    def __getattribute__(self, name: str) -> Any:
        value = object.__getattribute__(self, name)
        if value is None and name in FIELDS:
            raise ValueError(
                f"LogitStatistics: expected the provider to know {name}, got statistics from "
                f"{self.provider}, which gives {', '.join(self.known)}"
            )
        return value

    @property
    def known(self) -> tuple[str, ...]:
        """The names of the fields that this provider filled."""
        fields = vars(self)
        return tuple(name for name in FIELDS if fields[name] is not None)

    @property
    def shape(self) -> tuple[int, ...]:
        """The batch shape [...], that of every known field."""
        return jnp.shape(getattr(self, self.known[0]))

    @property
    def dtype(self) -> jnp.dtype:
        """The dtype of the fields, in which a loss computes and returns."""
        return getattr(self, self.known[0]).dtype

    @property
    def log_prob(self) -> Array:
        """log p_y <= 0."""
        return -numerics.nats(self.log_odds)

    @property
    def log_partition(self) -> Array:
        """log sum_k exp z_k; depends on the common offset."""
        return self.target + numerics.nats(self.log_odds)

    @property
    def rest(self) -> Array:
        """logsumexp over the classes other than y."""
        return self.target - self.log_odds

    @property
    def runner_up(self) -> Array:
        """The greatest logit among the classes other than y."""
        return self.target - self.lead

    @property
    def mean(self) -> Array:
        """Mean of the logits over the classes."""
        return self.target - self.centred

    def __repr__(self) -> str:
        known = ", ".join(f"{name}={checks.describe(vars(self)[name])}" for name in self.known)
        return f"LogitStatistics({known}, num_classes={self.num_classes}, provider={self.provider})"

    def tree_flatten_with_keys(self):
        """Leaves are the fields and the temperature; the class count and the name are static."""
        values, names = vars(self), (*FIELDS, "temperature")
        leaves = [(jax.tree_util.GetAttrKey(name), values[name]) for name in names]
        return leaves, (self.num_classes, self.provider)

    @classmethod
    def tree_unflatten(cls, static, leaves):
        """Rebuilds without any check: transformations pass placeholders through here."""
        return cls(*leaves, num_classes=static[0], provider=static[1])


def logit_statistics(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    where: ArrayLike | None = None,
    temperature: ArrayLike = 1.0,
) -> LogitStatistics:
    """All statistics of plain logits, by plain autodiff (any order of derivative).

    Only the fields that are used cost anything under jit. ``variance`` takes two passes over
    the logits, because a single pass cancels when one logit is an outlier.

    Args:
      logits: [..., K], any float dtype; -inf marks a class that is masked out.
      labels: integer [...] in [0, K).
      where: bool [...]; masked examples are replaced before any arithmetic, so NaN there is
        harmless. Their statistics are finite and meaningless: mask the loss too.
      temperature: scalar > 0; the statistics are those of logits / temperature.

    Returns:
      LogitStatistics [...] with every field.

    Raises:
      TypeError: wrong dtypes, or logits and labels of the same shape (see binary_statistics).
      ValueError: shapes that do not fit, temperature <= 0.

    Numerics:
      Labels outside [0, K), negative ones too, give NaN. K = 1 gives log_odds = lead = +inf
      with gradient 0. The relative error of -log p is about (2 + m / 3) eps.

    Example:
      >>> import jax.numpy as jnp
      >>> stats = logit_statistics(jnp.array([[2.0, 0.0, 0.0]]), jnp.array([0]))
      >>> float(stats.lead[0]), bool(jnp.allclose(stats.log_odds, 2 - jnp.log(2.0)))
      (2.0, True)
    """
    logits, labels, where = _check_logits("logit_statistics", logits, labels, where)
    temperature = checks.number(
        "logit_statistics", "temperature", temperature, low=0.0, open_low=True
    )
    return _at_temperature(logits, labels, where, temperature)


def binary_statistics(
    scores: ArrayLike, labels: ArrayLike, *, where: ArrayLike | None = None
) -> LogitStatistics:
    """Statistics of one score per example: the two-class logits (0, f), label 1 for f.

    m = (2 y - 1) f, so that a surrogate of the margin and a loss of the log-odds are the same
    thing.

    Args:
      scores: f [...], any float dtype.
      labels: 0 or 1 [...], integer or bool. Other values give NaN.
      where: bool [...], as in :func:`logit_statistics`.

    Returns:
      LogitStatistics [...] with every field and num_classes = 2.

    Raises:
      TypeError: wrong dtypes.
      ValueError: shapes differ.

    Example:
      >>> import jax.numpy as jnp
      >>> binary_statistics(jnp.array([1.5, 1.5]), jnp.array([1, 0])).log_odds.tolist()
      [1.5, -1.5]
    """
    scores = checks.floating("binary_statistics", "scores", scores)
    labels = checks.integer("binary_statistics", "labels", labels, allow_bool=True)
    checks.same_shape("binary_statistics", "labels", labels, scores.shape)
    return _of_binary(scores, labels, checks.mask("binary_statistics", where, scores.shape))


def as_statistics(
    scores: Scores, labels: ArrayLike | None = None, where: ArrayLike | None = None
) -> LogitStatistics:
    """The first line of a loss body: statistics from logits, or the statistics as they are.

    With logits the mask is applied before any arithmetic. Statistics given by the caller have
    their masked entries replaced by 0, which protects the loss's own arithmetic; it cannot
    repair a NaN gradient inside the provider, so give the provider the same mask.

    Args:
      scores: logits [..., K] or LogitStatistics.
      labels: integer [...]; None with statistics.
      where: bool [...] or None.

    Returns:
      LogitStatistics [...].

    Raises:
      TypeError, ValueError: as a loss raises them.
    """
    scores, labels, where = check_scores("as_statistics", scores, labels, where)
    if not isinstance(scores, LogitStatistics):
        return _of_logits(scores, labels, where)
    if where is None:
        return scores
    values = vars(scores)
    fields = {
        name: None if values[name] is None else numerics.masked(values[name], where)
        for name in FIELDS
    }
    return LogitStatistics(
        **fields,
        temperature=scores.temperature,
        num_classes=scores.num_classes,
        provider=scores.provider,
    )


def check_scores(
    function: str,
    scores: Scores,
    labels: ArrayLike | None,
    where: ArrayLike | None,
    *,
    needs_logits: bool = False,
) -> tuple[Any, Any, Any]:
    """The static checks that every loss of scores and labels shares.

    Args:
      function: the loss's name, for messages.
      scores: logits [..., K] or LogitStatistics.
      labels: integer [...], or None with statistics.
      where: bool [...] or None.
      needs_logits: whether the loss cannot do with statistics.

    Returns:
      (scores, labels, where) as arrays.

    Raises:
      TypeError: dtypes; labels beside statistics; statistics where logits are needed.
      ValueError: shapes that do not fit.
    """
    if not isinstance(scores, LogitStatistics):
        return _check_logits(function, scores, labels, where)
    if needs_logits:
        raise TypeError(
            f"{function}: expected logits [..., K], got LogitStatistics from {scores.provider} "
            "(this loss reads every logit)"
        )
    if labels is not None:
        raise TypeError(
            f"{function}: expected labels=None beside LogitStatistics (they are taken at their "
            f"labels already), got {checks.describe(labels)}"
        )
    return scores, None, checks.mask(function, where, scores.shape)


def _check_logits(function, logits, labels, where):
    logits = checks.floating(function, "scores", logits)
    labels = checks.integer(function, "labels", labels)
    if logits.shape == labels.shape:
        raise TypeError(
            f"{function}: expected logits [..., K] with labels [...], got the same shape "
            f"{logits.shape} for both; for one score per example pass "
            "xloss.binary_statistics(scores, labels) instead"
        )
    if logits.ndim == 0 or logits.shape[-1] == 0:
        raise ValueError(
            f"{function}: expected logits [..., K] with K >= 1, got shape {logits.shape}"
        )
    if labels.shape != logits.shape[:-1]:
        raise ValueError(
            f"{function}: expected labels of shape {logits.shape[:-1]} for logits of shape "
            f"{logits.shape}, got {labels.shape}"
        )
    return logits, labels, checks.mask(function, where, labels.shape)


@jax.jit
def _at_temperature(logits, labels, where, temperature):
    logits = numerics.promote(logits)
    temperature = numerics.scalar(temperature, logits)
    scaled = numerics.tempered(logits, temperature)
    return dataclasses.replace(_of_logits(scaled, labels, where), temperature=temperature)


def _of_logits(logits: Array, labels: Array, where: Array | None) -> LogitStatistics:
    if where is not None:
        logits = jnp.where(where[..., None], logits, jnp.zeros_like(logits))
        labels = numerics.masked(labels, where)
    z = numerics.promote(logits)
    num_classes = z.shape[-1]
    target = numerics.take_last(z, labels)
    others = numerics.others_last(z, labels)

    # The shift only has to be near the maximum, so no gradient flows through it; with nothing
    # finite to be near (K = 1, all others masked) it is 0.
    shift = jax.lax.stop_gradient(jnp.max(others, axis=-1))
    shift = jnp.where(jnp.isfinite(shift), shift, jnp.zeros_like(shift))
    total = jnp.sum(jnp.exp(others - shift[..., None]), axis=-1)
    alone = total == 0
    log_total = jnp.log(jnp.where(alone, jnp.ones_like(total), total))
    certain = jnp.where(jnp.isfinite(target), jnp.inf, jnp.nan).astype(z.dtype)
    log_odds = jnp.where(alone, certain, (target - shift) - log_total)

    runner_up = numerics.max_of_others_last(z, labels)
    lead = jnp.where(jnp.isneginf(runner_up), certain, target - runner_up)

    total_finite, class_count = numerics.sum_and_count_finite_last(z)
    mean = total_finite / class_count
    return LogitStatistics(
        log_odds=log_odds,
        lead=lead,
        centred=target - mean,
        variance=numerics.squared_deviations_last(z, mean) / class_count,
        target=target,
        class_count=class_count,
        temperature=jnp.ones((), z.dtype),
        num_classes=num_classes,
        provider="logit_statistics",
    )


@jax.jit
def _of_binary(scores, labels, where):
    f = numerics.promote(numerics.masked(scores, where))
    labels = numerics.masked(labels, where)
    positive, unknown = labels == 1, (labels != 0) & (labels != 1)
    log_odds = jnp.where(unknown, jnp.nan, jnp.where(positive, f, -f))
    target = jnp.where(unknown, jnp.nan, jnp.where(positive, f, jnp.zeros_like(f)))
    gone = jnp.isneginf(f)  # class 1 is masked out: the other logit, 0, is alone
    mean = jnp.where(gone, jnp.zeros_like(f), f) / 2
    return LogitStatistics(
        log_odds=log_odds,
        lead=log_odds,
        centred=target - mean,
        variance=jnp.square(mean),
        target=target,
        class_count=jnp.where(gone, jnp.ones_like(f), jnp.full_like(f, 2)),
        temperature=jnp.ones((), f.dtype),
        num_classes=2,
        provider="binary_statistics",
    )
