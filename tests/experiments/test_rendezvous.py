# SPDX-License-Identifier: Apache-2.0
"""Processes that wait for each other: all come, some do not, and strangers do no harm."""

import contextlib
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from experiments import rendezvous
from experiments.errors import BadInput


@pytest.fixture
def address() -> str:
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        return f"localhost:{listener.getsockname()[1]}"


@pytest.fixture
def coming(address: str) -> Iterator:
    """Lets processes come, each in a thread."""
    with ThreadPoolExecutor(8) as pool:

        def come(index: int, count: int, seconds: float = 20, run: str = "w") -> Future[float]:
            return pool.submit(
                rendezvous.meet, address, count, index, seconds=seconds, run=run
            )  # fmt: skip

        yield come


def connected(address: str) -> socket.socket:
    host, _, port = address.partition(":")
    limit = time.monotonic() + 10
    while True:
        with contextlib.suppress(ConnectionError):
            return socket.create_connection((host, int(port)), timeout=10)
        assert time.monotonic() < limit
        time.sleep(0.01)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0)], ids=["0 first", "0 last"])
def test_all_go_on_when_all_have_come(coming, order):
    started = []
    for index in order:
        started.append(coming(index, 3))
        time.sleep(0.05)
    assert all(0 < future.result(timeout=30) <= 20 for future in started)


def test_the_missing_are_named_by_every_process_that_came(coming, address, monkeypatch, capfd):
    monkeypatch.setattr(rendezvous, "TOLD_EVERY", 0.2)
    said = [coming(index, 4, seconds) for index, seconds in ((0, 60), (2, 1.5))]
    for future in said:  # the first that gives up decides for all
        with pytest.raises(BadInput) as refused:
            future.result(timeout=20)
        assert f"expected 4 processes at {address} within " in str(refused.value)
        assert str(refused.value).endswith("got 0, 2; missing: 1, 3")
    assert "waiting for processes 1, 3 of 4 (" in capfd.readouterr().err


def test_a_missing_process_0_is_named(coming, address, monkeypatch, capfd):
    monkeypatch.setattr(rendezvous, "TOLD_EVERY", 0.2)
    with pytest.raises(BadInput, match=r"no process 0 there \(.*refused\); missing: 0$"):
        coming(1, 2, 1).result(timeout=20)
    assert f"waiting for process 0 of 2 at {address} (" in capfd.readouterr().err


def hello(**changes) -> bytes:
    told = {"process": 1, "processes": 2, "run": "w", "left": 20.0, **changes}
    return json.dumps(told).encode() + b"\n"


def test_one_that_was_killed_while_it_waited_is_missed_until_it_comes_again(coming, address):
    main = coming(0, 3)
    with connected(address) as killed:
        killed.sendall(hello(processes=3))
        time.sleep(0.1)
    others = [coming(2, 3)]
    time.sleep(0.1)
    assert not main.done()
    others.append(coming(1, 3))
    assert all(future.result(timeout=30) > 0 for future in (main, *others))


def test_a_process_of_another_run_is_refused_and_does_no_harm(coming, capfd):
    main = coming(0, 2)
    with pytest.raises(BadInput, match="is that of another run .*choose another port"):
        coming(1, 2, run="other").result(timeout=20)
    with pytest.raises(BadInput, match="is that of another run"):
        coming(1, 3).result(timeout=20)
    coming(1, 2).result(timeout=20)
    main.result(timeout=20)
    assert "refused a process of another run (other workdir, process 1 of 2)" in (
        capfd.readouterr().err
    )


@pytest.mark.parametrize(
    "noise", [b"GET / HTTP/1.1\r\n\r\n", b"\xff\n", b"[1]\n", b"{}\n", b"x" * 10_000, b"",
              hello(process="one"), hello(left=None)],
)  # fmt: skip
def test_strangers_do_no_harm(coming, address, noise):
    main = coming(0, 2)
    with connected(address) as stranger:
        stranger.sendall(noise)
        coming(1, 2).result(timeout=20)
        main.result(timeout=20)


def test_a_number_that_comes_twice_is_that_of_the_later(coming, address):
    main = coming(0, 3)
    with connected(address) as former:
        former.sendall(hello(processes=3))
        later = coming(1, 3)
        assert b"--process_id: expected each number once, got 1 again" in former.recv(1000)
        others = [later, coming(2, 3)]
        assert all(future.result(timeout=20) > 0 for future in (main, *others))


def test_a_port_in_use_is_refused_by_name(coming, address, monkeypatch):
    monkeypatch.setattr(rendezvous, "FREED_WITHIN", 0.3)
    port = int(address.rpartition(":")[2])
    with socket.create_server(("", port)):
        with pytest.raises(BadInput, match=f"expected a free port, got {port} .*another run"):
            coming(0, 2).result(timeout=20)


def test_a_port_that_gets_free_is_taken(coming, address):
    port = int(address.rpartition(":")[2])
    with socket.create_server(("", port)):
        main = coming(0, 2)
        time.sleep(0.1)
    coming(1, 2).result(timeout=20)
    main.result(timeout=20)


def test_what_answers_in_process_0s_place_is_named(coming, address):
    port = int(address.rpartition(":")[2])
    with socket.create_server(("", port)) as server:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    with connection:
                        connection.sendall(b"\x00\x00\x18\x04 settings of another protocol\n")

        threading.Thread(target=serve, daemon=True).start()
        with pytest.raises(BadInput, match="answers as something else .*missing: 0"):
            coming(1, 2, 1).result(timeout=20)


def test_a_wait_that_nothing_interrupts_ends_in_one_line():
    script = (
        "import sys, time\n"
        "from experiments import rendezvous\n"
        "rendezvous.TOLD_EVERY = 0.1\n"
        "with rendezvous.bounded('nothing', 60): pass\n"
        "with rendezvous.bounded('a miracle', 0.25): time.sleep(60)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 2
    assert "waiting for a miracle (0 s of 0.25 s)\n" in done.stderr
    assert done.stderr.splitlines()[-1] == (
        "run: --startup_timeout: expected a miracle within 0.25 s, got no answer"
    )
