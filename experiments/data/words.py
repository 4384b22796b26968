# SPDX-License-Identifier: Apache-2.0
"""Text as a classification problem: the words before one are the example, the word is its class.

A directory with plain text, words between spaces, as WikiText has it: `train.txt`, `valid.txt` and
`test.txt`, each perhaps with `.gz`. Without a train.txt the end of valid.txt is for validation and
the rest of it for training.
"""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from experiments.data.dataset import ArraySource, Dataset
from experiments.data.files import read_bytes
from experiments.data.options import read_options
from experiments.errors import BadInput

#: Stands for every word that the training text does not have, and ends every line.
UNKNOWN, END = "<unk>", "<eos>"
LICENCE = "that of the text: see its origin"


def load_words(
    data_config: Mapping[str, Any], *, context: int, min_count: int, seed: int
) -> Dataset:
    """The contexts and next words of a text.

    Args:
      data_config: `config.data`; it reads `path` and `validation_fraction`.
      context: n >= 1, how many words an example has; before the first there are line ends.
      min_count: words that the training text has less often are unknown.
      seed: the run's; nothing here depends on it.

    Returns:
      Dataset of inputs [n] (word numbers) and labels, in the order of the text. Words are numbered
      by decreasing frequency in the training text, equal ones alphabetically.

    Raises:
      BadInput: no such directory, a text that is missing, empty or not UTF-8.
    """
    options = read_options(data_config, seed=seed)
    if options.path is None:
        raise BadInput("config.data.path: expected a directory with valid.txt and test.txt")
    root = Path(options.path).expanduser()
    if not root.is_dir():
        raise BadInput(f"config.data.path: no such directory: {options.path}")
    texts = {name: read_text(root, name, needed=name != "train") for name in TEXTS}
    if not texts["train"]:
        whole = texts["valid"]
        cut = len(whole) - round(options.validation_fraction * len(whole))
        texts |= {"train": whole[:cut], "valid": whole[cut:]}
    vocabulary = count_words(texts["train"], min_count)
    number = {word: place for place, word in enumerate(vocabulary)}
    sources = {}
    for split, name in (("train", "train"), ("validation", "valid"), ("test", "test")):
        text = [number.get(word, number[UNKNOWN]) for word in texts[name]]
        if not text:
            raise BadInput(f"{root}: no words are left for the {split} split")
        padded = np.asarray([number[END]] * context + text, np.int32)
        windows = np.lib.stride_tricks.sliding_window_view(padded, context)[:-1]
        sources[split] = ArraySource(windows, padded[context:])
    return Dataset(
        name=root.name,
        num_classes=len(vocabulary),
        input_shape=(context,),
        task="multiclass",
        licence=LICENCE,
        class_names=tuple(vocabulary),
        **sources,
    )


TEXTS = ("train", "valid", "test")


def read_text(root: Path, name: str, *, needed: bool) -> list[str]:
    """The words of a text with a line end after every line; [] if there is none.

    Raises:
      BadInput: it is needed and not there, or not UTF-8.
    """
    found = [path for end in (".txt", ".txt.gz") if (path := root / (name + end)).is_file()]
    if not found:
        if needed:
            raise BadInput(f"config.data.path: expected {name}.txt or {name}.txt.gz in {root}")
        return []
    try:
        lines = read_bytes(found[0]).decode("utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise BadInput(f"{found[0]}: not text in UTF-8 ({error.reason})") from error
    return [word for line in lines if line.strip() for word in (*line.split(), END)]


def count_words(text: list[str], min_count: int) -> list[str]:
    """The vocabulary of a text: by decreasing frequency, with UNKNOWN and END in any case."""
    counts = Counter(text)
    rare = sum(count for count in counts.values() if count < min_count)
    kept = {word: count for word, count in counts.items() if count >= min_count}
    kept[UNKNOWN] = counts[UNKNOWN] + rare
    kept[END] = counts[END]
    return sorted(kept, key=lambda word: (-kept[word], word))
