import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mstrack.errors import UserError
from mstrack.metrics.ope import FURTHER, MEASURES, NORMALISED, OVERLAPS, PIXELS, per_sequence, score, summarise
from mstrack.metrics.protocols import find_protocol
from mstrack.metrics.uncertainty import interval, paired_difference, seed_difference
from mstrack.registry import resolve


def curves_by_loops(boxes, truths, valid):
    """The definition, frame by frame and threshold by threshold."""
    counted = [t for t in range(len(truths)) if valid[t] and not np.isnan(truths[t]).any() and min(truths[t, 2:]) > 0]
    success, precision, normalised = np.zeros(21), np.zeros(51), np.zeros(51)
    for t in counted:
        if t >= len(boxes) or np.isnan(boxes[t]).any():
            continue
        (x, y, w, h), (u, v, p, q) = boxes[t], truths[t]
        wide, high = min(x + w, u + p) - max(x, u), min(y + h, v + q) - max(y, v)
        shared = max(wide, 0) * max(high, 0)
        iou = shared / (w * h + p * q - shared)
        dx, dy = x + w / 2 - u - p / 2, y + h / 2 - v - q / 2
        success += [iou > 0.05 * i for i in range(21)]
        precision += [np.hypot(dx, dy) <= i for i in range(51)]
        normalised += [np.hypot(dx / p, dy / q) <= i / 100 for i in range(51)]
    return [c / len(counted) for c in (success, precision, normalised)]


def test_curves_equal_their_definition():
    rng = np.random.default_rng(3)
    truths = rng.uniform(5, 60, (90, 4))
    boxes = truths[:80] + rng.normal(0, 6, (80, 4))
    boxes[:, 2:] = np.maximum(boxes[:, 2:], 1)
    truths[7], truths[8, 2], truths[9, 3], boxes[10:13] = np.nan, 0, -3, np.nan
    valid = rng.random(90) > 0.2
    result = score(boxes, None, truths, valid)
    for ours, slow in zip(
        (result.success, result.precision, result.normalised_precision),
        curves_by_loops(boxes, truths, valid),
        strict=True,
    ):
        np.testing.assert_allclose(ours, slow, atol=1e-12)
    assert np.isnan(result.iou[7:10]).all()
    assert np.isnan(result.iou).sum() == 90 - result.frames
    assert (result.iou[80:][valid[80:]] == 0).all()


def test_thresholds_are_strict_for_overlap_and_inclusive_for_error():
    truths = np.array([[0, 0, 20, 10.0], [0, 0, 20, 10]])
    boxes = np.array([[0, 0, 10, 10.0], [20, 0, 20, 10]])
    halved, shifted = (score(b[None], None, t[None], [True]) for b, t in zip(boxes, truths, strict=True))
    assert (halved.success[9], halved.success[10]) == (1, 0)
    assert (shifted.precision[19], shifted.precision[20]) == (0, 1)
    assert shifted.success.sum() == 0


boxes_of = arrays(np.float64, (12, 4), elements=st.floats(1, 90, width=32))


@given(boxes_of, boxes_of, st.floats(0.1, 5), st.integers(-40, 40))
def test_laws(boxes, truths, scale, shift):
    valid = np.ones(12, bool)
    result = score(boxes, None, truths, valid)
    assert (np.diff(result.success) <= 0).all()
    assert (np.diff(result.precision) >= 0).all()
    assert (np.diff(result.normalised_precision) >= 0).all()

    order = np.random.default_rng(0).permutation(12)
    shuffled = score(boxes[order], None, truths[order], valid)
    np.testing.assert_array_equal(shuffled.success, result.success)

    perfect = score(truths, None, truths, valid)
    assert (perfect.success[:20] == 1).all()
    assert perfect.success[20] == 0
    assert (perfect.precision == 1).all()

    move = np.array([shift, shift, 0, 0])
    moved = score((boxes + move) * scale, None, (truths + move) * scale, valid)
    np.testing.assert_allclose(moved.iou, result.iou, atol=1e-9)


