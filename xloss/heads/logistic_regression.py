# SPDX-License-Identifier: Apache-2.0
"""Logistic regression to convergence: the linear head that many examples deserve.

Zheng et al., with scikit-learn's objective. Reach for it to evaluate frozen features (a linear
probe) where the answer must not depend on a learning rate or a number of epochs; with a few
examples a class look at ``gaussian_nb_update`` first.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from xloss import checks, numerics
from xloss.statistics import as_statistics
from xloss.typing import Array

#: So many steps in a row without a smaller objective: rounding is all that is left.
PATIENCE = 10


class LogisticRegressionResult(NamedTuple):
    """A fitted linear layer, and how well it was fitted.

    Attributes:
      kernel: [n, K].
      bias: [K], of mean 0 over the classes that have examples; -inf for the others.
      objective: its value there.
      gradient_norm: greatest entry of the gradient of objective / (inverse_penalty N) there.
      steps: int32, steps taken.
    """

    kernel: Array
    bias: Array
    objective: Array
    gradient_norm: Array
    steps: Array


def logistic_regression(
    x: ArrayLike,
    labels: ArrayLike,
    *,
    num_classes: int,
    inverse_penalty: ArrayLike = 1.0,
    steps: int = 1000,
    tol: ArrayLike = 1e-5,
    where: ArrayLike | None = None,
) -> LogisticRegressionResult:
    """Multinomial logistic regression with an L2 penalty, solved by L-BFGS.

    Definition, over kernel W [n, K] and bias b [K] from zeros, with C = inverse_penalty::

        objective = 1/2 ||W||^2 + C sum_i -log softmax(x_i W + b)[labels_i]

    b is not penalised. The gradient is looked at as that of the mean, objective / (C N).

    Args:
      x: features [N, n], any float dtype; of a size near 1 (see below).
      labels: integer [N] in [0, K).
      num_classes: K >= 1.
      inverse_penalty: C > 0, scalar, traced; scikit-learn's C.
      steps: at most so many, >= 1.
      tol: it stops when no entry of the gradient is larger, scalar >= 0, traced.
      where: bool [N]; False leaves an example out. With it one compiled program serves samples of
        several sizes.

    Returns:
      LogisticRegressionResult in float32 (float64 for float64 x). Look at gradient_norm: above
      tol the solver ran out of steps or of digits.

    Raises:
      TypeError: wrong dtypes.
      ValueError: shapes that do not fit, numbers out of range.

    Numerics:
      x is centred inside, which the bias makes up for. In float32 the gradient gets to about 1e-7
      times the size of x; with 10 steps in a row that do not lower the objective it ends. Classes
      without examples get probability 0 (their bias would go to -inf slowly). A label out of range
      gives NaN. For K = 2 the penalty is half that of a single weight vector. No reverse-mode
      gradient goes through the fit.

    Example:
      >>> import jax.numpy as jnp
      >>> x, labels = jnp.array([[0.0], [1.0], [2.0], [3.0]]), jnp.array([0, 0, 1, 1])
      >>> fit = logistic_regression(x, labels, num_classes=2)
      >>> (x @ fit.kernel + fit.bias[None, :]).argmax(-1).tolist(), bool(fit.gradient_norm < 1e-5)
      ([0, 0, 1, 1], True)

    Evidence: authors' code.

    References:
      Zheng, Wu, Bao, Cao, Li, Zhu, "Revisiting Discriminative vs. Generative Classifiers: Theory
      and Implications", ICML 2023, arXiv 2302.02334; authors' code
      ML-GSAI/Revisiting-Dis-vs-Gen-Classifiers (scikit-learn's LogisticRegression).
    """
    name = "logistic_regression"
    x = checks.floating(name, "x", x)
    if x.ndim != 2 or 0 in x.shape:
        raise ValueError(f"{name}: expected x of shape (N, n), none of them 0, got {x.shape}")
    labels = checks.integer(name, "labels", labels)
    checks.same_shape(name, "labels", labels, x.shape[:1])
    where = checks.mask(name, where, x.shape[:1])
    for argument, value in (("num_classes", num_classes), ("steps", steps)):
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{name}: expected {argument} to be an integer >= 1, got {value!r}")
    penalty = checks.number(name, "inverse_penalty", inverse_penalty, low=0.0, open_low=True)
    if penalty == math.inf:
        raise ValueError(f"{name}: expected inverse_penalty to be finite, got inf")
    tol = checks.number(name, "tol", tol, low=0.0)
    return _fit(x, labels, where, penalty, tol, num_classes=num_classes, steps=steps)


def _matmul(a: Array, b: Array) -> Array:
    # In the accelerator's 8 or 10 bits the gradient would not get small.
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


@functools.partial(jax.jit, static_argnames=("num_classes", "steps"))
def _fit(x, labels, where, inverse_penalty, tol, *, num_classes, steps):
    x = numerics.promote(x)
    inverse_penalty, tol = (numerics.scalar(value, x) for value in (inverse_penalty, tol))
    kept = jnp.ones(labels.shape, jnp.bool_) if where is None else where
    x = jnp.where(kept[:, None], x, 0.0)
    size = jnp.maximum(jnp.sum(kept, dtype=jnp.int32), 1).astype(x.dtype)
    centre = jnp.sum(x, axis=0) / size
    x = jnp.where(kept[:, None], x - centre[None, :], 0.0)
    member = numerics.one_hot_last(labels, (*labels.shape, num_classes)) & kept[:, None]
    there = jnp.any(member, axis=0)

    def objective(parameters):
        kernel, bias = parameters
        logits = jnp.where(there[None, :], _matmul(x, kernel) + bias[None, :], -jnp.inf)
        losses = numerics.nats(as_statistics(logits, labels, kept).log_odds)
        mean = jnp.sum(numerics.masked(losses, kept)) / size
        return mean + 0.5 * jnp.sum(jnp.square(kernel)) / (inverse_penalty * size)

    solver = optax.lbfgs()
    value_and_gradient = jax.value_and_grad(objective)

    def largest(gradient):
        return jnp.maximum(*(jnp.max(jnp.abs(leaf)) for leaf in gradient))

    def go_on(carry):
        return (carry["step"] < steps) & (carry["norm"] > tol) & (carry["idle"] < PATIENCE)

    def move(carry):
        parameters, state = carry["parameters"], carry["state"]
        value, gradient = carry["value"], carry["gradient"]
        # Optax's L-BFGS adds int32 to int64 under x64, which strict promotion does not allow.
        with jax.numpy_dtype_promotion("standard"):
            updates, state = solver.update(
                gradient, state, parameters, value=value, grad=gradient, value_fn=objective
            )
        parameters = optax.apply_updates(parameters, updates)
        value, gradient = value_and_gradient(parameters)
        norm = largest(gradient)
        better = value < carry["value"]
        closer = better | ((value <= carry["value"]) & (norm < carry["norm"]))
        return {
            "parameters": parameters,
            "state": state,
            "value": value,
            "gradient": gradient,
            "norm": norm,
            "idle": jnp.where(closer, 0, carry["idle"] + 1),
            "step": carry["step"] + 1,
        }

    zeros = (jnp.zeros((x.shape[1], num_classes), x.dtype), jnp.zeros(num_classes, x.dtype))
    value, gradient = value_and_gradient(zeros)
    start = {
        "parameters": zeros,
        "state": solver.init(zeros),
        "value": value,
        "gradient": gradient,
        "norm": largest(gradient),
        "idle": jnp.zeros((), jnp.int32),
        "step": jnp.zeros((), jnp.int32),
    }
    end = jax.lax.while_loop(go_on, move, start)
    kernel, bias = end["parameters"]
    bias = bias - _matmul(centre, kernel)
    bias = bias - jnp.sum(jnp.where(there, bias, 0.0)) / jnp.sum(there, dtype=bias.dtype)
    bias = jnp.where(there, bias, -jnp.inf)
    # Labels out of range end the loop at its zeros, which look like a fit.
    sound = jnp.isfinite(end["value"])
    return LogisticRegressionResult(
        kernel=jnp.where(sound, kernel, jnp.nan),
        bias=jnp.where(sound, bias, jnp.nan),
        objective=end["value"] * inverse_penalty * size,
        gradient_norm=end["norm"],
        steps=end["step"],
    )
