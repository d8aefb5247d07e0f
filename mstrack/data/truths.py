"""Annotations without frames: what results are scored against, from bare files, archives of them, or a data set's folder."""

import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from collections.abc import Sequence as List
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from mstrack.data import load_sequences
from mstrack.data.annotations import orient_flags, read_attributes, read_boxes, read_flags, usable
from mstrack.data.headers import image_size
from mstrack.data.layout import natural
from mstrack.data.rgbe import ATTRIBUTE_FOLDERS, ATTRIBUTES
from mstrack.data.rgbt import LASHER_ATTRIBUTES, RGBT234_ATTRIBUTES
from mstrack.data.roots import find_root, is_own
from mstrack.data.sequence import Sequence
from mstrack.data.splits import check_split, read_list, split_names, warn_missing
from mstrack.errors import DataWarning, UserError, warn
from mstrack.filetree import File, Files, is_archive, list_files
from mstrack.registry import DATASETS, unknown

IMAGES = frozenset(
    {"visible", "infrared", "vis_imgs", "event_imgs", "img", "evimg", "inter3_stack", "color", "depth", "depth_color", "ir"}
)
"""Folders of images, which are not searched."""


@dataclass(frozen=True)
class Truth:
    """The annotation of one sequence of N frames, as it is in its files.

    Attributes:
        name: Of the sequence.
        boxes: (N, 4) x, y, w, h in pixels with the file's zeros, negative values and NaN.
        present: (N,) the annotation's own flags, True where the target is present; None where it has none.
        aux_boxes: (K, 4) boxes in the second modality, where both are annotated (RGBT234); None where not.
        attributes: Challenges.
        size: Width and height of its images in pixels, where they are known and the data set's scores depend on them.
        rows: How many rows its file has, where these are others: of the frames that are there.
    """

    name: str
    boxes: NDArray[np.float64]
    present: NDArray[np.bool_] | None = None
    aux_boxes: NDArray[np.float64] | None = None
    attributes: tuple[str, ...] = ()
    size: tuple[int, int] | None = None
    rows: int | None = None

    @property
    def valid(self) -> NDArray[np.bool_]:
        """(N,) whether the target is present and its box usable."""
        sized = usable(self.boxes)
        return sized if self.present is None else sized & self.present


class Layout(NamedTuple):
    """One way in which annotations lie; the first pattern says where the others are: there, or in a folder above."""

    boxes: str
    flags: tuple[tuple[str, int], ...] = ()
    """Patterns, and the flag of a frame with the target."""
    second: str = ""
    """Pattern of the boxes in the second modality."""
    images: str = ""
    """Folder of images beside the boxes whose size is wanted: the long-term scores cut boxes to it."""


_INSIDE = "<sequence>/groundtruth.txt"
_PRESENT = (("<sequence>/absent_label.txt", 1), ("<sequence>/absent.txt", 1))
_APART = (("absent/<sequence>.txt", 0),)
_RGBT = tuple(Layout(f"<sequence>/{file}.txt", second="<sequence>/infrared.txt") for file in ("init", "groundtruth", "visible"))
LAYOUTS: dict[str, tuple[Layout, ...]] = {
    "coesot": (Layout(_INSIDE, _PRESENT),),
    "depthtrack": (Layout(_INSIDE, images="color"),),
    "fe108": (Layout("<sequence>/groundtruth_rect.txt"), Layout(_INSIDE)),
    "lasher": (Layout("gt/<sequence>.txt"), *_RGBT),
    "rgbt234": _RGBT[::-1],
    "visevent": (Layout("gt_rect/<sequence>.txt", _APART), Layout(_INSIDE, (*_PRESENT, *_APART))),
    "vot-rgbd": (Layout(_INSIDE, images="color"),),
}
"""Patterns of the files' last two parts; anything may be before them."""
ANY = (Layout(_INSIDE, _PRESENT), *(Layout(f"{folder}/<sequence>.txt") for folder in ("gt", "anno", "annotations")))
"""The patterns of other data sets."""
_SEQUENCE_FLAGS = {
    "coesot": (ATTRIBUTES, ATTRIBUTE_FOLDERS),
    "lasher": (LASHER_ATTRIBUTES, ("attr", "att", "attributes", "AttriSeqsTxt")),
    "visevent": (ATTRIBUTES, ATTRIBUTE_FOLDERS),
}
"""Names of attributes, and the folders with a file of flags for each sequence."""


