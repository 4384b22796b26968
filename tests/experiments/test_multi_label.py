# SPDX-License-Identifier: Apache-2.0
"""Several labels an example: reading, losses of every kind, precision at k, a run that resumes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import sparse

import xloss
from experiments import train
from experiments.config import load_file, locate
from experiments.data.multi_label import load_multi_label
from experiments.errors import BadInput
from experiments.job import build
from experiments.metrics import read_metrics
from experiments.precision_at_k import precision_at_k, propensities
from experiments.tasks.multi_label import losses_of

FEATURES, LABELS = 5, 7
ONE = np.r_[0, np.ones(40, int)]  # rows of which only the first has an entry


def arrays(split, count, seed=0, **changes):
    rng = np.random.default_rng(seed)
    x = sparse.csr_array(rng.integers(0, 2, (count, FEATURES)).astype(np.float32))
    y = sparse.csr_array((rng.uniform(size=(count, LABELS)) < 0.3).astype(np.int32))
    found = {
        "indptr": x.indptr, "indices": x.indices, "data": x.data, "y_indptr": y.indptr,
        "y_indices": y.indices, "shape": np.asarray(x.shape), "n_labels": np.asarray(LABELS),
    }  # fmt: skip
    return {f"{split}_{name}": value for name, value in (found | changes).items()}


@pytest.fixture
def path(tmp_path):
    np.savez(tmp_path / "small.npz", **arrays("train", 40), **arrays("test", 16, 1))
    return tmp_path / "small.npz"


def config_of(path, name, **changes):
    config = load_file(locate("bibtex:quick"))
    config.update(steps=4, log_every=2, eval_every=2, checkpoint_every=2)
    config.data.update(path=str(path), batch_size=16, eval_batch_size=16)
    config.model.hidden = (4,)
    config.loss.name = name
    config.update_from_flattened_dict(changes)
    return config


def test_the_splits_are_those_of_the_file(path):
    found = load_multi_label({"path": str(path), "validation_fraction": 0.25}, seed=0)
    assert [len(s) for s in (found.train, found.validation, found.test)] == [30, 10, 16]
    assert found.input_shape == (FEATURES,) and found.num_classes == LABELS
    rows = [s.gather(np.arange(len(s))) for s in (found.train, found.validation)]
    want = arrays("train", 40)
    assert sum(row["label"].sum() for row in rows) == len(want["train_y_indices"])
    assert sum(row["inputs"].sum() for row in rows) == want["train_data"].sum()
    test = found.test.gather(np.arange(16))
    np.testing.assert_array_equal(
        test["label"].sum(-1), np.diff(arrays("test", 16, 1)["test_y_indptr"])
    )


@pytest.mark.parametrize(
    ("train_changes", "message"),
    [
        ({"y_indices": np.full(1, LABELS), "y_indptr": ONE}, "train rows"),
        ({"indptr": np.arange(3)}, "train rows do not fit"),
        ({"data": np.asarray([np.nan]), "indices": [0], "indptr": ONE}, "expected finite"),
        ({"n_labels": np.asarray(LABELS + 1)}, "its splits differ"),
    ],
)  # fmt: skip
def test_a_file_that_does_not_fit_is_one_line(tmp_path, train_changes, message):
    np.savez(tmp_path / "bad.npz", **arrays("train", 40, **train_changes), **arrays("test", 16, 1))
    with pytest.raises(BadInput, match=rf"bad.npz: .*{message}"):
        load_multi_label({"path": str(tmp_path / "bad.npz")}, seed=0)


def test_what_is_no_such_file_is_one_line(tmp_path):
    for path, message in ((None, "got none"), (str(tmp_path / "a"), "no such file")):
        with pytest.raises(BadInput, match=message):
            load_multi_label({"path": path}, seed=0)
    (tmp_path / "text.npz").write_text("no")
    with pytest.raises(BadInput, match="cannot be read as npz"):
        load_multi_label({"path": str(tmp_path / "text.npz")}, seed=0)
    np.savez(tmp_path / "half.npz", **arrays("train", 40))
    with pytest.raises(BadInput, match="test_indptr"):
        load_multi_label({"path": str(tmp_path / "half.npz")}, seed=0)


def test_precision_at_k_by_hand():
    scores = np.asarray([[3.0, 1.0, 2.0], [0.0, 0.0, 0.0], [1.0, np.nan, 2.0]])
    labels = np.asarray([[0, 1, 1], [0, 1, 0], [0, 0, 0]])
    # Orders 0 2 1, 0 1 2 (ties: the smaller first) and 2 0 1 (NaN last).
    found = precision_at_k(scores, labels, (1, 2), np.asarray([0.5, 0.25, 1.0]))
    assert found["precision_1"] == 0.0
    assert found["precision_2"] == pytest.approx((1 / 2 + 1 / 2 + 0) / 3)
    # Hits weigh 1 / p: label 2 once (1) and label 1 once (4); the best order has 4 + 1 and 4.
    assert found["propensity_precision_2"] == pytest.approx((1 + 4) / (5 + 4))
    nothing = precision_at_k(scores, np.zeros_like(labels), (1,), np.ones(3))
    assert nothing == {"precision_1": 0.0, "propensity_precision_1": 0.0}


def test_rare_labels_have_a_small_propensity():
    found = propensities(np.asarray([1, 10, 1000]), 2000, a=0.55, b=1.5)
    scale = (np.log(2000) - 1) * 2.5**0.55
    np.testing.assert_allclose(found[0], 1 / (1 + scale * np.exp(-0.55 * np.log(2.5))))
    assert np.all(np.diff(found) > 0) and np.all((found > 0) & (found < 1))


def test_every_loss_is_given_what_it_reads():
    rng = np.random.default_rng(0)
    z = jnp.asarray(rng.normal(size=(3, LABELS)).astype(np.float32))
    y = np.asarray([[1, 0, 1, 0, 0, 0, 0], [0] * 7, [0, 1, 0, 0, 0, 0, 0]])
    p = np.asarray(jax.nn.softmax(z))
    log = np.asarray(jax.nn.log_sigmoid(z)), np.asarray(jax.nn.log_sigmoid(-z))
    for name, expected in (
        ("cross_entropy", -np.sum(np.where(y, *log), axis=-1)),
        ("soft_cross_entropy", -np.sum(y * np.log(p), axis=-1)),
        ("decoupled_softmax", xloss.classification.decoupled_softmax(z, y)),
    ):
        losses = losses_of(xloss.catalogue.entry(name), {}, z, jnp.asarray(y, jnp.int32))
        np.testing.assert_allclose(losses, expected, rtol=1e-5, atol=1e-6)
        assert (losses[1] == 0) == (name != "cross_entropy")


def test_a_run_stops_resumes_and_reports_precision(path, tmp_path):
    with jax.numpy_dtype_promotion("standard"):
        config = config_of(path, "decoupled_softmax")
        root = tmp_path / "run"
        train.train(config, str(root), max_steps=2)
        assert train.train(config, str(root)).step == 4
    last = read_metrics(root)[-1]
    assert last["split"] == "test" and not (root / "evaluation.npz").exists()
    assert 0 <= last["precision_5"] <= 1 and last["loss"] > 0 and (root / "report.html").exists()


def test_losses_that_cannot_be_used_are_named(path):
    for changes, message in (
        ({"loss.name": "ensloss"}, "expected a loss of several labels"),
        ({"loss.name": "soft_top_k_loss", "loss.k": 7}, "--config.loss.k: .*expected 0 < k < 7"),
        ({"loss.temperature": -1.0}, "--config.loss.temperature"),
        ({"loss.reduce_positives": "max"}, "--config.loss.reduce_positives"),
    ):
        with pytest.raises(BadInput, match=message):
            build(config_of(path, "decoupled_softmax", **changes))
    config = load_file(locate("digits"))
    config.loss.name = "decoupled_softmax"
    with pytest.raises(BadInput, match="as in the task 'multi_label'"):
        build(config)
