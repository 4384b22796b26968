# SPDX-License-Identifier: Apache-2.0
"""How the contract battery calls each loss of the catalogue: one line a loss.

A registered loss is tested by being registered; what stands here are only the hyperparameter
values to vary. A loss without a line is tested at its defaults.
"""

import jax
import jax.numpy as jnp
import numpy as np

from xloss import catalogue, surrogates

#: Hyperparameter values for "one trace for many values" and for the derivative in them.
VALUES: dict[str, dict[str, tuple[float, ...]]] = {
    "cross_entropy": {"label_smoothing": (0.05, 0.3, 1.0)},
    "comp_sum": {"tau": (0.0, 0.5, 1.0, 1.5, 2.0, 3.0)},
    "generalized_cross_entropy": {"q": (0.0, 0.3, 0.7, 1.0)},
    "focal": {"gamma": (0.0, 0.5, 2.0)},
    "poly_loss": {"epsilon": (-1.0, 0.0, 2.0)},
    "log_partition_penalty": {"coef": (0.0, 0.01, 1.0)},
    "ensloss": {"lam": (0.0, -0.7, 0.5), "tail_power": (1.0, 2.0)},
    "z_loss": {"a": (0.1, 1.0, 5.0), "b": (0.0, 1.5, 30.0), "eps": (1e-12, 0.5, 1.0)},
    "spherical_softmax": {"eps": (1e-6, 0.01, 1.0)},
    "harmonic": {"exponent": (0.0, 1.0, 4.0), "label_smoothing": (0.05, 0.3, 1.0)},
    "smooth_adversarial_comp_sum": {
        "tau": (0.0, 0.5, 1.0, 2.0),
        "rho": (0.5, 1.0, 2.0),
        "nu": (0.0, 0.3, 1.0),
    },
    "adversarial_rho_margin": {"tau": (0.0, 0.5, 1.0, 2.0), "rho": (0.5, 1.3, 2.0)},
    "decoupled_softmax": {"temperature": (0.05, 1.0, 3.0)},
    "soft_top_k_loss": {"alpha": (0.5, 2.0, 20.0)},
    "symmetric_cross_entropy": {"balance": (0.05, 0.5, 0.95), "scale": (1.0, 4.0)},
    "reverse_cross_entropy": {"label_clip": (1e-3, 0.1, 0.5)},
    "truncated_generalized_cross_entropy": {"q": (0.0, 0.3, 1.0), "threshold": (0.1, 0.5, 0.9)},
    "jensen_shannon": {"weight": (0.1, 0.5, 0.9)},
    "active_passive": {"alpha": (0.1, 5.0), "beta": (0.0, 9.9)},
    "asymmetric_unhinged": {"a": (1.2, 3.0, 6.0), "q": (0.5, 0.9, 1.5)},
    "asymmetric_generalized_cross_entropy": {"a": (0.5, 1.0, 3.0), "q": (0.5, 1.5, 2.0)},
    "crammer_singer": {"margin": (0.0, 1.0, 10.0)},
    "weston_watkins": {"margin": (0.1, 1.0, 10.0)},
    "robust_log_loss": {"alpha": (0.1, 1.0, 10.0)},
    "ldr_kl": {"lam": (0.1, 1.0, 10.0), "margin": (0.0, 0.1, 2.0)},
    "aldr_kl": {"lam0": (0.5, 1.0, 10.0), "alpha": (1.5, 2.0, 50.0), "margin": (0.0, 0.1, 2.0)},
    "trades": {"beta": (0.0, 1.0, 6.0)},
    "mart": {"beta": (0.0, 1.0, 6.0)},
}

#: A number below the range of a hyperparameter in VALUES, where -1 is not one; None: any will do.
TOO_LOW: dict[tuple[str, str], float | None] = {
    ("ensloss", "lam"): None,
    ("z_loss", "b"): None,
    ("poly_loss", "epsilon"): -1.5,
}

