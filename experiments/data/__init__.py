# SPDX-License-Identifier: Apache-2.0
"""Data for the training program: from a name in the config to batches of NumPy arrays.

    dataset = load(config.data, seed=config.seed)
    batches = train_iterator(dataset.train, batch_size=64, seed=config.seed)
    batch = next(batches)      # {"inputs": float32 [64, ...], "label": int32 [64], "index": [64]}

Where data comes from:

* the sets that ship inside scikit-learn (`DATASETS`: nothing to download);
* idx or csv files (`path`; see `files.py` and `tables.py` for what they may look like);
* anything prepared with tensorflow-datasets (`name="tfds:fashion_mnist"`; see `tfds_source.py`).

Importing this package is cheap: scikit-learn, grain and tensorflow-datasets are imported by the
functions that need them.
"""

from experiments.data.dataset import ArraySource, Dataset, Source
from experiments.data.embedded import DATASETS, describe
from experiments.data.loading import load
from experiments.data.options import DEFAULTS
from experiments.data.pipeline import eval_batches, train_iterator

__all__ = [
    "load",
    "Dataset",
    "Source",
    "ArraySource",
    "train_iterator",
    "eval_batches",
    "DATASETS",
    "describe",
    "DEFAULTS",
]
