# SPDX-License-Identifier: Apache-2.0
"""The top of the Hessian once Lanczos has found all there is, and of leaves of two dtypes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from xloss import optim


@pytest.mark.parametrize("num_iters", [20, 200])
def test_steps_beyond_the_last_direction_do_not_add_up_rounding(num_iters):
    diagonal = jnp.array([-5.0] + [0.0] * 7)

    @jax.jit
    def top(key):
        return optim.sharpness(
            lambda w: jnp.sum(diagonal * w**2) / 2,
            jnp.ones(8),
            kind="hessian_top",
            key=key,
            num_iters=num_iters,
        )

    for seed in range(3):
        np.testing.assert_allclose(top(jax.random.key(seed)), 0.0, atol=5 * 1e-6)


def test_leaves_of_two_dtypes(x64):
    params = {"a": jnp.ones(2, jnp.float32), "b": jnp.ones(2, jnp.float64)}

    def loss(p):
        return jnp.sum(p["a"].astype(jnp.float64) ** 2) + 2 * jnp.sum(p["b"] ** 2)

    top = optim.sharpness(loss, params, kind="hessian_top", key=jax.random.key(0))
    assert top.dtype == jnp.float64
    np.testing.assert_allclose(top, 4.0, rtol=1e-6)
