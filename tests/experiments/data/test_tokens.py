# SPDX-License-Identifier: Apache-2.0
"""Tokens of a large vocabulary: from files that are mapped, and drawn."""

import numpy as np
import pytest

from experiments.data.tokens import RUNS, are_tokens, load_tokens
from experiments.errors import BadInput

SPLITS = ("train", "validation", "test")


def load(path=None, context=4, seed=0, **options):
    config = {"path": path and str(path), "num_classes": 100, **options}
    return load_tokens(config, context=context, seed=seed)


@pytest.mark.parametrize("dtype", [np.uint16, np.uint32, np.int64])
def test_a_file_is_cut_into_windows_that_follow_each_other(tmp_path, dtype):
    tokens = (np.arange(100) * 7 % 100).astype(dtype)
    np.save(tmp_path / "mine.npy", tokens)
    found = load(tmp_path / "mine.npy", validation_fraction=0.1, test_fraction=0.2)
    assert (found.name, found.num_classes, found.input_shape) == ("mine", 100, (4,))
    assert [len(getattr(found, split)) for split in SPLITS] == [17, 2, 4]
    rows = found.validation.gather(np.arange(2))
    assert rows["inputs"].dtype == rows["label"].dtype == np.int32
    np.testing.assert_array_equal(rows["inputs"].ravel(), tokens[70:78])
    np.testing.assert_array_equal(rows["label"].ravel(), tokens[71:79])
    one = found.test.at_most(2)[1]
    np.testing.assert_array_equal(one["inputs"], tokens[88:92])
    assert isinstance(found.train._text, np.memmap)  # no copy of what may not fit into memory


def test_a_directory_has_a_file_for_every_split(tmp_path):
    for place, name in enumerate(("train", "valid", "test")):
        np.save(tmp_path / f"{name}.npy", np.full(9, place))
    found = load(tmp_path)
    for place, split in enumerate(SPLITS):
        source = getattr(found, split)
        assert len(source) == 2 and (source.gather(np.arange(2))["label"] == place).all()
    (tmp_path / "valid.npy").unlink()
    with pytest.raises(BadInput, match="got no valid$"):
        load(tmp_path)


def test_what_is_no_list_of_tokens_is_one_line(tmp_path):
    def refused(said, array=None, context=4, **options):
        path = tmp_path / "mine.npy"
        if array is not None:
            np.save(path, array, allow_pickle=True)
        with pytest.raises(BadInput, match=said) as error:
            load(path, context=context, **options)
        assert len(str(error.value).splitlines()) == 1

    refused("config.data.path: no such file")
    (tmp_path / "mine.npy").write_bytes(b"no tokens")
    refused("mine.npy: not a NumPy file of numbers")
    refused("mine.npy: not a NumPy file of numbers", np.array([{}], object))
    refused(r"expected integers with one axis, got int64 \(3, 3\)", np.zeros((3, 3), int))
    refused(r"expected integers with one axis, got float32 \(9,\)", np.zeros(9, np.float32))
    refused(r"expected integers with one axis, got int64 \(0,\)", np.zeros(0, int))
    refused("expected tokens from 0 to 99 .*got 100", np.arange(101))
    refused("expected tokens from 0 to 99 .*got -1", np.arange(50) - 1)
    refused("config.data.num_classes: expected the size", np.arange(50), num_classes=None)
    refused("less than the 5 tokens of the test text, got 5", np.arange(50), context=5,
            validation_fraction=0.5, test_fraction=0.1)  # fmt: skip


def test_a_token_that_is_out_of_range_further_on_is_found_when_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr("experiments.data.tokens.LOOKED_AT", 10)
    np.save(tmp_path / "mine.npy", np.where(np.arange(100) == 50, 100, 0))
    train = load(tmp_path / "mine.npy").train
    train.gather(np.arange(12))
    with pytest.raises(ValueError, match="expected tokens from 0 to 99 .*got 100"):
        train.gather(np.arange(13))


def test_drawn_tokens_are_runs_and_follow_the_seed_and_the_place_alone():
    found = load(name=RUNS, num_classes=1000, context=64)
    rows = found.train.gather(np.arange(100, 300))
    np.testing.assert_array_equal(rows["inputs"][:, 1:], rows["label"][:, :-1])
    assert rows["inputs"].min() >= 0 and rows["inputs"].max() < 1000
    counts_on = (rows["label"] == (rows["inputs"] + 1) % 1000).mean()
    assert abs(counts_on - 0.75) < 0.02
    # Log-uniform: as many begin in [1, 10) as in [10, 100) and in [100, 1000], counted from 1.
    begun = rows["label"][rows["label"] != (rows["inputs"] + 1) % 1000] + 1
    shares = np.histogram(np.log10(begun), bins=[0, 1, 2, 3.001])[0] / len(begun)
    assert np.abs(shares - 1 / 3).max() < 0.05

    again = load(name=RUNS, num_classes=1000, context=64, seed=1)
    one = again.train[123]
    np.testing.assert_array_equal(one["inputs"], rows["inputs"][23])
    other = load(name=RUNS, num_classes=1000, context=64, split_seed=1)
    assert (other.train[123]["inputs"] != one["inputs"]).any()
    few = found.test.at_most(3)
    assert len(few) == 3 and sum(len(getattr(found, split)) for split in SPLITS) == 2**20
    seen = {row.tobytes() for split in SPLITS
            for row in getattr(found, split).gather(np.arange(50))["inputs"]}  # fmt: skip
    assert len(seen) == 150


def test_what_means_tokens(tmp_path):
    assert are_tokens({"name": RUNS}) and not are_tokens({"name": "descriptions"})
    assert are_tokens({"name": "descriptions", "path": "somewhere/tokens.npy"})
    assert not are_tokens({"name": RUNS, "path": str(tmp_path)})
    np.save(tmp_path / "train.npy", np.arange(3))
    assert are_tokens({"name": "descriptions", "path": str(tmp_path)})
