# SPDX-License-Identifier: Apache-2.0
"""Delta-m: against which runs, at which setting, and the number itself."""

import pytest

from experiments import delta_m
from experiments.errors import BadInput

METHOD = ["task.aggregator"]


def member(seed, left, right, *, aggregator="linear", tasks="both", rate=0.1, validation=0.5):
    overrides = {"task.aggregator": aggregator, "task.tasks": tasks,
                 "optimizer.learning_rate": rate}  # fmt: skip
    metrics = {"accuracy_left": left, "accuracy_right": right}
    on_validation = {
        "accuracy": validation,
        "accuracy_left": validation,
        "accuracy_right": validation,
        "conflict_rate": 0.25,
    }
    return {"seed": seed, "overrides": overrides,
            "final": {"validation": on_validation, "test": metrics}}  # fmt: skip


SINGLE = [
    member(seed, 0.8 + seed / 10, 0.5, tasks=side) for side in ("left", "right") for seed in (0, 1)
]


def test_delta_m_is_the_mean_relative_gain_seed_by_seed():
    # Seed 0: (0.4 / 0.8 - 1, 0.5 / 0.5 - 1), seed 1: (0.9 / 0.9 - 1, 0.75 / 0.5 - 1).
    members = [*SINGLE, member(0, 0.4, 0.5), member(1, 0.9, 0.75)]
    assert delta_m.delta_m({"accuracy_left": 0.4, "accuracy_right": 0.5},
                           {"left": 0.8, "right": 0.5}) == pytest.approx(-25.0)  # fmt: skip
    row = delta_m.table(members, METHOD, "accuracy").splitlines()[-1]
    assert row.startswith("| linear | learning_rate 0.1 |") and "| +0.00 +- 317.66 |" in row
    assert "25.00 +- 0.00" in row  # conflicts


def test_settings_are_chosen_on_validation_and_rows_sorted_by_delta_m():
    members = [
        *SINGLE,
        *(member(s, 0.9, 0.9, rate=1.0, validation=0.1) for s in (0, 1)),
        *(member(s, 0.5, 0.5, validation=0.6) for s in (0, 1)),
        *(member(s, 0.85, 0.6, aggregator="mgda") for s in (0, 1)),
    ]
    lines = delta_m.table(members, METHOD, "accuracy").splitlines()
    assert [line.split(" | ")[0] for line in lines[2:]] == ["| single tasks", "| mgda", "| linear"]
    assert "50.00 +- 0.00" in lines[-1]


def test_a_sweep_without_single_tasks_is_refused():
    with pytest.raises(BadInput, match="expected members with task.tasks=left"):
        delta_m.table([member(0, 0.5, 0.5)], METHOD, "accuracy")
    with pytest.raises(BadInput, match="no metric 'acuracy'"):
        delta_m.table([*SINGLE, member(0, 0.5, 0.5)], METHOD, "acuracy")


def test_a_single_task_that_never_finished_is_refused():
    stopped = [{**m, "final": {}} for m in SINGLE]
    with pytest.raises(BadInput, match="expected members with task.tasks=left that finished"):
        delta_m.table([*stopped, member(0, 0.5, 0.5)], METHOD, "accuracy")
