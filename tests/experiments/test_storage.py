# SPDX-License-Identifier: Apache-2.0
"""A workdir in Cloud Storage is what a local one is: files, lock, metrics, a whole training."""

import json
import time
from pathlib import Path

import numpy as np
import pytest

from experiments import lease as leases
from experiments import report, storage
from experiments.checkpoint import Checkpoints
from experiments.errors import BadInput
from experiments.lease import LOCK, Lease
from experiments.metrics import MetricWriter, read_metrics
from experiments.rundir import read_run
from tests.experiments import fake_store
from tests.experiments.test_train import parameters, quick, records, run, same  # noqa: F401

RUN = "gs://bucket/some/run"


@pytest.fixture
def objects(tmp_path: Path, monkeypatch) -> Path:
    """Where the objects of gs://bucket are."""
    return fake_store.install(tmp_path / "store", monkeypatch)


@pytest.fixture(params=["local", "remote"])
def folder(request, tmp_path, objects) -> storage.AnyPath:
    return storage.find(tmp_path / "run" if request.param == "local" else RUN)


# ---- Names ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["s3://bucket/run", "gs://", "gs:///", "ftp://host/run"])
def test_other_places_are_refused(name, objects):
    with pytest.raises(BadInput, match=f"--workdir: expected a directory or gs://.*got '{name}'"):
        storage.find(name)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(storage, "_NEEDED", {"no_such": "its-package", "json": "json"})
    with pytest.raises(BadInput, match=r"--workdir: .* for gs://b/r, .*pip install its-package$"):
        storage.find("gs://b/r")


def test_local_names_stay_as_they_are(tmp_path):
    assert storage.find("runs/a") == Path("runs/a")
    assert storage.find(tmp_path) == tmp_path and not storage.is_remote(tmp_path)
    assert storage.absolute(Path("runs")) == Path.cwd() / "runs"


def test_a_program_with_local_files_refuses_the_store(tmp_path):
    assert storage.find_local(str(tmp_path)) == tmp_path
    with pytest.raises(BadInput, match=f"--workdir: expected a local directory, got '{RUN}'"):
        storage.find_local(RUN)


def test_names_in_the_store(objects):
    path = storage.find(f"{RUN}/")
    assert str(path / "a") == f"{RUN}/a" and storage.is_remote(path)
    assert str(storage.absolute(path)) == RUN and path.name == "run"


# ---- Files ---------------------------------------------------------------------------------------


def test_files_are_written_read_listed_and_removed(folder):
    storage.make_folder(folder / "a")
    assert storage.children(folder / "none") == []
    storage.write_text(folder / "one.json", "1")
    storage.write_text(folder / "a" / "two", "zwei – 2")
    storage.write_text(folder / "one.json", "one")

    assert storage.read_bytes(folder / "one.json") == b"one"
    assert storage.read_bytes(folder / "a" / "two").decode() == "zwei – 2"
    assert [path.name for path in storage.children(folder)] == ["a", "one.json"]
    assert dict(storage.files(folder)) == {
        "a/two": folder / "a" / "two",
        "one.json": folder / "one.json",
    }
    assert list(folder.glob("*.json")) == [folder / "one.json"]
    assert storage.exists(folder / "a" / "two") and not storage.exists(folder / "b")

    storage.remove_tree(folder / "a")
    assert not storage.exists(folder / "a" / "two")
    storage.remove_tree(folder / "a", missing_ok=True)
    with pytest.raises(FileNotFoundError):
        storage.remove_tree(folder / "a")
    with pytest.raises(FileNotFoundError):
        storage.read_bytes(folder / "a" / "two")


def test_a_file_that_could_not_be_finished_leaves_the_one_before(folder):
    storage.make_folder(folder)
    storage.write_text(folder / "file", "before")
    with pytest.raises(ZeroDivisionError), storage.whole(folder / "file") as file:
        file.write(b"af")
        1 / 0  # noqa: B018
    assert storage.read_bytes(folder / "file") == b"before"


def test_what_the_client_raises_is_an_os_error_with_the_path(objects, monkeypatch, tmp_path):
    def fail(*_, **__):
        raise RuntimeError("no credentials\nand a page of advice")

    monkeypatch.setattr(fake_store.FakeStore, "info", fail)
    monkeypatch.setattr(fake_store.FakeStore, "_open", fail)
    path = storage.find(RUN) / "file"
    said = f"{path}: RuntimeError: no credentials"
    for call in (storage.exists, storage.read_bytes, lambda path: storage.write_text(path, "")):
        with pytest.raises(OSError) as failed:
            call(path)
        assert str(failed.value) == said
    with pytest.raises(BadInput, match=f"--workdir: cannot write {RUN}: .*no credentials$"):
        Lease(RUN).acquire()


