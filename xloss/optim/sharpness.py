# SPDX-License-Identifier: Apache-2.0
"""How much the loss rises near the parameters: the number that SAM holds down.

"Sharpness-Aware Minimization for Efficiently Improving Generalization". Reach for it to compare two
minima of EQUAL training loss; between runs whose losses differ it says little (a run that fits less
well is often flatter or sharper for that reason alone). kind="hessian_top" is the curvature that
bounds the learning rate of gradient descent.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from xloss import checks, numerics
from xloss.optim import perturbation, trees
from xloss.typing import Array, PRNGKey, PyTree

KINDS = ("ascent", "random", "hessian_top")


def sharpness(
    loss_fn: Callable[[PyTree], Array],
    params: PyTree,
    *,
    rho: ArrayLike = 0.05,
    kind: str = "ascent",
    mask: trees.Mask = None,
    key: PRNGKey | None = None,
    num_samples: int = 8,
    num_iters: int = 20,
) -> Array:
    """L(w + e) - L(w), e along the gradient or random; or the greatest eigenvalue of the Hessian.

    Definition, one norm over all (masked-in) parameters::

        ascent   L(w + rho g / (||g|| + 1e-12)) - L(w), g = grad L(w): SAM's inner maximum to first
                 order
        random   mean over num_samples of L(w + rho u) - L(w), u uniform on the unit sphere; about
                 rho^2 trace(Hessian) / (2 number of parameters) at a minimum
        hessian_top  max over unit vectors u of u^T H u, H the Hessian of L at w: the greatest
                 eigenvalue with its sign, not the greatest in magnitude; rho^2 / 2 times it is the
                 rise at distance rho of a minimum along the sharpest direction. It does not
                 depend on rho

    Args:
      loss_fn: params -> loss over a batch, a scalar.
      params: tree of float arrays.
      rho: radius in the unit of the parameters, scalar >= 0, traced; "hessian_top" has no use for
        it.
      kind: "ascent", "random" or "hessian_top"; static.
      mask: leaves that are perturbed, a tree of bools or a function params -> tree.
      key: PRNG key; kind="random" and the start of kind="hessian_top" need it.
      num_samples: directions of kind="random", int >= 1, one after another; static.
      num_iters: steps of Lanczos iteration of kind="hessian_top", int >= 1; static.

    Returns:
      Scalar, float32 (float64 for float64), in the unit of the loss; kind="ascent" may come out
      negative where rho oversteps the rise, kind="random" anywhere but at a minimum. Of
      kind="hessian_top" in the unit of the loss per squared unit of the parameters: negative where
      all curvature is.

    Raises:
      TypeError: key missing where it is needed, or a loss that is not of a float dtype.
      ValueError: rho < 0, an unknown kind, num_samples or num_iters < 1, or a loss that is not a
        scalar.

    Numerics:
      "ascent" costs one gradient and one loss, "random" num_samples + 1 losses. It is a difference
      of two losses: what is below 1e-7 of the loss is rounding in float32. loss_fn is given the
      parameters in float32 where they are narrower, in both terms. A zero gradient gives 0. Called
      many times, it belongs inside ``jax.jit`` with the batch as an argument.
      "hessian_top" costs a gradient and num_iters products of the Hessian with a vector (forward
      over reverse: the loss needs forward derivatives, which a custom_vjp has not), and keeps three
      trees of the size of params. It is the greatest Ritz value: but for rounding (1e-6 of the
      eigenvalue of greatest magnitude) never above the eigenvalue, rising to it with num_iters, and
      exact once that reaches the number of distinct eigenvalues. The same key gives the same
      number. A mask that leaves nothing gives 0.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> float(sharpness(lambda w: jnp.sum(w**2) / 2, jnp.array([3.0, 4.0]), rho=1.0))
      5.5
      >>> def saddle(w):
      ...     return 3.0 * w[0] ** 2 - 5.0 * w[1] ** 2
      >>> top = sharpness(saddle, jnp.ones(2), kind="hessian_top", key=jax.random.key(0))
      >>> round(float(top), 4)
      6.0

    Evidence: authors' code.

    References:
      "Sharpness-Aware Minimization for Efficiently Improving Generalization", ICLR 2021,
      arXiv 2010.01412. hessian_top: Lanczos, "An iteration method for the solution of the
      eigenvalue problem of linear differential and integral operators", 1950; how optimizers meet
      it: "Gradient Descent on Neural Networks Typically Occurs at the Edge of Stability", ICLR
      2021, arXiv 2103.00065.
    """
    name = "sharpness"
    rho = checks.number(name, "rho", rho, low=0.0)
    checks.choice(name, "kind", kind, KINDS)
    for argument, count in (("num_samples", num_samples), ("num_iters", num_iters)):
        if not isinstance(count, int) or count < 1:
            raise ValueError(f"{name}: expected {argument} to be an int >= 1, got {count!r}")
    if kind != "ascent" and key is None:
        raise TypeError(f"{name}: expected a key with kind={kind!r}, got None")
    loss_fn = trees.check_function(name, "loss_fn", loss_fn)
    trees.check_params(name, params)
    params = jax.tree.map(numerics.promote, params)

    def loss(params: PyTree) -> Array:
        value = checks.floating(name, "loss_fn(params)", loss_fn(params))
        checks.same_shape(name, "loss_fn(params)", value, ())
        return numerics.promote(value)

    def at(direction: PyTree) -> Array:
        step = perturbation.ascent(trees.select(direction, mask, params), rho)
        return loss(perturbation.moved(params, step))

    if kind == "ascent" or key is None:
        start, gradient = jax.value_and_grad(loss)(params)
        return at(gradient) - start

    def direction(key: PRNGKey) -> PyTree:
        leaves, treedef = jax.tree.flatten(params)
        keys = jax.random.split(key, len(leaves))
        draws = [jax.random.normal(k, x.shape, x.dtype) for k, x in zip(keys, leaves, strict=True)]
        return treedef.unflatten(draws)

    if kind == "hessian_top":
        start = trees.select(direction(key), mask, params)
        _, product = jax.linearize(jax.grad(loss), params)
        return _top_eigenvalue(lambda v: trees.select(product(v), mask, params), start, num_iters)

    start = loss(params)
    rises = jax.lax.map(lambda k: at(direction(k)) - start, jax.random.split(key, num_samples))
    return jnp.mean(rises)


def _top_eigenvalue(product: Callable[[PyTree], PyTree], start: PyTree, num_iters: int) -> Array:
    """Greatest Ritz value of a symmetric product after num_iters steps of Lanczos from start.

    Without reorthogonalisation: what rounding adds are copies of eigenvalues that are there
    already, which do not move the greatest. Directions that are rounding and nothing else are left
    out, though: each of them would move it by some more of that.
    """
    _, unit = trees.norm_and_unit(start)
    dtype = trees.dtype_of(unit)
    first = perturbation.cast_like(unit, start)  # a Hessian product takes its params' dtypes

    def step(
        state: tuple[PyTree, PyTree, Array], _: None
    ) -> tuple[tuple[PyTree, PyTree, Array], tuple[Array, Array]]:
        before, v, beta = state
        image = trees.add_scaled(product(v), -beta, before)
        alpha = trees.dot(image, v)
        after, unit = trees.norm_and_unit(trees.add_scaled(image, -alpha, v))
        cast = perturbation.cast_like(unit, v)
        return (v, cast, after), (alpha, after)

    zero = jax.tree.map(jnp.zeros_like, first)
    initial = (zero, first, jnp.zeros([], dtype))
    _, (alphas, betas) = jax.lax.scan(step, initial, length=num_iters)
    # Once a beta is 0 or rounding all that the start can reach is found, and what is behind it
    # tells nothing: put the first alpha in its place, which is never above the eigenvalue.
    size = jnp.maximum(jnp.max(jnp.abs(alphas)), jnp.max(betas))
    over = ~(betas[:-1] <= 10 * float(jnp.finfo(dtype).eps) * size)  # NaN stays
    alive = jnp.cumprod(jnp.concatenate([jnp.ones(1, jnp.bool_), over])) == 1
    diagonal = jnp.where(alive, alphas, alphas[0])
    beside = jnp.where(alive[1:], betas[:-1], jnp.zeros_like(betas[:-1]))
    matrix = jnp.diag(diagonal) + jnp.diag(beside, 1) + jnp.diag(beside, -1)
    return jnp.max(jnp.linalg.eigvalsh(matrix))
