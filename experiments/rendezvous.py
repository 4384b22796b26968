# SPDX-License-Identifier: Apache-2.0
"""How the processes of a run find each other: who is missing is said, and the wait has an end.

`jax.distributed.initialize` waits in silence, and after its timeout JAX's client aborts the
process. Therefore the processes meet first, on the very port that JAX is about to use: process 0
listens, the others say their number, and once all have come the port is given to JAX. A process may
come before process 0 does, or come again after it was restarted. `bounded` gives the same end to a
wait that happens inside JAX.
"""

import contextlib
import json
import os
import selectors
import socket
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

from experiments.errors import BadInput

#: Seconds between two lines that say who is waited for.
TOLD_EVERY = 15.0
#: Seconds that a program which has the port gets to end: it may be this run's predecessor.
FREED_WITHIN = 30.0
#: The longest line that is read from a stranger.
_LONGEST = 4096
_EXIT_CODE = 2


def meet(address: str, count: int, index: int, *, seconds: float, run: str = "") -> float:
    """Returns when all processes are there.

    Args:
      address: host:port of process 0.
      count: how many processes there are.
      index: which of them this is.
      seconds: how long to wait for the others; the process that gives up first decides for all.
      run: what tells this run from another that was given the same port, such as its workdir.

    Returns:
      Seconds that are left of the time.

    Raises:
      BadInput: somebody is missing (the line says who), the port is another program's, or process
        0 is that of another run.
    """
    clock = _Clock(seconds)
    if count > 1:
        if index == 0:
            _gather(address, count, clock, run)
        else:
            _report(address, count, index, clock, run)
    return clock.left()


@contextlib.contextmanager
def bounded(what: str, seconds: float) -> Iterator[None]:
    """Says every now and then what the block waits for, and ends the process if it takes too long.

    It is for a call that does not return and cannot be interrupted: one line, and exit code 2.

    Args:
      what: "the other processes", or the like.
      seconds: how long the block may take.
    """
    over, clock = threading.Event(), _Clock(seconds)

    def watch() -> None:
        while not over.wait(min(TOLD_EVERY, clock.left())):
            if clock.left() > 0:
                clock.tell(what)
                continue
            line = f"run: --startup_timeout: expected {what} within {seconds:g} s, got no answer"
            print(line, file=sys.stderr, flush=True)
            os._exit(_EXIT_CODE)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


class _Clock:
    """The time for a wait, and when something was last said about it."""

    def __init__(self, seconds: float):
        self.seconds = seconds
        self._began = self._told = time.monotonic()
        self._end = self._began + seconds

    def left(self) -> float:
        return max(self._end - time.monotonic(), 0.0)

    def passed(self) -> float:
        return time.monotonic() - self._began

    def shorten(self, left: float) -> None:
        """Ends the wait with that of a process which began earlier."""
        self._end = min(self._end, time.monotonic() + left)

    def tell_in_time(self, what: str) -> None:
        if time.monotonic() - self._told >= TOLD_EVERY:
            self.tell(what)

    def tell(self, what: str) -> None:
        self._told = time.monotonic()
        line = f"waiting for {what} ({self.passed():.0f} s of {self.seconds:g} s)"
        print(line, file=sys.stderr, flush=True)


def _missing(address: str, count: int, came: Sequence[int], clock: _Clock) -> str:
    missing = [i for i in range(count) if i not in came]
    return (
        f"--startup_timeout: expected {count} processes at {address} within {clock.seconds:g} s, "
        f"got {_listed(came) or 'none'}; missing: {_listed(missing)}"
    )


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, sorted(numbers)))


# ---- Process 0 -----------------------------------------------------------------------------------


class _Guest:
    """A connection, and what it has said so far."""

    def __init__(self, connection: socket.socket):
        connection.settimeout(2.0)
        self.connection, self._text = connection, b""
        self.index: int | None = None  # until it has said who it is

    def read(self) -> dict[str, Any] | None:
        """What it says of itself; None while the line is not whole.

        Raises:
          OSError, ValueError: it is gone, or no process of a run.
        """
        received = self.connection.recv(_LONGEST)
        self._text += received
        if not received or len(self._text) > _LONGEST:
            raise ConnectionError("gone")
        if b"\n" not in self._text:
            return None
        found = json.loads(self._text.partition(b"\n")[0])
        if not isinstance(found, dict) or not {"process", "processes", "run", "left"} <= set(found):
            raise ValueError("no process of a run")
        return found

    def say(self, **content: Any) -> None:
        with contextlib.suppress(OSError):  # it has gone meanwhile
            self.connection.sendall(json.dumps(content).encode() + b"\n")


