# SPDX-License-Identifier: Apache-2.0
"""The launcher on small programs: who prints what, who ends how, who hears a signal."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from launch import local

ROOT = Path(__file__).resolve().parents[2]
#: What each process finds in its command line.
WHO = "import sys; me = int(sys.argv[-1].removeprefix('--process_id='))"


def run(program: str, capfd: pytest.CaptureFixture[str], **options) -> tuple[int, str, str]:
    command = [sys.executable, "-c", f"{WHO}\n{program}"]
    code = local.launch(command, **{"processes": 2, "devices": 3, **options})
    return code, *capfd.readouterr()


def test_every_process_learns_who_it_is(capfd):
    code, out, err = run(
        "import os\n"
        "print(sys.argv[1:], os.environ['JAX_NUM_CPU_DEVICES'], os.environ['JAX_PLATFORMS'])\n"
        "print('to stderr', file=sys.stderr)",
        capfd,
    )

    lines = sorted(out.splitlines())
    assert code == 0
    assert [line[:4] for line in lines] == ["[0] ", "[1] "]
    address = lines[0].split("'")[1]
    assert address.startswith("--coordinator_address=localhost:")
    for index, line in enumerate(lines):
        told = [address, "--num_processes=2", f"--process_id={index}"]
        assert line == f"[{index}] {told} 3 cpu"
    assert sorted(err.splitlines()) == ["[0] to stderr", "[1] to stderr"]


def test_the_first_failure_is_the_exit_code(capfd):
    code, _, _ = run("sys.exit(7 if me == 1 else 0)", capfd)
    assert code == 7


def test_the_others_may_end_by_themselves(capfd):
    program = "import time; time.sleep(0.5 * (me == 0)); print('ended'); sys.exit(3 + me)"
    code, out, _ = run(program, capfd)
    assert (code, sorted(out.splitlines())) == (4, ["[0] ended", "[1] ended"])


def test_one_that_does_not_end_is_terminated_then_killed(capfd):
    program = (
        "import signal, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: print('asked', flush=True))\n"
        "if me == 1:\n    time.sleep(1)\n    sys.exit(5)\n"
        "while True: time.sleep(0.05)"
    )
    code, out, _ = run(program, capfd, grace=0.3)
    assert (code, out) == (5, "[0] asked\n")


def test_a_process_that_dies_of_a_signal_counts_from_128(capfd):
    code, _, _ = run("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", capfd)
    assert code == 128 + signal.SIGKILL


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_are_passed_on(number):
    program = (
        f"{WHO}\nimport signal, time\n"
        f"signal.signal({int(number)}, lambda *_: sys.exit(75))\n"
        "print('ready', flush=True)\n"
        "while True: time.sleep(0.05)"
    )
    launcher = subprocess.Popen(
        [sys.executable, "-m", "launch.local", "-n", "2", "--", sys.executable, "-c", program],
        cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    assert launcher.stdout is not None
    ready = {launcher.stdout.readline(), launcher.stdout.readline()}
    assert ready == {"[0] ready\n", "[1] ready\n"}

    os.kill(launcher.pid, number)

    assert launcher.wait(timeout=60) == 75
    launcher.stdout.close()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "a command after --"),
        (["-n", "2", "--"], "a command after --"),
        (["-n", "0", "--", "true"], "an integer >= 1, got '0'"),
        (["-d", "many", "--", "true"], "an integer >= 1, got 'many'"),
        (["--", "no-such-program"], "cannot start no-such-program"),
    ],
)
def test_a_wrong_command_line_is_one_line(arguments, said, capfd):
    with pytest.raises(SystemExit) as end:
        local.main(arguments)

    out, err = capfd.readouterr()
    assert end.value.code == 2
    assert (out, len(err.splitlines())) == ("", 1)
    assert err.startswith("local: ") and said in err


def test_greetings_of_gloo_are_left_out_and_numbers_are_not(capfd):
    greeting = "[Gloo] Rank 1 is connected to 1 connected peer ranks is : "
    code, out, _ = run(
        f"g = {greeting!r}\n"
        "print(7)\n"
        "print(g + '1')\n"
        "print(g + g + '1', '1', sep='\\n')\n"  # two that ran together, and the first one's end
        "print(8)",
        capfd,
        processes=1,
    )
    assert code == 0 and out.splitlines() == ["[0] 7", "[0] 8"]
