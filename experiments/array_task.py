# SPDX-License-Identifier: Apache-2.0
"""Which part of a sweep one of several tasks trains, such as the tasks of a Slurm job array.

Every task plans the whole sweep and takes the members that are dealt to it. The deal depends on the
command line and on the task's index alone, never on what is finished: tasks that share a workdir
need no lock, and one that was killed and started again finds the same members to be its own.
"""

import heapq
from collections.abc import Mapping
from typing import NamedTuple

from experiments.errors import BadInput

_ID, _COUNT = "SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT"
_MIN, _MAX, _STEP = "SLURM_ARRAY_TASK_MIN", "SLURM_ARRAY_TASK_MAX", "SLURM_ARRAY_TASK_STEP"


class Task(NamedTuple):
    """One of `count` tasks that share a sweep; `index` counts from 0."""

    index: int
    count: int


#: The one task that trains everything.
WHOLE = Task(0, 1)


def find(index: int | None, count: int | None, environ: Mapping[str, str]) -> Task:
    """The task that flags and environment name.

    Args:
      index: --task_index; None: as Slurm says.
      count: --task_count; None: as Slurm says. 1 is the whole sweep, whatever Slurm says.
      environ: the environment. Of an array such as --array=1-9:2 the place in it counts; where
        `count` is given, so that an array may be any part of the tasks (--array=3,7), the array's
        index itself does.

    Raises:
      BadInput: an index without a count, one that is not below it, or an array with gaps whose
        number of tasks nothing tells.
    """
    if index is not None and count is None:
        raise BadInput(f"--task_index: expected --task_count beside it, got {index} alone")
    if count == 1 and index is None:
        return WHOLE
    if count is None:
        return _from_slurm(environ)
    if index is not None:
        return _checked(index, count, "--task_index")
    if _ID not in environ:
        raise BadInput(
            f"--task_count: expected --task_index beside it, or {_ID}, got {count} alone"
        )
    return _checked(_number(environ, _ID), count, _ID)


def _from_slurm(environ: Mapping[str, str]) -> Task:
    if _ID not in environ:
        return WHOLE
    own, count = _number(environ, _ID), _number(environ, _COUNT, 1)
    first, step = _number(environ, _MIN, 0), _number(environ, _STEP, 1)
    last = _number(environ, _MAX, first + (count - 1) * step)
    place, off = divmod(own - first, max(step, 1))
    if off or last - first != (count - 1) * step:
        raise BadInput(
            f"--task_count: expected the number of tasks of the whole sweep for an array with gaps "
            f"({count} tasks from {first} to {last}), got none"
        )
    return _checked(place, count, _ID)


def _checked(index: int, count: int, name: str) -> Task:
    if count < 1:
        raise BadInput(f"--task_count: expected at least 1, got {count}")
    if not 0 <= index < count:
        raise BadInput(f"{name}: expected 0 to {count - 1} (of {count} tasks), got {index}")
    return Task(index, count)


def _number(environ: Mapping[str, str], name: str, default: int | None = None) -> int:
    text = environ.get(name)
    if text is None and default is not None:
        return default
    try:
        return int(text or "")
    except ValueError:
        raise BadInput(f"{name}: expected an integer, got {text!r}") from None


def deal(task: Task, settings: int, seeds: int, together: int) -> list[list[int]]:
    """The places of the seeds that a task trains, for each setting.

    The seeds of a setting are cut into runs of at most `together`, shorter ones where there would
    be fewer runs than tasks: a run is trained as one program, which is quicker than one program a
    seed. The runs of all settings, one after the other, each go to the task that has the fewest
    members so far, the first of them. All members are dealt, each of them once.

    Args:
      task: which.
      settings: how many.
      seeds: how many of each setting.
      together: how many seeds to train at once, at most.

    Returns:
      For each setting the task's places in the list of seeds, ascending.
    """
    runs = max(-(-seeds // together), min(-(-task.count // max(settings, 1)), seeds))
    own: list[list[int]] = [[] for _ in range(settings)]
    loads = [(0, index) for index in range(task.count)]  # a heap: the least is the first
    for dealt in range(settings * runs):
        setting, run = divmod(dealt, runs)
        places = range(run * seeds // runs, (run + 1) * seeds // runs)
        load, index = loads[0]
        heapq.heapreplace(loads, (load + len(places), index))
        if index == task.index:
            own[setting] += places
    return own
