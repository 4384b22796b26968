# SPDX-License-Identifier: Apache-2.0
"""What a row of the catalogue says."""

import dataclasses
import inspect
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from xloss import checks

#: How a loss was checked (the golden file's ``source`` says which).
AUTHORS_CODE = "authors' code"
DERIVED = "published formula, derived and checked"
RECONSTRUCTION = "reconstruction"
EVIDENCE = (AUTHORS_CODE, DERIVED, RECONSTRUCTION)

#: What a loss may read beside, or in place of, LogitStatistics: logits, labels that are
#: distributions [..., K] or 0 and 1 [..., K], distances in place of logits, logits at attacked
#: inputs, and at several inputs [M, ..., K].
ARRAYS = (
    "logits",
    "probabilities",
    "multi_hot",
    "distances",
    "adversarial_logits",
    "candidate_logits",
)


@dataclasses.dataclass(frozen=True)
class Entry:
    """One row of the catalogue.

    Attributes:
      name: what ``xloss.get`` and ``config.loss.name`` call it.
      function: the loss.
      family: the sub-package it lives in.
      title: full title of the paper.
      arxiv: arXiv id, or None where the paper has none.
      needs: what it reads: fields of LogitStatistics, or some of ARRAYS, and "key" if it takes
        one.
      temporaries: of value and gradient compiled for a CPU, at most, in bytes of the logits (those
        of one array, where it takes two); a test pins it.
      exact_gradient: False if the gradient is injected, so that the value is no loss.
      evidence: one of EVIDENCE.
      slug: what its golden file and its file of invariants are called, if it has any.
    """

    name: str
    function: Callable[..., Any]
    family: str
    title: str
    arxiv: str | None
    needs: tuple[str, ...]
    evidence: str
    temporaries: float = 0.01
    exact_gradient: bool = True
    slug: str | None = None

    @property
    def hyperparameters(self) -> dict[str, Any]:
        """Names and defaults of the hyperparameters (``inspect.Parameter.empty`` if none)."""
        reserved = {"scores", "labels", "where", "relevance", "key", "axis_name", *ARRAYS}
        parameters = inspect.signature(self.function).parameters
        return {name: p.default for name, p in parameters.items() if name not in reserved}

    @property
    def couples_batch(self) -> bool:
        """Whether an example's term depends on the rest of the batch; the loss says so itself."""
        return checks.couples_batch(self.function)

    @property
    def takes_statistics(self) -> bool:
        """Whether a LogitStatistics alone is enough (and hence binary scores and any head)."""
        return not set(ARRAYS) & set(self.needs)

    @property
    def takes_attacked(self) -> bool:
        """Whether it reads logits at attacked inputs, which only adversarial training has."""
        return bool({"adversarial_logits", "candidate_logits"} & set(self.needs))


@dataclasses.dataclass(frozen=True)
class Method:
    """A row of the catalogue that is no loss of scores and labels.

    Attributes:
      name: what ``xloss.get`` calls it.
      function: the public function or factory.
      family: the sub-package it lives in.
      title: full title of the paper.
      arxiv: arXiv id, or None where the paper has none.
      evidence: one of EVIDENCE.
      cost: what a step or a call costs, such as "2 gradients"; empty where nothing is worth saying.
      slug: what its golden file and its file of invariants are called, if it has any.
    """

    name: str
    function: Callable[..., Any]
    family: str
    title: str
    arxiv: str | None
    evidence: str
    cost: str = ""
    slug: str | None = None


def of_paper(
    title: str,
    arxiv: str | None,
    slug: str | None,
    evidence: str,
    functions: Iterable[Callable[..., Any]],
    cost: str = "",
) -> Iterator[Method]:
    """Rows of one paper's functions, each in the family that its module is in."""
    for function in functions:
        yield Method(
            name=function.__name__,
            function=function,
            family=".".join(function.__module__.split(".")[1:-1]),
            title=title,
            arxiv=arxiv,
            evidence=evidence,
            cost=cost,
            slug=slug,
        )
