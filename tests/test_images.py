"""Decoding against slow definitions; colours and scaled decoding of what is cut out, against the whole frame."""

import struct
import zlib
from pathlib import Path

import cv2
import natural_scenes
import numpy as np
import pytest
from numpy.typing import NDArray

from mstrack.data import images
from mstrack.data.crops import crop, crop_reduced, reduction_for, square_around
from mstrack.data.imagefiles import find_jpeg_damage, is_cut_short, jpeg_header
from mstrack.data.images import Picture, depth_to_colour, open_aux, open_reduced, open_rgb
from mstrack.errors import UserError

RNG = np.random.default_rng(0)
SIZE = 64
BOXES = [
    (130, 90, 60, 50),
    (-20, -10, 70, 90),
    (260, 200, 90, 60),
    (0, 0, 320, 240),
    (100.3, 80.7, 110.2, 95.1),
    (900, 90, 40, 40),
]


def slow_jet(depth: NDArray[np.uint16]) -> NDArray[np.uint8]:
    """ViPT's `get_x_frame`, line by line."""
    limit = int(min(np.median(depth) * 3, 10000))
    clipped = depth.copy()
    clipped[clipped > limit] = limit
    grey = np.asarray(cv2.normalize(clipped, None, 0, 255, cv2.NORM_MINMAX), dtype=np.uint8)  # type: ignore[call-overload]
    return np.asarray(cv2.applyColorMap(grey, cv2.COLORMAP_JET), dtype=np.uint8)


def random_depths() -> list[NDArray[np.uint16]]:
    found = [np.full((3, 5), value, dtype=np.uint16) for value in (0, 1, 500, 65535)]
    for number in range(300):
        low, high = sorted(RNG.integers(0, (20000, 70000)[number % 2], 2).clip(0, 65534))
        depth = RNG.integers(low, high + 1, RNG.integers(1, 80, 2)).astype(np.uint16)
        depth[RNG.random(depth.shape) < (0, 0.3, 0.6)[number % 3]] = 0
        found.append(depth)
    return found


def test_the_median_is_numpys() -> None:
    for depth in random_depths():
        assert images.median(depth, int(depth.max())) == np.median(depth)
        assert images.median(depth.astype(np.uint8), 255) == np.median(depth.astype(np.uint8))


def test_depth_colours_are_the_published_ones() -> None:
    for depth in random_depths():
        np.testing.assert_array_equal(depth_to_colour(depth), slow_jet(depth))


def test_every_value_gets_its_colour() -> None:
    """One pass straight to bytes rounds as two passes do, for every value between every pair of bounds that was tried."""
    for low, high in ((0, 1), (0, 255), (7, 10000), (400, 4001), (1, 9999), (0, 3333)):
        depth = np.arange(low, high + 1, dtype=np.uint16)[None].repeat(2, 0)
        np.testing.assert_array_equal(depth_to_colour(depth), slow_jet(depth))


def test_channel_orders() -> None:
    image = RNG.integers(0, 256, (9, 7, 4), dtype=np.uint8)
    np.testing.assert_array_equal(images.reverse_channels(image), image[..., [2, 1, 0]])
    np.testing.assert_array_equal(images.reverse_channels(image[2:5, 1:4, :3]), image[2:5, 1:4, [2, 1, 0]])
    np.testing.assert_array_equal(images.repeat_channel(image[..., 0]), image[..., [0, 0, 0]])


def pictures(folder: Path) -> list[Picture]:
    """One of each way to make colours."""
    depth, colour = folder / "depth.png", folder / "colour.png"
    cv2.imwrite(str(depth), natural_scenes.make_depth(RNG, 320, 240))
    cv2.imwrite(str(colour), natural_scenes.make_image(RNG, 320, 240))
    found = [open_rgb(colour), open_aux(colour, "thermal", "grey")]
    return found + [open_aux(depth, "depth", encoding) for encoding in images.ENCODINGS["depth"]]


