"""Training pairs: their law of drawing, their geometry, and that nothing but (seed, epoch, index) decides."""

import dataclasses
import re
import subprocess
import sys
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import cv2
import moving_squares
import natural_scenes
import numpy as np
import pytest
import torch

from mstrack.data import cutting, images
from mstrack.data.augment import NONE, Augmentation
from mstrack.data.crops import crop, crop_mask, jitter
from mstrack.data.pairs import Candidate, Group, Pairing, candidates, draw_frames, find_extent, visible_frames
from mstrack.data.sampling import Batch, PairDataset, batches_of, load_batches
from mstrack.data.sequence import Sequence
from mstrack.data.stills import Stills
from mstrack.errors import DataWarning, UserError

PAIRING = Pairing(template_size=32, search_size=64, min_frames=5)
STRONG = Augmentation(photometric=0.3, modality_dropout=0.5, grayscale=0.5)


@pytest.fixture(scope="module")
def squares(tmp_path_factory: pytest.TempPathFactory) -> list[Sequence]:
    return moving_squares.load(tmp_path_factory.mktemp("squares"), "train")


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Sequence:
    return natural_scenes.make_sequence(tmp_path_factory.mktemp("scene"))


def equal(a: object, b: object) -> bool:
    return all(torch.equal(x, y) if isinstance(x, torch.Tensor) else x == y for x, y in zip(a, b, strict=True))  # type: ignore[call-overload]


# ---------------------------------------------------------------- what decides
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


@pytest.mark.parametrize("world", [2, 4])
def test_ranks_draw_the_samples_that_one_process_draws(squares: list[Sequence], world: int) -> None:
    whole = list(load_batches(PairDataset([(squares, 1.0)], PAIRING, STRONG), 1, batches_of(16, 8), workers=0))
    shares = [
        list(load_batches(PairDataset([(squares, 1.0)], PAIRING, STRONG), 1, batches_of(16, 8, rank, world), workers=0))
        for rank in range(world)
    ]
    for step, batch in enumerate(whole):
        together = [share[step] for share in shares]
        assert [name for part in together for name in part.names] == list(batch.names)
        for name in ("template", "search", "boxes", "photometry", "keep"):
            assert torch.equal(torch.cat([getattr(part, name) for part in together]), getattr(batch, name))


def test_batches_of_ranks_make_up_the_global_batch() -> None:
    whole = batches_of(26, 8)
    assert [len(b) for b in whole] == [8, 8, 8]
    shares = [batches_of(26, 8, rank, 4) for rank in range(4)]
    assert [[i for r in range(4) for i in shares[r][s]] for s in range(3)] == whole
    assert batches_of(26, 8, skip=2) == whole[2:]


# ---------------------------------------------------------------- which frames
def still(count: int, visible: list[int], **changes: object) -> Candidate:
    """A sequence without files, to draw from."""
    valid = np.zeros(count, dtype=bool)
    valid[visible] = True
    sequence = Sequence("drawn", [Path("x")] * count, np.ones((count, 4)), valid, [Path("y")] * count, "thermal")
    return Candidate(dataclasses.replace(sequence, **changes), np.array(visible))  # type: ignore[arg-type]


def published_law(count: int, visible: list[int], max_gap: int) -> dict[tuple[int, int], float]:
    """Probability of each pair under the released sampler, from its own words (`TrackingSampler`, causal, one and one)."""

    def visible_ids(minimum: int, maximum: int) -> list[int]:
        return [i for i in range(max(minimum, 0), min(maximum, count)) if i in visible]

    law: dict[tuple[int, int], float] = {}
    left, gap_increase = 1.0, 0
    while left > 1e-9:
        bases = visible_ids(0, count - 1)
        failed = 0.0
        for base in bases:
            found = visible_ids(base + 1, base + max_gap + gap_increase)
            for search in found:
                law[base, search] = law.get((base, search), 0.0) + left / len(bases) / len(found)
            failed += (not found) / len(bases)
        left *= failed
        gap_increase += 5
    return law


