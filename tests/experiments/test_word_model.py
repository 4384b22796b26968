# SPDX-License-Identifier: Apache-2.0
"""Output layers over a vocabulary in the one loop: texts, steps, ranks, resuming, bad steps."""

import contextlib
import gzip
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments import sharding, train
from experiments.checkpoint import Checkpoints
from experiments.config import load_file, locate
from experiments.data.words import load_words
from experiments.errors import BadInput
from experiments.job import build
from xloss import heads

WORDS = ("the", "a", "lobster", "river", "of", "is", ".", "old", "red", "near")


@pytest.fixture(autouse=True)
def promotion_that_optax_needs():
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture(scope="module")
def text(tmp_path_factory) -> Path:
    """A directory as WikiText's, without its training text: ten words in turn, 8 a line."""
    rng, root = np.random.default_rng(0), tmp_path_factory.mktemp("text")
    for name, lines in (("valid", 60), ("test", 20)):
        drawn = (" ".join(np.roll(WORDS, rng.integers(10))[:8]) for _ in range(lines))
        with gzip.open(root / f"{name}.txt.gz", "wt", encoding="utf-8") as file:
            file.write(" \n".join(drawn) + "\n \n")
    return root


def config_of(text, output, **changes):
    config = load_file(locate("wikitext_zloss:quick"))
    config.update(steps=4, log_every=2, eval_every=2, checkpoint_every=2)
    config.data.update(path=str(text), batch_size=16, eval_batch_size=64)
    config.model.update(embedding=3, hidden=(4,))
    config.task.update(output=output, context=2, num_samples=5, learning_rate=0.5)
    config.task.stabilize_every = 2
    if output == "spherical":
        config.loss.update(name="z_loss", a=0.5, b=1.0)
    config.update_from_flattened_dict(changes)
    return config


def test_every_word_is_predicted_once_from_those_before_it(tmp_path):
    (tmp_path / "train.txt").write_text("b a b\n\n \nb c\n")
    (tmp_path / "valid.txt").write_text("c zebra\n")
    (tmp_path / "test.txt").write_text("a\n")
    options = {"path": str(tmp_path), "validation_fraction": 0.5}
    found = load_words(options, context=2, min_count=1, seed=0)
    assert found.class_names == ("b", "<eos>", "a", "c", "<unk>") and found.num_classes == 5
    rows = found.train.gather(np.arange(len(found.train)))
    np.testing.assert_array_equal(rows["label"], [0, 2, 0, 1, 0, 3, 1])
    np.testing.assert_array_equal(
        rows["inputs"], [[1, 1], [1, 0], [0, 2], [2, 0], [0, 1], [1, 0], [0, 3]]
    )
    held_out = found.validation.gather(np.arange(3))
    np.testing.assert_array_equal(held_out["label"], [3, 4, 1])  # zebra is unknown
    rarer = load_words(options, context=2, min_count=2, seed=0)
    assert rarer.class_names == ("b", "<eos>", "<unk>")


def test_what_is_no_text_is_one_line(tmp_path):
    def load(path):
        return load_words({"path": path}, context=2, min_count=1, seed=0)

    with pytest.raises(BadInput, match="config.data.path: expected a directory"):
        load(None)
    with pytest.raises(BadInput, match="no such directory"):
        load(str(tmp_path / "missing"))
    with pytest.raises(BadInput, match=r"expected valid.txt or valid.txt.gz"):
        load(str(tmp_path))
    (tmp_path / "valid.txt").write_bytes(b"\xff\xfe\xfd")
    with pytest.raises(BadInput, match=r"valid.txt: not text in UTF-8"):
        load(str(tmp_path))
    (tmp_path / "valid.txt").write_text("one two three\n")
    (tmp_path / "test.txt").write_text("\n")
    with pytest.raises(BadInput, match="no words are left for the test split"):
        load(str(tmp_path))


