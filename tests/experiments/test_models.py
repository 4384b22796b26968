# SPDX-License-Identifier: Apache-2.0
"""Models as two pure functions: shapes, dropout, and arguments that are refused."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import models
from experiments.errors import BadInput

MLP = {"name": "mlp", "hidden": (8,), "activation": "relu", "dropout": 0.0}


def build(num_scores: int | None = 3, **changes) -> models.Model:
    return models.build({**MLP, **changes}, input_shape=(4, 2), num_scores=num_scores)


@pytest.mark.parametrize(("num_scores", "shape"), [(3, (5, 3)), (None, (5,))])
@pytest.mark.parametrize("hidden", [(), (8,), (8, 6)])
def test_scores_have_one_column_a_class_or_none(num_scores, shape, hidden):
    model = build(num_scores, hidden=hidden)
    params = model.init(jax.random.key(0))

    scores = model.apply(params, jnp.ones((5, 4, 2)), None)

    assert (scores.shape, scores.dtype) == (shape, jnp.float32)
    widths = [8, *hidden, num_scores or 1]
    count = sum(a * b + b for a, b in itertools.pairwise(widths))
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == count


def test_parameters_are_plain_arrays_and_a_function_of_the_key():
    model = build()
    first, again, other = (jax.tree.leaves(model.init(jax.random.key(k))) for k in (0, 0, 1))

    assert all(isinstance(leaf, jax.Array) for leaf in first)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


def test_a_model_by_hand():
    model = build(hidden=(8,), activation="tanh")
    params = model.init(jax.random.key(0))
    inputs = np.random.default_rng(0).normal(size=(5, 4, 2)).astype(np.float32)
    layers = {
        jax.tree_util.keystr(path): np.asarray(leaf)
        for path, leaf in jax.tree.leaves_with_path(params)
    }
    first, last = (
        (layers[f"['{name}']['kernel']"], layers[f"['{name}']['bias']"])
        for name in ("hidden_0", "head")
    )

    by_hand = np.tanh(inputs.reshape(5, 8) @ first[0] + first[1]) @ last[0] + last[1]

    np.testing.assert_allclose(model.apply(params, inputs, None), by_hand, rtol=1e-5, atol=1e-6)


def test_dropout_needs_a_key_and_follows_it():
    model = build(hidden=(64,), dropout=0.5)
    params, inputs = model.init(jax.random.key(0)), jnp.ones((5, 4, 2))

    def apply(key):
        return np.asarray(jax.jit(model.apply)(params, inputs, key))

    assert np.array_equal(apply(None), apply(None))
    assert np.array_equal(apply(jax.random.key(1)), apply(jax.random.key(1)))
    assert not np.array_equal(apply(jax.random.key(1)), apply(jax.random.key(2)))
    jax.grad(lambda p: model.apply(p, inputs, jax.random.key(1)).sum())(params)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"name": "mpl"},
            "config.model.name: expected one of context_mlp, mlp, pair_mlp, .*got 'mpl'.*'mlp'",
        ),
        (
            {"name": None},
            "config.model.name: expected one of context_mlp, mlp, pair_mlp, .*got None",
        ),
        ({"hiden": (3,)}, "config.model.hiden: .*'hidden'"),
        ({"hidden": (0,)}, r"config.model.hidden: expected a tuple of integers > 0, got \(0,\)"),
        ({"hidden": 64}, "config.model.hidden: expected a tuple of integers > 0, got 64"),
        ({"hidden": (True,)}, "config.model.hidden"),
        ({"activation": "relo"}, "config.model.activation: expected one of relu.*got 'relo'"),
        ({"dropout": 1.0}, r"config.model.dropout: expected a rate in \[0, 1\), got 1.0"),
        ({"dropout": "half"}, "config.model.dropout: .*'half'"),
    ],
)
def test_wrong_arguments_are_named(changes, said):
    with pytest.raises(BadInput, match=said):
        build(**changes)


def test_a_harmonic_head_by_hand():
    model = build(hidden=(), head="harmonic", distance="manhattan", exponent=3.0)
    params = model.init(jax.random.key(0))
    inputs = np.random.default_rng(0).normal(size=(5, 4, 2)).astype(np.float32)
    centres = np.asarray(params["head"]["centres"])

    gaps = np.abs(inputs.reshape(5, 8, 1) - centres[None]).sum(1)

    by_hand = -3.0 * np.log(gaps + 1e-4)
    np.testing.assert_allclose(model.apply(params, inputs, None), by_hand, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("distance", ["mahalanobis", "mahalanobis_diagonal", "hamming_gumbel"])
def test_a_harmonic_head_learns_its_matrix_and_draws_only_in_training(distance):
    model = build(head="harmonic", distance=distance)
    params = model.init(jax.random.key(0))
    inputs = jnp.ones((5, 4, 2))
    assert ("matrix" in params["head"]) == distance.startswith("mahalanobis")

    scores = [model.apply(params, inputs, k) for k in (None, jax.random.key(0), jax.random.key(1))]

    drawn = not np.array_equal(scores[1], scores[2])
    assert drawn == (distance == "hamming_gumbel")
    assert scores[0].shape == (5, 3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"head": "harmonc"}, "config.model.head: expected one of linear, harmonic.*'harmonic'"),
        ({"head": "harmonic", "distance": "cosin"}, "config.model.distance: .*'cosine'"),
        ({"head": "harmonic", "exponent": 0.0}, "config.model.exponent: expected a number > 0"),
        ({"head": "harmonic", "num_scores": None}, "config.model.head: expected linear for one"),
        ({"name": "pair_mlp"}, "config.model.name: expected a model for these data"),
    ],
)
def test_heads_that_are_refused(changes, message):
    with pytest.raises(BadInput, match=message):
        if changes.get("name") == "pair_mlp":
            models.build(changes, input_shape=(4, 2), num_scores=3)
        else:
            build(**changes)
