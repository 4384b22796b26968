# SPDX-License-Identifier: Apache-2.0
"""How much accuracy several attacks together leave: the worst case over them, example by example.

Croce, Hein, "Reliable evaluation of adversarial robustness with an ensemble of diverse
parameter-free attacks". Reach for it to report a robust accuracy: one attack overstates it, most of
all the one that the model was trained with.
"""

import dataclasses
import functools
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from xloss import checks
from xloss.adversarial import ascent
from xloss.adversarial.apgd import apgd
from xloss.adversarial.dlr import check_classes
from xloss.adversarial.pgd import pgd
from xloss.adversarial.square import square
from xloss.typing import PRNGKey

ATTACKS = ("apgd-ce", "apgd-dlr", "apgd-t", "square")
#: Square breaking more of the examples than this after gradient attacks is suspicious.
_SUSPICIOUS = 0.002


@dataclasses.dataclass(frozen=True)
class RobustnessReport:
    """What :func:`robust_accuracy` found; print it.

    Attributes:
      accuracy_after: "clean" and then the attacks in their order -> share of all examples that is
        right and was right after every attack so far.
      robust: bool [N], the examples that are left.
      x_adv: [N, features], a misclassified input where one was found, else the input.
      setting: norm, radius and how long the attacks were, in words.
      notes: what looks wrong with the evaluation, in words.
    """

    accuracy_after: Mapping[str, float]
    robust: np.ndarray
    x_adv: np.ndarray
    setting: str
    notes: tuple[str, ...]

    @property
    def robust_accuracy(self) -> float:
        """Share of the examples that no attack broke, an upper bound on what others leave."""
        return float(np.mean(self.robust))

    def __str__(self) -> str:
        rows = [f"  {name:<10} {100 * value:6.2f} %" for name, value in self.accuracy_after.items()]
        attacks = ", ".join(list(self.accuracy_after)[1:])
        lines = [
            f"accuracy on {self.robust.size} examples after each attack ({self.setting}):",
            *rows,
            f"worst case of {attacks}; an upper bound on what further attacks leave",
            *(f"note: {note}" for note in self.notes),
        ]
        return "\n".join(lines)


