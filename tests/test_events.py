"""Event recordings to frames: real files, every recipe against plain loops, broken files, resuming, rendering on the fly."""

import dataclasses
import hashlib
import json
import math
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterable
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
import pytest
from commands import mst
from hypothesis import given, settings
from hypothesis import strategies as st

from mstrack.clip import open_clip
from mstrack.data.events import EventFrames, Timing, convert, convert_tree, find_recordings, recording_info, stream
from mstrack.data.events import windows as event_windows
from mstrack.data.events.files import open_recording
from mstrack.data.events.recipes import RECIPES, encode
from mstrack.data.events.types import CameraFrame, DamagedFileError, Events
from mstrack.data.events.windows import EventPicture, paint
from mstrack.errors import DataWarning, UserError

WIDTH, HEIGHT = 12, 9
DAVIS = "oracle/aedat4/davis346_test_data.aedat4"
Rows = list[tuple[int, int, int, bool]]


# ---- fixtures


def random_events(count: int, span: int, seed: int = 0, start: int = 1_000_000) -> Rows:
    rng = np.random.default_rng(seed)
    times = start + np.sort(rng.integers(0, span, count))
    columns = (times, rng.integers(0, WIDTH, count), rng.integers(0, HEIGHT, count), rng.random(count) < 0.5)
    return list(zip(*(column.tolist() for column in columns), strict=True))


def write_npz(path: Path, events: Rows, size: tuple[int, int] | None = (WIDTH, HEIGHT), **more: Any) -> Path:
    t, x, y, p = (np.array([event[column] for event in events], np.int64) for column in range(4))
    named = {} if size is None else {"width": size[0], "height": size[1]}
    np.savez(path, **{"t": t, "x": x, "y": y, "p": p, **named, **more})
    return path


def write_times(path: Path, rows: Iterable[Iterable[int]]) -> Path:
    path.write_text("".join(",".join(map(str, row)) + "\n" for row in rows))
    return path


def write_aedat4(path: Path, events: Rows, frames: list[tuple[int, int]], *, packet: int = 50, late: bool = False) -> Path:
    """Frames are (start, length of the exposure); uncompressed, so that a test can find its numbers in the file."""
    dv = pytest.importorskip("dv_processing")
    config = dv.io.MonoCameraWriter.Config("test")
    config.compression = dv.CompressionType.NONE
    config.addEventStream((WIDTH, HEIGHT))
    config.addFrameStream((WIDTH, HEIGHT))
    writer = dv.io.MonoCameraWriter(str(path), config)

    moments = [(math.inf if late else start, (start, exposure)) for start, exposure in frames]
    packets = [(part[0][0], part) for first in range(0, len(events), packet) if (part := events[first : first + packet])]
    for _, item in sorted([*moments, *packets], key=lambda entry: entry[0]):
        if isinstance(item, list):
            writer.writeEventPacket(dv.EventPacket(dv.EventPacket.EventVector([dv.Event(*event) for event in item])))
        else:
            image = np.full((HEIGHT, WIDTH), item[0] % 251, np.uint8)
            writer.writeFrame(dv.Frame(*item, 0, 0, image, dv.FrameSource.SENSOR))
    return path  # the writer is closed here


def read_frames(folder: Path) -> np.ndarray:
    paths = sorted(folder.glob("*.png"))
    assert [path.stem for path in paths] == [f"{index:06d}" for index in range(len(paths))]
    return np.stack([cv2.imread(str(path), cv2.IMREAD_COLOR)[..., ::-1] for path in paths])


def pictures(path: Path, recipe: str, timing: Timing | None = None) -> list[EventPicture]:
    return [item for item in paint(open_recording(path), RECIPES[recipe], timing) if isinstance(item, EventPicture)]


