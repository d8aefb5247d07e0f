"""Colour or grey frames with events: FE108, VisEvent and COESOT."""

import re
from collections.abc import Iterator
from collections.abc import Sequence as List
from functools import partial
from importlib import resources
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mstrack.data.annotations import orient_flags, read_attributes, read_boxes, read_flags, read_text
from mstrack.data.events.source import check_recipe, read_events
from mstrack.data.images import FrameFile
from mstrack.data.layout import (
    Item,
    Tree,
    assemble,
    find_apart,
    find_sequences,
    first_file,
    list_frames,
    need_file,
    need_folder,
    read_each,
)
from mstrack.data.sequence import Sequence
from mstrack.data.splits import select
from mstrack.data.stack import list_stacks
from mstrack.errors import UserError, warn

ATTRIBUTES = ("CM", "ROT", "DEF", "FOC", "LI", "OV", "POC", "VC", "SV", "BC", "MB", "ARC", "FM", "NMO", "IV", "OE", "BOM")
"""Challenges of VisEvent and COESOT, in the order of their files."""
ATTRIBUTE_FOLDERS = ("att", "attributes", "annos/att")

_BOXES = Item("boxes", "x,y,w,h per line, a line per frame")
_PRESENT = Item("flags", "0 or 1 per line, 1 = present")
_EVENTS = Item("events", "the recording, rendered where there are no event frames")
_ATTRIBUTES = Item("attributes", "17 flags 0 or 1 (optional): " + " ".join(ATTRIBUTES))

TREES: dict[str, Tree] = {
    "fe108": {
        "stacks": {
            "<sequence>/img/%04d.jpg": Item("grey", "grey frames", 1),
            "<sequence>/inter3_stack/%04d_<part>.jpg": Item("parts", "events of a third of the interval, <part> 1, 2, 3", 1),
            "<sequence>/groundtruth_rect.txt": _BOXES,
        },
        "event frames": {
            "<sequence>/img/%04d.jpg": Item("grey", "grey frames", 1),
            "<sequence>/evimg/%04d.jpg": Item("event", "event frames", 1),
            "<sequence>/groundtruth.txt": _BOXES,
        },
        "recordings": {
            "<sequence>/img/%04d.jpg": Item("grey", "grey frames", 1),
            "<sequence>/events.aedat4": _EVENTS,
            "<sequence>/groundtruth_rect.txt": _BOXES,
            "start_frame_idx_FE108.txt": Item(
                "offsets", "name,number: which of the recording's frames, from 0, is image 0001 (or pair.txt; or as published)"
            ),
        },
    },
    "visevent": {
        "as released": {
            "<sequence>/vis_imgs/frame%04d.bmp": Item("rgb", "colour", 0),
            "<sequence>/event_imgs/frame%04d.bmp": Item("event", "event frames", 0),
            "<sequence>/groundtruth.txt": _BOXES,
            "<sequence>/absent_label.txt": _PRESENT,
            "att/<sequence>.txt": _ATTRIBUTES,
        },
        "renamed": {
            "<sequence>/img/%04d.jpg": Item("rgb", "colour", 1),
            "<sequence>/evimg/%04d.jpg": Item("event", "event frames", 1),
            "<sequence>/groundtruth.txt": _BOXES,
            "<sequence>/absent.txt": _PRESENT,
        },
        "recordings": {
            "<sequence>/vis_imgs/frame%04d.bmp": Item("rgb", "colour", 0),
            "<sequence>/<sequence>.aedat4": _EVENTS,
            "<sequence>/groundtruth.txt": _BOXES,
            "<sequence>/absent_label.txt": _PRESENT,
        },
        "annotation apart": {
            "<sequence>/vis_imgs/frame%04d.bmp": Item("rgb", "colour", 0),
            "<sequence>/event_imgs/frame%04d.bmp": Item("event", "event frames", 0),
            "gt_rect/<sequence>.txt": _BOXES,
            "absent/<sequence>.txt": Item("absent", "0 or 1 per line, 1 = absent"),
            "att/<sequence>.txt": _ATTRIBUTES,
        },
    },
    "coesot": {
        "as released": {
            "<sequence>/<sequence>_aps/frame%04d.png": Item("rgb", "colour, or .bmp", 0),
            "<sequence>/<sequence>_dvs/frame%04d.png": Item("event", "event frames, or .bmp", 0),
            "<sequence>/groundtruth.txt": _BOXES,
            "<sequence>/absent.txt": _PRESENT,
            "<sequence>/start_end_index.txt": Item("text", "first and last frame with the target, from 1; not needed"),
            "att/<sequence>.txt": _ATTRIBUTES,
        },
        "renamed": {
            "<sequence>/img/%04d.jpg": Item("rgb", "colour", 1),
            "<sequence>/evimg/%04d.jpg": Item("event", "event frames", 1),
            "<sequence>/groundtruth.txt": _BOXES,
            "<sequence>/absent.txt": _PRESENT,
        },
        "recordings": {
            "<sequence>/<sequence>_aps/frame%04d.bmp": Item("rgb", "colour", 0),
            "<sequence>/<sequence>.aedat4": _EVENTS,
            "<sequence>/groundtruth.txt": _BOXES,
            "<sequence>/absent.txt": _PRESENT,
        },
    },
}
"""Path patterns below the root, or below any folder in it (`train/`, ...), for each layout of each dataset."""