def robust_accuracy(
    apply_fn: Any,
    inputs: ArrayLike,
    labels: ArrayLike,
    *,
    key: PRNGKey,
    radius: float,
    norm: str = "linf",
    attacks: Sequence[str] = ("apgd-ce", "apgd-t", "square"),
    steps: int = 100,
    num_targets: int = 9,
    restarts: int = 1,
    queries: int = 5000,
    bounds: tuple[ArrayLike, ArrayLike] | None = (0.0, 1.0),
    batch_size: int = 256,
    sharding: jax.sharding.Sharding | None = None,
) -> RobustnessReport:
    """Attacks in turn what the attacks before have left; a host function over a whole data set.

    Definition: an example counts if it is classified correctly (a tie is a mistake) on the clean
    input and on every input that any of the attacks visits. The attacks::

        "apgd-ce", "apgd-dlr"  apgd on cross-entropy, on DLR
        "apgd-t"               apgd on targeted DLR, towards each of the num_targets classes
                               of greatest clean logit in turn
        "square"               square (linf)
        "pgd-40"               pgd on the margin with 40 steps, or any other number

    Args:
      apply_fn: inputs [B, features] -> logits [B, K], each example by itself, in evaluation mode;
        hand parameters over as ``jax.tree_util.Partial(apply, params)``.
      inputs: [N, features], within ``bounds``.
      labels: integer y [N] in [0, K).
      key: PRNG key. Every example has its own draws, so that its fate depends neither on batch_size
        nor on the other attacks.
      radius: of the ball, >= 0, in the unit of the inputs.
      norm: "linf" or "l2".
      attacks: names, each once.
      steps: of APGD.
      num_targets: of "apgd-t", at most; there are K - 1.
      restarts: random starts of APGD and PGD.
      queries: of Square.
      bounds: (low, high) of legal inputs; scalars, or arrays that broadcast to an example.
      batch_size: examples at a time; the last batch is filled up and masked, so that each attack
        is compiled once.
      sharding: where batches are put, such as NamedSharding(mesh, PartitionSpec("data")).

    Returns:
      :class:`RobustnessReport`.

    Raises:
      TypeError: wrong dtypes, apply_fn that is not callable.
      ValueError: unknown attacks or norm, "square" with l2, shapes that do not fit, numbers out of
        range, too few classes: 3 for DLR, 4 for targeted DLR.

    Numerics:
      As the attacks: float32 whatever the model computes in. Where logits are NaN an example is
      wrong.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> apply = jax.tree_util.Partial(lambda w, x: x @ w, jnp.array([[1.0, -1.0]]))
      >>> x, y = jnp.array([[0.6], [0.1]]), jnp.array([0, 0])
      >>> found = robust_accuracy(
      ...     apply, x - 0.3, y, key=jax.random.key(0), radius=0.2, attacks=("apgd-ce", "pgd-5"),
      ...     bounds=None, steps=5)
      >>> print(found)
      accuracy on 2 examples after each attack (linf radius 0.2; APGD 5 steps):
        clean       50.00 %
        apgd-ce     50.00 %
        pgd-5       50.00 %
      worst case of apgd-ce, pgd-5; an upper bound on what further attacks leave

    Evidence: authors' code.

    References:
      Croce, Hein, "Reliable evaluation of adversarial robustness with an ensemble of diverse
      parameter-free attacks", ICML 2020, arXiv 2003.01690; authors' code fra31/auto-attack. This is
      a part of their ensemble: it has no FAB attack, and its number is no AutoAttack number.
    """
    name = "robust_accuracy"
    inputs, labels = np.asarray(inputs), np.asarray(labels)
    if labels.ndim != 1 or inputs.shape[:1] != labels.shape or not labels.size:
        raise ValueError(
            f"{name}: expected inputs [N, features] and labels [N], N > 0, got {inputs.shape} and "
            f"{labels.shape}"
        )
    checks.floating(name, "inputs", inputs[:1])
    checks.integer(name, "labels", labels[:1])
    _check_attacks(name, attacks, norm)
    for argument, value in (
        ("steps", steps), ("num_targets", num_targets), ("restarts", restarts),
        ("queries", queries), ("batch_size", batch_size),
    ):  # fmt: skip
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name}: expected {argument} an integer >= 1, got {value!r}")
    apply_fn = ascent.callable_pytree(name, "apply_fn", apply_fn)
    key = ascent.check_key(name, key, ())
    run = functools.partial(_batches, inputs, labels, batch_size, sharding)

    logits, again = [
        np.concatenate([np.asarray(_logits(apply_fn, x, y))[:count] for _, count, x, y, _ in run()])
        for _ in range(2)
    ]
    classes = logits.shape[-1]
    for attack in attacks:
        if attack in ("apgd-dlr", "apgd-t"):
            check_classes(name, classes, targeted=attack == "apgd-t")
    robust = _right(logits, labels)
    notes = _notes(logits, again)
    accuracy = {"clean": float(np.mean(robust))}
    x_adv = inputs.astype(np.promote_types(inputs.dtype, np.float32))
    ascending = {"norm": norm, "restarts": restarts}
    for attack in attacks:
        own = jax.random.fold_in(key, zlib.crc32(attack.encode()))
        how = {"radius": radius, "bounds": bounds}
        how |= {"queries": queries} if attack == "square" else ascending
        how |= {"steps": steps} if attack.startswith("apgd") else {}
        before = float(np.mean(robust))
        ranks = range(1, 1 + min(num_targets, classes - 1)) if attack == "apgd-t" else (0,)
        for rank in ranks:
            # The class of that rank: the first is the true one of all that are still attacked.
            aims = np.argsort(-logits, axis=-1, kind="stable")[:, rank]
            for rows, count, x, y, where in run(np.flatnonzero(robust)):
                found = _attack(
                    attack, apply_fn, x, y, aims[rows], key=_keys(own, rows), where=where, **how
                )
                success = np.asarray(found.success)[:count]
                broken = rows[:count][success]
                robust[broken] = False
                x_adv[broken] = np.asarray(found.x_adv)[:count][success]
        accuracy[attack] = float(np.mean(robust))
        gradients = [a for a in list(accuracy)[1:-1] if a != "square"]
        if attack == "square" and gradients and before - accuracy[attack] > _SUSPICIOUS:
            notes.append(
                "square breaks what gradient attacks did not: the model may hide its gradients"
            )
    setting = f"{norm} radius {float(radius):g}"
    if any(attack.startswith("apgd") for attack in attacks):
        setting += f"; APGD {steps} steps"
    if "square" in attacks:
        setting += f"; Square {queries} queries"
    return RobustnessReport(accuracy, robust, x_adv, setting, tuple(notes))


