# SPDX-License-Identifier: Apache-2.0
"""LogitStatistics as a pytree: transformations, donation, fields that a provider does not know."""

import copy

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from xloss import LogitStatistics, as_statistics, binary_statistics, logit_statistics
from xloss.classification import comp_sum, cross_entropy
from xloss.statistics import FIELDS


def test_it_is_a_pytree_of_its_fields():
    stats = logit_statistics(jnp.ones((2, 3)), jnp.array([0, 1]))
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(stats)]
    assert paths == [f".{name}" for name in (*FIELDS, "temperature")]
    doubled = jax.tree.map(lambda x: 2 * x, stats)
    assert isinstance(doubled, LogitStatistics)
    assert (doubled.num_classes, doubled.provider) == (3, "logit_statistics")
    np.testing.assert_array_equal(doubled.log_odds, 2 * stats.log_odds)
    partial = LogitStatistics(log_odds=jnp.zeros(2), num_classes=3, provider="a_head")
    assert jax.tree.structure(partial) != jax.tree.structure(stats)
    assert jax.tree.map(jnp.negative, partial).known == ("log_odds",)
    assert copy.deepcopy(partial).known == ("log_odds",)


def test_it_passes_through_jit_vmap_scan_grad_checkpoint_and_linearize():
    logits = jnp.asarray(np.random.default_rng(3).normal(size=(4, 3)), jnp.float32)
    labels = jnp.array([0, 2, 1, 1])
    stats = jax.jit(logit_statistics)(logits, labels)
    expected = cross_entropy(logits, labels)
    chex.assert_trees_all_close(jax.jit(cross_entropy)(stats), expected, rtol=1e-6)

    mapped = jax.vmap(logit_statistics)(logits, labels)  # its temperature is [4] now
    chex.assert_trees_all_close(cross_entropy(mapped), expected, rtol=1e-6)
    axes = jax.tree.map(lambda x: 0 if jnp.ndim(x) else None, stats)
    chex.assert_trees_all_close(
        jax.vmap(cross_entropy, in_axes=(axes,))(stats), expected, rtol=1e-6
    )

    def step(carried, _):
        return logit_statistics(logits + carried.log_odds[:, None], labels), carried.lead

    last, leads = jax.lax.scan(step, stats, None, length=2)
    chex.assert_trees_all_close(last.log_odds, stats.log_odds, atol=1e-5)
    assert leads.shape == (2, 4)

    slopes = jax.grad(lambda s: jnp.sum(cross_entropy(s)))(stats)
    np.testing.assert_allclose(slopes.log_odds, -jax.nn.sigmoid(-stats.log_odds), rtol=1e-6)
    np.testing.assert_array_equal(slopes.target, 0.0)

    def objective(z):
        return jnp.sum(comp_sum(logit_statistics(z, labels), tau=0.5))

    @jax.jit
    def derivatives(z):
        _, linear = jax.linearize(objective, z)
        return jax.grad(objective)(z), jax.grad(jax.checkpoint(objective))(z), linear(z)

    gradient, again, along = derivatives(logits)
    chex.assert_trees_all_close(again, gradient, rtol=1e-6)
    chex.assert_trees_all_close(along, jnp.vdot(gradient, logits), rtol=1e-5)


@pytest.mark.parametrize("binary", [False, True])
def test_it_can_be_donated(binary):
    if binary:  # lead and log_odds are the same number: they must not be the same buffer
        stats = binary_statistics(jnp.array([0.5, -1.0]), jnp.array([1, 0]))
    else:
        stats = logit_statistics(jnp.ones((2, 3)), jnp.array([0, 1]))
    expected = np.asarray(stats.lead) + 1
    after = jax.jit(lambda s: jax.tree.map(lambda x: x + 1, s), donate_argnums=0)(stats)
    np.testing.assert_array_equal(after.lead, expected)
    assert stats.log_odds.is_deleted()


def test_absent_fields_name_the_provider():
    stats = LogitStatistics(
        log_odds=jnp.array([1.0, 2.0]), num_classes=7, provider="heads.some_head"
    )
    assert stats.known == ("log_odds",) and stats.shape == (2,)
    np.testing.assert_allclose(stats.log_prob, [-0.3132617, -0.126928], rtol=1e-6)
    for name in ("lead", "target", "log_partition", "rest", "runner_up", "mean"):
        with pytest.raises(ValueError, match="got statistics from heads.some_head"):
            getattr(stats, name)
    with pytest.raises(ValueError, match="expected the provider to know centred"):
        cross_entropy(stats, label_smoothing=0.1)
    assert repr(stats) == (
        "LogitStatistics(log_odds=float32[2], num_classes=7, provider=heads.some_head)"
    )
    masked = as_statistics(stats, where=jnp.array([True, False]))
    assert masked.known == ("log_odds",) and masked.num_classes == 7
    np.testing.assert_array_equal(masked.log_odds, [1.0, 0.0])
    assert as_statistics(stats) is stats
