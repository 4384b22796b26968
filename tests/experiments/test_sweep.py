# SPDX-License-Identifier: Apache-2.0
"""Sweeps: members equal single runs, finished ones are kept, and the table says what came out."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments import array_task, job, sweep, train
from experiments.array_task import Task
from experiments.config import load_file, locate
from experiments.errors import BadInput
from experiments.metrics import read_metrics
from experiments.sweep_table import interval, series, write_table

DIGITS = locate("digits:quick")


def test_a_member_equals_the_single_run_of_its_seed(tmp_path, monkeypatch):
    monkeypatch.setattr(train, "write_report", lambda workdir: "none")
    config = load_file(DIGITS)
    config.update(steps=6, eval_every=3, checkpoint_every=6, log_every=3)
    config.model.hidden = (8,)
    with jax.numpy_dtype_promotion("standard"):  # optax's adam needs it
        first, second = sweep.train_together(job.build(config), [0, 3])
        config.seed = 3
        train.train(config, str(tmp_path))

    single = {(r.pop("step"), r.pop("split")): r for r in read_metrics(tmp_path)}
    assert len(second["records"]) == 5 and second["seed"] == 3
    for record in second["records"]:
        expected = single[record["step"], record["split"]]
        for name in record.keys() - {"step", "split"}:
            assert record[name] == pytest.approx(expected[name], rel=1e-4, abs=1e-6), name
    assert second["final"]["test"]["accuracy"] == single[6, "test"]["accuracy"]
    losses = [member["records"][0]["loss"] for member in (first, second)]
    assert abs(losses[0] - losses[1]) > 1e-3


def test_a_member_that_is_not_finite_leaves_the_others_alone(monkeypatch):
    config = load_file(DIGITS)
    config.update(steps=2, eval_every=1)
    config.model.hidden = ()
    made = job.build(config)
    with jax.numpy_dtype_promotion("standard"):
        good = made.train_batches

        class Spoiled(job.Job):
            def train_batches(self):
                for batch in good():
                    if self.config.seed == 1:
                        batch["inputs"] = np.full_like(batch["inputs"], np.nan)
                    yield batch

        spoiled = Spoiled(**vars(made))
        bad, fine = sweep.train_together(spoiled, [1, 0])

    assert (bad["first_bad"], bad["final"], bad["records"]) == (1, {}, [])
    assert fine["first_bad"] is None and fine["final"]["test"]["accuracy"] > 0


# ---- What is trained, and what is left alone -----------------------------------------------------


@pytest.fixture
def trained(monkeypatch) -> list[tuple[float, list[int]]]:
    """Trains nothing; holds (tau, seeds) of each call instead."""
    calls = []

    def pretend(config, seeds):
        calls.append((config.loss.tau, list(seeds)))
        return [member(seed, 0.9 + 0.01 * seed) for seed in seeds]

    monkeypatch.setattr(sweep, "build", lambda config: config)
    monkeypatch.setattr(sweep, "train_together", pretend)
    return calls


def member(seed: int, accuracy: float, test: float = 0.5, bad: int | None = None) -> dict:
    final = {"validation": {"accuracy": accuracy, "loss": 1.0}, "test": {"accuracy": test}}
    records = [
        {"step": step, "split": "validation", "accuracy": accuracy - 0.1 / step} for step in (1, 2)
    ]
    return {"seed": seed, "steps": 2, "records": records, "first_bad": bad,
            "final": {} if bad else final}  # fmt: skip


def swept(workdir: Path, axis: str, seeds: int, together: int = 32) -> list:
    settings = sweep.grid(["loss.name=comp_sum", axis])
    return sweep.sweep(DIGITS, workdir, settings, range(seeds), together=together)


def test_finished_members_are_skipped_and_a_torn_one_is_made_again(trained, tmp_path):
    results = swept(tmp_path, "loss.tau=0.5,1", 3)
    assert trained == [(0.5, [0, 1, 2]), (1.0, [0, 1, 2])]
    assert [[m["seed"] for m in members] for _, members in results] == [[0, 1, 2]] * 2
    told = json.loads(next((tmp_path / "members").glob("*-2.json")).read_text())
    assert told["config"]["seed"] == 2 and told["overrides"]["loss.name"] == "comp_sum"

    assert told["made_with"]["versions"]["jax"] == jax.__version__ and told["seconds"] >= 0

    trained.clear()
    config = sweep.configure(DIGITS, {"loss.name": "comp_sum", "loss.tau": "0.5"})
    sweep.member_path(tmp_path, config, 1).write_text('{"final": {')
    swept(tmp_path, "loss.tau=0.5,2,1.0", 4)
    assert trained == [(0.5, [1, 3]), (2.0, [0, 1, 2, 3]), (1.0, [3])]

    trained.clear()
    swept(tmp_path, "loss.tau=3", 5, together=2)
    assert trained == [(3.0, [0, 1]), (3.0, [2, 3]), (3.0, [4])]


# ---- Several tasks -------------------------------------------------------------------------------


@pytest.mark.parametrize("together", [1, 3, 32])
@pytest.mark.parametrize("count", [1, 2, 3, 8, 50])
@pytest.mark.parametrize(("settings", "seeds"), [(1, 1), (1, 10), (3, 4), (7, 10)])
def test_every_member_is_dealt_to_one_task(settings, seeds, count, together):
    parts = [array_task.deal(Task(i, count), settings, seeds, together) for i in range(count)]
    dealt = [(s, p) for part in parts for s, places in enumerate(part) for p in places]
    assert sorted(dealt) == [(s, p) for s in range(settings) for p in range(seeds)]
    sizes = [sum(map(len, part)) for part in parts]
    # One run more or less; where there are members enough, every task has some.
    assert max(sizes) - min(sizes) <= min(together, seeds)
    assert min(sizes) > 0 or settings * seeds < count


@pytest.mark.parametrize(
    ("index", "count", "environ", "found"),
    [
        (None, None, {}, (0, 1)),
        (2, 4, {}, (2, 4)),
        (None, None, {"ID": "5", "COUNT": "8", "MIN": "0", "MAX": "7", "STEP": "1"}, (5, 8)),
        (None, None, {"ID": "5", "COUNT": "5", "MIN": "1", "MAX": "9", "STEP": "2"}, (2, 5)),
        (None, None, {"ID": "3", "COUNT": "1", "MIN": "3", "MAX": "3", "STEP": "1"}, (0, 1)),
        (None, None, {"ID": "3", "COUNT": "8"}, (3, 8)),
        (None, 10, {"ID": "7", "COUNT": "2", "MIN": "3", "MAX": "7", "STEP": "1"}, (7, 10)),
        (1, 4, {"ID": "7", "COUNT": "8", "MIN": "0", "MAX": "7", "STEP": "1"}, (1, 4)),
        (None, 1, {"ID": "7", "COUNT": "8", "MIN": "0", "MAX": "7", "STEP": "1"}, (0, 1)),
    ],
)
def test_a_task_is_found_in_flags_and_slurms_environment(index, count, environ, found):
    environ = {f"SLURM_ARRAY_TASK_{name}": value for name, value in environ.items()}
    assert array_task.find(index, count, environ) == found


@pytest.mark.parametrize(
    ("index", "count", "environ", "said"),
    [
        (1, None, {}, "--task_index: expected --task_count beside it, got 1 alone"),
        (None, 4, {}, "--task_count: expected --task_index beside it, or SLURM_ARRAY_TASK_ID"),
        (4, 4, {}, r"--task_index: expected 0 to 3 \(of 4 tasks\), got 4"),
        (-1, 4, {}, "--task_index: expected 0 to 3"),
        (0, 0, {}, "--task_count: expected at least 1, got 0"),
        (None, 4, {"ID": "4"}, "SLURM_ARRAY_TASK_ID: expected 0 to 3"),
        (None, None, {"ID": "x", "COUNT": "2"}, "SLURM_ARRAY_TASK_ID: expected an integer"),
        (None, None, {"ID": "7", "COUNT": "2", "MIN": "3", "MAX": "7", "STEP": "1"},
         "--task_count: expected the number of tasks of the whole sweep for an array with gaps"),
        (None, None, {"ID": "2", "COUNT": "3", "MIN": "1", "MAX": "5", "STEP": "2"},
         "array with gaps"),
    ],
)  # fmt: skip
def test_a_task_that_cannot_be_is_refused(index, count, environ, said):
    environ = {f"SLURM_ARRAY_TASK_{name}": value for name, value in environ.items()}
    with pytest.raises(BadInput, match=said):
        array_task.find(index, count, environ)


def swept_by_slurm(workdir, monkeypatch, capsys, index: int | None, *more: str) -> str:
    """The output of the program, as a task of an array of four or as no task of any."""
    sizes = {"COUNT": "4", "MIN": "1", "MAX": "4", "STEP": "1"}
    for name, value in {"ID": str(index), **sizes}.items():
        if index is None:
            monkeypatch.delenv(f"SLURM_ARRAY_TASK_{name}", raising=False)
        else:
            monkeypatch.setenv(f"SLURM_ARRAY_TASK_{name}", value)
    axes = ("--set", "loss.name=comp_sum", "--set", "loss.tau=0.5,1.0,1.5", "--seeds=4")
    with pytest.MonkeyPatch.context() as patched, pytest.raises(SystemExit) as end:
        patched.setattr(
            "sys.argv", ["sweep", "--config=digits:quick", f"--workdir={workdir}", *axes, *more]
        )
        sweep.run_program("sweep", sweep.main, sweep._FLAGS)
    sweep._FLAGS.unparse_flags()
    sweep.flags.FLAGS.unparse_flags()
    assert end.value.code in (0, None)
    return capsys.readouterr().out


def test_the_tasks_of_an_array_train_each_member_once_and_the_last_writes_the_table(
    trained, tmp_path, monkeypatch, capsys
):
    said = [swept_by_slurm(tmp_path, monkeypatch, capsys, index) for index in (3, 1, 4)]
    assert all("members of other tasks are not there yet" in text for text in said)
    assert said[0].startswith("task 2 of 4\n") and not (tmp_path / "table.md").exists()

    assert "| setting" in swept_by_slurm(tmp_path, monkeypatch, capsys, 2)

    members = [(tau, seed) for tau, seeds in trained for seed in seeds]
    assert sorted(members) == [(tau, seed) for tau in (0.5, 1.0, 1.5) for seed in range(4)]
    rows = json.loads((tmp_path / "table.json").read_text())["rows"]
    assert [row["seeds"] for row in rows] == [[0, 1, 2, 3]] * 3
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == ["curves.png", "members", "table.json", "table.md"]


def test_a_task_that_was_killed_goes_on_and_one_process_can_finish_for_all(
    trained, tmp_path, monkeypatch, capsys
):
    pretend, calls = sweep.train_together, iter(range(1, 100))

    def killed(job, seeds):
        if next(calls) == 2:
            raise KeyboardInterrupt
        return pretend(job, seeds)

    alone = ("--together=1",)
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(sweep, "train_together", killed)
        swept_by_slurm(tmp_path, patched, capsys, 1, *alone)
    sweep._FLAGS.unparse_flags()
    sweep.flags.FLAGS.unparse_flags()
    assert trained == [(0.5, [0])]
    swept_by_slurm(tmp_path, monkeypatch, capsys, 1, *alone)
    assert trained == [(0.5, [0]), (1.0, [0]), (1.5, [0])]

    trained.clear()
    out = swept_by_slurm(tmp_path, monkeypatch, capsys, None)
    assert trained == [(tau, [1, 2, 3]) for tau in (0.5, 1.0, 1.5)] and "| setting" in out
    trained.clear()
    assert "| setting" in swept_by_slurm(tmp_path, monkeypatch, capsys, 3)
    assert trained == []


def test_nothing_trains_before_every_setting_is_known_to_be_sound(trained, tmp_path):
    with pytest.raises(BadInput, match=r"--config.loss.tau: .*expected .*got -1"):
        swept(tmp_path, "loss.tau=0.5,-1", 2)
    with pytest.raises(BadInput, match=r"loss.tau=1.0 is the same setting as .*loss.tau=1$"):
        swept(tmp_path, "loss.tau=1,1.0", 2)
    assert trained == []


def test_grids_and_lists(tmp_path):
    assert sweep.grid([]) == [{}]
    assert sweep.grid(["a=1,2", "b=(3,4),(5,)"]) == [
        {"a": "1", "b": "(3,4)"}, {"a": "1", "b": "(5,)"},
        {"a": "2", "b": "(3,4)"}, {"a": "2", "b": "(5,)"},
    ]  # fmt: skip
    path = tmp_path / "mine.py"
    path.write_text("OVERRIDES = [{'loss.tau': t} for t in (0.5, 1.0)]")
    assert sweep.grid(["seed=1"], sweep.read_overrides(str(path))) == [
        {"loss.tau": 0.5, "seed": "1"},
        {"loss.tau": 1.0, "seed": "1"},
    ]


def test_names_leave_out_what_all_settings_have_in_common():
    settings = sweep.grid(["a=1", "b=1,2"])
    assert sweep.labels(settings) == ("a=1", ["b=1", "b=2"])
    assert sweep.labels(settings[:1]) == ("", ["a=1, b=1"])
    assert sweep.labels([{}]) == ("", ["as configured"])
    assert sweep.labels([{"a": 1}, {"b": 1}]) == ("", ["a=1", "b=1"])
    assert sweep.labels([{"a": 1}, {"a": 1, "b": 2}]) == ("a=1", ["as configured", "b=2"])


def test_text_is_read_as_the_type_of_its_key():
    config = sweep.configure(
        DIGITS,
        {"model.hidden": "(8, 4)", "steps": "30", "optimizer.clip_norm": "inf",
         "data.stratify": "false", "data.path": "here", "loss.name": "comp_sum", "loss.tau": "1"},
    )  # fmt: skip
    assert config.model.hidden == (8, 4) and config.steps == 30 and config.loss.tau == 1.0
    assert config.data.stratify is False and config.data.path == "here"


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ({"loss.taw": "1"}, r"--set loss.taw: no such key; did you mean 'loss.tau'\?"),
        ({"loss": "focal"}, "--set loss: expected one of its keys"),
        ({"seed": "1"}, "--set seed: expected --seeds=N"),
        ({"steps": "many"}, "--set steps: expected int, got 'many'"),
        ({"data.stratify": "perhaps"}, "--set data.stratify: expected bool, got 'perhaps'"),
        ({"model.hidden": "8"}, "--set model.hidden: expected tuple, got '8'"),
        ({"task.name": "clasification"}, "did you mean 'classification'"),
    ],
)
def test_what_cannot_be_set_is_one_line(overrides, said):
    with pytest.raises(BadInput, match=said) as refused:
        sweep.configure(DIGITS, overrides)
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--workdir=w"], "sweep: --config: expected a config, got none"),
        (["--config=digits"], "sweep: --workdir: expected a directory, got none"),
        (["--config=digit", "--workdir=w"], "did you mean 'digits'?"),
        (["--config=digits", "--workdir=w", "--set", "loss.tau"], "--set: expected KEY=VALUE"),
        (["--config=digits", "--workdir=w", "--seeds=0"], "seeds"),
        (["--config=digits", "--workdir=w", "--overrides=none.py"], "no such file: none.py"),
        (["--config=digits", "--workdir=w", "--choose=loss.tau"], "--choose: expected keys"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_exit_code_2(arguments, said, tmp_path, capsys):
    with pytest.MonkeyPatch.context() as patched, pytest.raises(SystemExit) as end:
        patched.chdir(tmp_path)
        patched.setattr("sys.argv", ["sweep", *arguments])
        sweep.run_program("sweep", sweep.main, sweep._FLAGS)
    sweep._FLAGS.unparse_flags()
    sweep.flags.FLAGS.unparse_flags()
    err = capsys.readouterr().err
    assert end.value.code == 2 and said in err and len(err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


# ---- The table -----------------------------------------------------------------------------------


def test_the_interval_is_students():
    # t(0.975, 2) = 4.302653 and the standard deviation of 1, 2, 3 is 1.
    assert interval([1.0, 2.0, 3.0]) == pytest.approx((2.0, 4.302653 / np.sqrt(3)), rel=1e-6)
    assert interval([4.0])[0] == 4.0 and np.isnan(interval([4.0])[1])


def test_rows_are_sorted_by_validation_alone_and_the_choice_is_listed(tmp_path):
    settings = [
        ("a low", {"loss": "a", "rate": 1}, [member(0, 0.8, test=0.99), member(1, 0.8, test=0.99)]),
        ("a high", {"loss": "a", "rate": 2}, [member(0, 0.9), member(1, 0.8)]),
        ("b torn", {"loss": "b", "rate": 1}, [member(0, 0.99), member(1, 0.99, bad=3)]),
        ("b gone", {"loss": "b", "rate": 2}, [member(0, 0.99, bad=1)]),
    ]
    text = write_table(tmp_path, settings, select=None, choose=["rate"])

    whole, chosen = text.split("\n\nrate chosen by accuracy on validation:\n\n")
    names = [line.split(" | ")[0].removeprefix("| ") for line in whole.splitlines()[2:]]
    assert names == ["a high", "a low", "b torn", "b gone"]
    assert [line.split(" | ")[0] for line in chosen.splitlines()[2:]] == ["| a high", "| b torn"]
    assert "| a high | 2 | 0.85 +- 0.64 | 0.5 +- 0 |" in text
    assert "| b torn | 1 (1 not finite) | 0.99 | 0.5 |" in text
    assert "| b gone | 0 (1 not finite) | - | - |" in text
    rows = json.loads((tmp_path / "table.json").read_text())["rows"]
    assert rows[0]["metrics"]["validation"]["accuracy"]["values"] == [0.9, 0.8]
    assert rows[2]["metrics"]["validation"]["accuracy"]["half_width"] == "NaN"
    assert (tmp_path / "table.md").read_text() == text + "\n"
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")

    ascending = write_table(tmp_path, settings[:2], select="-accuracy", common="steps=2")
    assert ascending.splitlines()[0] == "steps=2"
    assert ascending.splitlines()[4].startswith("| a low")
    with pytest.raises(BadInput, match="--select: expected one of .* did you mean 'accuracy'"):
        write_table(tmp_path, settings, select="acuracy")


def test_a_table_says_what_its_members_were_made_with(tmp_path):
    old, new = member(0, 0.8), member(1, 0.9)
    versions = {"python": "3.11.7", "jax": "0.10.2"}
    made = {"versions": versions, "devices": "1 x H200 (gpu)", "commit": "abc1234"}
    new |= {"made_with": made, "seconds": 2.0}
    text = write_table(tmp_path, [("a", {}, [old, new])], select=None)
    said = "Python 3.11.7, jax 0.10.2; 1 x H200 (gpu); commit abc1234; 2 s for 1 of 2 members."
    assert text.endswith(f"\n\nMade with: {said}")
    assert "Made with" not in write_table(tmp_path, [("a", {}, [old])], select=None)


def test_curves_are_of_members_that_have_all_of_them():
    torn = member(1, 0.9)
    torn["records"] = torn["records"][:1]
    steps, values = series([member(0, 0.8), torn, member(2, 0.9)], "accuracy")
    np.testing.assert_array_equal(steps, [1, 2])
    np.testing.assert_allclose(values, [[0.7, 0.75], [0.8, 0.85]])
