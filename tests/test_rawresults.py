"""Raw results in every layout and format that exists, written here and read back equal; what is refused; and exports."""

import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mstrack import filetree
from mstrack.data.splits import read_list
from mstrack.errors import DataWarning, UserError
from mstrack.rawresults import RawResults, read_all, read_results
from mstrack.rawresults.export import FORMATS, check_name, export_paths, export_results
from mstrack.rawresults.layout import locate
from mstrack.rawresults.text import LONGEST, parse_binary, parse_boxes, parse_column
from mstrack.results import Track, write_track

NAMES = ("00141_tank_outdoor2", "boy", "car_2", "Woman-3")
RNG = np.random.default_rng(7)
TRUTHS = {name: np.column_stack([RNG.integers(20, 300, (9, 2)), RNG.integers(10, 60, (9, 2))]).astype(float) for name in NAMES}
RESULTS = {n: np.vstack([t[:1], t[1:] + RNG.integers(-3, 4, (8, 4))]) for n, t in TRUTHS.items()}
LENGTHS = dict.fromkeys(NAMES, 9)


def lines(boxes: np.ndarray, separator: str = ",", form: str = "{:g}") -> str:
    return "".join(separator.join(map(form.format, row)) + "\n" for row in boxes)


def place(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def read(path: Path, **options: object) -> RawResults:
    (found,) = read_results(path, NAMES, LENGTHS, TRUTHS, **options)
    return found


def assert_equal(found: RawResults, expected: dict[str, np.ndarray] = RESULTS) -> None:
    assert set(found.tracks) == set(expected)
    for name, boxes in expected.items():
        np.testing.assert_allclose(found.tracks[name].boxes, boxes, rtol=0, atol=1e-9)


# ---- layouts

SECONDS = "0.1\n" * 9
LAYOUTS: dict[str, tuple[Callable[[str], dict[str, str]], str, str]] = {
    "flat": (lambda n: {f"{n}.txt": lines(RESULTS[n])}, "given", "as NAME/SEQ.txt: x, y, w, h; whole numbers; commas"),
    "flat in folder": (lambda n: {f"Tracker-1/{n}.txt": lines(RESULTS[n])}, "Tracker-1", "as NAME/SEQ.txt:"),
    "deep": (lambda n: {f"raw/set/T/{n}.txt": lines(RESULTS[n])}, "T", "as NAME/SEQ.txt:"),
    "times": (
        lambda n: {f"T/{n}.txt": lines(RESULTS[n], "\t"), f"T/{n}_time.txt": SECONDS},
        "T",
        "as NAME/SEQ.txt with times: x, y, w, h; whole numbers; tabs",
    ),
    "matlab kits": (
        lambda n: {f"ViPT_tracking_result/{n}.txt": lines(RESULTS[n], ",", "{:.14f}")},
        "ViPT",
        "as NAME_tracking_result/SEQ.txt: x, y, w, h; decimals; commas",
    ),
    "vot": (
        lambda n: {
            f"T/rgbd-unsupervised/{n}/{n}_001.txt": lines(RESULTS[n]),
            f"T/rgbd-unsupervised/{n}/{n}_001_confidence.value": "0.5\n" * 9,
            f"T/rgbd-unsupervised/{n}/{n}_001_time.value": SECONDS,
        },
        "T",
        "as NAME/rgbd-unsupervised/SEQ/SEQ_001.txt with confidence and times:",
    ),
    "vot without experiment": (
        lambda n: {f"T/{n}/{n}_001.txt": lines(RESULTS[n]), f"T/{n}/{n}_001_confidence.value": "0.5\n" * 9},
        "T",
        "as NAME/SEQ/SEQ_001.txt with confidence:",
    ),
    "got10k": (
        lambda n: {f"T/{n}/{n}_001.txt": lines(RESULTS[n]), f"T/{n}/{n}_time.txt": "0.1,0.2,0.3\n" * 9},
        "T",
        "as NAME/SEQ/SEQ_001.txt with times:",
    ),
    "prefixed": (lambda n: {f"all/My_T_{n}.txt": lines(RESULTS[n], " ")}, "My_T", "x, y, w, h; whole numbers; spaces"),
    "prefixed in folder": (lambda n: {f"T/T_{n}.txt": lines(RESULTS[n], ";")}, "T", "as NAME_SEQ.txt:"),
    "csv": (lambda n: {f"T/{n}.csv": "x,y,w,h\n" + lines(RESULTS[n])}, "T", "commas; a header in 4 file(s)"),
}  # fmt: skip


@pytest.mark.parametrize("archived", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(tmp_path: Path, layout: str, archived: bool) -> None:
    write, tracker, recognised = LAYOUTS[layout]
    for name in NAMES:
        place(tmp_path / "given", write(name))
    place(tmp_path / "given", {"README.md": "hello", ".DS_Store": "x", "scores.json": "{}"})
    path = Path(shutil.make_archive(str(tmp_path / "given"), "zip", tmp_path / "given")) if archived else tmp_path / "given"
    found = read(path)
    assert_equal(found)
    assert found.name == tracker
    assert f"4 of 4 sequences {recognised}" in found.recognised or recognised in found.recognised
    assert found.notes == []
    confident = "confidence" in recognised
    for name in NAMES:
        assert set(found.tracks[name].confidence) == {0.5 if confident else 1.0}
    assert (len(found.times) == 4) == ("times" in recognised)
    assert all(seconds.tolist() == [0.1] * 9 for seconds in found.times.values())


def test_what_mst_eval_writes_is_read(tmp_path: Path) -> None:
    for name in (*NAMES, "bus/1"):
        write_track(tmp_path / "o", name, Track(RESULTS["boy"], np.linspace(0, 1, 9), (3, 4)))
    (found,) = read_results(tmp_path / "o", [*NAMES, "bus/1"])
    assert set(found.tracks) == {*NAMES, "bus/1"}
    for track in found.tracks.values():
        np.testing.assert_allclose(track.boxes, RESULTS["boy"])
        np.testing.assert_allclose(track.confidence, np.linspace(0, 1, 9))
        assert track.lacking == (3, 4)


def test_several_trackers_in_one_path(tmp_path: Path) -> None:
    for name in NAMES:
        text = lines(RESULTS[name])
        place(tmp_path, {f"A/{name}.txt": text, f"B_tracking_result/{name}.txt": text, f"mixed/C_{name}.txt": text})
        place(tmp_path, {f"mixed/D_{name}.txt": text, f"x/same/{name}.txt": text, f"y/same/{name}.txt": text})
    found = read_results(tmp_path, NAMES, LENGTHS, TRUTHS)
    assert sorted(results.name for results in found) == ["A", "B", "C", "D", "x/same", "y/same"]
    for results in found:
        assert_equal(results)


def test_archives_in_a_folder_are_trackers_and_annotations_are_not(tmp_path: Path) -> None:
    for tracker in ("A", "B"):
        for name in NAMES:
            place(tmp_path / tracker, {f"{tracker}/{name}.txt": lines(RESULTS[name])})
        shutil.make_archive(str(tmp_path / "zips" / tracker), "zip", tmp_path / tracker)
    with zipfile.ZipFile(tmp_path / "zips" / "truth.zip", "w") as archive:
        for name in NAMES:
            archive.writestr(f"gt/{name}.txt", lines(TRUTHS[name]))
    found = read_results(tmp_path / "zips", NAMES, LENGTHS, TRUTHS)
    assert [results.name for results in found] == ["A", "B"]
    assert found[0].notes == ["truth.zip holds no results of the list and is left out"]
    same = [tmp_path / "A", tmp_path / "zips" / "A.zip"]
    assert [r.name for r in read_all(same, NAMES, TRUTHS)] == ["A", "A (A.zip)"]
    shutil.copytree(tmp_path / "A" / "A", tmp_path / "other" / "A")
    same = [tmp_path / "A", tmp_path / "other" / "A"]
    assert [r.name for r in read_all(same, NAMES, TRUTHS)] == [f"{tmp_path.name}/A", "other/A"]
    with pytest.raises(UserError, match="named twice"):
        read_all([same[0], same[0]], NAMES, TRUTHS)


def test_the_folder_of_a_matlab_kit_itself(tmp_path: Path) -> None:
    place(tmp_path / "T_tracking_result", {f"{n}.txt": lines(RESULTS[n]) for n in NAMES})
    found = read(tmp_path / "T_tracking_result")
    assert found.name == "T"
    assert "as NAME_tracking_result/SEQ.txt:" in found.recognised


def test_the_longest_name_counts_and_a_sequence_may_be_called_like_a_role() -> None:
    known = {"boy", "tall_boy", "boy_time", "boy_001"}
    assert locate("T_tall_boy.txt", known)[:3] == ("T", "tall_boy", "boxes")
    assert locate("boy_time.txt", known)[:3] == ("", "boy_time", "boxes")
    assert locate("boy_time_time.txt", known)[:3] == ("", "boy_time", "time")
    assert locate("boy_001.txt", known)[:3] == ("", "boy_001", "boxes")
    assert locate("boy_002.txt", known)[1:] == ("boy", "boxes", "NAME/SEQ_001.txt", 2)
    assert locate("girl.txt", known) is None
    assert locate("tallboy.txt", known) is None


def test_repetitions_and_files_of_no_sequence_are_said(tmp_path: Path) -> None:
    place(tmp_path, {f"T/boy/boy_{number:03d}.txt": lines(RESULTS["boy"] + number) for number in (2, 1, 3)})
    place(tmp_path, {"T/girl.txt": "1,2,3,4\n", "T/log.txt": "started\n"})
    found = read(tmp_path)
    np.testing.assert_array_equal(found.tracks["boy"].boxes, RESULTS["boy"] + 1)
    assert found.recognised.startswith("1 of 4 sequences as NAME/SEQ/SEQ_001.txt:")
    assert found.notes == [
        "several files, of which the first is read: boy",
        "2 file(s) of no sequence of the list are left out: girl.txt, log.txt",
    ]


# ---- formats

numbers = st.one_of(st.integers(-2000, 4000).map(float), st.floats(-2000, 4000, allow_nan=False))


@settings(deadline=None, max_examples=150)
@given(
    rows=st.lists(st.one_of(st.tuples(*[numbers] * 4), st.just((np.nan,) * 4)), min_size=1, max_size=8),
    separator=st.sampled_from([",", "\t", " ", ";", ", ", "   ", ",\t"]),
    ending=st.sampled_from(["\n", "\r\n", "\r"]),
    spell=st.sampled_from([repr, "{:.14f}".format, "{:.17e}".format, "{:+.14f}".format]),
    header=st.sampled_from(["", "x,y,w,h", "# left top width height", '"x"\t"y"\t"w"\t"h"', "% made by me"]),
    mark=st.sampled_from(["", "\ufeff"]),
    after=st.sampled_from(["", ",", " "]),
    last=st.sampled_from(["", "\n", "\n\n"]),
)
def test_boxes_are_what_was_written(
    rows: list, separator: str, ending: str, spell: Callable[[float], str], header: str, mark: str, after: str, last: str
) -> None:
    text = mark + (header + ending) * bool(header) + ending.join(separator.join(map(spell, row)) + after for row in rows) + last
    found = parse_boxes(text, "a.txt")
    np.testing.assert_allclose(found.rows, rows, rtol=0, atol=1e-9)
    assert (found.header is not None) == bool(header)


@settings(deadline=None, max_examples=300)
@given(st.text(st.sampled_from("0123456789.,-+e \t\r\nnaif;xm#"), max_size=80) | st.text(max_size=30))
def test_any_text_is_boxes_or_an_error_that_names_it(text: str) -> None:
    try:
        found = parse_boxes(text, "here/a.txt")
    except UserError as error:
        assert "here/a.txt" in str(error)
    else:
        assert found.rows.shape[1:] == (4,)
        assert found.rows.dtype == np.float64
        assert not np.isinf(found.rows).any()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no boxes"),
        ("x,y,w,h\n", "holds no boxes"),
        ("1\n1\n", "no line has more than one value"),
        ("1,2,3,4\n1,2,3\n", "line 2: '1,2,3' is not a box"),
        ("1,2,3,4\n1,,3,4\n", "line 2: '1,,3,4' is not a box"),
        ("x,y,w,h\n1,2,3,4\n1,2,3,oops\n", "line 3: '1,2,3,oops' is not a box"),
        ("1,2,3,4\n1,2,3,1_0\n", "line 2"),
        ("1,2,3,4\n7\n", "line 2: '7' is not a box"),
        ("1,2,3,4,0.9\n", "line 1: '1,2,3,4,0.9' is not a box"),
        ("1,2,3,4\n" + "5" * (LONGEST + 1), f"line 2 has {LONGEST + 1} characters"),
    ],
)
def test_what_is_no_box_is_named(text: str, message: str) -> None:
    with pytest.raises(UserError, match=r"^a\.txt") as caught:
        parse_boxes(text, "a.txt")
    assert message in str(caught.value)