#: More calls of the same loss that take another path: (loss, hyperparameters).
VARIANTS: list[tuple[str, dict]] = [
    ("cross_entropy", {"label_smoothing": 0.1}),
    ("comp_sum", {"tau": 0.5}),
    ("comp_sum", {"tau": 2.0}),
    ("focal", {"gamma": 0.0}),
    ("poly_loss", {"epsilon": -1.0}),
    ("z_loss", {"a": 0.5, "b": 10.0}),
    ("spherical_softmax", {"eps": 1e-6}),
    ("decoupled_softmax", {"reduce_positives": "sum"}),
    ("soft_top_k_loss", {"k": 1, "alpha": 20.0}),
    ("jensen_shannon", {"weight": 1e-3}),
    ("active_passive", {"passive": "asymmetric_unhinged"}),
    ("asymmetric_unhinged", {"a": 1.0, "q": 1.0}),
    ("ldr_kl", {"lam": 1e-3}),
    ("ldr_kl", {"normalize": "l1_mean"}),
    ("harmonic", {"exponent": 28.0}),
    ("harmonic", {"label_smoothing": 0.1}),
    ("margin_loss", {"surrogate": surrogates.exponential}),
    ("smooth_adversarial_comp_sum", {"tau": 0.4, "rho": 2.0, "nu": 0.3}),
    ("margin_loss", {"surrogate": surrogates.bind(surrogates.savage)}),
]

#: What a loss needs to take the small problems here: fewer chosen labels than there are.
NEEDED: dict[str, dict] = {"soft_top_k_loss": {"k": 1}}

ALL = [(name, {}) for name in catalogue.LOSSES] + VARIANTS


def label(case) -> str:
    name, hyper = case
    shown = [getattr(v, "__name__", None) or f"{k}={v}" for k, v in hyper.items()]
    return "-".join([name, *(s if len(s) < 30 else "bound" for s in shown)])


def call(name, logits, labels, where=None, *, seed=0, given=False, **hyper):
    """Calls a loss on logits and integer labels, whatever else it needs.

    ``given`` says that the logits are what the loss takes, made by ``inputs_of`` already.
    """
    entry = catalogue.entry(name)
    hyper = NEEDED.get(name, {}) | hyper
    if "key" in entry.needs:
        hyper["key"] = jax.random.key(seed)
    if not given:
        logits = inputs_of(name, logits)
    if "probabilities" in entry.needs:
        labels = jax.nn.one_hot(labels, logits.shape[-1], dtype=jnp.float32)
    if "multi_hot" in entry.needs:
        labels = jax.nn.one_hot(labels, logits.shape[-1], dtype=jnp.int32)
    return entry.function(*logits_for(entry, logits), labels, where=where, **hyper)


def logits_for(entry, logits):
    """The arrays of logits that a loss takes. Halving stands in for an attack: it keeps ties and
    masked classes, is exact in every dtype, and lets the gradient through."""
    if "candidate_logits" in entry.needs:
        return (jnp.stack([logits, _halved(logits)]),)
    if {"logits", "adversarial_logits"} <= set(entry.needs):
        return logits, _halved(logits)
    return (logits,)


def _halved(logits):
    return 0.5 * logits if jnp.issubdtype(logits.dtype, jnp.floating) else logits


def inputs_of(name, logits):
    """Logits, or the distances d of which they are the harmonic logits at exponent 1: -log d.

    Logits beyond +-80 are brought back: their distances are no float32. -inf stays a class that
    is left out, and NaN stays.
    """
    floating = jnp.issubdtype(logits.dtype, jnp.floating)
    if "distances" not in catalogue.entry(name).needs or not floating:
        return logits
    finite = jnp.isfinite(logits)
    d = jnp.exp(-jnp.clip(jnp.where(finite, logits, 0.0), -80.0, 80.0))
    special = jnp.where(jnp.isneginf(logits), jnp.inf, jnp.where(logits > 0, 0.0, logits))
    return jnp.where(finite, d, special)


def call_statistics(name, stats, where=None, **hyper):
    """Calls a loss on a LogitStatistics alone."""
    entry = catalogue.entry(name)
    if "key" in entry.needs:
        hyper["key"] = jax.random.key(0)
    return entry.function(stats, where=where, **hyper)


#: As many as the extreme logits have, so that one compiled program serves several tests.
EXAMPLES = 21


def batch(shape=(EXAMPLES, 5), seed=0, scale=2.0, dtype=np.float32):
    """Random logits and labels."""
    rng = np.random.default_rng(seed)
    logits = (scale * rng.normal(size=shape)).astype(dtype)
    return jnp.asarray(logits), jnp.asarray(rng.integers(0, shape[-1], shape[:-1]), jnp.int32)