def _attack(attack: str, apply_fn: Any, x: Any, y: Any, aims: np.ndarray, **how: Any) -> Any:
    """The result of one attack on one batch."""
    if attack == "square":
        return square(apply_fn, x, y, **how)
    if attack.startswith("pgd-"):
        number = int(attack.removeprefix("pgd-"))
        return pgd(apply_fn, x, y, objective="margin", steps=number, **how)
    if attack == "apgd-t":
        targets = jnp.asarray(aims, jnp.int32)
        return apgd(apply_fn, x, y, objective="dlr_targeted", targets=targets, **how)
    return apgd(apply_fn, x, y, objective=attack.removeprefix("apgd-"), **how)


def _check_attacks(name: str, attacks: Sequence[str], norm: str) -> None:
    if isinstance(attacks, str) or not attacks or len(set(attacks)) != len(attacks):
        raise ValueError(f"{name}: expected attacks to be names, each once, got {attacks!r}")
    for attack in attacks:
        if attack not in ATTACKS and not re.fullmatch(r"pgd-[1-9]\d*", attack):
            raise ValueError(
                f"{name}: expected attacks among {', '.join(ATTACKS)} and pgd-STEPS, got {attack!r}"
            )
    checks.choice(name, "norm", norm, ascent.NORMS)
    if "square" in attacks and norm != "linf":
        raise ValueError(f"{name}: expected norm='linf' with the attack 'square', got {norm!r}")


def _batches(
    inputs: np.ndarray,
    labels: np.ndarray,
    size: int,
    sharding: Any,
    chosen: np.ndarray | None = None,
) -> Iterator[tuple[np.ndarray, int, Any, Any, Any]]:
    """(rows, how many of them count, inputs, labels, where) of batches of one size."""
    chosen = np.arange(len(labels)) if chosen is None else chosen
    for start in range(0, len(chosen), size):
        rows = chosen[start : start + size]
        count = len(rows)
        rows = np.concatenate([rows, np.full(size - count, rows[0])])
        batch = (inputs[rows], labels[rows], np.arange(size) < count)
        yield rows, count, *jax.device_put(batch, sharding)


@jax.jit
def _logits(apply_fn, x, y):
    return ascent.logits_of("robust_accuracy", apply_fn, x, y)


@jax.jit
def _keys(key, rows):
    return jax.vmap(lambda row: jax.random.fold_in(key, row))(jnp.asarray(rows, jnp.uint32))


def _right(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    if labels.min() < 0 or labels.max() >= logits.shape[-1]:
        raise ValueError(
            f"robust_accuracy: expected labels in [0, {logits.shape[-1]}), got "
            f"[{labels.min()}, {labels.max()}]"
        )
    own = np.arange(logits.shape[-1]) == labels[:, None]
    rivals = np.where(own, -np.inf, logits.astype(np.float64)).max(-1)
    return logits[own].astype(np.float64) > rivals


def _notes(logits: np.ndarray, again: np.ndarray) -> list[str]:
    logits, again = logits.astype(np.float64), again.astype(np.float64)
    notes = []
    if not np.allclose(logits, again, rtol=0.0, atol=1e-4, equal_nan=True):
        notes.append("apply_fn gives other logits for the same inputs: is it in evaluation mode?")
    if logits.min() >= 0 and np.allclose(logits.sum(-1), 1.0, atol=1e-3):
        notes.append("apply_fn seems to return probabilities, expected logits")
    return notes
