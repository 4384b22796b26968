# SPDX-License-Identifier: Apache-2.0
"""Train, evaluate, compile or export: the one command line of the experiments.

  python -m experiments.run --config=digits --workdir=runs/digits
  python -m experiments.run --config=digits:quick --workdir=runs/quick        # seconds
  python -m experiments.run --config=digits --workdir=runs/noise \\
      --config.loss.name=comp_sum --config.loss.tau=1.5 --seed=3
  python -m experiments.run --config=my/config.py --workdir=runs/mine --dry_run
  python -m experiments.run --config=digits --workdir=runs/digits --mode=eval
  python launch/local.py -n 2 -d 4 -- python -m experiments.run --config=digits --workdir=runs/two

A run that was stopped continues from its last checkpoint when the same command is given again.
Every key of the config can be set on the line as --config.a.b=value; --dry_run prints them all.
`python -m experiments.catalogue` lists the losses.

Exit codes: 0 finished, 2 bad input, 3 stopped by NaN or infinity, 75 preempted (SIGTERM) with a
saved checkpoint.
"""

import sys
from collections.abc import Sequence

from absl import app, flags, logging
from ml_collections import config_flags

from experiments.errors import BadInput

FINISHED, BAD_INPUT, NOT_FINITE, PREEMPTED = 0, 2, 3, 75

CONFIG = config_flags.DEFINE_config_file(
    "config", None, "A shipped config (digits, digits:quick, breast_cancer) or a .py file.",
    lock_config=True,
)  # fmt: skip
WORKDIR = flags.DEFINE_string(
    "workdir", None, "Directory of the run: checkpoints, metrics, report. Made if missing."
)
MODE = flags.DEFINE_enum(
    "mode", "train", ["train", "eval", "compile", "export"],
    "train (or continue); eval: the newest checkpoint on validation and test; compile: the train "
    "step's bytes, flops and collectives, without running it; export: parameters as .npz.",
)  # fmt: skip
OVERWRITE = flags.DEFINE_bool("overwrite", False, "Remove an earlier run in the workdir first.")
SEED = flags.DEFINE_integer("seed", None, "Sets config.seed: parameters, batches, draws.")
MAX_STEPS = flags.DEFINE_integer(
    "max_steps", None, "Stop after this many steps in all; the schedule keeps config.steps.",
    lower_bound=1,
)  # fmt: skip
PROFILE = flags.DEFINE_bool("profile", False, "Write a profiler trace of ten steps to the workdir.")
COORDINATOR = flags.DEFINE_string(
    "coordinator_address", None, "host:port of process 0, for several processes."
)
NUM_PROCESSES = flags.DEFINE_integer(
    "num_processes", None, "How many processes share the run.", lower_bound=1
)
PROCESS_ID = flags.DEFINE_integer(
    "process_id", None, "Which of them this is, from 0.", lower_bound=0
)
DRY_RUN = flags.DEFINE_bool(
    "dry_run", False, "Check everything and print config and plan; compile and write nothing."
)


def parse(arguments: Sequence[str]) -> list[str]:
    """Parses the command line; every mistake in it is one line and exit code 2."""
    try:
        if any(a.lstrip("-").split("=")[0] in ("help", "helpshort", "h") for a in arguments[1:]):
            print(help_text())
            sys.exit(FINISHED)
        return flags.FLAGS(rewrite(flags.FLAGS.read_flags_from_files(list(arguments))))
    except BadInput as error:
        raise refuse(error) from None
    except flags.Error as error:
        raise refuse(explain(error)) from None
    except (KeyError, AttributeError, TypeError, ValueError, OSError, SyntaxError) as error:
        raise refuse(f"--config: {first_line(error)}") from None


def help_text() -> str:
    """The module's docstring and one paragraph a flag, without absl's own hundred."""
    lines = [(__doc__ or "").strip(), "", "Flags:"]
    for flag in (CONFIG, WORKDIR, MODE, OVERWRITE, SEED, MAX_STEPS, PROFILE, DRY_RUN, COORDINATOR,
                 NUM_PROCESSES, PROCESS_ID):  # fmt: skip
        lines.append(f"  --{flag.name}\n      {flags.FLAGS[flag.name].help}")
    lines.append("  --flagfile\n      Read flags from a file, one a line.")
    return "\n".join(lines)


