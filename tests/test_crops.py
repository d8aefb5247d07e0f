"""Crops against definitions and against each other; the bit-exact comparison is in test_golden.py."""

import math

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from mstrack.data.crops import crop, crop_mask, from_crop, jitter, to_crop
from mstrack.errors import UserError

RNG = np.random.default_rng(0)
IMAGE = RNG.integers(1, 256, (60, 80, 3), dtype=np.uint8)
INSIDE, CORNER, AROUND = (30, 20, 12, 9), (-4.3, -2.5, 10, 8), (0, 0, 80, 60)
FAR = (300, 20, 12, 9)


def slow_square(box: tuple[float, ...], factor: float) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """The square before it is resized and where it is padding, pixel by pixel."""
    x, y, w, h = box
    side = math.ceil(math.sqrt(w * h) * factor)
    left, top = round(x + w / 2 - side / 2), round(y + h / 2 - side / 2)
    square, padding = np.zeros((side, side, 3), dtype=np.uint8), np.ones((side, side), dtype=bool)
    for row in range(side):
        for column in range(side):
            i, j = top + row, left + column
            if 0 <= i < IMAGE.shape[0] - 1 and 0 <= j < IMAGE.shape[1] - 1:
                square[row, column], padding[row, column] = IMAGE[i, j], False
    return square, padding


@pytest.mark.parametrize("box", [INSIDE, CORNER, AROUND, FAR, (74.5, 53.5, 5, 6)])
@pytest.mark.parametrize(("factor", "size"), [(2.0, 32), (4.0, 64)])
def test_crop_is_the_square_resized(box: tuple[float, ...], factor: float, size: int) -> None:
    square, padding = slow_square(box, factor)
    found = crop(IMAGE, box, factor, size)
    assert found.scale == size / len(square)
    np.testing.assert_array_equal(found.image, cv2.resize(square, (size, size)))
    expected_mask = cv2.resize(padding.astype(float), (size, size)) > 0
    np.testing.assert_array_equal(crop_mask(IMAGE.shape, box, factor, size), expected_mask)


def test_stacked_modalities_are_cut_as_they_are_alone() -> None:
    other = RNG.integers(0, 256, IMAGE.shape, dtype=np.uint8)
    both = crop(np.concatenate([IMAGE, other], axis=2), CORNER, 4.0, 64).image
    np.testing.assert_array_equal(both[..., :3], crop(IMAGE, CORNER, 4.0, 64).image)
    np.testing.assert_array_equal(both[..., 3:], crop(other, CORNER, 4.0, 64).image)


def test_crop_leaves_the_image_alone() -> None:
    before = IMAGE.copy()
    crop(IMAGE, INSIDE, 2.0, 32).image[:] = 0
    square_sized = crop(IMAGE, (30, 20, 8, 8), 2.0, 16)
    square_sized.image[:] = 0
    np.testing.assert_array_equal(IMAGE, before)


@pytest.mark.parametrize("box", [(1, 2, 0, 5), (1, 2, 3, -4), (1, math.nan, 3, 4), (1, 2, math.inf, 4)])
def test_a_box_without_size_is_refused(box: tuple[float, ...]) -> None:
    with pytest.raises(UserError, match=r"w, h > 0"):
        crop(IMAGE, box, 2.0, 32)


def test_to_crop_and_from_crop_differ_by_the_published_half_pixel() -> None:
    reference = RNG.uniform(10, 50, (20, 4))
    box = reference + RNG.uniform(-5, 5, (20, 4))
    size, scale = 64, RNG.uniform(0.5, 3, 20)
    inside = np.stack([to_crop(b, r, s, size) for b, r, s in zip(box, reference, scale, strict=True)])
    centred = np.concatenate([inside[:, :2] + inside[:, 2:] / 2, inside[:, 2:]], axis=1)
    back = from_crop(centred, reference, scale, size)
    np.testing.assert_allclose(back[:, 2:], box[:, 2:], rtol=1e-12)
    np.testing.assert_allclose(box[:, :2] - back[:, :2], np.repeat(0.5 / scale[:, None], 2, axis=1), rtol=1e-6)


def test_the_mapped_box_lies_on_the_target() -> None:
    image = np.zeros((200, 300, 3), dtype=np.uint8)
    image[60:100, 120:180] = 255
    reference = (105.0, 50.0, 50.0, 60.0)
    found = crop(image, reference, 4.0, 256)
    x, y, w, h = to_crop((120, 60, 60, 40), reference, found.scale, 256) * 256
    rows, columns = np.nonzero(found.image[..., 0] > 127)
    assert abs(columns.min() - x) <= 1.5
    assert abs(rows.min() - y) <= 1.5
    assert abs(columns.max() + 1 - (x + w)) <= 1.5
    assert abs(rows.max() + 1 - (y + h)) <= 1.5


def test_jitter_law() -> None:
    box = (10.0, 20.0, 30.0, 50.0)
    np.testing.assert_allclose(jitter(box, 0, 0, RNG.standard_normal(2), RNG.random(2)), box)
    wider = jitter(box, 0.5, 0, (1, -1), (0.5, 0.5))
    np.testing.assert_allclose(wider[2:], [30 * math.exp(0.5), 50 * math.exp(-0.5)])
    np.testing.assert_allclose(wider[:2] + wider[2:] / 2, [25, 45])
    moved = jitter(box, 0, 3, (0, 0), (0, 1))
    np.testing.assert_allclose(moved, [10 - 1.5 * math.sqrt(1500), 20 + 1.5 * math.sqrt(1500), 30, 50])
