# SPDX-License-Identifier: Apache-2.0
"""Float64 on the host: how this family reads its arguments and calls a margin loss.

Everything in ``consistency`` is offline analysis: NumPy in, NumPy float64 out, nothing to jit. A
margin loss may be JAX (``xloss.surrogates``, a jnp lambda), NumPy or plain Python; it is called
with float64 arrays while ``jax.enable_x64`` is on as a context, so that the caller's settings stay.
"""

import dataclasses
import functools
import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from xloss import checks, surrogates

#: What the public functions accept as a margin loss.
Loss = str | Callable[..., Any]


def array(
    function: str, name: str, value: ArrayLike, *, low: float = -math.inf, high: float = math.inf
) -> np.ndarray:
    """Returns ``value`` as float64; checks dtype and range.

    Raises:
      TypeError: not numeric.
      ValueError: an entry outside [low, high], or NaN.
    """
    given = np.asarray(value)
    real = jnp.issubdtype(given.dtype, np.floating) or jnp.issubdtype(given.dtype, np.integer)
    if not real:
        raise TypeError(
            f"{function}: expected {name} to be real numbers, got {checks.describe(value)}"
        )
    given = given.astype(np.float64)
    outside = ~((given >= low) & (given <= high))
    if outside.any():
        raise ValueError(
            f"{function}: expected {name} in [{low:g}, {high:g}], got {given[outside][0]:g}"
        )
    return given


def number(function: str, name: str, value: Any, **limits: Any) -> float:
    """A scalar as a Python float; the limits are those of ``checks.number``."""
    # A JAX scalar has a value here: make the range check see it.
    value = np.asarray(value).item() if isinstance(value, jax.Array) else value
    return float(checks.number(function, name, value, **limits))


def probabilities(function: str, name: str, value: ArrayLike) -> np.ndarray:
    """Distributions [..., K] over the last axis.

    Raises:
      TypeError: not numeric.
      ValueError: no class axis, negative entries, or sums that are not 1 within 1e-6.
    """
    p = array(function, name, value, low=0.0, high=1.0 + 1e-6)
    if p.ndim == 0 or p.shape[-1] == 0:
        raise ValueError(f"{function}: expected {name} [..., K] with K >= 1, got {list(p.shape)}")
    total = p.sum(-1)
    if not np.allclose(total, 1.0, rtol=0.0, atol=1e-6):
        worst = total.ravel()[np.argmax(np.abs(total - 1.0))]
        raise ValueError(f"{function}: expected {name} to sum to 1 over classes, got {worst:.9g}")
    return p


def times(weight: np.ndarray, value: np.ndarray) -> np.ndarray:
    """weight * value where a weight of 0 silences an infinite value."""
    with np.errstate(invalid="ignore"):
        return np.where(weight == 0, 0.0, weight * value)


def logistic_base2(margin: jax.typing.ArrayLike) -> jax.Array:
    """log2(1 + e^-m): the logistic loss of the papers' tables, 1 at m = 0."""
    return surrogates.logistic(margin) / math.log(2.0)


@dataclasses.dataclass(frozen=True)
class MarginLoss:
    """A margin loss phi(u) that takes and returns float64 NumPy arrays.

    Attributes:
      name: for messages and reports.
      function: the surrogate without its hyperparameters.
      hyperparameters: by name; defaults filled in for xloss's own.
      call: float64 [N] -> [N], in the way that the function wants it.
      eps: the resolution of what it returns (float32's for a loss that rounds to float32).
    """

    name: str
    function: Callable[..., Any]
    hyperparameters: Mapping[str, float]
    call: Callable[[np.ndarray], np.ndarray]
    eps: float = float(np.finfo(np.float64).eps)

    def __call__(self, margin: ArrayLike) -> np.ndarray:
        """phi of margins of any shape; inf where it overflows, NaN where it has no value."""
        margin = np.asarray(margin, np.float64)
        # Few different sizes: a JAX function compiles for each of them.
        size = 4 ** max(4, math.ceil(math.log(max(margin.size, 1), 4)))
        padded = np.zeros(size)
        padded[: margin.size] = margin.ravel()
        return self.call(padded)[: margin.size].reshape(margin.shape)

    def __repr__(self) -> str:
        inside = ", ".join(f"{k}={v:g}" for k, v in self.hyperparameters.items())
        return f"{self.name}({inside})" if inside else self.name


