"""Raw results scored: the published numbers, alignment, what is left out and said, the stamp, and the two commands."""

import csv
import gzip
import json
import math
import shutil
import time
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from commands import mst

import mstrack
from mstrack.data.splits import hash_names, read_list
from mstrack.data.truths import Truth, load_truths
from mstrack.errors import UserError
from mstrack.metrics import longterm, ope
from mstrack.metrics.protocols import PROTOCOLS
from mstrack.rawresults import RawResults, read_all
from mstrack.results import Track
from mstrack.scoring import FOREIGN, describe, findings, score_paths, score_results, stamp, table_rows

ORACLE = Path(__file__).parents[2] / "shared" / "oracle"
needs_oracle = pytest.mark.skipif(not ORACLE.is_dir(), reason="the oracle folder ../shared/oracle is not here")
RESULTS = {
    ("VisEvent", "CEUTrack"): "visevent/ceutrack_visevent_dataset_tracking_results.zip",
    ("LasHeR", "APFNet"): "lasher/results_APFNet.zip",
    ("LasHeR", "CMR"): "lasher/results_CMR.zip",
    ("LasHeR", "MTNet"): "lasher/results_MTNet.zip",
    ("LasHeR", "mfDiMP"): "lasher/results_mfDiMP.zip",
    ("RGBT234", "JMMAC"): "rgbt234/results_JMMAC.zip",
}
COLUMNS = ("SR", "OP50", "OP75", "PR20", "NPR20")
EXPECTED = json.loads((ORACLE / "expected.json").read_text()) if ORACLE.is_dir() else {}


@cache
def truths_of(dataset: str) -> list[Truth]:
    return load_truths(dataset, annotations=ORACLE)


# ---- the published numbers


@needs_oracle
@pytest.mark.parametrize(("dataset", "tracker"), RESULTS)
def test_published_results_from_file_to_score(dataset: str, tracker: str) -> None:
    truths = truths_of(dataset.lower())
    boxes = {truth.name: truth.boxes for truth in truths}
    (results,) = read_all([ORACLE / RESULTS[dataset, tracker]], boxes, boxes)
    with gzip.open(ORACLE / "per_sequence.csv.gz", "rt") as file:
        rows = [row for row in csv.DictReader(file) if (row["dataset"], row["tracker"]) == (dataset, tracker)]
    for convention, expected in EXPECTED[dataset][tracker].items():
        if dataset == "LasHeR" and convention not in ("matlab", "plain"):
            continue
        scored = score_results(results, truths, convention)
        assert len(scored.scores) == expected["n"]
        assert {m: round(scored.percent[m], 4) for m in ope.MEASURES} == {m: expected[m] for m in ope.MEASURES}
        each = ope.per_sequence(list(scored.scores.values()), dropped=None)
        ours = {name: [each[m][index] / 100 for m in ope.MEASURES] for index, name in enumerate(scored.scores)}
        theirs = {r["sequence"]: [float(r[m]) for m in COLUMNS] for r in rows if r["convention"] == convention}
        if dataset != "RGBT234":
            assert ours.keys() == theirs.keys()
        for name, values in theirs.items():
            np.testing.assert_allclose(ours[name], values, rtol=0, atol=5.1e-7)


@needs_oracle
def test_all_of_lasher_is_read_and_scored_in_seconds() -> None:
    truths = truths_of("lasher")
    started = time.process_time()
    score_paths([ORACLE / RESULTS["LasHeR", "MTNet"]], truths, "lasher")
    assert time.process_time() - started < 3