def test_a_spherical_run_that_stops_and_resumes_ends_with_the_same_bits(text, tmp_path):
    config = config_of(text, "spherical")
    train.train(config, str(tmp_path), max_steps=2)
    assert train.train(config, str(tmp_path)).step == 4
    job = build(config)
    with contextlib.closing(Checkpoints(tmp_path, keep=1)) as checkpoints:
        resumed = checkpoints.restore(job.abstract_state(), None)

    state, batches = job.init(jax.random.key(config.seed)), job.train_batches()
    with jax.set_mesh(job.mesh):
        for _ in range(4):
            state, _ = job.step(state, sharding.to_devices(next(batches), job.mesh))
    for left, right in zip(*map(jax.tree.leaves, ((4, state), resumed)), strict=True):
        if jax.numpy.issubdtype(getattr(left, "dtype", None), jax.dtypes.prng_key):
            left, right = map(jax.random.key_data, (left, right))
        np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize("output", ["streaming", "sampled"])
def test_other_layers_learn_and_rank_all_words(text, output):
    job = build(config_of(text, output, **{"optimizer.learning_rate": 0.03}))
    state, batches = job.init(jax.random.key(0)), job.train_batches()
    before, none = job.evaluate(state["params"], "test")
    with jax.set_mesh(job.mesh):
        for _ in range(20):
            state, metrics = job.step(state, sharding.to_devices(next(batches), job.mesh))
    after, _ = job.evaluate(state["params"], "test")
    assert none is None and np.isfinite(metrics["loss"])
    assert after["loss"] < before["loss"]
    assert after["error_50"] == 0.0 <= after["error_10"] <= after["error_5"] < after["error_1"]
    assert after["accuracy"] == 1.0 - after["error_1"]


def test_the_spherical_layer_takes_the_steps_of_a_dense_layer_with_sgd(text):
    job = build(config_of(text, "spherical"))
    state, batches = job.init(jax.random.key(3)), job.train_batches()
    loss = job.entry.function
    with jax.set_mesh(job.mesh):
        for _ in range(5):  # over two stabilisations
            layer = jax.tree.map(np.asarray, state["params"]["output"])
            network = jax.tree.map(np.asarray, state["params"]["network"])
            kernel = heads.spherical_to_dense(layer)
            batch = next(batches)
            x = network["embedding"]["embedding"][batch["inputs"].astype(int)].reshape(16, -1)
            x = np.tanh(x @ network["hidden_0"]["kernel"] + network["hidden_0"]["bias"])

            def mean(kernel, x=x, batch=batch):
                return jax.numpy.mean(loss(x @ kernel, batch["label"], a=0.5, b=1.0))

            expected = kernel - 0.5 * jax.grad(mean)(kernel)
            state, metrics = job.step(state, sharding.to_devices(batch, job.mesh))
            np.testing.assert_allclose(metrics["loss"], mean(kernel), rtol=1e-5)
            found = heads.spherical_to_dense(jax.device_get(state["params"]["output"]))
            np.testing.assert_allclose(found, expected, atol=2e-5)
    shapes = {leaf.shape for leaf in jax.tree.leaves(state["optimizer"])}
    assert layer.rows.shape not in shapes and (4,) in shapes  # Adam's moments are the network's


def test_the_big_array_of_the_spherical_layer_is_updated_in_place(text):
    job = build(config_of(text, "spherical", **{"model.hidden": (256,)}))
    with jax.set_mesh(job.mesh):
        program = job.step.lower(job.abstract_state(), job.abstract_batch()).compile()
    held = job.abstract_state()["params"]["output"].rows
    memory = program.memory_analysis()
    assert memory.alias_size_in_bytes >= held.size * held.dtype.itemsize


def test_a_singular_update_stops_the_run_and_keeps_the_weights(text, tmp_path):
    config = config_of(text, "spherical", **{"task.learning_rate": 1e30})
    with pytest.raises(train.NonFinite) as stopped:
        train.train(config, str(tmp_path))
    assert stopped.value.step in (1, 2)


def test_a_loss_that_the_output_layer_does_not_know_is_refused(text):
    for output, name, message in (
        ("spherical", "cross_entropy", "which reads log_odds"),
        ("sampled", "focal", "expected cross_entropy for output='sampled', got 'focal'"),
        ("streaming", "ensloss", "expected a loss of the statistics of one word"),
    ):
        config = config_of(text, output)
        config.loss.update(name=name, a=None, b=None)
        with pytest.raises(BadInput, match=message):
            build(config)
    with pytest.raises(BadInput, match="expected context_mlp for word_model"):
        build(config_of(text, "streaming", **{"model.name": "mlp"}))
