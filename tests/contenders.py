"""Trackers and sequences for tests of comparisons, with names that nobody should trust."""

from pathlib import Path

import cv2
import numpy as np

from mstrack.compare.standings import Standings, rank
from mstrack.data.sequence import Sequence
from mstrack.data.truths import Truth
from mstrack.metrics.ope import SequenceScore, summarise
from mstrack.rawresults import RawResults
from mstrack.results import Track
from mstrack.scoring import Scored, score_results

HOSTILE = "<script>window.hacked = 1</script>"
LONG = "good" + "_long" * 60
NASTY = [LONG, HOSTILE, "\"><img src=x onerror='window.hacked=1'>", "</script><b>&amp;'\\", "$\\alpha_{1}% ünï"]
COUNT, FRAMES = 16, 40


def make_truths(count=COUNT, frames=FRAMES) -> list[Truth]:
    names = [HOSTILE, 'it\'s "quoted" </script>', *(f"clip_{i:02d}" for i in range(2, count))]
    boxes = np.tile([20.0, 20, 16, 16], (frames, 1))
    boxes[:, 0] += np.arange(frames) % 30
    present = np.arange(frames) % 17 != 5
    tags = [
        tuple(tag for tag, every in (("LI", 1), ("low_light", 2), (HOSTILE, 3), ("FM", 5)) if not i % every)
        for i in range(count)
    ]
    return [
        Truth(name, boxes + np.array([0, i % 7, 0, 0]), present & ((i != 2) | (np.arange(frames) > 0)), None, tag)
        for i, (name, tag) in enumerate(zip(names, tags, strict=True))
    ]


def make_scored(name, truths, error, seed=0, only=None, protocol="matlab", long_term=False) -> Scored:
    """Boxes that are off by `error` pixels on average, more so on the later sequences; never on the target of the third."""
    rng = np.random.default_rng(seed)
    tracks = {}
    for i, truth in enumerate(truths[:only]):
        boxes = truth.boxes + np.concatenate(
            [error + 0.4 * i + rng.normal(0, 2, (len(truth.boxes), 2)), np.zeros((len(truth.boxes), 2))], 1
        )
        boxes[:, 0] += 500.0 * (i == 2)
        tracks[truth.name] = Track(boxes, np.ones(len(boxes)))
    return score_results(RawResults(name, tracks, "boxes"), truths, protocol, long_term)


def make_standings(truths: list[Truth]) -> Standings:
    errors = zip(NASTY, (2, 0, 6, 4, 2), strict=True)
    return rank([make_scored(name, truths, e, seed) for seed, (name, e) in enumerate(errors)], truths, "lasher", "matlab")


def make_frames(folder: Path, truths: list[Truth]) -> list[Sequence]:
    folder.mkdir(exist_ok=True)
    files = []
    for t in range(FRAMES):
        image = np.full((72, 96, 3), 5 * t, np.uint8)
        image[:8] = 255
        cv2.imwrite(str(folder / f"{t}.png"), image)
        files.append(folder / f"{t}.png")
    return [Sequence(truth.name, files, truth.boxes, truth.present, files, "thermal") for truth in truths]


def make_large(trackers: int, sequences: int, frames: int) -> Standings:
    rng = np.random.default_rng(0)
    boxes = np.tile([100.0, 100, 40, 40], (frames, 1))
    attributes = [f"A{i:02d}" for i in range(19)]
    truths = [
        Truth(f"some_rather_long_sequence_{i}", boxes, None, None, tuple(a for a in attributes if rng.random() < 0.3))
        for i in range(sequences)
    ]
    results = []
    for k in range(trackers):
        scores, tracks = {}, {}
        for truth in truths:
            iou = rng.uniform(0, 1, frames)
            curves = [np.sort(rng.uniform(0, 1, n)) for n in (21, 51, 51)]
            scores[truth.name] = SequenceScore(curves[0][::-1], curves[1], curves[2], frames, iou, "plain")
            tracks[truth.name] = Track(boxes + rng.normal(0, 9, boxes.shape), np.ones(frames))
        results.append(Scored(f"tracker {k}", scores, summarise(list(scores.values())), tracks, []))
    return rank(results, truths, "lasher", "plain")
