# SPDX-License-Identifier: Apache-2.0
"""Norms of layers and networks: spectral norms of matrices and convolutions, path norm.

The building blocks of the measures of Jiang et al., "Fantastic Generalization Measures and Where to
Find Them"; :func:`norm_measures` puts them together. Kernels are in JAX's layout, the outputs in
the last axis: [in, out], [height, width, in, out].
"""

import functools
from collections.abc import Callable, Iterable, Sequence

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from xloss import checks, numerics
from xloss.typing import Array, PRNGKey, PyTree


def spectral_norm(
    w: ArrayLike, *, num_iters: int | None = None, key: PRNGKey | None = None
) -> Array:
    """The greatest singular value of a matrix, or of a kernel as a matrix [rest, out].

    Definition: max over v of ||W v|| / ||v||, exact by SVD, or from below by num_iters steps of
    v <- W^T W v / ||W^T W v|| from a random start.

    Args:
      w: [..., out] with at least two axes, any float dtype; all but the last are one. That of a
        convolution kernel in this form is a proxy for the norm of the convolution:
        :func:`conv_spectral_norm` has the latter.
      num_iters: None for the exact value, else steps of power iteration, int >= 1, static: two
        products a step, for matrices whose SVD is too slow.
      key: PRNG key of the start of a power iteration, which needs one.

    Returns:
      Scalar >= 0, float32 (float64 for float64).

    Raises:
      TypeError: wrong dtype, or no key where it is needed.
      ValueError: fewer than two axes, no entries, or num_iters < 1.

    Numerics:
      Neither huge nor tiny entries overflow or vanish on the way; NaN or inf in w gives NaN. The
      power iteration never exceeds the norm and comes within 1 % of it in about
      5 / log(s_1 / s_2) steps. The gradient is u v^T; where the greatest singular value is
      repeated, that of one of its pairs.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> w = jnp.array([[3.0, 0.0], [0.0, -4.0], [0.0, 0.0]])
      >>> round(float(spectral_norm(w)), 4)
      4.0
      >>> round(float(spectral_norm(w, num_iters=20, key=jax.random.key(0))), 3)
      4.0

    Evidence: authors' code.

    References:
      Jiang, Neyshabur, Mobahi, Krishnan, Bengio, "Fantastic Generalization Measures and Where to
      Find Them", ICLR 2020, arXiv 1912.02178; code nitarshan/robust-generalization-measures of
      Dziugaite et al. (kernels [out, in, height, width] there: the same values). Power iteration:
      Miyato, Kataoka, Koyama, Yoshida, "Spectral Normalization for Generative Adversarial
      Networks", ICLR 2018.
    """
    name = "spectral_norm"
    matrix = as_matrix(name, "w", w)
    if num_iters is None:
        return _spectral(matrix)
    if type(num_iters) is not int or num_iters < 1:
        raise ValueError(f"{name}: expected num_iters to be an int >= 1, got {num_iters!r}")
    if key is None:
        raise TypeError(f"{name}: expected a key with num_iters, got None")
    return _power_iteration(matrix, key, num_iters=num_iters)


def conv_spectral_norm(kernel: ArrayLike, input_size: tuple[int, int]) -> Array:
    """The greatest singular value of a convolution as a linear map, for periodic padding.

    Definition, with the Fourier transform F [n, m, in, out] of the kernel, zero-padded to the size
    n x m of the feature maps that come in: the greatest singular value of the n m matrices.

    Args:
      kernel: [height, width, in, out], any float dtype; stride 1.
      input_size: (n, m) of the maps that this layer sees, ints >= 1, static.

    Returns:
      Scalar >= 0, float32 (float64 for float64).

    Raises:
      TypeError: wrong dtype.
      ValueError: a kernel that has not four axes, or no entries; sizes that are no ints >= 1.

    Numerics:
      n (m / 2 + 1) complex singular value decompositions of [in, out]; complex64 (complex128 for
      float64). For zero padding it is an approximation, the better the larger the map. NaN or inf
      in the kernel gives NaN.

    Example:
      >>> import jax.numpy as jnp
      >>> box = jnp.ones((3, 3, 1, 1))
      >>> round(float(conv_spectral_norm(box, (8, 8))), 4)  # a constant map, times 9
      9.0

    Evidence: authors' code.

    References:
      Sedghi, Gupta, Long, "The Singular Values of Convolutional Layers", ICLR 2019,
      arXiv 1805.10408; code nitarshan/robust-generalization-measures of Dziugaite et al., which
      crops a kernel that is larger than the map (here it is wrapped around, as the periodic
      convolution does) and gives every layer the size of the network's input.
    """
    name = "conv_spectral_norm"
    array = numerics.promote(checks.floating(name, "kernel", kernel))
    if array.ndim != 4 or array.size == 0:
        raise ValueError(
            f"{name}: expected kernel [height, width, in, out] with entries, got {array.shape}"
        )
    return _conv_spectral(array, size=map_sizes(name, "input_size", input_size, axes=2))


