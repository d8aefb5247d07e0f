import json
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mstrack.data.truths import load_truths
from mstrack.errors import UserError
from mstrack.metrics.longterm import (
    MEASURES,
    choose_thresholds,
    overlap_pixels,
    per_sequence,
    score,
    summarise,
    trace,
)
from mstrack.rawresults.export import export_paths
from mstrack.results import Track, write_track
from mstrack.scoring import score_paths

ORACLE = Path(__file__).parents[2] / "shared" / "oracle"
GOLDEN = json.loads((Path(__file__).parent / "golden_longterm.json").read_text())
SIZE = (160, 120)


def make_sequences(seed, lengths):
    """Seeded RGB-D sequences and a tracker's answers: absent stretches, frames without an answer, tied confidences.

    Boxes have two decimals and confidences one, so that text files hold them exactly. Frame 0 has no box, as in the
    toolkit's own files.
    """
    rng = np.random.default_rng(seed)
    made = {}
    for index, length in enumerate(lengths):
        sides = rng.uniform(8, 50, (length, 2))
        centres = np.cumsum(rng.normal(0, 4, (length, 2)), axis=0) + np.array(SIZE) / 2
        truths = np.round(np.concatenate([centres - sides / 2, sides], axis=1), 2)
        boxes = np.round(truths + rng.normal(0, 6, truths.shape) * rng.integers(0, 3, (length, 1)), 2)
        boxes[:, 2:] = np.maximum(boxes[:, 2:], 0)
        start = length // 3 + index
        truths[start : start + 3 * index] = np.nan
        boxes[rng.random(length) < 0.1] = np.nan
        boxes[start : start + index] = np.nan
        boxes[0] = np.nan
        made[f"seq{index}"] = (boxes, np.round(rng.beta(4, 2, length), 1), truths)
    return made


def write_workspace(folder, sequences):
    """A workspace of the VOT toolkit with these sequences and results, as the golden file describes."""
    experiment = {"type": "unsupervised", "repetitions": 1, "analyses": [{"type": "average_tpr"}, {"type": "pr_curve"}]}
    stack = {"title": "golden", "dataset": None, "experiments": {"rgbd-unsupervised": experiment}}
    folder.mkdir(parents=True)
    (folder / "stack.yaml").write_text(json.dumps(stack))
    (folder / "config.yaml").write_text(json.dumps({"stack": str(folder / "stack.yaml"), "registry": ["./trackers.ini"]}))
    (folder / "trackers.ini").write_text("[golden]\nlabel = golden\nprotocol = traxpython\ncommand = none\n")
    (folder / "sequences").mkdir()
    (folder / "sequences" / "list.txt").write_text("\n".join(sequences) + "\n")
    for name, (boxes, confidence, truths) in sequences.items():
        sequence, results = folder / "sequences" / name, folder / "results" / "golden" / "rgbd-unsupervised" / name
        (sequence / "color").mkdir(parents=True)
        results.mkdir(parents=True)
        for frame in range(1, len(truths) + 1):
            cv2.imwrite(str(sequence / "color" / f"{frame:08d}.jpg"), np.zeros((SIZE[1], SIZE[0], 3), np.uint8))
        (sequence / "sequence").write_text("channels.color=color/%08d.jpg\nfps=30\nformat=default\n")
        (sequence / "groundtruth.txt").write_text("".join(",".join(map(repr, row)) + "\n" for row in truths.tolist()))
        lines = ["1", *(",".join(map(repr, row)) for row in boxes[1:].tolist())]
        (results / f"{name}_001.txt").write_text("\n".join(lines) + "\n")
        (results / f"{name}_001_confidence.value").write_text("".join(f"{value!r}\n" for value in confidence.tolist()))


def make_pairs(seed, count):
    """Boxes and truths over and beyond the image, with empty, thin, inverted and half-pixel ones."""
    rng = np.random.default_rng(seed)
    pairs = []
    for _ in range(2):
        boxes = np.round(np.concatenate([rng.uniform(-30, 180, (count, 2)), rng.uniform(-4, 60, (count, 2))], axis=1) * 2) / 2
        boxes[rng.random(count) < 0.2, 2] = 1
        boxes[rng.random(count) < 0.1] = np.nan
        pairs.append(boxes)
    near = rng.random(count) < 0.6
    pairs[0][near] = pairs[1][near] + np.round(rng.normal(0, 4, (near.sum(), 4)), 1)
    return pairs


def score_all(sequences, size=SIZE):
    return [score(boxes, sure, truths, np.ones(len(truths), bool), size=size) for boxes, sure, truths in sequences.values()]


