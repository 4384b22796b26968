# SPDX-License-Identifier: Apache-2.0
"""The real command line from start to end, and stopped in every way there is."""

import json
import random
import re
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest

from experiments.data import load, train_iterator
from experiments.metrics import read_metrics
from tests.end_to_end.conftest import parameters, records, step_reached, until

#: Digits in 60 steps, with a record of every step.
SETTINGS = (
    "--config=digits:quick",
    "--config.model.hidden=(16,)",
    "--config.log_every=1",
    "--config.checkpoint_every=20",
)


@pytest.fixture(scope="module")
def reference(tmp_path_factory, run_python) -> Path:
    """The workdir of a run that nothing interrupted, in a process that a user would start."""
    workdir = tmp_path_factory.mktemp("reference")
    done = run_python("-m", "experiments.run", *SETTINGS, f"--workdir={workdir}")
    (workdir / "out").write_text(done.stdout)
    (workdir / "err").write_text(done.stderr)
    return workdir


def same_bits(left: Path, right: Path) -> bool:
    ours, theirs = parameters(left), parameters(right)
    return ours.keys() == theirs.keys() and all(
        np.array_equal(ours[name], theirs[name]) for name in ours
    )


def by_step(workdir: Path, split: str, name: str) -> dict[int, float]:
    return {r["step"]: r[name] for r in read_metrics(workdir) if r["split"] == split}


def test_a_run_leaves_files_that_agree(reference: Path):
    run, found = json.loads((reference / "run.json").read_text()), read_metrics(reference)
    page = (reference / "report.html").read_text()

    assert [r["step"] for r in found if r["split"] == "train"] == list(range(1, 61))
    assert [r["step"] for r in found if r["split"] == "validation"] == [30, 60]
    (test,) = (r for r in found if r["split"] == "test")
    assert run["steps"] == test["step"] == 60
    assert run["final_metrics"] == {k: v for k, v in test.items() if k not in ("step", "split")}
    assert run["seconds_per_step"] > 0
    assert run["loss"]["name"] == "cross_entropy"
    assert run["overrides"] == [setting.removeprefix("--") for setting in SETTINGS[1:]]
    with np.load(reference / "evaluation.npz", allow_pickle=False) as arrays:
        hits = arrays["scores"].argmax(axis=1) == arrays["labels"]
    assert np.mean(hits) == pytest.approx(test["accuracy"])
    assert f"{test['accuracy']:.4g}" in page
    assert (reference / "report.png").read_bytes().startswith(b"\x89PNG")
    assert test["accuracy"] > 0.6


def test_a_run_says_what_it_does_and_nothing_else(reference: Path):
    out, err = (reference / "out").read_text(), (reference / "err").read_text()

    assert out.splitlines()[0].startswith("cross_entropy on digits")
    assert out.splitlines()[-1] == f"report: {reference}/report.html"
    assert [line for line in err.splitlines() if not re.match(r"step \d+/60 ", line)] == []


def test_stopped_killed_and_continued_ends_with_the_same_bits(reference, program, tmp_path):
    command = (*SETTINGS, f"--workdir={tmp_path}")

    run = program(*command)
    until(step_reached(tmp_path, 3), run)
    run.signal(signal.SIGTERM).expect(75)
    saved = int(re.search(r"preempted: saved step (\d+)", run.out)[1])
    assert 3 <= saved < 60
    assert max(r["step"] for r in read_metrics(tmp_path)) == saved
    assert (tmp_path / "manifests" / f"{saved}.json").exists()
    status = lambda: json.loads((tmp_path / "status.json").read_text())  # noqa: E731
    assert (status()["state"], status()["step"]) == ("preempted", saved)

    run = program(*command)
    until(step_reached(tmp_path, max(25, saved + 2)), run)
    run.signal(signal.SIGKILL).expect(-signal.SIGKILL)
    assert f"continuing from the checkpoint of step {saved}" in run.out
    assert (status()["state"], status()["restarts"]) == ("running", 1)

    run = program(*command).expect(0)
    assert "continuing from the checkpoint of step" in run.out
    assert records(tmp_path) == records(reference)
    assert same_bits(tmp_path, reference)
    assert (status()["state"], status()["restarts"]) == ("finished", 2)
    assert status()["seconds"]["down"] > 0 and 0 < status()["goodput"] < 1