@pytest.mark.parametrize(
    ("count", "visible", "max_gap"),
    [
        (10, [0, 1, 2, 5, 6, 9], 200),  # all within the gap
        (10, [0, 1, 2, 5, 6], 200),  # the last frames are not visible
        (60, [0, 1, 9, 10, 24, 40, 59], 4),  # the gap grows
        (60, [0, 1, 9, 10, 24, 40, 41], 4),
        (12, list(range(12)), 5),
    ],
)
def test_frames_follow_the_published_law(count: int, visible: list[int], max_gap: int) -> None:
    rng = np.random.default_rng(0)
    draws = 20_000
    counted = Counter(draw_frames(rng, still(count, visible), max_gap) for _ in range(draws))
    law = published_law(count, visible, max_gap)
    assert set(counted) <= set(law)
    assert sum(law.values()) == pytest.approx(1)
    chi = sum((counted[pair] - draws * p) ** 2 / (draws * p) for pair, p in law.items())
    assert chi < len(law) + 5 * np.sqrt(2 * len(law))


def test_the_gap_bound_is_the_published_one() -> None:
    rng = np.random.default_rng(0)
    drawn = [draw_frames(rng, still(100, list(range(100))), max_gap=7) for _ in range(4000)]
    assert {s - t for t, s in drawn} == set(range(1, 7))


def test_frames_that_lie_too_far_apart_are_an_error_with_the_sequences_name() -> None:
    with pytest.raises(UserError, match=r"sequence 'drawn': no visible frame was found less than data\.max_gap = 10"):
        draw_frames(np.random.default_rng(0), still(5000, [0, 1000, 2000, 3000, 4000]), max_gap=10)


def test_small_targets_are_not_drawn() -> None:
    candidate = still(6, list(range(6)))
    boxes = np.array([[0, 0, w, h] for w, h in ((3, 3), (2, 3), (3, 2), (9, 9), (np.nan, np.nan), (2.5, 2.5))])
    sequence = dataclasses.replace(candidate.sequence, boxes=boxes)
    assert visible_frames(sequence, PAIRING, 2.0).tolist() == [0, 3, 5]
    assert visible_frames(sequence, PAIRING).tolist() == [0, 1, 2, 3, 5]
    with pytest.raises(UserError, match=r"larger than 2 pixels \(min_size\)"):
        candidates(Group([sequence], min_size=2.0), PAIRING)


def test_sequences_that_are_too_short_to_train_on_are_named() -> None:
    whole, short = still(30, list(range(30))).sequence, dataclasses.replace(still(6, [1]).sequence, name="short")
    with pytest.warns(DataWarning, match=r"1 of 2 sequences are left out.*20 frames \(data\.min_frames\).*: short"):
        assert len(candidates(Group([whole, short]), dataclasses.replace(PAIRING, min_frames=20))) == 1


def test_frames_without_their_second_modality_are_not_drawn() -> None:
    sequence = still(6, [0, 1, 2, 3, 5], aux=[Path("a"), None, Path("c"), Path("d"), Path("e"), None]).sequence
    assert visible_frames(sequence, PAIRING).tolist() == [0, 2, 3]
    assert visible_frames(sequence, dataclasses.replace(PAIRING, missing="zero")).tolist() == [0, 1, 2, 3, 5]
    assert visible_frames(sequence, dataclasses.replace(PAIRING, modalities=1)).tolist() == [0, 1, 2, 3, 5]


def test_a_still_is_template_and_search(scene: Sequence, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Path] = []
    for name in ("open_rgb", "open_aux"):
        monkeypatch.setattr(f"mstrack.data.sequence.{name}", spy(getattr(images, name), opened))
    stills = [scene.cut(i, i + 1) for i in range(3)]
    dataset = PairDataset([(stills, 1.0)], dataclasses.replace(PAIRING, min_frames=20), NONE)
    template, search, box, *_, name = dataset.sample(0, 0)
    assert name == scene.name
    assert len(opened) == len(set(opened)) == 2  # one file of each modality, once
    assert np.isfinite(box).all()
    assert template.any()
    assert search.any()
    absent = dataclasses.replace(stills[0], valid=np.zeros(1, dtype=bool))
    assert len(candidates(Group([*stills, absent]), PAIRING)) == 3


def test_many_stills_are_made_when_they_are_drawn(scene: Sequence) -> None:
    image = Path(str(scene.rgb[0]))
    folder, name = image.parent, image.name
    boxes = np.array([[10.0, 10, 30, 30], [5, 5, 4, 40], [60, 40, 50, 30]])
    stills = Stills(folder, [name], np.zeros(3, np.int32), np.array([[1, 1], [1, 2], [1, 3]]), boxes)
    pairing = Pairing(template_size=32, search_size=64, modalities=1)
    drawn = {PairDataset([Group(stills, min_size=10)], pairing, NONE).sample(0, i)[-1] for i in range(20)}
    assert drawn == {"1-1", "1-3"}
    with pytest.raises(UserError, match="none of 3 sequence"):
        PairDataset([Group(stills, min_size=100)], pairing, NONE)
    with pytest.raises(UserError, match="'1-1' has no second modality"):
        PairDataset([Group(stills)], Pairing(modalities=2), NONE)


