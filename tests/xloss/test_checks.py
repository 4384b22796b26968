# SPDX-License-Identifier: Apache-2.0
"""The checks at the door: what passes, in which form, and what is said about the rest."""

import fractions

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from xloss import checks


@pytest.mark.parametrize(
    "value", [2, 2.0, np.float16(2), np.float64(2), np.int8(2), np.array(2), fractions.Fraction(2)]
)
def test_numbers_come_out_in_one_spelling(value):
    number = checks.number("f", "x", value)
    assert type(number) is float and number == 2.0


def test_jax_scalars_pass_as_they_are():
    traced = []
    jax.jit(lambda x: traced.append(checks.number("f", "x", x)) or x)(1.0)
    assert isinstance(traced[0], jax.Array)
    assert checks.number("f", "x", jnp.float32(0.5)).dtype == jnp.float32
    assert checks.number("f", "x", jnp.asarray(3)).dtype == jnp.float32


@pytest.mark.parametrize("value", [True, np.bool_(False), "1", None, [1.0], np.ones(1), 1j])
def test_what_is_no_number(value):
    with pytest.raises(TypeError, match=r"f: expected x to be a number in \[0, 1\], got "):
        checks.number("f", "x", value, low=0.0, high=1.0)


@pytest.mark.parametrize("value", [jnp.ones(1), jnp.asarray(True), jnp.asarray(1j)])
def test_jax_arrays_that_are_no_real_scalar(value):
    with pytest.raises(ValueError, match="f: expected x to be a scalar number, got "):
        checks.number("f", "x", value)


@pytest.mark.parametrize(
    ("value", "interval", "shown"),
    [
        (-0.1, {"low": 0.0}, "[0, inf), got -0.1"),
        (0, {"low": 0.0, "open_low": True}, "(0, inf), got 0"),
        (1.5, {"low": 0.0, "high": 1.0}, "[0, 1], got 1.5"),
        (float("nan"), {}, "(-inf, inf), got nan"),
    ],
)
def test_ranges(value, interval, shown):
    with pytest.raises(ValueError) as error:
        checks.number("f", "x", value, **interval)
    assert str(error.value) == f"f: expected x in {shown}"


def test_ends_of_a_closed_range_are_legal():
    for end in (0.0, 1.0):
        assert checks.number("f", "x", end, low=0.0, high=1.0) == end


def test_floating():
    assert checks.floating("f", "z", [[1.0, 2.0]]).dtype == jnp.float32
    assert checks.floating("f", "z", np.ones(2, np.float64)).dtype == jnp.float32
    for value, shown in (
        (np.ones(2, np.int64), r"a float dtype, got int32\[2\]"),
        (jnp.ones(2, jnp.complex64), r"a float dtype, got complex64\[2\]"),
        (jnp.ones(2, jnp.bool_), r"a float dtype, got bool\[2\]"),
    ):
        with pytest.raises(TypeError, match=f"f: expected z of {shown}"):
            checks.floating("f", "z", value)
    for value, shown in ((None, "None"), ("text", "str"), (object(), "object")):
        with pytest.raises(TypeError, match=f"f: expected z to be an array, got {shown}"):
            checks.floating("f", "z", value)


def test_integer_widens_without_wrapping():
    for dtype in (np.int8, np.uint8, np.int16, np.uint16):
        info = np.iinfo(dtype)
        wide = checks.integer("f", "y", np.array([info.min, info.max], dtype))
        assert wide.dtype == jnp.int32
        np.testing.assert_array_equal(wide, [info.min, info.max])
    big = checks.integer("f", "y", np.array([2**32, 2**32 + 1, -(2**32), 5], np.int64))
    assert (big[:2] == 2**31 - 1).all() and big[2] < 0 and big[3] == 5
    assert checks.integer("f", "y", [0, 1]).dtype == jnp.int32
    assert checks.integer("f", "y", jnp.ones(2, jnp.bool_), allow_bool=True).dtype == jnp.int32
    for value in (jnp.ones(2, jnp.bool_), jnp.ones(2), [0.0]):
        with pytest.raises(TypeError, match="f: expected y of an integer dtype, got "):
            checks.integer("f", "y", value)


def test_mask_is_bool_and_never_broadcast():
    assert checks.mask("f", None, (2,)) is None
    assert checks.mask("f", [True, False], (2,)).dtype == jnp.bool_
    assert checks.mask("f", True, ()).shape == ()
    with pytest.raises(TypeError, match=r"f: expected where of dtype bool, got int32\[2\]"):
        checks.mask("f", jnp.ones(2, jnp.int32), (2,))
    with pytest.raises(ValueError, match=r"f: expected where of shape \(2, 3\), got \(3,\)"):
        checks.mask("f", jnp.ones(3, jnp.bool_), (2, 3))


def test_choice_lists_the_options():
    assert checks.choice("f", "how", "a", ("a", "b")) == "a"
    with pytest.raises(ValueError) as error:
        checks.choice("f", "how", "c", ("a", "b"))
    assert str(error.value) == "f: expected how to be one of ('a', 'b'), got 'c'"


def test_describe():
    assert checks.describe(jnp.ones((4, 3))) == "float32[4, 3]"
    assert checks.describe("x") == "'x'"
