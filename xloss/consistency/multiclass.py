# SPDX-License-Identifier: Apache-2.0
"""Conditional risks and regrets of multi-class losses, and whether a loss is calibrated at p.

"Multi-Class H-Consistency Bounds" (Awasthi, Mao, Mohri, Zhong) and the consistency literature
before it. Reach for it with a loss of your own: give it class probabilities, it says whether the
scores that minimise the risk name the right class, and shows the scores.
"""

import dataclasses

import numpy as np
from numpy.typing import ArrayLike

from xloss.consistency import host
from xloss.consistency.search import LossFn, least_over_scores, losses_of_all_labels

#: How many wrong classes are tried: for a loss that treats labels alike the first decides.
_RUNNERS_UP = 6


def conditional_risk(loss_fn: LossFn, logits: ArrayLike, p: ArrayLike) -> np.ndarray:
    """Expected loss of scores when the label is drawn from p.

    Definition::

        C(z, p) = sum_y p_y loss_fn(z, y)

    Args:
      loss_fn: scores [N, K] and labels [N] to losses [N]; a loss of ``xloss.classification`` with
        its hyperparameters bound, or the user's own in JAX or NumPy.
      logits: scores z [..., K].
      p: class probabilities, [..., K] like logits, or [K] for all of them.

    Returns:
      float64 [...].

    Raises:
      TypeError, ValueError: wrong types, shapes that do not fit, p no distribution.

    Numerics:
      In float64; a class of probability 0 counts 0 even where its loss is infinite.

    Example:
      >>> conditional_risk(lambda z, y: z[:, 0] + y, [[1.0, 2.0]], [0.25, 0.75]).tolist()
      [1.75]

    Evidence: published formula, derived and checked.

    References:
      Awasthi, Mao, Mohri, Zhong, "Multi-Class H-Consistency Bounds", NeurIPS 2022.
    """
    logits, p = _scores_and_p("conditional_risk", logits, p)
    return host.times(p, losses_of_all_labels("conditional_risk", loss_fn, logits)).sum(-1)


def zero_one_regret(logits: ArrayLike, p: ArrayLike) -> np.ndarray:
    """How much probability the predicted class has less than the best one.

    Definition: max_y p_y - p_k, k = argmax of the scores; among tied scores the worst counts.

    Args:
      logits: scores [..., K].
      p: class probabilities, [..., K] or [K].

    Returns:
      float64 [...] in [0, 1].

    Raises:
      TypeError, ValueError: wrong types, shapes that do not fit, p no distribution.

    Example:
      >>> zero_one_regret([[1.0, 2.0], [3.0, 2.0]], [0.75, 0.25]).tolist()
      [0.5, 0.0]
    """
    logits, p = _scores_and_p("zero_one_regret", logits, p)
    tied = logits == logits.max(-1, keepdims=True)
    return p.max(-1) - np.where(tied, p, np.inf).min(-1)


def conditional_minimum(
    loss_fn: LossFn, p: ArrayLike, *, restarts: int = 4
) -> tuple[float, np.ndarray]:
    """The least conditional risk at p over all score vectors, by search.

    Args:
      loss_fn: as in :func:`conditional_risk`.
      p: class probabilities [K].
      restarts: how many of the best starting points are followed.

    Returns:
      (value, scores [K]). An infimum at infinity is read from scores of 1000.

    Raises:
      TypeError, ValueError: wrong types, p no distribution.

    Numerics:
      Starts from score lattices, where hinge losses with margins of 1 have their minima, and from
      powers of p; then an evolution strategy that needs no derivative. About 1e-9 up to 6 classes;
      an upper estimate always. Repeats exactly.

    Example:
      >>> hinge = lambda z, y: np.maximum(0, 1 - (2 * y - 1) * (z[:, 1] - z[:, 0]))
      >>> conditional_minimum(hinge, [0.75, 0.25])[0]
      0.5
    """
    p = _one_p("conditional_minimum", p)
    values, scores = least_over_scores("conditional_minimum", loss_fn, p, [None], restarts)
    return float(values[0]), scores[0]


def conditional_regret(
    loss_fn: LossFn, logits: ArrayLike, p: ArrayLike, *, minimum: ArrayLike | None = None
) -> np.ndarray:
    """How far scores are above the least conditional risk.

    Definition, over all score vectors::

        regret(z, p) = C(z, p) - inf over s of C(s, p)

    Args:
      loss_fn: as in :func:`conditional_risk`.
      logits: scores z [..., K].
      p: class probabilities, [..., K] or [K].
      minimum: the infimum, [...] or scalar, where it is known (``comp_sum_conditional_min``); None
        searches for it, once for every distinct p.

    Returns:
      float64 [...] >= 0.

    Raises:
      TypeError, ValueError: wrong types, shapes that do not fit, p no distribution.

    Numerics:
      Those of :func:`conditional_minimum`; an infimum found too high makes the regret too small.

    Example:
      >>> loss = lambda z, y: (z[:, 0] - y) ** 2
      >>> conditional_regret(loss, [[1.0, 0.0]], [0.5, 0.5]).round(6).tolist()
      [0.25]

    Evidence: published formula, derived and checked.

    References:
      Awasthi, Mao, Mohri, Zhong, "Multi-Class H-Consistency Bounds", NeurIPS 2022.
    """
    name = "conditional_regret"
    risk = conditional_risk(loss_fn, logits, p)
    if minimum is None:
        _, full = _scores_and_p(name, logits, p)
        rows, place = np.unique(full.reshape(-1, full.shape[-1]), axis=0, return_inverse=True)
        found = [least_over_scores(name, loss_fn, row, [None], 4)[0][0] for row in rows]
        least = np.array(found)[place.ravel()].reshape(risk.shape)
    else:
        least = host.array(name, "minimum", minimum)
    return np.maximum(risk - least, 0.0)


