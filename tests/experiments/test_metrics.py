# SPDX-License-Identifier: Apache-2.0
"""metrics.jsonl, TensorBoard and progress: what is written, and what survives a resume."""

import io
import json
import math
import struct
import sys

import jax.numpy as jnp
import pytest

from experiments import metrics
from experiments.errors import BadInput
from experiments.metrics import MetricWriter, Progress, read_metrics


def write_steps(workdir, steps, *, resume_step, is_main=True):
    writer = MetricWriter(workdir, is_main=is_main, resume_step=resume_step)
    for step in steps:
        writer.write(step, "train", {"loss": 1 / step})
    writer.close()


def tensorboard_scalars(workdir):
    from tensorboardX.proto.event_pb2 import Event

    found = {}
    for path in sorted((workdir / "tensorboard").iterdir()):
        data, at = path.read_bytes(), 0
        while at < len(data):
            (length,) = struct.unpack_from("<Q", data, at)
            event = Event.FromString(data[at + 12 : at + 12 + length])
            at += 12 + length + 4
            for value in event.summary.value:
                found[event.step, value.tag] = value.simple_value
    return found


def test_a_record_reaches_jsonl_tensorboard_and_stdout(tmp_path, capsys):
    writer = MetricWriter(tmp_path / "run", is_main=True, resume_step=0)
    writer.write(20, "train", {"loss": jnp.float32(0.25), "accuracy": 1})
    # The line is there before anything is flushed or closed: a killed run keeps it.
    line = (tmp_path / "run" / "metrics.jsonl").read_text()
    assert json.loads(line) == {"step": 20, "split": "train", "loss": 0.25, "accuracy": 1.0}
    writer.close()
    writer.close()
    assert tensorboard_scalars(tmp_path / "run") == {
        (20, "train/loss"): 0.25,
        (20, "train/accuracy"): 1.0,
    }
    assert "[train] step 20  loss 0.25  accuracy 1" in capsys.readouterr().out


def test_nan_and_infinity_are_valid_json_and_come_back(tmp_path):
    writer = MetricWriter(tmp_path, is_main=True, resume_step=0)
    writer.write(1, "train", {"a": math.nan, "b": math.inf, "c": -math.inf, "d": 0.1})
    writer.close()

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    raw = json.loads((tmp_path / "metrics.jsonl").read_text(), parse_constant=refuse)
    assert raw["a"] == "NaN"
    (record,) = read_metrics(tmp_path)
    assert math.isnan(record["a"])
    assert (record["b"], record["c"], record["d"]) == (math.inf, -math.inf, 0.1)


@pytest.mark.parametrize(
    ("resume_step", "kept"), [(6, [2, 4, 6]), (5, [2, 4]), (0, []), (None, [2, 4, 6, 8])]
)
def test_resume_cuts_the_file_back_to_the_checkpoint(tmp_path, resume_step, kept):
    write_steps(tmp_path, [2, 4, 6, 8], resume_step=0)
    write_steps(tmp_path, [10], resume_step=resume_step)
    assert [record["step"] for record in read_metrics(tmp_path)] == [*kept, 10]
    assert not list(tmp_path.glob("*.partial"))


def test_a_resumed_file_equals_the_uninterrupted_one_byte_for_byte(tmp_path):
    write_steps(tmp_path / "whole", [1, 2, 3, 4, 5], resume_step=0)
    write_steps(tmp_path / "killed", [1, 2, 3, 4], resume_step=0)
    with (tmp_path / "killed" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "split": "tra')
    assert [record["step"] for record in read_metrics(tmp_path / "killed")] == [1, 2, 3, 4]
    write_steps(tmp_path / "killed", [4, 5], resume_step=3)
    whole = (tmp_path / "whole" / "metrics.jsonl").read_bytes()
    assert (tmp_path / "killed" / "metrics.jsonl").read_bytes() == whole


def test_a_torn_line_is_dropped_even_when_nothing_is_cut(tmp_path):
    write_steps(tmp_path, [1], resume_step=0)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2, "sp')
    write_steps(tmp_path, [3], resume_step=None)
    assert [record["step"] for record in read_metrics(tmp_path)] == [1, 3]


@pytest.mark.parametrize("line", ["oops", "[1]", '{"split": "train"}', '{"step": 1, "loss": 2}'])
def test_a_broken_line_in_the_middle_is_named(tmp_path, line):
    good = '{"step": 1, "split": "train", "loss": 2.0}'
    (tmp_path / "metrics.jsonl").write_text(f"{good}\n{line}\n{good}\n")
    with pytest.raises(BadInput, match=r"metrics.jsonl line 2: expected .*, got "):
        read_metrics(tmp_path)


def test_only_process_0_writes(tmp_path, capfd):
    write_steps(tmp_path / "run", [1, 2], resume_step=0, is_main=False)
    progress = Progress(10, 0, False, interval=0.0)
    progress.update(5, loss=1.0)
    progress.close()
    assert not (tmp_path / "run").exists()
    assert capfd.readouterr() == ("", "")


def test_wrong_splits_and_reserved_names_are_refused(tmp_path):
    writer = MetricWriter(tmp_path, is_main=True, resume_step=0)
    with pytest.raises(ValueError, match=r"split: expected one of train, .* got 'valid'"):
        writer.write(1, "valid", {"loss": 1.0})
    with pytest.raises(ValueError, match="scalars: expected metric names, got 'step'"):
        writer.write(1, "train", {"step": 1.0})
    writer.close()
    assert read_metrics(tmp_path) == []


def test_no_file_reads_as_no_records(tmp_path):
    assert read_metrics(tmp_path) == []


def test_progress_is_plain_lines_with_an_estimate_when_stderr_is_no_terminal(capsys, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(metrics.time, "monotonic", lambda: now[0])
    progress = Progress(1000, 400, True, interval=30.0)
    for step in range(401, 501):
        now[0] += 0.5
        progress.update(step, loss=0.123456)
    # 60 steps after 30 s: 2 a second, 540 left; the 400 steps before the resume do not count.
    assert capsys.readouterr().err == (
        "step 460/1000 (46 %), 2 steps/s, 04:30 left, 00:30 elapsed, loss 0.1235\n"
    )
    now[0] += 250
    progress.update(1000, loss=0.1)
    capsys.readouterr()
    progress.close()
    progress.close()
    assert capsys.readouterr().err == (
        "step 1000/1000 (100 %), 2 steps/s, 05:00 elapsed, loss 0.1\n"
    )


def test_progress_without_a_step_ends_quietly(capsys):
    Progress(0, 0, True).close()
    assert capsys.readouterr().err == "step 0/0 (0 %)\n"


def test_progress_is_a_bar_on_a_terminal(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    progress = Progress(10, 4, True)
    progress.update(10, loss=0.5)
    progress.close()
    assert "\r" in terminal.getvalue()
    assert "10/10" in terminal.getvalue()
    assert "loss=0.5" in terminal.getvalue()
