"""What `mst compare` writes into one folder: the page, and its numbers as JSON, CSV and a LaTeX table."""

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from mstrack.compare.films import Film, choose_films, embed_film, link_film
from mstrack.compare.page import write_page
from mstrack.compare.published import PAPER, Published
from mstrack.compare.standings import COMPARED, EVERY, SHOWN, Part, Standings
from mstrack.comparison import Pair, format_difference, judge
from mstrack.data import load_sequences
from mstrack.errors import UserError, warn
from mstrack.registry import unknown
from mstrack.results import write_json, write_text
from mstrack.scoring import describe

TABLE = ("SR", "OP50", "OP75", "PR", "NPR")
SPECIAL = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"} | {c: f"\\{c}" for c in "&%$#_{}"}

Pictures = Literal["embed", "link", "none"]


def find_films(
    standings: Standings,
    pictures: Pictures,
    count: int,
    wanted: Sequence[str] = (),
    split: str = "test",
    root: Path | None = None,
    data_root: Path | None = None,
    modality: str | None = None,
    dataset: str = "",
) -> dict[str, Film | None]:
    """Choose sequences, and find their frames where the data set is at hand.

    Args:
        standings: The trackers on all sequences.
        pictures: Whether frames travel in the page, are linked where they lie, or are left out.
        count: How many sequences are chosen beside `wanted`: where trackers differ most, and the worst.
        wanted: Names of sequences to show in any case.
        split: Of the dataset.
        root: Its folder; None: it is looked for below `data_root`.
        data_root: Where datasets are looked for.
        modality: The second modality, for datasets that have several.
        dataset: Name or folder of the dataset; default: that of the standings.

    Returns:
        By name of the sequence, its pictures or None where there are none.

    Raises:
        UserError: One of `wanted` is no sequence of the dataset; a frame cannot be read; there is no such folder.
    """
    names = [truth.name for truth in standings.truths]
    for name in wanted:
        if name not in names:
            raise UserError(unknown("sequence", name, names))
    chosen = list(dict.fromkeys([*wanted, *(names[i] for i in choose_films(standings.values["SR"], count))]))
    if pictures == "none" or not chosen:
        return dict.fromkeys(chosen)
    try:
        found = {s.name: s for s in load_sequences(dataset or standings.dataset, split, root, modality, data_root=data_root)}
    except UserError:
        if root is not None:
            raise
        warn(standings.dataset, "frames", "no frames are shown: its folder is not found (--root, --data-root)")
        return dict.fromkeys(chosen)
    make = embed_film if pictures == "embed" else link_film
    lengths = {truth.name: len(truth.boxes) for truth in standings.truths}
    fits = {name: s for name, s in found.items() if s.first + len(s) == lengths.get(name)}
    return {name: make(fits[name]) if name in fits else None for name in chosen}


def write_comparison(
    folder: Path,
    standings: Standings,
    films: dict[str, Film | None] | None = None,
    published: Sequence[Published] = (),
    reproduce: str = "",
) -> Path:
    """Write `compare.html`, `scores.json`, `scores.csv`, `sequences.csv` and `table.tex`; returns the page.

    Raises:
        UserError: A file cannot be written.
    """
    write_json(folder / "scores.json", describe_standings(standings, published))
    write_text(folder / "scores.csv", _to_csv(_score_rows(standings, published)))
    write_text(folder / "sequences.csv", _to_csv(_sequence_rows(standings)))
    write_text(folder / "table.tex", format_latex(standings, published))
    write_page(folder / "compare.html", standings, films, list(published), reproduce)
    return folder / "compare.html"


def table_rows(standings: Standings) -> tuple[list[str], list[list[str]]]:
    """The ranking as text, for a terminal, what matters most first: headers, and a row per tracker."""
    part = standings.whole
    first, *others = (standings.label(key) for key in TABLE)
    headers = ["tracker", first, "against the best", *others, "sequences"]
    against = {pair.b: pair.difference for pair in part.pairs["SR"] if pair.a == 0}
    rows = []
    for i, name in enumerate(standings.names):
        cells = []
        for key in TABLE:
            half = float(part.intervals[key][i, 1] - part.intervals[key][i, 0]) / 2
            cells.append(f"{part.percent[key][i]:.1f}" + ("" if math.isnan(half) else f" ±{half:.1f}"))
        difference = (
            None if i not in against else against[i]._replace(mean=-against[i].mean, low=-against[i].high, high=-against[i].low)
        )
        compared = "-"
        if difference is not None and not math.isnan(difference.mean):
            compared = f"{format_difference(difference._replace(low=math.nan))} {judge(difference)}"
        rows.append([name, cells[0], compared, *cells[1:], f"{part.counts[i]} of {int(part.members.sum())}"])
    return headers, rows