@pytest.mark.parametrize("box", BOXES)
@pytest.mark.parametrize("factor", [2.0, 4.0])
def test_colours_of_a_part_are_the_part_of_the_colours(tmp_path: Path, box: tuple[float, ...], factor: float) -> None:
    for picture in pictures(tmp_path):
        whole = crop(picture.image(), box, factor, SIZE)
        part = crop(picture.raw, box, factor, SIZE, picture.finish)
        np.testing.assert_array_equal(part.image, whole.image)
        assert part.scale == whole.scale


def test_stacked_crops_are_those_of_six_channels() -> None:
    one, two = (natural_scenes.make_image(RNG, 200, 160) for _ in range(2))
    for side in (40, 64, 97, 128, 200):
        box = (60, 50, side / 2, side / 2)
        together = crop(np.concatenate([one, two], axis=2), box, 2.0, SIZE).image
        for image, part in ((one, slice(0, 3)), (two, slice(3, 6))):
            np.testing.assert_array_equal(crop(image, box, 2.0, SIZE, stacked=True).image, together[..., part])


# ---------------------------------------------------------------- scaled decoding
def write_jpeg(path: Path, width: int, height: int, channels: int = 3) -> NDArray[np.uint8]:
    image = natural_scenes.make_image(np.random.default_rng((width, height)), width, height, channels)
    cv2.imwrite(str(path), image, [cv2.IMWRITE_JPEG_QUALITY, 90])
    return image


