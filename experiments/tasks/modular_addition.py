# SPDX-License-Identifier: Apache-2.0
"""Modular addition: from all pairs (a, b) of 0..p-1, predict (a + b) mod p.

Synthetic and complete: config.data says which pairs are held out (`validation_fraction`,
`test_fraction`, `split_seed`, `stratify`), nothing else of it is read. Keys of `config.task`:

    modulus            p >= 3; there are p^2 examples of p classes
    embedding_penalty  times the mean over the embedding's columns of their root mean square, added
                       to the training objective (the authors' regulariser)

Metrics of every evaluation, beside those of a classification: of the embedding [p, d], not
standardised, explained_variance_2 (share of the first two principal components), effective_rank,
circle (0 is a circle).
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from experiments.config import Rule, check_task
from experiments.data.dataset import Dataset, subsets
from experiments.data.options import read_options
from experiments.data.splits import hold_out
from experiments.errors import BadInput
from experiments.job import Job
from experiments.tasks import classification
from xloss import diagnostics

RULES = {
    "modulus": Rule(int, "an integer in [3, 1000]", lambda v: 3 <= v <= 1000),
    "embedding_penalty": Rule((int, float), "a number >= 0", lambda v: v >= 0),
}


def build(config: ConfigDict, mesh: Mesh) -> Job:
    """The job; see the top of the file.

    Raises:
      BadInput: a key of config.task, the splits or the model are not what they should be.
    """
    check_task(config, RULES)
    if config.model.get("name") != "pair_mlp":
        raise BadInput(
            "--config.model.name: expected pair_mlp for modular_addition (its embedding is what "
            f"is measured), got {config.model.get('name')!r}"
        )
    rate = float(config.task.embedding_penalty)
    dataset = pairs(config.data.to_dict(), modulus=config.task.modulus, seed=config.seed)

    def penalty(params: Any) -> jax.Array:
        mean_square = jnp.mean(jnp.square(params["embedding"]), axis=0)
        # The gradient of a root at an embedding column of zeros.
        return rate * jnp.mean(jnp.sqrt(jnp.maximum(mean_square, 1e-30)))

    @jax.jit
    def describe(params: Any) -> dict[str, jax.Array]:
        table = params["embedding"]
        ratios = diagnostics.explained_variance_ratios(table, standardise=False)
        found = {
            "explained_variance_2": diagnostics.explained_variance(ratios, components=2),
            "effective_rank": diagnostics.effective_rank(ratios),
        }
        return found | ({"circle": diagnostics.circle_metric(table)} if table.shape[1] > 1 else {})

    return classification.of_dataset(config, mesh, dataset, penalty=penalty, describe=describe)


def pairs(data_config: Mapping[str, Any], *, modulus: int, seed: int) -> Dataset:
    """All p^2 pairs as a dataset: inputs float32 [2] with the numbers themselves.

    Args:
      data_config: config.data.
      modulus: p.
      seed: the run's seed, for the split where split_seed is None.

    Raises:
      BadInput: fractions that leave a split empty, or too small to be stratified.
    """
    grid = np.stack(np.meshgrid(np.arange(modulus), np.arange(modulus), indexing="ij"), axis=-1)
    inputs = grid.reshape(-1, 2).astype(np.float32)
    labels = (grid.sum(axis=-1) % modulus).reshape(-1)
    options = read_options(data_config, seed=seed)
    return Dataset(
        name=f"addition modulo {modulus}",
        num_classes=modulus,
        input_shape=(2,),
        task="multiclass",
        licence="none needed: synthetic",
        class_names=tuple(map(str, range(modulus))),
        **subsets(inputs, labels, hold_out(labels, options, where="modular_addition")),
    )
