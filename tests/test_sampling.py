"""Training pairs: their law of drawing, their geometry, and that nothing but (seed, epoch, index) decides."""

import dataclasses
from pathlib import Path

import moving_squares
import numpy as np
import pytest
import torch

from mstrack.data import augment
from mstrack.data.augment import NONE, Augmentation
from mstrack.data.sampling import PairDataset, Pairing, _draw_frames, batches_of, load_batches, vary
from mstrack.data.sequence import Sequence
from mstrack.errors import UserError

PAIRING = Pairing(template_size=32, search_size=64, min_frames=5)
STRONG = Augmentation(photometric=0.3, modality_dropout=0.5, grayscale=0.5)


@pytest.fixture(scope="module")
def squares(tmp_path_factory: pytest.TempPathFactory) -> list[Sequence]:
    return moving_squares.load(tmp_path_factory.mktemp("squares"), "train")


def equal(a: object, b: object) -> bool:
    return all(torch.equal(x, y) if isinstance(x, torch.Tensor) else x == y for x, y in zip(a, b, strict=True))  # type: ignore[call-overload]


def test_a_sample_depends_on_seed_epoch_and_index_alone(squares: list[Sequence]) -> None:
    first = PairDataset([(squares, 1.0)], PAIRING, STRONG, seed=3, cache_bytes=1e9)
    second = PairDataset([(squares, 1.0)], PAIRING, STRONG, seed=3)
    _ = second[(5, [1, 2, 3])]
    assert equal(first[(1, [7, 8])], second[(1, [7, 8])])
    assert not equal(first[(1, [7])], first[(2, [7])])
    assert not equal(first[(1, [7])], PairDataset([(squares, 1.0)], PAIRING, STRONG, seed=4)[(1, [7])])


@pytest.mark.parametrize("workers", [1, 2])
def test_loading_processes_change_nothing(squares: list[Sequence], workers: int) -> None:
    dataset = PairDataset([(squares, 1.0)], PAIRING, STRONG, seed=1)
    plan = batches_of(12, 4)
    alone = list(load_batches(dataset, 2, plan, workers=0))
    others = list(load_batches(dataset, 2, plan, workers=workers))
    assert len(alone) == 3
    assert all(equal(a, b) for a, b in zip(alone, others, strict=True))


def test_batches_of_ranks_make_up_the_global_batch() -> None:
    whole = batches_of(26, 8)
    assert [len(b) for b in whole] == [8, 8, 8]
    shares = [batches_of(26, 8, rank, 4) for rank in range(4)]
    assert [[i for r in range(4) for i in shares[r][s]] for s in range(3)] == whole
    assert batches_of(26, 8, skip=2) == whole[2:]


def test_the_box_marks_the_square_in_the_search_crop(squares: list[Sequence]) -> None:
    """The target is the only bright thing, so its box can be read from the pixels: mirrored, jittered and all."""
    dataset = PairDataset([(squares, 1.0)], PAIRING, Augmentation(photometric=0, modality_dropout=0), seed=0)
    for index in range(40):
        batch = dataset[(0, [index])]
        bright = (batch.search[0, 1].float().mean(0) > 150).numpy()
        x, y, w, h = batch.boxes[0].numpy() * 64
        if x < 1 or y < 1 or x + w > 62 or y + h > 62:
            continue
        rows, columns = np.flatnonzero(bright.any(1)), np.flatnonzero(bright.any(0))
        found = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
        np.testing.assert_allclose(found, [x, y, x + w, y + h], atol=3.0)


def test_frames_are_causal_visible_and_near() -> None:
    rng = np.random.default_rng(0)
    visible = np.array([0, 1, 2, 10, 11, 30])
    drawn = [_draw_frames(rng, visible, max_gap=4) for _ in range(3000)]
    assert all(t in visible and s in visible and t < s for t, s in drawn)
    near = sum(s - t < 4 for t, s in drawn)
    assert near > 0.6 * len(drawn)
    assert _draw_frames(rng, np.array([11, 30]), max_gap=4) == (11, 30)  # the gap grows until a pair is found


