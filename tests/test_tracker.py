"""The online protocol on tiny networks with random weights; the published run is in test_golden.py."""

import dataclasses
import math
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from lively import BOX, clip_of, lively
from torch import Tensor, nn

from mstrack.boxes import clip
from mstrack.data.crops import crop, from_crop
from mstrack.data.sequence import Frame, Sequence
from mstrack.errors import UserError
from mstrack.lockstep import follow
from mstrack.models.blocks import Prediction, normalise
from mstrack.tracker import Tracker, TrackerBatch, hann

LENGTHS = (7, 12, 1, 10, 12)


def track_alone(model: nn.Module, frames: list[Frame], **kwargs: object) -> tuple[np.ndarray, np.ndarray]:
    tracker = Tracker(model, **kwargs)
    tracker.init(frames[0], BOX)
    found = [tracker.update(frame) for frame in frames[1:]]
    return np.array([o.box for o in found]).reshape(-1, 4), np.array([o.score for o in found])


def test_protocol_step_by_step() -> None:
    """The published loop written out for one sequence."""
    model, frames = lively("mst-tiny").eval(), clip_of(0, 8)
    assert not torch.equal(model.blocks_rgb[0].attn.qkv.weight, model.blocks_aux[0].attn.qkv.weight)

    def images(frame: Frame, box: np.ndarray, factor: float, size: int) -> tuple[Tensor, float]:
        cut = [crop(image, box, factor, size) for image in (frame.rgb, frame.aux)]
        return normalise(torch.from_numpy(np.stack([c.image for c in cut])).permute(0, 3, 1, 2))[None], cut[0].scale

    box, expected, scores = np.array(BOX), [], []
    template, _ = images(frames[0], box, 2.0, 32)
    for frame in frames[1:]:
        search, scale = images(frame, box, 4.0, 64)
        with torch.no_grad():
            maps = model(template, search)
        response = (maps.score * hann(8))[0, 0].numpy()
        row, column = np.unravel_index(response.argmax(), response.shape)
        (ox, oy), (w, h) = maps.offset[0, :, row, column].tolist(), maps.size[0, :, row, column].tolist()
        box = clip(from_crop([(column + ox) / 8, (row + oy) / 8, w, h], box, scale, 64), *frame.rgb.shape[:2], margin=10)
        expected.append(box)
        scores.append(response.max())
    found, confidence = track_alone(model, frames)
    np.testing.assert_allclose(found, expected, atol=1e-3)
    np.testing.assert_allclose(confidence, scores, atol=1e-6)
    assert np.ptp(found[:, :2], axis=0).min() > 5, "the boxes must move for this to say anything"


@pytest.mark.parametrize("name", ["ostrack-tiny", "mst-tiny"])
def test_lock_step_gives_the_boxes_of_one_at_a_time(name: str) -> None:
    model = lively(name)
    clips = [clip_of(seed, length) for seed, length in enumerate(LENGTHS)]
    batch = TrackerBatch(model)
    batch.init([frames[0] for frames in clips], np.tile(BOX, (len(clips), 1)))
    found: list[list[np.ndarray]] = [[] for _ in clips]
    scores: list[list[float]] = [[] for _ in clips]
    for step in range(1, max(LENGTHS)):
        active = np.flatnonzero(np.array(LENGTHS) > step)
        boxes, confidence = batch.update([clips[i][step] for i in active], active)
        for i, box, score in zip(active, boxes, confidence, strict=True):
            found[i].append(box)
            scores[i].append(score)
    for frames, boxes, confidence in zip(clips, found, scores, strict=True):
        alone, alone_scores = track_alone(model, frames)
        np.testing.assert_allclose(np.array(boxes).reshape(-1, 4), alone, atol=0.01)
        np.testing.assert_allclose(confidence, alone_scores, atol=1e-5)


