import csv
import gzip
import json
import zipfile
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mstrack.errors import UserError
from mstrack.metrics.boc import BASE_TRACKERS, score_breadth, summarise_breadth
from mstrack.metrics.frames import matlab_range
from mstrack.metrics.ope import MEASURES, SequenceScore, per_sequence, score, summarise
from mstrack.metrics.protocols import COLON, DEFAULTS, LINSPACE, MULTIPLES, PROTOCOLS, find_protocol, metrics_of, protocol_of
from mstrack.registry import DATASETS

ORACLE = Path(__file__).parents[2] / "shared" / "oracle"
needs_oracle = pytest.mark.skipif(not ORACLE.is_dir(), reason="the oracle folder ../shared/oracle is not here")
EXPECTED = json.loads((ORACLE / "expected.json").read_text()) if ORACLE.is_dir() else {}
CASES = [
    (dataset, tracker, convention)
    for dataset in ("LasHeR", "VisEvent", "RGBT234")
    for tracker, conventions in EXPECTED.get(dataset, {}).items()
    for convention in conventions
]
TWO_TRUTHS = [name for name, protocol in PROTOCOLS.items() if protocol.two_truths]


def read_numbers(archive, name):
    lines = archive.read(name).decode().replace(",", " ").splitlines()
    return np.array([line.split() for line in lines if line.strip()], dtype=float)


@cache
def load(dataset, tracker):
    """Of every sequence: name, boxes, annotation, presence flags and second annotation (None where there are none)."""
    if dataset == "LasHeR":
        annotated, results = ORACLE / "lasher" / "lasher_test_gt.zip", ORACLE / "lasher" / f"results_{tracker}.zip"
        names, truth, result = (ORACLE / "lists" / "lashertest.txt").read_text().split(), "gt/{}.txt", tracker + "/{}.txt"
    elif dataset == "VisEvent":
        annotated = ORACLE / "visevent" / "annos.zip"
        results = ORACLE / "visevent" / "ceutrack_visevent_dataset_tracking_results.zip"
        with zipfile.ZipFile(results) as archive:
            paths = sorted(n for n in archive.namelist() if n.endswith(".txt") and not n.endswith("_time.txt"))
        names, truth, result = [Path(p).stem for p in paths], "gt_rect/{}.txt", str(Path(paths[0]).parent) + "/{}.txt"
    else:
        annotated, results = ORACLE / "rgbt234" / "rgbt234_gt_attr.zip", ORACLE / "rgbt234" / f"results_{tracker}.zip"
        names = (ORACLE / "lists" / "RGBT234_SequencesName.txt").read_text().split()
        truth, result = "gt/{}/visible.txt", tracker + "/{}.txt"
    rows = []
    with zipfile.ZipFile(annotated) as truths, zipfile.ZipFile(results) as boxes:
        for name in names:
            present = read_numbers(truths, f"absent/{name}.txt")[:, 0] == 0 if dataset == "VisEvent" else None
            second = read_numbers(truths, f"gt/{name}/infrared.txt") if dataset == "RGBT234" else None
            rows.append(
                (name, read_numbers(boxes, result.format(name)), read_numbers(truths, truth.format(name)), present, second)
            )
    return rows


@cache
def score_all(dataset, tracker, convention):
    return [
        score(boxes, None, truth, np.ones(len(truth), bool), convention, present=present, aux_truths=second)
        for _, boxes, truth, present, second in load(dataset, tracker)
    ]


@needs_oracle
@pytest.mark.parametrize(("dataset", "tracker", "convention"), CASES)
def test_means_and_sequences_equal_the_oracle(dataset, tracker, convention):
    scores = score_all(dataset, tracker, convention)
    summary, expected = summarise(scores), EXPECTED[dataset][tracker][convention]
    assert summary.sequences == expected["n"]
    assert {m: round(summary[m], 4) for m in (*MEASURES, "NAUC")} == {m: expected[m] for m in (*MEASURES, "NAUC")}

    with gzip.open(ORACLE / "per_sequence.csv.gz", "rt") as file:
        rows = {r["sequence"]: r for r in csv.DictReader(file) if (r["tracker"], r["convention"]) == (tracker, convention)}
    if dataset == "RGBT234":
        return
    measured = per_sequence(scores, dropped=None)
    names = [name for name, *_ in load(dataset, tracker)]
    assert sorted(rows) == sorted(names)
    ours = np.transpose([measured[m] / 100 for m in MEASURES])
    theirs = [[float(rows[name][c]) for c in ("SR", "OP50", "OP75", "PR20", "NPR20")] for name in names]
    np.testing.assert_allclose(ours, theirs, atol=5.1e-7, rtol=0)


