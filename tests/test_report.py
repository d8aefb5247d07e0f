import base64
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from browsing import open_page, start_browser
from hypothesis import given
from hypothesis import strategies as st

from mstrack.charts import BOTTOM, LEFT, RIGHT, TOP, Line, draw_chart, find_ticks, thin
from mstrack.comparison import compare_groups, format_difference, judge
from mstrack.data.sequence import Sequence
from mstrack.errors import UserError
from mstrack.metrics.ope import MEASURES, score, summarise
from mstrack.metrics.uncertainty import Difference, paired_difference
from mstrack.pictures import choose_sequences, draw_heat_maps, draw_strip
from mstrack.report import (
    Method,
    Report,
    SensitivityPicture,
    build_table,
    group_scores,
    summarise_findings,
    table_rows,
    write_report,
)

TEMPLATES = Path(__file__).parents[1] / "mstrack" / "templates"
HOSTILE = "<script>window.hacked = 1</script>"


def write_frames(folder: Path, height: int, width: int) -> tuple[Path, Path]:
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8)
    cv2.imwrite(str(folder / "rgb.png"), noise)
    cv2.imwrite(str(folder / "aux.png"), noise[..., 0])
    return folder / "rgb.png", folder / "aux.png"


def make_sequences(folder: Path, count: int, frames: int, height: int = 72, width: int = 96) -> list[Sequence]:
    rgb, aux = write_frames(folder, height, width)
    boxes = np.tile([20.0, 20, 16, 16], (frames, 1))
    boxes[:, 0] += np.arange(frames) % 40
    valid = np.arange(frames) != frames // 2
    names = [HOSTILE, *(f"clip_{i:02d}" for i in range(1, count))]
    attributes = [("low_light",) if i % 2 else ("low_light", "occlusion") for i in range(count)]
    return [
        Sequence(name, (rgb,) * frames, boxes, valid, (aux,) * frames, "thermal", tags)
        for name, tags in zip(names, attributes, strict=True)
    ]


def make_method(name: str, sequences: list[Sequence], error: float, seed: int = 0, **fields) -> Method:
    """Boxes that are off by `error` pixels on average, more so on the later sequences, for all methods alike."""
    rng = np.random.default_rng(seed)
    boxes = {}
    for index, sequence in enumerate(sequences):
        boxes[sequence.name] = sequence.boxes.copy()
        boxes[sequence.name][:, :2] += error + 0.3 * index + rng.normal(0, 0.5, (len(sequence), 2))
    scores = [score(boxes[s.name], None, s.boxes, s.valid) for s in sequences]
    return Method(name, name.title(), scores, boxes=boxes, **fields)


def make_report(folder: Path, count: int = 12, frames: int = 14) -> Report:
    sequences = make_sequences(folder, count, frames)
    loss = [(float(i), 3 / (1 + i)) for i in range(500)]
    methods = [
        make_method("zero", sequences, 6, seed=1, fps=412.4),
        make_method("full", sequences, 3, seed=2, fps=29.96, baseline=True, settings={"learning rate": "3e-4"}),
        make_method("twin", sequences, 3, seed=3, curve={"training loss": loss}),
        make_method("good", sequences, 1, seed=4, curve={"training loss": loss, "validation SR (%)": [(0.0, 40), (9, 50)]}),
    ]
    matrix = np.random.default_rng(5).gamma(0.3, 1e-6, (30, 20))
    return Report(
        f"Title {HOSTILE}",
        "A subtitle",
        methods,
        sequences,
        settings={"command": "mst quickstart"},
        notes=["A demonstration."],
        sensitivity=[SensitivityPicture("blocks_aux.0", matrix, matrix**0.5)],
        reproduce=["mst quickstart && true"],
    )


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    return make_report(tmp_path_factory.mktemp("frames"))


