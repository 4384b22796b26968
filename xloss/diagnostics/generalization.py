# SPDX-License-Identifier: Apache-2.0
"""Norms and margins of a trained network that are said to go with its generalization gap.

The measures of Jiang et al., "Fantastic Generalization Measures and Where to Find Them". Reach for
them to compare networks trained to the same loss on the same task, with :func:`kendall_tau` and
:func:`sign_error` of this room, and read the warning first.

Warning. None of these numbers is a safe bound. Gastpar, Nachum, Shafer, Weinberger, "Fantastic
Generalization Measures are Nowhere to be Found" (arXiv 2309.13658) prove that in the
overparameterised setting no bound that reads only the trained weights and the training set (norms,
margins, sharpness: all of what is here) is tight for all algorithms and distributions: for every
one of them there are some where it is off by a constant, with constant probability. A bound that
knows the algorithm too can be tight everywhere only for algorithms that learn few distributions. A
rank correlation found on one family of networks is a statement about that family; label noise alone
can reverse it. So: no measure here says that a model generalizes, and none is "the one to
regularise". A test set does say something.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from xloss import checks, numerics
from xloss.diagnostics import layer_norms
from xloss.typing import Array, PyTree


def norm_measures(
    weights: PyTree,
    init_weights: PyTree,
    *,
    margin: ArrayLike,
    num_samples: int,
    path_norm: ArrayLike | None = None,
    input_sizes: Sequence[tuple[int, int] | None] | None = None,
    adjust: bool = True,
) -> dict[str, Array]:
    """Norms, distances from the start and margins of a network, each as one number.

    They predict nothing by themselves: the module's warning says what is proved about that.

    Definition, d kernels W_i as matrices [rest, out] with start W_i^0, f_i and s_i the squares of
    the Frobenius and spectral norms of W_i, F_i and S_i those of W_i - W_i^0, P entries, g the
    margin, w all entries in one vector::

        inverse_margin 1 / g^2        params P         l2 ||w||      l2_dist ||w - w^0||
        param_norm sum f_i            fro_dist sum F_i               dist_spec_init sum S_i
        fro_over_spec sum f_i / s_i   (of every kernel in [1, rank])
        log_prod_of_spec sum log s_i  log_sum_of_spec log d + log_prod_of_spec / d
        log_prod_of_fro, log_sum_of_fro: the same of f_i
        each of these four _over_margin: log_prod - 2 log |g| in place of log_prod
        log_spec_orig_main log_prod_of_spec_over_margin + log sum f_i / s_i
        log_spec_init_main log_prod_of_spec_over_margin + log sum F_i / s_i
        path_norm, path_norm_over_margin path_norm / g^2           if path_norm is given
        ..._fft: those that read s_i or S_i, with conv_spectral_norm  if input_sizes is given

    and, of m = num_samples examples, what is returned: (value - log m) / 2 for log_*, else
    sqrt(value / m).

    Args:
      weights: tree or list of kernels [..., out], any float dtype, one leaf a layer: only what
        multiplies, without biases and scales, with batch norm folded in, a stack of layers
        unstacked.
      init_weights: the same at initialisation.
      margin: scalar, from :func:`margin_percentile`.
      num_samples: m, the size of the training set, int >= 1, static.
      path_norm: scalar, from :func:`path_norm`.
      input_sizes: for each leaf (as ``jax.tree.leaves`` orders them) the size (n, m) of the maps
        that it sees, or None for a dense layer; static.
      adjust: whether to adjust for m; False returns the values of the definition. Static.

    Returns:
      Dict from the names above to scalars, float32 (float64 for float64), and under "margin_sign"
      -1, 0 or 1: where it is not 1, the measures over margin are those of a network that does not
      fit its training set, and only |g| enters them.

    Raises:
      TypeError: wrong dtypes.
      ValueError: kernels with fewer than two axes, trees that do not fit, num_samples < 1, sizes
        that do not fit.

    Numerics:
      Squares are never formed where their roots are what is returned, so that norms up to 1e38 and
      down to 1e-38 come out. A margin of 0 gives inf. A kernel of zeros has rank 0 in
      fro_over_spec and makes log_prod -inf (with a margin of 0 beside it, NaN); the two _main are
      formed without 0 / 0. At weights = init_weights the distances are 0 and log_spec_init_main is
      -inf. One SVD a kernel, two with the start.

    Example:
      >>> import jax.numpy as jnp
      >>> trained = [2.0 * jnp.eye(3), jnp.ones((3, 2))]
      >>> start = [jnp.eye(3), jnp.ones((3, 2))]
      >>> found = norm_measures(trained, start, margin=0.5, num_samples=100, adjust=False)
      >>> [round(float(found[name]), 2) for name in ("fro_over_spec", "fro_dist", "param_norm")]
      [4.0, 3.0, 18.0]

    Evidence: authors' code.

    References:
      Jiang, Neyshabur, Mobahi, Krishnan, Bengio, "Fantastic Generalization Measures and Where to
      Find Them", ICLR 2020, arXiv 1912.02178; code nitarshan/robust-generalization-measures of
      Dziugaite et al., "In Search of Robust Measures of Generalization", NeurIPS 2020,
      arXiv 2010.11924, which gives every layer the size of the network's input. What they cannot
      do: Gastpar, Nachum, Shafer, Weinberger, "Fantastic Generalization Measures are Nowhere to be
      Found", 2023, arXiv 2309.13658.
    """
    name = "norm_measures"
    kernels, starts = pairs(name, weights, init_weights)
    margin = checks.number(name, "margin", margin)
    samples(name, num_samples)
    if path_norm is not None:
        path_norm = checks.number(name, "path_norm", path_norm, low=0.0)
    sizes = _input_sizes(name, input_sizes, kernels)
    for w in kernels:
        layer_norms.as_matrix(name, "weights", w)
    return _norms(
        kernels, starts, margin, path_norm, float(num_samples), sizes=sizes, adjust=bool(adjust)
    )


def pairs(function: str, weights: PyTree, init_weights: PyTree) -> tuple[list[Array], list[Array]]:
    """The leaves of two trees of the same structure and shapes, as float arrays.

    Raises:
      TypeError: wrong dtypes.
      ValueError: no leaves, or trees that do not fit.
    """
    leaves, treedef = jax.tree.flatten(weights)
    starts, start_treedef = jax.tree.flatten(init_weights)
    if not leaves:
        raise ValueError(f"{function}: expected weights with at least one array, got {weights!r}")
    if treedef != start_treedef:
        raise ValueError(
            f"{function}: expected init_weights in the structure of weights, {treedef}, "
            f"got {start_treedef}"
        )
    kernels = [checks.floating(function, "weights", w) for w in leaves]
    starts = [checks.floating(function, "init_weights", w) for w in starts]
    for w, start in zip(kernels, starts, strict=True):
        checks.same_shape(function, "init_weights", start, w.shape)
    return kernels, starts


def samples(function: str, num_samples: int) -> None:
    """Raises ValueError unless the size of the training set is an int >= 1."""
    if type(num_samples) is not int or num_samples < 1:
        raise ValueError(f"{function}: expected num_samples to be an int >= 1, got {num_samples!r}")


def adjusted(
    logs: dict[str, Array], roots: dict[str, Array], num_samples: ArrayLike, adjust: bool
) -> dict[str, Array]:
    """(value - log m) / 2 from logs and sqrt(value / m) from roots of values, or the values."""
    if not adjust:
        return logs | {name: jnp.square(root) for name, root in roots.items()}

    def m(x: Array) -> Array:
        return jnp.asarray(num_samples, x.dtype)

    return {name: 0.5 * (x - jnp.log(m(x))) for name, x in logs.items()} | {
        name: root / jnp.sqrt(m(root)) for name, root in roots.items()
    }


def frobenius(x: Array) -> Array:
    """Root of the sum of squares, which do not overflow or vanish on the way; NaN stays."""
    peak = jnp.max(jnp.abs(x), initial=0.0)
    scale = jnp.where(peak == 0, jnp.ones_like(peak), peak)
    return peak * jnp.sqrt(jnp.sum(jnp.square(x / scale)))


def _spectral_norms(
    kernels: Sequence[Array], sizes: Sequence[tuple[int, int] | None] | None
) -> Array:
    sizes = [None] * len(kernels) if sizes is None else sizes
    return jnp.stack(
        [
            layer_norms.spectral_norm(w) if n is None else layer_norms.conv_spectral_norm(w, n)
            for w, n in zip(kernels, sizes, strict=True)
        ]
    )


def _products(of: str, norms: Array, margin: Array, suffix: str) -> dict[str, Array]:
    """log of the product and of d times the geometric mean of squared norms, also over margin."""
    d = norms.shape[0]
    plain = 2 * jnp.sum(jnp.log(norms))
    over = plain - 2 * jnp.log(margin)
    log_d = jnp.log(jnp.asarray(float(d), norms.dtype))
    return {
        f"log_prod_of_{of}{suffix}": plain,
        f"log_prod_of_{of}_over_margin{suffix}": over,
        f"log_sum_of_{of}{suffix}": log_d + plain / d,
        f"log_sum_of_{of}_over_margin{suffix}": log_d + over / d,
    }


def _main(spec: Array, fro: Array) -> Array:
    """log (prod_i s_i sum_j f_j / s_j) of squared norms as sum_j f_j prod_(i not j) s_i: a layer
    of zeros leaves no 0 / 0."""
    others = ~jnp.eye(spec.shape[0], dtype=jnp.bool_)
    rest = jnp.sum(jnp.where(others, jnp.log(spec)[None, :], 0.0), axis=1)
    return jax.nn.logsumexp(2 * (jnp.log(fro) + rest))


def _input_sizes(
    function: str,
    input_sizes: Sequence[tuple[int, int] | None] | None,
    kernels: Sequence[Array],
) -> tuple[tuple[int, int] | None, ...] | None:
    if input_sizes is None:
        return None
    if len(input_sizes) != len(kernels):
        raise ValueError(
            f"{function}: expected input_sizes, one for each of {len(kernels)} weights, "
            f"got {len(input_sizes)}"
        )
    sizes: list[tuple[int, int] | None] = []
    for size, w in zip(input_sizes, kernels, strict=True):
        if size is None:
            sizes.append(None)
            continue
        n, m = layer_norms.map_sizes(function, "input_sizes", size, axes=2)
        sizes.append((n, m))
        if w.ndim != 4:
            raise ValueError(
                f"{function}: expected input_sizes None beside weights that are no kernel "
                f"[height, width, in, out], got {(n, m)} beside {w.shape}"
            )
    return tuple(sizes)


@functools.partial(jax.jit, static_argnames=("sizes", "adjust"))
def _norms(kernels, starts, margin, path_norm, num_samples, *, sizes, adjust):
    matrices = [layer_norms.as_matrix("norm_measures", "weights", w) for w in kernels]
    dtype = layer_norms.widest((*matrices, *starts))
    margin = jnp.asarray(margin, dtype)
    size = jnp.abs(margin)

    shifts = [
        numerics.promote(w).astype(dtype) - numerics.promote(v).astype(dtype)
        for w, v in zip(kernels, starts, strict=True)
    ]
    fro = jnp.stack([frobenius(w).astype(dtype) for w in matrices])
    fro_shift = jnp.stack([frobenius(x) for x in shifts])

    # Values to be logs, and square roots of the others.
    logs: dict[str, Array] = {}
    roots = {
        "inverse_margin": 1 / size,
        "params": jnp.sqrt(jnp.asarray(float(sum(w.size for w in matrices)), dtype)),
        "l2": jnp.sqrt(frobenius(fro)),
        "l2_dist": jnp.sqrt(frobenius(fro_shift)),
        "param_norm": frobenius(fro),
        "fro_dist": frobenius(fro_shift),
    }
    logs |= _products("fro", fro, size, "")
    for suffix, at in (("", None), ("_fft", sizes)):
        if suffix and at is None:
            continue
        spec = _spectral_norms(kernels, at).astype(dtype)
        spec_shift = _spectral_norms(shifts, at).astype(dtype)
        products = _products("spec", spec, size, suffix)
        ratio = jnp.where(fro == 0, fro, fro / spec)
        roots |= {
            f"fro_over_spec{suffix}": frobenius(ratio),
            f"dist_spec_init{suffix}": frobenius(spec_shift),
        }
        logs |= products | {
            f"log_spec_orig_main{suffix}": _main(spec, fro) - 2 * jnp.log(size),
            f"log_spec_init_main{suffix}": _main(spec, fro_shift) - 2 * jnp.log(size),
        }
    if path_norm is not None:
        root = jnp.sqrt(jnp.asarray(path_norm, dtype))
        roots |= {"path_norm": root, "path_norm_over_margin": root / size}
    return adjusted(logs, roots, num_samples, adjust) | {"margin_sign": jnp.sign(margin)}
