# SPDX-License-Identifier: Apache-2.0
"""Which checkpoints stay."""

import contextlib
from pathlib import Path

import pytest

from experiments.checkpoint import Checkpoints
from experiments.errors import BadInput
from experiments.metrics import MetricWriter
from experiments.retention import Retention
from tests.experiments.test_checkpoint import batches, state_of

SCORES = {2: 0.5, 4: 0.9, 6: float("nan"), 8: 0.9, 10: 0.2, 12: 0.6}


@pytest.fixture
def workdir(tmp_path: Path) -> Path:
    with contextlib.closing(MetricWriter(tmp_path, is_main=True, resume_step=0)) as writer:
        for step, score in SCORES.items():
            writer.write(step, "train", {"accuracy": 1.0})
            writer.write(step, "validation", {"accuracy": score, "loss": -score})
    return tmp_path


@pytest.mark.parametrize(
    ("options", "spared"),
    [
        ({}, set()),
        ({"every": 4}, {4, 8, 12}),
        ({"best": 1}, {4}),
        ({"best": 2}, {4, 8}),
        ({"best": 9}, {2, 4, 8, 10, 12}),
        ({"best": 1, "highest": False}, {10}),
        ({"best": 1, "metric": "loss", "highest": False}, {4}),
        ({"best": 2, "every": 5}, {4, 8, 10}),
    ],
)
def test_the_best_and_every_nth_are_spared(workdir, options, spared):
    # 7 was never evaluated, 6 with NaN; neither is ever among the best.
    assert Retention(workdir, **options).spare([2, 4, 6, 7, 8, 10, 12]) == spared


def test_a_metric_that_no_evaluation_has_is_named():
    Retention("", best=0, metric="acc").check_metric({"accuracy": 1.0})
    with pytest.raises(BadInput, match="--config.best_metric: expected one of accuracy, .* 'acc'"):
        Retention("", best=1, metric="acc").check_metric({"accuracy": 1.0, "loss": 0.0})


def test_what_is_spared_outlives_the_last_ones(workdir):
    spare = Retention(workdir, every=10, best=1).spare
    iterator = batches()
    with contextlib.closing(Checkpoints(workdir, keep=1, spare=spare)) as checkpoints:
        for step in SCORES:
            next(iterator)
            checkpoints.save(step, state_of(step), iterator)
    assert Checkpoints.sealed(workdir) == [4, 10, 12]
    assert {p.name for p in (workdir / "checkpoints").iterdir()} == {"4", "10", "12"}
