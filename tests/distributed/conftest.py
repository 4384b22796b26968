# SPDX-License-Identifier: Apache-2.0
"""The training program, started as in the tests of the whole road."""

from tests.end_to_end.conftest import program  # noqa: F401
