# SPDX-License-Identifier: Apache-2.0
"""Output layers over a large vocabulary, as a task sees them: how a step and a rank are taken.

The network gives features h [B, d]; parameters are {"network": ..., "output": ...}. No layer has a
bias.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from ml_collections import ConfigDict

from experiments.accumulation import Terms
from experiments.errors import BadInput
from experiments.models import Model
from experiments.step import Proposal, Propose, descend
from xloss import heads
from xloss.catalogue import Entry

#: What the spherical layer knows of the logits.
SPHERICAL = ("target", "mean", "centred", "variance", "class_count")


class OutputLayer(NamedTuple):
    """An output layer.

    Attributes:
      init: (key, d, V) -> its parameters.
      propose: (network, micro-batches) -> what a step makes of parameters and a batch.
      evaluate: (output parameters, h, labels) -> (losses [B], ranks [B] of the labels).
      own: the parts of the parameters that are their own optimizer (`step.make_step`).
    """

    init: Callable[[jax.Array, int, int], Any]
    propose: Callable[[Model, int], Propose]
    evaluate: Callable[[Any, jax.Array, jax.Array], tuple[jax.Array, jax.Array]]
    own: tuple[str, ...] = ()


def streaming(entry: Entry, arguments: Mapping[str, Any], mesh: Mesh) -> OutputLayer:
    """Any loss of the statistics, its kernel trained like the network.

    Raises:
      BadInput: a loss that needs more than the statistics of one example.
    """
    if not entry.takes_statistics or entry.couples_batch or "key" in entry.needs:
        raise BadInput(
            "--config.loss.name: expected a loss of the statistics of one word for "
            f"output='streaming', got {entry.name!r}"
        )

    def losses(hidden, kernel, labels, key):
        return heads.linear_mean_loss(
            hidden, kernel, labels, loss=entry.function, loss_args=arguments, mesh=mesh
        )

    return OutputLayer(draw_kernel, _descending(losses), dense_evaluation(entry, arguments))


def sampled(entry: Entry, num_samples: int) -> OutputLayer:
    """Cross-entropy over the true word and others that are drawn; evaluated over all of them.

    Raises:
      BadInput: another loss than cross_entropy.
    """
    if entry.name != "cross_entropy":
        raise BadInput(
            f"--config.loss.name: expected cross_entropy for output='sampled', got {entry.name!r}"
        )

    def losses(hidden, kernel, labels, key):
        return heads.sampled_softmax(key, hidden, kernel, labels, num_samples=num_samples)

    return OutputLayer(draw_kernel, _descending(losses), dense_evaluation(entry, {}))


def spherical(entry: Entry, arguments: Mapping[str, Any], options: ConfigDict) -> OutputLayer:
    """The spherical family: exact SGD on the kernel at a cost that does not grow with V.

    Args:
      entry: the loss.
      arguments: its hyperparameters.
      options: learning_rate and stabilize_every.

    Raises:
      BadInput: a loss that needs more than target, mean and variance of the logits.
    """
    if unknown := [need for need in entry.needs if need not in SPHERICAL]:
        raise BadInput(
            f"--config.loss.name: expected a loss of {', '.join(SPHERICAL)} for "
            f"output='spherical', got {entry.name!r}, which reads {', '.join(unknown)}"
        )

    def init(key, width, classes):
        return heads.spherical_init(draw_kernel(key, width, classes))

    def propose(network, accumulate):
        assert accumulate == 1, "the task refuses more"

        def of_batch(params, batch, key):
            dropout_key, _ = jax.random.split(key)
            hidden, pull = jax.vjp(
                lambda where: network.apply(where, batch["inputs"], dropout_key), params["network"]
            )
            losses, back, layer = heads.spherical_step(
                params["output"], hidden, batch["label"],
                loss=entry.function, loss_args=arguments, learning_rate=options.learning_rate,
            )  # fmt: skip
            # A step that was left out left the layer as it was; the run is told, and stops.
            sound = layer.skipped == 0
            due = layer.step % options.stabilize_every == 0
            layer = jax.lax.cond(due, heads.spherical_stabilize, lambda same: same, layer)
            gradient = {"network": pull(back)[0]}
            return Proposal(jnp.mean(losses), gradient, {}, {}, {"output": layer}, sound)

        return of_batch

    def evaluate(layer, hidden, labels):
        losses = entry.function(heads.spherical_statistics(layer, hidden, labels), **arguments)
        queries, kernel, _ = heads.spherical_evaluation(layer, hidden)
        return losses, heads.linear_rank(queries, kernel, labels)

    return OutputLayer(init, propose, evaluate, own=("output",))


def _descending(losses: Callable[..., jax.Array]) -> Callable[[Model, int], Propose]:
    """`OutputLayer.propose` of (h, kernel, labels, key) -> losses, or their mean."""

    def propose(network, accumulate):
        def objective(params, batch, key):
            dropout_key, output_key = jax.random.split(key)
            hidden = network.apply(params["network"], batch["inputs"], dropout_key)
            given = network.cast((hidden, params["output"]))
            return Terms(losses(*given, batch["label"], output_key))

        return descend(objective, accumulate)

    return propose


def draw_kernel(key: jax.Array, width: int, classes: int) -> jax.Array:
    """A kernel [d, V] whose logits have unit variance for features of unit variance."""
    return jax.random.normal(key, (width, classes)) / math.sqrt(width)


def dense_evaluation(entry: Entry, arguments: Mapping[str, Any]) -> Callable[..., Any]:
    """`OutputLayer.evaluate` of a kernel."""

    def evaluate(kernel, hidden, labels):
        losses = entry.function(heads.linear_statistics(hidden, kernel, labels), **arguments)
        return losses, heads.linear_rank(hidden, kernel, labels)

    return evaluate
