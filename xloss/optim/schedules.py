# SPDX-License-Identifier: Apache-2.0
"""Warmup-stable-decay learning rates: a constant rate with short decays, once or at several steps.

"Understanding Warmup-Stable-Decay Learning Rates: A River Valley Loss Landscape Perspective". Reach
for :func:`wsd` where the length of the run is known, and for :func:`wsd_s` where one run should
leave good checkpoints at several lengths; unlike a cosine, the stable part commits to none.
"""

import itertools
import numbers
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike

from xloss import checks, numerics
from xloss.typing import Array

DECAYS = ("inverse", "linear", "cosine", "sqrt")
FIRST_STEPS = ("closed", "levanter")


class _Segment(NamedTuple):
    """Steps [start, end): a warm-up, then the peak, then a decay; lengths in steps."""

    start: int
    end: int
    warmup: int
    decay: int


def wsd(
    peak: ArrayLike,
    *,
    total_steps: int,
    warmup_steps: int,
    decay_steps: int,
    min_ratio: ArrayLike = 0.1,
    decay: str = "inverse",
    first_step: str = "closed",
) -> optax.Schedule:
    """Learning rate of one run: linear warm-up, constant peak, one decay at the end.

    Definition, for the count t of updates already made, T = total_steps, W = warmup_steps,
    D = decay_steps, q = (t - (T - D)) / D in the decay, r = min_ratio::

        t < W        peak t / W
        t < T - D    peak
        t < T        peak r / (r (1 - q) + q)          "inverse": 1 / rate is affine in t
                     peak ((1 - q) + r q)              "linear"
                     peak (cos^2 + r sin^2)(pi q / 2)  "cosine"
                     peak ((1 - sqrt q) + r sqrt q)    "sqrt"
        t >= T       peak r

    Args:
      peak: learning rate of the stable part, scalar >= 0, traced.
      total_steps: T, int >= 1. All lengths are numbers of steps; nothing is a fraction.
      warmup_steps: W, int >= 0; 0 starts at the peak.
      decay_steps: D, int >= 1; the paper takes a tenth of T.
      min_ratio: r in [0, 1], traced; "inverse" needs r > 0.
      decay: the shape, one of DECAYS; static. The paper's is "inverse".
      first_step: "closed", or "levanter", which takes "inverse" at max(t - (T - D), 1): the decay
        then starts one notch below the peak, and its second step repeats the first. Other shapes
        are the same in both; static.

    Returns:
      optax.Schedule: integer counts [...] -> rates [...], float32 (float64 under x64).

    Raises:
      TypeError: a length that is no int, or (when called) a count that is not of an integer dtype.
      ValueError: W + D > T, a number out of range, an unknown shape, T >= 2^31.

    Numerics:
      Counts are subtracted as integers, so that steps beyond 2^24 stay apart. Counts below 0 are
      taken as 0. The rate of step T - 1, the last of the run, is a notch above peak r. With
      min_ratio traced its sign is not checked, and "inverse" at 0 gives 0 from q > 0 on.

    Example:
      >>> rate = wsd(1.0, total_steps=100, warmup_steps=4, decay_steps=9)
      >>> [round(float(rate(step)), 3) for step in (0, 1, 50, 91, 92, 99, 100)]
      [0.0, 0.25, 1.0, 1.0, 0.5, 0.111, 0.1]

    Evidence: published formula, derived and checked.

    References:
      "Understanding Warmup-Stable-Decay Learning Rates: A River Valley Loss Landscape Perspective",
      ICLR 2025, arXiv 2410.05192. The authors trained with stanford-crfm/levanter, whose first
      decay step is the keyword here; "cosine" and "sqrt" are for comparison and not the paper's. A
      branch of plain WSD at a budget T is this schedule resumed at count T - D from the stable run,
      optimizer state included.
    """
    name = "wsd"
    total = _steps(name, "total_steps", total_steps, low=1)
    warmup = _steps(name, "warmup_steps", warmup_steps)
    length = _steps(name, "decay_steps", decay_steps, low=1)
    if warmup + length > total:
        raise ValueError(
            f"{name}: expected warmup_steps + decay_steps <= total_steps, got "
            f"{warmup} + {length} > {total}"
        )
    segments = (_Segment(0, total, warmup, length),)
    return _schedule(name, peak, segments, min_ratio, decay, first_step)