def test_eight_values_are_the_box_around_them() -> None:
    found = parse_boxes("1,2,5,2,5,8,1,8\n1 2 4 6\n5,5,8,2,11,5,8,8\n", "a")
    assert found.polygons
    assert found.rows.tolist() == [[1, 2, 4, 6], [1, 2, 4, 6], [5, 2, 6, 6]]


def test_columns_are_found_by_their_names() -> None:
    found = parse_boxes("frame,x,y,w,h,score\n0,1,2,3,4,0.5\n1,5,6,7,8,0.5\n", "a")
    assert found.rows.tolist() == [[1, 2, 3, 4], [5, 6, 7, 8]]
    assert parse_boxes("x1 y1 x2 y2\n1 2 3 4\n", "a").header == "corners"
    assert parse_boxes("x1,y1,x2,y2,x3,y3,x4,y4\n1,2,5,2,5,8,1,8\n", "a").rows.tolist() == [[1, 2, 4, 6]]


def test_codes_of_the_vot_toolkit_are_frames_without_a_box(tmp_path: Path) -> None:
    found = parse_boxes("1\n1,2,3,4\n0\n2\nnan,nan,nan,nan\nm5,6,7,8,3,4,5\n", "a")
    assert found.given
    np.testing.assert_array_equal(found.rows, [[np.nan] * 4, [1, 2, 3, 4], *[[np.nan] * 4] * 3, [5, 6, 7, 8]])
    place(tmp_path, {f"T/{n}/{n}_001.txt": "1\n" + lines(RESULTS[n][1:]) for n in NAMES})
    read_back = read(tmp_path)
    assert read_back.given == set(NAMES)
    assert np.isnan(read_back.tracks["boy"].boxes[0]).all()


