"""Colour frames with depth: DepthTrack, and folders of the VOT toolkit (CDTB, VOT-RGBD, VOT-RGBT)."""

import re
from pathlib import Path

from mstrack.data.annotations import UnreadableError, read_boxes, read_flags, read_text
from mstrack.data.layout import (
    Item,
    Tree,
    assemble,
    describe_tree,
    find_sequences,
    first_file,
    list_frames,
    natural,
    need_file,
    need_folder,
    read_each,
)
from mstrack.data.sequence import Sequence
from mstrack.data.splits import select, warn_missing
from mstrack.errors import UserError, warn
from mstrack.registry import unknown

_COLOUR = Item("rgb", "colour", 1)
_DEPTH = Item("depth16", "16 bits, millimetres, 0 where nothing was measured", 1)
_BOXES = Item("boxes", "x,y,w,h per line, nan where the target is absent")
_TAGS = Item("tags", "an attribute: 0 or 1 per frame (optional)")

TREES: dict[str, Tree] = {
    "depthtrack": {
        "as released": {
            "<sequence>/color/%08d.jpg": _COLOUR,
            "<sequence>/depth/%08d.png": _DEPTH,
            "<sequence>/groundtruth.txt": _BOXES,
            "<sequence>/<tag>.tag": _TAGS,
        },
        "coloured": {
            "<sequence>/color/%08d.jpg": _COLOUR,
            "<sequence>/depth_color/%08d.jpg": Item("colour", "depth as colours; read only where there is no depth", 1),
            "<sequence>/groundtruth.txt": _BOXES,
        },
    },
    "vot-rgbd": {
        "depth": {
            "list.txt": Item("names", "a sequence per line, in order (optional)"),
            "<sequence>/color/%08d.jpg": _COLOUR,
            "<sequence>/depth/%08d.png": _DEPTH,
            "<sequence>/groundtruth.txt": Item("boxes", "x,y,w,h or four corners per line, nan if absent; or the first alone"),
            "<sequence>/<tag>.tag": _TAGS,
        },
        "thermal": {
            "<sequence>/sequence": Item("channels", "channels.color=color/%08d.jpg and channels.depth= or channels.ir="),
            "<sequence>/color/%08d.jpg": _COLOUR,
            "<sequence>/ir/%08d.jpg": Item("thermal", "thermal", 1),
            "<sequence>/groundtruth.txt": _BOXES,
        },
    },
}
"""Path patterns below the root, or below any folder in it (`train/`, ...), for each layout of each dataset."""
CHANNELS = {"depth": "depth", "ir": "thermal"}
"""Second channels of the VOT toolkit, and the modality that they are."""
SPLITS = {"vot-rgbd": ("test", "all")}


def depthtrack(root: Path, split: str) -> list[Sequence]:
    """DepthTrack: colour and depth of an Intel RealSense, 152 sequences for training and 50 for the test.

    Attributes are the tags that are 1 in any frame.

    Args:
        root: Folder with the sequences.
        split: `train-official`, `train`, `val`, `test` or `all`.

    Raises:
        UserError: Unknown split; none of its sequences is there, or one lacks a part; an annotation is malformed.
    """
    found = find_sequences(root, ("color",), ("groundtruth.txt",))
    return read_each(select("depthtrack", split, found, root, TREES["depthtrack"]), _depthtrack_sequence)


def _depthtrack_sequence(folder: Path) -> Sequence | None:
    rgb = list_frames(need_folder(folder, ("color",)))
    aux = list_frames(need_folder(folder, ("depth", "depth_color")))
    boxes = read_boxes(need_file(folder, ("groundtruth.txt",)))
    return assemble(folder.name, rgb, boxes, aux=aux, modality="depth", attributes=_read_tags(folder))


# ---------------------------------------------------------------- folders of the VOT toolkit
def vot_rgbd(root: Path, split: str) -> list[Sequence]:
    """Sequences as the VOT toolkit has them, with depth or thermal: CDTB, VOT-RGBD, VOT-RGBT, or those of a workspace.

    Attributes are the tags that are 1 in any frame. Where `groundtruth.txt` has one line, only the start is public.

    Args:
        root: Folder with the sequences, or a workspace with them in `sequences`.
        split: `test` or `all`: every sequence of `list.txt`, in its order; or on disk, where there is no such list.

    Raises:
        UserError: Unknown split; no sequence is there, or one lacks a part; an annotation is malformed.
    """
    if split not in SPLITS["vot-rgbd"]:
        raise UserError(unknown("split of vot-rgbd", split, SPLITS["vot-rgbd"]))
    found = find_sequences(root, ("sequence", "color"), ("groundtruth.txt",))
    names = _listed(root) or sorted(found, key=natural)
    missing = [name for name in names if name not in found]
    if len(missing) == len(names):
        raise UserError(f"vot-rgbd: {root} has none. Expected one of these layouts:\n{describe_tree(TREES['vot-rgbd'])}")
    warn_missing(f"vot-rgbd/{split}", missing, len(names), root)
    return read_each((found[name] for name in names if name in found), _vot_sequence)


def _listed(root: Path) -> list[str]:
    """The names in `list.txt`; none where there is no such file."""
    file = first_file(root, ("list.txt", "sequences/list.txt"))
    return [line.strip() for line in read_text(file, "list").splitlines() if line.strip()] if file else []


def _vot_sequence(folder: Path) -> Sequence | None:
    channels = _read_channels(folder)
    rgb = list_frames(need_folder(folder, (channels.get("color", "color"),)))
    second = next((channel for channel in CHANNELS if channel in channels or (folder / channel).is_dir()), "depth")
    aux = list_frames(need_folder(folder, (channels.get(second, second),)))
    return assemble(
        folder.name,
        rgb,
        read_boxes(need_file(folder, ("groundtruth.txt",))),
        aux=aux,
        modality=CHANNELS[second],
        attributes=_read_tags(folder),
    )


def _read_tags(folder: Path) -> tuple[str, ...]:
    """The attributes of a sequence, from the VOT toolkit's files of tags."""
    return tuple(file.stem for file in sorted(folder.glob("*.tag")) if _is_tagged(file))


def _is_tagged(file: Path) -> bool:
    """Whether a tag is 1 in any frame; not, with a warning, where the file cannot be read."""
    try:
        return bool(read_flags(file).any())
    except UnreadableError as error:
        warn(file.parent.name, "attributes", f"{error} It is left out.")
        return False


def _read_channels(folder: Path) -> dict[str, str]:
    """Folder of each channel, as the file `sequence` says; nothing where there is no such file."""
    file = folder / "sequence"
    if not file.is_file():
        return {}
    found = re.findall(r"^channels\.(\w+)\s*=\s*(.+?)/[^/\n]*$", read_text(file, "description"), flags=re.MULTILINE)
    return dict(found)