@pytest.mark.parametrize("case", GOLDEN["cases"])
def test_equals_the_vot_toolkit(case):
    golden = GOLDEN["cases"][case]
    summary = summarise(score_all(make_sequences(golden["seed"], golden["lengths"])))
    assert {name: round(value, 4) for name, value in summary.items()} == {m: round(golden[m], 4) for m in MEASURES}
    recall, precision = np.transpose(golden["curve"])
    np.testing.assert_allclose(summary.recall, recall, atol=1e-8)
    np.testing.assert_allclose(summary.precision, precision, atol=1e-8)


@pytest.mark.parametrize("case", GOLDEN["cases"])
def test_every_form_of_a_result_is_scored_as_the_vot_toolkit_scores_its_own(case, tmp_path):
    golden = GOLDEN["cases"][case]
    sequences = make_sequences(golden["seed"], golden["lengths"])
    write_workspace(tmp_path / "workspace", sequences)
    official, ours = tmp_path / "workspace" / "results" / "golden", tmp_path / "ours"
    for name, (boxes, confidence, truths) in sequences.items():
        boxes, confidence = boxes.copy(), confidence.copy()
        boxes[0], confidence[0] = truths[0], 1  # what `mst eval` stores of the box that is given
        write_track(ours, name, Track(boxes, confidence))
    root = tmp_path / "workspace" / "sequences"
    truths = load_truths("vot-rgbd", root=root)

    def scores(folder, against=truths):
        (found,) = score_paths([folder], against, "vot-rgbd")
        return found

    def rounded(found):
        return {name: round(found[name], 4) for name in MEASURES}

    assert rounded(scores(official).percent) == rounded(golden)
    assert rounded(scores(ours).percent) == rounded(golden["unsaid"])
    export_paths([ours], "vot-rgbd", tmp_path / "exported", root=root)
    for folder in (tmp_path / "exported", official):
        for file in folder.rglob("*_confidence.value"):
            assert folder == official or file.read_text().startswith("\n")
            file.write_text("\n" + file.read_text().split("\n", 1)[1])
        assert rounded(scores(folder).percent) == rounded(golden["unsaid"])

    annotations = tmp_path / "annotations"
    for name in sequences:
        (annotations / name).mkdir(parents=True)
        (root / name / "groundtruth.txt").rename(annotations / name / "groundtruth.txt")
    unsized = scores(ours, load_truths("vot-rgbd", "all", annotations))
    if case == "many":  # no box of the other one reaches beyond its images where it matters
        assert unsized.percent["F"] != pytest.approx(golden["unsaid"]["F"])
    assert any("boxes are not cut to the images in" in note for note in unsized.notes)
    sized = load_truths("vot-rgbd", "all", annotations, size=SIZE)
    assert rounded(scores(ours, sized).percent) == rounded(golden["unsaid"])


def test_overlaps_equal_the_vot_toolkit():
    golden = GOLDEN["overlaps"]
    boxes, truths = make_pairs(golden["seed"], golden["count"])
    np.testing.assert_allclose(overlap_pixels(boxes, truths, SIZE), golden["values"], atol=1e-8)


def overlap_by_pixels(box, truth, size):
    """Two masks of whole pixels, cut to the image."""
    masks = []
    for x, y, w, h in (box, truth):
        rows, columns = np.mgrid[: size[1], : size[0]]
        masks.append((columns >= x) & (columns < x + w) & (rows >= y) & (rows < y + h))
    union = (masks[0] | masks[1]).sum()
    return (masks[0] & masks[1]).sum() / union if union else 0.0


def test_overlaps_equal_masks():
    rng = np.random.default_rng(6)
    boxes, truths = (np.concatenate([rng.integers(-9, 35, (300, 2)), rng.integers(2, 20, (300, 2))], 1) for _ in range(2))
    slow = [overlap_by_pixels(b, t, (32, 24)) for b, t in zip(boxes, truths, strict=True)]
    cut = overlap_pixels(boxes.astype(float), truths.astype(float), (32, 24))
    thin = np.minimum(boxes[:, 0], truths[:, 0]) >= 31
    thin |= np.minimum(boxes[:, 1], truths[:, 1]) >= 23
    thin |= (np.maximum(boxes + np.roll(boxes, 2, 1), truths + np.roll(truths, 2, 1))[:, :2] <= 1).any(1)
    np.testing.assert_allclose(cut[~thin], np.array(slow)[~thin])


def summarise_by_loops(scores, resolution):
    """Thresholds, precision and recall one threshold and one sequence at a time."""
    pooled = sorted((c for s in scores for c in s.confidence if not np.isnan(c)), reverse=True)
    if len(pooled) > resolution - 2:
        step = len(pooled) // (resolution - 2)
        pooled = [pooled[int(np.round(i))] for i in np.linspace(step, len(pooled) - step, resolution - 2)]
    rows = []
    for threshold in [np.inf, *pooled, -np.inf]:
        pairs = []
        for s in scores:
            sure = [o for o, c in zip(s.overlap, s.confidence, strict=True) if c >= threshold]
            pairs.append((np.mean(sure) if sure else 1.0, sum(sure) / s.visible))
        p, r = np.mean(pairs, axis=0)
        rows.append((p, r, 2 * p * r / (p + r) if p + r else 0.0))
    return np.transpose(rows)


