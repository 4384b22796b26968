# SPDX-License-Identifier: Apache-2.0
"""From a source to batches: shuffled and endless for training, in order and padded for evaluation.

Reach for `train_iterator` in a training loop: its state is one number, which grain's checkpoint
handler saves beside the model, and step k sees the same examples however many processes share the
work.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from experiments.data.dataset import Batch, Source
from experiments.errors import BadInput, Failed

if TYPE_CHECKING:
    import grain


def train_iterator(
    source: Source,
    *,
    batch_size: int,
    seed: int,
    process_index: int = 0,
    process_count: int = 1,
) -> grain.DatasetIterator[Batch]:
    """Endless batches of training examples, reshuffled each epoch.

    The order of the examples is a function of (seed, epoch) alone. It is cut into global batches
    first, and every process reads its own run of consecutive rows of each: joined in process order
    the rows are the same arrays for any process_count, and a run may resume with another one.
    Epochs follow each other without a gap: a batch may end one and begin the next, so that no
    example is ever dropped and each comes exactly once an epoch.

    Args:
        source: the training split.
        batch_size: examples a step over ALL processes, a multiple of process_count, at most
            len(source).
        seed: integer >= 0.
        process_index: which process this is, 0..process_count-1.
        process_count: how many processes share a step.

    Returns:
        A grain iterator over {"inputs": float32 [b, ...], "label": int32 [b], "index": int32 [b]}
        with b = batch_size / process_count, `get_state()` and `set_state()`; grain.checkpoint's
        CheckpointSave and CheckpointRestore take it.

    Raises:
        BadInput: a batch_size that does not fit the source or the processes.
        Failed: from the iterator, if the source raises.
    """
    rows = _rows(batch_size, process_index, process_count)
    if batch_size > len(source):
        raise BadInput(
            f"config.data.batch_size: expected at most the {len(source)} training examples, "
            f"got {batch_size}"
        )

    import grain

    size = len(source)

    # grain's own shuffle takes 30 microseconds an example, and each process would pay for the whole
    # global batch: a permutation an epoch is free beside it. Two epochs can meet in a batch.
    @functools.lru_cache(maxsize=2)
    def order(epoch: int) -> np.ndarray:
        return np.random.default_rng([seed, epoch]).permutation(size)

    def read(step: int) -> Batch:
        epochs, places = np.divmod(
            np.arange(step * batch_size, (step + 1) * batch_size)[rows], size
        )
        first, last = int(epochs[0]), int(epochs[-1])
        positions = np.where(epochs == first, order(first)[places], order(last)[places])
        return _gather(source, positions, f"of step {step + 1}")

    return iter(
        grain.MapDataset.range(sys.maxsize // batch_size)
        .map(read)
        # An element is a whole batch here: grain's default of 500 in flight would fill the memory.
        .to_iter_dataset(grain.ReadOptions(num_threads=2, prefetch_buffer_size=4))
    )


def eval_batches(
    source: Source, *, batch_size: int, process_index: int = 0, process_count: int = 1
) -> Iterator[Batch]:
    """All examples once, in order, in batches of one size.

    Args:
        source: the split to evaluate.
        batch_size: examples a batch over all processes; every batch has the same shape, so that one
            compiled function serves them all.
        process_index: which process this is; it gets its run of consecutive rows of each batch.
        process_count: how many processes share a batch.

    Yields:
        {"inputs", "label", "index"} as in training, and "where": bool [b]. Padding at the end has
        where False, inputs 0, label 0, index -1.

    Raises:
        BadInput: a batch_size that does not fit the processes.
    """
    rows = _rows(batch_size, process_index, process_count)
    return _padded_batches(source, batch_size, rows)


def _padded_batches(source: Source, batch_size: int, rows: slice) -> Iterator[Batch]:
    for start in range(0, len(source), batch_size):
        positions = np.arange(start, start + batch_size)[rows]
        where = positions < len(source)
        batch = _gather(source, np.where(where, positions, 0), f"from example {start} on")
        padding = {"inputs": 0, "label": 0, "index": -1}
        for key, value in padding.items():
            batch[key][~where] = value
        yield batch | {"where": where}


def _gather(source: Source, positions: np.ndarray, what: str) -> Batch:
    """Those examples of a source; whatever it raises becomes one line."""
    try:
        return source.gather(positions)
    except BadInput:
        raise
    except Exception as error:
        lines = str(error).strip().splitlines() or [""]
        raise Failed(
            f"the data {what} cannot be read: {type(error).__name__}: {lines[0]}"
        ) from error


def _rows(batch_size: int, process_index: int, process_count: int) -> slice:
    """The rows of a global batch that belong to one process."""
    if not 0 <= process_index < process_count:
        raise ValueError(
            f"process_index: expected 0..{process_count - 1}, got {process_index} "
            f"(process_count {process_count})"
        )
    if batch_size < 1 or batch_size % process_count:
        raise BadInput(
            f"config.data.batch_size: expected a positive multiple of the {process_count} "
            f"processes, got {batch_size}"
        )
    local = batch_size // process_count
    return slice(process_index * local, (process_index + 1) * local)
