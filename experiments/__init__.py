# SPDX-License-Identifier: Apache-2.0
"""The training program around xloss: `python -m experiments.run`, its data, models and reports."""