@pytest.mark.slow
def test_twenty_kills_leave_no_trace(program, tmp_path):
    settings = (*SETTINGS, "--config.steps=600", "--config.checkpoint_every=5")
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    program(*settings, f"--workdir={whole}").expect(0)
    moments, continued = random.Random(0), 0

    for _ in range(20):
        last = max((r["step"] for r in read_metrics(killed)), default=0)
        run = program(*settings, f"--workdir={killed}")
        target = min(last - last % 5 + moments.randint(1, 30), 590)
        # The records of a run that comes back are cut to its checkpoint before it goes on.
        until(lambda run=run: "steps" in run.out, run)
        until(step_reached(killed, target), run)
        run.signal(signal.SIGKILL).expect(-signal.SIGKILL)
        continued += "continuing from the checkpoint" in run.out
    program(*settings, f"--workdir={killed}").expect(0)

    assert continued >= 15
    assert records(killed) == records(whole)
    assert same_bits(killed, whole)


def test_a_finished_run_is_left_as_it_is(reference, program, tmp_path):
    copy = shutil.copytree(reference, tmp_path / "copy")
    kept = ("run.json", "metrics.jsonl", "evaluation.npz", "config.json")
    before = {name: (copy / name).read_bytes() for name in kept}

    run = program(*SETTINGS, f"--workdir={copy}").expect(0)

    assert "finished already at step 60" in run.out
    assert {name: (copy / name).read_bytes() for name in kept} == before


def test_eight_devices_draw_the_same_curve(reference, program, tmp_path):
    # The rest of the line comes from a file, and a trace is asked for.
    flagfile = tmp_path / "flags"
    flagfile.write_text("\n".join([*SETTINGS, "--profile", f"--workdir={tmp_path / 'run'}"]))

    run = program(f"--flagfile={flagfile}", devices=8).expect(0)

    assert "8 x cpu" in run.out
    ours, theirs = (by_step(w, "train", "loss") for w in (tmp_path / "run", reference))
    assert ours == pytest.approx(theirs, rel=1e-4)
    assert list((tmp_path / "run" / "profile").rglob("*.xplane.pb"))


def test_breast_cancer_says_that_ensloss_is_no_loss_value(program, tmp_path):
    run = program("--config=breast_cancer:quick", f"--workdir={tmp_path}").expect(0)

    assert "no loss value" in run.out
    found = read_metrics(tmp_path)
    assert all("cross_entropy" in record for record in found)
    assert [r for r in found if r["split"] != "train" and "loss" in r] == []
    assert json.loads((tmp_path / "run.json").read_text())["loss"]["exact_gradient"] is False


def test_eval_and_export_read_the_newest_checkpoint(reference, program, tmp_path):
    copy = shutil.copytree(reference, tmp_path / "copy")
    kept = ("run.json", "metrics.jsonl", "evaluation.npz", "config.json")
    before = {name: (copy / name).read_bytes() for name in kept}
    trees = [sorted((copy / "checkpoints").rglob("*"))]

    program(f"--workdir={copy}", "--mode=eval").expect(0)
    exported = program(*SETTINGS, f"--workdir={copy}", "--mode=export").expect(0)

    found = json.loads((copy / "evaluation-60.json").read_text())["test"]
    assert found == pytest.approx(
        json.loads((copy / "run.json").read_text())["final_metrics"], rel=1e-6
    )
    expected = parameters(reference)
    with np.load(copy / "parameters.npz", allow_pickle=False) as arrays:
        assert len(arrays.files) == len(expected) == 4
        assert sorted(a.tobytes() for a in arrays.values()) == sorted(
            a.tobytes() for a in expected.values()
        )
        described = json.loads((copy / "parameters.json").read_text())
        assert {k: v["shape"] for k, v in described["parameters"].items()} == {
            k: [*a.shape] for k, a in arrays.items()
        }
    assert f"{copy}/parameters.npz" in exported.out
    assert {name: (copy / name).read_bytes() for name in kept} == before
    assert [sorted((copy / "checkpoints").rglob("*"))] == trees