def load_truths(
    dataset: str,
    split: str = "test",
    annotations: Path | None = None,
    root: Path | None = None,
    data_root: Path | None = None,
    size: tuple[int, int] | None = None,
    scorable: bool = True,
) -> list[Truth]:
    """The annotations of a split, every row of them: leading frames without the target are not cut off.

    Args:
        dataset: A name of the catalogue, `module:function`, or a folder of your own data.
        split: One of its splits; `all` is every sequence that is found.
        annotations: A folder with the annotation files or archives of them anywhere in it, or one archive.
        root: The data set's own folder, where `annotations` is None; None: it is looked for, see `roots.py`.
        data_root: Where to look for it.
        size: Width and height in pixels of the images that are not there.
        scorable: Whether sequences with a first box alone are left out, see `public`.

    Raises:
        UserError: Unknown names; none of the sequences is there; or a file is malformed, or has another number of rows than
            the one beside it.
    """
    truths = _load(dataset, split, annotations, root, data_root)
    truths = public(dataset, truths) if scorable else truths
    return [replace(truth, size=truth.size or size) for truth in truths]


def _load(
    dataset: str, split: str, annotations: Path | None, root: Path | None, data_root: Path | None, strict: bool = True
) -> list[Truth]:
    """As `load_truths`, with the sequences that cannot be scored; without `strict`, flags that are missing count as present."""
    check_split(dataset, split)
    own = is_own(dataset)
    if dataset not in DATASETS and ":" not in dataset and not own:
        raise UserError(unknown("dataset", dataset, DATASETS) + " A folder of your own data works too.")
    if annotations is None and (own or dataset not in LAYOUTS):
        return [truth_of(s) for s in load_sequences(dataset, split, root, data_root=data_root)]
    place = annotations or root or find_root(dataset, data_root)
    trees = _open_trees(place)
    names = None if split == "all" else _listed_names(dataset, split, place)
    found = _locate(trees, LAYOUTS.get(dataset, ANY), names)
    if not found:
        expected = "\n".join(f"  .../{layout.boxes}" for layout in LAYOUTS.get(dataset, ANY))
        raise UserError(f"{place} has no annotation of {dataset}, split '{split}'. Expected files or archives with\n{expected}")
    missing = [name for name in names or () if name not in found]
    warn_missing(f"{dataset}/{split}", missing, len(names or ()), place)
    attributes = _attribute_reader(dataset)
    return [_read(name, *found[name], attributes, strict) for name in names or sorted(found, key=natural) if name in found]


def truths_of(sequences: List[Sequence], dataset: str, split: str, root: Path | None, data_root: Path | None) -> list[Truth]:
    """The annotations of sequences with frames: as they lie on disk, for data sets with a toolkit. See `public`.

    Where frames are missing, or surplus, or flags are, it is what the reader of the frames has made of them.
    """
    if dataset not in LAYOUTS:
        return [truth_of(sequence) for sequence in sequences]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)  # the readers of the frames have said it
        annotated = {truth.name: truth for truth in _load(dataset, split, None, root, data_root, strict=False)}
    return [_fit(annotated.get(sequence.name), truth_of(sequence)) for sequence in sequences]


def _fit(annotated: Truth | None, read: Truth) -> Truth:
    """The annotation as it is in its files; as it was read where that has another number of rows."""
    if annotated is None or len(annotated.boxes) == len(read.boxes):
        return annotated or read
    return replace(read, size=annotated.size, rows=len(annotated.boxes))


def _listed_names(dataset: str, split: str, place: Path) -> tuple[str, ...] | None:
    """The names of a split in the order of its list; None where the data set has no lists."""
    if split in split_names(dataset) or len(split_names(dataset)) > 1:
        return read_list(dataset, split).names
    listed = next((file for file in (place / "list.txt", place / "sequences/list.txt") if file.is_file()), None)
    names = listed.read_text(encoding="utf-8-sig").splitlines() if listed else ()
    return tuple(name.strip() for name in names if name.strip()) or None


