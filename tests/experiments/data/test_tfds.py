# SPDX-License-Identifier: Apache-2.0
"""Prepared tensorflow-datasets, proved on a small array_record set that the fixture builds."""

import shutil

import numpy as np
import pytest
import tensorflow_datasets as tfds

from experiments.data import load, train_iterator
from experiments.errors import BadInput

TRAIN, TEST = 40, 12


class TinyBlobs(tfds.core.GeneratorBasedBuilder):
    """4 x 4 pictures whose first pixel tells the record, its class being number modulo 3."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        # A builder in a plain file has no metadata beside it, so DatasetInfo is made by hand; Image
        # features need TensorFlow to be written, tensors do not.
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Tensor(shape=(4, 4, 1), dtype=np.uint8),
                    "label": tfds.features.ClassLabel(names=["a", "b", "c"]),
                    "wave": tfds.features.Tensor(shape=(6,), dtype=np.float32),
                    "number": tfds.features.Scalar(dtype=np.int32),
                    "note": tfds.features.Text(),
                }
            ),
        )

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(TRAIN), "test": self._generate_examples(TEST)}

    def _generate_examples(self, size):
        for number in range(size):
            image = np.full((4, 4, 1), 255, np.uint8)
            image[0, 0] = number
            yield (
                number,
                {
                    "image": image,
                    "label": number % 3,
                    "wave": np.full(6, number / 2, np.float32),
                    "number": number,
                    "note": f"record {number}",
                },
            )


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    directory = tmp_path_factory.mktemp("tensorflow_datasets")
    TinyBlobs(data_dir=directory, file_format="array_record").download_and_prepare()
    return str(directory)


def bad(**config) -> str:
    with pytest.raises(BadInput) as error:
        load({"name": "tfds:tiny_blobs"} | config, seed=0)
    assert "\n" not in str(error.value)
    return str(error.value)


def everything(source):
    return source.gather(np.arange(len(source)))


def numbers(batch) -> np.ndarray:
    return np.rint(255 * batch["inputs"][:, 0, 0, 0]).astype(int)


@pytest.mark.parametrize("name", ["tfds:tiny_blobs", "tfds:tiny_blobs:1.0.0"])
def test_a_prepared_set_is_read_by_name(data_dir, name):
    dataset = load({"name": name, "data_dir": data_dir}, seed=0)
    assert (dataset.name, dataset.task, dataset.num_classes) == (name, "multiclass", 3)
    assert (dataset.input_shape, dataset.class_names) == ((4, 4, 1), ("a", "b", "c"))
    assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (34, 6, TEST)
    held = [everything(source) for source in (dataset.train, dataset.validation)]
    assert sorted(np.concatenate([numbers(batch) for batch in held])) == list(range(TRAIN))
    test = everything(dataset.test)
    assert sorted(numbers(test)) == list(range(TEST))
    assert test["inputs"].dtype == np.float32 and test["inputs"].max() == 1.0
    np.testing.assert_array_equal(test["label"], numbers(test) % 3)
    example = dataset.test[5]
    np.testing.assert_array_equal(example["inputs"], test["inputs"][5])
    assert example["index"] == 5 and example["label"].dtype == np.int32


def test_training_batches_resume(data_dir):
    dataset = load({"name": "tfds:tiny_blobs", "data_dir": data_dir}, seed=0)
    iterator = train_iterator(dataset.train, batch_size=8, seed=0)
    next(iterator)
    state = iterator.get_state()
    batches = [next(iterator) for _ in range(6)]
    for batch in batches:
        assert batch["inputs"].shape == (8, 4, 4, 1)
        np.testing.assert_array_equal(batch["label"], numbers(batch) % 3)
    iterator.set_state(state)
    for batch in batches:
        again = next(iterator)
        np.testing.assert_array_equal(again["inputs"], batch["inputs"])
        np.testing.assert_array_equal(again["index"], batch["index"])


def test_features_are_chosen_by_key(data_dir):
    config = {"name": "tfds:tiny_blobs", "data_dir": data_dir, "image_key": "wave"}
    dataset = load(config | {"label_key": "number", "num_classes": 2}, seed=0)
    assert (dataset.input_shape, dataset.task) == ((6,), "binary")
    test = everything(dataset.test)
    np.testing.assert_array_equal(test["inputs"][:, 0] * 2, test["label"])  # as it is, up to 11


def test_raw_pixels_on_request(data_dir):
    config = {"name": "tfds:tiny_blobs", "data_dir": data_dir, "normalise": "none"}
    assert everything(load(config, seed=0).test)["inputs"].max() == 255.0


def test_data_that_is_not_prepared_is_told_how(data_dir):
    message = bad(data_dir=data_dir, name="tfds:tiny_blob")
    assert message.startswith(f"config.data.name: 'tiny_blob' is not prepared in {data_dir}")
    assert "did you mean 'tiny_blobs'?" in message
    command = message[message.index("python -c ") :]
    assert "tfds.builder('tiny_blob'" in command
    assert f"data_dir={data_dir!r}, file_format='array_record').download_and_prepare()" in command


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"image_key": "picture"}, "config.data.image_key: tiny_blobs has no feature 'picture'"),
        (
            {"label_key": "lable"},
            "no feature 'lable'; did you mean 'label'? (it has image, label, note",
        ),
        ({"label_key": "wave"}, "config.data.label_key: expected a feature with one integer"),
        ({"label_key": "note"}, "config.data.label_key: expected a feature with one integer"),
        ({"label_key": "number"}, "config.data.num_classes: expected a number, as the feature"),
        ({"num_classes": 5}, "config.data.num_classes: tfds:tiny_blobs has 3 classes, got 5"),
        ({"image_key": "number"}, "expected a feature of a fixed shape, 'number'"),
        ({"normalise": "standardise"}, "config.data.normalise: 'standardise' would read all"),
        ({"name": "tfds:"}, "config.data.name: '' in"),
    ],
)
def test_bad_options_are_named_in_one_line(data_dir, config, message):
    assert message in bad(**{"data_dir": data_dir} | config)


@pytest.mark.parametrize(
    ("pattern", "keep", "message"),
    [
        ("*train.array_record*", None, "records cannot be read (RuntimeError: open() failed"),
        ("*train.array_record*", 0.5, "records cannot be read"),
        ("*test.array_record*", 0.0, "records cannot be read"),
        ("dataset_info.json", 0.5, "cannot be read (ParseError"),
        ("features.json", 0.0, "cannot be read (JSONDecodeError"),
    ],
)
def test_missing_or_damaged_files_are_one_line_with_the_path(
    data_dir, tmp_path, pattern, keep, message
):
    shutil.copytree(data_dir, tmp_path / "copy")
    (path,) = (tmp_path / "copy").glob(f"tiny_blobs/1.0.0/{pattern}")
    data = path.read_bytes()
    path.unlink()
    if keep is not None:
        path.write_bytes(data[: int(keep * len(data))])
    error = bad(data_dir=str(tmp_path / "copy"))
    assert message in error
    assert str(tmp_path / "copy") in error


def test_tensorflow_is_never_imported(data_dir, run_python):
    run_python(
        "-c",
        "import sys; from experiments.data import load\n"
        f"data = load({{'name': 'tfds:tiny_blobs', 'data_dir': {data_dir!r}}}, seed=0)\n"
        "assert data.test[0]['inputs'].shape == (4, 4, 1) and 'tensorflow' not in sys.modules",
    )