def test_binary_results_of_the_vot_toolkit(tmp_path: Path) -> None:
    regions = [
        struct.pack("<BI", 0, 1),
        struct.pack("<Bffff", 1, 1, 2, 3, 4),
        struct.pack("<BH8f", 2, 4, 1, 2, 5, 2, 5, 8, 1, 8),
        struct.pack("<BhhHHH3H", 3, -5, 6, 7, 8, 3, 10, 20, 26),
        struct.pack("<Bff", 4, 1, 2),
        struct.pack("<BI", 0, 0),
    ]
    data = struct.pack("<hI", 1, len(regions)) + b"".join(regions)
    found = parse_binary(data, "a.bin")
    expected = [[np.nan] * 4, [1, 2, 3, 4], [1, 2, 4, 6], [-5, 6, 7, 8], [np.nan] * 4, [np.nan] * 4]
    np.testing.assert_array_equal(found.rows, expected)
    assert found.given
    for cut in range(len(data)):
        with pytest.raises(UserError, match=r"a\.bin"):
            parse_binary(data[:cut], "a.bin")
    with pytest.raises(UserError, match="no region of kind 9"):
        parse_binary(struct.pack("<hIB", 1, 1, 9), "a.bin")
    place(tmp_path, {"T/boy/boy_001_confidence.value": "\n" + "0.5\n" * 5})
    (tmp_path / "T/boy/boy_001.bin").write_bytes(data)
    track = read(tmp_path).tracks["boy"]
    np.testing.assert_array_equal(track.boxes, expected)
    np.testing.assert_array_equal(track.confidence, [np.nan, *[0.5] * 5])