def rewrite(arguments: list[str]) -> list[str]:
    """Finds shipped configs by name, and checks every --config.KEY against the config's keys."""
    from experiments import config as configs

    out, overrides, located = [], [], None
    skip = False
    for position, argument in enumerate(arguments):
        if skip:
            skip = False
            continue
        name, equals, value = argument.lstrip("-").partition("=")
        is_flag = position > 0 and argument.startswith("-")
        if is_flag and name == "config":
            if not equals:
                value = arguments[position + 1] if position + 1 < len(arguments) else ""
                skip = True
            located = configs.locate(value)
            out.append(f"--config={located}")
            continue
        if is_flag and name.startswith("config."):
            overrides.append(name.removeprefix("config."))
        out.append(argument)
    if located is None:
        raise BadInput("--config: expected a config, got none; try --config=digits (or --help)")
    if overrides:
        configs.check_overrides(overrides, configs.load_file(located))
    return out


def explain(error: Exception) -> str:
    """absl's message in one line, with the type that a config key wants."""
    text = str(error).strip()
    last = text.splitlines()[-1]
    if "Error whilst parsing config file" in text:
        return f"--config: {last.split(': ', 1)[-1]}"
    if last.startswith("flag --config.") and "=" in last:
        flag, _, why = last.removeprefix("flag ").partition(": ")
        kinds = {"int()": "an integer", "float": "a number", "boolean": "true or false"}
        kind = next((words for word, words in kinds.items() if word in why), None)
        name, _, value = flag.partition("=")
        return f"{name}: expected {kind}, got {value!r}" if kind else f"{name}: {why}"
    return last


def first_line(error: Exception) -> str:
    """The first line of a message, whatever its type puts around it."""
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    return text.strip().splitlines()[0] if text.strip() else type(error).__name__


def refuse(error: Exception | str) -> SystemExit:
    """Prints one line and returns the exit for bad input."""
    print(f"run: {error}", file=sys.stderr)
    return SystemExit(BAD_INPUT)


def connect() -> None:
    """Starts JAX's multi-controller runtime where several processes share the run."""
    given = [COORDINATOR.value, NUM_PROCESSES.value, PROCESS_ID.value]
    if all(value is None for value in given):
        return
    if any(value is None for value in given):
        raise BadInput(
            "--coordinator_address, --num_processes, --process_id: expected all three or none"
        )
    if PROCESS_ID.value >= NUM_PROCESSES.value:
        raise BadInput(
            f"--process_id: expected 0 to {NUM_PROCESSES.value - 1}, got {PROCESS_ID.value}"
        )
    import jax

    jax.distributed.initialize(COORDINATOR.value, NUM_PROCESSES.value, PROCESS_ID.value)


def dispatch(overrides: Sequence[str]) -> int:
    """Runs the mode that the flags ask for and returns the exit code."""
    if WORKDIR.value is None and not (DRY_RUN.value or MODE.value == "compile"):
        raise BadInput("--workdir: expected a directory, got none")
    config = CONFIG.value
    if SEED.value is not None:
        config.seed = SEED.value
    connect()
    # Imported here: refusing a flag should not wait for flax, orbax and grain.
    from experiments import modes
    from experiments.train import NonFinite, train

    if DRY_RUN.value:
        print(modes.plan(config, WORKDIR.value, MAX_STEPS.value))
    elif MODE.value == "compile":
        print(modes.compile_report(config))
    elif MODE.value == "eval":
        print(modes.evaluate(config, WORKDIR.value))
    elif MODE.value == "export":
        print(modes.export(config, WORKDIR.value))
    else:
        try:
            outcome = train(
                config,
                WORKDIR.value,
                max_steps=MAX_STEPS.value,
                overwrite=OVERWRITE.value,
                profile=PROFILE.value,
                overrides=overrides,
            )
        except NonFinite as error:
            print(modes.post_mortem(error, WORKDIR.value), file=sys.stderr)
            return NOT_FINITE
        return PREEMPTED if outcome.preempted else FINISHED
    return FINISHED


def main(arguments: Sequence[str]) -> int:
    """The program behind the flags."""
    try:
        if len(arguments) > 1:
            raise BadInput(f"expected flags only, got {arguments[1]!r}")
        return dispatch([a for a in sys.argv[1:] if a.lstrip("-").startswith("config.")])
    except BadInput as error:
        print(f"run: {error}", file=sys.stderr)
        return BAD_INPUT


if __name__ == "__main__":
    # Orbax and JAX tell of every file and device they look at; --verbosity=0 brings it back.
    logging.set_verbosity(logging.WARNING)
    app.run(main, flags_parser=parse)
