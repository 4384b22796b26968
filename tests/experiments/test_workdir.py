# SPDX-License-Identifier: Apache-2.0
"""Whose a directory is, and the files that say what ran there."""

import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from experiments import workdir
from experiments.errors import BadInput

CONFIG = {"seed": 0, "steps": 10, "loss": {"name": "focal"}}


def test_claiming_makes_the_directory_and_finds_it_again(tmp_path):
    root = tmp_path / "a" / "b"

    workdir.claim(root, CONFIG, overwrite=False)
    workdir.claim(root, CONFIG, overwrite=False)

    assert workdir.read_config(root) == CONFIG
    assert [path.name for path in root.iterdir()] == ["config.json"]


def test_another_config_is_refused_with_the_keys_that_differ(tmp_path):
    workdir.claim(tmp_path, CONFIG, overwrite=False)
    theirs = {**CONFIG, "seed": 1, "loss": {"name": "focal", "gamma": 1.0}}

    with pytest.raises(BadInput) as refused:
        workdir.claim(tmp_path, theirs, overwrite=False)

    said = str(refused.value)
    assert "loss.gamma: absent there, 1.0 here; seed: 0 there, 1 here" in said
    assert "--overwrite" in said and "\n" not in said
    assert workdir.read_config(tmp_path) == CONFIG


def test_a_run_may_grow_but_not_shrink(tmp_path):
    workdir.claim(tmp_path, CONFIG, overwrite=False)
    workdir.claim(tmp_path, {**CONFIG, "steps": 20}, overwrite=False)
    assert workdir.read_config(tmp_path)["steps"] == 20

    with pytest.raises(BadInput, match="steps: 20 there, 10 here"):
        workdir.claim(tmp_path, CONFIG, overwrite=False)


def test_overwriting_removes_what_a_run_wrote_and_nothing_else(tmp_path):
    workdir.claim(tmp_path, CONFIG, overwrite=False)
    ours = ["run.json", "metrics.jsonl", "report.html", "report.png", "evaluation.npz",
            "parameters.npz", "parameters.json", "evaluation-4.json", "manifests/4.json",
            "checkpoints/4/data", "tensorboard/events.out.1"]  # fmt: skip
    theirs = ["notes.txt", "data/train.csv", "tensorboard/mine.txt"]
    for name in ours + theirs:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()

    workdir.claim(tmp_path, {**CONFIG, "seed": 1}, overwrite=True)

    left = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()}
    assert left == {"config.json", *theirs}
    assert workdir.read_config(tmp_path)["seed"] == 1


@pytest.mark.parametrize("content", ["", "{", "[]", "3"])
def test_a_broken_config_file_is_named(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(BadInput, match=r"--workdir: .*config\.json.*--overwrite"):
        workdir.claim(tmp_path, CONFIG, overwrite=False)


def test_a_directory_that_cannot_be_written_is_refused(tmp_path, monkeypatch):
    workdir.claim(tmp_path, CONFIG, overwrite=False)
    # Permission bits mean nothing to root, whom the tests may run as.
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(BadInput, match="--workdir: cannot write"):
        workdir.claim(tmp_path, CONFIG, overwrite=False)


def test_no_reader_sees_half_a_json_file(tmp_path, monkeypatch):
    path = tmp_path / "run.json"
    workdir.write_json(path, {"steps": 1})
    with pytest.raises(ValueError):
        workdir.write_json(path, {"steps": float("nan")})
    assert json.loads(path.read_text()) == {"steps": 1}


def test_a_record_that_cannot_be_read_is_none(tmp_path):
    assert workdir.read_record(tmp_path) == {}
    (tmp_path / "run.json").write_text("{")
    assert workdir.read_record(tmp_path) == {}


@pytest.mark.parametrize("task", ["binary", "multiclass"])
def test_the_evaluation_holds_the_log_odds(tmp_path, task):
    labels = np.array([0, 1])
    scores = np.array([-1.0, 3.0]) if task == "binary" else np.array([[0.0, -1.0], [0.0, 3.0]])
    found = {"scores": scores, "labels": labels, "index": np.arange(2)}

    workdir.write_evaluation(tmp_path, found, task)

    with np.load(tmp_path / "evaluation.npz", allow_pickle=False) as arrays:
        assert sorted(arrays) == ["index", "labels", "log_odds", "scores"]
        np.testing.assert_allclose(arrays["log_odds"], [1.0, 3.0])
    assert [path.name for path in tmp_path.iterdir()] == ["evaluation.npz"]


class Processes:
    """Several processes that agree, each of them a thread."""

    def __init__(self, count: int):
        self.count, self.told = count, [""] * count
        self._barrier, self._own = threading.Barrier(count), threading.local()

    def index(self) -> int:
        return self._own.index

    def agree(self, problem: str) -> str:
        self.told[self.index()] = problem
        self._barrier.wait(timeout=20)
        found = next(filter(None, self.told), "")
        self._barrier.wait(timeout=20)
        return found

    def check(self, index: int, root) -> None:
        self._own.index = index
        workdir.check_shared(root)


@pytest.fixture
def processes(monkeypatch) -> Processes:
    made = Processes(3)
    monkeypatch.setattr(workdir.jax, "process_count", lambda: made.count)
    monkeypatch.setattr(workdir.jax, "process_index", made.index)
    monkeypatch.setattr(workdir.sharding, "agree", made.agree)
    monkeypatch.setattr(workdir, "SEEN_WITHIN", 0.3)
    return made


def checked(processes: Processes, roots) -> list[BadInput | None]:
    with ThreadPoolExecutor(processes.count) as pool:
        started = [pool.submit(processes.check, i, root) for i, root in enumerate(roots)]
        return [future.exception(timeout=20) for future in started]


def test_processes_that_share_a_directory_leave_nothing_in_it(tmp_path, processes):
    (tmp_path / "shared-0123.probe").touch()  # a run was killed right there
    assert checked(processes, [tmp_path] * 3) == [None] * 3
    assert list(tmp_path.iterdir()) == []


def test_a_process_with_a_directory_of_its_own_stops_all(tmp_path, processes):
    roots = [tmp_path / name for name in ("a", "a", "b")]
    for root in set(roots):
        root.mkdir()
    said = {str(error) for error in checked(processes, roots)}
    (line,) = said
    assert line.startswith("--workdir: process 2 does not see the workdir of process 0, ")
    assert f"{roots[0]} on " in line and f"(it looked in {roots[2]} on " in line
    assert [*roots[0].iterdir(), *roots[2].iterdir()] == []


def test_a_directory_that_process_0_cannot_write_stops_all(tmp_path, processes):
    (tmp_path / "file").touch()
    said = {str(error) for error in checked(processes, [tmp_path / "file"] * 3)}
    assert said == {f"--workdir: cannot write {tmp_path / 'file'}: Not a directory"}
