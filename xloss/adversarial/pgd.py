# SPDX-License-Identifier: Apache-2.0
"""Projected gradient descent (PGD): the standard first-order attack.

Madry, Makelov, Schmidt, Tsipras, Vladu, "Towards Deep Learning Models Resistant to Adversarial
Attacks". Reach for it inside adversarial training (few steps) and, with the margin objective, many
steps and restarts, to evaluate. It finds a lower bound of what an adversary can do.
"""

import functools
from typing import Any, NamedTuple

import jax
from jax.typing import ArrayLike

from xloss import checks, numerics
from xloss.adversarial import ascent
from xloss.adversarial.logits import kl_divergence, promote_pair
from xloss.statistics import logit_statistics
from xloss.typing import Array, PRNGKey

_OBJECTIVES = ("ce", "margin", "kl")


class PGDResult(NamedTuple):
    """What the attack found, constants for differentiation.

    Attributes:
      x_adv: attacked inputs, of the inputs' shape; float32 (float64 for float64 inputs).
      loss: the objective there [...]; 0 where masked.
      success: bool [...], whether x_adv is misclassified, a tie being a mistake; False where
        masked.
    """

    x_adv: Array
    loss: Array
    success: Array


def pgd(
    apply_fn: Any,
    inputs: ArrayLike,
    labels: ArrayLike,
    *,
    key: PRNGKey | None = None,
    radius: ArrayLike,
    norm: str = "linf",
    objective: Any = "ce",
    steps: int = 10,
    step_size: ArrayLike | None = None,
    bounds: tuple[ArrayLike, ArrayLike] | None = (0.0, 1.0),
    restarts: int = 1,
    random_start: bool = True,
    start: ArrayLike | None = None,
    return_best: bool = True,
    project_last: str = "box",
    where: ArrayLike | None = None,
) -> PGDResult:
    """Maximises an objective over the inputs within a ball and a box.

    Definition, from d_0 random in the ball (linf: uniform; l2: uniform direction and length)::

        linf: d <- clip(d + step_size sign(g), -radius, radius)
        l2:   d <- d + step_size g / ||g||, scaled down to radius where longer
        then  d <- clip(x + d, low, high) - x      (before the ball: project_last="ball")
        "ce": -log p_y.  "margin": max over k != y of z_k - z_y, > 0 iff misclassified.
        "kl": KL(p(x) || p(x')), the attack of TRADES

    Args:
      apply_fn: inputs [..., features] -> logits [..., K], each example by itself (evaluation mode:
        no dropout, no batch statistics); normalisation belongs inside it. Hand parameters over
        as ``jax.tree_util.Partial(apply, params)``: they stay traced and get no gradient through
        the attack. A new lambda in every eager call compiles in every call.
      inputs: [..., features], within ``bounds``.
      labels: integer y [...] in [0, K).
      key: PRNG key, needed for a random start; or keys [...], one for each example, whose start
        then does not depend on the batch that it is in.
      radius: of the ball, scalar >= 0, traced, in the unit of the inputs.
      norm: "linf" or "l2", over the features of an example.
      objective: "ce", "margin", "kl", or (logits, labels) -> [...] to be maximised (a Partial to
        trace what it holds).
      steps: ascent steps, static.
      step_size: scalar >= 0, traced; None is 2.5 radius / steps.
      bounds: (low, high) of legal inputs, scalars or arrays that broadcast to the inputs; None
        for none.
      restarts: random starts, static; every example keeps its best. They do not find every class:
        one attack for each, with (logits, labels) -> z_t - z_y, is exact on linear models.
      random_start: False starts at the inputs ("kl" has no gradient there).
      start: inputs to start from instead, projected first; of the inputs' shape.
      return_best: False returns the last iterate, as the authors' training does.
      project_last: "box", or "ball" for the order of the authors of TRADES under l2: box first.
      where: bool [...]; masked examples are returned as they are.

    Returns:
      :class:`PGDResult`. Restarts cost steps + 1 evaluations each, steps of them with gradient.

    Raises:
      TypeError: wrong dtypes, no key for a random start, functions that are not callable.
      ValueError: shapes that do not fit, unknown norm or objective, numbers out of range.

    Numerics:
      Runs in float32 whatever the inputs' dtype. "ce" ascends the log-odds, which have the same
      direction and do not saturate. An example of zero gradient stays; NaN ends nothing: the best
      finite iterate is kept. Within the ball to rounding (1e-6 relative); inputs outside the
      bounds come back inside them, which may be outside the ball.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> apply = jax.tree_util.Partial(lambda w, x: x @ w, jnp.array([[1.0, -1.0]]))
      >>> found = pgd(apply, jnp.array([[0.5]]), jnp.array([0]), key=jax.random.key(0), radius=0.25)
      >>> found.x_adv.tolist()
      [[0.25]]

    Evidence: authors' code.

    References:
      Madry, Makelov, Schmidt, Tsipras, Vladu, "Towards Deep Learning Models Resistant to
      Adversarial Attacks", ICLR 2018, arXiv 1706.06083; checked against ``attack_pgd`` of
      csdongxian/AWP. Departures: the best iterate by default; a start outside the ball is
      projected; l2 gradients are normalised without adding 1e-10.
    """
    name = "pgd"
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
        random_start=random_start,
        start=start,
        best=return_best,
        project_last=project_last,
        where=where,
    )
    apply_fn = ascent.callable_pytree(name, "apply_fn", apply_fn)
    if isinstance(objective, str):
        kind, custom = checks.choice(name, "objective", objective, _OBJECTIVES), None
    else:
        kind, custom = "", ascent.callable_pytree(name, "objective", objective)
    return _pgd(apply_fn, custom, inputs, labels, where, settings, plan, kind)


@functools.partial(jax.jit, static_argnames=("plan", "kind"))
def _pgd(apply_fn, custom, inputs, labels, where, settings, plan, kind):
    apply_fn, custom = jax.lax.stop_gradient((apply_fn, custom))
    labels = numerics.masked(labels, where)
    clean = None
    if kind == "kl":
        x = numerics.promote(ascent.without_masked(inputs, where))
        clean = jax.lax.stop_gradient(ascent.logits_of("pgd", apply_fn, x, labels))

    def value_of(x):
        logits = ascent.logits_of("pgd", apply_fn, x, labels)
        stats = logit_statistics(logits, labels)
        if clean is not None:
            values = kl_divergence(*promote_pair(clean, logits, None))
        elif kind == "ce":
            values = -stats.log_odds
        elif kind == "margin":
            values = -stats.lead
        else:
            values = custom(logits, labels)
            if getattr(values, "shape", None) != labels.shape:
                raise ValueError(
                    f"pgd: expected objective to return shape {labels.shape}, got "
                    f"{checks.describe(values)}"
                )
        return values, stats.lead

    x_adv, values, lead = ascent.ascend(value_of, inputs, labels, where, settings, plan)
    loss = jax.nn.softplus(values) if kind == "ce" else values
    return PGDResult(x_adv, numerics.masked(loss, where), numerics.masked(lead <= 0, where))