def listing(folder: Path) -> list[str]:
    """Everything below a folder, hidden files as well."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def quietly(act: Callable[[], Any]) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return act()


# ---- the rules, event by event


def slow(recipe: str, events: Rows, begin: int, end: int, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    inside = [event for event in events if begin <= event[0] < end]
    frame = np.full((height, width, 3), 127 if recipe in ("stack3", "voxel") else 255, np.uint8)
    if recipe in ("exposure", "interval"):
        for polarity, colour in ((True, (220, 30, 30)), (False, (30, 30, 200))):
            for _, x, y, on in inside:
                if on == polarity:
                    frame[y, x] = colour
    elif recipe == "stack3":
        edges = np.linspace(begin, end, 4)
        for t, x, y, on in inside:
            channel = max(part for part in range(3) if t >= edges[part])
            frame[y, x, channel] = 0 if on else 255
    else:
        sums: dict[tuple[int, int, int], Fraction] = {}
        for t, x, y, on in inside:
            moment = Fraction(2 * (t - begin), end - begin)
            for tap in range(3):
                weight = max(Fraction(0), 1 - abs(moment - tap))
                sums[y, x, tap] = sums.get((y, x, tap), Fraction(0)) + (weight if on else -weight)
        largest = max(map(abs, sums.values()), default=Fraction(0))
        for place, value in sums.items():
            if largest:
                frame[place] = int(Fraction(255, 2) * (1 + value / largest))
    return frame


def slow_windows(recipe: str, begins: list[int], ends: list[int], last: int) -> list[tuple[int, int]]:
    if recipe == "exposure":
        return list(zip(begins, ends, strict=True))
    gaps = sorted(after - before for before, after in pairwise(begins))
    middle = -(-(gaps[(len(gaps) - 1) // 2] + gaps[len(gaps) // 2]) // 2) if gaps else 10**12
    return list(zip(begins, [*begins[1:], max(begins[-1], min(begins[-1] + middle, last + 1))], strict=True))


EVENT = st.tuples(st.integers(0, 999), st.integers(0, WIDTH - 1), st.integers(0, HEIGHT - 1), st.booleans())


@pytest.mark.parametrize("recipe", RECIPES)
@given(events=st.lists(EVENT, max_size=60), cuts=st.lists(st.integers(0, 60), max_size=3), span=st.integers(1, 1000))
@settings(max_examples=40, deadline=None)
def test_painters_follow_their_rule_in_whatever_pieces(recipe: str, events: Rows, cuts: list[int], span: int) -> None:
    events = sorted((event for event in events if event[0] < span), key=lambda event: event[0])
    painter = RECIPES[recipe].painter(WIDTH, HEIGHT)
    for window in ((0, 5), (7, 7 + span)):  # the second shows that nothing remains of the first
        moved = [(t + window[0], x, y, on) for t, x, y, on in events if t + window[0] < window[1]]
        edges = sorted({0, len(moved), *(cut for cut in cuts if cut <= len(moved))})
        painter.start(*window)
        for first, last in pairwise(edges):
            part = np.array(moved[first:last], np.int64).reshape(-1, 4)
            painter.add(part[:, 0], 2 * (part[:, 2] * WIDTH + part[:, 1]) + part[:, 3])
        image = painter.finish()
        np.testing.assert_array_equal(image, slow(recipe, moved, *window))
        again = cv2.imdecode(np.frombuffer(encode(image, RECIPES[recipe]), np.uint8), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(again[..., ::-1], image)


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("pending", [None, 60])
def test_frames_of_a_recording_follow_their_rule(
    tmp_path: Path, recipe: str, pending: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if pending:  # a recording too dense to wait for the end of a window
        monkeypatch.setattr(event_windows, "MOST_PENDING", pending)
    events = random_events(700, 1000)
    begins = [1_000_100, 1_000_300, 1_000_430, 1_000_431, 1_000_800]
    frames = [(begin, 1 if begin % 2 else 90) for begin in begins]
    windows = slow_windows(recipe, begins, [begin + length for begin, length in frames], events[-1][0])
    expected = [slow(recipe, events, *window) for window in windows]
    path = write_aedat4(tmp_path / "a.aedat4", events, frames)
    late = write_aedat4(tmp_path / "b.aedat4", events, frames, late=True)
    columns = ((begin, begin + length) for begin, length in frames)
    timing = Timing(write_times(tmp_path / "times.txt", columns))
    for painted in (
        pictures(path, recipe),
        pictures(late, recipe),
        pictures(write_npz(tmp_path / "a.npz", events), recipe, timing),
    ):
        np.testing.assert_array_equal([picture.image for picture in painted], expected)
        assert [picture.index for picture in painted] == [0, 1, 2, 3, 4]
        assert [picture.events for picture in painted] == [sum(a <= t < b for t, *_ in events) for a, b in windows]
    convert(path, recipe, tmp_path / "out")
    np.testing.assert_array_equal(read_frames(tmp_path / "out" / f"a_events_{recipe}"), expected)


@pytest.mark.parametrize("pending", [1 << 22, 60])
def test_given_exposures_may_overlap(tmp_path: Path, pending: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_windows, "MOST_PENDING", pending)
    events = random_events(400, 1000)
    windows = [(1_000_000, 1_000_500), (1_000_200, 1_000_250), (1_000_220, 1_000_999)]
    timing = Timing(write_times(tmp_path / "times.txt", windows))
    painted = pictures(write_npz(tmp_path / "a.npz", events), "exposure", timing)
    np.testing.assert_array_equal([picture.image for picture in painted], [slow("exposure", events, *w) for w in windows])


@pytest.mark.parametrize("pending", [1 << 22, 60])
def test_a_rate_places_frames_from_the_first_event_on(tmp_path: Path, pending: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_windows, "MOST_PENDING", pending)
    events = random_events(500, 1_000_000)
    first, last = events[0][0], events[-1][0]
    begins = [first + round(k * 1e6 / 30) for k in range(40)]
    begins = [begin for begin in begins if begin <= last]
    painted = pictures(write_npz(tmp_path / "a.npz", events), "interval", Timing(fps=30))
    expected = [slow("interval", events, *window) for window in slow_windows("interval", begins, [], last)]
    np.testing.assert_array_equal([picture.image for picture in painted], expected)


@pytest.mark.parametrize(
    ("colour", "said"), [(25, "last for 30 frames"), (30, ""), (31, ""), (35, "last colour frames have none")]
)
def test_colour_frames_beside_say_how_many_and_how_large(tmp_path: Path, colour: int, said: str) -> None:
    events = [(1000 + k * 10_000, k % 9, k % 7, True) for k in range(100)]  # 30 frames at 30 per second
    (tmp_path / "rgb").mkdir()
    for index in range(colour):
        cv2.imwrite(str(tmp_path / f"rgb/{index:03d}.png"), np.zeros((20, 30, 3), np.uint8))
    t, x, y, p = zip(*events, strict=True)
    np.savez(tmp_path / "events.npz", t=t, x=x, y=y, p=p)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        done = convert(tmp_path / "events.npz", "interval", timing=Timing(fps=30))
    told = [str(note.message) for note in caught if "blank" not in str(note.message)]
    assert len(told) == bool(said) and all(said in text for text in told)
    assert done.frames == (30 if colour > 31 else colour)
    assert cv2.imread(str(done.folder / "000000.png")).shape == (20, 30, 3)
    assert "frame 0 begins at 1000 us" in str(done)
    assert convert(tmp_path / "events.npz", "interval", timing=Timing(fps=30)) == dataclasses.replace(done, state="kept")
    np.savez(tmp_path / "events.npz", t=t, x=[40] * 100, y=y, p=p)
    with pytest.warns(DataWarning, match=r"41 x 7 pixels taken.*beyond the colour frames of 30 x 20.*`width` and `height`"):
        convert(tmp_path / "events.npz", "interval", timing=Timing(fps=30))


# ---- real recordings


def test_events_and_frames_of_a_real_recording(shared: Path) -> None:
    packets = list(quietly(lambda: list(open_recording(shared / DAVIS).packets())))
    blocks = [packet for packet in packets if isinstance(packet, Events)]
    frames = [packet for packet in packets if isinstance(packet, CameraFrame)]
    t, x, y, on = (np.concatenate(column) for column in zip(*blocks, strict=True))
    assert (len(t), int(on.sum()), int(x.sum()), int(y.sum())) == (78830, 41257, 14861513, 15061593)
    digests = [hashlib.sha3_224(column.astype(kind).tobytes()).hexdigest()[:16] for column, kind in
               ((t, "<u8"), (x, "<u2"), (y, "<u2"), (on, "?"))]  # fmt: skip
    assert digests == ["f1e093cad5afb6ec", "1d8ea97b0febadfd", "18f89da35f8f10b2", "6f99cf01187da8a0"]
    assert len(frames) == 59
    assert frames[0].exposure == (1589163147364965, 1589163147365465)
    assert [int(frame.pixels.sum()) for frame in (frames[0], frames[-1])] == [6949660, 6940332]


def test_intervals_of_a_real_recording_hold_the_counted_events(shared: Path, tmp_path: Path) -> None:
    painted = pictures(shared / DAVIS, "interval")
    assert len(painted) == 59
    assert [picture.events for picture in painted[:6]] == [1061, 1595, 1563, 1568, 1546, 1574]


@pytest.mark.parametrize("recipe", RECIPES)
def test_frames_of_a_real_recording_follow_their_rule(shared: Path, recipe: str) -> None:
    packets = list(open_recording(shared / DAVIS).packets())
    blocks = [packet for packet in packets if isinstance(packet, Events)]
    columns = [np.concatenate(column).tolist() for column in zip(*blocks, strict=True)]
    events = list(zip(*columns, strict=True))
    frames = [packet for packet in packets if isinstance(packet, CameraFrame)]
    starts = [frame.exposure[0] if recipe == "exposure" else frame.begin for frame in frames]
    windows = slow_windows(recipe, starts, [frame.exposure[1] for frame in frames], events[-1][0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore" if recipe == "exposure" else "error", DataWarning)  # its first exposure saw nothing
        painted = pictures(shared / DAVIS, recipe)
    assert len(painted) == 59, "the last frame is not lost"
    for index in (0, 1, 30, 58):
        np.testing.assert_array_equal(painted[index].image, slow(recipe, events, *windows[index], 346, 260))


def test_a_recording_without_frames_needs_their_times(shared: Path, tmp_path: Path) -> None:
    path = shared / "oracle/aedat4/tonic_sample.aedat4"
    info = recording_info(path)
    assert (info.events, info.frames, info.width, info.height) == (111954, 0, 320, 240)
    assert str(info).startswith("tonic_sample.aedat4: 320 x 240 pixels, 111954 events and 0 frames in 0.59 s, streams events")
    with pytest.raises(UserError, match=r"no frames, only events, imus, triggers.*--times.*--fps"):
        convert(path, "interval", tmp_path)
    assert listing(tmp_path) == []
    done = convert(path, "interval", tmp_path, timing=Timing(fps=25))
    assert (done.frames, done.events) == (15, 111954)
    with pytest.raises(UserError, match="holds no camera frames"):
        next(stream(path, "interval"))


@pytest.mark.parametrize("name", ["gray16", "unknown_then_gray16"])
def test_a_file_of_one_tiny_frame(shared: Path, tmp_path: Path, name: str) -> None:
    with pytest.warns(DataWarning) as caught:
        done = convert(shared / f"oracle/aedat4/test_data_{name}.aedat4", "exposure", tmp_path, with_frames=True)
    kinds = [note.message.kind for note in caught if isinstance(note.message, DataWarning)]
    assert kinds == (["format"] if "unknown" in name else []) + ["blank"]
    assert done.frames == 1
    shot = cv2.imread(str(tmp_path / f"test_data_{name}_rgb" / "000000.png"), cv2.IMREAD_UNCHANGED)
    assert (shot.dtype, shot.shape, int(shot.sum())) == (np.uint16, (2, 2), 1029)
    assert (read_frames(done.folder) == 255).all()
    with pytest.warns(DataWarning):
        [(rgb, event)] = stream(done.source, "interval")
    np.testing.assert_array_equal(rgb, np.repeat((shot >> 8).astype(np.uint8)[..., None], 3, axis=-1))
    assert event.shape == (2, 2, 3)


def test_a_recording_becomes_a_training_sequence(shared: Path, tmp_path: Path) -> None:
    path = shutil.copy(shared / DAVIS, tmp_path / "video.aedat4")
    done = quietly(lambda: convert(path, "interval", with_frames=True))
    assert (done.folder, done.state) == (tmp_path / "events_interval", "made")
    rgb = read_frames(tmp_path / "rgb")
    assert rgb.shape == (59, 260, 346, 3)
    assert int(rgb[0, ..., 0].sum()) == 6949660
    described = json.loads((done.folder / "events.json").read_text())
    assert described["recipe"]["name"] == "interval"
    assert described["source"]["sha256"] == hashlib.sha256(Path(path).read_bytes()).hexdigest()
    assert (described["frames"], described["events"], described["size"], described["blank"]) == (59, 78295, [346, 260], [])
    for index, (colour, event) in enumerate(stream(path, "interval")):
        np.testing.assert_array_equal(colour, rgb[index])
        if index == 7:
            np.testing.assert_array_equal(event, read_frames(done.folder)[7])
    assert index == 58


# ---- other formats


LAYOUTS: dict[str, Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]] = {
    "columns": dict,
    "signed polarity": lambda c: {**c, "p": np.where(c["p"], 1, -1).astype(np.int8)},
    "bool polarity": lambda c: {**c, "p": c["p"].astype(bool)},
    "floats": lambda c: {name: column.astype(np.float64) for name, column in c.items()},
    "small integers": lambda c: {
        **c,
        "x": c["x"].astype(np.uint8),
        "y": c["y"].astype(np.int16),
        "t": c["t"].astype(np.uint64),
    },
    "other names": lambda c: {"timestamps": c["t"], "x": c["x"], "y": c["y"], "polarity": c["p"]},
    "records": lambda c: {"events": np.rec.fromarrays(list(c.values()), names=list(c))},
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", ["npz", "h5", "group"])
def test_columns_are_found_in_every_layout(tmp_path: Path, layout: str, kind: str) -> None:
    events = random_events(300, 1000)
    columns = {name: np.array([event[place] for event in events], np.int64) for place, name in enumerate("txyp")}
    arrays = LAYOUTS[layout](columns)
    path = tmp_path / f"a.{'npz' if kind == 'npz' else 'h5'}"
    if kind == "npz":
        np.savez_compressed(path, **arrays, width=WIDTH, height=HEIGHT)
    else:
        with h5py.File(path, "w") as file:
            place = file.create_group("events") if kind == "group" and "events" not in arrays else file
            file.attrs.update(width=WIDTH, height=HEIGHT)
            for name, array in arrays.items():
                place[name] = array
    assert find_recordings(tmp_path) == [path]
    recording = open_recording(path)
    assert (recording.width, recording.height) == (WIDTH, HEIGHT)
    found = [tuple(row) for block in recording.packets() for row in zip(*(c.tolist() for c in block), strict=True)]
    assert found == events


def test_the_size_is_what_the_events_span_where_a_file_does_not_say(tmp_path: Path) -> None:
    with pytest.warns(DataWarning, match="5 x 8 pixels taken"):
        recording = open_recording(write_npz(tmp_path / "a.npz", [(1, 4, 0, True), (2, 0, 7, False)], size=None))
    assert (recording.width, recording.height) == (5, 8)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"t": np.array([0.5, 1.0])}, "t holds float64 values such as 0.5; expected whole microseconds"),
        ({"p": np.array([0, 2])}, "polarity 0 to 2; expected 0 and 1, or -1 and 1"),
        ({"x": np.array([1])}, "t, x, y, p have 2, 1, 2, 2 values"),
        ({"y": np.array(["a", "b"])}, "y holds <U1 values"),
    ],
)
def test_other_content_is_refused(tmp_path: Path, more: dict[str, np.ndarray], message: str) -> None:
    path = write_npz(tmp_path / "a.npz", [(1, 4, 0, True), (2, 0, 7, False)], **more)
    with pytest.raises(UserError, match=message):
        convert(path, "interval", tmp_path / "out", timing=Timing(fps=10))
    assert not (tmp_path / "out").exists() or listing(tmp_path / "out") == []


def test_a_file_without_events_is_no_recording(tmp_path: Path) -> None:
    np.savez(tmp_path / "weights.npz", a=np.zeros(3))
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["depth"] = np.zeros(3)
    (tmp_path / "c.npz").write_bytes(b"PK\x03\x04 not really")
    (tmp_path / "d.h5").write_bytes(b"no")
    with pytest.raises(UserError, match=r"holds no event recording \(\.aedat4"):
        find_recordings(tmp_path)
    for name, message in (
        ("weights.npz", "does not hold events: it has a;"),
        ("c.npz", "damaged or no .npz"),
        ("d.h5", "HDF5"),
    ):
        with pytest.raises(UserError, match=message):
            convert(tmp_path / name, "interval", timing=Timing(fps=10))
    with pytest.raises(UserError, match="does not exist"):
        find_recordings(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("5\n3\n", r"line 2: the times of the frames jump back from 5 to 3"),
        ("5\nsix\n", r"line 2: 'six' is no time"),
        ("5\n6,7\n", r"line 2: '6,7' is no time"),
        ("1 2 3\n", r"line 1: '1 2 3' is no time"),
        ("# nothing\n", "is empty"),
    ],
)
def test_files_of_times_are_checked(tmp_path: Path, lines: str, message: str) -> None:
    (tmp_path / "times.txt").write_text(lines)
    path = write_npz(tmp_path / "a.npz", random_events(10, 10))
    with pytest.raises(UserError, match=message):
        convert(path, "interval", timing=Timing(tmp_path / "times.txt"))


def test_an_exposure_has_an_end(tmp_path: Path) -> None:
    path = write_npz(tmp_path / "a.npz", random_events(10, 10))
    times = write_times(tmp_path / "times.txt", [[1_000_000], [1_000_005]])
    with pytest.raises(UserError, match="two columns"):
        convert(path, "exposure", timing=Timing(times))
    with pytest.raises(UserError, match="not a rate: use 'interval'"):
        convert(path, "exposure", timing=Timing(fps=25))
    with pytest.raises(UserError, match="given twice"):
        Timing(times, 25)
    for fps in (0, -1, float("nan"), float("inf")):
        with pytest.raises(UserError, match="frames per second were given"):
            Timing(fps=fps)
    with pytest.raises(UserError, match=r"unknown recipe.*'intervall'.*interval"):
        convert(path, "intervall")


# ---- broken files


def test_a_file_cut_anywhere_is_refused_and_leaves_nothing(shared: Path, tmp_path: Path) -> None:
    whole = (shared / DAVIS).read_bytes()
    rng = np.random.default_rng(0)
    path = tmp_path / "cut.aedat4"
    for length in [0, 1, 9, 13, 14, 18, 100, 3125, 3126, 3127, 3134, *rng.integers(3200, 600_000, 12).tolist()]:
        path.write_bytes(whole[:length])
        with pytest.raises(UserError, match=r"cut\.aedat4.*(damaged|empty|not AEDAT 4)"):
            convert(path, "interval", with_frames=True)
        assert listing(tmp_path) == ["cut.aedat4"]


def test_a_written_file_cut_anywhere_gives_all_frames_or_an_error(tmp_path: Path) -> None:
    path = write_aedat4(tmp_path / "a.aedat4", random_events(200, 1000), [(1_000_000 + 200 * k, 50) for k in range(5)])
    expected = [picture.image for picture in pictures(path, "interval")]
    whole, whole_frames = path.read_bytes(), 0
    for length in range(0, len(whole), 23):
        path.write_bytes(whole[:length])
        try:
            images = [picture.image for picture in pictures(path, "interval")]
        except UserError as error:
            assert "a.aedat4" in str(error)
        else:
            whole_frames += 1
            np.testing.assert_array_equal(images, expected)
    assert whole_frames < 40, "of the last bytes, an index that is not needed"


def test_a_header_that_makes_the_reader_panic_is_refused(
    shared: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    content = bytearray((shared / DAVIS).read_bytes()[:20_000])
    content[37] = 255  # a place in the header's table
    (tmp_path / "a.aedat4").write_bytes(content)
    with pytest.raises(UserError, match=r"a\.aedat4 is damaged: its header cannot be read \(range start index"):
        convert(tmp_path / "a.aedat4", "interval")
    assert "panicked" in capfd.readouterr().err, "else this test shows nothing"


def test_a_header_that_is_no_text_is_refused_before_the_reader_sees_it(shared: Path, tmp_path: Path) -> None:
    content = bytearray((shared / DAVIS).read_bytes()[:20_000])
    for place in (844, 1080, 3073):  # aedat 2.3.0 ends the process with this
        content[place] = 0xE9
    (tmp_path / "a.aedat4").write_bytes(content)
    with pytest.raises(UserError, match=r"a\.aedat4 is damaged: its header cannot be read \('utf-8' codec"):
        convert(tmp_path / "a.aedat4", "interval")


def test_what_lies_before_a_cut_can_be_kept(shared: Path, tmp_path: Path) -> None:
    path = tmp_path / "cut.aedat4"
    path.write_bytes((shared / DAVIS).read_bytes()[:531378])
    with pytest.raises(DamagedFileError, match=r"ends in the middle of a packet, after 7861 events and 5 frames\. .*--partial"):
        convert(path, "interval")
    assert recording_info(path).damage.endswith("after 7861 events and 5 frames")
    with pytest.warns(DataWarning, match="what is before that was kept"):
        done = convert(path, "interval", partial=True)
    expected = np.stack([picture.image for picture in pictures(shared / DAVIS, "interval")[:4]])
    np.testing.assert_array_equal(read_frames(done.folder)[:4], expected)
    assert done.frames == 5
    with pytest.raises(DamagedFileError):
        convert(path, "interval")
    assert convert(path, "interval", partial=True).state == "kept"
    frames = stream(path, "interval")
    with pytest.raises(DamagedFileError):
        for count, (_, event) in enumerate(frames, start=1):
            np.testing.assert_array_equal(event, expected[count - 1])
    assert count >= 3


def test_bytes_changed_anywhere_give_frames_or_an_error(shared: Path, tmp_path: Path) -> None:
    whole = (shared / DAVIS).read_bytes()[:150_000]
    rng = np.random.default_rng(1)
    path = tmp_path / "bad.aedat4"
    for round_ in range(40):
        content = bytearray(whole)
        for place in rng.integers(0, 3200 if round_ % 2 else len(content), rng.choice([1, 4, 30])).tolist():
            content[place] = int(rng.integers(256))
        path.write_bytes(content)
        with warnings.catch_warnings(), pytest.raises(UserError, match=r"bad\.aedat4"):
            warnings.simplefilter("ignore", DataWarning)
            convert(path, "interval", tmp_path / "out", timing=Timing(fps=100) if round_ % 3 else None)
        assert not (tmp_path / "out").exists() or listing(tmp_path / "out") == []


def test_cut_tables_are_refused(tmp_path: Path) -> None:
    npz = write_npz(tmp_path / "a.npz", random_events(1000, 1000))
    with h5py.File(tmp_path / "b.h5", "w") as file:
        for place, name in enumerate("txyp"):
            file[name] = np.array([event[place] for event in random_events(1000, 1000)], np.int64)
    for path in (npz, tmp_path / "b.h5"):
        whole = path.read_bytes()
        for part in (0.02, 0.3, 0.6, 0.9, 0.99):
            path.write_bytes(whole[: int(part * len(whole))])
            with pytest.raises(UserError, match=rf"{path.name} is damaged"):
                convert(path, "interval", timing=Timing(fps=10))


def test_other_magic_is_refused(tmp_path: Path) -> None:
    for head, message in ((b"#!AER-DAT3.1\r\n", "it holds #!AER-DAT3.1"), (b"\x89PNG\r\n\x1a\n", "it holds something else")):
        (tmp_path / "a.aedat4").write_bytes(head + bytes(100))
        with pytest.raises(UserError, match=message):
            convert(tmp_path / "a.aedat4", "interval")
    (tmp_path / "a.txt").write_text("1 2 3 0\n")
    with pytest.raises(UserError, match=r"no event recording; expected a file that ends in \.aedat4"):
        convert(tmp_path / "a.txt", "interval")
    with pytest.raises(UserError, match="cannot be read: No such file"):
        convert(tmp_path / "b.aedat4", "interval")


def test_events_whose_times_jump_back_are_left_out(tmp_path: Path) -> None:
    events = random_events(200, 1000)
    early = [(1_000_000, 3, 3, True)] * 4
    mixed = [*events[:100], *early[:3], *events[100:110], *early[3:], *events[110:]]
    for path in (write_aedat4(tmp_path / "a.aedat4", mixed, [], packet=70), write_npz(tmp_path / "a.npz", mixed)):
        with pytest.warns(DataWarning, match="the times of 4 of 204 events jump back: left out"):
            painted = pictures(path, "interval", Timing(fps=5000))
        expected = pictures(write_npz(tmp_path / "b.npz", events), "interval", Timing(fps=5000))
        np.testing.assert_array_equal([p.image for p in painted], [p.image for p in expected])


def test_a_jump_far_ahead_does_not_make_a_million_frames(tmp_path: Path) -> None:
    path = write_npz(tmp_path / "a.npz", [*random_events(10, 10), (1 << 60, 1, 1, True)])
    with pytest.raises(
        UserError, match=r"times of its events jump ahead by 1152921504606 s, over more than 100000 frames\. It is damaged"
    ):
        convert(path, "interval", timing=Timing(fps=25))
    assert listing(tmp_path) == ["a.npz"]


def test_frames_whose_times_jump_back_are_refused(tmp_path: Path) -> None:
    path = write_aedat4(tmp_path / "a.aedat4", random_events(200, 1000), [(1_000_100, 7), (1_000_503, 7), (1_000_800, 7)])
    content = path.read_bytes()
    assert content.count((1_000_503).to_bytes(8, "little")) >= 1
    path.write_bytes(content.replace((1_000_503).to_bytes(8, "little"), (1_000_003).to_bytes(8, "little")))
    with pytest.raises(
        UserError, match=r"times of the frames jump back, from 1000100 to 1000003 at frame 1\. Give a text file"
    ):
        convert(path, "interval")
    assert listing(tmp_path) == ["a.aedat4"]


def test_events_outside_the_sensor_are_left_out(tmp_path: Path) -> None:
    events = random_events(100, 1000)
    more = [
        *events,
        (1_002_000, WIDTH, 1, True),
        (1_002_000, 1, HEIGHT, True),
        (1_002_000, -1, 0, False),
        (1_002_000, 0, -1, True),
    ]
    with pytest.warns(DataWarning, match=rf"4 of 104 events lie outside the sensor of {WIDTH} x {HEIGHT} pixels: left out"):
        painted = pictures(write_npz(tmp_path / "a.npz", more), "interval", Timing(fps=1))
    np.testing.assert_array_equal(painted[0].image, slow("interval", events, 0, 2_000_000))


def test_blank_windows_are_told_and_exposures_that_miss_the_events(tmp_path: Path) -> None:
    events = [event for event in random_events(300, 1000) if not 1_000_400 <= event[0] < 1_000_600]
    frames = [(1_000_000 + 200 * k, 50) for k in range(5)]
    path = write_aedat4(tmp_path / "a.aedat4", events, frames)
    with pytest.warns(DataWarning, match=r"1 of 5 frames are blank: no event in their windows \(first: frame 2\)$"):
        painted = pictures(path, "interval")
    assert (painted[2].image == 255).all()
    with pytest.warns(DataWarning, match=r"frame 2\)$"):
        pictures(path, "exposure")
    frames = [(start, 0) for start, _ in frames]
    with pytest.warns(DataWarning, match=r"5 of 5 frames are blank.*use the recipe 'interval'"):
        pictures(write_aedat4(tmp_path / "b.aedat4", events, frames), "exposure")


def test_a_recording_with_neither_frames_nor_events_gives_an_error(tmp_path: Path) -> None:
    path = write_aedat4(tmp_path / "a.aedat4", [], [])
    for timing in (None, Timing(fps=25)):
        with pytest.raises(UserError, match="gives no frame"):
            convert(path, "interval", timing=timing)


# ---- doing it again, in parallel, interrupted


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A folder with one recording, converted with `interval`."""
    write_npz(tmp_path / "a.npz", random_events(300, 1000))
    write_times(tmp_path / "times.txt", [[1_000_000], [1_000_300], [1_000_700]])
    convert_tree(tmp_path, "interval", times="times.txt")
    return tmp_path


