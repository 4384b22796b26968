# SPDX-License-Identifier: Apache-2.0
"""Workdirs as a run leaves them, made up in milliseconds, for the tests of reports."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from experiments.metrics import MetricWriter, evaluation_metrics
from experiments.scoring import true_class_log_odds

CROSS_ENTROPY = {
    "name": "cross_entropy",
    "family": "classification",
    "title": "A paper on <losses> & margins",
    "arxiv": "2304.07288",
    "evidence": "authors' code",
    "needs": ["log_odds"],
    "couples_batch": False,
    "exact_gradient": True,
}
ENSLOSS = {
    **CROSS_ENTROPY,
    "name": "ensloss",
    "evidence": "published formula, derived and checked",
    "needs": ["log_odds", "key"],
    "couples_batch": True,
    "exact_gradient": False,
}


def scores_and_labels(classes: int, count: int, *, margin: float = 6.0) -> tuple[np.ndarray, ...]:
    """Scores of a model that is mostly right: [count, classes], or [count] for two classes."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, classes, count)
    if classes == 2:
        return ((2 * labels - 1) * margin / 2 + rng.normal(0, 2, count)).astype("float32"), labels
    scores = rng.normal(0, 1.5, (count, classes))
    scores[np.arange(count), labels] += rng.normal(margin, 2.5, count)
    return scores.astype("float32"), labels


def make_run(
    workdir: Path,
    *,
    classes: int = 10,
    count: int = 360,
    loss: dict[str, Any] | None = None,
    steps: int = 1000,
    finished: bool = True,
    validation: bool = True,
    config: dict[str, Any] | None = None,
    info: dict[str, Any] | None = None,
) -> Path:
    """Writes config.json, metrics.jsonl and, if finished, run.json and evaluation.npz.

    `classes` 2 is the binary task with one score an example; `config` and `info` are merged over
    what is written by default.
    """
    loss = loss or CROSS_ENTROPY
    rng = np.random.default_rng(1)
    task = "binary" if classes == 2 else "multiclass"
    writer = MetricWriter(workdir, is_main=True, resume_step=0)
    for step in range(1, steps + 1, max(1, steps // 200)):
        decay = np.exp(-4 * step / 1000)
        writer.write(step, "train", {
            "loss": 2.3 * decay + 0.03 + 0.1 * decay * rng.random(),
            "accuracy": 1 - 0.85 * decay - 0.02 * rng.random(),
            "gradient_norm": 1.0 + rng.random(),
            "learning_rate": 1e-3,
            "step_seconds": 2.7 if step == 1 else 0.004 + 0.001 * rng.gamma(2.0),
            "examples_per_second": 64 / 0.006,
        })  # fmt: skip
    scores, labels = scores_and_labels(classes, count)
    if validation:
        for step in range(0, steps + 1, max(1, steps // 10)):
            decay = np.exp(-4 * step / 1000)
            noisy = scores * (1 - decay) + rng.normal(0, 4 * decay + 0.1, scores.shape)
            found = evaluation_metrics(noisy, labels, task)
            writer.write(step, "validation", {**found, "loss": found["cross_entropy"]})
    if finished:
        found = evaluation_metrics(scores, labels, task)
        writer.write(steps, "test", {**found, "loss": found["cross_entropy"]})
        np.savez(workdir / "evaluation.npz", scores=scores, labels=labels, index=np.arange(count),
                 log_odds=true_class_log_odds(scores, labels, task))  # fmt: skip
        default = {"status": "finished", "steps": steps, "git_commit": "0123abc", "loss": loss,
                   "versions": {"jax": "0.10.2"}, "devices": ["TFRT_CPU_0"]}  # fmt: skip
        (workdir / "run.json").write_text(json.dumps({**default, **(info or {})}))
    writer.close()
    default = {"seed": 0, "data": {"name": "digits"}, "loss": {"name": loss["name"]},
               "model": {"hidden": [64, 64]}, "optimizer": {"learning_rate": 1e-3}}  # fmt: skip
    (workdir / "config.json").write_text(json.dumps({**default, **(config or {})}))
    return workdir
