# SPDX-License-Identifier: Apache-2.0
"""The command lines that say what a loss is worth: consistency and excess."""

import json

import numpy as np
import pytest

from experiments import consistency as program
from experiments import excess
from experiments.errors import BadInput
from xloss import surrogates
from xloss.consistency import AllFunctions, Linear, OneHiddenLayer, report


def test_names_hyperparameters_and_functions_of_users_are_found(tmp_path):
    loss, classes = program.resolve("rho_margin", {"rho": 0.5}, None)
    assert float(loss(0.25)) == 0.5 and classes is None
    loss, classes = program.resolve("comp_sum", {"tau": 0.5}, 3)
    assert loss.keywords == {"tau": 0.5} and classes == 3
    assert program.resolve("xloss.surrogates:hinge", {}, None) == (surrogates.hinge, None)
    mine = tmp_path / "mine.py"
    mine.write_text("def phi(u, k=1.0):\n    return (1 - k * u) ** 2\n")
    loss, _ = program.resolve(f"{mine}:phi", {"k": 2.0}, None)
    assert loss(1.0) == 1.0
    assert program.read_hypotheses("all") == AllFunctions()
    assert program.read_hypotheses("linear:2,0.5") == Linear(2.0, 0.5)
    assert program.read_hypotheses("one_hidden_layer:1,2,3") == OneHiddenLayer(1.0, 2.0, 3.0)


@pytest.mark.parametrize(
    ("name", "hyper", "classes", "message"),
    [
        ("logisitc", {}, None, "did you mean 'logistic'"),
        ("comp_sum", {"tou": 1.0}, None, "--loss.tou: .*did you mean 'tau'"),
        ("comp_sum", {"tou": 1.0}, 3, "--loss.tou: comp_sum has .*did you mean 'tau'"),
        ("crammer_singer", {}, None, "--num_classes: expected a number"),
        ("hinge", {}, 3, "--num_classes: expected none with the margin loss hinge"),
        ("trades", {}, 3, "expected a loss of scores and labels"),
        ("ensloss", {}, 3, "expected a loss of scores and labels"),
        ("nowhere.py:phi", {}, None, "no such file"),
        ("xloss.surrogates:hing", {}, None, "did you mean 'hinge'"),
        ("no.such.module:f", {}, None, "ModuleNotFoundError"),
    ],
)
def test_a_loss_that_is_not_there_is_one_line(name, hyper, classes, message):
    with pytest.raises(BadInput, match=message):
        program.resolve(name, hyper, classes)


@pytest.mark.parametrize(
    ("text", "message"),
    [("lin:1", "did you mean 'linear'"), ("linear:1", "2 numbers"), ("linear:a,b", "could not")],
)
def test_a_wrong_hypothesis_set_is_one_line(text, message):
    with pytest.raises(BadInput, match=f"--hypotheses: .*{message}"):
        program.read_hypotheses(text)


def test_the_program_prints_the_page_and_draws(tmp_path, run_python):
    picture = tmp_path / "phi.png"
    run = ("-m", "experiments.consistency", "--loss=rho_margin")
    done = run_python(*run, "--loss.rho=0.5", "--hypotheses=linear:2,0.5", f"--plot={picture}")
    found = report(surrogates.bind(surrogates.rho_margin, rho=0.5), hypotheses=Linear(2.0, 0.5))
    assert done.stdout == str(found) + "\n"
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_json_has_what_the_page_has():
    found = report(lambda u: 1.0 - u, hypotheses=Linear(2.0, 0.5), alternatives=["hinge"])
    read = json.loads(program.as_json(found), parse_constant=pytest.fail)
    assert read["legitimate"] is False and read["verdict"] == found.verdict
    assert read["hypotheses"] == "Linear(weight=2.0, bias=0.5, norm=2.0)"
    assert read["gammas"] == {"phi": [None, None], "hinge": [0.02, 0.01]}
    assert read["values"] == [3.0, 2.0, 1.0, 0.0, -1.0] and read["growth"]["exponent"] == 1.0
    assert json.loads(program.as_json(report("hinge")))["bound"] == "inf"


def test_the_bound_holds_on_digits_and_the_gap_is_needed():
    pictures = np.random.default_rng(0).normal(size=(120, 3))
    eta = np.where(pictures[:, 0] * pictures[:, 1] > -0.2, 0.9, 0.1)  # not linear
    for name in ("logistic", "hinge"):
        found = excess.measure(name, pictures, eta, Linear(2.0, 1.0), 300, 3)
        assert 0 < found["measured"][0] <= found["bound"][0] < 1
        assert found["gap"][0] > 0.1 > found["excess"][0]
