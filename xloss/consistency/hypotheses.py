# SPDX-License-Identifier: Apache-2.0
"""Hypothesis sets: how large the scores of a model can be, which is what a bound asks of it.

Awasthi, Mao, Mohri, Zhong, "H-Consistency Bounds for Surrogate Loss Minimizers". Reach for
``of_weights`` with a trained model in hand: the smallest set of its kind that holds the model.
"""

import dataclasses
import math
from typing import Self

import numpy as np
from numpy.typing import ArrayLike

from xloss.consistency import host
from xloss.consistency.bounds import linear_bound, nn_bound


@dataclasses.dataclass(frozen=True)
class AllFunctions:
    """H_all: every measurable function, A = inf."""

    @property
    def least(self) -> float:
        """inf, whatever the distribution of x."""
        return math.inf

    def bound(self, x: ArrayLike) -> np.ndarray:
        """inf at every x [N, d]: float64 [N]."""
        return np.full(_sample("AllFunctions", x).shape[0], np.inf)


@dataclasses.dataclass(frozen=True)
class Linear:
    """H_lin: w.x + b with |w|_q <= weight, |b| <= bias and 1/norm + 1/q = 1.

    Attributes:
      weight: W >= 0.
      bias: B >= 0.
      norm: of x: 1, 2 or inf.

    Example:
      >>> Linear.of_weights([3.0, -4.0], 0.5)
      Linear(weight=5.0, bias=0.5, norm=2.0)
      >>> Linear(5.0, 0.5).bound([[0.0, 0.0], [1.0, 0.0]]).tolist()
      [0.5, 5.5]
    """

    weight: float
    bias: float
    norm: float = 2.0

    def __post_init__(self) -> None:
        _check(self, "weight", "bias")

    @classmethod
    def of_weights(cls, kernel: ArrayLike, bias: ArrayLike, *, norm: float = 2.0) -> Self:
        """The smallest set with this model in it, of kernel w [d] and scalar bias b."""
        kernel = host.array(cls.__name__, "kernel", kernel)
        bias = host.array(cls.__name__, "bias", bias)
        if kernel.ndim != 1 or bias.ndim != 0:
            raise ValueError(
                f"{cls.__name__}: expected kernel [d] and a scalar bias, got {list(kernel.shape)} "
                f"and {list(bias.shape)}"
            )
        return cls(_dual_norms(kernel, norm).item(), abs(bias.item()), norm)

    @property
    def least(self) -> float:
        """The bound that holds whatever the distribution of x, A at x = 0."""
        return float(linear_bound(self.weight, self.bias))

    def bound(self, x: ArrayLike) -> np.ndarray:
        """A(x), the greatest score at every x [N, d]: float64 [N]."""
        x = _sample("Linear", x)
        return linear_bound(self.weight, self.bias, np.linalg.norm(x, self.norm, axis=1))


@dataclasses.dataclass(frozen=True)
class OneHiddenLayer:
    """H_NN: sum_j u_j relu(w_j.x + b_j), |u|_1 <= outer, |w_j|_q <= weight, |b_j| <= bias.

    Attributes:
      outer: Lambda >= 0.
      weight: W >= 0.
      bias: B >= 0.
      norm: of x: 1, 2 or inf; 1/norm + 1/q = 1.

    Example:
      >>> OneHiddenLayer.of_weights([[3.0, 0.0], [4.0, 1.0]], [0.5, -1.0], [2.0, -1.0])
      OneHiddenLayer(outer=3.0, weight=5.0, bias=1.0, norm=2.0)
    """

    outer: float
    weight: float
    bias: float
    norm: float = 2.0

    def __post_init__(self) -> None:
        _check(self, "outer", "weight", "bias")

    @classmethod
    def of_weights(
        cls, kernel: ArrayLike, bias: ArrayLike, outer: ArrayLike, *, norm: float = 2.0
    ) -> Self:
        """The smallest set with this model in it: kernel w [d, h], bias b [h], outer u [h]."""
        kernel = host.array(cls.__name__, "kernel", kernel)
        bias, outer = (
            host.array(cls.__name__, name, value)
            for name, value in (("bias", bias), ("outer", outer))
        )
        if kernel.ndim != 2 or not bias.shape == outer.shape == kernel.shape[1:]:
            raise ValueError(
                f"{cls.__name__}: expected kernel [d, h], bias [h] and outer [h], got "
                f"{list(kernel.shape)}, {list(bias.shape)} and {list(outer.shape)}"
            )
        widest = _dual_norms(kernel.T, norm).max(initial=0.0)
        return cls(
            float(np.abs(outer).sum()), float(widest), float(np.abs(bias).max(initial=0.0)), norm
        )

    @property
    def least(self) -> float:
        """The bound that holds whatever the distribution of x, A at x = 0."""
        return float(nn_bound(self.outer, self.weight, self.bias))

    def bound(self, x: ArrayLike) -> np.ndarray:
        """A(x), the greatest score at every x [N, d]: float64 [N]."""
        size = np.linalg.norm(_sample("OneHiddenLayer", x), self.norm, axis=1)
        return nn_bound(self.outer, self.weight, self.bias, size)


HypothesisSet = AllFunctions | Linear | OneHiddenLayer


def _check(hypotheses: Linear | OneHiddenLayer, *sizes: str) -> None:
    name = type(hypotheses).__name__
    for size in sizes:
        host.number(name, size, getattr(hypotheses, size), low=0.0)
    if hypotheses.norm not in (1, 2, math.inf):
        raise ValueError(f"{name}: expected norm to be 1, 2 or inf, got {hypotheses.norm}")


def _sample(name: str, x: ArrayLike) -> np.ndarray:
    x = host.array(name, "x", x)
    if x.ndim != 2:
        raise ValueError(f"{name}: expected x [N, d], got {list(x.shape)}")
    return x


def _dual_norms(w: np.ndarray, norm: float) -> np.ndarray:
    """|w|_q over the last axis, with 1/norm + 1/q = 1."""
    if norm not in (1, 2, math.inf):
        raise ValueError(f"hypotheses: expected norm to be 1, 2 or inf, got {norm}")
    return np.linalg.norm(w, {1: np.inf, 2: 2, math.inf: 1}[norm], axis=-1)