def spy(function: Callable[..., object], opened: list[Path]) -> Callable[..., object]:
    def wrapped(source: Path, *args: object) -> object:
        opened.append(source)
        return function(source, *args)

    return wrapped


def test_sources_are_drawn_by_weight(squares: list[Sequence]) -> None:
    dataset = PairDataset([(squares[:1], 3.0), Group(squares[1:])], PAIRING, NONE)
    names = [dataset._draw_sequence(np.random.default_rng(i)).sequence.name for i in range(2000)]
    assert names.count("square0") / len(names) == pytest.approx(0.75, abs=0.04)


# ---------------------------------------------------------------- what is cut
def test_the_box_marks_the_square_in_the_search_crop(squares: list[Sequence]) -> None:
    """The target is the only bright thing, so its box can be read from the pixels: mirrored, jittered and all."""
    dataset = PairDataset([(squares, 1.0)], PAIRING, Augmentation(independent_flip=0.5), seed=0)
    for index in range(40):
        batch = dataset[(0, [index])]
        for modality in (0, 1):
            bright = (batch.search[0, modality].float().mean(0) > 150).numpy()
            x, y, w, h = batch.boxes[0].numpy() * 64
            if x < 1 or y < 1 or x + w > 62 or y + h > 62:
                continue
            rows, columns = np.flatnonzero(bright.any(1)), np.flatnonzero(bright.any(0))
            found = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
            np.testing.assert_allclose(found, [x, y, x + w, y + h], atol=3.0)


def test_a_pair_is_the_published_crops_of_whole_frames(scene: Sequence) -> None:
    """Against the slow way: whole frames with their colours, six channels cropped together."""
    for index in range(30):
        template, search, *_ = PairDataset([([scene],)], PAIRING, NONE, seed=2).sample(0, index)
        rng = np.random.default_rng((2, 0, index))
        rng.random(), rng.integers(1)
        t, s = draw_frames(rng, candidates(Group([scene]), PAIRING)[0], PAIRING.max_gap)
        rng.random(), rng.random(3), rng.uniform(-1, 1, (2, 2, 2)), rng.uniform(-1, 1, (2, 1)), rng.random(), rng.integers(2)
        for got, frame, (centre, scale), factor, size in (
            (template, t, (0, 0), 2.0, 32),
            (search, s, (3.0, 0.25), 4.0, 64),
        ):
            whole = scene.frame(frame)
            assert whole.aux is not None
            around = jitter(scene.boxes[frame], scale, centre, rng.standard_normal(2), rng.random(2))
            wanted = crop(np.concatenate([whole.rgb, whole.aux], axis=2), around, factor, size).image
            np.testing.assert_array_equal(got, wanted.transpose(2, 0, 1).reshape(2, 3, size, size))


def test_grey_leaves_the_second_modality_alone(scene: Sequence) -> None:
    colour = PairDataset([([scene],)], PAIRING, NONE)[(0, [0, 1])]
    grey = PairDataset([([scene],)], PAIRING, dataclasses.replace(NONE, grayscale=1.0))[(0, [0, 1])]
    assert torch.equal(colour.search[:, 1], grey.search[:, 1])
    for crops, plain in ((grey.search, colour.search), (grey.template, colour.template)):
        assert torch.equal(crops[:, 0, 0], crops[:, 0, 2])
        luma = plain[:, 0].float().mul(torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1)
        assert (crops[:, 0, 0] - luma).abs().max() < 1


def test_the_published_grey_never_fires_and_costs_draws(scene: Sequence) -> None:
    grey, redrawn = (
        PairDataset([([scene],)], PAIRING, dataclasses.replace(NONE, grayscale=0.5, grayscale_redraw=redraw))
        for redraw in (False, True)
    )
    fired = [(grey.sample(0, i)[1][0, 0] == grey.sample(0, i)[1][0, 2]).all() for i in range(20)]
    assert 3 < sum(fired) < 17
    for index, was_grey in enumerate(fired):
        again = redrawn.sample(0, index)
        assert not (again[1][0, 0] == again[1][0, 2]).all()
        assert np.array_equal(again[1], grey.sample(0, index)[1]) != was_grey


