# SPDX-License-Identifier: Apache-2.0
"""Two sweeps in one directory never train the same member: each is locked while it is trained.

A member that another process has in hand is left to it. The lock is that of a run's workdir
(`experiments.lease`): one that was killed leaves none behind for long.
"""

import contextlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from experiments.lease import InUse, Lease


@contextlib.contextmanager
def hold(members: Mapping[int, Path]) -> Iterator[dict[int, Lease]]:
    """Locks members of one setting for the time of the block.

    Args:
      members: seed -> where the result is going to be.

    Yields:
      The leases of those that nobody else is training, by seed. A line tells of the others.

    Raises:
      BadInput: the directory cannot be written.
    """
    leases = {seed: Lease(path.parent, name=f"{path.stem}.lock") for seed, path in members.items()}
    held, taken = {}, {}

    def acquire(seed: int) -> None:
        try:
            leases[seed].acquire()
            held[seed] = leases[seed]
        except InUse as error:
            taken.setdefault(error.owner, []).append(seed)

    try:
        # At once: the lock of another machine takes a while to judge.
        with ThreadPoolExecutor(max(len(leases), 1)) as pool:
            list(pool.map(acquire, leases))
        for owner, seeds in taken.items():
            print(f"seeds {sorted(seeds)}: left to {owner}, which trains them", flush=True)
        yield held
    finally:
        for lease in leases.values():
            lease.release()