@needs_oracle
def test_lasher_curves_equal_matlab_in_every_cell():
    curves = np.load(ORACLE / "lasher" / "lasher_matlab_curves_4trackers.npz")
    frames = {name: len(truth) for name, _, truth, *_ in load("LasHeR", "MTNet")}
    lengths = np.array([frames[str(name)] for name in curves["sequences"]])[:, None]
    for index, tracker in enumerate(curves["names"]):
        scores = dict(zip(frames, score_all("LasHeR", str(tracker), "matlab"), strict=True))
        ordered = [scores[str(name)] for name in curves["sequences"]]
        for key, field in (
            ("success", "success"),
            ("precision", "precision"),
            ("norm_precision", "normalised_precision"),
        ):
            ours = np.array([getattr(s, field) for s in ordered])
            np.testing.assert_array_equal(np.round(ours * lengths), np.round(curves[key][index] * lengths))


@needs_oracle
@pytest.mark.parametrize(("dataset", "tracker"), [("LasHeR", "MTNet"), ("VisEvent", "CEUTrack")])
def test_attributes_equal_the_oracle(dataset, tracker):
    folder = "lasher" if dataset == "LasHeR" else "visevent"
    archive = "lasher_test_gt.zip" if dataset == "LasHeR" else "annos.zip"
    order = ["CM", "ROT", "DEF", "FOC", "LI", "OV", "POC", "VC", "SV", "BC", "MB", "ARC", "FM", "NMO", "IV", "OE", "BOM"]
    with zipfile.ZipFile(ORACLE / folder / archive) as file:
        names = [name for name, *_ in load(dataset, tracker)]
        if dataset == "LasHeR":
            order = file.read("Attributes_order.txt").decode().replace(",", " ").split()
        flags = np.array([read_numbers(file, f"{'attr' if dataset == 'LasHeR' else 'att'}/{n}.txt").ravel() for n in names])
    scores = score_all(dataset, tracker, "matlab")
    for attribute, expected in EXPECTED[f"{dataset}_attributes_{tracker}_matlab"].items():
        members = [s for s, flag in zip(scores, flags[:, order.index(attribute)], strict=True) if flag]
        summary = summarise(members)
        assert len(members) == expected["n"]
        assert {m: round(summary[m], 4) for m in ("SR", "PR", "NPR")} == {m: expected[m] for m in ("SR", "PR", "NPR")}


@needs_oracle
def test_one_sequence_equals_the_oracle():
    for path, conventions in EXPECTED["single_sequence"].items():
        dataset, tracker, name = path.split("/")
        index = [n for n, *_ in load(dataset, tracker)].index(name)
        for convention, expected in conventions.items():
            summary = summarise([score_all(dataset, tracker, convention)[index]])
            assert {m: round(summary[m], 4) for m in (*MEASURES, "NAUC")} == {m: expected[m] for m in (*MEASURES, "NAUC")}


@needs_oracle
def test_coesot_curves_and_breadth():
    curves = np.load(ORACLE / "coesot" / "coesot_matlab_curves_20trackers.npz")
    names = [str(name) for name in curves["names"]]
    base = curves["success"][[names.index(name) for name in BASE_TRACKERS]]
    for index, name in enumerate(names):
        success, precision = curves["success"][index], curves["precision"][index]
        scores = [SequenceScore(s, p, p, 1, s[:1], "matlab") for s, p in zip(success, precision, strict=True)]
        summary, raw, expected = summarise(scores), per_sequence(scores, dropped=None), EXPECTED["COESOT_curves"][name]
        assert {m: round(summary[m], 4) for m in ("SR", "OP50", "OP75", "PR")} == {
            m: expected[f"{m}_nonzero"] for m in ("SR", "OP50", "OP75", "PR")
        }
        assert {m: round(raw[m].mean(), 4) for m in ("SR", "PR")} == {m: expected[f"{m}_all527"] for m in ("SR", "PR")}
        assert (summary.dropped["SR"], summary.dropped["PR"]) == (expected["zero_success"], expected["zero_precision"])
        assert round(score_breadth(success, base), 4) == EXPECTED["COESOT_BOC"][name]


