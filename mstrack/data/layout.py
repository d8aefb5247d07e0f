"""What the readers of all datasets share: finding sequences in a folder, listing frames, reconciling counts."""

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Sequence as List
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, overload

import numpy as np
from numpy.typing import NDArray

from mstrack.data.annotations import usable
from mstrack.data.images import SUFFIXES, FrameFile
from mstrack.data.sequence import Sequence
from mstrack.errors import UserError, warn

DEPTH = 4
"""How far below its root a dataset's sequences may lie."""


class Item(NamedTuple):
    """What the files of one pattern of a `TREE` hold."""

    kind: str
    """`rgb`, `grey`, `event`, `depth16`, `colour`, `thermal`, `boxes`, `flags`, `events`, `text`, `video`."""
    text: str
    """The format, for people."""


Tree = Mapping[str, Mapping[str, Item]]
"""Name of a variant of the layout -> path pattern below the root -> what lies there."""


@dataclass(frozen=True, slots=True)
class Files(List[Path]):
    """The images of one folder, in order: as light as their names."""

    folder: Path
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)

    @overload
    def __getitem__(self, index: int) -> Path: ...
    @overload
    def __getitem__(self, index: slice) -> "Files": ...
    def __getitem__(self, index: int | slice) -> "Path | Files":
        if isinstance(index, slice):
            return Files(self.folder, self.names[index])
        return self.folder / self.names[index]


def natural(name: str) -> list[tuple[int, int, str]]:
    """Sorting key: runs of digits by value, the rest by spelling, so that 2 comes before 10."""
    parts = re.findall(r"\d+|\D+", name)
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts]


def list_frames(folder: Path) -> Files:
    """The images of a folder in the order of the numbers in their names.

    Where the same frame lies there in two formats, the one that comes first in `SUFFIXES` is taken, with a warning.

    Raises:
        UserError: No such folder, or no image in it.
    """
    try:
        names = [entry.name for entry in os.scandir(folder)]
    except OSError as error:
        raise UserError(f"folder {folder} cannot be read: {error.strerror}.") from error
    found: dict[str, str] = {}
    twice = 0
    for name in names:
        stem, dot, suffix = name.rpartition(".")
        if f"{dot}{suffix}".lower() not in SUFFIXES or name.startswith("."):
            continue
        rival = found.get(stem)
        twice += rival is not None
        if rival is None or _rank(name) < _rank(rival):
            found[stem] = name
    if not found:
        raise UserError(f"folder {folder} holds no images ({', '.join(SUFFIXES)}).")
    if twice:
        kept = sorted({name.rpartition(".")[2] for name in found.values()})
        warn(
            folder.parent.name,
            "formats",
            f"{folder} has {twice} frame(s) in two formats; the {', '.join(kept)} files are read.",
        )
    return Files(folder, tuple(sorted(found.values(), key=natural)))


def _rank(name: str) -> int:
    return SUFFIXES.index("." + name.rpartition(".")[2].lower())


def first_folder(folder: Path, names: Iterable[str]) -> Path | None:
    """The first of some sub-folders that exists."""
    return next((folder / name for name in names if (folder / name).is_dir()), None)


def first_file(folder: Path, names: Iterable[str]) -> Path | None:
    """The first of some files that exists."""
    return next((folder / name for name in names if (folder / name).is_file()), None)


def find_sequences(root: Path, markers: Iterable[str]) -> dict[str, Path]:
    """Folders at most `DEPTH` levels below a root that hold one of some entries, by name; they are not searched further.

    Raises:
        UserError: The root is no folder.
    """
    if not root.is_dir():
        raise UserError(f"there is no folder {root}.")
    wanted = set(markers)
    found: dict[str, Path] = {}
    for folder in _walk(root, wanted, DEPTH):
        rival = found.setdefault(folder.name, folder)
        if rival != folder:
            warn(folder.name, "twice", f"lies in {rival} and in {folder}; the first is read.")
    return found


def _walk(folder: Path, wanted: set[str], levels: int) -> Iterator[Path]:
    """Sequence folders in natural order."""
    try:
        entries = list(os.scandir(folder))
    except PermissionError as error:
        warn(folder.name, "folder", f"{folder} cannot be read: {error.strerror}.")
        return
    if any(entry.name in wanted for entry in entries):
        yield folder
        return
    if levels:
        below = [entry.name for entry in entries if not entry.name.startswith(".") and entry.is_dir()]
        for name in sorted(below, key=natural):
            yield from _walk(folder / name, wanted, levels - 1)


