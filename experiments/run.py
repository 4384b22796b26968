# SPDX-License-Identifier: Apache-2.0
"""Train, evaluate, compile or export: the one command line of the experiments.

  python -m experiments.run --config=digits --workdir=runs/digits
  python -m experiments.run --config=digits:quick --workdir=runs/quick        # seconds
  python -m experiments.run --config=digits --workdir=runs/noise \\
      --config.loss.name=comp_sum --config.loss.tau=1.5 --seed=3
  python -m experiments.run --config=my/config.py --workdir=runs/mine --dry_run
  python -m experiments.run --workdir=runs/digits --mode=eval       # the run's own config
  python -m experiments.run --config=digits --mode=compile --topology=v5e:16x16 \\
      --config.data.batch_size=256              # does it fit there? nothing runs
  python launch/local.py -n 2 -d 4 -- python -m experiments.run --config=digits --workdir=runs/two

A run that was stopped continues from its last checkpoint when the same command is given again.
Its status.json says every minute how far it is, how fast, and what it waits for.
Every key of the config can be set on the line as --config.a.b=value; --dry_run prints them all.
`python -m experiments.catalogue` lists the losses.

Exit codes: 0 finished, 2 bad input, 3 stopped by NaN or infinity, 4 data or disk failed on the way,
75 preempted (SIGTERM) with a saved checkpoint.
"""

import os
import re
import signal
import sys
import textwrap
from collections.abc import Sequence
from logging import getLogger

from absl import app, flags, logging
from ml_collections import config_flags

from experiments.data.options import nearest
from experiments.errors import BadInput, Failed

FINISHED, BAD_INPUT, NOT_FINITE, FAILED, PREEMPTED = 0, 2, 3, 4, 75

#: Modes that take a flag, for those that not every mode takes.
TAKEN_BY = {
    "checkpoint": ("eval", "export"),
    "overwrite": ("train",),
    "profile": ("train",),
    "max_steps": ("train",),
    "topology": ("compile",),
}

#: The command line once `parse` has rewritten it: what ml_collections searches for overrides.
_REWRITTEN: list[str] = []

CONFIG = config_flags.DEFINE_config_file(
    "config", None, "A shipped config (digits, digits:quick, breast_cancer) or a .py file.",
    lock_config=True, sys_argv=_REWRITTEN,
)  # fmt: skip
WORKDIR = flags.DEFINE_string(
    "workdir", None, "Directory of the run: checkpoints, metrics, report. Made if missing."
)
MODE = flags.DEFINE_enum(
    "mode", "train", ["train", "eval", "compile", "export"],
    "train (or continue); eval: a checkpoint on validation and test; compile: the train step's "
    "bytes, flops and collectives, without running it; export: parameters as .npz. eval and export "
    "take the workdir's own config where --config is not given.",
)  # fmt: skip
TOPOLOGY = flags.DEFINE_string(
    "topology", None,
    "With --mode=compile: a machine that is not there, such as v5e:16x16, v6e:16x16, v5p:4x4x4 or "
    "h200:8; needs pip install 'xloss[compile]' and no such hardware.",
)  # fmt: skip
CHECKPOINT = flags.DEFINE_integer(
    "checkpoint", None, "Step of the checkpoint for eval and export; the newest by default.",
    lower_bound=1,
)  # fmt: skip
OVERWRITE = flags.DEFINE_bool("overwrite", False, "Remove an earlier run in the workdir first.")
SEED = flags.DEFINE_integer(
    "seed", None, "Sets config.seed: parameters, batches, draws.", 0, 2**31 - 1
)
MAX_STEPS = flags.DEFINE_integer(
    "max_steps", None, "Stop after this many steps in all; the schedule keeps config.steps.",
    lower_bound=1,
)  # fmt: skip
PROFILE = flags.DEFINE_bool("profile", False, "Write a profiler trace of ten steps to the workdir.")
COORDINATOR = flags.DEFINE_string(
    "coordinator_address",
    None,
    "host:port of process 0, for several processes; alone and as "
    "'auto', JAX finds out from the cluster (Cloud TPU, Slurm).",
)
COORDINATOR_PORT = flags.DEFINE_integer(
    "coordinator_port", None,
    "Port of process 0 where --coordinator_address says none: with 'auto' instead of the cluster's "
    "own choice, for a firewall that leaves one port open.", 1, 65535,
)  # fmt: skip
NUM_PROCESSES = flags.DEFINE_integer(
    "num_processes", None, "How many processes share the run.", lower_bound=1
)
PROCESS_ID = flags.DEFINE_integer(
    "process_id", None, "Which of them this is, from 0.", lower_bound=0
)
STARTUP_TIMEOUT = flags.DEFINE_float(
    "startup_timeout", 300.0, "Seconds until a process that waits for the others gives up; who is "
    "missing is said every 15 s.", lower_bound=1.0,
)  # fmt: skip
DRY_RUN = flags.DEFINE_bool(
    "dry_run", False, "Check everything and print config and plan; compile and write nothing."
)


