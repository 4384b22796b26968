# SPDX-License-Identifier: Apache-2.0
"""Gradient accumulation: micro-batches give the numbers of the whole batch, in every task."""

import gzip
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import accumulation, sharding
from experiments.accumulation import Terms, mean_and_gradient
from experiments.config import load_file, locate
from experiments.errors import BadInput
from experiments.job import build
from tests.experiments import tf_bind_table


@pytest.fixture(autouse=True)
def promotion_that_optax_needs():
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Small data: a text, and an npz of several labels an example."""
    root, draw = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    for name, lines in (("train", 40), ("valid", 20), ("test", 20)):
        rows = (" ".join(draw.choice(["a", "b", "the", "of", "."], 8)) for _ in range(lines))
        with gzip.open(root / f"{name}.txt.gz", "wt", encoding="utf-8") as file:
            file.write(" \n".join(rows))
    arrays = {}
    for split, size in (("train", 60), ("test", 16)):
        labels = [np.flatnonzero(draw.random(7) < 0.3) for _ in range(size)]  # some have none
        arrays |= {
            f"{split}_indptr": 5 * np.arange(size + 1), f"{split}_shape": np.asarray([size, 5]),
            f"{split}_indices": np.tile(np.arange(5), size), f"{split}_n_labels": np.asarray(7),
            f"{split}_data": draw.normal(size=5 * size).astype(np.float32),
            f"{split}_y_indptr": np.cumsum([0, *map(len, labels)]),
            f"{split}_y_indices": np.concatenate(labels),
        }  # fmt: skip
    np.savez(root / "labels.npz", **arrays)
    tf_bind_table.write(root / "FAKE_8mers.txt.gz", tf_bind_table.lines())
    return root


#: Those that take longer to compile than they tell beside the others.
SLOW = ("modular_addition", "multi_task, sam", "pass_at_n", "adversarial")
#: Config, and what to change in it; {} stands for the directory of the data.
CASES = {
    "classification": ("digits", {}),
    "sam": ("digits", {"optimizer.sharpness": "sam", "optimizer.rho": 0.1}),
    "imbalanced": ("imbalanced", {"data.name": "breast_cancer", "task.objective": "balanced"}),
    "multi_label": ("bibtex", {"data.path": "{}/labels.npz", "loss.name": "soft_cross_entropy"}),
    "modular_addition": ("harmonic_modular_addition", {"task.modulus": 23}),
    "language_model": ("char_lm", {
        "data.path": "{}", "task.context": 6, "task.eval_windows": 8, "task.log_partition": 0.1,
        "model.width": 8, "model.heads": 2, "model.depth": 1, "model.mlp_ratio": 1,
    }),
    "word_model": ("wikitext_zloss", {
        "data.path": "{}", "task.context": 2, "task.output": "streaming", "model.embedding": 3,
        "loss.name": "cross_entropy", "loss.a": None, "loss.b": None,
    }),
    "multi_task, log losses": ("multi_task_fashion", {
        "task.method": "plain", "task.aggregator": "linear", "task.weighting": "log_losses",
        "task.rho": 0.0,
    }),
    "multi_task, sam": ("multi_task_fashion", {"task.method": "split"}),
    "offline_design": ("tf_bind_8", {"data.path": "{}/FAKE_8mers.txt.gz", "task.method": "ignite"}),
    "pass_at_n": ("pass_at_n", {}),
    # Attacks of radius 0: their random starts are others in micro-batches.
    "adversarial": ("adversarial_digits:trades", {"task.steps": 1, "task.radius": 0.0}),
}  # fmt: skip


def config_of(root, name, changes):
    config = load_file(locate(name))
    config.data.update(batch_size=48, eval_batch_size=64)
    config.optimizer.update(name="sgd", learning_rate=0.1, schedule="constant", warmup_steps=0)
    config.optimizer.weight_decay = 0.0
    if "hidden" in config.model:
        config.model.hidden = 8 if isinstance(config.model.hidden, int) else (8,)
    if "dropout" in config.model:
        config.model.dropout = 0.0
    filled = {k: v.format(root) if isinstance(v, str) else v for k, v in changes.items()}
    config.update_from_flattened_dict(filled)
    return config


@pytest.mark.parametrize(
    "case", [pytest.param(c, marks=[pytest.mark.slow] if c in SLOW else []) for c in CASES]
)
def test_a_step_is_that_of_the_whole_batch(case, root, x64):
    found, rows = [], None
    for count in (1, 3):
        config = config_of(root, *CASES[case])
        config.update(param_dtype="float64", accumulate=count)
        mesh = sharding.make_mesh(devices=jax.devices()[:2])
        job = build(config, mesh)
        state = job.init(jax.random.key(0))
        before = jax.tree.map(np.asarray, state["params"])
        rows = next(job.train_batches()) if rows is None else rows
        with jax.set_mesh(mesh):
            state, metrics = job.step(state, sharding.to_devices(rows, mesh))
        moved = jax.tree.map(lambda new, old: np.asarray(new) - old, state["params"], before)
        found.append((moved, {name: float(value) for name, value in metrics.items()}))

    (moved, metrics), (same, others) = found
    size = max(np.abs(leaf).max() for leaf in jax.tree.leaves(moved))
    assert size > 1e-5
    for left, right in zip(jax.tree.leaves(moved), jax.tree.leaves(same), strict=True):
        np.testing.assert_allclose(right, left, rtol=0, atol=1e-11 * size)
    assert others == pytest.approx(metrics, rel=1e-10)


def test_masks_and_weights_count_as_in_one_batch(x64):
    draw = np.random.default_rng(0)
    x, y, weights = draw.normal(size=(12, 3)), draw.normal(size=12), draw.uniform(0, 5, 12)
    where = np.arange(12) % 4 != 1
    where[[2, 6, 10]] = False  # of the micro-batches of rows i::4 two have nothing
    x[1] = np.nan
    weights[[0, 1]] = 0.0  # the second is masked already
    batch = {"x": x, "y": y, "where": where, "weights": weights}
    batch = {name: jnp.asarray(rows) for name, rows in batch.items()}

    def objective(params, piece, key):
        safe = jnp.where(piece["where"][:, None], piece["x"], 0)
        errors = jnp.square(safe @ params - piece["y"])
        return Terms(errors, {"large": errors > 1}, piece["where"], piece["weights"])

    params = jnp.asarray([0.3, -1.0, 2.0])
    errors = x[where] @ np.asarray(params) - y[where]
    share = weights[where] / weights[where].sum()
    expected = 2 * (share * errors) @ x[where]
    for count in (1, 2, 4):
        loss, metrics, gradient = mean_and_gradient(
            objective, params, batch, jax.random.key(0), count
        )
        np.testing.assert_allclose(loss, share @ errors**2, rtol=1e-13)
        np.testing.assert_allclose(gradient, expected, rtol=1e-12)
        np.testing.assert_allclose(metrics["large"], np.mean(errors**2 > 1), rtol=1e-13)
        assert metrics["fraction_masked"] == pytest.approx(7 / 12)

    nothing = batch | {"where": jnp.zeros(12, bool)}
    loss, _, gradient = mean_and_gradient(objective, params, nothing, jax.random.key(0), 3)
    assert float(loss) == 0.0 and not np.any(gradient)


def test_draws_have_a_key_for_every_micro_batch():
    batch, key = {"x": jnp.arange(6.0)}, jax.random.key(3)

    def objective(params, piece, piece_key):
        return Terms(params * piece["x"] * jax.random.normal(piece_key, piece["x"].shape))

    for count in (1, 2, 3):
        keys = [key] if count == 1 else [jax.random.fold_in(key, i) for i in range(count)]
        drawn = [jax.random.normal(k, (6 // count,)) for k in keys]
        by_hand = np.mean([jnp.arange(6.0)[i::count] * noise for i, noise in enumerate(drawn)])
        _, _, gradient = mean_and_gradient(objective, jnp.asarray(1.0), batch, key, count)
        np.testing.assert_allclose(gradient, by_hand, rtol=1e-6)


def test_means_can_be_differentiated_twice(x64):
    batch = {"x": jnp.asarray(np.random.default_rng(0).normal(size=(6, 2)))}

    def mean(params, count):
        return accumulation.means(
            lambda p, piece, key: jnp.sin(piece["x"] @ p), params, batch, jax.random.key(0), count
        )

    params = jnp.asarray([0.5, -0.7])
    for derivative in (jax.grad, jax.hessian):
        whole, pieces = (derivative(mean)(params, count) for count in (1, 3))
        np.testing.assert_allclose(pieces, whole, rtol=1e-12)


def test_no_row_changes_its_device_and_activations_shrink():
    found = {}
    for count in (1, 4):
        config = load_file(locate("digits"))
        config.data.batch_size, config.model.hidden = 2048, (256,)
        config.accumulate = count
        job = build(config)
        assert job.notes == (("4 micro-batches of 512 examples a step",) if count > 1 else ())
        with jax.set_mesh(job.mesh):
            lowered = job.step.lower(job.abstract_state(), job.abstract_batch())
            found[count] = lowered.compile()
    for kind in ("all-gather", "all-to-all", "collective-permute"):
        whole, pieces = (len(re.findall(kind, found[c].as_text())) for c in (1, 4))
        assert pieces <= whole, kind
    whole, pieces = (found[c].memory_analysis().temp_size_in_bytes for c in (1, 4))
    assert pieces < 0.6 * whole


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("digits", {"accumulate": 4}, "micro-batches of a batch of 48 .* 8 devices .* got 4"),
        ("digits", {"accumulate": 0}, "expected an integer >= 1, got 0"),
        ("breast_cancer", {"accumulate": 2}, "1 .the loss 'ensloss' couples .*, got 2"),
        ("imbalanced", {"accumulate": 2, "data.name": "breast_cancer", "task.objective": "dice"},
         "1 .dice is a loss of the whole batch., got 2"),
        ("wikitext_zloss", {"accumulate": 2, "data.path": "{}", "task.output": "spherical"},
         "1 .the spherical layer"),
    ],
)  # fmt: skip
def test_what_cannot_be_cut_is_one_line(name, changes, words, root):
    with pytest.raises(BadInput, match=f"--config.accumulate: .*{words}"):
        build(config_of(root, name, changes))
