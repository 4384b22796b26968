# SPDX-License-Identifier: Apache-2.0
"""Overrides x seeds of one config, with a table of means and 95 % intervals.

  python -m experiments.sweep --config=digits --workdir=sweeps/tau --seeds=10 \\
      --set loss.name=comp_sum --set loss.tau=0.5,1.0,1.5
  python -m experiments.sweep --config=digits --workdir=sweeps/rate \\
      --set loss.name=cross_entropy,focal --set optimizer.learning_rate=0.003,0.01 \\
      --choose=optimizer.learning_rate
  python -m experiments.sweep --config=digits --workdir=sweeps/mine --overrides=mine.py

Every --set KEY=VALUE[,VALUE...] is an axis of the grid. A Python file with a list OVERRIDES of
dicts ({"loss.tau": 0.5}) names settings one by one; with --set beside it, each of them is crossed
with the grid. --choose=KEY adds, for every combination of the other keys, its best value of KEY.

The seeds of a setting are trained together, by vmap over (state, batch): one compile and one
program for all of them. Seed s starts from the same key and is given the same batches in the same
order as `python -m experiments.run --seed=s`, so it computes the same numbers up to the rounding of
batched products.

One process trains all of it, or the tasks of a Slurm array share it (elsewhere --task_index and
--task_count say which this is), each with members of its own:

  sbatch --array=0-7 --requeue --wrap "python -m experiments.sweep --config=digits \\
      --workdir=/shared/tau --set loss.name=comp_sum --set loss.tau=0.5,1.0,1.5"

The task that ends last writes the table. A task that was killed is started again with its index
(--array=3,6 --task_count=8), or the same command in one process trains what is left.

The workdir gets members/HASH-SEED.json for each finished member (its config, curve, final metrics,
versions, device and seconds), table.md, table.json and curves.png. The same command again, or one
with more seeds or settings, trains only what is missing; a setting that was killed half-way starts
again. What another sweep in the directory is training is left to it. HASH is that of the whole
config but the seed.

Rows are sorted by the mean of one metric on the VALIDATION split (--select=accuracy, or with a
minus before it where less is better), those with members that stopped at NaN or infinity last; the
test columns play no part in it. Intervals are Student's t, over seeds.
"""

import ast
import dataclasses
import hashlib
import itertools
import json
import os
import re
import runpy
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import flags
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from ml_collections import ConfigDict

from experiments import array_task, sharding, storage
from experiments.config import check_overrides, load_file, locate, resolved, validate
from experiments.errors import BadInput
from experiments.job import Job, build
from experiments.metrics import Progress, jsonable
from experiments.program import run_program
from experiments.step import ALL_FINITE
from experiments.sweep_claim import hold
from experiments.sweep_table import label, labels, write_table
from experiments.workdir import made_with, write_json

#: Of its own: --config and --workdir are flags of run too.
_FLAGS = flags.FlagValues()
_CONFIG = flags.DEFINE_string(
    "config", None, "A shipped config or a .py file, as in run.", flag_values=_FLAGS
)
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "Directory of the sweep. Made if missing.", flag_values=_FLAGS
)
_SEEDS = flags.DEFINE_integer(
    "seeds", 10, "How many seeds: 0 to SEEDS - 1.", lower_bound=1, flag_values=_FLAGS
)
_SET = flags.DEFINE_multi_string(
    "set", [], "KEY=VALUE[,VALUE...]: an axis of the grid.", flag_values=_FLAGS
)
_OVERRIDES = flags.DEFINE_string(
    "overrides", None, "A Python file with a list OVERRIDES of dicts.", flag_values=_FLAGS
)
_SELECT = flags.DEFINE_string(
    "select", None, "Validation metric to sort by, with a minus where less is better; by default "
    "accuracy, or -loss where there is none.",
    flag_values=_FLAGS,
)  # fmt: skip
_CHOOSE = flags.DEFINE_list(
    "choose", [], "Keys whose best values, on validation, to list.", flag_values=_FLAGS
)
_TOGETHER = flags.DEFINE_integer(
    "together",
    32,
    "How many seeds to train at once, at most: memory grows with it.",
    lower_bound=1,
    flag_values=_FLAGS,
)

