# SPDX-License-Identifier: Apache-2.0
"""Static checks at the door of every public function.

All of them look at shapes, dtypes and Python numbers only, so they cost nothing inside
``jax.jit`` and speak before anything compiles. Every message names the function and the
argument and has the form "expected ..., got ...".
"""

import functools
import math
import numbers
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike


def describe(value: Any) -> str:
    """Returns dtype and shape of an array (``float32[4, 3]``), or the repr of anything else."""
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"{value.dtype}{list(value.shape)}"
    return repr(value)


def floating(function: str, name: str, value: ArrayLike) -> jax.Array:
    """Returns ``value`` as an array of a float dtype.

    Raises:
      TypeError: it is not numeric, or of an integer, bool or complex dtype.
    """
    array = _as_array(function, name, value)
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise TypeError(f"{function}: expected {name} of a float dtype, got {describe(array)}")
    return array


def integer(function: str, name: str, value: ArrayLike, *, allow_bool: bool = False) -> jax.Array:
    """Returns ``value`` as an integer array of at least 32 bits.

    Narrow label dtypes are widened, so that an int8 label can be compared with any class.

    Raises:
      TypeError: it is not of an integer dtype (bool only with ``allow_bool``).
    """
    if isinstance(value, np.ndarray) and value.dtype in (np.int64, np.uint64):
        # Without x64 only the low 32 bits would be kept, and 2**32 would become class 0.
        lowest = max(-1, np.iinfo(value.dtype).min)
        value = np.clip(value, lowest, np.iinfo(np.int32).max)
    array = _as_array(function, name, value)
    if allow_bool and array.dtype == jnp.bool_:
        return array.astype(jnp.int32)
    if not jnp.issubdtype(array.dtype, jnp.integer):
        raise TypeError(f"{function}: expected {name} of an integer dtype, got {describe(array)}")
    return array.astype(jnp.int32) if array.dtype.itemsize < 4 else array


def mask(function: str, where: ArrayLike | None, shape: tuple[int, ...]) -> jax.Array | None:
    """Returns ``where`` as a bool array of exactly ``shape``; None stays None.

    Raises:
      TypeError: it is not bool.
      ValueError: its shape differs (a mask is never broadcast).
    """
    if where is None:
        return None
    array = _as_array(function, "where", where)
    if array.dtype != jnp.bool_:
        raise TypeError(f"{function}: expected where of dtype bool, got {describe(array)}")
    same_shape(function, "where", array, shape)
    return array


def same_shape(function: str, name: str, value: jax.Array, shape: tuple[int, ...]) -> None:
    """Raises ValueError with both shapes unless ``value.shape == shape``."""
    if value.shape != tuple(shape):
        raise ValueError(f"{function}: expected {name} of shape {tuple(shape)}, got {value.shape}")


def number(
    function: str,
    name: str,
    value: ArrayLike,
    *,
    low: float = -math.inf,
    high: float = math.inf,
    open_low: bool = False,
) -> Any:
    """Returns a scalar hyperparameter in the one spelling that jit sees.

    Python and NumPy numbers become a Python float (0.7, np.float64(0.7) and 1 share one
    trace and take the dtype of the computation); JAX scalars pass as they are, traced.
    The range is checked where the value is known, that is for Python and NumPy numbers.

    Args:
      function: name for the message.
      name: the argument's name.
      value: a number or a scalar array.
      low: least legal value.
      high: greatest legal value.
      open_low: whether ``low`` itself is illegal.

    Raises:
      TypeError: not a real number.
      ValueError: not a scalar, or out of range, or NaN.
    """
    interval = f"{'(' if open_low or low == -math.inf else '['}{low:g}, {high:g}" + (
        ")" if high == math.inf else "]"
    )
    if isinstance(value, jax.Array):
        real = jnp.issubdtype(value.dtype, jnp.floating) or jnp.issubdtype(value.dtype, jnp.integer)
        if value.shape != () or not real:
            raise ValueError(
                f"{function}: expected {name} to be a scalar number, got {describe(value)}"
            )
        return value if jnp.issubdtype(value.dtype, jnp.floating) else value.astype(float)
    if isinstance(value, np.ndarray) and value.shape == ():
        value = value.item()
    if isinstance(value, bool | np.bool_) or not isinstance(value, numbers.Real):
        raise TypeError(
            f"{function}: expected {name} to be a number in {interval}, got {describe(value)}"
        )
    value = float(value)
    if not (low <= value <= high) or (open_low and value == low):
        raise ValueError(f"{function}: expected {name} in {interval}, got {value:g}")
    return value


def choice(function: str, name: str, value: str, options: tuple[str, ...]) -> str:
    """Returns ``value`` if it is one of ``options``; raises ValueError that lists them."""
    if value not in options:
        raise ValueError(f"{function}: expected {name} to be one of {options}, got {value!r}")
    return value


def couples_batch(loss: Callable[..., Any]) -> bool:
    """Whether a loss says, by an attribute of that name, that its terms depend on the whole batch.

    Whoever takes a batch apart (micro-batches, chunks of tokens) asks here first.
    """
    while isinstance(loss, functools.partial):
        loss = loss.func
    return bool(getattr(loss, "couples_batch", False))


def _as_array(function: str, name: str, value: Any) -> jax.Array:
    if value is None:
        raise TypeError(f"{function}: expected {name} to be an array, got None")
    try:
        return jnp.asarray(value)
    except TypeError as error:
        raise TypeError(
            f"{function}: expected {name} to be an array, got {type(value).__name__}"
        ) from error