@given(st.integers(0, 10**6), st.lists(st.integers(5, 50), min_size=1, max_size=4), st.sampled_from([5, 20, 100]))
def test_summary_equals_its_definition(seed, lengths, resolution):
    scores = score_all(make_sequences(seed, lengths))
    scores[0].confidence[3:5] = np.nan
    summary = summarise(scores, resolution)
    precision, recall, f = summarise_by_loops(scores, resolution)
    np.testing.assert_allclose(summary.precision, precision, atol=1e-12)
    np.testing.assert_allclose(summary.recall, recall, atol=1e-12)
    assert summary["F"] == pytest.approx(100 * f.max())
    each = per_sequence(scores, resolution)
    assert each["Pr"].mean() == pytest.approx(summary["Pr"])
    assert each["Re"].mean() == pytest.approx(summary["Re"])


def test_laws():
    truths = np.tile([[20, 20, 30, 40.0]], (10, 1))
    truths[6:8] = np.nan
    sure = np.linspace(0.9, 0.1, 10)
    perfect = summarise([score(truths, sure, truths, np.ones(10, bool))])
    assert dict(perfect) == pytest.approx({"F": 100 * 2 * 1.25 / 2.25, "Pr": 100, "Re": 125})

    boxes = np.where(np.isnan(truths), 20.0, truths)
    hidden = np.where(np.isnan(truths[:, 0]), 0.0, sure)
    assert summarise([score(boxes, hidden, truths, np.ones(10, bool))])["F"] == pytest.approx(100)
    never = summarise([score(boxes, sure, truths, np.ones(10, bool))])
    assert never["F"] < 100

    monotone = score_all(make_sequences(3, [40, 50]))
    recall = trace(monotone, choose_thresholds(np.concatenate([s.confidence for s in monotone])))[1]
    assert (np.diff(recall, axis=1) >= 0).all()
    shifted = summarise([type(s)(s.overlap, 3 * s.confidence - 1, s.visible) for s in monotone])
    assert dict(shifted) == pytest.approx(dict(summarise(monotone)))


def test_sequences_without_a_target_and_calls_without_confidence():
    truth = np.tile([[20, 20, 30, 40.0]], (6, 1))
    seen = score(truth, None, truth, np.ones(6, bool))
    gone = score(truth, np.ones(8), truth, np.zeros(6, bool))
    assert dict(summarise([seen, gone])) == pytest.approx({"F": 100, "Pr": 100, "Re": 100})
    assert summarise([seen, gone]).sequences == 1
    assert np.isnan(per_sequence([seen, gone])["F"][1])
    assert np.isnan(summarise([])["F"])
    assert np.isnan(summarise([gone])["Pr"])


def test_bad_calls_are_refused():
    truth = np.ones((3, 4))
    with pytest.raises(UserError, match="2 boxes and 3 confidences for 3 frames"):
        score(truth[:2], np.ones(3), truth, np.ones(3, bool))
    with pytest.raises(UserError, match="3 boxes and 2 confidences"):
        score(truth, np.ones(2), truth, np.ones(3, bool))
    with pytest.raises(ValueError, match="got \\(3, 4\\) and \\(3, 1\\)"):
        score(truth, np.ones((3, 1)), truth, np.ones(3, bool))
    with pytest.raises(ValueError, match=r"valid \(N,\)"):
        score(truth, np.ones(3), truth, np.ones(2, bool))


@pytest.mark.skipif(not ORACLE.is_dir(), reason="the oracle folder ../shared/oracle is not here")
def test_published_depthtrack_results_against_themselves():
    lengths = [line.split(",")[:2] for line in (ORACLE / "depthtrack" / "first_box_and_length.csv").read_text().split()[1:]]
    scores = []
    with zipfile.ZipFile(ORACLE / "depthtrack" / "det_DiMP50_results.zip") as archive:
        for name, length in lengths:
            path = f"DiMP50/{name}/{name}_001"
            boxes = np.loadtxt(archive.read(f"{path}.txt").decode().splitlines(), delimiter=",")
            sure = np.array(archive.read(f"{path}_confidence.value").split(), float)
            assert len(boxes) == len(sure) == int(length)
            scores.append(score(boxes, sure, boxes, np.ones(len(boxes), bool), size=(640, 360)))
    summary = summarise(scores)
    assert (summary.sequences, summary.frames, len(summary.thresholds)) == (50, 76373, 100)
    assert summary["Re"] == pytest.approx(100 * np.mean([(s.overlap > 0).mean() for s in scores]))
    assert summary["F"] > 99
