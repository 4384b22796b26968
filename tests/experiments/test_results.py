# SPDX-License-Identifier: Apache-2.0
"""RESULTS.md says what the committed run files say, and nothing else."""

import dataclasses
import re
import shutil

import matplotlib
import pytest

from experiments import results
from experiments.errors import BadInput
from experiments.reproductions import REPRODUCTIONS, answers, claims, decisions, pages, pictures
from experiments.reproductions.sentences import unmeasured
from experiments.reproductions.sources import NOT_RECORDED, Source
from experiments.reproductions.tables import RESULTS, read, show, tables, value
from experiments.reproductions.views import Column, View

SWEEP = """# part

| setting | seeds | validation accuracy | test accuracy |
| --- | --- | --- | --- |
| loss.name=ours, rate=0.1 | 3 | 0.9 +- 0.01 | 0.8 +- 0.01 |
| loss.name=ours, rate=0.01 | 3 | 0.9 +- 0.01 | 0.7 +- 0.01 |
| loss.name=ours, rate=1 | 3 | 0.5 +- 0.01 | 0.99 +- 0.01 |
| loss.name=theirs, rate=0.1 | 3 | 0.8 +- 0.01 | 0.65 +- 0.03 |
"""
VIEW = View(
    "all", "All", (Column("test, %", "test accuracy"),), ("loss.name",), "validation accuracy",
    heading="part", baseline="theirs",
)  # fmt: skip
CLAIM = claims.Claim("focal", "better", claims.versus("all", "ours", "theirs", "test, %"))


@pytest.fixture(scope="module")
def found() -> dict[str, pages.Section]:
    return {one.name: one for one in pages.sections(REPRODUCTIONS, RESULTS)}


def a_section(verdict: str, sweep: str = SWEEP) -> pages.Section:
    said = Source("configs/x.py", "X", "", {"focal": verdict}, (), NOT_RECORDED, NOT_RECORDED)
    return pages.Section("x", said, sweep, {"all": show(VIEW, sweep)}, (CLAIM,))


def test_the_committed_page_is_up_to_date():
    for path, text in results.documents().items():
        assert path.read_text(encoding="utf-8") == text, path.name


@pytest.mark.skipif(
    matplotlib.__version__ != "3.11.2", reason="the bytes are those of the pinned matplotlib"
)
@pytest.mark.parametrize(
    "names",
    [["adversarial_digits", "char_lm"], pytest.param(results.DRAWN, marks=pytest.mark.slow)],
    ids=["two", "all"],
)
def test_the_committed_pictures_are_up_to_date(found, names):
    for name in names:
        svg = pictures.picture(REPRODUCTIONS[name], found[name])
        assert (results.FIGURES / f"{name}.svg").read_bytes() == svg, name


def test_there_are_no_other_pictures_and_they_are_small():
    paths = list(results.FIGURES.iterdir())
    assert {path.name for path in paths} == {f"{name}.svg" for name in results.DRAWN}
    assert all(path.stat().st_size < 60_000 for path in paths)


def test_what_a_view_chooses_is_what_the_sweep_chose(found):
    checked = 0
    for name, entry in REPRODUCTIONS.items():
        text = read(RESULTS / f"{name}.md")
        for view in entry.tables:
            if " chosen by " not in text or not isinstance(view, View) or view.where:
                continue
            # The second table is that of --choose, by the metric that its header names first.
            _, chosen, *_ = (t for t in tables(text) if t.heading == view.heading)
            same = chosen.header[2] == view.select.removeprefix("-")
            if not same or "optimizer.learning_rate" in view.by:
                continue
            column, place = view.columns[0], chosen.header.index(view.columns[0].source)
            there = [value(row[place]) for row in chosen.rows]
            there = {(v.in_per_cent() if column.share else v).text for v in there}
            shown = found[name].table(view.name)
            assert {shown.value(row, column.title).text for row in shown.rows} <= there, name
            checked += len(shown.rows)
    assert checked >= 40


def test_equal_means_on_validation_go_to_the_smaller_value():
    shown = show(VIEW, SWEEP)
    assert shown.rows["ours"] == ("rate 0.01", "3", "3")
    assert shown.value("ours", "test, %").text == "70.0 ± 1.0"
    assert shown.compared("ours", "theirs", "test, %") == "ahead"
    assert shown.compared("theirs", "ours", "test, %") == "behind"
    less = dataclasses.replace(VIEW, columns=(Column("test, %", "test accuracy", True),))
    assert show(less, SWEEP).compared("ours", "theirs", "test, %") == "behind"
    assert show(VIEW, SWEEP.replace("0.03", "0.05")).compared("ours", "theirs", "test, %") == (
        "not apart"
    )


