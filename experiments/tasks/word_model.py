# SPDX-License-Identifier: Apache-2.0
"""A word from the words before it, to compare output layers over a vocabulary.

`config.data.path` is a directory of texts (`experiments/data/words.py`), `config.model` a
context_mlp, `config.loss` any loss that the output layer knows
(`experiments/models/output_layers.py`). Keys of `config.task`:

    context          n, how many words an example has
    min_count        rarer words of the training text are unknown
    output           "streaming": any loss of the statistics, a kernel trained by config.optimizer
                     "spherical": z_loss, taylor_softmax, spherical_softmax; exact SGD in O(width^2)
                     "sampled": cross-entropy over the word and num_samples log-uniform others
    num_samples      of the sampled layer
    learning_rate    of the spherical layer, which is its own optimizer
    stabilize_every  steps between two stabilisations of the spherical layer

Metrics of every evaluation: error_1, error_5, error_10, error_20, error_50 (how often the word is
not among the first so many), accuracy = 1 - error_1, and loss, the mean of config.loss (over the
whole vocabulary for the sampled layer, too).
"""

from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from experiments import models
from experiments.computing import refuse_accumulate
from experiments.config import Rule, check_task, one_of, resolve_loss
from experiments.data.words import load_words
from experiments.errors import BadInput
from experiments.job import Job, over_split
from experiments.models import output_layers
from experiments.optimizer import make_optimizer
from experiments.step import Batch, make_init, make_step

FIRST = (1, 5, 10, 20, 50)

RULES = {
    "context": Rule(int, "an integer >= 1", lambda v: v >= 1),
    "min_count": Rule(int, "an integer >= 1", lambda v: v >= 1),
    "output": one_of("streaming", "spherical", "sampled"),
    "num_samples": Rule(int, "an integer >= 1", lambda v: v >= 1),
    "learning_rate": Rule((int, float), "a number > 0", lambda v: v > 0),
    "stabilize_every": Rule(int, "an integer >= 1", lambda v: v >= 1),
}


def build(config: ConfigDict, mesh: Mesh) -> Job:
    """The job; see the top of the file.

    Raises:
      BadInput: a key of config.task, the data, the loss or the model are not what they should be.
    """
    check_task(config, RULES)
    task = config.task
    if config.model.get("name") != "context_mlp":
        raise BadInput(
            "--config.model.name: expected context_mlp for word_model, got "
            f"{config.model.get('name')!r}"
        )
    entry, arguments = resolve_loss(config)
    if task.output == "spherical":
        refuse_accumulate(config, "the spherical layer's own step is taken once a batch")
        output = output_layers.spherical(entry, arguments, task)
    elif task.output == "sampled":
        output = output_layers.sampled(entry, task.num_samples)
    else:
        output = output_layers.streaming(entry, arguments, mesh)
    dataset = load_words(
        config.data, context=task.context, min_count=task.min_count, seed=config.seed
    )
    classes, width = dataset.num_classes, config.model.hidden[-1]
    network = models.of_config(config, input_shape=dataset.input_shape, num_scores=classes)
    optimizer, schedule = make_optimizer(config)

    def init(key: jax.Array) -> Any:
        network_key, output_key = jax.random.split(key)
        return {
            "network": network.init(network_key),
            "output": output.init(output_key, width, classes),
        }

    @jax.jit
    def ranked(params: Any, batch: Batch) -> dict[str, jax.Array]:
        features = network.apply(params["network"], batch["inputs"], None)
        losses, ranks = output.evaluate(params["output"], features, batch["label"])
        return {"loss": losses, "rank": ranks}

    def evaluate(params: Any, split: str) -> tuple[dict[str, float], None]:
        source = getattr(dataset, split)
        found = over_split(source, lambda batch: ranked(params, batch), config, mesh)
        errors = {f"error_{k}": float(np.mean(found["rank"] >= k)) for k in FIRST}
        loss = float(np.mean(found["loss"], dtype=np.float64))
        return {"accuracy": 1.0 - errors["error_1"], "loss": loss, **errors}, None

    return Job(
        config=config,
        dataset=dataset,
        mesh=mesh,
        init=make_init(init, optimizer, output.own),
        step=make_step(output.propose(network, config.accumulate), optimizer, schedule, output.own),
        evaluate=evaluate,
        name=f"{task.output} {entry.name}",
        entry=entry,
        notes=(f"{classes:,} words",),
    )