def test_confidences_that_do_not_fit_are_said(tmp_path: Path) -> None:
    place(tmp_path, {"boy.txt": lines(RESULTS["boy"]), "boy_confidence.txt": "1\n0.5\n"})
    found = read(tmp_path)
    np.testing.assert_array_equal(found.tracks["boy"].confidence, [1, 0.5, *[np.nan] * 7])
    assert found.notes == ["boy: 2 confidences for 9 boxes"]
    with pytest.raises(UserError, match="line 2: 'sure' is not a number"):
        parse_column("1\nsure\n", "a")


def test_an_empty_list_of_frames_that_lacked_something_is_none(tmp_path: Path) -> None:
    for text in ("", "\n", "2\n\n"):
        place(tmp_path / "o", {"boy.txt": lines(TRUTHS["boy"]), "boy_missing.txt": text})
        assert read(tmp_path / "o").tracks["boy"].lacking == ((2,) if "2" in text else ())


def test_an_empty_line_is_a_frame_only_where_the_count_says_so(tmp_path: Path) -> None:
    boxes = RESULTS["boy"]
    place(tmp_path / "doubled", {"boy.txt": lines(boxes).replace("\n", "\n\n")})
    np.testing.assert_array_equal(read(tmp_path / "doubled").tracks["boy"].boxes, boxes)
    place(tmp_path / "missing", {"boy.txt": lines(boxes[:3]) + "\n\n" + lines(boxes[5:])})
    expected = boxes.copy()
    expected[3:5] = np.nan
    np.testing.assert_array_equal(read(tmp_path / "missing").tracks["boy"].boxes, expected)