def write_sequence(folder: Path, frames: list[Frame], truth: tuple[float, ...] = BOX) -> Sequence:
    folder.mkdir()
    files: dict[str, list[Path]] = {"rgb": [], "aux": []}
    for t, frame in enumerate(frames):
        for kind, image in (("rgb", frame.rgb), ("aux", frame.aux)):
            files[kind].append(folder / f"{kind}{t}.png")
            cv2.imwrite(str(files[kind][-1]), image[..., ::-1])
    boxes = np.full((len(frames), 4), np.nan)
    boxes[0] = truth
    valid = np.isfinite(boxes).all(1)
    return Sequence(folder.name, tuple(files["rgb"]), boxes, valid, tuple(files["aux"]), "thermal")


def test_follow_walks_along_whole_sequences(tmp_path: Path) -> None:
    model = lively("mst-tiny")
    clips = [clip_of(seed, length) for seed, length in enumerate(LENGTHS)]
    sequences = [write_sequence(tmp_path / f"clip{i}", frames) for i, frames in enumerate(clips)]
    ended = []
    for sequence, track in follow(model, sequences, batch=3):
        ended.append(sequence.name)
        boxes, scores = track_alone(model, clips[sequences.index(sequence)])
        np.testing.assert_array_equal(track.boxes[0], BOX)
        np.testing.assert_allclose(track.boxes[1:], boxes, atol=0.01)
        np.testing.assert_allclose(track.confidence, [1, *scores], atol=1e-5)
    assert sorted(ended) == [s.name for s in sequences]
    assert ended.index("clip3") < ended.index("clip1"), "a sequence is given out when it ends, not with its group"


def test_few_sequences_are_read_several_frames_ahead(tmp_path: Path) -> None:
    meeting = threading.Barrier(3)

    class Meeting(Sequence):
        """Three of its frames come only when they are read at the same time."""

        def frame(self, index: int) -> Frame:
            if 1 <= index <= 3:
                meeting.wait(timeout=60)
            return super().frame(index)

    written = write_sequence(tmp_path / "clip", clip_of(0, 7))
    sequence = Meeting(*(getattr(written, field.name) for field in dataclasses.fields(written)))
    model = lively("mst-tiny")
    (_, ahead), (_, plainly) = next(follow(model, [sequence], batch=1)), next(follow(model, [written], batch=8))
    np.testing.assert_array_equal(ahead.boxes, plainly.boxes)


def test_a_sequence_takes_the_place_of_one_that_ended(tmp_path: Path) -> None:
    model = lively("ostrack-tiny")
    sequences = [write_sequence(tmp_path / f"{seed}", clip_of(seed, length)) for seed, length in enumerate((4, 12, 4, 4))]
    seen = record_inputs(model)
    tracks = {sequence.name: track for sequence, track in follow(model, sequences, batch=2)}
    assert len(seen) == 11, "the three short ones fit beside the long one"
    for sequence in sequences:
        assert sequence.name in tracks
        alone = track_alone(model, [sequence.frame(i) for i in range(len(sequence))])[0]
        np.testing.assert_allclose(tracks[sequence.name].boxes[1:], alone, atol=0.01)


def test_a_new_sequence_leaves_the_others_alone() -> None:
    model, clips = lively("mst-tiny"), [clip_of(seed, 7) for seed in (0, 1, 2)]
    batch = TrackerBatch(model, missing="zero")
    batch.init([clips[0][0], Frame(clips[1][0].rgb)], [BOX, BOX])
    found = [batch.update([clips[0][1], clips[1][1]])[0][0]]
    batch.init([clips[2][0]], [BOX], ["the third"], [1])
    assert batch.lacking == [[], []]
    both = [batch.update([clips[2][i - 1], clips[0][i]], [1, 0])[0] for i in range(2, 5)]
    np.testing.assert_allclose([*found, *(pair[1] for pair in both)], track_alone(model, clips[0][:5])[0], atol=0.01)
    np.testing.assert_allclose([pair[0] for pair in both], track_alone(model, clips[2][:4])[0], atol=0.01)


