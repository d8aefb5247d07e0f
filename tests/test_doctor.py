"""The doctor: what it says of sound and of damaged data, how it counts, what it shows, and how the commands end."""

import json
import os
import re
import shutil
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import cv2
import layouts
import moving_squares
import numpy as np
import pytest
from commands import mst

from mstrack import cli
from mstrack.data import doctor, load_sequences
from mstrack.data.doctor import check, checked_splits, official_counts
from mstrack.data.doctor.findings import Counts, Report
from mstrack.data.doctor.inspection import find_gap
from mstrack.data.doctor.survey import count_sequences, recognise, survey
from mstrack.data.drawing import TRUTH, contact_sheet, draw_box, draw_frame, save_picture
from mstrack.data.headers import image_size
from mstrack.data.numbered import Numbered
from mstrack.data.sequence import Frame, Sequence
from mstrack.data.splits import read_list
from mstrack.errors import DataWarning, UserError, warn

NAMES = read_list("lasher", "test").names[:3]
FRAMES, SIZE = 6, (48, 64)


@pytest.fixture
def lasher(tmp_path: Path) -> Path:
    """Three sound sequences of the test."""
    root = tmp_path / "LasHeR"
    layouts.build(layouts.tree_of("lasher", "as released"), root, NAMES, FRAMES, SIZE)
    return root


def examine(root: Path, **options: bool) -> Report:
    return check("lasher", root, "test", **options)


def kinds(report: Report) -> dict[str, str]:
    """Kind -> level of all findings but the sequences that are missing."""
    return {finding.kind: finding.level for finding in report.findings if finding.kind != "missing"}


def image(root: Path, modality: str, number: int, sequence: int = 1) -> Path:
    return root / NAMES[sequence] / modality / f"{modality[0]}_{number:05d}.jpg"


# ---- sound data


@pytest.mark.parametrize(("dataset", "variant"), layouts.VARIANTS)
def test_sound_data_of_every_layout_have_no_errors(tmp_path: Path, dataset: str, variant: str) -> None:
    layouts.miniature(dataset, variant, tmp_path / "data")
    report = check(dataset, tmp_path / "data", headers=True)
    assert not report.errors, report.errors
    assert [split.name for split in report.splits] == list(checked_splits(dataset))
    assert all(facts.frames == 6 and facts.sizes == ((64, 48),) for facts in report.sequences)
    assert set(kinds(report)) <= {"missing"}


def test_decoding_sound_data_finds_nothing_more(lasher: Path) -> None:
    report = examine(lasher, decode=True)
    assert kinds(report) == {}
    assert report.images == "decoded"
    assert [(facts.blank, facts.repeated) for facts in report.sequences] == [(0, 0)] * 3
    assert report.sequences[0].aux_sizes == ((64, 48),)


def test_the_embedded_benchmark_is_sound(tmp_path: Path) -> None:
    from mstrack.data.synthetic import generate

    root = generate(tmp_path / "bench", splits={"val": (2, 8)})
    report = check("synthetic", root, "val", decode=True)
    assert not report.errors
    assert report.splits[0].found.frames == 16


def test_functions_and_folders_of_ones_own_are_checked(tmp_path: Path) -> None:
    assert not check("moving_squares:load", tmp_path).findings
    layouts.miniature("own", "folders", tmp_path / "mine")
    report = check(str(tmp_path / "mine"), split="train")
    assert not report.findings
    assert len(report.sequences) == 2


# ---- damage


def truncate(root: Path) -> None:
    path = image(root, "infrared", 3)
    path.write_bytes(path.read_bytes()[:-40])


def empty(root: Path) -> None:
    image(root, "visible", 1).write_bytes(b"")


def resize(root: Path) -> None:
    cv2.imwrite(str(image(root, "visible", 6)), np.zeros((48, 70, 3), np.uint8))


def unlike(root: Path) -> None:
    for number in range(1, FRAMES + 1):
        cv2.imwrite(str(image(root, "infrared", number)), np.random.default_rng(number).integers(0, 255, (30, 40), np.uint8))