def test_a_mirror_sends_what_has_changed_and_not_too_often(objects, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(storage.time, "monotonic", lambda: now[0])
    mirror, target = storage.Mirror(storage.find(RUN)), objects / "some/run/deep/file"
    (mirror.local / "deep").mkdir()
    source = mirror.local / "deep" / "file"
    source.write_text("1")

    mirror.push(at_once=False)
    assert not target.exists()
    now[0] += storage.PUSHED_EVERY
    mirror.push(at_once=False)
    assert target.read_text() == "1"
    source.write_text("12")
    mirror.push(at_once=False)
    assert target.read_text() == "1"
    mirror.push()
    assert target.read_text() == "12"
    target.unlink()
    mirror.push()
    assert not target.exists()  # nothing has changed
    source.write_text("123")
    mirror.close()
    mirror.close()
    assert target.read_text() == "123" and not mirror.local.exists()


# ---- The lock ------------------------------------------------------------------------------------


@pytest.fixture
def settled(monkeypatch, objects) -> Path:
    monkeypatch.setattr(leases, "SETTLES_AFTER", 0.05)
    return objects / "some/run" / LOCK


def test_a_second_run_is_refused_and_the_lock_is_renewed(settled):
    first = Lease(RUN, renewed_every=0.05)
    first.acquire()
    before, limit = json.loads(settled.read_text()), time.monotonic() + 10
    with pytest.raises(BadInput, match=f"{RUN} is in use by process"):
        Lease(RUN).acquire()
    while json.loads(settled.read_text())["renewed"] == before["renewed"]:
        assert time.monotonic() < limit
        time.sleep(0.01)
    first.check()
    first.release()
    assert not settled.exists()


def test_of_two_that_find_no_lock_the_later_gets_it(settled):
    first, second = Lease(RUN), Lease(RUN)
    write, began = first._write, []

    def late() -> None:
        write()
        if not began:  # the other has looked before this one wrote, and writes after it
            began.append(True)
            second._read, read = lambda path=None: None, second._read
            second._create()
            second._read = read

    first._write = late
    with pytest.raises(BadInput, match="is in use by process"):
        leases._HELD.add(second._content["nonce"])
        first.acquire()
    leases._HELD.discard(second._content["nonce"])
    assert json.loads(settled.read_text())["nonce"] == second._content["nonce"]


def test_one_that_stood_still_finds_out_and_writes_nothing_more(settled):
    first = Lease(RUN, renewed_every=0.05)
    first.acquire()
    settled.write_text(json.dumps({"nonce": "theirs", "host": "far", "pid": 7}))
    limit = time.monotonic() + 10
    with pytest.raises(BadInput, match="was taken over by process 7 on far"):
        while time.monotonic() < limit:
            first.check()
            time.sleep(0.01)
    first.release()
    assert settled.exists()


def test_the_lock_of_a_killed_run_lapses(settled):
    settled.parent.mkdir(parents=True)
    settled.write_text(json.dumps({"nonce": "theirs", "host": "far", "pid": 7}))
    second = Lease(RUN, renewed_every=0.05, lapses_after=0.2)
    second.acquire()
    assert json.loads(settled.read_text())["nonce"] == second._content["nonce"]
    second.release()


# ---- A run ---------------------------------------------------------------------------------------


def write_steps(steps, resume_step: int) -> None:
    writer = MetricWriter(RUN, is_main=True, resume_step=resume_step)
    for step in steps:
        writer.write(step, "train", {"loss": 1 / step})
    writer.flush()
    assert [r["step"] for r in read_metrics(RUN)][-len(steps) :] == list(steps)
    writer.close()


def test_metrics_are_cut_back_and_go_on(objects):
    write_steps([1, 2, 3, 4], 0)
    with (objects / "some/run/metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "spl')
    write_steps([3, 4, 5], 2)
    assert [record["step"] for record in read_metrics(RUN)] == [1, 2, 3, 4, 5]
    assert list((objects / "some/run/tensorboard").glob("events.*"))


def test_training_resumes_with_the_bits_of_a_local_run(objects, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(leases, "SETTLES_AFTER", 0.0)
    keep, root = {"keep_checkpoints": 1}, storage.find(RUN)
    run(tmp_path / "local", max_steps=5, **keep)
    run(tmp_path / "local", **keep)
    run(RUN, max_steps=5, **keep)
    # What a run that is killed while it saves leaves in a store: the step's own name.
    (objects / "some/run/checkpoints/8/state").mkdir(parents=True)
    (objects / "some/run/checkpoints/8/state/half").write_text("x")

    run(RUN, **keep)

    assert "continuing from the checkpoint of step 5" in capsys.readouterr().out
    assert same(parameters(root), parameters(tmp_path / "local"))
    assert records(RUN) == records(tmp_path / "local")
    assert Checkpoints.sealed(RUN) == Checkpoints.sealed(tmp_path / "local")
    assert not (objects / "some/run" / LOCK).exists()
    theirs, ours = read_run(tmp_path / "local"), read_run(RUN)
    assert ours.status["state"] == "finished" and ours.missing == []
    np.testing.assert_array_equal(ours.evaluation.scores, theirs.evaluation.scores)
    assert str(report.write_report(RUN)) == f"{RUN}/report.html"
    assert (objects / "some/run/report.png").exists()

    # A flipped bit is found there, too, and --overwrite clears what is ours.
    largest = max((objects / "some/run/checkpoints/12").rglob("*"), key=lambda p: p.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 1
    largest.write_bytes(content)
    with pytest.raises(BadInput, match="expected a sound checkpoint"):
        parameters(root)


def test_overwriting_clears_what_is_ours(objects, monkeypatch):
    from experiments import workdir

    root = storage.find(RUN)
    for name in ("config.json", "run.json", "checkpoints/4/data", "manifests/4.json", "notes.txt"):
        storage.write_text(root / name, "{}")
    workdir.claim(root, {"steps": 3}, overwrite=True)
    assert [path.name for path in storage.children(root)] == ["config.json", "notes.txt"]
    assert workdir.read_config(root) == {"steps": 3}
