# SPDX-License-Identifier: Apache-2.0
"""The data part of a config, checked: every message names the flag that is wrong.

Reach for `DEFAULTS` when writing a config file: it lists every key that `load` reads. Other keys of
`config.data` (batch_size and so on) belong to the training loop and are ignored here.
"""

import dataclasses
import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from experiments.errors import BadInput

#: Every key that `load` reads, with its default. A missing key, or None, means the default.
DEFAULTS: dict[str, Any] = {
    # A name of `DATASETS`, or "tfds:<builder>".
    "name": "digits",
    # A directory of idx files, a zip file of pictures in folders or a csv(.gz) file; when set, it
    # takes the place of `name`.
    "path": None,
    # Where tensorflow-datasets keeps prepared data; None: its own default.
    "data_dir": None,
    # Parts of all examples held out; a source with a test set of its own keeps that one, and
    # validation_fraction is then a part of its training set.
    "validation_fraction": 0.15,
    "test_fraction": 0.2,
    # Decides who is held out; None: the run's seed.
    "split_seed": 0,
    # Hold out the same share of every class.
    "stratify": True,
    # "auto": pictures as "scale", tables as "standardise". "scale": pictures to [0, 1].
    # "standardise": zero mean and unit variance over the training split. "none": as stored.
    "normalise": "auto",
    # For files: take integer labels as they are, 0..num_classes-1 being the valid ones. None: the
    # distinct labels are sorted and numbered.
    "num_classes": None,
    # For pictures in folders: average over squares of so many pixels.
    "pool": 1,
    # For csv: whether the first row names the columns; None: found out.
    "has_header": None,
    # For csv: "error" or "impute" (numbers: median of the training split; text: a category).
    "missing": "error",
    # Labels of the classes to keep, numbered anew in this order; () keeps all.
    "classes": (),
    # Part of the training and validation labels replaced by another class, drawn uniformly with
    # split_seed; test labels stay as they are.
    "label_noise": 0.0,
    # For tensorflow-datasets: the features to use.
    "image_key": "image",
    "label_key": "label",
}

NORMALISATIONS = ("auto", "scale", "standardise", "none")
MISSING = ("error", "impute")


@dataclasses.dataclass(frozen=True)
class Options:
    """`DEFAULTS` with the user's values, types and ranges checked; fields as there."""

    name: str
    path: str | None
    data_dir: str | None
    validation_fraction: float
    test_fraction: float
    split_seed: int
    stratify: bool
    normalise: str
    num_classes: int | None
    pool: int
    has_header: bool | None
    missing: str
    classes: tuple[int, ...]
    label_noise: float
    image_key: str
    label_key: str


def nearest(name: str, known: Iterable[str]) -> str:
    """Ends a message with the closest known name, if there is one ("; did you mean ...?")."""
    match = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {match[0]!r}?" if match else ""


def read_options(data_config: Mapping[str, Any], *, seed: int) -> Options:
    """The options of a config, checked.

    Args:
        data_config: a mapping (dict or ConfigDict) with any of the keys of `DEFAULTS`.
        seed: used as split_seed where the config says None.

    Raises:
        BadInput: a value of the wrong type or out of range.
    """
    values = dict(DEFAULTS)
    for key in values:
        given = data_config.get(key)
        if given is not None:
            values[key] = given
    if "split_seed" in data_config and data_config.get("split_seed") is None:
        values["split_seed"] = seed
    for key in ("name", "image_key", "label_key"):
        _expect(key, values[key], "a name", isinstance(values[key], str) and values[key] != "")
    for key in ("path", "data_dir"):
        ok = values[key] is None or (isinstance(values[key], str) and values[key] != "")
        _expect(key, values[key], "a path", ok)
    for key in ("validation_fraction", "test_fraction"):
        ok = _is_number(values[key]) and 0 < values[key] < 1
        _expect(key, values[key], "a number between 0 and 1 (both excluded)", ok)
    _expect(
        "pool", values["pool"], "an integer >= 1", _is_int(values["pool"]) and values["pool"] > 0
    )
    noise = values["label_noise"]
    _expect("label_noise", noise, "a number in [0, 1)", _is_number(noise) and 0 <= noise < 1)
    held_out = values["validation_fraction"] + values["test_fraction"]
    if held_out >= 1:
        raise BadInput(
            "config.data: expected validation_fraction + test_fraction < 1, "
            f"got {values['validation_fraction']} + {values['test_fraction']}"
        )
    ok = _is_int(values["split_seed"]) and 0 <= values["split_seed"] < 2**32
    _expect("split_seed", values["split_seed"], "an integer from 0 to 2**32 - 1", ok)
    ok = values["num_classes"] is None or (
        _is_int(values["num_classes"]) and values["num_classes"] >= 2
    )
    _expect("num_classes", values["num_classes"], "an integer >= 2", ok)
    _expect("stratify", values["stratify"], "True or False", isinstance(values["stratify"], bool))
    ok = values["has_header"] is None or isinstance(values["has_header"], bool)
    _expect("has_header", values["has_header"], "True or False", ok)
    for key, choices in (("normalise", NORMALISATIONS), ("missing", MISSING)):
        expected = "one of " + ", ".join(choices)
        _expect(key, values[key], expected, values[key] in choices, choices)
    return Options(**values)


def _expect(key: str, value: Any, expected: str, ok: bool, choices: tuple[str, ...] = ()) -> None:
    if not ok:
        hint = nearest(value, choices) if isinstance(value, str) else ""
        raise BadInput(f"config.data.{key}: expected {expected}, got {value!r}{hint}")


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