def test_a_checkpoint_of_any_step_can_be_evaluated(reference, program, tmp_path):
    copy = shutil.copytree(reference, tmp_path / "copy")

    program(f"--workdir={copy}", "--mode=eval", "--checkpoint=40").expect(0)
    refused = program(f"--workdir={copy}", "--mode=eval", "--checkpoint=41").expect(2)

    found = json.loads((copy / "evaluation-40.json").read_text())["validation"]["accuracy"]
    early, late = (by_step(copy, "validation", "accuracy")[step] for step in (30, 60))
    assert min(early, late) - 0.05 < found < max(early, late) + 0.05
    assert refused.err == "run: --checkpoint: expected one of 20, 40, 60, got 41\n"


def test_compile_and_dry_run_write_nothing(program, tmp_path):
    compiled = program(*SETTINGS, "--mode=compile", devices=8).expect(0)
    planned = program(*SETTINGS, "--dry_run", f"--workdir={tmp_path / 'run'}", compiling=False)

    assert re.search(r"temporaries +[\d,]+ bytes", compiled.out)
    assert "all-reduce" in compiled.out
    planned.expect(0)
    config, _, plan = planned.out.partition("\n\n")
    assert json.loads(config)["model"]["hidden"] == [16]
    assert re.search(r"steps +60 of 60", plan)
    assert not (tmp_path / "run").exists()


@pytest.fixture
def table(tmp_path) -> tuple[Path, list[str]]:
    """A csv of 90 rows and three classes, its first column the row's number, and its settings."""
    path = tmp_path / "table.csv"
    rows = np.arange(90)
    path.write_text("row,noise,label\n" + "".join(f"{i},{i % 7},{i % 3}\n" for i in rows))
    settings = {"path": path, "num_classes": 3, "stratify": False, "normalise": "none",
                "batch_size": 8, "eval_batch_size": 8}  # fmt: skip
    return path, [f"--config.data.{key}={value}" for key, value in settings.items()]


def spoil(path: Path, row: int) -> None:
    """Gives one row of the csv a label out of range."""
    lines = path.read_text().splitlines(keepends=True)
    lines[row + 1] = re.sub(r"\d+$", "7", lines[row + 1].rstrip()) + "\n"
    path.write_text("".join(lines))


def loaded(path: Path):
    options = {"path": str(path), "num_classes": 3, "stratify": False, "normalise": "none"}
    return load(options, seed=0)


def test_a_label_out_of_range_stops_the_run_at_its_step(program, table, tmp_path):
    path, settings = table
    batches = train_iterator(loaded(path).train, batch_size=8, seed=0)
    steps = [next(batches)["inputs"][:, 0].astype(int) for _ in range(4)]
    spoil(path, int(steps[3][0]))
    command = (*SETTINGS, *settings, "--config.checkpoint_every=2", f"--workdir={tmp_path / 'run'}")

    run = program(*command).expect(3)

    (line,) = (line for line in run.err.splitlines() if line.startswith("run: "))
    assert "not finite at step 4" in line
    assert "checkpoint of step 2 is kept" in line
    assert "labels outside [0, K)" in line
    assert "Traceback" not in run.err
    program(*command, "--mode=eval").expect(0)
    assert (tmp_path / "run" / "evaluation-2.json").exists()


def test_a_label_out_of_range_in_an_evaluation_is_one_line(program, table, tmp_path):
    path, settings = table
    position = int(loaded(path).validation[3]["inputs"][0])
    spoil(path, position)

    run = program(*SETTINGS, *settings, f"--workdir={tmp_path / 'run'}")

    run.expect(2)
    (line,) = (line for line in run.err.splitlines() if line.startswith("run: "))
    assert "[0, 3), got 7 for example 3 of the validation split" in line
    assert "Traceback" not in run.err
