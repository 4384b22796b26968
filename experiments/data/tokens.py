# SPDX-License-Identifier: Apache-2.0
"""Tokens of a large vocabulary as windows: at every place the next token is the class.

From `path`: a NumPy file (.npy) of token numbers, one axis, any integer type, or a directory with
`train.npy`, `valid.npy` and `test.npy`. They are mapped into memory, never read as a whole. One
file is cut in three without shuffling, as `characters.py` does. `num_classes` is the vocabulary's
size:

    numpy.save("tokens.npy", numpy.asarray(numbers, numpy.uint32))
    --config.data.path=tokens.npy --config.data.num_classes=256000

Without a path and with the name `token_runs`, tokens are drawn as they are read: 2^20 windows, to
try a program or to measure it without data. A run begins at a token that is drawn log-uniformly
(Zipf's law: the r-th is drawn about 1/r times as often as the first) and counts on from there; with
probability 1/4 the next token begins another run. What can be learned is thus to count on, and the
frequencies.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from experiments.data.dataset import Batch, Dataset
from experiments.data.options import Options, read_options
from experiments.data.windows import TEXTS, Windows, check_numbers, cut
from experiments.errors import BadInput

#: The name of the tokens that are drawn.
RUNS = "token_runs"
#: How often a token begins a run.
BEGINS = 0.25
#: Windows of RUNS over all splits.
DRAWN = 2**20
#: So many tokens of every file are looked at before anything else happens.
LOOKED_AT = 1_000_000


class Runs:
    """Windows of RUNS (`Source`): each is a function of the seed and its place alone.

    Args:
        num_classes: V, tokens.
        context: tokens of a window.
        places: which of the windows.
        seed: integer >= 0.
    """

    def __init__(self, num_classes: int, context: int, places: range, seed: int):
        self._num_classes, self._context = num_classes, context
        self._places, self._seed = places, seed

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, position: int) -> Batch:
        return {key: value[0] for key, value in self.gather(np.asarray([position])).items()}

    def gather(self, positions: np.ndarray) -> Batch:
        """See `Source.gather`: inputs int32 [n, context], label int32 [n, context], the next."""
        rows = np.stack([self._drawn(self._places[int(place)]) for place in positions])
        return {
            "inputs": rows[:, :-1],
            "label": rows[:, 1:],
            "index": np.asarray(positions, np.int32),
        }

    def _drawn(self, place: int) -> np.ndarray:
        drawn = np.random.default_rng([self._seed, place]).random((2, self._context + 1))
        steps = np.arange(self._context + 1)
        begun = np.maximum.accumulate(np.where(drawn[0] < BEGINS, steps, 0))
        first = np.exp(drawn[1] * math.log1p(self._num_classes)).astype(np.int64) - 1
        return ((first[begun] + steps - begun) % self._num_classes).astype(np.int32)

    def at_most(self, count: int) -> Runs:
        """No more than so many of the windows."""
        return Runs(self._num_classes, self._context, self._places[:count], self._seed)


def are_tokens(data_config: Mapping[str, Any]) -> bool:
    """Whether a config means what this file loads, and no text of characters."""
    path = data_config.get("path")
    if path is None:
        return data_config.get("name") == RUNS
    found = Path(path).expanduser()
    return found.suffix == ".npy" or (found.is_dir() and any(found.glob("*.npy")))


def load_tokens(data_config: Mapping[str, Any], *, context: int, seed: int) -> Dataset:
    """The windows of tokens; they follow each other without overlap, in training, too.

    Args:
      data_config: `config.data`; it reads `path` or `name`, `num_classes`, and for one file and
        RUNS `validation_fraction` and `test_fraction`.
      context: n >= 1, tokens of a window.
      seed: the run's; it decides the tokens that are drawn where `split_seed` is None.

    Returns:
      Dataset of inputs int32 [n] and labels int32 [n].

    Raises:
      BadInput: no such file, one that is no list of tokens or has too few, a token that is not in
        [0, num_classes).
    """
    options = read_options(data_config, seed=seed)
    classes = options.num_classes
    if classes is None:
        raise BadInput(
            "config.data.num_classes: expected the size of the vocabulary, an integer >= 2, got "
            "None"
        )
    if options.path is None:
        name, licence = RUNS, "none needed: drawn"
        sources = {
            split: Runs(classes, context, places, options.split_seed)
            for split, places in cut(range(DRAWN), options).items()
        }
    else:
        path = Path(options.path).expanduser()
        name, licence = path.stem, "that of the text: see its origin"
        sources = {
            split: _windows(tokens, context, classes, split)
            for split, tokens in _files(path, options, classes).items()
        }
    return Dataset(
        name=name,
        num_classes=classes,
        input_shape=(context,),
        task="several",
        licence=licence,
        class_names=(),
        **sources,
    )


def _windows(tokens: np.ndarray, context: int, num_classes: int, split: str) -> Windows:
    if len(tokens) <= context:
        raise BadInput(
            f"config.task.context: expected less than the {len(tokens)} tokens of the {split} "
            f"text, got {context}"
        )
    return Windows(tokens, context, range(0, len(tokens) - context, context), num_classes)


def _files(path: Path, options: Options, num_classes: int) -> dict[str, np.ndarray]:
    if not path.is_dir():
        return cut(_mapped(path, num_classes), options)
    if missing := [text for text in TEXTS.values() if not (path / f"{text}.npy").is_file()]:
        raise BadInput(
            f"config.data.path: expected train.npy, valid.npy and test.npy in {path}, got no "
            f"{' and no '.join(missing)}"
        )
    return {split: _mapped(path / f"{text}.npy", num_classes) for split, text in TEXTS.items()}


def _mapped(path: Path, num_classes: int) -> np.ndarray:
    if not path.is_file():
        raise BadInput(f"config.data.path: no such file or directory: {path}")
    try:
        tokens = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise BadInput(f"{path}: not a NumPy file of numbers ({error})") from error
    if tokens.ndim != 1 or tokens.dtype.kind not in "iu" or not len(tokens):
        raise BadInput(
            f"{path}: expected integers with one axis, got {tokens.dtype} {tokens.shape}"
        )
    try:
        check_numbers(tokens[:LOOKED_AT], num_classes)
    except ValueError as error:
        raise BadInput(f"{path}: {error}") from error
    return tokens
