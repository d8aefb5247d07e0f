"""What the name of a result file says: which sequence of which tracker it is, and what it holds."""

import re
from collections.abc import Collection
from typing import NamedTuple

ROLES = {"_time": "time", "_times": "time", "_confidence": "confidence", "_conf": "confidence", "_missing": "missing"}
"""What stands behind a sequence's name, and what the file holds."""
EXPERIMENT = re.compile(r"([A-Za-z0-9]+[-_])*(unsupervised|supervised|baseline|realtime|longterm|shortterm)", re.IGNORECASE)
"""Folders of the VOT toolkit between tracker and sequence."""
RESULT_FOLDER = re.compile(r"(.+?)[-_]tracking[-_]results?", re.IGNORECASE)


class Place(NamedTuple):
    """What a file's name says of it."""

    tracker: str
    """Its folder below the given one, and what stands before the sequence's name."""
    sequence: str
    role: str
    """`boxes`, `time`, `confidence` or `missing`."""
    layout: str
    repetition: int
    """0 where it has no number."""


def locate(name: str, known: Collection[str], nested: Collection[str] = ()) -> Place | None:
    """What the name of a file says, None where it names no sequence.

    Args:
        name: Path of the file, with `/`.
        known: Names of sequences.
        nested: Those that hold a `/` themselves.
    """
    *folders, file = name.split("/")
    stem = file.rpartition(".")[0]
    for depth in range(1, min(len(folders), 3) + 1) if nested else ():
        inner = "/".join([*folders[-depth:], stem])
        for end, role in (("", "boxes"), *ROLES.items()):
            if inner.removesuffix(end) in nested and inner.endswith(end):
                return Place("/".join(folders[:-depth]), inner.removesuffix(end), role, "NAME/SEQ.txt", 0)
    roles = [(stem, "boxes"), *((stem.removesuffix(end), role) for end, role in ROLES.items() if stem.endswith(end))]
    for base, role in roles:
        numbered = re.fullmatch(r"(.+)_(\d{3})", base)
        if base in known:
            sequence, repetition = base, 0
        elif numbered and numbered[1] in known:
            sequence, repetition = numbered[1], int(numbered[2])
        else:
            continue
        layout = "SEQ_001.txt" if repetition else "SEQ.txt"
        if folders and folders[-1] == sequence:
            folders, layout = folders[:-1], f"SEQ/{layout}"
            if folders and EXPERIMENT.fullmatch(folders[-1]):
                folders, layout = folders[:-1], f"{folders[-1]}/{layout}"
        wrapped = RESULT_FOLDER.fullmatch(folders[-1]) if folders else None
        return Place("/".join(folders), sequence, role, f"NAME{'_tracking_result' * bool(wrapped)}/{layout}", repetition)
    for base, role in roles:
        for cut in re.finditer(r"[_-]", base):
            if cut.start() and base[cut.end() :] in known:
                tracker = base[: cut.start()]
                inside = folders and folders[-1] == tracker
                return Place("/".join([*folders[:-1], tracker] if inside else [*folders, tracker]), base[cut.end() :], role,
                             "NAME_SEQ.txt", 0)  # fmt: skip
    return None
