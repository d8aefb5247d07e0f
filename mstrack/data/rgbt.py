"""Colour frames with thermal ones: LasHeR and RGBT234."""

from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mstrack.data.annotations import UnreadableError, read_attributes, read_boxes, read_flags
from mstrack.data.layout import (
    Item,
    Tree,
    assemble,
    find_apart,
    find_sequences,
    list_frames,
    need_file,
    need_folder,
    read_each,
)
from mstrack.data.sequence import Sequence
from mstrack.data.splits import read_list, select
from mstrack.errors import UserError, warn

LASHER_ATTRIBUTES = (
    *("NO", "PO", "TO", "HO", "MB", "LI", "HI", "AIV", "LR", "DEF"),
    *("BC", "SA", "CM", "TC", "FL", "OV", "FM", "SV", "ARC"),
)
"""Challenges of LasHeR, in the order of its files."""
RGBT234_ATTRIBUTES = ("BC", "CM", "DEF", "FM", "HO", "LI", "LR", "MB", "NO", "PO", "SC", "TC")
"""Challenges of RGBT234, each a file with a flag per sequence."""

_BOXES = Item("boxes", "x,y,w,h per line, no size where the target is absent")
_THERMAL_BOXES = Item("boxes", "boxes in the thermal frames (optional)")
_ATTRIBUTES = Item("attributes", "19 flags 0 or 1 (optional): " + " ".join(LASHER_ATTRIBUTES))

TREES: dict[str, Tree] = {
    "lasher": {
        "as released": {
            "<sequence>/visible/v_%05d.jpg": Item("rgb", "colour, under any name with a number", 1),
            "<sequence>/infrared/i_%05d.jpg": Item("thermal", "thermal, likewise", 1),
            "<sequence>/init.txt": _BOXES,
            "<sequence>/infrared.txt": _THERMAL_BOXES,
            "attr/<sequence>.txt": _ATTRIBUTES,
        },
        "renamed": {
            "<sequence>/visible/%06d.jpg": Item("rgb", "colour", 0),
            "<sequence>/infrared/%06d.jpg": Item("thermal", "thermal", 0),
            "<sequence>/visible.txt": _BOXES,
            "<sequence>/infrared.txt": _THERMAL_BOXES,
        },
        "numbered": {
            "<sequence>/visible/%04d.jpg": Item("rgb", "colour", 1),
            "<sequence>/infrared/%04d.jpg": Item("thermal", "thermal", 1),
            "<sequence>/groundtruth.txt": _BOXES,
        },
    },
    "rgbt234": {
        "as released": {
            "<sequence>/visible/%05dv.jpg": Item("rgb", "colour, under any name with a number", 1),
            "<sequence>/infrared/%05di.jpg": Item("thermal", "thermal, likewise", 1),
            "<sequence>/visible.txt": _BOXES,
            "<sequence>/infrared.txt": _THERMAL_BOXES,
            "attr_txt/<attribute>.txt": Item("text", "0 or 1 for each sequence, in the order of the list (optional)"),
        },
    },
}
"""Path patterns below the root, or below any folder in it (`testingset/`, ...), for each layout of each dataset."""


def lasher(root: Path, split: str) -> list[Sequence]:
    """LasHeR: aligned colour and thermal frames, 979 sequences for training and 245 for the test.

    The boxes are those of `init.txt`, else `groundtruth.txt`, else `visible.txt`; `infrared.txt` becomes `aux_boxes`.

    Args:
        root: Folder with the sequences.
        split: `train-official`, `train`, `val`, `test` or `all`.

    Raises:
        UserError: Unknown split; none of its sequences is there, or one lacks a part; an annotation is malformed.
    """
    found = find_sequences(root, ("visible", "infrared"), ("init.txt", "groundtruth.txt", "visible.txt"))
    return read_each(select("lasher", split, found, root, TREES["lasher"]), partial(_lasher_sequence, root=root))


def _lasher_sequence(folder: Path, root: Path) -> Sequence | None:
    flags = find_apart(folder, root, [f"{part}/{folder.name}.txt" for part in ("attr", "att", "attributes", "AttriSeqsTxt")])
    attributes = read_attributes(flags, LASHER_ATTRIBUTES) if flags else ()
    return _read(folder, ("init.txt", "groundtruth.txt", "visible.txt"), attributes)


def rgbt234(root: Path, split: str) -> list[Sequence]:
    """RGBT234: colour and thermal frames, each with boxes of its own, 234 sequences for tests only.

    Args:
        root: Folder with the sequences.
        split: `test` or `all`.

    Raises:
        UserError: Unknown split; none of its sequences is there, or one lacks a part; an annotation is malformed.
    """
    found = find_sequences(root, ("visible", "infrared"), ("visible.txt", "init.txt"))
    folders = select("rgbt234", split, found, root, TREES["rgbt234"])
    attributes = _read_attribute_files(root / "attr_txt")
    names = ("visible.txt", "init.txt", "groundtruth.txt")
    return read_each(folders, lambda folder: _read(folder, names, attributes.get(folder.name, ())))


def _read_attribute_files(folder: Path) -> dict[str, tuple[str, ...]]:
    """Attributes of each sequence, from files with a flag per sequence; nothing where there are none."""
    files = [(attribute, folder / f"{attribute}.txt") for attribute in RGBT234_ATTRIBUTES]
    names = read_list("rgbt234", "test").names
    flags: dict[str, NDArray[np.bool_]] = {}
    for attribute, file in files:
        try:
            flags |= {attribute: read_flags(file)} if file.is_file() else {}
        except UnreadableError as error:
            warn(file.name, "attributes", f"{error} The attribute is left out.")
    for attribute, found in flags.items():
        if len(found) != len(names):
            raise UserError(f"{folder / attribute}.txt: {len(found)} flags for {len(names)} sequences.")
    return {name: tuple(attribute for attribute in flags if flags[attribute][index]) for index, name in enumerate(names)}


def _read(folder: Path, annotation: tuple[str, ...], attributes: tuple[str, ...]) -> Sequence | None:
    rgb = list_frames(need_folder(folder, ("visible",)))
    aux = list_frames(need_folder(folder, ("infrared",)))
    boxes = read_boxes(need_file(folder, annotation))
    second = folder / "infrared.txt"
    aux_boxes = read_boxes(second) if second.is_file() else None
    return assemble(folder.name, rgb, boxes, None, aux, "thermal", attributes, aux_boxes)
