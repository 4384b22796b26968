# SPDX-License-Identifier: Apache-2.0
"""VERIFIED.md says what the code does, under the versions that it was written with."""

import re
from collections.abc import Iterator

import jax
import pytest

from experiments import golden, verify
from experiments.errors import BadInput
from xloss.catalogue import LOSSES


@pytest.fixture(autouse=True)
def counted_anew() -> Iterator[None]:
    verify.golden_counts.cache_clear()
    yield
    verify.golden_counts.cache_clear()


@pytest.mark.skipif(
    jax.__version__ != "0.10.2", reason="compiled temporaries are those of the pinned jax 0.10.2"
)
def test_the_committed_page_is_up_to_date(monkeypatch):
    # The golden cases have tests of their own; running them twice would cost minutes.
    monkeypatch.setattr(golden, "mismatches", lambda case: [])
    assert verify.VERIFIED.read_text() == verify.document()


def test_every_loss_has_a_row_and_the_counts_add_up():
    text = verify.VERIFIED.read_text()
    for entry in LOSSES.values():
        row = next(line for line in text.splitlines() if line.startswith(f"| `{entry.name}` "))
        assert entry.title in row and entry.evidence in row
        if entry.slug in golden.slugs():
            counts = re.search(r"(\d+) / (\d+) / (\d+) / (\d+)", row)
            passed, skipped, waiting, total = map(int, counts.groups())
            assert passed + skipped + waiting == total == len(golden.load(entry.slug))


def test_a_failing_case_is_no_row_but_an_error(monkeypatch):
    monkeypatch.setattr(golden, "mismatches", lambda case: ["loss: off by 1"])
    with pytest.raises(BadInput, match="golden comp_sum/loss_tau0_0: loss: off by 1"):
        verify.golden_counts("comp_sum")
