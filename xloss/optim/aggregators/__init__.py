# SPDX-License-Identifier: Apache-2.0
"""From the gradients of T tasks to one direction, one method per file.

``aggregator(grads, *, <hyperparameters>, key=None) -> (direction, weights)``: ``grads`` is a tree
whose leaves have a leading task axis [T, ...], ``direction`` the same tree without that axis, what
stands in for the gradient of the shared parameters, and ``weights`` [T] the coefficients with
direction = sum over t of weights_t g_t. All of them take ``key``, so that one may stand for
another; ``functools.partial(cagrad, c=0.2)`` sets a hyperparameter.

Try ``linear`` first: independent studies find tuned fixed weights hard to beat. Mind the scale:
``linear`` and ``pcgrad`` sum over the tasks, ``mgda`` and ``cagrad`` are of the size of one
gradient, so a fair comparison needs a learning rate for each.
"""

from xloss.optim.aggregators.cagrad import cagrad
from xloss.optim.aggregators.linear import linear
from xloss.optim.aggregators.mgda import mgda
from xloss.optim.aggregators.pcgrad import pcgrad

__all__ = [
    "cagrad",
    "linear",
    "mgda",
    "pcgrad",
]
