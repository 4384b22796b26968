# SPDX-License-Identifier: Apache-2.0
"""The table of 8-mers: who is known, what is held out, and one line for whatever is wrong."""

import gzip

import numpy as np
import pytest

from experiments.data.tf_bind import DESIGNS, PLACES, load_tf_bind, one_hot, read_scores
from experiments.errors import BadInput
from tests.experiments import tf_bind_table

ROWS = tf_bind_table.lines()


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return tf_bind_table.write(tmp_path_factory.mktemp("table") / "FAKE_8mers.txt.gz", ROWS)


def number(word: str) -> int:
    return int(np.array(["ACGT".index(letter) for letter in word]) @ PLACES)


def test_every_design_has_the_score_of_its_row(table):
    scores, rows = read_scores(table)
    assert scores.shape == (DESIGNS,)
    assert scores[number("GGGGCCCC")] == 1.0 and scores[number("ATATATAT")] == 0.0
    np.testing.assert_allclose(scores[number("GGGGGGGA")], 7 / 8)
    assert scores[number("GGGGGGGA")] == scores[number("TCCCCCCC")]  # its reverse complement
    assert rows[number("GGGGGGGA")] == rows[number("TCCCCCCC")]


def test_design_numbers_and_one_hot_are_inverse():
    designs = np.array([0, 1, 4, DESIGNS - 1])
    coded = one_hot(designs)
    assert coded.shape == (4, 8, 4) and coded.dtype == np.uint8
    np.testing.assert_array_equal(coded.argmax(-1) @ PLACES, designs)
    np.testing.assert_array_equal(coded.sum(-1), 1)


def test_only_the_lower_half_is_known_and_pairs_stay_together(table):
    dataset = load_tf_bind({"path": str(table)}, seed=0)
    assert dataset.task == "regression" and dataset.input_shape == (8, 4)
    everything = dataset.test.gather(np.arange(len(dataset.test)))
    assert len(dataset.test) == DESIGNS and everything["label"].dtype == np.float32
    median = np.percentile(everything["label"], 50)
    held = {}
    for split in ("train", "validation"):
        source = getattr(dataset, split)
        found = source.gather(np.arange(len(source)))
        assert found["label"].max() <= median
        designs = found["inputs"].argmax(-1)
        held[split] = set((designs @ PLACES).tolist())
        reverse_complement = (3 - designs)[:, ::-1] @ PLACES
        assert held[split] == set(reverse_complement.tolist())
    assert not held["train"] & held["validation"]
    assert len(held["train"]) + len(held["validation"]) == (everything["label"] <= median).sum()
    np.testing.assert_allclose(len(held["validation"]) / len(held["train"]), 0.15 / 0.85, rtol=0.05)
    again = load_tf_bind({"path": str(table)}, seed=7)
    np.testing.assert_array_equal(again.train[5]["inputs"], dataset.train[5]["inputs"])


def replaced(row: int, text: str) -> list[str]:
    return [*ROWS[:row], text, *ROWS[row + 1 :]]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (ROWS[:-1], "expected all 65536 8-mers, .* missing, the first of them"),
        (replaced(3, "AAAAAAAG\tCTTTTTTT\tNaN"), "row 4: expected an E-score, got 'NaN'"),
        (replaced(3, "AAAAAAAG\tCTTTTTTT\t"), "row 4: expected an E-score, got ''"),
        (replaced(3, "AAAAAAXG\tCTTTTTTT\t0.1"), "row 4: expected 8 letters of ACGT"),
        (replaced(3, "AAAAAAAA\tTTTTTTTT\t0.1"), "row 4: AAAAAAAA is in row 2 already"),
        (replaced(3, "AAAAAAAG,CTTTTTTT,0.1"), "row 4: expected two 8-mers and an E-score"),
        ([ROWS[0]], "expected all 65536 8-mers, 65536 are missing"),
        ([r if not i else "\t".join([*r.split("\t")[:2], "0.5"]) for i, r in enumerate(ROWS)],
         "every E-score is 0.5"),
    ],
)  # fmt: skip
def test_a_table_that_is_wrong_is_one_line(tmp_path, rows, message):
    path = tf_bind_table.write(tmp_path / "bad.txt.gz", rows)
    with pytest.raises(BadInput, match=f"bad.txt.gz: {message}") as error:
        load_tf_bind({"path": str(path)}, seed=0)
    assert "\n" not in str(error.value)


def test_a_file_that_cannot_be_read_is_one_line(tmp_path, table):
    damaged = tmp_path / "damaged.txt.gz"
    damaged.write_bytes(table.read_bytes()[:1000])
    binary = tmp_path / "binary.txt.gz"
    binary.write_bytes(gzip.compress(b"\xff\xfe" * 10))
    for config, message in (
        ({}, "config.data.path: expected the table of 8-mers .*got none"),
        ({"path": str(tmp_path / "none.gz")}, "config.data.path: no such file: .*none.gz"),
        ({"path": str(tmp_path)}, "config.data.path: no such file"),
        ({"path": str(damaged)}, "damaged.txt.gz: truncated gzip file"),
        ({"path": str(binary)}, "binary.txt.gz: not a table of 8-mers in ASCII"),
    ):
        with pytest.raises(BadInput, match=message) as error:
            load_tf_bind(config, seed=0)
        assert "\n" not in str(error.value)
