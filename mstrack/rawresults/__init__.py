"""Raw results of anybody's tracker: which file is which sequence of which tracker, and what its values mean."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from mstrack.boxes import Boxes
from mstrack.data.splits import read_list, split_names
from mstrack.errors import UserError, some
from mstrack.filetree import File, is_archive, list_files
from mstrack.rawresults.form import Form, interpret
from mstrack.rawresults.layout import RESULT_FOLDER, Place, locate
from mstrack.rawresults.text import BoxText, parse_binary, parse_boxes, parse_column
from mstrack.registry import DATASETS
from mstrack.results import Track

SUFFIXES = (".txt", ".csv", ".value", ".bin")
ANNOTATIONS = frozenset(
    {"gt", "gt_rect", "anno", "annos", "annotations", "coesot_anno", "absent", "absent_anno", "att", "attr", "attr_txt"}
)
"""Folders that hold the annotation and no results."""
STRAY = 10
"""With so many files of other sequences for each that is known, results are taken for those of another data set."""
Values = NDArray[np.float64]


@dataclass(frozen=True)
class RawResults:
    """The results of one tracker.

    Attributes:
        name: What its folder or archive calls it.
        tracks: Boxes x, y, w, h and confidences by sequence, with the rows that the files have; 1 where nobody says how sure
            the tracker is; NaN where there is no box.
        recognised: One sentence: which layout and format it is.
        notes: What was left out or is strange.
        times: Seconds per frame by sequence, where there are files of them.
        given: Sequences whose first row says that the tracker was given the box (the VOT toolkit), so it is NaN.
    """

    name: str
    tracks: dict[str, Track]
    recognised: str
    notes: list[str] = field(default_factory=list)
    times: dict[str, Values] = field(default_factory=dict)
    given: frozenset[str] = frozenset()


class NoResultsError(UserError):
    """There are no results of the data set."""


def read_results(
    path: Path,
    names: Collection[str],
    lengths: Mapping[str, int] | None = None,
    truths: Mapping[str, Boxes] | None = None,
    form: Form = "auto",
) -> list[RawResults]:
    """All trackers in a folder or zip archive, or in the archives in a folder.

    Args:
        path: The folder or archive.
        names: Sequences of the data set; results of others are left out.
        lengths: Their numbers of frames, which tell whether an empty line is a frame without a box.
        truths: Their annotations (N, 4), which tell corners from x, y, w, h; without, `auto` is x, y, w, h.
        form: What four values are.

    Raises:
        UserError: No such path, nothing in it, no sequence of the data set, or a file that is not boxes.
    """
    files = list_files(path, skip=ANNOTATIONS)
    known, nested = frozenset(names), frozenset(name for name in names if "/" in name)
    placed, others = defaultdict[str, list[tuple[Place, File]]](list), []
    for file in files.values():
        if PurePosixPath(file.name).suffix.lower() not in SUFFIXES:
            continue
        place = locate(file.name, known, nested)
        if place is None:
            others.append(file.name)
        else:
            if not place.tracker and RESULT_FOLDER.fullmatch(path.resolve().name):
                place = place._replace(layout=place.layout.replace("NAME/", "NAME_tracking_result/"))
            placed[place.tracker].append((place, file))
    for tracker in [tracker for tracker in placed if tracker.rpartition("/")[0] in placed]:
        if {place.layout for place, _ in placed[tracker]} == {"NAME_SEQ.txt"}:
            others += [file.name for _, file in placed.pop(tracker)]
    found, unread = [], []
    for archive in () if path.is_file() else (path / name for name in files if is_archive(Path(name))):
        try:
            found += read_results(archive, names, lengths, truths, form)
        except NoResultsError:
            unread.append(f"{archive.name} holds no results of the list and is left out")
        except UserError as error:
            unread.append(f"{archive.name} is left out: {error}")
    own = {place.sequence for entries in placed.values() for place, _ in entries if place.role == "boxes"}
    if not found and len(others) >= STRAY * len(own):
        raise NoResultsError(_nothing(path, own, others, unread, known))
    labels = _label(path, placed)
    for tracker, entries in sorted(placed.items()):
        read = _read_tracker(labels[tracker], entries, len(known), lengths or {}, truths or {}, form)
        found += [read] if read else []
    if others:
        shown = ", ".join(PurePosixPath(name).name for name in others[:3])
        unread.append(f"{len(others)} file(s) of no sequence of the list are left out: {shown}{', ...' * (len(others) > 3)}")
    found[0].notes.extend(unread)
    return found


def read_all(
    paths: Iterable[Path], names: Collection[str], truths: Mapping[str, Boxes], form: Form = "auto"
) -> list[RawResults]:
    """All trackers in some folders and archives, each with a name of its own.

    Args:
        paths: See `read_results`.
        names: Sequences of the data set.
        truths: Annotations (N, 4), where they are known.
        form: What four values are.

    Raises:
        UserError: As `read_results`, with the list that the files are named after; or a path is given twice.
    """
    found = []
    lengths = {name: len(boxes) for name, boxes in truths.items()}
    for path in paths:
        try:
            found += [(path, results) for results in read_results(path, names, lengths, truths, form)]
        except UserError as error:
            raise UserError(f"{error}{_whose(path)}") from error
    return _tell_apart(found)


def _label(path: Path, trackers: Iterable[str]) -> dict[str, str]:
    """Tracker -> what it is called: the last part of its folder, or as many as tell it from the others."""
    own = path.resolve().name
    whole = {tracker: tracker or (path.stem if path.is_file() else own) for tracker in trackers}
    short = {tracker: name.split("/")[-1] for tracker, name in whole.items()}
    counts = Counter(short.values())
    chosen = {tracker: short[tracker] if counts[short[tracker]] == 1 else whole[tracker] for tracker in whole}
    wrapped = {tracker: RESULT_FOLDER.fullmatch(name) for tracker, name in chosen.items()}
    return {tracker: found[1] if (found := wrapped[tracker]) else name for tracker, name in chosen.items()}


def _read_tracker(
    name: str,
    entries: list[tuple[Place, File]],
    of: int,
    lengths: Mapping[str, int],
    truths: Mapping[str, Boxes],
    form: Form,
) -> RawResults | None:
    """The sequences of one tracker; None where there are files of times alone."""
    files: dict[str, dict[str, File]] = defaultdict(dict)
    layouts, repeated = Counter[str](), set()
    for place, file in sorted(entries, key=lambda entry: (entry[0].repetition, entry[1].name)):
        if place.role == "boxes":
            layouts[place.layout] += place.sequence not in files["boxes"]
            repeated |= {place.sequence} & files["boxes"].keys()
        files[place.role].setdefault(place.sequence, file)
    if not files["boxes"]:
        return None
    texts = {sequence: _parse(file) for sequence, file in files["boxes"].items()}
    rows = {sequence: _drop_empty(text, lengths.get(sequence)) for sequence, text in texts.items()}
    boxes, meaning = interpret(texts, rows, truths, form)
    notes = [] if not repeated else [f"several files, of which the first is read: {some(sorted(repeated))}"]
    times = {s: parse_column(file.read_text(), file.where) for s, file in files["time"].items() if s in rows}
    tracks = {}
    for sequence, found in boxes.items():
        said, lacking = files["confidence"].get(sequence), files["missing"].get(sequence)
        confidence = np.ones(len(found))
        if said:
            values = parse_column(said.read_text(), said.where)
            confidence = np.concatenate([values, np.full(max(len(found) - len(values), 0), np.nan)])[: len(found)]
            if len(values) != len(found):
                notes.append(f"{sequence}: {len(values)} confidences for {len(found)} boxes")
        frames = parse_column(lacking.read_text(), lacking.where) if lacking else ()
        tracks[sequence] = Track(found, confidence, tuple(int(frame) for frame in frames if np.isfinite(frame)))
    extras = [what for what, role in (("confidence", "confidence"), ("times", "time")) if files[role]]
    beside = f" with {' and '.join(extras)}" if extras else ""
    recognised = f"{len(tracks)} of {of} sequences as {' or '.join(layouts)}{beside}: {_describe(texts.values(), meaning)}"
    given = frozenset(sequence for sequence, text in texts.items() if text.given)
    return RawResults(name, tracks, recognised, notes, times, given)


def _parse(file: File) -> BoxText:
    if file.name.lower().endswith(".bin"):
        return parse_binary(file.read_bytes(), file.where)
    return parse_boxes(file.read_text(), file.where)


def _drop_empty(text: BoxText, length: int | None) -> Values:
    """The rows, without empty lines unless there is a line for each frame only with them."""
    if not text.empty or len(text.rows) == length:
        return text.rows
    return np.delete(text.rows, text.empty, axis=0)


def _describe(texts: Collection[BoxText], meaning: str) -> str:
    """Words for the format."""
    separators = [mark for mark, _ in Counter(text.separator for text in texts).most_common()]
    whole = {text.integers for text in texts}
    number = "whole numbers" if whole == {True} else "decimals" if whole == {False} else "whole numbers or decimals"
    headers = sum(text.header is not None for text in texts)
    return f"{meaning}; {number}; {' or '.join(separators)}" + (f"; a header in {headers} file(s)" if headers else "")


def _nothing(path: Path, own: Collection[str], others: list[str], unread: list[str], known: Collection[str]) -> str:
    """The message for a path without results of the data set."""
    wanted = f"expected a file for each sequence, such as {next(iter(sorted(known)), 'SEQUENCE')}.txt"
    if not others:
        return "\n".join([f"{path} holds no results ({', '.join(SUFFIXES)}); {wanted}.", *unread[:3]])
    held = f"results of {len(own)} sequence(s) of the list" if own else "no result of a sequence of the list"
    shown = ", ".join(PurePosixPath(name).name for name in others[:3])
    return "\n".join([f"{path} holds {held}, but {len(others)} other file(s) ({shown}); {wanted}.", *unread[:3]])


def _tell_apart(found: list[tuple[Path, RawResults]]) -> list[RawResults]:
    """Results with names of their own: those that share one get the end of their path, as much as tells them apart."""
    counts = Counter(results.name for _, results in found)
    paths = {path.resolve() for path, results in found if counts[results.name] > 1}
    most = max((len(path.parts) for path in paths), default=0)
    length = next((n for n in range(1, most) if len({path.parts[-n:] for path in paths}) == len(paths)), most)

    def rename(path: Path, results: RawResults) -> RawResults:
        whole = path.resolve()
        end = "/".join(whole.parts[-length:])
        return replace(results, name=end if results.name == whole.name else f"{results.name} ({end})")

    named = [results if counts[results.name] == 1 else rename(path, results) for path, results in found]
    twice = [name for name, count in Counter(results.name for results in named).items() if count > 1]
    if twice:
        raise UserError(f"{twice[0]} is named twice. Name every folder or archive once.")
    return named


def _whose(path: Path) -> str:
    """Which committed list the files of a path are named after, as a sentence; empty where none."""
    try:
        files = [name for name in list_files(path) if PurePosixPath(name).suffix.lower() in SUFFIXES]
    except UserError:
        return ""
    best, of, count = "", "", 0
    for dataset in DATASETS:
        for split in split_names(dataset):
            known = frozenset(read_list(dataset, split).names) if split != "all" else frozenset()
            matches = len({place.sequence for name in files if known and (place := locate(name, known))})
            if matches > count:
                best, of, count = dataset, split, matches
    return f" They are named after {count} sequence(s) of {best}, split '{of}'." if count else ""
