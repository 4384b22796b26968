# SPDX-License-Identifier: Apache-2.0
"""Checkpoints: what comes back is what was saved, or the run says why not."""

from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import data
from experiments.checkpoint import Checkpoints
from experiments.errors import BadInput


def batches():
    source = data.ArraySource(np.arange(40.0).reshape(20, 2), np.arange(20) % 3)
    return data.train_iterator(source, batch_size=4, seed=0)


def state_of(step: int) -> dict:
    return {
        "step": jnp.asarray(step, jnp.int32),
        "params": {"kernel": jnp.arange(12, dtype=jnp.float32).reshape(3, 4) / step},
        "key": jax.random.key(step),
    }


def shapes() -> dict:
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state_of(1)
    )


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A workdir with the sealed checkpoints 1, 2 and 3."""
    save(tmp_path, 1, 2, 3)
    return tmp_path


def save(workdir: Path, *steps: int, keep: int = 3) -> None:
    checkpoints, iterator = Checkpoints(workdir, keep=keep), batches()
    for step in steps:
        next(iterator)
        checkpoints.save(step, state_of(step), iterator)
    checkpoints.close()


def restore(workdir: Path, iterator=None, step: int | None = None):
    checkpoints = Checkpoints(workdir)
    try:
        return checkpoints.restore(shapes(), iterator, step=step)
    finally:
        checkpoints.close()


def files_of(workdir: Path, step: int) -> list[Path]:
    folder = workdir / "checkpoints" / str(step)
    return sorted(p for p in folder.rglob("*") if p.is_file() and p.stat().st_size)


def flip_a_bit(path: Path, position: float = 0.5) -> None:
    content = bytearray(path.read_bytes())
    content[int(position * (len(content) - 1))] ^= 1
    path.write_bytes(content)


def test_nothing_saved_is_none(tmp_path):
    assert restore(tmp_path) is None


def test_state_key_and_data_position_come_back(saved):
    iterator = batches()
    step, state = restore(saved, iterator)

    assert step == 3
    chex.assert_trees_all_equal(
        jax.tree.map(np.asarray, state["params"]), jax.tree.map(np.asarray, state_of(3)["params"])
    )
    np.testing.assert_array_equal(jax.random.key_data(state["key"]), [0, 3])
    expected = batches()
    for _ in range(3):
        next(expected)
    np.testing.assert_array_equal(next(iterator)["index"], next(expected)["index"])


def test_an_older_step_by_its_number(saved):
    step, state = restore(saved, step=2)
    assert (step, int(state["step"])) == (2, 2)
    with pytest.raises(BadInput, match="--checkpoint: expected one of 1, 2, 3, got 7"):
        restore(saved, step=7)


def test_only_the_last_ones_are_kept(tmp_path):
    save(tmp_path, 1, 2, 3, 4, keep=2)
    assert Checkpoints.sealed(tmp_path) == [3, 4]
    assert {p.name for p in (tmp_path / "checkpoints").iterdir()} == {"3", "4"}


def test_any_flipped_bit_is_found(saved, capsys):
    for path in files_of(saved, 3):
        before = path.read_bytes()
        for position in (0.0, 0.5, 1.0):
            flip_a_bit(path, position)
            assert restore(saved)[0] == 2, path
            assert "checkpoint 3: left out, " in capsys.readouterr().out
            path.write_bytes(before)
    assert restore(saved)[0] == 3


@pytest.mark.parametrize("harm", ["missing", "additional", "manifest"])
def test_other_damage_is_found(saved, harm, capsys):
    if harm == "missing":
        files_of(saved, 3)[0].unlink()
    elif harm == "additional":
        (saved / "checkpoints" / "3" / "stray").write_text("x")
    else:
        (saved / "manifests" / "3.json").write_text("{")
    assert restore(saved)[0] == 2
    assert "checkpoint 3: left out, " in capsys.readouterr().out


def test_none_that_is_sound(saved):
    for step in (1, 2, 3):
        flip_a_bit(files_of(saved, step)[-1])
    with pytest.raises(BadInput, match=r"expected a sound checkpoint.*\(1, 2, 3\).*--overwrite"):
        restore(saved)


def test_cut_off_before_its_manifest(saved, capsys):
    (saved / "manifests" / "3.json").unlink()
    assert restore(saved)[0] == 2
    assert "checkpoint 3: left out, it was cut off" in capsys.readouterr().out


def test_the_first_one_cut_off_is_a_fresh_start(tmp_path):
    save(tmp_path, 1)
    (tmp_path / "manifests" / "1.json").unlink()
    assert restore(tmp_path) is None


def test_older_ones_without_manifests_are_not_ignored(saved):
    for manifest in (saved / "manifests").iterdir():
        manifest.unlink()
    with pytest.raises(BadInput, match="expected a sound checkpoint"):
        restore(saved)


def test_the_last_good_one_stays_until_the_next_is_sealed(tmp_path):
    checkpoints, iterator = Checkpoints(tmp_path, keep=1), batches()
    checkpoints.save(1, state_of(1), iterator)
    checkpoints.save(2, state_of(2), iterator)  # seals 1; a kill now finds 2 without a manifest
    assert restore(tmp_path)[0] == 1
    checkpoints.close()
    assert Checkpoints.sealed(tmp_path) == [2]
    assert restore(tmp_path)[0] == 2


def test_later_ones_are_forgotten(saved):
    checkpoints = Checkpoints(saved)
    checkpoints.forget_after(1)
    checkpoints.save(2, state_of(2), batches())  # would be refused if the old 2 were there
    checkpoints.close()
    assert Checkpoints.sealed(saved) == [1, 2]


def test_another_model_is_named(saved):
    other = shapes()
    other["params"]["bias"] = other["params"]["kernel"]
    checkpoints = Checkpoints(saved)
    with pytest.raises(BadInput, match="expected the parameters of this config's model"):
        checkpoints.restore(other, None)
    checkpoints.close()


@pytest.fixture
def large(tmp_path: Path) -> tuple[Path, Path]:
    """A workdir with the checkpoints 1 and 2 of random numbers, and the 1 MB file of the newer."""
    checkpoints, iterator = Checkpoints(tmp_path), batches()
    numbers = np.random.default_rng(0).standard_normal((512, 512), np.float32)
    for step in (1, 2):
        checkpoints.save(step, {"kernel": jnp.asarray(numbers * step)}, iterator)
    checkpoints.close()
    target = max(files_of(tmp_path, 2), key=lambda path: path.stat().st_size)
    assert target.stat().st_size > 900_000
    return tmp_path, target


def restore_large(workdir: Path):
    checkpoints = Checkpoints(workdir)
    try:
        shape = jax.ShapeDtypeStruct((512, 512), jnp.float32, sharding=jnp.zeros(1).sharding)
        return checkpoints.restore({"kernel": shape}, None)
    finally:
        checkpoints.close()


def test_each_of_eight_flipped_bits_of_a_large_file_is_found(large, capsys):
    workdir, target = large
    sound = target.read_bytes()
    places = np.random.default_rng(1).integers(0, 8 * len(sound), 8)
    for place in places.tolist():
        content = bytearray(sound)
        content[place // 8] ^= 1 << place % 8
        target.write_bytes(content)
        assert restore_large(workdir)[0] == 1
        said = capsys.readouterr().out
        assert "checkpoint 2: left out, " in said and "does not match its checksum" in said
    target.write_bytes(sound)
    assert restore_large(workdir)[0] == 2


@pytest.mark.parametrize("left", [0.0, 0.5, 1.0])
def test_a_large_file_that_was_truncated_is_found(large, left, capsys):
    workdir, target = large
    content = target.read_bytes()
    target.write_bytes(content[: int(left * (len(content) - 1))])
    assert restore_large(workdir)[0] == 1
    assert "checkpoint 2: left out, " in capsys.readouterr().out
    flip_a_bit(files_of(workdir, 1)[-1])
    with pytest.raises(BadInput, match=r"expected a sound checkpoint.*\(1, 2\)") as refused:
        restore_large(workdir)
    assert "\n" not in str(refused.value)
