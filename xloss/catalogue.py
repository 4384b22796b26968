# SPDX-License-Identifier: Apache-2.0
"""Every public loss, transform and tool: its paper and how well it was checked.

The catalogue drives ``xloss.get``, the README's table, the configs of ``experiments`` and the
contract tests: a public loss that is not listed here fails a test, a listed one is tested. It is
written out by hand, so that importing a module never registers anything.

``LOSSES`` keep the loss contract. ``METHODS`` is everything else that has a paper: optax
transforms, gradient aggregators, attacks, statements about losses.
"""

import dataclasses
import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from xloss import classification, heads, optim, surrogates

#: How a loss was checked (the golden file's ``source`` says which).
AUTHORS_CODE = "authors' code"
DERIVED = "published formula, derived and checked"
RECONSTRUCTION = "reconstruction"
EVIDENCE = (AUTHORS_CODE, DERIVED, RECONSTRUCTION)


@dataclasses.dataclass(frozen=True)
class Entry:
    """One row of the catalogue.

    Attributes:
      name: what ``xloss.get`` and ``config.loss.name`` call it.
      function: the loss.
      family: the sub-package it lives in.
      title: full title of the paper.
      arxiv: arXiv id, or None where the paper has none.
      needs: what it reads: fields of LogitStatistics, or "logits", "distances" (in place of
        logits), "probabilities" (labels that are distributions), and "key" if it takes one.
      couples_batch: whether an example's term depends on the rest of the batch.
      exact_gradient: False if the gradient is injected, so that the value is no loss.
      evidence: one of EVIDENCE.
      slug: name of the golden file and spec, if it has one.
    """

    name: str
    function: Callable[..., Any]
    family: str
    title: str
    arxiv: str | None
    needs: tuple[str, ...]
    evidence: str
    couples_batch: bool = False
    exact_gradient: bool = True
    slug: str | None = None

    @property
    def hyperparameters(self) -> dict[str, Any]:
        """Names and defaults of the hyperparameters (``inspect.Parameter.empty`` if none)."""
        reserved = {"scores", "logits", "distances", "labels", "probabilities", "where"}
        reserved |= {"key", "axis_name"}
        parameters = inspect.signature(self.function).parameters
        return {name: p.default for name, p in parameters.items() if name not in reserved}

    @property
    def takes_statistics(self) -> bool:
        """Whether a LogitStatistics alone is enough (and hence binary scores and any head)."""
        return not {"logits", "distances"} & set(self.needs)


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
      slug: name of the golden file and spec, if it has one.
    """

    name: str
    function: Callable[..., Any]
    family: str
    title: str
    arxiv: str | None
    evidence: str
    cost: str = ""
    slug: str | None = None


LOSSES: dict[str, Entry] = {
    entry.name: entry
    for entry in (
        Entry(
            name="cross_entropy",
            function=classification.cross_entropy,
            family="classification",
            title="Rethinking the Inception Architecture for Computer Vision",
            arxiv="1512.00567",
            needs=("log_odds", "centred"),
            evidence=DERIVED,
        ),
        Entry(
            name="soft_cross_entropy",
            function=classification.soft_cross_entropy,
            family="classification",
            title="mixup: Beyond Empirical Risk Minimization",
            arxiv="1710.09412",
            needs=("logits", "probabilities"),
            evidence=DERIVED,
        ),
        Entry(
            name="comp_sum",
            function=classification.comp_sum,
            family="classification",
            title="Cross-Entropy Loss Functions: Theoretical Analysis and Applications",
            arxiv="2304.07288",
            needs=("log_odds",),
            evidence=DERIVED,
            slug="comp_sum",
        ),
        Entry(
            name="generalized_cross_entropy",
            function=classification.generalized_cross_entropy,
            family="classification",
            title=(
                "Generalized Cross Entropy Loss for Training Deep Neural Networks with Noisy Labels"
            ),
            arxiv="1805.07836",
            needs=("log_odds",),
            evidence=DERIVED,
        ),
        Entry(
            name="focal",
            function=classification.focal,
            family="classification",
            title="Focal Loss for Dense Object Detection",
            arxiv="1708.02002",
            needs=("log_odds",),
            evidence=DERIVED,
        ),
        Entry(
            name="log_partition_penalty",
            function=classification.log_partition_penalty,
            family="classification",
            title=("Small-scale proxies for large-scale Transformer training instabilities"),
            arxiv="2309.14322",
            needs=("log_odds", "target"),
            evidence=DERIVED,
            slug="logit_stability",
        ),
        Entry(
            name="margin_loss",
            function=classification.margin_loss,
            family="classification",
            title="Convexity, Classification, and Risk Bounds",
            arxiv=None,
            needs=("log_odds",),
            evidence=DERIVED,
        ),
        Entry(
            name="ensloss",
            function=classification.ensloss,
            family="classification",
            title=(
                "EnsLoss: Stochastic Calibrated Loss Ensembles for Preventing Overfitting in "
                "Classification"
            ),
            arxiv="2409.00908",
            needs=("log_odds", "key"),
            evidence=AUTHORS_CODE,
            couples_batch=True,
            exact_gradient=False,
            slug="ensloss",
        ),
        Entry(
            name="z_loss",
            function=classification.z_loss,
            family="classification",
            title=(
                "The Z-loss: a shift and scale invariant classification loss belonging to the "
                "Spherical Family"
            ),
            arxiv="1604.08859",
            needs=("centred", "variance"),
            evidence=DERIVED,
            slug="z_loss",
        ),
        Entry(
            name="taylor_softmax",
            function=classification.taylor_softmax,
            family="classification",
            title=("An Exploration of Softmax Alternatives Belonging to the Spherical Loss Family"),
            arxiv="1511.05042",
            needs=("target", "centred", "variance", "class_count"),
            evidence=DERIVED,
            slug="z_loss",
        ),
        Entry(
            name="spherical_softmax",
            function=classification.spherical_softmax,
            family="classification",
            title=("An Exploration of Softmax Alternatives Belonging to the Spherical Loss Family"),
            arxiv="1511.05042",
            needs=("target", "centred", "variance", "class_count"),
            evidence=DERIVED,
            slug="z_loss",
        ),
        Entry(
            name="harmonic",
            function=classification.harmonic,
            family="classification",
            title="Harmonic Loss Trains Interpretable AI Models",
            arxiv="2502.01628",
            needs=("distances",),
            evidence=AUTHORS_CODE,
            slug="harmonic",
        ),
    )
}

METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method(
            name="pairwise_distance",
            function=heads.pairwise_distance,
            family="heads",
            title="Rethinking the Harmonic Loss via Non-Euclidean Distance Layers",
            arxiv="2603.10225",
            evidence=AUTHORS_CODE,
            slug="harmonic",
        ),
        Method(
            name="harmonic_logits",
            function=heads.harmonic_logits,
            family="heads",
            title="Harmonic Loss Trains Interpretable AI Models",
            arxiv="2502.01628",
            evidence=AUTHORS_CODE,
            slug="harmonic",
        ),
        Method(
            name="ignite",
            function=optim.ignite,
            family="optim",
            title=(
                "Incorporating Surrogate Gradient Norm to Improve Offline Optimization Techniques"
            ),
            arxiv="2503.04242",
            evidence=DERIVED,
            cost="3 gradients",
            slug="ignite",
        ),
        Method(
            name="surrogate_sharpness",
            function=optim.surrogate_sharpness,
            family="optim",
            title=(
                "Incorporating Surrogate Gradient Norm to Improve Offline Optimization Techniques"
            ),
            arxiv="2503.04242",
            evidence=DERIVED,
            cost="1 gradient",
            slug="ignite",
        ),
        Method(
            name="sam",
            function=optim.sam,
            family="optim",
            title="Sharpness-Aware Minimization for Efficiently Improving Generalization",
            arxiv="2010.01412",
            evidence=AUTHORS_CODE,
            cost="2 gradients",
            slug="sam_family",
        ),
        Method(
            name="asam",
            function=optim.asam,
            family="optim",
            title=(
                "ASAM: Adaptive Sharpness-Aware Minimization for Scale-Invariant Learning of Deep "
                "Neural Networks"
            ),
            arxiv="2102.11600",
            evidence=AUTHORS_CODE,
            cost="2 gradients",
            slug="sam_family",
        ),
        Method(
            name="sharpness",
            function=optim.sharpness,
            family="optim",
            title="Sharpness-Aware Minimization for Efficiently Improving Generalization",
            arxiv="2010.01412",
            evidence=AUTHORS_CODE,
            cost="1 gradient and 1 loss",
            slug="sam_family",
        ),
        Method(
            name="sam_multitask_gradients",
            function=optim.sam_multitask_gradients,
            family="optim",
            title="Improving Multi-task Learning via Seeking Task-based Flat Regions",
            arxiv="2211.13723",
            evidence=DERIVED,
            cost="2T gradients",
            slug="sam_mtl",
        ),
        Method(
            name="sam_multitask",
            function=optim.sam_multitask,
            family="optim",
            title="Improving Multi-task Learning via Seeking Task-based Flat Regions",
            arxiv="2211.13723",
            evidence=DERIVED,
            cost="2T gradients",
            slug="sam_mtl",
        ),
        Method(
            name="linear",
            function=optim.aggregators.linear,
            family="optim.aggregators",
            title="In Defense of the Unitary Scalarization for Deep Multi-Task Learning",
            arxiv="2201.04122",
            evidence=AUTHORS_CODE,
            cost="T gradients",
            slug="mtl_aggregators",
        ),
        Method(
            name="mgda",
            function=optim.aggregators.mgda,
            family="optim.aggregators",
            title="Multi-Task Learning as Multi-Objective Optimization",
            arxiv="1810.04650",
            evidence=AUTHORS_CODE,
            cost="T gradients",
            slug="mtl_aggregators",
        ),
        Method(
            name="pcgrad",
            function=optim.aggregators.pcgrad,
            family="optim.aggregators",
            title="Gradient Surgery for Multi-Task Learning",
            arxiv="2001.06782",
            evidence=AUTHORS_CODE,
            cost="T gradients",
            slug="mtl_aggregators",
        ),
        Method(
            name="cagrad",
            function=optim.aggregators.cagrad,
            family="optim.aggregators",
            title="Conflict-Averse Gradient Descent for Multi-task Learning",
            arxiv="2110.14048",
            evidence=AUTHORS_CODE,
            cost="T gradients",
            slug="mtl_aggregators",
        ),
    )
}


def entry(name: str) -> Entry:
    """Returns the catalogue's row of that name; ValueError with the nearest match otherwise."""
    if name not in LOSSES:
        raise ValueError(f"catalogue: expected a loss, got {name!r}{_hint(name, LOSSES)}")
    return LOSSES[name]


