# SPDX-License-Identifier: Apache-2.0
"""Real datasets that ship inside scikit-learn: nothing to download, small enough for a laptop.

Reach for them first: `digits` for more than two classes and pictures, `breast_cancer` for two
classes, `wine` and `iris` where a few hundred numbers are enough.
"""

import dataclasses

import numpy as np

from experiments.data.dataset import Dataset, subsets, task_of
from experiments.data.options import Options, nearest
from experiments.data.splits import hold_out, standardise
from experiments.errors import BadInput

_UCI = "CC BY 4.0 (UCI Machine Learning Repository), distributed with scikit-learn (BSD-3-Clause)"


@dataclasses.dataclass(frozen=True)
class EmbeddedSet:
    """What is known about a dataset before it is loaded.

    Attributes:
        title: what it is, in one line.
        examples: number of examples in all.
        num_classes: number of classes.
        input_shape: shape of one example.
        picture_maximum: the largest pixel value, by which "scale" divides; None: a table.
        licence: under what terms it may be used.
    """

    title: str
    examples: int
    num_classes: int
    input_shape: tuple[int, ...]
    picture_maximum: float | None = None
    licence: str = _UCI


#: The datasets that `config.data.name` knows without a file.
DATASETS: dict[str, EmbeddedSet] = {
    "digits": EmbeddedSet(
        "Optical recognition of handwritten digits (Alpaydin and Kaynak 1998), grey 8 x 8 pictures",
        1797,
        10,
        (8, 8),
        picture_maximum=16.0,
    ),
    "breast_cancer": EmbeddedSet(
        "Breast cancer Wisconsin, diagnostic (Wolberg et al. 1995): malignant 0 or benign 1 from "
        "30 measurements of cell nuclei",
        569,
        2,
        (30,),
    ),
    "wine": EmbeddedSet(
        "Wine recognition (Aeberhard and Forina 1992): three cultivars from 13 chemical measures",
        178,
        3,
        (13,),
    ),
    "iris": EmbeddedSet(
        "Iris plants (Fisher 1936): three species from 4 lengths in cm", 150, 3, (4,)
    ),
}


def describe(name: str) -> str:
    """A few lines about an embedded dataset: what it is, its size, its licence.

    Raises:
        BadInput: for a name that is not in `DATASETS`.
    """
    entry = _entry(name)
    shape = " x ".join(map(str, entry.input_shape))
    return (
        f"{name}: {entry.title}\n"
        f"  {entry.examples} examples, {entry.num_classes} classes, inputs {shape}\n"
        f"  licence: {entry.licence}"
    )


def load_embedded(options: Options) -> Dataset:
    """A dataset of `DATASETS`, split and normalised.

    Pictures keep their shape (8, 8) and are divided by their largest pixel value; tables are
    standardised with the training split's mean and deviation.

    Raises:
        BadInput: an unknown name, or an option that does not fit it.
    """
    entry = _entry(options.name)
    if options.num_classes not in (None, entry.num_classes):
        raise BadInput(
            f"config.data.num_classes: {options.name} has {entry.num_classes} classes, "
            f"got {options.num_classes}"
        )
    normalise = options.normalise
    if normalise == "auto":
        normalise = "standardise" if entry.picture_maximum is None else "scale"
    if normalise == "scale" and entry.picture_maximum is None:
        raise BadInput(
            f"config.data.normalise: 'scale' is for pictures and {options.name} is a table; "
            "expected auto, standardise or none"
        )

    from sklearn import datasets

    bunch = getattr(datasets, f"load_{options.name}")()
    inputs = bunch.data.reshape(-1, *entry.input_shape)
    labels = np.asarray(bunch.target, np.int32)
    positions = hold_out(labels, options, where=options.name)
    divisor = 1.0
    if normalise == "standardise":
        inputs = standardise(inputs, positions["train"])
    elif normalise == "scale" and entry.picture_maximum is not None:
        divisor = entry.picture_maximum
    return Dataset(
        name=options.name,
        num_classes=entry.num_classes,
        input_shape=entry.input_shape,
        task=task_of(entry.num_classes),
        licence=entry.licence,
        class_names=tuple(str(name) for name in bunch.target_names),
        **subsets(inputs.astype(np.float32), labels, positions, divisor=divisor),
    )


def _entry(name: str) -> EmbeddedSet:
    if name not in DATASETS:
        raise BadInput(
            f"config.data.name: unknown dataset {name!r}{nearest(name, DATASETS)} "
            f"(known: {', '.join(sorted(DATASETS))}; also 'tfds:<name>', or files by "
            "--config.data.path)"
        )
    return DATASETS[name]
