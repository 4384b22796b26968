# SPDX-License-Identifier: Apache-2.0
"""Who is held out, and what the training split's statistics do to the inputs.

Both must never look beyond what they may: splits depend on labels and split_seed alone, and the
statistics come from the training split alone.
"""

import numpy as np

from experiments.data.options import Options
from experiments.errors import BadInput


def hold_out(
    labels: np.ndarray, options: Options, *, where: str, has_test: bool = False
) -> dict[str, np.ndarray]:
    """Positions of the training, validation and test examples, each in ascending order.

    Args:
        labels: integer [n]; with `options.stratify`, every split gets the same share of each class.
        options: fractions and split_seed.
        where: names the data in messages (a path or a dataset's name).
        has_test: the test set is elsewhere, only validation is held out.

    Returns:
        "train", "validation" and, unless `has_test`, "test": disjoint, together 0..n-1.

    Raises:
        BadInput: too few examples for the fractions, or a class too small to be stratified.
    """
    parts = {"validation": options.validation_fraction}
    if not has_test:
        parts = {"test": options.test_fraction} | parts
    rest = np.arange(labels.shape[0])
    chosen: dict[str, np.ndarray] = {}
    for split, fraction in parts.items():
        rest, chosen[split] = _cut(
            rest, labels, round(fraction * labels.shape[0]), split, options, where
        )
    return {"train": rest} | chosen


def _cut(
    positions: np.ndarray, labels: np.ndarray, size: int, split: str, options: Options, where: str
) -> tuple[np.ndarray, np.ndarray]:
    from sklearn.model_selection import train_test_split

    if not 0 < size < positions.shape[0]:
        raise BadInput(
            f"{where}: {labels.shape[0]} examples are too few for config.data.{split}_fraction="
            f"{getattr(options, split + '_fraction')}"
        )
    try:
        kept, cut = train_test_split(
            positions,
            test_size=size,
            random_state=options.split_seed,
            stratify=labels[positions] if options.stratify else None,
        )
    except ValueError as error:
        counts = np.unique(labels, return_counts=True)[1]
        raise BadInput(
            f"{where}: cannot hold out {size} {split} examples with the same share of each of the "
            f"{counts.size} classes (the smallest has {counts.min()} of {labels.shape[0]}); give "
            "larger fractions, or --config.data.stratify=False"
        ) from error
    return np.sort(kept), np.sort(cut)


def standardise(inputs: np.ndarray, train: np.ndarray) -> np.ndarray:
    """Every feature shifted and scaled to mean 0 and variance 1 over the training examples.

    Args:
        inputs: [n, ...], real; a feature that is constant over the training split becomes 0 there.
        train: positions of the training examples.

    Returns:
        float32 [n, ...], computed in float64.
    """
    from sklearn.preprocessing import StandardScaler

    flat = inputs.reshape(inputs.shape[0], -1).astype(np.float64)
    scaler = StandardScaler().fit(flat[train])
    return scaler.transform(flat).reshape(inputs.shape).astype(np.float32)