@dataclasses.dataclass(frozen=True)
class MulticlassReport:
    """What :func:`multiclass_calibration` found at one p.

    Attributes:
      calibrated: the verdict at this p; the report itself is true or false like it.
      p: the class probabilities.
      minimum: least conditional risk over all scores.
      minimiser: scores [K] that reach it.
      wrong_minimum: least risk over scores whose argmax has a class that is not most probable,
        ties included; inf if there is no such class.
      wrong_minimiser: scores [K] that reach it.
    """

    calibrated: bool
    p: np.ndarray
    minimum: float
    minimiser: np.ndarray
    wrong_minimum: float
    wrong_minimiser: np.ndarray

    @property
    def gap(self) -> float:
        """What predicting a wrong class costs."""
        return self.wrong_minimum - self.minimum

    def __bool__(self) -> bool:
        return self.calibrated

    def __repr__(self) -> str:
        p = np.array2string(self.p, precision=4)
        if np.isinf(self.wrong_minimum):
            return f"at p = {p}: calibrated\n  all classes are equally probable, none is wrong"
        scores = self.wrong_minimiser - self.wrong_minimiser.max()
        scores = np.array2string(np.round(scores, 4) + 0.0, precision=4)
        cost = (
            f"predicting a wrong class, or a tie with one, costs {max(self.gap, 0.0):.4g} more than"
            f" the least risk {self.minimum:.4g}, at scores {scores}"
        )
        return f"at p = {p}: {'calibrated' if self.calibrated else 'NOT calibrated'}\n  {cost}"


def multiclass_calibration(
    loss_fn: LossFn, p: ArrayLike, *, restarts: int = 4, tolerance: float = 1e-6
) -> MulticlassReport:
    """Whether minimising a multi-class loss names a most probable class at p.

    Definition, with the conditional risk C(z, p): calibrated at p if ::

        inf { C(z, p) : argmax z contains a class that is not most probable } > inf C(z, p)

    so that a minimiser whose scores are tied counts as a failure. One p can refute a loss, none can
    prove it: try several, with max p below 1/2 among them.

    Args:
      loss_fn: scores [N, K] and labels [N] to losses [N].
      p: class probabilities [K].
      restarts: how many of the best starting points are followed.
      tolerance: least gap that counts, relative to max(1, least risk).

    Returns:
      MulticlassReport; print it. It counts as a bool.

    Raises:
      TypeError, ValueError: wrong types, p no distribution.

    Numerics:
      Both infima by the search of ``conditional_minimum``, the first with each of the six most
      probable wrong classes in front.

    Example:
      >>> def crammer_singer(z, y):
      ...     own = np.take_along_axis(z, y[:, None], 1)
      ...     others = np.where(np.arange(z.shape[1]) == y[:, None], -np.inf, z)
      ...     return np.maximum(0.0, 1.0 + others.max(1) - own[:, 0])
      >>> print(multiclass_calibration(crammer_singer, [0.4, 0.3, 0.3]))
      at p = [0.4 0.3 0.3]: NOT calibrated
        predicting a wrong class, or a tie with one, costs 0 more than the least risk 1, at
        scores [0. 0. 0.]
      >>> bool(multiclass_calibration(crammer_singer, [0.6, 0.2, 0.2]))
      True

    Evidence: published formula, derived and checked.

    References:
      Tewari, Bartlett, "On the Consistency of Multiclass Classification Methods", JMLR 2007.
    """
    name = "multiclass_calibration"
    p = _one_p(name, p)
    tolerance = host.number(name, "tolerance", tolerance, low=0.0)
    order = np.argsort(-p, kind="stable")
    wrong = order[p[order] < p.max() - 1e-12][:_RUNNERS_UP].tolist()
    values, scores = least_over_scores(name, loss_fn, p, [None, *wrong], restarts)
    # What is best with a class in front is a candidate for the best of all.
    best = int(np.argmin(values))
    worst = 1 + int(np.argmin(values[1:])) if wrong else best
    wrong_minimum = float(values[worst]) if wrong else np.inf
    least = float(values[best])
    return MulticlassReport(
        calibrated=wrong_minimum - least > tolerance * max(1.0, abs(least)),
        p=p,
        minimum=least,
        minimiser=scores[best],
        wrong_minimum=wrong_minimum,
        wrong_minimiser=scores[worst],
    )


def _scores_and_p(name, logits, p):
    logits = host.array(name, "logits", logits)
    p = host.probabilities(name, "p", p)
    if logits.ndim == 0 or (p.shape != logits.shape and p.shape != logits.shape[-1:]):
        raise ValueError(
            f"{name}: expected logits [..., K] and p of that shape or [K], got "
            f"{list(logits.shape)} and {list(p.shape)}"
        )
    return logits, np.broadcast_to(p, logits.shape)


def _one_p(name, p):
    p = host.probabilities(name, "p", p)
    if p.ndim != 1:
        raise ValueError(f"{name}: expected p [K], got {list(p.shape)}")
    return p