def test_the_clock_parts_the_seconds() -> None:
    tracker, frames = TrackerBatch(lively("mst-tiny")), clip_of(0, 4)
    tracker.init(frames[:1], [BOX])
    for frame in frames[1:]:
        tracker.update([frame])
    clock = tracker.clock
    assert clock.frames == 3
    assert 0 < clock.decoding < clock.seconds
    assert clock.cropping > 0
    assert clock.fps == 3 / clock.seconds


def test_follow_names_the_sequence(tmp_path: Path) -> None:
    sequences = [write_sequence(tmp_path / name, clip_of(0, 3)) for name in ("good", "bad")]
    sequences[1].boxes[0] = np.nan
    with pytest.raises(UserError, match=r"sequence 'bad': the box is .* expected four finite numbers"):
        list(follow(lively("mst-tiny"), sequences))


def record_inputs(model: nn.Module) -> list[tuple[Tensor, Tensor]]:
    """What the network is fed from now on."""
    seen: list[tuple[Tensor, Tensor]] = []
    model.register_forward_pre_hook(lambda _, arguments: seen.append(arguments))
    return seen


def test_a_missing_modality_is_zeros_after_normalisation() -> None:
    model, frames = lively("mst-tiny"), clip_of(1, 4)
    seen = record_inputs(model)
    track_alone(model, [Frame(f.rgb) for f in frames], missing="zero")
    batch = TrackerBatch(model, missing="zero")
    batch.init(frames[:2], [BOX, BOX])
    batch.update([frames[2], Frame(frames[3].rgb)])
    for template, search in seen[:3]:
        assert not template[:, 1].any()
        assert not search[:, 1].any()
        assert search[:, 0].any()
    assert [bool(x.any()) for x in seen[-1][1][:, 1]] == [True, False]
    assert batch.lacking == [[], [1]]


def test_a_missing_modality_is_an_error_unless_a_policy_says_otherwise() -> None:
    model, frames = lively("mst-tiny"), clip_of(1, 3)
    tracker = TrackerBatch(model)
    with pytest.raises(UserError, match=r"sequence 'walk', frame 0: no aux image is given.*zero, copy or last"):
        tracker.init([Frame(frames[0].rgb)], [BOX], ["sequence 'walk'"])
    tracker.init(frames[:1], [BOX], ["sequence 'walk'"])
    tracker.update(frames[1:2])
    with pytest.raises(UserError, match=r"sequence 'walk', frame 2: thermal frame x\.png does not exist"):
        tracker.update([Frame(frames[2].rgb, lacking="thermal frame x.png does not exist")])
    with pytest.raises(UserError, match="Did you mean 'copy'"):
        TrackerBatch(model, missing="cpy")


