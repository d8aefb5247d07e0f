"""The readers of the real datasets: every published layout, and everything that is untidy in the field."""

import io
import os
import shutil
import tempfile
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from layouts import MODULES, OFFSET, VARIANTS, build, miniature, move, tree_of, write_images, write_recording

from mstrack.data import load_sequences
from mstrack.data.annotations import read_boxes
from mstrack.data.doctor import check
from mstrack.data.layout import DEPTH, describe_tree, list_frames
from mstrack.data.own import init, own
from mstrack.data.rgbe import ATTRIBUTES, coesot, fe108, visevent
from mstrack.data.sequence import Sequence
from mstrack.data.splits import read_list
from mstrack.data.stack import list_stacks
from mstrack.data.truths import load_truths
from mstrack.errors import DataWarning, UserError
from mstrack.registry import DATASETS, resolve

pytestmark = pytest.mark.filterwarnings("ignore:.*sequences are not in:mstrack.errors.DataWarning")

SIZE = (48, 64)
MODALITY = {"fe108": "event", "visevent": "event", "coesot": "event", "lasher": "thermal", "rgbt234": "thermal"}


def read(dataset: str, root: Path, split: str = "test", **arguments: str) -> list[Sequence]:
    return resolve("datasets", dataset)(root, split, **arguments)


def first_of(dataset: str, count: int = 1, split: str = "test") -> tuple[str, ...]:
    return read_list(dataset, split).names[:count]


def assert_target_is_seen(sequence: Sequence, index: int) -> None:
    """The square is brighter, or of another colour, than what is around it, in both modalities, where the box says."""
    frame = sequence.frame(index)
    x, y, w, h = sequence.boxes[index].astype(int)
    for image in (frame.rgb, frame.aux):
        assert image is not None
        assert image.shape == (*SIZE, 3)
        inside = np.zeros(SIZE, bool)
        inside[y + 1 : y + h - 1, x + 1 : x + w - 1] = True
        around = ~inside
        around[max(y - 3, 0) : y + h + 3, max(x - 3, 0) : x + w + 3] = False
        means = [image[part].astype(float).mean(axis=0) for part in (inside, around)]
        assert np.abs(means[0] - means[1]).max() > 90
        spread = image[inside].astype(float).std(axis=0).max()
        assert spread < 25, "the box lies on the square, not beside it"


# ---- every layout of every dataset


@pytest.mark.parametrize(("dataset", "variant"), VARIANTS)
def test_every_layout_is_read(tmp_path: Path, dataset: str, variant: str) -> None:
    made = miniature(dataset, variant, tmp_path, size=SIZE)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", ".*sequences are not in")
        splits = {split: load_sequences(dataset, split, tmp_path) for split in made}
    modality = next((item.kind for item in tree_of(dataset, variant).values() if item.kind == "thermal"), None)
    for split, sequences in splits.items():
        assert [sequence.name for sequence in sequences] == list(made[split])
        for sequence in sequences:
            np.testing.assert_array_equal(sequence.boxes, made[split][sequence.name])
            assert sequence.valid.all()
            assert sequence.first == 0
            if modality:
                assert sequence.modality == modality
    for index in (0, 5):
        assert_target_is_seen(splits["test"][0], index)


@pytest.mark.parametrize(("dataset", "variant"), [case for case in VARIANTS if case[0] != "own"])
def test_sequences_may_lie_in_any_folder(tmp_path: Path, dataset: str, variant: str) -> None:
    made = build(tree_of(dataset, variant), tmp_path / "some" / "train_subset", first_of_any(dataset))
    assert [s.name for s in load_sequences(dataset, "test", tmp_path)] == list(made)


def first_of_any(dataset: str) -> tuple[str, ...]:
    return ("b2", "b10") if dataset == "vot-rgbd" else first_of(dataset, 2)


@pytest.mark.parametrize(("dataset", "variant"), VARIANTS)
def test_absent_targets_are_not_valid_and_leading_ones_are_cut_off(tmp_path: Path, dataset: str, variant: str) -> None:
    name = first_of_any(dataset)[0] if dataset != "own" else "a"
    made = build(tree_of(dataset, variant), tmp_path, [name], frames=7, absent=(0, 1, 4))
    if dataset == "own":
        (tmp_path / "data.yaml").write_text("modality: event" if variant == "recordings" else "modality: thermal")
    (sequence,) = load_sequences(dataset, "test", tmp_path)
    assert sequence.first == 2
    assert sequence.valid.tolist() == [True, True, False, True, True]
    np.testing.assert_array_equal(sequence.boxes, made[name][2:])
    assert_target_is_seen(sequence, 0)


def test_every_tree_belongs_to_a_dataset_of_the_catalogue_and_is_described() -> None:
    for module in MODULES:
        for dataset, tree in module.TREES.items():
            assert DATASETS[dataset].startswith(module.__name__)
            text = describe_tree(tree)
            for items in tree.values():
                assert all(pattern in text and item.text in text for pattern, item in items.items())
    assert "00000001" in describe_tree(MODULES[1].TREES["depthtrack"])


def test_modalities_and_attributes(tmp_path: Path) -> None:
    for dataset, modality in MODALITY.items():
        miniature(dataset, "as released" if dataset != "fe108" else "stacks", tmp_path / dataset)
        assert {s.modality for s in read(dataset, tmp_path / dataset)} == {modality}
    assert read("visevent", tmp_path / "visevent")[0].attributes == (ATTRIBUTES[0],)
    assert read("coesot", tmp_path / "coesot")[0].attributes == ("CM",)
    assert read("lasher", tmp_path / "lasher")[0].attributes == ("NO",)
    (tmp_path / "rgbt234/attr_txt").mkdir()
    (tmp_path / "rgbt234/attr_txt/TC.txt").write_text("1\n" + "0\n" * 233)
    assert [s.attributes for s in read("rgbt234", tmp_path / "rgbt234")] == [("TC",), ()]
    (tmp_path / "rgbt234/attr_txt/TC.txt").write_text("1\n0\n")
    with pytest.raises(UserError, match=r"TC\.txt: 2 flags for 234"):
        read("rgbt234", tmp_path / "rgbt234")
    (tmp_path / "visevent/att" / f"{first_of('visevent')[0]}.txt").write_text("0\n1\n")
    with pytest.raises(UserError, match=r"expected 17 flags 0 or 1 \(CM, ROT"):
        read("visevent", tmp_path / "visevent")