def again(folder: Path, recipe: str = "interval", times: str = "times.txt") -> tuple[str, str]:
    [done] = convert_tree(folder, recipe, times=times)
    assert (done.frames, done.folder) == (3, folder / f"events_{recipe}")
    assert len(read_frames(done.folder)) == 3
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]
    return done.state, done.reason


def test_what_is_there_is_kept(made: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in made.rglob("*")}
    assert again(made) == ("kept", "")
    assert {path: path.stat().st_mtime_ns for path in made.rglob("*")} == before
    os.utime(made / "a.npz")
    assert again(made) == ("kept", ""), "another time, the same content"
    assert again(made, "voxel") == ("made", "")


def test_what_has_changed_is_made_again(made: Path) -> None:
    content = (made / "a.npz").read_bytes()
    write_npz(made / "a.npz", random_events(300, 1000, seed=1))
    assert len((made / "a.npz").read_bytes()) == len(content)
    assert again(made) == ("redone", "the recording has changed")
    described = made / "events_interval" / "events.json"
    described.write_text(described.read_text().replace('"version": 1', '"version": 0'))
    assert again(made) == ("redone", "made by another version of the recipe")
    (made / "events_interval" / "000001.png").unlink()
    assert again(made) == ("redone", "events_interval holds 2 of 3 frames")
    write_times(made / "times.txt", [[1_000_000], [1_000_300], [1_000_701]])
    assert again(made) == ("redone", "made with other frame times")
    assert again(made) == ("kept", "")


