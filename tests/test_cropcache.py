"""The cache of crops: the same samples as from the files, made whole or not at all, damage and changes noticed."""

import dataclasses
import json
import os
import pickle
from pathlib import Path

import cv2
import natural_scenes
import numpy as np
import pytest

from mstrack import assembly
from mstrack.config import load_config
from mstrack.data import cropcache
from mstrack.data.augment import NONE, Augmentation
from mstrack.data.cropbuild import build
from mstrack.data.cropcache import CropCache
from mstrack.data.crops import Square
from mstrack.data.pairs import Group, Pairing
from mstrack.data.sampling import PairDataset, batches_of, load_batches
from mstrack.data.sequence import Sequence
from mstrack.data.stills import Stills
from mstrack.errors import UserError

PAIRING = Pairing(template_size=32, search_size=64, min_frames=5)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> list[Sequence]:
    folder = tmp_path_factory.mktemp("scenes")
    return [natural_scenes.make_sequence(folder, seed, frames=6, size=(400, 300)) for seed in range(3)]


@pytest.fixture(scope="module")
def cache(scenes: list[Sequence], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    built = build(scenes, PAIRING, folder, scaled=False)
    assert (built.made, built.kept) == (3, 0)
    return folder


def place(cache: Path, sequence: Sequence) -> Path:
    return cache / cropcache.name_entry(sequence)


# ---------------------------------------------------------------- the same samples
@pytest.mark.parametrize("modality", ["thermal", "event", "depth"])
@pytest.mark.parametrize("scaled", [False, True])
def test_samples_are_the_same_within_what_jpeg_loses(tmp_path: Path, modality: str, scaled: bool) -> None:
    scene = natural_scenes.make_sequence(tmp_path, 5, frames=6, size=(400, 300), modality=modality)
    build([scene], PAIRING, tmp_path / "crops", scaled=scaled)
    augmentation = Augmentation(modality_dropout=0.3)
    plain = PairDataset([([scene],)], PAIRING, augmentation, scaled=scaled)
    cached = PairDataset([([scene],)], PAIRING, augmentation, scaled=scaled, crops=tmp_path / "crops")
    differences = []
    for index in range(40):
        one, other = plain.sample(0, index), cached.sample(0, index)
        for part in (2, 3, 4):
            np.testing.assert_array_equal(one[part], other[part])
        for side in (0, 1):
            differences.append(np.abs(one[side].astype(float) - other[side]).mean(axis=(1, 2, 3)))
            assert ((one[side] == 0).all(axis=(1, 2, 3)) == (other[side] == 0).all(axis=(1, 2, 3))).all()
    # A crop may be cut from a frame at 1/2 where the file would be decoded at 1/4: other aliasing.
    assert 0 < np.max(differences) < (5 if scaled else 3)
    assert np.mean(differences) < 1.5
    if modality == "depth":
        assert np.max([pair[1] for pair in differences]) == 0  # without loss


@pytest.mark.parametrize("modality", ["event", "depth"])
def test_what_was_stored_without_loss_is_kept_so(tmp_path: Path, modality: str) -> None:
    scene = natural_scenes.make_sequence(tmp_path, 6, frames=5, modality=modality, suffix="png")
    build([scene], PAIRING, tmp_path / "crops")
    plain = PairDataset([([scene],)], PAIRING, NONE)
    cached = PairDataset([([scene],)], PAIRING, NONE, crops=tmp_path / "crops")
    for index in range(20):
        for side in (0, 1):
            np.testing.assert_array_equal(plain.sample(0, index)[side][1], cached.sample(0, index)[side][1])


def test_most_samples_touch_no_file_of_the_dataset(
    scenes: list[Sequence], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Path] = []
    read = Path.read_bytes

    def spy(path: Path) -> bytes:
        opened.append(path)
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", spy)
    dataset = PairDataset([(scenes,)], PAIRING, NONE, crops=cache)
    for index in range(150):
        dataset.sample(0, index)
    assert len(opened) < 0.03 * 4 * 150


def test_a_crop_beyond_what_is_kept_comes_from_the_file(scenes: list[Sequence], cache: Path) -> None:
    far = dataclasses.replace(PAIRING, search_factor=30.0)
    one, other = (PairDataset([(scenes,)], far, NONE, crops=crops).sample(0, 0) for crops in (None, cache))
    np.testing.assert_array_equal(one[1], other[1])


def test_others_may_read_what_was_built(cache: Path) -> None:
    modes = [path.stat().st_mode & 0o777 for path in cache.iterdir() if path.is_dir()]
    assert modes == [0o755] * 3


def test_sequences_that_are_not_in_the_cache_are_read_from_files(scenes: list[Sequence], tmp_path: Path) -> None:
    build(scenes[:1], PAIRING, tmp_path)
    find = CropCache(tmp_path).find
    assert find(scenes[0], 0, 0) is not None
    assert find(scenes[1], 0, 0) is None
    assert find(scenes[0].cut(1, 6), 0, 0) is None
    assert find(dataclasses.replace(scenes[0], encoding="grey"), 0, 1) is None


def test_frames_that_cannot_be_drawn_are_not_kept(scenes: list[Sequence], tmp_path: Path) -> None:
    valid = np.array([True, False, True, True, True, True])
    assert scenes[0].aux is not None
    dead = tmp_path / "dead.png"
    cv2.imwrite(str(dead), np.full((300, 400), 9, dtype=np.uint8))
    partly = dataclasses.replace(scenes[0], valid=valid, aux=[*scenes[0].aux[:3], None, tmp_path / "gone.jpg", dead])
    build([partly], PAIRING, tmp_path / "crops")
    crops = CropCache(tmp_path / "crops")
    kept = [[crops.find(partly, index, modality) is not None for index in range(6)] for modality in (0, 1)]
    assert kept == [valid.tolist(), [True, False, True, False, False, False]]


def test_loading_processes_read_the_same(scenes: list[Sequence], cache: Path) -> None:
    dataset = PairDataset([(scenes,)], PAIRING, NONE, crops=cache)
    alone, others = (list(load_batches(dataset, 0, batches_of(8, 4), workers=workers)) for workers in (0, 2))
    assert all((a.search == b.search).all() for a, b in zip(alone, others, strict=True))


# ---------------------------------------------------------------- tiles
def test_any_part_of_the_tiles_is_that_part_of_the_frame(tmp_path: Path) -> None:
    scene = natural_scenes.make_sequence(tmp_path, 9, frames=2, size=(401, 299), modality="depth")
    wide = dataclasses.replace(scene, boxes=np.array([[150.0, 100, 100, 100]] * 2))
    build([wide], PAIRING, tmp_path / "crops", scaled=False)
    tiles = CropCache(tmp_path / "crops").find(wide, 0, 1)
    assert tiles is not None
    whole = wide.open_aux(0)
    assert not isinstance(whole, str)
    assert tiles.shape == whole.raw.shape == (299, 401)
    rng = np.random.default_rng(0)
    for _ in range(60):
        (top, bottom), (left, right) = (np.sort(rng.integers(0, length + 1, 2)).tolist() for length in tiles.shape)
        np.testing.assert_array_equal(tiles[top:bottom, left:right], whole.raw[top:bottom, left:right])
        np.testing.assert_array_equal(tiles.finish(tiles[0:9, 0:9]), whole.finish(whole.raw[0:9, 0:9]))


def test_the_border_of_what_is_kept(tmp_path: Path) -> None:
    scene = natural_scenes.make_sequence(tmp_path, 9, frames=2, size=(900, 700), modality="depth")
    small = dataclasses.replace(scene, boxes=np.array([[440.0, 340, 20, 20]] * 2))
    margin = build([small], PAIRING, tmp_path / "crops").margin
    tiles = CropCache(tmp_path / "crops").find(small, 0, 0)
    assert tiles is not None
    reach = margin * 20 / 2
    assert tiles.covers(Square(int(450 - reach), int(350 - reach), int(2 * reach)))
    assert not tiles.covers(Square(200, 300, 100))  # left of the first tile
    assert not tiles.covers(Square(400, 300, 400))
    assert tiles.covers(Square(2000, 300, 100))  # all padding: nothing is needed


def test_large_targets_are_kept_smaller(tmp_path: Path) -> None:
    scene = natural_scenes.make_sequence(tmp_path, 3, frames=6, size=(400, 300))
    large = dataclasses.replace(scene, boxes=np.tile([120.0, 90, 150, 120], (6, 1)))
    whole, reduced = (build([large], PAIRING, tmp_path / str(scaled), scaled=scaled).bytes for scaled in (False, True))
    assert reduced < 0.5 * whole
    tiles = CropCache(tmp_path / "True").find(large, 0, 0)
    assert tiles is not None
    assert tiles.reduction >= 2
    strict = PairDataset([([large],)], PAIRING, NONE, crops=tmp_path / "True").sample(0, 0)  # from files, decoded whole
    np.testing.assert_array_equal(strict[1], PairDataset([([large],)], PAIRING, NONE).sample(0, 0)[1])
    assert build([large], PAIRING, tmp_path / "True", scaled=False).made == 1
    assert build([large], PAIRING, tmp_path / "True", scaled=True).made == 0


# ---------------------------------------------------------------- making it
def test_what_is_there_is_left_and_what_changed_is_made_anew(tmp_path: Path) -> None:
    scenes = [natural_scenes.make_sequence(tmp_path, seed, frames=5) for seed in range(3)]
    folder = tmp_path / "crops"
    seen: list[tuple[int, int]] = []
    first = build(scenes[:2], PAIRING, folder)
    times = {path: path.stat().st_mtime_ns for path in folder.glob("*/crops.bin")}
    second = build(scenes, PAIRING, folder, progress=lambda done, total: seen.append((done, total)))
    assert (first.made, second.made, second.kept) == (2, 1, 2)
    assert seen == [(3, 3)]
    assert all(path.stat().st_mtime_ns == time for path, time in times.items())
    assert second.bytes == sum(path.stat().st_size for path in folder.glob("*/*"))

    middle = Path(str(scenes[1].rgb[2]))
    cv2.imwrite(str(middle), natural_scenes.make_image(np.random.default_rng(9), 320, 240))
    with pytest.raises(UserError, match=rf"sequence 'scene1', frame 2: .*{middle.name} has changed"):
        CropCache(folder).find(scenes[1], 2, 0)
    again = build(scenes, PAIRING, folder)
    assert (again.made, again.kept) == (1, 2)
    assert CropCache(folder).find(scenes[1], 2, 0) is not None
    wider = build(scenes, dataclasses.replace(PAIRING, search_jitter=(4.0, 0.25)), folder)
    narrower = build(scenes, PAIRING, folder)
    assert (wider.made, narrower.made) == (3, 0)


def test_an_interrupted_build_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scenes = [natural_scenes.make_sequence(tmp_path, seed, frames=5) for seed in range(3)]
    folder = tmp_path / "crops"

    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(scenes, PAIRING, folder, workers=1, progress=interrupt)
    finished = len(list(folder.glob("*/about.json")))
    assert 1 <= finished < 3
    assert not list(folder.glob(".half-*"))
    (folder / ".half-killed").mkdir()  # what a killed process leaves
    (folder / ".half-killed" / "crops.bin").write_bytes(b"x" * 1000)
    built = build(scenes, PAIRING, folder)
    assert (built.made, built.kept) == (3 - finished, finished)
    assert not list(folder.glob(".half-*"))


@pytest.mark.parametrize("workers", [1, 4])
def test_the_disk_is_bounded(scenes: list[Sequence], tmp_path: Path, workers: int) -> None:
    one = build(scenes[:1], PAIRING, tmp_path / "one").bytes
    folder = tmp_path / "crops"
    limit = 2.4 * one
    with pytest.raises(UserError, match=r"is full: [012] of 3 sequences fit into 0.00 GB and are kept"):
        build(scenes, PAIRING, folder, max_bytes=limit, workers=workers)
    left = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
    assert sum(left) <= limit
    assert not list(folder.glob(".half-*"))
    assert all((path / "about.json").exists() for path in folder.iterdir() if path.is_dir())
    build(scenes, PAIRING, folder, max_bytes=4 * one)


def test_a_second_build_in_the_folder_is_refused(scenes: list[Sequence], tmp_path: Path) -> None:
    refused: list[str] = []

    def begin_another(done: int, total: int) -> None:
        with pytest.raises(UserError, match="another `mst data cache` is under way in") as found:
            build(scenes, PAIRING, tmp_path)
        refused.append(str(found.value))

    assert build(scenes, PAIRING, tmp_path, workers=2, progress=begin_another).made == 3
    assert len(refused) == 3
    assert str(tmp_path) in refused[0]
    assert build(scenes, PAIRING, tmp_path).kept == 3  # and after an end of any kind it is free


def test_stills_are_neither_kept_nor_looked_for(
    scenes: list[Sequence], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = Path(str(scenes[0].rgb[0]))
    stills = Stills(image.parent, [image.name], np.zeros(2, np.int32), np.array([[1, 1], [1, 2]]), scenes[0].boxes[:2])
    built = build([*scenes[:1], *stills], PAIRING, tmp_path)
    assert (built.made, built.kept) == (1, 0)
    assert len(list(tmp_path.glob("*/about.json"))) == 1
    monkeypatch.setattr(cropcache, "open_entry", None)
    dataset = PairDataset([Group(stills)], dataclasses.replace(PAIRING, modalities=1), NONE, crops=tmp_path)
    assert {dataset.sample(0, index)[-1] for index in range(10)} == {"1-1", "1-2"}


def test_stills_of_a_recipe_are_not_even_made(scenes: list[Sequence], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = Path(str(scenes[0].rgb[0]))
    stills = Stills(image.parent, [image.name], np.zeros(2, np.int32), np.array([[1, 1], [1, 2]]), scenes[0].boxes[:2])
    config = load_config("mst-tiny-thermal")
    footage = [assembly.Footage(config.data.train[0], part) for part in (stills, scenes)]
    monkeypatch.setattr(assembly, "read_sources", lambda sources, config: footage)
    monkeypatch.setattr(Stills, "__getitem__", None)
    assert assembly.cache_crops(config, tmp_path, 1e9).made == 3


def test_a_cache_holds_on_to_no_sequence(scenes: list[Sequence], cache: Path) -> None:
    crops = CropCache(cache)
    for _ in range(20):
        drawn = dataclasses.replace(scenes[0])
        assert crops.find(drawn, 0, 0) is not None
    assert len(crops._entries) == 1
    again = pickle.loads(pickle.dumps(crops))  # for processes that are spawned
    assert (again.folder, again.verify, len(again._entries)) == (cache, False, 0)


def test_workers_make_the_same_files(scenes: list[Sequence], cache: Path, tmp_path: Path) -> None:
    build(scenes, PAIRING, tmp_path, workers=1, scaled=False)
    for path in cache.glob("*/crops.bin"):
        assert (tmp_path / path.relative_to(cache)).read_bytes() == path.read_bytes()


def test_an_image_that_cannot_be_read_is_named(scenes: list[Sequence], tmp_path: Path) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(Path(str(scenes[0].rgb[0])).read_bytes()[:500])
    bad = dataclasses.replace(scenes[0], rgb=[*scenes[0].rgb[:5], broken])
    with pytest.raises(UserError, match=r"broken\.jpg is truncated"):
        build([bad, scenes[1]], PAIRING, tmp_path / "crops")
    assert not list((tmp_path / "crops").glob(".half-*"))


# ---------------------------------------------------------------- damage
@pytest.mark.parametrize("modality", [0, 1])
def test_every_changed_file_is_noticed_where_it_is_used(tmp_path: Path, modality: int) -> None:
    scene = natural_scenes.make_sequence(tmp_path, 4, frames=6)
    build([scene], PAIRING, tmp_path / "crops")
    path = Path(str((scene.rgb, scene.aux or ())[modality][1]))
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    crops = CropCache(tmp_path / "crops")
    for index in range(6):
        for part in (0, 1):
            if (index, part) == (1, modality):
                with pytest.raises(UserError, match=rf"'scene4', frame 1: .*{path.name} has changed .* `mst data cache` again"):
                    crops.find(scene, index, part)
            else:
                assert crops.find(scene, index, part) is not None
    dataset = PairDataset([([scene],)], PAIRING, NONE, crops=tmp_path / "crops")
    with pytest.raises(UserError, match=rf"{path.name} has changed"):
        list(load_batches(dataset, 0, batches_of(30, 10), workers=0))
    assert build([scene], PAIRING, tmp_path / "crops").made == 1
    list(load_batches(PairDataset([([scene],)], PAIRING, NONE, crops=tmp_path / "crops"), 0, batches_of(30, 10), workers=0))


@dataclasses.dataclass(frozen=True)
class Reference:
    """A frame of a recording."""

    source: Path
    times: tuple[Path, ...]
    image: str

    def decode(self, flags: int) -> np.ndarray:
        return np.asarray(cv2.imread(self.image, flags))


@pytest.mark.parametrize("name", ["recording", "times"])
def test_a_changed_recording_is_noticed_in_each_of_its_frames(scenes: list[Sequence], tmp_path: Path, name: str) -> None:
    for part in ("recording", "times"):
        (tmp_path / part).write_text(part)
    frames = [Reference(tmp_path / "recording", (tmp_path / "times",), str(file)) for file in scenes[0].aux or ()]
    rendered = dataclasses.replace(scenes[0], aux=frames, modality="event")
    build([rendered], PAIRING, tmp_path / "crops")
    assert CropCache(tmp_path / "crops").find(rendered, 3, 1) is not None
    (tmp_path / name).write_text("longer than it was")
    for index in range(6):
        with pytest.raises(UserError, match=rf"frame {index}: .*recording.* has changed"):
            CropCache(tmp_path / "crops").find(rendered, index, 1)
        assert CropCache(tmp_path / "crops").find(rendered, index, 0) is not None


def damaged(cache: Path, scenes: list[Sequence], folder: Path) -> Path:
    """A copy of an entry's file, to be spoilt."""
    source = place(cache, scenes[0])
    copy = folder / source.name
    copy.mkdir()
    for path in source.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    return copy / "crops.bin"


def test_a_file_that_was_cut_off_is_noticed(cache: Path, scenes: list[Sequence], tmp_path: Path) -> None:
    path = damaged(cache, scenes, tmp_path)
    os.truncate(path, path.stat().st_size - 10)
    dataset = PairDataset([(scenes[:1],)], PAIRING, NONE, crops=tmp_path)
    with pytest.raises(UserError, match=r"sequence 'scene0': crop cache .* expected \d+\. Run `mst data cache` again"):
        dataset.sample(0, 0)
    assert build(scenes[:1], PAIRING, tmp_path, scaled=False).made == 1
    dataset = PairDataset([(scenes[:1],)], PAIRING, NONE, crops=tmp_path)
    dataset.sample(0, 0)


def test_a_changed_byte_is_noticed_by_its_hash(cache: Path, scenes: list[Sequence], tmp_path: Path) -> None:
    path = damaged(cache, scenes, tmp_path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 255
    path.write_bytes(data)
    assert CropCache(tmp_path).find(scenes[0], 0, 0) is not None
    with pytest.raises(UserError, match="SHA-256"):
        CropCache(tmp_path, verify=True).find(scenes[0], 0, 0)
    assert build(scenes[:1], PAIRING, tmp_path, scaled=False).kept == 1
    assert build(scenes[:1], PAIRING, tmp_path, scaled=False, verify=True).made == 1
    assert CropCache(tmp_path, verify=True).find(scenes[0], 0, 0) is not None


def test_a_tile_that_cannot_be_decoded_is_named(cache: Path, scenes: list[Sequence], tmp_path: Path) -> None:
    path = damaged(cache, scenes, tmp_path)
    data = bytearray(place(cache, scenes[0]).joinpath("crops.bin").read_bytes())
    table = json.loads((path.parent / "about.json").read_text())["table"]
    data[:table] = bytes(table)
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"sequence 'scene0', frame \d: .*crops\.bin is damaged"):
        PairDataset([(scenes[:1],)], PAIRING, NONE, crops=tmp_path).sample(0, 0)


def test_entries_of_another_version_are_not_read(
    cache: Path, scenes: list[Sequence], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = damaged(cache, scenes, tmp_path)
    about = json.loads((path.parent / "about.json").read_text())
    (path.parent / "about.json").write_text(json.dumps({**about, "version": 0}))
    assert CropCache(tmp_path).find(scenes[0], 0, 0) is None
    assert build(scenes[:1], PAIRING, tmp_path, scaled=False).made == 1


def test_the_default_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MST_CACHE", str(tmp_path))
    assert cropcache.default_folder() == tmp_path / "crops"
    monkeypatch.delenv("MST_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    assert cropcache.default_folder() == tmp_path / "user" / "mstrack" / "crops"


def test_names_tell_files_and_annotation_apart(scenes: list[Sequence]) -> None:
    one = scenes[0]
    others = [
        scenes[1],
        one.cut(0, 5),
        dataclasses.replace(one, boxes=one.boxes + 1),
        dataclasses.replace(one, valid=~one.valid),
        dataclasses.replace(one, encoding="grey"),
        dataclasses.replace(one, aux=one.rgb),
    ]
    names = {cropcache.name_entry(sequence) for sequence in (one, *others)}
    assert len(names) == 7
    assert cropcache.name_entry(dataclasses.replace(one, name="another")) in names
