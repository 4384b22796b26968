# SPDX-License-Identifier: Apache-2.0
"""From the gradients of T tasks to one direction, one method per file.

``aggregator(grads, *, <hyperparameters>, key=None) -> (direction, weights)``: ``grads`` is a tree
whose leaves have a leading task axis [T, ...], ``direction`` the same tree without that axis, what
stands in for the gradient of the shared parameters, and ``weights`` [T] the coefficients with
direction = sum over t of weights_t g_t. All of them take ``key``, so that one may stand for
another; ``functools.partial(cagrad, c=0.2)`` sets a hyperparameter. What has another form stands
beside them: ``graddrop_representation``, and ``db_mtl_average``, which remembers gradients.
``conflict`` says whether there is one.

Try ``linear`` first: independent studies find tuned fixed weights hard to beat. Mind the scale:
``linear``, ``pcgrad``, ``graddrop`` and ``db_mtl`` sum over the tasks, ``mgda``, ``cagrad``,
``imtl_g`` and ``upgrad`` are of the size of one gradient, ``aligned_mtl`` of the least one,
``nash_mtl`` and ``fairgrad`` of none, so a fair comparison needs a learning rate for each.
"""

from xloss.optim.aggregators.aligned_mtl import aligned_mtl
from xloss.optim.aggregators.cagrad import cagrad
from xloss.optim.aggregators.conflict import Conflict, conflict
from xloss.optim.aggregators.db_mtl import DbMtlState, db_mtl, db_mtl_average, db_mtl_init
from xloss.optim.aggregators.graddrop import graddrop, graddrop_representation
from xloss.optim.aggregators.imtl import imtl_g
from xloss.optim.aggregators.linear import linear
from xloss.optim.aggregators.mgda import mgda
from xloss.optim.aggregators.nash_mtl import fairgrad, nash_mtl
from xloss.optim.aggregators.pcgrad import pcgrad
from xloss.optim.aggregators.upgrad import upgrad

#: Those of the form above, by name.
AGGREGATORS = {
    function.__name__: function
    for function in (
        linear,
        mgda,
        pcgrad,
        cagrad,
        graddrop,
        imtl_g,
        nash_mtl,
        aligned_mtl,
        fairgrad,
        db_mtl,
        upgrad,
    )
}

__all__ = [
    "AGGREGATORS",
    "Conflict",
    "DbMtlState",
    "aligned_mtl",
    "cagrad",
    "conflict",
    "db_mtl",
    "db_mtl_average",
    "db_mtl_init",
    "fairgrad",
    "graddrop",
    "graddrop_representation",
    "imtl_g",
    "linear",
    "mgda",
    "nash_mtl",
    "pcgrad",
    "upgrad",
]