# ---- frames


def listing(sequence: Sequence) -> list[tuple[str, str]]:
    return [(a.stem, b.stem if b else "-") for a, b in zip(sequence.rgb, sequence.aux, strict=True)]


def place_frames(folder: Path, kind: str, names: list[str]) -> None:
    """Files of these names in this order, in place of what is there."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    write_images(folder / "%d.png", kind, move("a", len(names), SIZE), SIZE)
    for number, name in enumerate(names):
        (folder / f"{number}.png").rename(folder / f".{name}")
    for path in list(folder.iterdir()):
        path.rename(folder / path.name.removeprefix("."))


def lasher_with(root: Path, visible: list[str], infrared: list[str], frames: int = 0) -> Path:
    """One sequence with these files; `frames` boxes."""
    build(tree_of("lasher", "numbered"), root, first_of("lasher"), frames or len(visible))
    folder = root / first_of("lasher")[0]
    place_frames(folder / "visible", "rgb", visible)
    place_frames(folder / "infrared", "thermal", infrared)
    return folder


@pytest.mark.parametrize(
    ("visible", "infrared"),
    [
        (["1.png", "2.png", "11.png", "101.png"], ["1.png", "2.png", "11.png", "101.png"]),
        (["v9.png", "v10.png", "v100.png"], ["i9.png", "i10.png", "i100.png"]),
        (["00012_v.png", "00013_v.png", "00114_v.png"], ["00012_i.png", "00013_i.png", "00114_i.png"]),
        (["000001.png", "000003.png", "000009.png"], ["1.png", "3.png", "9.png"]),
        (["frame998.png", "frame1000.png"], ["img998.png", "img1000.png"]),
    ],
)
def test_frames_of_any_names_are_sorted_by_number_and_paired(tmp_path: Path, visible: list[str], infrared: list[str]) -> None:
    lasher_with(tmp_path, visible, infrared)
    (sequence,) = read("lasher", tmp_path)
    assert [path.name for path in sequence.rgb] == visible
    assert [path.name for path in sequence.aux] == infrared


def test_a_frame_that_is_missing_in_one_modality_does_not_shift_the_others(tmp_path: Path) -> None:
    lasher_with(tmp_path, [f"v{n}.png" for n in range(1, 8)], [f"i{n}.png" for n in (1, 2, 4, 5, 6)])
    with pytest.warns(DataWarning, match=rf"{first_of('lasher')[0]}: 7 colour frames and 5 thermal.*by the numbers.*3, 7 lack"):
        (sequence,) = read("lasher", tmp_path)
    assert listing(sequence)[2:] == [("v3", "-"), ("v4", "i4"), ("v5", "i5"), ("v6", "i6"), ("v7", "-")]
    assert sequence.frame(2).lacking == "there is no thermal frame"


def test_surplus_frames_of_one_modality_are_ignored(tmp_path: Path) -> None:
    lasher_with(tmp_path, [f"v{n}.png" for n in (2, 3)], [f"i{n}.png" for n in range(1, 6)])
    with pytest.warns(DataWarning, match=r"2 colour frames and 5 thermal frames.*3 thermal frame\(s\) are ignored"):
        (sequence,) = read("lasher", tmp_path)
    assert listing(sequence) == [("v2", "i2"), ("v3", "i3")]


def test_frames_whose_numbers_say_nothing_are_paired_by_position(tmp_path: Path) -> None:
    lasher_with(tmp_path, ["a1b.png", "a2b.png", "c1d.png"], ["x.png", "y.png"])
    with pytest.warns(DataWarning, match="3 colour frames and 2 thermal frames, paired by position: the last 1 lack"):
        (sequence,) = read("lasher", tmp_path)
    assert listing(sequence) == [("a1b", "x"), ("a2b", "y"), ("c1d", "-")]


def test_modalities_that_count_from_different_numbers(tmp_path: Path) -> None:
    """LasHeR's renamed colour frames from 0, its original thermal ones from 1, the last of them lost."""
    lasher_with(tmp_path, [f"{n:06d}.png" for n in range(5)], [f"i_{n:05d}.png" for n in range(1, 5)])
    with pytest.warns(DataWarning, match=r"frame\(s\) 4 lack theirs"):
        (sequence,) = read("lasher", tmp_path)
    assert listing(sequence)[1:4] == [("000001", "i_00002"), ("000002", "i_00003"), ("000003", "i_00004")]


def test_as_many_frames_with_different_gaps_are_paired_by_number(tmp_path: Path) -> None:
    lasher_with(tmp_path, [f"v{n}.png" for n in (1, 2, 4, 5)], [f"i{n}.png" for n in (1, 2, 3, 5)])
    with pytest.warns(DataWarning) as caught:
        (sequence,) = read("lasher", tmp_path)
    assert any("frame(s) 4 lack theirs, 1 thermal frame(s) are ignored" in str(note.message) for note in caught)
    assert listing(sequence) == [("v1", "i1"), ("v2", "i2"), ("v4", "-"), ("v5", "i5")]


def test_a_lost_colour_frame_takes_its_box_along(tmp_path: Path) -> None:
    made = build(tree_of("lasher", "as released"), tmp_path, first_of("lasher"))
    name = first_of("lasher")[0]
    (tmp_path / name / "visible" / "v_00003.jpg").unlink()
    with pytest.warns(DataWarning, match="1 of 6 colour frames are missing; by the numbers"):
        (sequence,) = read("lasher", tmp_path)
    np.testing.assert_array_equal(sequence.boxes, np.delete(made[name], 2, axis=0))
    assert [Path(str(aux)).stem for aux in sequence.aux] == [f"i_{n:05d}" for n in (1, 2, 4, 5, 6)]
    boxes = tmp_path / name / "init.txt"
    boxes.write_text(boxes.read_text() + "1,2,3,4\n5,6,7,8\n")
    with pytest.warns(DataWarning, match="which belong together is not known; the sequence is left out"):
        assert read("lasher", tmp_path) == []


