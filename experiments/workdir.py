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
from experiments.scoring import true_class_log_odds

CONFIG, RUN, EVALUATION = "config.json", "run.json", "evaluation.npz"
_PACKAGES = ("xloss", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")
_OURS = (CONFIG, RUN, EVALUATION, "metrics.jsonl", "report.html", "report.png")


def claim(workdir: Path, config: Mapping[str, Any], *, overwrite: bool) -> None:
    """Makes a directory the run's own, or finds that it is.

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
        if path.exists():
            there = json.loads(path.read_text())
            if changed := differences(config, there):
                raise BadInput(
                    f"--workdir: {workdir} belongs to another config ({'; '.join(changed)}); "
                    "choose another directory or give --overwrite"
                )
            return
        workdir.mkdir(parents=True, exist_ok=True)
        write_json(path, config)
    except OSError as error:
        raise BadInput(f"--workdir: cannot write {workdir}: {error.strerror or error}") from error
    except ValueError as error:
        raise BadInput(f"--workdir: {path} is no JSON file: {error}; give --overwrite") from error


def clear(workdir: Path) -> None:
    """Removes what a run wrote, and nothing else that may be there."""
    checkpoint.remove(workdir)
    for name in _OURS:
        (workdir / name).unlink(missing_ok=True)
    for events in (workdir / "tensorboard").glob("events.*"):
        events.unlink()


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes JSON under a temporary name and renames it, so that no reader sees half of it."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(content, indent=2, sort_keys=True, allow_nan=False) + "\n")
    os.replace(partial, path)


def write_evaluation(workdir: Path, found: Mapping[str, np.ndarray], task: str) -> None:
    """Writes the test scores with the log-odds of the true class, for the report."""
    log_odds = true_class_log_odds(found["scores"], found["labels"], task)
    partial = workdir / "evaluation.partial.npz"
    np.savez(partial, log_odds=log_odds, **found)
    os.replace(partial, workdir / EVALUATION)


def provenance(overrides: Sequence[str]) -> dict[str, Any]:
    """Versions, devices, commit and command-line overrides of this process."""
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
        "overrides": list(overrides),
    }


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