def fe108(root: Path, split: str, events: str | None = None) -> list[Sequence]:
    """FE108: grey frames of a DAVIS346 with events, 76 sequences for training and 32 for the test; every frame has its target.

    Where events are rendered from a recording, image 0001 is the recording's frame `offset`, counted from 0 (the meaning that
    the authors' stacking script gives to it): from `start_frame_idx_FE108.txt` or `pair.txt` in the root or beside the
    sequence, else from the published list that comes with this package.

    Args:
        root: Folder with the sequences.
        split: `train-official`, `train-srtrack`, `train`, `val`, `test` or `all`.
        events: See `read_events`; the published frames are `inter3_stack`, then `evimg`.

    Raises:
        UserError: Unknown split or recipe; none of its sequences is there, or one lacks a part; an annotation is malformed.
    """
    check_recipe(events)
    folders = _select("fe108", root, split, ("img", "inter3_stack", "evimg"), ("groundtruth_rect.txt", "groundtruth.txt"))
    return read_each(folders, partial(_fe108_sequence, root=root, events=events))


def _fe108_sequence(folder: Path, root: Path, events: str | None) -> Sequence | None:
    rgb = list_frames(need_folder(folder, ("img",)))
    boxes = read_boxes(need_file(folder, ("groundtruth_rect.txt", "groundtruth.txt")))
    aux: List[FrameFile | None]
    if events is None and (folder / "inter3_stack").is_dir():
        aux = list_stacks(folder / "inter3_stack")
    elif events is None and (folder / "evimg").is_dir():
        aux = list_frames(folder / "evimg")
    else:
        offset = _find_offset(folder, root)
        aux = read_events(folder, events, ("inter3_stack", "evimg"), rgb, len(boxes), offset or 0)
        if offset is None:
            warn(folder.name, "offset", "no list says which frame of the recording is its first image: it is left out.")
            return None
    return assemble(folder.name, rgb, boxes, aux=aux, modality="event")


def visevent(root: Path, split: str, events: str | None = None) -> list[Sequence]:
    """VisEvent: colour frames of a DAVIS346 with events, 500 sequences for training and 320 for the test.

    Args:
        root: Folder with the sequences.
        split: `train-official`, `train-aedat4` (the 206 with a usable recording), `train-293` and `test-218` (SRTrack's),
            `train`, `val`, `test`, `test-172` (CEUTrack's) or `all`.
        events: See `read_events`; the published frames are `event_imgs`, or `evimg`.

    Raises:
        UserError: Unknown split or recipe; none of its sequences is there, or one lacks a part; an annotation is malformed.
    """
    check_recipe(events)
    images = ("vis_imgs", "img")
    published = ("event_imgs", "evimg")
    folders = _select("visevent", root, split, images + published, ("groundtruth.txt", "absent_label.txt"))
    return read_each(folders, partial(_davis_sequence, root=root, events=events, images=images, published=published))


