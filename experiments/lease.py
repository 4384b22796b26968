# SPDX-License-Identifier: Apache-2.0
"""Who is training in a directory: a lock that a killed run does not leave behind.

`lock.json` names host, process and the time it was last renewed. On the machine that wrote it,
a lock whose process is gone is void at once; on another machine that cannot be seen, and the lock
is void once it has not been renewed for a while by the reader's own clock, so that clocks which
differ do no harm.
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

from experiments.errors import BadInput

LOCK = "lock.json"
#: Seconds between renewals, and without one until another machine may take over.
RENEWED_EVERY, LAPSES_AFTER = 15.0, 60.0
#: Nonces of the leases that this process holds.
_HELD: set[str] = set()


class Lease:
    """The right to write into a workdir, from `acquire` to `release`.

    Args:
      workdir: made if it is missing.
      renewed_every: seconds between renewals.
      lapses_after: seconds after which a lock of another machine that is not renewed is void.
    """

    def __init__(
        self,
        workdir: str | os.PathLike,
        *,
        renewed_every: float = RENEWED_EVERY,
        lapses_after: float = LAPSES_AFTER,
    ):
        self._root = Path(workdir)
        self._path = self._root / LOCK
        self._every, self._lapses_after = renewed_every, lapses_after
        self._content = {**_whoami(), "nonce": secrets.token_hex(8)}
        self._released = threading.Event()
        self._thread: threading.Thread | None = None
        self._taken_by: dict[str, Any] | None = None

    def acquire(self) -> None:
        """Takes the lock and renews it in the background.

        Raises:
          BadInput: another run has it, or the directory cannot be written.
        """
        try:
            self._root.mkdir(parents=True, exist_ok=True)
            while not self._create():
                there = self._read()
                if there is not None and not self._is_void(there):
                    raise BadInput(
                        f"--workdir: {self._root} is in use by {_name(there)}; wait for it, stop "
                        "it, or choose another directory"
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
        partial = self._root / f"{LOCK}.{self._content['nonce']}.partial"
        partial.write_text(json.dumps({**self._content, "renewed": time.time()}) + "\n")
        return partial

    def _read(self, path: Path | None = None) -> dict[str, Any] | None:
        """What the lock says, {} if that cannot be read, None if there is none."""
        try:
            content = json.loads((path or self._path).read_text())
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
        aside = self._root / f"{LOCK}.{self._content['nonce']}.void"
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
                os.replace(self._write_partial(), self._path)


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
