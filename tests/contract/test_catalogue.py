# SPDX-License-Identifier: Apache-2.0
"""The catalogue lists every public loss, and says about it what its docstring says."""

import inspect
import operator
import re

import jax
import jax.numpy as jnp
import pytest

import xloss
from xloss import catalogue, surrogates
from xloss.catalogue import ARRAYS, EVIDENCE, LOSSES, METHODS

SECTIONS = ("Definition", "Args:", "Returns:", "Raises:", "Numerics:", "Example:", "References:")


def public_losses():
    """Functions of the families of scores, or one of the arrays in their place, and labels."""
    for family in (xloss.classification, xloss.adversarial):
        for name in family.__all__:
            parameters = inspect.signature(getattr(family, name)).parameters
            if next(iter(parameters)) not in ("scores", *ARRAYS):
                continue
            if {"labels", "probabilities"} & set(parameters) and name not in METHODS:
                yield name


def test_every_public_loss_is_registered():
    assert sorted(public_losses()) == sorted(LOSSES)


@pytest.mark.parametrize("entry", LOSSES.values(), ids=lambda e: e.name)
def test_entry_matches_the_function(entry):
    family = getattr(xloss, entry.family)
    assert getattr(family, entry.name) is entry.function is xloss.get(entry.name)
    assert entry.evidence in EVIDENCE
    assert ("key" in entry.needs) == ("key" in inspect.signature(entry.function).parameters)
    known = {*xloss.statistics.FIELDS, *ARRAYS, "key"}
    assert set(entry.needs) <= known
    parameters = inspect.signature(entry.function).parameters
    for name in entry.hyperparameters:
        if name != "surrogate":
            assert parameters[name].kind is inspect.Parameter.KEYWORD_ONLY
            assert parameters[name].default is not inspect.Parameter.empty


@pytest.mark.parametrize("entry", LOSSES.values(), ids=lambda e: e.name)
def test_docstring_names_paper_evidence_and_every_argument(entry):
    text = re.sub(r"\s+", " ", entry.function.__doc__)
    assert entry.title in text
    assert f"Evidence: {entry.evidence}." in text
    if entry.arxiv:
        assert f"arXiv {entry.arxiv}" in text
    for section in SECTIONS:
        assert section in text, section
    for name in inspect.signature(entry.function).parameters:
        assert re.search(rf"\b{name}\b.*?: ", text), name


@pytest.mark.parametrize("method", METHODS.values(), ids=lambda m: m.name)
def test_method_matches_the_function_and_its_docstring(method):
    assert operator.attrgetter(f"{method.family}.{method.name}")(xloss) is method.function
    assert xloss.get(method.name) is method.function
    assert method.evidence in EVIDENCE
    assert method.name not in LOSSES
    text = re.sub(r"\s+", " ", method.function.__doc__)
    assert method.title in text
    assert f"Evidence: {method.evidence}." in text
    if method.arxiv:
        assert f"arXiv {method.arxiv}" in text
    for section in ("Args:", "Returns:", "Raises:", "Numerics:", "Example:", "References:"):
        assert section in text, section
    for name in inspect.signature(method.function).parameters:
        assert re.search(rf"\b{name}\b.*?: ", text), name


@pytest.mark.parametrize(
    "entry", [e for e in LOSSES.values() if e.takes_statistics], ids=lambda e: e.name
)
def test_reads_no_field_beyond_its_needs(entry):
    known = {name: jnp.array([0.5, -1.0]) for name in entry.needs if name != "key"}
    stats = xloss.LogitStatistics(**known, num_classes=3, provider="a_head")
    extra = {"key": jax.random.key(0)} if "key" in entry.needs else {}
    assert entry.function(stats, **extra).shape == (2,)


def test_unknown_names_get_the_nearest_match():
    with pytest.raises(ValueError, match="did you mean 'comp_sum'"):
        xloss.get("compsum")
    with pytest.raises(
        ValueError, match=r"comp_sum: expected hyperparameters among \(tau\).*'tua'"
    ):
        catalogue.resolve({"name": "comp_sum", "tua": 0.7})
    with pytest.raises(ValueError, match="did you mean 'hinge'"):
        catalogue.resolve({"name": "margin_loss", "surrogate": "hinges"})
    with pytest.raises(ValueError, match="expected a loss with a 'name'"):
        catalogue.resolve({"tau": 1.0})


def test_resolve_binds_a_surrogate_with_its_hyperparameters():
    entry, arguments = catalogue.resolve(
        {"name": "margin_loss", "surrogate": "rho_margin", "rho": 2.0}
    )
    assert entry.name == "margin_loss"
    assert arguments["surrogate"].func is surrogates.rho_margin
    assert arguments["surrogate"].keywords == {"rho": 2.0}
    with pytest.raises(ValueError, match="'tau'"):
        catalogue.resolve({"name": "margin_loss", "surrogate": "rho_margin", "tau": 2.0})
