# SPDX-License-Identifier: Apache-2.0
"""The README keeps its word: its Python runs, its commands exist, its optax table holds."""

import importlib.util
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import xloss

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
DOCUMENTS = {name: (ROOT / name).read_text() for name in ("README.md", "CONTRIBUTING.md")}


def between(begin: str, end: str) -> str:
    return README.split(begin, 1)[1].split(end, 1)[0]


def optax_rows() -> list[tuple[str, str]]:
    """Returns (optax call, xloss call) of each row of the table."""
    table = between("<!-- optax:begin -->", "<!-- optax:end -->")
    rows = re.findall(r"^\| `(.+?)` \| `(.+?)` \|", table, flags=re.MULTILINE)
    assert len(rows) == table.strip().count("\n") - 1
    return rows


def test_the_python_blocks_run_in_order(capsys):
    blocks = re.findall(r"^```python\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)
    assert blocks
    namespace: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), namespace)
    accuracy = re.search(r"accuracy (\d\.\d\d)", capsys.readouterr().out)
    assert accuracy is not None
    assert float(accuracy[1]) > 0.9


@pytest.mark.parametrize("document", DOCUMENTS)
def test_the_commands_exist(document):
    text = DOCUMENTS[document]
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    assert set(re.findall(r"(?:`|^)make ([a-z-]+)", text, flags=re.MULTILINE)) <= targets
    modules = set(re.findall(r"python -m ([\w.]+)", text)) - {"pip", "pytest"}
    assert [name for name in modules if importlib.util.find_spec(name) is None] == []
    files = re.findall(r"(?:xloss|experiments|launch|tests|constraints)/[\w./-]*\w", text)
    invented = {
        *("xloss/classification/my_loss.py", "constraints/pyX.Y.txt"),
        *("tests/invariants/test_SLUG.py", "tests/golden/SLUG.npz"),
    }
    assert [name for name in set(files) - invented if not (ROOT / name).exists()] == []


@pytest.mark.parametrize(("theirs", "ours"), optax_rows())
def test_each_row_of_the_optax_table_agrees(theirs, ours):
    keys = jax.random.split(jax.random.key(0), 5)
    labels = jax.random.randint(keys[1], [16], 0, 7)
    names = {
        "jnp": jnp,
        "optax": optax,
        **vars(xloss),
        "logits": 3 * jax.random.normal(keys[0], [16, 7]),
        "labels": labels,
        "onehot": jax.nn.one_hot(labels, 7),
        "probabilities": jax.nn.softmax(jax.random.normal(keys[2], [16, 7])),
        "scores": 3 * jax.random.normal(keys[3], [16]),
        "labels01": jax.random.randint(keys[4], [16], 0, 2),
        "where": jnp.arange(16) % 3 != 0,
    }
    value = eval(ours, names)
    with jax.numpy_dtype_promotion("standard"):  # optax multiplies integer labels by float scores
        expected = eval(theirs, names)
    np.testing.assert_allclose(value, expected, rtol=2e-6, atol=1e-6)


def test_what_else_the_optax_table_says():
    integer = optax.softmax_cross_entropy_with_integer_labels
    cross_entropy = xloss.classification.cross_entropy
    logits, label = jnp.array([[50.0, 0.0]]), jnp.array([0])

    narrow = logits.astype(jnp.bfloat16)
    assert integer(narrow, label).dtype == jnp.bfloat16
    assert cross_entropy(narrow, label).dtype == jnp.float32

    assert integer(logits, label)[0] == 0.0
    np.testing.assert_allclose(cross_entropy(logits, label)[0], np.exp(-50.0), rtol=1e-6)

    assert integer(logits, label - 1)[0] == integer(logits, label + 1)[0]
    assert jnp.isnan(cross_entropy(logits, label - 1)[0])

    column, labels01 = jnp.zeros([4, 1]), jnp.array([0, 1, 1, 0])
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        assert optax.sigmoid_binary_cross_entropy(column, labels01).shape == (4, 4)
    with pytest.raises(ValueError, match=r"\(4, 1\).*\(4,\)"):
        xloss.binary_statistics(column, labels01)

    nothing = jnp.array([False])
    assert jnp.isnan(jnp.mean(integer(logits, label), where=nothing))
    assert xloss.reduce(cross_entropy(logits, label), where=nothing) == 0.0