@needs_oracle
def test_what_the_published_results_lack_is_said() -> None:
    (ceutrack,) = score_paths([ORACLE / RESULTS["VisEvent", "CEUTrack"]], truths_of("visevent"), "visevent")
    assert len(ceutrack.lacking) == 148
    assert set(ceutrack.scores) == set(read_list("visevent", "test-172").names)
    (first, second, *_) = findings(ceutrack)
    assert first == "172 of 320 sequences as NAME/SEQ.txt with times: x, y, w, h; whole numbers; tabs"
    assert second.startswith(f"148 without a result, left out of the mean: {ceutrack.lacking[0]}, ")
    (cmr,) = score_paths([ORACLE / RESULTS["LasHeR", "CMR"]], truths_of("lasher"), "lasher")
    (note,) = cmr.notes
    assert note.startswith("10runone: 315 rows for 304 frames: cut; likewise 11runtwo, 1blackteacher, 1boycoming, ")
    (mfdimp,) = score_paths([ORACLE / RESULTS["LasHeR", "mfDiMP"]], truths_of("lasher"), "lasher")
    assert mfdimp.notes[0].startswith("2354 unusable boxes: the box before them, in 7 sequences: 1strowrightgirl3540 (20), ")
    (jmmac,) = score_paths([ORACLE / RESULTS["RGBT234", "JMMAC"]], truths_of("rgbt234"), "rgbt234")
    assert jmmac.notes == ["orangeman1: 920 rows for 921 frames: the rest is not scored"]
    with pytest.raises(UserError, match=r"JMMAC: 1 .*\n  orangeman1: 920 rows for 921 frames, and protocol 'matlab'"):
        score_paths([ORACLE / RESULTS["RGBT234", "JMMAC"]], truths_of("rgbt234"), "rgbt234", "matlab")
    with pytest.raises(UserError, match=r"233 other file\(s\).*named after 234 sequence\(s\) of rgbt234"):
        score_paths([ORACLE / RESULTS["RGBT234", "JMMAC"]], truths_of("lasher"), "lasher")


# ---- one tracker


def make_truths(count: int = 3, frames: int = 20, absent: int = 0) -> list[Truth]:
    rng = np.random.default_rng(3)
    made = []
    for index in range(count):
        boxes = np.column_stack([rng.integers(20, 200, (frames, 2)), rng.integers(20, 60, (frames, 2))]).astype(float)
        boxes[:absent] = 0
        present = np.arange(frames) >= absent if absent else None
        made.append(Truth(f"s{index}", boxes, present))
    return made


def perfect(truths: list[Truth], **changes: np.ndarray) -> RawResults:
    tracks = {t.name: Track(changes.get(t.name, t.boxes), np.ones(len(changes.get(t.name, t.boxes)))) for t in truths}
    return RawResults("T", tracks, "recognised")


@pytest.mark.parametrize("protocol", [name for name, p in PROTOCOLS.items() if not p.two_truths])
def test_results_without_leading_absent_frames_are_aligned_to_the_end(protocol: str) -> None:
    truths = make_truths(absent=4)
    whole, cut = (score_results(perfect(truths, s1=truths[1].boxes[start:]), truths, protocol) for start in (0, 4))
    for measure in ope.MEASURES:
        assert cut.summary[measure] == whole.summary[measure]
    assert cut.notes[0] == "without their leading absent frames, aligned to the end: s1 (4)"
    np.testing.assert_array_equal(cut.tracks["s1"].boxes[4:], truths[1].boxes[4:])
    if protocol == "plain":
        assert whole.summary["SR"] == pytest.approx(100 * 20 / 21)
        shorter = score_results(perfect(truths, s1=truths[1].boxes[5:]), truths, protocol)
        assert shorter.summary["SR"] < 70
        assert shorter.notes[0] == "s1: 15 rows for 20 frames: the rest fails"


def test_missing_frames_short_and_long_results_are_said_by_name() -> None:
    truths = make_truths(4)
    lost = truths[1].boxes.copy()
    lost[5:9] = np.nan
    results = perfect(truths, s0=truths[0].boxes[:15], s1=lost, s2=np.vstack([truths[2].boxes] * 2))
    found = score_results(results, truths, "plain")
    assert found.notes == [
        "s0: 15 rows for 20 frames: the rest fails",
        "s1: 4 frames without a box: they fail",
        "s2: 40 rows for 20 frames: cut",
    ]
    each = describe(found)["per_sequence"]
    assert [round(each[f"s{i}"]["OP50"]) for i in range(4)] == [75, 80, 100, 100]
    assert each["s1"]["notes"] == ["4 frames without a box: they fail"]
    assert "notes" not in each["s3"]
    matlab = score_results(perfect(truths, s1=lost), truths, "matlab")
    assert matlab.notes == ["s1: 4 unusable boxes: the box before them"]
    with pytest.raises(UserError, match=r"T: 1 result.*\n  s0: 15 rows for 20 frames, and protocol 'matlab'"):
        score_results(perfect(truths, s0=truths[0].boxes[:15]), truths, "matlab")
    with pytest.raises(UserError, match=r"s1: 4 box\(es\) with NaN or a negative size"):
        score_results(perfect(truths, s1=lost), truths, "pytracking_wh")