def path_norm(
    apply_fn: Callable[[PyTree, Array], Array], params: PyTree, input_shape: Sequence[int]
) -> Array:
    """Sum over all paths from input to output of the product of the squared weights on them.

    Definition, for a network of ReLUs and linear layers, biases included: the sum of the outputs
    of the network in which every parameter is squared, at one input of ones.

    Args:
      apply_fn: (params, inputs [1, *input_shape]) -> outputs, of any shape.
      params: tree of arrays; those of a float dtype are squared. Fold batch norm into the layer
        before it first, and switch dropout off in apply_fn: both make it another number.
      input_shape: of one example, without the batch's axis; ints >= 1.

    Returns:
      Scalar >= 0, float32 (float64 where a leaf of params is).

    Raises:
      TypeError: apply_fn is no function, or outputs of another dtype than float.
      ValueError: params without float leaves, or an impossible shape.

    Numerics:
      Products over layers of squares: inf or 0 where float32 ends (deep or badly scaled networks).
      Give float64 params then, or :func:`log_path_norm` the layers of a dense network.

    Example:
      >>> import jax.numpy as jnp
      >>> params = [jnp.array([[1.0, -2.0]]), jnp.array([[3.0], [-1.0]])]
      >>> float(path_norm(lambda p, x: jnp.maximum(x @ p[0], 0.0) @ p[1], params, (1,)))
      13.0

    Evidence: authors' code.

    References:
      Neyshabur, Tomioka, Srebro, "Norm-Based Capacity Control in Neural Networks", COLT 2015,
      arXiv 1503.00036; code nitarshan/robust-generalization-measures of Dziugaite et al.
    """
    name = "path_norm"
    if not callable(apply_fn):
        raise TypeError(
            f"{name}: expected apply_fn to be a function, got {checks.describe(apply_fn)}"
        )
    shape = map_sizes(name, "input_shape", input_shape)
    leaves, treedef = jax.tree.flatten(params)
    leaves = [jnp.asarray(leaf) for leaf in leaves]
    real = [jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in leaves]
    if not any(real):
        raise ValueError(f"{name}: expected params with leaves of a float dtype, got none")
    squares = [
        jnp.square(numerics.promote(x)) if r else x for x, r in zip(leaves, real, strict=True)
    ]
    ones = jnp.ones((1, *shape), widest(leaves))
    outputs = apply_fn(treedef.unflatten(squares), ones)
    outputs = checks.floating(name, "apply_fn(params, inputs)", outputs)
    return jnp.sum(numerics.promote(outputs))


def log_path_norm(kernels: Sequence[ArrayLike], biases: Sequence[ArrayLike] | None = None) -> Array:
    """log of :func:`path_norm` of a dense ReLU network, however deep: nothing overflows.

    Definition, with elementwise squares: v_0 = ones [d_0], v_i = v_(i-1) W_i^2 + b_i^2; the log of
    the sum of the last v, from log-sum-exps of log v_(i-1) + 2 log |W_i|.

    Args:
      kernels: W_i [d_(i-1), d_i] in the order of the layers, any float dtype.
      biases: b_i [d_i], one for every kernel, or None.

    Returns:
      Scalar, nats, float32 (float64 for float64); -inf where every path is 0.

    Raises:
      TypeError: wrong dtypes.
      ValueError: no kernels, shapes that do not follow on each other, not one bias a kernel.

    Numerics:
      To a few ulp of the log, and as many exps and logs as there are weights. The derivative in a
      weight of 0 is 0.

    Example:
      >>> import jax.numpy as jnp
      >>> deep = [10.0 * jnp.ones((4, 4))] * 30  # 400^30 is no float32
      >>> bool(jnp.allclose(log_path_norm(deep), 30 * jnp.log(400.0) + jnp.log(4.0)))
      True

    Evidence: published formula, derived and checked.

    References:
      Neyshabur, Tomioka, Srebro, "Norm-Based Capacity Control in Neural Networks", COLT 2015,
      arXiv 1503.00036.
    """
    name = "log_path_norm"
    if len(kernels) == 0:
        raise ValueError(f"{name}: expected at least one kernel, got none")
    if biases is not None and len(biases) != len(kernels):
        raise ValueError(
            f"{name}: expected biases, one for each of {len(kernels)} kernels, got {len(biases)}"
        )
    matrices = [
        numerics.promote(checks.floating(name, f"kernels[{i}]", w)) for i, w in enumerate(kernels)
    ]
    for i, w in enumerate(matrices):
        fan_in = w.shape[:1] if i == 0 else matrices[i - 1].shape[1:]
        if w.ndim != 2 or w.size == 0 or w.shape[:1] != fan_in:
            raise ValueError(
                f"{name}: expected kernels[{i}] [{fan_in[0] if i else 'in'}, out], got {w.shape}"
            )
    offsets = None
    if biases is not None:
        offsets = [checks.floating(name, f"biases[{i}]", b) for i, b in enumerate(biases)]
        for i, b in enumerate(offsets):
            checks.same_shape(name, f"biases[{i}]", b, matrices[i].shape[1:])
    return _log_paths(matrices, offsets, dtype=widest(matrices))