def test_a_folder_of_somebody_else_is_not_touched(made: Path) -> None:
    (made / "events_voxel").mkdir()
    (made / "events_voxel" / "precious.txt").write_text("mine")
    with pytest.raises(UserError, match=r"events_voxel is there already and was not made here"):
        again(made, "voxel")
    assert (made / "events_voxel" / "precious.txt").read_text() == "mine"
    (made / "events_stack3").mkdir()
    assert again(made, "stack3") == ("made", "")


def test_remains_of_a_killed_process_go(made: Path) -> None:
    for name, age in ((".events_voxel-old", 1000), (".events_voxel-new", 0)):
        (made / name).mkdir()
        os.utime(made / name, (time.time() - age,) * 2)
    convert(made / "a.npz", "voxel", timing=Timing(made / "times.txt"))
    assert [path.name for path in made.iterdir() if path.name.startswith(".")] == [".events_voxel-new"], "which may be in use"


def test_a_tree_in_parallel_equals_one_after_the_other(tmp_path: Path) -> None:
    for index, place in enumerate(("x/a", "x/b", "y/a")):
        (tmp_path / "in" / place).parent.mkdir(parents=True, exist_ok=True)
        write_npz(tmp_path / "in" / f"{place}.npz", random_events(400, 100_000, seed=index))
    steps: list[tuple[int, int, str]] = []
    for workers in (1, 2):
        out = tmp_path / f"out{workers}"
        done = convert_tree(tmp_path / "in", "voxel", out, workers, fps=100, progress=lambda *step: steps.append(step))
        assert [str(d.folder.relative_to(out)) for d in done] == ["x/a_events_voxel", "x/b_events_voxel", "y/events_voxel"]
        assert all(d.state == "made" for d in done)
    assert [step[:2] for step in steps] == [(1, 3), (2, 3), (3, 3)] * 2
    assert "frames" in steps[0][2]
    assert listing(tmp_path / "out1") == listing(tmp_path / "out2")
    for name in listing(tmp_path / "out1"):
        if (tmp_path / "out1" / name).is_file():
            assert (tmp_path / "out1" / name).read_bytes() == (tmp_path / "out2" / name).read_bytes()


