"""The RGB sets that foundation trackers are trained on: GOT-10k, LaSOT, TrackingNet, and COCO's still images."""

import os
import re
from collections.abc import Sequence as List
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mstrack.data.annotations import read_boxes, read_flags, read_text, usable
from mstrack.data.layout import Item, Tree, assemble, describe_tree, find_named, first_folder, natural, read_each
from mstrack.data.numbered import list_numbered
from mstrack.data.sequence import Sequence
from mstrack.data.splits import warn_missing
from mstrack.data.stills import Stills, read_instances
from mstrack.errors import UserError, warn
from mstrack.registry import unknown

_BOXES = Item("boxes", "x,y,w,h per line")
_LASOT = {
    "img/%08d.jpg": Item("rgb", "colour", 1),
    "groundtruth.txt": _BOXES,
    "full_occlusion.txt": Item("absent", "one line of 0 and 1, commas between, 1 = occluded"),
    "out_of_view.txt": Item("absent", "one line of 0 and 1, commas between, 1 = out of view"),
}
_LASOT_LIST = {"training_set.txt": Item("text", "1,120 sequences, one per line; or testing_set.txt with the other 280")}
TREES: dict[str, Tree] = {
    "got10k": {
        "as released": {
            "<split>/<sequence>/%08d.jpg": Item("rgb", "colour", 1),
            "<split>/<sequence>/groundtruth.txt": _BOXES,
            "<split>/<sequence>/absence.label": Item("absent", "0 or 1 per line, 1 = absent (not in test)"),
            "<split>/<sequence>/cover.label": Item("text", "visible part per line, 0 to 8 eighths (not in test)"),
            "<split>/list.txt": Item("text", "a sequence per line (optional)"),
        }
    },
    "lasot": {
        "by category": {**{f"<category>/<category>-<number>/{path}": item for path, item in _LASOT.items()}, **_LASOT_LIST},
        "flat": {**{f"<category>-<number>/{path}": item for path, item in _LASOT.items()}, **_LASOT_LIST},
    },
    "trackingnet": {
        "as released": {
            "<part>/frames/<sequence>/%d.jpg": Item("rgb", "colour; <part>: TRAIN_0 to TRAIN_11, TEST", 0),
            "<part>/anno/<sequence>.txt": Item("boxes", "x,y,w,h per line (TEST: the first frame only)"),
        }
    },
    "coco": {
        "2017": {
            "<split>2017/%012d.jpg": Item("rgb", "colour, the number is the image's; also below images/"),
            "annotations/instances_<split>2017.json": Item("boxes", "COCO's instances: images and annotations"),
        }
    },
}
"""Path patterns below the root, and what the files hold, for each layout of each dataset."""

SPLITS = {
    "got10k": ("train", "val", "test", "all"),
    "lasot": ("train", "val", "train-official", "test", "all"),
    "trackingnet": ("train", "val", "train-official", "test", "all"),
    "coco": ("train", "val"),
}
HELD_OUT_CATEGORIES = ("monkey", "crocodile", "racing", "bus", "rubicCube")
"""LaSOT's `val`: the training sequences of 5 of the 70 categories, the first by the SHA-256 of their names."""
TRACKINGNET = (*(f"TRAIN_{part}" for part in range(12)), "TEST")
"""Its parts; `val` is the last of those for training."""
GOT10K, LASOT = r"GOT-10k_{}_\d+", re.compile(r"[A-Za-z]+-\d+")
"""Names of sequences."""


def got10k(root: Path, split: str) -> list[Sequence]:
    """GOT-10k: 9,335 training, 180 validation and 180 test sequences, official and disjoint in their classes.

    A frame is valid where the target is not absent and not wholly covered.

    Args:
        root: Folder that holds `train`, `val` and `test`; their sequences may lie deeper.
        split: `train`, `val`, `test` (of which only the first box is public) or `all`.

    Raises:
        UserError: Unknown split, or none of its sequences is there; an annotation is malformed.
    """
    _check_split("got10k", split)
    kind = "[A-Za-z]+" if split == "all" else split.capitalize()
    found = _find(root, re.compile(GOT10K.format(kind)))
    if not found:
        raise _nothing("got10k", split, root)
    listed = {name for file in {path.parent / "list.txt" for path in found.values()} for name in _lines(file)}
    warn_missing(f"got10k/{split}", sorted(listed - found.keys()), len(listed), root)
    return read_each(found.values(), _got10k_sequence)


