"""Annotation files as properties of the parser, and as the real ones: every line of 1327 published sequences."""

import re
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mstrack.data import own, rgb, rgbd, rgbe
from mstrack.data.annotations import UnreadableError, orient_flags, read_attributes, read_boxes, read_flags, read_text, usable
from mstrack.data.splits import read_list, split_names
from mstrack.errors import DataWarning, UserError

FILE = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=150)

numbers = st.one_of(
    st.floats(-1e4, 1e4, allow_nan=False).map(lambda value: float(f"{value:.4f}")), st.integers(-9, 4000).map(float)
)
boxes = st.one_of(st.tuples(numbers, numbers, numbers, numbers), st.just((np.nan,) * 4), st.just((0.0,) * 4))
separators = st.sampled_from([",", "\t", " ", ";", ", ", " , ", "   ", ",\t"])
endings = st.sampled_from(["\n", "\r\n"])


def spell(value: float, style: int) -> str:
    if np.isnan(value):
        return ("nan", "NaN", "NAN", "nan")[style]
    return (repr(value), f"{value:.14f}", f"{value:e}" if float(f"{value:e}") == value else repr(value), f"{value:+}")[style]


# ---- properties


@FILE
@given(
    rows=st.lists(boxes, min_size=1, max_size=12),
    separator=separators,
    ending=endings,
    style=st.integers(0, 3),
    mark=st.sampled_from(["", "\ufeff"]),
    margin=st.sampled_from(["", " ", "\t"]),
    after=st.sampled_from(["", ",", " ,", ";"]),
    last=st.sampled_from(["", "\n", "\r\n\r\n", " \n\t\n"]),
)
def test_boxes_are_what_was_written(
    tmp_path: Path, rows: list, separator: str, ending: str, style: int, mark: str, margin: str, after: str, last: str
) -> None:
    lines = [margin + separator.join(spell(value, style) for value in row) + after for row in rows]
    path = tmp_path / "gt.txt"
    path.write_bytes((mark + ending.join(lines) + last).encode())
    np.testing.assert_allclose(read_boxes(path), rows, rtol=0, atol=1e-9)


@FILE
@given(
    rows=st.lists(st.tuples(numbers, numbers, st.floats(0, 500), st.floats(0, 500)), min_size=1, max_size=6),
    turn=st.integers(0, 3),
    mirrored=st.booleans(),
    mixed=st.booleans(),
)
def test_a_rectangle_in_eight_values_is_the_one_in_four(
    tmp_path: Path, rows: list, turn: int, mirrored: bool, mixed: bool
) -> None:
    lines = []
    for number, (x, y, w, h) in enumerate(rows):
        corners = [(x, y), (x + w, y), (x + w, y + h), (x, y + h)]
        corners = corners[turn:] + corners[:turn]
        values = [value for corner in (corners[::-1] if mirrored else corners) for value in corner]
        lines.append(",".join(map(repr, (x, y, w, h) if mixed and number % 2 else values)))
    path = tmp_path / "gt.txt"
    path.write_text("\n".join(lines))
    np.testing.assert_allclose(read_boxes(path), rows, rtol=0, atol=1e-6)


@FILE
@given(
    text=st.text(st.sampled_from("0123456789.,-+e \t\r\nnaif;x\ufeff"), max_size=80)
    | st.text(max_size=40)
    | st.binary(max_size=40)
)
def test_any_file_is_boxes_or_an_error_that_names_it(tmp_path: Path, text: str | bytes) -> None:
    path = tmp_path / "gt.txt"
    path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))
    try:
        found = read_boxes(path)
    except UserError as error:
        assert str(path) in str(error)
        line = re.search(r"gt\.txt, line (\d+): ", str(error))
        assert line is None or 1 <= int(line[1]) <= len(path.read_text(encoding="utf-8-sig").splitlines())
    else:
        assert found.shape == (len(path.read_text(encoding="utf-8-sig").rstrip().splitlines()), 4)
        assert found.dtype == np.float64
        assert not np.isinf(found).any()


@FILE
@given(flags=st.lists(st.booleans(), min_size=1, max_size=40), separator=st.sampled_from(["\n", "\r\n", ",", " ", "\t"]))
def test_flags_are_what_was_written_in_either_polarity(tmp_path: Path, flags: list[bool], separator: str) -> None:
    path = tmp_path / "absent.txt"
    for present in (0, 1):
        path.write_text(separator.join(str(present if flag else 1 - present) for flag in flags) + "\n")
        assert read_flags(path, present=present).tolist() == flags


