# SPDX-License-Identifier: Apache-2.0
"""The embedded datasets, the splits, and the config's keys."""

import ml_collections
import numpy as np
import pytest

from experiments.data import DATASETS, DEFAULTS, describe, load
from experiments.errors import BadInput


def everything(source):
    return source.gather(np.arange(len(source)))


@pytest.mark.parametrize("name", sorted(DATASETS))
def test_embedded_set_is_what_its_entry_says(name):
    entry = DATASETS[name]
    dataset = load({"name": name}, seed=0)
    sources = [dataset.train, dataset.validation, dataset.test]
    assert sum(map(len, sources)) == entry.examples
    assert dataset.input_shape == entry.input_shape
    assert dataset.num_classes == entry.num_classes == len(dataset.class_names)
    assert dataset.task == ("binary" if entry.num_classes == 2 else "multiclass")
    for source in sources:
        batch = everything(source)
        assert batch["inputs"].shape == (len(source), *entry.input_shape)
        assert batch["inputs"].dtype == np.float32 and batch["label"].dtype == np.int32
        assert set(batch["label"]) == set(range(entry.num_classes))
        np.testing.assert_array_equal(batch["index"], np.arange(len(source)))
    assert str(entry.examples) in describe(name) and entry.licence in describe(name)


def test_digits_are_pictures_in_the_unit_interval():
    dataset = load({"name": "digits"}, seed=0)
    assert dataset.input_shape == (8, 8)
    inputs = everything(dataset.train)["inputs"]
    assert inputs.min() == 0.0 and inputs.max() == 1.0
    raw = everything(load({"name": "digits", "normalise": "none"}, seed=0).train)["inputs"]
    np.testing.assert_array_equal(raw / np.float32(16), inputs)


@pytest.mark.parametrize("name", ["digits", "breast_cancer"])
def test_standardising_uses_the_training_split_alone(name):
    config = {"name": name, "normalise": "standardise"}
    dataset = load(config, seed=0)
    raw = load(config | {"normalise": "none"}, seed=0)
    train = everything(raw.train)["inputs"].astype(np.float64)
    mean, deviation = train.mean(axis=0), train.std(axis=0)
    deviation[deviation == 0] = 1.0
    for split in ("train", "test"):
        expected = (everything(getattr(raw, split))["inputs"] - mean) / deviation
        got = everything(getattr(dataset, split))["inputs"]
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)
    assert load({"name": "breast_cancer"}, seed=0).class_names == ("malignant", "benign")


def test_tables_are_standardised_unless_told_otherwise():
    default = everything(load({"name": "wine"}, seed=0).train)["inputs"]
    asked = everything(load({"name": "wine", "normalise": "standardise"}, seed=0).train)["inputs"]
    np.testing.assert_array_equal(default, asked)


def test_splits_are_stratified_and_disjoint():
    config = {"name": "digits", "normalise": "none"}
    dataset = load(config, seed=0)
    sources = [dataset.train, dataset.validation, dataset.test]
    rows = np.concatenate([everything(source)["inputs"] for source in sources]).reshape(-1, 64)
    from sklearn.datasets import load_digits

    np.testing.assert_array_equal(
        np.unique(rows, axis=0), np.unique(load_digits().data.astype(np.float32), axis=0)
    )
    assert rows.shape[0] == 1797
    for source, fraction in zip(sources, (0.65, 0.15, 0.2)):
        assert len(source) == pytest.approx(1797 * fraction, abs=1)
        share = np.bincount(everything(source)["label"], minlength=10) / len(source)
        np.testing.assert_allclose(share, 0.1, atol=0.01)


def test_splits_follow_split_seed_and_not_the_runs_seed():
    def test_inputs(config, seed):
        return everything(load({"name": "wine"} | config, seed=seed).test)["inputs"]

    base = test_inputs({"split_seed": 0}, 0)
    np.testing.assert_array_equal(base, test_inputs({"split_seed": 0}, 7))
    np.testing.assert_array_equal(base, test_inputs({}, 7))
    assert not np.array_equal(base, test_inputs({"split_seed": 1}, 0))
    np.testing.assert_array_equal(
        test_inputs({"split_seed": None}, 7), test_inputs({"split_seed": 7}, 0)
    )


def test_config_dicts_and_keys_of_others_are_welcome():
    config = ml_collections.ConfigDict(DEFAULTS | {"name": "iris", "batch_size": 64})
    dataset = load(config, seed=0)
    assert (dataset.name, len(dataset.test)) == ("iris", 30)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"name": "digit"}, "config.data.name: unknown dataset 'digit'; did you mean 'digits'?"),
        ({"name": "cifar"}, "known: breast_cancer, digits, iris, wine"),
        ({"name": 3}, "config.data.name: expected a name, got 3"),
        ({"test_fraction": 1.5}, "config.data.test_fraction: expected a number between 0 and 1"),
        ({"validation_fraction": "a lot"}, "config.data.validation_fraction: expected a number"),
        ({"validation_fraction": 0.5, "test_fraction": 0.5}, "test_fraction < 1, got 0.5"),
        ({"validation_fraction": 1e-6}, "digits: 1797 examples are too few for"),
        ({"test_fraction": 0.002}, "give larger fractions, or --config.data.stratify=False"),
        ({"split_seed": -1}, "config.data.split_seed: expected an integer from 0"),
        ({"split_seed": True}, "config.data.split_seed: expected an integer from 0"),
        ({"stratify": 1}, "config.data.stratify: expected True or False, got 1"),
        ({"normalise": "standard"}, "got 'standard'; did you mean 'standardise'?"),
        ({"name": "wine", "normalise": "scale"}, "'scale' is for pictures and wine is a table"),
        ({"num_classes": 1}, "config.data.num_classes: expected an integer >= 2, got 1"),
        ({"num_classes": 9}, "config.data.num_classes: digits has 10 classes, got 9"),
        ({"missing": "drop"}, "config.data.missing: expected one of error, impute"),
        ({"has_header": "yes"}, "config.data.has_header: expected True or False"),
        ({"path": 5}, "config.data.path: expected a path, got 5"),
        ({"path": "no/such/file.csv"}, "config.data.path: no such file or directory: no/such"),
        ({"path": "x.csv", "name": "tfds:mnist"}, "config.data.path: expected none beside name="),
    ],
)
def test_bad_options_are_named_in_one_line(config, message):
    with pytest.raises(BadInput) as error:
        load(config, seed=0)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_describe_names_the_nearest_match():
    with pytest.raises(BadInput, match="did you mean 'breast_cancer'"):
        describe("breast-cancer")


def test_importing_the_package_is_light(run_python):
    heavy = "('tensorflow_datasets', 'grain', 'sklearn', 'jax')"
    run_python(
        "-c",
        f"import sys, experiments.data; assert not [m for m in {heavy} if m in sys.modules]",
    )
