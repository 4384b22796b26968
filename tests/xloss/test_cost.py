# SPDX-License-Identifier: Apache-2.0
"""What the losses cost on [512, 32000] logits, read off the compiled program; nothing is run.

Value and gradient of the mean, for one CPU device: temporaries beside arguments and results, and
how often the exponential of all logits is taken.
"""

import re

import jax
import jax.numpy as jnp
import pytest

import xloss
from experiments.benchmarks.losses import of_catalogue, temporary_share
from xloss import surrogates
from xloss.catalogue import LOSSES
from xloss.classification import (
    comp_sum,
    cross_entropy,
    focal,
    generalized_cross_entropy,
    log_partition_penalty,
    margin_loss,
    poly_loss,
)

BATCH, CLASSES = 512, 32_000
LOGITS = jax.ShapeDtypeStruct((BATCH, CLASSES), jnp.float32)
LABELS = jax.ShapeDtypeStruct((BATCH,), jnp.int32)
WHERE = jax.ShapeDtypeStruct((BATCH,), jnp.bool_)
SCALAR = jax.ShapeDtypeStruct((), jnp.float32)
LOGIT_BYTES = 4 * BATCH * CLASSES


def traced_comp_sum(logits, labels, tau):
    return comp_sum(logits, labels, tau=tau)


def with_penalty(logits, labels):
    stats = xloss.logit_statistics(logits, labels)
    return cross_entropy(stats) + log_partition_penalty(stats)


def several(logits, labels):
    stats = xloss.logit_statistics(logits, labels, temperature=2.0)
    return cross_entropy(stats) + comp_sum(stats, tau=0.5) + focal(stats)


def masked(logits, labels, where):
    return comp_sum(logits, labels, tau=0.5, where=where)


def bound(logits, labels):
    return margin_loss(logits, labels, surrogates.bind(surrogates.savage))


OBJECTIVES = {
    "comp_sum of a traced tau": (traced_comp_sum, SCALAR),
    "comp_sum tau=0": (lambda z, y: comp_sum(z, y, tau=0.0),),
    "comp_sum tau=1": (lambda z, y: comp_sum(z, y, tau=1.0),),
    "comp_sum with a mask": (masked, WHERE),
    "cross_entropy": (cross_entropy,),
    "generalized_cross_entropy": (generalized_cross_entropy,),
    "focal": (focal,),
    "poly_loss": (poly_loss,),
    "margin_loss": (bound,),
    "log_partition_penalty without labels": (lambda z, _: log_partition_penalty(z),),
    "cross_entropy and penalty": (with_penalty,),
    "three losses on one statistics": (several,),
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_no_temporary_of_the_logits_and_one_exponential(name):
    loss, *extra = OBJECTIVES[name]

    def objective(logits, *rest):
        return xloss.reduce(loss(logits, *rest))

    program = jax.jit(jax.value_and_grad(objective)).lower(LOGITS, LABELS, *extra).compile()
    memory = program.memory_analysis()
    assert memory.output_size_in_bytes >= LOGIT_BYTES  # the gradient is there
    assert memory.temp_size_in_bytes <= 0.01 * LOGIT_BYTES
    over_all = rf"= f32\[{BATCH},{CLASSES}\]\S* (exponential|exponential-minus-one)\("
    assert re.findall(over_all, program.as_text()) == ["exponential"]


@pytest.mark.parametrize("name", LOSSES)
def test_temporaries_are_what_the_catalogue_says(name):
    entry, size = LOSSES[name], (BATCH, 4096)
    if entry.temporaries > 0.04 and jax.__version__ != "0.10.2":
        pytest.skip("what XLA keeps of several passes over the logits changes with its version")
    share = temporary_share(of_catalogue(entry, size), size)
    assert share <= entry.temporaries
    if entry.temporaries > 0.01:  # and not less: a loss that became leaner says so
        assert share >= 0.7 * entry.temporaries


def test_a_second_copy_would_be_noticed():
    def keeps_softmax(logits, labels):
        p = jax.lax.optimization_barrier(jax.nn.softmax(logits))
        return -jnp.sum(jnp.log(p) * jax.nn.one_hot(labels, CLASSES))

    program = jax.jit(keeps_softmax).lower(LOGITS, LABELS).compile()
    assert program.memory_analysis().temp_size_in_bytes > 0.5 * LOGIT_BYTES
