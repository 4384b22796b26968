# SPDX-License-Identifier: Apache-2.0
"""How the optimizer suite calls each transform of xloss.optim: one row a transform.

A factory that the catalogue lists must have a row; everything in `test_suite.py` then runs on it.
The problem is the same for all: two tasks that share a layer, so that there is a loss, its
gradient, a mean prediction and a loss for each task over one batch.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from xloss import optim


@dataclasses.dataclass(frozen=True, eq=False)  # hashed as itself: hyper is a dict
class Row:
    """One transform.

    Attributes:
      name: the catalogue's name of the factory.
      factory: the public function.
      extra: name of the function that update wants among its extra arguments: "grad_fn",
        "mean_prediction_fn" or "task_losses_fn"; "group_grad_fn" for a grad_fn of groups; None if
        it wants none.
      hyper: keyword arguments of the factory.
      numeric: those of its hyperparameters that a schedule can drive.
      static_args: what `optax.inject_hyperparams` must be told.
      atol: rounding between two compilations of two steps; more for what scales a difference up.
      variant: told apart from other rows of the same factory by it.
    """

    name: str
    factory: Callable[..., optax.GradientTransformation]
    extra: str | None
    hyper: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    numeric: tuple[str, ...] = ()
    static_args: tuple[str, ...] = ()
    atol: float = 1e-6
    variant: str = ""

    def __str__(self) -> str:
        return self.name + (f"-{self.variant}" if self.variant else "")

    @property
    def argument(self) -> str | None:
        """The extra argument's name."""
        return "grad_fn" if self.extra == "group_grad_fn" else self.extra

    def make(self) -> optax.GradientTransformation:
        """The transform."""
        return self.factory(**self.hyper)

    def injected(self, **changes: Any) -> optax.GradientTransformation:
        """The transform with its numbers in the state; `changes` may be schedules."""
        inject = optax.inject_hyperparams(self.factory, static_args=self.static_args)
        return inject(**{**self.hyper, **changes})

    def extras(self, batch: Mapping[str, jax.Array], scale: float = 1.0) -> dict[str, Any]:
        """Update's extra arguments over a batch; scale 0 makes every gradient vanish."""
        functions = {
            "grad_fn": jax.grad(lambda p: scale * loss(p, batch)),
            "mean_prediction_fn": lambda p: scale * mean_prediction(p, batch),
            "task_losses_fn": lambda p: scale * task_losses(p, batch),
        }
        if self.extra == "group_grad_fn":  # of one half of the batch

            def half(p, group):
                part = {n: x.reshape(2, -1, *x.shape[1:])[group] for n, x in batch.items()}
                return jax.grad(lambda p: scale * loss(p, part))(p)

            return {"grad_fn": half}
        return {} if self.extra is None else {self.extra: functions[self.extra]}