def describe_standings(standings: Standings, published: Sequence[Published] = ()) -> dict[str, Any]:
    """All numbers, unrounded: trackers as `mst score` has them, their parts and pairs; what is published is kept apart."""
    parts = [
        {
            "name": part.name,
            "sequences": int(part.members.sum()),
            "trackers": [
                {
                    "name": name,
                    "sequences": int(part.counts[i]),
                    "scores": {key: _number(part.percent[key][i]) for key in SHOWN},
                    "intervals": {key: [_number(bound) for bound in part.intervals[key][i]] for key in SHOWN},
                }
                for i, name in enumerate(standings.names)
            ],
        }
        for part in standings.parts
    ]
    pairs = [
        {"measure": measure, **_describe_pair(pair, standings.names)}
        for measure in COMPARED
        for pair in standings.whole.pairs[measure]
    ]
    return {
        "trackers": [describe(result) for result in standings.results],
        "stamp": standings.stamp,
        "notes": standings.notes,
        "parts": parts,
        "pairs": pairs,
        "published": {"source": PAPER, "measured": False, "rows": [row._asdict() for row in published]},
    }


def format_latex(standings: Standings, published: Sequence[Published] = ()) -> str:
    """A table for a paper (package booktabs): percent with half the 95 % interval; best bold, second underlined."""
    part = standings.whole
    columns = {key: _marked(part, key) for key in TABLE}
    head = " & ".join(["Tracker", *(_tex(standings.label(key)) for key in TABLE)])
    lines = [
        f"% {standings.title}, protocol {standings.protocol}, {int(part.members.sum())} sequences; half the 95 % interval.",
        rf"\begin{{tabular}}{{l{'r' * len(TABLE)}}}",
        r"\toprule",
        rf"{head} \\",
        r"\midrule",
    ]
    for i, name in enumerate(standings.names):
        lines.append(" & ".join([_tex(name), *(columns[key][i] for key in TABLE)]) + r" \\")
    rows = [row for row in published if row.compares]
    if rows:
        lines += [r"\midrule", rf"\multicolumn{{{1 + len(TABLE)}}}{{l}}{{\emph{{Published, not measured here}}}} \\"]
    for row in rows:
        cells = [f"{row.percent[key]:.1f}" if key in row.percent else "--" for key in TABLE]
        lines.append(" & ".join([rf"{_tex(row.label)}$^\dagger$", *cells]) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}"]
    if rows:
        lines.append(rf"% $^\dagger$ As printed in ``{PAPER}'', Table {' and '.join(sorted({str(r.table) for r in rows}))}.")
    return "\n".join(lines) + "\n"


def _marked(part: Part, key: str) -> list[str]:
    printed = [None if math.isnan(value) else round(float(value), 1) for value in part.percent[key]]
    steps = sorted({value for value in printed if value is not None}, reverse=True)
    cells = []
    for value, (low, high) in zip(printed, part.intervals[key], strict=True):
        if value is None:
            cells.append("--")
            continue
        text = f"{value:.1f}"
        if len(steps) > 1 and value in steps[:2]:
            text = rf"\textbf{{{text}}}" if value == steps[0] else rf"\underline{{{text}}}"
        cells.append(text if math.isnan(low) else rf"{text} {{\scriptsize $\pm${(high - low) / 2:.1f}}}")
    return cells


def _describe_pair(pair: Pair, names: Sequence[str]) -> dict[str, Any]:
    return {
        "a": names[pair.a],
        "b": names[pair.b],
        "sequences": pair.sequences,
        "difference": _number(pair.difference.mean),
        "interval": [_number(pair.difference.low), _number(pair.difference.high)],
        "verdict": judge(pair.difference),
        "wins": pair.wins,
        "losses": pair.losses,
        "ties": pair.sequences - pair.wins - pair.losses,
        "p": _number(pair.p),
        "p_holm": _number(pair.adjusted),
    }


def _score_rows(standings: Standings, published: Sequence[Published]) -> list[list[Any]]:
    rows: list[list[Any]] = [["source", "tracker", "part", "sequences", "measure", "percent", "low", "high"]]
    for part in standings.parts:
        for i, name in enumerate(standings.names):
            for key in SHOWN:
                numbers = [part.percent[key][i], *part.intervals[key][i]]
                rows.append(["measured", name, part.name, part.counts[i], key, *(_text(value) for value in numbers)])
    for row in published:
        source = f"published, table {row.table}"
        rows += [[source, row.label, EVERY, "", key, f"{value:.1f}", "", ""] for key, value in row.percent.items()]
    return rows


def _sequence_rows(standings: Standings) -> list[list[Any]]:
    rows: list[list[Any]] = [["tracker", "sequence", "frames", *SHOWN]]
    for i, result in enumerate(standings.results):
        for j, truth in enumerate(standings.truths):
            if truth.name in result.scores:
                values = (_text(standings.values[key][i, j]) for key in SHOWN)
                rows.append([result.name, truth.name, result.scores[truth.name].frames, *values])
    return rows


def _to_csv(rows: Sequence[Sequence[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def _tex(text: str) -> str:
    """A name inside LaTeX; line breaks and what else is not printed become spaces."""
    return "".join(SPECIAL.get(c, c if c.isprintable() else " ") for c in text)


def _text(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.4f}"


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
