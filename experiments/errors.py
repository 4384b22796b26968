# SPDX-License-Identifier: Apache-2.0
"""The one exception that means "the user's input is wrong", as opposed to a bug in xloss."""


class BadInput(Exception):
    """Something the user gave (a flag, a config key, a data file) cannot be used.

    The message is a single line that names the flag or file, what was expected and what was
    found. The command line prints it without a traceback and exits with code 2.
    """
