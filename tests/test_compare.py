import base64
import csv
import dataclasses
import io
import itertools
import json
import re

import cv2
import numpy as np
import pytest
from contenders import COUNT, FRAMES, HOSTILE, NASTY, make_frames, make_scored, make_standings, make_truths
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from mstrack.cli import app
from mstrack.compare.files import describe_standings, find_films, format_latex, table_rows, write_comparison
from mstrack.compare.films import POINTS, choose_films, embed_film, link_film, sample_moments
from mstrack.compare.naming import words
from mstrack.compare.published import published_results
from mstrack.compare.standings import COMMON, COMPARED, EVERY, SHOWN, rank
from mstrack.comparison import adjust_holm, compare_pairs, find_intervals
from mstrack.data.splits import read_list
from mstrack.errors import DataWarning, UserError
from mstrack.metrics.ope import per_sequence, summarise
from mstrack.metrics.uncertainty import interval, paired_difference


@pytest.fixture(scope="module")
def truths():
    return make_truths()


@pytest.fixture(scope="module")
def standings(truths):
    return make_standings(truths)


# ---------------------------------------------------------------- numbers


def test_many_intervals_and_differences_are_those_of_one_at_a_time():
    rng = np.random.default_rng(0)
    values = rng.uniform(0, 100, (4, 30))
    values[1, 3:9] = np.nan
    values[3, 4:] = np.nan
    for bounds, row in zip(find_intervals(values), values, strict=True):
        np.testing.assert_allclose(bounds, interval(row))
    for pair in compare_pairs(values):
        expected = paired_difference(values[pair.a], values[pair.b])
        np.testing.assert_allclose(pair.difference, expected)
        gap = (values[pair.a] - values[pair.b])[np.isfinite(values[pair.a] - values[pair.b])]
        assert (pair.sequences, pair.wins, pair.losses) == (len(gap), (gap > 0.05).sum(), (gap < -0.05).sum())
        assert np.isnan(pair.p) == (pair.sequences < 6)
    assert [(p.a, p.b) for p in compare_pairs(values)] == list(itertools.combinations(range(4), 2))
    assert compare_pairs(values[:1]) == []


def test_paired_test_is_exact_where_all_flips_can_be_listed():
    values = np.array([[3.0, 1, 4, 1, 5, 9, 2, 6], [2.0, 2, 1, 0, 4, 3, 1, 7]])
    gaps = values[0] - values[1]
    flips = np.array(list(itertools.product([-1, 1], repeat=8)))
    exact = (np.abs(flips @ gaps) >= np.abs(gaps.sum()) - 1e-9).mean()
    (pair,) = compare_pairs(values)
    assert pair.p == pytest.approx(exact, abs=0.02)
    assert compare_pairs(np.stack([values[0], values[0]]))[0].p == 1
    assert compare_pairs(np.stack([np.arange(50.0) + 10, np.arange(50.0)]))[0].p == pytest.approx(1e-4)


def test_holm_steps_down():
    np.testing.assert_allclose(adjust_holm(np.array([0.01, 0.04, 0.03, np.nan])), [0.03, 0.06, 0.06, np.nan])
    assert adjust_holm(np.array([0.9, 0.8])).tolist() == [1, 1]


def test_parts_are_the_summaries_of_their_sequences(standings, truths):
    assert [p.name for p in standings.parts] == [EVERY, *sorted({"LI", "low_light", HOSTILE, "FM"})]
    for part in standings.parts:
        for i, result in enumerate(standings.results):
            summary = summarise([result.scores[t.name] for t, member in zip(truths, part.members, strict=True) if member])
            assert {key: part.percent[key][i] for key in SHOWN} == pytest.approx({key: summary[key] for key in SHOWN})
            for key, name in zip(COMPARED, ("success", "precision", "normalised_precision"), strict=True):
                np.testing.assert_allclose(part.curves[key][i], getattr(summary, name))
    assert summarise(list(standings.results[0].scores.values())).dropped["SR"] == 1
    kept = per_sequence(list(standings.results[0].scores.values()))["SR"]
    np.testing.assert_allclose(standings.parts[0].intervals["SR"][0], interval(kept))
    assert (np.diff(standings.parts[0].percent["SR"]) <= 0).all()
    assert standings.names[0] == HOSTILE


def test_pairs_keep_the_sequences_that_the_means_drop(standings):
    pair = standings.parts[0].pairs["SR"][0]
    assert pair.sequences == COUNT
    assert pair.wins + pair.losses < COUNT


