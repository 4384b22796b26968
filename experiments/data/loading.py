# SPDX-License-Identifier: Apache-2.0
"""`load`: decides where a config's data comes from. The work is done by one file per origin."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.data.classes import with_classes
from experiments.data.dataset import Dataset
from experiments.data.embedded import load_embedded
from experiments.data.files import load_idx
from experiments.data.folders import load_folders
from experiments.data.noise import with_label_noise
from experiments.data.options import DEFAULTS, Options, read_options
from experiments.data.tables import load_csv
from experiments.data.tfds_source import PREFIX, load_tfds
from experiments.errors import BadInput


def load(data_config: Mapping[str, Any], *, seed: int) -> Dataset:
    """The dataset that a config names.

    `path` takes the place of `name` (so that `--config=digits --config.data.path=DIR` trains on
    DIR): a directory holds idx files, a zip file pictures in folders, any other file is a csv.
    Otherwise `name` is one of `DATASETS`, or
    "tfds:<builder>".

    Args:
        data_config: mapping with the keys of `DEFAULTS`; keys it does not know are left to others.
        seed: the run's seed; it decides the splits only where `split_seed` is None, so that runs
            with different seeds are compared on the same test examples.

    Returns:
        The dataset; its splits are a pure function of the config and, as above, the seed.

    Raises:
        BadInput: an unknown name (with the nearest match), an option out of range, a file that is
            missing, empty, truncated or not what it should be (one line with its path).
    """
    options = read_options(data_config, seed=seed)
    dataset = with_classes(_load(options), options.classes)
    return with_label_noise(dataset, options.label_noise, seed=options.split_seed)


#: Options that some origins alone read, and what those are called.
_READ_BY = {
    "data_dir": ("tfds",),
    "image_key": ("tfds",),
    "label_key": ("tfds",),
    "has_header": ("a csv file",),
    "missing": ("a csv file",),
    "pool": ("a zip file of pictures",),
}


def _check_read(options: Options, origin: str) -> None:
    """Raises BadInput for an option that would change nothing where the data come from."""
    for key, origins in _READ_BY.items():
        value = getattr(options, key)
        if value != DEFAULTS[key] and origin not in origins:
            raise BadInput(
                f"config.data.{key}: expected data of {' or '.join(origins)} beside it, got "
                f"{value!r} for {origin}"
            )


def _load(options: Options) -> Dataset:
    if options.path is not None:
        if options.name.startswith(PREFIX):
            raise BadInput(
                f"config.data.path: expected none beside name={options.name!r} (prepared data is "
                f"found by config.data.data_dir), got {options.path!r}"
            )
        path = Path(options.path).expanduser()
        if not path.exists():
            raise BadInput(f"config.data.path: no such file or directory: {options.path}")
        if path.is_dir():
            _check_read(options, "a directory of idx files")
            return load_idx(path, options)
        if path.suffix == ".zip":
            _check_read(options, "a zip file of pictures")
            return load_folders(path, options)
        _check_read(options, "a csv file")
        return load_csv(path, options)
    if options.name.startswith(PREFIX):
        _check_read(options, "tfds")
        return load_tfds(options)
    _check_read(options, f"the embedded {options.name!r}")
    return load_embedded(options)
