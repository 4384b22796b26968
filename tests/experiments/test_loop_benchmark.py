# SPDX-License-Identifier: Apache-2.0
"""The benchmark of the loop: what it measures, and what its table says of it."""

import jax

from experiments import sharding
from experiments.benchmarks.loop import Turn, measure, table
from experiments.config import load_file, locate


def test_every_way_makes_the_steps_and_the_loop_saves():
    config = load_file(locate("digits:quick"))
    config.model.hidden, config.checkpoint_every = (8,), 4

    with jax.numpy_dtype_promotion("standard"):  # optax's adam needs it
        parameters, found = measure(config, 1, sharding.make_mesh(devices=jax.devices()[:1]))

    assert parameters == 64 * 8 + 8 + 8 * 10 + 10
    assert list(found) == ["step", "step, batches", "loop", "loop, saving"]
    turns = [turn for (turn,) in found.values()]
    assert all(turn.seconds > 0 and turn.processor > 0 for turn in turns)
    assert [turn.saving > 0 for turn in turns] == [False, False, True, True]


def test_the_goal_is_for_the_median_of_the_ratios_within_a_turn():
    step = [Turn(1e-3, 2e-3), Turn(4e-3, 2e-3), Turn(1e-3, 2e-3)]
    loop = [Turn(1.2e-3, 3e-3, 5e-3), Turn(4e-3, 3e-3, 5e-3), Turn(1.04e-3, 3e-3, 5e-3)]
    lines = table("digits", 1234, {"step": step, "loop": loop}).splitlines()

    assert lines[0] == "digits: 1,234 parameters, 3 turns; microseconds a step."
    assert lines[-2] == "| step | 1,000 | 1,000 | 1.000 | 1.000 |  | 2,000 | 1.000 |  |"
    assert lines[-1] == (
        "| loop | 1,040 | 1,200 | 1.040 | 1.040 | <= 1.05: met | 3,000 | 1.500 | 5,000 |"
    )