def test_trackers_without_some_sequences_are_said_and_compared_on_the_common_ones(truths):
    both = rank([make_scored("b", truths, 2, only=9), make_scored("a", truths, 1)], truths, "lasher", "matlab")
    assert [p.name for p in both.parts[:2]] == [EVERY, COMMON]
    assert both.whole is both.parts[1]
    assert both.whole.members.tolist() == [True] * 9 + [False] * 7
    assert both.names == ["a", "b"]
    assert both.parts[0].percent["SR"][0] < both.parts[0].percent["SR"][1]
    assert both.parts[0].counts.tolist() == [16, 9]
    assert "b 9 of 16" in both.notes[0]
    assert both.parts[0].pairs["SR"][0].sequences == 9
    assert [row[-1] for row in table_rows(both)[1]] == ["9 of 9", "9 of 9"]
    last = make_scored("c", truths, 3)
    del last.scores[truths[0].name]
    apart = rank([make_scored("b", truths, 2, only=15), last], truths, "lasher", "matlab")
    assert len(apart.notes) == 1 and "b 15, c 15 of 16" in apart.notes[0], "as many, but not the same"
    alone = rank([make_scored("b", truths, 2, only=9)], truths, "lasher", "matlab")
    assert alone.notes == ["Left out for want of a score: 7 of 16 sequences."]
    assert len(alone.parts[0].pairs["SR"]) == 0


@pytest.mark.parametrize("names", [[], ["a", "a"]])
def test_standings_need_trackers_with_names_of_their_own(truths, names):
    with pytest.raises(ValueError, match="name of its own"):
        rank([make_scored(name, truths, 1) for name in names], truths, "lasher", "matlab")


def test_attributes_have_words():
    assert words("HO", "lasher") == "hyaline occlusion"
    assert words("HO", "rgbt234") == "heavy occlusion"
    assert words("thermal_crossover") == "thermal crossover"


def test_published_rows_are_as_printed():
    rows = published_results("lasher")
    mst = next(row for row in rows if row.table == 2 and row.label == "MST (OSTrack)")
    assert mst.percent == {"SR": 56.3, "OP50": 68.0, "OP75": 48.5, "PR": 69.5}
    assert sum(row.compares for row in rows) == 13
    assert len(rows) == 39
    assert {len(published_results(name)) for name in ("fe108", "visevent", "coesot", "depthtrack")} == {35, 23, 21, 34}
    assert published_results("rgbt234") == []


# ---------------------------------------------------------------- films


@given(st.integers(1, 3000))
def test_moments_are_even_and_hold_both_ends(length):
    moments = sample_moments(length)
    assert moments[0] == 0
    assert moments[-1] == length - 1
    assert len(moments) == min(length, POINTS)
    assert np.ptp(np.diff(moments)) <= 1 if len(moments) > 1 else True


def test_films_alternate_between_the_most_different_and_the_worst():
    values = np.array([[10, 90, 50, 1.0, np.nan], [10, 20, 50, 2.0, np.nan]])
    assert choose_films(values, 3) == [1, 3, 0]
    assert choose_films(values, 9) == [1, 3, 0, 2]


def test_films_follow_frames_that_were_cut_off(tmp_path, truths):
    whole = make_frames(tmp_path / "f", truths[:1])[0]
    film = embed_film(whole.cut(12, FRAMES), pictures=11)
    assert (film.width, film.height, film.labels) == (96, 72, ["colour", "thermal"])
    moments = sample_moments(FRAMES)[film.steps]
    for address, t in zip(film.panels[0], moments, strict=True):
        assert (address == "") == (t < 12)
        if address:
            image = cv2.imdecode(np.frombuffer(base64.b64decode(address.split(",")[1]), np.uint8), cv2.IMREAD_COLOR)
            assert abs(int(image[40, 40, 0]) - 5 * t) < 8
    linked = link_film(whole)
    assert linked.steps == list(range(FRAMES))
    assert linked.panels[1][7] == (tmp_path / "f" / "7.png").as_uri()
    assert link_film(dataclasses.replace(whole, modality="depth")).panels[0][0].startswith("data:image/jpeg")


