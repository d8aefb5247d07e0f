"""Data of your own: folders of images, videos or recordings with boxes; no code needed."""

import shlex
from collections.abc import Sequence as List
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from mstrack.data.annotations import orient_flags, read_boxes, read_flags, read_text
from mstrack.data.events.source import check_recipe, read_events
from mstrack.data.images import FrameFile
from mstrack.data.layout import (
    DEPTH,
    Item,
    Tree,
    assemble,
    describe_tree,
    find_sequences,
    first_file,
    list_frames,
    natural,
    need_file,
    read_each,
)
from mstrack.data.sequence import MODALITIES, Sequence
from mstrack.data.video import SUFFIXES as VIDEOS
from mstrack.data.video import list_video
from mstrack.errors import UserError, warn
from mstrack.registry import unknown
from mstrack.results import write_text
from mstrack.yamltext import parse_yaml

SPLITS = ("train", "val", "test")
DESCRIPTION = "data.yaml"
_BOXES = Item("boxes", "x,y,w,h per line, nan where the target is absent")
_FLAGS = Item("flags", "0 or 1 per line, 1 = present (optional)")
TREES: dict[str, Tree] = {
    "own": {
        "folders": {
            "<split>/<sequence>/rgb/%06d.jpg": Item("rgb", "colour, under any names with a number", 0),
            "<split>/<sequence>/aux/%06d.png": Item("aux", "event frames, depth (16 bits, mm) or thermal, likewise", 0),
            "<split>/<sequence>/groundtruth.txt": _BOXES,
            "<split>/<sequence>/absent.txt": _FLAGS,
        },
        "videos": {
            "<split>/<sequence>/rgb.mp4": Item("video", f"colour ({', '.join(VIDEOS)})"),
            "<split>/<sequence>/aux.mp4": Item("aux video", "event frames, depth in colours or thermal"),
            "<split>/<sequence>/groundtruth.txt": _BOXES,
        },
        "recordings": {
            "<split>/<sequence>/rgb/%06d.png": Item("rgb", "colour, of the camera that recorded the events", 0),
            "<split>/<sequence>/<sequence>.aedat4": Item("events", "the recording, rendered where there is no aux"),
            "<split>/<sequence>/groundtruth.txt": _BOXES,
        },
    }
}
"""Path patterns below the root; without any folder named train, val or test, the root holds the sequences of `test`."""


def own(root: Path, split: str, modality: str | None = None, events: str | None = None) -> list[Sequence]:
    """Sequences of your own; `mst data init DIR` makes the folders and explains them.

    Args:
        root: Folder of `train`, `val` and `test`, or of sequences.
        split: The name of a folder in `root`, or `all`. Where `root` has none of `train`, `val` and `test`, its sequences are
            `test` and `all`, but not `train` or `val`: what is trained on cannot be tested on.
        modality: What `aux` is, where no `data.yaml` says it; `rgb`: `aux` is not read. None: as `data.yaml` says.
        events: How recordings are rendered, see `read_events`.

    Raises:
        UserError: There is no such folder or no sequence in it, `data.yaml` is not as it should be, or says something else;
            nobody says what `aux` is, or a sequence lacks a part.
    """
    check_recipe(events)
    chosen = _choose_modality(root, modality)
    markers = ["rgb", *(f"rgb{suffix}" for suffix in VIDEOS)]
    place = split_folder(root, split)
    found = find_sequences(place, markers, ("groundtruth.txt",))
    if not found:
        raise UserError(f"own: {place} has no sequences. Expected one of these layouts:\n{describe_tree(TREES['own'])}")
    folders = [found[name] for name in sorted(found, key=natural)]
    return read_each(folders, partial(_read, modality=chosen, events=events))


def read_one(folder: Path, modality: str | None = None) -> Sequence:
    """One sequence, whatever lies beside it.

    Args:
        folder: Of the sequence.
        modality: As for `own`.

    Raises:
        UserError: It lacks a part, or has no target.
    """
    chosen = _choose_modality(folder.parent, modality)
    sequence = _read(folder, chosen, None)
    if sequence is None:
        raise UserError(f"sequence '{folder.name}': no frame of {folder} has a target.")
    return sequence


