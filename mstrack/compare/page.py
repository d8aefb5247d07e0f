"""Standings as one self-contained HTML page: the data as one block of JSON, and a script that draws them."""

import base64
import hashlib
import json
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from mstrack.boxes import Boxes
from mstrack.compare.films import Film, sample_moments
from mstrack.compare.naming import words
from mstrack.compare.published import PAPER, Published
from mstrack.compare.standings import COMMON, COMPARED, EVERY, SHOWN, THRESHOLDS, Part, Standings
from mstrack.comparison import TIE, Pair
from mstrack.metrics.protocols import find_protocol
from mstrack.results import write_text

SCRIPTS = ("", "_tables", "_charts", "_attributes", "_list", "_browser")
"""The parts of the page's script, `templates/compare*.js`, in order."""
LEVELS, UNSCORED = 250, 255
"""Overlaps are kept as bytes: 0 to 250 for 0 to 1, and 255 for a frame that is not scored."""
HUNDREDTHS, NOTHING = 100, 65535
"""Percent are kept as 16 bits, in whole hundredths, cut, so that the script shows the right decimal; the largest: none."""
QUARTERS, NOWHERE = 4, -32768
"""Boxes are kept as 16 bits, in quarters of a pixel; the smallest number stands for none."""


def write_page(
    path: Path,
    standings: Standings,
    films: Mapping[str, Film | None] | None = None,
    published: list[Published] | None = None,
    reproduce: str = "",
) -> None:
    """Write the page: one HTML file without any other, whole or not at all.

    Args:
        path: The file.
        standings: What it shows.
        films: The sequences whose boxes are shown, by name, with their pictures where there are any.
        published: Rows of the paper to show beside the measured ones.
        reproduce: The command that makes this page again.

    Raises:
        UserError: The file cannot be written.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("mstrack"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    folder = resources.files("mstrack") / "templates"
    script = '"use strict";\n' + "\n".join((folder / f"compare{name}.js").read_text(encoding="utf-8") for name in SCRIPTS)
    hashed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    count = len(standings.results)
    page = environment.get_template("compare.html.j2").render(
        standings=standings,
        trackers=f"{count} tracker{'' if count == 1 else 's'}",
        protocol=find_protocol(standings.protocol),
        policy=f"default-src 'none'; img-src data: file:; style-src 'unsafe-inline'; script-src 'sha256-{hashed}'",
        data=encode_json(describe(standings, films or {}, published or [])),
        script=script,
        reproduce=reproduce,
    )
    write_text(Path(path), page)


def encode_json(content: Any) -> str:
    """JSON that can stand inside a `<script>` element, whatever its texts hold."""
    text = json.dumps(content, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def describe(standings: Standings, films: Mapping[str, Film | None], published: list[Published]) -> dict[str, Any]:
    """What the script of the page reads."""
    truths, names = standings.truths, [part.name for part in standings.attributes]
    lengths = [len(truth.boxes) for truth in truths]
    return {
        "dataset": standings.dataset,
        "measures": [{"key": key, "label": standings.label(key)} for key in (*standings.long_term, *SHOWN)],
        "compared": list(COMPARED),
        "thresholds": {key: [round(float(v), 4) for v in values] for key, values in THRESHOLDS.items()},
        "tie": TIE,
        "trackers": [{"name": result.name, "lacking": len(truths) - len(result.scores)} for result in standings.results],
        "parts": [_describe_part(part, standings) for part in standings.parts],
        "whole": standings.parts.index(standings.whole),
        "sequences": [
            {"name": t.name, "frames": n, "attributes": [names.index(a) for a in t.attributes if a in names]}
            for t, n in zip(truths, lengths, strict=True)
        ],
        "values": {key: _pack_percent(standings.values[key]) for key in COMPARED},
        "points": [len(sample_moments(n)) for n in lengths],
        "overlaps": _pack_overlaps(standings),
        "films": {str(i): _describe_film(standings, i, films[t.name]) for i, t in enumerate(truths) if t.name in films},
        "published": [
            {"table": row.table, "label": row.label, "percent": row.percent, "main": row.compares} for row in published
        ],
        "paper": PAPER,
    }


def _describe_part(part: Part, standings: Standings) -> dict[str, Any]:
    attribute = part.name not in (EVERY, COMMON)
    further = standings.long_term if part.name == EVERY else {}
    unsure = [[None, None]] * len(standings.results)
    members = part.members & np.isfinite(standings.values["SR"]).any(axis=0) if attribute else part.members
    return {
        "name": words(part.name, standings.dataset) if attribute else part.name,
        "short": part.name,
        "attribute": attribute,
        "sequences": int(members.sum()),
        "members": _pack(np.packbits(members)),
        "counts": part.counts.tolist(),
        "percent": {key: _rounded(values) for key, values in {**further, **part.percent}.items()},
        "intervals": dict.fromkeys(further, unsure)
        | {key: [_rounded(bounds) for bounds in part.intervals[key]] for key in SHOWN},
        "curves": {key: _pack_percent(100 * part.curves[key]) for key in COMPARED},
        "pairs": {key: [_describe_pair(pair) for pair in part.pairs[key]] for key in COMPARED},
    }


def _describe_pair(pair: Pair) -> list[float | None]:
    """Mean, low, high, wins, losses, sequences, p, adjusted p; the pairs are in the order (0, 1), (0, 2), ... (1, 2), ..."""
    return [
        *_rounded(pair.difference),
        pair.wins,
        pair.losses,
        pair.sequences,
        *_rounded([pair.p, pair.adjusted]),
    ]


def _describe_film(standings: Standings, index: int, film: Film | None) -> dict[str, Any]:
    truth = standings.truths[index]
    moments = sample_moments(len(truth.boxes))
    rows = [np.where(_is_box(truth.boxes)[:, None], truth.boxes, np.nan)[moments]]
    for result in standings.results:
        track = result.tracks.get(truth.name)
        boxes = np.full((len(truth.boxes), 4), np.nan)
        if track is not None:
            given = track.boxes[: len(boxes)]
            boxes[: len(given)] = np.where(_is_box(given)[:, None], given, np.nan)
        rows.append(boxes[moments])
    scaled = np.clip(np.round(QUARTERS * np.stack(rows)), NOWHERE + 1, -NOWHERE - 1)
    packed = np.where(np.isfinite(scaled), scaled, NOWHERE).astype("<i2")
    return {"boxes": _pack(packed), **({} if film is None else film._asdict())}


def _pack_overlaps(standings: Standings) -> str:
    """For every sequence (1 + M, points) bytes: 1 where the target is there, then the overlap of every tracker."""
    blocks = []
    for truth in standings.truths:
        moments = sample_moments(len(truth.boxes))
        there = _is_box(truth.boxes) if truth.present is None else _is_box(truth.boxes) & truth.present
        rows = [there[moments].astype(np.uint8)]
        for result in standings.results:
            score = result.scores.get(truth.name)
            overlap = np.full(len(moments), np.nan) if score is None else score.iou[moments]
            rows.append(np.where(np.isfinite(overlap), np.round(LEVELS * np.nan_to_num(overlap)), UNSCORED).astype(np.uint8))
        blocks.append(np.stack(rows).ravel())
    return _pack(np.concatenate([*blocks, np.zeros(0, np.uint8)]))


def _is_box(boxes: Boxes) -> NDArray[np.bool_]:
    return np.all(np.isfinite(boxes), axis=1) & np.all(boxes[:, 2:] > 0, axis=1)


def _pack_percent(values: NDArray[np.float64]) -> str:
    scaled = np.clip(np.floor(HUNDREDTHS * np.nan_to_num(values) + 1e-9), 0, NOTHING - 1)
    return _pack(np.where(np.isfinite(values), scaled, NOTHING).astype("<u2"))


def _pack(values: NDArray[Any]) -> str:
    return base64.b64encode(np.ascontiguousarray(values).tobytes()).decode("ascii")


def _rounded(values: ArrayLike, digits: int = 4) -> list[float | None]:
    """JSON has no NaN: None stands for it."""
    return [round(float(v), digits) if np.isfinite(v) else None for v in np.asarray(values, np.float64)]
