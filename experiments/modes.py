# SPDX-License-Identifier: Apache-2.0
"""What `experiments.run` does beside training: plan, evaluate, compile, export, explain a stop."""

import contextlib
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from experiments import workdir
from experiments.checkpoint import Checkpoints
from experiments.config import differences, resolved
from experiments.errors import BadInput
from experiments.job import Job, build, scores_of
from experiments.metrics import MetricWriter, evaluation_metrics
from experiments.report import write_report
from experiments.train import NonFinite, mean_loss

COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")


def plan(config: ConfigDict, directory: str | None, max_steps: int | None) -> str:
    """The resolved config and what a run of it would do; nothing is compiled or written."""
    job = build(config)
    steps = config.steps if max_steps is None else min(max_steps, config.steps)
    sizes = [len(getattr(job.dataset, split)) for split in ("train", "validation", "test")]
    leaves = jax.tree.leaves(job.abstract_state()["params"])
    count = sum(int(np.prod(leaf.shape)) for leaf in leaves)
    lines = [
        json.dumps(resolved(config), indent=2),
        "",
        f"loss       {job.entry.name}: {job.entry.title}",
        f"evidence   {job.entry.evidence}",
        f"data       {job.dataset.name}: {sizes[0]} train, {sizes[1]} validation, {sizes[2]} test, "
        f"{job.dataset.num_classes} classes",
        f"model      {config.model.name}, {count:,} parameters",
        f"mesh       {dict(job.mesh.shape)} on {jax.devices()[0].device_kind}",
        f"steps      {steps} of {config.steps}, {steps * config.data.batch_size / sizes[0]:.1f} "
        "epochs",
        f"workdir    {directory or 'none given'}",
    ]
    return "\n".join(lines)


def restore(config: ConfigDict, directory: str) -> tuple[Job, int, Any]:
    """(job, step, parameters) of the newest sound checkpoint in a workdir.

    Raises:
      BadInput: the workdir belongs to another config, or holds no checkpoint.
    """
    root = Path(directory)
    path = root / workdir.CONFIG
    if not path.exists():
        raise BadInput(f"--workdir: expected the directory of a run, got {root}: no {path.name}")
    if changed := differences(resolved(config), json.loads(path.read_text())):
        raise BadInput(f"--workdir: {root} belongs to another config ({'; '.join(changed)})")
    job = build(config)
    with contextlib.closing(Checkpoints(root, keep=config.keep_checkpoints)) as checkpoints:
        found = checkpoints.restore(job.abstract_state(), None)
    if found is None:
        raise BadInput(f"--workdir: no checkpoint in {root}")
    step, state = found
    return job, step, state["params"]


def evaluate(config: ConfigDict, directory: str) -> str:
    """Evaluates the newest checkpoint on validation and test, and writes the report again."""
    job, step, params = restore(config, directory)
    root, is_main = Path(directory), jax.process_index() == 0
    with contextlib.closing(MetricWriter(root, is_main=is_main, resume_step=None)) as writer:
        for split in ("validation", "test"):
            found = scores_of(job, params, split)
            scores = evaluation_metrics(found["scores"], found["labels"], job.dataset.task)
            if job.entry.exact_gradient and not job.entry.couples_batch:
                scores["loss"] = mean_loss(job, found)
            writer.write(step, split, scores)
            if split == "test" and is_main:
                workdir.write_evaluation(root, found, job.dataset.task)
    return f"report: {write_report(root)}" if is_main else ""


def export(config: ConfigDict, directory: str) -> str:
    """Writes the newest checkpoint's parameters to parameters.npz, names joined by "/".

    No pickle is involved: `numpy.load(path, allow_pickle=False)` reads it anywhere.
    """
    _, step, params = restore(config, directory)
    flat = {
        "/".join(str(key.key) for key in path): np.asarray(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
    }
    target = Path(directory) / "parameters.npz"
    if jax.process_index() == 0:
        np.savez(target, **flat)
        workdir.write_json(
            target.with_suffix(".json"),
            {"step": step, "config": resolved(config),
             "parameters": {name: list(value.shape) for name, value in flat.items()}},
        )  # fmt: skip
    return f"{len(flat)} arrays of step {step}: {target} (described in parameters.json)"


def compile_report(config: ConfigDict) -> str:
    """Compiles the real train step for the local devices and says what it takes."""
    job = build(config)
    with jax.set_mesh(job.mesh):
        program = job.step.lower(job.abstract_state(), job.abstract_batch()).compile()
    memory, cost, text = program.memory_analysis(), program.cost_analysis(), program.as_text() or ""
    lines = [f"train step on {len(jax.devices())} x {jax.devices()[0].device_kind}, per device:"]
    for name, size in (
        ("arguments", memory.argument_size_in_bytes),
        ("results", memory.output_size_in_bytes),
        ("of them in place", memory.alias_size_in_bytes),
        ("temporaries", memory.temp_size_in_bytes),
    ):
        lines.append(f"  {name:<17} {size:>14,} bytes")
    lines.append(f"  {'operations':<17} {cost.get('flops', float('nan')):>14,.0f} flops")
    # "-start" of an asynchronous pair counts, its "-done" does not.
    found = Counter(re.findall(rf" ({'|'.join(COLLECTIVES)})(?:-start)?\(", text))
    shown = ", ".join(f"{count} x {kind}" for kind, count in sorted(found.items()))
    lines.append(f"  {'collectives':<17} {shown or 'none'}")
    return "\n".join(lines)


def post_mortem(error: NonFinite, directory: str) -> str:
    """What to look for after a loss that was not finite, and what is left to go on from."""
    root = Path(directory)
    steps = sorted(int(path.stem) for path in (root / "manifests").glob("*.json"))
    kept = f"the checkpoint of step {steps[-1]} is kept" if steps else "there is no checkpoint yet"
    return (
        f"run: stopped: {error} ({kept} in {root}). Look for labels outside [0, K), inputs that "
        "are not finite, a learning rate that is too high, or a loss that overflows (comp_sum with "
        "tau < 1 grows as p^(tau - 1))."
    )
