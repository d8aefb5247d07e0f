import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mstrack.errors import UserError
from mstrack.results import Track, check_names, read_json, read_object, read_track, write_text, write_track


def test_a_track_survives_a_round_trip(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    track = Track(rng.uniform(-50, 900, (7, 4)), rng.uniform(0, 1, 7))
    write_track(tmp_path, "bus/1", track)
    read = read_track(tmp_path, "bus/1")
    assert read is not None
    np.testing.assert_allclose(read.boxes, track.boxes, atol=5e-5)
    np.testing.assert_allclose(read.confidence, track.confidence, atol=5e-7)
    assert read_track(tmp_path, "bus/2") is None


def test_frames_that_lacked_something_are_those_of_the_last_result(tmp_path: Path) -> None:
    for lacking in ((2, 5), ()):
        write_track(tmp_path, "a", Track(np.ones((7, 4)), np.ones(7), lacking))
        read = read_track(tmp_path, "a")
        assert read is not None
        assert read.lacking == lacking


@pytest.mark.parametrize("separator", [",", "\t", " ", ", "])
def test_separators(tmp_path: Path, separator: str) -> None:
    (tmp_path / "a.txt").write_text(separator.join("1234") + "\n" + separator.join(["nan"] * 4) + "\n")
    read = read_track(tmp_path, "a")
    assert read is not None
    np.testing.assert_array_equal(read.boxes[0], [1, 2, 3, 4])
    assert np.isnan(read.boxes[1]).all()


def test_a_malformed_line_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("1,2,3,4\n1,2,3\n")
    with pytest.raises(UserError, match=r"a\.txt, line 2: expected 4 number"):
        read_track(tmp_path, "a")


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.txt", b"1,2,3,4\n\xff\xfe\n", "a.txt is not a text file"),
        ("a_confidence.txt", b"1\n", "a_confidence.txt has 1 rows, and a.txt 2"),
        ("a_missing.txt", b"nan\n", "a_missing.txt: expected numbers of frames"),
    ],
)
def test_a_damaged_result_is_named(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    write_track(tmp_path, "a", Track(np.ones((2, 4)), np.ones(2)))
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=says):
        read_track(tmp_path, "a")


def test_broken_json_is_named(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(UserError, match=r"run\.json is not JSON"):
        read_json(tmp_path / "run.json")
    (tmp_path / "run.json").write_text("[1]")
    with pytest.raises(UserError, match=r"run\.json holds a list, expected an object"):
        read_object(tmp_path / "run.json")


def test_a_full_disk_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    """A limit on the size of files stands for the full disk: the write fails half way."""
    path = tmp_path / "log.txt"
    write_text(path, "old")
    code = (
        "import resource, signal, sys; from pathlib import Path; from mstrack.results import write_text\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "write_text(Path(sys.argv[1]), 'x' * 100_000)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True)
    assert "cannot be written" in done.stderr
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["log.txt"]


def test_names_that_would_share_a_file_are_refused() -> None:
    check_names(["a", "a_confident", "b_missing", "confidence"])
    for names in (["a_confidence", "a"], ["b", "c", "b_missing"]):
        with pytest.raises(UserError, match="Rename one of them"):
            check_names(names)
