# SPDX-License-Identifier: Apache-2.0
"""What `experiments.run` does beside training: plan, evaluate, export, explain a stop.

Compiling the train step, for this machine or another one, is `experiments/compile_report.py`.
"""

import contextlib
import json
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from experiments import sharding, storage, workdir
from experiments.checkpoint import Checkpoints
from experiments.config import resolved
from experiments.errors import BadInput
from experiments.job import Job, build
from experiments.train import NonFinite
from xloss.catalogue import Entry


def plan(config: ConfigDict, directory: str | None, max_steps: int | None) -> str:
    """The resolved config and what a run of it would do; nothing is compiled or written.

    Raises:
      BadInput: whatever would keep that run from starting.
    """
    job = build(config)
    job.train_batches()
    steps = config.steps if max_steps is None else min(max_steps, config.steps)
    sizes = [len(getattr(job.dataset, split)) for split in ("train", "validation", "test")]
    leaves = jax.tree.leaves(job.abstract_state()["params"])
    count = sum(int(np.prod(leaf.shape)) for leaf in leaves)
    where = "none given"
    if directory is not None:
        sealed = Checkpoints.sealed(directory)
        where = f"{directory}, " + (f"checkpoints of steps {sealed}" if sealed else "no checkpoint")
        root = storage.find(directory)
        if storage.exists(root / workdir.CONFIG):
            workdir.check_owner(root, resolved(config), workdir.read_config(root))
    epochs = steps * config.data.batch_size / sizes[0]
    lines = [
        json.dumps(resolved(config), indent=2),
        "",
        *_method(job),
        f"data       {job.dataset.name}: {sizes[0]} train, {sizes[1]} validation, {sizes[2]} test, "
        f"{job.dataset.num_classes} classes",
        f"model      {config.model.name}, {count:,} parameters",
        f"mesh       {dict(job.mesh.shape)} on {jax.devices()[0].device_kind}",
        f"steps      {steps} of {config.steps}, {epochs:.1f} epochs",
        f"workdir    {where}",
    ]
    return "\n".join(lines)


def _method(job: Job) -> list[str]:
    what = "loss" if isinstance(job.entry, Entry) else "method"
    if job.entry is None:
        return [f"{what:<10} {job.name}"]
    return [f"{what:<10} {job.name}: {job.entry.title}", f"evidence   {job.entry.evidence}"]


def restore(config: ConfigDict, directory: str, step: int | None) -> tuple[Job, int, Any]:
    """(job, step, parameters) of a workdir's newest sound checkpoint, or of the one of a step.

    Raises:
      BadInput: the workdir belongs to another config, or holds no such checkpoint.
    """
    root = storage.find(directory)
    job = build(config)
    workdir.check_owner(root, resolved(config), workdir.read_config(root))
    with contextlib.closing(Checkpoints(root, keep=config.keep_checkpoints)) as checkpoints:
        found = checkpoints.restore(job.abstract_state(), None, step=step)
    if found is None:
        raise BadInput(f"--workdir: expected a run with a checkpoint, got none in {root}")
    return job, found[0], found[1]["params"]


def evaluate(config: ConfigDict, directory: str, step: int | None) -> str:
    """Evaluates a checkpoint on validation and test, and writes evaluation-STEP.json.

    The run's own metrics and report stay as training left them.
    """
    job, step, params = restore(config, directory, step)
    target = storage.find(directory) / f"evaluation-{step}.json"
    found = {split: job.evaluate(params, split)[0] for split in ("validation", "test")}
    if jax.process_index() == 0:
        plain = {
            split: {name: value if np.isfinite(value) else str(value) for name, value in m.items()}
            for split, m in found.items()
        }
        workdir.write_json(target, {"step": step, "config": resolved(config), **plain})
    lines = [f"checkpoint of step {step}: {target}"]
    for split, scores in found.items():
        shown = "  ".join(f"{name} {value:.4g}" for name, value in scores.items())
        lines.append(f"[{split}] {shown}")
    return "\n".join(lines)


def export(config: ConfigDict, directory: str, step: int | None) -> str:
    """Writes a checkpoint's parameters to parameters.npz, names joined by "/".

    No pickle is involved: `numpy.load(path, allow_pickle=False)` reads it anywhere.
    """
    _, step, params = restore(config, directory, step)
    flat = {
        jax.tree_util.keystr(path, simple=True, separator="/"): sharding.to_host(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
    }
    target = storage.find(directory) / "parameters.npz"
    if jax.process_index() == 0:
        with storage.whole(target) as file:
            np.savez(file, allow_pickle=False, **flat)
        described = {name: {"shape": a.shape, "dtype": str(a.dtype)} for name, a in flat.items()}
        workdir.write_json(
            target.with_suffix(".json"),
            {"step": step, "config": resolved(config), "parameters": described},
        )
    return f"{len(flat)} arrays of step {step}: {target} (described in parameters.json)"


def post_mortem(error: NonFinite, directory: str) -> str:
    """What to look for after a loss that was not finite, and what is left to go on from."""
    steps = Checkpoints.sealed(directory)
    kept = f"the checkpoint of step {steps[-1]} is kept" if steps else "there is no checkpoint yet"
    config = workdir.read_config(storage.find(directory))
    if config.get("on_nan") == "skip":
        kept = f"the first of {config['max_skipped']} in a row, which were skipped; {kept}"
    return (
        f"run: stopped: {error} ({kept} in {directory}). Look for labels outside [0, K), inputs "
        "that are not finite, a learning rate that is too high, or a loss that overflows (comp_sum "
        "with tau < 1 grows as p^(tau - 1))."
    )