def public(dataset: str, truths: list[Truth]) -> list[Truth]:
    """The sequences that can be scored: those that have more than the box that a tracker is given.

    Raises:
        UserError: There are none.
    """
    secret = [truth.name for truth in truths if not truth.valid[1:].any() and np.isnan(truth.boxes[1:]).all()]
    if secret and len(secret) == len(truths):
        raise UserError(
            f"{dataset}: the annotation of its sequences ends after the first box, so that nothing can be scored: it is not"
            " public, or these are not the right files. `mst export-results` writes what an evaluation server takes."
        )
    if secret:
        listed = ", ".join(secret[:5]) + (", ..." if len(secret) > 5 else "")
        warn(dataset, "start", f"{len(secret)} sequence(s) have a first box alone and are left out: {listed}")
    return [truth for truth in truths if truth.name not in set(secret)]


def truth_of(sequence: Sequence) -> Truth:
    """The annotation of a sequence that was read with its frames; rows that were cut off are NaN and not present."""
    boxes, present = sequence.boxes, sequence.valid
    if sequence.first:
        boxes = np.concatenate([np.full((sequence.first, 4), np.nan), boxes])
        present = np.concatenate([np.zeros(sequence.first, bool), present])
    flagged = not np.array_equal(present, usable(boxes))
    return Truth(sequence.name, boxes, present if flagged else None, sequence.aux_boxes, sequence.attributes)


# ---------------------------------------------------------------- finding files


class _Spot(NamedTuple):
    """Where the boxes of a sequence are: the folder that their pattern starts from, in which tree, by which layout."""

    tree: Files
    base: str
    layout: Layout

    def find(self, pattern: str, name: str) -> File | None:
        """The file of a pattern there, or in a folder above."""
        folder = self.base
        while True:
            found = self.tree.get(f"{folder}{pattern.replace('<sequence>', name)}")
            if found or not folder:
                return found
            folder = folder.rstrip("/").rpartition("/")[0]
            folder += "/" if folder else ""

    def tags(self, name: str) -> list[File]:
        """The VOT toolkit's files of attributes beside the boxes."""
        head = f"{self.base}{name}/"
        return [self.tree[path] for path in self.tree if path.startswith(head) and path.endswith(".tag")]


def _open_trees(place: Path) -> list[Files]:
    """The files of a folder, and of every archive in it, each named from the folder's or archive's own name."""
    suffixes = (".txt", ".tag", ".zip")
    files = list_files(place, IMAGES, suffixes)
    head = place.stem if place.is_file() else place.resolve().name
    trees = [{f"{head}/{name}": file for name, file in files.items() if not is_archive(Path(name))}]
    for name in (name for name in files if not place.is_file() and is_archive(Path(name))):
        try:
            inner = list_files(place / name, IMAGES, suffixes)
        except UserError as error:
            warn(name, "archive", f"it is not searched: {error}")
            continue
        trees.append({f"{Path(name).stem}/{member}": file for member, file in inner.items()})
    return trees


def _locate(trees: list[Files], layouts: Iterable[Layout], names: Iterable[str] | None) -> dict[str, tuple[str, _Spot]]:
    """Sequence -> (path of its boxes, the spot): by the first layout that has it, where most sequences of it are."""
    wanted = None if names is None else set(names)
    found: dict[str, tuple[str, _Spot]] = {}
    for layout in layouts:
        spots: dict[str, list[tuple[tuple[int, str], str]]] = {}
        counts = Counter[tuple[int, str]]()
        for number, tree in enumerate(trees):
            for path, name in _matches(tree, layout.boxes):
                if wanted is None or name in wanted:
                    key = (number, path.removesuffix(layout.boxes.replace("<sequence>", name)))
                    spots.setdefault(name, []).append((key, path))
                    counts[key] += 1
        for name, candidates in spots.items():
            (number, base), path = max(candidates, key=lambda candidate: counts[candidate[0]])
            found.setdefault(name, (path, _Spot(trees[number], base, layout)))
    return found


