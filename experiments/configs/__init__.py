# SPDX-License-Identifier: Apache-2.0
"""Shipped configs: `--config=digits` is experiments/configs/digits.py.

A config file has `get_config(variant)` and a docstring that says what the run should reach, on
what, in how long, and the exact command. Configs are Python: they are code that you run.
"""
