# SPDX-License-Identifier: Apache-2.0
"""Sparse features and several labels an example, from one npz file (Mulan's sets).

For each split, train and test, the file has compressed sparse rows: SPLIT_indptr, SPLIT_indices and
SPLIT_data of the features, SPLIT_y_indptr and SPLIT_y_indices of the labels, SPLIT_shape (examples,
features) and SPLIT_n_labels.
"""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from experiments.data.dataset import ArraySource, Dataset
from experiments.data.options import read_options
from experiments.errors import BadInput

LICENCE = "public research set: cite its paper"


def load_multi_label(data_config: Mapping[str, Any], *, seed: int) -> Dataset:
    """The examples of a file; a part of its training split, drawn at random, is for validation.

    Args:
      data_config: `config.data`; it reads `path`, `validation_fraction` and `split_seed`.
      seed: the run's, for the split where split_seed is None.

    Returns:
      Dataset of inputs float32 [features] as stored and labels int32 [K] of 0 and 1. Examples
      without a label are kept.

    Raises:
      BadInput: no path, or a file that is not what it should be.
    """
    options = read_options(data_config, seed=seed)
    if options.path is None:
        raise BadInput("config.data.path: expected an npz file of several labels, got none")
    path = Path(options.path).expanduser()
    if not path.is_file():
        raise BadInput(f"config.data.path: no such file: {options.path}")
    (inputs, labels), test = read_split(path, "train"), read_split(path, "test")
    if test[0].shape[1] != inputs.shape[1] or test[1].shape[1] != labels.shape[1]:
        raise BadInput(f"{path}: its splits differ in the number of features or labels")
    order = np.random.default_rng(options.split_seed).permutation(len(inputs))
    cut = round(options.validation_fraction * len(order))
    if not 0 < cut < len(order):
        raise BadInput(
            f"{path}: {len(order)} examples are too few for config.data.validation_fraction="
            f"{options.validation_fraction}"
        )
    held_out, kept = np.sort(order[:cut]), np.sort(order[cut:])
    return Dataset(
        name=path.stem,
        train=ArraySource(inputs[kept], labels[kept]),
        validation=ArraySource(inputs[held_out], labels[held_out]),
        test=ArraySource(*test),
        num_classes=labels.shape[1],
        input_shape=inputs.shape[1:],
        task="multi_label",
        licence=LICENCE,
        class_names=tuple(map(str, range(labels.shape[1]))),
    )


def read_split(path: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """(inputs float32 [n, features], labels int32 [n, K]) of a split of a file.

    Raises:
      BadInput: one line with the path, if the file is none, or its arrays do not fit.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            found = {name: file[f"{split}_{name}"] for name in _ARRAYS}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise BadInput(f"{path}: cannot be read as npz ({error})") from error
    except KeyError as error:
        raise BadInput(f"{path}: {error.args[0]}") from error
    count, features = (int(n) for n in found["shape"])
    labels = int(found["n_labels"])
    ones = np.ones(len(found["y_indices"]), np.int32)
    try:
        x = sparse.csr_array(
            (found["data"], found["indices"], found["indptr"]), shape=(count, features)
        )
        y = sparse.csr_array((ones, found["y_indices"], found["y_indptr"]), shape=(count, labels))
        x.check_format(full_check=True)
        y.check_format(full_check=True)
    except ValueError as error:
        raise BadInput(f"{path}: {split} rows do not fit their shape ({error})") from error
    inputs = x.toarray().astype(np.float32)
    if not np.all(np.isfinite(inputs)):
        raise BadInput(f"{path}: expected finite features in the {split} split")
    return inputs, np.minimum(y.toarray(), 1)


_ARRAYS = ("indptr", "indices", "data", "y_indptr", "y_indices", "shape", "n_labels")
