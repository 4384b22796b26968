# SPDX-License-Identifier: Apache-2.0
"""The catalogue's command line and the README's generated table."""

import pytest

from experiments import catalogue
from experiments.errors import BadInput
from xloss.catalogue import LOSSES


def test_readme_holds_the_generated_table():
    assert catalogue.markdown() in catalogue.README.read_text()


def test_update_writes_between_the_markers_only(tmp_path):
    page = tmp_path / "README.md"
    page.write_text(f"before\n{catalogue.BEGIN}\nwritten before\n{catalogue.END}\nafter\n")
    assert catalogue.update(page)
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("after\n") and "written before" not in text
    assert catalogue.markdown() in text
    assert not catalogue.update(page)
    page.write_text("no markers")
    with pytest.raises(BadInput, match="expected the markers"):
        catalogue.update(page)


def test_table_lists_every_loss_with_its_hyperparameters():
    lines = catalogue.table().splitlines()
    for name in LOSSES:
        assert sum(line.split()[:1] == [name] for line in lines) == 1
    assert any("lam=0.0, clip=1.0, tail_power=1.0, eps=1e-06" in line for line in lines)


def test_find_takes_a_name_or_a_word_of_the_paper():
    assert [e.name for e in catalogue.find("focal")] == ["focal"]
    assert [e.name for e in catalogue.find("dense object")] == ["focal"]
    assert "injected" in catalogue.details(LOSSES["ensloss"])
    with pytest.raises(BadInput, match="did you mean 'comp_sum'"):
        catalogue.find("compsum")
