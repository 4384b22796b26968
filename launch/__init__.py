# SPDX-License-Identifier: Apache-2.0
"""Starting a run on several processes: `local.py` on one machine, `tpu_pod.sh` on a TPU pod."""