def test_summary_weighs_sequences_equally_and_skips_empty_ones():
    truth = np.tile([[10, 10, 20, 20.0]], (8, 1))
    good = score(truth, None, truth, np.ones(8, bool))
    bad = score(truth[:2] + 200, None, truth[:2], np.ones(2, bool))
    absent = score(truth, None, truth, np.zeros(8, bool))
    summary = summarise([good, bad, absent])
    assert summary["SR"] == pytest.approx(100 * 20 / 21 / 2)
    assert tuple(summary) == tuple(per_sequence([good])) == (*MEASURES, *FURTHER)
    assert summary.dropped == dict.fromkeys(summary, 0)
    assert (summary["AO"], summary["FR"]) == (50, 50)
    assert (summary.sequences, summary.frames) == (2, 10)
    assert np.isnan(per_sequence([absent])["PR"]).all()
    assert np.isnan(summarise([])["SR"])


def test_bad_calls_are_refused():
    truth = np.ones((3, 4))
    with pytest.raises(ValueError, match=r"boxes \(M, 4\)"):
        score(np.ones((3, 5)), None, truth, np.ones(3, bool))
    with pytest.raises(ValueError, match=r"valid \(N,\)"):
        score(truth, None, truth, np.ones(2, bool))
    with pytest.raises(UserError, match="Did you mean 'plain'"):
        find_protocol("plane")


def test_catalogue_leads_here():
    assert resolve("metrics", "ope").score is score
    assert (len(OVERLAPS), len(PIXELS), len(NORMALISED)) == (21, 51, 51)


def test_interval_is_the_bootstrap_of_the_mean():
    values = np.random.default_rng(1).normal(50, 20, 60)
    low, high = interval(values)
    rng = np.random.default_rng(9)
    slow = [np.mean(rng.choice(values, 60)) for _ in range(4000)]
    np.testing.assert_allclose([low, high], np.quantile(slow, [0.025, 0.975]), atol=0.6)
    assert interval(values) == (low, high)
    assert interval([*values, np.nan]) == (low, high)
    assert np.isnan(interval([42.0])).all()
    assert np.isnan(interval([])).all()


def test_interval_covers_the_truth():
    rng = np.random.default_rng(2)
    hits = 0
    for trial in range(200):
        low, high = interval(rng.normal(0, 1, 60), resamples=500, seed=trial)
        hits += low < 0 < high
    assert 0.89 <= hits / 200 <= 0.99


def test_interval_over_runs_is_wider():
    rng = np.random.default_rng(4)
    sequences = rng.normal(50, 5, 60)
    runs = sequences + rng.normal(0, 8, (5, 1))
    one, several = interval(runs.mean(axis=0)), interval(runs)
    assert several.high - several.low > 2 * (one.high - one.low)


def test_pairing_removes_what_is_hard_for_both():
    rng = np.random.default_rng(5)
    hard = rng.normal(50, 20, 60)
    a, b = hard + 1 + rng.normal(0, 0.5, 60), hard + rng.normal(0, 0.5, 60)
    difference = paired_difference(a, b)
    assert difference.mean == pytest.approx((a - b).mean())
    assert 0.5 < difference.low < difference.mean < difference.high < 1.5
    assert not difference.within_noise
    mirrored = paired_difference(b, a)
    assert mirrored.mean == pytest.approx(-difference.mean)
    assert paired_difference(a, rng.permutation(b)).within_noise
    assert paired_difference(a, a).within_noise
    assert paired_difference([60.0], [40.0]).within_noise
    with pytest.raises(ValueError, match="60 and 59"):
        paired_difference(a, b[1:])


def test_pairing_runs_by_seed_removes_what_a_training_set_does_for_both():
    rng = np.random.default_rng(0)
    luck, hard = rng.normal(0, 5, (12, 1)), rng.normal(0, 10, (1, 60))
    a, b = (50 + shift + luck + hard + rng.normal(0, 0.5, (12, 60)) for shift in (1.0, 0.0))
    paired, apart = seed_difference(a, b), paired_difference(a, b)
    assert paired.mean == pytest.approx(apart.mean) == pytest.approx((a - b).mean())
    assert paired.high - paired.low < 0.2 * (apart.high - apart.low)
    assert paired.low < 1 < paired.high
    assert paired.low < 1 < paired.high
    assert seed_difference(a, b[:5]) == seed_difference(a[:5], b[:5]), "runs without a partner are left out"
    assert seed_difference(a, b[:1]).mean == pytest.approx((a - b[:1]).mean()), "one run is compared with all"
    assert seed_difference(a, a) == (0, 0, 0)
    with pytest.raises(ValueError, match="same sequences"):
        seed_difference(a, b[:, 1:])
