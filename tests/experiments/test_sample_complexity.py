# SPDX-License-Identifier: Apache-2.0
"""The curves of naive Bayes and logistic regression over m: files, tables, refusals."""

import json

import numpy as np
import pytest

from experiments import sample_complexity
from experiments.sample_complexity import Curves, markdown
from experiments.sweep_table import interval


def run(*arguments):
    try:
        with pytest.raises(SystemExit) as done:
            sample_complexity.run_program(
                "sample_complexity", sample_complexity.main, sample_complexity._FLAGS
            )
        return done.value.code or 0
    finally:
        sample_complexity._FLAGS.unparse_flags()
        sample_complexity.flags.FLAGS.unparse_flags()


def test_a_run_writes_tables_numbers_and_a_picture(tmp_path, monkeypatch):
    monkeypatch.setattr(sample_complexity, "FEATURES", (8,))
    monkeypatch.setattr(sample_complexity, "PER_CLASS", (1, 3))
    csv = tmp_path / "two.csv"
    rng = np.random.default_rng(0)
    rows = [[*(rng.normal(size=2) + 4 * k), k] for k in (0, 1) for _ in range(30)]
    csv.write_text("\n".join(",".join(map(str, row)) for row in rows))
    monkeypatch.setattr(
        "sys.argv",
        ["sample_complexity", f"--workdir={tmp_path}", "--seeds=2", f"--data.path={csv}"],
    )
    assert run() == 0
    found = json.loads((tmp_path / "table.json").read_text())
    assert [c["name"] for c in found] == ["simulation, 8 features", "digits", "two"]
    simulated, _, two = found
    for errors in simulated["errors"].values():
        assert len(errors) == 2
        mean = np.mean(errors, axis=0)
        assert mean.shape == (len(simulated["m"]),) and mean.min() < simulated["asymptotic"] + 0.01
        assert np.all(np.array(errors) >= simulated["asymptotic"] - 1e-9)
    assert two["m"] == [1, 3]
    table = (tmp_path / "table.md").read_text()
    mean, half = interval(100 * np.array(two["errors"]["logistic regression"])[:, 1])
    assert f"{mean:.2f} +- {half:.2f}" in table
    assert (tmp_path / "curves.png").read_bytes()[:4] == b"\x89PNG"


def test_the_crossing_and_the_first_m_are_read_off_the_means():
    logistic = np.array([[0.5, 0.3, 0.1], [0.6, 0.2, 0.1]])
    bayes = np.array([[0.3, 0.3, 0.2], [0.3, 0.3, 0.3]])
    errors = {"naive Bayes": bayes, "logistic regression": logistic}
    text = markdown([Curves("pixels", np.array([1, 5, 20]), errors)])
    assert "stays below naive Bayes from 5 examples a class on" in text
    text = markdown([Curves("simulation, 50 features", np.array([4, 8, 12]), errors, 0.195)])
    assert "| 50 | never in 1 of 2 | -1 | 10.0 +- 25.4 | 12 |" in text


def test_bad_flags_are_one_line(tmp_path, monkeypatch, capsys):
    for arguments, message in (
        ([], "--workdir: expected a directory"),
        ([f"--workdir={tmp_path}", "more"], "expected flags only, got 'more'"),
        ([f"--workdir={tmp_path}", "--seeds=1"], "--seeds=1: 1 is not integer >= 2"),
        ([f"--workdir={tmp_path}", "--data.path=nowhere"], "no such file or directory: nowhere"),
    ):
        monkeypatch.setattr("sys.argv", ["sample_complexity", *arguments])
        assert run() == 2
        assert message in capsys.readouterr().err
