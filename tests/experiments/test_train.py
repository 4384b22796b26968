# SPDX-License-Identifier: Apache-2.0
"""The loop in this process, on eight CPU devices: what it keeps, repeats, refuses and survives."""

import dataclasses
import functools
import json
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments import job, modes, train
from experiments.config import from_resolved, load_file, locate, resolved
from experiments.errors import BadInput
from experiments.metrics import read_metrics
from experiments.observe import MEASURED
from experiments.workdir import read_config


@functools.cache
def built(config: str) -> job.Job:
    """A job of a config in JSON, so that the tests compile each of them once."""
    return job.build(from_resolved(json.loads(config)))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No pictures, and jobs that were built before are taken as they are."""
    cached = lambda config: built(json.dumps(resolved(config), sort_keys=True))  # noqa: E731
    monkeypatch.setattr(train, "build", cached)
    monkeypatch.setattr(modes, "build", cached)
    monkeypatch.setattr(train, "write_report", lambda workdir: "none")
    with jax.numpy_dtype_promotion("standard"):  # optax's adam needs it
        yield


def config_of(**changes):
    """Twelve steps of a small model on digits, with checkpoints at 4, 8 and 12."""
    config = load_file(locate("digits:quick"))
    config.update(steps=12, log_every=1, eval_every=6, checkpoint_every=4)
    config.model.hidden = (8,)
    config.update_from_flattened_dict(changes)
    return config


def run(workdir: Path, *, max_steps: int | None = None, **changes) -> train.Outcome:
    return train.train(config_of(**changes), str(workdir), max_steps=max_steps)


def records(workdir: Path) -> list[dict]:
    return [{k: v for k, v in r.items() if k not in MEASURED} for r in read_metrics(workdir)]


def parameters(workdir: Path, step: int | None = None) -> list[np.ndarray]:
    config = from_resolved(read_config(workdir))
    return [np.asarray(leaf) for leaf in jax.tree.leaves(modes.restore(config, workdir, step)[2])]


def same(left: list[np.ndarray], right: list[np.ndarray]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(left, right, strict=True))


def files_of(workdir: Path, step: int) -> list[Path]:
    """The files of a checkpoint's arrays, the largest last."""
    found = (p for p in (workdir / "checkpoints" / str(step)).rglob("*") if p.is_file())
    return sorted(found, key=lambda path: path.stat().st_size)


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    """The workdir of an uninterrupted run."""
    run(tmp_path / "whole")
    return tmp_path / "whole"


def test_the_same_seed_gives_the_same_bits_and_another_does_not(whole, tmp_path):
    run(tmp_path / "again")
    run(tmp_path / "other", seed=1)

    assert same(parameters(tmp_path / "again"), parameters(whole))
    assert records(tmp_path / "again") == records(whole)
    assert not same(parameters(tmp_path / "other"), parameters(whole))


def test_dropout_and_drawn_losses_resume_with_the_same_bits(tmp_path):
    changes = {"model.dropout": 0.3, "loss.name": "ensloss"}
    run(tmp_path / "whole", **changes)

    run(tmp_path / "parts", max_steps=5, **changes)
    run(tmp_path / "parts", **changes)

    assert same(parameters(tmp_path / "parts"), parameters(tmp_path / "whole"))


def test_stopping_after_max_steps_and_going_on_equals_one_run(whole, tmp_path):
    outcome = run(tmp_path / "parts", max_steps=7)
    assert (outcome.step, outcome.preempted) == (7, False)
    assert json.loads((tmp_path / "parts" / "run.json").read_text())["steps"] == 7

    assert run(tmp_path / "parts").step == 12

    assert same(parameters(tmp_path / "parts"), parameters(whole))
    # The first part ended with evaluations of its own; every other record is the same.
    ends = [r for r in records(tmp_path / "parts") if r["step"] == 7 and r["split"] != "train"]
    assert [r["split"] for r in ends] == ["validation", "test"]
    assert [r for r in records(tmp_path / "parts") if r not in ends] == records(whole)


