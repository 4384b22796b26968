# SPDX-License-Identifier: Apache-2.0
"""Wrong command lines: one line on stderr that names the flag and what was expected, exit code 2.

Nothing is compiled before that: in these runs the first thing to be compiled is an error.
"""

import json
import os
from pathlib import Path

import pytest

SOUND = "{digits} {run}"

#: name -> (command line, what its one line must say). {tmp} is a directory that a fixture fills.
WHOLE: dict[str, tuple[str, list[str]]] = {
    "no config": ("{run}", ["--config", "expected", "--config=digits"]),
    "config without a value": ("{run} --config", ["--config", "expected"]),
    "overrides before the config": (
        "--config.steps=0 {digits} {run}",
        ["--config.steps", ">= 1", "got 0"],
    ),
    "config empty": ("{run} --config=", ["--config", "expected"]),
    "no workdir": ("{digits}", ["--workdir", "expected a directory"]),
    "no flagfile": ("--flagfile={tmp}/none", ["none"]),
    "unknown shipped config": ("--config=digit {run}", ["--config", "digits", "'digit'"]),
    "no such config file": ("--config={tmp}/none.py {run}", ["--config", "none.py"]),
    "config is a directory": ("--config={tmp} {run}", ["--config", "expected"]),
    "syntax error": ("--config={tmp}/syntax.py {run}", ["--config", "syntax.py", "SyntaxE"]),
    "config that raises": ("--config={tmp}/raises.py {run}", ["raises.py", "no such thing"]),
    "no get_config": ("--config={tmp}/without.py {run}", ["without.py", "get_config"]),
    "get_config of something else": ("--config={tmp}/list.py {run}", ["list.py", "ConfigDict"]),
    "unknown key in the file": ("--config={tmp}/typo.py {run}", ["optimizer.rate", "no such"]),
    "unknown variant": ("--config=digits:fast {run}", ["--config", "quick", "'fast'"]),
    "workdir is a file": ("{digits} --workdir={tmp}/empty.csv", ["--workdir", "empty.csv"]),
    "workdir below a file": ("{digits} --workdir={tmp}/empty.csv/run", ["--workdir", "empty.csv"]),
    "workdir that cannot be written": ("{digits} --workdir=/proc/run", ["--workdir", "/proc/run"]),
    "workdir with a broken config": (
        "{digits} --workdir={tmp}/broken",
        ["--workdir", "config.json", "--overwrite"],
    ),
    "workdir of another config": (
        "{digits} --workdir={tmp}/foreign",
        ["--workdir", "seed: 7 there, 0 here", "--overwrite"],
    ),
    "dry run of a bad config": ("{digits} --dry_run --config.steps=0", ["--config.steps", ">= 1"]),
    "compiling a bad config": (
        "{digits} --mode=compile --config.loss.name=foca",
        ["--config.loss.name", "'focal'"],
    ),
    "a section that is none": (
        "--config={tmp}/flat.py {run}",
        ["--config.loss", "ConfigDict", "'focal'"],
    ),
    "evaluating an empty config": (
        "--workdir={tmp}/void --mode=eval",
        ["--config.data", "expected"],
    ),
    "exporting a list": ("--workdir={tmp}/list --mode=export", ["--workdir", "config.json"]),
}
#: The same, for what is wrong in a line that would be sound without it.
ADDED: dict[str, tuple[str, list[str]]] = {
    "unknown task": (
        "--config.task.name=clasification",
        ["--config.task.name", "did you mean 'classification'"],
    ),
    "unknown flag": ("--max_step=3", ["max_step", "max_steps"]),
    "unknown mode": ("--mode=test", ["mode", "train", "test"]),
    "a machine without compiling": (
        "--topology=v5e:2x4",
        ["--topology", "expected --mode=compile", "--mode=train"],
    ),
    "a machine that nobody makes": (
        "--mode=compile --topology=v5:2x4",
        ["--topology", "did you mean 'v5e:2x4'"],
    ),
    "positional": ("extra", ["expected flags only", "extra"]),
    "steps to stop after": ("--max_steps=0", ["max_steps", "0"]),
    "stop after words": ("--max_steps=many", ["max_steps", "many"]),
    "negative seed": ("--seed=-1", ["seed", "-1"]),
    "seed too large": ("--seed=4294967296", ["seed", "4294967296"]),
    "switch with a number": ("--profile=7", ["profile", "7"]),
    "process without the others": (
        "--process_id=0",
        ["--coordinator_address", "--num_processes", "all three"],
    ),
    "a cluster to find out, and none there": (
        "--coordinator_address=auto",
        ["--coordinator_address", "expected host:port", "'auto'"],
    ),
    "process out of range": (
        "--coordinator_address=localhost:1 --num_processes=2 --process_id=2",
        ["--process_id", "0 to 1", "got 2"],
    ),
    "coordinator without a port": (
        "--coordinator_address=localhost --num_processes=2 --process_id=0",
        ["--coordinator_address", "host:port", "localhost"],
    ),
    "a port of nobody": (
        "--coordinator_port=8476",
        ["--coordinator_port", "expected --coordinator_address=auto", "got none"],
    ),
    "two ports": (
        "--coordinator_port=1 --coordinator_address=localhost:1 --num_processes=2 --process_id=0",
        ["--coordinator_port", "without a port", "localhost:1"],
    ),
    "no such port": ("--coordinator_port=65536", ["coordinator_port", "65536"]),
    "unknown key": ("--config.step=3", ["--config.step", "'steps'"]),
    "unknown data key": ("--config.data.batchsize=8", ["--config.data.batchsize", "batch_size"]),
    "unknown loss key": ("--config.loss.tua=1", ["--config.loss.tua", "loss.tau"]),
    "unknown model key": ("--config.model.width=3", ["--config.model.width", "no such key"]),
    "unknown optimizer key": ("--config.optimizer.lr=3", ["--config.optimizer.lr", "no such key"]),
    "key of a leaf": ("--config.steps.x=3", ["--config.steps.x", "no such key"]),
    "a whole section": ("--config.loss=focal", ["--config.loss", "focal"]),
    "steps in words": ("--config.steps=abc", ["--config.steps", "integer", "abc"]),
    "half a step": ("--config.steps=1.5", ["--config.steps", "integer", "1.5"]),
    "no steps": ("--config.steps=0", ["--config.steps", ">= 1", "got 0"]),
    "never log": ("--config.log_every=0", ["--config.log_every", ">= 1"]),
    "never evaluate": ("--config.eval_every=-5", ["--config.eval_every", ">= 1"]),
    "keep nothing": ("--config.keep_checkpoints=0", ["--config.keep_checkpoints", ">= 1"]),
    "skip in other words": ("--config.on_nan=skp", ["--config.on_nan", "did you mean 'skip'"]),
    "skip nothing": ("--config.max_skipped=0", ["--config.max_skipped", ">= 1", "got 0"]),
    "keep every step before the first": ("--config.keep_every=-1", ["keep_every", ">= 0", "-1"]),
    "best checkpoints that are never evaluated": (
        "--config.keep_best=1 --config.eval_every=20 --config.checkpoint_every=30",
        ["--config.keep_best", "divide one another", "30 and 20"],
    ),
    "best is neither": ("--config.best_is=high", ["--config.best_is", "did you mean 'highest'"]),
    "negative rate": (
        "--config.optimizer.learning_rate=-1",
        ["--config.optimizer.learning_rate", "> 0", "-1"],
    ),
    "rate is no number": (
        "--config.optimizer.learning_rate=nan",
        ["--config.optimizer.learning_rate", "> 0", "nan"],
    ),
    "rate in words": (
        "--config.optimizer.learning_rate=high",
        ["--config.optimizer.learning_rate", "a number", "high"],
    ),
    "momentum": ("--config.optimizer.momentum=1", ["--config.optimizer.momentum", "[0, 1)"]),
    "unknown optimizer": (
        "--config.optimizer.name=adamm",
        ["--config.optimizer.name", "sgd", "did you mean 'adam"],
    ),
    "unknown schedule": (
        "--config.optimizer.schedule=cosin",
        ["--config.optimizer.schedule", "did you mean 'cosine'"],
    ),
    "all warm-up": (
        "--config.optimizer.warmup_steps=60",
        ["--config.optimizer.warmup_steps", "less than", "60"],
    ),
    "unknown loss": (
        "--config.loss.name=compsum",
        ["--config.loss.name", "did you mean 'comp_sum'"],
    ),
    "loss of another kind of labels": (
        "--config.loss.name=soft_cross_entropy",
        ["--config.loss.name", "integer labels", "soft_cross_entropy"],
    ),
    "hyperparameter of another loss": (
        "--config.loss.tau=0.5",
        ["--config.loss.tau", "cross_entropy"],
    ),
    "hyperparameter out of range": (
        "--config.loss.name=comp_sum --config.loss.tau=-1",
        ["--config.loss.tau", "[0, inf)", "-1"],
    ),
    "hyperparameter in words": (
        "--config.loss.name=comp_sum --config.loss.tau=half",
        ["--config.loss.tau", "a number", "half"],
    ),
    "unknown surrogate": (
        "--config.loss.name=margin_loss --config.loss.surrogate=hinges",
        ["--config.loss.surrogate", "did you mean 'hinge'"],
    ),
    "surrogate's range": (
        "--config.loss.name=margin_loss --config.loss.surrogate=rho_margin --config.loss.rho=0",
        ["--config.loss.rho", "(0, inf)"],
    ),
    "unknown model": ("--config.model.name=mpl", ["--config.model.name", "'mlp'"]),
    "no hidden units": ("--config.model.hidden=(0,)", ["--config.model.hidden", "> 0"]),
    "half a hidden unit": ("--config.model.hidden=(1.5,)", ["--config.model.hidden", "integers"]),
    "unknown activation": ("--config.model.activation=relo", ["--config.model.activation", "relu"]),
    "all dropped": ("--config.model.dropout=1", ["--config.model.dropout", "[0, 1)"]),
    "unknown data": ("--config.data.name=digit", ["--config.data.name", "did you mean 'digits'"]),
    "batch of none": ("--config.data.batch_size=0", ["--config.data.batch_size", ">= 1"]),
    "batch larger than the data": (
        "--config.data.batch_size=5000",
        ["--config.data.batch_size", "at most", "5000"],
    ),
    "batch that does not divide": (
        "--config.data.batch_size=63",
        ["--config.data.batch_size", "multiple of the 8 devices", "63"],
    ),
    "evaluation batch that does not divide": (
        "--config.data.eval_batch_size=250",
        ["--config.data.eval_batch_size", "multiple of the 8 devices", "250"],
    ),
    "everything held out": (
        "--config.data.test_fraction=1.0",
        ["--config.data.test_fraction", "1"],
    ),
    "unknown scaling": (
        "--config.data.normalise=scaled",
        ["--config.data.normalise", "did you mean 'scale'"],
    ),
    "no data file": ("--config.data.path={tmp}/no.csv", ["data.path", "no.csv"]),
    "empty data file": ("--config.data.path={tmp}/empty.csv", ["empty.csv"]),
    "data file is no table": ("--config.data.path={tmp}/bytes.csv", ["bytes.csv"]),
    "folder without data": ("--config.data.path={tmp}/folder", ["folder", "idx"]),
    "data not prepared": (
        "--config.data.name=tfds:mnist --config.data.data_dir={tmp}/folder",
        ["mnist", "folder"],
    ),
    "evaluating nothing": ("--mode=eval", ["--workdir", "config.json"]),
    "exporting nothing": ("--mode=export", ["--workdir", "config.json"]),
    "hyperparameter without bound": (
        "--config.loss.name=comp_sum --config.loss.tau=inf",
        ["--config.loss.tau", "finite", "inf"],
    ),
    "checkpoint of step 0": ("--mode=eval --checkpoint=0", ["--checkpoint", "0"]),
}
CASES = WHOLE | {name: (f"{SOUND} {added}", said) for name, (added, said) in ADDED.items()}