def test_results_of_other_data_with_the_same_names_are_refused() -> None:
    truths = make_truths(FOREIGN)
    other = {truth.name: np.vstack([truth.boxes] * 3) for truth in truths}
    with pytest.raises(UserError, match=r"5 of 5 results have another length .*s0 has 60 rows for 20 frames.*other data"):
        score_results(perfect(truths, **other), truths, "plain")
    score_results(perfect(truths[1:], **other), truths[1:], "plain")


def test_sequences_without_a_result_are_left_out() -> None:
    truths = make_truths(3)
    results = perfect(truths[:2])
    found = score_results(results, truths, "plain")
    assert found.lacking == ["s2"]
    assert found.summary.sequences == 2
    assert found.summary["OP50"] == 100
    assert findings(found)[1] == "1 without a result, left out of the mean: s2"
    assert table_rows([found], "plain", 3)[1][0][-1] == "2 of 3"


def test_the_given_box_of_the_vot_toolkit_counts_as_given() -> None:
    truths = make_truths(2)
    boxes = truths[0].boxes.copy()
    boxes[0] = np.nan
    given = RawResults("T", {"s0": Track(boxes, np.ones(20))}, "", given=frozenset({"s0"}))
    found = score_results(given, truths, "plain", long_term=True)
    assert found.summary["OP50"] == 100
    assert "frame 0 is the box that was given in 1 sequence(s)" in found.notes
    score = longterm.score(boxes, np.ones(20), truths[0].boxes, truths[0].valid)
    assert found.long_term is not None
    assert found.percent["F"] == longterm.summarise([score])["F"] < 100
    assert list(found.percent)[:4] == ["F", "Pr", "Re", "SR"]
    assert table_rows([found], "plain", 2)[0][:5] == ["tracker", "F", "Pr", "Re", "SR"]


def test_measures_have_the_names_of_the_protocol_and_sequences_of_zeros_are_said() -> None:
    truths = make_truths(3)
    without_size = [Truth("s0", truths[0].boxes * [1, 1, 0, 0]), *truths[1:]]
    found = score_results(perfect(truths), without_size, "matlab")
    assert found.summary.dropped["SR"] == 1
    assert found.notes[-1] == "sequences that are 0 throughout, left out of the mean by this protocol: SR 1, OP50 1, OP75 1"
    assert table_rows([], "rgbt234", 3)[0] == ["tracker", "MSR", "OP50", "OP75", "MPR", "NPR", "sequences"]


def test_the_stamp_says_how_it_was_done() -> None:
    truths = make_truths(3)
    made = stamp("/data/mine", "test", truths, "matlab")
    assert made["protocol"] == "matlab"
    assert made["absent"] == "Absent frames stay in the denominator and fail every threshold."
    assert made["list"] == {"name": "mine/test", "hash": hash_names(["s0", "s1", "s2"]), "sequences": 3}
    assert (made["sequences"], made["frames"], made["mstrack"]) == (3, 60, mstrack.__version__)


def test_the_file_of_scores_is_json_without_nan() -> None:
    truths = [Truth("empty", np.zeros((4, 4))), *make_truths(1)]
    content = describe(score_results(perfect(truths[:1]), truths, "plain"))
    assert content["scores"]["SR"] is None
    text = json.dumps(content, allow_nan=False)
    assert math.isclose(json.loads(text)["frames"], 0)


# ---- the commands


