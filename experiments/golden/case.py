# SPDX-License-Identifier: Apache-2.0
"""One golden case, and the pieces that the adapters share."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


@dataclasses.dataclass(frozen=True)
class Case:
    """One golden case: what goes in, what must come out, how close.

    Attributes:
      slug: name of the golden file and of the spec.
      name: name of the case in it.
      function: what the reference calls the function.
      params: its hyperparameters, in the reference's spelling.
      inputs: arrays by name.
      outputs: arrays by name.
      rtol: relative tolerance of the case.
      atol: absolute tolerance; None means 1e-9 times the greatest reference value, or 1e-9.
    """

    slug: str
    name: str
    function: str
    params: Mapping[str, Any]
    inputs: Mapping[str, np.ndarray]
    outputs: Mapping[str, np.ndarray]
    rtol: float
    atol: float | None


def losses_and_gradient(loss: Callable[[jax.Array], jax.Array], logits: np.ndarray):
    """{"loss", "grad_logits"} of losses [B] of logits [B, K]; the gradient is that of their sum."""
    z = jnp.asarray(logits)
    return {"loss": loss(z), "grad_logits": jax.grad(lambda x: jnp.sum(loss(x)))(z)}
