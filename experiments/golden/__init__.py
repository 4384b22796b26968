# SPDX-License-Identifier: Apache-2.0
"""Golden vectors: numbers of the authors' own code (or an independent derivation) against xloss.

A golden file is ``<slug>.npz`` with the arrays ``<case>/in/<name>`` and ``<case>/out/<name>``, and
``<slug>.json`` with parameters and tolerances. The module of the same name in this folder maps each
golden function to an xloss call:

    CALLS    the reference's function name -> adapter(case) -> {output name: value}
    OPEN     (optional) functions whose xloss counterpart is not written yet
    IGNORED  (optional) function -> names of outputs that document a bug of the reference
    SKIPPED  (optional) case -> reason with the spec's line; at most 3 % of a slug, and a skipped
             case that passes fails a test

``tests/golden`` and ``python -m experiments.verify`` both run it.
"""

import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import numpy as np

from experiments.golden.case import Case

__all__ = ["Case", "FOLDER", "adapters", "is_open", "load", "mismatches", "skipped", "slugs"]

#: The copies that the tests use.
FOLDER = Path(__file__).resolve().parent.parent.parent / "tests" / "golden"


def slugs() -> list[str]:
    """Names of the golden files that are there."""
    return sorted(path.stem for path in FOLDER.glob("*.json"))


def adapters(slug: str) -> ModuleType:
    """The module that maps the golden functions of a slug to xloss calls."""
    return importlib.import_module(f"experiments.golden.{slug}")


def is_open(case: Case) -> bool:
    """Whether xloss has no counterpart of the case's function yet."""
    return case.function in getattr(adapters(case.slug), "OPEN", ())


def skipped(slug: str) -> Mapping[str, str]:
    """Case names of a slug that are skipped, each with its reason."""
    return getattr(adapters(slug), "SKIPPED", {})


def load(slug: str) -> list[Case]:
    """Reads all cases of a slug."""
    table = json.loads((FOLDER / f"{slug}.json").read_text())
    with np.load(FOLDER / f"{slug}.npz", allow_pickle=False) as arrays:
        values = {key: arrays[key] for key in arrays.files}

    def part(case: str, side: str) -> dict[str, np.ndarray]:
        prefix = f"{case}/{side}/"
        return {k.removeprefix(prefix): v for k, v in values.items() if k.startswith(prefix)}

    return [
        Case(
            slug=slug,
            name=case["name"],
            function=case["function"],
            params=case["params"],
            inputs=part(case["name"], "in"),
            outputs=part(case["name"], "out"),
            rtol=case["rtol"],
            atol=case.get("atol"),
        )
        for case in table["cases"]
    ]


def mismatches(case: Case) -> list[str]:
    """Runs a case in float64; returns a line for every output that is missing or differs."""
    module = adapters(case.slug)
    with jax.enable_x64(True):
        found: Mapping[str, Any] = module.CALLS[case.function](case)
    ignored = getattr(module, "IGNORED", {}).get(case.function, ())
    wrong = [f"{n}: not computed" for n in case.outputs if n not in found and n not in ignored]
    for name, got in found.items():
        want = np.asarray(case.outputs[name], np.float64)
        got = np.asarray(got, np.float64)
        size = np.max(np.abs(want[np.isfinite(want)]), initial=1.0)
        atol = 1e-9 * size if case.atol is None else case.atol
        if got.shape != want.shape:
            wrong.append(f"{name}: shape {got.shape}, expected {want.shape}")
        elif not np.allclose(got, want, rtol=case.rtol, atol=atol, equal_nan=True):
            worst = np.nanmax(np.abs(got - want))
            wrong.append(f"{name}: off by {worst:.3g} (rtol {case.rtol:g}, atol {atol:.3g})")
    return wrong