def split_folder(root: Path, split: str) -> Path:
    """Where the sequences of a split lie.

    Raises:
        UserError: There is no such folder.
    """
    if not root.is_dir():
        raise UserError(f"there is no folder {root}. `mst data init {root}` makes one.")
    present = [name for name in SPLITS if (root / name).is_dir()]
    if split == "all" or (split == "test" and not present):
        return root
    if split in SPLITS and split not in present:
        hint = (
            f"Move its sequences to {root}/train, {root}/val and {root}/test: what is trained on cannot be tested on."
            if not present
            else f"It has {', '.join(present)}. Make {root / split}, and move sequences there."
        )
        raise UserError(f"own: {root} has no folder '{split}'. {hint}")
    if Path(split).name != split or not (root / split).is_dir():
        raise UserError(unknown(f"split of {root}", split, ("all", *(present or ("test",)))))
    return root / split


def _read(folder: Path, modality: str | None, events: str | None) -> Sequence | None:
    rgb = _list(folder, "rgb")
    if rgb is None:
        raise UserError(
            f"sequence '{folder.name}': {folder} has no folder rgb, nor a video rgb{VIDEOS[0]}. From a recording (.aedat4),"
            f" `mst data events {folder} --with-frames` makes its frames."
        )
    boxes = read_boxes(need_file(folder, ("groundtruth.txt",)))
    flags = folder / "absent.txt"
    present = orient_flags(read_flags(flags), boxes, folder.name) if flags.is_file() else None
    if modality == "rgb":
        return assemble(folder.name, rgb, boxes, present)
    aux: List[FrameFile | None] | None = _list(folder, "aux")
    if aux is None and modality == "event":
        aux = read_events(folder, events, ("aux",), rgb, len(boxes))
    if modality is None:
        if aux is None:
            return assemble(folder.name, rgb, boxes, present)
        raise UserError(
            f"sequence '{folder.name}': nobody says what {folder / 'aux'} is. Write 'modality: thermal' (or event, depth) to"
            f" {DESCRIPTION} in the folder of the data, or above it; or name it (--modality thermal)."
        )
    if aux is None:
        warn(folder.name, "aux", f"{folder} has no folder aux and no video aux{VIDEOS[0]}: all frames lack their {modality}.")
        aux = [None] * len(rgb)
    return assemble(folder.name, rgb, boxes, present, aux, modality)


def _list(folder: Path, stem: str) -> Any:
    """The frames of a folder or a video, None where there is neither."""
    if (folder / stem).is_dir():
        return list_frames(folder / stem)
    video = first_file(folder, [f"{stem}{suffix}" for suffix in VIDEOS])
    return list_video(video) if video else None


def _choose_modality(root: Path, modality: str | None) -> str | None:
    """The modality that was given, or that of `data.yaml`.

    Raises:
        UserError: `data.yaml` is not as it should be, or says another one.
    """
    described = read_description(root)
    if None not in (modality, described) and modality not in ("rgb", described):
        raise UserError(
            f"{root}: its {DESCRIPTION} says 'modality: {described}', and {modality} was asked for. Leave out --modality,"
            f" or give {described} or rgb (data.modality of a recipe); or correct {DESCRIPTION}."
        )
    return modality or described


def read_description(root: Path) -> str | None:
    """The modality in the nearest `data.yaml`, of a folder or one above it; None where there is no such file.

    Raises:
        UserError: It is not YAML, or says something else.
    """
    place = root.absolute()
    path = next((above / DESCRIPTION for above in (place, *place.parents[: DEPTH + 1]) if (above / DESCRIPTION).exists()), None)
    if path is None:
        return None
    found = parse_yaml(read_text(path, "description"), str(path))
    if not isinstance(found, dict) or set(found) != {"modality"}:
        given = ", ".join(map(str, found)) if isinstance(found, dict) else str(found)
        raise UserError(f"{path} holds '{given}'; expected the one line 'modality: thermal' (or event, depth, rgb).")
    if found["modality"] not in ("rgb", *MODALITIES):
        raise UserError(f"{path}: " + unknown("modality", str(found["modality"]), ("rgb", *MODALITIES)))
    return str(found["modality"])


