# SPDX-License-Identifier: Apache-2.0
"""A language model of characters in the one loop: windows, steps, metrics, resuming, sweeps."""

import contextlib
import gzip
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments import modes, sharding, sweep, train
from experiments.checkpoint import Checkpoints
from experiments.config import load_file, locate
from experiments.data.characters import DESCRIPTIONS, UNKNOWN, load_characters
from experiments.data.tokens import RUNS
from experiments.errors import BadInput
from experiments.job import build
from experiments.metrics import read_metrics


@pytest.fixture(autouse=True)
def promotion_that_optax_needs():
    with jax.numpy_dtype_promotion("standard"):
        yield


def config_of(**changes):
    config = load_file(locate("char_lm:quick"))
    config.update(steps=4, log_every=2, eval_every=2, checkpoint_every=2)
    config.data.update(batch_size=8, eval_batch_size=16)
    config.model.update(width=8, heads=2, depth=1, mlp_ratio=1)
    config.task.update(context=6, eval_windows=20)
    config.optimizer.update(warmup_steps=1)
    config.update_from_flattened_dict(changes)
    return config


def load(path: Path | str | None, context: int = 2, **options):
    return load_characters({"path": path and str(path), **options}, context=context, seed=0)


def steps_of(job, count: int):
    state, batches = job.init(jax.random.key(job.config.seed)), job.train_batches()
    with jax.set_mesh(job.mesh):
        for _ in range(count):
            state, metrics = job.step(state, sharding.to_devices(next(batches), job.mesh))
            if not sharding.may_run_ahead(job.mesh):
                jax.block_until_ready(metrics)
    return state, jax.device_get(metrics)


def text_of(found, split: str, key: str) -> list[str]:
    source = getattr(found, split)
    rows = source.gather(np.arange(len(source)))[key]
    assert rows.dtype == np.int32
    names = [name if len(name) == 1 else "?" for name in found.class_names]
    return ["".join(names[number] for number in row) for row in rows]


# ---- Windows -------------------------------------------------------------------------------------


def test_labels_are_the_next_characters_and_the_vocabulary_is_of_the_training_text(tmp_path):
    for name, text in (("train", "abacad"), ("valid", "cxbaβad"), ("test", "dab")):
        (tmp_path / f"{name}.txt").write_text(text, encoding="utf-8")
    found = load(tmp_path)
    assert found.class_names == ("a", "b", "c", "d", UNKNOWN) and found.num_classes == 5
    assert (found.name, found.input_shape) == (tmp_path.name, (2,))
    # In training a window begins at every character, elsewhere where the last one ended.
    assert text_of(found, "train", "inputs") == ["ab", "ba", "ac", "ca"]
    assert text_of(found, "train", "label") == ["ba", "ac", "ca", "ad"]
    assert text_of(found, "validation", "inputs") == ["c?", "ba", "?a"]  # x and beta are unknown
    assert text_of(found, "validation", "label") == ["?b", "a?", "ad"]
    assert text_of(found, "test", "inputs") == ["da"] and text_of(found, "test", "label") == ["ab"]
    one = found.train[2]
    assert (one["inputs"].tolist(), one["label"].tolist(), one["index"]) == ([0, 2], [2, 0], 2)


def test_one_text_is_cut_in_three_whatever_its_name_or_packing(tmp_path):
    text = "".join(chr(97 + i % 20) for i in range(100))
    with gzip.open(tmp_path / "input.txt.gz", "wt", encoding="utf-8") as file:
        file.write(text)
    (tmp_path / "notes.md").write_text("no text")
    options = {"validation_fraction": 0.1, "test_fraction": 0.2}
    for path in (tmp_path, tmp_path / "input.txt.gz"):
        found = load(path, **options)
        assert [len(getattr(found, s)) for s in ("train", "validation", "test")] == [68, 4, 9]
        assert text_of(found, "train", "inputs")[0] == text[:2]
        assert text_of(found, "validation", "inputs") == [text[i : i + 2] for i in range(70, 78, 2)]
        assert text_of(found, "test", "label") == [text[i : i + 2] for i in range(81, 99, 2)]
    assert found.name == "input"


def test_training_windows_are_no_copy_and_a_few_of_them_are_spread_over_the_text():
    found = load(None, context=32, name=DESCRIPTIONS)
    assert found.name == DESCRIPTIONS and 5_000 < len(found.train) < 20_000
    assert isinstance(found.train._starts, range)
    few = found.train.at_most(7)
    assert len(few) == 7 and found.train.at_most(10**9) is found.train
    places = np.arange(7) * len(found.train) // 7
    expected, rows = found.train.gather(places), few.gather(np.arange(7))
    np.testing.assert_array_equal(rows["inputs"], expected["inputs"])
    np.testing.assert_array_equal(rows["index"], np.arange(7))


