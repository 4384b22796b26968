# SPDX-License-Identifier: Apache-2.0
"""Any dataset that tensorflow-datasets has prepared on disk, read without TensorFlow.

Reach for it with `name="tfds:fashion_mnist"` (also `tfds:name/config` and `tfds:name:1.2.3`).
`data_dir` is the directory given to tensorflow-datasets when the set was prepared. Reading needs
the file format array_record or parquet; nothing is ever downloaded or prepared from here.

Splits: "train" is required; "validation" and "test" are used if the set has them and held out of
"train" at random otherwise (by split_seed; not stratified, as that would mean reading every label
first). Labels are taken as they are. Pictures of an integer dtype are divided by the dtype's
largest value on reading, unless `normalise="none"`.
"""

import os
import shlex
from typing import Any

import numpy as np

from experiments.data.dataset import Batch, Dataset, task_of
from experiments.data.options import Options, nearest
from experiments.data.splits import hold_out
from experiments.errors import BadInput

PREFIX = "tfds:"


class TfdsSource:
    """A selection of the records of a prepared split.

    Args:
        records: what `as_data_source` returns: `__getitems__(list of int)` gives dicts of values.
        positions: integer [n], the records that belong to this source.
        image_key, label_key: the features to read.
        divisor: inputs are divided by it.
        place: names the files in messages.
    """

    def __init__(
        self,
        records: Any,
        positions: np.ndarray,
        *,
        image_key: str,
        label_key: str,
        divisor: float,
        place: str,
    ):
        self._place = place
        self._records = records
        self._positions = positions
        self._image_key = image_key
        self._label_key = label_key
        self._divisor = np.float32(divisor)

    def __len__(self) -> int:
        return self._positions.shape[0]

    def __getitem__(self, position: int) -> Batch:
        return {key: value[0] for key, value in self.gather(np.asarray([position])).items()}

    def gather(self, positions: np.ndarray) -> Batch:
        """See `Source.gather`; raises BadInput with the path if the files are damaged."""
        try:
            records = self._records.__getitems__(self._positions[positions].tolist())
            inputs = np.stack([record[self._image_key] for record in records]).astype(np.float32)
            label = np.asarray([record[self._label_key] for record in records], np.int32)
        except Exception as error:  # a lost file is a RuntimeError, a truncated one holds None
            raise BadInput(f"{self._place}: records cannot be read ({_line(error)})") from error
        inputs /= self._divisor
        return {"inputs": inputs, "label": label, "index": np.asarray(positions, np.int32)}


def load_tfds(options: Options) -> Dataset:
    """The prepared dataset that `options.name` ("tfds:<builder>") names.

    Raises:
        BadInput: not prepared in data_dir (with the command that prepares it), prepared in a format
            without random access, or without the features that the config names.
    """
    builder = _find(options)
    info = builder.info
    image, label = (
        _feature(builder, key, flag)
        for key, flag in ((options.image_key, "image_key"), (options.label_key, "label_key"))
    )
    if not image.shape or None in image.shape:
        raise BadInput(
            f"config.data.image_key: expected a feature of a fixed shape, {options.image_key!r} of "
            f"{options.name} has {image.shape}"
        )
    class_names = _class_names(label, options)
    divisor = _divisor(image, options)

    positions = {"train": np.arange(_size(info, "train", options))}
    owned = [split for split in ("validation", "test") if split in info.splits]
    if len(owned) < 2:
        # Zeros stand for labels that are not read: nothing is stratified.
        zeros = np.zeros(positions["train"].size, np.int32)
        positions = hold_out(zeros, options, where=options.name, has_test="test" in owned)
        if "validation" in owned:
            # Its part stays in the training split when the set brings its own validation split.
            positions["train"] = np.sort(
                np.concatenate([positions["train"], positions["validation"]])
            )
    sources = {}
    for split in ("train", "validation", "test"):
        name = split if split in owned else "train"
        if split in owned:
            positions[split] = np.arange(_size(info, split, options))
        sources[split] = TfdsSource(
            builder.as_data_source(split=name),
            positions[split],
            image_key=options.image_key,
            label_key=options.label_key,
            divisor=divisor,
            place=f"{builder.data_path} (split {name!r})",
        )
        sources[split][0]  # missing or damaged files are told now and not in the middle of a run
    return Dataset(
        name=options.name,
        num_classes=len(class_names),
        input_shape=tuple(image.shape),
        task=task_of(len(class_names)),
        licence=_licence(info),
        class_names=class_names,
        **sources,
    )


