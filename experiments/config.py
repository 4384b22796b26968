# SPDX-License-Identifier: Apache-2.0
"""From a config file to a job that is known to be sound, before anything compiles.

`read` checks what the command line says, `validate` what the config says: every mistake is one line
that names the flag, what was expected and the nearest match.
"""

import json
import re
import runpy
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

import xloss
from experiments import computing, optimizer, retention, sharding
from experiments.configs.common import base_config
from experiments.data import Dataset
from experiments.data.options import nearest
from experiments.errors import BadInput
from experiments.rules import Rule, one_of
from experiments.rundir import flatten
from xloss import catalogue

SHIPPED = Path(__file__).resolve().parent / "configs"
TASKS = tuple(
    sorted(
        path.stem
        for path in (Path(__file__).resolve().parent / "tasks").glob("*.py")
        if path.stem != "__init__"
    )
)
#: Tasks that attack their inputs, for the losses that need it.
ATTACKING = ("adversarial",)
#: Tasks of several labels an example.
SEVERAL_LABELS = ("multi_label",)


#: The optimizer's keys are in experiments.optimizer; those of data are checked by experiments.data,
#: the model's by its class, the loss's by the loss, the task's by the task.
_RULES: dict[str, Rule] = {
    "seed": Rule(int, "an integer in [0, 2**31)", lambda v: 0 <= v < 2**31),
    "steps": Rule(int, "an integer in [1, 2**31)", lambda v: 1 <= v < 2**31),
    "log_every": Rule(int, "an integer >= 1", lambda v: v >= 1),
    "eval_every": Rule(int, "an integer >= 1", lambda v: v >= 1),
    "checkpoint_every": Rule(int, "an integer >= 1", lambda v: v >= 1),
    "on_nan": one_of("stop", "skip"),
    "max_skipped": Rule(int, "an integer >= 1", lambda v: v >= 1),
    "param_dtype": one_of("float32", "float64"),
    **computing.RULES,
    **sharding.RULES,
    **retention.RULES,
    "data.batch_size": Rule(int, "an integer >= 1", lambda v: v >= 1),
    "data.eval_batch_size": Rule(int, "an integer >= 1", lambda v: v >= 1),
}


def locate(config: str) -> str:
    """The file of `--config`: a path as it is, or the shipped config of that name.

    Args:
      config: "digits", "digits:quick" or "some/file.py:variant".

    Raises:
      BadInput: no such file, or no shipped config of that name.
    """
    name, colon, variant = config.partition(":")
    path = Path(name)
    if path.suffix != ".py":
        shipped = sorted(
            p.stem for p in SHIPPED.glob("*.py") if p.stem not in ("__init__", "common")
        )
        if name not in shipped:
            raise BadInput(
                f"--config: expected a .py file or one of {', '.join(shipped)}, got {name!r}"
                f"{nearest(name, shipped)}"
            )
        path = SHIPPED / f"{name}.py"
    elif not path.is_file():
        raise BadInput(f"--config: no such file: {name}")
    return f"{path}{colon}{variant}"


def load_file(located: str) -> ConfigDict:
    """The config of a file as :func:`locate` returns it, before any override.

    Raises:
      BadInput: the file cannot be imported, or its get_config fails.
    """
    path, _, variant = located.partition(":")
    try:
        get_config = runpy.run_path(path).get("get_config")
        if get_config is None:
            raise BadInput(f"--config: {path}: expected a function get_config, got none")
        config = get_config(variant) if variant else get_config()
    except BadInput:
        raise
    except (Exception, SystemExit) as error:
        raise BadInput(f"--config: {path}: {type(error).__name__}: {error}") from error
    if not isinstance(config, ConfigDict):
        raise BadInput(
            f"--config: {path}: expected a ConfigDict from get_config, got {type(config).__name__}"
        )
    return config


def check_overrides(overrides: Mapping[str, str], config: ConfigDict) -> None:
    """Raises BadInput for `--config.a.b=...` where the config has no value a.b.

    Args:
      overrides: keys such as "loss.tau", with what they are set to.
      config: the config file's own values.
    """
    plain = config.to_dict()
    for key, value in overrides.items():
        _check_key(key, plain)
        if isinstance(dict(_all_keys(plain))[key], Mapping):
            raise BadInput(
                f"--config.{key}: expected one of its keys, as in --config.{key}.name={value}"
            )


def resolved(config: ConfigDict) -> dict[str, Any]:
    """The config as plain JSON data, without the hyperparameters that are left at None."""
    plain = json.loads(json.dumps(config.to_dict(), default=str))
    for group in {"loss", "task", "optimizer"} & plain.keys():
        plain[group] = {key: value for key, value in plain[group].items() if value is not None}
    if plain["optimizer"]["clip_norm"] == np.inf:
        plain["optimizer"]["clip_norm"] = "inf"  # JSON has no infinity
    return plain


def from_resolved(plain: Mapping[str, Any]) -> ConfigDict:
    """The config that :func:`resolved` made plain data of; what is wrong in it stays so."""
    config = ConfigDict(dict(plain))
    options = config.get("optimizer")
    if isinstance(options, ConfigDict) and options.get("clip_norm") == "inf":
        config.optimizer = ConfigDict({**options.to_dict(), "clip_norm": np.inf})
    return config