# ---------------------------------------------------------------- mst data init
def init(folder: Path, modality: str = "thermal") -> list[Path]:
    """Make the folders of a data set of your own, with a text that explains them, and a recipe that trains on it.

    Args:
        folder: Made where it does not exist.
        modality: What `aux` will hold: `event`, `depth` or `thermal`.

    Returns:
        The files and folders that were made; those that were there already are left as they are, with a warning.

    Raises:
        UserError: Unknown modality; the folder cannot be written.
    """
    if modality not in MODALITIES:
        raise UserError(unknown("modality", modality, MODALITIES))
    place = folder.resolve()
    made = []
    for split in SPLITS:
        if not (folder / split).is_dir():
            try:
                (folder / split).mkdir(parents=True)
            except OSError as error:
                raise UserError(f"{folder / split} cannot be made: {error.strerror}.") from error
            made.append(folder / split)
    texts = {
        "README.txt": _README.format(
            place=shlex.quote(str(place)), recipe=shlex.quote(f"{place}/recipe.yaml"), modality=modality, aux=_AUX[modality]
        ),
        DESCRIPTION: f"modality: {modality}\n",
        "recipe.yaml": _recipe(place, modality),
    }
    for name, text in texts.items():
        if (folder / name).exists():
            warn(folder.name, "kept", f"{folder / name} is there already and was left as it is.")
        else:
            write_text(folder / name, text)
            made.append(folder / name)
    return made


_AUX = {
    "event": "pictures of events; or a recording, see below",
    "depth": "depth, 16-bit PNG, millimetres, 0: not measured",
    "thermal": "thermal pictures, 8 or 16 bits",
}

_README = """A data set of your own for mstrack. Second modality: {modality} (data.yaml).

1. Put your sequences here, one folder each, under any name:

    train/walk/rgb/000000.jpg    colour: .jpg, .png, .bmp, .tif or .webp
    train/walk/aux/000000.png    {aux}
    train/walk/groundtruth.txt   the target's box in each frame, a line x,y,w,h
    train/walk/absent.txt        optional: 1 = the target is there, 0 = it is not
    val/...
    test/...

   Frames are sorted by the numbers in their names, and the two modalities are
   paired by these numbers; by position only where there are none, or where
   they do not match. Two videos, rgb.mp4 and aux.mp4, do instead of the two
   folders. x,y is the upper left corner, in pixels from 0; where the target is
   absent, write nan,nan,nan,nan. Test sequences whose first box alone is known
   can be tracked, but not scored.

   Learn from train, choose among networks by val, report test. Recordings of
   one scene belong into one of the three: what is nearly the same in two of
   them makes results look better than they are.

   Recordings of a DAVIS camera (.aedat4) hold colour frames and events: for
   each of them `mst data events FILE.aedat4 --with-frames` makes both. Beside
   rgb/, one does instead of aux/ as it is. Other events (.npz, .h5) become
   frames first: `mst data events FOLDER --times FILE`, or --fps N.

2. Check (counts, pairs, boxes outside of images, damaged files):

    mst data check {place}

3. Train; recipe.yaml here is small enough for a laptop, the recipe `paper`
   is the full-sized network (mst config show paper):

    mst train {recipe}

4. Track and score, once:

    mst eval RUN/model.safetensors --on {place}

   RUN is the folder that step 3 names. To see frames with their boxes:

    mst track RUN/model.safetensors --rgb .../rgb --aux .../aux --box x,y,w,h
"""


def _recipe(place: Path, modality: str) -> str:
    """The shipped recipe of the modality, with this data."""
    shipped = resources.files("mstrack") / "recipes" / f"mst-tiny-{modality}.yaml"
    recipe = yaml.safe_load(shipped.read_text(encoding="utf-8"))
    source = {"name": "own", "root": str(place)}
    for made_for_small_data in ("cache", "independent_flip"):
        recipe["data"].pop(made_for_small_data, None)
    recipe["data"] |= {"train": [{**source, "split": "train"}], "val": [{**source, "split": "val"}]}
    recipe["run"] = {"out": f"runs/{place.name}"}
    head = (
        f"# A small tracker for the data in this folder, from the shipped foundation; the recipe mst-tiny-{modality} otherwise."
    )
    return f"{head}\n# command   mst train {shlex.quote(str(place / 'recipe.yaml'))}\n{yaml.safe_dump(recipe, sort_keys=False)}"