@pytest.mark.parametrize(
    ("numbers", "aux", "rows", "kept"),
    [
        (range(5, 9), range(5, 9), 9, [5, 6, 7, 8]),  # from 0
        (range(5, 9), range(5, 9), 8, [4, 5, 6, 7]),  # from 1
        ((5, 6, 8), (5, 6, 8), 9, [5, 6, 8]),
        (range(1, 9), range(9), 9, [1, 2, 3, 4, 5, 6, 7, 8]),  # the second modality says that they count from 0
        (range(1, 9), range(1, 9), 9, [0, 1, 2, 3, 4, 5, 6, 7]),  # one more at the end
        (range(5, 9), range(5, 9), 4, [0, 1, 2, 3]),
        (range(5, 9), range(5, 9), 6, None),
        ((1, 2, 4), (1, 2, 4), 5, None),  # is it 0 or 5 that lacks its frame?
    ],
)
def test_colour_frames_that_are_lost_in_front_take_their_boxes_along(
    tmp_path: Path, numbers: range, aux: range, rows: int, kept: list[int] | None
) -> None:
    folder = lasher_with(tmp_path, [f"{n:06d}.png" for n in numbers], [f"{n:06d}.png" for n in aux], rows)
    (folder / "groundtruth.txt").write_text("".join(f"{n},2,3,4\n" for n in range(rows)))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = read("lasher", tmp_path)
    if kept is None:
        assert found == []
        assert any("which belong together is not known" in str(note.message) for note in caught)
        return
    assert found[0].boxes[:, 0].tolist() == kept
    assert all(a == b for a, b in listing(found[0]))


def test_frames_that_count_from_elsewhere_keep_their_order(tmp_path: Path) -> None:
    lasher_with(tmp_path, ["11.png", "12.png", "13.png"], ["1.png", "2.png"])
    with pytest.warns(DataWarning, match=r"3 colour frames and 2 thermal frames.*frame\(s\) 13 lack theirs"):
        (sequence,) = read("lasher", tmp_path)
    assert listing(sequence) == [("11", "1"), ("12", "2"), ("13", "-")]


def test_gaps_in_the_numbers_of_both_modalities_are_none(tmp_path: Path) -> None:
    names = ["0001.png", "0002.png", "0007.png", "0008.png"]
    lasher_with(tmp_path, names, names)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", ".*sequences are not in")
        (sequence,) = read("lasher", tmp_path)
    assert [path.name for path in sequence.rgb] == names


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    numbers=st.sets(st.integers(0, 30000), min_size=1, max_size=12),
    width=st.sampled_from([0, 1, 4, 5]),
    prefix=st.sampled_from(["", "v_", "frame", "cam2_", "12-"]),
    behind=st.sampled_from([".jpg", "v.png", "_i.JPG", ".bmp"]),
    stranger=st.sampled_from([None, "Thumbs.db", "notes7.txt", "7.jpg.txt"]),
)
def test_frames_are_sorted_by_number_whatever_their_names(
    tmp_path: Path, numbers: set[int], width: int, prefix: str, behind: str, stranger: str | None
) -> None:
    names = [f"{prefix}{number:0{width}d}{behind}" for number in sorted(numbers)]
    folder = Path(tempfile.mkdtemp(dir=tmp_path))
    for name in [*names[::-1], *([stranger] if stranger else [])]:
        (folder / name).touch()
    assert list(list_frames(folder).names) == names


def test_a_frame_in_two_formats_is_read_once(tmp_path: Path) -> None:
    folder = lasher_with(tmp_path, ["1.png", "2.png"], ["1.png", "2.png"])
    (folder / "visible/Thumbs.db").write_bytes(b"x")
    (folder / "visible/2.jpg").write_bytes(cv2.imencode(".jpg", np.zeros((*SIZE, 3), np.uint8))[1].tobytes())
    with pytest.warns(DataWarning, match=r"1 frame\(s\) in two formats"):
        (sequence,) = read("lasher", tmp_path)
    assert [path.name for path in sequence.rgb] == ["1.png", "2.jpg"]


def test_a_folder_without_images_is_an_error_that_names_it(tmp_path: Path) -> None:
    folder = lasher_with(tmp_path, ["1.png", "2.png"], ["1.png", "2.png"])
    for path in (folder / "infrared").iterdir():
        path.rename(path.with_suffix(".raw"))
    with pytest.raises(UserError, match=rf"{first_of('lasher')[0]}/infrared holds no images"):
        read("lasher", tmp_path)


# ---- annotation


@pytest.mark.parametrize(("boxes", "kept"), [(9, 6), (4, 4)])
def test_surplus_boxes_and_frames_are_left_out(tmp_path: Path, boxes: int, kept: int) -> None:
    names = [f"{n}.png" for n in range(6)]
    lasher_with(tmp_path, names, names, frames=boxes)
    what = "boxes" if boxes > 6 else "frames"
    with pytest.warns(DataWarning, match=rf"{boxes} boxes for 6 frames: the surplus {what} are left out"):
        (sequence,) = read("lasher", tmp_path)
    assert len(sequence) == kept


@pytest.mark.parametrize(
    "text",
    [
        "\ufeff1,2,3,4\r\nnan,nan,nan,nan\r\n5,6,7,8\r\n0,0,0,0\r\n",
        "1\t2\t3\t4\n0\t0\t0\t0\n5\t6\t7\t8\nnan\tnan\tnan\tnan\n\n\n",
        "1 2 3 4 \n1 1 0 5\n5 6 7 8\n0 0 0 0",
        "1,2,4,2,4,6,1,6\nnan,nan,nan,nan\n12,6,12,14,5,14,5,6\n1,1,-2,4",
    ],
)
def test_boxes_of_any_spelling(tmp_path: Path, text: str) -> None:
    names = [f"{n}.png" for n in range(4)]
    (lasher_with(tmp_path, names, names) / "groundtruth.txt").write_bytes(text.encode())
    (sequence,) = read("lasher", tmp_path)
    assert sequence.valid.tolist() == [True, False, True, False]
    np.testing.assert_array_equal(sequence.boxes[[0, 2]], [[1, 2, 3, 4], [5, 6, 7, 8]])


def test_a_malformed_line_is_an_error_with_file_and_line_and_all_such_are_told_at_once(tmp_path: Path) -> None:
    made = build(tree_of("visevent", "renamed"), tmp_path, first_of("visevent", 7))
    for name in made:
        (tmp_path / name / "groundtruth.txt").write_text("1,2,3,4\n1,2,3\n")
    with pytest.raises(UserError, match=r"groundtruth\.txt, line 2: '1,2,3' is not a box(?s:.*)and 2 more:") as caught:
        read("visevent", tmp_path)
    assert str(caught.value).count("is not a box") == 5