def test_scaled_decoding_gives_nearly_the_same_samples(scene: Sequence) -> None:
    plain = PairDataset([([scene],)], PAIRING, STRONG)
    scaled = PairDataset([([scene],)], PAIRING, STRONG, scaled=True)
    differences = []
    for index in range(40):
        a, b = plain.sample(0, index), scaled.sample(0, index)
        for one, other in zip(a[2:], b[2:], strict=True):
            np.testing.assert_array_equal(one, other)  # boxes, photometry, what is kept
        differences += [np.abs(a[side].astype(float) - b[side]).mean() for side in (0, 1)]
    assert max(differences) > 0
    assert np.mean(differences) < 5
    kept = PairDataset([([scene],)], PAIRING, STRONG, cache_bytes=1e9, scaled=True)  # frames that are kept are whole
    assert equal(kept[(0, list(range(10)))], plain[(0, list(range(10)))])


# ---------------------------------------------------------------- what is missing
def test_a_dropped_modality_is_zeros_and_its_file_is_not_opened(scene: Sequence, tmp_path: Path) -> None:
    always = dataclasses.replace(NONE, modality_dropout=1.0)
    nowhere = tmp_path / "nowhere.jpg"
    dataset = PairDataset([([scene],)], PAIRING, always)
    dropped = [int(dataset.sample(0, i)[4][0, 1] == 0) for i in range(12)]
    assert 0 < sum(dropped) < 12
    for index, which in enumerate(dropped):
        lacking = dataclasses.replace(scene, **{("rgb", "aux")[which]: [nowhere] * len(scene)})  # type: ignore[arg-type]
        for cache_bytes, scaled in ((0, False), (0, True), (1e9, False)):
            found = PairDataset([([lacking],)], PAIRING, always, cache_bytes=cache_bytes, scaled=scaled).sample(0, index)
            assert found[4].tolist() == [[which, 1 - which]] * 2
            for crops in found[:2]:
                assert not crops[which].any()
                assert crops[1 - which].any()


def test_one_modality_opens_no_other(scene: Sequence, tmp_path: Path) -> None:
    lacking = dataclasses.replace(scene, aux=[tmp_path / "nowhere.jpg"] * len(scene))
    alone = PairDataset([([lacking],)], dataclasses.replace(PAIRING, modalities=1), STRONG)
    batch = alone[(0, [0, 1])]
    assert batch.search.shape == (2, 1, 3, 64, 64)
    assert batch.keep.shape == (2, 2, 1)


@pytest.fixture
def gaps(scene: Sequence, tmp_path: Path) -> Sequence:
    """The scene with its second modality in frame 0 only: then a dead sensor, a file that is gone, none at all."""
    dead = tmp_path / "dead.jpg"
    cv2.imwrite(str(dead), np.full((240, 320), 7, dtype=np.uint8))
    assert scene.aux is not None
    return dataclasses.replace(scene, aux=[scene.aux[0], dead, tmp_path / "gone.jpg", *[None] * (len(scene) - 3)])


@pytest.mark.parametrize("scaled", [False, True])
def test_policies_for_a_missing_modality(gaps: Sequence, scene: Sequence, scaled: bool) -> None:
    wholes = PairDataset([([scene],)], PAIRING, NONE, scaled=scaled)
    for policy in ("zero", "copy", "last"):
        filled = PairDataset([([gaps],)], dataclasses.replace(PAIRING, missing=policy), NONE, scaled=scaled)
        for index in range(12):
            template, search, box, _, keep, _ = filled.sample(0, index)
            whole = wholes.sample(0, index)
            np.testing.assert_array_equal(search[0], whole[1][0])
            np.testing.assert_array_equal(box, whole[2])
            there = np.array_equal(template[1], whole[0][1])  # frame 0 has it
            if policy == "zero":
                assert keep.tolist() == [[1, there], [1, 0]]
                assert not search[1].any()
                assert there or not template[1].any()
            else:
                assert keep.all()
            if policy == "copy":
                np.testing.assert_array_equal(search[1], search[0])


