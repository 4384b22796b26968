# SPDX-License-Identifier: Apache-2.0
"""What can be trained: `config.task.name` is the name of a file here (see `experiments.job`).

A task file has `build(config, mesh) -> Job` and a docstring that lists its keys of `config.task`.
"""
