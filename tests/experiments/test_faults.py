# SPDX-License-Identifier: Apache-2.0
"""The loop when a number, the data or the disk fails under it (see test_train, too)."""

import dataclasses
import functools
import gc
import json
import resource
import threading
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments import modes, train
from experiments.checkpoint import Checkpoints
from experiments.config import resolved
from experiments.errors import BadInput, Failed
from experiments.metrics import read_metrics
from tests.experiments.test_train import (
    built,
    config_of,
    parameters,
    quick,  # noqa: F401
    records,
    run,
    same,
)

SKIP = {"on_nan": "skip", "max_skipped": 3, "keep_checkpoints": 20, "checkpoint_every": 1}


@functools.cache
def example_of_step(step: int) -> int:
    """A training example that the batch of a step has and no earlier one."""
    batches = built(json.dumps(resolved(config_of()), sort_keys=True)).train_batches()
    return int([next(batches)["index"] for _ in range(step)][-1][0])


@pytest.fixture
def spoil(monkeypatch):
    """Makes the training example NaN that a step has first, in every run of the test."""

    def of_steps(*steps: int) -> None:
        def spoilt(config):
            job = built(json.dumps(resolved(config), sort_keys=True))
            source = job.dataset.train
            bad = [example_of_step(step) for step in steps]

            class Spoilt(type(source)):
                def gather(self, positions):
                    batch = source.gather(positions)
                    batch["inputs"][np.isin(batch["index"], bad)] = np.nan
                    return batch

            changed = object.__new__(Spoilt)
            changed.__dict__ = source.__dict__
            dataset = dataclasses.replace(job.dataset, train=changed)
            return dataclasses.replace(job, dataset=dataset)

        monkeypatch.setattr(train, "build", spoilt)

    return of_steps


def state_at(workdir: Path, step: int) -> dict:
    job = built(json.dumps(resolved(config_of(**SKIP)), sort_keys=True))
    checkpoints = Checkpoints(workdir)
    try:
        return checkpoints.restore(job.abstract_state(), None, step=step)[1]
    finally:
        checkpoints.close()


def leaves(tree) -> list[np.ndarray]:
    return [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]


def test_nan_at_a_step_stops_the_run_there(tmp_path, spoil):
    spoil(5)
    with pytest.raises(train.NonFinite) as stopped:
        run(tmp_path)
    assert stopped.value.step == 5
    assert Checkpoints.sealed(tmp_path) == [4]
    said = modes.post_mortem(stopped.value, str(tmp_path))
    assert "not finite at step 5 (the checkpoint of step 4 is kept" in said


def test_nan_at_a_step_is_skipped_and_leaves_no_trace(tmp_path, spoil, capsys):
    spoil(5, 6, 9)

    assert run(tmp_path, **SKIP).step == 12

    for before, after in ((4, 5), (5, 6), (8, 9)):
        old, new = state_at(tmp_path, before), state_at(tmp_path, after)
        for part in ("params", "optimizer"):
            assert same(leaves(old[part]), leaves(new[part])), (part, after)
        assert int(new["step"]) == after
    assert not same(parameters(tmp_path, 6), parameters(tmp_path, 7))
    found = [r for r in read_metrics(tmp_path) if r["split"] == "train"]
    assert [int(r["skipped"]) for r in found] == [0, 0, 0, 0, 1, 2, 2, 2, 3, 3, 3, 3]
    assert [r["step"] for r in found if np.isnan(r["loss"])] == [5, 6, 9]
    assert json.loads((tmp_path / "run.json").read_text())["skipped_steps"] == 3
    assert "skipped: 3 steps" in capsys.readouterr().out


def test_skipping_resumes_with_the_same_bits(tmp_path, spoil):
    spoil(5, 6, 9)
    run(tmp_path / "whole", **SKIP)

    for stop in (5, 9, None):  # in the middle of two in a row, and right after one
        run(tmp_path / "parts", max_steps=stop, **SKIP)

    assert same(parameters(tmp_path / "parts"), parameters(tmp_path / "whole"))
    trained = lambda w: [r for r in records(w) if r["split"] == "train"]  # noqa: E731
    assert str(trained(tmp_path / "parts")) == str(trained(tmp_path / "whole"))


def test_without_a_bad_number_skip_and_stop_are_the_same(tmp_path):
    run(tmp_path / "stop")
    run(tmp_path / "skip", on_nan="skip")
    assert same(parameters(tmp_path / "skip"), parameters(tmp_path / "stop"))


def test_the_learning_rate_is_late_by_the_steps_skipped(tmp_path, spoil):
    spoil(3)
    run(tmp_path, on_nan="skip", **{"optimizer.schedule": "cosine"})
    rates = [r["learning_rate"] for r in read_metrics(tmp_path) if r["split"] == "train"]
    assert rates[2] == rates[3] and len(set(rates)) == 11


