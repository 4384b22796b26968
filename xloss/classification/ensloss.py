# SPDX-License-Identifier: Apache-2.0
"""EnsLoss: an ensemble over convex calibrated losses inside one training run.

"EnsLoss: Stochastic Calibrated Loss Ensembles for Preventing Overfitting in Classification".
Reach for it when a binary classifier overfits and training is long; a fresh set of loss
derivatives that some convex, calibrated loss could have produced is drawn at every step.
"""

import functools

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from xloss import checks, numerics
from xloss.statistics import as_statistics, check_scores
from xloss.typing import Array, PRNGKey, Scores


def ensloss(
    scores: Scores,
    labels: ArrayLike | None = None,
    *,
    key: PRNGKey,
    lam: ArrayLike = 0.0,
    clip: ArrayLike = 1.0,
    tail_power: ArrayLike = 1.0,
    eps: ArrayLike = 1e-6,
    where: ArrayLike | None = None,
    axis_name: str | tuple[str, ...] | None = None,
) -> Array:
    """Terms g_i m_i whose mean has the gradient of a randomly drawn calibrated loss.

    THE VALUE IS NOT A LOSS: it can be negative and two steps cannot be compared. Only its
    gradient means something, which is injected: g does not depend on the parameters as far as
    differentiation is concerned. Report accuracy or cross-entropy instead.

    Definition, with margins m_i and draws from ``key``::

        g = ensloss_derivatives(m, standard normal draws, lam, clip, tail_power, eps)
        term_i = stop_gradient(g_i) m_i;   d mean / d f_i = g_i y_i / B in the binary case

    Args:
      scores: one score per example through ``xloss.binary_statistics(scores, labels)`` (the
        paper's method), or logits [..., K], or any LogitStatistics.
      labels: integer [...] in [0, K); None beside LogitStatistics.
      key: PRNG key, a fresh one for every step.
      lam: Box-Cox parameter of the draws, scalar; 0 is log-normal. See :func:`sample_lam`.
      clip: greatest slope |g| before eps is added, scalar > 0.
      tail_power: decay of |g| for margins above 1, scalar >= 0; 1 is the authors' code, any
        power above 1 makes the drawn losses bounded below.
      eps: least slope, scalar > 0.
      where: bool [...]; masked examples take no part in the sort and get exactly 0.
      axis_name: inside ``shard_map``, the mesh axis (or axes) over which the batch is spread:
        the sort is then over the global batch, for which margins and mask are gathered. Give
        every device the same key. Under ``jax.jit`` with sharded arrays it is global already.

    Returns:
      Terms [...], float32 (float64 for float64 scores); ``xloss.reduce`` them by the mean.

    Raises:
      TypeError: wrong dtypes, key missing or not a PRNG key.
      ValueError: shapes that do not fit, hyperparameters out of range.

    Numerics:
      The sort is stable, over the whole (global) batch: all leading axes together. A margin of
      +inf (K = 1) gives term and gradient 0.

    Example:
      >>> import jax, jax.numpy as jnp, xloss
      >>> stats = xloss.binary_statistics(jnp.array([0.5, -0.2]), jnp.array([1, 1]))
      >>> terms = ensloss(stats, key=jax.random.key(0))
      >>> terms.shape
      (2,)

    Evidence: authors' code.

    References:
      "EnsLoss: Stochastic Calibrated Loss Ensembles for Preventing Overfitting in
      Classification", ICML 2025, arXiv 2409.00908; authors' code statmlben/ensLoss.
      Departures: the paper and its code are binary only; with K > 2 the margin here is the
      log-odds of the true class, a generalisation of ours, and the injected gradient then also
      flows through the other logits. Ties are sorted stably and masks are respected, neither
      of which the authors' code does.
    """
    name = "ensloss"
    scores, labels, where = check_scores(name, scores, labels, where)
    if not (hasattr(key, "dtype") and _is_key(key)):
        raise TypeError(
            f"{name}: expected key to be a PRNG key such as jax.random.key(0), "
            f"got {checks.describe(key)}"
        )
    return _ensloss(
        scores, labels, key, _hyperparameters(name, lam, clip, tail_power, eps), where, axis_name
    )


# Its terms pair the sorted margins of the whole batch with sorted draws.
ensloss.couples_batch = True  # type: ignore[attr-defined]


def ensloss_derivatives(
    margins: ArrayLike,
    draws: ArrayLike,
    *,
    lam: ArrayLike = 0.0,
    clip: ArrayLike = 1.0,
    tail_power: ArrayLike = 1.0,
    eps: ArrayLike = 1e-6,
    where: ArrayLike | None = None,
) -> Array:
    """The deterministic core of EnsLoss: derivatives of a calibrated loss at a batch of margins.

    Definition::

        r_j = -min(inverse_box_cox(z_j, lam), clip), sorted ascending
        the example with the j-th smallest margin receives r_j      (phi convex)
        g_i = r / m_i^tail_power where m_i > 1                      (the tail)
        g_i = g_i - eps                                             (phi'(0) < 0)

    Args:
      margins: m [...], any float dtype; the batch is all of them.
      draws: z [...], standard normal, in any order; those at masked places are discarded.
      lam, clip, tail_power, eps: as in :func:`ensloss`.
      where: bool [...].

    Returns:
      Derivatives g [...] in [-clip - eps, -eps], non-decreasing in the margin; 0 where masked.
      No gradient flows through them.

    Raises:
      TypeError: wrong dtypes.
      ValueError: shapes differ, hyperparameters out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> g = ensloss_derivatives(jnp.array([0.3, -1.0]), jnp.array([-1.0, 0.5]), eps=0.25)
      >>> [round(x, 4) for x in g.tolist()]
      [-0.6179, -1.25]
    """
    name = "ensloss_derivatives"
    margins = checks.floating(name, "margins", margins)
    draws = checks.floating(name, "draws", draws)
    checks.same_shape(name, "draws", draws, margins.shape)
    where = checks.mask(name, where, margins.shape)
    hyperparameters = _hyperparameters(name, lam, clip, tail_power, eps)
    return _derivatives(numerics.promote(margins), draws, hyperparameters, where)


