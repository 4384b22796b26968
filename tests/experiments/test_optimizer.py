# SPDX-License-Identifier: Apache-2.0
"""The optimizer and the schedule that a config names."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.config import load_file, locate, validate
from experiments.errors import BadInput
from experiments.optimizer import SHARPNESS, inner_kernel, make_optimizer, make_schedule
from xloss import optim

PARAMS = {
    "hidden_0": {"kernel": jnp.ones([6, 8]), "bias": jnp.zeros([8])},
    "head": {"kernel": jnp.ones([8, 4]), "bias": jnp.zeros([4])},
}


def config_of(**changes):
    config = load_file(locate("digits"))
    config.steps = 100
    config.update_from_flattened_dict({f"optimizer.{k}": v for k, v in changes.items()})
    return config


@pytest.mark.parametrize(
    ("changes", "values"),
    [
        ({"schedule": "constant", "warmup_steps": 10}, {0: 0.1, 10: 1.0, 99: 1.0}),
        ({"schedule": "cosine"}, {0: 1.0, 50: 0.5}),
        ({"schedule": "wsd", "decay_fraction": 0.2}, {0: 1.0, 79: 1.0, 90: 1 / 5.5}),
        (
            {"schedule": "wsd_s", "anchors": (50, 100), "decay_fraction": 0.2},
            {0: 1.0, 39: 1.0, 45: 1 / 5.5, 50: 1.0, 95: 1 / 5.5},
        ),
    ],
)
def test_a_schedule_is_what_the_config_says(changes, values):
    config = config_of(learning_rate=1.0, **changes)
    validate(config)
    schedule = make_schedule(config)
    for step, rate in values.items():
        np.testing.assert_allclose(schedule(step), rate, rtol=1e-5)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"schedule": "wsd_s"}, r"anchors: expected steps that end with the 100 of the run"),
        ({"schedule": "wsd_s", "anchors": (50, 90)}, r"anchors: .* got \(50, 90\)"),
        ({"schedule": "wsd_s", "anchors": (60, 50)}, "anchors: expected a tuple of increasing"),
        ({"anchors": (50, 100)}, "anchors: expected optimizer.schedule=wsd_s beside it"),
        ({"schedule": "wsd", "decay_fraction": 1.0, "warmup_steps": 5}, "schedule: wsd: expected"),
        ({"schedule": "wsd", "min_ratio": 0.0}, "min_ratio: expected a number in"),
        ({"name": "frugal", "density": 1.5}, "density: expected a number in"),
        ({"name": "frugal", "split": "colums"}, "split: .* did you mean 'columns'"),
        ({"alpha": 0.5}, "alpha: expected optimizer.sharpness among gsam, look_sam beside it"),
        ({"sharpness": "sam", "every": 2}, "every: expected optimizer.sharpness among look_sam"),
    ],
)
def test_what_does_not_fit_is_said_in_one_line(changes, said):
    with pytest.raises(BadInput, match=rf"--config\.optimizer\.{said}") as refused:
        validate(config_of(**changes))
    assert len(str(refused.value).splitlines()) == 1


def test_frugal_saves_the_moments_of_inner_kernels_alone():
    paths = ("hidden_0/kernel", "network/block_1/attention/query/kernel")
    others = ("head/kernel", "hidden_0/bias", "output", "network/embedding", "embedding/kernel")
    assert all(map(inner_kernel, paths)) and not any(map(inner_kernel, others))
    sizes = {}
    for name in ("adamw", "frugal"):
        optimizer, _ = make_optimizer(config_of(name=name, density=0.25))
        sizes[name] = optim.optimizer_state_bytes(jax.eval_shape(optimizer.init, PARAMS))
    # Of 6 x 8 numbers a quarter of the columns: 36 of them have no two moments.
    assert sizes["adamw"] - sizes["frugal"] == pytest.approx(2 * 4 * 36, abs=64)


@pytest.mark.parametrize("name", sorted(SHARPNESS))
def test_every_sharpness_aware_step_asks_for_a_second_gradient(name):
    config = config_of(name="sgd", sharpness=name, rho=0.1)
    validate(config)
    optimizer, _ = make_optimizer(config)
    asked = []

    def grad_fn(params):
        asked.append(None)
        return jax.tree.map(jnp.ones_like, params)

    with jax.numpy_dtype_promotion("standard"):
        optimizer.update(PARAMS, optimizer.init(PARAMS), PARAMS, grad_fn=grad_fn)
    assert asked