@pytest.mark.parametrize("moment", ["before the test record", "before run.json"])
def test_a_run_that_dies_at_its_very_end_has_one_test_record(whole, tmp_path, moment, monkeypatch):
    def die(*_):
        raise OSError("no space left")

    def dying(config):
        job = built(json.dumps(resolved(config), sort_keys=True))
        return dataclasses.replace(
            job, evaluate=lambda *a: die() if a[1] == "test" else job.evaluate(*a)
        )

    with monkeypatch.context() as patched, pytest.raises(OSError, match="no space left"):
        if moment == "before run.json":
            patched.setattr(train.workdir, "write_evaluation", die)
        else:
            patched.setattr(train, "build", dying)
        run(tmp_path / "died")

    run(tmp_path / "died")

    assert records(tmp_path / "died") == records(whole)
    assert json.loads((tmp_path / "died" / "run.json").read_text())["steps"] == 12
    assert (tmp_path / "died" / "evaluation.npz").exists()


def test_data_that_fails_leaves_the_checkpoints_whole(whole, tmp_path, monkeypatch):
    calls, to_devices = iter(range(1, 100)), train.sharding.to_devices

    def failing(batch, mesh):
        if next(calls) == 8:
            raise OSError("the disk is gone")
        return to_devices(batch, mesh)

    with monkeypatch.context() as patched, pytest.raises(OSError, match="the disk is gone"):
        patched.setattr(train.sharding, "to_devices", failing)
        run(tmp_path / "failed")

    assert [path.name for path in (tmp_path / "failed" / "manifests").iterdir()] == ["4.json"]
    run(tmp_path / "failed")
    assert same(parameters(tmp_path / "failed"), parameters(whole))
    assert records(tmp_path / "failed") == records(whole)


@pytest.mark.parametrize(("every", "log_every"), [(1, 1), (4, 100)])
def test_a_rate_that_overflows_stops_and_saves_nothing_else(tmp_path, every, log_every):
    with pytest.raises(train.NonFinite) as stopped:
        run(tmp_path, checkpoint_every=every, log_every=log_every, **{
            "optimizer.learning_rate": 1e38, "optimizer.schedule": "constant",
            "optimizer.name": "sgd"})  # fmt: skip

    assert 1 <= stopped.value.step <= 4
    saved = sorted(int(path.stem) for path in (tmp_path / "manifests").glob("*.json"))
    assert all(step < stopped.value.step for step in saved)
    for step in saved:
        assert all(np.isfinite(leaf).all() for leaf in parameters(tmp_path, step))
    said = modes.post_mortem(stopped.value, str(tmp_path))
    assert f"not finite at step {stopped.value.step}" in said
    assert "a learning rate that is too high" in said
    assert "no checkpoint yet" in said if not saved else f"step {saved[-1]} is kept" in said