def _got10k_sequence(folder: Path) -> Sequence | None:
    boxes = read_boxes(folder / "groundtruth.txt")
    present = _flags(folder / "absence.label")
    cover = folder / "cover.label"
    if cover.is_file():
        seen = _cover(cover)
        present = seen if present is None or len(present) != len(seen) else present & seen
    return assemble(folder.name, list_numbered(folder, "%08d.jpg", 1), boxes, present)


def _cover(path: Path) -> NDArray[np.bool_]:
    try:
        return np.array([float(line) > 0 for line in _lines(path)])
    except ValueError as error:
        raise UserError(f"{path}: expected a number from 0 to 8 per line: {error}.") from error


def lasot(root: Path, split: str) -> list[Sequence]:
    """LaSOT: 1,400 sequences of 70 categories, 16 of each category for training and 4 for the test.

    Args:
        root: Folder of the categories, or of all sequences; with `training_set.txt` or `testing_set.txt`.
        split: `train` without, and `val` with, the categories `HELD_OUT_CATEGORIES`; `train-official`: both; `test`; `all`.

    Raises:
        UserError: Unknown split, none of its sequences is there, or neither list is; an annotation is malformed.
    """
    _check_split("lasot", split)
    found = _find(root, LASOT)
    if not found:
        raise _nothing("lasot", split, root)
    names = list(found) if split == "all" else _lasot_names(root, split, found)
    warn_missing(f"lasot/{split}", [name for name in names if name not in found], len(names), root)
    folders = [found[name] for name in names if name in found]
    if not folders:
        raise _nothing("lasot", split, root)
    return read_each(folders, _lasot_sequence)


def _lasot_names(root: Path, split: str, found: dict[str, Path]) -> list[str]:
    """The names of a split by the official lists; one of them is enough, the other split is the rest."""
    places = {root} | {parent for path in found.values() for parent in path.parents[:2]}
    train, test = (
        [n for place in sorted(places) for n in _lines(place / f"{part}_set.txt")] for part in ("training", "testing")
    )
    if not train and not test:
        raise UserError(
            f"lasot: {root} has neither training_set.txt nor testing_set.txt, which say what belongs to '{split}'. They come"
            " with the data set (LaSOT.zip) and with its toolkit (github.com/HengLan/LaSOT_Evaluation_Toolkit, folder"
            " sequence_evaluation_config): put them there, or ask for the split 'all'."
        )
    if split == "test":
        return test or [name for name in found if name not in set(train)]
    official = train or [name for name in found if name not in set(test)]
    if split == "train-official":
        return official
    return [name for name in official if (name.rpartition("-")[0] in HELD_OUT_CATEGORIES) == (split == "val")]


def _lasot_sequence(folder: Path) -> Sequence | None:
    boxes = read_boxes(folder / "groundtruth.txt")
    flags = [_flags(folder / name) for name in ("full_occlusion.txt", "out_of_view.txt")]
    present = [part for part in flags if part is not None]
    if len({len(part) for part in present}) > 1:
        warn(folder.name, "flags", f"{len(present[0])} occlusion and {len(present[1])} out-of-view flags: only boxes count.")
        present = []
    both = np.logical_and.reduce(present) if present else None
    return assemble(folder.name, list_numbered(folder / "img", "%08d.jpg", 1), boxes, both)


def trackingnet(root: Path, split: str) -> list[Sequence]:
    """TrackingNet: 30,132 training sequences in 12 parts, and 511 for the test.

    Args:
        root: Folder that holds `TRAIN_0` to `TRAIN_11` and `TEST`; parts that are not there are named in a warning.
        split: `train`: parts 0 to 10. `val`: part 11. `train-official`: all twelve. `test` (of which only the first box is
            public). `all`.

    Raises:
        UserError: Unknown split, or none of its sequences is there; an annotation is malformed.
    """
    _check_split("trackingnet", split)
    *train, held_out, test = TRACKINGNET
    official = [*train, held_out]
    parts = {"train": train, "val": [held_out], "train-official": official, "test": [test], "all": TRACKINGNET}[split]
    there = [part for part in parts if (root / part / "anno").is_dir()]
    if not there:
        raise _nothing("trackingnet", split, root)
    warn_missing(f"trackingnet/{split}", [part for part in parts if part not in there], len(parts), root, "parts")
    files = [file for part in there for file in _trackingnet_files(root / part)]
    return read_each(files, _trackingnet_sequence)


