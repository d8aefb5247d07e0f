"""The variation of a pair: its laws, the published defects that are off, and what is done on the host and on the device."""

import cv2
import numpy as np
import pytest
import torch

from mstrack.data import augment
from mstrack.data.augment import NONE, Augmentation
from mstrack.data.sampling import vary
from mstrack.errors import UserError

DRAWS = 4000


def draws(augmentation: Augmentation, modalities: int = 2) -> list[augment.Variation]:
    return [augment.draw(np.random.default_rng(i), augmentation, modalities) for i in range(DRAWS)]


def test_template_and_search_are_mirrored_together() -> None:
    mirrored = np.array([v.mirrored for v in draws(Augmentation())])
    np.testing.assert_array_equal(mirrored[:, 0], mirrored[:, 1])
    assert mirrored[:, 0].mean() == pytest.approx(0.5, abs=0.03)


def test_the_published_mirroring_ignores_what_the_pair_is() -> None:
    mirrored = np.array([v.mirrored for v in draws(Augmentation(independent_flip=0.5))])
    assert (mirrored[:, 0] != mirrored[:, 1]).mean() == pytest.approx(0.5, abs=0.03)
    np.testing.assert_allclose(mirrored.mean(0), 0.5, atol=0.03)


def test_grey_fires_as_often_as_it_should() -> None:
    assert np.mean([v.grayscale for v in draws(Augmentation())]) == pytest.approx(0.05, abs=0.01)


def test_grey_that_is_always_drawn_again_is_refused() -> None:
    with pytest.raises(UserError, match="without end"):
        Augmentation(grayscale=1.0, grayscale_redraw=True)


def test_dropout_takes_one_modality() -> None:
    kept = np.array([v.keep for v in draws(Augmentation(modality_dropout=0.5))])
    assert (kept.sum(1) >= 1).all()
    np.testing.assert_allclose((kept == 0).mean(0), 0.25, atol=0.03)
    assert all(v.keep.all() for v in draws(Augmentation(modality_dropout=1.0), 1)[:50])


def test_no_augmentation_changes_nothing() -> None:
    variation = augment.draw(np.random.default_rng(0), NONE, 2)
    assert not variation.grayscale
    assert not variation.mirrored.any()
    assert (variation.photometry == 1).all()
    assert variation.keep.all()
    images = torch.randint(0, 256, (2, 2, 3, 4, 4), dtype=torch.uint8)
    torch.testing.assert_close(vary(images, torch.ones(2, 2, 2)), images.float())


def test_brightness_is_shared_and_photometry_is_not() -> None:
    shared = augment.draw(np.random.default_rng(1), Augmentation(brightness=0.2), 2).photometry
    np.testing.assert_array_equal(shared[:, 0], shared[:, 1])
    assert (np.abs(shared[..., 1] - 1) <= 0.2).all()
    own = augment.draw(np.random.default_rng(1), Augmentation(photometric=0.3), 2).photometry
    assert (own[:, 0] != own[:, 1]).all()


def test_brightness_law() -> None:
    factors = np.array([v.photometry[0, 0, 1] for v in draws(Augmentation(brightness=0.2))])
    quantiles = np.quantile(factors, [0.0, 0.25, 0.5, 0.75, 1.0])
    np.testing.assert_allclose(quantiles, [0.8, 0.9, 1.0, 1.1, 1.2], atol=0.01)


def test_options_that_are_off_do_not_change_the_others_draws() -> None:
    plain = augment.draw(np.random.default_rng(5), Augmentation(), 2)
    other = augment.draw(np.random.default_rng(5), Augmentation(independent_flip=1.0, grayscale=0.0), 2)
    np.testing.assert_array_equal(plain.photometry, other.photometry)
    np.testing.assert_array_equal(plain.mirrored, ~other.mirrored)


def test_vary_is_contrast_then_factor_then_clamp() -> None:
    images = torch.tensor([0, 100, 255], dtype=torch.uint8).view(1, 1, 3, 1, 1)
    got = vary(images, torch.tensor([[[0.5, 1.5]]]))
    want = [(0 - 127.5) * 0.5 + 127.5, (100 - 127.5) * 0.5 + 127.5, (255 - 127.5) * 0.5 + 127.5]
    torch.testing.assert_close(got.flatten(), torch.tensor([min(255.0, 1.5 * v) for v in want]))


def test_grey_is_opencvs() -> None:
    image = np.random.default_rng(0).integers(0, 256, (7, 5, 3), dtype=np.uint8)
    grey = augment.to_grey(image)
    for channel in range(3):
        np.testing.assert_array_equal(grey[..., channel], cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))


@pytest.mark.parametrize(("flips", "centre"), [((True, False), 0.0), ((False, True), 0.5)])
def test_each_flip_has_its_own_centre_of_a_pixel(flips: tuple[bool, bool], centre: float) -> None:
    """A box around the centre of pixel i lies around that of the mirrored pixel: at i in the pair's flip, else at i + 0.5."""
    size, flipped = 16, np.array(flips)
    for i in range(size):
        image = np.zeros((1, size), np.uint8)
        image[0, i] = 1
        [j] = np.flatnonzero(cv2.flip(image, 1))
        box = np.array([(i + centre - 2) / size, 0.3, 4 / size, 0.1])
        moved = augment.mirror_box(box, size, flipped, published=True)
        np.testing.assert_allclose(moved, [(j + centre - 2) / size, 0.3, 4 / size, 0.1], atol=1e-15)
        np.testing.assert_allclose(augment.mirror_box(moved, size, flipped, published=True), box)


def test_both_published_flips_are_a_pixel_apart_and_ours_are_not() -> None:
    box, both = np.array([0.2, 0.3, 0.25, 0.1]), np.array([True, True])
    np.testing.assert_array_equal(augment.mirror_box(box, 64, np.array([False, False]), published=True), box)
    np.testing.assert_array_equal(augment.mirror_box(box, 64, both), box)
    moved = augment.mirror_box(box, 64, both, published=True)
    np.testing.assert_allclose(moved - box, [1 / 64, 0, 0, 0], atol=1e-15)
    for v in draws(Augmentation(independent_flip=0.5))[:50]:
        assert v.mirrored[1] == v.flips[0] ^ v.flips[1]
        one, other = (augment.mirror_box(box, 64, np.array(flips)) for flips in ((True, False), (False, True)))
        np.testing.assert_array_equal(one, other)
