# SPDX-License-Identifier: Apache-2.0
"""csv files as datasets: one example a row, the class in the last column (as UCI's sets come).

* The file is UTF-8, packed with gzip or not. The separator (comma, semicolon or tab) is the one
  that the first row has most of; spaces around a cell and quotes are dropped.
* The first row is a header if none of its cells is a number while the row below has one;
  `has_header` overrules.
* A column of finite numbers is standardised with the training split's statistics. A column with
  text becomes one-hot, one input for each distinct value of the file in sorted order.
* A missing cell ('?', empty, NA or NaN) is an error that names row and column, unless
  `missing="impute"`: the training split's median for a number, a category of its own for text.
  A missing class is always an error.
* Classes written as text are sorted and numbered; integers are numbered likewise, unless
  `num_classes` is set: then they are taken as they are, also those out of range (their loss is NaN
  and the training loop stops).
"""

import csv
import math
from pathlib import Path

import numpy as np

from experiments.data.dataset import Dataset, subsets, task_of
from experiments.data.files import LICENCE, number_integers, read_bytes
from experiments.data.options import Options
from experiments.data.splits import hold_out, standardise
from experiments.errors import BadInput

_MISSING = frozenset({"", "?", "na", "nan"})
#: A text column with more values is an identifier or a date, not a category.
_MOST_CATEGORIES = 256
#: A text column with more different numbers in it is a numeric column with a slip in it.
_MOST_NUMBERS_AMONG_TEXT = 32


def load_csv(path: Path, options: Options) -> Dataset:
    """A csv file as a dataset, named after the file.

    Raises:
        BadInput: one line with the path and, where there is one, the row and column at fault.
    """
    names, rows = _read_rows(path, options)
    labels, class_names = _read_classes(path, names, rows, options)
    positions = hold_out(labels, options, where=str(path))
    train = positions["train"]
    if options.normalise == "scale":
        raise BadInput(
            f"config.data.normalise: 'scale' is for pictures and {path} is a table; "
            "expected auto, standardise or none"
        )
    blocks = []
    for column, name in enumerate(names[:-1]):
        cells = [cells[column] for _, cells in rows]
        numbers = _read_numbers(path, name, rows, column, options)
        if numbers is None:
            blocks.append(_one_hot(cells))
            continue
        block = _impute(numbers, train, path, name)[:, None]
        blocks.append(block if options.normalise == "none" else standardise(block, train))
    inputs = np.concatenate(blocks, axis=1).astype(np.float32)
    return Dataset(
        name=path.name.removesuffix(".gz").removesuffix(".csv"),
        num_classes=len(class_names),
        input_shape=inputs.shape[1:],
        task=task_of(len(class_names)),
        licence=LICENCE,
        class_names=class_names,
        **subsets(inputs, labels, positions),
    )


Row = tuple[int, list[str]]  # the line it ends on, for messages, and its cells


def _read_rows(path: Path, options: Options) -> tuple[list[str], list[Row]]:
    """The columns' names for messages, and the rows below the header."""
    try:
        lines = read_bytes(path).decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise BadInput(f"{path}: not a csv file in UTF-8 ({error.reason})") from error
    first = next((line for line in lines if line.strip()), "")
    separator = max(",;\t", key=first.count)
    reader = csv.reader(lines, delimiter=separator, skipinitialspace=True)
    try:
        rows = [(reader.line_num, [_clean(cell) for cell in cells]) for cells in reader if cells]
    except csv.Error as error:
        raise BadInput(f"{path}: row {reader.line_num} cannot be read ({error})") from error
    rows = [(line, cells) for line, cells in rows if cells != [""]]
    if not rows:
        raise BadInput(f"{path}: empty file")
    width = len(rows[0][1])
    if width < 2:
        raise BadInput(
            f"{path}: expected at least one feature and the class in every row, separated by "
            f"comma, semicolon or tab; row {rows[0][0]} has {width} column"
        )
    for line, cells in rows:
        if len(cells) != width:
            raise BadInput(f"{path}: row {line} has {len(cells)} columns, row {rows[0][0]} {width}")
    has_header = options.has_header
    if has_header is None:
        has_header = (
            len(rows) > 1
            and not any(map(_is_number, rows[0][1]))
            and any(map(_is_number, rows[1][1]))
        )
    names = [f"column {column + 1}" for column in range(width)]
    if has_header:
        names = [f"{name} ({cell!r})" for name, cell in zip(names, rows[0][1])]
        rows = rows[1:]
    if not rows:
        raise BadInput(f"{path}: no rows below the header")
    return names, rows