@FILE
@given(present=st.lists(st.booleans(), min_size=1, max_size=60), nan=st.booleans())
def test_flags_that_contradict_the_boxes_are_turned_round(present: list[bool], nan: bool) -> None:
    truth = np.array(present)
    boxes = np.where(truth[:, None], 5.0, np.nan if nan else 0.0) * np.ones(4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(orient_flags(truth, boxes, "a"), truth)
    with pytest.warns(DataWarning, match="opposite"):
        np.testing.assert_array_equal(orient_flags(~truth, boxes, "a"), truth)


@FILE
@given(rows=st.lists(boxes, min_size=1, max_size=20))
def test_a_usable_box_is_finite_and_has_a_size(rows: list) -> None:
    expected = [bool(np.isfinite(row).all() and row[2] > 0 and row[3] > 0) for row in rows]
    assert usable(np.array(rows)).tolist() == expected


# ---- the real files


@pytest.fixture(scope="module")
def annotations(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The published annotations, unpacked."""
    root = tmp_path_factory.mktemp("annotations")
    for name in ("visevent/annos", "coesot/coesot_anno_att", "lasher/lasher_test_gt", "rgbt234/rgbt234_gt_attr"):
        with zipfile.ZipFile(shared / "oracle" / f"{name}.zip") as archive:
            archive.extractall(root / Path(name).parent)
    return root


def only(folder: Path, name: str) -> Path:
    """The one folder of that name at or below `folder`."""
    found = [path for path in folder.rglob(name) if path.is_dir()]
    assert len(found) == 1, found
    return found[0]


def count(files: list[Path], flags: list[Path] | None = None, present: int = 1) -> tuple[int, int, int, int]:
    """(sequences, frames, frames flagged absent, frames without a usable box); no flags may contradict their boxes."""
    frames = absent = unusable = 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for number, file in enumerate(files):
            boxes = read_boxes(file)
            frames, unusable = frames + len(boxes), unusable + int((~usable(boxes)).sum())
            if flags is not None:
                found = orient_flags(read_flags(flags[number], present), boxes, file.stem)
                assert len(found) == len(boxes)
                absent += int((~found).sum())
    return len(files), frames, absent, unusable


def test_visevent_annotations(annotations: Path) -> None:
    files = sorted(only(annotations / "visevent", "gt_rect").iterdir())
    flags = [only(annotations / "visevent", "absent") / file.name for file in files]
    assert count(files, flags, present=0)[:3] == (320, 157395, 21026)
    assert {file.stem for file in files} == set(read_list("visevent", "test").names)


def test_coesot_annotations(annotations: Path) -> None:
    folders = sorted(path for path in only(annotations / "coesot", "coesot_anno").iterdir() if path.is_dir())
    files = [folder / "groundtruth.txt" for folder in folders]
    assert count(files, [folder / "absent.txt" for folder in folders])[:3] == (528, 176589, 16044)
    assert {folder.name for folder in folders} == set(read_list("coesot", "test").names)


def test_lasher_annotations(annotations: Path) -> None:
    files = sorted(only(annotations / "lasher", "gt").iterdir())
    assert count(files) == (245, 220703, 0, 533)
    assert {file.stem for file in files} == set(read_list("lasher", "test").names)


@pytest.mark.parametrize("name", ["visible.txt", "infrared.txt"])
def test_rgbt234_annotations(annotations: Path, name: str) -> None:
    folders = sorted(only(annotations / "rgbt234", "gt").iterdir())
    assert count([folder / name for folder in folders]) == (234, 116650, 0, 0)
    assert {folder.name for folder in folders} == set(read_list("rgbt234", "test").names)


def test_boxes_of_both_modalities_of_a_demonstration(shared: Path) -> None:
    for name in ("rgb.txt", "ir.txt"):
        found = read_boxes(shared / "oracle/rgbt_demo_bus1" / name)
        assert found.shape == (11, 4)
        assert usable(found).all()


# ---- the committed lists

COUNTS = {
    "fe108": {"train-official": 76, "train-srtrack": 75, "train": 68, "val": 8, "test": 32},
    "visevent": {
        "train-official": 500,
        "train-aedat4": 206,
        "train-293": 293,
        "train": 449,
        "val": 51,
        "test": 320,
        "test-218": 218,
        "test-172": 172,
    },
    "coesot": {"train-official": 826, "train-824": 824, "train": 799, "val": 27, "test": 528, "test-527": 527},
    "depthtrack": {"train-official": 152, "train": 135, "val": 17, "test": 50},
    "lasher": {"train-official": 979, "train": 881, "val": 98, "test": 245},
    "rgbt234": {"test": 234},
}
SOURCES = {
    ("fe108", "train-srtrack"): "srtrack_fe108_train_split",
    ("fe108", "test"): "srtrack_fe108_val_split",
    ("visevent", "train-aedat4"): "VisEvent_train_subset_aedat4_only",
    ("visevent", "train-293"): "srtrack_visevent_train_split",
    ("visevent", "test-218"): "srtrack_visevent_val_split",
    ("visevent", "test"): "VisEvent_testing_subset",
    ("coesot", "train-824"): "srtrack_coesot_train_split",
    ("coesot", "test-527"): "COESOT_testing_subset",
    ("coesot", "test"): "srtrack_coesot_val_split",
    ("depthtrack", "train-official"): "srtrack_depthtrack_train_split",
    ("depthtrack", "test"): "srtrack_depthtrack_val_split",
    ("lasher", "train-official"): "srtrack_lasher_train_split",
    ("lasher", "test"): "lashertest",
    ("rgbt234", "test"): "RGBT234_SequencesName",
}


@pytest.mark.parametrize("dataset", COUNTS)
def test_lists_have_the_stated_counts_and_do_not_overlap(dataset: str) -> None:
    lists = {split: read_list(dataset, split).names for split in split_names(dataset) if split != "all"}
    assert {split: len(names) for split, names in lists.items()} == COUNTS[dataset]
    assert all(len(set(names)) == len(names) for names in lists.values())
    tested = {name for split, names in lists.items() if split.startswith("test") for name in names}
    trained = {name for split, names in lists.items() if not split.startswith("test") for name in names}
    assert not tested & trained
    if "val" in lists:
        assert not set(lists["val"]) & set(lists["train"])
        assert set(lists["val"]) | set(lists["train"]) == set(lists["train-official"])


@pytest.mark.parametrize("dataset", COUNTS)
def test_lists_are_those_that_were_published(shared: Path, dataset: str) -> None:
    for split in COUNTS[dataset]:
        if (dataset, split) in SOURCES:
            text = (shared / "oracle/lists" / f"{SOURCES[dataset, split]}.txt").read_text(encoding="utf-8-sig")
            names = {line.strip() for line in text.splitlines() if line.strip()}
            assert set(read_list(dataset, split).names) == names, split


def test_lists_are_named_and_hashed() -> None:
    found = read_list("lasher", "test")
    assert found.name == "lasher/test"
    assert re.fullmatch("[0-9a-f]{16}", found.hash)
    assert found.hash != read_list("lasher", "val").hash


def test_an_unknown_split_is_an_error_with_the_nearest_name_and_the_list() -> None:
    with pytest.raises(UserError, match=r"visevent 'train-239'. Did you mean 'train-293'\?.*test-218, .*train-official"):
        read_list("visevent", "train-239")


# ---- files that cannot be read


READERS = {
    "boxes": read_boxes,
    "any text": lambda path: read_text(path, "list"),
    "offsets": lambda path: list(rgbe._read_offsets(path)),
}


def spoil(path: Path, how: str) -> None:
    """Something that is no text in place of a file: a folder (what a closed file is to root), or another encoding."""
    if how == "folder":
        path.mkdir()
    else:
        path.write_bytes("größer,1\n".encode("latin-1"))


@pytest.mark.parametrize("how", ["folder", "latin-1"])
@pytest.mark.parametrize("reader", READERS)
def test_a_text_that_cannot_be_read_is_named(tmp_path: Path, reader: str, how: str) -> None:
    spoil(tmp_path / "list.txt", how)
    with pytest.raises(UnreadableError, match=r"list\.txt (cannot be read: Is a directory|is not a text file)"):
        READERS[reader](tmp_path / "list.txt")


def test_lists_and_descriptions_in_another_encoding_are_named(tmp_path: Path) -> None:
    for name, read in (
        ("list.txt", rgbd._listed),
        ("sequence", rgbd._read_channels),
        ("data.yaml", own.read_description),
        ("training_set.txt", lambda folder: rgb._lines(folder / "training_set.txt")),
    ):
        spoil(tmp_path / name, "latin-1")
        with pytest.raises(UnreadableError, match=rf"{name} is not a text file"):
            read(tmp_path)


def test_attributes_that_cannot_be_read_are_none(tmp_path: Path) -> None:
    spoil(tmp_path / "boy.txt", "latin-1")
    with pytest.warns(DataWarning, match=r"boy: .*boy\.txt is not a text file.*has none"):
        assert read_attributes(tmp_path / "boy.txt", ("CM", "LI")) == ()
    spoil(tmp_path / "occlusion.tag", "latin-1")
    with pytest.warns(DataWarning, match=r"occlusion\.tag is not a text file.*left out"):
        assert not rgbd._is_tagged(tmp_path / "occlusion.tag")
