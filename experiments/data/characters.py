# SPDX-License-Identifier: Apache-2.0
"""Text as windows of characters: at every position the next character is the class.

From `path`: a text file, or a directory with one text or with `train.txt`, `valid.txt` and
`test.txt`, each perhaps with `.gz`. One text is cut in three without shuffling: its end is the test
text, before that comes the validation text. Without a path, the text is `DESCRIPTIONS`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from experiments.data.dataset import Dataset
from experiments.data.files import read_bytes
from experiments.data.options import Options, nearest, read_options
from experiments.data.windows import TEXTS, Windows, cut
from experiments.errors import BadInput

#: The last class: every character that the training text does not have. It is never seen in
#: training, so that a held-out text pays for each of them.
UNKNOWN = "<unk>"
#: The name of the embedded text, 15,000 characters: scikit-learn's descriptions of these sets, one
#: after the other. Enough to try the program on, too few to say anything about language.
DESCRIPTIONS = "descriptions"
DESCRIBED = ("diabetes", "linnerud", "iris", "digits", "wine", "breast_cancer")
LICENCE = "that of the text: see its origin"


def load_characters(data_config: Mapping[str, Any], *, context: int, seed: int) -> Dataset:
    """The windows of a text.

    Training windows begin at every character; those of the other splits follow each other without
    overlap, so that each of their characters (but for the first, and for what is left at the end)
    is predicted once.

    Args:
      data_config: `config.data`; it reads `path`, or `name` without one, and for one text
        `validation_fraction` and `test_fraction`.
      context: n >= 1, characters of a window.
      seed: the run's; nothing here depends on it.

    Returns:
      Dataset of inputs int32 [n] and labels int32 [n], with a `Windows` for every split. Characters
      are those of the training text, in the order of their code points, then UNKNOWN.

    Raises:
      BadInput: no such text or directory, a text that is empty, too short or not UTF-8.
    """
    options = read_options(data_config, seed=seed)
    name, texts = _texts(options)
    found = {split: _code_points(text) for split, text in texts.items()}
    known = np.unique(found["train"])
    sources = {}
    for split, points in found.items():
        if len(points) <= context:
            raise BadInput(
                f"config.task.context: expected less than the {len(points)} characters of the "
                f"{split} text, got {context}"
            )
        last = len(points) - context - 1
        starts = range(0, last + 1, 1 if split == "train" else context)
        sources[split] = Windows(numbered(points, known), context, starts)
    return Dataset(
        name=name,
        num_classes=len(known) + 1,
        input_shape=(context,),
        task="several",
        licence=LICENCE if options.path else "BSD-3-Clause (scikit-learn)",
        class_names=(*map(chr, known), UNKNOWN),
        **sources,
    )


def numbered(points: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Code points [n] as places in a sorted vocabulary [V], V for those that it does not have."""
    places = np.searchsorted(known, points)
    there = known[np.minimum(places, len(known) - 1)] == points
    return np.where(there, places, len(known)).astype(np.int32)


def _texts(options: Options) -> tuple[str, dict[str, str]]:
    """(name, text of every split)."""
    if options.path is None:
        if options.name != DESCRIPTIONS:
            raise BadInput(
                f"config.data.name: expected {DESCRIPTIONS!r}, or a text by config.data.path, got "
                f"{options.name!r}{nearest(options.name, (DESCRIPTIONS,))}"
            )
        return DESCRIPTIONS, cut(_descriptions(), options)
    path = Path(options.path).expanduser()
    if path.is_file():
        return path.name.removesuffix(".gz").removesuffix(".txt"), cut(_read(path), options)
    if not path.is_dir():
        raise BadInput(f"config.data.path: no such file or directory: {options.path}")
    files = {
        file.name.removesuffix(".gz").removesuffix(".txt"): file
        for file in sorted(path.glob("*.txt.gz")) + sorted(path.glob("*.txt"))
    }
    if not files.keys().isdisjoint(TEXTS.values()):
        if missing := [text for text in TEXTS.values() if text not in files]:
            raise BadInput(
                f"config.data.path: expected train, valid and test, each .txt or .txt.gz, in "
                f"{path}, got no {' and no '.join(missing)}"
            )
        return path.name, {split: _read(files[text]) for split, text in TEXTS.items()}
    if len(files) != 1:
        raise BadInput(
            "config.data.path: expected one text, or train, valid and test, each .txt or .txt.gz, "
            f"in {path}, got {', '.join(file.name for file in files.values()) or 'none'}"
        )
    return path.name, cut(_read(*files.values()), options)


def _read(path: Path) -> str:
    try:
        return read_bytes(path).decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadInput(f"{path}: not text in UTF-8 ({error.reason})") from error


def _descriptions() -> str:
    from sklearn import datasets

    return "\n".join(getattr(datasets, f"load_{name}")().DESCR for name in DESCRIBED)


def _code_points(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le"), np.dtype("<u4"))
