# SPDX-License-Identifier: Apache-2.0
"""Wrong labels on purpose: how many, which, and where there are none."""

import numpy as np
import pytest

from experiments import data
from experiments.data.dataset import ArraySource, Dataset
from experiments.data.noise import with_label_noise
from experiments.errors import BadInput


def labels_of(source):
    return source.gather(np.arange(len(source)))["label"]


def problem(classes=4, size=20_000):
    draw = np.random.default_rng(0)
    sources = {
        split: ArraySource(np.zeros([size, 1]), draw.integers(0, classes, size))
        for split in ("train", "validation", "test")
    }
    names = tuple(map(str, range(classes)))
    return Dataset("toy", num_classes=classes, input_shape=(1,), task="multiclass", licence="",
                   class_names=names, **sources)  # fmt: skip


@pytest.mark.parametrize("fraction", [0.3, 0.6])
def test_so_many_labels_are_replaced_by_each_of_the_others(fraction):
    clean, noisy = problem(), with_label_noise(problem(), fraction, seed=1)
    for split in ("train", "validation"):
        before, after = labels_of(getattr(clean, split)), labels_of(getattr(noisy, split))
        shift = (after - before) % 4
        counts = np.bincount(shift, minlength=4) / shift.size
        np.testing.assert_allclose(counts, [1 - fraction, *[fraction / 3] * 3], atol=0.015)
        assert after.dtype == np.int32
    np.testing.assert_array_equal(labels_of(noisy.test), labels_of(clean.test))


def test_the_same_labels_are_wrong_every_time_and_one_at_a_time():
    noisy, again = (with_label_noise(problem(size=50), 0.5, seed=1).train for _ in range(2))
    labels = labels_of(noisy)
    np.testing.assert_array_equal(labels, labels_of(again))
    assert [int(noisy[place]["label"]) for place in range(50)] == labels.tolist()
    np.testing.assert_array_equal(noisy.gather(np.array([7, 3]))["label"], labels[[7, 3]])
    other = with_label_noise(problem(size=50), 0.5, seed=2).train
    assert np.any(labels_of(other) != labels)


def test_the_option_reaches_every_source_and_is_checked():
    clean = data.load({"name": "digits"}, seed=0)
    noisy = data.load({"name": "digits", "label_noise": 0.3}, seed=5)
    share = np.mean(labels_of(noisy.train) != labels_of(clean.train))
    assert 0.25 < share < 0.35
    np.testing.assert_array_equal(labels_of(noisy.test), labels_of(clean.test))
    for wrong in (1.0, -0.1, "a lot"):
        with pytest.raises(BadInput, match=r"config.data.label_noise: expected a number in \[0, 1"):
            data.load({"name": "digits", "label_noise": wrong}, seed=0)