def test_texts_of_other_encodings(tmp_path: Path) -> None:
    (tmp_path / "boy.txt").write_text(lines(RESULTS["boy"]), encoding="utf-16")
    np.testing.assert_array_equal(read(tmp_path).tracks["boy"].boxes, RESULTS["boy"])
    (tmp_path / "boy.txt").write_bytes(b"\x89PNG\r\n\xff\xfe")
    with pytest.raises(UserError, match=r"boy\.txt is not a text file"):
        read(tmp_path)


# ---- corners


def as_corners(boxes: np.ndarray, inclusive: int = 0) -> np.ndarray:
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:] - inclusive], axis=1)


@pytest.mark.parametrize("inclusive", [0, 1])
def test_corners_are_recognised_by_the_annotation(tmp_path: Path, inclusive: int) -> None:
    place(tmp_path, {f"{n}.txt": lines(as_corners(RESULTS[n], inclusive)) for n in NAMES})
    found = read(tmp_path)
    assert_equal(found)
    assert f"corners x1, y1, x2, y2{', both inclusive' * inclusive};" in found.recognised
    (blind,) = read_results(tmp_path, NAMES)
    assert_equal(blind, {n: as_corners(RESULTS[n], inclusive) for n in NAMES})
    assert_equal(read(tmp_path, form="xywh"), {n: as_corners(RESULTS[n], inclusive) for n in NAMES})
    (forced,) = read_results(tmp_path, NAMES, form="corners")
    assert_equal(forced, {n: RESULTS[n] - [0, 0, inclusive, inclusive] for n in NAMES})