@pytest.mark.parametrize("workers", [1, 2])
def test_one_broken_file_does_not_stop_the_others(tmp_path: Path, workers: int) -> None:
    for name in "abc":
        (tmp_path / name).mkdir()
        write_npz(tmp_path / name / "v.npz", [*random_events(100, 100_000), (1_000_000, 1, 1, True)])
    (tmp_path / "b" / "v.npz").rename(tmp_path / "b" / "v.aedat4")
    with (
        pytest.warns(DataWarning, match="jump back"),
        pytest.raises(
            UserError, match=r"1 of 3 recordings could not be converted, the others are done:\n- recording .*b/v.aedat4"
        ),
    ):
        convert_tree(tmp_path, "interval", workers=workers, fps=100)
    assert [path.name for path in sorted(tmp_path.glob("*/events_interval"))] == ["events_interval"] * 2


@pytest.mark.parametrize("workers", [1, 2])
def test_an_interruption_leaves_no_half_folder(tmp_path: Path, workers: int) -> None:
    for name in "ab":
        write_npz(tmp_path / f"{name}.npz", random_events(20_000, 1_000_000))
    code = (
        f"from mstrack.data.events import convert_tree; convert_tree({str(tmp_path)!r}, 'voxel', workers={workers}, fps=20000)"
    )
    child = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 20
    while len(list(tmp_path.glob(".*/*.png"))) < 50 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert list(tmp_path.glob(".*/*.png")), "it is at work"
    child.send_signal(signal.SIGINT)
    _, words = child.communicate(timeout=20)
    assert child.returncode != 0
    assert "KeyboardInterrupt" in words
    assert listing(tmp_path) == ["a.npz", "b.npz"]