def coesot(root: Path, split: str, events: str | None = None) -> list[Sequence]:
    """COESOT: colour frames of a DAVIS346 with events, 826 sequences for training and 528 for the test.

    `groundtruth.txt` and `absent.txt` have a line for every frame; `start_end_index.txt` repeats which is the first and the
    last with the target (true of 516 of the 528 test sequences, late or early by some frames in the others) and is not read.
    Leading frames without the target are cut off by `assemble`, trailing ones stay: the official curves have a point for each
    line of `groundtruth.txt`.

    Args:
        root: Folder with the sequences.
        split: `train-official`, `train-824` (SRTrack's), `train`, `val`, `test`, `test-527` (of the MATLAB kit) or `all`.
        events: See `read_events`; the published frames are `<sequence>_dvs`, or `evimg`.

    Raises:
        UserError: Unknown split or recipe; none of its sequences is there, or one lacks a part; an annotation is malformed.
    """
    check_recipe(events)
    images = ("<sequence>_aps", "img")
    published = ("<sequence>_dvs", "evimg")
    annotation = ("groundtruth.txt", "absent.txt", "start_end_index.txt")
    folders = _select("coesot", root, split, images + published, annotation)
    return read_each(folders, partial(_davis_sequence, root=root, events=events, images=images, published=published))


def _davis_sequence(folder: Path, root: Path, events: str | None, images: List[str], published: List[str]) -> Sequence | None:
    """A sequence of VisEvent or COESOT."""
    name = folder.name
    images, published = ([part.replace("<sequence>", name) for part in parts] for parts in (images, published))
    rgb = list_frames(need_folder(folder, images))
    file = first_file(folder, ("groundtruth.txt",)) or find_apart(folder, root, _apart("gt_rect", name))
    if file is None:
        raise UserError(f"sequence '{name}': {folder} has no groundtruth.txt, nor is there a gt_rect/{name}.txt above it.")
    boxes = read_boxes(file)
    flags = _read_presence(folder, root)
    attributes = find_apart(folder, root, [f"{part}/{name}.txt" for part in ATTRIBUTE_FOLDERS])
    return assemble(
        name,
        rgb,
        boxes,
        None if flags is None else orient_flags(flags, boxes, name),
        read_events(folder, events, published, rgb, len(boxes)),
        "event",
        read_attributes(attributes, ATTRIBUTES) if attributes else (),
    )


def _read_presence(folder: Path, root: Path) -> NDArray[np.bool_] | None:
    """The flags of a sequence: 1 = present in its own files, 1 = absent in VisEvent's folder of them; None: there are none."""
    inside = first_file(folder, ("absent_label.txt", "absent.txt"))
    if inside:
        return read_flags(inside, present=1)
    apart = find_apart(folder, root, _apart("absent", folder.name))
    return read_flags(apart, present=0) if apart else None


def _apart(kind: str, name: str) -> list[str]:
    return [f"{kind}/{name}.txt", f"annos/{kind}/{name}.txt"]


def _select(dataset: str, root: Path, split: str, images: List[str], annotation: List[str]) -> list[Path]:
    return select(dataset, split, find_sequences(root, images, annotation), root, TREES[dataset])


# ---------------------------------------------------------------- FE108's offsets
OFFSET_FILES = ("start_frame_idx_FE108.txt", "pair.txt")


def _find_offset(folder: Path, root: Path) -> int | None:
    """Which frame of the recording, from 0, is the sequence's first image; None where no list says so."""
    file = find_apart(folder, root, OFFSET_FILES)
    if file:
        found = dict(_read_offsets(file))
        if folder.name in found:
            return found[folder.name]
    published = resources.files("mstrack") / "data" / "lists" / "fe108.offsets"
    return dict(_read_offsets(Path(str(published)))).get(folder.name)


def _read_offsets(path: Path) -> Iterator[tuple[str, int]]:
    """Lines of a name and a number; commas, tabs and spaces separate."""
    for number, line in enumerate(read_text(path, "list").splitlines(), start=1):
        words = re.split(r"[,;\s]+", line.strip())
        if len(words) == 2 and words[1].isdecimal():
            yield words[0], int(words[1])
        elif line.strip():
            raise UserError(f"{path}, line {number}: '{line.strip()[:80]}' is not a name and a number, such as airplane,105.")
