# SPDX-License-Identifier: Apache-2.0
"""Gaussian naive Bayes with one variance for all classes: a linear head without training.

Zheng et al. On frozen features it needs few examples (the paper: O(log n) of n features, where
logistic regression needs O(n)), one pass over the data and no step size. Reach for it when there
are a few examples a class, when the data come as a stream, or as a first value of a linear head's
kernel; with many examples :func:`logistic_regression` is better, see
``consistency.regime_crossing``.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from xloss import checks, numerics
from xloss.typing import Array


class GaussianNBState(NamedTuple):
    """What naive Bayes keeps of the examples that it has seen, a pytree of arrays.

    Attributes:
      counts: int32 [K], examples of each class.
      means: [K, n], 0 for a class without examples.
      m2: [K, n], sums of squared distances to the class's mean (counts times the biased variance).
    """

    counts: Array
    means: Array
    m2: Array


def gaussian_nb_init(
    num_classes: int, num_features: int, dtype: Any = jnp.float32
) -> GaussianNBState:
    """The state of naive Bayes before any example.

    Args:
      num_classes: K >= 1.
      num_features: n >= 1.
      dtype: of the sums, float32 or float64.

    Returns:
      GaussianNBState of zeros.

    Raises:
      TypeError: another dtype.
      ValueError: a number below 1.

    Numerics:
      Exact.

    Example:
      >>> gaussian_nb_init(3, 5).means.shape
      (3, 5)

    Evidence: authors' code.

    References:
      Zheng, Wu, Bao, Cao, Li, Zhu, "Revisiting Discriminative vs. Generative Classifiers: Theory
      and Implications", ICML 2023, arXiv 2302.02334.
    """
    name = "gaussian_nb_init"
    for argument, value in (("num_classes", num_classes), ("num_features", num_features)):
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{name}: expected {argument} to be an integer >= 1, got {value!r}")
    if jnp.dtype(dtype) not in (jnp.float32, jnp.float64):
        raise TypeError(f"{name}: expected dtype float32 or float64, got {jnp.dtype(dtype)}")
    zeros = jnp.zeros((num_classes, num_features), dtype)
    return GaussianNBState(jnp.zeros(num_classes, jnp.int32), zeros, zeros)


def gaussian_nb_update(
    state: GaussianNBState,
    x: ArrayLike,
    labels: ArrayLike,
    *,
    where: ArrayLike | None = None,
    axis_name: str | tuple[str, ...] | None = None,
) -> GaussianNBState:
    """Takes a chunk of examples into the state; any split into chunks gives the same state.

    Definition, for a class of c1 examples so far and c2 in the chunk, c = c1 + c2::

        mean = mean1 + (c2 / c) (mean2 - mean1)
        m2 = m2_1 + m2_2 + (c1 c2 / c) (mean2 - mean1)^2

    Args:
      state: GaussianNBState [K, n].
      x: features [N, n], any float dtype; N = 0 is fine, and so are classes without examples.
      labels: integer [N] in [0, K).
      where: bool [N]; False leaves an example out, whatever it holds.
      axis_name: inside ``shard_map``, the axes over which examples are spread; the state is the
        same on all devices. Under jit with sharded arrays nothing needs to be said.

    Returns:
      GaussianNBState in the dtype of the one that came in.

    Raises:
      TypeError: wrong dtypes, not a GaussianNBState.
      ValueError: shapes that do not fit.

    Numerics:
      Squares are of distances to the chunk's own mean, never E[x^2] - mean^2. A label out of range
      makes every mean and m2 NaN; a NaN in x makes that feature NaN, in all classes.

    Example:
      >>> import jax.numpy as jnp
      >>> state = gaussian_nb_init(2, 1)
      >>> state = gaussian_nb_update(state, jnp.array([[1.0], [3.0], [5.0]]), jnp.array([0, 0, 1]))
      >>> state.means.tolist(), state.m2.tolist()
      ([[2.0], [5.0]], [[2.0], [0.0]])

    Evidence: authors' code.

    References:
      Zheng, Wu, Bao, Cao, Li, Zhu, "Revisiting Discriminative vs. Generative Classifiers: Theory
      and Implications", ICML 2023, arXiv 2302.02334; authors' code
      ML-GSAI/Revisiting-Dis-vs-Gen-Classifiers. Departure: theirs needs every class in every
      chunk.
    """
    name = "gaussian_nb_update"
    _check_state(name, state)
    x = checks.floating(name, "x", x)
    features = state.means.shape[-1]
    if x.ndim != 2 or x.shape[-1] != features:
        raise ValueError(f"{name}: expected x of shape (N, {features}), got {x.shape}")
    labels = checks.integer(name, "labels", labels)
    checks.same_shape(name, "labels", labels, x.shape[:1])
    where = checks.mask(name, where, x.shape[:1])
    return _update(state, x, labels, where, axis_name=axis_name)


def gaussian_nb_logits(
    state: GaussianNBState,
    x: ArrayLike,
    *,
    var_smoothing: ArrayLike = 1e-9,
    relative: bool = False,
    shared: bool = True,
) -> Array:
    """log P(class) p(x | class) of the examples, up to a constant that all classes share.

    Definition, with prior_k = c_k / N, v_k the biased variance of a class, and eps = var_smoothing
    (times the greatest variance of a feature over all examples, if relative)::

        shared:   v = sum_k prior_k v_k + eps
                  z_k = log prior_k - 1/2 sum_j (x_j - mean_kj)^2 / v_j
        else:     z_k = log prior_k - 1/2 sum_j [(x_j - mean_kj)^2 / (v_kj + eps) + log(v_kj + eps)]

    Shared is the rule of the paper, linear in x (see :func:`gaussian_nb_linear`); the other one is
    quadratic, the textbook's and scikit-learn's, and another theory.

    Args:
      state: GaussianNBState [K, n].
      x: features [..., n], any float dtype.
      var_smoothing: eps, scalar >= 0, traced.
      relative: whether eps is a share of the greatest variance, as in scikit-learn.
      shared: whether all classes have one variance.

    Returns:
      Logits [..., K] in the dtype of the state; -inf for a class without examples.

    Raises:
      TypeError: wrong dtypes, not a GaussianNBState.
      ValueError: shapes that do not fit, var_smoothing < 0.

    Numerics:
      With x taken from the mean of all examples, in one product. A feature that was constant has
      weight 1 / eps: it cancels exactly as long as it stays constant, and rules the logits once it
      does not. A state without examples gives NaN.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> state = gaussian_nb_init(2, 1)
      >>> x, labels = jnp.array([[0.0], [2.0], [4.0], [6.0]]), jnp.array([0, 0, 1, 1])
      >>> state = gaussian_nb_update(state, x, labels)
      >>> logits = gaussian_nb_logits(state, jnp.array([[3.0], [1.0]]))
      >>> [round(p, 4) for p in jax.nn.softmax(logits)[:, 0].tolist()]
      [0.5, 0.9997]

    Evidence: authors' code.

    References:
      Zheng, Wu, Bao, Cao, Li, Zhu, "Revisiting Discriminative vs. Generative Classifiers: Theory
      and Implications", ICML 2023, arXiv 2302.02334; authors' code
      ML-GSAI/Revisiting-Dis-vs-Gen-Classifiers.
    """
    name = "gaussian_nb_logits"
    _check_state(name, state)
    x = checks.floating(name, "x", x)
    features = state.means.shape[-1]
    if x.ndim < 1 or x.shape[-1] != features:
        raise ValueError(f"{name}: expected x of shape (..., {features}), got {x.shape}")
    var_smoothing = checks.number(name, "var_smoothing", var_smoothing, low=0.0)
    return _logits(state, x, var_smoothing, relative=bool(relative), shared=bool(shared))


def gaussian_nb_linear(
    state: GaussianNBState, *, var_smoothing: ArrayLike = 1e-9, relative: bool = False
) -> tuple[Array, Array]:
    """Naive Bayes as the kernel and bias of a linear output layer.

    Definition, with m = sum_k prior_k mean_k and v as in :func:`gaussian_nb_logits`::

        kernel_k = (mean_k - m) / v
        bias_k = log prior_k - 1/2 sum_j (mean_kj - m_j) (mean_kj + m_j) / v_j

    ``x @ kernel + bias`` differs from the logits by a constant for each x, so that softmax and
    argmax are the same.

    Args:
      state: GaussianNBState [K, n].
      var_smoothing: eps, scalar >= 0, traced.
      relative: whether eps is a share of the greatest variance, as in scikit-learn.

    Returns:
      kernel [n, K] and bias [K] in the dtype of the state; 0 and -inf for a class without
      examples.

    Raises:
      TypeError: not a GaussianNBState, wrong dtypes.
      ValueError: var_smoothing < 0.

    Numerics:
      Without the common part m / v of the kernel a constant feature has weight 0, not mean / eps.
      Features with a large common offset are better centred by the caller: here it comes back in
      x @ kernel. A state without examples gives NaN.

    Example:
      >>> import jax.numpy as jnp
      >>> x, labels = jnp.array([[0.0], [2.0], [4.0], [6.0]]), jnp.array([0, 0, 1, 1])
      >>> kernel, bias = gaussian_nb_linear(gaussian_nb_update(gaussian_nb_init(2, 1), x, labels))
      >>> kernel.round(3).tolist(), (bias[0] - bias[1]).round(3).item()
      ([[-2.0, 2.0]], 12.0)

    Evidence: authors' code.

    References:
      Zheng, Wu, Bao, Cao, Li, Zhu, "Revisiting Discriminative vs. Generative Classifiers: Theory
      and Implications", ICML 2023, arXiv 2302.02334. Departure: the kernel is centred over classes.
    """
    name = "gaussian_nb_linear"
    _check_state(name, state)
    var_smoothing = checks.number(name, "var_smoothing", var_smoothing, low=0.0)
    return _linear(state, var_smoothing, relative=bool(relative))


def _check_state(function: str, state: Any) -> None:
    if not isinstance(state, GaussianNBState):
        raise TypeError(
            f"{function}: expected state to be a GaussianNBState, got {checks.describe(state)}"
        )


def _matmul(a: Array, b: Array) -> Array:
    # Sums over examples and differences of classes: not in the accelerator's 8 or 10 bits.
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


@functools.partial(jax.jit, static_argnames="axis_name")
def _update(state, x, labels, where, *, axis_name):
    classes, dtype = state.counts.shape[0], state.means.dtype
    x = x.astype(dtype)
    legal = (labels >= 0) & (labels < classes)
    member = numerics.one_hot_last(labels, (*labels.shape, classes))
    if where is not None:
        x = jnp.where(where[:, None], x, 0.0)
        legal, member = legal | ~where, member & where[:, None]

    def total(values):
        return values if axis_name is None else jax.lax.psum(values, axis_name)

    member_t = member.T.astype(dtype)
    counts = total(jnp.sum(member, axis=0, dtype=jnp.int32))
    size = jnp.maximum(counts, 1).astype(dtype)[:, None]
    means = total(_matmul(member_t, x)) / size
    # Twice: the second time takes out what rounding left of the mean.
    own = jnp.clip(labels, 0, classes - 1)  # whoever is masked or wrong counts nowhere
    from_mean = x - jnp.take(means, own, axis=0)
    rest = total(_matmul(member_t, from_mean)) / size
    means = means + rest
    from_mean = from_mean - jnp.take(rest, own, axis=0)
    m2 = total(_matmul(member_t, jnp.square(from_mean)))

    both = state.counts + counts
    share = counts.astype(dtype) / jnp.maximum(both, 1).astype(dtype)
    apart = jnp.where(counts[:, None] > 0, means - state.means, 0.0)
    weight = state.counts.astype(dtype) * share
    merged = state.means + share[:, None] * apart
    m2 = state.m2 + m2 + weight[:, None] * jnp.square(apart)
    wrong = total(jnp.sum(~legal, dtype=jnp.int32)) > 0
    return GaussianNBState(both, jnp.where(wrong, jnp.nan, merged), jnp.where(wrong, jnp.nan, m2))


def _parts(state, var_smoothing, relative):
    """(log prior [K], means from the common one [K, n], that one [n], variances [K, n], eps)."""
    counts = state.counts.astype(state.means.dtype)
    all_of_them = jnp.sum(counts)
    # Of no examples at all: -inf + inf = NaN.
    log_prior = jnp.log(counts) - jnp.log(all_of_them)
    prior = (counts / all_of_them)[:, None]
    there = (state.counts > 0)[:, None]
    # From one class's mean, so that a feature that is the same everywhere has it exactly.
    some = jnp.take(state.means, jnp.argmax(state.counts), axis=0)
    apart = jnp.where(there, state.means - some[None, :], 0.0)
    shift = jnp.sum(prior * apart, axis=0)
    apart = jnp.where(there, apart - shift[None, :], 0.0)
    eps = numerics.scalar(var_smoothing, state.means)
    if relative:
        spread = jnp.sum(state.m2, axis=0) / all_of_them + jnp.sum(prior * apart**2, axis=0)
        eps = eps * jnp.max(spread)
    return log_prior, apart, some + shift, all_of_them, eps


@functools.partial(jax.jit, static_argnames=("relative", "shared"))
def _logits(state, x, var_smoothing, *, relative, shared):
    log_prior, apart, centre, all_of_them, eps = _parts(state, var_smoothing, relative)
    x = x.astype(state.means.dtype)
    lead = (1,) * (x.ndim - 1)
    from_centre = x - centre.reshape(*lead, -1)
    if not shared:
        there = state.counts > 0
        size = jnp.maximum(state.counts, 1).astype(x.dtype)
        variances = jnp.where(there[:, None], state.m2 / size[:, None] + eps, 1.0)

        def one(of_class):
            mean, variance = of_class
            squares = jnp.square(from_centre - mean.reshape(*lead, -1))
            squares = squares / variance.reshape(*lead, -1)
            return jnp.sum(squares, axis=-1) + jnp.sum(jnp.log(variance))

        # A class at a time: all at once would be [..., K, n].
        costs = jnp.moveaxis(jax.lax.map(one, (apart, variances)), 0, -1)
        return log_prior.reshape(*lead, -1) - 0.5 * costs
    scale = jax.lax.rsqrt(jnp.sum(state.m2, axis=0) / all_of_them + eps)
    # An infinite scale (no variance, no smoothing) must not make 0 * inf of a constant feature.
    mean = numerics.multiply_no_nan(apart, jnp.broadcast_to(scale, apart.shape))
    point = numerics.multiply_no_nan(
        from_centre, jnp.broadcast_to(scale.reshape(*lead, -1), from_centre.shape)
    )
    norm = 0.5 * jnp.sum(jnp.square(point), axis=-1, keepdims=True)
    bias = log_prior - 0.5 * jnp.sum(jnp.square(mean), axis=-1)
    return _matmul(point, mean.T) + bias.reshape(*lead, -1) - norm


@functools.partial(jax.jit, static_argnames="relative")
def _linear(state, var_smoothing, *, relative):
    log_prior, apart, centre, all_of_them, eps = _parts(state, var_smoothing, relative)
    variance = jnp.sum(state.m2, axis=0) / all_of_them + eps
    kernel = jnp.where(apart == 0, 0.0, apart / variance[None, :])
    middle = centre[None, :] + 0.5 * apart
    return kernel.T, log_prior - jnp.sum(kernel * middle, axis=-1)
