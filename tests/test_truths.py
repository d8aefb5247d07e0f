"""Annotations without frames: the published archives, unpacked folders, data sets' own folders, and what is wrong with them."""

import shutil
import zipfile
from contextlib import nullcontext
from pathlib import Path

import layouts
import moving_squares
import numpy as np
import pytest

from mstrack.data import load_sequences
from mstrack.data.splits import read_list
from mstrack.data.truths import LAYOUTS, Truth, load_truths
from mstrack.errors import DataWarning, UserError
from mstrack.registry import DATASETS

ARCHIVES = {
    "visevent": "visevent/annos.zip",
    "coesot": "coesot/coesot_anno_att.zip",
    "lasher": "lasher/lasher_test_gt.zip",
    "rgbt234": "rgbt234/rgbt234_gt_attr.zip",
}
COUNTS = {
    "visevent": (320, 157395, 21026, 1463),
    "coesot": (528, 176589, 16044, 2052),
    "lasher": (245, 220703, 0, 1663),
    "rgbt234": (234, 116650, 0, 800),
}
"""Sequences, frames, frames flagged absent, attributes of all sequences together."""


def count(truths: list[Truth]) -> tuple[int, int, int, int]:
    absent = sum(int((~truth.present).sum()) for truth in truths if truth.present is not None)
    return len(truths), sum(len(t.boxes) for t in truths), absent, sum(len(t.attributes) for t in truths)


@pytest.mark.parametrize("dataset", COUNTS)
def test_published_annotations_in_a_folder_of_archives(shared: Path, dataset: str) -> None:
    truths = load_truths(dataset, annotations=shared / "oracle")
    assert count(truths) == COUNTS[dataset]
    assert tuple(truth.name for truth in truths) == read_list(dataset, "test").names
    for truth in truths:
        flagged = np.ones(len(truth.boxes), bool) if truth.present is None else truth.present
        np.testing.assert_array_equal(truth.valid, flagged & (truth.boxes[:, 2:] > 0).all(axis=1))
        assert (truth.aux_boxes is not None) == (dataset == "rgbt234")


@pytest.mark.parametrize("dataset", ["coesot", "rgbt234"])
def test_an_archive_alone_and_unpacked(shared: Path, tmp_path: Path, dataset: str) -> None:
    archive = shared / "oracle" / ARCHIVES[dataset]
    truths = load_truths(dataset, annotations=archive)
    assert count(truths) == COUNTS[dataset]
    with zipfile.ZipFile(archive) as file:
        file.extractall(tmp_path / "some" / "where")
    unpacked = load_truths(dataset, annotations=tmp_path)
    for a, b in zip(truths, unpacked, strict=True):
        assert (a.name, a.attributes) == (b.name, b.attributes)
        np.testing.assert_array_equal(a.boxes, b.boxes)
        np.testing.assert_array_equal(a.valid, b.valid)


def test_the_list_of_the_matlab_kit(shared: Path) -> None:
    truths = load_truths("coesot", "test-527", annotations=shared / "oracle")
    assert count(truths)[:2] == (527, 176535)


@pytest.mark.parametrize(("dataset", "variant"), [v for v in layouts.VARIANTS if v[0] in LAYOUTS])
def test_the_folder_of_a_dataset_without_its_frames(tmp_path: Path, dataset: str, variant: str) -> None:
    made = layouts.miniature(dataset, variant, tmp_path)
    for path in tmp_path.rglob("*"):
        if path.suffix in (".jpg", ".png", ".bmp", ".aedat4"):
            path.unlink()
    with pytest.warns(DataWarning, match="sequences are not in") if dataset != "vot-rgbd" else nullcontext():
        truths = load_truths(dataset, root=tmp_path)
    assert {truth.name for truth in truths} == set(made["test"])
    for truth in truths:
        np.testing.assert_array_equal(truth.boxes, made["test"][truth.name])
        assert truth.valid.all()


@pytest.mark.filterwarnings("ignore:.*sequences are not in")
@pytest.mark.parametrize(
    ("dataset", "variant"), [v for v in layouts.VARIANTS if v[0] in ("visevent", "coesot", "own") and v[1] != "recordings"]
)
def test_leading_absent_frames_are_kept(tmp_path: Path, dataset: str, variant: str) -> None:
    names = read_list(dataset, "test").names[:1] if dataset != "own" else ["a"]
    layouts.build(layouts.tree_of(dataset, variant), tmp_path, names, frames=7, absent=(0, 1, 4))
    if dataset == "own":
        (tmp_path / "data.yaml").write_text("modality: thermal\n")
        (truth,) = load_truths(str(tmp_path))
    else:
        (truth,) = load_truths(dataset, root=tmp_path)
        assert truth.present is not None
        assert truth.present.tolist() == [False, False, True, True, False, True, True]
    assert truth.valid.tolist() == [False, False, True, True, False, True, True]


