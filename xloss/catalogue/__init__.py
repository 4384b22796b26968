# SPDX-License-Identifier: Apache-2.0
"""Every public loss, transform and tool: its paper and how well it was checked.

The catalogue drives ``xloss.get``, the README's table, the configs of ``experiments`` and the
contract tests: a public loss that is not listed here fails a test, a listed one is tested. It is
written out by hand, so that importing a module never registers anything.

``LOSSES`` keep the loss contract. ``METHODS`` is everything else that has a paper: optax
transforms, gradient aggregators, attacks, statements about losses.
"""

import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from xloss import surrogates
from xloss.catalogue.losses import LOSSES
from xloss.catalogue.methods import METHODS
from xloss.catalogue.rows import (
    ARRAYS,
    AUTHORS_CODE,
    DERIVED,
    EVIDENCE,
    RECONSTRUCTION,
    Entry,
    Method,
)

__all__ = [
    "ARRAYS",
    "AUTHORS_CODE",
    "DERIVED",
    "EVIDENCE",
    "RECONSTRUCTION",
    "LOSSES",
    "METHODS",
    "Entry",
    "Method",
    "cite",
    "entry",
    "get",
    "resolve",
]


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
    return _row(name).function


def cite(name: str) -> str:
    """Returns the BibTeX entry of the paper that a loss or method is from.

    Functions of one paper have the same entry, key included: a bibliography may be put together
    from the names that a run used.

    Args:
      name: a name of the catalogue, such as "comp_sum", "sam" or "kendall_tau".

    Returns:
      One entry in ASCII, several lines: "inproceedings", "article" or, for what is on arXiv only,
      "misc"; with the arXiv id where there is one.

    Raises:
      ValueError: no such name; the message has the nearest match.

    Example:
      >>> print(cite("aldr_kl"))
      @inproceedings{zhu2023label,
        title = {{Label Distributionally Robust Losses for Multi-class Classification:
                  Consistency, Robustness and Adaptivity}},
        author = {Zhu, Dixian and Ying, Yiming and Yang, Tianbao},
        booktitle = {ICML},
        year = {2023},
        eprint = {2112.14869},
        archivePrefix = {arXiv},
      }
    """
    from xloss.catalogue.citation import bibtex  # the authors of 80 papers: for those who cite

    return bibtex(_row(name))


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


def _row(name: str) -> Entry | Method:
    row = METHODS.get(name) or LOSSES.get(name)
    if row is None:
        hint = _hint(name, [*LOSSES, *METHODS])
        raise ValueError(f"catalogue: expected a loss or method, got {name!r}{hint}")
    return row


def _hint(name: Any, options: Iterable[str]) -> str:
    near = difflib.get_close_matches(str(name), list(options), n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(options)}"
