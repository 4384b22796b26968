# SPDX-License-Identifier: Apache-2.0
"""Saving and restoring a run: the only file that knows orbax.

A checkpoint holds the train state (parameters, optimizer, PRNG key, step) and the data iterator's
position, so that a resumed run continues bit for bit. Orbax restores a flipped bit without a word;
therefore every finished step gets a manifest of SHA-256 sums, written last and checked before
anything is restored, and an older step is deleted only then. A newest step without a manifest was
cut off and counts as not there; any other that does not match its manifest is damaged. Either is
named, and the one before it is used.
"""

import contextlib
import hashlib
import json
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import orbax.checkpoint as ocp

from experiments import storage
from experiments.errors import BadInput, Failed
from experiments.sharding import wait_for_main


class Checkpoints:
    """The checkpoints of one workdir.

    Args:
      workdir: directory of the run.
      keep: how many of the last checkpoints to keep.
      spare: which of the steps written so far stay, however old they are (`retention.Retention`).
      guard: called before anything is written; raises where it must not be (`lease.Lease.check`).
    """

    def __init__(
        self,
        workdir: str | os.PathLike,
        *,
        keep: int = 3,
        spare: Callable[[list[int]], Iterable[int]] = lambda written: (),
        guard: Callable[[], None] = lambda: None,
    ):
        root = storage.absolute(storage.find(workdir))
        self._root, self._manifests = root / "checkpoints", root / "manifests"
        self._keep, self._spare, self._guard = keep, spare, guard
        # Orbax would delete an old step as soon as the new one is written, before it is sealed.
        options = ocp.CheckpointManagerOptions(max_to_keep=None, create=True)
        self._manager = ocp.CheckpointManager(self._root, options=options)
        self._unsealed: int | None = None

    def save(self, step: int, state: Any, iterator: Any) -> None:
        """Starts saving in the background; the step counts once it is sealed (see :meth:`seal`).

        Args:
          step: optimizer steps done.
          state: pytree of arrays.
          iterator: the grain iterator.

        Raises:
          Failed: it, or the one before it, cannot be written.
        """
        self.seal()
        self._guard()
        # The position as JSON: grain's own handler keeps a file for each process, and would tie the
        # checkpoint to their number.
        arguments = ocp.args.Composite(
            state=ocp.args.StandardSave(state), data=ocp.args.JsonSave(iterator.get_state())
        )
        with _one_line(step):
            self._manager.save(step, args=arguments, force=True)
        self._unsealed = step

    def seal(self, *, wait: bool = True) -> None:
        """Writes the manifest of the step being saved, once all its files are there.

        Then, and only then, steps beyond the number to keep are deleted.

        Args:
          wait: whether to wait for the files; otherwise returns at once if they are not there.

        Raises:
          Failed: the step cannot be written; those before it are as they were.
        """
        if self._unsealed is None or (not wait and self._manager.is_saving_in_progress()):
            return
        step, self._unsealed = self._unsealed, None  # one that fails is not tried again
        with _one_line(step):
            self._manager.wait_until_finished()
            if jax.process_index() != 0:
                return
            self._guard()
            storage.make_folder(self._manifests)
            sums = _sums(self._root / str(step))
            storage.write_text(self._manifest(step), json.dumps(sums, indent=1) + "\n")
            written = self.steps()
            for old in set(written[: -self._keep]).difference(self._spare(written)):
                self._delete(old)

    def steps(self) -> list[int]:
        """Steps that have been written, ascending; the last may lack its manifest."""
        self._manager.reload()
        return sorted(self._manager.all_steps())

    @staticmethod
    def sealed(workdir: str | os.PathLike) -> list[int]:
        """Steps that have a manifest, ascending; looked up without opening anything."""
        found = storage.children(storage.find(workdir) / "manifests")
        return sorted(int(path.stem) for path in found if path.suffix == ".json")

    def restore(
        self, state: Any, iterator: Any | None, *, step: int | None = None
    ) -> tuple[int, Any] | None:
        """Restores the newest sound checkpoint, or the one of a given step.

        Args:
          state: pytree of jax.ShapeDtypeStruct with shardings, which may differ from the saved.
          iterator: the grain iterator, moved to the saved position; None leaves the data alone.
          step: a step to restore and no other.

        Returns:
          (step, state), or None if nothing was ever saved.

        Raises:
          BadInput: no such step; checkpoints are there, but none is sound, or not of this model.
        """
        found = self.steps()
        if step is not None and step not in found:
            raise BadInput(
                f"--checkpoint: expected one of {', '.join(map(str, found)) or 'none'}, got {step}"
            )
        damaged = []
        for candidate in reversed(found) if step is None else [step]:
            if candidate == found[-1] and not storage.exists(self._manifest(candidate)):
                print(f"checkpoint {candidate}: left out, it was cut off", flush=True)
                continue
            if reason := self._damage(candidate):
                print(f"checkpoint {candidate}: left out, {reason}", flush=True)
                damaged.append(candidate)
                continue
            items: dict[str, Any] = {"state": ocp.args.StandardRestore(state)}
            if iterator is not None:
                items["data"] = ocp.args.JsonRestore()
            try:
                restored = self._manager.restore(candidate, args=ocp.args.Composite(**items))
            except (ValueError, KeyError) as error:
                first = str(error).strip().splitlines()[0]
                raise BadInput(
                    f"{self._root / str(candidate)}: expected the parameters of this config's "
                    f"model and optimizer, got: {first}"
                ) from error
            if iterator is not None:
                iterator.set_state(restored["data"])
            return candidate, restored["state"]
        if damaged:
            raise BadInput(
                f"{self._root}: expected a sound checkpoint, got damage in all that are left "
                f"({', '.join(map(str, damaged[::-1]))}); put back a copy, or start again with "
                "--overwrite"
            )
        return None

    def forget_after(self, step: int) -> None:
        """Deletes checkpoints later than `step`: cut off or damaged, they would be in the way."""
        if jax.process_index() == 0:
            for later in self.steps():
                if later > step:
                    self._delete(later)
            for path in storage.children(self._root):
                # In a store a step has its own name while it is written.
                if ".orbax-checkpoint-tmp" in path.name or _is_later(path.name, step):
                    storage.remove_tree(path)
        wait_for_main("checkpoints")
        self._manager.reload()

    def reached_preemption(self, step: int) -> bool:
        """Whether the job is being preempted; every process gets the same answer at a step."""
        return jax.process_count() > 1 and self._manager.reached_preemption(step)

    def close(self) -> None:
        """Finishes what is being saved."""
        self.seal()
        self._manager.close()

    def _delete(self, step: int) -> None:
        # The manifest goes first: a step that is half deleted must not look whole.
        self._manifest(step).unlink(missing_ok=True)
        storage.remove_tree(self._root / str(step))

    def _manifest(self, step: int) -> storage.AnyPath:
        return self._manifests / f"{step}.json"

    def _damage(self, step: int) -> str | None:
        try:
            expected = json.loads(storage.read_bytes(self._manifest(step)))
        except (OSError, ValueError) as error:
            return f"no readable manifest ({type(error).__name__})"
        found = _sums(self._root / str(step))
        for name in sorted(expected.keys() | found.keys()):
            if name not in found:
                return f"{name} is missing"
            if name not in expected:
                return f"{name} is not in the manifest"
            if found[name] != expected[name]:
                return f"{name} does not match its checksum"
        return None