@pytest.fixture(scope="module")
def tmp(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with everything that the table speaks of."""
    tmp = tmp_path_factory.mktemp("bad")
    (tmp / "empty.csv").touch()
    (tmp / "bytes.csv").write_bytes(bytes(range(128, 256)))
    (tmp / "folder").mkdir()
    (tmp / "syntax.py").write_text("def get_config(:\n")
    (tmp / "raises.py").write_text("def get_config():\n    raise KeyError('no such thing')\n")
    (tmp / "without.py").write_text("config = {}\n")
    (tmp / "list.py").write_text("def get_config():\n    return []\n")
    (tmp / "typo.py").write_text(
        "from experiments.configs import common\n"
        "def get_config():\n"
        "    config = common.base_config()\n"
        "    config.optimizer.rate = 0.1\n"
        "    return config\n"
    )
    (tmp / "flat.py").write_text(
        "from experiments.configs import common\n"
        "def get_config():\n"
        "    config = common.base_config().copy_and_resolve_references()\n"
        "    del config.loss\n"
        "    config.loss = 'focal'\n"
        "    return config\n"
    )
    for name, content in (("broken", '{"seed": '), ("void", "{}"), ("list", "[]")):
        (tmp / name).mkdir()
        (tmp / name / "config.json").write_text(content)
    (tmp / "foreign").mkdir()
    from experiments.config import load_file, locate, resolved

    other = load_file(locate("digits:quick"))
    other.seed = 7
    (tmp / "foreign" / "config.json").write_text(json.dumps(resolved(other)))
    return tmp


@pytest.mark.parametrize("name", CASES)
def test_one_line_and_exit_code_2(name: str, tmp: Path, program):
    line, said = CASES[name]
    line = line.format(tmp=tmp, digits="--config=digits:quick", run=f"--workdir={tmp}/run")

    run = program(*line.split(), devices=8, compiling=False).wait()

    assert (run.code, len(run.err.splitlines())) == (2, 1), run.out + run.err
    assert run.err.startswith("run: ")
    assert [words for words in said if words not in run.err] == [], run.err
    assert run.out == ""
    assert not os.path.exists(tmp / "run")


def test_the_table_is_long_enough():
    assert len(CASES) >= 40