def matlab(boxes, truths, valid, present, second, flags=True):
    """Column `matlab`, frame by frame: overlap, pixel and normalised error of each frame; the denominator."""
    if len(boxes) < len(truths):
        raise IndexError
    boxes = [list(map(float, b)) for b in boxes[: len(truths)]]
    for i in range(1, len(truths)):
        x, y, w, h = boxes[i]
        if (any(map(np.isnan, (x, y, w, h))) or w <= 0 or h <= 0) and not any(map(np.isnan, truths[i])):
            boxes[i] = list(boxes[i - 1])
    boxes[0] = list(map(float, truths[0]))
    kept = []
    for i, truth in enumerate(truths):
        if flags and present is not None and not present[i]:
            continue
        kept.append((-1, -1, -1) if not all(v > 0 for v in truth) else compare(boxes[i], list(map(float, truth))))
    return kept, len(truths)


def matlab_no_absent(*inputs):
    return matlab(*inputs, flags=False)


def pytracking_wh(boxes, truths, valid, present, second, sides=slice(2, 4), excluding=False):
    """Columns `pytracking_*`; rows beyond the annotation are dropped at once, so that they cannot be an error."""
    boxes = [list(map(float, b)) for b in boxes[: len(truths)]]
    if any(np.isnan(v) for b in boxes for v in b) or any(v < 0 for b in boxes for v in b[2:]):
        raise ValueError
    for i in range(1, len(boxes)):
        if 0 in boxes[i][2:]:
            boxes[i] = list(boxes[i - 1])
    boxes = boxes + [[0.0] * 4] * (len(truths) - len(boxes))
    boxes[0] = list(map(float, truths[0]))
    kept, counted = [], 0
    for i, truth in enumerate(truths):
        good = all(v > 0 for v in truth[sides]) and (present is None or present[i])
        counted += bool(good)
        kept.append(compare(boxes[i], list(map(float, truth))) if good else (-1, np.inf, -1))
    return kept, counted if excluding else len(truths)


def pytracking_all4(*inputs):
    return pytracking_wh(*inputs, sides=slice(0, 4))


def pytracking_wh_excl(*inputs):
    return pytracking_wh(*inputs, excluding=True)


def rgbt_lasher(boxes, truths, valid, present, second):
    """Column `rgbt_lasher`, in single-precision scalars."""
    boxes, truths = [[[np.float32(v).round() for v in row] for row in rows] for rows in (boxes, truths)]
    if len(boxes) < len(truths):
        raise IndexError
    boxes[0] = truths[0]
    boxes = boxes[: len(truths)]
    for i in range(1, len(truths)):
        if boxes[i][2] <= 0 or boxes[i][3] <= 0:
            boxes[i] = list(boxes[i - 1])
    values = [compare(b, t, 1e-8) for b, t in zip(boxes, truths, strict=True)]
    return [(-1, -1, -1) if any(x <= 0 for x in t) else v for v, t in zip(values, truths, strict=True)], len(truths)


def rgbt234(boxes, truths, valid, present, second, number=np.float32):
    """Columns `rgbt234_*`."""
    kept = []
    for box, *pair in zip(boxes, truths, second, strict=False):
        box = [number(v).round() for v in box]
        values = [compare(box, [number(v) for v in truth]) for truth in pair]
        kept.append((np.maximum(*[v[0] for v in values]), *(np.minimum(values[0][k], values[1][k]) for k in (1, 2))))
    return kept, len(kept)


def rgbt234_float64(*inputs):
    return rgbt234(*inputs, number=np.float64)


def plain(boxes, truths, valid, present, second):
    """`plain`, from its sentence."""
    kept, counted = [], 0
    for i, truth in enumerate(truths):
        if not valid[i] or (present is not None and not present[i]) or np.isnan(truth).any() or min(truth[2:]) <= 0:
            continue
        counted += 1
        if i < len(boxes) and not np.isnan(boxes[i]).any():
            kept.append(compare(list(map(float, boxes[i])), list(map(float, truth))))
    return kept, counted


