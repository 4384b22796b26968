# SPDX-License-Identifier: Apache-2.0
"""How a step is computed, whatever it trains: micro-batches, number format, recomputation.

Three keys of every config. They change memory and time, not what is trained:

* ``accumulate``: micro-batches that a batch is worked through in (`experiments/accumulation.py`).
  An objective that couples the examples of a batch is refused;
* ``compute_dtype``: "float32" computes in the parameters' own type (float64 where
  ``param_dtype`` says so), "bfloat16" rounds parameters and inputs as they enter the network.
  Parameters, optimizer state, gradients and losses keep the parameters' type;
* ``remat``: what the backward pass computes again in place of keeping it, layer by layer: "none",
  "full" or "dots" (all but the products with kernels).
"""

from jax.sharding import Mesh
from ml_collections import ConfigDict

from experiments.errors import BadInput
from experiments.rules import Rule, one_of

COMPUTE_DTYPES = ("float32", "bfloat16")
REMAT = ("none", "full", "dots")
RULES: dict[str, Rule] = {
    "accumulate": Rule(int, "an integer >= 1", lambda v: v >= 1),
    "compute_dtype": one_of(*COMPUTE_DTYPES),
    "remat": one_of(*REMAT),
}


def check_accumulate(config: ConfigDict, mesh: Mesh) -> None:
    """Raises BadInput unless every device gets the same number of rows of every micro-batch."""
    count, devices, size = config.accumulate, mesh.shape["data"], config.data.batch_size
    if size % (count * devices):
        raise BadInput(
            f"--config.accumulate: expected micro-batches of a batch of {size} that divide over "
            f"the {devices} devices on the mesh axis 'data', got {count}"
        )


def refuse_accumulate(config: ConfigDict, why: str) -> None:
    """Raises BadInput if the batch is to be cut, which what is trained does not allow.

    Args:
      config: the config.
      why: "ensloss couples the examples of a batch".
    """
    if config.accumulate > 1:
        raise BadInput(f"--config.accumulate: expected 1 ({why}), got {config.accumulate}")


def notes(config: ConfigDict) -> tuple[str, ...]:
    """A line on whatever is not as by default, for people."""
    found = []
    if config.accumulate > 1:
        rows = config.data.batch_size // config.accumulate
        found.append(f"{config.accumulate} micro-batches of {rows} examples a step")
    if config.compute_dtype != "float32":
        found.append(f"the network computes in {config.compute_dtype}")
    if config.remat != "none":
        found.append(f"activations computed again in the backward pass: {config.remat}")
    return tuple(found)