def test_last_is_the_nearest_earlier_frame_in_the_same_place(gaps: Sequence) -> None:
    cutter = cutting.Cutter("last", 0, False, None)
    around = np.array([100.0, 80, 50, 40])
    for index in range(len(gaps)):
        cutout = cutter.cut(gaps, index, [cutting.Cut(around, 4.0, 64)], [True, True])[0]
        image = gaps.frame(0).aux
        assert image is not None
        np.testing.assert_array_equal(cutout.images[1], crop(image, around, 4.0, 64).image)
    first = cutter.cut(gaps.cut(1, 8), 0, [cutting.Cut(around, 4.0, 64)], [True, True])[0]
    assert first.images[1] is None  # nothing came before


def test_a_frame_without_its_second_modality_keeps_its_colours(gaps: Sequence) -> None:
    cut = [cutting.Cut(np.array([100.0, 80, 50, 40]), 4.0, 64)]
    cutout = cutting.Cutter("zero", 0, False, None).cut(gaps, 4, cut, [False, True])[0]
    assert cutout.images[0] is not None
    assert cutout.images[1] is None


@pytest.mark.parametrize(
    ("index", "reason"), [(1, "the same value everywhere"), (2, r"gone\.jpg does not exist"), (3, "there is no")]
)
def test_the_policy_error_names_frame_and_reason(gaps: Sequence, index: int, reason: str) -> None:
    cut = [cutting.Cut(np.array([100.0, 80, 50, 40]), 4.0, 64)]
    with pytest.raises(UserError, match=rf"sequence 'scene0', frame {index}: .*{reason}"):
        cutting.Cutter("error", 0, False, None).cut(gaps, index, cut, [True, True])


def test_frames_that_turn_out_to_lack_their_second_modality_are_drawn_again(scene: Sequence, gaps: Sequence) -> None:
    """Dead, or gone: no reader knew. They are left out as bounded and as reproducibly as all else, and it is said once."""
    assert scene.aux is not None
    assert gaps.aux is not None
    partly = dataclasses.replace(scene, name="partly", aux=[scene.aux[0], *gaps.aux[1:3], *scene.aux[3:]])
    plan = batches_of(48, 8)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        batches = list(load_batches(PairDataset([([partly, scene],)], PAIRING, NONE), 0, plan, workers=0))
    found = [w.message for w in caught if isinstance(w.message, DataWarning)]
    assert [(w.sequence, w.kind) for w in found] == [("partly", "missing")]
    assert re.search("does not exist|the same value everywhere", found[0].text)
    assert all(batch.keep.all() for batch in batches)
    assert {name for batch in batches for name in batch.names} == {"partly", "scene0"}
    others = list(load_batches(PairDataset([([partly, scene],)], PAIRING, NONE), 0, plan, workers=2))
    assert all(equal(a, b) for a, b in zip(batches, others, strict=True))


@pytest.mark.parametrize(("at", "reason"), [(1, "has the same value everywhere"), (2, r"gone\.jpg does not exist")])
def test_where_nothing_can_be_drawn_the_sequence_and_the_reason_are_named(gaps: Sequence, at: int, reason: str) -> None:
    assert gaps.aux is not None
    without = dataclasses.replace(gaps, aux=[gaps.aux[at]] * len(gaps))
    with (
        pytest.warns(DataWarning, match=reason),
        pytest.raises(UserError, match=rf"100 tries, the last in sequence 'scene0': .*{reason}.* \(data\.missing=zero"),
    ):
        PairDataset([([without],)], PAIRING, NONE).sample(0, 0)


def test_a_truncated_second_modality_is_never_drawn_again(scene: Sequence, tmp_path: Path) -> None:
    assert scene.aux is not None
    cut = tmp_path / "cut.jpg"
    cut.write_bytes(Path(str(scene.aux[0])).read_bytes()[:300])
    broken = dataclasses.replace(scene, aux=[cut, *scene.aux[1:]])
    with pytest.raises(UserError, match=r"cut\.jpg is truncated"):
        list(load_batches(PairDataset([([broken],)], PAIRING, NONE), 0, batches_of(48, 8), workers=0))


# ---------------------------------------------------------------- what goes wrong
def test_sequences_that_cannot_be_used_are_named(squares: list[Sequence]) -> None:
    with pytest.raises(UserError, match=r"each needs 20 frames"):
        PairDataset([(squares, 1.0)], dataclasses.replace(PAIRING, min_frames=20), NONE)
    colour_only = [dataclasses.replace(s, aux=None, modality="rgb") for s in squares]
    with pytest.raises(UserError, match="'square0' has no second modality"):
        PairDataset([(colour_only, 1.0)], PAIRING, NONE)


