# SPDX-License-Identifier: Apache-2.0
"""The files of a run's directory that are not metrics or checkpoints: whose it is, what ran there.

`config.json` is the resolved config, and what a directory belongs to; `run.json` says with which
versions, on which devices and how it ended; `evaluation.npz` holds the test scores.
"""

import json
import os
import platform
import secrets
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments import checkpoint, sharding, storage
from experiments.config import differences
from experiments.errors import BadInput
from experiments.job import Job
from experiments.scoring import true_class_log_odds
from experiments.storage import AnyPath

CONFIG, RUN, EVALUATION = "config.json", "run.json", "evaluation.npz"
_PACKAGES = ("xloss", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")
#: What `clear` removes beside checkpoints and TensorBoard's events.
_OURS = (CONFIG, RUN, EVALUATION, "metrics.jsonl", "status.json", "report.*", "parameters.*",
         "evaluation-*.json")  # fmt: skip
#: Seconds in which a file that one process has written must be seen by the others: NFS may answer
#: from memory for a while.
SEEN_WITHIN = 10.0


def claim(workdir: AnyPath, config: Mapping[str, Any], *, overwrite: bool) -> None:
    """Makes a directory the run's own, or finds that it is.

    A run may come back with more steps than it had; every other key must be the same.

    Args:
      workdir: created if it is missing.
      config: the resolved config.
      overwrite: whether to remove an earlier run there first.

    Raises:
      BadInput: it belongs to another config (which keys differ), or cannot be written.
    """
    path = workdir / CONFIG
    try:
        if overwrite:
            clear(workdir)
        if not storage.exists(path):
            storage.make_folder(workdir)
            write_json(path, config)
            return
        if not storage.is_remote(workdir) and not os.access(workdir, os.W_OK):
            raise PermissionError("no permission to write in it")
        there = read_config(workdir)
        before, now = there.get("steps"), config["steps"]
        if isinstance(before, int) and before < now:
            check_owner(workdir, {**config, "steps": before}, there)
            write_json(path, config)
            print(f"config.steps: {before} before, {now} now, and so the schedule", flush=True)
        else:
            check_owner(workdir, config, there)
    except OSError as error:
        raise BadInput(f"--workdir: cannot write {workdir}: {error.strerror or error}") from error


def check_shared(workdir: AnyPath) -> None:
    """Makes sure that every process sees the directory in which process 0 writes.

    Process 0 leaves a file there for a moment; the others look for it. Every process must call
    this, and every one gets the same answer.

    Raises:
      BadInput: one does not see it; which one, and where it looked.
    """
    if jax.process_count() == 1:
        return
    index, here = jax.process_index(), f"{storage.absolute(workdir)} on {socket.gethostname()}"
    told, refused = "", "--workdir: "
    if index == 0:
        told = f"{secrets.token_hex(8)} {here}"
        try:
            for left in workdir.glob(_probe("*")):  # of a run that was killed right here
                left.unlink(missing_ok=True)
            storage.write_text(workdir / _probe(told.split()[0]), here)
        except OSError as error:
            told = f"{refused}cannot write {workdir}: {error.strerror or error}"
    told = sharding.agree(told)
    if told.startswith(refused):
        raise BadInput(told)
    nonce, _, there = told.partition(" ")
    path, limit, why = workdir / _probe(nonce), time.monotonic() + SEEN_WITHIN, ""
    try:
        while True:
            try:
                seen, why = storage.exists(path), ""
            except OSError as error:
                seen, why = False, f", {error}"
            if seen or time.monotonic() > limit:
                break
            time.sleep(0.2)
        unseen = (
            f"{refused}process {index} does not see the workdir of process 0, {there} (it "
            f"looked in {here}{why}); give a directory that all processes share"
        )
        problem = sharding.agree("" if seen else unseen)
    finally:
        if index == 0:
            path.unlink(missing_ok=True)
    if problem:
        raise BadInput(problem)


def _probe(nonce: str) -> str:
    return f"shared-{nonce}.probe"


def read_config(workdir: AnyPath) -> dict[str, Any]:
    """The resolved config that a directory belongs to.

    Raises:
      BadInput: it is no run's directory, or its config.json is broken.
    """
    path = workdir / CONFIG
    try:
        content = json.loads(storage.read_bytes(path))
        if not isinstance(content, dict):
            raise ValueError(f"{type(content).__name__}, no object")
        return content
    except FileNotFoundError:
        raise BadInput(
            f"--workdir: expected the directory of a run, got {workdir}: no {CONFIG} in it"
        ) from None
    except ValueError as error:
        raise BadInput(
            f"--workdir: expected JSON in {path}, got: {error}; --overwrite starts again"
        ) from error


def check_owner(workdir: AnyPath, config: Mapping[str, Any], there: Mapping[str, Any]) -> None:
    """Raises BadInput, with the keys that differ, unless a directory belongs to this config."""
    if changed := differences(config, there):
        raise BadInput(
            f"--workdir: {workdir} belongs to another config ({'; '.join(changed)}); choose "
            "another directory or give --overwrite"
        )


def clear(workdir: AnyPath) -> None:
    """Removes what a run wrote, and nothing else that may be there."""
    checkpoint.remove(workdir)
    for pattern in (*_OURS, "tensorboard/events.*"):
        for path in workdir.glob(pattern):
            path.unlink()


def write_json(path: AnyPath, content: Mapping[str, Any]) -> None:
    """Writes JSON so that no reader sees half of it."""
    text = json.dumps(content, indent=2, sort_keys=True, allow_nan=False)
    storage.write_text(path, text + "\n")


def write_evaluation(workdir: AnyPath, found: Mapping[str, np.ndarray], task: str) -> None:
    """Writes the test scores with the log-odds of the true class, for the report."""
    log_odds = true_class_log_odds(found["scores"], found["labels"], task)
    with storage.whole(workdir / EVALUATION) as file:
        np.savez(file, allow_pickle=False, log_odds=log_odds, **found)


def made_with() -> dict[str, Any]:
    """What this process computes with: versions, devices, processes and commit."""
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    devices = jax.devices()
    return {
        "versions": {"python": platform.python_version(), **versions},
        "devices": f"{len(devices)} x {devices[0].device_kind} ({devices[0].platform})",
        "processes": jax.process_count(),
        "commit": _commit(),
    }


def record_of(job: Job, overrides: Sequence[str]) -> dict[str, Any]:
    """What run.json says from the start: versions, devices, commit, overrides, method and data."""
    dataset = job.dataset
    entry = {} if job.entry is None else dict(vars(job.entry))
    return {
        **made_with(),
        "overrides": list(overrides),
        "method": job.name,
        "loss": {name: value for name, value in entry.items() if name != "function"},
        "class_names": list(dataset.class_names),
        "data": {
            "name": dataset.name,
            "licence": dataset.licence,
            **{split: len(getattr(dataset, split)) for split in ("train", "validation", "test")},
        },
    }


def read_record(workdir: AnyPath) -> dict[str, Any]:
    """run.json, {} if there is none that can be read."""
    try:
        return json.loads(storage.read_bytes(workdir / RUN))
    except (OSError, ValueError):
        return {}


def _commit() -> str:
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty"],
            cwd=Path(__file__).resolve().parent,
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return done.stdout.strip() or "unknown"
