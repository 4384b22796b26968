# SPDX-License-Identifier: Apache-2.0
"""How many examples a method needs, and from where on one is better than another.

Zheng et al.: naive Bayes approaches its own best error with O(log n) examples of n features,
logistic regression with O(n), so that there are two regimes. Reach for it to read both numbers off
measured curves of error against sample size.
"""

import numpy as np
from numpy.typing import ArrayLike

from xloss.consistency import host


def samples_to_reach(
    m: ArrayLike, errors: ArrayLike, *, asymptotic: ArrayLike, tol: float = 0.01
) -> np.ndarray:
    """The first sample size with an error within tol of the asymptotic one.

    Definition::

        min {m_i: errors_i < asymptotic + tol},  -1 if there is none

    Args:
      m: sample sizes [M], integers in increasing order.
      errors: [..., M], error at each of them. Of several curves average first: the first crossing
        of a noisy curve comes too early.
      asymptotic: [...], error that is approached: one number for all curves, or of their shape
        errors[..., 0]. One curve may have several.
      tol: > 0.

    Returns:
      int64 of the shape of asymptotic, or of the curves.

    Raises:
      TypeError: not real numbers.
      ValueError: shapes that do not fit, m that does not increase, NaN.

    Numerics:
      Nothing is interpolated: the answer is one of m.

    Example:
      >>> samples_to_reach([2, 4, 8], [0.5, 0.2, 0.1], asymptotic=[0.195, 0.0]).tolist()
      [4, -1]

    Evidence: authors' code.

    References:
      Zheng, Wu, Bao, Cao, Li, Zhu, "Revisiting Discriminative vs. Generative Classifiers: Theory
      and Implications", ICML 2023, arXiv 2302.02334; authors' code
      ML-GSAI/Revisiting-Dis-vs-Gen-Classifiers.
    """
    name = "samples_to_reach"
    sizes = _sizes(name, m)
    errors = _curve(name, "errors", errors, sizes)
    asymptotic = host.array(name, "asymptotic", asymptotic)
    tol = host.number(name, "tol", tol, low=0.0, open_low=True)
    curves = errors.shape[:-1]
    if curves and asymptotic.shape not in ((), curves):
        raise ValueError(
            f"{name}: expected asymptotic of shape () or {curves}, got {asymptotic.shape}"
        )
    return _first(sizes, errors < asymptotic[..., None] + tol)


def regime_crossing(m: ArrayLike, errors_a: ArrayLike, errors_b: ArrayLike) -> np.ndarray:
    """The sample size from which on curve a stays below curve b.

    Definition::

        min {m_i: errors_a_j < errors_b_j for all j >= i},  -1 if there is none

    Args:
      m: sample sizes [M], integers in increasing order.
      errors_a: [..., M], of the method that is better with many examples.
      errors_b: [..., M], of the other one.

    Returns:
      int64 [...].

    Raises:
      TypeError: not real numbers.
      ValueError: shapes that do not fit, m that does not increase, NaN.

    Numerics:
      Equal errors are no advantage. Nothing is interpolated.

    Example:
      >>> regime_crossing([2, 4, 8], [0.5, 0.2, 0.1], [0.3, 0.25, 0.24]).item()
      4

    Evidence: published formula, derived and checked.

    References:
      Zheng, Wu, Bao, Cao, Li, Zhu, "Revisiting Discriminative vs. Generative Classifiers: Theory
      and Implications", ICML 2023, arXiv 2302.02334.
    """
    name = "regime_crossing"
    sizes = _sizes(name, m)
    a = _curve(name, "errors_a", errors_a, sizes)
    b = _curve(name, "errors_b", errors_b, sizes)
    if a.shape != b.shape:
        raise ValueError(f"{name}: expected errors_b of shape {a.shape}, got {b.shape}")
    below = a < b
    stays = np.flip(np.logical_and.accumulate(np.flip(below, -1), axis=-1), -1)
    return _first(sizes, stays)


def _sizes(name: str, m: ArrayLike) -> np.ndarray:
    given = np.asarray(m)
    if not np.issubdtype(given.dtype, np.integer):
        raise TypeError(f"{name}: expected m of an integer dtype, got {given.dtype}")
    if given.ndim != 1 or given.size == 0 or np.any(np.diff(given) <= 0):
        raise ValueError(f"{name}: expected m [M] in increasing order, got {given.tolist()}")
    return given.astype(np.int64)


def _curve(name: str, argument: str, errors: ArrayLike, m: np.ndarray) -> np.ndarray:
    errors = host.array(name, argument, errors)
    if errors.shape[-1:] != m.shape:
        raise ValueError(
            f"{name}: expected {argument} of shape (..., {m.size}), got {errors.shape}"
        )
    return errors


def _first(m: np.ndarray, true: np.ndarray) -> np.ndarray:
    return np.where(true.any(-1), m[np.argmax(true, axis=-1)], -1)