def _matches(tree: Files, pattern: str) -> Iterator[tuple[str, str]]:
    """(path, sequence) of the files that end as the pattern says."""
    folder, file = pattern.split("/")
    for path in tree:
        *_, last, name = ("", *path.split("/"))
        if folder == "<sequence>" and name == file:
            yield path, last
        elif folder == last and name.endswith(".txt"):
            yield path, name.removesuffix(".txt")


# ---------------------------------------------------------------- reading them

Attributes = Callable[[str, _Spot], tuple[str, ...]]


def _read(name: str, path: str, spot: _Spot, attributes: Attributes, strict: bool) -> Truth:
    boxes = read_boxes(_as_path(spot.tree[path]))
    flags = next(((file, present) for pattern, present in spot.layout.flags if (file := spot.find(pattern, name))), None)
    present = None
    if flags:
        present = read_flags(_as_path(flags[0]), flags[1])
        if strict and len(present) != len(boxes):
            raise UserError(f"{flags[0]}: {len(present)} flags for the {len(boxes)} boxes of {spot.tree[path]}.")
        present = np.concatenate([present, np.ones(max(0, len(boxes) - len(present)), bool)])[: len(boxes)]
        present = orient_flags(present, boxes, name)
    second = spot.find(spot.layout.second, name) if spot.layout.second else None
    aux_boxes = read_boxes(_as_path(second)) if second else None
    if aux_boxes is not None and len(aux_boxes) != len(boxes):
        warn(name, "length", f"{len(boxes)} boxes in the first and {len(aux_boxes)} in the second modality.")
    return Truth(name, boxes, present, aux_boxes, attributes(name, spot), _size_beside(spot.tree[path], spot.layout))


def _size_beside(boxes: File, layout: Layout) -> tuple[int, int] | None:
    """Width and height of the first image in the layout's folder beside the boxes; None where there is none that says it."""
    folder = Path(boxes.where).parent / layout.images
    if not layout.images or not folder.is_dir():
        return None
    image = min((file for file in folder.iterdir() if file.suffix.lower() in (".jpg", ".jpeg", ".png", ".bmp")), default=None)
    try:
        return None if image is None else image_size(image)
    except UserError as error:
        warn(folder.parent.name, "size", f"the size of its images is not known: {error}")
        return None


def _attribute_reader(dataset: str) -> Attributes:
    if dataset == "rgbt234":
        return _ListedAttributes()
    if dataset in ("depthtrack", "vot-rgbd"):
        return lambda name, spot: tuple(Path(f.name).stem for f in spot.tags(name) if read_flags(_as_path(f)).any())
    if dataset in _SEQUENCE_FLAGS:
        return partial(_read_flagged, labels=_SEQUENCE_FLAGS[dataset][0], folders=_SEQUENCE_FLAGS[dataset][1])
    return lambda name, spot: ()


def _read_flagged(name: str, spot: _Spot, labels: tuple[str, ...], folders: tuple[str, ...]) -> tuple[str, ...]:
    file = next((found for folder in folders if (found := spot.find(f"{folder}/<sequence>.txt", name))), None)
    return read_attributes(_as_path(file), labels) if file else ()


class _ListedAttributes:
    """RGBT234's: a file for each attribute, with a flag for each sequence of the list."""

    def __init__(self) -> None:
        self._flags: dict[str, NDArray[np.bool_]] | None = None

    def __call__(self, name: str, spot: _Spot) -> tuple[str, ...]:
        names = read_list("rgbt234", "test").names
        if self._flags is None:
            files = [(label, spot.find(f"attr_txt/{label}.txt", name)) for label in RGBT234_ATTRIBUTES]
            self._flags = {label: read_flags(_as_path(file)) for label, file in files if file}
            for label, flags in self._flags.items():
                if len(flags) != len(names):
                    raise UserError(f"attr_txt/{label}.txt: {len(flags)} flags for {len(names)} sequences.")
        if name not in names:
            return ()
        index = names.index(name)
        return tuple(label for label, flags in self._flags.items() if flags[index])


def _as_path(file: File) -> Any:
    """A file for the readers of annotations, which take a `Path` and use what it has in common with it."""
    return cast(Any, file)
