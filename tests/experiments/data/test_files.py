# SPDX-License-Identifier: Apache-2.0
"""idx files: what is read, how labels are numbered, and the line that names a broken file."""

import gzip
import os
import struct

import numpy as np
import pytest

from experiments.data import load
from experiments.data.files import read_idx
from experiments.errors import BadInput

TYPE_CODES = {"uint8": 0x08, "int32": 0x0C, "float32": 0x0D, "float64": 0x0E}


def idx_bytes(array: np.ndarray) -> bytes:
    header = struct.pack(
        f">BBBB{array.ndim}I", 0, 0, TYPE_CODES[array.dtype.name], array.ndim, *array.shape
    )
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


def write_idx(path, array: np.ndarray) -> None:
    data = idx_bytes(array)
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


@pytest.fixture
def pictures(tmp_path):
    """A directory like Fashion-MNIST's: 60 training and 20 test pictures, 3 classes."""
    generator = np.random.default_rng(0)
    directory = tmp_path / "tiny-mnist"
    directory.mkdir()
    for split, size in (("train", 60), ("t10k", 20)):
        images = generator.integers(0, 256, (size, 4, 5), dtype=np.uint8)
        images[0, 0, :2] = 0, 255
        labels = (np.arange(size) % 3).astype(np.uint8)
        write_idx(directory / f"{split}-images-idx3-ubyte.gz", images)
        write_idx(directory / f"{split}-labels-idx1-ubyte.gz", labels)
    return directory


def bad(config) -> str:
    with pytest.raises(BadInput) as error:
        load(config, seed=0)
    assert "\n" not in str(error.value)
    return str(error.value)


def everything(source):
    return source.gather(np.arange(len(source)))


def test_directory_of_idx_files(pictures):
    dataset = load({"name": "digits", "path": str(pictures)}, seed=0)
    assert (dataset.name, dataset.task, dataset.input_shape) == ("tiny-mnist", "multiclass", (4, 5))
    assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (51, 9, 20)
    assert dataset.class_names == ("0", "1", "2")
    test = everything(dataset.test)
    expected = read_idx(pictures / "t10k-images-idx3-ubyte.gz").astype(np.float32) / 255
    np.testing.assert_array_equal(test["inputs"], expected)
    np.testing.assert_array_equal(test["label"], np.arange(20) % 3)
    assert expected.max() == 1.0


def test_without_a_test_set_one_is_held_out(pictures):
    for path in pictures.glob("t10k*"):
        path.unlink()
    dataset = load({"path": str(pictures)}, seed=0)
    assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (39, 9, 12)


def test_unpacked_files_with_other_names_and_types(tmp_path):
    write_idx(
        tmp_path / "train-images.idx3-float",
        np.linspace(-1, 1, 160, dtype=np.float32).reshape(40, 2, 2),
    )
    write_idx(tmp_path / "train-labels.idx1-int", (1 + np.arange(40) % 2).astype(np.int32))
    assert "'auto' expects 8-bit pictures" in bad({"path": str(tmp_path)})
    dataset = load({"path": str(tmp_path), "normalise": "standardise"}, seed=0)
    inputs = everything(dataset.train)["inputs"]
    np.testing.assert_allclose(inputs.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(inputs.std(axis=0), 1, rtol=1e-5)
    assert (dataset.task, dataset.class_names) == ("binary", ("1", "2"))


def test_labels_are_numbered_in_sorted_order_or_left_as_they_are(pictures):
    labels = np.array([2, 5, 9], np.uint8)[np.arange(60) % 3]
    write_idx(pictures / "train-labels-idx1-ubyte.gz", labels)
    write_idx(pictures / "t10k-labels-idx1-ubyte.gz", labels[:20])
    numbered = load({"path": str(pictures)}, seed=0)
    assert numbered.class_names == ("2", "5", "9")
    np.testing.assert_array_equal(everything(numbered.test)["label"], np.arange(20) % 3)
    raw = load({"path": str(pictures), "num_classes": 6}, seed=0)
    assert raw.num_classes == 6
    np.testing.assert_array_equal(everything(raw.test)["label"], labels[:20])


def test_an_unpacked_copy_beside_the_packed_file_is_no_conflict(pictures):
    packed = pictures / "train-images-idx3-ubyte.gz"
    (pictures / "train-images-idx3-ubyte").write_bytes(gzip.decompress(packed.read_bytes()))
    assert len(load({"path": str(pictures)}, seed=0).train) == 51
    write_idx(pictures / "letters-train-images-idx3-ubyte", np.zeros((1, 2, 2), np.uint8))
    assert "two candidates for train-images" in bad({"path": str(pictures)})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: b"", "empty file"),
        (lambda data: data[: len(data) // 2], "truncated gzip file"),
        (lambda data: data[:-12] + bytes(4) + data[-8:], "damaged gzip file"),
        (lambda data: gzip.compress(b""), "empty file"),
        (
            lambda data: gzip.decompress(data)[:-1],
            "truncated or damaged idx file (shape (60, 4, 5)",
        ),
        (lambda data: gzip.decompress(data) + b"x", "takes 1216 bytes, got 1217"),
        (lambda data: gzip.decompress(data)[:7], "the header ends after 7 bytes"),
        (lambda data: b"\x93NUMPY\x01\x00", "not an idx file"),
        (lambda data: idx_bytes(np.zeros(60, np.uint8)), "expected pictures, got shape (60,)"),
        (lambda data: idx_bytes(np.zeros((0, 4, 5), np.uint8)), "expected pictures, got shape (0,"),
        (
            lambda data: idx_bytes(np.zeros((60, 5, 5), np.uint8)),
            "the training pictures have (5, 5)",
        ),
    ],
)
def test_broken_pictures_are_named_with_their_path(pictures, damage, message):
    path = pictures / "train-images-idx3-ubyte.gz"
    path.write_bytes(damage(path.read_bytes()))
    error = bad({"path": str(pictures)})
    assert message in error
    assert str(pictures) in error


def test_broken_labels_are_named_with_their_path(pictures):
    path = pictures / "train-labels-idx1-ubyte.gz"
    for labels, message in (
        (np.zeros(59, np.uint8), "59 labels for 60 pictures"),
        (np.zeros(60, np.float32), "expected integer labels [n], got float32 (60,)"),
    ):
        write_idx(path, labels)
        assert bad({"path": str(pictures)}) == f"{path}: {message}"
    write_idx(path, np.full(60, 7, np.uint8))
    write_idx(pictures / "t10k-labels-idx1-ubyte.gz", np.full(20, 7, np.uint8))
    assert "expected at least 2 classes, every label is 7" in bad({"path": str(pictures)})


def test_missing_files_are_named(pictures, tmp_path):
    (pictures / "t10k-labels-idx1-ubyte.gz").unlink()
    assert "no test-labels file" in bad({"path": str(pictures)})
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "expected idx files such as" in bad({"path": str(empty)})
    (empty / "iris.csv").write_text("1,a\n")
    assert "found iris.csv; give the csv file itself as path" in bad({"path": str(empty)})


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_without_permission_is_named(pictures):
    path = pictures / "train-images-idx3-ubyte.gz"
    path.chmod(0)
    assert bad({"path": str(pictures)}) == f"{path}: cannot be read (Permission denied)"


def test_a_directory_in_place_of_a_file_is_named(pictures):
    path = pictures / "train-images-idx3-ubyte.gz"
    path.unlink()
    path.mkdir()
    assert bad({"path": str(pictures)}) == f"{path}: cannot be read (Is a directory)"