def get(name: str) -> Callable[..., Any]:
    """Returns a loss, or another method of the catalogue, by its name.

    Args:
      name: a name of the catalogue, such as "comp_sum" or "sam".

    Returns:
      The function, the same object as ``xloss.<family>.<name>``.

    Raises:
      ValueError: no such name; the message has the nearest match.

    Example:
      >>> import xloss
      >>> xloss.get("comp_sum") is xloss.classification.comp_sum
      True
    """
    if name in METHODS:
        return METHODS[name].function
    if name not in LOSSES:
        known = [*LOSSES, *METHODS]
        raise ValueError(f"catalogue: expected a loss, got {name!r}{_hint(name, known)}")
    return LOSSES[name].function


def resolve(spec: Mapping[str, Any]) -> tuple[Entry, dict[str, Any]]:
    """Turns a config such as ``{"name": "comp_sum", "tau": 0.7}`` into a loss and its arguments.

    A loss with a ``surrogate`` takes its name, and the surrogate's hyperparameters beside it:
    ``{"name": "margin_loss", "surrogate": "rho_margin", "rho": 2.0}``.

    Args:
      spec: "name" and hyperparameters.

    Returns:
      (entry, keyword arguments for entry.function). Ranges are checked when the loss is called
      or traced, by the loss itself.

    Raises:
      ValueError: unknown loss, surrogate or hyperparameter, with the nearest match.
    """
    given = dict(spec)
    if "name" not in given:
        raise ValueError(f"catalogue: expected a loss with a 'name', got keys {sorted(given)}")
    found = entry(given.pop("name"))
    allowed: dict[str, Any] = dict(found.hyperparameters)
    surrogate, parameters = None, []
    if "surrogate" in allowed and isinstance(given.get("surrogate"), str):
        surrogate = surrogates.get(given.pop("surrogate"))
        parameters = list(inspect.signature(surrogate).parameters)[1:]
        allowed |= dict.fromkeys(parameters)
    for name in given:
        if name not in allowed:
            options = ", ".join(allowed) or "none"
            raise ValueError(
                f"{found.name}: expected hyperparameters among ({options}), got "
                f"{name!r}{_hint(name, allowed)}"
            )
    if surrogate is not None:
        mine = {name: given.pop(name) for name in parameters if name in given}
        given["surrogate"] = surrogates.bind(surrogate, **mine)
    return found, given


def _hint(name: Any, options: Iterable[str]) -> str:
    near = difflib.get_close_matches(str(name), list(options), n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(options)}"