_INDEX = flags.DEFINE_integer(
    "task_index", None, "Which of the tasks this is, from 0; by default Slurm's array index.",
    flag_values=_FLAGS,
)  # fmt: skip
_COUNT = flags.DEFINE_integer(
    "task_count", None, "How many tasks share the sweep; by default Slurm's array. 1: no others.",
    flag_values=_FLAGS,
)  # fmt: skip

Overrides = Mapping[str, Any]


def grid(axes: Sequence[str], listed: Sequence[Overrides] = ({},)) -> list[dict[str, Any]]:
    """Every combination of the values of --set, crossed with the listed overrides.

    Args:
      axes: "KEY=VALUE[,VALUE...]"; commas inside brackets do not separate.
      listed: overrides to cross them with.

    Raises:
      BadInput: an axis without values, or a key that is given twice.
    """
    named: dict[str, list[str]] = {}
    for axis in axes:
        key, equals, values = axis.partition("=")
        if not (key and equals and values):
            raise BadInput(f"--set: expected KEY=VALUE[,VALUE...], got {axis!r}")
        if key in named or any(key in overrides for overrides in listed):
            raise BadInput(f"--set {key}: expected each key once, got it again")
        named[key] = re.split(r",(?![^(\[]*[)\]])", values)
    product = itertools.product(*named.values())
    combined = [dict(zip(named, values, strict=True)) for values in product]
    return [{**overrides, **point} for overrides in listed for point in combined]


def read_overrides(path: str | None) -> list[Overrides]:
    """The list OVERRIDES of a Python file; [{}] without a file.

    Raises:
      BadInput: no such file, or it does not hold such a list.
    """
    if path is None:
        return [{}]
    if not Path(path).is_file():
        raise BadInput(f"--overrides: no such file: {path}")
    try:
        found = runpy.run_path(path).get("OVERRIDES")
    except Exception as error:
        raise BadInput(f"--overrides: {path}: {type(error).__name__}: {error}") from error
    if not (isinstance(found, list) and found and all(isinstance(f, Mapping) for f in found)):
        raise BadInput(f"--overrides: {path}: expected OVERRIDES, a list of dicts, got {found!r}")
    return found


def configure(located: str, overrides: Overrides) -> ConfigDict:
    """The config of a file with overrides applied and checked; text is read as the key's type.

    Raises:
      BadInput: an unknown key, or a value that is not of the key's type or range.
    """
    config = load_file(located)
    if "seed" in overrides:
        raise BadInput("--set seed: expected --seeds=N in its place")
    try:
        check_overrides({key: str(value) for key, value in overrides.items()}, config)
    except BadInput as error:
        raise BadInput(str(error).replace("--config.", "--set ")) from error
    for key, value in overrides.items():
        *groups, leaf = key.split(".")
        level = config
        for group in groups:
            level = level[group]
        kind = level.get_type(leaf)
        try:
            level[leaf] = _read(value, kind) if isinstance(value, str) else value
        except (TypeError, ValueError, SyntaxError):
            raise BadInput(f"--set {key}: expected {kind.__name__}, got {value!r}") from None
    validate(config)
    if config.data.split_seed is None:
        raise BadInput(
            "--config.data.split_seed: expected a number in a sweep, so that all seeds are "
            "compared on the same examples, got None"
        )
    return config


def _read(text: str, kind: type) -> Any:
    if kind is str:
        return text
    if kind is bool:
        return {"true": True, "false": False}.get(text.lower(), text)
    if kind in (int, float):
        return kind(text)
    return kind(ast.literal_eval(text))


