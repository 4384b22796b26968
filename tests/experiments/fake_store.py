# SPDX-License-Identifier: Apache-2.0
"""Cloud Storage as the tests have it: objects that are written whole, and nothing else.

There is no append, rename, exclusive creation or link, and a folder is there only as long as
something is in it. The objects are files of a local folder, where tensorstore finds them too.
"""

import io
import os
from pathlib import Path
from typing import Any

import fsspec
from orbax.checkpoint._src.path import gcs_utils

from experiments import storage


class FakeStore(fsspec.AbstractFileSystem):
    """What fsspec takes for the client of gs:// once it is installed."""

    protocol = ("gcs", "gs")
    cachable = False
    root = Path()

    def place(self, path: str) -> Path:
        return self.root / self._strip_protocol(path)

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        place, name = self.place(path), self._strip_protocol(path)
        if place.is_file():
            return {"name": name, "size": place.stat().st_size, "type": "file"}
        if self._objects(place):
            return {"name": name, "size": 0, "type": "directory"}
        raise FileNotFoundError(path)

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        place, name = self.place(path), self._strip_protocol(path).rstrip("/")
        if place.is_file():
            found = [self.info(path)]
        elif self._objects(place):
            inside = [child for child in place.iterdir() if child.is_file() or self._objects(child)]
            found = [self.info(f"{name}/{child.name}") for child in sorted(inside)]
        else:
            raise FileNotFoundError(path)
        return found if detail else [entry["name"] for entry in found]

    def _open(self, path: str, mode: str = "rb", **_: Any) -> Any:
        if mode == "rb":
            return self.place(path).open("rb")
        if mode == "wb":
            return _Upload(self.place(path))
        raise NotImplementedError(f"objects are written whole: no {mode!r} of {path}")

    def rm(self, path: str, recursive: bool = False, maxdepth: Any = None) -> None:
        place = self.place(path)
        objects = [place] if place.is_file() else self._objects(place) if recursive else []
        if not objects:
            raise FileNotFoundError(path)
        for item in objects:
            item.unlink()

    def rm_file(self, path: str) -> None:
        self.rm(path)

    def mkdir(self, path: str, create_parents: bool = True, **_: Any) -> None:
        pass  # folders are names

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        pass

    def mv(self, path1: str, path2: str, **_: Any) -> None:
        raise NotImplementedError("objects have no other name")

    cp_file = mv

    def _objects(self, folder: Path) -> list[Path]:
        # os.walk, as files may go while it looks.
        return [Path(at, name) for at, _, names in os.walk(folder) for name in names]


class _Upload(io.BytesIO):
    """An object that is there once it has been closed."""

    def __init__(self, place: Path):
        super().__init__()
        self._place = place

    def close(self) -> None:
        if not self.closed:
            self._place.parent.mkdir(parents=True, exist_ok=True)
            partial = self._place.with_name(f".{self._place.name}.upload")
            partial.write_bytes(self.getvalue())
            os.replace(partial, self._place)
        super().close()


def install(root: Path, monkeypatch: Any) -> Path:
    """Makes gs://bucket a place below `root`; returns where its objects are."""
    fsspec.register_implementation("gcs", FakeStore, clobber=True)
    monkeypatch.setattr(FakeStore, "root", root)
    monkeypatch.setattr(storage, "_NEEDED", {})
    monkeypatch.setattr(gcs_utils, "is_hierarchical_namespace_enabled", lambda path: False)
    monkeypatch.setattr(
        gcs_utils,
        "get_kvstore_for_gcs",
        lambda path: {"driver": "file", "path": str(root / path.removeprefix("gs://"))},
    )
    return root / "bucket"
