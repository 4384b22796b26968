# SPDX-License-Identifier: Apache-2.0
"""What the streaming head costs, read off the compiled program; nothing is run."""

import functools

import jax
import jax.numpy as jnp
import pytest

import xloss
from xloss.classification import cross_entropy
from xloss.heads import linear_mean_loss, linear_statistics

MB = 1e6


@functools.cache
def program(door, tokens, width, classes, **options):
    def objective(h, w, labels):
        if door == "plain":
            return xloss.reduce(-jax.nn.log_softmax(h @ w)[jnp.arange(tokens), labels])
        if door == "fast":
            return linear_mean_loss(h, w, labels, loss=cross_entropy, **options)
        stats = linear_statistics(h, w, labels, **options)
        return xloss.reduce(stats.log_odds if door == "log_odds" else cross_entropy(stats))

    shapes = (
        jax.ShapeDtypeStruct((tokens, width), jnp.float32),
        jax.ShapeDtypeStruct((width, classes), jnp.float32),
        jax.ShapeDtypeStruct((tokens,), jnp.int32),
    )
    return jax.jit(jax.value_and_grad(objective, argnums=(0, 1))).lower(*shapes).compile()


def temporaries(*arguments, **options):
    return program(*arguments, **options).memory_analysis().temp_size_in_bytes


def test_gemma_sized_head_needs_160_megabytes_whatever_the_vocabulary():
    large = temporaries("lean", 8192, 2304, 256_000)
    assert large <= 160 * MB
    assert large <= 1.01 * temporaries("lean", 8192, 2304, 32_000)


def test_both_doors_need_a_fraction_of_plain_logits():
    size = (2048, 512, 32_000)
    logits = 2 * 4 * size[0] * size[2]  # logits and their cotangent: 524 MB
    assert temporaries("lean", *size) <= logits / 30
    assert temporaries("fast", *size) <= 0.26 * logits


@pytest.mark.parametrize("door", ["lean", "fast"])
@pytest.mark.parametrize("megabytes", [6, 40])
def test_a_byte_budget_is_kept(door, megabytes):
    size = (1024, 64, 20_000)
    assert temporaries(door, *size, max_temp_bytes=megabytes * 10**6) <= megabytes * MB


def test_a_loss_costs_what_its_fields_cost():
    alone, loss = (program(door, 512, 128, 8000) for door in ("log_odds", "lean"))
    for text in (alone.as_text(), loss.as_text()):
        assert text.count(" dot(") == 4
    assert loss.memory_analysis().temp_size_in_bytes <= (
        1.01 * alone.memory_analysis().temp_size_in_bytes
    )


def test_the_fast_door_takes_three_products():
    assert program("fast", 2048, 512, 32_000).as_text().count(" dot(") == 3


def test_a_hessian_vector_product_needs_a_tenth_of_the_plain_one():
    def temp(door):
        def objective(h, w):
            labels = jnp.zeros(2048, jnp.int32)
            stats = (
                linear_statistics(h, w, labels)
                if door == "lean"
                else xloss.logit_statistics(h @ w, labels)
            )
            return xloss.reduce(cross_entropy(stats))

        def product(h, w, dh, dw):
            return jax.jvp(jax.grad(objective, argnums=(0, 1)), (h, w), (dh, dw))[1]

        h = jax.ShapeDtypeStruct((2048, 256), jnp.float32)
        w = jax.ShapeDtypeStruct((256, 32_000), jnp.float32)
        compiled = jax.jit(product).lower(h, w, h, w).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert temp("lean") <= 0.1 * temp("plain")