def as_matrix(function: str, name: str, w: ArrayLike) -> Array:
    """A kernel [..., out] as a float32 (float64) matrix [rest, out].

    Raises:
      TypeError: wrong dtype.
      ValueError: fewer than two axes, or no entries.
    """
    array = numerics.promote(checks.floating(function, name, w))
    if array.ndim < 2 or array.size == 0:
        raise ValueError(
            f"{function}: expected {name} [..., out] with at least two axes and no bias or scale "
            f"among them, got shape {array.shape}"
        )
    return array.reshape(-1, array.shape[-1])


def widest(arrays: Iterable[Array]) -> jnp.dtype:
    """float64 if one of the arrays is, else float32."""
    wide = any(x.dtype == jnp.float64 for x in arrays)
    return jnp.dtype(jnp.float64 if wide else jnp.float32)


def map_sizes(
    function: str, name: str, sizes: Sequence[int], axes: int | None = None
) -> tuple[int, ...]:
    """A shape (of ``axes`` axes, if given) as a tuple.

    Raises:
      ValueError: it is no sequence of ints >= 1, or of another length.
    """
    found = tuple(sizes) if isinstance(sizes, Sequence) else None
    whole = found is not None and all(type(n) is int and n >= 1 for n in found)
    if found is None or not whole or (axes is not None and len(found) != axes):
        count = "" if axes is None else f"{axes} "
        raise ValueError(f"{function}: expected {name} to be {count}ints >= 1, got {sizes!r}")
    return found


@functools.partial(jax.jit, static_argnames="dtype")
def _log_paths(matrices, biases, *, dtype):
    def log_square(x):
        # The derivative of a path's square is 0 where a weight is, not the 2 / 0 of its logarithm.
        x = jnp.abs(x.astype(dtype))
        return jnp.where(x == 0, -jnp.inf, 2 * jnp.log(jnp.where(x == 0, 1.0, x)))

    def add(logs, axis=None):
        # Nor has a unit that no path reaches a derivative of 0 / 0.
        lost = jnp.all(jnp.isneginf(logs), axis=axis, keepdims=True)
        found = jax.nn.logsumexp(jnp.where(lost, 0.0, logs), axis=axis)
        return jnp.where(jnp.squeeze(lost, axis=axis), -jnp.inf, found)

    logs = jnp.zeros(matrices[0].shape[0], dtype)
    for i, w in enumerate(matrices):
        terms = logs[:, None] + log_square(w)
        if biases is not None:
            terms = jnp.concatenate([terms, log_square(biases[i])[None, :]], axis=0)
        logs = add(terms, axis=0)
    return add(logs)


def _scaled(x: Array) -> tuple[Array, Array]:
    """(peak, x / peak): squares of huge or tiny entries neither overflow nor vanish."""
    peak = jax.lax.stop_gradient(jnp.max(jnp.abs(x)))
    peak = jnp.where(peak == 0, jnp.ones_like(peak), peak)
    return peak, x / peak


@jax.jit
def _spectral(matrix):
    peak, scaled = _scaled(matrix)
    # The first is the greatest; a maximum would mix the gradients of equal ones.
    return peak * jnp.linalg.svd(scaled, compute_uv=False)[0]


@functools.partial(jax.jit, static_argnames="num_iters")
def _power_iteration(matrix, key, *, num_iters):
    peak, scaled = _scaled(matrix)
    fixed = jax.lax.stop_gradient(scaled)

    def unit(x):
        length = jnp.linalg.norm(x)
        return x / jnp.where(length == 0, jnp.ones_like(length), length)

    # A Gaussian start is orthogonal to the wanted direction with probability 0.
    start = unit(jax.random.normal(key, matrix.shape[1:], matrix.dtype))
    v = jax.lax.fori_loop(0, num_iters, lambda _, v: unit(fixed.T @ unit(fixed @ v)), start)
    v = jax.lax.stop_gradient(v)
    # u W v with u and v held: its gradient in W is u v^T, that of the norm.
    return peak * (unit(fixed @ v) @ (scaled @ v))


@functools.partial(jax.jit, static_argnames="size")
def _conv_spectral(kernel, *, size):
    peak, scaled = _scaled(kernel)
    (height, width), (n, m) = kernel.shape[:2], size
    # A kernel larger than the map is wrapped around: pad to whole maps and add them up.
    rows, columns = -(-height // n), -(-width // m)
    edges = ((0, rows * n - height), (0, columns * m - width), (0, 0), (0, 0))
    tiles = jnp.pad(scaled, edges).reshape(rows, n, columns, m, *kernel.shape[2:])
    wrapped = jnp.sum(tiles, axis=(0, 2))
    # The other half of the frequencies are the conjugates, with the same singular values.
    frequencies = jnp.fft.rfft2(wrapped, axes=(0, 1))
    return peak * jnp.max(jnp.linalg.svd(frequencies, compute_uv=False))
