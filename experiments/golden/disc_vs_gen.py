# SPDX-License-Identifier: Apache-2.0
"""Golden functions of naive Bayes against logistic regression (spec disc_vs_gen)."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.data import gaussian_mixtures
from experiments.golden.case import Case
from xloss import consistency
from xloss.heads import (
    gaussian_nb_init,
    gaussian_nb_logits,
    gaussian_nb_update,
    logistic_regression,
)


def _state(case: Case, *chunks: slice):
    x, labels = case.inputs["X"], case.inputs["labels"]
    state = gaussian_nb_init(case.params["K"], x.shape[1], jnp.float64)
    for chunk in chunks or (slice(None),):
        state = gaussian_nb_update(state, x[chunk], labels[chunk])
    counts = np.asarray(state.counts, np.float64)
    return state, {
        "means": state.means,
        # The authors add eps to each class's variance.
        "class_vars": state.m2 / counts[:, None] + case.params["var_smoothing"],
        "prior": counts / counts.sum(),
    }


def _fit(case: Case):
    state, found = _state(case)
    eps = case.params["var_smoothing"]
    logits = gaussian_nb_logits(state, case.inputs["X_test"], var_smoothing=eps)
    shared = found["prior"] @ found["class_vars"]
    return found | {
        "shared_var": shared,
        "logits": logits,
        "class_log_likelihood": logits
        - np.log(found["prior"])[None, :]
        - 0.5 * np.sum(np.log(2.0 * np.pi * shared)),
        "pred": jnp.argmax(logits, axis=-1),
    }


def _two_chunks(case: Case):
    split = case.params["split"]
    state, found = _state(case, slice(split), slice(split, None))
    return found | {"counts": state.counts}


def _logistic_regression(case: Case):
    x, labels = case.inputs["X"], case.inputs["labels"]
    fit = logistic_regression(
        x, labels, num_classes=int(labels.max()) + 1, inverse_penalty=case.params["C"], tol=1e-9
    )
    logits = jnp.asarray(case.inputs["X_test"]) @ fit.kernel + fit.bias[None, :]
    return {
        "objective": fit.objective,
        "W": fit.kernel.T,
        "b_centred": fit.bias,
        "prob_test": jax.nn.softmax(logits),
    }


def _bayes_error(case: Case):
    return {"bayes_error": [gaussian_mixtures.bayes_error(int(n)) for n in case.inputs["n"]]}


def _sample_complexity(case: Case):
    m, a, b = (case.inputs[name] for name in ("m", "errors_a", "errors_b"))
    return {
        "m_reach_a": consistency.samples_to_reach(
            m, a, asymptotic=case.inputs["asymptotic"], tol=case.params["tol"]
        ),
        "crossing": consistency.regime_crossing(m, a, b),
    }


def _class_means(case: Case):
    return {"mean_value": gaussian_mixtures.class_means(int(case.inputs["K"]))}


def _logistic_bound(case: Case):
    # Gamma of the log loss is at most sqrt(2 t); the exact one is below it.
    bound = consistency.comp_sum_gamma(case.inputs["excess"], tau=1.0, num_classes=2, upper=True)
    return {"sqrt_bound": bound}


CALLS: dict[str, Callable[[Case], Mapping[str, Any]]] = {
    "gaussian_nb_fit / gaussian_nb_logits": _fit,
    "gaussian_nb_update (two chunks)": _two_chunks,
    "multinomial_logistic_regression: min 0.5*||W||^2 + C*sum_i CE_i, intercept free": (
        _logistic_regression
    ),
    "gaussian mixture Bayes error, K=2, means -1/+1, var n on the first n//2 features and 1 on "
    "the rest, equal priors": _bayes_error,
    "samples_to_reach: first m whose mean error < asymptotic + 0.01 (-1 if never); crossing: first "
    "m from which curve A stays below curve B": _sample_complexity,
    "simulation class means per feature": _class_means,
    "zero-one excess bound sqrt(2*eps) from multiclass log-loss excess eps (and the exact inverse "
    "transform)": _logistic_bound,
}
