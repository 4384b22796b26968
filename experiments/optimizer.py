# SPDX-License-Identifier: Apache-2.0
"""The optimizer that a config names: an optax chain, and its learning-rate schedule."""

import inspect
import itertools

import jax
import numpy as np
import optax
from ml_collections import ConfigDict

from experiments.errors import BadInput
from experiments.rules import Rule, one_of
from xloss import optim
from xloss.optim.frugal import RULES as STATE_FREE
from xloss.optim.frugal import SPLITS

OPTIMIZERS = ("adam", "adamw", "frugal", "sgd")
#: Those of them that take weight_decay.
DECAYING = ("adamw", "frugal")
SCHEDULES = ("constant", "cosine", "wsd", "wsd_s")
SHARPNESS = {
    "sam": optim.sam,
    "asam": optim.asam,
    "fisher_sam": optim.fisher_sam,
    "gsam": optim.gsam,
    "look_sam": optim.look_sam,
}
#: Keys of config.optimizer that they take, where they have them; None: their own default.
SHARPNESS_KEYS = ("rho", "alpha", "every")

#: What the keys of config.optimizer must be.
RULES: dict[str, Rule] = {
    "optimizer.name": one_of(*OPTIMIZERS),
    "optimizer.schedule": one_of(*SCHEDULES),
    "optimizer.learning_rate": Rule((int, float), "a number > 0", lambda v: 0 < v < np.inf),
    "optimizer.warmup_steps": Rule(int, "an integer >= 0", lambda v: v >= 0),
    "optimizer.momentum": Rule((int, float), "a number in [0, 1)", lambda v: 0 <= v < 1),
    "optimizer.weight_decay": Rule((int, float), "a number >= 0", lambda v: 0 <= v < np.inf),
    "optimizer.clip_norm": Rule((int, float), "a number > 0", lambda v: v > 0),
    "optimizer.decay_fraction": Rule((int, float), "a number in (0, 1]", lambda v: 0 < v <= 1),
    "optimizer.min_ratio": Rule((int, float), "a number in (0, 1]", lambda v: 0 < v <= 1),
    "optimizer.anchors": Rule(
        (tuple, list),  # JSON has no tuples
        "a tuple of increasing integers >= 1",
        lambda v: (
            all(type(a) is int and a >= 1 for a in v)
            and all(a < b for a, b in itertools.pairwise(v))
        ),
    ),
    "optimizer.split": one_of(*SPLITS),
    "optimizer.density": Rule((int, float), "a number in [0, 1]", lambda v: 0 <= v <= 1),
    "optimizer.update_gap": Rule(int, "an integer >= 1", lambda v: v >= 1),
    "optimizer.state_free": one_of(*STATE_FREE),
    "optimizer.state_free_scale": Rule((int, float), "a number >= 0", lambda v: 0 <= v < np.inf),
}
#: The same for keys that may be None or missing.
OPTIONAL: dict[str, Rule] = {
    "optimizer.sharpness": one_of(*SHARPNESS),
    "optimizer.rho": Rule((int, float), "a number >= 0", lambda v: 0 <= v < np.inf),
    "optimizer.alpha": Rule((int, float), "a number >= 0", lambda v: 0 <= v < np.inf),
    "optimizer.every": Rule(int, "an integer >= 1", lambda v: v >= 1),
}


def check_sharpness(options: ConfigDict) -> None:
    """Raises BadInput where config.optimizer gives the sharpness-aware step what it does not take.

    Args:
      options: config.optimizer, its values checked one by one.
    """
    sharpness = options.get("sharpness")
    taken = inspect.signature(SHARPNESS[sharpness]).parameters if sharpness else ()
    for key in SHARPNESS_KEYS:
        if options.get(key) is not None and key not in taken:
            fitting = [
                name for name, f in SHARPNESS.items() if key in inspect.signature(f).parameters
            ]
            raise BadInput(
                f"--config.optimizer.{key}: expected optimizer.sharpness among "
                f"{', '.join(fitting)} beside it, got {sharpness or 'none'}"
            )


