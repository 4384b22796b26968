# SPDX-License-Identifier: Apache-2.0
"""Starts a command in several processes on this machine, each with its own CPU devices.

  python launch/local.py -n 2 -d 4 -- python -m experiments.run --config=digits --workdir=runs/two

Reach for it to try a multi-process run before a cluster does. Every process gets the command with
--coordinator_address, --num_processes and --process_id added, and JAX_NUM_CPU_DEVICES in its
environment. Each line that process i prints is shown with [i] before it. SIGTERM and SIGINT (^C)
are passed on to all processes. When one fails, the others get some seconds to end by themselves and
are then terminated. The exit code is that of the first process that failed, or 0.
"""

import argparse
import os
import queue
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from typing import NoReturn, TextIO

BAD_INPUT = 2
FORWARDED = (signal.SIGTERM, signal.SIGINT)


def launch(command: Sequence[str], *, processes: int, devices: int, grace: float = 15.0) -> int:
    """Runs a command in several processes that know of each other, and waits for all of them.

    Args:
      command: program and arguments; the three flags are added at its end.
      processes: how many processes, >= 1.
      devices: CPU devices of each, >= 1.
      grace: seconds that the others have to end by themselves after one has failed, and then
        again after SIGTERM until SIGKILL.

    Returns:
      The exit code of the first process that failed (128 + N for signal N), or 0.

    Raises:
      OSError: the program cannot be started.
    """
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": str(devices),
        "PYTHONUNBUFFERED": "1",
    }
    common = [f"--coordinator_address=localhost:{_free_port()}", f"--num_processes={processes}"]
    started: list[subprocess.Popen[str]] = []
    ended: queue.SimpleQueue[int] = queue.SimpleQueue()
    readers: list[threading.Thread] = []

    def forward(number: int, _frame: object) -> None:
        for process in started:
            if process.poll() is None:
                process.send_signal(number)

    before = {number: signal.signal(number, forward) for number in FORWARDED}
    try:
        for index in range(processes):
            # A session of its own: ^C reaches the processes through `forward` alone, and once.
            process = subprocess.Popen(
                [*command, *common, f"--process_id={index}"], env=environment, text=True, bufsize=1,
                errors="replace", stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=subprocess.PIPE, start_new_session=True,
            )  # fmt: skip
            started.append(process)
            for pipe, stream in ((process.stdout, sys.stdout), (process.stderr, sys.stderr)):
                readers.append(_thread(_copy, pipe, stream, f"[{index}] "))
            _thread(lambda p: ended.put(p.wait()), process)
        code = _first_failure(started, ended, grace)
    finally:
        for process in started:
            if process.poll() is None:
                process.kill()
        for reader in readers:
            reader.join(timeout=5)
        for number, handler in before.items():
            signal.signal(number, handler)
    return code if code >= 0 else 128 - code


def _first_failure(
    started: Sequence[subprocess.Popen[str]], ended: queue.SimpleQueue[int], grace: float
) -> int:
    """Waits until every process has ended; returns the first exit code that is not 0."""
    failure, patience = 0, None
    remaining, steps = len(started), [signal.SIGTERM, signal.SIGKILL]
    while remaining:
        try:
            code = ended.get(timeout=patience)
        except queue.Empty:
            for process in started:
                if process.poll() is None:
                    process.send_signal(steps[0])
            steps = steps[1:] or steps
            continue
        remaining -= 1
        if code and not failure:
            failure, patience = code, grace
    return failure


#: In every line that Gloo greets a peer with.
GREETING = "connected peer ranks"


def _copy(pipe: TextIO, stream: TextIO, prefix: str) -> None:
    owed = 0
    with pipe:
        for line in pipe:
            # Gloo greets every peer of every device; nothing else would be seen. Where two of them
            # run into one line, the end of the first ("1", or nothing) is a line that is owed.
            if greetings := line.count(GREETING):
                owed += greetings - 1
            elif owed and re.fullmatch(r"\s*\d*\s*", line):
                owed -= 1
            else:
                stream.write(f"{prefix}{line.rstrip()}\n")
                stream.flush()


def _thread(target, *arguments) -> threading.Thread:
    thread = threading.Thread(target=target, args=arguments, daemon=True)
    thread.start()
    return thread


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        return listener.getsockname()[1]


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        print(f"local: {message}", file=sys.stderr)
        raise SystemExit(BAD_INPUT)


def _at_least_one(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected an integer >= 1, got {text!r}")
    return int(text)


def main(arguments: Sequence[str] | None = None) -> int:
    """The program behind the flags; returns its exit code."""
    parser = _Parser(
        description=(__doc__ or "").partition("\n")[0],
        usage="python launch/local.py [-n PROCESSES] [-d DEVICES] -- COMMAND ...",
    )
    parser.add_argument("-n", "--processes", type=_at_least_one, default=2, help="default 2")
    parser.add_argument(
        "-d", "--devices", type=_at_least_one, default=1, help="CPU devices of each; default 1"
    )
    parser.add_argument("command", nargs=argparse.REMAINDER, help="what to run, after --")
    options = parser.parse_args(arguments)
    command = options.command[1:] if options.command[:1] == ["--"] else options.command
    if not command:
        parser.error("expected a command after --, got none")
    try:
        return launch(command, processes=options.processes, devices=options.devices)
    except OSError as error:
        parser.error(f"cannot start {command[0]}: {error.strerror or error}")


if __name__ == "__main__":
    sys.exit(main())
