# SPDX-License-Identifier: Apache-2.0
"""Starting a run on several processes.

`local.py` on one machine, `slurm.sbatch` under Slurm, `gke_jobset.yaml` on GKE, `tpu_pod.sh` on a
Cloud TPU pod.
"""