def _trackingnet_files(part: Path) -> list[Path]:
    """The annotations of one part whose frames are there."""
    frames = part / "frames"
    folders = set(_names(frames)) if frames.is_dir() else set()
    files = sorted(name for name in _names(part / "anno") if name.endswith(".txt"))
    lacking = [name[:-4] for name in files if name[:-4] not in folders]
    warn_missing(f"trackingnet/{part.name}", lacking, len(files), frames, "sequences' frames")
    return [part / "anno" / name for name in files if name[:-4] in folders]


def _trackingnet_sequence(file: Path) -> Sequence | None:
    frames = file.parent.parent / "frames" / file.stem
    return assemble(file.stem, list_numbered(frames, "%d.jpg", 0), read_boxes(file))


def coco(root: Path, split: str) -> List[Sequence]:
    """COCO 2017 as sequences of one frame, one for each annotation of a single object; crowds are left out.

    Args:
        root: Folder that holds `annotations`, and `train2017` and `val2017` or `images/train2017` and so on.
        split: `train` or `val`, the official ones.

    Returns:
        `Stills`, in the order of the numbers of images and annotations.

    Raises:
        UserError: Unknown split; annotation or images are not there, or the annotation is not COCO's.
    """
    _check_split("coco", split)
    file = root / "annotations" / f"instances_{split}2017.json"
    folder = _coco_images(root, split)
    if folder is None or not file.is_file():
        raise _nothing("coco", split, root)
    names, ids, boxes = read_instances(file)
    there = set(_names(folder))
    warn_missing(f"coco/{split}", sorted(name for name in names.values() if name not in there), len(names), folder, "images")
    files = [name for name in names.values() if name in there]
    index = {name: i for i, name in enumerate(files)}
    images = np.array([index.get(names.get(image, ""), -1) for image in ids[:, 0].tolist()], dtype=np.int32)
    sized = usable(boxes)
    if not sized.all():
        warn(f"coco/{split}", "boxes", f"{(~sized).sum()} annotations without a size are left out.")
    kept = np.flatnonzero((images >= 0) & sized)
    kept = kept[np.lexsort((ids[kept, 1], ids[kept, 0]))]
    return Stills(folder, files, images[kept], ids[kept], boxes[kept])


def _coco_images(root: Path, split: str) -> Path | None:
    return first_folder(root, (f"{split}2017", f"images/{split}2017"))


def count_folders(dataset: str, root: Path) -> dict[str, int]:
    """How many sequences lie below a root, by split (LaSOT: all together; COCO: images), by names of folders alone."""
    if dataset == "got10k":
        found = _find(root, re.compile(GOT10K.format("[A-Za-z]+")))
        return {split: sum(f"_{split.capitalize()}_" in name for name in found) for split in ("train", "val", "test")}
    if dataset == "lasot":
        return {"all": len(_find(root, LASOT))}
    if dataset == "trackingnet":
        counts = {part: len(_names(root / part / "anno")) for part in TRACKINGNET if (root / part / "anno").is_dir()}
        return {"train-official": sum(counts.values()) - counts.get("TEST", 0), "test": counts.get("TEST", 0)}
    folders = {split: _coco_images(root, split) for split in SPLITS["coco"]}
    return {split: len(_names(folder)) if folder else 0 for split, folder in folders.items()}


# ---------------------------------------------------------------- shared
def _check_split(dataset: str, split: str) -> None:
    if split not in SPLITS[dataset]:
        raise UserError(unknown(f"split of {dataset}", split, SPLITS[dataset]))


def _nothing(dataset: str, split: str, root: Path) -> UserError:
    tree = describe_tree(TREES[dataset])
    return UserError(f"{dataset}: {root} has nothing of '{split}'. Expected one of these layouts:\n{tree}")


def _find(root: Path, wanted: re.Pattern[str]) -> dict[str, Path]:
    """Folders of a certain name below a root, in natural order.

    Raises:
        UserError: The root is no folder.
    """
    if not root.is_dir():
        raise UserError(f"there is no folder {root}.")
    found = find_named(root, lambda name: wanted.fullmatch(name) is not None)
    return {folder.name: folder for folder in sorted(found, key=lambda folder: natural(folder.name))}


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)  # noqa: PTH208 - names alone, and fast
    except OSError as error:
        raise UserError(f"folder {folder} cannot be read: {error.strerror}.") from error


def _flags(path: Path) -> NDArray[np.bool_] | None:
    """The frames with the target, by a file of 1 = absent; None where there is no such file."""
    return read_flags(path, present=0) if path.is_file() else None


def _lines(path: Path) -> list[str]:
    """The lines of a text file; none where there is no such file."""
    return read_text(path, "list").split() if path.is_file() else []
