"""Miniatures of the real datasets, made from their `TREE`: a bright square that moves over noise, in both modalities."""

import datetime
import re
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from mstrack.data import own, rgbd, rgbe, rgbt
from mstrack.data.layout import Item
from mstrack.data.splits import read_list, split_names

MODULES: tuple[ModuleType, ...] = (rgbe, rgbd, rgbt, own)
VARIANTS = [(name, variant) for module in MODULES for name, tree in module.TREES.items() for variant in tree]
"""(dataset, layout) of all datasets that miniatures can be made of."""
OFFSET = 2
"""Frames of the recordings before the first image of FE108's miniatures."""
INTERVAL = 40_000
"""Microseconds between two frames of a recording."""

Boxes = NDArray[np.float64]
Image = NDArray[np.uint8]
Places = dict[str, dict[str, Boxes]]
"""Split -> name of the sequence -> (N, 4) boxes."""


def tree_of(dataset: str, variant: str) -> dict[str, Item]:
    return next(module.TREES[dataset][variant] for module in MODULES if dataset in module.TREES)


def miniature(
    dataset: str, variant: str, root: Path, frames: int = 6, size: tuple[int, int] = (48, 64), modality: str = "thermal"
) -> Places:
    """Make a dataset with a few of its real names: two sequences to train, one to validate, two to test.

    Args:
        dataset: Its name in the catalogue.
        variant: A layout of its `TREES`.
        root: Where.
        frames: Of each sequence.
        size: Height and width of the images.
        modality: What `aux` is in data of one's own.
    """
    tree = tree_of(dataset, variant)
    made = {}
    for split, count in (("train", 2), ("val", 1), ("test", 2)):
        listed = split in split_names(dataset)
        names = read_list(dataset, split).names[:count] if listed else [f"{split}{number}" for number in range(count)]
        if listed or split == "test" or any("<split>" in pattern for pattern in tree):
            made[split] = build(tree, root, names, frames, size, split=split, modality=modality)
    if dataset == "own":
        (root / "data.yaml").write_text(f"modality: {'event' if variant == 'recordings' else modality}\n")
    return made


def build(
    tree: dict[str, Item],
    root: Path,
    names: Iterable[str],
    frames: int = 6,
    size: tuple[int, int] = (48, 64),
    *,
    absent: Iterable[int] = (),
    split: str = "test",
    modality: str = "thermal",
) -> dict[str, Boxes]:
    """Make sequences as one variant of a `TREE` has them.

    Args:
        tree: Path pattern -> `Item`.
        root: Where.
        names: Of the sequences.
        frames: Of each.
        size: Height and width of the images.
        absent: Frames without target: nothing to see, a box of no size, a flag.
        split: What `<split>` stands for.
        modality: What files of the kind `aux` hold.

    Returns:
        Boxes of each sequence.
    """
    names, made = list(names), {}
    for name in names:
        boxes = move(name, frames, size)
        boxes[list(absent)] = 0
        made[name] = boxes
        for pattern, item in tree.items():
            kind = modality if item.kind == "aux" else item.kind
            place = root / pattern.replace("<split>", split).replace("<sequence>", name).replace("<tag>", "occlusion")
            if kind in PAINTERS or kind in WRITERS:
                place.parent.mkdir(parents=True, exist_ok=True)
            if kind in PAINTERS:
                write_images(place, kind, boxes, size, item.first or 0)
            elif kind in WRITERS:
                WRITERS[kind](place, boxes, size, item)
    for pattern, item in tree.items():
        if item.kind in ("offsets", "names"):
            with (root / pattern).open("a") as file:
                file.writelines(f"{name},{OFFSET}\r\n" if item.kind == "offsets" else f"{name}\n" for name in names)
    return made


