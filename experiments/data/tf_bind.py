# SPDX-License-Identifier: Apache-2.0
"""How strongly a transcription factor binds each DNA 8-mer: a design problem known in full.

The file is a table of UniPROBE (Barrera et al., Science 2016): tab-separated, a header, then a row
for each 8-mer and its reverse complement with the E-score of both; 32,896 rows cover all 65,536.
SIX6_REF_R1_8mers.txt is TF Bind 8 of Design-Bench. Scores are scaled to [0, 1] over all designs.
What may be learned from is the lower half; the upper half is what a search should find.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from experiments.data.dataset import ArraySource, Dataset
from experiments.data.files import read_bytes
from experiments.data.options import read_options
from experiments.errors import BadInput

LETTERS = "ACGT"
LENGTH = 8
DESIGNS = len(LETTERS) ** LENGTH
#: Percentile of the scores up to which a design is known to the search, as in Design-Bench.
KNOWN = 50
LICENCE = "UniPROBE, Barrera et al., Science 2016: see the file's origin"
#: Value of a letter's place: AAAAAAAA is design 0, AAAAAAAC design 1.
PLACES = len(LETTERS) ** np.arange(LENGTH)[::-1]


def one_hot(designs: np.ndarray) -> np.ndarray:
    """uint8 [n, 8, 4] of design numbers [n]."""
    letters = designs[:, None] // PLACES % len(LETTERS)
    return np.eye(len(LETTERS), dtype=np.uint8)[letters]


def read_scores(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """The table of a file.

    Returns:
      (scores, rows): float64 [65536], scaled to [0, 1], and the row [65536] of each design in the
      file, which it shares with its reverse complement.

    Raises:
      BadInput: one line with the path, if it cannot be read or is not such a table.
    """
    try:
        lines = read_bytes(path).decode("ascii").splitlines()
    except UnicodeDecodeError as error:
        raise BadInput(f"{path}: not a table of 8-mers in ASCII ({error.reason})") from error
    scores, rows = np.full(DESIGNS, np.nan), np.full(DESIGNS, -1)
    for number, line in enumerate(lines[1:], start=2):
        if not line.strip():
            continue
        cells = line.split("\t")
        if len(cells) < 3:
            raise BadInput(
                f"{path}: row {number}: expected two 8-mers and an E-score between tabs, "
                f"got {line[:60]!r}"
            )
        try:
            score = float(cells[2])
        except ValueError:
            score = np.nan
        if not np.isfinite(score):
            raise BadInput(f"{path}: row {number}: expected an E-score, got {cells[2]!r}")
        for word in cells[:2]:
            design = _design(word)
            if design is None:
                raise BadInput(
                    f"{path}: row {number}: expected 8 letters of {LETTERS}, got {word!r}"
                )
            if rows[design] not in (-1, number):
                raise BadInput(f"{path}: row {number}: {word} is in row {rows[design]} already")
            scores[design], rows[design] = score, number
    if len(missing := np.flatnonzero(rows < 0)):
        raise BadInput(
            f"{path}: expected all {DESIGNS} 8-mers, {len(missing)} are missing, the first of them "
            f"{''.join(LETTERS[letter] for letter in missing[0] // PLACES % len(LETTERS))}"
        )
    low, high = np.min(scores), np.max(scores)
    if low == high:
        raise BadInput(f"{path}: every E-score is {low:g}")
    return (scores - low) / (high - low), rows


def load_tf_bind(data_config: Mapping[str, Any], *, seed: int) -> Dataset:
    """The designs that are known, split in two, and all of them as the test split.

    Args:
      data_config: `config.data`; it reads `path`, `validation_fraction` and `split_seed`.
      seed: the run's.

    Returns:
      Dataset of inputs [8, 4], one-hot, and float32 labels in [0, 1]. Designs whose score is in the
      lower half are split into train and validation, a design and its reverse complement (which
      have one score) always together; test is all 65,536, in the order of their numbers.

    Raises:
      BadInput: no path, or a file that is not what it should be.
    """
    options = read_options(data_config, seed=seed)
    if options.path is None:
        raise BadInput(
            "config.data.path: expected the table of 8-mers (SIX6_REF_R1_8mers.txt.gz), got none"
        )
    path = Path(options.path).expanduser()
    if not path.is_file():
        raise BadInput(f"config.data.path: no such file: {options.path}")
    scores, rows = read_scores(path)
    known = np.flatnonzero(scores <= np.percentile(scores, KNOWN))
    pairs = np.unique(rows[known])
    order = np.random.default_rng(options.split_seed).permutation(pairs)
    held_out = np.isin(rows[known], order[: round(options.validation_fraction * len(order))])
    parts = {"train": known[~held_out], "validation": known[held_out], "test": np.arange(DESIGNS)}
    sources = {
        split: ArraySource(one_hot(designs), scores[designs]) for split, designs in parts.items()
    }
    return Dataset(
        name=path.name.split("_8mers")[0],
        num_classes=0,
        input_shape=(LENGTH, len(LETTERS)),
        task="regression",
        licence=LICENCE,
        class_names=(),
        **sources,
    )


def _design(word: str) -> int | None:
    if len(word) != LENGTH or not set(word) <= set(LETTERS):
        return None
    return sum(LETTERS.index(letter) * int(place) for letter, place in zip(word, PLACES))
