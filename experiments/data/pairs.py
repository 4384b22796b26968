# SPDX-License-Identifier: Apache-2.0
"""Two pictures side by side with a label each: a problem of two tasks from any two datasets."""

import numpy as np

from experiments.data.dataset import ArraySource, Dataset, Source
from experiments.errors import BadInput


def side_by_side(
    left: Dataset, right: Dataset, *, train_size: int, pool: int, noise: float, seed: int
) -> Dataset:
    """Pairs the pictures of two datasets, split by split.

    The first pictures of a split's random order are paired, as many as the smaller side has. Labels
    are [left's, right's]. A part of the right TRAINING labels is replaced by another class, drawn
    uniformly; validation and test keep theirs.

    Args:
      left: pictures [h, w] of K classes.
      right: pictures of the same shape and number of classes.
      train_size: training pairs at most.
      pool: pictures are averaged over squares of this many pixels.
      noise: part of the right training labels to replace, in [0, 1].
      seed: of the order and the noise, and of nothing else.

    Returns:
      A dataset of task "several": inputs [h // pool, 2 (w // pool)], labels int32 [2].

    Raises:
      BadInput: the two do not go together, or pool does not divide the pictures.
    """
    shape, classes = left.input_shape, left.num_classes
    if right.input_shape != shape or right.num_classes != classes or len(shape) != 2:
        raise BadInput(
            "config.task.second: expected pictures [h, w] and classes as in config.data, got "
            f"{shape} with {classes} classes beside {right.input_shape} with {right.num_classes}"
        )
    if shape[0] % pool or shape[1] % pool:
        raise BadInput(f"config.task.pool: expected a divisor of {shape}, got {pool}")
    draw = np.random.default_rng(seed)
    sources = {}
    for split in ("train", "validation", "test"):
        sides: tuple[Source, Source] = (getattr(left, split), getattr(right, split))
        size = min(len(source) for source in sides)
        if split == "train":
            size = min(size, train_size)
        found = [source.gather(draw.permutation(len(source))[:size]) for source in sides]
        inputs = np.concatenate([_pooled(side["inputs"], pool) for side in found], axis=2)
        labels = np.stack([side["label"] for side in found], axis=1)
        if split == "train":
            flipped = draw.random(size) < noise
            moved = (labels[:, 1] + draw.integers(1, classes, size)) % classes
            labels[:, 1] = np.where(flipped, moved, labels[:, 1])
        sources[split] = ArraySource(inputs, labels)
    return Dataset(
        name=f"{left.name} + {right.name}",
        num_classes=classes,
        input_shape=(shape[0] // pool, 2 * (shape[1] // pool)),
        task="several",
        licence=left.licence
        if left.licence == right.licence
        else f"{left.licence}; {right.licence}",
        class_names=left.class_names,
        **sources,
    )


def _pooled(pictures: np.ndarray, pool: int) -> np.ndarray:
    count, height, width = pictures.shape
    squares = pictures.reshape(count, height // pool, pool, width // pool, pool)
    return squares.mean(axis=(2, 4), dtype=np.float32)
