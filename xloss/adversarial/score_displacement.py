# SPDX-License-Identifier: Apache-2.0
"""The inner maximisation of the smooth adversarial comp-sum loss.

Mao, Mohri, Zhong, "Cross-Entropy Loss Functions: Theoretical Analysis and Applications"
(ADV-COMP-SUM). Reach for it before :func:`xloss.adversarial.smooth_adversarial_comp_sum`; it is not
the adversary of the loss but of how far the score gaps move.
"""

import functools
from typing import Any

import jax
from jax.typing import ArrayLike

from xloss import numerics
from xloss.adversarial import ascent
from xloss.adversarial.logits import displacement_norm, promote_pair
from xloss.typing import Array, PRNGKey


def maximize_score_displacement(
    apply_fn: Any,
    inputs: ArrayLike,
    labels: ArrayLike,
    *,
    key: PRNGKey,
    radius: ArrayLike,
    norm: str = "linf",
    steps: int = 10,
    step_size: ArrayLike | None = None,
    bounds: tuple[ArrayLike, ArrayLike] | None = None,
    restarts: int = 1,
    where: ArrayLike | None = None,
) -> Array:
    """Looks for the inputs nearby whose score gaps are farthest from the clean ones.

    Definition, with gaps D(x) = (z_y - z_k) over k != y::

        maximise ||D(x') - D(x)||_2  over  ||x' - x|| <= radius,  low <= x' <= high

    by projected ascent from a random point of the ball (at x itself the norm has no gradient);
    the steps are those of :func:`xloss.adversarial.pgd`.

    Args:
      apply_fn: inputs [..., features] -> logits [..., K], each example by itself; parameters as in
        ``jax.tree_util.Partial(apply, params)`` stay traced and get no gradient.
      inputs: [..., features].
      labels: integer y [...] in [0, K).
      key: PRNG key of the random start.
      radius: of the ball, scalar >= 0, traced.
      norm: "linf" or "l2", over the features of an example.
      steps: ascent steps, static.
      step_size: scalar >= 0, traced; None is 2.5 radius / steps, a quarter of it at 10 steps.
      bounds: (low, high) of legal inputs, such as (0, 1) for pictures; None for none.
      restarts: random starts, static; every example keeps its best. One alone can end far below
        the supremum now and then.
      where: bool [...]; masked examples are returned as they are.

    Returns:
      Attacked inputs, of the inputs' shape, the best iterate of every example; float32 (float64
      for float64 inputs), a constant for differentiation.

    Raises:
      TypeError: wrong dtypes, not a key, apply_fn not callable.
      ValueError: shapes that do not fit, unknown norm, numbers out of range.

    Numerics:
      Runs in float32 whatever the inputs' dtype. A model that does not react to its inputs leaves
      them at the start. With radius 0 the inputs come back.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> apply = jax.tree_util.Partial(lambda w, x: x @ w, jnp.array([[1.0, -1.0]]))
      >>> x, key = jnp.array([[0.5]]), jax.random.key(0)
      >>> x_adv = maximize_score_displacement(apply, x, jnp.array([0]), key=key, radius=0.25)
      >>> jnp.abs(x_adv - x).tolist()
      [[0.25]]

    Evidence: published formula, derived and checked.

    References:
      Mao, Mohri, Zhong, "Cross-Entropy Loss Functions: Theoretical Analysis and Applications",
      ICML 2023, arXiv 2304.07288. No authors' code is known. The start here is random in the
      whole ball, not close to x, and the best iterate is returned.
    """
    name = "maximize_score_displacement"
    inputs, labels, where, settings, plan = ascent.check(
        name,
        inputs,
        labels,
        key=key,
        radius=radius,
        norm=norm,
        steps=steps,
        step_size=step_size,
        bounds=bounds,
        restarts=restarts,
        random_start=True,
        start=None,
        best=True,
        where=where,
    )
    apply_fn = ascent.callable_pytree(name, "apply_fn", apply_fn)
    return _maximize(apply_fn, inputs, labels, where, settings, plan)


@functools.partial(jax.jit, static_argnames=("plan",))
def _maximize(apply_fn, inputs, labels, where, settings, plan):
    name = "maximize_score_displacement"
    apply_fn = jax.lax.stop_gradient(apply_fn)
    labels = numerics.masked(labels, where)
    x = numerics.promote(ascent.without_masked(inputs, where))
    clean = jax.lax.stop_gradient(ascent.logits_of(name, apply_fn, x, labels))

    def value_of(x):
        pair = promote_pair(clean, ascent.logits_of(name, apply_fn, x, labels), None)
        return displacement_norm(*pair, labels), ()

    return ascent.ascend(value_of, inputs, labels, where, settings, plan)[0]
