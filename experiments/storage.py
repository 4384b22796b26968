# SPDX-License-Identifier: Apache-2.0
"""Where the files of a run live: a local directory, or a place in Cloud Storage (gs://bucket/run).

An object store has no append, no rename, no exclusive creation and no locks: an object is written
whole, and then it is there. Whoever touches a workdir asks here for what the two have in common;
local files are written beside and then renamed into place.
"""

import contextlib
import importlib.util
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from etils import epath

from experiments.errors import BadInput

#: A path of either kind; `find` makes one of what the user gave.
AnyPath = Path | epath.Path

REMOTE = "gs://"
#: Modules that the client and orbax's part for Cloud Storage import, and their packages.
_NEEDED = {"gcsfs": "gcsfs", "google.cloud.storage": "google-cloud-storage"}
#: Seconds between two uploads of a file that grows, unless `Mirror.push` is told otherwise; and the
#: share of the time that uploads may take.
PUSHED_EVERY, PUSHED_SHARE = 30.0, 0.05


def find(directory: str | os.PathLike, flag: str = "--workdir") -> AnyPath:
    """The path of a directory that the user named, which need not exist.

    Args:
      directory: a local path, or "gs://bucket/...".
      flag: how the user named it.

    Raises:
      BadInput: another scheme, no bucket, or a package is missing.
    """
    name = os.fspath(directory)
    scheme, separator, rest = name.partition("://")
    if not separator:
        return Path(name)
    if f"{scheme}://" != REMOTE or not rest.strip("/"):
        raise BadInput(f"{flag}: expected a directory or gs://BUCKET/DIR, got {name!r}")
    if missing := [package for module, package in _NEEDED.items() if not _is_there(module)]:
        raise BadInput(
            f"{flag}: expected {' and '.join(missing)} to be installed for {name}, got no such "
            f"package; pip install {' '.join(missing)}"
        )
    import fsspec.config

    # What another process writes must be seen: its client would answer from the last listing.
    for protocol in ("gcs", "gs"):
        fsspec.config.conf.setdefault(protocol, {}).setdefault("use_listings_cache", False)
    return epath.Path(name.rstrip("/"))


def find_local(directory: str | os.PathLike, flag: str = "--workdir") -> Path:
    """The path of a directory for a program whose files must be local.

    Raises:
      BadInput: it is none.
    """
    if "://" in os.fspath(directory):
        raise BadInput(f"{flag}: expected a local directory, got {os.fspath(directory)!r}")
    return Path(directory)


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def is_remote(path: AnyPath) -> bool:
    """Whether a path is in an object store."""
    return os.fspath(path).startswith(REMOTE)


def absolute(path: AnyPath) -> AnyPath:
    """The path as other programs find it, whatever their working directory is."""
    return path if is_remote(path) else path.resolve()


@contextlib.contextmanager
def as_os_error(path: AnyPath) -> Iterator[None]:
    """Turns what a store's client raises (no credentials, no bucket, HTTP) into an OSError."""
    try:
        yield
    except (OSError, BadInput):
        raise
    except Exception as error:
        if not is_remote(path):
            raise
        first = (str(error).strip().splitlines() or [""])[0]
        raise OSError(f"{path}: {type(error).__name__}: {first[:200]}") from error


def make_folder(folder: AnyPath) -> None:
    """Makes a folder and those above it where they are missing; a store needs none."""
    if isinstance(folder, Path):
        folder.mkdir(parents=True, exist_ok=True)


def exists(path: AnyPath) -> bool:
    """Whether there is such a file.

    Raises:
      OSError: nobody can tell, since the store cannot be asked.
    """
    if isinstance(path, Path):
        return path.exists()
    try:
        with as_os_error(path):
            path.stat()  # `exists` says no where it could not ask, and metrics would be begun anew
        return True
    except FileNotFoundError:
        return False


def read_bytes(path: AnyPath) -> bytes:
    """The content of a file.

    Raises:
      OSError: it cannot be read; FileNotFoundError if there is none.
    """
    with as_os_error(path):
        return path.read_bytes()


@contextlib.contextmanager
def whole(path: AnyPath) -> Iterator[IO[bytes]]:
    """A binary file to write to, that is there under its name when the block ends, or not at all.

    Raises:
      OSError: it cannot be written; what was there before stays.
    """
    if is_remote(path):
        with tempfile.TemporaryFile() as file:
            yield file
            file.seek(0)
            with as_os_error(path), path.open("wb") as target:
                shutil.copyfileobj(file, target, 1 << 20)
        return
    partial = Path(f"{os.fspath(path)}.partial")
    with partial.open("wb") as file:
        yield file
    os.replace(partial, path)


def write_text(path: AnyPath, text: str) -> None:
    """Writes a file whole, in UTF-8; see :func:`whole`."""
    with whole(path) as file:
        file.write(text.encode())


def remove_tree(folder: AnyPath, *, missing_ok: bool = False) -> None:
    """Removes a folder and what is in it.

    Raises:
      OSError: it cannot be removed; FileNotFoundError if there is none.
    """
    if isinstance(folder, Path):
        shutil.rmtree(folder, ignore_errors=missing_ok)
    else:
        with as_os_error(folder):
            folder.rmtree(missing_ok=missing_ok)


def children(folder: AnyPath) -> list[AnyPath]:
    """What is in a folder, by name; [] if there is no such folder."""
    try:
        with as_os_error(folder):
            return sorted(folder.iterdir(), key=lambda path: path.name)
    except FileNotFoundError:
        return []


def files(folder: AnyPath, prefix: str = "") -> Iterator[tuple[str, AnyPath]]:
    """(path within the folder, path) of every file below a folder."""
    for path in children(folder):
        name = f"{prefix}{path.name}"
        if path.is_dir():
            yield from files(path, f"{name}/")
        else:
            yield name, path


class Mirror:
    """A local folder whose files are brought to a store: for what appends, or knows no store.

    Args:
      target: the folder in the store.

    Attributes:
      local: the folder to write to.
    """

    def __init__(self, target: AnyPath):
        self.local = Path(tempfile.mkdtemp(prefix="xloss-"))
        self._target = target
        self._sent: dict[str, tuple[int, int]] = {}
        self._next = time.monotonic() + PUSHED_EVERY

    def push(self, *, at_once: bool = True) -> None:
        """Uploads the files that have changed.

        Args:
          at_once: otherwise at a bounded rate only, and a store that fails is tried again later.

        Raises:
          OSError: they cannot be written, and `at_once`.
        """
        began = time.monotonic()
        if not at_once and began < self._next:
            return
        try:
            for name, _ in files(self.local):
                told = (self.local / name).stat()
                state = (told.st_size, told.st_mtime_ns)
                if self._sent.get(name) != state:
                    path = self.local / name
                    with path.open("rb") as source, whole(self._target / name) as target:
                        shutil.copyfileobj(source, target, 1 << 20)
                    self._sent[name] = state
        except OSError:
            if at_once:
                raise
        now = time.monotonic()
        self._next = now + max(PUSHED_EVERY, (now - began) / PUSHED_SHARE)

    def close(self) -> None:
        """Uploads what is left and removes the local folder. Doing so twice is harmless."""
        if self.local.exists():
            try:
                self.push()
            finally:
                shutil.rmtree(self.local, ignore_errors=True)


@contextlib.contextmanager
def local_folder(folder: AnyPath | None) -> Iterator[Path | None]:
    """A local folder to write to, which is this one when the block ends; None stays None."""
    if folder is None or isinstance(folder, Path):
        yield folder
        return
    with contextlib.closing(Mirror(folder)) as mirror:
        yield mirror.local