def assemble(
    name: str,
    rgb: List[FrameFile],
    boxes: NDArray[np.float64],
    present: NDArray[np.bool_] | None = None,
    aux: List[FrameFile | None] | None = None,
    modality: str = "rgb",
    attributes: tuple[str, ...] = (),
    aux_boxes: NDArray[np.float64] | None = None,
) -> Sequence | None:
    """A `Sequence` from what lies on disk; what does not fit together is dealt with as follows, with a warning.

    - Modalities are paired by position. Where the second has fewer frames, the last colour frames lack theirs; surplus ones
      are ignored.
    - Frames beyond the annotation, and boxes beyond the frames, are left out. A single box is the start of a sequence whose
      annotation is not public: its other boxes are NaN and not valid.
    - Flags that are missing count as present.
    - Leading frames without the target are cut off (a tracker is started on a box), as the published runners do on VisEvent
      and COESOT; `Sequence.first` says how many.

    Args:
        name: Of the sequence.
        rgb: Its n colour frames.
        boxes: (m, 4) x, y, w, h; NaN or no size where the target is absent.
        present: (k,) flags, or None.
        aux: Frames of the second modality, or None for a sequence without.
        modality: What they are.
        attributes: Challenges.
        aux_boxes: (l, 4) boxes in the second modality, or None.

    Returns:
        The sequence; None, with a warning, where no frame has a target.
    """
    frames = len(rgb)
    if aux is not None and len(aux) != frames:
        text = f"{frames} colour frames and {len(aux)} {modality} frames, paired by position"
        rest = f"the last {frames - len(aux)} lack theirs" if len(aux) < frames else "the surplus is ignored"
        warn(name, "pairs", f"{text}: {rest}.")
        aux = aux[:frames] if len(aux) > frames else [*aux, *[None] * (frames - len(aux))]
    if len(boxes) == 1 and frames > 1:
        boxes = np.concatenate([boxes, np.full((frames - 1, 4), np.nan)])
        aux_boxes = None
    if len(boxes) != frames:
        rest = f"the surplus {'boxes' if len(boxes) > frames else 'frames'} are left out"
        warn(name, "length", f"{len(boxes)} boxes for {frames} frames: {rest}.")
    length = min(len(boxes), frames)
    if aux_boxes is not None and len(aux_boxes) < length:
        warn(name, "length", f"{len(aux_boxes)} {modality} boxes for {length} frames: the missing ones are NaN.")
        aux_boxes = np.concatenate([aux_boxes, np.full((length - len(aux_boxes), 4), np.nan)])
    valid = usable(boxes[:length])
    if present is not None:
        if len(present) != len(boxes):
            warn(name, "flags", f"{len(present)} absent flags for {len(boxes)} boxes: missing ones count as present.")
        flags = np.ones(length, dtype=bool)
        flags[: len(present)] = present[:length]
        valid &= flags
    if not valid.any():
        warn(name, "absent", "no frame has a target: the sequence is left out.")
        return None
    whole = Sequence(
        name=name,
        rgb=rgb[:length],
        boxes=boxes[:length],
        valid=valid,
        aux=None if aux is None else aux[:length],
        modality=modality if aux is not None else "rgb",
        attributes=attributes,
        aux_boxes=None if aux_boxes is None else aux_boxes[:length],
    )
    start = int(np.argmax(valid))
    return whole.cut(start, length) if start else whole


def describe_tree(tree: Tree) -> str:
    """The layouts of a dataset as indented lines, for messages and `mst data list`."""
    lines = []
    for variant, items in tree.items():
        lines.append(f"  {variant}:")
        width = max(len(pattern) for pattern in items)
        lines += [f"    {pattern:<{width}}  {item.text}" for pattern, item in items.items()]
    return "\n".join(lines)


def read_attributes(path: Path, names: List[str]) -> tuple[str, ...]:
    """The attributes whose flag is 1 in a file of 0 and 1; none where there is no such file.

    Raises:
        UserError: The file has another number of flags.
    """
    if not path.is_file():
        return ()
    flags: Any = re.split(r"[,;\s]+", path.read_text(encoding="utf-8-sig").strip().strip(",;"))
    if len(flags) != len(names) or not set(flags) <= {"0", "1"}:
        raise UserError(f"{path}: expected {len(names)} flags 0 or 1 ({', '.join(names)}), found '{' '.join(flags)[:80]}'.")
    return tuple(name for name, flag in zip(names, flags, strict=True) if flag == "1")