def parse(arguments: Sequence[str]) -> list[str]:
    """Parses the command line; every mistake in it is one line and exit code 2."""
    try:
        if any(a.lstrip("-").split("=")[0] in ("help", "helpshort", "h") for a in arguments[1:]):
            print(help_text())
            sys.exit(FINISHED)
        _REWRITTEN[:] = rewrite(flags.FLAGS.read_flags_from_files(list(arguments)))
        return flags.FLAGS(_REWRITTEN)
    except BadInput as error:
        raise SystemExit(refuse(error)) from None
    except flags.Error as error:
        raise SystemExit(refuse(explain(error))) from None
    except (KeyError, AttributeError, TypeError, ValueError) as error:
        raise SystemExit(refuse(f"--config: {first_line(error)}")) from None


def help_text() -> str:
    """The module's docstring and one paragraph a flag, without absl's own hundred."""
    lines = [(__doc__ or "").strip(), "", "Flags:"]
    for flag in (CONFIG, WORKDIR, MODE, TOPOLOGY, CHECKPOINT, OVERWRITE, SEED, MAX_STEPS, PROFILE,
                 DRY_RUN, COORDINATOR, COORDINATOR_PORT, NUM_PROCESSES, PROCESS_ID,
                 STARTUP_TIMEOUT):  # fmt: skip
        indent = {"initial_indent": " " * 6, "subsequent_indent": " " * 6}
        text = textwrap.fill(flags.FLAGS[flag.name].help or "", 88, **indent)
        lines.append(f"  --{flag.name}\n{text}")
    lines.append("  --flagfile\n      Read flags from a file, one a line.")
    return "\n".join(lines)


def rewrite(arguments: list[str]) -> list[str]:
    """Finds shipped configs by name, and checks every --config.KEY against the config's keys."""
    from experiments import config as configs

    located, overrides, others = None, {}, []
    pending = iter(arguments[1:])
    for argument in pending:
        name, equals, value = argument.lstrip("-").partition("=")
        if argument.startswith("-") and name == "config":
            located = configs.locate(value if equals else next(pending, ""))
            continue
        if argument.startswith("-") and name.startswith("config."):
            key = name.removeprefix("config.")
            if key in overrides and equals:  # the last one wins; of tuples absl would take both
                others = [other for other in others if other.partition("=")[0].lstrip("-") != name]
            overrides[key] = value
        others.append(argument)
    if located is not None:
        configs.check_overrides(overrides, configs.load_file(located))
        # First, since ml_collections refuses overrides of a config that is yet to come.
        return [arguments[0], f"--config={located}", *others]
    if overrides or not {"--mode=eval", "--mode=export"} & set(others):
        raise BadInput("--config: expected a config, got none; try --config=digits (or --help)")
    return arguments


def explain(error: Exception) -> str:
    """absl's message in one line: the flag, what it expects, what it got."""
    if isinstance(error, flags.UnrecognizedFlagError):
        return f"--{error.flagname}: no such flag{nearest(error.flagname, flags.FLAGS)}"
    last = str(error).strip().splitlines()[-1].removeprefix("ERROR:: ")
    if match := re.fullmatch(r"Missing value for flag (--[\w.]+)", last):
        return f"{match[1]}: expected a value, got none"
    if not (match := re.match(r"flag (--[\w.]+)=(.*?): (.*)", last)):
        return last
    flag, value, why = match.groups()
    kinds = {"int()": "an integer", "float": "a number", "boolean": "true or false"}
    kind = next((words for word, words in kinds.items() if word in why), None)
    return f"{flag}: expected {kind}, got {value!r}" if kind else f"{flag}: {why}, got {value!r}"


def first_line(error: Exception) -> str:
    """The first line of a message, whatever its type puts around it."""
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    return text.strip().splitlines()[0] if text.strip() else type(error).__name__


def refuse(error: Exception | str) -> int:
    """Prints one line and returns the exit code of bad input."""
    line = " ".join(str(error).split())
    flag = line.startswith(("config.", "topology:"))
    print(f"run: {'--' if flag else ''}{line}", file=sys.stderr)
    return BAD_INPUT