def blank(root: Path) -> None:
    cv2.imwrite(str(image(root, "infrared", 4)), np.full(SIZE, 90, np.uint8))


def repeat(root: Path) -> None:
    shutil.copy(image(root, "visible", 3), image(root, "visible", 4))


def rewrite(root: Path, change: Callable[[list[str]], list[str]]) -> None:
    file = root / NAMES[1] / "init.txt"
    file.write_text("\n".join(change(file.read_text().splitlines())) + "\n")


def blank_most(root: Path) -> None:
    for number in range(1, FRAMES - 1):
        cv2.imwrite(str(image(root, "infrared", number)), np.full(SIZE, 90, np.uint8))


def cut_short(root: Path) -> None:
    data = image(root, "visible", 3).read_bytes()
    image(root, "visible", 3).write_bytes(data[: len(data) * 2 // 3] + b"\xff\xd9")


def remove_both(root: Path) -> None:
    for modality in ("visible", "infrared"):
        image(root, modality, 3).unlink()
    rewrite(root, lambda lines: lines[:-1])


DAMAGE: dict[str, tuple[Callable[[Path], object], bool, dict[str, str]]] = {
    "truncated, found by decoding": (truncate, True, {"unreadable": "error"}),
    "truncated, header whole": (truncate, False, {}),
    "empty": (empty, False, {"unreadable": "error"}),
    "one larger": (resize, False, {"size": "warning", "modalities": "error"}),
    "modalities of two sizes": (unlike, False, {"modalities": "error"}),
    "cut in half, end marker there": (cut_short, True, {"unreadable": "error"}),
    "sensor dead most of the time": (blank_most, True, {"blank": "error"}),
    "dead sensor": (blank, True, {"blank": "warning"}),
    "repeated": (repeat, True, {"repeated": "note"}),
    "frame lost": (remove_both, False, {"gap": "warning"}),
    "colour frame lost": (
        lambda root: image(root, "visible", 3).unlink(),
        False,
        {"gap": "warning", "pairs": "warning"},
    ),
    "outside": (lambda root: rewrite(root, lambda rows: [*rows[:2], "64,10,5,5", *rows[3:]]), False, {"outside": "warning"}),
    "corners for sizes": (lambda root: rewrite(root, lambda rows: ["40,30,52,44"] * len(rows)), False, {"corners": "warning"}),
    "one box more": (lambda root: rewrite(root, lambda rows: [*rows, "1,2,3,4"]), False, {"length": "warning"}),
    "no box": (lambda root: rewrite(root, lambda rows: [*rows[:2], "1,2,3", *rows[3:]]), False, {"reader": "error"}),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_damage_is_found(lasher: Path, case: str) -> None:
    spoil, decode, expected = DAMAGE[case]
    spoil(lasher)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report = examine(lasher, decode=decode)
    assert kinds(report) == expected
    about = [finding for finding in report.findings if finding.kind in expected]
    assert all(NAMES[1] in finding.where + finding.text for finding in about)
    assert bool(report.errors) == ("error" in expected.values())


def test_all_headers_find_what_a_sample_does_not(lasher: Path) -> None:
    image(lasher, "infrared", 2).write_bytes(b"no image")
    assert kinds(examine(lasher)) == {}
    (finding,) = examine(lasher, headers=True).errors
    assert (finding.kind, finding.where, finding.count) == ("unreadable", NAMES[1], 1)
    assert "i_00002.jpg" in finding.text


def test_several_errors_of_a_reader_are_several_findings(lasher: Path) -> None:
    for name in NAMES[:2]:
        (lasher / name / "init.txt").write_text("1,2,3\n")
    report = examine(lasher)
    assert len(report.errors) == 2
    assert report.splits[0].found == Counts()
    assert report.split_table()[1][0][1] == "- of 245"


def test_all_sequences_that_cannot_be_read_are_found_and_the_message_says_what_to_do(tmp_path: Path) -> None:
    """An archive of which half is unpacked."""
    names = read_list("lasher", "test").names[:8]
    layouts.build(layouts.tree_of("lasher", "as released"), tmp_path, names)
    for name in names[1:]:
        shutil.rmtree(tmp_path / name / "infrared")
    report = examine(tmp_path)
    assert all(any(f"sequence '{name}'" in finding.text for finding in report.errors) for name in names[1:])
    assert len(report.errors) == 7
    with pytest.raises(UserError, match=rf"'{names[5]}'.*has no folder infrared.*\n.*and 2 more.*\n.*or move the folders away"):
        load_sequences("lasher", "test", tmp_path)


def test_boxes_that_reach_out_are_only_counted(lasher: Path) -> None:
    rewrite(lasher, lambda rows: ["-3,2,10,10", "60,40,10,10", *rows[2:]])
    report = examine(lasher)
    assert kinds(report) == {}
    assert [facts.partly for facts in report.sequences] == [0, 2, 0]


def test_absent_frames_are_counted_with_those_cut_off(lasher: Path) -> None:
    rewrite(lasher, lambda rows: ["0,0,0,0", *rows[1:4], "0,0,0,0", rows[5]])
    (facts,) = (facts for facts in examine(lasher).sequences if facts.name == NAMES[1])
    assert (facts.frames, facts.absent, facts.cut) == (FRAMES, 2, 1)


def test_progress_counts_sequences_or_frames(lasher: Path) -> None:
    for decode, total in ((False, 3), (True, 3 * FRAMES)):
        seen: list[tuple[int, int]] = []
        check("lasher", lasher, "test", decode=decode, progress=lambda done, of, _, seen=seen: seen.append((done, of)))
        assert seen == [(i, total) for i in range(1, total + 1)]


# ---- counts


def test_counts_are_compared_where_all_sequences_are_there(lasher: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "official_counts", lambda *_: Counts(3, 18, 0))
    report = examine(lasher)
    assert "count" not in kinds(report)
    assert report.split_table()[1] == [["test", "3 = official", "18 = official", "0 = official", "64 x 48"]]
    monkeypatch.setattr(doctor, "official_counts", lambda *_: Counts(3, 20, 1))
    assert [finding.text for finding in examine(lasher).findings if finding.kind == "count"] == [
        "18 frames, officially 20",
        "0 frames without the target, officially 1",
    ]


def test_sizes_of_lists_are_those_of_the_committed_lists() -> None:
    assert official_counts("visevent", "test") == Counts(320, 157_395, 21_026)
    assert official_counts("visevent", "train-official") == Counts(500)
    assert official_counts("trackingnet", "test") == Counts(511)
    assert official_counts("nothing", "test") == Counts()


def test_a_split_that_is_not_there_is_a_warning(lasher: Path) -> None:
    report = check("lasher", lasher)
    assert [split.name for split in report.splits] == ["test"]
    assert any(f.where == "lasher/train-official" and f.text.startswith("nothing of it") for f in report.findings)
    assert not report.errors


def test_an_empty_folder_is_an_error_with_the_layout(tmp_path: Path) -> None:
    report = check("lasher", tmp_path)
    assert [finding.where for finding in report.errors] == ["lasher/train-official", "lasher/test"]
    assert "<sequence>/visible/" in report.errors[0].text


def test_what_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no folder"):
        check("lasher", tmp_path / "nowhere")
    with pytest.raises(UserError, match="Did you mean 'lasher'"):
        check("lashr", tmp_path)
    with pytest.raises(UserError, match="no folder of 'lasher'"):
        check("lasher", data_root=tmp_path)
    with pytest.raises(UserError, match="there is no folder"):
        survey(tmp_path / "nowhere")


@pytest.mark.parametrize(("dataset", "known"), [("lasher", "train-official"), ("vot-rgbd", "test"), ("got10k", "val")])
def test_a_split_that_does_not_exist_is_refused(tmp_path: Path, dataset: str, known: str) -> None:
    with pytest.raises(UserError, match=rf"unknown split of {dataset} 'foo'.*{known}"):
        check(dataset, tmp_path, "foo")


def test_a_split_that_ones_own_data_lack_is_refused(tmp_path: Path) -> None:
    layouts.miniature("own", "folders", tmp_path / "mine")
    with pytest.raises(UserError, match=r"(?s)unknown split.*'foo'.*train"):
        check(str(tmp_path / "mine"), split="foo")


@pytest.mark.parametrize(("dataset", "variant"), [pair for pair in layouts.VARIANTS if pair[0] != "vot-rgbd"])
def test_a_folder_of_a_known_dataset_is_recognised(tmp_path: Path, dataset: str, variant: str) -> None:
    layouts.miniature(dataset, variant, tmp_path / "data")
    assert recognise(tmp_path / "data") == ("" if dataset == "own" else dataset)
    if dataset != "own":
        with pytest.raises(UserError, match=rf"`mst data check {dataset} --root .*data`"):
            check(str(tmp_path / "data"))


def test_own_sequences_that_are_called_like_others_stay_ones_own(tmp_path: Path) -> None:
    layouts.build(layouts.tree_of("own", "folders"), tmp_path / "mine" / "test", NAMES, FRAMES, SIZE)
    assert recognise(tmp_path / "mine") == ""


def test_other_warnings_stay_warnings() -> None:
    heard: list[DataWarning] = []
    with pytest.warns(UserWarning, match="another") as caught, doctor.collect_warnings(heard.append):
        warn("boy", "pairs", "odd")
        warnings.warn("another", UserWarning, stacklevel=1)
    assert len(caught) == 1
    assert [said.kind for said in heard] == ["pairs"]


# ---- headers and names


def encode(kind: str, *options: int, shape: tuple[int, ...] = (30, 40, 3), dtype: type = np.uint8) -> bytes:
    picture = np.random.default_rng(0).integers(0, 255, shape).astype(dtype)
    return cv2.imencode(kind, picture, options)[1].tobytes()


JPEG = encode(".jpg")
PROFILE = b"\xff\xe2" + (60_000).to_bytes(2, "big") + bytes(59_998)
BMP = encode(".bmp")
FILES = {
    "jpeg": JPEG,
    "progressive": encode(".jpg", cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
    "after a large profile": JPEG[:2] + PROFILE * 2 + JPEG[2:],
    "png": encode(".png"),
    "png of 16 bits": encode(".png", shape=(30, 40), dtype=np.uint16),
    "bmp": BMP,
    "bmp from the top": BMP[:22] + (-30).to_bytes(4, "little", signed=True) + BMP[26:],
    "webp": encode(".webp"),
    "tiff": encode(".tiff"),
}


@pytest.mark.parametrize("name", FILES)
def test_the_size_of_an_image_is_in_its_header(tmp_path: Path, name: str) -> None:
    path = tmp_path / "image"
    path.write_bytes(FILES[name])
    assert image_size(path) == (40, 30)


@pytest.mark.parametrize("content", [b"", b"words", JPEG[:60], FILES["png"][:20], BMP[:20], None])
def test_what_has_no_size_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "image.jpg"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"image\.jpg"):
        image_size(path)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["1.jpg", "2.jpg", "3.jpg"], ""),
        (["f000.png", "f010.png", "f020.png"], ""),
        (["a.jpg"], ""),
        (["a.jpg", "b.jpg"], ""),
        (["1.jpg", "2.jpg", "5.jpg", "6.jpg"], "2 missing, the first between 2 and 5"),
        (["000.jpg", "010.jpg", "040.jpg", "050.jpg", "060.jpg"], "2 missing, the first between 10 and 40"),
        (["v1_1.jpg", "v1_2.jpg", "v2_1.jpg", "v2_2.jpg"], "1 do not follow the one before, the first 1 after 2"),
        (["1.jpg", "b.jpg"], "1 of 2 names have none"),
    ],
)
def test_gaps_in_the_numbers_of_frames(names: list[str], words: str) -> None:
    assert find_gap([Path(name) for name in names]) == words


