# SPDX-License-Identifier: Apache-2.0
"""What the theory of `xloss.consistency` is worth in numbers, in seconds on one core.

    python -m experiments.benchmarks.consistency

prints, for the losses with a closed form, the zero-one regret that a surrogate excess of 0.01
allows, how far the numerical transform is from the closed form, how often the bound was violated
on random finite problems (never) and how close the closest of them came to it.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from xloss import consistency, surrogates
from xloss.classification import comp_sum

#: The losses of the table, sigmoid and rho-margin at a slope and a width that are not 1.
LOSSES: dict[str, Callable[..., Any]] = {
    "hinge": surrogates.hinge,
    "logistic": surrogates.logistic,
    "logistic_base2": consistency.logistic_base2,
    "exponential": surrogates.exponential,
    "squared": surrogates.squared,
    "squared_hinge": surrogates.squared_hinge,
    "sigmoid k=2": surrogates.bind(surrogates.sigmoid, slope=2.0),
    "rho_margin rho=0.5": surrogates.bind(surrogates.rho_margin, rho=0.5),
    "savage": surrogates.savage,
    "tangent": surrogates.tangent,
}
BOUNDS = (0.5, 2.0, math.inf)
T = np.linspace(0.0, 1.0, 101)
#: (tau, classes) where the closed comp-sum transform is tight, and where it is only a lower bound.
TIGHT = ((0.0, 2), (0.0, 5), (0.5, 3), (1.0, 2), (1.0, 10), (1.5, 2), (1.9, 2), (2.0, 2))
LOOSE = ((1.2, 3), (1.5, 3), (1.5, 10), (1.9, 5), (2.0, 5), (3.0, 3))


class Trial(NamedTuple):
    """Random problems against a bound.

    Attributes:
      violations: how many had T(zero-one excess) above the surrogate excess.
      best_ratio: greatest T(zero-one excess) / surrogate excess: 1 where the bound is attained.
    """

    violations: int
    best_ratio: float


def worst_difference(loss: Callable[..., Any], bound: float) -> float:
    """Greatest |numerical - closed| transform over t."""
    numeric = consistency.psi_transform(loss, T, bound=bound)
    return float(np.abs(numeric - consistency.h_transform(loss, T, bound=bound)).max())


def try_bound(
    loss: Callable[..., Any], bound: float, *, count: int = 10_000, seed: int = 0
) -> Trial:
    """Margin loss: problems of 1 to 5 points, random eta, random scores within the bound."""
    generator = np.random.default_rng(seed)
    # The least risk is a search: over 500 values of eta that all the problems share.
    pool = generator.beta(0.7, 0.7, 500)
    least = consistency.min_conditional_risk(loss, pool, bound=bound)
    picks = generator.integers(0, pool.size, (count, 5))
    eta, weights = pool[picks], _weights(generator, count)
    reach = min(bound, 6.0)
    # Half of the scores crowd around 0 and half of those have the wrong sign: the bound is close.
    scores = generator.uniform(-reach, reach, eta.shape)
    near = generator.random(eta.shape) < 0.5
    scores = np.where(near, scores * 10.0 ** generator.uniform(-6, 0, eta.shape), scores)
    wrong = generator.random(eta.shape) < 0.5
    scores = np.where(wrong, -np.sign(eta - 0.5) * np.abs(scores), scores)
    phi = values(loss, scores), values(loss, -scores)
    excess = (weights * (eta * phi[0] + (1.0 - eta) * phi[1] - least[picks])).sum(1)
    errors = np.where(scores > 0, 1.0 - eta, eta) - np.minimum(eta, 1.0 - eta)
    zero_one = (weights * errors).sum(1)
    return _trial(consistency.h_transform(loss, np.minimum(zero_one, 1.0), bound=bound), excess)


def try_comp_sum(tau: float, classes: int, *, count: int = 10_000, seed: int = 0) -> Trial:
    """Comp-sum: problems of 1 to 5 points, random p, random scores for all classes."""
    generator = np.random.default_rng(seed)
    shape = (count, 5)
    p = generator.dirichlet(np.full(classes, 0.4), shape)
    # A third of the points have two classes only: where the transform is tight for tau <= 1.
    pair = np.argsort(generator.random((*shape, classes)), axis=-1) < 2
    two = (generator.random(shape) < 0.34)[..., None]
    p = np.where(two, np.where(pair, p + 1e-3, 0.0), p)
    p /= p.sum(-1, keepdims=True)
    value, softmax = consistency.comp_sum_conditional_min(p, tau=tau)
    # Half of the scores are the best ones after the first two classes were levelled.
    order = np.argsort(-softmax, axis=-1)
    levelled = np.take_along_axis(softmax, order, -1)
    levelled[..., :2] = levelled[..., :2].mean(-1, keepdims=True)
    levelled[..., 1] *= 1.0 + 1e-6
    softmax = np.take_along_axis(levelled, np.argsort(order, axis=-1), -1)
    scores = np.where(
        (generator.random(shape) < 0.5)[..., None],
        np.log(np.maximum(softmax, 1e-30)),
        generator.normal(scale=3.0, size=p.shape),
    )
    excess = consistency.conditional_regret(
        lambda z, y: comp_sum(z, y, tau=tau), scores, p, minimum=value
    )
    weights = _weights(generator, count)
    zero_one = (weights * consistency.zero_one_regret(scores, p)).sum(1)
    bound = consistency.comp_sum_transform(np.minimum(zero_one, 1.0), tau=tau, num_classes=classes)
    return _trial(bound, (weights * excess).sum(1))


def values(loss: Callable[..., Any], margins: np.ndarray) -> np.ndarray:
    """phi in float64."""
    with jax.enable_x64(True):
        return np.asarray(loss(jnp.asarray(margins)))


def _weights(generator: np.random.Generator, count: int) -> np.ndarray:
    """Distributions over 5 points; a third of them sit on one point."""
    weights = generator.dirichlet(np.ones(5), count)
    alone = generator.random(count) < 0.34
    return np.where(alone[:, None], np.eye(5)[0], weights)


def _trial(bound: np.ndarray, excess: np.ndarray) -> Trial:
    counts = bound > 1e-6
    ratio = bound[counts] / np.maximum(excess[counts], 1e-300)
    size = np.maximum(1.0, np.abs(excess))
    return Trial(int((bound > excess + 1e-12 * size).sum()), float(ratio.max()))


def main() -> None:
    """Prints the tables."""
    print("zero-one regret that a surrogate excess of 0.01 allows, Gamma(0.01; A)")
    print(f"{'loss':<20}" + "".join(f"{f'A = {a:g}':>10}" for a in BOUNDS))
    for name, loss in LOSSES.items():
        row = [float(consistency.h_gamma(loss, 0.01, bound=a)) for a in BOUNDS]
        print(f"{name:<20}" + "".join(f"{value:>10.4f}" for value in row))
    print("\nnumerical minus closed transform (worst of A and t), 3 x 10,000 random problems")
    print(f"{'loss':<20}{'difference':>12}{'violations':>12}{'best ratio':>12}")
    for name, loss in LOSSES.items():
        off = max(worst_difference(loss, a) for a in BOUNDS)
        trials = [try_bound(loss, a) for a in BOUNDS]
        violations = sum(trial.violations for trial in trials)
        ratio = min(trial.best_ratio for trial in trials)
        print(f"{name:<20}{off:>12.1e}{violations:>12}{ratio:>12.4f}")
    print("\ncomp-sum: exact minus closed transform over beta, 10,000 random problems each")
    print(f"{'tau, classes':<20}{'least':>12}{'greatest':>12}{'violations':>12}{'best ratio':>12}")
    for tau, classes in (*TIGHT, *LOOSE):
        exact = consistency.comp_sum_transform_exact(T, tau=tau, num_classes=classes)
        off = exact - consistency.comp_sum_transform(T, tau=tau, num_classes=classes)
        trial = try_comp_sum(tau, classes)
        print(
            f"{f'{tau:g}, {classes}':<20}{off.min():>12.1e}{off.max():>12.1e}"
            f"{trial.violations:>12}{trial.best_ratio:>12.4f}"
        )


if __name__ == "__main__":
    main()