@pytest.fixture(scope="module")
def lasher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Annotations of three sequences in a data set's own folder, without frames; perfect results of two, and of all."""
    root = tmp_path_factory.mktemp("data")
    for index, (name, truth) in enumerate(zip(read_list("lasher", "test").names[:3], make_truths(3), strict=True)):
        (root / "lasher" / name).mkdir(parents=True)
        (root / "results" / "A").mkdir(parents=True, exist_ok=True)
        (root / "results" / "B_tracking_result").mkdir(exist_ok=True)
        np.savetxt(root / "lasher" / name / "init.txt", truth.boxes.round(), delimiter=",", fmt="%d")
        np.savetxt(root / "results" / "B_tracking_result" / f"{name}.txt", truth.boxes + 5, delimiter="\t")
        if index < 2:
            np.savetxt(root / "results" / "A" / f"{name}.txt", truth.boxes.round(), delimiter=" ", fmt="%d")
    return root


def test_score_and_export(lasher: Path, tmp_path: Path) -> None:
    names = read_list("lasher", "test").names[:3]
    done = mst("score", lasher / "results", "--on", "lasher", "--root", lasher / "lasher", "--json", tmp_path / "s.json")
    assert done.returncode == 0, done.stderr
    for text in (
        "lasher/test, protocol matlab: percent",
        "2 of 3 sequences as NAME/SEQ.txt: x, y, w, h; whole numbers; spaces",
        f"1 without a result, left out of the mean: {names[2]}",
        "3 of 3 sequences as NAME_tracking_result/SEQ.txt: x, y, w, h; decimals; spaces",
        f"hash {hash_names(names)}: 3 sequences, 60 frames",
        f"mstrack {mstrack.__version__}; all scores: {tmp_path / 's.json'}",
    ):
        assert text.replace("decimals; spaces", "decimals; tabs") in done.stdout, done.stdout
    content = json.loads((tmp_path / "s.json").read_text())
    assert [tracker["name"] for tracker in content["trackers"]] == ["A", "B"]
    assert content["trackers"][0]["scores"]["SR"] == pytest.approx(100 * 20 / 21)
    assert content["trackers"][0]["lacking"] == [names[2]]
    assert {"protocol", "absent", "list", "frames", "sequences", "mstrack"} <= content["stamp"].keys()

    strict = mst("score", lasher / "results", "--on", "lasher", "--root", lasher / "lasher", "--strict")
    assert strict.returncode == 2
    assert f"A has no result of 1: {names[2]}" in strict.stderr

    out = tmp_path / "out"
    done = mst("export-results", lasher / "results" / "A", "--on", "lasher", "--format", "depthtrack", "--out", out)
    assert done.returncode == 0, done.stderr
    assert (out / "A" / "rgbd-unsupervised" / names[0] / f"{names[0]}_001.txt").read_text().startswith("1\n")
    again = mst("score", out, "--on", "lasher", "--root", lasher / "lasher", "--protocol", "plain")
    assert again.returncode == 0, again.stderr
    assert "2 of 3 sequences as NAME/rgbd-unsupervised/SEQ/SEQ_001.txt with confidence" in again.stdout


def test_bad_input_is_one_message(lasher: Path, tmp_path: Path) -> None:
    where = ("--on", "lasher", "--root", lasher / "lasher")
    (tmp_path / "empty").mkdir()
    shutil.copytree(lasher / "results" / "A", tmp_path / "bad")
    next((tmp_path / "bad").iterdir()).write_text("1,2,3,4\n1,2,three,4\n")
    for arguments, message in (
        (("score", tmp_path / "empty", *where), "holds no results"),
        (("score", tmp_path / "bad", *where), "line 2: '1,2,three,4' is not a box"),
        (("score", lasher / "results", *where, "--protocol", "mattlab"), "Did you mean 'matlab'?"),
        (
            ("score", lasher / "results", "--on", "visevent", "--annotations", tmp_path / "empty"),
            "has no annotation of visevent",
        ),
        (("export-results", tmp_path / "empty", "--on", "lasher", "--out", tmp_path / "out"), "holds no results"),
    ):
        done = mst(*arguments)
        assert done.returncode == 2, done.stdout
        assert message in done.stderr
        assert done.stderr.count("error: ") == 1
        assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()
