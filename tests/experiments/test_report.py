# SPDX-License-Identifier: Apache-2.0
"""The report of a run: what its pictures and tables say, for every state a workdir can be in."""

import json
import re
import subprocess
import sys

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure

from experiments import figures
from experiments.errors import BadInput
from experiments.metrics import MetricWriter
from experiments.report import _warnings, write_report
from experiments.rundir import flatten, read_run
from experiments.scoring import evaluation_metrics, true_class_log_odds
from tests.experiments.fake_run import ENSLOSS, make_run


def drawn(workdir, panel):
    """The axes of one picture, laid out as the report would."""
    figure = Figure(figsize=figures.PANEL_SIZE, layout="constrained")
    figures.PANELS[panel](figure, read_run(workdir))
    figure.canvas.draw()
    return figure.axes


def texts(axes):
    """Every text of a picture: notes, messages, numbers in cells."""
    return [text.get_text() for text in [*axes.texts, axes.title, axes._left_title]]


def replace_scores(workdir, scores, labels, task):
    np.savez(workdir / "evaluation.npz", scores=scores, labels=labels, index=np.arange(len(labels)),
             log_odds=true_class_log_odds(scores, labels, task))  # fmt: skip


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("runs") / "digits", steps=400)


@pytest.fixture(scope="module")
def report(digits):
    path = write_report(digits)
    assert path == digits / "report.html"
    return path.read_text(encoding="utf-8")


def test_report_is_one_page_that_loads_nothing(digits, report):
    assert report.count("<img ") == len(figures.PANELS) == 6
    assert report.count('src="data:image/png;base64,') == 6
    assert re.findall(r'(?:src|href)="(?!data:)([^"]*)"', report) == [
        "https://arxiv.org/abs/2304.07288"
    ]
    assert "<script" not in report
    assert "@import" not in report
    assert '<meta name="viewport"' in report
    assert (digits / "report.png").read_bytes().startswith(b"\x89PNG")
    # The whole page as one picture is wider than any of its parts.
    assert (digits / "report.png").stat().st_size > 50_000


def test_report_says_what_came_out(digits, report):
    run = read_run(digits)
    found = evaluation_metrics(run.evaluation.scores, run.evaluation.labels, "multiclass")
    for name in ("accuracy", "cross_entropy", "expected_calibration_error", "mean_log_odds"):
        assert f"<td>{found[name]:.4g}</td>" in report
    assert "<td>authors&#x27; code</td>" in report
    assert "A paper on &lt;losses&gt; &amp; margins" in report
    assert '<th scope="row">optimizer.learning_rate</th><td>0.001</td>' in report
    assert '<th scope="row">versions.jax</th><td>0.10.2</td>' in report
    assert "0123abc" in report
    assert 'class="warning"' not in report


def test_text_of_a_run_is_escaped_and_is_no_markup(tmp_path):
    evil = "<script>alert('x')</script>"
    workdir = make_run(
        tmp_path / "a&b",
        steps=20,
        config={"note": evil, "loss": {"name": evil, "tau$^": 0.5}, evil: [evil]},
        info={"class_names": [evil, "$\\frac$", "字", *"3456789"], "git_commit": evil},
        loss={"name": evil, "arxiv": 'x" onclick="', "exact_gradient": False, "needs": [evil]},
    )
    page = write_report(workdir).read_text(encoding="utf-8")
    assert "<script" not in page
    assert "onclick=&quot;" in page
    assert 'onclick="' not in page
    assert "href=" not in page
    assert page.count("&lt;script&gt;") >= 6
    assert "<h1>a&amp;b: " in page


def test_learning_curves_show_both_losses_under_the_name_of_the_loss(digits):
    (axes,) = drawn(digits, "Learning curves")
    assert axes.get_ylabel() == "loss (cross_entropy)"
    train, validation = axes.get_lines()
    run = read_run(digits)
    np.testing.assert_array_equal(train.get_xydata().T, run.series("train", "loss"))
    np.testing.assert_array_equal(validation.get_xydata().T, run.series("validation", "loss"))


