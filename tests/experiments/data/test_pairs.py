# SPDX-License-Identifier: Apache-2.0
"""Pictures side by side: which go together, whose labels are wrong, what stays clean."""

import dataclasses

import numpy as np
import pytest

from experiments.data import ArraySource, load
from experiments.data.pairs import side_by_side
from experiments.errors import BadInput


def paired(**changes):
    digits = load({"name": "digits"}, seed=0)
    options = {"train_size": 1000, "pool": 2, "noise": 0.2, "seed": 0, **changes}
    return digits, side_by_side(digits, digits, **options)


def everything(source):
    return source.gather(np.arange(len(source)))


def test_halves_are_the_two_pictures_and_labels_are_theirs():
    digits, pairs = paired(noise=0.0, pool=1)
    assert (pairs.input_shape, pairs.task, pairs.num_classes) == ((8, 16), "several", 10)
    assert (len(pairs.train), len(pairs.test)) == (1000, len(digits.test))
    for split in ("train", "validation", "test"):
        whole = everything(getattr(digits, split))
        known = {p.tobytes(): label for p, label in zip(whole["inputs"], whole["label"])}
        found = everything(getattr(pairs, split))
        assert found["label"].shape == (len(getattr(pairs, split)), 2)
        for side in range(2):
            halves = found["inputs"][:, :, 8 * side : 8 * side + 8]
            labels = [known[np.ascontiguousarray(half).tobytes()] for half in halves]
            np.testing.assert_array_equal(labels, found["label"][:, side])
    assert not np.array_equal(found["label"][:, 0], found["label"][:, 1])


def test_noise_is_in_the_right_training_labels_alone():
    _, clean = paired(noise=0.0)
    _, noisy = paired()
    for split in ("train", "validation", "test"):
        before, after = everything(getattr(clean, split)), everything(getattr(noisy, split))
        wrong = before["label"] != after["label"]
        assert not wrong[:, 0].any()
        assert abs(wrong[:, 1].mean() - 0.2) < 0.04 if split == "train" else not wrong.any()
        np.testing.assert_array_equal(before["inputs"], after["inputs"])
    again = everything(paired()[1].train)["label"]
    np.testing.assert_array_equal(again, everything(noisy.train)["label"])
    other = everything(paired(seed=1)[1].train)["label"]
    assert not np.array_equal(again, other)


def test_pooling_averages_squares():
    _, fine = paired(pool=1)
    _, coarse = paired(pool=4)
    assert coarse.input_shape == (2, 4)
    np.testing.assert_allclose(
        coarse.test[3]["inputs"][1, 3], fine.test[3]["inputs"][4:, 12:].mean(), rtol=1e-6
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [({"input_shape": (8, 9)}, r"got \(8, 8\) with 10 classes beside \(8, 9\)"),
     ({"num_classes": 9}, "config.task.second: expected pictures"), ({}, "config.task.pool")],
)  # fmt: skip
def test_what_does_not_go_together_is_said_in_one_line(change, said):
    digits = load({"name": "digits"}, seed=0)
    with pytest.raises(BadInput, match=said):
        side_by_side(
            digits, dataclasses.replace(digits, **change), train_size=10, pool=3, noise=0.0, seed=0
        )


def test_labels_keep_their_kind():
    inputs = np.zeros((3, 2), np.float32)
    assert ArraySource(inputs, np.array([0.5, 1, 2]))[0]["label"].dtype == np.float32
    assert ArraySource(inputs, np.zeros((3, 2), np.int64))[0]["label"].shape == (2,)
