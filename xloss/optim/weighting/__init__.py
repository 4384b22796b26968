# SPDX-License-Identifier: Apache-2.0
"""From the losses of T tasks to one objective, one method per file; one gradient is enough.

``objective(losses, ...) -> scalar``, whose gradient in the model's parameters is the direction and
whose gradient in the losses is the weights [T]: ``gls``, ``log_losses``, ``rlw`` and ``stch`` need
nothing more, ``uncertainty`` and ``imtl_l`` have T parameters that are trained along, ``famo`` a
state. ``dwa`` gives weights for an epoch; ``gradnorm`` needs every task's gradient.

The weights scale the heads' gradients too, which aggregators (``xloss.optim.aggregators``) do not;
those look at every task's gradient and cost T of them. Mind the scale: weights sum to 1 (``rlw``,
``famo``), to T (``dwa``, ``gradnorm``) or to nothing in particular.
"""

from xloss.optim.weighting.dwa import dwa
from xloss.optim.weighting.famo import FamoState, famo, famo_init, famo_step
from xloss.optim.weighting.gls import gls
from xloss.optim.weighting.gradnorm import gradnorm
from xloss.optim.weighting.imtl_l import imtl_l
from xloss.optim.weighting.rlw import rlw
from xloss.optim.weighting.stch import log_losses, stch
from xloss.optim.weighting.uncertainty import uncertainty

__all__ = [
    "FamoState",
    "dwa",
    "famo",
    "famo_init",
    "famo_step",
    "gls",
    "gradnorm",
    "imtl_l",
    "log_losses",
    "rlw",
    "stch",
    "uncertainty",
]
