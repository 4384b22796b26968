# SPDX-License-Identifier: Apache-2.0
"""One table about measures of generalization: which of them order models as the gap does.

Every measure of a study against the gap, with the warning of Gastpar et al., "Fantastic
Generalization Measures are Nowhere to be Found", printed below it. Reach for it after training some
dozens of models with varied hyperparameters, and read the worst sign error before the mean.
"""

import dataclasses
from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from xloss.diagnostics.rank_correlation import (
    granulated_kendall,
    kendall_tau,
    sign_error,
    single_change_environments,
)

WARNING = (
    "Warning: a rank correlation on these models is no bound and says nothing about other\n"
    "architectures, algorithms or data. In the overparameterised setting no measure of weights\n"
    "and training data alone is tight for all algorithms and distributions (arXiv 2309.13658)."
)


@dataclasses.dataclass(frozen=True)
class CorrelationReport:
    """What :func:`correlation_report` found; print it.

    Attributes:
      names: of the measures, in the order that they were given.
      num_models: how many models were ordered.
      tau: Kendall's tau of each, float [measures]; NaN where a measure is constant.
      granulated: granulated tau, float [measures], or None without hyperparameters.
      mean_sign_error: over all pairs, float [measures].
      worst_sign_error: of the worst environment, float [measures], or None likewise.
      warning: what none of these numbers says.
    """

    names: tuple[str, ...]
    num_models: int
    tau: np.ndarray
    granulated: np.ndarray | None
    mean_sign_error: np.ndarray
    worst_sign_error: np.ndarray | None
    warning: str = WARNING

    def __str__(self) -> str:
        columns = {
            "tau": self.tau,
            "granulated": self.granulated,
            "sign error": self.mean_sign_error,
            "worst": self.worst_sign_error,
        }
        shown = {head: values for head, values in columns.items() if values is not None}
        heads = {head: f"{head:>6}" for head in shown}
        width = max(len(name) for name in ("measure", *self.names))
        lines = [f"{self.num_models} models", "  ".join([f"{'measure':{width}}", *heads.values()])]
        for row in np.argsort(self.mean_sign_error, kind="stable"):
            cells = [f"{values[row]:{len(heads[head])}.3f}" for head, values in shown.items()]
            lines.append("  ".join([f"{self.names[row]:{width}}", *cells]))
        return "\n".join([*lines, self.warning])


def correlation_report(
    measures: Mapping[str, ArrayLike], gap: ArrayLike, *, hyperparams: ArrayLike | None = None
) -> CorrelationReport:
    """Kendall's tau and sign errors of several measures over one set of trained models.

    Definition: :func:`kendall_tau` and :func:`sign_error` of each; with hyperparams also
    :func:`granulated_kendall` and the sign error in the worst of
    :func:`single_change_environments`.

    Args:
      measures: name -> [n], n >= 2, any float dtype, one value a model; at least one.
      gap: [n], such as test error minus training error.
      hyperparams: [n, H], what was varied, integer or float; or None.

    Returns:
      A :class:`CorrelationReport`; ``print`` shows it, least mean sign error first, and the
      warning.

    Raises:
      TypeError: wrong dtypes.
      ValueError: no measures, or shapes that do not fit.

    Numerics:
      On the host, of concrete arrays. Infinite values are greatest or least; NaN gives NaN.

    Example:
      >>> import jax.numpy as jnp
      >>> measures = {"up": jnp.array([1.0, 2.0, 3.0]), "down": jnp.array([3.0, 2.0, 1.0])}
      >>> report = correlation_report(measures, jnp.array([0.1, 0.2, 0.3]))
      >>> report.tau.tolist(), report.mean_sign_error.tolist()
      ([1.0, -1.0], [0.0, 1.0])

    Evidence: published formula, derived and checked.

    References:
      Gastpar, Nachum, Shafer, Weinberger, "Fantastic Generalization Measures are Nowhere to be
      Found", 2023, arXiv 2309.13658 (the warning); Jiang et al., arXiv 1912.02178, and Dziugaite
      et al., arXiv 2010.11924 (the columns).
    """
    if not measures:
        raise ValueError("correlation_report: expected measures, name -> [n], got none")

    def column(function, *arguments) -> np.ndarray:
        return np.array([float(function(x, gap, *arguments)) for x in measures.values()])

    granulated = worst = None
    if hyperparams is not None:
        granulated = column(granulated_kendall, hyperparams)
        worst = column(sign_error, single_change_environments(hyperparams))
    return CorrelationReport(
        names=tuple(measures),
        num_models=int(jnp.size(gap)),
        tau=column(kendall_tau),
        granulated=granulated,
        mean_sign_error=column(sign_error),
        worst_sign_error=worst,
    )
