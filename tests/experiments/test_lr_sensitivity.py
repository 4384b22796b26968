# SPDX-License-Identifier: Apache-2.0
"""What a wrong learning rate costs: the number, the groups, and what stopped at NaN."""

import pytest

from experiments import lr_sensitivity
from experiments.errors import BadInput

BY = ["model.qk_norm"]


def member(seed, rate, loss, *, norm=False, steps=300):
    overrides = {"optimizer.learning_rate": rate, "model.qk_norm": norm, "steps": steps}
    final = {} if loss is None else {"validation": {"loss": loss}, "test": {"loss": 0.0}}
    return {"seed": seed, "overrides": overrides, "final": final}


def test_the_sensitivity_is_the_mean_loss_over_the_least():
    # Seed 0: 1, 2 and NaN counted as 4; seed 1: 1, 3 and 9, cut at 4.
    losses = {0: (1.0, 2.0, None), 1: (1.0, 3.0, 9.0)}
    members = [
        member(seed, rate, loss)
        for seed, row in losses.items()
        for rate, loss in zip((0.1, 0.2, 0.3), row, strict=True)
    ]
    line = lr_sensitivity.table(members, BY, "loss", 4.0).splitlines()[-1]
    assert line.startswith("| qk_norm=False | 1.5000 +- ")  # (4/3 + 5/3) / 2
    assert "| 1.0000 +- 0.0000 | 2.5000 +- " in line and line.endswith("| 4.0000 +- 0.0000 |")


def test_groups_are_told_apart_and_sorted():
    members = [
        member(seed, rate, 1.0 + rate * (5 if not norm else 1), norm=norm)
        for seed in range(2)
        for norm in (False, True)
        for rate in (0.1, 0.2)
    ]
    lines = lr_sensitivity.table(members, BY, "loss", 4.0).splitlines()
    assert [line.split(" | ")[0] for line in lines[2:]] == ["| qk_norm=True", "| qk_norm=False"]


def test_only_the_members_that_are_asked_for_are_read():
    members = [member(0, 0.1, 1.0), member(0, 0.1, 1.0, steps=600)]
    assert len(lr_sensitivity.kept(members, ["steps=300"], BY)) == 1
    with pytest.raises(BadInput, match="expected members with"):
        lr_sensitivity.kept(members, ["steps=30"], BY)
    with pytest.raises(BadInput, match="--where: expected KEY=VALUE, got 'steps'"):
        lr_sensitivity.kept(members, ["steps"], BY)
    with pytest.raises(BadInput, match=r"seed 1 lacks the rates \[0.2\]"):
        lr_sensitivity.table(
            [member(0, 0.1, 1.0), member(0, 0.2, 1.0), member(1, 0.1, 1.0)], BY, "loss", 4.0
        )
