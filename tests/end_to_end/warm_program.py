# SPDX-License-Identifier: Apache-2.0
"""`python -m experiments.run` over and over, from one process that has done the imports already.

Half of a short run's time is importing flax, orbax, grain and matplotlib; here that is paid once.
Each line on stdin is a JSON request, each is answered by a line:

    {"arguments": [...], "devices": 1, "compiling": true, "report": false,
     "out": PATH, "err": PATH}                            -> the process's id
    {"wait": ID}                                          -> its exit code, -N for signal N

A request forks: the new process is `python -m experiments.run ARGUMENTS` from there on, with its
own flags, its own JAX backend (none is started here) and its own end. Without "report" it draws no
pictures, which take longer than training; with "compiling" false, it ends with exit code 1 as soon
as anything is to be compiled. `conftest.py` talks to it.
"""

import json
import os
import runpy
import sys

import jax

import experiments.figures
import experiments.modes
import experiments.train


def become(
    arguments: list[str], devices: int, compiling: bool, report: bool, out: str, err: str
) -> None:
    """Turns this process into the program, with its output in two files."""
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(os.open(out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 1)
    os.dup2(os.open(err, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
    jax.config.update("jax_num_cpu_devices", devices)
    sys.argv = ["run.py", *arguments]
    if not report:
        experiments.train.write_report = lambda workdir: "none"
    if compiling:
        runpy.run_module("experiments.run", run_name="__main__", alter_sys=True)
        return
    jax.monitoring.register_event_duration_secs_listener(refuse_to_compile)
    try:
        runpy.run_module("experiments.run", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        # Half a second of tidying up is saved: a refused command line leaves nothing behind.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(end.code)


def refuse_to_compile(event: str, _seconds: float, **_: object) -> None:
    if event == "/jax/core/compile/backend_compile_duration":
        raise AssertionError("something was compiled")


if __name__ == "__main__":
    while line := sys.stdin.readline():
        request = json.loads(line)
        if "wait" in request:
            answer = os.waitstatus_to_exitcode(os.waitpid(request["wait"], 0)[1])
        else:
            answer = os.fork()
            if answer == 0:
                become(**request)
                break
        print(json.dumps(answer), flush=True)