def test_an_injected_gradient_shows_cross_entropy_and_says_why(tmp_path):
    workdir = make_run(tmp_path / "run", classes=2, count=114, loss=ENSLOSS, steps=100)
    (axes,) = drawn(workdir, "Learning curves")
    assert axes.get_ylabel() == "cross-entropy (nats)"
    assert any("its scalar is not a loss" in text for text in texts(axes))
    (line,) = axes.get_lines()
    expected = read_run(workdir).series("validation", "cross_entropy")[1]
    np.testing.assert_array_equal(line.get_ydata(), expected)
    page = write_report(workdir).read_text(encoding="utf-8")
    assert "the scalar that training logs is not a loss value" in page
    assert "test loss" not in page
    assert '<th scope="row">loss</th>' not in page
    assert "published formula, derived and checked" in page


def test_an_unfinished_run_asks_the_catalogue_about_its_loss(tmp_path):
    run = read_run(make_run(tmp_path / "run", loss=ENSLOSS, steps=1, finished=False))
    assert run.injected_gradient
    run.config["loss"] = {"name": "no such loss"}
    assert run.loss == {}
    assert not run.injected_gradient


def test_binary_scores_make_a_two_by_two_confusion_matrix(tmp_path):
    workdir = make_run(tmp_path / "run", classes=2, steps=1, info={"class_names": ["bad", "good"]})
    scores = np.array([2.0, -1.0, 3.0, -4.0, 0.5, -2.0])
    labels = np.array([1, 1, 1, 0, 0, 1])
    replace_scores(workdir, scores, labels, "binary")
    (axes,) = drawn(workdir, "Confusion matrix")
    cells = {text.get_position(): text.get_text() for text in axes.texts}
    # Keys are (predicted, true).
    assert cells == {(0, 0): "1", (1, 0): "1", (0, 1): "2", (1, 1): "2"}
    assert [label.get_text() for label in axes.get_yticklabels()] == ["bad", "good"]
    (axes,) = drawn(workdir, "True-class log-odds")
    assert {text.get_text() for text in axes.get_legend().get_texts()} == {
        "correct (3)",
        "incorrect (3)",
    }
    right, wrong = axes.containers
    assert sum(bar.get_height() for bar in right) == sum(bar.get_height() for bar in wrong) == 3
    assert all(bar.get_x() + bar.get_width() > 0 for bar in right if bar.get_height())
    assert all(bar.get_x() < 0 for bar in wrong if bar.get_height())
    upper, lower = drawn(workdir, "Reliability")
    found = evaluation_metrics(scores, labels, "binary")["expected_calibration_error"]
    assert any(f"expected calibration error {found:.4f}" in text for text in texts(upper))
    assert sum(int(text.get_text()) for text in lower.texts) == 6


@pytest.mark.parametrize(("classes", "numbered"), [(20, True), (21, False), (100, False)])
def test_confusion_matrix_has_numbers_up_to_twenty_classes(tmp_path, classes, numbered):
    workdir = make_run(tmp_path / "run", classes=classes, count=1000, steps=1)
    axes, *colourbar = drawn(workdir, "Confusion matrix")
    assert axes.get_images()[0].get_array().shape == (classes, classes)
    assert sum(int(text.get_text()) for text in axes.texts) == (1000 if numbered else 0)
    assert bool(colourbar) is not numbered


def test_losses_that_are_not_finite_leave_a_gap_and_are_named(tmp_path):
    workdir = make_run(tmp_path / "run", steps=10, validation=False)
    writer = MetricWriter(workdir, is_main=True, resume_step=5)
    for step, loss in ((6, float("nan")), (7, float("inf")), (8, 0.5)):
        writer.write(step, "train", {"loss": loss})
    writer.close()
    (axes,) = drawn(workdir, "Learning curves")
    assert any("train: not finite in 2 of 8 records, first at step 6" in t for t in texts(axes))
    assert np.isnan(axes.get_lines()[0].get_ydata()[5:7].astype(float)).all()
    page = write_report(workdir).read_text(encoding="utf-8")
    assert "The training loss is not finite in 2 records, first at step 6." in page


def test_scores_that_are_nan_are_left_out_and_counted(tmp_path):
    workdir = make_run(tmp_path / "run", classes=3, steps=1)
    nan = np.nan
    replace_scores(workdir, np.array([[1.0, 0, 0], [nan, 0, 0]]), np.array([0, 1]), "multiclass")
    for panel in ("Reliability", "True-class log-odds", "Confusion matrix"):
        axes, *_ = drawn(workdir, panel)
        assert any("1 examples with NaN scores left out" in text for text in texts(axes))
    replace_scores(workdir, np.full((2, 3), nan), np.array([0, 1]), "multiclass")
    for panel in ("Reliability", "True-class log-odds", "Confusion matrix"):
        (axes,) = drawn(workdir, panel)
        assert texts(axes)[0].startswith("None of the 2 test examples has a score")


