"""Decoding against slow definitions; colours and scaled decoding of what is cut out, against the whole frame."""

import struct
from pathlib import Path

import cv2
import natural_scenes
import numpy as np
import pytest
from numpy.typing import NDArray

from mstrack.data import images
from mstrack.data.crops import crop, crop_reduced, reduction_for, square_around
from mstrack.data.imagefiles import jpeg_header
from mstrack.data.images import Picture, depth_to_colour, open_aux, open_reduced, open_rgb

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
    turned = tmp_path / "turned.jpg"
    tag = b"Exif\0\0MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1\0\6\0\0\0\0\0\0"
    turned.write_bytes(b"\xff\xd8\xff\xe1" + struct.pack(">H", len(tag) + 2) + tag + colour.read_bytes()[2:])
    assert open_rgb(turned).shape == (64, 48)
    assert open_reduced(turned, "rgb", None, 2) is None


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
