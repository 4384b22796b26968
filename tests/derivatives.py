# SPDX-License-Identifier: Apache-2.0
"""First and second derivatives against differences, in one compiled program.

What ``jax.test_util.check_grads`` checks, at a tenth of its time; for float64 and smooth points.
"""

import jax
import jax.numpy as jnp
import numpy as np


def check_derivatives(function, *arguments, rtol=1e-6):
    """Checks gradient and Hessian of ``sum(function(*arguments))`` along a random direction.

    Forward and reverse mode for the gradient, forward over reverse and reverse over reverse for
    the Hessian.
    """
    # Not the seed of anybody's arguments: some losses do not change along their own logits.
    rng = np.random.default_rng(20_000)
    arguments = tuple(jnp.asarray(a, jnp.float64) for a in arguments)
    direction = tuple(jnp.asarray(rng.normal(size=a.shape)) for a in arguments)

    def total(*args):
        return jnp.sum(function(*args))

    every = tuple(range(len(arguments)))
    gradient = jax.grad(total, argnums=every)

    def along(grads):
        return sum(jnp.vdot(g, d) for g, d in zip(grads, direction, strict=True))

    @jax.jit
    def everything(step):
        places = tuple(
            jnp.stack([a + s * d for s in (-step, 0.0 * step, step)])
            for a, d in zip(arguments, direction, strict=True)
        )
        # A loop and no vmap: the function as it is, and compiled once.
        values, gradients = jax.lax.map(
            lambda at: jax.value_and_grad(total, argnums=every)(*at), places
        )
        curvature = jax.grad(lambda *args: along(gradient(*args)), every)
        return {
            "forward": jax.jvp(total, arguments, direction)[1],
            "reverse": along([g[1] for g in gradients]),
            "slope": (values[2] - values[0]) / (2 * step),
            "forward over reverse": jax.jvp(gradient, arguments, direction)[1],
            "reverse over reverse": curvature(*arguments),
            "change of the gradient": [(g[2] - g[0]) / (2 * step) for g in gradients],
            "size": [jnp.max(jnp.abs(g[1])) for g in gradients],
        }

    step = 1e-5
    found = everything(step)
    for mode in ("forward", "reverse"):
        np.testing.assert_allclose(found[mode], found["slope"], rtol=rtol, err_msg=mode)
    for mode in ("forward over reverse", "reverse over reverse"):
        pairs = zip(found[mode], found["change of the gradient"], found["size"], strict=True)
        for mine, numerical, size in pairs:
            # A difference of gradients keeps what rounding leaves of them, over the step.
            rounding = 8 * np.finfo(np.float64).eps * float(size) / step
            atol = rtol * float(jnp.max(jnp.abs(numerical))) + rounding
            np.testing.assert_allclose(mine, numerical, rtol, atol, err_msg=mode)