def test_links_to_folders_are_followed_once(tmp_path: Path) -> None:
    (tmp_path / "beside").mkdir()
    write_npz(tmp_path / "beside" / "b.npz", random_events(9, 9))
    root, elsewhere = tmp_path / "root", tmp_path / "elsewhere" / "deep"
    for folder in (root / "own", elsewhere):
        folder.mkdir(parents=True)
        write_npz(folder / "a.npz", random_events(9, 9))
    (root / "a link").symlink_to(elsewhere)
    (root / "again").symlink_to(elsewhere)
    (root / "also own").symlink_to(root / "own")
    (root / "own" / "up").symlink_to(root)
    (root / "out").symlink_to(tmp_path)
    (elsewhere / "back").symlink_to(root / "own")
    (elsewhere / "broken").symlink_to(tmp_path / "nothing")
    assert find_recordings(root) == [root / "a link" / "a.npz", root / "own" / "a.npz"]
    assert len(convert_tree(root, "interval", tmp_path / "made", fps=10)) == 2
    assert (tmp_path / "made" / "a link" / "events_interval").is_dir()


# ---- on the fly


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MST_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "events"


def test_references_open_nothing_before_a_frame_is_asked_for(tmp_path: Path, cache: Path) -> None:
    frames = EventFrames(tmp_path / "missing.aedat4", "interval", 10, first=3)
    assert (len(frames), str(frames[0]), str(frames[-1])) == (10, "missing.aedat4, frame 3", "missing.aedat4, frame 12")
    part = frames[2:6]
    assert isinstance(part, EventFrames)
    assert [frame.index for frame in part] == [5, 6, 7, 8]
    assert pickle.loads(pickle.dumps(part)) == part
    with pytest.raises(IndexError):
        frames[10]
    with pytest.raises(UserError, match="unknown recipe"):
        EventFrames(tmp_path / "missing.aedat4", "none", 1)
    with pytest.raises(UserError, match=r"missing.aedat4 cannot be read"):
        frames[0].path()
    assert not cache.exists()