@pytest.mark.parametrize("dataset", ["visevent", "coesot"])
def test_absent_flags_of_either_polarity(tmp_path: Path, dataset: str) -> None:
    build(tree_of(dataset, "renamed"), tmp_path, first_of(dataset), absent=(2, 5))
    file = tmp_path / first_of(dataset)[0] / "absent.txt"
    expected = [True, True, False, True, True, False]
    assert read(dataset, tmp_path)[0].valid.tolist() == expected
    file.write_text("0\n0\n1\n0\n0\n1\n")
    with pytest.warns(DataWarning, match="contradict the boxes; they are read as the opposite"):
        assert read(dataset, tmp_path)[0].valid.tolist() == expected


def test_flags_may_be_fewer_than_boxes_and_go_before_boxes(tmp_path: Path) -> None:
    build(tree_of("visevent", "renamed"), tmp_path, first_of("visevent"))
    (tmp_path / first_of("visevent")[0] / "absent.txt").write_text("1 1 0 1")
    with pytest.warns(DataWarning, match="4 absent flags for 6 boxes: missing ones count as present"):
        assert read("visevent", tmp_path)[0].valid.tolist() == [True, True, False, True, True, True]


def test_a_sequence_that_never_shows_its_target_is_left_out(tmp_path: Path) -> None:
    first, second = first_of("visevent", 2)
    build(tree_of("visevent", "renamed"), tmp_path, [first], absent=range(6))
    build(tree_of("visevent", "renamed"), tmp_path, [second])
    with pytest.warns(DataWarning, match=f"{first}: no frame has a target"):
        assert [s.name for s in read("visevent", tmp_path)] == [second]


def test_thermal_boxes_are_kept_beside_the_others(tmp_path: Path) -> None:
    for dataset in ("lasher", "rgbt234"):
        root = tmp_path / dataset
        name = first_of(dataset)[0]
        made = build(tree_of(dataset, "as released"), root, [name], absent=(0,))
        (root / name / "infrared.txt").write_text("".join(f"{n},1,2,3\n" for n in range(6)))
        (sequence,) = read(dataset, root)
        np.testing.assert_array_equal(sequence.boxes, made[name][1:])
        np.testing.assert_array_equal(sequence.aux_boxes[:, 0], [1, 2, 3, 4, 5])
        (root / name / "infrared.txt").write_text("1,1,2,3\n" * 4)
        with pytest.warns(DataWarning, match="4 thermal boxes for 6 frames"):
            (sequence,) = read(dataset, root)
        assert np.isnan(sequence.aux_boxes).any(axis=1).tolist() == [False, False, False, True, True]


def test_lasher_prefers_the_boxes_of_init(tmp_path: Path) -> None:
    folder = lasher_with(tmp_path, ["1.png", "2.png"], ["1.png", "2.png"])
    (folder / "groundtruth.txt").unlink()
    for number, name in enumerate(("visible.txt", "groundtruth.txt", "init.txt")):
        (folder / name).write_text(f"{number},1,2,3\n" * 2)
        assert read("lasher", tmp_path)[0].boxes[0, 0] == number


# ---- what is missing


@pytest.mark.parametrize(("dataset", "variant"), [case for case in VARIANTS if case[0] != "own"])
def test_a_listed_sequence_without_a_part_is_an_error_that_names_it(tmp_path: Path, dataset: str, variant: str) -> None:
    tree = tree_of(dataset, variant)
    name, other = first_of_any(dataset)
    needed = [p for p, item in tree.items() if item.kind in ("rgb", "grey", "event", "parts", "depth16", "colour", "thermal")]
    needed += [p for p, item in tree.items() if item.kind in ("events", "boxes") and "(optional)" not in item.text]
    for number, pattern in enumerate(needed):
        root = tmp_path / str(number)
        build(tree, root, [name, other], frames=3)
        place = root / pattern.replace("<sequence>", name)
        shutil.rmtree(place.parent) if "%" in pattern else place.unlink()
        with pytest.raises(UserError, match=rf"sequence '{name}': "):
            read(dataset, root)


def test_a_wrong_split_a_wrong_root_and_a_wrong_folder(tmp_path: Path) -> None:
    for dataset in (name for module in MODULES for name in module.TREES if name != "own"):
        with pytest.raises(UserError, match=f"split of {dataset} 'tset'.*(Did you mean 'test'|Known: ).*all"):
            (tmp_path / "test").mkdir(exist_ok=True)
            read(dataset, tmp_path, "tset")
        with pytest.raises(UserError, match=r"there is no folder .*nowhere"):
            read(dataset, tmp_path / "nowhere")
        with pytest.raises(UserError, match=rf"{dataset}: .* has none.*\n(?s:.*)<sequence>/.*groundtruth|visible\.txt"):
            read(dataset, tmp_path)


def test_empty_names_stand_for_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build(tree_of("own", "folders"), tmp_path, ["mug"])
    (tmp_path / "data.yaml").write_text("modality: thermal\n")
    monkeypatch.chdir(tmp_path)
    for load in (load_sequences, load_truths):
        with pytest.raises(UserError, match="unknown dataset ''"):
            load("", "all")
        with pytest.raises(UserError, match=r"the split of '\.' has an empty name"):
            load(".", "")
        assert len(load(".", "all")) == 1
    with pytest.raises(UserError, match="unknown dataset ''"):
        check("")
    with pytest.raises(UserError, match="the split of 'own' has an empty name"):
        check(".", split="")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [({"sequences": "abc"}, "sequences='abc'"), ({"frames": 2.5}, "frames=2.5"), ({"root": 5}, "takes no argument root")],
)
def test_arguments_that_cannot_be_are_named(arguments: dict[str, object], says: str) -> None:
    with pytest.raises(UserError, match=f"dataset 'synthetic' .*{says}"):
        load_sequences("synthetic", "test", arguments=arguments)


def test_sequences_of_another_dataset_are_shown(tmp_path: Path) -> None:
    build(tree_of("depthtrack", "as released"), tmp_path, ["mug", "cup"])
    with pytest.raises(UserError, match=r"none of the 50 sequences of 'test'\. It holds other sequences: cup, mug"):
        read("depthtrack", tmp_path)
    assert [s.name for s in read("depthtrack", tmp_path, "all")] == ["cup", "mug"]


