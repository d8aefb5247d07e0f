"""Result folders: a text file of boxes per sequence, one of confidences, and `run.json` saying what made them."""

import contextlib
import json
import os
import re
import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mstrack.errors import UserError


class Track(NamedTuple):
    """What a tracker said of one sequence of N frames; row 0 is the given box."""

    boxes: NDArray[np.float64]
    """(N, 4) x, y, w, h in pixels."""
    confidence: NDArray[np.float64]
    """(N,) in [0, 1], 1 for the given box."""
    lacking: tuple[int, ...] = ()
    """Frames that came without their second modality."""


def name_part(path: Path) -> Path:
    """A name beside a file, with its ending, that no other process writes to: for what is to become that file."""
    return path.with_name(f".{path.stem[:60]}.{secrets.token_hex(6)}.part{path.suffix}")


@contextlib.contextmanager
def replacing(path: Path, flush: bool = True) -> Iterator[Path]:
    """A name to write to; what is there at the end takes the file's place, which is whole or absent at any time.

    Args:
        path: The file; its folder is made.
        flush: Whether to wait until it is on the disk, and so survives a power cut.

    Raises:
        UserError: The folder cannot be written or the disk is full; an older file of that name is intact.
    """
    part = name_part(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        if flush:
            with part.open("r+b") as file:
                os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}. What was there before is intact.") from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all, the same bytes on every system; see `replacing`."""
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8", newline="\n")


BESIDE = ("confidence", "missing")
"""What files beside the boxes hold, and their names end in."""


def check_names(names: Iterable[str]) -> None:
    """Refuse sequences whose files would be those of others.

    Raises:
        UserError: One is called as another one with what is kept beside its boxes.
    """
    known = set(names)
    for name in sorted(known):
        for ending in BESIDE:
            if f"{name}_{ending}" in known:
                raise UserError(
                    f"there are sequences '{name}' and '{name}_{ending}', and the latter's boxes would go where the former's"
                    f" {ending} values go: {name}_{ending}.txt. Rename one of them."
                )


def write_track(folder: Path, sequence: str, track: Track) -> None:
    """Save one sequence: `<sequence>_confidence.txt`, then `<sequence>.txt` (x,y,w,h per line), which marks it as done.

    Where frames came without their second modality, `<sequence>_missing.txt` has their numbers, counted from 0.
    """
    lacking = folder / f"{sequence}_missing.txt"
    if track.lacking:
        write_text(lacking, "".join(f"{frame}\n" for frame in track.lacking))
    else:
        lacking.unlink(missing_ok=True)  # of an earlier result
    write_text(folder / f"{sequence}_confidence.txt", "".join(f"{value:.6f}\n" for value in track.confidence))
    lines = (",".join(f"{value:.4f}" for value in row) for row in track.boxes)
    write_text(folder / f"{sequence}.txt", "".join(f"{line}\n" for line in lines))


def read_track(folder: Path, sequence: str) -> Track | None:
    """What `write_track` saved, or None where there is no result; commas, tabs and spaces all separate."""
    path = folder / f"{sequence}.txt"
    if not path.is_file():
        return None
    boxes = _read_numbers(path, columns=4)
    confidence_path = folder / f"{sequence}_confidence.txt"
    confidence = _read_numbers(confidence_path, columns=1)[:, 0] if confidence_path.is_file() else np.ones(len(boxes))
    if len(confidence) != len(boxes):
        raise UserError(
            f"{confidence_path} has {len(confidence)} rows, and {path.name} {len(boxes)}. Remove both and track again."
        )
    missing_path = folder / f"{sequence}_missing.txt"
    lacking = _read_numbers(missing_path, columns=1)[:, 0] if missing_path.is_file() else np.empty(0)
    if not np.isfinite(lacking).all():
        raise UserError(f"{missing_path}: expected numbers of frames, found one that is not finite.")
    return Track(boxes, confidence, tuple(int(frame) for frame in lacking))


def write_json(path: Path, content: Any) -> None:
    """Save JSON, whole or not at all."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def read_json(path: Path) -> Any:
    """Read JSON; None where there is no such file."""
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error}). Remove it, or name another folder.") from error


def read_object(path: Path) -> dict[str, Any] | None:
    """As `read_json`, of a file that holds an object.

    Raises:
        UserError: It is not JSON, or holds something else.
    """
    found = read_json(path)
    if found is not None and not isinstance(found, dict):
        raise UserError(f"{path} holds a {type(found).__name__}, expected an object. Remove it, or name another folder.")
    return found


def _read_numbers(path: Path, columns: int) -> NDArray[np.float64]:
    rows = []
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not a text file in UTF-8. Remove it, or name another folder.") from error
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            values = [float(part) for part in re.split(r"[,;\s]+", line.strip())]
        except ValueError:
            values = []
        if len(values) != columns:
            raise UserError(f"{path}, line {number}: expected {columns} number(s), found '{line.strip()}'.")
        rows.append(values)
    return np.array(rows, dtype=np.float64).reshape(-1, columns)
