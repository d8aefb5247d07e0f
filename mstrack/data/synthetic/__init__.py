"""The embedded benchmark: small videos with colour, event, depth and thermal frames, made from a seed when first asked for.

A target and its distractors move over a textured background before a moving camera. The colour frames of `train`, `val` and
`test` are spoiled (low light, glare, camouflage, blur); each second modality carries what they lack and fails in its own way
(thermal crossover, an event camera that sees nothing at rest, holes in the depth). The splits differ in their statistics
(`looks.py`), so that overfitting shows. `pretrain` has colour frames only, unspoiled: the data of the foundation tracker.
"""

import contextlib
import json
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np

from mstrack.data.annotations import read_boxes, read_flags
from mstrack.data.layout import list_frames
from mstrack.data.sequence import MODALITIES, Sequence
from mstrack.data.synthetic.looks import SIDE, relevant
from mstrack.data.synthetic.recording import name_sequence, record_split
from mstrack.errors import UserError
from mstrack.machine import cache_root
from mstrack.registry import unknown

try:
    import fcntl
except ImportError:  # not on every system; without it two processes may do the same work, and one result is kept
    fcntl = None  # type: ignore[assignment]

VERSION = 1
"""Goes up whenever the same seed gives other files; part of the name of the cache folder."""
SPLITS = {"pretrain": (900, 6), "train": (24, 30), "val": (30, 30), "test": (60, 60)}
"""Sequences, and frames of each, by default."""
TREE = {
    "benchmark.json": "version, seed, and sequences and frames of each finished split; written last",
    "<split>/<sequence>/rgb/%06d.jpg": f"colour, {SIDE} x {SIDE} pixels, from 000000",
    "<split>/<sequence>/thermal/%06d.jpg": "one channel, 8 bits, bright where warm (not in pretrain, nor the next two)",
    "<split>/<sequence>/depth/%06d.png": "one channel, 16 bits, millimetres, 0 where nothing was measured",
    "<split>/<sequence>/event/%06d.png": "changes since the last frame: white, ON red (220,30,30), OFF blue (30,30,200)",
    "<split>/<sequence>/groundtruth.txt": "x,y,w,h of the whole target within the image, 0-based pixels; nan if absent",
    "<split>/<sequence>/absent.txt": "a flag per frame, 1 = present (as in COESOT, opposite to VisEvent)",
    "<split>/<sequence>/attributes.txt": "a name per line",
}
"""Path patterns below the root, and what the files hold."""
DESCRIPTION = "benchmark.json"

Progress = Callable[[int, int], None]


def load(
    root: Path | str | None,
    split: str,
    modality: str | None = None,
    *,
    seed: int | None = None,
    sequences: int | None = None,
    frames: int | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> list[Sequence]:
    """The sequences of one split; it is made first where it does not exist yet.

    Args:
        root: Folder of the benchmark; None: a folder in `MST_CACHE` or the user's cache, named by seed and counts.
        split: `pretrain`, `train`, `val` or `test`.
        modality: `event`, `depth`, `thermal`, or `rgb` for none; None: `thermal`, and `rgb` for `pretrain`.
        seed: None: 0, or what `root` was made with.
        sequences: None: as in `SPLITS`, or what `root` has.
        frames: Of each sequence, likewise.
        workers: Processes that make the files; None: one per core.
        progress: Called with the numbers of finished and of all frames while they are made.

    Raises:
        UserError: Unknown split or modality; `root` holds something else.
    """
    if split not in SPLITS:
        raise UserError(unknown("split of the embedded benchmark", split, SPLITS))
    modality = modality or ("rgb" if split == "pretrain" else "thermal")
    if modality not in ("rgb", *MODALITIES):
        raise UserError(unknown("modality", modality, ("rgb", *MODALITIES)))
    if split == "pretrain" and modality != "rgb":
        raise UserError(f"the split 'pretrain' has no {modality} frames, only colour: ask for modality 'rgb'.")
    folder = None if root is None else Path(root)
    found = _read_description(folder) if folder else None
    if found:
        seed = found["seed"] if seed is None else seed
        present = found["splits"].get(split, {})
        sequences, frames = sequences or present.get("sequences"), frames or present.get("frames")
    counts = (sequences or SPLITS[split][0], frames or SPLITS[split][1])
    folder = folder or cache_folder(seed or 0, {split: counts})
    generate(folder, seed or 0, {split: counts}, workers, progress)
    return [_read(folder / split / name_sequence(split, index), modality) for index in range(counts[0])]


def generate(
    root: Path | str,
    seed: int = 0,
    splits: Mapping[str, tuple[int, int]] | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Path:
    """Make the splits that `root` does not have yet; the files depend on seed and counts alone, not on `workers`.

    A split appears under its name when it is complete, and `benchmark.json` names it after that: what an interrupted call
    left is made again. Any number of processes may call this at once.

    Args:
        root: Folder of the benchmark, made where it does not exist.
        seed: Of everything random.
        splits: Name to (sequences, frames of each); None: train, val and test as in `SPLITS`.
        workers: Processes; None: one per core.
        progress: Called with the numbers of finished and of all frames.

    Returns:
        `root`.

    Raises:
        UserError: `root` holds something else, or another seed, version or size; it cannot be written.
    """
    root = Path(root)
    wanted = dict(splits) if splits is not None else {name: SPLITS[name] for name in ("train", "val", "test")}
    for name, counts in wanted.items():
        if name not in SPLITS:
            raise UserError(unknown("split of the embedded benchmark", name, SPLITS))
        if min(counts) < 1:
            raise UserError(f"split '{name}': {counts[0]} sequences of {counts[1]} frames; both must be at least 1.")
    if not _missing(root, seed, wanted):
        return root
    try:
        root.mkdir(parents=True, exist_ok=True)
        with _lock(root) as alone:
            missing = _missing(root, seed, wanted)
            step = _count_frames(progress, sum(n * length for n, length in missing.values()))
            for name, counts in missing.items():
                if alone:
                    for remains in root.glob(f".{name}-*"):
                        shutil.rmtree(remains, ignore_errors=True)
                _make_split(root, seed, name, counts, workers, step)
    except OSError as error:
        other = " MST_CACHE=FOLDER names another cache." if root.name.startswith("synthetic-v") else ""
        raise UserError(f"the embedded benchmark cannot be written to {root}: {error.strerror or error}.{other}") from error
    return root


def cache_folder(seed: int, splits: Mapping[str, tuple[int, int]]) -> Path:
    """Where a benchmark lies that nobody chose a folder for: `MST_CACHE`, or `mstrack` in the user's cache."""
    unusual = [f"-{name}{n}x{length}" for name, (n, length) in splits.items() if (n, length) != SPLITS[name]]
    return cache_root() / f"synthetic-v{VERSION}-seed{seed}{''.join(unusual)}"


def _make_split(
    root: Path, seed: int, name: str, counts: tuple[int, int], workers: int | None, step: Callable[[int], None]
) -> None:
    """Write a split beside its place, move it there, then name it in the description."""
    partial = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=root))
    try:
        partial.chmod(0o755)
        record_split(partial, seed, name, counts, workers, step)
        if not _missing(root, seed, {name: counts}):
            return
        shutil.rmtree(root / name, ignore_errors=True)
        partial.rename(root / name)
        known = _read_description(root) or {"version": VERSION, "seed": seed, "splits": {}}
        known["splits"][name] = {"sequences": counts[0], "frames": counts[1]}
        draft = root / f".{DESCRIPTION}-{os.getpid()}"
        draft.write_text(json.dumps(known, indent=1) + "\n")
        draft.replace(root / DESCRIPTION)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _count_frames(progress: Progress | None, total: int) -> Callable[[int], None]:
    """A function that adds up finished frames and reports them, from any thread."""
    lock, done = threading.Lock(), 0

    def step(frames: int) -> None:
        nonlocal done
        with lock:
            done += frames
            if progress:
                progress(done, total)

    return step


