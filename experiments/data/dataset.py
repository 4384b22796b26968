# SPDX-License-Identifier: Apache-2.0
"""What a loaded dataset is: three random-access sources and what the model must know about them.

Reach for `ArraySource` whenever the examples fit into memory; a source that reads from disk only
has to offer the same three methods (`Source`).
"""

import dataclasses
from collections.abc import Mapping
from typing import Literal, Protocol

import numpy as np

Batch = dict[str, np.ndarray]
Task = Literal["multiclass", "binary", "several", "multi_label", "regression"]


class Source(Protocol):
    """Random access to the examples of one split."""

    def __len__(self) -> int:
        """Number of examples."""
        ...

    def __getitem__(self, position: int) -> Batch:
        """One example: inputs float32 [...], label int32 [], index int32 [] (== position).

        A task of its own may have labels of another shape, or float32 ones.
        """
        ...

    def gather(self, positions: np.ndarray) -> Batch:
        """Several examples at once, stacked along a new first axis: positions integer [n]."""
        ...


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A problem, split in three: a classification problem unless `task` says otherwise.

    Attributes:
        name: how logs and reports call it.
        train, validation, test: the splits (`Source`).
        num_classes: K >= 2; 0 for regression.
        input_shape: shape of one example's `inputs`, for example (8, 8); a model that wants
            vectors flattens.
        task: "binary" when K == 2 (the model has one score an example, class 1 is positive),
            else "multiclass". "several": labels [T], each of K classes. "multi_label": 0 or 1
            for each of K classes [K]. "regression": float32.
        licence: under what terms the data may be used, in one line.
        class_names: K names; class_names[label] names a label. () where there are none.
    """

    name: str
    train: Source
    validation: Source
    test: Source
    num_classes: int
    input_shape: tuple[int, ...]
    task: Task
    licence: str
    class_names: tuple[str, ...]


def task_of(num_classes: int) -> Task:
    """The task of K classes: "binary" for two, "multiclass" for more."""
    return "binary" if num_classes == 2 else "multiclass"


class ArraySource:
    """Examples held in memory.

    Args:
        inputs: [n, ...], any real dtype. Kept as it is and converted on reading, so that 8-bit
            pictures take 8 bits.
        labels: integer [n], or [n, T] for several tasks, or float [n] for regression.
        divisor: inputs are divided by it on reading (255 turns 8-bit pictures into [0, 1]).

    Raises:
        ValueError: if inputs and labels have different lengths.
    """

    def __init__(self, inputs: np.ndarray, labels: np.ndarray, *, divisor: float = 1.0):
        if inputs.shape[0] != labels.shape[0]:
            raise ValueError(
                "ArraySource: expected one label for each input, "
                f"got inputs {inputs.shape} and labels {labels.shape}"
            )
        self._inputs = inputs
        self._labels = np.asarray(labels, np.float32 if labels.dtype.kind == "f" else np.int32)
        self._divisor = np.float32(divisor)

    def __len__(self) -> int:
        return self._inputs.shape[0]

    def __getitem__(self, position: int) -> Batch:
        return {key: value[0] for key, value in self.gather(np.asarray([position])).items()}

    def gather(self, positions: np.ndarray) -> Batch:
        """See `Source.gather`."""
        inputs = self._inputs[positions].astype(np.float32)
        inputs /= self._divisor
        return {
            "inputs": inputs,
            "label": self._labels[positions],
            "index": np.asarray(positions, np.int32),
        }


def subsets(
    inputs: np.ndarray,
    labels: np.ndarray,
    positions: Mapping[str, np.ndarray],
    *,
    divisor: float = 1.0,
) -> dict[str, ArraySource]:
    """One `ArraySource` for each named set of positions of the same arrays."""
    return {
        split: ArraySource(inputs[chosen], labels[chosen], divisor=divisor)
        for split, chosen in positions.items()
    }