def test_frames_are_rendered_when_first_asked_for(tmp_path: Path, cache: Path) -> None:
    events = random_events(300, 1000)
    path = write_npz(tmp_path / "a.npz", events)
    timing = Timing(write_times(tmp_path / "times.txt", [[1_000_000], [1_000_300], [1_000_700]]))
    frames = EventFrames(path, "interval", 4, timing=timing)
    file = frames[1].path()
    assert file.parent.parent == cache
    np.testing.assert_array_equal(cv2.imread(str(file))[..., ::-1], slow("interval", events, 1_000_300, 1_000_700))
    with pytest.raises(UserError, match=r"a\.npz has 3 frames, frame 3 \(from 0\) was asked for"):
        frames[3].path()
    shutil.rmtree(file.parent)
    assert frames[1].path().is_file(), "an emptied cache is filled again"
    write_npz(path, random_events(300, 1000, seed=5))
    assert EventFrames(path, "voxel", 3, timing=timing)[0].path().parent != file.parent


def test_finished_frames_beside_the_recording_are_taken(made: Path, cache: Path) -> None:
    frames = EventFrames(made / "a.npz", "interval", 3, timing=Timing(made / "times.txt"))
    assert frames[2].path() == made / "events_interval" / "000002.png"
    other = write_times(made / "other.txt", [[1_000_000], [1_000_200], [1_000_700]])
    assert EventFrames(made / "a.npz", "interval", 3, timing=Timing(other))[0].path().parent.parent == cache