def _find(options: Options) -> Any:
    """The builder of the prepared files; the code that made them is not needed."""
    import tensorflow_datasets as tfds

    name = options.name.removeprefix(PREFIX)
    data_dir = options.data_dir and os.path.expanduser(options.data_dir)
    place = options.data_dir or str(tfds.core.constants.DATA_DIR)
    try:
        builder = tfds.core.read_only_builder.builder_from_files(name, data_dir=data_dir)
    except tfds.core.registered.DatasetNotFoundError as error:
        raise BadInput(
            f"config.data.name: {name!r} is not prepared in {place}"
            f"{nearest(name, _prepared(data_dir or place))}; prepare it once (pictures need "
            f"TensorFlow for that, reading them does not): {_prepare_command(name, place)}"
        ) from error
    except Exception as error:  # whatever the parsers of its metadata files raise
        raise BadInput(
            f"config.data.name: {name!r} in {place} cannot be read ({_line(error)})"
        ) from error
    formats = {file_format.value for file_format in builder.info.available_file_formats()}
    if not formats & {"array_record", "parquet"}:
        raise BadInput(
            f"config.data.name: {name!r} in {place} is stored as {', '.join(sorted(formats))}, "
            f"expected array_record; prepare it again: {_prepare_command(name, place)}"
        )
    return builder


def _line(error: Exception) -> str:
    lines = str(error).split("\n")
    return f"{type(error).__name__}: {lines[0]}"


def _prepare_command(name: str, data_dir: str) -> str:
    code = (
        "import tensorflow_datasets as tfds; "
        f"tfds.builder({name!r}, data_dir={data_dir!r}, file_format='array_record')"
        ".download_and_prepare()"
    )
    return f"python -c {shlex.quote(code)}" if "'" not in code else f'python -c "{code}"'


def _prepared(data_dir: str) -> list[str]:
    return os.listdir(data_dir) if os.path.isdir(data_dir) else []


def _feature(builder: Any, key: str, flag: str) -> Any:
    features = builder.info.features
    if key not in features:
        raise BadInput(
            f"config.data.{flag}: {builder.name} has no feature {key!r}{nearest(key, features)} "
            f"(it has {', '.join(sorted(features))})"
        )
    return features[key]


def _class_names(label: Any, options: Options) -> tuple[str, ...]:
    if label.shape != () or not np.issubdtype(label.np_dtype, np.integer):
        raise BadInput(
            f"config.data.label_key: expected a feature with one integer an example, "
            f"{options.label_key!r} of {options.name} is {label.np_dtype} {label.shape}"
        )
    stated = getattr(label, "num_classes", None)
    if stated is not None:
        if options.num_classes not in (None, stated):
            raise BadInput(
                f"config.data.num_classes: {options.name} has {stated} classes, "
                f"got {options.num_classes}"
            )
        return tuple(label.names)
    if options.num_classes is None:
        raise BadInput(
            f"config.data.num_classes: expected a number, as the feature {options.label_key!r} of "
            f"{options.name} does not state its classes"
        )
    return tuple(str(number) for number in range(options.num_classes))


def _divisor(image: Any, options: Options) -> float:
    if options.normalise == "standardise":
        raise BadInput(
            "config.data.normalise: 'standardise' would read all of a prepared dataset first; "
            f"expected auto, scale or none for {options.name}"
        )
    if options.normalise == "none" or not np.issubdtype(image.np_dtype, np.integer):
        return 1.0
    return float(np.iinfo(image.np_dtype).max)


def _size(info: Any, split: str, options: Options) -> int:
    if split not in info.splits or info.splits[split].num_examples == 0:
        raise BadInput(
            f"config.data.name: {options.name} has no examples in the split {split!r} "
            f"(splits: {', '.join(info.splits)})"
        )
    return info.splits[split].num_examples


def _licence(info: Any) -> str:
    stated = info.redistribution_info.license if info.redistribution_info else ""
    return " ".join(stated.split()) or f"see {info.homepage or 'the homepage of the dataset'}"
