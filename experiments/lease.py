# SPDX-License-Identifier: Apache-2.0
"""Who is training in a directory: a lock that a killed run does not leave behind.

`lock.json` names host, process and the time it was last renewed. On the machine that wrote it,
a lock whose process is gone is void at once; on another machine that cannot be seen, and the lock
is void once it has not been renewed for a while by the reader's own clock, so that clocks which
differ do no harm.

A local lock is a link, which one of two can make. In an object store, where the last writer wins,
whoever takes the lock looks again after a while whether it is still its own. Two may both hold it
only if one of them stood still for longer than that between its look and its write; the other then
finds out when it renews, and writes nothing more: `RENEWED_EVERY` bounds the time that both do.
"""

import contextlib
import json
import os
import secrets
import socket
import threading
import time
from pathlib import Path
from typing import Any

from experiments import storage
from experiments.errors import BadInput

LOCK = "lock.json"
#: Seconds between renewals, and without one until another machine may take over.
RENEWED_EVERY, LAPSES_AFTER = 15.0, 60.0
#: Seconds after which a lock in an object store is looked at again before it counts as taken.
SETTLES_AFTER = 2.0
#: Nonces of the leases that this process holds.
_HELD: set[str] = set()


class InUse(BadInput):
    """Somebody else holds the lock; `owner` says who."""

    def __init__(self, message: str, owner: str):
        super().__init__(message)
        self.owner = owner


class Lease:
    """The right to write into a workdir, from `acquire` to `release`.

    Args:
      workdir: made if it is missing.
      renewed_every: seconds between renewals.
      lapses_after: seconds after which a lock of another machine that is not renewed is void.
      name: of the lock's file, where there is more than one thing to lock.
    """

    def __init__(
        self,
        workdir: str | os.PathLike,
        *,
        renewed_every: float = RENEWED_EVERY,
        lapses_after: float = LAPSES_AFTER,
        name: str = LOCK,
    ):
        self._root = storage.find(workdir)
        self._path = self._root / name
        self._every, self._lapses_after = renewed_every, lapses_after
        self._content = {**_whoami(), "nonce": secrets.token_hex(8)}
        self._released = threading.Event()
        self._thread: threading.Thread | None = None
        self._taken_by: dict[str, Any] | None = None

    def acquire(self) -> None:
        """Takes the lock and renews it in the background.

        Raises:
          InUse: another run has it.
          BadInput: the directory cannot be written.
        """
        try:
            storage.make_folder(self._root)
            while not self._create():
                there = self._read()
                if there is not None and not self._is_void(there):
                    raise InUse(
                        f"--workdir: {self._root} is in use by {_name(there)}; wait for it, stop "
                        "it, or choose another directory",
                        _name(there),
                    )
                self._remove(there)
        except OSError as error:
            raise BadInput(
                f"--workdir: cannot write {self._root}: {error.strerror or error}"
            ) from error
        _HELD.add(self._content["nonce"])
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raises BadInput if another run has taken the directory over meanwhile."""
        if self._taken_by is not None:
            raise BadInput(
                f"--workdir: {self._root} was taken over by {_name(self._taken_by)}, as this run "
                f"had not renewed its lock for {self._lapses_after:g} s; nothing more is written"
            )

    def release(self) -> None:
        """Gives the lock back, if it is held. Doing so twice is harmless."""
        if self._thread is None:
            return
        self._released.set()
        self._thread.join()
        self._thread = None
        _HELD.discard(self._content["nonce"])
        with contextlib.suppress(OSError):
            if self._is_ours(self._read()):
                self._path.unlink()

    def _create(self) -> bool:
        """Whether the lock could be made; a link is made whole or not at all."""
        if not isinstance(self._path, Path):
            if self._read() is not None:
                return False
            self._write()
            time.sleep(SETTLES_AFTER)
            return self._is_ours(self._read())
        partial = self._write_partial()
        try:
            os.link(partial, self._path)
            return True
        except FileExistsError:
            return False
        except OSError:  # a file system without links
            try:
                with self._path.open("x") as file:
                    file.write(partial.read_text())
                return True
            except FileExistsError:
                return False
        finally:
            partial.unlink()

    def _write_partial(self) -> Path:
        partial = Path(f"{self._path}.{self._content['nonce']}.partial")
        partial.write_text(self._text())
        return partial

    def _text(self) -> str:
        return json.dumps({**self._content, "renewed": time.time()}) + "\n"

    def _write(self) -> None:
        """Writes the lock, over the one that is there."""
        if isinstance(self._path, Path):
            os.replace(self._write_partial(), self._path)
        else:
            storage.write_text(self._path, self._text())

    def _read(self, path: storage.AnyPath | None = None) -> dict[str, Any] | None:
        """What the lock says, {} if that cannot be read, None if there is none."""
        try:
            content = json.loads(storage.read_bytes(path or self._path))
        except FileNotFoundError:
            return None
        except ValueError:
            return {}
        return content if isinstance(content, dict) else {}

    def _is_ours(self, there: dict[str, Any] | None) -> bool:
        return there is not None and there.get("nonce") == self._content["nonce"]

    def _is_void(self, there: dict[str, Any]) -> bool:
        if there.get("nonce") in _HELD:
            return False
        if there.get("space") == self._content["space"] is not None:
            # Of this very process but not held: an earlier one had the same number, in a container.
            ours = there.get("pid") == self._content["pid"]
            return ours or _started(there.get("pid")) != there.get("started")
        print(
            f"{self._root} was in use by {_name(there)}: waiting up to {self._lapses_after:g} s "
            "to see whether it still is",
            flush=True,
        )
        limit = time.monotonic() + self._lapses_after
        while time.monotonic() < limit:
            time.sleep(min(0.5, self._every / 4))
            if (now := self._read()) != there:
                return now is None
        return True

    def _remove(self, there: dict[str, Any] | None) -> None:
        """Removes the void lock `there`, unless another process was quicker."""
        if there is None:
            return
        if not isinstance(self._path, Path):
            if self._read() == there:
                self._path.unlink(missing_ok=True)
            return
        aside = Path(f"{self._path}.{self._content['nonce']}.void")
        with contextlib.suppress(FileNotFoundError):
            os.rename(self._path, aside)
            if self._read(aside) != there:  # that was the new lock of another process, put back
                os.rename(aside, self._path)
            else:
                aside.unlink()

    def _renew(self) -> None:
        while not self._released.wait(self._every):
            with contextlib.suppress(OSError):  # a full disk: the next time may do
                there = self._read()
                if there and not self._is_ours(there):
                    self._taken_by = there
                    return
                self._write()


def _whoami() -> dict[str, Any]:
    """Host and process, and the space in which the process's number means something."""
    host, space = socket.gethostname(), None
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        space = f"{host} {boot} {os.readlink('/proc/self/ns/pid')}"
    return {"host": host, "pid": os.getpid(), "started": _started(os.getpid()), "space": space}


def _started(pid: Any) -> str | None:
    """When a process of this machine was started, None if there is none (or no /proc)."""
    try:
        stat = Path(f"/proc/{int(pid)}/stat").read_text()
    except (OSError, ValueError, TypeError):
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else fields[19]


def _name(there: dict[str, Any]) -> str:
    return f"process {there.get('pid', 'unknown')} on {there.get('host', 'an unknown host')}"
