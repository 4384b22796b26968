# SPDX-License-Identifier: Apache-2.0
"""What a run left in its workdir, read back; reach for it to report on runs or to compare them.

`read_run` needs `config.json` only: a run that is still going, or that was killed, has the rest in
part or not at all, and `Run.missing` says so in words.
"""

import io
import json
import os
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from experiments import storage
from experiments.errors import BadInput
from experiments.metrics import read_metrics
from experiments.storage import AnyPath

STATUS = "status.json"


@dataclass(frozen=True)
class Evaluation:
    """Scores of the test split, example by example.

    Attributes:
      scores: float [N, K] logits, or [N] scores of class 1 for two classes.
      labels: int [N].
      log_odds: float [N], of the true class.
      index: int [N], position of each example in its split.
    """

    scores: np.ndarray
    labels: np.ndarray
    log_odds: np.ndarray
    index: np.ndarray

    @property
    def task(self) -> str:
        """Either "binary", if there is one score per example, or "multiclass"."""
        return "binary" if self.scores.ndim == 1 else "multiclass"

    @property
    def num_classes(self) -> int:
        return 2 if self.scores.ndim == 1 else self.scores.shape[1]


@dataclass(frozen=True)
class Run:
    """One run, as far as it went.

    Attributes:
      workdir: its directory.
      config: the resolved config, nested.
      info: what run.json says (versions, device, loss entry, ...); {} if there is none.
      records: what metrics.jsonl says.
      evaluation: the test scores, or None.
      missing: one sentence for each file that is not there.
      status: what status.json says (`observe.Watch.status`), {} if there is none.
    """

    workdir: AnyPath
    config: dict[str, Any]
    info: dict[str, Any]
    records: list[dict[str, Any]]
    evaluation: Evaluation | None
    missing: list[str]
    status: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return storage.absolute(self.workdir).name

    @property
    def loss(self) -> dict[str, Any]:
        """Catalogue entry of the loss, as run.json tells it; {} if the loss is unknown."""
        if isinstance(loss := self.info.get("loss"), dict):
            return loss
        # An unfinished run must not pass off EnsLoss's scalar as a loss either. Imported here, as a
        # finished run needs no JAX to be reported on.
        from xloss.catalogue import LOSSES

        configured = self.config.get("loss")
        name = str(configured.get("name") if isinstance(configured, dict) else configured)
        return dict(vars(LOSSES[name])) if name in LOSSES else {}

    @property
    def loss_name(self) -> str:
        """Name of the loss with the hyperparameters that the config sets: "comp_sum, tau=0.7".

        Of a task with a method of its own, what run.json calls the method.
        """
        configured, task = self.config.get("loss"), self.config.get("task")
        if (
            isinstance(task, dict)
            and task.get("name") != "classification"
            and "method" in self.info
        ):
            return str(self.info["method"])
        if not isinstance(configured, dict):
            return str(self.loss.get("name", "unknown loss"))
        settings = [f"{k}={v:g}" if isinstance(v, float) else f"{k}={v}"
                    for k, v in configured.items() if k != "name" and v is not None]  # fmt: skip
        return ", ".join([str(configured.get("name", "unknown loss")), *settings])

    @property
    def has_scores(self) -> bool:
        """Whether the task is one whose test scores make pictures."""
        return self.info.get("scores") is not False

    @property
    def injected_gradient(self) -> bool:
        """Whether only the gradient of the loss means something, its scalar being no loss value."""
        return self.loss.get("exact_gradient") is False

    @property
    def class_names(self) -> list[str]:
        """Names of the classes; their numbers if run.json names none."""
        count = self.evaluation.num_classes if self.evaluation else 0
        names = self.info.get("class_names")
        if isinstance(names, list) and len(names) == count:
            return [str(name) for name in names]
        return [str(k) for k in range(count)]

    def series(self, split: str, metric: str) -> tuple[np.ndarray, np.ndarray]:
        """Steps [n] and values [n] of one metric, by step. What was written last for a step counts.

        Args:
          split: "train", "validation" or "test".
          metric: name of the metric.
        """
        found = {r["step"]: r[metric] for r in self.records if r["split"] == split and metric in r}
        steps = sorted(found)
        return np.array(steps, int), np.array([found[step] for step in steps], float)

    def last(self, split: str) -> dict[str, Any]:
        """The last record of a split, {} if there is none."""
        return next((r for r in reversed(self.records) if r["split"] == split), {})


def read_run(workdir: str | os.PathLike) -> Run:
    """Reads what is in a run's workdir.

    Args:
      workdir: directory that `python -m experiments.run` wrote.

    Raises:
      BadInput: there is no such directory, it holds no config.json, or a file in it is broken.
    """
    path = storage.find(workdir, "workdir")
    if not path.is_dir():
        raise BadInput(f"workdir: expected the directory of a run, got {path}: no such directory")
    if not (path / "config.json").exists():
        raise BadInput(
            f"workdir: expected the directory of a run, got {path}: no config.json in it"
        )
    missing = []
    info = _read_json(path / "run.json") if (path / "run.json").exists() else {}
    for name, without in (
        ("run.json", "the run has not finished, or its machine and versions are unknown"),
        ("metrics.jsonl", "there are no curves and no final metrics"),
        ("evaluation.npz", "there are no pictures of the test scores"),
    ):
        if name == "evaluation.npz" and info.get("scores") is False:
            continue
        if not (path / name).exists():
            missing.append(f"{name} is missing: {without}.")
    return Run(
        workdir=path,
        config=_read_json(path / "config.json"),
        info=info,
        records=read_metrics(path),
        evaluation=_read_evaluation(path / "evaluation.npz"),
        missing=missing,
        status=read_status(path) or {},
    )


def read_status(root: AnyPath) -> dict[str, Any] | None:
    """status.json of a workdir, None if there is none that can be read."""
    try:
        found = json.loads(storage.read_bytes(root / STATUS))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and "state" in found else None


def flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields ("a.b.c", value) for each leaf of nested mappings; lists are leaves."""
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _read_json(path: AnyPath) -> dict[str, Any]:
    try:
        content = json.loads(storage.read_bytes(path))
    except (ValueError, OSError) as error:
        raise BadInput(f"{path}: expected a JSON object, got: {error}") from error
    if not isinstance(content, dict):
        raise BadInput(f"{path}: expected a JSON object, got {type(content).__name__}")
    return content


def _read_evaluation(path: AnyPath) -> Evaluation | None:
    if not path.exists():
        return None
    try:
        with np.load(io.BytesIO(storage.read_bytes(path)), allow_pickle=False) as arrays:
            scores, labels = arrays["scores"].astype(np.float64), arrays["labels"]
            read = Evaluation(scores, labels, arrays["log_odds"], arrays["index"])
    except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise BadInput(
            f"{path}: expected arrays scores, labels, log_odds and index, got: {error}"
        ) from error
    shapes = [a.shape for a in (read.scores, read.labels, read.log_odds, read.index)]
    if shapes[0][:1] + shapes[0][2:] != shapes[1] or not shapes[1] == shapes[2] == shapes[3]:
        raise BadInput(
            f"{path}: expected scores [N, K] or [N] with labels, log_odds and index [N], "
            f"got {', '.join(str(list(shape)) for shape in shapes)}"
        )
    return read
