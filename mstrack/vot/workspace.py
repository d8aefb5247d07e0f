"""A workspace of the VOT toolkit: its configuration, experiments, trackers, and sequences that point to a user's images."""

import configparser
import io
import os
import re
import shlex
import sys
from collections.abc import Sequence as List
from pathlib import Path
from typing import NamedTuple

from mstrack.data import load_sequences
from mstrack.data.images import FrameFile
from mstrack.data.layout import NUMBERED, find_sequences
from mstrack.data.roots import find_root
from mstrack.data.sequence import Sequence
from mstrack.data.splits import read_list, split_names
from mstrack.errors import UserError, some, warn
from mstrack.results import write_text
from mstrack.vot.process import CHANNELS, check_modality

INSTALL = "vot-toolkit==0.7.3 vot-trax==4.0.2 'attributee<0.1.10'"
"""What pip needs to hear: later versions of the toolkit fail on multi-start."""
TIMEOUT = 300
"""Seconds that the toolkit waits for an answer: its own 30 are few for a large network on a cold disk."""
SPACING = 50
"""Frames between the anchors of a multi-start experiment."""

_CONFIG = """\
stack: {on}.yaml
registry:
- ./trackers.ini
sequences: sequences
"""
STACKS = {
    "depthtrack": """\
title: DepthTrack test set, long-term precision, recall and F-score
dataset: null  # nothing is downloaded
experiments:
  rgbd-unsupervised:
    type: unsupervised
    repetitions: 1
    analyses:
    - type: average_tpr
    - type: pr_curve
    - type: f_curve
""",
    "vot-rgbd": """\
title: VOT-RGBD2022, multi-start
dataset: null  # nothing is downloaded
experiments:
  baseline:
    type: multistart
    analyses:
    - type: multistart_eao_score
      name: eaoscore
      low: 115
      high: 755
    - type: multistart_eao_curve
      name: eaocurve
      high: 755
    - type: multistart_average_ar
      name: ar
""",
}
"""The experiments of each benchmark."""


class Workspace(NamedTuple):
    """What was made."""

    tracker: str
    """What the toolkit calls it."""
    channels: tuple[str, ...]
    """What it is sent."""
    sequences: int
    missing: tuple[str, ...]
    """Sequences of the benchmark's list that are not on disk."""
    anchored: int
    """Sequences that had no anchors and got some."""


class _Plan:
    """Files and links to be made, none of which may replace another."""

    def __init__(self) -> None:
        self.texts: dict[Path, str] = {}
        self.links: dict[Path, Path] = {}

    def carry_out(self) -> None:
        """Make them; those that are there already, and the same, are kept.

        Raises:
            UserError: Something else is there (nothing is made then), or the folder cannot be written.
        """
        other = [path for path, text in self.texts.items() if os.path.lexists(path) and not _holds(path, text)]
        other += [
            path for path, to in self.links.items() if os.path.lexists(path) and not (path.exists() and path.samefile(to))
        ]
        if other:
            raise UserError(
                f"there is something else already at {some(map(str, other), 5)}. Name another folder, or"
                " remove it; nothing was written."
            )
        for path, target in self.links.items():
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                if not path.exists():
                    path.symlink_to(target)
            except OSError as error:
                raise UserError(f"link {path} cannot be made: {error.strerror}.") from error
        for path, text in self.texts.items():
            if not path.exists():
                write_text(path, text)