def test_functions_of_ones_own_have_truths_too(tmp_path: Path) -> None:
    sequences = load_sequences("moving_squares:load", "test", tmp_path)
    for truth, sequence in zip(load_truths("moving_squares:load", root=tmp_path), sequences, strict=True):
        np.testing.assert_array_equal(truth.boxes, sequence.boxes)
        np.testing.assert_array_equal(truth.valid, sequence.valid)
    assert len(truth.boxes) == moving_squares.FRAMES


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


BOXES = "1,2,30,40\n2,3,30,40\n3,4,30,40\n"


def test_the_folder_of_boxes_itself_may_be_named(tmp_path: Path) -> None:
    names = read_list("lasher", "test").names
    write(tmp_path, {f"gt/{name}.txt": BOXES for name in names})
    assert len(load_truths("lasher", annotations=tmp_path / "gt")) == 245
    archive = shutil.make_archive(str(tmp_path / "gt"), "zip", tmp_path / "gt")
    assert len(load_truths("lasher", annotations=Path(archive))) == 245


def test_flags_of_visevents_folder_and_of_a_sequence_mean_the_opposite(tmp_path: Path) -> None:
    name = read_list("visevent", "test-172").names[0]
    boxes = "1,2,30,40\n0,0,0,0\n3,4,30,40\n"
    write(tmp_path / "apart", {f"gt_rect/{name}.txt": boxes, f"absent/{name}.txt": "0\n1\n0\n"})
    write(tmp_path / "inside", {f"{name}/groundtruth.txt": boxes, f"{name}/absent_label.txt": "1\n0\n1\n"})
    for place in ("apart", "inside"):
        with pytest.warns(DataWarning, match="171 of 172 sequences are not in"):
            (truth,) = load_truths("visevent", "test-172", annotations=tmp_path / place)
        assert truth.present is not None
        assert truth.present.tolist() == [True, False, True]


def test_errors_say_what_is_wrong(tmp_path: Path) -> None:
    name = read_list("visevent", "test").names[0]
    with pytest.raises(UserError, match="there is no file or folder"):
        load_truths("visevent", annotations=tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"no annotation of visevent, split 'test'.*\n  \.\.\./gt_rect/<sequence>\.txt"):
        load_truths("visevent", annotations=tmp_path / "empty")
    with pytest.raises(UserError, match=r"unknown dataset 'visevnt'. Did you mean 'visevent'\?"):
        load_truths("visevnt", annotations=tmp_path / "empty")
    with pytest.raises(UserError, match="unknown split of visevent 'tset'"):
        load_truths("visevent", "tset", annotations=tmp_path / "empty")

    def refused(text: str, **files: str) -> None:
        root = tmp_path / str(abs(hash(text)))
        write(root, {key.replace("__", "/") + f"/{name}.txt": value for key, value in files.items()})
        with pytest.raises(UserError, match=text), pytest.warns(DataWarning):
            load_truths("visevent", annotations=root)

    refused(rf"absent/{name}\.txt: 2 flags for the 3 boxes of .*gt_rect/{name}", gt_rect=BOXES, absent="0\n0\n")
    refused(rf"gt_rect/{name}\.txt, line 2: 'x,1' is not a box", gt_rect="1,2,3,4\nx,1\n")
    refused("expected 17 flags", gt_rect=BOXES, att="0,1")
    refused("larger than 64 MB", gt_rect="1,2,3,4\n" * (9 * 2**20))
    refused("ends after the first box", gt_rect="1,2,3,4\n")


def test_a_damaged_archive_in_a_folder_is_left_out(tmp_path: Path) -> None:
    name = read_list("fe108", "test").names[0]
    write(tmp_path, {f"{name}/groundtruth_rect.txt": BOXES, "broken.zip": "PK"})
    with pytest.warns(DataWarning) as caught:
        (truth,) = load_truths("fe108", annotations=tmp_path)
    assert len(truth.boxes) == 3
    assert any("broken.zip: it is not searched" in str(w.message) for w in caught)
    with pytest.raises(UserError, match="is not a zip archive that can be read"):
        load_truths("fe108", annotations=tmp_path / "broken.zip")


def test_every_layout_is_of_a_dataset_of_the_catalogue() -> None:
    assert LAYOUTS.keys() <= DATASETS.keys()