def test_films_are_found_or_said_to_be_missing(standings, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.warns(DataWarning, match="no frames are shown"):
        films = find_films(standings, "embed", 2, ["clip_09"])
    assert next(iter(films)) == "clip_09"
    assert len(films) == 3
    assert set(films.values()) == {None}
    assert find_films(standings, "none", 0) == {}
    with pytest.raises(UserError, match="unknown sequence 'clip_9'"):
        find_films(standings, "none", 0, ["clip_9"])
    with pytest.raises(UserError, match="nowhere"):
        find_films(standings, "embed", 1, root=tmp_path / "nowhere")


def test_long_term_measures_are_shown_of_the_trackers_that_have_them(truths):
    both = rank(
        [make_scored("a", truths, 1, protocol="plain", long_term=True), make_scored("b", truths, 3, protocol="plain")],
        truths,
        "depthtrack",
        "plain",
    )
    assert both.long_term["F"][0] == both.results[0].long_term["F"]
    assert np.isnan(both.long_term["F"][1])


# ---------------------------------------------------------------- files


def test_files_keep_published_apart_and_names_whole(tmp_path, standings):
    page = write_comparison(tmp_path, standings, None, published_results("lasher"))
    stored = json.loads((page.parent / "scores.json").read_text())
    assert [t["name"] for t in stored["trackers"]] == standings.names
    assert stored["trackers"][0]["scores"]["SR"] == pytest.approx(standings.results[0].summary["SR"])
    assert stored["published"]["measured"] is False
    assert len(stored["published"]["rows"]) == 39
    assert len(stored["pairs"]) == 3 * 10
    assert {p["verdict"] for p in stored["pairs"]} <= {"better", "worse", "within noise"}
    rows = list(csv.DictReader(io.StringIO((page.parent / "scores.csv").read_text())))
    assert {r["tracker"] for r in rows if r["source"] == "measured"} == set(NASTY)
    assert not {r["tracker"] for r in rows if r["source"] != "measured"} & set(NASTY)
    each = list(csv.DictReader(io.StringIO((page.parent / "sequences.csv").read_text())))
    assert len(each) == 5 * COUNT
    assert each[0]["sequence"] == HOSTILE
    assert json.loads(json.dumps(describe_standings(standings)))["published"]["rows"] == []


def test_latex_is_escaped_marked_and_complete(standings):
    text = format_latex(standings, published_results("lasher"))
    assert r"\$\textbackslash{}alpha\_\{1\}\% ünï & " in text
    assert text.count(r"$^\dagger$ & ") == 13
    assert text.index("Published, not measured here") > text.index("good")
    body = text[text.index(r"\midrule") : text.index("Published")]
    assert body.count(r"\textbf") >= 5
    assert body.count(r"\underline") >= 5
    best = standings.parts[0].percent["SR"].max()
    assert rf"\textbf{{{best:.1f}}}" in body
    assert {line.count(" & ") for line in body.splitlines() if line.endswith(r" \\")} == {5}


def test_command_reads_results_and_annotations(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = read_list("lasher", "test").names[:9]
    rng = np.random.default_rng(0)
    for folder in ("ann/gt", "ann/attr", "res/Good", "res/Bad"):
        (tmp_path / folder).mkdir(parents=True)
    for name in names:
        boxes = np.tile([30, 40, 20, 20], (12, 1)) + rng.integers(0, 9, (12, 4))
        np.savetxt(f"ann/gt/{name}.txt", boxes, "%d", ",")
        (tmp_path / f"ann/attr/{name}.txt").write_text(",".join("10" * 9 + "1"))
        np.savetxt(f"res/Good/{name}.txt", boxes + 1, "%d", ",")
        np.savetxt(f"res/Bad/{name}.txt", boxes + 9, "%d", ",")
    command = ["compare", "res", "--on", "lasher", "--annotations", "ann", "--published", "--frames", "none", "--out", "o"]
    with pytest.warns(DataWarning, match="236 of 245"):
        done = CliRunner().invoke(app, command, catch_exceptions=False)
    assert done.exit_code == 0
    assert re.search(r"Bad .* worse .* 9 of 9", done.output)
    assert sorted(p.name for p in (tmp_path / "o").iterdir()) == [
        "compare.html",
        "scores.csv",
        "scores.json",
        "sequences.csv",
        "table.tex",
    ]
    stored = json.loads((tmp_path / "o/scores.json").read_text())
    assert stored["stamp"]["protocol"] == "matlab"
    assert {p["name"] for p in stored["parts"]} > {EVERY, "NO", "MB"}
