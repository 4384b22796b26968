# SPDX-License-Identifier: Apache-2.0
"""Train steps compiled for 256 TPUs and 8 H200s: they fit, and devices say what they must.

`make compile-check` brings the compilers.
"""

import jax
import pytest

from experiments.benchmarks import compile_check
from experiments.config import load_file, locate
from tests.experiments.test_accelerators import needs_compiler

pytestmark = pytest.mark.slow

#: Chip -> bytes that it is sold with.
SOLD = {"v5e": 16e9, "v6e": 32e9, "h200": 141e9}


@pytest.fixture(autouse=True)
def promotion_that_optax_needs():
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture(params=compile_check.MACHINES)
def machine(request) -> str:
    needs_compiler(request.param)
    return request.param


def test_digits_sums_its_gradients_over_all_devices_and_nothing_else(machine):
    found = compile_check.measure("digits", machine)
    assert found.fits and found.mesh["model"] == 1
    (one,) = found.program.each
    assert (one.kind, one.group) == ("all-reduce", found.mesh["data"])
    gradient = found.parts["parameters"]
    assert gradient <= one.size <= gradient + 64  # and a few numbers for the log


def test_a_language_model_of_a_billion_fits_and_moves_neither_kernel_nor_logits(machine):
    config = load_file(locate("lm_1b"))
    found = compile_check.measure("lm_1b", machine)
    data, model = found.mesh["data"], found.mesh["model"]
    state = found.parts["parameters"] + found.parts["optimizer state"]
    assert 12e9 < model * state < 16e9  # 1.2 billion, with two moments each
    assert found.fits and found.program.needed < SOLD[machine.partition(":")[0]]
    assert found.program.in_place >= state

    # Nothing is gathered or transposed: sums alone, each over one axis of the mesh.
    assert {one.kind for one in found.program.each} == {"all-reduce"}
    groups = {data: [], model: [], data * model: []}
    for one in found.program.each:
        groups[one.group].append(one.size)
    tokens = config.data.batch_size // data * config.task.context
    features = tokens * config.model.width
    # Over the classes' devices: in a block's loop the features behind attention and MLP, forward,
    # again in the backward pass, and their gradients; the embedding's; those before the output
    # layer. Everything else there is statistics, a few numbers for each token.
    large = [size for size in groups[model] if size >= 2 * features]
    assert set(large) <= {2 * features, 4 * features} and 6 <= len(large) <= 8
    assert sum(groups[model]) - sum(large) <= 4 * 4 * tokens
    # Over the batch's devices: gradients in bfloat16 or float32, the blocks' once for the loop.
    # That of the output kernel, too, may be summed in a loop, over blocks of classes.
    kernel = config.model.width * config.data.num_classes // model
    width, depth = config.model.width, config.model.depth
    block = 12 * width**2 // model
    assert depth * block + 2 * kernel < found.parts["parameters"] / 4
    assert 2 * (block + kernel) <= sum(groups[data]) <= 4.1 * (block + 2 * kernel)
    # Over all: numbers for the log, and the gradient of the norms' scales that heads share.
    assert sum(groups[data * model]) < 64 * 1024