def make_workspace(
    folder: Path,
    on: str,
    checkpoint: str,
    root: Path | None = None,
    data_root: Path | None = None,
    name: str | None = None,
    device: str = "auto",
    missing: str = "zero",
) -> Workspace:
    """Write a workspace, or add a tracker to one.

    Args:
        folder: Where.
        on: A key of `STACKS`: which sequences, and which experiments.
        checkpoint: A checkpoint file, or the name of a shipped weight.
        root: Folder of the dataset; None: it is looked for.
        data_root: Where to look for it.
        name: What the toolkit shall call the tracker; None: the name of the checkpoint.
        device: Where the tracker runs.
        missing: What it is fed for a frame without second modality.

    Raises:
        UserError: No such checkpoint or dataset; a name that the toolkit refuses; something else is in the folder.
    """
    place = folder.absolute()
    if "%" in str(place):
        raise UserError(f"the VOT toolkit cannot work in {place}: it takes the % for the number of a frame.")
    trained = _read_modality(checkpoint)
    root = root or find_root(on, data_root)
    sequences = load_sequences(on, "test", root)
    given = sequences[0].modality
    if trained not in ("rgb", given):
        warn(checkpoint, "modality", f"was trained on {trained}; here it is fed {given}.")
    used = trained if trained == "rgb" else given
    tracker = _check_name(name or re.sub(r"[^a-zA-Z0-9-_]+", "-", _stem(checkpoint)))
    plan = _Plan()
    plan.texts[place / "config.yaml"] = _CONFIG.format(on=on)
    plan.texts[place / f"{on}.yaml"] = STACKS[on]
    plan.texts[place / "sequences" / "list.txt"] = "".join(f"{sequence.name}\n" for sequence in sequences)
    folders = find_sequences(root, ("sequence", "color"), ("groundtruth.txt",)) if on == "vot-rgbd" else {}
    anchored = 0
    for sequence in sequences:
        target = place / "sequences" / sequence.name
        _plan_sequence(plan, target, sequence, folders.get(sequence.name))
        if on == "vot-rgbd" and target / "anchor.value" not in plan.links:
            plan.texts[target / "anchor.value"] = "".join(f"{anchor}\n" for anchor in place_anchors(sequence))
            anchored += 1
    trackers = place / "trackers.ini"
    entry = _describe_tracker(tracker, checkpoint, used, device, missing)
    trackers_text = _add_tracker(trackers, tracker, entry)
    plan.carry_out()
    if trackers_text is not None:
        write_text(trackers, trackers_text)
    there = {sequence.name for sequence in sequences}
    listed = read_list(on, "test").names if "test" in split_names(on) else ()
    lacking = tuple(one for one in listed if one not in there)
    return Workspace(tracker, CHANNELS[used], len(sequences), lacking, anchored)


def place_anchors(sequence: Sequence) -> list[int]:
    """For each frame 1 where a tracker starts forward, -1 backward, else 0.

    One in `SPACING` frames, or the next that has a target; in the direction that leaves it more frames.
    """
    anchors = [0] * len(sequence)
    for start in range(0, len(sequence), SPACING):
        frame = next((i for i in range(start, min(start + SPACING, len(sequence))) if sequence.valid[i]), None)
        if frame is not None:
            anchors[frame] = 1 if 2 * frame < len(sequence) else -1
    return anchors


# ---------------------------------------------------------------- sequences
def _plan_sequence(plan: _Plan, target: Path, sequence: Sequence, source: Path | None) -> None:
    """A sequence of the toolkit's own form is linked as it is; for others its description is written, and the images linked."""
    if source is not None and (source / "sequence").is_file() and not sequence.first:
        plan.links |= {target / entry.name: entry.absolute() for entry in source.iterdir() if not entry.name.startswith(".")}
        return
    lines = ["fps=30", "format=default", f"length={len(sequence)}"]
    streams = zip(CHANNELS[check_modality(sequence.modality)], (sequence.rgb, sequence.aux or ()), strict=False)
    for channel, files in streams:
        lines.append(f"channels.{channel}={channel}/{_link_frames(plan, target / channel, files, sequence.name)}")
    plan.texts[target / "sequence"] = "".join(f"{line}\n" for line in lines)
    if source is not None and not sequence.first:
        others = [source / "groundtruth.txt", *source.glob("*.tag"), *source.glob("*.value")]
        plan.links |= {target / file.name: file.absolute() for file in others}
        return
    boxes = (row.tolist() if ok else [float("nan")] * 4 for row, ok in zip(sequence.boxes, sequence.valid, strict=True))
    plan.texts[target / "groundtruth.txt"] = "".join(",".join(f"{value:.17g}" for value in box) + "\n" for box in boxes)