def _read_classes(
    path: Path, names: list[str], rows: list[Row], options: Options
) -> tuple[np.ndarray, tuple[str, ...]]:
    cells = [cells[-1] for _, cells in rows]
    for line, row in rows:
        if _is_missing(row[-1]):
            raise BadInput(f"{path}: row {line}, {names[-1]}: the class is missing ({row[-1]!r})")
    if all(map(_is_number, cells)):
        numbers = np.array([float(cell) for cell in cells])
        fractional = numbers != np.floor(numbers)
        if fractional.any():
            row = int(fractional.argmax())
            raise BadInput(
                f"{path}: row {rows[row][0]}, {names[-1]}: expected a class (text or an integer), "
                f"got {cells[row]!r}"
            )
        return number_integers(numbers, options, where=str(path))
    values, numbers = np.unique(cells, return_inverse=True)
    expected = options.num_classes or max(values.size, 2)
    if values.size != expected:
        raise BadInput(
            f"{path}: expected {expected} classes, {names[-1]} has {values.size} "
            f"({', '.join(map(str, values[:5]))}{', ...' if values.size > 5 else ''})"
        )
    return numbers, tuple(str(value) for value in values)


def _read_numbers(
    path: Path, name: str, rows: list[Row], column: int, options: Options
) -> np.ndarray | None:
    """A column as float64 [n] with NaN where missing, or None if it holds text."""
    numbers = np.full(len(rows), np.nan)
    text: dict[str, int] = {}
    for position, (line, cells) in enumerate(rows):
        cell = cells[column]
        if _is_missing(cell):
            if options.missing == "error":
                raise BadInput(
                    f"{path}: row {line}, {name}: missing value {cell!r} (fill it in, or "
                    "--config.data.missing=impute)"
                )
        elif _is_number(cell):
            numbers[position] = float(cell)
        else:
            text.setdefault(cell, line)
    if not text:
        return numbers
    different = np.unique(numbers[~np.isnan(numbers)]).size
    if different > _MOST_NUMBERS_AMONG_TEXT:
        cell, line = next(iter(text.items()))
        raise BadInput(f"{path}: row {line}, {name}: expected a finite number, got {cell!r}")
    if len(text) > _MOST_CATEGORIES:
        raise BadInput(
            f"{path}: {name} holds {len(text)} different texts, too many for categories "
            f"(at most {_MOST_CATEGORIES}): leave it out"
        )
    return None


def _impute(numbers: np.ndarray, train: np.ndarray, path: Path, name: str) -> np.ndarray:
    known = numbers[train][~np.isnan(numbers[train])]
    if known.size == 0:
        raise BadInput(f"{path}: {name} has no value in the training split: leave it out")
    return np.where(np.isnan(numbers), np.median(known), numbers)


def _one_hot(cells: list[str]) -> np.ndarray:
    cells = ["?" if _is_missing(cell) else cell for cell in cells]
    values, numbers = np.unique(cells, return_inverse=True)
    return np.eye(values.size, dtype=np.float32)[numbers]


def _clean(cell: str) -> str:
    cell = cell.strip()
    return cell[1:-1] if len(cell) > 1 and cell[0] == cell[-1] == "'" else cell


def _is_missing(cell: str) -> bool:
    return cell.lower() in _MISSING


def _is_number(cell: str) -> bool:
    try:
        return math.isfinite(float(cell))
    except ValueError:
        return False
