"""Results in the format that each benchmark's own toolkit or server takes."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mstrack.data.splits import read_list, split_names
from mstrack.data.truths import load_truths
from mstrack.errors import UserError, some
from mstrack.rawresults import RawResults, read_all
from mstrack.rawresults.form import Form
from mstrack.registry import unknown
from mstrack.results import Track, write_text

Values = NDArray[np.float64]


class Export(NamedTuple):
    """One sequence in a format: (path below the output folder, text) of each of its files."""

    write: Callable[[str, str, Track, Values | None], Iterator[tuple[str, str]]]
    """From the tracker's name, the sequence's, its results, and seconds per frame where they are known."""
    layout: str
    """For people."""


def _flat(folder: str, separator: str) -> Export:
    def write(tracker: str, sequence: str, track: Track, times: Values | None) -> Iterator[tuple[str, str]]:
        place = folder.replace("NAME", tracker)
        yield f"{place}/{sequence}.txt", _lines(track.boxes, separator)
        if times is not None:
            yield f"{place}/{sequence}_time.txt", _column(times)

    return Export(write, f"{folder}/SEQ.txt")


def _vot(tracker: str, sequence: str, track: Track, times: Values | None) -> Iterator[tuple[str, str]]:
    head = f"{tracker}/rgbd-unsupervised/{sequence}/{sequence}_001"
    yield f"{head}.txt", "1\n" + _lines(track.boxes[1:], ",")
    yield f"{head}_confidence.value", "\n" + _column(track.confidence[1:])  # none for the box that was given
    if times is not None:
        yield f"{head}_time.value", _column(times)


def _got10k(tracker: str, sequence: str, track: Track, times: Values | None) -> Iterator[tuple[str, str]]:
    yield f"{tracker}/{sequence}/{sequence}_001.txt", _lines(track.boxes, ",")
    if times is not None:
        yield f"{tracker}/{sequence}/{sequence}_time.txt", _column(times)


_KIT, _VOT = _flat("NAME_tracking_result", ","), Export(_vot, "NAME/rgbd-unsupervised/SEQ/SEQ_001.txt, _confidence.value")
FORMATS = {
    "coesot": _KIT,
    "depthtrack": _VOT,
    "fe108": _flat("NAME", "\t"),
    "got10k": Export(_got10k, "NAME/SEQ/SEQ_001.txt"),
    "lasher": _flat("NAME", ","),
    "lasot": _KIT,
    "rgbt234": _flat("NAME", ","),
    "trackingnet": _flat("NAME", ","),
    "visevent": _KIT,
    "vot": _VOT,
    "vot-rgbd": _VOT,
}
"""Values are written with all their digits, times where they are known, and frames without a box as nan."""


def export_results(results: RawResults, form: str, out: Path, name: str | None = None) -> list[Path]:
    """Write the results of a tracker.

    Args:
        results: What was read.
        form: One of `FORMATS`.
        out: The folder, made where it does not exist.
        name: What the tracker is called there; None: as the results are.

    Returns:
        The files.

    Raises:
        UserError: Unknown format; a name that would lie outside of the folder; the folder cannot be written.
    """
    if form not in FORMATS:
        raise UserError(unknown("format", form, FORMATS))
    tracker = check_name(name) if name else check_name(results.name.replace("/", "-"))
    for sequence in results.tracks:
        check_name(sequence)
    made = []
    for sequence, track in results.tracks.items():
        for path, text in FORMATS[form].write(tracker, sequence, track, results.times.get(sequence)):
            write_text(out / path, text)
            made.append(out / path)
    return made


def export_paths(
    paths: Iterable[Path],
    dataset: str,
    out: Path,
    to: str | None = None,
    split: str = "test",
    annotations: Path | None = None,
    root: Path | None = None,
    data_root: Path | None = None,
    name: str | None = None,
    form: Form = "auto",
) -> list[tuple[RawResults, list[Path]]]:
    """Read every tracker in some folders and archives, and write it in a benchmark's format.

    Args:
        paths: See `rawresults.read_results`.
        dataset: Whose results they are; its committed list gives the names of the sequences where it has one.
        out: The folder to write to.
        to: One of `FORMATS`; None: the data set's own.
        split: Of the data set.
        annotations: See `load_truths`; with these or `root`, the names are those of the annotation, corners are recognised,
            and the box that a tracker was given is written where the VOT toolkit's files leave it out (else it is nan).
        root: See `load_truths`.
        data_root: See `load_truths`.
        name: What the tracker is called there, where there is one; None: as the results are.
        form: What four values are.

    Returns:
        What was read of each tracker, and the files that were written.

    Raises:
        UserError: Unknown names; no results, or of other data; one name for several trackers.
    """
    to = to or dataset
    if to not in FORMATS:
        raise UserError(unknown("format", to, FORMATS) + " Name one with --format.")
    listed = split != "all" and split in split_names(dataset) and annotations is None and root is None
    truths = [] if listed else load_truths(dataset, split, annotations, root, data_root, scorable=False)
    names = read_list(dataset, split).names if listed else tuple(truth.name for truth in truths)
    found = read_all(paths, names, {truth.name: truth.boxes for truth in truths}, form)
    if name is not None and len(found) > 1:
        raise UserError(f"there are {len(found)} trackers ({some([r.name for r in found])}) and one name, '{name}'.")
    first = {truth.name: truth.boxes[:1] for truth in truths}
    return [(results, export_results(_with_given(results, first), to, out, name)) for results in found]


def _with_given(results: RawResults, first: Mapping[str, Values]) -> RawResults:
    """The results with the box that a tracker was given, where it is known and the VOT toolkit's files leave it out."""
    tracks = dict(results.tracks)
    for sequence in results.given & first.keys():
        track = tracks[sequence]
        tracks[sequence] = track._replace(boxes=np.concatenate([first[sequence], track.boxes[1:]]))
    return replace(results, tracks=tracks)


def check_name(name: str) -> str:
    """A name that is safe as a part of a path; `/` may stand between its parts.

    Raises:
        UserError: It is empty, absolute, or has `..`, a backslash, or what cannot be printed.
    """
    parts = PurePosixPath(name).parts
    if not parts or ".." in parts or name.startswith("/") or "\\" in name or ":" in name or not name.isprintable():
        raise UserError(f"the name {name!a} cannot be a file's: nothing is written. Give it a plain name.")
    return name


def _lines(boxes: Values, separator: str) -> str:
    return "".join(f"{separator.join(map(_number, row))}\n" for row in boxes.tolist())


def _column(values: Values) -> str:
    return "".join(f"{'' if np.isnan(value) else _number(value)}\n" for value in values.tolist())


def _number(value: float) -> str:
    """All digits that it takes to read the same value back."""
    return repr(value).removesuffix(".0")