def test_an_unknown_policy_is_refused() -> None:
    with pytest.raises(UserError, match="Did you mean 'zero'"):
        dataclasses.replace(PAIRING, missing="zeros")


@pytest.mark.parametrize("workers", [0, 1])
def test_an_unreadable_image_is_named_from_a_loading_process(squares: list[Sequence], tmp_path: Path, workers: int) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(squares[0].rgb[0].read_bytes()[:300])  # type: ignore[union-attr]
    bad = [dataclasses.replace(s, rgb=(broken,) * len(s)) for s in squares]
    dataset = PairDataset([(bad, 1.0)], PAIRING, NONE)
    with pytest.raises(UserError, match=r"broken\.png"):
        list(load_batches(dataset, 0, [[0]], workers=workers))


def test_modalities_of_different_sizes_are_refused(scene: Sequence, tmp_path: Path) -> None:
    small = tmp_path / "small.png"
    cv2.imwrite(str(small), np.random.default_rng(0).integers(0, 256, (50, 60), dtype=np.uint8))
    odd = dataclasses.replace(scene, aux=[small] * len(scene))
    with pytest.raises(
        UserError, match=r"sequence 'scene0', frame \d: the modalities differ in size, \(240, 320\) and \(50, 60\)"
    ):
        PairDataset([([odd],)], PAIRING, NONE).sample(0, 0)


def test_samples_that_cannot_be_drawn_end_in_an_error(squares: list[Sequence]) -> None:
    far = [dataclasses.replace(s, boxes=s.boxes + np.array([900, 0, 0, 0])) for s in squares]  # all crops are padding
    rejecting = dataclasses.replace(PAIRING, reject_padding=True)
    with pytest.raises(UserError, match=r"100 tries, the last in sequence 'square\d': a crop is all padding"):
        PairDataset([(far, 1.0)], rejecting, NONE).sample(0, 0)
    batch: Batch = PairDataset([(far, 1.0)], rejecting, NONE)[(0, [0])]
    assert batch.error is not None
    assert PairDataset([(far, 1.0)], PAIRING, NONE)[(0, [0])].error is None


def test_rejected_crops_are_those_without_a_patch_that_is_all_image(squares: list[Sequence]) -> None:
    moved = [dataclasses.replace(s, boxes=s.boxes + np.array([42, 0, 0, 0])) for s in squares]  # at the border
    plain, rejecting = (
        PairDataset([(moved, 1.0)], dataclasses.replace(PAIRING, reject_padding=reject), NONE) for reject in (False, True)
    )
    for index in range(40):
        a, b = plain.sample(0, index), rejecting.sample(0, index)
        if not np.array_equal(a[1], b[1]):
            empty = [not crops[:, :, ::16, ::16].any() for crops in a[:2]]
            assert any(empty)
    assert crop_mask((50, 50), (60, 10, 8, 8), 2.0, 32).all()


# ---------------------------------------------------------------- how far crops reach
def test_the_extent_holds_its_share_of_crops() -> None:
    extent = find_extent(Pairing(), 0.98)
    rng = np.random.default_rng(7)
    sides = []
    for _ in range(4000):
        x, y, w, h = jitter((-0.5, -0.5, 1, 1), 0.25, 3.0, rng.standard_normal(2), rng.random(2))
        side = 4.0 * np.sqrt(w * h)
        sides.append((2 * max(abs(x + w / 2), abs(y + h / 2)) + side, side))
    reach, side = np.array(sides).T
    assert (reach <= extent.margin).mean() == pytest.approx(0.98, abs=0.01)
    assert (side / 256 >= extent.shrinkage).mean() == pytest.approx(0.98, abs=0.01)
    assert find_extent(Pairing(search_jitter=(0.0, 0.0)), 0.98) == pytest.approx((4.0, 2 / 128))


FULL = """
import resource, torch
from mstrack.data.sampling import load_keys


class Large(torch.utils.data.Dataset):
    def __getitem__(self, key):
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))
        return torch.zeros(1 << 20)


if __name__ == "__main__":
    next(load_keys(Large(), [(0, [0])], 1))
"""


def test_a_batch_that_shared_memory_cannot_hold_is_not_waited_for(tmp_path: Path) -> None:
    script = tmp_path / "full.py"
    script.write_text(FULL)
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=240)
    assert "cannot hand over" in done.stderr
    assert "RuntimeError: DataLoader worker" in done.stderr
