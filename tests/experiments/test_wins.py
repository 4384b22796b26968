# SPDX-License-Identifier: Apache-2.0
"""Wins, ties and losses: who is compared, at which setting, and how it ends."""

import json

import numpy as np
import pytest

from experiments import wins
from experiments.errors import BadInput


def member(seed, test, *, loss="ours", rate=0.01, validation=0.5, problem="a"):
    overrides = {"data.path": f"DATA/{problem}.csv", "loss.name": loss,
                 "optimizer.learning_rate": rate}  # fmt: skip
    final = {"validation": {"accuracy": validation}, "test": {"accuracy": test}}
    return {"seed": seed, "overrides": overrides, "final": final if test is not None else {}}


def chosen(members):
    return wins.chosen(members, ["data.path"], ["loss.name"], "accuracy", "accuracy")


def test_the_setting_is_chosen_on_validation_whatever_the_test_split_says():
    members = [member(s, 0.9, rate=0.1, validation=0.5) for s in range(2)]
    members += [member(s, 0.1, rate=0.01, validation=0.6) for s in range(2)]
    assert chosen(members) == {"a.csv": {"ours": {0: 0.1, 1: 0.1}}}


def test_equal_means_go_to_the_smallest_value_in_any_order_of_files():
    # Sums in another order differ in the last digit, and 10 is less than 9 as text.
    scores = {10.0: (0.1, 0.2, 0.3), 9.0: (0.3, 0.2, 0.1)}
    members = [
        member(seed, rate, rate=rate, validation=score)
        for rate, row in scores.items()
        for seed, score in enumerate(row)
    ]
    for order in (members, members[::-1]):
        assert set(chosen(order)["a.csv"]["ours"].values()) == {9.0}


def test_a_setting_of_which_a_seed_stopped_comes_after_those_that_finished():
    members = [member(0, 0.9, rate=0.1, validation=0.9), member(1, None, rate=0.1)]
    members += [member(s, 0.4, rate=0.01, validation=0.5) for s in range(2)]
    assert chosen(members)["a.csv"]["ours"] == {0: 0.4, 1: 0.4}
    assert chosen(members[:2])["a.csv"]["ours"] == {0: 0.9}


def test_the_verdict_is_that_of_a_paired_t_test():
    draw = np.random.default_rng(0)
    base = dict(enumerate(draw.normal(size=10)))
    up = {seed: value + 0.1 + 0.01 * draw.normal() for seed, value in base.items()}
    assert wins.verdict(up, base, 0.05) == "win"
    assert wins.verdict(base, up, 0.05) == "loss"
    wide = {seed: value + draw.normal() for seed, value in base.items()}
    assert wins.verdict(base, wide, 1e-6) == "tie"
    assert wins.verdict(base, base, 0.05) == "tie"
    assert wins.verdict({0: 1.0, 1: 1.0}, {0: 0.5, 1: 0.5}, 0.05) == "win"
    assert wins.verdict({0: 1.0}, {0: 0.5}, 0.05) == "tie"


def test_the_table_counts_over_the_problems(tmp_path, capsys):
    (tmp_path / "members").mkdir()
    for problem, theirs in (("a", 0.5), ("b", 0.7), ("c", 0.6)):
        for seed in range(3):
            for loss, test in (("ours", 0.6), ("theirs", theirs)):
                found = member(seed, test, loss=loss, problem=problem)
                path = tmp_path / "members" / f"{problem}-{loss}-{seed}.json"
                path.write_text(json.dumps(found))
    text = wins.tables(chosen(wins.read_members([tmp_path])), "ours", 0.05)
    assert text.splitlines()[-1] == "| theirs | 1 | 1 | 1 |"
    assert "| b.csv | 0.6000 +- 0.0000 | 0.7000 +- 0.0000 (loss) |" in text
    assert "| ours minus | theirs |" in text and "| b.csv | -0.1000 +- 0.0000 |" in text
    upside_down = wins.tables(chosen(wins.read_members([tmp_path])), "ours", 0.05, sign=-1)
    assert "0.7000 +- 0.0000 (win)" in upside_down
    with pytest.raises(BadInput, match="--reference: expected one of ours, theirs, got 'mine'"):
        wins.tables(chosen([member(0, 1.0), member(0, 1.0, loss="theirs")]), "mine", 0.05)
    with pytest.raises(BadInput, match="found no members"):
        wins.read_members([tmp_path / "members"])
    with pytest.raises(BadInput, match="no metric 'acuracy'"):
        wins.chosen([member(0, 1.0)], ["data.path"], ["loss.name"], "acuracy", "accuracy")


def test_a_metric_that_is_not_finite_is_read_and_never_the_best():
    members = [member(s, 0.9, rate=0.01, validation="NaN") for s in range(2)]
    members += [member(s, "-Infinity", rate=0.1, validation=0.5) for s in range(2)]
    for order in (members, members[::-1]):
        assert chosen(order)["a.csv"]["ours"] == {0: -np.inf, 1: -np.inf}


def test_a_minus_turns_the_metric_and_what_is_missing_leaves_its_column_empty():
    members = [member(s, 0.2 + 0.01 * s, loss="ours", problem=p) for s in (0, 1) for p in "ab"]
    members += [member(s, 0.5, loss="more", problem="b") for s in (0, 1)]
    members += [member(s, 0.1, loss="theirs", problem="a") for s in (0, 1)]
    found = wins.chosen(members, ["data.path"], ["loss.name"], "accuracy", "-accuracy")
    text = wins.tables(found, "ours", 0.5, sign=-1)
    assert "| a.csv | - | 0.1050 +- " in text and "| b.csv | -0.2950 +- " in text
    assert text.splitlines()[-2:] == ["| more | 1 | 0 | 0 |", "| theirs | 0 | 0 | 1 |"]
