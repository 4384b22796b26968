# SPDX-License-Identifier: Apache-2.0
"""How much noise in the weights a classifier stands, and the PAC-Bayes measures made of it.

The flatness measures of Jiang et al., "Fantastic Generalization Measures and Where to Find Them".
Reach for them where norms say nothing: they were the best of that paper. They are no safe bound
either; the warning of ``xloss.diagnostics.generalization`` holds here word for word.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from xloss import checks, numerics
from xloss.diagnostics import generalization, layer_norms
from xloss.typing import Array, PRNGKey, PyTree


def pac_bayes_sigma(
    key: PRNGKey,
    apply_fn: Callable[[PyTree, Any], Array],
    params: PyTree,
    data: tuple[Any, ArrayLike],
    *,
    target_drop: ArrayLike = 0.1,
    magnitude_eps: ArrayLike | None = None,
    num_draws: int = 10,
    search_steps: int = 15,
    upper: ArrayLike = 2.0,
    tolerance: ArrayLike = 0.0,
    squared_std: bool = False,
) -> Array:
    """The scale of Gaussian noise in the weights that costs a given share of the accuracy.

    Definition, drop(sigma) = accuracy(w) - mean over draws of accuracy(w + std z), z standard
    normal: bisection of drop(sigma) = target_drop in (0, upper), with the standard deviation of
    the noise in entry w_j::

        std_j = sigma                               magnitude_eps None
        std_j = sqrt(sigma^2 w_j^2 + eps^2)         magnitude_eps eps
        std_j = the squares of these                squared_std

    Args:
      key: PRNG key of the draws.
      apply_fn: (params, inputs) -> logits [..., K].
      params: tree of float arrays, all of them perturbed, biases too. Close over what shall stay.
      data: (inputs, labels [...]): the training set, or as much of it as apply_fn can take. Labels
        are integers in [0, K); others count as errors.
      target_drop: of the accuracy, scalar in [0, 1], traced.
      magnitude_eps: None, or scalar >= 0 in the unit of the parameters, traced.
      num_draws: of noise, for each sigma that is tried, int >= 1, one after another; static.
      search_steps: int >= 1, static; sigma is found to upper / 2^search_steps.
      upper: end of the search, scalar > 0, traced.
      tolerance: the search stops where the drop is within this of target_drop, scalar >= 0, traced.
      squared_std: whether sigma^2 is taken for a standard deviation, as in the authors' code;
        static.

    Returns:
      Scalar in (0, upper), float32 (float64 for float64): the last sigma that was tried, near
      upper where no noise costs as much.

    Raises:
      TypeError: wrong dtypes, or apply_fn is no function.
      ValueError: numbers out of range, no examples, logits that do not fit the labels.

    Numerics:
      search_steps x num_draws + 1 passes over the data. Every sigma is tried with the same draws,
      which makes drop a function of sigma; with tolerance 0 the result never falls as target_drop
      rises. apply_fn is given the parameters in float32 where they are narrower. NaN logits count
      as an error. Called many times, it belongs inside ``jax.jit`` with the data as an argument.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> data = jnp.eye(2), jnp.array([0, 1])
      >>> sigma = pac_bayes_sigma(
      ...     jax.random.key(0), lambda w, x: x @ w, 3.0 * jnp.eye(2), data, num_draws=200
      ... )
      >>> bool(1.2 < sigma < 2.0)
      True

    Evidence: published formula, derived and checked.

    References:
      Jiang, Neyshabur, Mobahi, Krishnan, Bengio, "Fantastic Generalization Measures and Where to
      Find Them", ICLR 2020, arXiv 1912.02178. The code nitarshan/robust-generalization-measures of
      Dziugaite et al. passes sigma^2 (with magnitude: sigma^2 w^2 + eps^2) as the STANDARD
      DEVIATION: squared_std does so too. It draws anew for every sigma, searches the size of the
      change in accuracy (here a rise is no drop) and stops at tolerance=0.01.
    """
    name = "pac_bayes_sigma"
    if not callable(apply_fn):
        raise TypeError(
            f"{name}: expected apply_fn to be a function, got {checks.describe(apply_fn)}"
        )
    if not isinstance(data, tuple | list) or len(data) != 2:
        raise TypeError(f"{name}: expected data to be (inputs, labels), got {type(data).__name__}")
    target_drop = checks.number(name, "target_drop", target_drop, low=0.0, high=1.0)
    upper = checks.number(name, "upper", upper, low=0.0, open_low=True)
    tolerance = checks.number(name, "tolerance", tolerance, low=0.0)
    if magnitude_eps is not None:
        magnitude_eps = checks.number(name, "magnitude_eps", magnitude_eps, low=0.0)
    for argument, value in (("num_draws", num_draws), ("search_steps", search_steps)):
        if type(value) is not int or value < 1:
            raise ValueError(f"{name}: expected {argument} to be an int >= 1, got {value!r}")
    leaves, treedef = jax.tree.flatten(params)
    if not leaves:
        raise ValueError(f"{name}: expected params with at least one array, got {params!r}")
    leaves = [numerics.promote(checks.floating(name, "params", x)) for x in leaves]
    inputs, labels = data[0], checks.integer(name, "labels", data[1])
    if labels.size == 0:
        raise ValueError(f"{name}: expected at least one example, got labels {labels.shape}")
    dtype = layer_norms.widest(leaves)

    def accuracy(leaves: list[Array]) -> Array:
        logits = checks.floating(
            name, "apply_fn(params, inputs)", apply_fn(treedef.unflatten(leaves), inputs)
        )
        if logits.shape[:-1] != labels.shape or logits.ndim == 0:
            raise ValueError(
                f"{name}: expected apply_fn(params, inputs) of shape {(*labels.shape, 'K')}, "
                f"got {logits.shape}"
            )
        right = jnp.argmax(logits, axis=-1).astype(labels.dtype) == labels
        right &= ~jnp.any(jnp.isnan(logits), axis=-1)
        return jnp.mean(right, dtype=dtype)

    def std(w: Array, sigma: Array) -> Array:
        sigma = sigma.astype(w.dtype)
        if magnitude_eps is None:
            found = jnp.broadcast_to(sigma, w.shape)
        else:
            # hypot: eps^2 = 1e-6 beside a tiny weight is no loss, a squared huge one would be.
            found = jnp.hypot(sigma * w, jnp.asarray(magnitude_eps, w.dtype))
        return jnp.square(found) if squared_std else found

    def draw(key: PRNGKey, sigma: Array) -> Array:
        keys = jax.random.split(key, len(leaves))
        return accuracy(
            [
                w + std(w, sigma) * jax.random.normal(k, w.shape, w.dtype)
                for k, w in zip(keys, leaves, strict=True)
            ]
        )

    keys = jax.random.split(key, num_draws)
    clean = accuracy(leaves)
    target, limit = jnp.asarray(target_drop, dtype), jnp.asarray(tolerance, dtype)

    def halve(state: tuple[Array, ...]) -> tuple[Array, ...]:
        step, low, high, _, _ = state
        sigma = (low + high) / 2
        drop = clean - jnp.mean(jax.lax.map(lambda k: draw(k, sigma), keys))
        too_much = drop > target
        done = jnp.abs(drop - target) < limit
        return (
            step + 1,
            jnp.where(too_much, low, sigma),
            jnp.where(too_much, sigma, high),
            sigma,
            done,
        )

    zero = jnp.zeros([], dtype)
    start = (jnp.zeros([], jnp.int32), zero, jnp.asarray(upper, dtype), zero, jnp.array(False))
    found = jax.lax.while_loop(lambda s: (s[0] < search_steps) & ~s[4], halve, start)
    return found[3]


def pac_bayes_measures(
    weights: PyTree,
    init_weights: PyTree,
    *,
    sigma: ArrayLike,
    magnitude_sigma: ArrayLike | None = None,
    magnitude_eps: ArrayLike = 1e-3,
    num_samples: int,
    adjust: bool = True,
) -> dict[str, Array]:
    """Bounds in the style of PAC-Bayes from the noise that a network stands, and its flatness.

    They predict nothing by themselves: the warning of the module ``generalization`` holds.

    Definition, w all P entries of the weights in one vector, w^0 at the start, m = num_samples, s
    the magnitude_sigma and e the magnitude_eps::

        pacbayes_init       ||w - w^0||^2 / (4 sigma^2) + log(m / sigma) + 10
        pacbayes_orig       ||w||^2 / (4 sigma^2) + log(m / sigma) + 10
        pacbayes_flatness   1 / sigma^2
        pacbayes_mag_init   1/4 sum_j log((e^2 + (s^2 + 1) ||w - w^0||^2 / P)
                                          / (e^2 + s^2 (w_j - w^0_j)^2)) + log(m / s) + 10
        pacbayes_mag_orig   the same with ||w||^2 in the numerator
        pacbayes_mag_flatness   1 / s^2

    of which sqrt(value / m) is returned.

    Args:
      weights: tree or list of float arrays, without biases and scales (as in
        :func:`norm_measures`).
      init_weights: the same at initialisation.
      sigma: scalar > 0, from :func:`pac_bayes_sigma`.
      magnitude_sigma: scalar > 0, from :func:`pac_bayes_sigma` with this magnitude_eps; None
        leaves the three pacbayes_mag out.
      magnitude_eps: scalar > 0, in the unit of the weights.
      num_samples: m, the size of the training set, int >= 1, static.
      adjust: False returns the values of the definition. Static.

    Returns:
      Dict from the names above to scalars, float32 (float64 for float64).

    Raises:
      TypeError: wrong dtypes.
      ValueError: trees that do not fit, numbers out of range.

    Numerics:
      A bound below 0 (sigma > m e^10) has no root: NaN. Norms up to 1e19 do not overflow the
      bounds in float32. At weights = init_weights pacbayes_init is log(m / sigma) + 10.

    Example:
      >>> import jax.numpy as jnp
      >>> w, start = [jnp.ones((2, 2))], [jnp.zeros((2, 2))]
      >>> found = pac_bayes_measures(w, start, sigma=0.5, num_samples=1, adjust=False)
      >>> {name: round(float(x), 3) for name, x in sorted(found.items())}
      {'pacbayes_flatness': 4.0, 'pacbayes_init': 14.693, 'pacbayes_orig': 14.693}

    Evidence: authors' code.

    References:
      Jiang, Neyshabur, Mobahi, Krishnan, Bengio, "Fantastic Generalization Measures and Where to
      Find Them", ICLR 2020, arXiv 1912.02178; code nitarshan/robust-generalization-measures of
      Dziugaite et al. What they cannot do: Gastpar, Nachum, Shafer, Weinberger, "Fantastic
      Generalization Measures are Nowhere to be Found", 2023, arXiv 2309.13658.
    """
    name = "pac_bayes_measures"
    kernels, starts = generalization.pairs(name, weights, init_weights)
    generalization.samples(name, num_samples)
    sigma = checks.number(name, "sigma", sigma, low=0.0, open_low=True)
    eps = checks.number(name, "magnitude_eps", magnitude_eps, low=0.0, open_low=True)
    if magnitude_sigma is not None:
        magnitude_sigma = checks.number(
            name, "magnitude_sigma", magnitude_sigma, low=0.0, open_low=True
        )
    return _bounds(
        kernels, starts, sigma, magnitude_sigma, eps, float(num_samples), adjust=bool(adjust)
    )


@functools.partial(jax.jit, static_argnames="adjust")
def _bounds(kernels, starts, sigma, magnitude_sigma, eps, num_samples, *, adjust):
    dtype = layer_norms.widest((*kernels, *starts))
    # Leaf by leaf: one vector of all weights would gather those that are sharded.
    wide = [w.astype(dtype) for w in kernels]
    shifts = [w - v.astype(dtype) for w, v in zip(wide, starts, strict=True)]
    count = float(sum(w.size for w in kernels))

    def norm_of(leaves: list[Array]) -> Array:
        return generalization.frobenius(jnp.stack([generalization.frobenius(x) for x in leaves]))

    references = {"init": norm_of(shifts), "orig": norm_of(wide)}
    m = jnp.asarray(num_samples, dtype)

    def tail(scale: Array) -> Array:
        return jnp.log(m) - jnp.log(scale) + 10.0

    scale = jnp.asarray(sigma, dtype)
    values = {
        f"pacbayes_{of}": jnp.square(norm / (2 * scale)) + tail(scale)
        for of, norm in references.items()
    }
    roots = {"pacbayes_flatness": 1 / scale}
    if magnitude_sigma is not None:
        s, e = jnp.asarray(magnitude_sigma, dtype), jnp.asarray(eps, dtype)
        below = [2 * jnp.log(jnp.hypot(e, s * shift)) for shift in shifts]
        for of, norm in references.items():
            mean = norm / jnp.sqrt(jnp.asarray(count, dtype))
            above = 2 * jnp.log(jnp.hypot(e, jnp.hypot(s, 1.0) * mean))
            terms = sum((jnp.sum(above - x) for x in below), jnp.zeros([], dtype))
            values[f"pacbayes_mag_{of}"] = terms / 4 + tail(s)
        roots["pacbayes_mag_flatness"] = 1 / s
    found = generalization.adjusted({}, roots, num_samples, adjust)
    if adjust:
        values = {of: jnp.sqrt(value / m) for of, value in values.items()}
    return values | found
