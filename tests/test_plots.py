import numpy as np
import pytest
from typer.testing import CliRunner

from mstrack.cli import app
from mstrack.compare.plots import CURVES, write_figures
from mstrack.compare.standings import Standings, rank
from mstrack.data.truths import Truth
from mstrack.errors import UserError
from mstrack.rawresults import RawResults
from mstrack.results import Track
from mstrack.scoring import score_results

pytest.importorskip("matplotlib", reason="needs the extra: pip install 'mstrack[plot]'")
NASTY = "$\\alpha_{1}$ <b>&%"
ALL = [*CURVES, "attributes-radar", "attributes-heat", "intervals", "scatter"]


def make_standings(names=("one", NASTY, "three"), attributes=("LI", "FM", "low_light")) -> Standings:
    rng = np.random.default_rng(0)
    truths = [Truth(f"s{i}", np.tile([9.0, 9, 20, 20], (15, 1)), None, None, attributes[: 1 + i % 3]) for i in range(9)]
    scored = []
    for error, name in enumerate(names):
        tracks = {t.name: Track(t.boxes + rng.normal(0, 1 + error, t.boxes.shape), np.ones(15)) for t in truths}
        scored.append(score_results(RawResults(name, tracks, "boxes"), truths, "plain"))
    return rank(scored, truths, "lasher", "plain")


@pytest.fixture(scope="module")
def standings():
    return make_standings()


@pytest.mark.parametrize(("kind", "head"), [("pdf", b"%PDF-"), ("svg", b"<?xml")])
def test_figures_are_vectors_and_the_same_each_time(tmp_path, standings, kind, head):
    files = write_figures(tmp_path / "a", standings, kind)
    again = write_figures(tmp_path / "b", standings, kind)
    assert [f.name for f in files] == [f"{name}.{kind}" for name in ALL]
    for one, other in zip(files, again, strict=True):
        content = one.read_bytes()
        assert content.startswith(head)
        assert content == other.read_bytes()
        assert b"<script" not in content
        if kind == "svg":
            assert b"<image" not in content
            assert b"<b>" not in content


def test_fonts_are_embedded_as_truetype(tmp_path, standings):
    content = write_figures(tmp_path, standings, "pdf")[0].read_bytes()
    assert b"/Type3" not in content
    assert b"/FontFile2" in content


def test_figures_that_need_more_are_left_out(tmp_path):
    alone = write_figures(tmp_path / "a", make_standings(names=("one",), attributes=("LI",)))
    assert [f.stem for f in alone] == [*CURVES, "attributes-heat"]
    bare = write_figures(tmp_path / "b", make_standings(attributes=()))
    assert [f.stem for f in bare] == [*CURVES, "intervals", "scatter"]


def test_many_trackers_and_a_choice_of_them(tmp_path, standings):
    many = make_standings(names=[f"tracker {i}" for i in range(16)])
    assert len(write_figures(tmp_path, many, "svg", "PR", part="FM", pair=("tracker 3", "tracker 1"))) == len(ALL)
    assert [f.stem for f in write_figures(tmp_path, standings, "svg", names=["one"])] == ALL[:5]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"measure": "SRR"}, "unknown measure 'SRR'"),
        ({"names": ["on"]}, "unknown tracker 'on'"),
        ({"pair": ("one", "two")}, "unknown tracker 'two'"),
        ({"part": "LL"}, "unknown attribute 'LL'"),
    ],
)
def test_unknown_names_are_said_with_the_known_ones(tmp_path, standings, wrong, message):
    with pytest.raises(UserError, match=message):
        write_figures(tmp_path, standings, **wrong)
    assert list(tmp_path.iterdir()) == []


def test_command_draws_results_of_the_embedded_layout(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ann").mkdir()
    for i in range(7):
        boxes = np.tile([30, 40, 20, 20], (12, 1)) + np.random.default_rng(i).integers(0, 9, (12, 4))
        for folder, shift in (("ann", 0), ("res/A", 1), ("res/B", 2)):
            path = tmp_path / folder / (f"s{i}" if folder == "ann" else "")
            path.mkdir(parents=True, exist_ok=True)
            np.savetxt(path / ("groundtruth.txt" if folder == "ann" else f"s{i}.txt"), boxes + shift, "%d", ",")
    command = ["plot", "res", "--on", "vot-rgbd", "--split", "all", "--annotations", "ann", "--type", "svg", "--pair", "B", "A"]
    done = CliRunner().invoke(app, command, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert sorted(p.stem for p in (tmp_path / "figures").iterdir()) == sorted([*CURVES, "intervals", "scatter"])
