"""The box convention against slow, obvious counting."""

import numpy as np
import pytest

from mstrack import boxes


def cells(box: tuple[int, int, int, int], side: int = 24) -> np.ndarray:
    """The unit pixels that a box with whole coordinates covers, counted one by one."""
    x, y, w, h = box
    return np.array([[x <= column < x + w and y <= row < y + h for column in range(side)] for row in range(side)])


def test_iou_counts_pixels() -> None:
    rng = np.random.default_rng(0)
    corner, sides = rng.integers(0, 12, (2, 60, 2)), rng.integers(1, 12, (2, 60, 2))
    a, b = np.concatenate([corner, sides], axis=-1)
    expected = [
        (cells(tuple(p)) & cells(tuple(q))).sum() / (cells(tuple(p)) | cells(tuple(q))).sum() for p, q in zip(a, b, strict=True)
    ]
    assert 0 in expected
    assert max(expected) > 0.4
    np.testing.assert_allclose(boxes.iou(a, b), expected, rtol=1e-14)


def test_iou_of_nothing_is_zero_and_of_nan_is_nan() -> None:
    found = boxes.iou([[3, 3, 0, 0], [np.nan] * 4, [0, 0, 2, 2]], [[3, 3, 0, 0], [0, 0, 2, 2], [0, 0, 2, 2]])
    np.testing.assert_array_equal(found, [0, np.nan, 1])


def test_conversions_agree_and_return() -> None:
    given = np.random.default_rng(1).uniform(-50, 300, (3, 5, 4))
    x, y, w, h = np.moveaxis(given, -1, 0)
    np.testing.assert_array_equal(boxes.corners(given), np.stack([x, y, x + w, y + h], -1))
    np.testing.assert_array_equal(boxes.centres(given), np.stack([x + w / 2, y + h / 2], -1))
    np.testing.assert_allclose(boxes.from_corners(boxes.corners(given)), given, atol=1e-12)
    centred = np.concatenate([boxes.centres(given), given[..., 2:]], axis=-1)
    np.testing.assert_allclose(boxes.from_centres(centred), given, atol=1e-12)


def test_centre_distance_is_euclidean() -> None:
    assert boxes.centre_distance([0, 0, 10, 10], [3, 2, 10, 14]) == pytest.approx(5)


@pytest.mark.parametrize(
    ("box", "kept"),
    [
        ((20, 30, 40, 50), (20, 30, 40, 50)),
        ((-30, 30, 35, 50), (0, 30, 10, 50)),
        ((315, 30, 90, 50), (310, 30, 10, 50)),
        ((20, -90, 40, 50), (20, 0, 40, 10)),
        ((20, 30, 4, 3), (20, 30, 10, 10)),
        ((-5, -5, 400, 300), (0, 0, 320, 240)),
    ],
)
def test_clip_keeps_the_margin(box: tuple[int, ...], kept: tuple[int, ...]) -> None:
    np.testing.assert_array_equal(boxes.clip(box, height=240, width=320), kept)