def wsd_s(
    peak: ArrayLike,
    *,
    anchors: Sequence[int],
    warmup_steps: int,
    decay_fraction: float = 0.1,
    min_ratio: ArrayLike = 0.1,
    rewarmup_fraction: float = 0.0,
    decay: str = "inverse",
    first_step: str = "closed",
) -> optax.Schedule:
    """Learning rate of one run that decays before every anchor and goes on from there at the peak.

    Definition, for anchors T_1 < ... < T_n, T_0 = 0 and the segments [T_{i-1}, T_i)::

        D_i = int(decay_fraction (T_i - T_{i-1}))           of the segment, not of the run
        W_1 = warmup_steps;  W_i = int(rewarmup_fraction (T_i - T_{i-1}))
        segment i: a linear rise over W_i steps (from 0 in the first, from peak min_ratio in the
        others), the peak, and over the last D_i steps the decay of :func:`wsd`

    Args:
      peak: learning rate of the stable parts, scalar >= 0, traced.
      anchors: numbers of updates after which a decayed checkpoint is wanted, ints, increasing;
        the last is the length of the run.
      warmup_steps: steps (not a fraction) of the first segment's warm-up, int >= 0.
      decay_fraction: of each segment, in (0, 1], a Python number.
      min_ratio: decayed rate over peak, in [0, 1], traced; "inverse" needs it > 0.
      rewarmup_fraction: of each segment but the first, in [0, 1), a Python number; 0, the paper's,
        returns to the peak in the step after an anchor.
      decay: "inverse", "linear", "cosine" or "sqrt", see :func:`wsd`; static.
      first_step: "closed" or "levanter", see :func:`wsd`; static.

    Returns:
      optax.Schedule: integer counts [...] -> rates [...], float32 (float64 under x64); peak
      min_ratio from the last anchor on.

    Raises:
      TypeError: anchors or steps that are no ints, or a count that is not of an integer dtype.
      ValueError: anchors that do not increase or reach 2^31, a segment too short for its warm-up
        and at least one step of decay, a number out of range, an unknown shape.

    Numerics:
      int() truncates the floating-point product, as levanter does: int(0.29 * 100) is 28. Where
      that matters give fractions that divide; ``checkpoint_steps(..., branch_points=True)`` lists
      what came out. Counts are subtracted as integers, see :func:`wsd`.

    Example:
      >>> rate = wsd_s(1.0, anchors=(50, 100), warmup_steps=4)
      >>> [round(float(rate(step)), 3) for step in (2, 40, 45, 49, 50, 95, 99, 100)]
      [0.5, 1.0, 1.0, 0.122, 1.0, 1.0, 0.122, 0.1]

    Evidence: published formula, derived and checked.

    References:
      "Understanding Warmup-Stable-Decay Learning Rates: A River Valley Loss Landscape Perspective",
      ICLR 2025, arXiv 2410.05192. The run continues FROM the decayed parameters and keeps the
      optimizer's moments; restarting from the undecayed ones is WSD. Segments as in
      stanford-crfm/levanter (cycles), which does not check that they are long enough.
    """
    name = "wsd_s"
    warmup = _steps(name, "warmup_steps", warmup_steps)
    rewarmup = _fraction(name, "rewarmup_fraction", rewarmup_fraction)
    segments = _segments(name, anchors, decay_fraction, warmup, rewarmup)
    return _schedule(name, peak, segments, min_ratio, decay, first_step)


def checkpoint_steps(
    anchors: Sequence[int], *, decay_fraction: float = 0.1, branch_points: bool = False
) -> tuple[int, ...]:
    """The steps at which a run on :func:`wsd_s` should be saved.

    Definition, D_i as in :func:`wsd_s`::

        anchors T_i, and with branch_points also T_i - D_i, where the decay before T_i starts

    Args:
      anchors: numbers of updates after which a decayed checkpoint is wanted, ints, increasing.
      decay_fraction: of each segment, in (0, 1]; read with branch_points only.
      branch_points: whether to keep the undecayed iterates too: plain WSD goes on from them, and
        they allow a different decay later; static.

    Returns:
      Increasing ints, each a number of updates made: what ``save_on_steps`` of an orbax
      CheckpointManager takes if step t is saved after t updates. A loop that numbers its steps
      from 0 and saves after each wants one less.

    Raises:
      TypeError: anchors that are no ints.
      ValueError: anchors that do not increase or reach 2^31, a segment too short for one step of
        decay, a fraction out of range.

    Numerics:
      Host integers; lengths are truncated as in :func:`wsd_s`.

    Example:
      >>> checkpoint_steps((50, 100))
      (50, 100)
      >>> checkpoint_steps((50, 100), branch_points=True)
      (45, 50, 95, 100)

    Evidence: published formula, derived and checked.

    References:
      "Understanding Warmup-Stable-Decay Learning Rates: A River Valley Loss Landscape Perspective",
      ICLR 2025, arXiv 2410.05192.
    """
    segments = _segments("checkpoint_steps", anchors, decay_fraction, 0, 0.0)
    starts = {s.end - s.decay for s in segments if branch_points}
    return tuple(sorted(starts | {s.end for s in segments}))


