# SPDX-License-Identifier: Apache-2.0
"""Offline design: learn a score from the known designs, then search on what was learned.

The surrogate is trained on the lower half of the scores by mean squared error (scores standardised
over the training split), with or without IGNITE. The search starts from the best known designs and
ascends the surrogate's prediction, by Adam on the logits of a softmax over the letters of each
place. What it ends with is looked up in the table, which knows all designs.

Keys of `config.task`:

    method         "gradient_ascent" (no regulariser) or "ignite"
    rho, radius, eps, eta_lambda, lam0, clip_lambda, adapt
                   of `xloss.optim.ignite`; adapt=False with lam0=0.01, rho=radius=0.2 is IGNITE-2
    designs        how many designs start and are scored
    search_steps   steps of the search
    search_rate    its learning rate

Metrics. Validation: loss, rank_correlation, sharpness_norm (of the gradient of the mean
prediction: IGNITE's bound is eps / rho). Test: score_100, score_80, score_50, percentiles of the
TRUE scores in [0, 1] of the designs found; predicted_score, the mean of what the surrogate promises
for them; distinct_designs. Nothing may be chosen by the test metrics but predicted_score.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict
from scipy import stats

from experiments import models, sharding
from experiments.accumulation import Terms, means
from experiments.config import Rule, check_task, one_of
from experiments.data.tf_bind import PLACES, load_tf_bind
from experiments.errors import BadInput
from experiments.job import Job, over_split
from experiments.optimizer import make_optimizer
from experiments.step import Batch, Proposal, descend, make_init, make_step
from xloss import optim
from xloss.catalogue import METHODS

#: Part of a start design that is its own letter, the rest being uniform (Design-Bench's logits).
CERTAINTY = 0.6
PERCENTILES = (100, 80, 50)
#: Examples of the validation split on which the sharpness is measured.
SHARPNESS_EXAMPLES = 1024

_NUMBER = (int, float)
RULES = {
    "method": one_of("gradient_ascent", "ignite"),
    "rho": Rule(_NUMBER, "a number >= 0", lambda v: v >= 0),
    "radius": Rule(_NUMBER, "a number > 0", lambda v: v > 0),
    "eps": Rule(_NUMBER, "a number >= 0", lambda v: v >= 0),
    "eta_lambda": Rule(_NUMBER, "a number >= 0", lambda v: v >= 0),
    "lam0": Rule(_NUMBER, "a number", lambda v: True),
    "clip_lambda": Rule(bool, "True or False", lambda v: True),
    "adapt": Rule(bool, "True or False", lambda v: True),
    "designs": Rule(int, "an integer >= 1", lambda v: v >= 1),
    "search_steps": Rule(int, "an integer >= 0", lambda v: v >= 0),
    "search_rate": Rule(_NUMBER, "a number > 0", lambda v: v > 0),
}
_OF_IGNITE = ("rho", "radius", "eps", "eta_lambda", "lam0", "clip_lambda", "adapt")


def build(config: ConfigDict, mesh: Mesh) -> Job:
    """The job of an offline design problem.

    Raises:
      BadInput: the task's keys, the data or the model are not what they should be.
    """
    check_task(config, RULES)
    task = config.task
    dataset = load_tf_bind(config.data, seed=config.seed)
    model = models.of_config(config, input_shape=dataset.input_shape, num_scores=None)
    known = dataset.train.gather(np.arange(len(dataset.train)))
    if task.designs > len(dataset.train):
        raise BadInput(
            f"--config.task.designs: expected at most the {len(dataset.train)} known designs, "
            f"got {task.designs}"
        )
    centre, width = float(np.mean(known["label"])), float(np.std(known["label"]))
    first = optim.ignite(**{key: task[key] for key in _OF_IGNITE})
    optimizer, schedule = make_optimizer(config, first if task.method == "ignite" else None)

    def predicted(params: Any, batch: Batch, key: jax.Array) -> jax.Array:
        return model.apply(params, batch["inputs"], key)

    def objective(params: Any, batch: Batch, key: jax.Array) -> Terms:
        targets = (batch["label"] - centre) / width
        return Terms(jnp.square(predicted(params, batch, key) - targets))

    descent = descend(objective, config.accumulate)

    def propose(params: Any, batch: Batch, key: jax.Array) -> Proposal:
        def mean_prediction(where: Any) -> jax.Array:
            return means(predicted, where, batch, key, config.accumulate)

        proposal = descent(params, batch, key)
        return proposal._replace(extra=proposal.extra | {"mean_prediction_fn": mean_prediction})

    predict = sharding.jit_rows(
        lambda params, inputs: model.apply(params, inputs, None) * width + centre, mesh
    )
    held_out = dataset.validation.gather(
        np.arange(min(SHARPNESS_EXAMPLES, len(dataset.validation)))
    )

    @jax.jit
    def sharpness_norm(params: Any, inputs: jax.Array) -> jax.Array:
        return optim.surrogate_sharpness(
            lambda where: jnp.mean(model.apply(where, inputs, None)), params, rho=1.0
        )

    best = np.argsort(known["label"], kind="stable")[::-1][: task.designs]
    found_by = make_search(model, task.search_steps, task.search_rate)
    truth = dataset.test.gather(np.arange(len(dataset.test)))["label"]

    def evaluate(params: Any, split: str) -> tuple[dict[str, float], None]:
        if split == "test":
            letters, promised = jax.device_get(found_by(params, known["inputs"][best]))
            numbers = letters @ PLACES
            scores = np.percentile(truth[numbers], PERCENTILES)
            metrics = {f"score_{p}": float(s) for p, s in zip(PERCENTILES, scores, strict=True)}
            metrics["predicted_score"] = float(np.mean(promised) * width + centre)
            metrics["distinct_designs"] = float(np.unique(numbers).size)
            return metrics, None
        rows = over_split(
            getattr(dataset, split),
            lambda batch: {"prediction": predict(params, batch["inputs"])},
            config,
            mesh,
        )
        errors = (rows["prediction"] - rows["label"]).astype(np.float64) / width
        return {
            "loss": float(np.mean(np.square(errors))),
            "rank_correlation": float(stats.spearmanr(rows["prediction"], rows["label"])[0]),
            "sharpness_norm": float(sharpness_norm(params, held_out["inputs"])),
        }, None

    return Job(
        config=config,
        dataset=dataset,
        mesh=mesh,
        init=make_init(model.init, optimizer),
        step=make_step(propose, optimizer, schedule),
        evaluate=evaluate,
        name=task.method,
        entry=METHODS.get(task.method),
        notes=(f"best known score: {float(np.max(known['label'])):.3f}; the best is 1",),
    )


def make_search(model: models.Model, steps: int, rate: float) -> Any:
    """(parameters, start designs [n, 8, 4]) -> (letters [n, 8], their predictions [n]), jitted.

    Each design ascends by itself: Adam's steps are elementwise. The letters are the most likely
    ones at the end, and the predictions those of the letters.
    """
    climb = optax.adam(rate)

    @jax.jit
    def search(params: Any, start: jax.Array) -> tuple[jax.Array, jax.Array]:
        def promised(logits: jax.Array) -> jax.Array:
            return jnp.sum(model.apply(params, jax.nn.softmax(logits), None))

        def step(carry: Any, _: None) -> tuple[Any, None]:
            logits, state = carry
            descent = -jax.grad(promised)(logits)
            updates, state = climb.update(descent, state, logits)
            return (optax.apply_updates(logits, updates), state), None

        logits = jnp.log(CERTAINTY * start + (1.0 - CERTAINTY) / start.shape[-1])
        (logits, _), _ = jax.lax.scan(step, (logits, climb.init(logits)), length=steps)
        letters = jnp.argmax(logits, axis=-1)
        chosen = jax.nn.one_hot(letters, start.shape[-1], dtype=start.dtype)
        return letters, model.apply(params, chosen, None)

    return search
