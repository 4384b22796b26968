# SPDX-License-Identifier: Apache-2.0
"""Citations: one right entry for everything in the catalogue, and no cost for who does not cite."""

import re
import unicodedata

import pytest

import xloss
from xloss.catalogue import LOSSES, METHODS
from xloss.catalogue.papers import PAPERS

ROWS = [*LOSSES.values(), *METHODS.values()]


def plain(text: str) -> str:
    """Without accents and LaTeX's way of writing them."""
    text = re.sub(r"\{\\[`'^~\"v]\s?(\w)\}", r"\1", text)
    return unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()


def fields_of(entry: str) -> dict[str, str]:
    return dict(re.findall(r"^  (\w+) = \{(.*)\},$", entry, flags=re.MULTILINE))


def reference(row) -> tuple[str, str]:
    """What the docstring's References say before and after the title of the row's paper.

    SURNAMES, "TITLE", VENUE YEAR, arXiv ID; some name the paper alone, some the first author.
    """
    said = re.sub(r"\s+", " ", row.function.__doc__).partition("References:")[2]
    before, _, after = said.partition(f'"{row.title}"')
    return before, after


def surnames_said(row) -> list[str]:
    named = re.search(r"(?:^|[:;.] )((?:[\w' -]+, )+)$", reference(row)[0])
    return plain(named[1]).strip(" ,").split(", ") if named else []


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_the_entry_says_what_the_docstring_says(row):
    entry = xloss.cite(row.name)
    assert entry.isascii()
    assert re.match(r"@(article|inproceedings|misc)\{[a-z]+\d{4}[a-z]+,\n", entry)
    assert entry.count("{") == entry.count("}") and entry.endswith(",\n}")
    fields = fields_of(entry)
    assert fields["title"] == f"{{{row.title}}}"
    assert fields.get("eprint") == row.arxiv
    surnames = [plain(author.split(",")[0]) for author in fields["author"].split(" and ")]
    assert surnames_said(row) in ([], surnames)
    before, after = reference(row)
    if before.endswith("et al., "):
        assert before.endswith(f"{surnames[0]} et al., ")
    venue, _, year = PAPERS[row.arxiv or row.title][1].rpartition(" ")
    if after.startswith(", arXiv"):
        assert not venue and year == "20" + row.arxiv[:2]
    else:
        assert after.startswith(f", {venue} {year}" if venue else f", {year}")


def test_most_docstrings_name_the_authors_to_compare_with():
    assert sum(bool(surnames_said(row)) for row in ROWS) > len(ROWS) / 2


def test_every_paper_is_cited_and_has_its_own_key():
    cited = {row.arxiv or row.title for row in ROWS}
    assert cited == set(PAPERS)
    keys = {(row.arxiv or row.title, xloss.cite(row.name).split(",")[0]) for row in ROWS}
    assert len(keys) == len({key for _, key in keys}) == len(PAPERS)


def test_a_journal_is_an_article_and_a_preprint_names_no_venue():
    brier = xloss.cite("brier")
    assert brier.startswith("@article{brier1950verification,")
    assert "  journal = {Monthly Weather Review},\n" in brier
    assert "eprint" not in brier
    preprint = xloss.cite("upgrad")
    assert preprint.startswith("@misc{quinton2024jacobian,")
    assert "booktitle" not in preprint and r"Rey, Val{\'e}rian" in preprint


def test_an_unknown_name_gets_the_nearest_match():
    with pytest.raises(ValueError, match="expected a loss or method, got 'focl'.*'focal'"):
        xloss.cite("focl")


def test_importing_xloss_loads_no_authors(run_python):
    program = "import sys, xloss; print('xloss.catalogue.papers' in sys.modules)"
    assert run_python("-c", program).stdout.strip() == "False"