def speak_once() -> None:
    """Keeps orbax from telling of an error in its threads, which `Checkpoints` raises in one line.

    It is for a program: loggers and threads are the process's.
    """
    is_orbax = f"{os.sep}orbax{os.sep}checkpoint{os.sep}"
    logging.getLogger("absl").addFilter(
        lambda record: record.levelno < logging.ERROR or is_orbax not in record.pathname
    )
    before = threading.excepthook

    def hook(failed: threading.ExceptHookArgs) -> None:
        if not type(failed.thread).__module__.startswith("orbax.checkpoint."):
            before(failed)

    threading.excepthook = hook
    # What its event loops left undone says so when it is collected.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    unraisable = sys.unraisablehook

    def collected(failed: Any) -> None:
        if str(failed.exc_value) != "Event loop is closed":
            unraisable(failed)

    sys.unraisablehook = collected


@contextlib.contextmanager
def _one_line(step: int) -> Iterator[None]:
    """Turns whatever the layers below say of a disk that is full or gone into one line."""
    try:
        yield
    except BadInput:
        raise
    except Exception as error:  # tensorstore's are ValueErrors, orbax's of many kinds
        line = (str(error).strip().splitlines() or [""])[0]
        # tensorstore names what it wrote first, with paths, and the cause last.
        short = line if len(line) <= 240 else f"{line[:80]} ... {line[-150:]}"
        raise Failed(
            f"the checkpoint of step {step} cannot be written: {type(error).__name__}: {short}"
        ) from error


def remove(workdir: str | os.PathLike) -> None:
    """Deletes all checkpoints of a workdir."""
    for name in ("checkpoints", "manifests"):
        storage.remove_tree(storage.find(workdir) / name, missing_ok=True)


def _is_later(name: str, step: int) -> bool:
    return name.isdecimal() and int(name) > step


def _sums(folder: storage.AnyPath) -> dict[str, str]:
    """SHA-256 of every file below a folder, by its path in it."""
    sums = {}
    for name, path in storage.files(folder):
        digest = hashlib.sha256()
        with storage.as_os_error(path), path.open("rb") as file:
            while part := file.read(1 << 20):
                digest.update(part)
        sums[name] = digest.hexdigest()
    return sums
