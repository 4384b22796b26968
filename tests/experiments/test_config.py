# SPDX-License-Identifier: Apache-2.0
"""What a config file becomes: keys, losses, optimizers, and plain data and back."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

import xloss
from experiments import config as configs
from experiments.configs import common
from experiments.data import load
from experiments.errors import BadInput
from experiments.optimizer import make_optimizer
from xloss.catalogue import LOSSES

SHIPPED = sorted(
    p.stem for p in configs.SHIPPED.glob("*.py") if p.stem not in ("__init__", "common")
)


def digits(**changes) -> ConfigDict:
    config = configs.load_file(configs.locate("digits:quick"))
    config.update_from_flattened_dict(changes)
    return config


@pytest.mark.parametrize("name", SHIPPED)
@pytest.mark.parametrize("variant", ["", ":quick"])
def test_shipped_configs_are_sound(name: str, variant: str):
    config = configs.load_file(configs.locate(name + variant))

    configs.validate(config)

    assert (config.steps <= 100) == (variant == ":quick")
    docstring = Path(configs.locate(name)).read_text().partition('"""')[2].partition('"""')[0]
    assert f"--config={name} --workdir" in docstring


def test_a_path_is_taken_as_it_is(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("from experiments.configs.common import base_config as get_config\n")

    located = configs.locate(f"{file}")

    assert located == str(file)
    assert configs.load_file(located).steps == common.base_config().steps


def test_resolved_is_plain_json_and_comes_back(tmp_path):
    config = digits(**{"loss.name": "comp_sum", "loss.tau": 0.5})

    plain = configs.resolved(config)

    assert plain["loss"] == {"name": "comp_sum", "tau": 0.5}
    assert plain["optimizer"]["clip_norm"] == "inf" and "sharpness" not in plain["optimizer"]
    back = configs.from_resolved(json.loads(json.dumps(plain, allow_nan=False)))
    configs.validate(back)
    assert configs.resolved(back) == plain
    assert back.optimizer.clip_norm == np.inf


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_every_loss_has_its_hyperparameters_as_keys(name: str):
    entry = LOSSES[name]
    assert set(entry.hyperparameters) <= set(common.loss(name))
    if "probabilities" in entry.needs:
        with pytest.raises(BadInput, match="integer labels"):
            configs.resolve_loss(digits(**{"loss.name": name}))
    elif "multi_hot" in entry.needs:
        with pytest.raises(BadInput, match="loss of one label an example.*'multi_label'"):
            configs.resolve_loss(digits(**{"loss.name": name}))
    elif "distances" in entry.needs:
        with pytest.raises(BadInput, match="config.loss.name: expected a loss of logits.*harmonic"):
            configs.resolve_loss(digits(**{"loss.name": name}))
    else:
        given = {"loss.surrogate": "logistic"} if "surrogate" in entry.hyperparameters else {}
        if entry.takes_attacked:
            with pytest.raises(BadInput, match="--config.loss.name: .* at attacked inputs"):
                configs.resolve_loss(digits(**{"loss.name": name}))
            given = {"task.name": "adversarial"}
        assert configs.resolve_loss(digits(**{"loss.name": name}, **given))[0] is entry


def test_a_surrogate_takes_its_own_hyperparameters():
    spec = {"loss.name": "margin_loss", "loss.surrogate": "rho_margin", "loss.rho": 2.0}
    entry, arguments = configs.resolve_loss(digits(**spec))

    margins = np.array([0.0, 1.0, 4.0], np.float32)
    assert entry.name == "margin_loss"
    np.testing.assert_allclose(arguments["surrogate"](margins), [1.0, 0.5, 0.0])


@pytest.mark.parametrize("task", ["binary", "multiclass"])
def test_losses_of_takes_either_kind_of_scores(task: str):
    scores = np.array([0.5, -2.0, 1.0], np.float32)
    labels = np.array([1, 0, 0], np.int32)
    logits = np.stack([np.zeros_like(scores), scores], axis=1)
    entry, arguments = configs.resolve_loss(digits())

    losses, stats = configs.losses_of(
        entry, arguments, scores if task == "binary" else logits, labels, key=jax.random.key(0)
    )

    np.testing.assert_allclose(losses, xloss.classification.cross_entropy(logits, labels), 1e-6)
    np.testing.assert_allclose(stats.log_odds, [0.5, 2.0, -1.0], 1e-6)


def test_a_loss_of_all_logits_is_refused_for_one_score():
    binary = load({"name": "breast_cancer"}, seed=0)
    configs.resolve_loss(digits(), binary)
    needy = [entry for entry in LOSSES.values() if not entry.takes_statistics]
    for entry in needy:
        with pytest.raises(BadInput, match=f"config.loss.name: expected .*{entry.name}"):
            configs.resolve_loss(digits(**{"loss.name": entry.name}), binary)


RATE = {"steps": 100, "optimizer.learning_rate": 0.1, "optimizer.schedule": "constant"}


@pytest.mark.parametrize(
    ("schedule", "warmup", "expected"),
    [
        ("constant", 0, {0: 0.1, 50: 0.1, 100: 0.1}),
        ("cosine", 0, {0: 0.1, 50: 0.05, 100: 0.0}),
        ("constant", 10, {0: 0.01, 5: 0.055, 10: 0.1, 99: 0.1}),
        ("cosine", 20, {20: 0.1, 60: 0.05, 100: 0.0}),
    ],
)
def test_the_schedule(schedule, warmup, expected):
    changes = {**RATE, "optimizer.schedule": schedule, "optimizer.warmup_steps": warmup}

    _, rate = make_optimizer(digits(**changes))

    assert {step: float(rate(step)) for step in expected} == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize(
    ("options", "by_hand"),
    [
        ({"name": "adam"}, optax.adam(0.1)),
        ({"name": "adamw", "weight_decay": 0.3}, optax.adamw(0.1, weight_decay=0.3)),
        ({"name": "sgd", "momentum": 0.5}, optax.sgd(0.1, momentum=0.5)),
        (
            {"name": "sgd", "momentum": 0.0, "clip_norm": 1.0},
            optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.1)),
        ),
    ],
)
def test_the_optimizer(options, by_hand):
    ours, _ = make_optimizer(
        digits(**RATE, **{f"optimizer.{key}": value for key, value in options.items()})
    )
    params, gradient = {"w": jnp.array([3.0, 4.0])}, {"w": jnp.array([6.0, -8.0])}

    with jax.numpy_dtype_promotion("standard"):
        steps = []
        for optimizer in (ours, by_hand):
            state = optimizer.init(params)
            _, state = optimizer.update(gradient, state, params)
            steps.append(optimizer.update(gradient, state, params)[0]["w"])

    np.testing.assert_allclose(*steps, rtol=1e-6)


def test_differences_name_keys_on_either_side():
    ours, theirs = {"a": {"b": 1}, "c": 2, "d": [1]}, {"a": {"b": 3}, "c": 2, "e": 4, "f": None}
    assert configs.differences(ours, theirs) == [
        "a.b: 3 there, 1 here",
        "d: absent there, [1] here",
        "e: 4 there, absent here",
    ]
