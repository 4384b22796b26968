# SPDX-License-Identifier: Apache-2.0
"""Two sweeps in one directory: no member is trained twice, and none is written over."""

import contextlib
import json
import os

import pytest

from experiments import sweep
from experiments.errors import BadInput
from experiments.lease import Lease
from experiments.sweep_claim import hold
from tests.experiments.test_sweep import DIGITS, member, swept, trained  # noqa: F401


def test_a_member_that_another_sweep_trains_is_left_to_it(trained, tmp_path, capsys):  # noqa: F811
    config = sweep.configure(DIGITS, {"loss.name": "comp_sum", "loss.tau": "0.5"})
    paths = {seed: sweep.member_path(tmp_path, config, seed) for seed in (1, 2)}
    with hold(paths) as held:
        assert sorted(held) == [1, 2]
        results = swept(tmp_path, "loss.tau=0.5", 4)
        assert trained == [(0.5, [0, 3])]
        assert f"seeds [1, 2]: left to process {os.getpid()} on " in capsys.readouterr().out
        assert [m["seed"] for m in results[0][1]] == [0, 3]

    swept(tmp_path, "loss.tau=0.5", 4)
    assert trained[1:] == [(0.5, [1, 2])]
    assert {path.suffix for path in (tmp_path / "members").iterdir()} == {".json"}


def test_what_was_finished_meanwhile_is_not_trained_again(trained, tmp_path, monkeypatch):  # noqa: F811
    @contextlib.contextmanager
    def late(paths):
        paths[1].write_text(json.dumps(member(1, 0.5)))
        with hold(paths) as held:
            yield held

    monkeypatch.setattr(sweep, "hold", late)
    swept(tmp_path, "loss.tau=0.5", 3)
    assert trained == [(0.5, [0, 2])]


def test_a_sweep_that_stood_still_does_not_write_over_another(trained, tmp_path, monkeypatch):  # noqa: F811
    def overtaken(self):
        raise BadInput("was taken over")

    monkeypatch.setattr(Lease, "check", overtaken)
    with pytest.raises(BadInput, match="was taken over"):
        swept(tmp_path, "loss.tau=0.5", 1)
    assert list((tmp_path / "members").iterdir()) == []
