# SPDX-License-Identifier: Apache-2.0
"""Which checkpoints stay: the last ones always, every n-th and the best ones if the config asks.

What is best is read from the validation records of `metrics.jsonl`, which is cut back with the
checkpoints: a resumed run keeps those that an uninterrupted one keeps.
"""

import dataclasses
import math
import os
from collections.abc import Mapping, Sequence

from ml_collections import ConfigDict

from experiments.errors import BadInput
from experiments.metrics import read_metrics
from experiments.rules import Rule, one_of

RULES: dict[str, Rule] = {
    "keep_checkpoints": Rule(int, "an integer >= 1", lambda v: v >= 1),
    "keep_every": Rule(int, "an integer >= 0", lambda v: v >= 0),
    "keep_best": Rule(int, "an integer >= 0", lambda v: v >= 0),
    "best_metric": Rule(str, "the name of a validation metric", bool),
    "best_is": one_of("highest", "lowest"),
}


def check_keys(config: ConfigDict) -> None:
    """Raises BadInput if checkpoints would never meet the evaluations that are to rank them."""
    saved, evaluated = sorted((config.checkpoint_every, config.eval_every))
    if config.keep_best and evaluated % saved:
        raise BadInput(
            "--config.keep_best: expected checkpoint_every and eval_every to divide one another, "
            f"so that checkpoints are evaluated, got {config.checkpoint_every} and "
            f"{config.eval_every}"
        )


@dataclasses.dataclass(frozen=True)
class Retention:
    """The older checkpoints that stay, beside the last ones.

    Attributes:
      workdir: of the run.
      every: steps that are a multiple of it stay; 0: none.
      best: so many of the best stay; 0: none. A step without an evaluation, or with one that is
        NaN, is never among them; of equal ones the earlier is.
      metric: what they are ranked by, of the validation split.
      highest: whether a higher value is better.
    """

    workdir: str | os.PathLike
    every: int = 0
    best: int = 0
    metric: str = "accuracy"
    highest: bool = True

    @classmethod
    def of(cls, config: ConfigDict, workdir: str | os.PathLike) -> "Retention":
        """What the config says."""
        return cls(
            workdir,
            config.keep_every,
            config.keep_best,
            config.best_metric,
            config.best_is == "highest",
        )

    def check_metric(self, found: Mapping[str, float]) -> None:
        """Raises BadInput if an evaluation lacks the metric."""
        if self.best and self.metric not in found:
            raise BadInput(
                f"--config.best_metric: expected one of {', '.join(found)}, got {self.metric!r}"
            )

    def spare(self, written: Sequence[int]) -> set[int]:
        """Those of the written steps that stay, however old they are."""
        spared = {step for step in written if self.every and step % self.every == 0}
        if not self.best:
            return spared
        scores = {
            record["step"]: record[self.metric]
            for record in read_metrics(self.workdir)
            if record["split"] == "validation" and self.metric in record
        }
        sign = -1 if self.highest else 1
        ranked = sorted(
            (step for step in written if not math.isnan(scores.get(step, math.nan))),
            key=lambda step: (sign * scores[step], step),
        )
        return spared | set(ranked[: self.best])
