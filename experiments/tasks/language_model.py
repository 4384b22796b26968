# SPDX-License-Identifier: Apache-2.0
"""A token from those before it: a language model, at every position of a window.

`config.data` is a text, as characters (`experiments/data/characters.py`) or as tokens
(`experiments/data/tokens.py`), `config.model` a transformer, `config.loss` any loss of the
statistics of one example, averaged over all positions. The output kernel "output" [width, V] has no
bias. Keys of `config.task`:

    context        tokens of a window
    head           "plain": all logits at once; "streaming": a block of classes at a time
                   (`xloss.heads.linear_statistics`), for a large vocabulary. A rule of
                   `config.sharding` may spread the classes over a mesh axis, as in
                   (r"^output$", (None, "model")): the devices then exchange statistics, no logits
    eval_windows   an evaluation looks at no more windows than that, spread evenly over the split
    log_partition  times the mean of (log Z)^2, added to the training objective
                   (`xloss.classification.log_partition_penalty`); 0 is without

Metrics of every evaluation: loss, which is cross-entropy in nats per token whatever is trained
(without the penalty); accuracy; log_partition_square, the mean of (log Z)^2; max_attention_logit,
over all windows, blocks and heads. The training log's loss is the objective, with cross_entropy
beside it.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

import xloss
from experiments import models, sharding
from experiments.accumulation import Terms
from experiments.config import Rule, check_task, one_of, resolve_loss
from experiments.data.characters import load_characters
from experiments.data.tokens import are_tokens, load_tokens
from experiments.errors import BadInput
from experiments.job import Job, over_split
from experiments.models.output_layers import draw_kernel
from experiments.optimizer import make_optimizer
from experiments.step import Batch, descend, make_init, make_step
from xloss.classification import log_partition_penalty
from xloss.heads import linear_statistics
from xloss.optim import optimizer_state_bytes

RULES = {
    "context": Rule(int, "an integer >= 1", lambda v: v >= 1),
    "head": one_of("plain", "streaming"),
    "eval_windows": Rule(int, "an integer >= 1", lambda v: v >= 1),
    "log_partition": Rule((int, float), "a number >= 0", lambda v: v >= 0),
}


def build(config: ConfigDict, mesh: Mesh) -> Job:
    """The job; see the top of the file.

    Raises:
      BadInput: a key of config.task, the data, the loss or the model are not what they should be.
    """
    check_task(config, RULES)
    task = config.task
    if config.model.get("name") != "transformer":
        raise BadInput(
            "--config.model.name: expected transformer for language_model, got "
            f"{config.model.get('name')!r}"
        )
    entry, arguments = resolve_loss(config)
    if not entry.takes_statistics or entry.couples_batch or "key" in entry.needs:
        raise BadInput(
            "--config.loss.name: expected a loss of the statistics of one example for "
            f"language_model, got {entry.name!r}"
        )
    load = load_tokens if are_tokens(config.data) else load_characters
    dataset = load(config.data, context=task.context, seed=config.seed)
    classes = dataset.num_classes
    network = models.of_config(config, input_shape=dataset.input_shape, num_scores=classes)
    optimizer, schedule = make_optimizer(config)

    def init(key: jax.Array) -> Any:
        network_key, output_key = jax.random.split(key)
        output = draw_kernel(output_key, config.model.width, classes)
        return {"network": network.init(network_key), "output": output}

    class_axis = sharding.only_axis(config.sharding, "output", 1)

    def statistics(features: jax.Array, params: Any, batch: Batch) -> xloss.LogitStatistics:
        features, kernel = network.cast((features, params["output"]))
        if task.head == "streaming":
            return linear_statistics(
                features, kernel, batch["label"], mesh=mesh, class_axis=class_axis
            )
        exact = jnp.promote_types(features.dtype, jnp.float32)
        logits = jnp.matmul(features, kernel, preferred_element_type=exact)
        return xloss.logit_statistics(logits, batch["label"])

    def objective(params: Any, batch: Batch, key: jax.Array) -> Terms:
        stats = statistics(network.apply(params["network"], batch["inputs"], key), params, batch)
        losses = entry.function(stats, **arguments)
        if task.log_partition:
            losses += log_partition_penalty(stats, coef=task.log_partition)
        return Terms(losses, {"accuracy": stats.lead > 0, "cross_entropy": -stats.log_prob})

    abstract = jax.eval_shape(init, jax.random.key(0))
    state_bytes = float(optimizer_state_bytes(jax.eval_shape(optimizer.init, abstract)))

    @jax.jit
    def measured(params: Any, batch: Batch) -> dict[str, jax.Array]:
        features, peaks = network.apply(params["network"], batch["inputs"], None, greatest=True)
        stats = statistics(features, params, batch)
        return {
            "loss": jnp.mean(-stats.log_prob, axis=1),
            "accuracy": jnp.mean(stats.lead > 0, axis=1, dtype=jnp.float32),
            "log_partition_square": jnp.mean(stats.log_partition**2, axis=1),
            "max_attention_logit": peaks,
        }

    def evaluate(params: Any, split: str) -> tuple[dict[str, float], None]:
        source = getattr(dataset, split).at_most(task.eval_windows)
        found = over_split(source, lambda batch: measured(params, batch), config, mesh)
        names = ("accuracy", "loss", "log_partition_square")
        metrics = {name: float(np.mean(found[name], dtype=np.float64)) for name in names}
        metrics["max_attention_logit"] = float(np.max(found["max_attention_logit"]))
        return metrics | {"optimizer_state_bytes": state_bytes}, None

    sizes = {name: len(getattr(dataset, name)) for name in ("validation", "test")}
    looked_at = (f"{min(size, task.eval_windows):,} of {size:,} {n}" for n, size in sizes.items())
    return Job(
        config=config,
        dataset=dataset,
        mesh=mesh,
        init=make_init(init, optimizer),
        step=make_step(descend(objective, config.accumulate), optimizer, schedule),
        evaluate=evaluate,
        name=f"{entry.name}, next token",
        entry=entry,
        notes=(
            f"{classes:,} classes",
            f"evaluations look at {' and '.join(looked_at)} windows",
        ),
    )