def _missing(root: Path, seed: int, wanted: Mapping[str, tuple[int, int]]) -> dict[str, tuple[int, int]]:
    """Which of the wanted splits are not there yet; an error where something else is in their place."""
    known = _read_description(root)
    if known is None:
        entries = sorted(path.name for path in root.iterdir()) if root.is_dir() else []
        strange = [name for name in entries if name not in SPLITS and not name.startswith(".")]
        if strange:
            raise UserError(
                f"{root} is not the embedded benchmark (no {DESCRIPTION}) and not empty: it holds {', '.join(strange[:5])}."
                " Give a new folder, or none for the cache."
            )
        return dict(wanted)
    if (known["version"], known["seed"]) != (VERSION, seed):
        raise UserError(
            f"{root} holds the embedded benchmark of version {known['version']} and seed {known['seed']}, asked for were"
            f" version {VERSION} and seed {seed}. Give another folder, or none for the cache."
        )
    missing = {}
    for name, (sequences, frames) in wanted.items():
        found = known["splits"].get(name)
        if found is None:
            missing[name] = (sequences, frames)
        elif (found["sequences"], found["frames"]) != (sequences, frames):
            raise UserError(
                f"{root}: split '{name}' has {found['sequences']} sequences of {found['frames']} frames, asked for were"
                f" {sequences} of {frames}. Give another folder, or none for the cache."
            )
    return missing


def _read_description(root: Path) -> dict | None:
    """The content of `benchmark.json`, None where there is none."""
    path = root / DESCRIPTION
    try:
        found = json.loads(path.read_text())
        {found["version"], found["seed"], *(n["sequences"] * n["frames"] for n in found["splits"].values())}
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is damaged ({error}): delete the folder, it will be made again.") from error
    return found


def _read(folder: Path, modality: str) -> Sequence:
    """One sequence as it lies on disk."""
    boxes = read_boxes(folder / "groundtruth.txt")
    attributes = tuple((folder / "attributes.txt").read_text().split())
    return Sequence(
        name=folder.name,
        rgb=list_frames(folder / "rgb"),
        boxes=boxes,
        valid=read_flags(folder / "absent.txt") & np.isfinite(boxes).all(axis=1),
        aux=None if modality == "rgb" else list_frames(folder / modality),
        modality=modality,
        attributes=relevant(attributes, modality),
    )


@contextlib.contextmanager
def _lock(root: Path) -> Iterator[bool]:
    """Wait until no other process makes files in `root`; whether that is certain (not on every system)."""
    with (root / ".lock").open("w") as handle:
        try:
            if fcntl:
                fcntl.flock(handle, fcntl.LOCK_EX)
            yield fcntl is not None
        finally:
            handle.close()
