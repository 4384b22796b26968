# SPDX-License-Identifier: Apache-2.0
"""Two runs never write into one directory, and a run that was killed locks nobody out."""

import contextlib
import json
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from experiments.errors import BadInput
from experiments.lease import LOCK, Lease

QUICK = {"renewed_every": 0.05, "lapses_after": 0.4}


@pytest.fixture
def held(tmp_path: Path) -> Iterator[Lease]:
    lease = Lease(tmp_path, **QUICK)
    lease.acquire()
    yield lease
    lease.release()


def lock_of(folder: Path) -> dict:
    return json.loads((folder / LOCK).read_text())


def rewrite(folder: Path, **changes) -> None:
    (folder / LOCK).write_text(json.dumps({**lock_of(folder), **changes}))


def void(folder: Path, **changes) -> None:
    """Leaves the lock of a run that was killed."""
    lease = Lease(folder, renewed_every=60)
    lease.acquire()
    content = lock_of(folder)
    lease.release()
    (folder / LOCK).write_text(json.dumps({**content, **changes}))


def test_a_second_run_is_refused_in_one_line_until_the_first_has_ended(tmp_path, held):
    with pytest.raises(BadInput, match=rf"is in use by process {os.getpid()} on ") as refused:
        Lease(tmp_path, **QUICK).acquire()
    assert "\n" not in str(refused.value)
    held.check()

    held.release()
    held.release()

    assert list(tmp_path.iterdir()) == []
    second = Lease(tmp_path, **QUICK)
    second.acquire()
    second.release()


def test_the_lock_is_renewed(tmp_path, held):
    first, limit = lock_of(tmp_path)["renewed"], time.monotonic() + 10
    while lock_of(tmp_path)["renewed"] == first:
        assert time.monotonic() < limit
        time.sleep(0.01)


@pytest.mark.parametrize(
    "changes",
    [{"pid": 2**22 + 1, "started": "1"}, {"started": "1"}, {}],
    ids=["no such process", "the number belongs to a later process", "this process, not held"],
)
def test_a_lock_whose_process_is_gone_is_void_at_once(tmp_path, changes):
    void(tmp_path, **changes)
    lease = Lease(tmp_path, lapses_after=1e6)
    lease.acquire()
    assert lock_of(tmp_path)["nonce"] == lease._content["nonce"]
    lease.release()
    assert list(tmp_path.iterdir()) == []


def test_a_live_process_of_this_machine_is_believed(tmp_path):
    started = Path(f"/proc/{os.getppid()}/stat").read_text().rpartition(")")[2].split()[19]
    void(tmp_path, pid=os.getppid(), started=started)
    with pytest.raises(BadInput, match=f"in use by process {os.getppid()}"):
        Lease(tmp_path, **QUICK).acquire()


def test_another_machine_is_watched_until_its_lock_lapses(tmp_path, capsys):
    void(tmp_path, host="far", space="elsewhere", renewed=time.time() + 1e6)  # its clock is wrong
    began = time.monotonic()
    lease = Lease(tmp_path, **QUICK)
    lease.acquire()
    assert time.monotonic() - began >= QUICK["lapses_after"]
    assert "on far: waiting up to 0.4 s" in capsys.readouterr().out
    lease.release()


def test_another_machine_that_renews_is_in_use(tmp_path, held):
    rewrite(tmp_path, nonce="theirs", host="far", space="elsewhere")
    reader = Lease(tmp_path, renewed_every=0.05, lapses_after=60)
    looked = []

    def look(read=reader._read):
        looked.append(True)
        if len(looked) == 3:
            rewrite(tmp_path, renewed=1.0)
        return read()

    reader._read = look
    with pytest.raises(BadInput, match="in use by process .* on far"):
        reader.acquire()


@pytest.mark.parametrize("content", ["", "{", "[]", "3", '{"pid": "x"}'])
def test_a_lock_that_cannot_be_read_lapses_too(tmp_path, content):
    (tmp_path / LOCK).write_text(content)
    lease = Lease(tmp_path, renewed_every=0.05, lapses_after=0.1)
    lease.acquire()
    lease.release()
    assert list(tmp_path.iterdir()) == []


def test_of_two_that_find_a_void_lock_one_gets_it(tmp_path):
    void(tmp_path, pid=2**22 + 1)
    slow, quick = Lease(tmp_path, **QUICK), Lease(tmp_path, **QUICK)
    judged = slow._is_void

    def late(there):
        verdict = judged(there)
        if quick._thread is None:
            quick.acquire()  # between the other's look and its grasp
        return verdict

    slow._is_void = late
    with pytest.raises(BadInput, match="in use"):
        slow.acquire()
    quick.check()
    assert lock_of(tmp_path)["nonce"] == quick._content["nonce"]
    quick.release()
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_slept_too_long_writes_nothing_more(tmp_path, held):
    rewrite(tmp_path, nonce="theirs", host="far")
    limit = time.monotonic() + 10
    with pytest.raises(BadInput, match="was taken over by process .* on far"):
        while time.monotonic() < limit:
            held.check()
            time.sleep(0.01)
    held.release()
    assert lock_of(tmp_path)["nonce"] == "theirs"  # which is not ours to remove


def test_a_file_system_without_links_will_do(tmp_path, monkeypatch):
    def link(*_):
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", link)
    lease = Lease(tmp_path, **QUICK)
    lease.acquire()
    with pytest.raises(BadInput, match="in use"):
        Lease(tmp_path, **QUICK).acquire()
    lease.release()
    assert list(tmp_path.iterdir()) == []


@contextlib.contextmanager
def without_rights() -> Iterator[None]:
    """Root may write everywhere; as somebody else it may not."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.parametrize("place", ["itself", "below"])
def test_a_read_only_workdir_is_refused(place):
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o555)
        target = Path(name) if place == "itself" else Path(name) / "run"
        with without_rights(), pytest.raises(BadInput) as refused:
            Lease(target).acquire()
        assert str(refused.value) == f"--workdir: cannot write {target}: Permission denied"
        assert os.listdir(name) == []
        os.chmod(name, 0o755)