def connect() -> None:
    """Starts JAX's multi-controller runtime where several processes share the run.

    Raises:
      BadInput: the flags do not fit together, or a process does not come (`rendezvous.meet`).
    """
    address, count, index = COORDINATOR.value, NUM_PROCESSES.value, PROCESS_ID.value
    port = COORDINATOR_PORT.value
    if port is not None and (address is None or ":" in address):
        raise BadInput(
            "--coordinator_port: expected --coordinator_address=auto or a host without a port "
            f"beside it, got {address or 'none'}"
        )
    if address is None and count is None and index is None:
        return
    import jax

    from experiments import rendezvous

    seconds = STARTUP_TIMEOUT.value
    # JAX's own timeout aborts the process with a C++ stack: it must not be the first to end.
    never = {"initialization_timeout": int(seconds) + 600}
    if address == "auto" and count is None and index is None:
        if port is not None:  # what JAX's detectors of clusters read
            os.environ["JAX_COORDINATOR_PORT"] = str(port)
        try:
            with rendezvous.bounded("the other processes of the cluster", seconds):
                jax.distributed.initialize(**never)
        except ValueError as error:
            raise BadInput(
                "--coordinator_address: expected host:port where JAX knows no cluster, got 'auto' "
                f"({first_line(error)})"
            ) from error
        return
    if address is None or count is None or index is None:
        raise BadInput(
            "--coordinator_address, --num_processes, --process_id: expected all three or none"
        )
    if port is not None:
        address = f"{address}:{port}"
    found = re.fullmatch(r"\S+:(\d+)", address)
    if found is None or not 1 <= int(found[1]) <= 65535:
        raise BadInput(f"--coordinator_address: expected host:port, got {address!r}")
    if index >= count:
        raise BadInput(f"--process_id: expected 0 to {count - 1}, got {index}")
    left = rendezvous.meet(address, count, index, seconds=seconds, run=WORKDIR.value or "")
    # All are there: what is left to wait for is JAX, not people.
    with rendezvous.bounded(f"JAX's coordination service at {address}", max(left, 30.0)):
        jax.distributed.initialize(address, count, index, **never)


def disconnect() -> None:
    """Leaves together: a process that is gone too early takes the others' last work with it."""
    if COORDINATOR.value is None:
        return
    import jax

    from experiments.sharding import wait_for_main

    wait_for_main("end")
    jax.distributed.shutdown()


def dispatch() -> int:
    """Runs the mode that the flags ask for and returns the exit code."""
    mode, directory, config = MODE.value, WORKDIR.value or "", CONFIG.value
    for name, modes_of_it in TAKEN_BY.items():
        if flags.FLAGS[name].value and mode not in modes_of_it:
            expected = " or ".join(f"--mode={one}" for one in modes_of_it)
            raise BadInput(f"--{name}: expected {expected} beside it, got --mode={mode}")
    if not directory and not (DRY_RUN.value or mode == "compile"):
        raise BadInput("--workdir: expected a directory, got none")
    if TOPOLOGY.value is not None and DRY_RUN.value:
        raise BadInput("--topology: expected --mode=compile beside it, got --dry_run")
    # Imported here: refusing a flag should not wait for flax, orbax and grain.
    from experiments import checkpoint, modes, storage, workdir
    from experiments.compile_report import compile_report
    from experiments.config import from_resolved
    from experiments.train import NonFinite, train

    checkpoint.speak_once()
    if config is None:
        config = from_resolved(workdir.read_config(storage.find(directory)))
    if SEED.value is not None:
        config.seed = SEED.value
    if config.get("param_dtype") == "float64":
        import jax

        jax.config.update("jax_enable_x64", True)
    connect()
    if DRY_RUN.value:
        print(modes.plan(config, directory or None, MAX_STEPS.value))
    elif mode == "compile":
        print(compile_report(config, TOPOLOGY.value))
    elif mode == "eval":
        print(modes.evaluate(config, directory, CHECKPOINT.value))
    elif mode == "export":
        print(modes.export(config, directory, CHECKPOINT.value))
    else:
        given = config_flags.get_override_values(flags.FLAGS["config"])
        try:
            outcome = train(
                config,
                directory,
                max_steps=MAX_STEPS.value,
                overwrite=OVERWRITE.value,
                profile=PROFILE.value,
                overrides=[f"config.{key}={value}" for key, value in given.items()],
            )
        except NonFinite as error:
            print(modes.post_mortem(error, directory), file=sys.stderr)
            return NOT_FINITE
        return PREEMPTED if outcome.preempted else FINISHED
    return FINISHED


def _kept(directory: str | None) -> str:
    """What is left of a run that failed, for people."""
    from experiments.checkpoint import Checkpoints

    if MODE.value != "train" or not directory or not (steps := Checkpoints.sealed(directory)):
        return ""
    return (
        f" (the checkpoint of step {steps[-1]} is kept in {directory}; the same command continues "
        "from it)"
    )


def main(arguments: Sequence[str]) -> int:
    """The program behind the flags."""
    try:
        if len(arguments) > 1:
            raise BadInput(f"expected flags only, got {arguments[1]!r}")
        code = dispatch()
        disconnect()
        return code
    except BadInput as error:
        return refuse(error)
    except (Failed, OSError) as error:  # the latter: a disk that is full or gone
        # No disconnect: the other processes are in the middle of a step, and end by themselves.
        line = " ".join(str(error).split())
        print(f"run: stopped: {line}{_kept(WORKDIR.value)}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print("run: interrupted; the same command continues the run", file=sys.stderr)
        return 128 + signal.SIGINT


if __name__ == "__main__":
    # Orbax and JAX tell of every file and device they look at; --verbosity=0 brings it back.
    logging.set_verbosity(logging.WARNING)
    # It warns of every NaN that it is given; the run itself says more.
    getLogger("tensorboardX").setLevel("ERROR")
    app.run(main, flags_parser=parse)
