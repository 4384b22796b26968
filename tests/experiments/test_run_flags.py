# SPDX-License-Identifier: Apache-2.0
"""The command line's own part: what --help says, and how it is rewritten before absl reads it."""

import pytest
from absl import flags

from experiments import run
from experiments.errors import BadInput

OURS = ("config", "workdir", "mode", "topology", "checkpoint", "overwrite", "seed", "max_steps",
        "profile", "dry_run", "coordinator_address", "coordinator_port", "num_processes",
        "process_id", "startup_timeout", "flagfile")  # fmt: skip


def test_help_explains_every_flag_and_exit_code():
    text = run.help_text()

    for name in OURS:
        assert f"\n  --{name}\n" in text
    for code in (run.FINISHED, run.BAD_INPUT, run.NOT_FINITE, run.PREEMPTED):
        assert f"{code} " in text.partition("Exit codes:")[2]
    assert max(map(len, text.splitlines())) <= 200
    assert "xml" not in text  # absl's own flags stay away


def test_help_forgets_no_flag():
    mine = {f.name for f in flags.FLAGS.get_flags_for_module(run)}
    assert {name for name in mine if "." not in name} <= set(OURS)


def test_shipped_names_become_files_and_come_first():
    line = ["run", "--workdir=w", "--config.steps=3", "--config=digits:quick", "--seed=1"]

    name, config, *rest = run.rewrite(line)

    assert name == "run"
    assert config.endswith("experiments/configs/digits.py:quick")
    assert rest == ["--workdir=w", "--config.steps=3", "--seed=1"]


@pytest.mark.parametrize(
    "form", [["--config", "digits"], ["-config=digits"], ["-config", "digits"]]
)
def test_the_config_in_every_spelling(form):
    assert run.rewrite(["run", *form])[1].endswith("configs/digits.py")


def test_of_a_key_that_is_set_twice_the_last_value_counts():
    line = ["run", "--config=digits", "--config.model.hidden=(16,)", "--seed=1"]
    again = ["--config.model.hidden=(8,)", "--config.steps=3"]
    assert run.rewrite([*line, *again])[2:] == ["--seed=1", *again]


def test_eval_and_export_need_no_config():
    line = ["run", "--mode=eval", "--workdir=w"]
    assert run.rewrite(line) == line
    with pytest.raises(BadInput, match="--config: expected a config"):
        run.rewrite([*line, "--config.steps=3"])
    with pytest.raises(BadInput, match="--config: expected a config"):
        run.rewrite(["run", "--workdir=w"])


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("flag --config.steps=abc: invalid literal for int() with base 10: 'abc'",
         "--config.steps: expected an integer, got 'abc'"),
        ("flag --seed=x: could not convert string to float: 'x'",
         "--seed: expected a number, got 'x'"),
        ("flag --mode=test: value should be one of <train|eval>",
         "--mode: value should be one of <train|eval>, got 'test'"),
        ("something else", "something else"),
    ],
)  # fmt: skip
def test_absl_messages_name_flag_expectation_and_value(message, said):
    assert run.explain(flags.IllegalFlagValueError(message)) == said


def test_a_refusal_is_one_line_with_the_flag_once(capsys):
    assert run.refuse(BadInput("config.data.path: no such\n  file")) == run.BAD_INPUT
    assert capsys.readouterr().err == "run: --config.data.path: no such file\n"