@pytest.mark.parametrize("records", [0, 1])
def test_a_run_that_has_just_begun_has_a_report(tmp_path, records):
    workdir = tmp_path / "run"
    make_run(workdir, steps=records, finished=False, validation=False)
    page = write_report(workdir).read_text(encoding="utf-8")
    assert "run.json is missing: " in page
    assert "evaluation.npz is missing: " in page
    assert "No evaluation was recorded." in page
    assert ("This run has not finished" in page) == bool(records)
    (axes,) = drawn(workdir, "Learning curves")
    if records:
        assert axes.get_lines()[0].get_marker() == "o"
    else:
        assert texts(axes)[0] == "No loss was recorded."
        (workdir / "metrics.jsonl").unlink()
        assert any("metrics.jsonl is missing" in message for message in read_run(workdir).missing)
    assert texts(drawn(workdir, "Confusion matrix")[0])[0].startswith("No test scores yet")


def test_time_per_step_leaves_the_compile_out_and_says_so(digits):
    (axes,) = drawn(digits, "Time per step")
    assert axes.get_xlabel() == "time per step (ms)"
    assert axes.get_xlim()[1] < 30
    assert any("1 slower not shown, up to 2.7 s" in text for text in texts(axes))


def test_drawing_leaves_matplotlib_as_it_was(digits):
    before = dict(matplotlib.rcParams)
    run = read_run(digits)
    figures.render(lambda figure: figures.PANELS["Accuracy"](figure, run))
    assert dict(matplotlib.rcParams) == before


def test_importing_the_report_draws_on_no_matplotlib():
    code = "import sys, experiments.report; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=120).returncode == 0


def test_what_is_no_run_is_refused_with_its_path(tmp_path):
    with pytest.raises(BadInput, match="workdir: expected the directory of a run, got .*nothing"):
        write_report(tmp_path / "nothing")
    with pytest.raises(BadInput, match="no config.json in it"):
        write_report(tmp_path)
    (tmp_path / "config.json").write_text("[1]")
    with pytest.raises(BadInput, match=r"config.json: expected a JSON object, got list"):
        write_report(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "evaluation.npz").write_text("torn")
    with pytest.raises(BadInput, match=r"evaluation.npz: expected arrays scores, labels"):
        write_report(tmp_path)
    np.savez(tmp_path / "evaluation.npz", scores=np.zeros((3, 2)), labels=np.zeros(2, int),
             log_odds=np.zeros(3), index=np.arange(3))  # fmt: skip
    with pytest.raises(BadInput, match=r"got \[3, 2\], \[2\], \[3\], \[3\]"):
        write_report(tmp_path)


def test_the_last_record_of_a_step_counts(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    lines = [{"step": s, "split": "test", "accuracy": a} for s, a in ((2, 0.1), (1, 0.3), (2, 0.2))]
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    steps, values = read_run(tmp_path).series("test", "accuracy")
    assert (steps.tolist(), values.tolist()) == ([1, 2], [0.3, 0.2])


def test_flatten_names_nested_keys():
    tree = {"a": {"b": {"c": 1}, "d": [2, 3]}, "e": {}}
    assert list(flatten(tree)) == [("a.b.c", 1), ("a.d", [2, 3]), ("e", {})]


def test_the_report_of_a_run_that_stopped_says_when_and_why(tmp_path):
    workdir = make_run(tmp_path / "run", steps=20, finished=False)
    status = {"state": "failed", "step": 17, "last_step": 20, "time": "2026-11-25T22:28:38+00:00",
              "message": "OSError: <the disk>", "warnings": ["input: it is slow"]}  # fmt: skip
    (workdir / "status.json").write_text(json.dumps(status))
    page = write_report(workdir).read_text()
    assert "Last sign of life at 2026-11-25T22:28:38+00:00: failed, step 17 of 20" in page
    assert "(OSError: &lt;the disk&gt;)." in page and "Warned of while it ran: it is slow." in page

    (workdir / "status.json").write_text(json.dumps(status | {"state": "finished", "warnings": []}))
    assert "sign of life" not in " ".join(_warnings(read_run(workdir)))
    (workdir / "status.json").write_text('{"state": ')
    assert "sign of life" not in " ".join(_warnings(read_run(workdir)))
