# SPDX-License-Identifier: Apache-2.0
"""idx files (the format of MNIST, Fashion-MNIST, EMNIST, KMNIST): a directory of them is a dataset.

Expected names, packed with gzip or not: `train-images-idx3-ubyte`, `train-labels-idx1-ubyte`, and
for a test set of its own `t10k-images-idx3-ubyte`, `t10k-labels-idx1-ubyte` ("test" and
a dot in place of the last hyphen but one are accepted, and so is a prefix as in
`emnist-digits-train-...`). Without a test set, `test_fraction` of the training set is held out.

Labels: with `num_classes` in the config they are taken as they are, so that one outside
0..num_classes-1 stays visible (its loss is NaN and the training loop stops); otherwise the distinct
labels are sorted and numbered from 0.
"""

import gzip
import math
import re
import zlib
from pathlib import Path

import numpy as np

from experiments.data.dataset import ArraySource, Dataset, subsets, task_of
from experiments.data.options import Options
from experiments.data.splits import hold_out, standardise
from experiments.errors import BadInput

LICENCE = "that of the files, which the program cannot know: see where they come from"

_IDX_NAME = re.compile(r"(train|t10k|test)-(images|labels)[-.]idx\d-\w+?(\.gz)?$")
_IDX_DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def read_bytes(path: Path) -> bytes:
    """The contents of a file, unpacked if it is gzip (told by its first bytes, not its name).

    Raises:
        BadInput: one line with the path, if the file is empty, truncated or unreadable.
    """
    try:
        data = path.read_bytes()
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
    except EOFError as error:
        raise BadInput(f"{path}: truncated gzip file") from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise BadInput(f"{path}: damaged gzip file ({error})") from error
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror})") from error
    if not data:
        raise BadInput(f"{path}: empty file")
    return data


def read_idx(path: Path) -> np.ndarray:
    """One idx file as an array of the shape and dtype that its header states.

    Raises:
        BadInput: one line with the path, if the file is no idx file or its length is not what its
            header promises.
    """
    data = read_bytes(path)
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] not in _IDX_DTYPES or data[3] == 0:
        raise BadInput(
            f"{path}: not an idx file (expected two zero bytes, a type and a number of axes, "
            f"got {data[:4].hex(' ')})"
        )
    dtype, axes = np.dtype(_IDX_DTYPES[data[2]]), data[3]
    start = 4 + 4 * axes
    if len(data) < start:
        raise BadInput(f"{path}: truncated idx file (the header ends after {len(data)} bytes)")
    shape = tuple(int(size) for size in np.frombuffer(data, ">u4", axes, offset=4))
    expected = start + dtype.itemsize * math.prod(shape)
    if len(data) != expected:
        raise BadInput(
            f"{path}: truncated or damaged idx file (shape {shape} takes {expected} bytes, "
            f"got {len(data)})"
        )
    array = np.frombuffer(data, dtype, offset=start).reshape(shape)
    return array.astype(dtype.newbyteorder("="))


def load_idx(directory: Path, options: Options) -> Dataset:
    """A directory of idx files as a dataset, named after the directory.

    8-bit pictures are divided by 255 on reading ("scale", the default); other dtypes must be asked
    for as "none" or "standardise".

    Raises:
        BadInput: missing, damaged or contradicting files, or no usable labels.
    """
    files = _find(directory)
    images, labels = _read_pair(files, "train")
    pairs = {"train": (images, labels)}
    has_test = "test-images" in files or "test-labels" in files
    if has_test:
        pairs["test"] = _read_pair(files, "test")
        if pairs["test"][0].shape[1:] != images.shape[1:]:
            raise BadInput(
                f"{files['test-images']}: pictures of shape {pairs['test'][0].shape[1:]}, "
                f"the training pictures have {images.shape[1:]}"
            )
    images = np.concatenate([images for images, _ in pairs.values()])
    labels, class_names = number_integers(
        np.concatenate([labels for _, labels in pairs.values()]), options, where=str(directory)
    )
    size = pairs["train"][0].shape[0]
    positions = hold_out(labels[:size], options, where=str(directory), has_test=has_test)
    if has_test:
        positions["test"] = np.arange(size, labels.shape[0])

    divisor = 1.0
    if options.normalise == "standardise":
        images = standardise(images, positions["train"])
    elif options.normalise != "none":
        if images.dtype != np.uint8:
            raise BadInput(
                f"config.data.normalise: {options.normalise!r} expects 8-bit pictures, "
                f"{files['train-images']} holds {images.dtype}; expected none or standardise"
            )
        divisor = 255.0
    splits: dict[str, ArraySource] = subsets(images, labels, positions, divisor=divisor)
    return Dataset(
        name=directory.resolve().name,
        num_classes=len(class_names),
        input_shape=images.shape[1:],
        task=task_of(len(class_names)),
        licence=LICENCE,
        class_names=class_names,
        **splits,
    )


