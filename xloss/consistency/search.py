# SPDX-License-Identifier: Apache-2.0
"""The least conditional risk of a multi-class loss, by search over score vectors.

The losses asked about are users' own: with kinks, plateaus, minima at infinity, in NumPy as well as
in JAX. So no derivative is used, and the starting points do most of the work.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from xloss.consistency import host

#: loss_fn(scores [N, K], labels [N]) -> losses [N]
LossFn = Callable[..., Any]

_SCALES = (0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 100.0, 1000.0)
_POPULATION, _ROUNDS, _ELITE = 96, 120, 24


def losses_of_all_labels(name: str, loss_fn: LossFn, logits: np.ndarray) -> np.ndarray:
    """Losses [..., K] of the scores [..., K] for every label."""
    if not callable(loss_fn):
        raise TypeError(f"{name}: expected loss_fn to be callable, got {loss_fn!r}")
    classes = logits.shape[-1]
    rows = np.repeat(logits.reshape(-1, classes), classes, axis=0)
    size = rows.shape[0]
    # Few different sizes: a JAX function compiles for each of them.
    padded = np.zeros((1 << max(8, (size - 1).bit_length()), classes))
    padded[:size] = rows
    labels = np.arange(padded.shape[0], dtype=np.int32) % classes
    with jax.enable_x64(True), np.errstate(all="ignore"):
        losses = np.asarray(loss_fn(padded, labels))
    if losses.shape != labels.shape:
        raise ValueError(
            f"{name}: expected loss_fn to map scores [N, K] and labels [N] to losses [N], got "
            f"{list(losses.shape)} for N = {labels.size}"
        )
    return losses[:size].astype(np.float64).reshape(logits.shape)


def _candidates(p: np.ndarray) -> np.ndarray:
    """Score vectors [C, K] among which hinge and softmax losses have their minima, or nearly."""
    classes = p.size
    levels = classes if classes <= 4 else 3 if classes <= 6 else 2
    if classes <= 10:
        lattice = np.array(list(itertools.product(range(levels), repeat=classes)), np.float64)
        patterns = lattice[(lattice <= 1).all(1)]
    else:
        order = np.argsort(-p)
        patterns = np.concatenate([np.eye(classes), np.tri(classes)[:, np.argsort(order)]])
        lattice = patterns
    scaled = [scale * patterns for scale in (*_SCALES, float(classes))]
    log_p = np.log(np.maximum(p, 1e-20))
    powers = [power * log_p for power in (0.5, 1.0, 2.0, 4.0)]
    return np.concatenate([lattice, *scaled, np.array(powers)])


def least_over_scores(
    name: str, loss_fn: LossFn, p: np.ndarray, leaders: Sequence[int | None], restarts: int
) -> tuple[np.ndarray, np.ndarray]:
    """Least risk [P] and its scores [P, K], for each of P leaders.

    A leader is the class that must have the greatest score, or share it; None leaves all free.
    """
    restarts = int(host.number(name, "restarts", restarts, low=1.0))
    generator = np.random.default_rng(0)

    def led(scores):
        scores = scores.copy()
        for problem, leader in enumerate(leaders):
            if leader is not None:
                scores[problem, ..., leader] = scores[problem].max(-1)
        return scores

    def risk(scores):
        values = host.times(p, losses_of_all_labels(name, loss_fn, scores)).sum(-1)
        return np.where(np.isnan(values), np.inf, values)

    problems, classes = np.arange(len(leaders)), p.size
    starts = _candidates(p)
    starts = led(np.broadcast_to(starts, (len(leaders), *starts.shape)))
    values = risk(starts)
    # Where a common offset changes nothing, a drift along it would drown the other directions.
    floating = bool(np.allclose(risk(starts[:, :64] + 1.0), values[:, :64], rtol=1e-9, atol=1e-9))
    picks = np.argsort(values, axis=1, kind="stable")[:, :restarts]
    best = values.min(1)
    where = starts[problems, values.argmin(1)]
    mean = starts[problems[:, None], picks]
    spread = np.broadcast_to(np.eye(classes), (*mean.shape, classes)).copy()
    for _ in range(_ROUNDS):
        noise = generator.standard_normal((*mean.shape[:2], _POPULATION, classes))
        if floating:
            noise -= noise.mean(-1, keepdims=True)
        size, axes = np.linalg.eigh(spread)
        factor = axes * np.sqrt(np.maximum(size, 0.0))[..., None, :]
        scores = led(mean[:, :, None] + np.einsum("pric,prjc->prij", noise, factor))
        if floating:
            scores -= scores.max(-1, keepdims=True)
        values = risk(scores)
        flat = values.reshape(len(leaders), -1)
        better = flat.min(1) < best
        best = np.where(better, flat.min(1), best)
        found = scores.reshape(len(leaders), -1, classes)[problems, flat.argmin(1)]
        where = np.where(better[:, None], found, where)
        order = np.argsort(values, axis=2)[:, :, :_ELITE, None]
        elite = np.take_along_axis(scores, order, axis=2)
        # Around the old mean: along a slope the spread grows instead of collapsing.
        offset = elite - mean[:, :, None]
        spread = np.einsum("prei,prej->prij", offset, offset) / _ELITE
        mean = elite.mean(2)
    return best, where