def test_missing_sequences_are_named_in_a_warning(tmp_path: Path) -> None:
    miniature("depthtrack", "as released", tmp_path)
    with pytest.warns(DataWarning, match=r"depthtrack/test: 48 of 50 sequences are not in .*: bag01_indoor, bag02_indoor"):
        read("depthtrack", tmp_path)


def test_the_same_sequence_twice_is_read_once_with_a_warning(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        build(tree_of("depthtrack", "as released"), tmp_path / folder, first_of("depthtrack"))
    with pytest.warns(DataWarning, match=r"lies in .*/a/.* and in .*/b/.*; the first is read"):
        (sequence,) = read("depthtrack", tmp_path)
    assert sequence.rgb[0].is_relative_to(tmp_path / "a")


def test_what_macos_adds_to_archives_is_no_sequence(tmp_path: Path) -> None:
    names = first_of("depthtrack")
    build(tree_of("depthtrack", "as released"), tmp_path / "test", names)
    for file in ("color/._00000001.jpg", "._groundtruth.txt"):
        path = tmp_path / "__MACOSX" / "test" / names[0] / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"\0\5\x16\7")
    (sequence,) = read("depthtrack", tmp_path)
    assert sequence.rgb[0].is_relative_to(tmp_path / "test")


def test_annotation_in_a_tree_of_its_own_is_no_sequence(tmp_path: Path) -> None:
    names = first_of("coesot", 2)
    build(tree_of("coesot", "as released"), tmp_path / "test", names)
    for name in names:
        (tmp_path / "anno" / name).mkdir(parents=True)
        shutil.copy(tmp_path / "test" / name / "groundtruth.txt", tmp_path / "anno" / name)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", ".*sequences are not in")
        assert [s.rgb[0].parent.parent.parent.name for s in coesot(tmp_path, "test")] == ["test", "test"]


def test_sequences_too_deep_are_not_found(tmp_path: Path) -> None:
    build(tree_of("depthtrack", "as released"), tmp_path.joinpath(*"abcd"[:DEPTH]), first_of("depthtrack"))
    with pytest.raises(UserError, match="has none"):
        read("depthtrack", tmp_path)


# ---- events