def validate(config: ConfigDict) -> None:
    """Checks everything that needs neither data nor compiling.

    Raises:
      BadInput: the first value that is wrong.
    """
    values = dict(_all_keys(config.to_dict()))
    known = base_config().to_dict()
    for group in ("data", "task", "model", "mesh", "loss", "optimizer"):
        if group == "loss" and group not in values:  # a task may have an objective of its own
            continue
        if not isinstance(values.get(group), Mapping):
            raise BadInput(f"--config.{group}: expected a ConfigDict, got {values.get(group)!r}")
    for key, value in values.items():
        if not key.startswith(("task.", "model.", "loss.")):  # which know their own
            _check_key(key, known)
        if isinstance(value, float) and key != "optimizer.clip_norm" and np.isinf(value):
            raise BadInput(f"--config.{key}: expected a finite number, got {value}")
    _check_values(values, {"task.name": one_of(*TASKS), **_RULES, **optimizer.RULES})
    given = {key: rule for key, rule in optimizer.OPTIONAL.items() if values.get(key) is not None}
    _check_values(values, given)
    retention.check_keys(config)
    if config.mesh.model > 1 and not config.sharding:
        raise BadInput(
            f"--config.sharding: expected rules for the {config.mesh.model} devices of "
            "config.mesh.model, which would all do the same work, got none"
        )
    optimizer.check_sharpness(config.optimizer)
    optimizer.check_weight_decay(config.optimizer)
    if config.optimizer.warmup_steps >= config.steps:
        raise BadInput(
            f"--config.optimizer.warmup_steps: expected less than the {config.steps} steps, got "
            f"{config.optimizer.warmup_steps}"
        )
    optimizer.check_schedule(config)
    if "loss" in config:
        if named_loss(config)[0].couples_batch:
            computing.refuse_accumulate(
                config, f"the loss {config.loss.name!r} couples the examples of a batch"
            )
        if config.task.name not in SEVERAL_LABELS:  # which try it on labels of their own kind
            resolve_loss(config)


def check_task(config: ConfigDict, rules: Mapping[str, Rule]) -> None:
    """Checks the keys of `config.task` beside its name; a task's `build` calls it first.

    Args:
      config: the config.
      rules: what each key must be; all of them must be there.

    Raises:
      BadInput: a key that the task does not know, or a value that is wrong.
    """
    values = config.task.to_dict()
    for key in values:
        _check_key(f"task.{key}", {"task": dict.fromkeys(("name", *rules))})
    _check_values(
        {f"task.{key}": value for key, value in values.items()},
        {f"task.{key}": rule for key, rule in rules.items()},
    )


def resolve_loss(
    config: ConfigDict, dataset: Dataset | None = None
) -> tuple[catalogue.Entry, dict[str, Any]]:
    """The loss and its arguments, traced once on shapes so that it has checked them itself.

    Args:
      config: the config.
      dataset: checks that the loss suits the task; None checks the arguments alone.

    Raises:
      BadInput: unknown loss or hyperparameter, a value of the wrong type or out of range, or a
        loss that cannot be used with these labels.
    """
    entry, arguments = named_loss(config)
    if "probabilities" in entry.needs:
        raise BadInput(
            f"--config.loss.name: expected a loss of integer labels, got {entry.name!r} (its "
            "targets are probabilities)"
        )
    if "multi_hot" in entry.needs:
        raise BadInput(
            f"--config.loss.name: expected a loss of one label an example, got {entry.name!r} (its "
            f"labels are 0 and 1 for every class, as in the task {SEVERAL_LABELS[0]!r})"
        )
    if "distances" in entry.needs:
        raise BadInput(
            f"--config.loss.name: expected a loss of logits, got {entry.name!r} (it takes "
            "distances; with config.model.head = 'harmonic' the model makes logits of them, and "
            "cross_entropy is the harmonic loss)"
        )
    if entry.takes_attacked and config.task.name not in ATTACKING:
        raise BadInput(
            f"--config.loss.name: expected a loss of clean inputs for the task "
            f"{config.task.name!r}, got {entry.name!r} (it reads logits at attacked inputs, which "
            f"the task {ATTACKING[0]!r} makes)"
        )
    binary = dataset is not None and dataset.task == "binary"
    if binary and not entry.takes_statistics:
        raise BadInput(
            f"--config.loss.name: expected a loss of statistics for one score an example, got "
            f"{entry.name!r} (it reads all logits)"
        )
    try_loss(
        config,
        lambda z, y: losses_of(entry, arguments, z, y, key=jax.random.key(0), attacked=z)[0],
        jax.ShapeDtypeStruct((4,) if binary else (4, 3), jnp.float32),
        jax.ShapeDtypeStruct((4,), jnp.int32),
    )
    return entry, arguments