def compare(box, truth, epsilon=0):
    """Overlap, pixel error and normalised error in inclusive pixels, as all the toolkits write them."""
    with np.errstate(all="ignore"):
        (x, y, w, h), (u, v, p, q) = map(np.array, (box, truth))
        wide = np.maximum(0, np.minimum(x + w - 1, u + p - 1) - np.maximum(x, u) + 1)
        high = np.maximum(0, np.minimum(y + h - 1, v + q - 1) - np.maximum(y, v) + 1)
        shared = wide * high
        overlap = shared / (w * h + p * q - shared)
        cx, cy, tx, ty = x + (w - 1) / 2, y + (h - 1) / 2, u + (p - 1) / 2, v + (q - 1) / 2
        p, q = p + epsilon, q + epsilon
        error = ((cx - tx) ** 2 + (cy - ty) ** 2) ** 0.5
        return overlap, error, ((cx / p - tx / p) ** 2 + (cy / q - ty / q) ** 2) ** 0.5


COLUMNS = {
    "plain": (plain, MULTIPLES),
    "matlab": (matlab, COLON),
    "matlab_no_absent": (matlab_no_absent, COLON),
    "pytracking_wh": (pytracking_wh, MULTIPLES),
    "pytracking_all4": (pytracking_all4, MULTIPLES),
    "pytracking_wh_excl": (pytracking_wh_excl, MULTIPLES),
    "rgbt_lasher": (rgbt_lasher, LINSPACE),
    "rgbt234": (rgbt234, LINSPACE),
    "rgbt234_float32": (rgbt234, LINSPACE),
    "rgbt234_float64": (rgbt234_float64, LINSPACE),
}


def draw_input(seed, nan=True):
    """Boxes and annotations with ties, zeros, negative values and NaN; results that are too short or too long."""
    rng = np.random.default_rng(seed)
    length = int(rng.integers(2, 16))
    step = rng.choice([1, 0.5, 0.01])

    def spoil(rows):
        for value in (0, 0, -3.0, *([np.nan] if nan else [])):
            if rng.random() < 0.5:
                rows[rng.random(rows.shape) < 0.08] = value
        return rows

    truths = np.round(np.concatenate([rng.uniform(1, 60, (length, 2)), rng.uniform(1, 30, (length, 2))], axis=1) / step) * step
    boxes = truths + np.round(rng.normal(0, 3, truths.shape) / step) * step * (rng.random(truths.shape) < 0.6)
    second = spoil(truths + np.round(rng.normal(0, 2, truths.shape)))
    extra = int(rng.choice([0, 0, 0, -1, -5, 2]))
    boxes = np.concatenate([boxes[: max(0, length + extra)], np.full((max(extra, 0), 4), 7.0)])
    second = second[: length - int(rng.integers(0, 2))]
    present = rng.random(length) < 0.8 if rng.random() < 0.7 else None
    return spoil(boxes), spoil(truths), rng.random(length) < 0.8, present, second


