# SPDX-License-Identifier: Apache-2.0
"""Data, checkpoints and workdirs of others cannot run code or reach out of their directory."""

import ast
import io
import json
import pickle  # noqa: TID251 - to show that nothing reads it
import zipfile
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imsave

from experiments import page
from experiments.data import load
from experiments.data.multi_label import read_split
from experiments.errors import BadInput
from experiments.report import write_report
from experiments.rundir import read_run
from tests.experiments.fake_run import make_run
from tests.experiments.test_checkpoint import restore, save

ROOT = Path(__file__).resolve().parents[2]
#: What runs code from a file, or writes wherever an archive says.
UNSAFE = {"pickle", "cPickle", "dill", "cloudpickle", "shelve", "marshal", "joblib", "tarfile"}
UNSAFE_CALLS = {"extract", "extractall", "unpack_archive", "read_pickle", "eval", "exec"}


class Bomb:
    """Unpickling it makes a file."""

    def __init__(self, target: Path):
        self.target = target

    def __reduce__(self):
        return Path.touch, (self.target,)


@pytest.fixture
def bomb(tmp_path: Path):
    target = tmp_path / "exploded"
    yield np.array([Bomb(target)], dtype=object)
    assert not target.exists()


@pytest.mark.parametrize("package", ["experiments", "xloss"])
def test_nothing_unpickles_or_unpacks(package):
    found = []
    for path in sorted((ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name.split(".")[0] for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [(node.module or "").split(".")[0]]
            elif isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                last = called.rpartition(".")[2]
                if called in ("np.load", "numpy.load"):
                    safe = "allow_pickle=False" in [ast.unparse(k) for k in node.keywords]
                    names = [] if safe else ["pickle"]
                elif last in UNSAFE_CALLS and called != "re.extract":
                    names = ["pickle"]
            if UNSAFE & set(names):
                found.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert found == []


def test_the_bomb_is_one(tmp_path):
    target = tmp_path / "exploded"
    pickle.loads(pickle.dumps(Bomb(target)))
    assert target.exists()


def test_pickles_in_npz_data_are_refused(tmp_path, bomb):
    path = tmp_path / "data.npz"
    names = ("indptr", "indices", "data", "y_indptr", "y_indices", "shape", "n_labels")
    np.savez(path, **{f"train_{name}": bomb for name in names})
    with pytest.raises(BadInput, match=r"data\.npz: cannot be read as npz"):
        read_split(path, "train")


def test_pickles_in_a_workdir_are_refused(tmp_path, bomb):
    workdir = make_run(tmp_path / "run", steps=20)
    names = ("scores", "labels", "log_odds", "index")
    np.savez(workdir / "evaluation.npz", **dict.fromkeys(names, bomb))
    with pytest.raises(BadInput, match=r"evaluation\.npz: expected arrays"):
        read_run(workdir)


@pytest.mark.parametrize("suffix", [".csv", ".zip"])
def test_a_pickle_under_another_name_is_no_data(tmp_path, bomb, suffix):
    path = tmp_path / f"data{suffix}"
    path.write_bytes(pickle.dumps(bomb))
    with pytest.raises(BadInput):
        load({"path": str(path)}, seed=0)


def test_checkpoints_are_read_without_pickle(tmp_path, monkeypatch):
    save(tmp_path, 1, 2)

    def refuse(*_, **__):
        raise AssertionError("something was unpickled")

    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)
    assert restore(tmp_path)[0] == 2
    for path in (tmp_path / "checkpoints").rglob("*"):  # protocol 2 and later begin so
        assert path.is_dir() or not path.read_bytes().startswith(b"\x80")


def test_paths_in_a_zip_file_are_names_and_nothing_is_written(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    packed = io.BytesIO()
    imsave(packed, np.zeros([4, 4, 3]), format="png")
    with zipfile.ZipFile(folder / "evil.zip", "w") as archive:
        for place in ("../../out", f"{tmp_path}/absolute", "a/../../b", "<script>"):
            for number in range(10):
                archive.writestr(f"{place}/{number}.png", packed.getvalue())
        link = zipfile.ZipInfo("link")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")

    dataset = load({"path": str(folder / "evil.zip")}, seed=0)

    assert dataset.num_classes == 4
    assert sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*")) == [
        "data", "data/evil.zip",
    ]  # fmt: skip
    assert not (tmp_path.parent / "out").exists()


def test_a_manifest_opens_nothing_outside_its_checkpoint(tmp_path, capsys):
    save(tmp_path, 1, 2)
    (tmp_path / "manifests" / "2.json").write_text(
        '{"../../../../etc/passwd": "0", "/dev/zero": 1}'
    )
    assert restore(tmp_path)[0] == 1
    assert "checkpoint 2: left out, ../../../../etc/passwd is missing" in capsys.readouterr().out


def test_every_piece_of_a_page_escapes_its_text():
    evil = "<script>alert(\"x\")</script>' onload='&"
    pieces = [
        page.document(evil, []),
        page.heading(evil),
        page.paragraph(evil),
        page.paragraph(evil, kind="warning"),
        page.link(evil, f'https://a/"{evil}'),
        page.tiles([(evil, evil)]),
        page.picture(evil, b"png", evil),
        page.table((evil, evil), [(evil, evil)]),
        page.table((), [(evil, evil)]),
    ]
    for piece in pieces:
        assert "<script" not in piece and "&lt;script&gt;" in piece
        assert "onload='" not in piece


def test_what_metrics_and_versions_say_is_escaped_in_the_report(tmp_path):
    evil = "<img src=x onerror=alert(1)>"
    workdir = make_run(
        tmp_path, steps=20, info={"versions": {evil: evil}, "devices": evil, "method": evil}
    )
    with (workdir / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 21, "split": "test", evil: 1.0}) + "\n")
    assert "<img src=x" not in write_report(workdir).read_text(encoding="utf-8")
