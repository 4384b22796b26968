# SPDX-License-Identifier: Apache-2.0
"""The files of a run's directory that are not metrics or checkpoints: whose it is, what ran there.

`config.json` is the resolved config, and what a directory belongs to; `run.json` says with which
versions, on which devices and how it ended; `evaluation.npz` holds the test scores.
"""

import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments import checkpoint
from experiments.config import differences
from experiments.errors import BadInput
from experiments.job import Job
from experiments.scoring import true_class_log_odds

CONFIG, RUN, EVALUATION = "config.json", "run.json", "evaluation.npz"
_PACKAGES = ("xloss", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")
#: What `clear` removes beside checkpoints and TensorBoard's events.
_OURS = (CONFIG, RUN, EVALUATION, "metrics.jsonl", "status.json", "report.*", "parameters.*",
         "evaluation-*.json")  # fmt: skip


def claim(workdir: Path, config: Mapping[str, Any], *, overwrite: bool) -> None:
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
        if not path.exists():
            workdir.mkdir(parents=True, exist_ok=True)
            write_json(path, config)
            return
        if not os.access(workdir, os.W_OK):
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


def read_config(workdir: Path) -> dict[str, Any]:
    """The resolved config that a directory belongs to.

    Raises:
      BadInput: it is no run's directory, or its config.json is broken.
    """
    path = workdir / CONFIG
    try:
        content = json.loads(path.read_text())
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


def check_owner(workdir: Path, config: Mapping[str, Any], there: Mapping[str, Any]) -> None:
    """Raises BadInput, with the keys that differ, unless a directory belongs to this config."""
    if changed := differences(config, there):
        raise BadInput(
            f"--workdir: {workdir} belongs to another config ({'; '.join(changed)}); choose "
            "another directory or give --overwrite"
        )


def clear(workdir: Path) -> None:
    """Removes what a run wrote, and nothing else that may be there."""
    checkpoint.remove(workdir)
    for pattern in (*_OURS, "tensorboard/events.*"):
        for path in workdir.glob(pattern):
            path.unlink()


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes JSON under a temporary name and renames it, so that no reader sees half of it."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(content, indent=2, sort_keys=True, allow_nan=False) + "\n")
    os.replace(partial, path)


def write_evaluation(workdir: Path, found: Mapping[str, np.ndarray], task: str) -> None:
    """Writes the test scores with the log-odds of the true class, for the report."""
    log_odds = true_class_log_odds(found["scores"], found["labels"], task)
    partial = workdir / "evaluation.partial.npz"
    np.savez(partial, allow_pickle=False, log_odds=log_odds, **found)
    os.replace(partial, workdir / EVALUATION)


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


def read_record(workdir: Path) -> dict[str, Any]:
    """run.json, {} if there is none that can be read."""
    try:
        return json.loads((workdir / RUN).read_text())
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
