"""What the readers of all datasets share: finding sequences in a folder, listing frames, reconciling counts."""

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from collections.abc import Sequence as List
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, overload

import numpy as np
from numpy.typing import NDArray

from mstrack.data.alignment import lacks_frames, match_rows, pair
from mstrack.data.annotations import usable
from mstrack.data.images import SUFFIXES, FrameFile
from mstrack.data.sequence import Sequence
from mstrack.errors import UserError, warn

DEPTH = 4
"""How far below its root a dataset's sequences may lie."""
SHADOWS = (".", "__MACOSX")
"""How names of folders begin that are not searched: hidden ones, and what macOS adds to archives, a tree like the real one."""


class Item(NamedTuple):
    """What the files of one pattern of a `TREE` hold."""

    kind: str
    """Images: `rgb`, `grey`, `event`, `depth16`, `colour`, `thermal`, `parts` (of one frame), `aux` (of any modality). Others:
    `video`, `events` (a recording), `boxes`, `flags` (1 = present), `absent` (1 = absent), `attributes`, `tags`, `names`,
    `offsets`, `channels`; `text` is for people alone. `tests/layouts.py` makes files of each kind but that."""
    text: str
    """The format, for people."""
    first: int | None = None
    """Number of the first file, where the pattern has a number."""


NUMBERED = re.compile(r"(.*?)([0-9]+)([^0-9]*)")
"""A file name with a number: what is before it, the last number, what is behind it."""
DIGITS = re.compile(r"\d+|\D+")

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
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in DIGITS.findall(name)]


def list_frames(folder: Path) -> Files:
    """The images of a folder in the order of the numbers in their names.

    Where the same frame lies there in two formats, the one that comes first in `SUFFIXES` is taken, with a warning.

    Raises:
        UserError: No such folder, or no image in it.
    """
    try:
        names = os.listdir(folder)  # noqa: PTH208 - names alone, and fast
    except OSError as error:
        raise UserError(f"folder {folder} cannot be read: {error.strerror}.") from error
    if _are_alike(names):
        return Files(folder, tuple(sorted(names)))
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


def _are_alike(names: List[str]) -> bool:
    """Whether names of images differ in a number of fixed width alone: then they sort by spelling, ten times as fast."""
    model = NUMBERED.fullmatch(names[0]) if names else None
    if model is None or Path(model[3]).suffix.lower() not in SUFFIXES or names[0].startswith("."):
        return False
    alike = re.compile(f"{re.escape(model[1])}[0-9]{{{len(model[2])}}}{re.escape(model[3])}").fullmatch
    return all(map(alike, names))


def _rank(name: str) -> int:
    return SUFFIXES.index("." + name.rpartition(".")[2].lower())


def first_folder(folder: Path, names: Iterable[str]) -> Path | None:
    """The first of some sub-folders that exists."""
    return next((folder / name for name in names if (folder / name).is_dir()), None)


def first_file(folder: Path, names: Iterable[str]) -> Path | None:
    """The first of some files that exists."""
    return next((folder / name for name in names if (folder / name).is_file()), None)


def need_folder(folder: Path, names: List[str]) -> Path:
    """The first of some sub-folders of a sequence that exists.

    Raises:
        UserError: None does.
    """
    found = first_folder(folder, names)
    if found is None:
        raise UserError(f"sequence '{folder.name}': {folder} has no folder {' or '.join(names)}.")
    return found


def need_file(folder: Path, names: List[str]) -> Path:
    """The first of some files of a sequence that exists.

    Raises:
        UserError: None does.
    """
    found = first_file(folder, names)
    if found is None:
        raise UserError(f"sequence '{folder.name}': {folder} has no {' or '.join(names)}.")
    return found


def find_apart(folder: Path, root: Path, names: Iterable[str]) -> Path | None:
    """The first of some files that lies beside a sequence, or in a folder above it, up to the root of the dataset."""
    above = [parent for parent in folder.parents if parent == root or root in parent.parents]
    return next((parent / name for parent in above for name in names if (parent / name).is_file()), None)


class UnreadableSequencesError(UserError):
    """Sequences that cannot be read: the message says why of five of them, `each` of all."""

    def __init__(self, each: List[str]) -> None:
        rest = [f"and {len(each) - 5} more: `mst data check` lists all."] if len(each) > 5 else []
        rest.append("Put that right, or move the folders away: for sequences that are not there a warning is enough.")
        super().__init__("\n".join([*each[:5], *rest]))
        self.each = each


