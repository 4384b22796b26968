# SPDX-License-Identifier: Apache-2.0
"""The order of training examples: complete, resumable, the same for any process count."""

import grain
import numpy as np
import orbax.checkpoint as ocp
import pytest

from experiments.data import ArraySource, eval_batches, load, train_iterator
from experiments.errors import BadInput


def source_of(size: int) -> ArraySource:
    inputs = np.arange(3 * size, dtype=np.float64).reshape(size, 3)
    return ArraySource(inputs, np.arange(size) % 4)


def take(iterator, steps: int) -> list[dict[str, np.ndarray]]:
    return [next(iterator) for _ in range(steps)]


def assert_same_batches(left, right) -> None:
    assert len(left) == len(right)
    for one, other in zip(left, right):
        assert one.keys() == other.keys()
        for key in one:
            np.testing.assert_array_equal(one[key], other[key])


def test_batch_has_the_promised_keys_shapes_and_dtypes():
    source = source_of(10)
    batch = next(train_iterator(source, batch_size=4, seed=0))
    assert {key: (value.shape, value.dtype.name) for key, value in batch.items()} == {
        "inputs": ((4, 3), "float32"),
        "label": ((4,), "int32"),
        "index": ((4,), "int32"),
    }
    for row, index in enumerate(batch["index"]):
        example = source[int(index)]
        np.testing.assert_array_equal(example["inputs"], batch["inputs"][row])
        assert example["label"] == batch["label"][row] and example["index"] == index
        assert example["label"].dtype == np.int32 and example["label"].shape == ()


@pytest.mark.parametrize(("size", "batch_size"), [(10, 4), (12, 4), (7, 7), (11, 1), (9, 8)])
def test_each_example_comes_exactly_once_an_epoch(size, batch_size):
    epochs = 5
    iterator = train_iterator(source_of(size), batch_size=batch_size, seed=3)
    steps = -(-epochs * size // batch_size)
    order = np.concatenate([batch["index"] for batch in take(iterator, steps)])[: epochs * size]
    for epoch in order.reshape(epochs, size):
        np.testing.assert_array_equal(np.sort(epoch), np.arange(size))


def test_epochs_and_seeds_have_orders_of_their_own():
    def epochs(seed):
        batches = take(train_iterator(source_of(50), batch_size=10, seed=seed), 15)
        return np.concatenate([batch["index"] for batch in batches]).reshape(3, 50)

    orders = np.concatenate([epochs(0), epochs(1)])
    assert np.unique(orders, axis=0).shape[0] == 6
    np.testing.assert_array_equal(epochs(0), epochs(0))


@pytest.mark.parametrize("process_count", [2, 4])
def test_processes_share_the_batches_of_one_process(process_count):
    source = source_of(22)
    whole = take(train_iterator(source, batch_size=8, seed=5), 9)
    parts = [
        take(
            train_iterator(
                source,
                batch_size=8,
                seed=5,
                process_index=process_index,
                process_count=process_count,
            ),
            9,
        )
        for process_index in range(process_count)
    ]
    joined = [
        {key: np.concatenate([part[key] for part in step]) for key in step[0]}
        for step in zip(*parts)
    ]
    assert all(part["index"].shape == (8 // process_count,) for part in parts[0])
    assert_same_batches(joined, whole)


def test_state_resumes_bit_exactly():
    source = load({"name": "digits"}, seed=0).train
    iterator = train_iterator(source, batch_size=300, seed=1)
    take(iterator, 6)
    state = iterator.get_state()
    expected = take(iterator, 4)

    fresh = train_iterator(source, batch_size=300, seed=1)
    fresh.set_state(state)
    assert_same_batches(take(fresh, 4), expected)
    iterator.set_state(state)
    assert_same_batches(take(iterator, 4), expected)


def test_iterator_is_saved_and_restored_by_orbax(tmp_path):
    source = source_of(22)
    iterator = train_iterator(source, batch_size=8, seed=5)
    take(iterator, 3)
    with ocp.CheckpointManager(tmp_path / "checkpoints") as manager:
        manager.save(3, args=ocp.args.Composite(data=grain.checkpoint.CheckpointSave(iterator)))
        manager.wait_until_finished()
        expected = take(iterator, 5)
        fresh = train_iterator(source, batch_size=8, seed=5)
        manager.restore(3, args=ocp.args.Composite(data=grain.checkpoint.CheckpointRestore(fresh)))
    assert_same_batches(take(fresh, 5), expected)


def test_eval_batches_pad_the_last_one():
    source = source_of(10)
    batches = list(eval_batches(source, batch_size=4))
    assert [batch["where"].tolist() for batch in batches] == [[True] * 4] * 2 + [
        [True, True, False, False]
    ]
    index = np.concatenate([batch["index"] for batch in batches])
    where = np.concatenate([batch["where"] for batch in batches])
    np.testing.assert_array_equal(index[where], np.arange(10))
    for key, padding in (("inputs", 0), ("label", 0), ("index", -1)):
        assert {batch[key].shape[0] for batch in batches} == {4}
        assert (batches[-1][key][2:] == padding).all()
    np.testing.assert_array_equal(
        batches[-1]["inputs"][:2], source.gather(np.array([8, 9]))["inputs"]
    )


def test_eval_batches_of_processes_join_to_the_whole():
    source = source_of(10)
    whole = list(eval_batches(source, batch_size=4))
    parts = [
        list(eval_batches(source, batch_size=4, process_index=index, process_count=2))
        for index in range(2)
    ]
    joined = [
        {key: np.concatenate([part[key] for part in step]) for key in step[0]}
        for step in zip(*parts)
    ]
    assert_same_batches(joined, whole)


def test_batch_sizes_that_cannot_work():
    source = source_of(10)
    for batch_size in (0, -4, 3):
        with pytest.raises(BadInput, match="batch_size: expected a positive multiple of the 2"):
            train_iterator(source, batch_size=batch_size, seed=0, process_count=2)
        with pytest.raises(BadInput, match="batch_size: expected a positive multiple of the 2"):
            eval_batches(source, batch_size=batch_size, process_count=2)
    with pytest.raises(BadInput, match="at most the 10 training examples, got 11"):
        train_iterator(source, batch_size=11, seed=0)
    with pytest.raises(ValueError, match=r"process_index: expected 0..1, got 2"):
        train_iterator(source, batch_size=4, seed=0, process_index=2, process_count=2)


def test_inputs_and_labels_must_match():
    with pytest.raises(ValueError, match=r"inputs \(3, 2\) and labels \(4,\)"):
        ArraySource(np.zeros((3, 2)), np.zeros(4, np.int32))
