"""What every dataset yields, and the readers below it: formats, damage, tolerance, and errors that say where."""

import pickle
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from mstrack.data.annotations import read_boxes, read_flags
from mstrack.data.cutting import LackingError
from mstrack.data.events.types import DamagedFileError
from mstrack.data.images import depth_to_colour, read_aux, read_rgb
from mstrack.data.layout import list_frames
from mstrack.data.sequence import Frame, Sequence
from mstrack.errors import DataWarning, UserError
from mstrack.journal import TrainingError

RNG = np.random.default_rng(0)
PICTURE = cv2.resize(RNG.integers(0, 255, (9, 12, 3), dtype=np.uint8), (96, 72), interpolation=cv2.INTER_CUBIC)


def encode(kind: str, image: np.ndarray = PICTURE, *options: int) -> bytes:
    return cv2.imencode(kind, image, options)[1].tobytes()


def write(path: Path, content: bytes | str) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


# ---- images


def test_colours_are_read_in_rgb_order(tmp_path: Path) -> None:
    image = read_rgb(write(tmp_path / "a.png", encode(".png")))
    assert image.flags.c_contiguous
    np.testing.assert_array_equal(image, PICTURE[..., ::-1])


def test_a_grey_file_serves_as_colour(tmp_path: Path) -> None:
    image = read_rgb(write(tmp_path / "a.png", encode(".png", PICTURE[..., 0])))
    np.testing.assert_array_equal(image, np.repeat(PICTURE[..., :1], 3, axis=-1))


def test_thermal_is_repeated_and_stretched_when_it_has_16_bits(tmp_path: Path) -> None:
    grey = PICTURE[..., 0]
    image = read_aux(write(tmp_path / "a.png", encode(".png", grey)), "thermal")
    np.testing.assert_array_equal(image, np.repeat(grey[..., None], 3, axis=-1))
    wide = 3000 + 7 * grey.astype(np.uint16)
    image = read_aux(write(tmp_path / "b.png", encode(".png", wide)), "thermal")
    expected = np.rint((wide - wide.min()) / float(wide.max() - wide.min()) * 255)
    np.testing.assert_allclose(image[..., 1], expected, atol=1)
    assert image.min() == 0
    assert image.max() == 255


def test_events_keep_their_published_colours(tmp_path: Path) -> None:
    frame = np.full((8, 8, 3), 255, np.uint8)
    frame[2, 3], frame[4, 5] = (30, 30, 220), (200, 30, 30)
    image = read_aux(write(tmp_path / "a.png", encode(".png", frame)), "event")
    assert image[2, 3].tolist() == [220, 30, 30]
    assert image[4, 5].tolist() == [30, 30, 200]


def test_a_fourth_channel_is_dropped(tmp_path: Path) -> None:
    image = read_aux(write(tmp_path / "a.png", encode(".png", np.dstack([PICTURE, PICTURE[..., 0]]))), "thermal")
    np.testing.assert_array_equal(image, PICTURE[..., ::-1])


@pytest.mark.parametrize(("missing", "far"), [(0.0, 3000), (0.3, 3000), (0.3, 60000), (0.7, 3000)])
def test_depth_colours_follow_the_published_rule(missing: float, far: int) -> None:
    depth = RNG.integers(500, far, (40, 50)).astype(np.uint16)
    depth[RNG.random((40, 50)) < missing] = 0
    limit = min(3 * np.median(depth), 10000)
    clipped = np.clip(depth.astype(float), None, limit)
    span = clipped.max() - clipped.min()
    grey = (clipped - clipped.min()) / span * 255 if span else np.zeros_like(clipped)
    low, high = (cv2.applyColorMap(edge(grey).astype(np.uint8), cv2.COLORMAP_JET) for edge in (np.floor, np.ceil))
    colour = depth_to_colour(depth)
    assert ((colour == low) | (colour == high)).all(-1).all()
    assert (depth_to_colour(depth)[..., 0] != depth_to_colour(depth)[..., 2]).any(), "JET in BGR order is not grey"


def test_depth_of_a_file_is_coloured(tmp_path: Path) -> None:
    depth = np.linspace(800, 6000, 1200).reshape(30, 40).astype(np.uint16)
    path = write(tmp_path / "a.png", encode(".png", depth))
    np.testing.assert_array_equal(read_aux(path, "depth"), depth_to_colour(depth))