def read_each(folders: Iterable[Path], read: Callable[[Path], Sequence | None]) -> list[Sequence]:
    """All sequences but those without a target; what is wrong with several of them is said at once.

    Raises:
        UnreadableSequencesError: What is wrong with each.
    """
    found, wrong = [], []
    for folder in folders:
        try:
            sequence = read(folder)
        except UserError as error:
            wrong.append(str(error))
            continue
        if sequence is not None:
            found.append(sequence)
    if wrong:
        raise UnreadableSequencesError(wrong)
    return found


def find_sequences(root: Path, markers: Iterable[str], annotation: Iterable[str] = ()) -> dict[str, Path]:
    """Folders at most `DEPTH` levels below a root that hold one of some entries, by name; they are not searched further.

    Args:
        root: Folder of a dataset.
        markers: Names of entries with images; `<sequence>` in them is the folder's own name.
        annotation: Names of other entries that make a folder a sequence; one with images goes before it.

    Raises:
        UserError: The root is no folder.
    """
    if not root.is_dir():
        raise UserError(f"there is no folder {root}.")
    wanted, lesser = tuple(markers), set(annotation)
    found: dict[str, tuple[Path, bool]] = {}
    for folder, names, below in walk(root):
        images = not names.isdisjoint(marker.replace("<sequence>", folder.name) for marker in wanted)
        if not images and names.isdisjoint(lesser):
            continue
        below.clear()
        rival, better = found.setdefault(folder.name, (folder, images))
        if images and not better:
            found[folder.name] = folder, images
        elif rival != folder and images:
            warn(folder.name, "twice", f"lies in {rival} and in {folder}; the first is read.")
    return {name: folder for name, (folder, _) in found.items()}


def find_named(root: Path, wanted: Callable[[str], bool]) -> Iterator[Path]:
    """Folders of certain names at most `DEPTH` levels below a root; they are not looked into."""
    for folder, _, below in walk(root):
        found = [name for name in below if wanted(name)]
        below[:] = [name for name in below if not wanted(name)]
        yield from (folder / name for name in found)


def walk(folder: Path, levels: int = DEPTH) -> Iterator[tuple[Path, set[str], list[str]]]:
    """A folder and those below it, in natural order: path, names of all entries, names of the folders that are walked next.

    What a caller removes from the last is not walked. A folder that cannot be read is a warning.
    """
    try:
        with os.scandir(folder) as entries:
            kinds = {entry.name: bool(levels) and not entry.name.startswith(SHADOWS) and _is_folder(entry) for entry in entries}
    except OSError as error:
        warn(folder.name, "folder", f"{error.filename or folder} cannot be read: {error.strerror}.")
        return
    below = sorted((name for name, is_folder in kinds.items() if is_folder), key=natural)
    yield folder, set(kinds), below
    for name in below:
        yield from walk(folder / name, levels - 1)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads nowhere
        return False


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

    - Modalities are paired by `alignment.pair`.
    - Where colour frames are missing in front or in the middle and the annotation has a row for each of them, the rows are
      matched by the numbers in the names; where it has another number of rows, nobody knows which belong together, and the
      sequence is left out.
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
        The sequence; None, with a warning, where no frame has a target, or boxes and frames cannot be matched.
    """
    frames = len(rgb)
    if len(boxes) not in (1, frames) and lacks_frames(rgb, len(boxes), aux):
        rows = match_rows(rgb, len(boxes), aux)
        if rows is None:
            text = f"{len(boxes)} boxes for {frames} frames, some missing by their numbers: which belong together is not known"
            warn(name, "gap", f"{text}; the sequence is left out.")
            return None
        lost = len(boxes) - frames
        text = f"{lost} of {len(boxes)} colour frames are missing; by the numbers in the names, their boxes are left out."
        warn(name, "gap", text)
        if present is not None and len(present) == len(boxes):
            present = present[rows]
        if aux_boxes is not None and len(aux_boxes) == len(boxes):
            aux_boxes = aux_boxes[rows]
        boxes = boxes[rows]
    if aux is not None:
        aux = pair(name, rgb, aux, modality)
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
        for pattern, item in items.items():
            first = "" if item.first is None else f", from {_first_number(pattern, item.first)}"
            lines.append(f"    {pattern:<{width}}  {item.text}{first}")
    return "\n".join(lines)


def _first_number(pattern: str, first: int) -> str:
    found = re.search(r"%\d*d", pattern)
    return found.group() % first if found else str(first)
