# SPDX-License-Identifier: Apache-2.0
"""A zip file of PNG pictures in folders, a folder a class: how Omniglot comes.

Classes are the folders' paths in sorted order, so that Balinese/character01 and Bengali/character01
are two. Colours are averaged to grey; dark on light is turned round, so that ink is 1 and paper 0;
`config.data.pool` averages over squares of that many pixels.
"""

import io
import zipfile
from pathlib import Path, PurePosixPath

import numpy as np

from experiments.data.dataset import Dataset, subsets, task_of
from experiments.data.files import LICENCE
from experiments.data.options import Options
from experiments.data.splits import hold_out, standardise
from experiments.errors import BadInput


def load_folders(path: Path, options: Options) -> Dataset:
    """The pictures of a zip file as a dataset, named after the file.

    Raises:
        BadInput: one line with the path: no zip file, no pictures, pictures that cannot be read or
            are not of one size, or that `pool` does not divide; fewer than two classes.
    """
    pictures, folders = _read(path)
    height, width = pictures.shape[1:]
    pool = options.pool
    if height % pool or width % pool:
        raise BadInput(f"config.data.pool: expected a divisor of {height} x {width}, got {pool}")
    squares = pictures.reshape(-1, height // pool, pool, width // pool, pool)
    inputs = squares.mean(axis=(2, 4), dtype=np.float32)
    if inputs.mean() > 0.5:
        inputs = 1.0 - inputs
    names, labels = np.unique(folders, return_inverse=True)
    if names.size < 2:
        raise BadInput(f"{path}: expected a folder for each of two classes or more, got {names[0]}")
    positions = hold_out(labels, options, where=str(path))
    if options.normalise == "standardise":
        inputs = standardise(inputs, positions["train"])
    return Dataset(
        name=path.stem,
        num_classes=names.size,
        input_shape=inputs.shape[1:],
        task=task_of(names.size),
        licence=LICENCE,
        class_names=tuple(map(str, names)),
        **subsets(inputs, labels, positions),
    )


def _read(path: Path) -> tuple[np.ndarray, list[str]]:
    """Grey pictures float32 [n, h, w] in [0, 1], and the folder of each."""
    from matplotlib.image import imread

    pictures, folders = [], []
    try:
        with zipfile.ZipFile(path) as archive:
            for name in sorted(n for n in archive.namelist() if n.lower().endswith(".png")):
                picture = imread(io.BytesIO(archive.read(name)), format="png")
                if picture.ndim == 3:  # without the opacity of a fourth channel
                    picture = picture[..., :3].mean(axis=-1)
                pictures.append(np.asarray(picture, np.float32))
                folders.append(str(PurePosixPath(name).parent))
    except (zipfile.BadZipFile, OSError, SyntaxError, ValueError) as error:
        raise BadInput(f"{path}: not a zip file of PNG pictures ({error})") from error
    if not pictures:
        raise BadInput(f"{path}: no PNG picture in it")
    shapes = {picture.shape for picture in pictures}
    if len(shapes) > 1:
        raise BadInput(f"{path}: expected pictures of one size, got {sorted(shapes)[:3]}")
    return np.stack(pictures), folders
