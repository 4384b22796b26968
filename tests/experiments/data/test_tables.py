# SPDX-License-Identifier: Apache-2.0
"""csv files: separators, headers, categories, missing cells, classes, and what is refused."""

import gzip

import numpy as np
import pytest

from experiments.data import load
from experiments.errors import BadInput


def everything(source):
    return source.gather(np.arange(len(source)))


def write(tmp_path, text: str, name: str = "table.csv"):
    path = tmp_path / name
    data = text.encode()
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return path


def table(rows: int = 20, **columns) -> str:
    """Rows "number, colour, class" with the given columns in place of the usual ones."""
    usual = {
        "number": [0.5 * row for row in range(rows)],
        "colour": ["red", "green"] * (rows // 2),
        "kind": ["yes", "no", "no", "yes"] * (rows // 4),
    }
    return "".join(",".join(map(str, row)) + "\n" for row in zip(*(usual | columns).values()))


def bad(path, **config) -> str:
    with pytest.raises(BadInput) as error:
        load({"path": str(path)} | config, seed=0)
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)
    return str(error.value).removeprefix(f"{path}: ")


def test_numbers_are_standardised_and_text_is_one_hot(tmp_path):
    dataset = load({"path": str(write(tmp_path, table(), "small.csv.gz"))}, seed=0)
    assert (dataset.name, dataset.task, dataset.input_shape) == ("small", "binary", (3,))
    assert dataset.class_names == ("no", "yes")
    assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (13, 3, 4)
    train = everything(dataset.train)["inputs"]
    assert train[:, 0].mean() == pytest.approx(0, abs=1e-6)
    assert train[:, 0].std() == pytest.approx(1, rel=1e-5)
    assert set(map(tuple, train[:, 1:])) == {(1.0, 0.0), (0.0, 1.0)}


def test_raw_numbers_keep_the_rows_together(tmp_path):
    dataset = load({"path": str(write(tmp_path, table())), "normalise": "none"}, seed=0)
    seen = []
    for source in (dataset.train, dataset.validation, dataset.test):
        batch = everything(source)
        row = (2 * batch["inputs"][:, 0]).astype(int)
        np.testing.assert_array_equal(batch["inputs"][:, 1], row % 2)  # green, red
        np.testing.assert_array_equal(batch["label"], np.array([1, 0, 0, 1])[row % 4])
        seen.extend(row)
    assert sorted(seen) == list(range(20))


@pytest.mark.parametrize("separator", [",", ", ", ";", "\t"])
@pytest.mark.parametrize("header", ["", '"size"SEP"the colour"SEPkind\n'])
def test_separators_and_headers_are_found_out(tmp_path, separator, header):
    plain = load({"path": str(write(tmp_path, table()))}, seed=0)
    text = "\ufeff" + header.replace("SEP", separator) + table().replace(",", separator) + "\n\n"
    dataset = load({"path": str(write(tmp_path, text, "other.csv"))}, seed=0)
    assert dataset.class_names == plain.class_names
    np.testing.assert_array_equal(
        everything(dataset.train)["inputs"], everything(plain.train)["inputs"]
    )


def test_header_can_be_stated(tmp_path):
    text = table(number=["small", "large"] * 10)
    everything_text = write(tmp_path, "size,colour,kind\n" + text)
    assert load({"path": str(everything_text), "has_header": True}, seed=0).input_shape == (4,)
    assert "1 of 21" in bad(everything_text)  # read as a row, the header is a class of its own
    numbered = write(tmp_path, "1,2,3\n" + table(), "numbered.csv")
    assert load({"path": str(numbered), "has_header": True}, seed=0).input_shape == (3,)


def test_missing_cells_are_refused_or_imputed(tmp_path):
    numbers, colours = [1.5**row for row in range(20)], ["red", "green"] * 10
    numbers[7], colours[3], colours[5] = "?", "", "NA"
    path = write(tmp_path, "size,colour,kind\n" + table(number=numbers, colour=colours))
    assert bad(path) == (
        "row 9, column 1 ('size'): missing value '?' (fill it in, or --config.data.missing=impute)"
    )
    dataset = load({"path": str(path), "missing": "impute", "normalise": "none"}, seed=0)
    splits = [everything(s)["inputs"] for s in (dataset.train, dataset.validation, dataset.test)]
    inputs = np.concatenate(splits)
    # One category for the two missing colours; '?' sorts before green and red.
    np.testing.assert_array_equal(inputs[:, 1:].sum(axis=0), [2, 8, 10])
    known = np.float32(numbers[:7] + numbers[8:])
    (imputed,) = inputs[~np.isin(inputs[:, 0], known), 0]
    train = splits[0][np.isin(splits[0][:, 0], known), 0]
    assert imputed == pytest.approx(np.median(train), rel=1e-6) != np.median(known)


def test_quoted_cells_may_hold_the_separator(tmp_path):
    path = write(tmp_path, table(colour=[' "red, dark"', " 'green'"] * 10))
    dataset = load({"path": str(path), "normalise": "none"}, seed=0)
    assert dataset.input_shape == (3,)


def test_a_column_without_values_is_refused(tmp_path):
    path = write(tmp_path, table(number=["?"] * 20))
    assert "column 1 has no value in the training split" in bad(path, missing="impute")


def test_integer_classes_are_numbered_or_left_as_they_are(tmp_path):
    path = write(tmp_path, table(kind=["'10'", "'-1'", "2.0", "2"] * 5))
    numbered = load({"path": str(path)}, seed=0)
    assert numbered.class_names == ("-1", "2", "10")
    raw = load({"path": str(path), "num_classes": 3}, seed=0)
    assert raw.class_names == ("0", "1", "2")
    assert set(everything(raw.train)["label"]) == {-1, 2, 10}


def test_huge_labels_do_not_wrap_into_the_valid_range(tmp_path):
    path = write(tmp_path, table(kind=[0, 1, 2**32, 1e300] * 5))
    labels = everything(load({"path": str(path), "num_classes": 2}, seed=0).train)["label"]
    assert set(labels) == {0, 1, 2**31 - 1}
    assert load({"path": str(path), "stratify": False}, seed=0).num_classes == 4


def test_one_constant_column_stays_finite(tmp_path):
    dataset = load({"path": str(write(tmp_path, table(number=[3.25] * 20)))}, seed=0)
    assert (everything(dataset.train)["inputs"][:, 0] == 0).all()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty file"),
        ("\n \n", "empty file"),
        ("1\n2\n", "row 1 has 1 column"),
        ("1,2,a\n1,b\n", "row 2 has 2 columns, row 1 3"),
        (table(kind=["yes", "?"] * 10), "row 2, column 3: the class is missing ('?')"),
        (table(kind=["yes"] * 20), "expected 2 classes, column 3 has 1 (yes)"),
        (table(kind=[1] * 20), "expected at least 2 classes, every label is 1"),
        (table(kind=[1, 0.25] * 10), "row 2, column 3: expected a class (text or an integer), got"),
        (table(kind=["a", "b"] * 9 + ["c", "d"]), "the smallest has 1 of 20"),
        ("1,a\n2,b\n", "2 examples are too few"),
        (
            table(80, number=[*range(78), "7.5.1", 1]),
            "row 79, column 1: expected a finite number, got '7.5.1'",
        ),
        (table(80, number=[*range(79), "inf"]), "row 80, column 1: expected a finite number"),
        (
            table(600, number=[f"id-{row}" for row in range(600)]),
            "column 1 holds 600 different texts, too many",
        ),
        ("a" * 200_000 + ",b\n", "row 1 cannot be read (field larger than field limit"),
    ],
)
def test_unusable_tables_name_row_and_column(tmp_path, text, message):
    assert message in bad(write(tmp_path, text))


def test_header_without_rows_is_refused(tmp_path):
    assert bad(write(tmp_path, "a,b\n"), has_header=True) == "no rows below the header"


def test_text_classes_must_be_as_many_as_stated(tmp_path):
    assert "expected 3 classes, column 3 has 2 (no, yes)" in bad(
        write(tmp_path, table()), num_classes=3
    )


def test_bytes_that_are_no_text_are_refused(tmp_path):
    path = tmp_path / "table.csv"
    path.write_bytes(b"\xff\xfe\x00,1\n")
    assert "not a csv file in UTF-8" in bad(path)
    path.write_bytes(gzip.compress(table().encode())[:-20])
    assert bad(path) == "truncated gzip file"


def test_scale_is_for_pictures(tmp_path):
    path = write(tmp_path, table())
    assert "'scale' is for pictures" in bad(path, normalise="scale")


def test_rare_classes_can_be_split_without_stratifying(tmp_path):
    path = write(tmp_path, table(kind=["a", "b"] * 9 + ["c", "d"]))
    dataset = load({"path": str(path), "stratify": False}, seed=0)
    assert dataset.num_classes == 4
