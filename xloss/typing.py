# SPDX-License-Identifier: Apache-2.0
"""The loss contract as types: what a loss takes and what it returns.

For readers and type checkers; nobody subclasses anything here. DESIGN in one line:
``loss(scores, labels, *, <hyperparameters>, where=None, key=None) -> losses``.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import jax
from jax.typing import ArrayLike

if TYPE_CHECKING:
    from xloss.statistics import LogitStatistics

Array: TypeAlias = jax.Array
PRNGKey: TypeAlias = jax.Array
PyTree: TypeAlias = Any

#: Logits ``[..., K]``, or the statistics of an output layer.
Scores: TypeAlias = "ArrayLike | LogitStatistics"

#: phi(margin) -> phi, elementwise; see :mod:`xloss.surrogates`.
Surrogate: TypeAlias = Callable[..., Array]


class LossFn(Protocol):
    """A loss of scores and integer labels.

    Args of the call:
      scores: logits ``[..., K]`` of any float dtype, or a LogitStatistics.
      labels: integer ``[...]`` in ``[0, K)``; None when scores is a LogitStatistics.
      where: bool ``[...]``; False means loss and gradient exactly 0.
      hyperparameters: keyword-only, the published defaults; losses that need
        randomness also take ``key``.

    Returns of the call:
      losses ``[...]``, float32 (float64 for float64 scores), never reduced.
    """

    def __call__(
        self,
        scores: Scores,
        labels: ArrayLike | None = None,
        *,
        where: ArrayLike | None = None,
        **hyperparameters: Any,
    ) -> Array: ...
