# SPDX-License-Identifier: Apache-2.0
"""DatasetEquity: examples that look rare count more, whatever their labels.

Shrivastava, Zhang, Nagesh, Parchami. Each training example has a likelihood, the size of its
cluster among embeddings of a frozen network, and its whole loss is weighted by a focal-like
function of that. Reach for it where rare kinds of examples have no label of their own (night
scenes, rare poses). The paper calls it generalized focal loss; :func:`focal` weighs by the
prediction's confidence and is another method, and so is the generalized focal loss of Li et al.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from xloss import checks, numerics
from xloss.typing import Array

NOISE = ("singleton", "cluster")
NORMALIZE = ("max", "total")


def cluster_likelihood(
    cluster_ids: ArrayLike, *, noise: str = "singleton", normalize: str = "max"
) -> np.ndarray:
    """How common each example is, by the size of its cluster; on the host.

    Definition::

        p_i = |cluster(i)| / |largest cluster|    ("max")    or |cluster(i)| / n    ("total")

    Args:
      cluster_ids: integer [n], in any numbering; a negative id is noise, as in DBSCAN.
      noise: "singleton": each noise example is a cluster of its own; "cluster": all with one
        negative id are one, as the authors have it, and many outliers then look common.
      normalize: "max" or "total".

    Returns:
      Likelihoods float64 [n] in (0, 1], to be kept beside the data. With nothing but noise p = 1
      by "max".

    Raises:
      TypeError: ids that are no integers.
      ValueError: not [n], an unknown noise or normalize.

    Numerics:
      Exact.

    Example:
      >>> cluster_likelihood([0, 0, 7, -1, -1], noise="singleton").tolist()
      [1.0, 1.0, 0.5, 0.5, 0.5]
      >>> cluster_likelihood([0, 0, 7, -1, -1], noise="cluster").tolist()
      [1.0, 1.0, 0.5, 1.0, 1.0]

    Evidence: authors' code.

    References:
      Shrivastava, Zhang, Nagesh, Parchami, "DatasetEquity: Are All Samples Created Equal? In The
      Quest For Equity Within Datasets", ICCV workshop 2023, arXiv 2308.09878; authors' code
      towardsautonomy/DatasetEquity. Departure: "singleton".
    """
    name = "cluster_likelihood"
    ids = np.asarray(cluster_ids)
    if not np.issubdtype(ids.dtype, np.integer):
        raise TypeError(f"{name}: expected cluster_ids of an integer dtype, got {ids.dtype}")
    if ids.ndim != 1 or ids.size == 0:
        raise ValueError(f"{name}: expected cluster_ids of shape (n,), n >= 1, got {ids.shape}")
    checks.choice(name, "noise", noise, NOISE)
    checks.choice(name, "normalize", normalize, NORMALIZE)
    _, own, counts = np.unique(ids, return_inverse=True, return_counts=True)
    sizes = counts[own]
    if noise == "singleton":
        sizes = np.where(ids < 0, 1, sizes)
    return sizes / float(sizes.max() if normalize == "max" else ids.size)


def embedding_likelihood(
    embeddings: ArrayLike,
    *,
    eps: float,
    min_samples: int,
    components: int | None = None,
    noise: str = "singleton",
    normalize: str = "max",
) -> np.ndarray:
    """How common each example is, from embeddings of a frozen network; on the host.

    Definition: the embeddings, on their principal components if asked for, are clustered with
    DBSCAN, and :func:`cluster_likelihood` of the clusters is returned.

    Args:
      embeddings: [n, d], real numbers.
      eps: neighbours are at most so far apart, > 0; the authors' 1.0 after t-SNE.
      min_samples: so many neighbours, itself included, make a core example, >= 1; the authors' 10.
      components: principal components to keep, 1 to min(n, d); None: the embeddings as they are
        (of the authors' t-SNE, for one).
      noise: as in :func:`cluster_likelihood`.
      normalize: as in :func:`cluster_likelihood`.

    Returns:
      Likelihoods float64 [n] in (0, 1].

    Raises:
      ImportError: scikit-learn is not installed.
      TypeError: not real numbers.
      ValueError: not [n, d], values that are not finite, numbers out of range.

    Numerics:
      float64. eps has the scale of the embeddings: look at how many clusters it gives.

    Example:
      >>> near, far = [[0.0, 0.1 * i] for i in range(4)], [[9.0, 0.1 * i] for i in range(2)]
      >>> embedding_likelihood(near + far, eps=0.5, min_samples=2).tolist()
      [1.0, 1.0, 1.0, 1.0, 0.5, 0.5]

    Evidence: authors' code.

    References:
      Shrivastava, Zhang, Nagesh, Parchami, "DatasetEquity: Are All Samples Created Equal? In The
      Quest For Equity Within Datasets", ICCV workshop 2023, arXiv 2308.09878; authors' code
      towardsautonomy/DatasetEquity. Departure: principal components, where the authors take t-SNE.
    """
    name = "embedding_likelihood"
    points = np.asarray(embeddings)
    if not (np.issubdtype(points.dtype, np.floating) or np.issubdtype(points.dtype, np.integer)):
        raise TypeError(f"{name}: expected embeddings to be real numbers, got {points.dtype}")
    if points.ndim != 2 or 0 in points.shape:
        raise ValueError(f"{name}: expected embeddings of shape (n, d), got {points.shape}")
    points = points.astype(np.float64)
    if not np.isfinite(points).all():
        raise ValueError(f"{name}: expected finite embeddings, got NaN or inf")
    eps = checks.number(name, "eps", eps, low=0.0, open_low=True)
    most = min(points.shape)
    for argument, value, high in (
        ("min_samples", min_samples, math.inf),
        ("components", 1 if components is None else components, most),
    ):
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= high:
            raise ValueError(
                f"{name}: expected {argument} to be an integer in [1, {high}], got {value!r}"
            )
    checks.choice(name, "noise", noise, NOISE)
    checks.choice(name, "normalize", normalize, NORMALIZE)
    if components is not None:
        centred = points - points.mean(axis=0)
        # The eigenvectors of d x d and not an SVD of n x d: there are many examples.
        _, directions = np.linalg.eigh(centred.T @ centred)
        points = centred @ directions[:, ::-1][:, :components]
    ids = _cluster_module(name).DBSCAN(eps=eps, min_samples=min_samples).fit_predict(points)
    return cluster_likelihood(ids, noise=noise, normalize=normalize)


def equity_weight(likelihood: ArrayLike, *, eta: ArrayLike = 1.0, gamma: ArrayLike = 5.0) -> Array:
    """The weight of an example, by how common it is.

    Definition::

        w = (eta + (1 - p)^gamma) / (eta + 1)        in [eta / (eta + 1), 1]

    Args:
      likelihood: p in [0, 1] [...], any float dtype; no gradient goes into it.
      eta: scalar >= 0, traced; the greater, the less the weights differ.
      gamma: scalar >= 0, traced; 0 is w = 1 everywhere.

    Returns:
      Weights [...], float32 (float64 for float64).

    Raises:
      TypeError: wrong dtypes.
      ValueError: numbers out of range.

    Numerics:
      (1 - p)^0 is 1 at p = 1, too, and the derivative in gamma is finite there (0). A p outside
      [0, 1] gives NaN.

    Example:
      >>> import jax.numpy as jnp
      >>> equity_weight(jnp.array([1.0, 0.5, 0.0]), eta=1.0, gamma=2.0).tolist()
      [0.5, 0.625, 1.0]

    Evidence: authors' code.

    References:
      Shrivastava, Zhang, Nagesh, Parchami, "DatasetEquity: Are All Samples Created Equal? In The
      Quest For Equity Within Datasets", ICCV workshop 2023, arXiv 2308.09878; authors' code
      towardsautonomy/DatasetEquity.
    """
    name = "equity_weight"
    likelihood = checks.floating(name, "likelihood", likelihood)
    return _weight(likelihood, *_hyperparameters(name, eta, gamma))


def likelihood_weighted_focal(
    losses: ArrayLike,
    likelihood: ArrayLike,
    *,
    eta: ArrayLike = 1.0,
    gamma: ArrayLike = 5.0,
    where: ArrayLike | None = None,
    renormalize: bool = False,
) -> Array:
    """Losses of examples, the rare ones weighted up: DatasetEquity's generalized focal loss.

    Definition, with w of :func:`equity_weight`::

        loss_i = w(p_i) losses_i

    The authors take the plain mean of it, so that the effective learning rate shrinks; with
    renormalize w is divided by its mean over the batch.

    Args:
      losses: whole task losses [...] of the examples, any float dtype.
      likelihood: p in [0, 1] [...] of the same examples, gathered with the batch; a constant.
      eta: scalar >= 0, traced.
      gamma: scalar >= 0, traced.
      where: bool [...]; False means loss and gradient exactly 0, and no part in the mean weight.
      renormalize: whether the mean weight of the examples is made 1. It couples the batch.

    Returns:
      Losses [...], float32 (float64 if losses are), to be averaged.

    Raises:
      TypeError: wrong dtypes.
      ValueError: shapes that do not fit, numbers out of range.

    Numerics:
      A weight of 0 (eta = 0, p = 1) silences an infinite loss, too. With all weights 0 and
      renormalize the losses are 0. A p outside [0, 1] gives NaN.

    Example:
      >>> import jax.numpy as jnp
      >>> losses, p = jnp.array([2.0, 2.0]), jnp.array([1.0, 0.0])
      >>> likelihood_weighted_focal(losses, p).tolist()
      [1.0, 2.0]

    Evidence: authors' code.

    References:
      Shrivastava, Zhang, Nagesh, Parchami, "DatasetEquity: Are All Samples Created Equal? In The
      Quest For Equity Within Datasets", ICCV workshop 2023, arXiv 2308.09878; authors' code
      towardsautonomy/DatasetEquity. Departure: their DD3D fork takes the first example's weight for
      the batch and never uses it.
    """
    name = "likelihood_weighted_focal"
    losses = checks.floating(name, "losses", losses)
    likelihood = checks.floating(name, "likelihood", likelihood)
    checks.same_shape(name, "likelihood", likelihood, losses.shape)
    where = checks.mask(name, where, losses.shape)
    eta, gamma = _hyperparameters(name, eta, gamma)
    return _weighted(losses, likelihood, eta, gamma, where, renormalize=bool(renormalize))


def _hyperparameters(name, eta, gamma):
    found = []
    for argument, value in (("eta", eta), ("gamma", gamma)):
        value = checks.number(name, argument, value, low=0.0)
        if isinstance(value, float) and value == math.inf:
            raise ValueError(f"{name}: expected {argument} to be finite, got inf")
        found.append(value)
    return found


def _cluster_module(function):
    # Offline preparation: nothing else of xloss needs scikit-learn, and nothing loads it but this.
    try:
        import sklearn.cluster

        return sklearn.cluster
    except ImportError as error:
        raise ImportError(
            f"{function}: expected scikit-learn to be installed (pip install scikit-learn), got "
            f"{error}; with clusters of your own use cluster_likelihood"
        ) from error


def _weights(likelihood, eta, gamma):
    p = jax.lax.stop_gradient(numerics.promote(likelihood))
    rest = jnp.where((p >= 0) & (p <= 1), 1.0 - p, jnp.nan)
    eta, gamma = numerics.scalar(eta, p), numerics.scalar(gamma, p)
    # log 0 is held at the least finite number: (1 - p)^gamma is 1 at gamma = 0, even at p = 1,
    # and its slope in gamma is 0 and not -inf.
    common = rest == 0
    power = numerics.power(jnp.log(jnp.where(common, 1.0, rest)), gamma)
    power = jnp.where(common, jnp.where(gamma == 0, 1.0, 0.0), power)
    return (eta + power) / (eta + 1.0)


@jax.jit
def _weight(likelihood, eta, gamma):
    return _weights(likelihood, eta, gamma)


@functools.partial(jax.jit, static_argnames="renormalize")
def _weighted(losses, likelihood, eta, gamma, where, *, renormalize):
    losses = numerics.masked(numerics.promote(losses), where)
    p = likelihood if where is None else jnp.where(where, likelihood, jnp.ones_like(likelihood))
    w = _weights(p.astype(losses.dtype), eta, gamma)
    if renormalize:
        kept = jnp.ones(losses.shape, jnp.bool_) if where is None else where
        total = jnp.sum(jnp.where(kept, w, 0.0))
        size = jnp.sum(kept, dtype=w.dtype)
        w = jnp.where(total > 0, w * size / jnp.where(total > 0, total, 1.0), w)
        w = jnp.where(jnp.isnan(total), total, w)
    return numerics.masked(numerics.multiply_no_nan(w, losses), where)