@pytest.mark.parametrize("damage", ["flipped", "truncated"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(whole, capfd, damage):
    expected = parameters(whole), records(whole)
    target = files_of(whole, 12)[-1]
    content = bytearray(target.read_bytes())
    content[len(content) // 2] ^= 1
    target.write_bytes(content if damage == "flipped" else content[: len(content) // 2])
    capfd.readouterr()

    run(whole)

    out = capfd.readouterr().out
    name = target.relative_to(whole / "checkpoints" / "12").as_posix()
    assert f"checkpoint 12: left out, {name} does not match its checksum" in out
    assert "continuing from the checkpoint of step 8" in out
    assert same(parameters(whole), expected[0])
    assert records(whole) == expected[1]


def test_a_checkpoint_that_was_cut_off_is_left_out_and_made_again(whole, capfd):
    expected = parameters(whole)
    (whole / "manifests" / "12.json").unlink()
    (whole / "checkpoints" / "16.orbax-checkpoint-tmp").mkdir()
    capfd.readouterr()

    run(whole)

    out = capfd.readouterr().out
    assert "checkpoint 12: left out, it was cut off" in out
    assert "continuing from the checkpoint of step 8" in out
    assert same(parameters(whole), expected)
    assert sorted(p.name for p in (whole / "checkpoints").iterdir()) == ["12", "4", "8"]


def test_without_a_sound_checkpoint_the_run_is_refused(whole):
    for step in (4, 8, 12):
        files_of(whole, step)[0].write_bytes(b"")

    with pytest.raises(BadInput) as refused:
        run(whole)

    assert "\n" not in str(refused.value)
    assert "4, 8, 12" in str(refused.value) and "--overwrite" in str(refused.value)
    assert len(read_metrics(whole)) == 12 + 2 + 1  # nothing was lost either


def test_only_so_many_checkpoints_are_kept(tmp_path):
    run(tmp_path, keep_checkpoints=2)

    assert sorted(int(p.name) for p in (tmp_path / "checkpoints").iterdir()) == [8, 12]
    assert sorted(int(p.stem) for p in (tmp_path / "manifests").iterdir()) == [8, 12]


def test_a_foreign_workdir_is_refused_and_overwritten_on_demand(whole):
    (whole / "notes.txt").write_text("mine")
    with pytest.raises(BadInput, match=r"seed: 0 there, 5 here.*--overwrite"):
        run(whole, seed=5)
    assert len(records(whole)) == 15

    train.train(config_of(seed=5), str(whole), max_steps=2, overwrite=True)

    assert {r["step"] for r in read_metrics(whole)} == {1, 2}
    assert json.loads((whole / "config.json").read_text())["seed"] == 5
    assert (whole / "notes.txt").read_text() == "mine"


def test_more_steps_continue_a_run_and_fewer_are_refused(whole):
    assert run(whole, steps=14).step == 14
    assert json.loads((whole / "config.json").read_text())["steps"] == 14

    with pytest.raises(BadInput, match="steps: 14 there, 12 here"):
        run(whole)


def test_times_are_those_of_steps(whole):
    found = [r for r in read_metrics(whole) if r["split"] == "train"]
    record = json.loads((whole / "run.json").read_text())

    assert "step_seconds" not in found[0]  # it compiled
    assert all(r["step_seconds"] > 0 for r in found[1:])
    for r in found[1:]:
        assert r["examples_per_second"] == pytest.approx(64 / r["step_seconds"])
    assert 0 < record["seconds_per_step"] < 60


# ---- status.json ---------------------------------------------------------------------------------


def status(workdir: Path) -> dict:
    return json.loads((workdir / "status.json").read_text())


def test_the_status_and_run_json_tell_how_a_run_went(whole):
    told, record = status(whole), json.loads((whole / "run.json").read_text())

    assert (told["state"], told["step"], told["last_step"]) == ("finished", 12, 12)
    assert told["recompilations"] == told["restarts"] == record["restarts"] == 0
    assert 0 < record["goodput"] < 1 and 0 < told["goodput"] < 1
    assert told["metrics"]["test"]["accuracy"] == records(whole)[-1]["accuracy"]
    assert 0 < told["step_seconds"] < 60 and 0 <= told["input_wait_share"] <= 1
    found = [r for r in read_metrics(whole) if r["split"] == "train"]
    assert all(0 <= r["input_wait_share"] <= 1 for r in found[1:])


def test_a_run_that_fails_and_comes_back_tells_so(tmp_path, monkeypatch):
    calls, to_devices = iter(range(1, 100)), train.sharding.to_devices

    def failing(batch, mesh):
        if next(calls) == 8:
            raise OSError("the disk is gone")
        return to_devices(batch, mesh)

    with monkeypatch.context() as patched, pytest.raises(OSError, match="the disk is gone"):
        patched.setattr(train.sharding, "to_devices", failing)
        run(tmp_path)
    assert status(tmp_path)["state"] == "failed" and status(tmp_path)["step"] == 6
    assert status(tmp_path)["message"] == "OSError: the disk is gone"

    run(tmp_path)

    assert (status(tmp_path)["state"], status(tmp_path)["restarts"]) == ("finished", 1)
    assert status(tmp_path)["start_step"] == 4 and status(tmp_path)["seconds"]["repeated"] > 0
    before = status(tmp_path)
    run(tmp_path)  # finished already
    assert status(tmp_path) == before