@pytest.mark.parametrize("reduction", [2, 4, 8])
@pytest.mark.parametrize("box", BOXES)
def test_reduced_frames_give_nearly_the_same_crops(tmp_path: Path, reduction: int, box: tuple[float, ...]) -> None:
    """Compared with the full decode, smoothed over what the crop steps over: what differs otherwise is its aliasing."""
    path = tmp_path / "a.jpg"
    write_jpeg(path, 323, 241)
    picture, full = open_reduced(path, "rgb", None, reduction), open_rgb(path)
    assert picture is not None
    assert picture.shape == full.shape == (241, 323)
    size = max(8, round(4.0 * np.sqrt(box[2] * box[3]) / reduction * 0.8))
    smooth = cv2.blur(full.raw, (reduction, reduction), anchor=(reduction // 2, reduction // 2))
    found = crop_reduced(picture.raw, picture.shape, reduction, box, 4.0, size, picture.finish)
    wanted = crop(smooth, box, 4.0, size, full.finish)
    assert found.scale == wanted.scale
    difference = np.abs(found.image.astype(float) - wanted.image)
    assert difference.mean() < 4
    square = square_around(box, 4.0)
    padding = np.ones((square.side, square.side))
    padding[square.place(*square.inside(full.shape))] = 0
    np.testing.assert_array_equal(found.image[cv2.resize(padding, (size, size)) == 1], 0)


@pytest.mark.parametrize("reduction", [2, 4, 8])
def test_reduced_crops_lie_where_full_ones_do(reduction: int) -> None:
    """The centre of a smooth blob is found at the same place, within a tenth of a pixel of the crop."""
    height, width = 331, 427
    y, x = np.mgrid[:height, :width]
    for number in range(20):
        rng = np.random.default_rng(number)
        centre = rng.uniform((190, 140), (240, 190))
        blob = 250 * np.exp(-((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / (2 * 25**2))
        image = blob[..., None].repeat(3, axis=2)
        pad = [(0, -length % reduction) for length in (height, width)]
        padded = np.pad(image, [*pad, (0, 0)], mode="edge")
        blocks = padded.reshape(padded.shape[0] // reduction, reduction, padded.shape[1] // reduction, reduction, 3)
        reduced = blocks.mean(axis=(1, 3)).round().astype(np.uint8)
        box = (*(centre + rng.uniform(-15, 15, 2) - 30), 60, 60)
        size = int(240 / reduction * rng.uniform(0.7, 1.0))
        centres = []
        for found in (
            crop(image.round().astype(np.uint8), box, 4.0, size),
            crop_reduced(reduced, (height, width), reduction, box, 4.0, size),
        ):
            weight = found.image[..., 0].astype(float) ** 2
            centres.append([(np.arange(size) * weight.sum(axis)).sum() / weight.sum() for axis in (0, 1)])
        np.testing.assert_allclose(centres[1], centres[0], atol=0.1)


def test_frames_are_reduced_only_where_crops_shrink_as_much() -> None:
    assert [reduction_for((0, 0, side, side), 4.0, 64) for side in (31, 32, 63, 64, 127, 128, 900)] == [1, 2, 2, 4, 4, 8, 8]


def test_what_cannot_be_reduced(tmp_path: Path) -> None:
    colour, grey, png, flat = (tmp_path / name for name in ("c.jpg", "g.jpg", "p.png", "f.jpg"))
    write_jpeg(colour, 64, 48)
    write_jpeg(grey, 64, 48, 1)
    cv2.imwrite(str(png), np.zeros((48, 64, 3), dtype=np.uint8))
    cv2.imwrite(str(flat), np.full((48, 64, 3), 9, dtype=np.uint8))
    for source, modality in ((png, "rgb"), (grey, "depth"), (flat, "thermal"), (tmp_path / "no.jpg", "rgb"), (None, "event")):
        assert open_reduced(source, modality, None, 2) is None
    assert open_reduced(colour, "rgb", None, 1) is None


def test_no_image_is_turned(tmp_path: Path) -> None:
    """Boxes are those of stored pixels, in both modalities, whole and reduced."""
    plain, turned = tmp_path / "plain.jpg", tmp_path / "turned.jpg"
    write_jpeg(plain, 64, 48)
    tag = b"Exif\0\0MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1\0\6\0\0\0\0\0\0"
    turned.write_bytes(b"\xff\xd8\xff\xe1" + struct.pack(">H", len(tag) + 2) + tag + plain.read_bytes()[2:])
    np.testing.assert_array_equal(open_rgb(turned).raw, open_rgb(plain).raw)
    for encoding in ("stored", "grey"):
        found, wanted = (open_aux(path, "thermal", encoding).raw for path in (turned, plain))
        np.testing.assert_array_equal(found, wanted)
    reduced = open_reduced(turned, "rgb", None, 2)
    assert reduced is not None
    assert reduced.raw.shape == (24, 32, 3)


@pytest.mark.parametrize(
    ("modality", "encoding", "channels"), [("thermal", None, 1), ("thermal", "grey", 3), ("event", None, 3), ("depth", None, 3)]
)
def test_reduced_frames_of_the_second_modality(tmp_path: Path, modality: str, encoding: str | None, channels: int) -> None:
    path = tmp_path / "a.jpg"
    write_jpeg(path, 160, 120, channels)
    picture = open_reduced(path, modality, encoding, 2)
    assert picture is not None
    whole = open_aux(path, modality, encoding).image()
    assert picture.image().shape == (60, 80, 3)
    wanted = whole.reshape(60, 2, 80, 2, 3).mean(axis=(1, 3))
    assert np.abs(picture.image() - wanted).mean() < 2


def test_headers(tmp_path: Path) -> None:
    image = natural_scenes.make_image(RNG, 80, 60)
    for sampling, subsampled in ((cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420, True), (cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444, False)):
        data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, sampling])[1].tobytes()
        assert jpeg_header(data) == (60, 80, 3, subsampled)
        assert jpeg_header(data[:100]) is None
    progressive = cv2.imencode(".jpg", image[..., 0], [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes()
    assert jpeg_header(progressive) == (60, 80, 1, False)
    assert jpeg_header(cv2.imencode(".png", image)[1].tobytes()) is None
    assert jpeg_header(b"") is None


# ---------------------------------------------------------------- damage
KINDS = {
    "baseline": (),
    "restart markers": (cv2.IMWRITE_JPEG_RST_INTERVAL, 3),
    "progressive": (cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
    "own tables": (cv2.IMWRITE_JPEG_OPTIMIZE, 1),
}


def encode(image: NDArray[np.uint8], *options: int) -> bytes:
    return cv2.imencode(".jpg", image, options)[1].tobytes()


def decode(data: bytes) -> NDArray[np.uint8]:
    return np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED), dtype=np.uint8)


def sound_pictures(number: int) -> list[NDArray[np.uint8]]:
    """A scene in colour and in grey, and pictures that are nearly all of one value, as those of events are."""
    rng = np.random.default_rng(number)
    width, height = (int(side) for side in rng.integers(120, 500, 2))
    events = np.full((height, width, 3), (255, 128)[number % 2], np.uint8)
    events[rng.integers(0, height, 50), rng.integers(0, width, 50)] = rng.integers(0, 256, (50, 3))
    ramp = np.linspace(255, 0, width).astype(np.uint8)[None].repeat(height, 0)
    return [*(natural_scenes.make_image(rng, width, height, n) for n in (3, 1)), events, events[..., 0] * 0 + 128, ramp]


@pytest.mark.parametrize("kind", KINDS)
def test_sound_jpegs_are_not_called_damaged(kind: str) -> None:
    for number in range(12):
        quality = int(np.random.default_rng(number).integers(10, 100))
        for image in sound_pictures(number):
            data = encode(image, cv2.IMWRITE_JPEG_QUALITY, quality, *KINDS[kind])
            assert find_jpeg_damage(data) is None
            assert not is_cut_short(data, decode(data))
            padded = data[:-2] + bytes(200) + data[-2:] + bytes(300)
            assert find_jpeg_damage(padded) is None


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_jpeg_cut_in_half_with_an_end_marker_is_found(kind: str, channels: int) -> None:
    data = encode(natural_scenes.make_image(RNG, 320, 240, channels), *KINDS[kind])
    for share in (0.3, 0.5, 0.8):
        part = data[: int(share * len(data))] + b"\xff\xd9"
        assert is_cut_short(part, decode(part))


@pytest.mark.parametrize("channels", [1, 3])
def test_a_jpeg_whose_middle_is_zeros_is_an_error(tmp_path: Path, channels: int) -> None:
    data = encode(natural_scenes.make_image(RNG, 320, 240, channels))
    at, path = len(data) // 2, tmp_path / "a.jpg"
    path.write_bytes(data[:at] + bytes(512) + data[at + 512 :])
    with pytest.raises(UserError, match=r"a\.jpg is damaged: 51\d bytes from byte \d+ on are zeros"):
        open_rgb(path)
    note = b"\xff\xe1" + (502).to_bytes(2, "big") + bytes(500)
    path.write_bytes(data[:2] + note + data[2:])
    assert open_rgb(path).shape == (240, 320)


def test_broken_headers_are_no_traceback() -> None:
    data = encode(natural_scenes.make_image(RNG, 160, 120), cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
    whole = decode(data)
    for end in range(2, len(data), 7):
        find_jpeg_damage(data[:end] + bytes(80))
        is_cut_short(data[:end] + b"\xff\xd9", whole)


def test_an_image_larger_than_opencv_decodes_is_named(tmp_path: Path) -> None:
    rows = zlib.compress(b"")
    header = struct.pack(">IIBBBBB", 40_000, 40_000, 1, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", rows), (b"IEND", b""))
    body = b"".join(struct.pack(">I", len(d)) + kind + d + struct.pack(">I", zlib.crc32(kind + d)) for kind, d in chunks)
    path = tmp_path / "huge.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    with pytest.raises(UserError, match=r"huge\.png cannot be decoded.*OpenCV says"):
        open_rgb(path)