@pytest.fixture(scope="module")
def page(report, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    write_report(path, report)
    return path


def test_table_holds_the_scores_and_says_what_is_within_noise(report):
    headers, rows = table_rows(report)
    assert headers == ["Method", *MEASURES, "FPS", "SR against Full"]
    assert [row[0] for row in rows] == ["Zero", "Full", "Twin", "Good"]
    assert [row[6] for row in rows] == ["412", "30.0", "-", "-"]
    for row, method in zip(rows, report.methods, strict=True):
        summary = summarise(method.scores)
        assert [float(text.split(" ±")[0]) for text in row[1:6]] == [round(summary[m], 1) for m in MEASURES]
    assert [re.sub(r".*\] ", "", row[7]) for row in rows] == ["worse", "reference", "within noise", "better"]
    cells = [row.cells["SR"] for row in build_table(report)]
    assert [cell.best for cell in cells] == [False, False, False, True]
    assert all(cell.interval.low < cell.mean < cell.interval.high for cell in cells)


def test_findings_name_every_method_but_the_reference(report):
    text = summarise_findings(report)
    assert text.startswith("Against Full: Zero is worse (−")  # noqa: RUF001
    assert "Twin is within noise (" in text
    assert "Good is better (+" in text
    few = Report("", "", [Method(m.name, m.label, m.scores[:4]) for m in report.methods], report.sequences[:4])
    assert "fewer than 6" in summarise_findings(few)
    assert [row[7].split(" ", 1)[1] for row in table_rows(few)[1][1:]] == ["too few sequences"] * 3
    assert "nothing is compared" in summarise_findings(Report("", "", report.methods[:1], report.sequences))


def test_repeats_enter_the_mean_the_interval_and_the_difference(report):
    full, good = report.methods[1], report.methods[3]
    both = Method("both", "Both", full.scores, repeats=[good.scores])
    row = build_table(Report("", "", [full, both], report.sequences))[1]
    values = [[summarise([s])["SR"] for s in m.scores] for m in (full, good)]
    assert row.cells["SR"].mean == pytest.approx(np.mean(values))
    assert row.difference == paired_difference(values, values[:1])
    alone = build_table(Report("", "", [full], report.sequences))[0].cells["SR"].interval
    assert np.ptp(row.cells["SR"].interval) > np.ptp(alone)


def test_what_a_protocol_leaves_out_of_a_mean_is_compared_as_0(report):
    """`matlab` leaves a sequence without any success out of the mean of its own tracker: of no interval, and of no pair."""

    def score_all(lost: int) -> list:
        boxes = [s.boxes + np.array([6 + i, 6, 0, 0]) for i, s in enumerate(report.sequences)]
        boxes[0] = boxes[0] + 1000 * lost
        absent = [s.valid & (np.arange(len(s)) > 0) for s in report.sequences]
        pairs = zip(report.sequences, boxes, absent, strict=True)
        return [score(b, None, s.boxes, s.valid, "matlab", present=present) for s, b, present in pairs]

    whole, lost = score_all(0), score_all(1)
    methods = [Method("whole", "Whole", whole, baseline=True), Method("lost", "Lost", lost, repeats=[whole])]
    row = build_table(Report("", "", methods, report.sequences, protocol="matlab"))[1]
    single = [100 * s.success.mean() for s in lost]
    assert single[0] == 0
    assert summarise(lost)["SR"] == pytest.approx(np.mean([s for s in single if s > 0]))
    assert row.cells["SR"].mean == pytest.approx((summarise(lost)["SR"] + summarise(whole)["SR"]) / 2)
    first = summarise(whole[:1])["SR"]
    assert row.difference.mean == pytest.approx(-first / 2 / len(whole))


@pytest.mark.parametrize(
    ("difference", "verdict", "text"),
    [
        (Difference(1.94, 0.9, 2.9), "better", "+1.9 [+0.9, +2.9]"),
        (Difference(-1.0, -2.0, -0.04), "worse", "−1.0 [−2.0, −0.0]"),  # noqa: RUF001
        (Difference(0.4, -0.3, 1.1), "within noise", "+0.4 [−0.3, +1.1]"),  # noqa: RUF001
        (Difference(0.4, np.nan, np.nan), "too few sequences", "+0.4"),
    ],
)
def test_verdict_follows_the_interval(difference, verdict, text):
    assert judge(difference) == verdict
    assert format_difference(difference) == text


def test_groups_average_their_own_sequences():
    sr = [np.array([[10, 20, 30, np.nan], [30, 40, 30, np.nan]]), np.array([[50, np.nan, 30, np.nan]])]
    members = {"a": [0, 1, 3], "none": [], "b": [1], "unscored": [3]}
    groups = compare_groups(sr, {name: np.isin(np.arange(4), where) for name, where in members.items()})
    assert [(g.name, g.sequences, g.means) for g in groups] == [("a", 2, [25, 50]), ("b", 1, [30, 0])]
    assert [g.positions for g in groups] == [[50, 100], [60, 0]]


def test_mean_of_all_sequences_by_attribute_is_that_of_the_table(tmp_path):
    sequences = make_sequences(tmp_path, 6, 14)
    boxes = {s.name: s.boxes + (1000 if i == 0 else 2 * i) * np.array([1, 0, 0, 0.0]) for i, s in enumerate(sequences)}
    present = [np.arange(len(s)) > (0 if i == 0 else -1) for i, s in enumerate(sequences)]  # or the first box is a hit
    scores = [
        score(boxes[s.name], None, s.boxes, s.valid, "matlab", present=there)
        for s, there in zip(sequences, present, strict=True)
    ]
    report = Report("t", "", [Method("m", "M", scores)], sequences, protocol="matlab")
    groups = {group.name: group.means[0] for group in group_scores(report)}
    assert groups["all sequences"] == pytest.approx(build_table(report)[0].cells["SR"].mean)
    assert groups["all sequences"] > 1.1 * np.mean([s.success.mean() * 100 for s in scores])


def test_page_is_self_contained_and_escapes_names(page, report):
    text = page.read_text()
    assert not re.findall(r"""(?:src|href)=["'](?!data:)""", text)
    assert "url(" not in text
    assert "http" not in text
    assert HOSTILE not in text
    assert text.count("&lt;script&gt;") > 5
    assert text.count("<script>") == 1
    assert "&amp;&amp; true" in text
    for row in table_rows(report)[1]:
        assert row[1].split(" ±")[0] in text
    assert not re.search(r"\bnan\b", re.sub(r"base64,[A-Za-z0-9+/=]+", "", text))


def test_page_is_the_same_each_time(page, report, tmp_path):
    write_report(tmp_path / "again.html", report)
    assert (tmp_path / "again.html").read_bytes() == page.read_bytes()


def test_page_of_60_sequences_and_5_methods_is_small(tmp_path):
    sequences = make_sequences(tmp_path, 60, 60, 240, 320)
    loss = [(float(i), 1 / (1 + i)) for i in range(10_000)]
    methods = [make_method(f"m{i}", sequences, i, seed=i, curve={"loss": loss}) for i in range(5)]
    matrix = np.random.default_rng(0).random((768, 3072))
    report = Report("", "", methods, sequences, sensitivity=[SensitivityPicture("w", matrix, matrix)])
    write_report(tmp_path / "report.html", report)
    assert (tmp_path / "report.html").stat().st_size < 3e6


def test_a_failed_report_leaves_the_old_one(report, tmp_path):
    path = tmp_path / "report.html"
    path.write_text("old")
    lost = [Sequence(s.name, (tmp_path / "gone.png",) * len(s), s.boxes, s.valid) for s in report.sequences]
    with pytest.raises(UserError, match=r"gone\.png"):
        write_report(path, Report("", "", report.methods, lost))
    with pytest.raises(UserError, match="unknown protocol 'plan'"):
        write_report(path, Report("", "", report.methods, report.sequences, protocol="plan"))
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


def test_reports_without_frames_attributes_or_scored_frames_are_written(report, tmp_path):
    bare = [Sequence(s.name, s.rgb, s.boxes, np.zeros(len(s), bool)) for s in report.sequences]
    nothing = [score(s.boxes, None, s.boxes, s.valid) for s in bare]
    for methods, sequences in (([Method("a", "A", nothing)], bare), ([Method("a", "A", [])], [])):
        write_report(tmp_path / "r.html", Report("", "", methods, sequences))
        text = (tmp_path / "r.html").read_text()
        assert 'id="frames"' not in text
        assert 'id="attributes"' not in text
        assert not re.search(r"\bnan\b", text)


def test_impossible_reports_are_refused(report):
    method = report.methods[0]
    with pytest.raises(ValueError, match="at least one method"):
        Report("", "", [], report.sequences)
    with pytest.raises(ValueError, match="a name of its own"):
        Report("", "", [method, method], report.sequences)
    with pytest.raises(ValueError, match=r"\[12\] scores for 11 sequences"):
        Report("", "", [method], report.sequences[:-1])


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6))
def test_ticks_are_round_and_inside(low, span):
    high = low + span
    if high - low < 1e-9 * max(abs(low), abs(high)):
        return
    ticks = find_ticks(low, high)
    assert 2 <= len(ticks) <= 7
    assert (ticks >= low - 1e-6 * span).all()
    assert (ticks <= high + 1e-6 * span).all()
    step = (high - low) / len(ticks)
    digits = f"{ticks[1] - ticks[0]:e}"
    assert step / 3 < ticks[1] - ticks[0] < step * 3, digits


