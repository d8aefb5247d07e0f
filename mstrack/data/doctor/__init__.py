"""`mst data check`: what lies on disk, against what the dataset should have."""

import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from collections.abc import Sequence as List
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from mstrack.data import OWN, load_sequences
from mstrack.data.doctor import inspection
from mstrack.data.doctor.findings import Counts, Finding, Report, SequenceFacts, SplitFacts
from mstrack.data.doctor.survey import count_sequences, recognise
from mstrack.data.layout import UnreadableSequencesError
from mstrack.data.own import split_folder
from mstrack.data.roots import find_root, is_own
from mstrack.data.sequence import Sequence
from mstrack.data.splits import OFFICIAL, check_split, read_list, split_names
from mstrack.data.stills import Stills
from mstrack.errors import DataWarning, UserError
from mstrack.registry import DATASETS, resolve, unknown

KNOWN: dict[str, dict[str, Counts]] = {
    "coesot": {"test": Counts(None, 176_589, 16_045), "test-527": Counts(None, 176_535, 16_039)},
    "depthtrack": {"test": Counts(None, 76_373)},
    "got10k": {"train": Counts(9_335), "val": Counts(180), "test": Counts(180)},
    "lasher": {"test": Counts(None, 220_703, 533)},
    "lasot": {"train-official": Counts(1_120), "test": Counts(280)},
    "rgbt234": {"test": Counts(None, 116_650, 0)},
    "trackingnet": {"train-official": Counts(30_132), "test": Counts(511)},
    "visevent": {
        "test": Counts(None, 157_395, 21_026),
        "test-172": Counts(None, 106_836, 13_031),
        "test-218": Counts(None, 123_756, 16_334),
    },
}
"""Official counts that the committed lists do not have; frames without the target are those flagged so, or without a box."""
ALL = "all"
Progress = Callable[[int, int, str], None]


def check(
    name: str,
    root: Path | None = None,
    split: str | None = None,
    data_root: Path | None = None,
    headers: bool = False,
    decode: bool = False,
    workers: int | None = None,
    progress: Progress | None = None,
    modality: str | None = None,
) -> Report:
    """Read a dataset as training and evaluation do, look at its files, and say what is not as it should be.

    By default the headers of three images of each sequence and modality are read.

    Args:
        name: A dataset of the catalogue, `module:function`, or a folder of your own data.
        root: Its folder; None: it is looked for, see `roots.py`.
        split: The one to check; None: the official ones, see `checked_splits`.
        data_root: Where to look for `root`.
        headers: Read the headers of all images.
        decode: Decode all images.
        workers: Threads; None: one per core and four more.
        progress: Called with (sequences or decoded frames done, all, name of the sequence).
        modality: The second modality, for datasets that have several.

    Raises:
        UserError: No such dataset, folder or split; the folder is that of a dataset of the catalogue. What is wrong inside of
            the folder is in the report.
    """
    own = is_own(name)
    dataset, folder = (OWN, Path(name)) if own else (name, root)
    resolve("datasets", dataset)
    if folder is None and dataset in DATASETS and dataset != "synthetic":
        folder = find_root(dataset, data_root)
    if folder is not None and not folder.is_dir() and dataset != "synthetic":
        raise UserError(f"there is no folder {folder}.")
    known = recognise(Path(name)) if own else ""
    if known:
        raise UserError(f"{name} holds sequences of {known}, not data of your own: `mst data check {known} --root {name}`.")
    if split is not None:
        _check_split(dataset, split, folder)
    report = Report(name, folder, "decoded" if decode else "headers" if headers else "sampled")
    wanted = [split] if split is not None else _present(report, dataset, folder)
    loaded = [(part, _load(report, dataset, part, folder, modality)) for part in wanted]
    with ThreadPoolExecutor(workers or (os.cpu_count() or 1) + 4) as pool:
        for facts, findings in _look(loaded, headers, decode, pool, progress):
            report.sequences.append(facts)
            report.findings += findings
    report.findings = _raise_shifts(report.findings)
    for part, sequences in loaded:
        if sequences:
            _count(report, dataset, part, len(sequences))
        else:
            report.splits.append(SplitFacts(part, Counts(), official_counts(dataset, part)))
    return report


def checked_splits(dataset: str) -> tuple[str, ...]:
    """The splits that a dataset is checked by: the official ones, which have every public sequence once."""
    declared = (*split_names(dataset), *_declared(dataset))
    official = (OFFICIAL, "test") if OFFICIAL in declared else ("train", "val", "test")
    return tuple(split for split in official if split in declared) or (ALL,)


def official_counts(dataset: str, split: str) -> Counts:
    """What a split should have, as far as it is known: from `KNOWN`, and the committed list."""
    known = KNOWN.get(dataset, {}).get(split, Counts())
    if split in split_names(dataset) and split != ALL:
        return Counts(len(read_list(dataset, split).names), known.frames, known.absent)
    return known