def test_eight_values_of_inclusive_corners(tmp_path: Path) -> None:
    corners = {n: as_corners(RESULTS[n], 1) for n in NAMES}
    place(tmp_path, {f"{n}.txt": lines(c[:, [0, 1, 2, 1, 2, 3, 0, 3]], "\t") for n, c in corners.items()})
    found = read(tmp_path)
    assert_equal(found)
    assert "the box around eight values, both inclusive; whole numbers; tabs" in found.recognised


def test_corners_named_by_a_header(tmp_path: Path) -> None:
    place(tmp_path, {f"{n}.csv": "xmin,ymin,xmax,ymax\n" + lines(as_corners(RESULTS[n])) for n in NAMES})
    assert_equal(read_results(tmp_path, NAMES)[0])


def test_large_boxes_at_the_upper_left_are_not_taken_for_corners(tmp_path: Path) -> None:
    boxes = np.tile([[2.0, 3.0, 90.0, 80.0]], (9, 1))
    place(tmp_path, {f"{n}.txt": lines(boxes) for n in NAMES})
    (found,) = read_results(tmp_path, NAMES, LENGTHS, dict.fromkeys(NAMES, boxes))
    assert_equal(found, dict.fromkeys(NAMES, boxes))
    place(tmp_path, {f"{n}.txt": lines(as_corners(boxes)) for n in NAMES})
    (found,) = read_results(tmp_path, NAMES, LENGTHS, dict.fromkeys(NAMES, boxes))
    assert_equal(found, dict.fromkeys(NAMES, boxes))


def test_corners_where_the_tracker_reports_nothing_and_where_leading_frames_are_cut(tmp_path: Path) -> None:
    truths = {n: np.vstack([np.zeros((2, 4)), t]) for n, t in TRUTHS.items()}
    rows = {n: as_corners(RESULTS[n]) for n in NAMES}
    rows["boy"][4], rows["car_2"][5] = 0, np.nan
    place(tmp_path, {f"{n}.txt": lines(r) for n, r in rows.items()})
    (found,) = read_results(tmp_path, NAMES, dict.fromkeys(NAMES, 11), truths)
    assert "corners" in found.recognised
    np.testing.assert_array_equal(found.tracks["boy"].boxes[4], [0, 0, 0, 0])
    np.testing.assert_array_equal(found.tracks["boy"].boxes[5:], RESULTS["boy"][5:])


# ---- what is refused