def test_many_processes_render_once(tmp_path: Path, cache: Path) -> None:
    write_npz(tmp_path / "a.npz", random_events(20_000, 1_000_000))
    code = (
        "from mstrack.data.events import EventFrames, Timing; import sys;"
        f"path = EventFrames({str(tmp_path / 'a.npz')!r}, 'interval', 9, timing=Timing(fps=1000))[5].path();"
        "print(path, path.stat().st_ino)"
    )
    children = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(3)]
    answers = {child.communicate(timeout=30)[0] for child in children}
    assert len(answers) == 1, "one file, made once"
    assert [path.name for path in cache.iterdir() if path.is_dir()] == [Path(answers.pop().split()[0]).parent.name]


def test_rendering_without_times_names_the_command_that_takes_them(tmp_path: Path, cache: Path) -> None:
    tables = write_npz(tmp_path / "a.npz", random_events(300, 1000))
    empty = write_aedat4(tmp_path / "b.aedat4", random_events(300, 1000), [])
    for path in (tables, empty):
        with pytest.raises(
            UserError, match=r"holds no frames.* not known\. .*`mst data events .* --recipe voxel --times FILE`"
        ) as e:
            EventFrames(path, "voxel", 3)[0].path()
        assert "times=" not in str(e.value)
        with pytest.raises(UserError, match=r"--times, times=.*--fps, fps="):
            convert(path, "voxel")
        assert EventFrames(path, "voxel", 1, timing=Timing(fps=1000))[0].path().is_file()


# ---- mst track


@pytest.fixture(scope="module")
def tracker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from mstrack import checkpoint, create_model

    path = tmp_path_factory.mktemp("tracker") / "small.safetensors"
    checkpoint.save(path, create_model("mst-tiny", width=32, depth=2, heads=2, cross_layers=(1,)), {"note": "random weights"})
    return path


def follow(tracker: Path, rgb: Path, *arguments: object, out: Path) -> subprocess.CompletedProcess[str]:
    return mst("track", tracker, "--rgb", rgb, *arguments, "--box", "2,2,5,4", "--out", out, "--modality", "event")


def test_a_table_of_events_is_tracked_with_times_or_a_rate(tmp_path: Path, tracker: Path) -> None:
    (tmp_path / "rgb").mkdir()
    for index in range(3):
        cv2.imwrite(str(tmp_path / "rgb" / f"{index}.png"), np.full((HEIGHT, WIDTH, 3), 90, np.uint8))
    events = write_npz(tmp_path / "a.npz", random_events(300, 1000))
    times = write_times(tmp_path / "times.txt", [[1_000_000], [1_000_300], [1_000_700]])
    clip, out = (tracker, tmp_path / "rgb", "--aux", events), tmp_path / "o"
    for option, value in (("--times", times), ("--fps", 3000)):
        done = follow(*clip, option, value, out=out)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("3 frames")
        assert len(list((out / "frames").iterdir())) == 3
        assert json.loads((out / "run.json").read_text())[option[2:]] == (str(value) if option == "--times" else value)
    picture = cv2.imread(str(out / "frames" / "000001.jpg"))
    assert picture.shape[1] >= 2 * WIDTH
    for arguments, words in (
        ((), ("--times", "--fps", "not known")),
        (("--times", times, "--fps", 3000), ("given twice",)),
        (("--fps", 1000), ("3 frames", "has 1", "--missing")),
    ):
        done = follow(*clip, *arguments, out=out)
        assert done.returncode == 2, done.stdout
        assert all(word in done.stderr for word in words), done.stderr
        assert "Traceback" not in done.stderr
    done = follow(*clip, "--fps", 1000, "--missing", "zero", out=out)
    assert done.returncode == 0, done.stderr
    assert "2 frame(s) lacked their second modality" in done.stdout


def test_times_are_refused_where_nothing_needs_them(tmp_path: Path) -> None:
    path = write_aedat4(tmp_path / "a.aedat4", random_events(200, 1000), [(1_000_100, 7), (1_000_503, 7), (1_000_800, 7)])
    count, frames = open_clip(path, None)
    assert (count, len(list(frames))) == (3, 3)
    for rgb, aux in ((path, None), (tmp_path, tmp_path)):
        with pytest.raises(UserError, match=r"--times and --fps .*leave them out"):
            open_clip(rgb, aux, timing=Timing(fps=10))
    content = path.read_bytes()
    path.write_bytes(content.replace((1_000_503).to_bytes(8, "little"), (1_000_003).to_bytes(8, "little")))
    with pytest.raises(UserError, match=r"jump back.*`mst data events .* --with-frames --times FILE`"):
        list(open_clip(path, None)[1])