def test_chart_maps_data_to_the_frame():
    x = np.array([0, 5, 10.0])
    chart = draw_chart("", [Line(3, x, np.array([0, np.nan, 100.0]))], "", "", (0, 10), (0, 100), mark=5)
    assert chart.paths == [(3, f"M{LEFT:.1f} {BOTTOM:.1f}L{RIGHT:.1f} {TOP:.1f}")]
    assert chart.mark == (LEFT + RIGHT) / 2
    assert [(tick.position, tick.text) for tick in chart.x_ticks][-1] == (RIGHT, "10")
    flat = draw_chart("", [Line(0, x, np.full(3, 7.0))], "", "")
    heights = {float(point.split()[1]) for point in flat.paths[0].d[1:].split("L")}
    assert len(heights) == 1
    assert TOP < heights.pop() < BOTTOM


@pytest.mark.parametrize(("ends", "texts"), [((-4, -1.7), "0.0001 0.001 0.01"), ((-1, 0), "0.1 0.2 0.5 1")])
def test_ticks_write_powers_of_ten_out(ends, texts):
    chart = draw_chart("", [Line(0, np.array(ends), np.zeros(2))], "", "", powers=True)
    assert [tick.text for tick in chart.x_ticks] == texts.split()
    assert chart.x_ticks[0].position == LEFT