def _link_frames(plan: _Plan, target: Path, files: List[FrameFile | None], name: str) -> str:
    """Link a channel's frames, and return the pattern of their names: the toolkit counts from 1, without gaps, .jpg or .png.

    Where the images are called so already, their folder is linked; else each of them.
    """
    paths = [file for file in files if isinstance(file, Path)]
    if not paths:
        raise UserError(f"sequence '{name}' has no image files for {target.name}: the VOT toolkit reads nothing else.")
    first = NUMBERED.fullmatch(paths[0].name)
    if first is not None and "%" not in first[1] + first[3] and first[3] in (".jpg", ".png"):
        pattern = f"{first[1]}%0{len(first[2])}d{first[3]}"
        if all(file == paths[0].parent / (pattern % number) for number, file in enumerate(files, start=1)):
            plan.links[target] = paths[0].parent.absolute()
            return pattern
    pattern = f"%08d{'.png' if paths[0].suffix.lower() == '.png' else '.jpg'}"
    for number, file in enumerate(files, start=1):
        if isinstance(file, Path):
            plan.links[target / (pattern % number)] = file.absolute()
    return pattern


# ---------------------------------------------------------------- trackers
def _describe_tracker(name: str, checkpoint: str, modality: str, device: str, missing: str) -> dict[str, str]:
    file = Path(checkpoint)
    where = str(file.absolute()) if file.is_file() else checkpoint
    command = [sys.executable, "-m", "mstrack", "vot", "run", where, "--modality", modality]
    command += ["--device", device, "--missing", missing]
    return {"label": name, "protocol": "trax", "command": shlex.join(command), "timeout": str(TIMEOUT)}


def _add_tracker(path: Path, name: str, entry: dict[str, str]) -> str | None:
    """The text of `trackers.ini` with one more tracker; None where it has the same already."""
    written = configparser.ConfigParser()
    old = ""
    if path.is_file():
        old = path.read_text(encoding="utf-8")
        try:
            written.read_string(old)
        except configparser.Error as error:
            raise UserError(f"{path} cannot be read: {error}") from error
    if written.has_section(name):
        try:
            same = dict(written[name]) == entry
        except configparser.Error:
            same = False
        if same:
            return None
        raise UserError(f"{path} has another tracker '{name}' already. Choose a name with --name, or remove it there.")
    added = configparser.ConfigParser()
    added[name] = {key: value.replace("%", "%%") for key, value in entry.items()}
    text = io.StringIO()
    added.write(text)
    return (old.rstrip("\n") + "\n\n" if old.strip() else "") + text.getvalue()


def _check_name(name: str) -> str:
    if not re.fullmatch(r"[a-zA-Z0-9-_]+", name):
        raise UserError(f"the VOT toolkit takes no tracker called '{name}': letters without accents, digits, - and _ (--name).")
    return name


def _stem(checkpoint: str) -> str:
    """The name of a checkpoint; that of its run where the file is called `model` as all are."""
    file = Path(checkpoint)
    stem = re.sub(r"(\.pth)?\.(tar|pth|safetensors)$", "", file.name)
    return file.absolute().parent.name if stem == "model" and file.is_file() else stem


def _read_modality(checkpoint: str) -> str:
    """The modality that a checkpoint was trained with, `rgb` for a network of one; loading it shows that it can be used."""
    from mstrack.checkpoint import load
    from mstrack.provenance import trained_modality

    model = load(checkpoint)
    return trained_modality(model) if model.modalities > 1 else "rgb"


def _holds(path: Path, text: str) -> bool:
    return path.is_file() and path.read_text(encoding="utf-8", errors="replace") == text