def _gather(address: str, count: int, clock: _Clock, run: str) -> None:
    """Lets the others come; when all have, each is told to go on."""
    guests: dict[int, _Guest] = {}
    listener = _listen(address, clock)
    with selectors.DefaultSelector() as selector, contextlib.ExitStack() as stack:
        with listener:
            selector.register(listener, selectors.EVENT_READ, None)
            while len(guests) < count - 1:
                if clock.left() <= 0:
                    line = _missing(address, count, [0, *guests], clock)
                    for guest in guests.values():
                        guest.say(refused=line)
                    raise BadInput(line)
                absent = [i for i in range(1, count) if i not in guests]
                noun = "process" if len(absent) == 1 else "processes"
                clock.tell_in_time(f"{noun} {_listed(absent)} of {count}")
                for key, _ in selector.select(min(clock.left(), 0.5)):
                    if key.data is None:
                        with contextlib.suppress(OSError):  # gone before it was let in
                            connection = stack.enter_context(listener.accept()[0])
                            selector.register(connection, selectors.EVENT_READ, _Guest(connection))
                    elif not _listen_to(key.data, guests, (address, count, run), clock):
                        selector.unregister(key.data.connection)
                        key.data.connection.close()
        # Not before the port is free: they would ask this listener for JAX's service.
        for guest in guests.values():
            guest.say(go=True)


def _listen(address: str, clock: _Clock) -> socket.socket:
    port = int(address.rpartition(":")[2])
    both = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both else socket.AF_INET
    while True:
        try:
            # On every interface, as JAX's service listens; with SO_REUSEADDR, so that connections
            # of a run that has just ended are no hindrance.
            return socket.create_server(("", port), family=family, dualstack_ipv6=both, backlog=512)
        except OSError as error:
            if clock.passed() >= FREED_WITHIN or clock.left() <= 0:
                raise BadInput(
                    f"--coordinator_address: expected a free port, got {port} ("
                    f"{error.strerror or error}: another run?); choose another one"
                ) from error
            clock.tell_in_time(f"port {port} to be free: another program has it")
            time.sleep(min(0.5, clock.left()))


def _listen_to(
    guest: _Guest, guests: dict[int, _Guest], ours: tuple[str, int, str], clock: _Clock
) -> bool:
    """Reads what a guest says; whether the connection is to be kept."""
    address, count, run = ours
    try:
        told = guest.read()
        if told is None:
            return True
        index, left = int(told["process"]), float(told["left"])
    except (OSError, ValueError, TypeError):
        if guest.index is not None and guests.get(guest.index) is guest:
            del guests[guest.index]  # it was killed while it waited, and may come again
        return False
    if told["processes"] != count or told["run"] != run or not 0 < index < count:
        print(f"refused a process of another run ({_described(told)})", file=sys.stderr, flush=True)
        guest.say(
            refused=f"--coordinator_address: {address} is that of another run ({run or 'no'} "
            f"workdir, {count} processes; here {_described(told)}); choose another port"
        )
        return False
    if (before := guests.get(index)) is not None and before is not guest:
        # Restarted on a machine that had died, or two that were given one number.
        before.say(refused=f"--process_id: expected each number once, got {index} again")
        before.index = None
    guest.index, guests[index] = index, guest
    clock.shorten(left)
    return True


def _described(told: dict[str, Any]) -> str:
    return (
        f"{str(told['run'])[:200] or 'no'} workdir, process {told['process']} of "
        f"{told['processes']}"
    )


# ---- The others ----------------------------------------------------------------------------------


def _report(address: str, count: int, index: int, clock: _Clock, run: str) -> None:
    """Says to process 0 who is here, again and again until it answers."""
    host, _, port = address.rpartition(":")
    why = "no answer"
    while clock.left() > 0:
        try:
            with socket.create_connection((host.strip("[]"), int(port)), timeout=5.0) as connection:
                hello = {"process": index, "processes": count, "run": run, "left": clock.left()}
                connection.sendall(json.dumps(hello).encode() + b"\n")
                answer = _answer(connection, address, clock)
        except OSError as error:  # it is not there yet, or its name is not known yet
            why, answer = error.strerror or str(error), None
        if answer is not None:
            if "refused" in answer:
                raise BadInput(str(answer["refused"]))
            return
        clock.tell_in_time(f"process 0 of {count} at {address}")
        time.sleep(min(0.5, clock.left()))
    raise BadInput(
        f"--startup_timeout: expected {count} processes at {address} within {clock.seconds:g} s, "
        f"got no process 0 there ({why}); missing: 0"
    )


def _answer(connection: socket.socket, address: str, clock: _Clock) -> dict[str, Any] | None:
    """What process 0 says when it has made up its mind; None if it is gone.

    Raises:
      OSError: what answers there is something else.
    """
    text = b""
    connection.settimeout(0.5)
    while b"\n" not in text:
        # Process 0 knows when this process gives up, and says so with the names of the missing.
        if clock.passed() > clock.seconds + 3.0:
            return None
        try:
            received = connection.recv(_LONGEST)
        except TimeoutError:
            continue
        if not received:
            return None
        text += received
        if len(text) > _LONGEST:
            break
    try:
        found = json.loads(text.partition(b"\n")[0])
    except ValueError:
        found = None
    if not isinstance(found, dict) or not {"go", "refused"} & set(found):
        raise OSError(f"{address} answers as something else than a run that starts: another run?")
    return found
