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

    gradient = jax.grad(total, argnums=tuple(range(len(arguments))))

    def along(grads):
        return sum(jnp.vdot(g, d) for g, d in zip(grads, direction, strict=True))

    @jax.jit
    def everything(step):
        moved = [
            tuple(a + s * d for a, d in zip(arguments, direction, strict=True))
            for s in (step, -step)
        ]
        curvature = jax.grad(lambda *args: along(gradient(*args)), tuple(range(len(arguments))))
        return {
            "forward": jax.jvp(total, arguments, direction)[1],
            "reverse": along(gradient(*arguments)),
            "slope": (total(*moved[0]) - total(*moved[1])) / (2 * step),
            "forward over reverse": jax.jvp(gradient, arguments, direction)[1],
            "reverse over reverse": curvature(*arguments),
            "change of the gradient": jax.tree.map(
                lambda x, y: (x - y) / (2 * step), gradient(*moved[0]), gradient(*moved[1])
            ),
            "size": [jnp.max(jnp.abs(g)) for g in gradient(*arguments)],
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