def test_consecutive_names_are_not_looked_at() -> None:
    assert find_gap(Numbered(Path("there"), "%08d.jpg", range(1, 10**7))) == ""


# ---- what lies where


def test_survey(lasher: Path) -> None:
    headers, rows = survey(lasher.parent)
    assert headers == ["dataset", "folder", "layout", "sequences"]
    found = {row[0]: row[1:] for row in rows}
    assert found["lasher"] == ["LasHeR", "as released", "train-official 0 of 979, test 3 of 245"]
    assert found["coesot"] == ["-", "", ""]


def test_survey_of_several_roots_names_folders_in_full(lasher: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MST_DATA", f"{lasher.parent}{os.pathsep}{lasher.parent / 'more'}")
    assert str(lasher) in [row[1] for row in survey()[1]]


@pytest.mark.parametrize(("dataset", "variant"), [pair for pair in layouts.VARIANTS if pair[0] not in ("own", "vot-rgbd")])
def test_survey_of_every_layout(tmp_path: Path, dataset: str, variant: str) -> None:
    root = tmp_path / dataset
    layouts.miniature(dataset, variant, root)
    assert count_sequences(dataset, root)["test"] == 2
    (row,) = (row for row in survey(tmp_path)[1] if row[0] == dataset)
    assert "test 2 of" in row[3]


def test_survey_of_the_rgb_sets(tmp_path: Path) -> None:
    import test_rgb

    test_rgb.build_got10k(tmp_path / "got10k")
    test_rgb.build_lasot(tmp_path / "lasot")
    test_rgb.build_trackingnet(tmp_path / "trackingnet")
    test_rgb.instances(tmp_path / "coco")
    found = {row[0]: row[3] for row in survey(tmp_path)[1]}
    assert found["got10k"] == "train 3, val 1, test 1"
    assert found["lasot"] == "all 9"
    assert found["trackingnet"] == "train-official 6, test 2"
    assert found["coco"] == "train 2, val 0"


# ---- pictures


def sequence_of(tmp_path: Path) -> Sequence:
    return moving_squares.load(tmp_path, "test", sequences=1)[0]


def green(image: np.ndarray) -> np.ndarray:
    """Where the colour of true boxes is, more or less."""
    return np.abs(image.astype(int) - TRUTH).max(-1) < 60


def test_a_contact_sheet_shows_both_modalities_with_boxes(tmp_path: Path) -> None:
    sequence = sequence_of(tmp_path)
    sheet = contact_sheet(sequence, frames=6, columns=3, width=900)
    assert sheet.shape[1:] == (900, 3)
    drawn = green(sheet)
    assert min(drawn[:, :153].sum(), drawn[:, 153:300].sum()) > 40
    absent = Sequence(sequence.name, sequence.rgb, sequence.boxes, np.zeros(12, bool), sequence.aux, sequence.modality)
    assert not green(contact_sheet(absent, frames=6, columns=3, width=900)).any()


def test_a_contact_sheet_of_what_is_short_single_or_lacking(tmp_path: Path) -> None:
    sequence = sequence_of(tmp_path)
    single = Sequence("één", sequence.rgb[:1], sequence.boxes[:1], sequence.valid[:1])
    assert contact_sheet(single).shape[1] == 1600
    lacking = Sequence("boy", sequence.rgb[:2], sequence.boxes[:2], sequence.valid[:2], (None, sequence.aux[1]), "thermal")
    assert contact_sheet(lacking, width=400).shape[1] == 400


def test_a_frame_with_its_box() -> None:
    frame = Frame(np.zeros((60, 80, 3), np.uint8), np.zeros((60, 80, 3), np.uint8))
    picture = draw_frame(frame, (20, 30, 10, 12), "7  0.93")
    assert picture.shape == (60, 160, 3)
    assert picture[30, 25].any()
    assert picture[30, 105].any()
    assert not frame.rgb.any()


def test_a_box_that_is_none_is_not_drawn() -> None:
    image = np.zeros((20, 20, 3), np.uint8)
    draw_box(image, [np.nan] * 4)
    assert not image.any()


def test_pictures_are_written_by_their_ending(tmp_path: Path) -> None:
    image = np.zeros((4, 6, 3), np.uint8)
    image[..., 0] = 200
    save_picture(tmp_path / "new" / "a.png", image)
    assert cv2.imread(str(tmp_path / "new" / "a.png"))[0, 0].tolist() == [0, 0, 200]
    with pytest.raises(UserError, match=r"\.png or \.jpg"):
        save_picture(tmp_path / "a.gif", image)


# ---- commands


def test_check_ends_with_0_1_or_2(lasher: Path, tmp_path: Path) -> None:
    done = mst("data", "check", "lasher", "--split", "test", "--data-root", tmp_path, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"lasher in {lasher}" in done.stdout
    assert "3 of 245" in done.stdout
    assert "242 of 245 sequences" in re.sub(r"\s+", " ", done.stdout)
    assert "DataWarning" not in done.stderr
    assert json.loads((tmp_path / "check.json").read_text())["errors"] == 0
    truncate(lasher)
    done = mst("data", "check", "lasher", "--root", lasher, "--out", tmp_path, cwd=tmp_path)
    assert done.returncode == 2
    assert "findings" in done.stdout  # what was found is said although it cannot be written
    done = mst("data", "check", "lasher", "--root", lasher, "--decode", "--out", tmp_path / "found.json", cwd=tmp_path)
    assert done.returncode == 1
    assert "truncated" in re.sub(r"\s+", " ", done.stdout)
    written = json.loads((tmp_path / "found.json").read_text())
    assert [f["where"] for f in written["findings"] if f["level"] == "error"] == [NAMES[1]]
    assert {facts["name"] for facts in written["sequences"]} == set(NAMES)
    done = mst("data", "check", "visevent", "--data-root", tmp_path, cwd=tmp_path)
    assert done.returncode == 2
    assert "no folder of 'visevent'" in done.stderr


def test_show_writes_a_contact_sheet(lasher: Path, tmp_path: Path) -> None:
    done = mst("data", "show", f"lasher/{NAMES[1]}", "--data-root", tmp_path, "--frames", 4, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert cv2.imread(str(tmp_path / f"{NAMES[1]}.png")).shape[1] == 1600
    done = mst("data", "show", f"lasher/{NAMES[1]}x", "--data-root", tmp_path, cwd=tmp_path)
    assert done.returncode == 2
    assert f"Near: {NAMES[1]}" in done.stderr
    layouts.miniature("own", "folders", tmp_path / "mine")
    done = mst("data", "show", "mine/test/test1", "--out", "sheets/one.jpg", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "sheets" / "one.jpg").is_file()
    done = mst("data", "show", f"{tmp_path.name}/mine/test1", "--out", tmp_path / "deep.png", cwd=tmp_path.parent)
    assert done.returncode == 0, done.stderr
    shutil.copytree(tmp_path / "mine" / "test" / "test1", tmp_path / "mine" / "val" / "test1")
    done = mst("data", "show", "mine/test1", cwd=tmp_path)
    assert re.search(
        r"lies in mine/test/test1\s+and in mine/val/test1; the first is read.\s+Name another by --split", done.stderr
    )


def test_show_needs_one_sound_sequence_alone(tmp_path: Path) -> None:
    layouts.miniature("own", "folders", tmp_path / "mine")
    (tmp_path / "mine" / "test" / "test0" / "groundtruth.txt").write_text("1,2,3\n")
    done = mst("data", "show", "test1", "--out", tmp_path / "one.png", cwd=tmp_path / "mine" / "test")
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    done = mst("data", "show", tmp_path / "mine" / "test" / "test0", cwd=tmp_path)
    assert done.returncode == 2
    assert "groundtruth.txt, line 1" in done.stderr


def test_an_error_of_the_system_is_one_message(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def refuse() -> None:
        raise PermissionError(13, "Permission denied", "/data/closed")

    monkeypatch.setattr(cli, "app", refuse)
    monkeypatch.setattr(sys, "argv", ["mst", "data", "list"])
    with warnings.catch_warnings(), pytest.raises(SystemExit) as ended:
        monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
        cli.main()
    assert ended.value.code == 2
    assert "error: /data/closed: Permission denied." in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", ["mst", "data", "list", "--debug"])
    with warnings.catch_warnings(), pytest.raises(PermissionError):
        cli.main()


def test_list_says_what_is_found(lasher: Path, tmp_path: Path) -> None:
    done = mst("data", "list", "--data-root", tmp_path, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "test 3 of 245" in re.sub(r"\s+", " ", done.stdout)
