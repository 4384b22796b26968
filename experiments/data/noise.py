# SPDX-License-Identifier: Apache-2.0
"""Wrong labels on purpose: what a loss that claims robustness to label noise is tried on."""

import dataclasses

import numpy as np

from experiments.data.dataset import Batch, Dataset, Source


class NoisySource:
    """A source of which some labels are replaced by another class, always the same ones.

    Args:
        source: integer labels of K classes.
        num_classes: K.
        fraction: the chance of a label to be replaced, in [0, 1).
        draw: the generator that decides who is and by which of the other classes, uniformly.
    """

    def __init__(
        self, source: Source, num_classes: int, fraction: float, draw: np.random.Generator
    ):
        self._source, self._num_classes = source, num_classes
        flipped = draw.random(len(source)) < fraction
        shift = draw.integers(1, num_classes, len(source))
        self._shift = np.where(flipped, shift, 0).astype(np.int32)

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, position: int) -> Batch:
        return {key: value[0] for key, value in self.gather(np.asarray([position])).items()}

    def gather(self, positions: np.ndarray) -> Batch:
        """See `Source.gather`. A label out of range stays out of range."""
        batch = self._source.gather(positions)
        label = batch["label"]
        legal = (label >= 0) & (label < self._num_classes)
        moved = (label + self._shift[positions]) % self._num_classes
        return {**batch, "label": np.where(legal, moved, label).astype(label.dtype)}


def with_label_noise(dataset: Dataset, fraction: float, *, seed: int) -> Dataset:
    """The dataset with wrong labels in training and validation; the test split keeps its own.

    The validation labels are as wrong as those for training: in practice nobody has better ones to
    choose hyperparameters with.
    """
    if fraction == 0.0:
        return dataset
    draw = np.random.default_rng(seed)
    train, validation = (
        NoisySource(source, dataset.num_classes, fraction, draw)
        for source in (dataset.train, dataset.validation)
    )
    return dataclasses.replace(dataset, train=train, validation=validation)