def margin_loss(function: str, loss: Loss | MarginLoss) -> MarginLoss:
    """Resolves what a user calls a loss: a name, a surrogate, a bound one, a lambda.

    Raises:
      TypeError: not callable and no name.
      ValueError: an unknown name, or a function that does not map margins [N] to [N], finite near
        0.
    """
    if isinstance(loss, MarginLoss):
        return loss
    if isinstance(loss, str):
        loss = logistic_base2 if loss == logistic_base2.__name__ else surrogates.get(loss)
    if not callable(loss):
        raise TypeError(
            f"{function}: expected a loss to be a name or a function of the margin, got {loss!r}"
        )
    inner, bound = loss, {}
    if isinstance(loss, functools.partial) and not loss.args:
        inner, bound = loss.func, loss.keywords
    name = getattr(inner, "__name__", type(inner).__name__)
    if inner is logistic_base2 or surrogates.SURROGATES.get(name) is inner:
        defaults = {
            p.name: p.default for p in list(inspect.signature(inner).parameters.values())[1:]
        }
        hyper = {k: float(v) for k, v in (defaults | bound).items()}
        # bind checks their ranges; inside the compiled function they are traced.
        surrogates.bind(inner, **hyper)
        compiled = _compiled(inner)
        return MarginLoss(name, inner, hyper, lambda u: _float64(compiled, u, **hyper))
    return _users(function, loss, "phi" if name == "<lambda>" else name)


@functools.cache
def _compiled(surrogate: Callable[..., Any]) -> Callable[..., Any]:
    return jax.jit(surrogate)


def _float64(call: Callable[..., Any], margin: Any, **hyper: float) -> np.ndarray:
    with jax.enable_x64(True), np.errstate(all="ignore"):
        values = np.asarray(call(margin, **hyper))
    return np.broadcast_to(values.astype(np.float64), np.shape(margin))


def _users(function: str, loss: Callable[..., Any], name: str) -> MarginLoss:
    """A function that xloss does not know: finds out how it wants its argument."""
    probe = np.array([-1.0, -0.5, 0.0, 0.5, 1.0])

    def one_by_one(margin: np.ndarray) -> np.ndarray:
        def single(u: float) -> float:
            try:
                return float(loss(u))
            except OverflowError:
                return math.inf

        return np.array([single(u) for u in margin.tolist()])

    ways: tuple[Callable[[np.ndarray], Any], ...] = (
        loss,
        lambda margin: loss(jnp.asarray(margin)),
        one_by_one,
    )
    first: Exception | None = None
    for way in ways:
        try:
            with jax.enable_x64(True), np.errstate(all="ignore"):
                values = np.asarray(way(probe))
            if not jnp.issubdtype(values.dtype, np.floating):
                values = values.astype(np.float64)
            # A constant is a function too; anything else must keep the shape.
            found = np.broadcast_to(values, probe.shape).astype(np.float64)
        except (TypeError, ValueError, AttributeError, IndexError) as error:
            first = first or error
            continue
        if not np.isfinite(found).all():
            bad = probe[~np.isfinite(found)][0]
            raise ValueError(
                f"{function}: expected {name} to be finite on [-1, 1], got "
                f"{found[~np.isfinite(found)][0]} at {bad:g}"
            )
        eps = float(jnp.finfo(values.dtype).eps)
        return MarginLoss(name, loss, {}, functools.partial(_float64, way), eps)
    raise ValueError(
        f"{function}: expected {name} to map margins [N] to losses [N], got "
        f"{type(first).__name__}: {first}"
    ) from first