def number_integers(
    labels: np.ndarray, options: Options, *, where: str
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Labels, integers of any dtype (also 3.0), as class numbers, and the classes' names.

    With `options.num_classes` the labels stay as they are, also those out of range; otherwise the
    distinct values are sorted and numbered.

    Raises:
        BadInput: fewer than two classes.
    """
    if options.num_classes is not None:
        # Clipped, so that no label wraps around into the valid range when it becomes an int32.
        limits = np.iinfo(np.int32)
        clipped = np.clip(labels, limits.min, limits.max).astype(np.int32)
        return clipped, tuple(str(label) for label in range(options.num_classes))
    values, numbers = np.unique(labels, return_inverse=True)
    if values.size < 2:
        raise BadInput(f"{where}: expected at least 2 classes, every label is {int(values[0])}")
    return numbers, tuple(str(int(value)) for value in values)


def _find(directory: Path) -> dict[str, Path]:
    """The idx files of a directory by "train-images", "train-labels", "test-images", ..."""
    try:
        names = sorted(path.name for path in directory.iterdir())
    except OSError as error:
        raise BadInput(f"{directory}: cannot be read ({error.strerror})") from error
    files: dict[str, Path] = {}
    for name in names:
        match = _IDX_NAME.search(name)
        if match is None:
            continue
        role = f"{'train' if match[1] == 'train' else 'test'}-{match[2]}"
        # gunzip -k leaves "x" beside "x.gz": the same data, and "x" sorts first.
        if role in files and name != files[role].name + ".gz":
            raise BadInput(f"{directory}: two candidates for {role}: {files[role].name} and {name}")
        files.setdefault(role, directory / name)
    if not files:
        found = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "") if names else "nothing"
        raise BadInput(
            f"{directory}: expected idx files such as train-images-idx3-ubyte.gz, found {found}"
            + (
                "; give the csv file itself as path"
                if any(".csv" in name for name in names)
                else ""
            )
        )
    return files


def _read_pair(files: dict[str, Path], split: str) -> tuple[np.ndarray, np.ndarray]:
    for role in (f"{split}-images", f"{split}-labels"):
        if role not in files:
            present = next(iter(files.values()))
            raise BadInput(
                f"{present.parent}: no {role} file (expected a name such as {role}-idx"
                f"{3 if role.endswith('images') else 1}-ubyte.gz beside {present.name})"
            )
    images, labels = read_idx(files[f"{split}-images"]), read_idx(files[f"{split}-labels"])
    if images.ndim < 2 or images.shape[0] == 0:
        raise BadInput(f"{files[f'{split}-images']}: expected pictures, got shape {images.shape}")
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise BadInput(
            f"{files[f'{split}-labels']}: expected integer labels [n], "
            f"got {labels.dtype} {labels.shape}"
        )
    if labels.shape[0] != images.shape[0]:
        raise BadInput(
            f"{files[f'{split}-labels']}: {labels.shape[0]} labels for {images.shape[0]} pictures"
        )
    return images, labels
