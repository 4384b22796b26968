# SPDX-License-Identifier: Apache-2.0
"""Pictures in folders of a zip file, and some classes of a dataset."""

import io
import zipfile

import numpy as np
import pytest
from matplotlib.image import imsave

from experiments.data import load
from experiments.errors import BadInput

FOLDERS = ("set/A/one", "set/A/two", "set/B/one")


def zipped(path, *, each=10, shape=(4, 6), other_shape=None):
    """Paper is white; one black pixel, whose place tells the folder."""
    with zipfile.ZipFile(path, "w") as archive:
        for place, folder in enumerate(FOLDERS):
            for number in range(each):
                odd = other_shape if other_shape and place == number == 0 else shape
                picture = np.ones([*odd, 3])
                picture[0, 2 * place % odd[1]] = 0.0
                packed = io.BytesIO()
                imsave(packed, picture, format="png")
                archive.writestr(f"{folder}/{number}.png", packed.getvalue())
        archive.writestr("set/README.txt", "no picture")
    return str(path)


def everything(source):
    return source.gather(np.arange(len(source)))


def test_a_folder_is_a_class_ink_is_one_and_squares_are_averaged(tmp_path):
    path = zipped(tmp_path / "letters.zip")
    dataset = load({"path": path, "pool": 2}, seed=0)
    assert (dataset.name, dataset.class_names) == ("letters", FOLDERS)
    assert (dataset.num_classes, dataset.input_shape) == (3, (2, 3))
    splits = [everything(s) for s in (dataset.train, dataset.validation, dataset.test)]
    assert sum(len(split["label"]) for split in splits) == 30
    for split in splits:
        assert set(split["label"]) == {0, 1, 2}
        expected = np.zeros([len(split["label"]), 2, 3])
        expected[np.arange(len(split["label"])), 0, split["label"]] = 0.25
        np.testing.assert_allclose(split["inputs"], expected, atol=1e-6)


def test_what_is_no_such_zip_file_is_one_line(tmp_path):
    path = zipped(tmp_path / "a.zip")
    with pytest.raises(BadInput, match=r"config.data.pool: expected a divisor of 4 x 6, got 4"):
        load({"path": path, "pool": 4}, seed=0)
    with pytest.raises(BadInput, match="expected pictures of one size"):
        load({"path": zipped(tmp_path / "b.zip", other_shape=(2, 2))}, seed=0)
    torn = tmp_path / "torn.zip"
    torn.write_bytes(b"PK no zip")
    with pytest.raises(BadInput, match="not a zip file of PNG pictures"):
        load({"path": str(torn)}, seed=0)
    with zipfile.ZipFile(tmp_path / "empty.zip", "w") as archive:
        archive.writestr("README.txt", "nothing")
    with pytest.raises(BadInput, match="no PNG picture in it"):
        load({"path": str(tmp_path / "empty.zip")}, seed=0)


def test_chosen_classes_are_numbered_in_the_order_given():
    whole = everything(load({"name": "digits"}, seed=0).test)
    pair = load({"name": "digits", "classes": (8, 3)}, seed=0)
    assert (pair.task, pair.num_classes, pair.class_names) == ("binary", 2, ("8", "3"))
    kept = np.isin(whole["label"], (8, 3))
    found = everything(pair.test)
    np.testing.assert_array_equal(found["label"], (whole["label"][kept] == 3).astype(np.int32))
    np.testing.assert_array_equal(found["inputs"], whole["inputs"][kept])
    np.testing.assert_array_equal(found["index"], np.arange(kept.sum()))
    for wrong in ((3,), (3, 3), (3, 10)):
        with pytest.raises(BadInput, match=r"config.data.classes: expected "):
            load({"name": "digits", "classes": wrong}, seed=0)