def test_the_gap_bound_is_the_published_one() -> None:
    rng = np.random.default_rng(0)
    drawn = [_draw_frames(rng, np.arange(100), max_gap=7) for _ in range(4000)]
    assert {s - t for t, s in drawn} == set(range(1, 7))


def test_dropout_takes_one_modality_of_both_crops() -> None:
    draws = [augment.draw(np.random.default_rng(i), STRONG, 2).keep for i in range(4000)]
    kept = np.array(draws)
    assert (kept.sum(1) >= 1).all()
    np.testing.assert_allclose((kept == 0).mean(0), 0.25, atol=0.03)
    assert all(augment.draw(np.random.default_rng(i), STRONG, 1).keep.all() for i in range(50))


def test_no_augmentation_changes_nothing() -> None:
    variation = augment.draw(np.random.default_rng(0), NONE, 2)
    assert not variation.grayscale
    assert not variation.mirrored.any()
    assert (variation.photometry == 1).all()
    images = torch.randint(0, 256, (2, 2, 3, 4, 4), dtype=torch.uint8)
    torch.testing.assert_close(vary(images, torch.ones(2, 2, 2)), images.float())


def test_brightness_is_shared_and_photometry_is_not() -> None:
    shared = augment.draw(np.random.default_rng(1), Augmentation(brightness=0.2), 2).photometry
    np.testing.assert_array_equal(shared[:, 0], shared[:, 1])
    assert (np.abs(shared[..., 1] - 1) <= 0.2).all()
    own = augment.draw(np.random.default_rng(1), Augmentation(photometric=0.3), 2).photometry
    assert (own[:, 0] != own[:, 1]).all()


def test_vary_is_contrast_then_factor_then_clamp() -> None:
    images = torch.tensor([0, 100, 255], dtype=torch.uint8).view(1, 1, 3, 1, 1)
    got = vary(images, torch.tensor([[[0.5, 1.5]]]))
    want = [(0 - 127.5) * 0.5 + 127.5, (100 - 127.5) * 0.5 + 127.5, (255 - 127.5) * 0.5 + 127.5]
    torch.testing.assert_close(got.flatten(), torch.tensor([min(255.0, 1.5 * v) for v in want]))


def test_mirroring_twice_is_nothing() -> None:
    box = np.array([0.2, 0.3, 0.25, 0.1])
    np.testing.assert_allclose(augment.mirror_box(augment.mirror_box(box, 64), 64), box)


def test_sequences_that_cannot_be_used_are_named(squares: list[Sequence]) -> None:
    with pytest.raises(UserError, match=r"each needs 20 frames"):
        PairDataset([(squares, 1.0)], dataclasses.replace(PAIRING, min_frames=20), NONE)
    colour_only = [dataclasses.replace(s, aux=None, modality="rgb") for s in squares]
    with pytest.raises(UserError, match="'square0' has no second modality"):
        PairDataset([(colour_only, 1.0)], PAIRING, NONE)


def test_an_unreadable_image_is_named_from_a_loading_process(squares: list[Sequence], tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(squares[0].rgb[0].read_bytes()[:300])
    bad = [dataclasses.replace(s, rgb=(broken,) * len(s)) for s in squares]
    dataset = PairDataset([(bad, 1.0)], PAIRING, NONE)
    with pytest.raises(UserError, match=r"broken\.png"):
        list(load_batches(dataset, 0, [[0]], workers=1))


def test_sources_are_drawn_by_weight(squares: list[Sequence]) -> None:
    dataset = PairDataset([(squares[:1], 3.0), (squares[1:], 1.0)], PAIRING, NONE)
    names = [dataset._draw_sequence(np.random.default_rng(i)).name for i in range(2000)]
    assert names.count("square0") / len(names) == pytest.approx(0.75, abs=0.04)