def inverse_box_cox(draws: ArrayLike, *, lam: ArrayLike) -> Array:
    """max(1 + lam z, 0)^(1 / lam), exp(z) at lam = 0: standard normals to positive slopes.

    Args:
      draws: z [...], any float dtype.
      lam: scalar.

    Returns:
      Values >= 0 [...]; where 1 + lam z <= 0 it is 0 for lam > 0 and +inf for lam < 0.

    Example:
      >>> import jax.numpy as jnp
      >>> inverse_box_cox(jnp.array([0.0, 4.0]), lam=0.5).tolist()
      [1.0, 9.0]
    """
    draws = numerics.promote(checks.floating("inverse_box_cox", "draws", draws))
    lam = checks.number("inverse_box_cox", "lam", lam)
    return _inverse_box_cox(draws, numerics.scalar(lam, draws))


def sample_lam(key: PRNGKey, *, low: ArrayLike = -1.0, high: ArrayLike = 1.0) -> Array:
    """Draws a Box-Cox parameter, uniform on [low, high): the authors' random-lam ablation.

    Redraw it every few epochs, not every step. The authors found no effect either way; their
    main runs keep lam = 0.

    Args:
      key: PRNG key.
      low: scalar.
      high: scalar.

    Returns:
      lam, a float32 scalar.
    """
    low, high = checks.number("sample_lam", "low", low), checks.number("sample_lam", "high", high)
    return jax.random.uniform(key, (), minval=low, maxval=high)


def _is_key(key) -> bool:
    typed = jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    return typed or (key.dtype == jnp.uint32 and key.ndim == 1)


def _hyperparameters(name, lam, clip, tail_power, eps):
    return (
        checks.number(name, "lam", lam),
        checks.number(name, "clip", clip, low=0.0, open_low=True),
        checks.number(name, "tail_power", tail_power, low=0.0),
        checks.number(name, "eps", eps, low=0.0, open_low=True),
    )


@functools.partial(jax.jit, static_argnames="axis_name")
def _ensloss(scores, labels, key, hyperparameters, where, axis_name):
    margins = as_statistics(scores, labels, where).log_odds
    batch, keep = jax.lax.stop_gradient(margins), where
    if axis_name is not None:
        # Every device sorts the whole batch (B floats) and keeps its own part.
        batch, keep = jax.tree.map(lambda x: jax.lax.all_gather(x, axis_name), (batch, keep))
    draws = jax.random.normal(key, batch.shape, batch.dtype)
    slopes = _derivatives(batch, draws, hyperparameters, keep)
    if axis_name is not None:
        slopes = slopes[jax.lax.axis_index(axis_name)]
    certain = jnp.isposinf(margins)
    terms = jax.lax.stop_gradient(slopes) * jnp.where(certain, jnp.zeros_like(margins), margins)
    return numerics.masked(terms, where)


@jax.jit
def _derivatives(margins, draws, hyperparameters, where):
    margins, draws = jax.lax.stop_gradient((margins, draws.astype(margins.dtype)))
    lam, clip, tail_power, eps = (numerics.scalar(h, margins) for h in hyperparameters)
    slopes = -jnp.minimum(_inverse_box_cox(draws, lam), clip).ravel()
    flat = margins.ravel()
    out = jnp.zeros(flat.shape, jnp.int32) if where is None else (~where.ravel()).astype(jnp.int32)
    place = jnp.arange(flat.size, dtype=jnp.int32)
    # Masked entries sort behind everything, in both lists, so that the valid ones pair up.
    _, slopes = jax.lax.sort((out, slopes), num_keys=2)
    _, _, order = jax.lax.sort((out, flat, place), num_keys=2, is_stable=True)
    placed = jnp.zeros_like(flat).at[order].set(slopes, unique_indices=True)
    placed = placed.reshape(margins.shape)
    tail = margins > 1
    decay = jnp.where(tail, jnp.where(tail, margins, 1.0) ** tail_power, 1.0)
    return numerics.masked(placed / decay - eps, where)


@jax.jit
def _inverse_box_cox(draws, lam):
    t = lam * draws
    inside = t > -1
    safe = jnp.where(inside & (t != 0), t, 1.0)
    # z log1p(t) / t is log(1 + lam z) / lam with its limit z at lam = 0, without a branch on lam.
    value = jnp.exp(jnp.where(t == 0, draws, draws * (jnp.log1p(safe) / safe)))
    return jnp.where(inside, value, jnp.where(lam > 0, 0.0, jnp.inf))
