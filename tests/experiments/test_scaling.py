# SPDX-License-Identifier: Apache-2.0
"""Weak scaling of the compiled train step, on the eight CPU devices of the tests."""

import jax
import pytest

from experiments.benchmarks.scaling import GOAL, Share, changes, measure, table
from experiments.config import load_file, locate


def share(devices: int, **numbers: float) -> Share:
    return Share(devices, 64 * devices, numbers, {"all-reduce": (1, 1024)} if devices > 1 else {})


def test_flops_and_bytes_of_a_device_stay_as_data_grows():
    config = load_file(locate("digits"))
    with jax.numpy_dtype_promotion("standard"):  # optax's adam needs it
        shares = [measure(config, devices) for devices in (1, 2, 8)]

    found = changes(shares)
    assert abs(found["FLOPs"]) <= GOAL and abs(found["bytes accessed"]) <= GOAL
    assert found["arguments"] == 0.0 and found["temporaries"] <= GOAL
    # From two devices on it is the same program.
    assert shares[1].numbers == shares[2].numbers
    assert [s.batch_size for s in shares] == [64, 128, 512]
    # The gradient, and a few numbers for the log: that is what data parallelism costs.
    count = 64 * 256 + 256 + 256 * 256 + 256 + 256 * 10 + 10
    assert shares[0].collectives == {}
    ((kind, (_, size)),) = shares[2].collectives.items()
    assert kind == "all-reduce" and 4 * count <= size <= 4 * count + 64


def test_the_greatest_change_is_against_one_device_and_has_a_sign():
    shares = [share(1, a=100.0, b=100.0, c=0.0), share(2, a=99.0, b=90.0, c=0.0),
              share(4, a=101.5, b=102.0, c=0.0)]  # fmt: skip
    assert changes(shares) == pytest.approx({"a": 0.015, "b": -0.1, "c": 0.0})


def test_the_table_says_what_is_met_and_what_is_not():
    names = ("FLOPs", "bytes accessed", "arguments", "temporaries")
    shares = [share(1, **dict.fromkeys(names, 100.0)),
              share(2, **dict(zip(names, (101.0, 103.0, 100.0, 97.0), strict=True)))]  # fmt: skip
    lines = table("digits", shares).splitlines()
    assert lines[4] == "| 1 | 64 | 100 | 100 | 100 | 100 | none |"
    assert lines[5] == "| 2 | 128 | 101 | 103 | 100 | 97 | 1 all-reduce (1,024) |"
    assert lines[6] == (
        "| change from 1 | goal 2 % | +1.00 % (met) | +3.00 % (missed) | +0.00 % (met) | "
        "-3.00 % (missed: less) | |"
    )
    assert lines[7] == f"| change from 2 | goal 2 % |{' +0.00 % (met) |' * 4} |"
    assert lines[-1].startswith("Of the 3 bytes") and lines[-1].endswith("read and write 2,048.")
    assert "bytes that" not in table("digits", [shares[0], shares[0]])