def test_a_number_without_a_run_file_is_refused(tmp_path):
    folder = tmp_path / "results"
    shutil.copytree(RESULTS, folder, ignore=shutil.ignore_patterns("figures"))
    (folder / "label_noise.md").unlink()
    with pytest.raises(BadInput, match="label_noise.md: no such run file"):
        pages.sections(REPRODUCTIONS, folder)
    (folder / "label_noise.md").write_text("")
    with pytest.raises(BadInput, match="no sweep's table|is not in results"):
        pages.sections(REPRODUCTIONS, folder)
    (folder / "unheard_of.md").write_text("")
    with pytest.raises(BadInput, match="unheard_of.md: expected an entry"):
        pages.sections(REPRODUCTIONS, folder)
    with pytest.raises(BadInput, match="no run file has 'test, %' of 'others'"):
        show(VIEW, SWEEP).value("others", "test, %")


def test_a_number_in_a_verdict_must_be_in_its_run_file():
    text = read(RESULTS / "label_noise.md")
    assert unmeasured("at 30 %, where it has 96.18 and 0.9618", text) == []
    assert unmeasured("at 45 %, where it has 96.18 and 91.00", text) == ["45", "91.00"]
    entry = REPRODUCTIONS["label_noise"]
    wrong = dataclasses.replace(entry.claims[0], says="robust to 45 % of wrong labels")
    entry = dataclasses.replace(entry, claims=(wrong, *entry.claims[1:]))
    with pytest.raises(BadInput, match=r"'aldr_kl'.*45 is not in results/label_noise.md"):
        pages.section("label_noise", entry, RESULTS)
    with pytest.raises(BadInput, match="expected claims on .*aldr_kl"):
        pages.section("label_noise", dataclasses.replace(entry, claims=()), RESULTS)


def test_a_verdict_that_its_table_contradicts_is_refused():
    assert a_section("reproduced").status(CLAIM) == "reproduced"
    assert a_section("reproduced at large").status(CLAIM) == "in part"
    with pytest.raises(BadInput, match="'not reproduced', but it is ahead"):
        a_section("not reproduced").status(CLAIM)
    worse = SWEEP.replace("0.65 +- 0.03", "0.95 +- 0.03")
    with pytest.raises(BadInput, match="'reproduced', but its table says behind"):
        a_section("reproduced", worse).status(CLAIM)
    assert a_section("not reproduced", worse).status(CLAIM) == "contradicted"
    assert a_section("not trainable", worse).status(CLAIM) == "not reproduced"


def test_versions_are_the_run_files_where_it_has_them():
    entry = claims.Reproduction((VIEW,), (CLAIM,))
    assert "Versions and machine: not recorded" in pages.body(a_section("reproduced"), entry, "")
    made = "Made with: Python 3.11.7, jax 0.10.2; 1 x cpu (cpu); commit abc1234; 9 s for 4 members."
    text = pages.body(a_section("reproduced", f"{SWEEP}\n{made}\n"), entry, "")
    assert text.endswith(made)


def test_where_nothing_is_ahead_the_answer_says_so():
    one = decisions.Where("x", "all", ("test, %",), "theirs")
    question = decisions.Decision("Something", "theirs", (one,))
    assert answers.answer(question, {"x": a_section("reproduced")}) == ("`ours`", ["ours"])
    back = dataclasses.replace(question, where=(dataclasses.replace(one, baseline="ours"),))
    said, rows = answers.answer(back, {"x": a_section("reproduced")})
    assert said == "**nothing beat theirs here**" and rows == ["theirs"]
    assert answers.answer(dataclasses.replace(question, where=()), {})[0] == "not measured"


def test_the_readme_gets_the_decisions_where_it_has_a_place_for_them(monkeypatch, tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{results.BEGIN}\nold\n{results.END}\nafter\n")
    monkeypatch.setattr(results, "README", readme)
    text = results.documents()[readme]
    assert text.startswith("before\n") and text.endswith("\nafter\n") and "\nold\n" not in text
    assert "**nothing beat cross-entropy here**" in text
    there = results.PAGE.read_text(encoding="utf-8")
    for place in re.findall(r"\(RESULTS.md#([^)]+)\)", text):
        assert f'<a id="{place}"></a>' in there


def test_every_link_of_the_page_leads_somewhere():
    text = results.PAGE.read_text(encoding="utf-8")
    there = set(re.findall(r'<a id="([^"]+)"></a>', text))
    wanted = set(re.findall(r"\(#([^)]+)\)", text))
    assert wanted <= there and len(wanted) > 100
    for path in set(re.findall(r"\((experiments/[^)]+)\)", text)):
        assert (results.ROOT / path).is_file(), path
