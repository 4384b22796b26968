# SPDX-License-Identifier: Apache-2.0
"""Wrong command lines: one line on stderr that names the flag and what was expected, exit code 2.

Nothing is compiled before that: in these runs the first thing to be compiled is an error.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.end_to_end.bad_lines import CASES

ROOT = Path(__file__).resolve().parents[2]


def changed(statement: str) -> str:
    """A config file that changes the base config."""
    return (
        "from experiments.configs import common\n"
        "def get_config():\n"
        "    config = common.base_config().copy_and_resolve_references()\n"
        f"    {statement}\n"
        "    return config\n"
    )


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
    files = {
        "typo": changed("config.optimizer.rate = 0.1"),
        "flat": changed("del config.loss; config.loss = 'focal'"),
        "exits": "import sys\nsys.exit(3)\n",
        "lines": "def get_config():\n    raise ValueError('one\\ntwo')\n",
        "imports": "import no_such_module\n",
        "three": "def get_config(a, b, c):\n    return None\n",
        "number": "get_config = 3\n",
        "no_steps": changed("del config.steps"),
        "no_model": changed("del config.model"),
        "no_name": changed("del config.loss.name"),
        "truth": changed("config.steps = True"),
        "text": changed("del config.steps; config.steps = '100'"),
        "open": changed("del config.data.batch_size; config.data.batch_size = None"),
        "extra": changed("config.extra = 1"),
        "nan": changed("config.optimizer.weight_decay = float('nan')"),
    }
    for name, content in files.items():
        (tmp / f"{name}.py").write_text(content)
    (tmp / "bytes.py").write_bytes(bytes(range(128, 256)))
    (tmp / "damaged.npz").write_bytes(b"PK\x03\x04 and no more")
    np.savez(tmp / "other.npz", weights=np.zeros(3))
    rows = [f"{0.1 * i:.1f},{i % 2}" for i in range(200)]
    (tmp / "one.csv").write_text("\n".join(row[:-1] + "1" for row in rows))
    (tmp / "gap.csv").write_text("\n".join([*rows[:7], "nan,1", *rows[8:]]))
    (tmp / "uneven.csv").write_text("\n".join([rows[0] + ",0", *rows[1:]]))
    (tmp / "lone.csv").write_text("\n".join([*rows, "0.5,7"]))
    (tmp / "idx").mkdir()
    (tmp / "idx" / "train-images-idx3-ubyte").write_bytes(b"\0\0\x08\x03\0\0\0\x05")
    (tmp / "idx" / "train-labels-idx1-ubyte").write_bytes(b"\0\0\x08\x01\0\0\0\x05abcde")
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


@pytest.mark.parametrize("name", ["syntax error", "unknown loss", "batch larger than the data"])
def test_a_fresh_process_says_it_too(name: str, tmp: Path):
    line, said = CASES[name]
    line = line.format(tmp=tmp, digits="--config=digits:quick", run=f"--workdir={tmp}/run")

    run = subprocess.run(
        [sys.executable, "-m", "experiments.run", *line.split()], cwd=ROOT, capture_output=True,
        text=True, timeout=60,
    )  # fmt: skip

    assert (run.returncode, run.stdout, len(run.stderr.splitlines())) == (2, "", 1), run.stderr
    assert [words for words in said if words not in run.stderr] == []


def test_fifty_kinds_are_tried_and_no_line_twice():
    assert len(CASES) >= 50
    assert len({line for line, _ in CASES.values()}) == len(CASES)