@contextmanager
def collect_warnings(add: Callable[[DataWarning], None]) -> Iterator[None]:
    """Hand on `DataWarning`s instead of printing them; other warnings stay what they are."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    for warning in caught:
        if isinstance(warning.message, DataWarning):
            add(warning.message)
        else:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)


def _declared(dataset: str) -> tuple[str, ...]:
    """The splits in `SPLITS` of a dataset's module: of this dataset, or of all that it has."""
    function = resolve("datasets", dataset)
    declared = getattr(sys.modules.get(getattr(function, "__module__", "")), "SPLITS", ())
    if isinstance(declared, Mapping) and not declared.keys().isdisjoint(DATASETS):
        return tuple(declared.get(dataset, ()))
    return tuple(declared)


def _check_split(dataset: str, split: str, folder: Path | None) -> None:
    """Refuse a split that the dataset does not have; what splits a function of a user's own has, it says itself."""
    check_split(dataset, split)
    if dataset == OWN and folder is not None:
        split_folder(folder, split)
        return
    known = list(dict.fromkeys([*split_names(dataset), *_declared(dataset)]))
    if dataset in DATASETS and split not in known:
        raise UserError(unknown(f"split of {dataset}", split, known))


def _present(report: Report, dataset: str, folder: Path | None) -> list[str]:
    """The splits to check of which something lies in the folder; those that are not there at all are a warning."""
    splits = list(checked_splits(dataset))
    if folder is None or dataset not in DATASETS or dataset == "synthetic":
        return splits
    if dataset == OWN:
        return [split for split in splits if (folder / split).is_dir()] or [ALL]
    with collect_warnings(lambda _: None):  # the reader says them too
        counts = count_sequences(dataset, folder)
    there = [split for split in splits if counts.get(split, 1)]
    for split in splits if there else ():
        if split not in there:
            report.findings.append(Finding("warning", "missing", f"{dataset}/{split}", f"nothing of it is in {folder}"))
    return there or splits


def _load(report: Report, dataset: str, split: str, folder: Path | None, modality: str | None) -> List[Sequence]:
    """The sequences of a split. What the reader says becomes findings."""

    def add(said: DataWarning) -> None:
        report.findings.append(Finding("warning", said.kind, said.sequence, said.text))

    with collect_warnings(add):
        try:
            return load_sequences(dataset, split, folder, modality)
        except UserError as error:
            said = error.each if isinstance(error, UnreadableSequencesError) else _sentences(str(error))
            report.findings += [Finding("error", "reader", f"{dataset}/{split}", line) for line in said]
            return []


def _sentences(message: str) -> list[str]:
    """The lines of a message that says several things; one whose lines are indented (a layout) stays whole."""
    lines = message.splitlines()
    return [message] if any(line.startswith(" ") for line in lines) else lines


def _look(
    loaded: list[tuple[str, List[Sequence]]],
    headers: bool,
    decode: bool,
    pool: ThreadPoolExecutor,
    progress: Progress | None,
) -> Iterator[tuple[SequenceFacts, list[Finding]]]:
    """Every sequence, looked at; of still images, one sequence for each."""
    chosen = [(split, found.one_per_image() if isinstance(found, Stills) else found) for split, found in loaded]
    pairs = [(split, sequences, i) for split, sequences in chosen for i in range(len(sequences))]
    total = sum(len(sequence) for _, sequences in chosen for sequence in sequences) if decode else len(pairs)
    done = 0
    if not decode:
        for result in pool.map(lambda pair: inspection.inspect(pair[1][pair[2]], pair[0], headers), pairs):
            done += 1
            if progress is not None:
                progress(done, total, result[0].name)
            yield result
        return
    for split, sequences, i in pairs:
        sequence = sequences[i]

        def step(name: str = sequence.name) -> None:
            nonlocal done
            done += 1
            if progress is not None:
                progress(done, total, name)

        yield inspection.decode(sequence, split, pool, step)


def _raise_shifts(findings: list[Finding]) -> list[Finding]:
    """A missing frame is an error where there are more boxes than frames: the boxes behind it belong to other frames."""
    uneven = {finding.where for finding in findings if finding.kind == "length"}
    shifted = "; boxes and frames differ in number, so boxes behind it may belong to other frames"
    return [
        replace(finding, level="error", text=finding.text + shifted)
        if finding.kind == "gap" and finding.where in uneven
        else finding
        for finding in findings
    ]


def _count(report: Report, dataset: str, split: str, sequences: int) -> None:
    """Compare a split's counts with the official ones, where all of its sequences are there."""
    of_split = [facts for facts in report.sequences if facts.split == split]
    found = Counts(sequences, sum(facts.frames for facts in of_split), sum(facts.absent for facts in of_split))
    official = official_counts(dataset, split)
    report.splits.append(SplitFacts(split, found, official))
    where = f"{dataset}/{split}"
    if official.sequences is not None and found.sequences != official.sequences:
        if not any(finding.kind == "missing" and finding.where.startswith(f"{dataset}/") for finding in report.findings):
            text = f"{found.sequences:,} sequences, officially {official.sequences:,}"
            report.findings.append(Finding("warning", "count", where, text))
        return
    for what, ours, theirs in (
        ("frames", found.frames, official.frames),
        ("frames without the target", found.absent, official.absent),
    ):
        if theirs is not None and ours != theirs:
            report.findings.append(Finding("warning", "count", where, f"{ours:,} {what}, officially {theirs:,}"))