def test_the_three_parts_of_a_frame_are_red_green_and_blue(tmp_path: Path) -> None:
    build(tree_of("fe108", "stacks"), tmp_path, first_of("fe108"))
    (sequence,) = read("fe108", tmp_path)
    x, y, w, h = sequence.boxes[3].astype(int)
    centre = sequence.frame(3).aux[y + h // 2, x + w // 2].astype(int)
    assert (np.abs(centre - [0, 255, 255]) < 12).all()
    assert str(sequence.aux[3]).endswith("inter3_stack/0004_*.jpg")
    assert sequence.aux[1:3][0].stem == "0002"
    sequence.aux[0].paths[1].write_bytes(cv2.imencode(".jpg", np.zeros((9, 9), np.uint8))[1].tobytes())
    with pytest.raises(UserError, match=r"0001_\*\.jpg: the three parts differ in size: 9 x 9, 64 x 48"):
        sequence.frame(0)


def test_a_frame_without_one_of_its_parts_does_not_shift_the_others(tmp_path: Path) -> None:
    build(tree_of("fe108", "stacks"), tmp_path, first_of("fe108"))
    folder = tmp_path / first_of("fe108")[0] / "inter3_stack"
    (folder / "0003_2.jpg").unlink()
    with pytest.warns(DataWarning) as caught:
        (sequence,) = read("fe108", tmp_path)
    kinds = [str(note.message.kind) for note in caught if isinstance(note.message, DataWarning)]
    assert {"parts", "pairs"} <= set(kinds)
    assert [stack.stem if stack else None for stack in sequence.aux] == ["0001", "0002", None, "0004", "0005", "0006"]
    for path in folder.glob("*_1.jpg"):
        path.unlink()
    with pytest.raises(UserError, match="holds no frames of three parts"):
        list_stacks(folder)


@pytest.mark.parametrize("text", ["{0},2\r\n", "other,7\n{0} 2", "\ufeff{0}\t2\n\n"])
@pytest.mark.parametrize("name", ["start_frame_idx_FE108.txt", "pair.txt"])
def test_offsets_are_read_from_a_file_beside_the_sequences(tmp_path: Path, text: str, name: str) -> None:
    build(tree_of("fe108", "recordings"), tmp_path, first_of("fe108"))
    (tmp_path / "start_frame_idx_FE108.txt").unlink()
    (tmp_path / name).write_text(text.format(first_of("fe108")[0]))
    (sequence,) = read("fe108", tmp_path)
    assert [frame.index for frame in sequence.aux] == [OFFSET + n for n in range(6)]
    assert_target_is_seen(sequence, 2)


def test_offsets_are_known_where_there_is_no_file(tmp_path: Path) -> None:
    build(tree_of("fe108", "recordings"), tmp_path, ["airplane", "mug"])
    (tmp_path / "start_frame_idx_FE108.txt").unlink()
    with pytest.warns(DataWarning, match="mug: no list says which frame of the recording is its first"):
        (sequence,) = read("fe108", tmp_path, "all")
    assert sequence.aux[0].index == 105
    (tmp_path / "pair.txt").write_text("airplane,2\nmug\n")
    with pytest.raises(UserError, match=r"pair\.txt, line 2: 'mug' is not a name and a number"):
        read("fe108", tmp_path, "all")


def test_a_recipe_by_name_goes_before_published_frames(tmp_path: Path) -> None:
    (name,) = first_of("visevent")
    boxes = build(tree_of("visevent", "as released"), tmp_path, [name])[name]
    assert visevent(tmp_path, "test")[0].aux[0].name == "frame0000.bmp"
    with pytest.raises(
        UserError,
        match=rf"'{name}': .* has no recording \(\.aedat4\) and no folder events_interval\. Not every sequence has one",
    ):
        visevent(tmp_path, "test", events="interval")
    write_recording(tmp_path / name / "recording.aedat4", boxes, SIZE)
    assert visevent(tmp_path, "test")[0].aux[0].name == "frame0000.bmp"
    (sequence,) = visevent(tmp_path, "test", events="voxel")
    assert (sequence.aux[5].recipe, sequence.aux[5].index) == ("voxel", 5)
    assert sequence.frame(1).aux.shape == (*SIZE, 3)
    with pytest.raises(UserError, match=r"recipe for event frames 'intervall'\. Did you mean 'interval'\?"):
        visevent(tmp_path, "test", events="intervall")
    (sequence,) = load_sequences("visevent", "test", tmp_path, arguments={"events": "interval"})
    assert_target_is_seen(sequence, 3)


@pytest.mark.parametrize("recipe", ["interval", "stack3"])
def test_frames_that_were_converted_are_used(tmp_path: Path, recipe: str) -> None:
    from mstrack.data.events import convert

    (name,) = first_of("fe108")
    build(tree_of("fe108", "recordings"), tmp_path, [name])
    convert(tmp_path / name / "events.aedat4", recipe)
    (tmp_path / name / "events.aedat4").unlink()
    (sequence,) = fe108(tmp_path, "test", recipe)
    assert [path.name for path in sequence.aux] == [f"{OFFSET + n:06d}.png" for n in range(6)]
    assert sequence.aux[0].parent.name == f"events_{recipe}"
    assert_target_is_seen(sequence, 5)
    with (tmp_path / "start_frame_idx_FE108.txt").open("w") as file:
        file.write(f"{name},5")
    with pytest.warns(DataWarning, match=r"lacks the frames of 2 of 6 colour frames: 000009\.png, 000010\.png\."):
        assert fe108(tmp_path, "test", recipe)[0].aux[4:] == [None, None]


def converted(tmp_path: Path, recipe: str = "interval") -> tuple[Path, Path]:
    """(recording, its event frames) of a sequence of COESOT."""
    from mstrack.data.events import convert

    (name,) = first_of("coesot")
    build(tree_of("coesot", "recordings"), tmp_path, [name])
    recording = tmp_path / name / f"{name}.aedat4"
    return recording, convert(recording, recipe).folder


def test_a_converted_frame_that_is_lost_does_not_shift_the_others(tmp_path: Path) -> None:
    recording, folder = converted(tmp_path)
    (folder / "000002.png").unlink()
    with pytest.warns(DataWarning, match="events_interval holds 6 of 7 frames; .* is rendered instead"):
        assert_target_is_seen(coesot(tmp_path, "test")[0], 2)
    recording.unlink()
    with pytest.warns(DataWarning, match=r"lacks the frames of 1 of 6 colour frames: 000002\.png\."):
        (sequence,) = coesot(tmp_path, "test")
    assert [path.name if path else None for path in sequence.aux] == [f"{n:06d}.png" if n != 2 else None for n in range(6)]
    assert sequence.frame(2).aux is None
    assert_target_is_seen(sequence, 5)


@pytest.mark.parametrize("source", ["rendered", "converted", "recording gone"])
def test_a_colour_frame_that_is_lost_does_not_shift_the_events(tmp_path: Path, source: str) -> None:
    recording, folder = converted(tmp_path)
    (recording.parent / f"{recording.stem}_aps" / "frame0002.bmp").unlink()
    if source == "rendered":
        shutil.rmtree(folder)
    if source == "recording gone":
        recording.unlink()
    with pytest.warns(DataWarning, match="1 of 6 colour frames are missing"):
        (sequence,) = coesot(tmp_path, "test")
    numbers = [frame.index if source == "rendered" else int(frame.stem) for frame in sequence.aux]
    assert numbers == [0, 1, 3, 4, 5]
    assert_target_is_seen(sequence, 3)


def test_converted_frames_of_a_recording_that_was_replaced_are_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mstrack.data.events import folders

    recording, folder = converted(tmp_path)
    assert coesot(tmp_path, "test")[0].aux[0] == folder / "000000.png"
    hashed = []
    slow = folders._hash
    monkeypatch.setattr(folders, "_hash", lambda path: hashed.append(path) or slow(path))
    os.utime(recording, (1, 1))
    for _ in range(3):
        assert coesot(tmp_path, "test")[0].aux[0] == folder / "000000.png", "the same content, at another time"
    assert hashed == [recording], "read once, not whenever the data are opened"
    write_recording(recording, move("another", 9, SIZE), SIZE)
    with pytest.warns(DataWarning, match="the recording has changed; .* is rendered instead"):
        (sequence,) = coesot(tmp_path, "test")
    assert sequence.aux[0].source == recording
    recording.unlink()
    assert coesot(tmp_path, "test")[0].aux[0] == folder / "000000.png"


def test_frames_converted_at_given_times_are_used_or_asked_for_again(tmp_path: Path) -> None:
    from mstrack.data.events import Timing, convert

    recording, folder = converted(tmp_path)
    shutil.rmtree(folder)
    convert(recording, "interval", timing=Timing(fps=25))
    assert coesot(tmp_path, "test")[0].aux[0] == folder / "000000.png"
    write_recording(recording, move("another", 9, SIZE), SIZE)
    with pytest.raises(
        UserError, match=r"the recording has changed\. .*mst data events .* --recipe interval`, with --times or"
    ):
        coesot(tmp_path, "test")


def test_frames_of_another_kind_of_file_are_used_while_it_is_the_same(tmp_path: Path) -> None:
    from mstrack.data.events import Timing, convert

    recording, folder = converted(tmp_path)
    recording.unlink()
    shutil.rmtree(folder)
    table = recording.with_name("events.npz")
    columns = {"x": [1, 2], "y": [3, 4], "t": [0, 999_999], "p": [0, 1], "width": SIZE[1], "height": SIZE[0]}
    np.savez(table, **columns)
    convert(table, "interval", timing=Timing(fps=6))
    assert coesot(tmp_path, "test")[0].aux[5] == folder / "000005.png"
    np.savez(table, **columns, more=np.zeros(5))
    with pytest.raises(UserError, match="the recording has changed"):
        coesot(tmp_path, "test")


def test_frames_of_another_recipe_are_used_only_when_asked_for(tmp_path: Path) -> None:
    recording, folder = converted(tmp_path, "voxel")
    assert coesot(tmp_path, "test")[0].aux[0].recipe == "interval"
    assert coesot(tmp_path, "test", "voxel")[0].aux[0] == folder / "000000.png"
    recording.unlink()
    with pytest.raises(UserError, match=r"has no .*, nor a recording .* It has events_voxel.*events=voxel"):
        coesot(tmp_path, "test")
    assert coesot(tmp_path, "test", "voxel")[0].aux[0] == folder / "000000.png"


def test_several_recordings_need_a_name(tmp_path: Path) -> None:
    (name,) = first_of("coesot")
    build(tree_of("coesot", "recordings"), tmp_path, [name])
    shutil.copy(tmp_path / name / f"{name}.aedat4", tmp_path / name / "other.aedat4")
    assert coesot(tmp_path, "test")[0].aux[0].source.stem == name
    (tmp_path / name / f"{name}.aedat4").rename(tmp_path / name / "third.aedat4")
    with pytest.raises(UserError, match=r"has 2 recordings, none named .*: other\.aedat4, third\.aedat4"):
        coesot(tmp_path, "test")


# ---- depth and the VOT toolkit


def test_depth_in_16_bits_goes_before_depth_in_colours(tmp_path: Path) -> None:
    for variant in ("coloured", "as released"):
        build(tree_of("depthtrack", variant), tmp_path, first_of("depthtrack"))
    (sequence,) = read("depthtrack", tmp_path)
    assert sequence.aux[0].name == "00000001.png"
    assert sequence.frame(0).aux.shape == (*SIZE, 3)


def test_vot_sequences_come_as_their_list_has_them(tmp_path: Path) -> None:
    build(tree_of("vot-rgbd", "depth"), tmp_path / "sequences", ["b10", "b2", "a"])
    assert [s.name for s in read("vot-rgbd", tmp_path)] == ["b10", "b2", "a"]
    (tmp_path / "sequences/list.txt").write_text("a\r\ngone\r\nb10\r\n")
    with pytest.warns(DataWarning, match=r"vot-rgbd/all: 1 of 3 sequences are not in .*: gone"):
        assert [s.name for s in read("vot-rgbd", tmp_path, "all")] == ["a", "b10"]
    (tmp_path / "sequences/list.txt").unlink()
    assert [s.name for s in read("vot-rgbd", tmp_path)] == ["a", "b2", "b10"]


def test_vot_tags_channels_and_a_start_alone(tmp_path: Path) -> None:
    build(tree_of("vot-rgbd", "thermal"), tmp_path, ["a"])
    (tmp_path / "a/sequence").write_text("channels.color = images/%08d.jpg\nchannels.depth=d/%08d.png\n")
    (tmp_path / "a/color").rename(tmp_path / "a/images")
    (tmp_path / "a/ir").rename(tmp_path / "a/d")
    (tmp_path / "a/dark.tag").write_text("0\n0\n0\n0\n0\n0\n")
    (tmp_path / "a/full-occlusion.tag").write_text("0\n1\n0\n0\n0\n0\n")
    first = (tmp_path / "a/groundtruth.txt").read_text().splitlines()[0]
    (tmp_path / "a/groundtruth.txt").write_text(first)
    (sequence,) = read("vot-rgbd", tmp_path)
    assert sequence.modality == "depth"
    assert sequence.attributes == ("full-occlusion",)
    assert sequence.valid.tolist() == [True] + [False] * 5
    assert np.isnan(sequence.boxes[1:]).all()


# ---- data of one's own


def test_own_data_needs_no_code(tmp_path: Path) -> None:
    place = tmp_path / "my data"
    made = {path.name for path in init(place, "depth")}
    assert made == {"train", "val", "test", "README.txt", "data.yaml", "recipe.yaml"}
    text = (place / "README.txt").read_text()
    for words in (f"mst data check '{place}'", f"mst train '{place}/recipe.yaml'", "mst eval RUN/model.safetensors --on"):
        assert words in text
    assert len(text.splitlines()) < 50
    for split in ("train", "val", "test"):
        build(tree_of("own", "folders"), place, [f"{split}1", f"{split}2"], split=split, modality="depth")
        sequences = load_sequences(str(place), split)
        assert [s.name for s in sequences] == [f"{split}1", f"{split}2"]
        assert {s.modality for s in sequences} == {"depth"}
    assert len(load_sequences(str(place), "all")) == 6
    with pytest.raises(UserError, match=r"its data.yaml says 'modality: depth', and thermal was asked for"):
        load_sequences(str(place), "test", modality="thermal")
    assert load_sequences(str(place), "test", modality="rgb")[0].aux is None
    (place / "night").mkdir()
    (place / "test/test2").rename(place / "night/test2")
    assert [s.name for s in load_sequences(str(place), "night")] == ["test2"]


def test_the_recipe_of_own_data_is_a_configuration(tmp_path: Path) -> None:
    from mstrack.config import load_config

    for modality in ("event", "depth", "thermal"):
        init(tmp_path / modality, modality)
        config = load_config(tmp_path / modality / "recipe.yaml")
        assert config.data.modality == modality
        assert (config.data.train[0].name, config.data.train[0].root) == ("own", tmp_path / modality)
        assert config.data.val[0].split == "val"


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    init(tmp_path)
    (tmp_path / "data.yaml").write_text("modality: depth\n")
    (tmp_path / "recipe.yaml").unlink()
    with pytest.warns(DataWarning, match=r"(README\.txt|data\.yaml) is there already"):
        assert init(tmp_path, "event") == [tmp_path / "recipe.yaml"]
    assert (tmp_path / "data.yaml").read_text() == "modality: depth\n"
    with pytest.raises(UserError, match="modality 'lidar'"):
        init(tmp_path, "lidar")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be made"):
        init(tmp_path / "file")


def test_a_table_of_events_needs_its_frames_made_first(tmp_path: Path) -> None:
    from mstrack.data.events import Timing, convert

    build(tree_of("own", "folders"), tmp_path, ["a"], split="test", modality="thermal")
    folder = tmp_path / "test/a"
    shutil.rmtree(folder / "aux")
    t = np.arange(100) * 1000
    for name in ("left", "right"):
        np.savez(folder / f"{name}.npz", t=t, x=t % 9, y=t % 7, p=t % 2)
    with pytest.raises(UserError, match=rf"has left\.npz, but no frames made of it.*`mst data events {folder} .*--times FILE`"):
        own(tmp_path, "test", "event")
    convert(folder / "left.npz", "interval", timing=Timing(fps=60))
    (sequence,) = own(tmp_path, "test", "event")
    assert sequence.aux[1] == folder / "left_events_interval/000001.png"


def test_sequences_without_splits_are_for_tests_alone(tmp_path: Path) -> None:
    build(tree_of("own", "folders"), tmp_path, ["a"], split="x")
    (tmp_path / "x/a").rename(tmp_path / "a")
    for split in ("test", "all"):
        assert [s.name for s in own(tmp_path, split, "thermal")] == ["a"]
    for split in ("train", "val"):
        with pytest.raises(UserError, match=rf"no folder '{split}'.*/train, .*what is trained on cannot be tested on"):
            own(tmp_path, split, "thermal")
    (tmp_path / "train").mkdir()
    with pytest.raises(UserError, match=r"no folder 'val'. It has train. Make .*/val"):
        own(tmp_path, "val", "thermal")
    with pytest.raises(UserError, match=r"split of .* 'tran'. Did you mean 'train'"):
        own(tmp_path, "tran", "thermal")
    with pytest.raises(UserError, match=r"/train has no sequences\. Expected(?s:.*)rgb/%06d\.jpg"):
        own(tmp_path, "train", "thermal")
    with pytest.raises(UserError, match=r"no folder .*nowhere\. `mst data init .*nowhere` makes one"):
        own(tmp_path / "nowhere", "test")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("modality: lidar", "modality 'lidar'.*Known: depth, event, rgb, thermal"),
        ("modality: thermal\nfps: 3", "holds 'modality, fps'; expected the one line"),
        ("thermal", "holds 'thermal'; expected"),
        ("", "holds 'None'; expected"),
        ("a: [", "is not YAML"),
    ],
)
def test_a_malformed_description_of_own_data(tmp_path: Path, text: str, words: str) -> None:
    build(tree_of("own", "folders"), tmp_path, ["a"])
    (tmp_path / "data.yaml").write_text(text)
    with pytest.raises(UserError, match=rf"data\.yaml.*{words}"):
        own(tmp_path, "test")


