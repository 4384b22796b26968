# SPDX-License-Identifier: Apache-2.0
"""What every config has, with its default: start a config file from `base_config()`.

A value of None is a placeholder of the type that the command line will convert to.
"""

import inspect
import math
from typing import Any

from ml_collections import ConfigDict, config_dict

from experiments.data import DEFAULTS
from experiments.errors import BadInput
from xloss.catalogue import LOSSES
from xloss.surrogates import SURROGATES

#: Placeholders of the data keys whose default is None.
_DATA_TYPES = {"path": str, "data_dir": str, "num_classes": int, "has_header": bool}


def base_config() -> ConfigDict:
    """A complete config: cross-entropy on digits with Adam."""
    data = {
        key: config_dict.placeholder(_DATA_TYPES[key]) if value is None else value
        for key, value in DEFAULTS.items()
    }
    return ConfigDict(
        {
            "seed": 0,
            # Optimizer steps; --max_steps stops earlier without changing the schedule.
            "steps": 1000,
            # batch_size is over all devices and processes.
            "data": ConfigDict({**data, "batch_size": 64, "eval_batch_size": 256}),
            "model": ConfigDict(
                {"name": "mlp", "hidden": (64,), "activation": "relu", "dropout": 0.0}
            ),
            # A file of experiments/tasks, and its keys.
            "task": ConfigDict({"name": "classification"}),
            "loss": loss("cross_entropy"),
            "optimizer": ConfigDict(
                {
                    "name": "adam",  # adam, adamw, frugal, sgd
                    "learning_rate": 1e-3,
                    "schedule": "constant",  # constant, cosine (to 0 over steps), wsd, wsd_s
                    "warmup_steps": 0,
                    # wsd, wsd_s: part of the run, or of each segment, in which the rate falls, and
                    # to which part of it; wsd_s: steps at whose end it has fallen, the last = steps
                    "decay_fraction": 0.1,
                    "min_ratio": 0.1,
                    "anchors": (),
                    "momentum": 0.9,  # sgd
                    "weight_decay": 0.0,  # adamw, frugal
                    # frugal; what has moments are kernels [in, out] but those of the head
                    "split": "columns",
                    "density": 0.25,
                    "update_gap": 200,
                    "state_free": "sign",
                    "state_free_scale": 1.0,
                    "clip_norm": math.inf,  # of the global gradient norm
                    # sam, asam, fisher_sam, gsam, look_sam; None: none of them. Below it their
                    # radius, strength (gsam, look_sam) and period (look_sam), None: their own.
                    "sharpness": config_dict.placeholder(str),
                    "rho": config_dict.placeholder(float),
                    "alpha": config_dict.placeholder(float),
                    "every": config_dict.placeholder(int),
                }
            ),
            # Devices along the mesh axis `model`, and the rules that spread parameters over the
            # mesh; the others are along `data`. See experiments/sharding.py.
            "mesh": ConfigDict({"model": 1}),
            "sharding": (),
            # float64 is for checks; the loss and everything behind it are then float64, too.
            "param_dtype": "float32",
            # How a step is computed, see experiments/computing.py: micro-batches of a batch;
            # float32 or bfloat16 (float32: as the parameters); none, full or dots.
            "accumulate": 1,
            "compute_dtype": "float32",
            "remat": "none",
            "log_every": 20,
            "eval_every": 200,
            "checkpoint_every": 200,
            # The last ones stay; beside them every step that is a multiple of keep_every (0: none)
            # and the keep_best best (0: none) by a metric of the validation split.
            "keep_checkpoints": 3,
            "keep_every": 0,
            "keep_best": 0,
            "best_metric": "accuracy",
            "best_is": "highest",  # lowest
            # A loss, gradient or parameter that is not finite: stop, or skip the step, and stop
            # after max_skipped of them in a row.
            "on_nan": "stop",
            "max_skipped": 10,
        }
    )


def loss(name: str, **hyperparameters: Any) -> ConfigDict:
    """config.loss: a name and its hyperparameters; None leaves one at the loss's own default.

    Every hyperparameter of the catalogue is a key, so that `--config.loss.name=comp_sum
    --config.loss.tau=0.7` works on any config; one that is given to a loss without it is refused.
    """
    config = ConfigDict({"name": name, "surrogate": config_dict.placeholder(str)})
    for key, kind in sorted(_hyperparameters().items()):
        config[key] = config_dict.placeholder(kind)
    config.update(hyperparameters)
    return config


def _hyperparameters() -> dict[str, type]:
    """Every hyperparameter of the catalogue and its type: int and str by default, else float."""
    kinds: dict[str, type] = {}
    for phi in SURROGATES.values():
        kinds |= dict.fromkeys(list(inspect.signature(phi).parameters)[1:], float)
    for entry in LOSSES.values():
        for key, default in entry.hyperparameters.items():
            kinds[key] = type(default) if type(default) in (int, str) else float
    return {key: kind for key, kind in kinds.items() if key != "surrogate"}


def shortened(config: ConfigDict, variant: str) -> ConfigDict:
    """Applies the variants that every config has: "" as it is, "quick" for seconds.

    Raises:
      BadInput: another variant.
    """
    if variant not in ("", "quick"):
        raise BadInput(f"--config: expected the variant 'quick' or none, got {variant!r}")
    if variant == "quick":
        config.steps = 60
        config.log_every = 10
        config.eval_every = config.checkpoint_every = 30
    return config