def test_thinning_keeps_the_mean_and_short_curves():
    points = np.stack([np.arange(4000.0), np.random.default_rng(0).random(4000)], axis=1)
    np.testing.assert_allclose(thin(points).mean(axis=0), points.mean(axis=0))
    assert thin(points).shape == (200, 2)
    np.testing.assert_array_equal(thin(points[:50]), points[:50])


def test_chosen_sequences_are_those_that_tell_methods_apart():
    values = np.array([[10, 50, 30, np.nan], [12, 20, 90, 1.0]])
    assert choose_sequences(values, 2) == [2, 1]
    assert choose_sequences(values, 9) == [2, 1, 0]
    assert choose_sequences(values[:1], 2) == [0, 2]


def decode(uri: str) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(base64.b64decode(uri.split(",")[1]), np.uint8), cv2.IMREAD_COLOR)


@pytest.mark.parametrize("corner", [(300, 200), (2, 2), (1240, 690)])
def test_strip_shows_the_target_under_its_box(tmp_path, corner):
    x, y = corner
    image = np.zeros((720, 1280, 3), np.uint8)
    image[y : y + 30, x : x + 36] = 255
    cv2.imwrite(str(tmp_path / "f.png"), image)
    truth = np.tile([x, y, 36, 30.0], (5, 1))
    sequence = Sequence("s", (tmp_path / "f.png",) * 5, truth, np.arange(5) != 2)
    moments = draw_strip(sequence, {0: truth, 1: np.full((5, 4), np.nan), 2: truth[:1]}, {0: "A", 1: "B", 2: "C"})
    assert [m.frame for m in moments] == [1, 2, 3, 4]
    assert [m.present for m in moments] == [True, False, True, True]
    assert [[box.key for box in m.boxes] for m in moments] == [[None, 0], [0], [None, 0], [None, 0]]
    assert "A overlaps the ground truth by 1.00; B has no box; C has no box." in moments[0].description
    for moment in moments:
        picture = cv2.resize(decode(moment.images[0]), (moment.width, moment.height)).max(axis=2)
        box = moment.boxes[-1]
        inside = picture[round(box.y) + 3 : round(box.y + box.h) - 3, round(box.x) + 3 : round(box.x + box.w) - 3]
        assert moment.width < 400
        assert inside.size > 0
        assert inside.min() > 200
        assert picture.mean() < 40


def test_heat_maps_share_one_scale():
    dim, bright = np.full((8, 8), 1.0), np.full((8, 8), 9.0)
    maps = draw_heat_maps(dim, bright)
    assert (maps.low, maps.high, maps.logarithmic) == (1, 9, False)
    assert decode(maps.before)[0, 0].tolist() == [84, 1, 68]
    assert decode(maps.after)[0, 0].tolist() == [37, 231, 253]
    wide = draw_heat_maps(np.geomspace(1e-9, 1, 400).reshape(20, 20), np.zeros((20, 20)))
    assert wide.logarithmic
    assert wide.high == pytest.approx(1000 * wide.low)
    one = np.zeros((10, 20))
    one[0, 0] = 3
    spread = draw_heat_maps(one, np.ones((10, 20)))
    assert (spread.top_before, spread.top_after) == pytest.approx((100, 1))
    assert decode(draw_heat_maps(np.ones((1, 5000)), np.ones((1, 5000))).before).shape == (1, 256, 3)


