# SPDX-License-Identifier: Apache-2.0
"""Golden functions of the spherical family (spec z_loss)."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import xloss
from experiments.golden.case import Case, losses_and_gradient
from xloss.classification import spherical_softmax, taylor_softmax, z_loss

#: Golden functions whose xloss counterpart is not written yet.
OPEN = frozenset({"factored_spherical_sgd"})


def _of(function: Callable[..., jax.Array]):
    def call(case: Case):
        hyper = {name: value for name, value in case.params.items() if name != "kind"}
        labels = case.inputs["labels"]

        def from_sums(target, total, squares):
            """The loss as the output-size-independent layer sees it: o_y, sum o_k, sum o_k^2."""
            mean = total / classes
            stats = xloss.LogitStatistics(
                target=target,
                centred=target - mean,
                variance=squares / classes - jnp.square(mean),
                class_count=jnp.full_like(target, classes),
                num_classes=classes,
                provider="golden",
            )
            return jnp.sum(function(stats, **hyper))

        @jax.jit
        def everything(logits, sums):
            gradients = jax.grad(from_sums, argnums=(0, 1, 2))(*sums)
            found = losses_and_gradient(lambda z: function(z, labels, **hyper), logits)
            names = ("grad_oc", "grad_sum", "grad_sumsq")
            return found | dict(zip(names, gradients, strict=True))

        logits = case.inputs["logits"]
        classes = logits.shape[-1]
        target = logits[np.arange(len(labels)), labels]
        return everything(logits, (target, logits.sum(-1), (logits**2).sum(-1)))

    return call


CALLS: dict[str, Callable[[Case], Mapping[str, Any]]] = {
    "z_loss": _of(z_loss),
    "taylor_loss": _of(taylor_softmax),
    "spherical_loss": _of(spherical_softmax),
}
