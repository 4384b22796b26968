# SPDX-License-Identifier: Apache-2.0
"""Every golden case, value and gradient, in float64 at the tolerance that its file states."""

import dataclasses

import pytest

from experiments import golden

CASES = [case for slug in golden.slugs() for case in golden.load(slug)]


@pytest.mark.parametrize(
    "case",
    [c for c in CASES if not golden.is_open(c) and c.name not in golden.skipped(c.slug)],
    ids=lambda c: f"{c.slug}-{c.name}",
)
def test_case_agrees(case):
    assert golden.mismatches(case) == []


@pytest.mark.parametrize("slug", golden.slugs())
def test_every_function_of_a_slug_is_mapped_or_declared_open(slug):
    functions = {case.function for case in CASES if case.slug == slug}
    module = golden.adapters(slug)
    mapped, declared = set(module.CALLS), set(getattr(module, "OPEN", ()))
    assert not mapped & declared
    assert mapped | declared == functions


@pytest.mark.parametrize("slug", golden.slugs())
def test_at_most_three_percent_are_skipped_and_none_of_them_passes(slug):
    cases = [case for case in CASES if case.slug == slug]
    skipped = [case for case in cases if case.name in golden.skipped(slug)]
    assert len(skipped) == len(golden.skipped(slug)), "a skipped case that does not exist"
    assert len(skipped) <= 0.03 * len(cases)
    for case in skipped:
        assert golden.mismatches(case), f"{case.name} passes: take it off the skip list"


@pytest.mark.parametrize("slug", golden.slugs())
def test_ignored_outputs_document_a_bug_of_the_reference(slug):
    marks = ("bug_compat", "authors_", "code_batch_", "_compat", "_libmtl")
    for function, names in getattr(golden.adapters(slug), "IGNORED", {}).items():
        outputs = {n for case in CASES if case.function == function for n in case.outputs}
        assert set(names) <= outputs
        assert [n for n in names if not any(mark in n for mark in marks)] == []


def test_a_wrong_number_is_noticed():
    case = next(c for c in CASES if c.function == "comp_sum_loss")
    outputs = dict(case.outputs) | {"loss": case.outputs["loss"] * (1 + 1e-7)}
    wrong = golden.mismatches(dataclasses.replace(case, outputs=outputs))
    assert len(wrong) == 1 and wrong[0].startswith("loss: off by")