def member_path(workdir: Path, config: ConfigDict, seed: int) -> Path:
    """Where a member's result is kept: a function of its whole config and nothing else."""
    content = json.dumps(resolved(config) | {"seed": None}, sort_keys=True)
    digest = hashlib.sha256(content.encode()).hexdigest()[:16]
    return workdir / "members" / f"{digest}-{seed}.json"


def read_member(path: Path) -> dict[str, Any] | None:
    """A finished member's result, None if there is none that can be read."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and "final" in found else None


def train_together(job: Job, seeds: Sequence[int]) -> list[dict[str, Any]]:
    """Trains a job from several seeds at once.

    Args:
      job: any seed's.
      seeds: which; the result has one entry for each, in order.

    Returns:
      For each seed: "seed", "steps", "records" (as in metrics.jsonl: validation, and training at
      the same steps), "final" (split -> metrics) and "first_bad", the first step that was not
      finite, or None; such a member is not evaluated any more and its "final" is empty.
    """
    config, mesh, count = job.config, job.mesh, len(seeds)
    iterators = [_seeded(job, seed).train_batches() for seed in seeds]
    spread = NamedSharding(mesh, P(None, "data"))
    step = jax.jit(jax.vmap(job.step) if count > 1 else _one(job.step), donate_argnums=0)
    take = jax.jit(
        lambda tree, which: jax.tree.map(lambda leaf: leaf[which], tree),
        out_shardings=sharding.replicated(mesh),
    )
    members: list[dict[str, Any]] = [
        {"seed": seed, "steps": config.steps, "records": [], "final": {}, "first_bad": None}
        for seed in seeds
    ]
    progress = Progress(config.steps, 0, is_main=True)
    metrics: Any = ()
    with jax.set_mesh(mesh):
        state = jax.jit(jax.vmap(job.init))(jax.vmap(jax.random.key)(np.asarray(seeds, np.uint32)))
        for number in range(1, config.steps + 1):
            rows = [next(iterator) for iterator in iterators]
            batch = {
                name: jax.device_put(np.stack([row[name] for row in rows]), spread)
                for name in rows[0]
            }
            before = metrics
            state, metrics = step(state, batch)
            jax.block_until_ready(before)  # one step ahead of the device, not a thousand batches
            progress.update(number)
            last = number == config.steps
            if not (last or number % config.eval_every == 0):
                continue
            told = jax.device_get(metrics)
            for which in range(count):
                member = members[which]
                values = {name: float(value[which]) for name, value in told.items()}
                if (first_bad := int(values.pop("first_bad"))) != ALL_FINITE:
                    member["first_bad"] = first_bad
                    continue
                params = take(state["params"], which)
                found = {"train": values, "validation": job.evaluate(params, "validation")[0]}
                if last:
                    found["test"] = job.evaluate(params, "test")[0]
                    member["final"] = {
                        split: jsonable(found[split]) for split in ("validation", "test")
                    }
                member["records"] += [
                    {"step": number, "split": split, **jsonable(values)}
                    for split, values in found.items()
                ]
            if all(member["first_bad"] is not None for member in members):
                break
    progress.close()
    return members


def _one(step: Any) -> Any:
    """vmap over a single member, without its price: under vmap a lax.cond takes both branches."""

    def call(*trees: Any) -> Any:
        found = step(*jax.tree.map(lambda leaf: leaf[0], trees))
        return jax.tree.map(lambda leaf: leaf[None], found)

    return call


def _seeded(job: Job, seed: int) -> Job:
    config = job.config.copy_and_resolve_references()
    config.seed = seed
    return dataclasses.replace(job, config=config)


def sweep(
    located: str,
    workdir: Path,
    settings: Sequence[Overrides],
    seeds: Sequence[int],
    *,
    together: int = 32,
    task: array_task.Task = array_task.WHOLE,
) -> list[tuple[Overrides, list[dict[str, Any]]]]:
    """Trains what is missing of settings x seeds, and returns every member's result that is there.

    Args:
      located: the config file, as `config.locate` gives it.
      workdir: directory of the sweep.
      settings: overrides.
      seeds: seeds of each.
      together: how many seeds to train at once, at most.
      task: trains what is dealt to it and leaves the rest to others.

    Raises:
      BadInput: whatever is wrong with a setting, before any of them trains.
    """
    planned = [(overrides, configure(located, overrides)) for overrides in settings]
    missing: dict[int, list[int]] = {}
    known: dict[Path, str] = {}
    dealt = array_task.deal(task, len(planned), len(seeds), together)
    for place, (overrides, config) in enumerate(planned):
        path = member_path(workdir, config, 0)
        if path in known:
            raise BadInput(f"--set: {label(overrides)} is the same setting as {known[path]}")
        known[path] = label(overrides)
        own = [seeds[at] for at in dealt[place]]
        left = [s for s in own if read_member(member_path(workdir, config, s)) is None]
        if left:
            build(config)  # what is wrong with the last setting is said before the first trains
            missing[place] = left
    try:
        (workdir / "members").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(f"--workdir: cannot write {workdir}: {error.strerror or error}") from error
    made = {"made_with": made_with()} if missing else {}
    for place, left in missing.items():
        overrides, config = planned[place]
        print(f"[{place + 1}/{len(planned)}] {label(overrides)}: seeds {left}", flush=True)
        job = build(config)
        for start in range(0, len(left), together):
            paths = {s: member_path(workdir, config, s) for s in left[start : start + together]}
            with hold(paths) as held:
                # Another sweep may have finished some since this one looked.
                part = [s for s in paths if s in held and read_member(paths[s]) is None]
                began = time.perf_counter()
                found = train_together(job, part) if part else []
                seconds = (time.perf_counter() - began) / max(len(part), 1)
                told = {"overrides": dict(overrides), **made, "seconds": seconds}
                for seed, member in zip(part, found, strict=True):
                    held[seed].check()
                    config.seed = seed
                    write_json(paths[seed], {"config": resolved(config), **told, **member})
    results = []
    for overrides, config in planned:
        members = [read_member(member_path(workdir, config, seed)) for seed in seeds]
        results.append((overrides, [member for member in members if member is not None]))
    return results


def main(argv: Sequence[str]) -> None:
    """The program behind the flags."""
    if len(argv) > 1:
        raise BadInput(f"expected flags only, got {argv[1]!r}")
    if not _CONFIG.value or not _WORKDIR.value:
        name, what = ("workdir", "a directory") if _CONFIG.value else ("config", "a config")
        raise BadInput(f"--{name}: expected {what}, got none")
    settings = grid(_SET.value, read_overrides(_OVERRIDES.value))
    for key in _CHOOSE.value:
        if not any(key in overrides for overrides in settings):
            raise BadInput(f"--choose: expected keys that the sweep sets, got {key!r}")
    workdir = storage.find_local(_WORKDIR.value)
    located = locate(_CONFIG.value)
    task = array_task.find(_INDEX.value, _COUNT.value, os.environ)
    if task.count > 1:
        print(f"task {task.index} of {task.count}", flush=True)
    seeds = range(_SEEDS.value)
    results = sweep(located, workdir, settings, seeds, together=_TOGETHER.value, task=task)
    left = sum(len(seeds) - len(members) for _, members in results)
    if left:
        print(f"{left} members of other tasks are not there yet: the last task writes the table, "
              "or the same command with --task_count=1 (and no --task_index)")  # fmt: skip
        return
    common, names = labels([overrides for overrides, _ in results])
    named = [
        (name, dict(overrides), members)
        for name, (overrides, members) in zip(names, results, strict=True)
    ]
    print(write_table(workdir, named, select=_SELECT.value, choose=_CHOOSE.value, common=common))


if __name__ == "__main__":
    run_program("sweep", main, _FLAGS, __doc__)