def test_own_sequences_lacking_a_part(tmp_path: Path) -> None:
    build(tree_of("own", "folders"), tmp_path, ["a", "b"])
    with pytest.raises(UserError, match=r"nobody says what .*/aux is. Write 'modality: thermal'"):
        own(tmp_path, "test")
    shutil.rmtree(tmp_path / "test/a/aux")
    with pytest.warns(DataWarning, match=r"all frames lack their thermal"):
        sequence = own(tmp_path, "test", "thermal")[0]
    assert sequence.frame(0).lacking == "there is no thermal frame"
    with pytest.raises(UserError, match=r"'a': .* has no aux, nor a recording"):
        own(tmp_path, "test", "event")
    shutil.rmtree(tmp_path / "test/b/aux")
    assert {s.modality for s in own(tmp_path, "test")} == {"rgb"}
    shutil.rmtree(tmp_path / "test/b/rgb")
    with pytest.raises(UserError, match=r"'b': .* has no folder rgb, nor a video rgb\.mp4.*mst data events .* --with-frames"):
        own(tmp_path, "test")
    (tmp_path / "test/a/groundtruth.txt").unlink()
    with pytest.raises(UserError, match=r"'a': .* has no groundtruth\.txt"):
        own(tmp_path, "test")


def test_a_video_and_a_folder_go_together(tmp_path: Path) -> None:
    build(tree_of("own", "videos"), tmp_path, ["a"])
    (tmp_path / "test/a/aux.mp4").unlink()
    (tmp_path / "test/a/aux").mkdir()
    write_images(tmp_path / "test/a/aux/%d.png", "thermal", move("a", 6, SIZE), SIZE)
    (sequence,) = own(tmp_path, "test", "thermal")
    assert_target_is_seen(sequence, 4)