def test_what_is_no_text_is_one_line(tmp_path):
    def refused(said: str, path=tmp_path, **options):
        with pytest.raises(BadInput, match=said) as error:
            load(path, **options)
        assert len(str(error.value).splitlines()) == 1

    refused("config.data.path: no such file or directory: .*missing", tmp_path / "missing")
    refused("config.data.path: expected one text, or train, valid and test, .*got none")
    refused("config.data.name: expected 'descriptions', or a text", None, name="digits")
    (tmp_path / "one.txt").write_bytes(b"\xff\xfe\xfd")
    refused(r"one.txt: not text in UTF-8")
    (tmp_path / "one.txt").write_text("")
    refused(r"one.txt: empty file")
    (tmp_path / "one.txt").write_text("abcdefghij")
    refused(
        "config.task.context: expected less than the 1 characters of the validation text, got 2",
        validation_fraction=0.1,
    )
    (tmp_path / "two.txt").write_text("abc")
    refused("expected one text, .*got one.txt, two.txt")
    (tmp_path / "valid.txt").write_text("abc")
    refused("config.data.path: expected train, valid and test.*got no train and no test")


# ---- Training and metrics ------------------------------------------------------------------------


def test_metrics_are_those_of_the_logits_and_the_penalty_is_part_of_the_objective_alone():
    plain = build(config_of(**{"data.eval_batch_size": 8}))
    penalised = build(config_of(**{"task.log_partition": 0.5, "task.eval_windows": 3}))
    params = plain.init(jax.random.key(0))["params"]
    found, scores = plain.evaluate(params, "validation")
    assert scores is None and all(type(value) is float for value in found.values())

    rows = plain.dataset.validation.at_most(20).gather(np.arange(20))  # 20 is no multiple of 8
    network = params["network"]
    x = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), network)
    block = x["block_0"]

    def dense(of, layer):
        return of @ layer["kernel"] + layer["bias"]

    def norm(of, layer):
        spread = np.sqrt(of.var(axis=-1, keepdims=True) + 1e-6)
        return (of - of.mean(axis=-1, keepdims=True)) / spread * layer["scale"] + layer["bias"]

    h = x["embedding"]["embedding"][rows["inputs"]] + x["positions"]
    inner = norm(h, block["attention_norm"])
    q, k, v = (
        dense(inner, block["attention"][name]).reshape(20, 6, 2, 4)
        for name in ("query", "key", "value")
    )
    logits = np.einsum("bthd,bshd->bhts", q, k) / 2.0
    logits = np.where(np.tri(6, dtype=bool), logits, -np.inf)
    weights = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    mixed = np.einsum("bhts,bshd->bthd", weights, v).reshape(20, 6, 8)
    h = h + dense(mixed, block["attention"]["out"])
    inner = np.asarray(jax.nn.gelu(dense(norm(h, block["mlp_norm"]), block["mlp"]["up"])))
    h = norm(h + dense(inner, block["mlp"]["down"]), x["final_norm"])
    z = h @ np.asarray(params["output"], np.float64)
    log_z = np.log(np.exp(z).sum(axis=-1))
    target = np.take_along_axis(z, rows["label"][..., None], axis=-1)[..., 0]
    assert found == {
        "accuracy": pytest.approx((z.argmax(axis=-1) == rows["label"]).mean()),
        "loss": pytest.approx((log_z - target).mean(), rel=1e-5),
        "log_partition_square": pytest.approx((log_z**2).mean(), rel=1e-5),
        "max_attention_logit": pytest.approx(logits.max(), rel=1e-4),
        # Two moments of every number in float32, and the steps of Adam and of the schedule.
        "optimizer_state_bytes": 8 * sum(x.size for x in jax.tree.leaves(params)) + 2 * 4,
    }

    _, before = steps_of(plain, 1)
    _, after = steps_of(penalised, 1)
    assert before["loss"] == pytest.approx(before["cross_entropy"], rel=1e-6)
    assert after["cross_entropy"] == pytest.approx(before["cross_entropy"], rel=1e-6)
    assert after["loss"] > before["loss"] + 0.5 and after["loss"] < 0.5 * 50
    few, _ = penalised.evaluate(params, "validation")
    assert few["loss"] != found["loss"] and few.keys() == found.keys()


def one_step(**changes):
    """(metrics and state after a step, metrics of the validation split)."""
    config = config_of(**{"loss.name": "comp_sum", "loss.tau": 0.7, **changes})
    # Differs by as much as the gradient does.
    config.optimizer.update(name="sgd", weight_decay=0.0)
    job = build(config)
    state, metrics = steps_of(job, 1)
    params = jax.tree.map(np.asarray, state["params"])
    return metrics, params, job.evaluate(state["params"], "validation")[0]