def test_a_missing_modality_is_copied_or_the_last_one() -> None:
    model, frames = lively("mst-tiny"), clip_of(1, 4)
    holes = [frames[0], Frame(frames[1].rgb), frames[2], Frame(frames[3].rgb)]
    copied = track_alone(model, holes, missing="copy")
    alone = track_alone(model, [Frame(f.rgb, f.rgb if f.aux is None else f.aux) for f in holes])
    np.testing.assert_array_equal(copied[0], alone[0])
    last = track_alone(model, holes, missing="last")
    alone = track_alone(model, [Frame(f.rgb, frames[i // 2 * 2].aux) for i, f in enumerate(frames)])
    np.testing.assert_array_equal(last[0], alone[0])
    seen = record_inputs(model)
    track_alone(model, [Frame(f.rgb) for f in frames[:2]], missing="last")
    assert not seen[0][1][:, 1].any(), "before the first image of a modality there is no last one"


def test_a_network_of_one_modality_ignores_the_second() -> None:
    model = lively("ostrack-tiny")
    with_aux, without = clip_of(2, 6), clip_of(2, 6, aux=False)
    np.testing.assert_array_equal(track_alone(model, with_aux)[0], track_alone(model, without)[0])


def test_the_template_is_the_first_frame_for_ever() -> None:
    model, frames = lively("ostrack-tiny"), clip_of(3, 5)
    templates: list[Tensor] = []
    model.register_forward_pre_hook(lambda _, arguments: templates.append(arguments[0]))
    track_alone(model, frames)
    assert len(templates) == 4
    assert all(torch.equal(t, templates[0]) for t in templates)


class Fixed(nn.Module):
    """A network that always says the same: a high peak at the border, a lower one in the middle."""

    template_size, search_size, template_factor, search_factor, stride, modalities = 32, 64, 2.0, 4.0, 8, 1

    def __init__(self, size: float = 0.25) -> None:
        super().__init__()
        score = torch.full((1, 1, 8, 8), 0.01)
        score[0, 0, 0, 0], score[0, 0, 4, 4] = 0.9, 0.5
        self.score = nn.Parameter(score)
        self.size = size

    def forward(self, template: Tensor, search: Tensor) -> Prediction:
        maps = torch.zeros(len(search), 2, 8, 8)
        return Prediction(self.score.expand(len(search), -1, -1, -1), maps + self.size, maps)


def test_the_window_decides_between_peaks() -> None:
    image = Frame(np.zeros((200, 200, 3), dtype=np.uint8))
    start, middle, border = (80, 80, 40, 40), (80, 80, 40, 40), (0, 0, 40, 40)
    for window, box, score in ((1.0, middle, 0.5 * float(hann(8)[4, 4])), (0.0, border, 0.9)):
        tracker = Tracker(Fixed(), window=window)
        tracker.init(image, start)
        found = tracker.update(image)
        np.testing.assert_allclose(found.box, box, atol=1e-4)
        assert found.score == pytest.approx(score, abs=1e-6)
    with pytest.raises(UserError, match=r"window is 1\.5"):
        Tracker(Fixed(), window=1.5)


def test_the_box_stays_in_the_image() -> None:
    image = Frame(np.zeros((100, 100, 3), dtype=np.uint8))
    tracker = Tracker(Fixed(size=1e-4), window=0.0)
    tracker.init(image, (0, 0, 30, 30))
    for _ in range(3):
        np.testing.assert_array_equal(tracker.update(image).box, (0, 0, 10, 10))


def test_numbers_that_are_not_finite_are_an_error() -> None:
    model, frames = lively("ostrack-tiny"), clip_of(4, 3)
    with torch.no_grad():
        model.norm.weight.fill_(math.nan)
    tracker = TrackerBatch(model)
    tracker.init(frames[:2], [BOX, BOX], ["first", "second"])
    with pytest.raises(UserError, match="first, second: the network's output is not finite"):
        tracker.update(frames[1:])


def test_half_precision_stays_close() -> None:
    model, frames = lively("mst-tiny"), clip_of(5, 2)
    full, half = (track_alone(model, frames, precision=p) for p in ("fp32", "bf16"))
    assert not np.array_equal(full[1], half[1])
    np.testing.assert_allclose(half[1], full[1], atol=0.05)
    with pytest.raises(UserError, match="unknown precision 'fp16'"):
        Tracker(model, precision="fp16")


@pytest.mark.parametrize(
    ("box", "says"),
    [
        ((300, 20, 10, 10), "lies outside the image of 120 x 90 pixels"),
        ((30, 20, 1e6, 10), "more than 20 times as large as the image of 120 x 90 pixels"),
        ((30, 20, 1e300, 1e300), "more than 20 times as large"),
        ((-20, 20, 20, 10), "lies outside"),
        ((10, 90, 20, 10), "lies outside"),
        ((10, 20, 0, 10), "has no size"),
        ((10, 20, 10, -5), "has no size"),
        ((10, math.nan, 10, 5), "expected four finite numbers"),
        ((10, 20, math.inf, 5), "expected four finite numbers"),
        ((10, 20, 5), "expected four finite numbers"),
        ((10, 20, 5, 5, 5), "expected four finite numbers"),
        ("box", "expected four finite numbers"),
        (None, "expected four finite numbers"),
    ],
)
def test_a_box_that_cannot_be_is_refused(box: object, says: str) -> None:
    with pytest.raises(UserError, match=says):
        Tracker(Fixed()).init(Frame(np.zeros((90, 120, 3), dtype=np.uint8)), box)


def test_a_box_may_reach_over_the_border() -> None:
    frame = Frame(np.zeros((90, 120, 3), dtype=np.uint8))
    tracker = Tracker(Fixed())
    tracker.init(frame, (110, -10, 30, 20))
    assert np.isfinite(tracker.update(frame).box).all()


@pytest.mark.parametrize(
    ("frame", "says"),
    [
        (np.zeros((90, 120, 3), dtype=np.uint8), r"a ndarray was given, expected mstrack\.Frame"),
        (Frame(np.zeros((90, 120, 3), dtype=np.float32)), r"rgb is float32 \(90, 120, 3\), expected an H x W x 3 uint8"),
        (Frame(np.zeros((90, 120), dtype=np.uint8)), r"rgb is uint8 \(90, 120\)"),
        (Frame(np.zeros((90, 120, 4), dtype=np.uint8)), r"rgb is uint8 \(90, 120, 4\)"),
        (Frame(None), "rgb is NoneType"),  # type: ignore[arg-type]
        (Frame(np.zeros((90, 120, 3), np.uint8), np.zeros((90, 120), np.uint8)), r"aux is uint8 \(90, 120\)"),
        (Frame(np.zeros((90, 120, 3), np.uint8), np.zeros((45, 60, 3), np.uint8)), "differ in size, 120 x 90 and 60 x 45"),
    ],
)
def test_an_image_that_cannot_be_is_refused(frame: Frame, says: str) -> None:
    good = Frame(np.zeros((90, 120, 3), dtype=np.uint8))
    tracker = Tracker(Fixed())
    with pytest.raises(UserError, match=says):
        tracker.init(frame, (10, 20, 30, 30))
    tracker.init(good, (10, 20, 30, 30))
    with pytest.raises(UserError, match=says):
        tracker.update(frame)


def test_order_and_counts_are_checked() -> None:
    frame = Frame(np.zeros((90, 120, 3), dtype=np.uint8))
    with pytest.raises(UserError, match=r"started with init\(\)"):
        Tracker(Fixed()).update(frame)
    batch = TrackerBatch(Fixed())
    with pytest.raises(UserError, match="2 frames, 1 boxes"):
        batch.init([frame, frame], [(1, 2, 30, 40)])
    batch.init([frame, frame], [(1, 2, 30, 40)] * 2)
    with pytest.raises(UserError, match="1 frames for 2"):
        batch.update([frame])


def test_a_start_that_is_refused_changes_nothing() -> None:
    model, (first, *rest) = lively("mst-tiny").eval(), clip_of(0, 4)
    tracker = Tracker(model, missing="last")
    for box, says in (((500, 500, 3, 3), "outside the image"), ((1, 2, 3), "four finite numbers")):
        with pytest.raises(UserError, match=says):
            tracker.init(first, box)
        with pytest.raises(UserError, match=r"started with init\(\)"):
            tracker.update(first)
    tracker.init(first, BOX)
    found = []
    for frame in rest:
        with pytest.raises(UserError, match="expected an H x W x 3 uint8"):
            tracker.update(Frame(frame.rgb[..., 0]))
        with pytest.raises(UserError, match="has no size"):
            tracker.init(frame, (5, 5, 0, 3))
        found.append(tracker.update(frame).box)
    assert np.array_equal(found, track_alone(model, [first, *rest])[0])