# ---- real annotation, and what is not read


def test_leading_absent_frames_of_the_real_coesot(shared: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(shared / "oracle/coesot/coesot_anno_att.zip") as archive:
        flags = [member for member in archive.namelist() if member.endswith("/absent.txt")]
        late = [member for member in flags if archive.read(member).startswith(b"0")]
        names = {Path(member).parent.name for member in [*late, *flags[:20]]}
        archive.extractall(tmp_path, [m for m in archive.namelist() if Path(m).parent.name in names or Path(m).stem in names])
    lengths = {}
    for file in tmp_path.rglob("groundtruth.txt"):
        name, images = file.parent.name, file.parent / f"{file.parent.name}_aps"
        lengths[name] = len(read_boxes(file))
        images.mkdir()
        for number in range(lengths[name]):
            (images / f"frame{number:04d}.png").touch()
        (file.parent / f"{name}_dvs").symlink_to(images)
    sequences = coesot(tmp_path, "test")
    assert {sequence.name for sequence in sequences} == names
    assert sum(sequence.first > 0 for sequence in sequences) == len(late) == 20
    for sequence in sequences:
        assert len(sequence) + sequence.first == lengths[sequence.name]
        assert sequence.rgb[0].name == f"frame{sequence.first:04d}.png"
        assert sequence.valid[0]
        assert sequence.attributes
        start = int((sequence.rgb[0].parent.parent / "start_end_index.txt").read_text().split(",")[0])
        assert start in (1, sequence.first + 1)


def test_a_frame_is_not_looked_at_before_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a reader asks of the file system does not grow with the number of frames: a thousand sequences take seconds."""
    asked: Counter[str] = Counter()

    def counted(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def ask(*arguments: Any, **named: Any) -> Any:
            asked[name] += 1
            return function(*arguments, **named)

        return ask

    names, counts = first_of("lasher", 3), []
    for frames in (4, 40):
        for name in names:
            for part in ("visible", "infrared"):
                (tmp_path / str(frames) / name / part).mkdir(parents=True)
                for number in range(frames):
                    (tmp_path / str(frames) / name / part / f"{part[0]}_{number:05d}.jpg").touch()
            (tmp_path / str(frames) / name / "init.txt").write_text("".join(f"{n},{n},20,30\n" for n in range(frames)))
        asked.clear()
        with monkeypatch.context() as patch:
            for module, function in ((os, "stat"), (os, "listdir"), (os, "scandir"), (io, "open")):
                patch.setattr(module, function, counted(function, getattr(module, function)))
            assert [len(sequence) for sequence in read("lasher", tmp_path / str(frames))] == [frames] * 3
        counts.append(dict(asked))
    assert counts[0] == counts[1]
    assert counts[0]["listdir"] >= 6
    assert counts[0]["open"] >= 3
