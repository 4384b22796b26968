# SPDX-License-Identifier: Apache-2.0
"""Classes that are Gaussians with one diagonal covariance: where the best error is known.

The simulation of Zheng et al. (Revisiting Discriminative vs. Generative Classifiers, arXiv
2302.02334, "easy" mode): class k has mean m_k in every feature, m = (-1, 1, 2, 4, ...); half of the
features have variance n and tell little, the rest have variance 1.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np


def class_means(num_classes: int) -> np.ndarray:
    """m_k [K], the mean of every feature of a class: -1, then 2^(k-1)."""
    return np.array([-1.0, *(2.0 ** np.arange(num_classes - 1))])


def variances(n: int) -> np.ndarray:
    """[n]: n in the first n // 2 features, 1 in the rest."""
    return np.where(np.arange(n) < n // 2, float(n), 1.0)


def bayes_error(n: int) -> float:
    """The least error of two classes, Phi(-sqrt(sum_j 1 / v_j)).

    The authors' table of it has an index that is off (0.0666 in place of 0.1103 at n = 2).
    """
    return _tail(math.sqrt(np.sum(1.0 / variances(n))))


def linear_error(n: int, kernel: np.ndarray, bias: np.ndarray) -> float:
    """The error of a linear rule on two classes, exactly: no test set, no noise of one.

    Args:
      n: features.
      kernel: [n, 2].
      bias: [2].
    """
    normal = np.asarray(kernel[:, 1], np.float64) - np.asarray(kernel[:, 0], np.float64)
    offset = float(bias[1]) - float(bias[0])
    spread = math.sqrt(np.sum(variances(n) * normal**2))
    low, high = (mean * normal.sum() + offset for mean in class_means(2))
    if spread == 0.0:
        return 0.5
    return 0.5 * (_tail(high / spread) + _tail(-low / spread))


@functools.partial(jax.jit, static_argnames=("n", "num_classes", "m"))
def gaussian_mixture(
    key: jax.Array, *, n: int, num_classes: int, m: int
) -> tuple[jax.Array, jax.Array]:
    """m >= K examples of classes that are equally likely: x [m, n] and labels [m].

    The first K are one of each class and the others independent: the first m' >= K have all
    classes, so that one draw serves every sample size. (The authors draw again until all are
    there.)
    """
    for_labels, for_x = jax.random.split(key)
    position = jnp.arange(m, dtype=jnp.int32)
    labels = jax.random.randint(for_labels, (m,), 0, num_classes, jnp.int32)
    labels = jnp.where(position < num_classes, position, labels)
    means = jnp.asarray(class_means(num_classes), jnp.float32)[labels]
    scale = jnp.asarray(np.sqrt(variances(n)), jnp.float32)
    noise = jax.random.normal(for_x, (m, n), jnp.float32)
    return means[:, None] + scale[None, :] * noise, labels


def _tail(x: float) -> float:
    """1 - Phi(x)."""
    return 0.5 * math.erfc(x / math.sqrt(2.0))
