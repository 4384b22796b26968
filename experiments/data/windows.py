# SPDX-License-Identifier: Apache-2.0
"""Windows of a long text of numbers: at every place of a window the next number is the class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

import numpy as np

from experiments.data.dataset import Batch
from experiments.data.options import Options

#: split -> name of its text, where each split has one of its own
TEXTS = {"train": "train", "validation": "valid", "test": "test"}


class Sliced(Protocol):
    """What can be cut: a string, an array, a range."""

    def __len__(self) -> int: ...

    def __getitem__(self, part: slice, /) -> Any: ...


Text = TypeVar("Text", bound=Sliced)


class Windows:
    """Windows of a text (`Source`), cut out when they are read: nothing but the text is kept.

    Args:
        text: integer [n], numbers of characters or tokens; it may be a file that is mapped into
            memory.
        context: of them in a window.
        starts: integer [m], where each window begins; each is at most n - context - 1, so that the
            last place of every window has a next one.
        num_classes: what the numbers must be below; None if the text is known to be sound.
    """

    def __init__(
        self,
        text: np.ndarray,
        context: int,
        starts: Sequence[int] | np.ndarray,
        num_classes: int | None = None,
    ):
        self._text = text
        self._num_classes = num_classes
        self._context = context
        # A range stays one: as an array, a window at every character would take more than the text.
        self._starts = starts

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, position: int) -> Batch:
        return {key: value[0] for key, value in self.gather(np.asarray([position])).items()}

    def gather(self, positions: np.ndarray) -> Batch:
        """See `Source.gather`: inputs int32 [n, context], label int32 [n, context], the next."""
        if isinstance(self._starts, range):
            starts = self._starts.start + np.asarray(positions) * self._starts.step
        else:
            starts = np.asarray(self._starts)[positions]
        rows = self._text[starts[:, None] + np.arange(self._context + 1)]
        if self._num_classes is not None:
            check_numbers(rows, self._num_classes)
        rows = rows.astype(np.int32)
        return {
            "inputs": rows[:, :-1],
            "label": rows[:, 1:],
            "index": np.asarray(positions, np.int32),
        }

    def at_most(self, count: int) -> Windows:
        """No more than so many of the windows, spread evenly over the text."""
        total = len(self)
        if total <= count:
            return self
        chosen = np.arange(count) * total // count
        return Windows(
            self._text, self._context, np.asarray(self._starts)[chosen], self._num_classes
        )


def cut(text: Text, options: Options) -> dict[str, Text]:
    """One text in three, held-out parts last."""
    test = len(text) - round(options.test_fraction * len(text))
    validation = test - round(options.validation_fraction * len(text))
    parts = {
        "train": slice(validation),
        "validation": slice(validation, test),
        "test": slice(test, None),
    }
    return {split: text[part] for split, part in parts.items()}


def check_numbers(numbers: np.ndarray, num_classes: int) -> None:
    """Raises ValueError unless all numbers are in [0, num_classes)."""
    low, high = int(numbers.min()), int(numbers.max())
    if low < 0 or high >= num_classes:
        raise ValueError(
            f"expected tokens from 0 to {num_classes - 1} (config.data.num_classes), got "
            f"{low if low < 0 else high}"
        )