ROWS = (
    Row(
        name="ignite",
        factory=optim.ignite,
        extra="mean_prediction_fn",
        hyper={"lam0": 0.5, "eta_lambda": 0.1, "rho": 0.2, "radius": 0.1},
        numeric=("rho", "radius", "eps", "eta_lambda", "lam0"),
    ),
    Row(
        name="ignite",
        factory=optim.ignite,
        extra="mean_prediction_fn",
        hyper={"lam0": 0.5, "eta_lambda": 0.1, "hvp": "jvp", "clip_lambda": True},
        numeric=("rho", "eps", "eta_lambda", "lam0"),
        variant="jvp",
    ),
    Row(name="sam", factory=optim.sam, extra="grad_fn", hyper={"rho": 0.2}, numeric=("rho",)),
    Row(
        name="sam",
        factory=optim.sam,
        extra="group_grad_fn",
        hyper={"rho": 0.2, "num_groups": 2},
        numeric=("rho",),
        static_args=("num_groups",),
        variant="groups",
    ),
    Row(
        name="gsam",
        factory=optim.gsam,
        extra="grad_fn",
        hyper={"rho": 0.2},
        numeric=("rho", "alpha"),
        static_args=("minimize_clean",),
    ),
    Row(
        name="gradient_norm_penalty",
        factory=optim.gradient_norm_penalty,
        extra="grad_fn",
        numeric=("lam", "radius"),
        static_args=("normalize_clean",),
    ),
    Row(
        name="fisher_sam",
        factory=optim.fisher_sam,
        extra="grad_fn",
        hyper={"rho": 0.2},
        numeric=("rho", "eta"),
    ),
    Row(
        name="look_sam",
        factory=optim.look_sam,
        extra="grad_fn",
        # A difference of two gradients, scaled up: far apart it is not made of rounding.
        hyper={"rho": 0.5, "alpha": 0.2, "every": 3},
        numeric=("rho", "alpha"),
        static_args=("every",),
        atol=5e-6,
    ),
    Row(
        name="asam",
        factory=optim.asam,
        extra="grad_fn",
        hyper={"mask": {"shared": True, "heads": {"left": True, "right": False}}},
        numeric=("rho", "eta"),
        static_args=("mask", "scaled"),
    ),
    *(
        Row(
            name="sam_multitask",
            factory=optim.sam_multitask,
            extra="task_losses_fn",
            hyper={
                "shared": {"shared": True, "heads": False},
                "aggregator": getattr(optim.aggregators, aggregator),
                "rho_shared": 0.2,
                "rho_heads": 0.1,
                **hyper,
            },
            numeric=("rho_shared", "rho_heads"),
            static_args=("shared", "aggregator", "mask", "key"),
            variant=aggregator,
        )
        for aggregator, hyper in (
            ("mgda", {"adaptive": True, "sequential": True}),
            ("pcgrad", {"key": jax.random.PRNGKey(3)}),
        )
    ),
    *(
        Row(
            name="frugal",
            factory=optim.frugal,
            extra=None,
            hyper={
                "learning_rate": 0.05,
                "projectable": lambda path: path.endswith("kernel"),
                "density": 0.5,
                "update_gap": 1,
                "key": jax.random.PRNGKey(4),
                **hyper,
            },
            numeric=(
                *("learning_rate", "b1", "b2", "eps", "weight_decay"),
                *("state_free_scale", "projectable_scale"),
            ),
            static_args=("projectable", "density", "update_gap", "reset", "key"),
            variant=variant,
        )
        for variant, hyper in (
            ("columns", {"split": "columns"}),
            ("entries", {"split": "entries", "density": 0.4}),
            ("block", {"split": "block"}),
            ("svd", {"split": "svd", "reset": False, "update_gap": 2}),
        )
    ),
)


# ---- the problem: 16 examples of 8 numbers, a shared layer of 24, a head for each task ----------


def parameters(seed: int = 0, dtype: Any = jnp.float32) -> dict[str, Any]:
    """Parameters whose sizes eight devices divide, no two leaves of one room of equal shape."""
    rng = np.random.default_rng(seed)

    def draw(*shape: int) -> jax.Array:
        return jnp.asarray(0.5 * rng.normal(size=shape), dtype)

    return {
        "shared": {"kernel": draw(8, 24), "bias": draw(24)},
        "heads": {"left": {"kernel": draw(24, 1)}, "right": {"kernel": draw(24, 2)}},
    }


def make_batch(seed: int = 1, size: int = 16, dtype: Any = jnp.float32) -> dict[str, jax.Array]:
    """Inputs [size, 8] and the targets [size] and [size, 2] of the two tasks."""
    rng = np.random.default_rng(seed)
    shapes = {"inputs": (size, 8), "left": (size, 1), "right": (size, 2)}
    return {name: jnp.asarray(rng.normal(size=shape), dtype) for name, shape in shapes.items()}


def predictions(params, batch):
    shared, heads = params["shared"], params["heads"]
    # A transform may ask at float32 parameters where the model's own are bfloat16.
    inputs = batch["inputs"].astype(shared["kernel"].dtype)
    hidden = jnp.tanh(inputs @ shared["kernel"] + shared["bias"][None, :])
    return {task: hidden @ heads[task]["kernel"] for task in ("left", "right")}


def task_losses(params, batch):
    """Mean squared errors [2]."""
    found = predictions(params, batch)
    errors = {task: out - batch[task].astype(out.dtype) for task, out in found.items()}
    return jnp.stack([jnp.mean(jnp.square(error)) for error in errors.values()])


def loss(params, batch):
    return jnp.sum(task_losses(params, batch))


def mean_prediction(params, batch):
    return jnp.mean(predictions(params, batch)["left"])


def gradient(params, batch):
    return jax.grad(loss)(params, batch)


def step(optimizer: Any, row: Row, params, state, batch):
    """One whole training step: (params, state)."""
    updates, state = optimizer.update(gradient(params, batch), state, params, **row.extras(batch))
    return optax.apply_updates(params, updates), state
