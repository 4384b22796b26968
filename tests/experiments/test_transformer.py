# SPDX-License-Identifier: Apache-2.0
"""The transformer: what a position depends on, what QK norm bounds, names of its parameters."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import models
from experiments.errors import BadInput

SMALL = {"name": "transformer", "width": 8, "depth": 2, "heads": 2, "mlp_ratio": 2}
TOKENS = np.array([[3, 1, 4, 1, 2], [0, 2, 2, 1, 3]], np.int32)


def build(**changes) -> models.Model:
    return models.build({**SMALL, **changes}, input_shape=(5,), num_scores=6)


def names_of(params) -> dict[str, tuple[int, ...]]:
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf.shape
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
    }


def loud(params, factor: float):
    """The same parameters, queries and keys of every block times a factor."""

    def scaled(path, leaf):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        return leaf * factor if re.search(r"/(query|key)/kernel$", name) else leaf

    return jax.tree_util.tree_map_with_path(scaled, params)


@pytest.mark.parametrize("qk_norm", [False, True])
def test_a_later_token_does_not_change_earlier_features(qk_norm):
    model = build(qk_norm=qk_norm)
    params, apply = model.init(jax.random.key(0)), jax.jit(model.apply)
    before = np.asarray(apply(params, TOKENS, None))
    assert (before.shape, before.dtype) == ((2, 5, 8), np.float32)
    for place in range(5):
        changed = TOKENS.copy()
        changed[:, place] = 5
        after = np.asarray(apply(params, changed, None))
        np.testing.assert_array_equal(after[:, :place], before[:, :place])
        assert (np.abs(after - before)[:, place:] > 1e-6).any(axis=(0, 2)).all()


def test_a_shorter_window_gives_the_same_features():
    model = build()
    params = model.init(jax.random.key(0))
    whole = model.apply(params, TOKENS, None)
    part = model.apply(params, TOKENS[:, :3], None)
    np.testing.assert_allclose(part, whole[:, :3], rtol=1e-5, atol=1e-6)


def test_qk_norm_bounds_the_attention_logits():
    plain, normed = build(), build(qk_norm=True)
    few = {"plain": plain, "normed": normed}
    found = {}
    for name, model in few.items():
        params = loud(model.init(jax.random.key(0)), 100.0)
        features, found[name] = model.apply(params, TOKENS, None, greatest=True)
        np.testing.assert_array_equal(features, model.apply(params, TOKENS, None))
    assert found["plain"].shape == (2,) and (found["plain"] > 100.0).all()
    assert (found["normed"] <= np.sqrt(8 / 2) + 1e-5).all() and (found["normed"] > 0.5).all()

    params = normed.init(jax.random.key(0))
    for block in ("block_0", "block_1"):
        params[block]["attention"]["query_scale"] *= -3.0
    _, peaks = normed.apply(loud(params, 100.0), TOKENS, None, greatest=True)
    assert (peaks <= 3.0 * np.sqrt(8 / 2) + 1e-5).all() and (peaks > np.sqrt(8 / 2)).any()


def test_attention_and_mlp_kernels_can_be_told_by_their_names():
    shapes = names_of(build(qk_norm=True).init(jax.random.key(0)))
    inner = re.compile(r"block_\d+/(attention|mlp)/\w+/kernel")
    kernels = {name: shape for name, shape in shapes.items() if inner.fullmatch(name)}
    assert len(kernels) == 2 * 6 and set(kernels.values()) == {(8, 8), (8, 16), (16, 8)}
    others = {
        re.sub(r"block_\d+/", "", name): shape
        for name, shape in shapes.items()
        if name not in kernels
    }
    assert {name: shape for name, shape in others.items() if len(shape) > 1} == {
        "embedding/embedding": (6, 8),
        "positions": (5, 8),
    }
    assert others["attention/query_scale"] == others["attention/key_scale"] == (4,)
    assert {"attention_norm/scale", "mlp_norm/bias", "final_norm/scale"} <= others.keys()
    assert not any("scale" in name for name in names_of(build().init(jax.random.key(0)))
                   if "attention/" in name)  # fmt: skip


def test_stacked_blocks_are_the_same_blocks_in_a_loop():
    one_by_one, stacked = build(qk_norm=True), build(qk_norm=True, stacked=True)
    params = one_by_one.init(jax.random.key(0))
    loop = {name: part for name, part in params.items() if not name.startswith("block_")}
    loop["blocks"] = jax.tree.map(
        lambda *leaves: jnp.stack(leaves), *(params[f"block_{layer}"] for layer in range(2))
    )
    drawn = stacked.init(jax.random.key(0))
    assert names_of(drawn) == names_of(loop)
    kernel = np.asarray(drawn["blocks"]["attention"]["query"]["kernel"])
    assert (kernel[0] != kernel[1]).all()  # each block has its own draw, as wide as ever
    assert 0.5 < kernel.std() * np.sqrt(8) < 1.5

    expected, peaks = one_by_one.apply(params, TOKENS, None, greatest=True)
    found, same = jax.jit(lambda p: stacked.apply(p, TOKENS, None, greatest=True))(loop)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(same, peaks, rtol=1e-5)


def test_dropout_in_a_loop_is_another_one_in_every_block():
    model = build(dropout=0.5, stacked=True, depth=2)
    params, apply = model.init(jax.random.key(0)), jax.jit(model.apply)
    # Blocks that add ones: what dropout leaves of them is 0 or 2 for each block and layer.
    params["embedding"]["embedding"] *= 0.0
    params["positions"] *= 0.0
    params["blocks"] = jax.tree.map(jnp.zeros_like, params["blocks"])
    params["blocks"]["mlp"]["down"]["bias"] += 1.0
    params["blocks"]["attention"]["out"]["bias"] += 10.0
    params["final_norm"]["scale"] = jnp.ones(8)
    rows = np.asarray(apply(params, np.zeros((40, 5), np.int32), jax.random.key(1)))
    again = np.asarray(apply(params, np.zeros((40, 5), np.int32), jax.random.key(1)))
    np.testing.assert_array_equal(rows, again)
    # One mask for both blocks would leave two values for each of the layers, 4 in all.
    assert max(len(np.unique(row.round(4))) for row in rows.reshape(-1, 8)) > 4


def test_dropout_follows_its_key_and_seeds_can_be_trained_together():
    model = build(dropout=0.5, depth=1)
    keys = jax.random.split(jax.random.key(0))
    params = jax.jit(jax.vmap(model.init))(keys)
    one = jax.tree.map(lambda leaf: leaf[0], params)

    @jax.jit
    def total(params, key):
        return jnp.sum(model.apply(params, TOKENS, key)[..., 0])

    together = jax.jit(jax.vmap(jax.grad(total)))(params, keys)
    alone = jax.jit(jax.grad(total))(one, keys[0])
    for left, right in zip(*map(jax.tree.leaves, (together, alone)), strict=True):
        np.testing.assert_allclose(left[0], right, rtol=1e-4, atol=1e-5)
    assert total(one, keys[0]) == total(one, keys[0]) != total(one, keys[1])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"width": 0}, "config.model.width: expected an integer >= 1, got 0"),
        ({"depth": True}, "config.model.depth: expected an integer >= 1, got True"),
        ({"heads": 3}, "config.model.heads: expected a divisor of the width 8, got 3"),
        ({"mlp_ratio": 1.5}, "config.model.mlp_ratio: expected an integer >= 1, got 1.5"),
        ({"qk_norm": 1}, "config.model.qk_norm: expected True or False, got 1"),
        ({"stacked": "yes"}, "config.model.stacked: expected True or False, got 'yes'"),
        ({"dropout": 1.0}, r"config.model.dropout: expected a number in \[0, 1\), got 1.0"),
        ({"dropout": "half"}, "config.model.dropout: .*'half'"),
        ({"dept": 2}, r"config.model.dept: .*did you mean 'depth'\?"),
    ],
)
def test_wrong_arguments_are_named(changes, said):
    with pytest.raises(BadInput, match=said):
        build(**changes)


def test_data_that_are_no_windows_are_refused():
    with pytest.raises(BadInput, match="config.model.name: expected a model for these data"):
        models.build(SMALL, input_shape=(8, 8), num_scores=6)