def move(name: str, frames: int, size: tuple[int, int]) -> Boxes:
    """(N, 4) boxes of whole pixels that move through the image; another path for each name."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    extent = np.array([size[1] // 4, size[0] // 4])
    room = np.array([size[1], size[0]]) - extent
    start, end = rng.uniform(0.1, 0.35, 2) * room, rng.uniform(0.45, 0.7, 2) * room
    share = np.linspace(0, 1, frames)[:, None]
    return np.concatenate([np.rint(start + share * (end - start)), np.tile(extent, (frames, 1))], axis=1).astype(float)


# ---- images


def write_images(place: Path, kind: str, boxes: Boxes, size: tuple[int, int], first: int = 0) -> None:
    """One file per frame; `place` has a printf number. `parts`: three per frame."""
    for number, box in enumerate(boxes, start=first):
        image = PAINTERS[kind](box, size, np.random.default_rng(number))
        if kind == "parts":
            for part in range(3):
                write_image(Path(str(place).replace("<part>", str(part + 1)) % number), image[..., part])
        else:
            write_image(Path(str(place) % number), image)


def write_image(path: Path, image: NDArray[np.uint8] | NDArray[np.uint16]) -> None:
    path.write_bytes(cv2.imencode(path.suffix, image)[1].tobytes())


def _inside(box: Boxes) -> tuple[slice, slice]:
    x, y, w, h = box.astype(int)
    return slice(y, y + h), slice(x, x + w)


def _paint_colour(box: Boxes, size: tuple[int, int], rng: np.random.Generator) -> Image:
    image = rng.integers(0, 90, (*size, 3), dtype=np.uint8)
    image[_inside(box)] = (60, 180, 240)
    return image


def _paint_grey(box: Boxes, size: tuple[int, int], rng: np.random.Generator) -> Image:
    image = rng.integers(0, 90, size, dtype=np.uint8)
    image[_inside(box)] = 240
    return image


def _paint_events(box: Boxes, size: tuple[int, int], rng: np.random.Generator) -> Image:
    image = np.full((*size, 3), 255, np.uint8)
    image[_inside(box)] = (30, 30, 220)
    return image


def _paint_depth(box: Boxes, size: tuple[int, int], rng: np.random.Generator) -> NDArray[np.uint16]:
    image = rng.integers(3900, 4100, size, dtype=np.uint16)
    image[_inside(box)] = 1500
    return image


def _paint_depth_colours(box: Boxes, size: tuple[int, int], rng: np.random.Generator) -> NDArray[np.uint8]:
    return np.asarray(cv2.applyColorMap(_paint_grey(box, size, rng), cv2.COLORMAP_JET), dtype=np.uint8)


def _paint_parts(box: Boxes, size: tuple[int, int], rng: np.random.Generator) -> Image:
    """ON in the first third, OFF in the others."""
    image = np.full((*size, 3), 127, np.uint8)
    image[_inside(box)] = (0, 255, 255)
    return image


PAINTERS: dict[str, Callable[..., NDArray]] = {
    "rgb": _paint_colour,
    "grey": _paint_grey,
    "event": _paint_events,
    "depth": _paint_depth,
    "depth16": _paint_depth,
    "colour": _paint_depth_colours,
    "thermal": _paint_grey,
    "parts": _paint_parts,
}


# ---- other files


def _write_boxes(path: Path, boxes: Boxes, size: tuple[int, int], item: Item) -> None:
    path.write_text("".join(",".join(f"{value:g}" for value in row) + "\n" for row in boxes))


def _write_flags(path: Path, boxes: Boxes, size: tuple[int, int], item: Item) -> None:
    present = 0 if item.kind == "absent" else 1
    path.write_text("".join(f"{present if w else 1 - present}\n" for w in boxes[:, 2]))


def _write_attributes(path: Path, boxes: Boxes, size: tuple[int, int], item: Item) -> None:
    """The first of the attributes that the text of the item counts."""
    count = int(re.findall(r"\d+", item.text)[0])
    path.write_text(",".join("1" if number == 0 else "0" for number in range(count)))


def _write_tags(path: Path, boxes: Boxes, size: tuple[int, int], item: Item) -> None:
    path.write_text("".join(f"{int(number == 1)}\n" for number in range(len(boxes))))


def _write_channels(path: Path, boxes: Boxes, size: tuple[int, int], item: Item) -> None:
    path.write_text("name=a\r\nchannels.color=color/%08d.jpg\r\nchannels.ir=ir/%08d.jpg\r\nfps=30\r\n")


def write_video(path: Path, boxes: Boxes, size: tuple[int, int], item: Item) -> None:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 25, size[::-1])
    for number, box in enumerate(boxes):
        writer.write(_paint_colour(box, size, np.random.default_rng(number)))
    writer.release()


def write_recording(path: Path, boxes: Boxes, size: tuple[int, int], item: Item | None = None) -> None:
    """An .aedat4 whose events between frame k and the next are ON in the box of k, one per pixel.

    `events.aedat4`, FE108's, has `OFFSET` frames before those of the boxes; all have one more at the end.
    """
    dv = pytest.importorskip("dv_processing")
    config = dv.io.MonoCameraWriter.Config("DAVIS346_miniature")
    config.addEventStream(size[::-1])
    config.addFrameStream(size[::-1])
    writer = dv.io.MonoCameraWriter(str(path), config)
    before = np.zeros((OFFSET if path.name == "events.aedat4" else 0, 4))
    for number, box in enumerate([*before, *boxes, np.zeros(4)]):
        time = 1_000_000 + number * INTERVAL
        frame = dv.Frame(time, _paint_colour(box, size, np.random.default_rng(number)))
        frame.exposure = datetime.timedelta(milliseconds=5)
        writer.writeFrame(frame)
        events = dv.EventStore()
        rows, columns = _inside(box)
        for y in range(rows.start, rows.stop):
            for x in range(columns.start, columns.stop):
                events.push_back(time + 10_000, x, y, True)
        events.push_back(time + 10_001, 0, 0, False)
        writer.writeEvents(events)


WRITERS: dict[str, Callable[..., None]] = {
    "boxes": _write_boxes,
    "flags": _write_flags,
    "absent": _write_flags,
    "attributes": _write_attributes,
    "tags": _write_tags,
    "channels": _write_channels,
    "video": write_video,
    "aux video": write_video,
    "events": write_recording,
}
