"""The RGB sets, on folders built from the patterns of `TREES`: what is read, split, held out, tolerated and refused."""

import json
import os
import re
import warnings
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
import pytest

from mstrack.data import load_sequences
from mstrack.data.numbered import Numbered
from mstrack.data.rgb import HELD_OUT_CATEGORIES, SPLITS, TREES, coco, got10k, lasot, trackingnet
from mstrack.data.stills import Stills
from mstrack.errors import DataWarning, UserError
from mstrack.registry import DATASETS

FRAMES = 6
JPEG = cv2.imencode(".jpg", np.full((48, 64, 3), 90, np.uint8))[1].tobytes()
BOXES = np.array([[4.5 + t, 5 + t, 20, 10.25] for t in range(FRAMES)])
ROWS = "".join(f"{x:.4f},{y:.4f},{w:.4f},{h:.4f}\n" for x, y, w, h in BOXES)


def write(path: Path, content: bytes | str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def build(root: Path, dataset: str, variant: str | None = None, **values: str) -> None:
    """One sequence in a layout of the dataset; `values` fill the `<fields>` of its patterns."""
    tree = TREES[dataset]
    for pattern, item in tree[variant or next(iter(tree))].items():
        name = re.sub(r"<(\w+)>", lambda field: values[field.group(1)], pattern)
        if item.kind == "rgb":
            for t in range(FRAMES):
                write(root / (name % (t + (item.first or 0))), JPEG)
        elif item.kind == "boxes":
            write(root / name, ROWS)
        elif item.kind == "absent":
            write(root / name, ("," if "one line" in item.text else "\n").join("0" * FRAMES) + "\n")
        elif name.endswith("cover.label"):
            write(root / name, "8\n" * FRAMES)


def build_got10k(root: Path) -> Path:
    for split, numbers in {"train": (1, 2, 10), "val": (1,), "test": (1,)}.items():
        for number in numbers:
            build(root, "got10k", split=split, sequence=f"GOT-10k_{split.capitalize()}_{number:06d}")
    folder = root / "test" / "GOT-10k_Test_000001"
    write(folder / "groundtruth.txt", ROWS.splitlines()[0] + "\n")
    (folder / "absence.label").unlink()
    (folder / "cover.label").unlink()
    return root


def build_lasot(root: Path, variant: str = "by category", lists: Iterable[str] = ("training", "testing")) -> Path:
    for category in ("airplane", "bus", "monkey"):
        for number in (1, 2, 10):
            build(root, "lasot", variant, category=category, number=str(number))
    names = {"training": ("2", "10"), "testing": ("1",)}
    for part in lists:
        listed = [f"{category}-{number}" for category in ("airplane", "bus", "monkey") for number in names[part]]
        write(root / f"{part}_set.txt", "\n".join(listed) + "\n")
    return root


def build_trackingnet(root: Path, parts: Iterable[str] = ("TRAIN_0", "TRAIN_10", "TRAIN_11", "TEST")) -> Path:
    for part in parts:
        for number in (1, 2):
            build(root, "trackingnet", part=part, sequence=f"-3TIf_{part}_{number}")
            if part == "TEST":
                write(root / part / "anno" / f"-3TIf_{part}_{number}.txt", ROWS.splitlines()[0] + "\n")
    return root


def names(sequences: Iterable) -> list[str]:
    return [sequence.name for sequence in sequences]


# ---- GOT-10k


def test_got10k_is_read(tmp_path: Path) -> None:
    sequences = got10k(build_got10k(tmp_path), "train")
    assert names(sequences) == ["GOT-10k_Train_000001", "GOT-10k_Train_000002", "GOT-10k_Train_000010"]
    assert sequences[0].rgb[0] == tmp_path / "train" / "GOT-10k_Train_000001" / "00000001.jpg"
    np.testing.assert_allclose(sequences[0].boxes, BOXES)
    assert sequences[0].valid.all()
    assert sequences[0].modality == "rgb"
    assert sequences[0].frame(FRAMES - 1).rgb.shape == (48, 64, 3)
    assert names(got10k(tmp_path, "val")) == ["GOT-10k_Val_000001"]
    assert len(got10k(tmp_path, "all")) == 5


def test_got10k_absent_and_covered_targets_are_not_valid(tmp_path: Path) -> None:
    folder = build_got10k(tmp_path) / "train" / "GOT-10k_Train_000001"
    write(folder / "absence.label", "0\n0\n1\n0\n0\n0\n")
    write(folder / "cover.label", "8\n7\n8\n0\n1\n8\n")
    assert got10k(tmp_path, "train")[0].valid.tolist() == [True, True, False, False, True, True]


def test_got10k_test_has_one_box(tmp_path: Path) -> None:
    (sequence,) = got10k(build_got10k(tmp_path), "test")
    assert len(sequence) == FRAMES
    assert sequence.valid.tolist() == [True] + [False] * (FRAMES - 1)


def test_got10k_deeper_folders_are_found(tmp_path: Path) -> None:
    build_got10k(tmp_path / "there")
    train = tmp_path / "there" / "train"
    target = tmp_path / "full_data" / "train_data" / "GOT-10k_Train_split_01"
    target.mkdir(parents=True)
    (train / "GOT-10k_Train_000002").rename(target / "GOT-10k_Train_000002")
    assert names(got10k(tmp_path, "train"))[1] == "GOT-10k_Train_000002"


def test_got10k_names_of_the_list_that_are_missing_are_said(tmp_path: Path) -> None:
    write(build_got10k(tmp_path) / "val" / "list.txt", "GOT-10k_Val_000001\nGOT-10k_Val_000002\n")
    with pytest.warns(DataWarning, match=r"got10k/val: 1 of 2 sequences are not in .*GOT-10k_Val_000002"):
        assert len(got10k(tmp_path, "val")) == 1


def test_what_is_wrong_with_several_sequences_is_said_at_once(tmp_path: Path) -> None:
    build_got10k(tmp_path)
    for number in (1, 10):
        write(tmp_path / "train" / f"GOT-10k_Train_{number:06d}" / "groundtruth.txt", "1,2,3\n")
    with pytest.raises(UserError, match=r"(?s)Train_000001/groundtruth.txt, line 1.*Train_000010/groundtruth.txt, line 1"):
        got10k(tmp_path, "train")


# ---- LaSOT


@pytest.mark.parametrize("variant", TREES["lasot"])
@pytest.mark.parametrize("lists", [("training", "testing"), ("training",), ("testing",)])
def test_lasot_splits(tmp_path: Path, variant: str, lists: tuple[str, ...]) -> None:
    build_lasot(tmp_path, variant, lists)
    assert names(lasot(tmp_path, "train")) == ["airplane-2", "airplane-10"]
    assert names(lasot(tmp_path, "val")) == ["bus-2", "bus-10", "monkey-2", "monkey-10"]
    assert names(lasot(tmp_path, "test")) == ["airplane-1", "bus-1", "monkey-1"]
    assert len(lasot(tmp_path, "train-official")) == 6
    assert len(lasot(tmp_path, "all")) == 9


def test_lasot_flags(tmp_path: Path) -> None:
    folder = build_lasot(tmp_path) / "airplane" / "airplane-2"
    write(folder / "full_occlusion.txt", "0,1,0,0,0,0")
    write(folder / "out_of_view.txt", "0,0,0,1,1,0")
    sequence = lasot(tmp_path, "train")[0]
    assert sequence.valid.tolist() == [True, False, True, False, False, True]
    np.testing.assert_allclose(sequence.boxes, BOXES)
    assert sequence.rgb[0] == folder / "img" / "00000001.jpg"
    (folder / "out_of_view.txt").unlink()
    assert lasot(tmp_path, "train")[0].valid.tolist() == [True, False, True, True, True, True]


def test_lasot_without_its_lists_says_where_they_come_from(tmp_path: Path) -> None:
    build_lasot(tmp_path, lists=())
    with pytest.raises(UserError, match=r"training_set.txt.*LaSOT_Evaluation_Toolkit"):
        lasot(tmp_path, "train")
    assert len(lasot(tmp_path, "all")) == 9


def test_lasot_lists_beside_the_sequences_are_found(tmp_path: Path) -> None:
    build_lasot(tmp_path / "LaSOTBenchmark")
    assert names(lasot(tmp_path, "test")) == ["airplane-1", "bus-1", "monkey-1"]


def test_lasot_five_categories_are_held_out() -> None:
    assert len(set(HELD_OUT_CATEGORIES)) == 5


# ---- TrackingNet


def test_trackingnet_parts_and_splits(tmp_path: Path) -> None:
    build_trackingnet(tmp_path, [*(f"TRAIN_{k}" for k in range(12)), "TEST"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train, val = trackingnet(tmp_path, "train"), trackingnet(tmp_path, "val")
        test, official = trackingnet(tmp_path, "test"), trackingnet(tmp_path, "train-official")
    assert len(train) == 22
    assert names(val) == ["-3TIf_TRAIN_11_1", "-3TIf_TRAIN_11_2"]
    assert names(official) == names(train) + names(val)
    assert train[0].rgb[2] == tmp_path / "TRAIN_0" / "frames" / "-3TIf_TRAIN_0_1" / "2.jpg"
    np.testing.assert_allclose(train[0].boxes, BOXES)
    assert [s.valid.sum() for s in test] == [1, 1]


def test_trackingnet_parts_and_frames_that_are_missing_are_said(tmp_path: Path) -> None:
    build_trackingnet(tmp_path)
    write(tmp_path / "TRAIN_10" / "anno" / "lost_0.txt", ROWS)
    with pytest.warns(DataWarning) as caught:
        sequences = trackingnet(tmp_path, "train")
    assert len(sequences) == 4
    said = [str(warning.message) for warning in caught]
    assert any("trackingnet/train: 9 of 11 parts are not in" in text for text in said)
    assert any("1 of 3 sequences' frames are not in" in text and "lost_0" in text for text in said)


# ---- frames


def test_consecutive_frames_need_no_names(tmp_path: Path) -> None:
    frames = got10k(build_got10k(tmp_path), "val")[0].rgb
    assert isinstance(frames, Numbered)
    assert list(frames[1:3]) == [frames[1], frames[2]]
    assert frames[-1].name == f"{FRAMES:08d}.jpg"
    with pytest.raises(IndexError):
        frames[FRAMES]


def test_frames_of_other_names_are_listed(tmp_path: Path) -> None:
    folder = build_trackingnet(tmp_path) / "TEST" / "frames" / "-3TIf_TEST_1"
    (folder / "2.jpg").unlink()
    frames = trackingnet(tmp_path, "test")[0].rgb
    assert [path.name for path in frames] == ["0.jpg", "1.jpg", "3.jpg", "4.jpg", "5.jpg"]


# ---- COCO


def instances(root: Path, folder: str = "train2017", split: str = "train") -> Path:
    """Two images, three objects, a crowd, one without a size."""
    images = [{"id": 139, "file_name": "000000000139.jpg", "license": 1}, {"id": 9, "file_name": "000000000009.jpg"}]
    outline = {"segmentation": [[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]], "area": 9.5, "category_id": 1, "iscrowd": 0}
    boxes = {(139, 20): [1, 2, 3.5, 4], (9, 7): [5, 6, 7, 8], (139, 3): [9, 10, 11, 12], (9, 8): [5, 6, 0, 8]}
    objects = [{**outline, "image_id": image, "id": number, "bbox": box} for (image, number), box in boxes.items()]
    rle = {"segmentation": {"counts": [1, 2], "size": [4, 4]}, "iscrowd": 1}
    objects.append({**outline, **rle, "image_id": 9, "id": 900, "bbox": [0, 0, 60, 40]})
    licences = [{"id": 1, "name": "free"}]
    content = {"info": {"year": 2017}, "licenses": licences, "annotations": objects, "images": images, "categories": []}
    write(root / "annotations" / f"instances_{split}2017.json", json.dumps(content))
    for image in images:
        write(root / folder / str(image["file_name"]), JPEG)
    return root


@pytest.mark.parametrize("folder", ["train2017", "images/train2017"])
def test_coco_has_a_still_per_object(tmp_path: Path, folder: str) -> None:
    with pytest.warns(DataWarning, match="1 annotations without a size"):
        stills = coco(instances(tmp_path, folder), "train")
    assert names(stills) == ["9-7", "139-3", "139-20"]
    first = stills[0]
    assert first.rgb[0] == tmp_path / folder / "000000000009.jpg"
    assert first.boxes.tolist() == [[5, 6, 7, 8]]
    assert first.valid.tolist() == [True]
    assert first.aux is None
    assert first.frame(0).rgb.shape == (48, 64, 3)
    assert isinstance(stills[1:], Stills)
    assert names(stills[1:]) == ["139-3", "139-20"]
    assert stills[-1].name == "139-20"
    with pytest.raises(IndexError):
        stills[3]


@pytest.mark.filterwarnings("ignore:.*without a size")
def test_coco_images_that_are_missing_are_said_and_left_out(tmp_path: Path) -> None:
    (instances(tmp_path, "val2017", "val") / "val2017" / "000000000139.jpg").unlink()
    with pytest.warns(DataWarning, match=r"coco/val: 1 of 2 images are not in .*000000000139.jpg"):
        assert names(coco(tmp_path, "val")) == ["9-7"]


@pytest.mark.parametrize("content", ["{", '{"annotations": [{"bbox": [1, 2, 3, 4]}]}', '{"a": [{"bbox": 3}]}'])
def test_coco_annotations_that_are_none_are_refused(tmp_path: Path, content: str) -> None:
    write(instances(tmp_path) / "annotations" / "instances_train2017.json", content)
    with pytest.raises(UserError, match="is not an annotation of COCO"):
        coco(tmp_path, "train")


# ---- all


def test_folders_that_cannot_be_read_are_warnings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build_got10k(tmp_path)
    scan = os.scandir

    def refuse(folder: Path) -> object:
        if Path(folder).name == "closed":
            raise PermissionError(13, "Permission denied", str(folder))
        return scan(folder)

    (tmp_path / "closed").mkdir()
    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.warns(DataWarning, match=r"closed cannot be read: Permission denied"):
        assert len(got10k(tmp_path, "train")) == 3


@pytest.mark.parametrize("name", SPLITS)
def test_the_catalogue_has_them_and_their_refusals_show_the_layout(tmp_path: Path, name: str) -> None:
    assert DATASETS[name] == f"mstrack.data.rgb:{name}"
    with pytest.raises(UserError, match="Did you mean 'train'"):
        load_sequences(name, "trian", tmp_path)
    with pytest.raises(UserError, match=rf"(?s){name}: .* has nothing of 'train'\. Expected one of these layouts:.*\.jpg"):
        load_sequences(name, "train", tmp_path)
