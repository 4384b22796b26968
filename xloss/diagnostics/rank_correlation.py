# SPDX-License-Identifier: Apache-2.0
"""Does a measure order trained models as their generalization gap does, and in every environment?

Kendall's tau and its granulated form (Jiang et al., "Fantastic Generalization Measures and Where to
Find Them"), and the sign error in the worst environment (Dziugaite et al.). Reach for the latter: a
measure that is right on average may be wrong whenever one given hyperparameter is changed. None of
it turns a measure into a bound: see the warning of ``xloss.diagnostics.generalization``.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from xloss import checks, numerics
from xloss.diagnostics import layer_norms
from xloss.typing import Array


def kendall_tau(measure: ArrayLike, gap: ArrayLike) -> Array:
    """Kendall's tau-b: how much more often two numbers order two models alike than unlike.

    Definition, over pairs of n models, with s and t the signs of the differences in measure and
    gap::

        tau = sum s t / sqrt(sum s^2  sum t^2)

    Args:
      measure: [n], n >= 2, any float dtype.
      gap: [n], such as test error minus training error.

    Returns:
      Scalar in [-1, 1], float32 (float64 where one of them is); NaN where one of them is constant.

    Raises:
      TypeError: wrong dtypes.
      ValueError: shapes that are not [n] with one n >= 2.

    Numerics:
      Values are only compared: infinite ones are greatest or least, and ties of each other; NaN
      gives NaN. Pairs are counted exactly; [n, n] of memory.

    Example:
      >>> import jax.numpy as jnp
      >>> round(float(kendall_tau(jnp.array([1.0, 2.0, 3.0]), jnp.array([0.1, 0.3, 0.2]))), 4)
      0.3333

    Evidence: authors' code.

    References:
      Jiang, Neyshabur, Mobahi, Krishnan, Bengio, "Fantastic Generalization Measures and Where to
      Find Them", ICLR 2020, arXiv 1912.02178; ties as in ``scipy.stats.kendalltau``.
    """
    return _tau(*_checked("kendall_tau", measure, gap))


def granulated_kendall(
    measure: ArrayLike, gap: ArrayLike, hyperparams: ArrayLike, *, average: bool = True
) -> Array:
    """Kendall's tau among models that differ in one hyperparameter, averaged.

    A measure that only counts parameters may have a high tau over all models because width moves
    both; here it has to be right for every hyperparameter by itself.

    Definition, with s and t the signs of the differences in measure and gap: for each
    hyperparameter i and each setting of the others, the mean of s t over the pairs of models that
    differ in i alone; psi_i the mean over the settings; the mean over i.

    Args:
      measure: [n], n >= 2, any float dtype.
      gap: [n].
      hyperparams: [n, H], integer or float, compared for equality; H >= 1. Repeated runs (seeds)
        have equal rows and are not compared with each other.
      average: False returns psi_i; static.

    Returns:
      Scalar in [-1, 1], or [H]; float32 (float64 where measure or gap is). Settings with one value
      of i, and hyperparameters that never vary alone (NaN in [H]), take no part; NaN if none does.

    Raises:
      TypeError: wrong dtypes.
      ValueError: shapes that do not fit.

    Numerics:
      A tie counts 0 and stays in the denominator. Infinite values are compared as in
      :func:`kendall_tau`, NaN gives NaN. [n, n, H] of memory.

    Example:
      >>> import jax.numpy as jnp
      >>> width_and_depth = jnp.array([[1, 1], [2, 1], [1, 2], [2, 2]])
      >>> measure, gap = jnp.array([1.0, 2.0, 3.0, 4.0]), jnp.array([1.0, 0.0, 3.0, 2.0])
      >>> granulated_kendall(measure, gap, width_and_depth, average=False).tolist()
      [-1.0, 1.0]

    Evidence: published formula, derived and checked.

    References:
      Jiang, Neyshabur, Mobahi, Krishnan, Bengio, "Fantastic Generalization Measures and Where to
      Find Them", ICLR 2020, arXiv 1912.02178, section 2.2.2.
    """
    name = "granulated_kendall"
    measure, gap = _checked(name, measure, gap)
    settings = _settings(name, hyperparams, measure.shape[0])
    psi = _psi(measure, gap, settings)
    return jnp.nanmean(psi) if average else psi


def sign_error(measure: ArrayLike, gap: ArrayLike, environments: ArrayLike | None = None) -> Array:
    """The share of pairs of models that a measure orders wrongly; in the worst environment.

    Definition, with s and t the signs of the differences in measure and gap: the mean of
    (1 - s t) / 2 over pairs; with environments, the greatest such mean over the pairs of one.

    Args:
      measure: [n], n >= 2, any float dtype.
      gap: [n].
      environments: None; or integer [n], the environment of each model (pairs of two environments
        are not looked at); or integer [n, n], the environment of each pair, symmetric, negative
        for none, such as :func:`single_change_environments` gives.

    Returns:
      Scalar in [0, 1], float32 (float64 where measure or gap is): 0 is right, 1 always wrong, 1/2
      that of a coin and of a tie. NaN if no environment has a pair.

    Raises:
      TypeError: wrong dtypes.
      ValueError: shapes that do not fit.

    Numerics:
      Infinite values are compared as in :func:`kendall_tau`, NaN gives NaN. [n, n] of memory.

    Example:
      >>> import jax.numpy as jnp
      >>> measure, gap = jnp.array([1.0, 2.0, 5.0, 4.0]), jnp.array([0.1, 0.2, 0.3, 0.4])
      >>> round(float(sign_error(measure, gap)), 4)
      0.1667
      >>> float(sign_error(measure, gap, jnp.array([0, 0, 1, 1])))
      1.0

    Evidence: authors' code.

    References:
      Dziugaite, Drouin, Neal, Rajkumar, Caballero, Wang, Mitliagkas, Roy, "In Search of Robust
      Measures of Generalization", NeurIPS 2020, arXiv 2010.11924; code
      nitarshan/robust-generalization-measures, which also weighs pairs by how far their gaps are
      beyond the noise of the test set (here all pairs count alike: leave those out).
    """
    name = "sign_error"
    measure, gap = _checked(name, measure, gap)
    n = measure.shape[0]
    if environments is None:
        ids = jnp.zeros((n, n), jnp.int32)
    else:
        ids = jnp.asarray(environments)
        if not jnp.issubdtype(ids.dtype, jnp.integer):
            raise TypeError(
                f"{name}: expected environments of an integer dtype, got {checks.describe(ids)}"
            )
        ids = ids.astype(jnp.int32)
        if ids.shape == (n,):
            same = ids[:, None] == ids[None, :]
            first = jnp.argmax(same, axis=1).astype(jnp.int32)
            ids = jnp.where(same, first[:, None], -1)
        elif ids.shape != (n, n):
            raise ValueError(
                f"{name}: expected environments of shape ({n},) or ({n}, {n}), got {ids.shape}"
            )
    return _worst(measure, gap, ids)


def single_change_environments(hyperparams: ArrayLike) -> Array:
    """The environments of pairs of models that differ in exactly one hyperparameter.

    Definition: two pairs are in one environment if they compare the same two settings; pairs whose
    settings are equal, or differ in more than one hyperparameter, are in none.

    Args:
      hyperparams: [n, H], integer or float, compared for equality; n >= 2, H >= 1.

    Returns:
      int32 [n, n], symmetric, for :func:`sign_error`; -1 for a pair in no environment.

    Raises:
      TypeError: wrong dtype.
      ValueError: another shape.

    Numerics:
      A model with NaN among its hyperparameters is in no pair. n <= 46340; [n, n, H] of memory.

    Example:
      >>> import jax.numpy as jnp
      >>> single_change_environments(jnp.array([[1, 1], [2, 1], [2, 2]])).tolist()
      [[-1, 1, -1], [1, -1, 5], [-1, 5, -1]]

    Evidence: published formula, derived and checked.

    References:
      Dziugaite, Drouin, Neal, Rajkumar, Caballero, Wang, Mitliagkas, Roy, "In Search of Robust
      Measures of Generalization", NeurIPS 2020, arXiv 2010.11924.
    """
    return _single_changes(_settings("single_change_environments", hyperparams))


def _checked(function: str, measure: ArrayLike, gap: ArrayLike) -> tuple[Array, Array]:
    measure = numerics.promote(checks.floating(function, "measure", measure))
    gap = numerics.promote(checks.floating(function, "gap", gap))
    if measure.ndim != 1 or measure.size < 2:
        raise ValueError(f"{function}: expected measure [n] with n >= 2, got {measure.shape}")
    checks.same_shape(function, "gap", gap, measure.shape)
    return measure, gap


def _settings(function: str, hyperparams: ArrayLike, n: int | None = None) -> Array:
    array = jnp.asarray(hyperparams)
    real = jnp.issubdtype(array.dtype, jnp.floating) or jnp.issubdtype(array.dtype, jnp.integer)
    if not real and array.dtype != jnp.bool_:
        raise TypeError(
            f"{function}: expected hyperparams of an integer or float dtype, "
            f"got {checks.describe(array)}"
        )
    rows = "n" if n is None else n
    fits = array.ndim == 2 and array.shape[0] >= 2 and n in (None, array.shape[0])
    if not fits or array.shape[1] < 1:
        raise ValueError(
            f"{function}: expected hyperparams of shape ({rows}, H), n >= 2, H >= 1, "
            f"got {array.shape}"
        )
    return array


def _signs(x: Array) -> Array:
    """int32 [n, n]: sign of x_i - x_j by comparison, so that inf - inf is a tie."""
    left, right = x[:, None], x[None, :]
    return (left > right).astype(jnp.int32) - (left < right).astype(jnp.int32)


def _agreement(measure: Array, gap: Array) -> tuple[Array, Array]:
    """(s t int32 [n, n], NaN if one of the values is, else 0)."""
    dtype = layer_norms.widest((measure, gap))
    lost = jnp.any(jnp.isnan(measure)) | jnp.any(jnp.isnan(gap))
    return _signs(measure) * _signs(gap), jnp.where(lost, jnp.nan, 0.0).astype(dtype)


@jax.jit
def _tau(measure, gap):
    product, nan = _agreement(measure, gap)
    decided = [jnp.sum(jnp.abs(_signs(x))).astype(nan.dtype) for x in (measure, gap)]
    tau = jnp.sum(product).astype(nan.dtype) / jnp.sqrt(decided[0] * decided[1])
    return jnp.clip(tau, -1.0, 1.0) + nan


def _means(values: Array, ids: Array, size: int, dtype: jnp.dtype) -> Array:
    """Mean of values over each id in [0, size); NaN for an id that does not occur."""
    ids = jnp.where(ids < 0, size, ids)  # segment_sum wraps negative ids and drops great ones

    def total(x: Array) -> Array:
        return jax.ops.segment_sum(jnp.ravel(x), jnp.ravel(ids), size).astype(dtype)

    return total(values) / total(jnp.ones_like(values))


@jax.jit
def _psi(measure, gap, settings):
    n = measure.shape[0]
    product, nan = _agreement(measure, gap)
    equal = settings[:, None, :] == settings[None, :, :]
    differing = jnp.sum(~equal, axis=-1, dtype=jnp.int32)

    def of(same):
        alone = (differing == 1) & ~same
        # The first model whose other hyperparameters are the same names the setting.
        alike = differing == (~same).astype(jnp.int32)
        first = jnp.argmax(alike, axis=1).astype(jnp.int32)
        ids = jnp.where(alone & _comparable(differing), first[:, None], -1)
        return jnp.nanmean(_means(product, ids, n, nan.dtype))

    return jax.lax.map(of, jnp.moveaxis(equal, -1, 0)) + nan


@jax.jit
def _worst(measure, gap, ids):
    n = measure.shape[0]
    product, nan = _agreement(measure, gap)
    # A model is no pair with itself, whatever the caller's diagonal says.
    ids = jnp.where(jnp.eye(n, dtype=jnp.bool_), -1, ids)
    seen, inverse = jnp.unique(ids, return_inverse=True, size=n * n, fill_value=-1)
    ids = jnp.where(ids < 0, -1, inverse.reshape(ids.shape).astype(jnp.int32))
    # Counts of wrong pairs and not 1 minus the right ones, so that none is exactly 0.
    wrong = _means(1 - product, ids, seen.shape[0], nan.dtype) / 2
    return jnp.minimum(jnp.nanmax(wrong), 1.0) + nan


@jax.jit
def _single_changes(settings):
    n = settings.shape[0]
    differing = jnp.sum(settings[:, None, :] != settings[None, :, :], axis=-1, dtype=jnp.int32)
    # The first model with the same hyperparameters names the setting.
    first = jnp.argmax(differing == 0, axis=1).astype(jnp.int32)
    low = jnp.minimum(first[:, None], first[None, :])
    high = jnp.maximum(first[:, None], first[None, :])
    return jnp.where((differing == 1) & _comparable(differing), low * n + high, -1)


def _comparable(differing: Array) -> Array:
    """bool [n, n]: neither model has a NaN among its hyperparameters."""
    whole = jnp.diagonal(differing) == 0
    return whole[:, None] & whole[None, :]
