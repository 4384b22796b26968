# SPDX-License-Identifier: Apache-2.0
"""From the losses of T tasks to one objective, one method per file; one gradient is enough.

Aggregators (``xloss.optim.aggregators``) look at every task's gradient and cost T of them.
"""

from xloss.optim.weighting.imtl_l import imtl_l

__all__ = ["imtl_l"]
