# SPDX-License-Identifier: Apache-2.0
"""bfloat16 in the network alone, and activations that are computed again."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import models, sharding
from experiments.config import load_file, locate
from experiments.errors import BadInput
from experiments.job import build


@pytest.fixture(autouse=True)
def promotion_that_optax_needs():
    with jax.numpy_dtype_promotion("standard"):
        yield


#: name -> (config.model, shape of an example, scores, scale of its inputs).
MODELS: dict[str, tuple[dict[str, Any], tuple[int, ...], int]] = {
    "mlp": ({"name": "mlp", "hidden": (16, 16), "dropout": 0.2}, (6,), 5),
    "harmonic": ({"name": "mlp", "hidden": (16,), "head": "harmonic"}, (6,), 5),
    "context_mlp": ({"name": "context_mlp", "embedding": 8, "hidden": (16, 16)}, (3,), 2000),
    "pair_mlp": ({"name": "pair_mlp", "embedding": 8, "hidden": 16}, (2,), 2000),
    "transformer": (
        {"name": "transformer", "width": 16, "heads": 2, "depth": 2, "mlp_ratio": 2,
         "dropout": 0.2, "qk_norm": True}, (4,), 2000),
}  # fmt: skip


def made(name, **options):
    config, shape, scores = MODELS[name]
    model = models.build(config, input_shape=shape, num_scores=scores, **options)
    draw = np.random.default_rng(0)
    numbers = draw.normal(size=(8, *shape)) if name in ("mlp", "harmonic") else draw.integers(
        scores, size=(8, *shape))  # fmt: skip
    return model, model.init(jax.random.key(0)), jnp.asarray(numbers, jnp.float32)


def products(jaxpr):
    """The operands' types of every matrix product, also inside others."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            yield tuple(str(operand.aval.dtype) for operand in equation.invars)
        for inner in jax.tree.leaves(
            list(equation.params.values()), is_leaf=lambda leaf: hasattr(leaf, "eqns")
        ):
            if hasattr(inner := getattr(inner, "jaxpr", inner), "eqns"):
                yield from products(inner)


# ---- bfloat16 ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_products_are_of_bfloat16_and_the_result_is_near(name):
    (model, params, inputs), (half, *_) = made(name), made(name, compute_dtype="bfloat16")
    exact, rounded = model.apply(params, inputs, None), half.apply(params, inputs, None)
    assert rounded.dtype == exact.dtype == jnp.float32
    size = float(jnp.max(jnp.abs(exact)))
    assert 0 < float(jnp.max(jnp.abs(exact - rounded))) < 0.04 * size

    seen = list(products(jax.make_jaxpr(half.apply)(params, inputs, None).jaxpr))
    # float32 where it matters: attention logits, distances to centres.
    kept = [pair for pair in seen if pair != ("bfloat16", "bfloat16")]
    kernels = sum(leaf.ndim == 2 for leaf in jax.tree.leaves(params))
    others = {"harmonic": 1, "pair_mlp": 1, "context_mlp": 1, "transformer": 2}.get(name, 0)
    assert len(seen) - len(kept) >= kernels - others
    assert set(kept) <= {("float32", "float32")}
    assert len(kept) <= (2 if name in ("harmonic", "pair_mlp", "transformer") else 0)


def test_everything_but_the_network_stays_float32_and_digits_trains_as_well():
    losses, states = {}, {}
    for dtype in ("float32", "bfloat16"):
        config = load_file(locate("digits:quick"))
        config.compute_dtype, config.model.hidden = dtype, (16,)
        job = build(config)
        state, batches, found = job.init(jax.random.key(0)), job.train_batches(), []
        with jax.set_mesh(job.mesh):
            for _ in range(40):
                state, metrics = job.step(state, sharding.to_devices(next(batches), job.mesh))
                found.append(float(metrics["loss"]))
        losses[dtype], states[dtype] = np.array(found), state
        assert metrics["loss"].dtype == metrics["gradient_norm"].dtype == jnp.float32
    assert job.notes == ("the network computes in bfloat16",)
    for part in ("params", "optimizer"):
        types = [jax.tree.map(lambda leaf: leaf.dtype, s[part]) for s in states.values()]
        assert types[0] == types[1]
    assert np.any(losses["float32"] != losses["bfloat16"])
    np.testing.assert_allclose(losses["bfloat16"], losses["float32"], rtol=0.05)
    assert losses["bfloat16"][-1] < losses["bfloat16"][0] / 2


def test_float32_means_as_the_parameters_are(x64):
    model, params, inputs = made("transformer")
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), params)
    exact = model.apply(params, inputs, None)
    assert exact.dtype == jnp.float64
    seen = set(products(jax.make_jaxpr(model.apply)(params, inputs, None).jaxpr))
    assert seen == {("float64", "float64")}
    # Nothing on the way rounds to float32: a change below its precision is seen.
    params["embedding"]["embedding"] *= 1 + 1e-10
    assert 0 < float(jnp.max(jnp.abs(model.apply(params, inputs, None) - exact))) < 1e-7


# ---- remat ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("remat", ["full", "dots"])
@pytest.mark.parametrize("name", [n for n in MODELS if n != "harmonic"])
def test_gradients_are_the_same_with_the_same_dropout(name, remat):
    (model, params, inputs), (again, *_) = made(name), made(name, remat=remat)
    key = jax.random.key(1)

    def gradient_of(apply):
        return jax.jit(jax.grad(lambda where: jnp.sum(jnp.sin(apply(where, inputs, key)))))(params)

    left, right = gradient_of(model.apply), gradient_of(again.apply)
    for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-5, atol=1e-6)


def test_a_deep_transformer_keeps_less_for_the_backward_pass():
    config = {"name": "transformer", "width": 32, "heads": 2, "depth": 8}
    found = {}
    for remat in ("none", "dots", "full"):
        model = models.build(config, input_shape=(64,), num_scores=10, remat=remat)
        params = jax.eval_shape(model.init, jax.random.key(0))
        inputs = jax.ShapeDtypeStruct((8, 64), jnp.float32)
        # What a pull-back holds, parameters and all: no matter how a backend orders the rest.
        kept = jax.eval_shape(
            lambda where, x, model=model: jax.vjp(lambda p: model.apply(p, x, None), where)[1],
            params, inputs,
        )  # fmt: skip
        found[remat] = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(kept))
    features, hidden = 8 * 64 * 32 * 4, 8 * 64 * 128 * 4
    of_params = sum(leaf.size * 4 for leaf in jax.tree.leaves(params))
    assert found["full"] < (8 + 6) * features + 2 * of_params  # inputs of blocks, final norm
    # Beside them four products of attention and two of the MLP, one of them wide.
    assert found["full"] + 8 * (4 * features + hidden) <= found["dots"] < 0.6 * found["none"]


@pytest.mark.parametrize("key", ["compute_dtype", "remat"])
def test_an_unknown_name_is_one_line(key):
    config = load_file(locate("digits:quick"))
    config[key] = "ful"
    with pytest.raises(BadInput, match=f"--config.{key}: expected one of .*, got 'ful'"):
        build(config)