@pytest.mark.parametrize("name", PROTOCOLS)
@settings(max_examples=150)
@given(st.integers(0, 2**32), st.booleans())
def test_curves_equal_the_table_frame_by_frame(name, seed, nan):
    boxes, truths, valid, present, second = draw_input(seed, nan)
    column, grid = COLUMNS[name]
    try:
        kept, denominator = column(boxes, truths, valid, present, second)
    except (IndexError, ValueError):
        with pytest.raises(UserError, match=r"Complete it|refuses"):
            score(boxes, None, truths, valid, name, present=present, aux_truths=second)
        return
    result = score(boxes, None, truths, valid, name, present=present, aux_truths=second)
    assert result.frames == denominator
    if denominator == 0:
        assert np.isnan(result.success).all()
        return
    slow = [
        [sum(k[0] > t for k in kept) / denominator for t in grid.overlaps],
        [sum(k[1] <= t for k in kept) / denominator for t in range(51)],
        [sum(k[2] <= t for k in kept) / denominator for t in grid.normalised],
    ]
    for ours, theirs in zip((result.success, result.precision, result.normalised_precision), slow, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert len(result.iou) == len(truths)
    assert np.isfinite(result.iou).sum() == denominator


@pytest.mark.parametrize("name", PROTOCOLS)
@given(st.integers(0, 2**32), st.sampled_from([2.0, 4.0]), st.integers(1, 40))
def test_laws(name, seed, scale, shift):
    rng = np.random.default_rng(seed)
    truths = np.concatenate([rng.integers(1, 60, (9, 2)), rng.integers(1, 40, (9, 2))], axis=1).astype(float)
    boxes = truths + rng.integers(-6, 7, truths.shape)
    boxes[:, 2:] = np.maximum(boxes[:, 2:], 1)
    boxes[0] = truths[0]
    rest = (None, truths, np.ones(9, bool), name)
    result = score(boxes, *rest, aux_truths=truths)
    for curve, sign in ((result.success, -1), (result.precision, 1), (result.normalised_precision, 1)):
        assert (np.diff(sign * curve) >= 0).all()
        assert (curve >= 0).all()
        assert (curve <= 1).all()

    perfect = score(truths, *rest, aux_truths=truths)
    assert (perfect.success == [1] * 20 + [0]).all()
    assert (perfect.precision == 1).all()
    assert (perfect.normalised_precision == 1).all()

    move = np.array([shift, shift, 0, 0])
    moved = (truths + move) * scale
    other = score((boxes + move) * scale, None, moved, np.ones(9, bool), name, aux_truths=moved)
    np.testing.assert_array_equal(other.success, result.success)
    np.testing.assert_allclose(other.iou, result.iou, atol=1e-6)


@given(st.integers(0, 2**32))
def test_conventions_agree_where_nothing_is_odd(seed):
    rng = np.random.default_rng(seed)
    truths = np.concatenate([rng.integers(1, 60, (9, 2)), rng.integers(5, 40, (9, 2))], axis=1) + 0.0
    boxes = truths + rng.integers(-4, 5, truths.shape)
    boxes[0] = truths[0]
    scores = [score(boxes, None, truths, np.ones(9, bool), name, aux_truths=truths) for name in PROTOCOLS]
    for other in scores[1:]:
        np.testing.assert_allclose(other.iou, scores[0].iou, atol=1e-6)
        np.testing.assert_array_equal(other.precision, scores[0].precision)


def test_matlab_counts_down_from_one():
    values = matlab_range(0, 0.05, 1)
    assert len(values) == 21
    assert values[13] == 0.6499999999999999
    assert (values[:11] == np.arange(11) * 0.05).all()
    assert (values[11:] == 1 - np.arange(9, -1, -1) * 0.05).all()
    truth, box = np.array([[1, 1, 20, 1.0]] * 2), np.array([[1, 1, 13, 1.0]] * 2)
    ones = np.ones(2, bool)
    assert score(box, None, truth, ones, "matlab").success[13] == 1
    assert score(box, None, truth, ones, "pytracking_wh").success[13] == 0.5


def test_means_leave_out_what_the_protocol_says():
    truth, ones = np.tile([[10, 10, 20, 20.0]], (8, 1)), np.ones(8, bool)
    near = truth + np.array([15, 15, 0, 0])
    unmarked = np.concatenate([truth[:1] * 0, truth[1:]])
    rows = [(truth, truth), (truth + 300, unmarked), (near + 4, unmarked)]
    by_matlab = [score(boxes, None, target, ones, "matlab") for boxes, target in rows]
    summary = summarise(by_matlab, "matlab")
    assert summary.dropped == {"SR": 1, "OP50": 1, "OP75": 1, "PR": 0, "NPR": 0, "NAUC": 0, "AO": 1, "FR": 0}
    assert summary.sequences == 3
    assert summary["SR"] == pytest.approx(per_sequence(by_matlab)["SR"][[0, 2]].mean())
    assert summary.success.mean() * 100 == pytest.approx(summary["SR"])
    assert np.isnan(per_sequence(by_matlab)["SR"][1])
    assert per_sequence(by_matlab, dropped=None)["SR"][1] == 0
    assert summary["FR"] == pytest.approx(100 * (0 + 1 + 1 / 8) / 3)
    assert summary.protocol == "matlab"

    by_pytracking = [score(boxes, None, target, ones, "pytracking_wh") for boxes, target in rows]
    assert not any(summarise(by_pytracking).dropped.values())
    with pytest.raises(ValueError, match="do not mix: matlab, pytracking_wh"):
        summarise([*by_matlab, *by_pytracking])
    with pytest.raises(ValueError, match="matlab, plain"):
        summarise(by_matlab, "plain")


def test_average_overlap_and_failures_follow_the_denominator():
    truth = np.tile([[10, 10, 20, 20.0]], (4, 1))
    boxes = np.array([[10, 10, 20, 20], [10, 10, 10, 20], [90, 90, 20, 20], [10, 10, 20, 20.0]])
    present = np.array([True, True, True, False])
    expected = {
        "plain": (50, 100 / 3),
        "matlab": (37.5, 50),
        "matlab_no_absent": (62.5, 25),
        "pytracking_wh_excl": (50, 100 / 3),
    }
    for name, (overlap, failures) in expected.items():
        summary = summarise([score(boxes, None, truth, np.ones(4, bool), name, present=present)])
        assert (summary["AO"], summary["FR"]) == pytest.approx((overlap, failures))


def test_results_that_do_not_fit_are_told():
    truth, ones = np.tile([[10, 10, 20, 20.0]], (8, 1)), np.ones(8, bool)
    for name in ("matlab", "matlab_no_absent", "rgbt_lasher"):
        with pytest.raises(UserError, match=f"7 rows for 8 frames, and protocol '{name}'"):
            score(truth[:7], None, truth, ones, name)
    for box in ([1, 1, -1, 5], [np.nan, 1, 2, 2]):
        with pytest.raises(UserError, match=r"1 box.*frame 7"):
            score([*truth[:7], box], None, truth, ones, "pytracking_wh")
    for name in TWO_TRUTHS:
        with pytest.raises(UserError, match="two annotations per frame"):
            score(truth, None, truth, ones, name)
    assert score(truth, None, truth, ones, "matlab").notes == ()
    assert score(truth[:6], None, truth, ones, "plain").notes == ("6 rows for 8 frames: the rest fails",)
    assert score([*truth, [5, 5, 0, 0]], None, truth, ones, "pytracking_wh").notes == ("9 rows for 8 frames: cut",)
    broken = np.concatenate([truth[:6], truth[6:] * np.nan])
    assert score(broken, None, truth, ones, "matlab").notes == ("2 unusable boxes: the box before them",)
    assert score(broken, None, truth, ones, "plain").notes == ("2 frames without a box: they fail",)
    short = score(truth[:6], None, truth, ones, "rgbt234", aux_truths=truth[:5])
    assert (short.frames, short.success[0]) == (5, 1)
    with pytest.raises(ValueError, match=r"present \(N,\)"):
        score(truth, None, truth, ones, present=ones[1:])
    with pytest.raises(ValueError, match=r"aux_truths \(K, 4\)"):
        score(truth, None, truth, ones, aux_truths=truth[:, :3])


def test_breadth_rewards_what_the_base_trackers_miss():
    good, poor = np.full((3, 21), 1.0), np.full((3, 21), 0.0)
    assert score_breadth(good, [poor, poor]) == 100
    assert score_breadth(good, [good, poor]) == 50
    assert score_breadth(poor, [poor]) == 0
    truth = np.tile([[10, 10, 20, 20.0]], (8, 1))
    run = [score(truth, None, truth, np.ones(8, bool))]
    assert summarise_breadth(run, [run]) == pytest.approx(100 * 20 / 21 * (1 - 20 / 21))
    with pytest.raises(ValueError, match=r"\(3, 21\)"):
        score_breadth(good, [poor[:2]])


def test_catalogue_and_defaults():
    assert set(DEFAULTS) <= set(DATASETS)
    assert all(protocol_of(name) in PROTOCOLS for name in DATASETS)
    assert {name: protocol_of(name) for name in ("visevent", "coesot", "lasher")} == dict.fromkeys(
        ("visevent", "coesot", "lasher"), "matlab"
    )
    assert (protocol_of("fe108"), protocol_of("rgbt234"), protocol_of("got10k")) == ("pytracking_wh", "rgbt234", "plain")
    assert metrics_of("depthtrack") == ("longterm", "ope")
    assert metrics_of("lasher") == ("ope",)
    for name, protocol in PROTOCOLS.items():
        assert name == protocol.name
        assert find_protocol(name) is protocol
        assert protocol.description.endswith(".")
        assert str(protocol.absent).endswith(".")
    assert set(COLUMNS) == set(PROTOCOLS)
