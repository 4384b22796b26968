# SPDX-License-Identifier: Apache-2.0
"""Golden functions of the generalization measures (spec generalization_measures)."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from experiments.golden.case import Case
from xloss import diagnostics


def _network(params, x):
    """Two convolutions [height, width, in, out] and the mean over the map; x [B, n, m, c]."""

    def convolution(x, kernel, bias):
        dimensions = ("NHWC", "HWIO", "NHWC")
        y = jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=dimensions)
        return y + bias[None, None, None, :]

    kernel1, bias1, kernel2, bias2 = params
    hidden = jax.nn.relu(convolution(x, kernel1, bias1))
    return jnp.mean(convolution(hidden, kernel2, bias2), axis=(1, 2))


def _measures(case: Case):
    # The reference's kernels are [out, in, height, width], its images [B, c, n, m].
    arrays = {
        name: jnp.moveaxis(jnp.asarray(x), (2, 3), (0, 1)).swapaxes(2, 3) if "conv" in name else x
        for name, x in case.inputs.items()
        if name not in ("x", "y")
    }
    x = jnp.moveaxis(jnp.asarray(case.inputs["x"]), 1, -1)
    _, height, width, _ = x.shape
    params = [jnp.asarray(arrays[name]) for name in ("conv1", "bias1", "conv2", "bias2")]
    weights = [arrays["conv1"], arrays["conv2"]]
    start = [arrays["init_conv1"], arrays["init_conv2"]]

    margins = diagnostics.margins(_network(params, x), case.inputs["y"])
    tenth = diagnostics.margin_percentile(margins)
    norms = diagnostics.norm_measures(
        weights,
        start,
        margin=tenth,
        num_samples=x.shape[0],
        path_norm=diagnostics.path_norm(_network, params, x.shape[1:]),
        input_sizes=[(height, width)] * 2,
    )
    bounds = diagnostics.pac_bayes_measures(
        weights,
        start,
        sigma=case.params["sigma"],
        magnitude_sigma=case.params["mag_sigma"],
        magnitude_eps=case.params["mag_eps"],
        num_samples=x.shape[0],
    )
    found = {name.upper(): value for name, value in (norms | bounds).items()}
    del found["MARGIN_SIGN"]
    return found | {"margins": margins, "margin_10pct": tenth}


def _ranks(case: Case):
    measure, gap = case.inputs["measure"], case.inputs["gap"]
    return {
        "kendall_tau": diagnostics.kendall_tau(measure, gap),
        "mean_sign_error": diagnostics.sign_error(measure, gap),
    }


def _spectral(case: Case):
    w = jnp.asarray(case.inputs["W"])
    found = diagnostics.norm_measures([w], [w], margin=1.0, num_samples=1, adjust=False)
    return {
        "spectral_norm": diagnostics.spectral_norm(w),
        "frobenius": found["l2"],
        "stable_rank": found["fro_over_spec"],
    }


CALLS: dict[str, Callable[[Case], Mapping[str, Any]]] = {
    "generalization_measures": _measures,
    "rank_correlation_of_measure_and_gap": _ranks,
    "spectral_norm": _spectral,
}
