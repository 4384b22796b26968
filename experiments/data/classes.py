# SPDX-License-Identifier: Apache-2.0
"""Some of the classes of a dataset: a pair of Fashion-MNIST as a binary problem, say."""

import dataclasses

import numpy as np

from experiments.data.dataset import Batch, Dataset, Source, task_of
from experiments.errors import BadInput


class ChosenSource:
    """The examples of a source whose labels are among the chosen ones, numbered anew.

    Args:
        source: integer labels.
        chosen: labels to keep; the first becomes 0, the second 1, and so on.
    """

    def __init__(self, source: Source, chosen: tuple[int, ...]):
        self._source = source
        labels = source.gather(np.arange(len(source)))["label"]
        found = labels[:, None] == np.asarray(chosen)
        self._positions = np.flatnonzero(found.any(axis=1))
        self._labels = found.argmax(axis=1)[self._positions].astype(np.int32)

    def __len__(self) -> int:
        return len(self._positions)

    def __getitem__(self, position: int) -> Batch:
        return {key: value[0] for key, value in self.gather(np.asarray([position])).items()}

    def gather(self, positions: np.ndarray) -> Batch:
        """See `Source.gather`."""
        batch = self._source.gather(self._positions[positions])
        index = np.asarray(positions, np.int32)
        return {**batch, "label": self._labels[positions], "index": index}


def with_classes(dataset: Dataset, chosen: tuple[int, ...]) -> Dataset:
    """The dataset with the chosen classes alone; () keeps all of them.

    Raises:
        BadInput: a class that is not there, or fewer than two different ones.
    """
    if not chosen:
        return dataset
    if len(set(chosen)) < 2 or len(set(chosen)) != len(chosen):
        raise BadInput(f"config.data.classes: expected two different classes or more, got {chosen}")
    if not all(0 <= label < dataset.num_classes for label in chosen):
        raise BadInput(
            f"config.data.classes: expected classes in [0, {dataset.num_classes}), got {chosen}"
        )
    train, validation, test = (
        ChosenSource(source, chosen) for source in (dataset.train, dataset.validation, dataset.test)
    )
    names = tuple(dataset.class_names[label] for label in chosen)
    return dataclasses.replace(
        dataset,
        name=f"{dataset.name} ({', '.join(names)})",
        num_classes=len(chosen),
        task=task_of(len(chosen)),
        class_names=names,
        train=train,
        validation=validation,
        test=test,
    )