def _schedule(
    name: str,
    peak: ArrayLike,
    segments: tuple[_Segment, ...],
    min_ratio: ArrayLike,
    decay: str,
    first_step: str,
) -> optax.Schedule:
    peak = checks.number(name, "peak", peak, low=0.0)
    checks.choice(name, "decay", decay, DECAYS)
    checks.choice(name, "first_step", first_step, FIRST_STEPS)
    min_ratio = checks.number(name, "min_ratio", min_ratio, low=0.0, high=1.0)
    # A subnormal would be flushed to 0 on most devices, and then 0 / 0 at the decay's first step.
    least = np.finfo(np.float32).tiny if decay == "inverse" else 0.0
    if isinstance(min_ratio, float) and min_ratio < least:
        raise ValueError(
            f"{name}: expected min_ratio > 0 with decay='inverse', which is linear in 1 / rate, "
            f"got {min_ratio:g}"
        )
    floors = [0.0] + [1.0] * (len(segments) - 1)  # of the warm-ups, in units of the decayed rate

    def rate(count: ArrayLike) -> Array:
        count = _count(name, count)
        count = jnp.maximum(count, jnp.zeros_like(count))
        scale = numerics.promote(jnp.asarray(peak))
        ratio = numerics.scalar(min_ratio, scale)

        def column(values: list[int]) -> Array:
            return jnp.asarray(values, count.dtype)

        ends = column([s.end for s in segments])
        which = jnp.searchsorted(ends[:-1], count, side="right")
        since = jnp.minimum(count, ends[-1]) - column([s.start for s in segments])[which]
        rise = column([s.warmup for s in segments])[which]
        length = column([s.decay for s in segments])[which]
        hold = column([s.end - s.start - s.decay for s in segments])[which]

        down = jnp.maximum(since, hold) - hold  # steps into the decay, 0 before it
        if decay == "inverse" and first_step == "levanter":
            down = jnp.maximum(down, (since >= hold).astype(count.dtype))
        shape = _decayed(decay, down, length, ratio)
        floor = jnp.asarray(floors, scale.dtype)[which] * ratio
        up = since.astype(scale.dtype) / jnp.maximum(rise, jnp.ones_like(rise)).astype(scale.dtype)
        return scale * jnp.where(since < rise, (1.0 - up) * floor + up, shape)

    return rate


def _decayed(decay: str, down: Array, length: Array, ratio: Array) -> Array:
    """Rate over peak after ``down`` of ``length`` steps; exactly 1 at none and ratio at all."""
    steps = length.astype(ratio.dtype)
    q, left = down.astype(ratio.dtype) / steps, (length - down).astype(ratio.dtype) / steps
    if decay == "inverse":
        shape = ratio / (ratio * left + q)
    elif decay == "linear":
        shape = left + ratio * q
    elif decay == "cosine":
        quarter = 0.5 * jnp.pi
        shape = jnp.square(jnp.sin(quarter * left)) + ratio * jnp.square(jnp.sin(quarter * q))
    else:
        shape = (1.0 - jnp.sqrt(q)) + ratio * jnp.sqrt(q)
    # A compiler that multiplies by a rounded 1 / steps would put 1 a bit below the peak.
    shape = jnp.where(down == 0, jnp.ones_like(shape), shape)
    return jnp.where(down == length, ratio, shape)


def _segments(
    name: str, anchors: Sequence[int], decay_fraction: float, warmup: int, rewarmup: float
) -> tuple[_Segment, ...]:
    decay_fraction = _fraction(name, "decay_fraction", decay_fraction, open_low=True)
    if isinstance(anchors, str) or not isinstance(anchors, Sequence | np.ndarray):
        raise TypeError(f"{name}: expected anchors to be a sequence of ints, got {anchors!r}")
    ends = [_steps(name, "anchors", anchor, low=1) for anchor in anchors]
    if not ends or any(b <= a for a, b in itertools.pairwise(ends)):
        raise ValueError(f"{name}: expected anchors to increase, one at least, got {tuple(ends)}")
    segments = []
    for start, end in itertools.pairwise([0, *ends]):
        rise = int(rewarmup * (end - start)) if start else warmup
        length = int(decay_fraction * (end - start))
        if length < 1 or rise + length > end - start:
            raise ValueError(
                f"{name}: expected anchors whose segments hold their warm-up and a decay of at "
                f"least one step, got [{start}, {end}) with {rise} + {length} steps"
            )
        segments.append(_Segment(start, end, rise, length))
    return tuple(segments)


def _steps(name: str, argument: str, value: int, *, low: int = 0) -> int:
    if isinstance(value, bool | np.bool_) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name}: expected {argument} in steps, an int, got {value!r}")
    if not low <= value < 2**31:
        raise ValueError(f"{name}: expected {argument} in [{low}, 2^31), got {value}")
    return int(value)


def _fraction(name: str, argument: str, value: float, *, open_low: bool = False) -> float:
    if isinstance(value, jax.Array):  # it decides numbers of steps, which cannot be traced
        raise TypeError(f"{name}: expected {argument} to be a Python number, got {value!r}")
    return checks.number(name, argument, value, low=0.0, high=1.0, open_low=open_low)


def _count(name: str, count: ArrayLike) -> Array:
    if isinstance(count, int) and not isinstance(count, bool):
        count = min(max(count, 0), 2**31 - 1)  # beyond every anchor, and an int32 can hold it
    return checks.integer(name, "count", count)
