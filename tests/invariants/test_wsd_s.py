# SPDX-License-Identifier: Apache-2.0
"""Warmup-stable-decay schedules: what the definition implies, one named test each."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from xloss.optim import checkpoint_steps, river_valley_loss, wsd, wsd_s

DECAYS = ("inverse", "linear", "cosine", "sqrt")
ANCHORS = (60, 120, 240)
PEAK, RATIO = 6e-4, 0.1


def rates(schedule, stop=240):
    return np.asarray(jax.jit(schedule)(jnp.arange(stop)), np.float64)


def three(**changes):
    return wsd_s(PEAK, **{"anchors": ANCHORS, "warmup_steps": 3, "min_ratio": RATIO, **changes})


@pytest.mark.parametrize("decay", DECAYS)
def test_1_continuous_at_the_start_of_the_decay_and_within_a_notch_of_the_floor_at_the_anchor(
    decay,
):
    rate = rates(three(decay=decay), 241)
    for anchor, start in zip(ANCHORS, (54, 108 + 6, 228)):
        length = anchor - start
        assert rate[start - 1] == rate[start] == np.float32(PEAK)  # q = 0
        assert np.all(np.diff(rate[start:anchor]) < 0)
        # One more notch of the same decay is the floor.
        alone = rates(
            wsd(PEAK, total_steps=length, warmup_steps=0, decay_steps=length, decay=decay)
        )
        np.testing.assert_allclose(rate[start:anchor], alone[:length], rtol=1e-6)
        np.testing.assert_allclose(alone[length], PEAK * RATIO, rtol=1e-6)
        last_notch = rate[anchor - 2] - rate[anchor - 1]
        first_notch = rate[start] - rate[start + 1]
        assert 0 < rate[anchor - 1] - PEAK * RATIO <= max(first_notch, last_notch) * 1.001
    assert rate[240] == np.float32(PEAK) * np.float32(RATIO)


def test_1_levanters_first_decay_step_is_a_notch_below_the_peak_and_the_rest_agrees():
    closed, levanter = rates(three()), rates(three(first_step="levanter"))
    starts = [54, 114, 228]
    assert np.flatnonzero(closed != levanter).tolist() == starts
    np.testing.assert_array_equal(levanter[starts], closed[np.add(starts, 1)])
    for decay in DECAYS[1:]:
        np.testing.assert_array_equal(
            rates(three(decay=decay)), rates(three(decay=decay, first_step="levanter"))
        )


def test_2_back_at_the_peak_in_the_step_after_an_anchor():
    rate = rates(three())
    assert rate[60] == rate[120] == np.float32(PEAK)
    again = rates(three(rewarmup_fraction=0.1))  # 6 steps, then 12
    np.testing.assert_allclose(again[60], PEAK * RATIO, rtol=1e-6)
    np.testing.assert_allclose(np.diff(again[60:67]), PEAK * (1 - RATIO) / 6, rtol=1e-4)
    assert again[66] == again[132] == np.float32(PEAK) > again[131]
    np.testing.assert_array_equal(again[:60], rate[:60])  # the first segment has its own


@pytest.mark.parametrize("ratio", [0.01, 0.1, 0.9])
def test_3_the_reciprocal_of_the_rate_is_affine_in_the_decay(x64, ratio):
    reciprocal = 1 / rates(wsd(PEAK, total_steps=99, warmup_steps=7, decay_steps=20,
                               min_ratio=ratio), 100)[79:]  # fmt: skip
    np.testing.assert_allclose(np.diff(reciprocal), (1 / ratio - 1) / PEAK / 20, rtol=1e-9)
    linear = rates(wsd(PEAK, total_steps=99, warmup_steps=7, decay_steps=20, min_ratio=ratio,
                       decay="linear"), 100)[79:]  # fmt: skip
    np.testing.assert_allclose(np.diff(linear), -PEAK * (1 - ratio) / 20, rtol=1e-9)


def test_4_area_under_the_decay(x64):
    length = 20_000
    rate = rates(wsd(PEAK, total_steps=length, warmup_steps=0, decay_steps=length), length + 1)
    trapezoid = np.sum(rate) - (rate[0] + rate[-1]) / 2
    low = PEAK * RATIO
    area = length * PEAK * low / (PEAK - low) * np.log(PEAK / low)
    np.testing.assert_allclose(trapezoid, area, rtol=1e-7)


@pytest.mark.parametrize("decay", DECAYS)
@pytest.mark.parametrize("first_step", ["closed", "levanter"])
def test_5_one_anchor_is_wsd(decay, first_step):
    how = {"warmup_steps": 5, "decay": decay, "first_step": first_step}
    one = wsd_s(PEAK, anchors=[100], decay_fraction=0.25, **how)
    same = wsd(PEAK, total_steps=100, decay_steps=25, **how)
    np.testing.assert_array_equal(rates(one, 120), rates(same, 120))


def test_6_traced_counts_and_numbers_in_one_trace():
    traces = []

    @jax.jit
    def rate(count, peak, ratio):
        traces.append(1)
        return three_at(peak, ratio)(count)

    def three_at(peak, ratio):
        return wsd_s(peak, anchors=ANCHORS, warmup_steps=3, min_ratio=ratio)

    for step in (0, 2, 30, 54, 57, 60, 119, 239, 240, 10**6):
        for peak, ratio in ((PEAK, RATIO), (1.0, 0.5)):
            found = rate(jnp.int32(step), jnp.float32(peak), jnp.float32(ratio))
            np.testing.assert_allclose(found, three_at(peak, ratio)(step), rtol=1e-6)
    assert len(traces) == 1
    counts = jnp.arange(250)
    np.testing.assert_array_equal(jax.vmap(three())(counts), three()(counts))
    assert three()(counts.reshape(5, 50)).shape == (5, 50)


def test_6_drives_an_optimizer_and_its_injected_hyperparameter():
    schedule = wsd(1.0, total_steps=6, warmup_steps=2, decay_steps=2)
    for optimizer in (optax.sgd(schedule), optax.inject_hyperparams(optax.sgd)(schedule)):
        update = jax.jit(optimizer.update)
        state, moves = optimizer.init(jnp.zeros(2)), []
        for _ in range(7):
            move, state = update(jnp.ones(2), state)
            moves.append(-float(move[0]))
        np.testing.assert_allclose(moves, [0, 0.5, 1, 1, 1, 2 / 11, 0.1], rtol=1e-6)


NOISE = np.random.default_rng(0).normal(size=(400, 256, 2))


def travel(schedule):
    """256 noisy descents down the valley: (loss, x) of each [steps, 256], and the rates [steps]."""
    rate = jnp.asarray(schedule(jnp.arange(len(NOISE))))

    @jax.jit
    def run(rate, noise):
        def step(w, inputs):
            eta, noise = inputs
            w = w - eta * (jax.grad(lambda w: jnp.sum(river_valley_loss(w)))(w) + noise)
            return w, (river_valley_loss(w), w[:, 0])

        return jax.lax.scan(step, jnp.zeros([256, 2], rate.dtype), (rate, noise))[1]

    loss, x = run(rate, jnp.asarray(NOISE, rate.dtype))
    return np.asarray(loss), np.asarray(x), np.asarray(rate, np.float64)


def test_7_the_decay_reveals_the_way_made_along_the_river():
    schedule = wsd_s(0.2, anchors=(200, 400), warmup_steps=5, decay_fraction=0.2, min_ratio=0.02)
    loss, x, _ = travel(schedule)
    height = loss + 0.5 * x  # above the river
    for start, anchor in ((160, 200), (360, 400)):
        stable = height[start - 60 : start].mean()
        assert height[anchor - 1].mean() < 0.2 * stable  # the decay comes down from the hills
        assert loss[anchor - 1].mean() < loss[start - 60 : start].mean()
        # More so than the same number of steps at the peak would.
        assert loss[start - 40 : start].mean() - loss[anchor - 1].mean() > 0.2
    # Back at the peak it climbs the hills again, at no loss of place on the river.
    assert height[240:360].mean() > 5 * height[199].mean()
    assert x[360].mean() > x[200].mean() > x[160].mean()


def test_7_progress_along_the_river_is_proportional_to_the_integral_of_the_rate(x64):
    # Without hills dx = slope rate exactly; with them, up to the detour of the curved river.
    schedule = wsd_s(0.05, anchors=(200, 400), warmup_steps=5, decay_fraction=0.2, min_ratio=0.02)
    rate = schedule(jnp.arange(400))

    def run(curvature):
        def step(w, eta):
            loss = lambda w: river_valley_loss(w, hill_curvature=curvature)  # noqa: E731
            w = w - eta * jax.grad(loss)(w)
            return w, w

        return np.asarray(jax.jit(lambda r: jax.lax.scan(step, jnp.zeros(2), r))(rate)[1])

    np.testing.assert_allclose(run(0.0)[:, 0], 0.5 * np.cumsum(rate), rtol=1e-12)
    x = run(4.0)[:, 0]
    # On the river dx/dt = slope / (1 + cos^2 x): the travel time is int (1 + cos^2 x) dx / slope.
    time = (1.5 * x + np.sin(2 * x) / 4) / 0.5
    marks = np.array([200, 240, 300, 360, 399])
    np.testing.assert_allclose(time[marks] - time[100], np.sum(rate[101:]) - np.array(
        [np.sum(rate[mark + 1 :]) for mark in marks]), rtol=0.03)  # fmt: skip


def test_counts_beyond_two_to_the_24th_stay_apart():
    total = 2**31 - 1
    schedule = jax.jit(wsd(1.0, total_steps=total, warmup_steps=10, decay_steps=8))
    counts = jnp.arange(total - 9, total)  # a float32 would round all of them to 2^31
    expected = [1.0, *(1 / (1 + 9 * n / 8) for n in range(8))]
    np.testing.assert_allclose(schedule(counts), expected, rtol=1e-6)
    assert float(wsd(1.0, total_steps=9, warmup_steps=0, decay_steps=8)(2**40)) == np.float32(0.1)
    anchors = (2**24 + 1, 2**24 + 3, 2**30 + 11)
    several = wsd_s(1.0, anchors=anchors, warmup_steps=0, decay_fraction=0.5)
    found = several(jnp.array([2**24, 2**24 + 1, 2**24 + 2, 2**24 + 3, 2**30 + 10, 2**30 + 11]))
    np.testing.assert_allclose(found[np.array([1, 3, 5])], [1.0, 1.0, 0.1], rtol=1e-6)
    assert found[0] < 0.11 and found[2] == 1.0 and found[4] < 0.11
    unsigned = several(jnp.array([0, 2**24 + 1], jnp.uint32))
    np.testing.assert_array_equal(unsigned, several(jnp.array([0, 2**24 + 1])))


@pytest.mark.parametrize("decay", DECAYS)
def test_exact_at_both_ends_and_finite_everywhere(decay):
    low = 1e-30
    schedule = wsd(2.0, total_steps=30, warmup_steps=0, decay_steps=30, min_ratio=low, decay=decay)
    rate = rates(schedule, 40)
    assert rate[0] == 2.0 and np.all(np.isfinite(rate))
    np.testing.assert_allclose(rate[30:], 2 * low, rtol=1e-6)
    assert float(schedule(-5)) == float(schedule(jnp.int32(-5))) == 2.0
    if decay != "inverse":
        zero = wsd(1.0, total_steps=9, warmup_steps=1, decay_steps=8, min_ratio=0, decay=decay)
        assert float(zero(9)) == 0.0
    flat = wsd(1.0, total_steps=9, warmup_steps=1, decay_steps=8, min_ratio=1, decay=decay)
    np.testing.assert_allclose(rates(flat, 12)[1:], 1.0, rtol=1e-6)


def test_a_schedule_that_is_all_decay_or_has_one_step():
    assert rates(wsd(1.0, total_steps=1, warmup_steps=0, decay_steps=1), 3).tolist() == [
        1.0, np.float32(0.1), np.float32(0.1)]  # fmt: skip
    tight = rates(wsd(1.0, total_steps=4, warmup_steps=2, decay_steps=2), 5)
    np.testing.assert_allclose(tight, [0, 0.5, 1, 2 / 11, 0.1], rtol=1e-6)


def test_dtype_follows_x64_and_peak():
    schedule = wsd(1.0, total_steps=9, warmup_steps=1, decay_steps=8)
    assert schedule(jnp.int32(3)).dtype == jnp.float32
    half = wsd(jnp.bfloat16(1.0), total_steps=9, warmup_steps=1, decay_steps=8)
    assert half(np.int8(3)).dtype == jnp.float32
    with jax.enable_x64(True):
        assert schedule(jnp.int64(3)).dtype == jnp.float64


def test_lengths_are_truncated_products_of_the_segment():
    def decaying(fraction, anchor):
        steps = checkpoint_steps((anchor,), decay_fraction=fraction, branch_points=True)
        return steps[1] - steps[0]

    assert decaying(0.29, 100) == 28  # 28.999999999999996
    assert decaying(0.1, 30) == 3
    assert decaying(0.1, 29) == 2
    rate = rates(wsd_s(1.0, anchors=[100], warmup_steps=0, decay_fraction=0.29), 100)
    assert np.flatnonzero(rate < 1)[0] == 73  # the decay starts at 72, where q = 0


def test_checkpoint_steps():
    assert checkpoint_steps(ANCHORS) == ANCHORS
    assert checkpoint_steps(np.array(ANCHORS), branch_points=True) == (54, 60, 114, 120, 228, 240)
    # All of a segment may decay: its start is then the anchor before.
    assert checkpoint_steps((5, 9), decay_fraction=1.0, branch_points=True) == (0, 5, 9)
    rate = rates(three())
    for start in (54, 114, 228):
        assert rate[start] == np.float32(PEAK) > rate[start + 1]


@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (lambda: three(min_ratio=0.0), ValueError, "expected min_ratio > 0 with decay='inverse'"),
        (lambda: three(min_ratio=1.5), ValueError, r"expected min_ratio in \[0, 1\], got 1.5"),
        (lambda: three(decay="inv"), ValueError, "expected decay to be one of .*'inverse'"),
        (lambda: three(first_step="open"), ValueError, "expected first_step to be one of"),
        (lambda: three(warmup_steps=55), ValueError, r"got \[0, 60\) with 55 \+ 6 steps"),
        (lambda: three(warmup_steps=0.05), TypeError, "expected warmup_steps in steps, an int"),
        (lambda: three(warmup_steps=True), TypeError, "expected warmup_steps in steps, an int"),
        (lambda: three(warmup_steps=-1), ValueError, r"expected warmup_steps in \[0, 2\^31\)"),
        (lambda: three(anchors=(60, 65)), ValueError, r"got \[60, 65\) with 0 \+ 0 steps"),
        (lambda: three(anchors=()), ValueError, "expected anchors to increase, one at least"),
        (lambda: three(anchors=(60, 60)), ValueError, r"expected anchors to increase.*60, 60"),
        (lambda: three(anchors=(0, 60)), ValueError, r"expected anchors in \[1, 2\^31\), got 0"),
        (lambda: three(anchors=(60, 2**31)), ValueError, r"expected anchors in \[1, 2\^31\)"),
        (lambda: three(anchors=(60.0,)), TypeError, "expected anchors in steps, an int, got 60.0"),
        (lambda: three(anchors=60), TypeError, "expected anchors to be a sequence of ints"),
        (lambda: three(decay_fraction=0.001), ValueError, "decay of at least one step"),
        (lambda: three(decay_fraction=1.1), ValueError, r"expected decay_fraction in \(0, 1\]"),
        (lambda: three(decay_fraction=6), ValueError, r"expected decay_fraction in \(0, 1\]"),
        (lambda: three(rewarmup_fraction=0.95), ValueError, r"got \[60, 120\) with 57 \+ 6 steps"),
        (lambda: three(rewarmup_fraction=jnp.float32(0)), TypeError, "to be a Python number"),
        (lambda: wsd(1.0, total_steps=10, warmup_steps=6, decay_steps=5), ValueError,
         r"warmup_steps \+ decay_steps <= total_steps, got 6 \+ 5 > 10"),
        (lambda: wsd(1.0, total_steps=10, warmup_steps=1, decay_steps=0.1), TypeError,
         "wsd: expected decay_steps in steps, an int, got 0.1"),
        (lambda: wsd(1.0, total_steps=10, warmup_steps=1, decay_steps=0), ValueError,
         r"expected decay_steps in \[1, 2\^31\), got 0"),
        (lambda: wsd(-1.0, total_steps=10, warmup_steps=1, decay_steps=1), ValueError,
         "expected peak in"),
        (lambda: three()(1.0), TypeError, "wsd_s: expected count of an integer dtype"),
        (lambda: three()(jnp.float32(1)), TypeError, "wsd_s: expected count of an integer dtype"),
        (lambda: river_valley_loss(jnp.zeros(3)), ValueError, r"of shape \[..., 2\], got \(3,\)"),
        (lambda: river_valley_loss(jnp.zeros(2, int)), TypeError, "expected params of a float"),
        (lambda: river_valley_loss(jnp.zeros(2), hill_curvature=-1.0), ValueError,
         "expected hill_curvature in"),
    ],
)  # fmt: skip
def test_mistakes_speak_before_anything_compiles(make, error, says):
    with pytest.raises(error, match=says):
        make()


def test_the_valley_is_flat_along_the_river_and_of_the_given_curvature_across(x64):
    x = jnp.linspace(-3, 3, 7)
    river = jnp.stack([x, jnp.sin(x)], axis=-1)
    np.testing.assert_allclose(river_valley_loss(river, slope=2.0), -2.0 * x, rtol=1e-12)
    hessian = jax.hessian(lambda w: river_valley_loss(w, hill_curvature=3.0))(river[0])
    cosine = jnp.cos(x[0])
    np.testing.assert_allclose(hessian[1, 1], 3.0)
    np.testing.assert_allclose(jnp.trace(hessian), 3.0 * (1 + cosine**2), rtol=1e-12)
    np.testing.assert_allclose(jnp.linalg.det(hessian), 0.0, atol=1e-12)
    assert river_valley_loss(river.astype(jnp.bfloat16)).dtype == jnp.float32


def test_a_decay_of_no_length_is_refused_by_its_own_name():
    with pytest.raises(ValueError, match=r"wsd_s: expected decay_fraction in \(0, 1\], got 0"):
        three(decay_fraction=0.0)