def luminance(colour: str) -> float:
    digits = colour[1:] if len(colour) == 7 else "".join(2 * c for c in colour[1:])
    channels = np.array([int(digits[i : i + 2], 16) for i in (0, 2, 4)]) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


@pytest.mark.parametrize("theme", ["light", "dark", "print"])
def test_colours_have_enough_contrast(theme):
    css = (TEMPLATES / "report.css").read_text()
    blocks = re.findall(r":root \{(.*?)\}", css, re.DOTALL)
    colours = dict(re.findall(r"--([a-z0-9]+): (#[0-9a-f]{3,6});", blocks[["light", "dark", "print"].index(theme)]))

    def contrast(name: str) -> float:
        low, high = sorted((luminance(colours[name]), luminance(colours["paper"])))
        return (high + 0.05) / (low + 0.05)

    assert all(contrast(name) >= 4.5 for name in ("ink", "muted", "good", "bad"))
    assert all(contrast(f"c{i}") >= 3 for i in range(8))


@pytest.fixture(scope="module")
def browser():
    with start_browser() as driver:
        yield driver


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_renders_without_errors_or_overflow(browser, page, width, scheme):
    open_page(browser, page, width, scheme)
    assert browser.get_log("browser") == []
    assert browser.execute_script("return document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    assert browser.execute_script("return document.documentElement.clientWidth") <= width
    paper = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert (np.mean([int(v) for v in re.findall(r"\d+", paper)]) > 128) == (scheme == "light")
    assert browser.execute_script("return window.hacked") is None
    shown = browser.execute_script(
        "return [...document.querySelectorAll('main svg, main img')].every(e => e.getBoundingClientRect().width > 5)"
    )
    assert shown
    assert browser.execute_script("return [...document.images].every(image => image.naturalWidth > 0)")
    assert browser.execute_script("return document.querySelectorAll('.strip image').length") == 4 * 6 * 2
    unnamed = "return document.querySelectorAll('img:not([alt]), svg:not([aria-label]):not([aria-hidden]):not(svg svg)').length"
    assert browser.execute_script(unnamed) == 0
    assert browser.execute_script("return [...document.querySelectorAll('table')].every(t => t.caption)")


def column(browser, index: int) -> list[str]:
    script = "return [...document.querySelectorAll('.sortable tbody tr')].map(r => r.cells[arguments[0]].textContent)"
    return browser.execute_script(script, index)


def test_sorts_by_click_and_by_key(browser, page):
    open_page(browser, page)
    buttons = browser.find_elements("css selector", ".sortable th button")
    states = "return [...document.querySelectorAll('.sortable thead th')].map(h => h.getAttribute('aria-sort'))"
    before = column(browser, 4)

    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", buttons[4])
    buttons[4].click()
    numbers = [float(text) for text in column(browser, 4)]
    assert numbers == sorted(map(float, before), reverse=True)
    assert browser.execute_script(states) == ["none"] * 4 + ["descending"] + ["none"] * 3

    buttons[4].send_keys("\ue007")
    assert [float(text) for text in column(browser, 4)] == sorted(numbers)
    assert browser.execute_script(states)[4] == "ascending"

    buttons[0].send_keys(" ")
    assert column(browser, 0) == [HOSTILE, *(f"clip_{i:02d}" for i in range(1, 12))]
    assert browser.execute_script(states) == ["ascending"] + ["none"] * 7
    assert browser.get_log("browser") == []


def test_toolbar_hides_and_shows_a_method(browser, page):
    open_page(browser, page)
    visible = """return [...document.querySelectorAll('.line[data-method="1"], .box[data-method="1"], circle[data-method="1"]')]
        .filter(e => e.getBoundingClientRect().width > 0).length"""
    before = browser.execute_script(visible)
    assert before > 4 * 6 * 2
    button = browser.find_element("css selector", '[data-toggle="1"]')
    button.click()
    assert button.get_attribute("aria-pressed") == "false"
    assert browser.execute_script(visible) == 0
    assert browser.execute_script(visible.replace('"1"', '"2"')) > 4 * 6 * 2
    button.click()
    assert browser.execute_script(visible) == before