def check_weight_decay(options: ConfigDict) -> None:
    """Raises BadInput where config.optimizer has a weight decay that its optimizer would not do.

    Args:
      options: config.optimizer, its values checked one by one.
    """
    if options.weight_decay and options.name not in DECAYING:
        raise BadInput(
            f"--config.optimizer.weight_decay: expected optimizer.name among {', '.join(DECAYING)} "
            f"beside it, got {options.name}"
        )


def check_schedule(config: ConfigDict) -> None:
    """Raises BadInput where the steps of config.optimizer's schedule do not fit the run."""
    options = config.optimizer
    anchors = tuple(options.anchors)
    if options.schedule == "wsd_s" and (not anchors or anchors[-1] != config.steps):
        raise BadInput(
            f"--config.optimizer.anchors: expected steps that end with the {config.steps} of the "
            f"run for wsd_s, got {anchors}"
        )
    if options.schedule != "wsd_s" and anchors:
        raise BadInput(
            f"--config.optimizer.anchors: expected optimizer.schedule=wsd_s beside it, got "
            f"{options.schedule}"
        )
    try:
        make_schedule(config)
    except ValueError as error:
        raise BadInput(f"--config.optimizer.schedule: {error}") from error


def make_schedule(config: ConfigDict) -> optax.Schedule:
    """The learning rate of every step, as config.optimizer says."""
    options = config.optimizer
    rate, warmup = float(options.learning_rate), options.warmup_steps
    falling = {"min_ratio": options.min_ratio}
    if options.schedule == "wsd":
        decay = max(1, int(options.decay_fraction * config.steps))
        return optim.wsd(
            rate, total_steps=config.steps, warmup_steps=warmup, decay_steps=decay, **falling
        )
    if options.schedule == "wsd_s":
        return optim.wsd_s(
            rate,
            anchors=tuple(options.anchors),
            warmup_steps=warmup,
            decay_fraction=options.decay_fraction,
            **falling,
        )
    if options.schedule == "cosine":
        schedule = optax.cosine_decay_schedule(rate, config.steps - warmup)
    else:
        schedule = optax.constant_schedule(rate)
    if warmup:
        ramp = optax.linear_schedule(rate / warmup, rate, warmup)
        schedule = optax.join_schedules([ramp, schedule], [warmup])
    return schedule


def inner_kernel(path: str) -> bool:
    """Whether a parameter is a kernel between hidden layers: what FRUGAL saves the moments of."""
    return path.endswith("kernel") and not path.startswith(("head", "output", "embedding"))


def make_optimizer(
    config: ConfigDict, first: optax.GradientTransformation | None = None
) -> tuple[optax.GradientTransformationExtraArgs, optax.Schedule]:
    """The optax optimizer of config.optimizer, and its learning-rate schedule.

    Args:
      config: the config.
      first: a transform to stand before all others, clipping included. The extra arguments of its
        `update` come from the task's `step.Proposal`.

    Raises:
      BadInput: the config asks for SAM, which must stand first too.
    """
    options, schedule = config.optimizer, make_schedule(config)
    optimizer = {
        "adam": lambda: optax.adam(schedule),
        "adamw": lambda: optax.adamw(schedule, weight_decay=options.weight_decay),
        "frugal": lambda: optim.frugal(
            schedule,
            projectable=inner_kernel,
            density=options.density,
            update_gap=options.update_gap,
            split=options.split,
            state_free=options.state_free,
            state_free_scale=options.state_free_scale,
            weight_decay=options.weight_decay,
            key=jax.random.key(0),
        ),
        "sgd": lambda: optax.sgd(schedule, momentum=options.momentum, nesterov=False),
    }[options.name]()
    before: list[optax.GradientTransformation] = [] if first is None else [first]
    if (sharpness := options.get("sharpness")) is not None:
        if first is not None:
            raise BadInput(
                f"--config.optimizer.sharpness: expected none for this task, whose own transform "
                f"stands first, got {sharpness!r}"
            )
        given = {k: options[k] for k in SHARPNESS_KEYS if options.get(k) is not None}
        before = [SHARPNESS[sharpness](**given)]
    if np.isfinite(options.clip_norm):
        before.append(optax.clip_by_global_norm(options.clip_norm))
    if before:
        optimizer = optax.chain(*before, optimizer)
    return optax.with_extra_args_support(optimizer), schedule