def test_too_many_in_a_row_give_up_and_the_checkpoints_are_good(tmp_path, spoil):
    spoil(3, 6, 7, 8)
    with pytest.raises(train.NonFinite) as stopped:
        run(tmp_path, **SKIP)
    assert stopped.value.step == 6  # the first of those in a row
    assert Checkpoints.sealed(tmp_path) == [1, 2, 3, 4, 5, 6, 7]
    for step in range(1, 8):
        assert all(np.isfinite(leaf).all() for leaf in parameters(tmp_path, step))
    said = modes.post_mortem(stopped.value, str(tmp_path))
    assert "at step 6 (the first of 3 in a row, which were skipped; the checkpoint of st" in said
    with pytest.raises(train.NonFinite):  # the same data, the same end
        run(tmp_path, **SKIP)


def test_giving_up_is_not_forgotten_between_records(tmp_path, spoil):
    spoil(3, 4)
    with pytest.raises(train.NonFinite) as stopped:
        run(
            tmp_path,
            **{**SKIP, "max_skipped": 2, "checkpoint_every": 12, "log_every": 12, "eval_every": 12},
        )
    assert stopped.value.step == 3
    assert Checkpoints.sealed(tmp_path) == []


@pytest.mark.parametrize("error", [OSError("the disk is gone"), ValueError("row 7\nis odd")])
def test_a_source_that_raises_is_one_line_and_earlier_checkpoints_survive(
    tmp_path, monkeypatch, error
):
    run(tmp_path / "whole")
    source = type(built(json.dumps(resolved(config_of()), sort_keys=True)).dataset.train)
    gather, bad = source.gather, example_of_step(7)

    def failing(self, positions):
        found = gather(self, positions)
        if len(found["index"]) == 64 and bad in found["index"]:  # the training batches' size
            raise error
        return found

    with monkeypatch.context() as patched, pytest.raises(Failed) as failed:
        patched.setattr(source, "gather", failing)
        run(tmp_path / "failed")

    first = str(error).splitlines()[0]
    said = f"the data of step 7 cannot be read: {type(error).__name__}: {first}"
    assert str(failed.value) == said
    assert Checkpoints.sealed(tmp_path / "failed") == [4]
    run(tmp_path / "failed")
    assert same(parameters(tmp_path / "failed"), parameters(tmp_path / "whole"))
    assert records(tmp_path / "failed") == records(tmp_path / "whole")


def fails_and_goes_on(tmp_path: Path, said: str, repair, **changes) -> None:
    """The run fails while it saves step 8; with space again it ends as if nothing had been."""
    with pytest.raises(Failed) as failed:
        run(tmp_path / "failed", **changes)
    repair()
    gc.collect()  # what orbax's event loops left undone is not to be told in a later test
    assert str(failed.value).startswith("the checkpoint of step 8 cannot be written: ")
    assert said in str(failed.value) and "\n" not in str(failed.value)
    assert Checkpoints.sealed(tmp_path / "failed") == [4]
    assert not (tmp_path / "failed" / "lock.json").exists()

    run(tmp_path / "failed", **changes)
    run(tmp_path / "whole", **changes)

    assert same(parameters(tmp_path / "failed"), parameters(tmp_path / "whole"))
    assert records(tmp_path / "failed") == records(tmp_path / "whole")
    assert Checkpoints.sealed(tmp_path / "failed") == [4, 8, 12]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_no_space_for_the_arrays(tmp_path, monkeypatch):
    """The kernel refuses to let any file grow beyond 200 kB (EFBIG), from step 8 on."""
    calls, to_devices = iter(range(1, 1000)), train.sharding.to_devices
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limiting(batch, mesh):
        if next(calls) == 8:
            while not (tmp_path / "failed" / "checkpoints" / "4").exists():
                time.sleep(0.01)
            resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, limits[1]))
        return to_devices(batch, mesh)

    def repair():
        monkeypatch.undo()
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    monkeypatch.setattr(train.sharding, "to_devices", limiting)
    monkeypatch.setattr(threading, "excepthook", lambda failed: None)  # orbax's, as in the program
    try:
        fails_and_goes_on(tmp_path, "File too large", repair, **{"model.hidden": (2048,)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_no_space_for_the_manifest(tmp_path):
    """The manifest's file is a link to /dev/full: the kernel says ENOSPC to what is written."""
    (tmp_path / "failed" / "manifests").mkdir(parents=True)
    link = tmp_path / "failed" / "manifests" / "8.json.partial"
    link.symlink_to("/dev/full")
    fails_and_goes_on(tmp_path, "No space left on device", link.unlink)


def test_the_best_checkpoint_and_every_nth_stay_whatever_was_resumed(tmp_path):
    keep = {"steps": 16, "checkpoint_every": 2, "eval_every": 2, "keep_checkpoints": 1}
    keep |= {"keep_every": 6, "keep_best": 1, "best_metric": "cross_entropy", "best_is": "highest"}
    run(tmp_path / "whole", **keep)
    for stop in (5, 11, None):
        run(tmp_path / "parts", max_steps=stop, **keep)

    assert Checkpoints.sealed(tmp_path / "whole") == [2, 6, 12, 16]  # it falls from the first on
    assert set(Checkpoints.sealed(tmp_path / "parts")) >= {2, 6, 12, 16}

    with pytest.raises(BadInput, match="--config.best_metric: expected one of "):
        run(tmp_path / "other", **{**keep, "best_metric": "acuracy"})