@pytest.mark.parametrize("model", [1, 2])
def test_a_streaming_head_gives_the_same_steps_and_metrics_spread_or_not(model):
    text = {"data.name": RUNS, "data.num_classes": 26, "task.log_partition": 0.1}
    rules = ((r"^output$", (None, "model")), (r"^network/embedding", ("model",)))
    plain = one_step(**text)
    found = one_step(**text, **{"task.head": "streaming", "mesh.model": model, "sharding": rules})
    for left, right in zip(*map(jax.tree.leaves, (plain, found)), strict=True):
        np.testing.assert_allclose(left, right, rtol=2e-4, atol=2e-6)


def test_the_quick_variant_of_the_large_model_learns_more_than_frequencies():
    job = build(load_file(locate("lm_1b:quick")))
    state, metrics = steps_of(job, 60)
    assert np.isfinite(metrics["loss"])
    found, _ = job.evaluate(state["params"], "validation")
    # 5.14 nats is the entropy of the tokens, 1.78 what is left when the token before is known.
    assert 1.7 < found["loss"] < 4.5


def test_a_model_learns_and_the_penalty_holds_log_z_at_zero():
    changes = {"optimizer.learning_rate": 0.03, "optimizer.schedule": "constant"}
    found = {}
    for weight in (0.0, 1.0):
        job = build(config_of(**changes, **{"task.log_partition": weight}))
        state, metrics = steps_of(job, 30)
        start, _ = job.evaluate(job.init(jax.random.key(0))["params"], "test")
        found[weight], _ = job.evaluate(state["params"], "test")
        assert np.isfinite(metrics["loss"]) and found[weight]["loss"] < start["loss"] - 0.5
    assert found[1.0]["log_partition_square"] < 0.5 < found[0.0]["log_partition_square"]


def test_a_run_that_stops_and_resumes_ends_with_the_same_bits(tmp_path):
    changes = {"model.dropout": 0.1, "model.qk_norm": True, "task.log_partition": 1e-3}
    config = config_of(**changes)
    train.train(config, str(tmp_path), max_steps=2)
    assert train.train(config, str(tmp_path)).step == 4
    job = build(config)
    with contextlib.closing(Checkpoints(tmp_path, keep=1)) as checkpoints:
        resumed = checkpoints.restore(job.abstract_state(), None)

    state, _ = steps_of(job, 4)
    for left, right in zip(*map(jax.tree.leaves, ((4, state), resumed)), strict=True):
        if jax.numpy.issubdtype(getattr(left, "dtype", None), jax.dtypes.prng_key):
            left, right = map(jax.random.key_data, (left, right))
        np.testing.assert_array_equal(left, right)

    last = read_metrics(tmp_path)[-1]
    assert last["split"] == "test"
    assert {"accuracy", "loss", "log_partition_square", "max_attention_logit"} <= last.keys()
    assert "[test] accuracy" in modes.evaluate(config, str(tmp_path), None)
    assert "next token" in (tmp_path / "report.html").read_text()


def test_seeds_that_are_trained_together_are_the_runs_of_each(tmp_path):
    job = build(config_of(**{"loss.name": "comp_sum", "loss.tau": 0.7}))
    _, second = sweep.train_together(job, [0, 3])
    alone = build(config_of(**{"loss.name": "comp_sum", "loss.tau": 0.7, "seed": 3}))
    state, metrics = steps_of(alone, 4)
    records = {record["split"]: record for record in second["records"] if record["step"] == 4}
    for split in ("validation", "test"):
        for name, value in alone.evaluate(state["params"], split)[0].items():
            assert records[split][name] == pytest.approx(value, rel=1e-3, abs=1e-6), name
    assert records["train"]["loss"] == pytest.approx(metrics["loss"], rel=1e-4)
    assert records["train"]["cross_entropy"] != records["train"]["loss"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"loss.name": "ensloss"}, "--config.loss.name: expected a loss of the statistics of one"),
        ({"loss.name": "soft_top_k_loss"}, "--config.loss.name: expected"),
        ({"model.name": "mlp"}, "--config.model.name: expected transformer for language_model"),
        ({"task.head": "streming"}, "--config.task.head: expected .*did you mean 'streaming'"),
        ({"data.name": RUNS}, "config.data.num_classes: expected the size of the vocabulary"),
        ({"task.context": 0}, "--config.task.context: expected an integer >= 1, got 0"),
        ({"task.context": 5000}, "config.task.context: expected less than the"),
        ({"task.eval_windows": 0}, "--config.task.eval_windows: expected an integer >= 1, got 0"),
        ({"task.log_partition": -0.1}, "--config.task.log_partition: expected a number >= 0"),
        ({"data.path": "/missing"}, "config.data.path: no such file or directory: /missing"),
    ],
)
def test_what_cannot_be_trained_is_said_in_one_line(changes, said):
    with pytest.raises(BadInput, match=said) as refused:
        build(config_of(**changes))
    assert len(str(refused.value).splitlines()) == 1