def named_loss(config: ConfigDict) -> tuple[catalogue.Entry, dict[str, Any]]:
    """The loss of config.loss and its arguments, not yet tried.

    Raises:
      BadInput: unknown loss or hyperparameter.
    """
    if "loss" not in config:
        raise BadInput("--config.loss: expected a ConfigDict, got None")
    spec = _spec(config)
    try:
        return catalogue.resolve(spec)
    except (ValueError, TypeError) as error:
        raise _refused(error, spec) from error


def try_loss(config: ConfigDict, function: Callable[..., Any], *shapes: Any) -> None:
    """Traces a function of the loss on shapes, so that the loss checks its arguments by itself.

    They are bound in the function, not traced: that is what makes the loss check their ranges.

    Raises:
      BadInput: what the loss says, with the flag that it is about.
    """
    try:
        jax.eval_shape(function, *shapes)
    except (ValueError, TypeError) as error:
        raise _refused(error, _spec(config)) from error


def losses_of(
    entry: catalogue.Entry,
    arguments: Mapping[str, Any],
    scores: jax.Array,
    labels: jax.Array,
    *,
    key: jax.Array,
    where: jax.Array | None = None,
    attacked: jax.Array | None = None,
) -> tuple[jax.Array, xloss.LogitStatistics]:
    """Losses [B], and the statistics that they were taken from, for either kind of scores.

    Args:
      entry: the loss.
      arguments: its hyperparameters.
      scores: logits [B, K], or [B] for one score an example.
      labels: integer [B].
      key: for the losses that draw.
      where: bool [B] or None.
      attacked: logits [B, K] at attacked inputs, for the losses that read them.
    """
    if scores.ndim == 1:
        stats = xloss.binary_statistics(scores, labels, where=where)
    else:
        stats = xloss.logit_statistics(scores, labels, where=where)
    extra = {"key": key} if "key" in entry.needs else {}
    given: tuple[Any, ...] = (stats,) if entry.takes_statistics else (scores, labels)
    if "candidate_logits" in entry.needs:
        assert attacked is not None, "only tasks that attack get here"
        given = (jnp.stack([scores, attacked]), labels)
    elif "adversarial_logits" in entry.needs:
        given = (scores, attacked, labels) if "logits" in entry.needs else (attacked, labels)
    return entry.function(*given, where=where, **arguments, **extra), stats


def mean_loss(
    entry: catalogue.Entry, arguments: Mapping[str, Any], scores: np.ndarray, labels: np.ndarray
) -> float:
    """The mean loss over a split on the host, summed in float64."""
    losses, _ = losses_of(
        entry, arguments, jnp.asarray(scores), jnp.asarray(labels), key=jax.random.key(0)
    )
    return float(np.mean(np.asarray(losses, np.float64)))


def differences(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """Keys at which two resolved configs differ, as "a.b: x there, y here"."""
    left, right = dict(flatten(theirs)), dict(flatten(ours))
    return [
        f"{key}: {left.get(key, 'absent')} there, {right.get(key, 'absent')} here"
        for key in sorted(left.keys() | right.keys())
        if left.get(key) != right.get(key)
    ]


def _all_keys(tree: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in tree.items():
        yield f"{prefix}{key}", value
        if isinstance(value, Mapping):
            yield from _all_keys(value, f"{prefix}{key}.")


def _check_values(values: Mapping[str, Any], rules: Mapping[str, Rule]) -> None:
    """Raises BadInput for the first rule that a flat mapping does not keep."""
    for key, (kind, words, legal, names) in rules.items():
        if key not in values:
            raise BadInput(f"--config.{key}: expected {words}, got nothing")
        value = values[key]
        right = isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
        if not right or not legal(value):
            hint = nearest(str(value), names)
            raise BadInput(f"--config.{key}: expected {words}, got {value!r}{hint}")


def _check_key(key: str, tree: Mapping[str, Any]) -> None:
    """Raises BadInput unless a nested mapping has a key such as "optimizer.name"."""
    group, _, leaf = key.rpartition(".")
    level: Any = tree
    for part in group.split(".") if group else ():
        level = level.get(part) if isinstance(level, Mapping) else None
    if not isinstance(level, Mapping):
        _check_key(group, tree)  # perhaps the group is what is wrong
        raise BadInput(f"--config.{key}: no such key; --config.{group} is a value")
    if leaf not in level:
        hint = nearest(leaf, level)
        near = hint.replace("mean '", f"mean '{group}." if group else "mean '")
        raise BadInput(f"--config.{key}: no such key{near or '; known: ' + ', '.join(level)}")


def _spec(config: ConfigDict) -> dict[str, Any]:
    return {key: value for key, value in config.loss.to_dict().items() if value is not None}


def _refused(error: Exception, spec: Mapping[str, Any]) -> BadInput:
    """A loss's own message, with the flag of the hyperparameter that it is about."""
    text = re.sub(r"^(catalogue|surrogates): ", "", str(error).strip().splitlines()[0])
    about = (key for key in spec if re.search(rf"expected {key}\b|got '{key}'|\b{key}=", text))
    values = (key for key, value in spec.items() if f"got {value!r}" in text)
    key = next(about, None) or next(values, None)
    return BadInput(f"--config.loss{'.' + key if key else ''}: {text}")