def test_a_path_without_results_says_what_it_holds(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no file or folder"):
        read_results(tmp_path / "none", NAMES)
    with pytest.raises(UserError, match=r"holds no results .*for each sequence, such as 00141_tank_outdoor2\.txt"):
        read_results(tmp_path, NAMES)
    place(tmp_path, {"a.zip": "nothing of the kind", "b.txt": "1,2,3,4\n"})
    with pytest.raises(UserError, match=r"no result of a sequence of the list, but 1 other .*b.txt(.|\n)*a.zip is left"):
        read_results(tmp_path, NAMES)
    with pytest.raises(UserError, match="is not a zip archive that can be read"):
        read_results(tmp_path / "a.zip", NAMES)
    with pytest.raises(UserError, match="neither a folder nor a zip archive"):
        read_results(tmp_path / "b.txt", NAMES)
    place(tmp_path / "times", {"boy_time.txt": "0.1\n"})
    with pytest.raises(UserError, match="holds no results"):
        read_results(tmp_path / "times", NAMES)


def test_results_of_another_list_are_named(tmp_path: Path) -> None:
    place(tmp_path, {f"T/{name}.txt": "1,2,3,4\n" for name in read_list("rgbt234", "test").names})
    with pytest.raises(UserError, match=r"They are named after 234 sequence\(s\) of rgbt234, split 'test'\."):
        read_all([tmp_path], read_list("visevent", "test").names, {})
    with pytest.raises(UserError, match=r"results of 1 sequence\(s\) of the list, but 233 other .* rgbt234, split 'test'"):
        read_all([tmp_path], read_list("lasher", "test").names, {})


def test_what_lies_beside_results_is_no_sequence(tmp_path: Path) -> None:
    place(tmp_path, {"run.json": "{}", "scores.json": "{}"})  # rgbt234 has a sequence `run`
    with pytest.raises(UserError, match="holds no results") as caught:
        read_all([tmp_path], read_list("lasher", "test").names, {})
    assert "named after" not in str(caught.value)


@pytest.mark.parametrize("name", ["../boy.txt", "T/../../boy.txt", "/tmp/boy.txt", "..\\boy.txt", "C:\\boy.txt", "T/b\noy.txt"])
def test_names_that_lead_out_of_an_archive_are_refused(tmp_path: Path, name: str) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("T/boy.txt", "1,2,3,4\n")
        archive.writestr(name, "1,2,3,4\n")
    with pytest.raises(UserError, match="leads out of the archive or is no name"):
        read_results(tmp_path / "a.zip", NAMES)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a.zip"]


def test_an_archive_of_windows_is_read(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("T\\boy.txt", lines(RESULTS["boy"]))
        archive.writestr("__MACOSX/T/._boy.txt", "\0")
    assert read(tmp_path / "a.zip").name == "T"


def test_a_damaged_or_locked_member_is_named(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("T/boy.txt", lines(np.tile(RESULTS["boy"], (50, 1))))
    data = bytearray((tmp_path / "a.zip").read_bytes())
    data[60:90] = bytes(30)
    (tmp_path / "a.zip").write_bytes(data)
    with pytest.raises(UserError, match=r"a\.zip/T/boy\.txt cannot be unpacked"):
        read(tmp_path / "a.zip")


def test_huge_files_are_refused_without_reading_them(tmp_path: Path) -> None:
    with (tmp_path / "boy.txt").open("wb") as file:
        file.truncate(2 * 2**30)
    with pytest.raises(UserError, match=r"boy\.txt is larger than 64 MB"):
        read(tmp_path)
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("T/boy.txt", b"1" * (filetree.LARGEST + 1))
    assert (tmp_path / "bomb.zip").stat().st_size < 100_000
    with pytest.raises(UserError, match=r"T/boy\.txt is larger than 64 MB"):
        read(tmp_path / "bomb.zip")


def test_an_archive_that_unpacks_to_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in NAMES:
            archive.writestr(f"T/{name}.txt", lines(RESULTS[name]))
    monkeypatch.setattr(filetree, "TOTAL", 300)
    with pytest.raises(UserError, match="unpacks to more than"):
        read(tmp_path / "a.zip")


# ---- exports


@pytest.mark.parametrize("form", FORMATS)
def test_exports_are_read_back_equal(tmp_path: Path, form: str) -> None:
    rng = np.random.default_rng(1)
    tracks = {n: Track(RESULTS[n] + rng.uniform(0, 1, (9, 4)), rng.uniform(0, 1, 9)) for n in NAMES}
    times = {n: rng.uniform(0, 1, 9) for n in NAMES}
    files = export_results(RawResults("My T", tracks, "", times=times), form, tmp_path)
    assert set(files) == {path for path in tmp_path.rglob("*") if path.is_file()}
    found = read(tmp_path)
    assert found.name == "My T"
    vot = "001.txt, _conf" in FORMATS[form].layout
    for name, track in tracks.items():
        first = 1 if vot else 0
        np.testing.assert_array_equal(found.tracks[name].boxes[first:], track.boxes[first:])
        np.testing.assert_array_equal(found.times[name], times[name])
        if vot:
            np.testing.assert_array_equal(found.tracks[name].confidence, [np.nan, *track.confidence[1:]])
    assert found.given == (set(NAMES) if vot else set())


def test_the_official_files(tmp_path: Path) -> None:
    results = RawResults("T", {"boy": Track(np.array([[1, 2, 3.5, 4], [np.nan] * 4]), np.array([1, 0.25]))}, "")
    expected = {
        "visevent": {"T_tracking_result/boy.txt": "1,2,3.5,4\nnan,nan,nan,nan\n"},
        "coesot": {"T_tracking_result/boy.txt": "1,2,3.5,4\nnan,nan,nan,nan\n"},
        "lasher": {"T/boy.txt": "1,2,3.5,4\nnan,nan,nan,nan\n"},
        "fe108": {"T/boy.txt": "1\t2\t3.5\t4\nnan\tnan\tnan\tnan\n"},
        "got10k": {"T/boy/boy_001.txt": "1,2,3.5,4\nnan,nan,nan,nan\n"},
        "trackingnet": {"T/boy.txt": "1,2,3.5,4\nnan,nan,nan,nan\n"},
        "depthtrack": {
            "T/rgbd-unsupervised/boy/boy_001.txt": "1\nnan,nan,nan,nan\n",
            "T/rgbd-unsupervised/boy/boy_001_confidence.value": "\n0.25\n",
        },
    }
    for form, files in expected.items():
        export_results(results, form, tmp_path / form)
        found = [path for path in (tmp_path / form).rglob("*") if path.is_file()]
        assert {str(path.relative_to(tmp_path / form)): path.read_text() for path in found} == files


def test_exports_stay_in_their_folder(tmp_path: Path) -> None:
    track = Track(RESULTS["boy"], np.ones(9))
    for name in ("../boy", "/tmp/boy", "a\\b", "..", "", "a/../../b", "b\0"):
        with pytest.raises(UserError, match="nothing is written"):
            export_results(RawResults("T", {"car_2": track, name: track}, ""), "lasher", tmp_path / "out")
        with pytest.raises(UserError, match="nothing is written"):
            check_name(name)
    with pytest.raises(UserError, match="nothing is written"):
        export_results(RawResults("T", {"boy": track}, ""), "lasher", tmp_path / "out", name="../T")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UserError, match=r"unknown format 'lasherr'. Did you mean 'lasher'\?"):
        export_results(RawResults("T", {"boy": track}, ""), "lasherr", tmp_path / "out")


def test_a_folder_is_exported_by_the_names_of_the_list(tmp_path: Path) -> None:
    name = read_list("lasher", "test").names[0]
    place(tmp_path / "in", {f"T/{name}.txt": lines(RESULTS["boy"])})
    ((results, files),) = export_paths([tmp_path / "in"], "lasher", tmp_path / "out", to="visevent", name="mine")
    assert results.name == "T"
    assert files == [tmp_path / "out" / "mine_tracking_result" / f"{name}.txt"]
    place(tmp_path / "in", {f"U/{name}.txt": lines(RESULTS["boy"])})
    with pytest.raises(UserError, match=r"2 trackers \(T, U\) and one name, 'mine'"):
        export_paths([tmp_path / "in"], "lasher", tmp_path / "out", name="mine")
    with pytest.raises(UserError, match="unknown format 'coco'"):
        export_paths([tmp_path / "in"], "coco", tmp_path / "out")


def test_the_given_box_is_exported_where_it_is_known(tmp_path: Path) -> None:
    name = read_list("lasher", "test").names[0]
    place(tmp_path, {f"T/{name}/{name}_001.txt": "1\n" + lines(RESULTS["boy"][1:]), f"gt/{name}.txt": lines(TRUTHS["boy"])})
    export_paths([tmp_path / "T"], "lasher", tmp_path / "a")
    assert (tmp_path / "a/T" / f"{name}.txt").read_text() == "nan,nan,nan,nan\n" + lines(RESULTS["boy"][1:])
    with pytest.warns(DataWarning, match="244 of 245"):
        export_paths([tmp_path / "T"], "lasher", tmp_path / "b", annotations=tmp_path / "gt")
    assert (tmp_path / "b/T" / f"{name}.txt").read_text() == lines(RESULTS["boy"])
