# SPDX-License-Identifier: Apache-2.0
"""Runs set beside each other: tables, the page, and the command line."""

import pytest

from experiments.compare import config_differences, final_metrics, run_names, text_table, write_page
from experiments.rundir import read_run
from tests.experiments.fake_run import CROSS_ENTROPY, ENSLOSS, make_run


@pytest.fixture(scope="module")
def workdirs(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    comp_sum = {**CROSS_ENTROPY, "name": "comp_sum"}
    return [
        make_run(root / "first", steps=50),
        make_run(root / "second", steps=50, loss=comp_sum, finished=False,
                 config={"loss": {"name": "comp_sum", "tau": 0.7}, "seed": 1}),
        make_run(root / "third", classes=2, steps=50, loss=ENSLOSS),
    ]  # fmt: skip


@pytest.fixture(scope="module")
def runs(workdirs):
    return [read_run(workdir) for workdir in workdirs]


def test_config_differences_name_nested_keys_and_nothing_that_is_equal(runs):
    assert config_differences(runs) == [
        ("seed", "0", "1", "0"),
        ("loss.name", "cross_entropy", "comp_sum", "ensloss"),
        ("loss.tau", "-", "0.7", "-"),
    ]
    assert config_differences([runs[0], runs[0]]) == []


def test_final_metrics_have_a_cell_for_every_run(runs):
    rows = {name: cells for name, *cells in final_metrics(runs)}
    assert rows["validation step"] == ["50", "50", "50"]
    accuracy = runs[0].last("test")["accuracy"]
    assert rows["test accuracy"][:2] == [f"{accuracy:.4g}", "-"]
    assert rows["test loss"][2] == "no loss value"
    assert all(len(cells) == 3 for cells in rows.values())


def test_tables_are_aligned():
    assert text_table(("key", "a"), [("x.long", "1"), ("y", "22")]) == (
        "key     a\n------  --\nx.long  1\ny       22"
    )


def test_runs_of_one_name_are_told_apart_by_their_parents(tmp_path, workdirs):
    twins = [make_run(tmp_path / place / "run", steps=1, finished=False) for place in "ab"]
    assert run_names([read_run(w) for w in twins]) == ["a/run", "b/run"]
    assert run_names([read_run(w) for w in workdirs]) == ["first", "second", "third"]
    assert run_names([read_run(twins[0])] * 2) == ["run", "run"]


def test_page_overlays_curves_and_warns(tmp_path, runs):
    path = tmp_path / "new" / "page.html"
    write_page(runs, path)
    page = path.read_text(encoding="utf-8")
    assert page.count('src="data:image/png;base64,') == 6
    assert "Comparison of 3 runs" in page
    assert '<th scope="row">loss.tau</th><td>-</td><td>0.7</td><td>-</td>' in page
    assert "second: evaluation.npz is missing" in page
    assert "<script" not in page


def test_command_line(tmp_path, workdirs, run_python):
    out = tmp_path / "c.html"
    done = run_python("-m", "experiments.compare", *map(str, workdirs[:2]), f"--out={out}")
    assert "loss.name  cross_entropy  comp_sum" in done.stdout
    assert "validation accuracy" in done.stdout
    assert out.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{run}"], "compare: expected two or more run directories, got 1"),
        (["{run}", "no/such"], "compare: workdir: expected the directory of a run, got no/such"),
        (["{run}", "{run}", "--outt=x"], "compare: Unknown command line flag 'outt'"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(workdirs, run_python, arguments, message):
    given = [argument.format(run=workdirs[0]) for argument in arguments]
    done = run_python("-m", "experiments.compare", *given, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(message)
    assert done.stderr.count("\n") == 1