PROGRESSIVE = (cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
RESTART = (cv2.IMWRITE_JPEG_RST_INTERVAL, 2)
FORMATS = {
    "jpg": (".jpg",),
    "progressive": (".jpg", PROGRESSIVE),
    "restart": (".jpg", RESTART),
    "png": (".png",),
    "bmp": (".bmp",),
}


def encoded(name: str) -> bytes:
    kind, *options = FORMATS[name]
    return encode(kind, PICTURE, *(number for pair in options for number in pair))


@pytest.mark.parametrize("name", FORMATS)
def test_a_truncated_image_is_an_error_wherever_it_ends(tmp_path: Path, name: str) -> None:
    data = encoded(name)
    whole = read_rgb(write(tmp_path / "whole", data))
    assert whole.shape == (72, 96, 3)
    for cut in [*range(0, len(data) - 12, max(1, len(data) // 97)), len(data) - 12, len(data) - 1]:
        with pytest.raises(UserError, match=r"part.*(truncated|cannot be decoded)"):
            read_rgb(write(tmp_path / "part", data[:cut]))


@pytest.mark.parametrize("name", FORMATS)
def test_data_after_the_end_of_an_image_do_no_harm(tmp_path: Path, name: str) -> None:
    data = encoded(name)
    trailer = b"\xff\xda\xff\xd8 some camera's note \x00\x00"
    np.testing.assert_array_equal(read_rgb(write(tmp_path / "a", data + trailer)), read_rgb(write(tmp_path / "b", data)))


def test_the_end_of_a_thumbnail_is_not_the_end_of_the_photograph(tmp_path: Path) -> None:
    data, thumbnail = encode(".jpg"), encode(".jpg", PICTURE[:16, :16])
    block = b"Exif\x00\x00" + thumbnail
    photograph = data[:2] + b"\xff\xe1" + (len(block) + 2).to_bytes(2, "big") + block + data[2:]
    assert read_rgb(write(tmp_path / "a.jpg", photograph + b"\x00")).shape == (72, 96, 3)
    with pytest.raises(UserError, match="truncated"):
        read_rgb(write(tmp_path / "b.jpg", photograph[:-300]))


def test_real_images_count_as_complete(shared: Path) -> None:
    for path in list_frames(shared / "oracle/rgbt_demo_bus1/rgb")[:2]:
        assert read_rgb(path).shape == (1080, 1920, 3)


@pytest.mark.parametrize(
    ("content", "words"), [(b"", "truncated"), (b"no image at all", "cannot be decoded"), (None, "No such")]
)
def test_what_is_no_image_is_named(tmp_path: Path, content: bytes | None, words: str) -> None:
    path = tmp_path / "frame.jpg"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=rf"frame\.jpg.*{words}"):
        read_rgb(path)


# ---- folders


def test_frames_come_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for name in ("frame10.jpg", "frame9.JPG", "frame0001.png", "frame2.bmp", "notes.txt", ".frame3.jpg"):
        (tmp_path / name).touch()
    assert [path.name for path in list_frames(tmp_path)] == ["frame0001.png", "frame2.bmp", "frame9.JPG", "frame10.jpg"]


def test_missing_and_empty_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere.*No such"):
        list_frames(tmp_path / "nowhere")
    with pytest.raises(UserError, match="holds no images"):
        list_frames(tmp_path)


# ---- annotations


@pytest.mark.parametrize(
    "text",
    [
        "1,2,3,4\nnan,nan,nan,nan\n5.5,-6,7e1,8\n",
        "1 2 3 4\r\nNaN NaN NaN NaN\r\n5.5 -6 70 8",
        "1\t2\t3\t4\nnan\tnan\tnan\tnan\n 5.5\t-6\t70.0\t8 \n\n\n",
        "\ufeff1, 2, 3, 4,\nnan, nan, nan, nan\n5.5;-6;70;8\n",
    ],
)
def test_boxes_are_read_whatever_separates_them(tmp_path: Path, text: str) -> None:
    boxes = read_boxes(write(tmp_path / "gt.txt", text))
    assert boxes.dtype == np.float64
    np.testing.assert_array_equal(boxes, [[1, 2, 3, 4], [np.nan] * 4, [5.5, -6, 70, 8]])


@pytest.mark.parametrize("line", ["1,2,3", "1,2,3,4,5", "1,2,x,4", "1,,3,4", "", "1,2,3,inf", "1.2.3,4,5,6", "1_0,2,3,4"])
def test_a_malformed_box_is_an_error_with_file_and_line(tmp_path: Path, line: str) -> None:
    path = write(tmp_path / "gt.txt", f"1,2,3,4\n{line}\n5,6,7,8\n")
    with pytest.raises(UserError, match=r"gt\.txt, line 2: .*expected x,y,w,h"):
        read_boxes(path)


@pytest.mark.parametrize("text", ["1\n0\n1\n", "1 0 1", "1,0,1\n", "1\r\n0\r\n1\r\n\r\n"])
def test_flags_are_read_in_lines_or_in_one(tmp_path: Path, text: str) -> None:
    path = write(tmp_path / "absent.txt", text)
    assert read_flags(path).tolist() == [True, False, True]
    assert read_flags(path, present=0).tolist() == [False, True, False]


@pytest.mark.parametrize("word", ["2", "yes", "1.5", "-1", ""])
def test_a_malformed_flag_is_an_error_with_file_and_line(tmp_path: Path, word: str) -> None:
    with pytest.raises(UserError, match=r"absent\.txt, line 3: .*expected 0 or 1"):
        read_flags(write(tmp_path / "absent.txt", f"1\n0\n{word}\n1\n"))


@pytest.mark.parametrize("read", [read_boxes, read_flags])
def test_annotations_that_cannot_be_read_are_named(tmp_path: Path, read: Callable[[Path], np.ndarray]) -> None:
    with pytest.raises(UserError, match=r"gt\.txt.*No such"):
        read(tmp_path / "gt.txt")
    with pytest.raises(UserError, match="is empty"):
        read(write(tmp_path / "gt.txt", "\n"))
    with pytest.raises(UserError, match="not a text file"):
        read(write(tmp_path / "gt.txt", b"\xff\xfe\x00\x81\n"))


# ---- sequences


def test_counts_that_differ_are_listed() -> None:
    paths = (Path("0.jpg"), Path("1.jpg"))
    with pytest.raises(UserError, match=r"'walk'.*2 rgb frames, 2 boxes, 2 flags, 1 depth frames"):
        Sequence("walk", paths, np.ones((2, 4)), np.ones(2, bool), paths[:1], "depth")


def test_a_frame_is_read_with_its_second_modality(tmp_path: Path) -> None:
    rgb = write(tmp_path / "a.png", encode(".png"))
    aux = write(tmp_path / "b.png", encode(".png", PICTURE[..., 0]))
    sequence = Sequence("one", (rgb,), np.ones((1, 4)), np.ones(1, bool), (aux,), "thermal")
    frame = sequence.frame(0)
    assert len(sequence) == 1
    np.testing.assert_array_equal(frame.rgb, PICTURE[..., ::-1])
    assert frame.aux is not None
    np.testing.assert_array_equal(frame.aux[..., 2], PICTURE[..., 0])
    assert Sequence("one", (rgb,), np.ones((1, 4)), np.ones(1, bool)).frame(0).aux is None


def test_a_frame_in_a_closed_folder_is_not_said_to_be_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `stat` and `open` say to others than root."""
    rgb = write(tmp_path / "a.png", encode(".png"))
    sequence = Sequence("one", (rgb,), np.ones((1, 4)), np.ones(1, bool), (tmp_path / "closed" / "b.png",), "thermal")
    assert "does not exist" in str(sequence.open_aux(0))

    def refuse(path: Path, *_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "stat", refuse)
    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(UserError, match=r"closed/b\.png cannot be read: Permission denied"):
        sequence.open_aux(0)


def test_texts_and_lists_are_taken_for_paths_and_arrays(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "x.png"), np.full((6, 8, 3), 7, dtype=np.uint8))
    file = str(tmp_path / "x.png")
    sequence = Sequence("a", [file, file], [[0, 0, 1, 1], [1, 1, 2, 2]], [True, False], aux=[None, file], modality="event")
    assert (sequence.frame(1).rgb == 7).all()
    assert (sequence.frame(1).aux == 7).all()
    part = sequence.cut(1, 2)
    assert part.boxes.dtype == np.float64
    assert part.boxes.tolist() == [[1, 1, 2, 2]]
    assert part.valid.tolist() == [False]
    for boxes, says in (([[0, 1], [2, 3]], r"boxes are of shape \(2, 2\), expected \(2, 4\)"), ([["a"] * 4] * 2, "no array")):
        with pytest.raises(UserError, match=says):
            Sequence("a", [file, file], boxes, [True, True])


def test_frames_and_sequences_are_equal_to_themselves_alone() -> None:
    image, boxes = np.zeros((4, 4, 3), dtype=np.uint8), np.zeros((1, 4))
    pairs = [[Frame(image), Frame(image)], [Sequence("a", [Path("x")], boxes, np.ones(1, dtype=bool)) for _ in range(2)]]
    for one, other in pairs:
        assert one == one
        assert one != other
        assert len({one, other, one}) == 2


@pytest.mark.parametrize(
    "error",
    [
        DataWarning("walk", "pairs", "3 lack"),
        LackingError("walk, frame 3: no aux", "no aux"),
        DamagedFileError("recording x is damaged"),
        UserError("a"),
        TrainingError("b"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_arrive_from_other_processes_as_they_were(error: Exception) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy), vars(copy)) == (type(error), str(error), vars(error))


@pytest.mark.parametrize(
    ("given", "fragment"),
    [
        ({"rgb": [PICTURE]}, "'a': rgb holds ndarray, expected files, or objects with decode"),
        ({"aux": [Frame(PICTURE)], "modality": "thermal"}, "'a': aux holds Frame, expected files"),
        ({"modality": "radar"}, "unknown modality 'radar'.*another sensor are read as they are under 'thermal'"),
    ],
)
def test_what_no_reader_knows_is_refused_when_the_sequence_is_made(given: dict[str, object], fragment: str) -> None:
    with pytest.raises(UserError, match=fragment):
        Sequence(**{"name": "a", "rgb": ["a.png"], "boxes": [[1, 2, 3, 4]], "valid": [True], **given})
