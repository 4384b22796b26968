# SPDX-License-Identifier: Apache-2.0
"""The exceptions that mean "this is no bug in xloss": wrong input, or data or disk failed."""


class BadInput(Exception):
    """Something the user gave (a flag, a config key, a data file) cannot be used.

    The message is a single line that names the flag or file, what was expected and what was
    found. The command line prints it without a traceback and exits with code 2.
    """


class Failed(Exception):
    """Something that a run needs failed on the way: its data, or the disk under its checkpoints.

    The message is a single line. The command line prints it without a traceback, says which
    checkpoint is kept, and exits with code 4.
    """
