"""Where the event frames of a sequence come from: published, converted before, or rendered from its recording."""

from collections.abc import Sequence as List
from pathlib import Path

from mstrack.data.alignment import lacks_frames, match_rows
from mstrack.data.events.cache import EventFrames
from mstrack.data.events.files import SUFFIXES, holds_events
from mstrack.data.events.folders import DESCRIPTION, find_fault, read_description
from mstrack.data.events.recipes import RECIPES, find_recipe
from mstrack.data.images import FrameFile
from mstrack.data.layout import Files, first_folder, list_frames
from mstrack.errors import UserError, some, warn

RECIPE = "interval"
"""How events are painted where nobody says otherwise: the paper's rule. (`exposure`, the rule of the published frames, leaves
five test sequences of COESOT blank.)"""


def check_recipe(events: str | None) -> str | None:
    """The argument `events` of a reader itself.

    Raises:
        UserError: There is no recipe of that name.
    """
    return None if events is None else find_recipe(events).name


def read_events(
    folder: Path, events: str | None, published: List[str], rgb: List[FrameFile], rows: int, first: int = 0
) -> List[FrameFile | None]:
    """The event frames of a sequence.

    Args:
        folder: Of the sequence.
        events: The name of a recipe: its frames, made before by `mst data events`, else rendered from the recording
            (`.aedat4`) when one is first asked for. None: the published frames; where there are none, those of `interval`.
        published: Names of the folder of published frames.
        rgb: Its colour frames.
        rows: How many rows its annotation has: where colour frames are missing, one for each of them, too.
        first: Which of the recording's frames is the first of them, from 0.

    Returns:
        The frames; None, with a warning, for those that are missing among the frames that were made before. Frames that were
        made of a recording as it is no longer are not taken, with a warning.

    Raises:
        UserError: There is nothing of the kind; or only what cannot be rendered without times that were given before.
    """
    found = first_folder(folder, published) if events is None else None
    if found:
        return list_frames(found)
    recipe = events or RECIPE
    places = (match_rows(rgb, rows) if lacks_frames(rgb, rows) else None) or range(len(rgb))
    recording = _find_recording(folder)
    stale = []
    stems = [recording.stem] if recording else [folder.name, *(path.stem for path in _list_tables(folder))]
    for prefix in ("", *(f"{stem}_" for stem in stems)):
        made = folder / f"{prefix}events_{recipe}"
        if not (made / DESCRIPTION).is_file():
            continue
        source = recording or _find_source(made)
        fault = find_fault(source, recipe, made) if source else ""
        if not fault:
            return _take(made, [first + place for place in places])
        stale.append((made, f"{made} is not used: {fault}"))
    for made, text in stale:
        if recording is None or any(((read_description(made) or {}).get("timing") or {}).values()):
            command = f"mst data events {folder} --recipe {recipe}"
            raise UserError(f"sequence '{folder.name}': {text}. Make its frames again: `{command}`, with --times or --fps.")
        warn(folder.name, "events", f"{text}; {recording.name} is rendered instead.")
    if recording is None:
        raise UserError(f"sequence '{folder.name}': {folder} has {_describe_lack(folder, events, published)}")
    frames = EventFrames(recording, recipe, places[-1] + 1, first)
    return frames if len(frames) == len(places) else [frames[place] for place in places]


def _take(made: Path, numbers: List[int]) -> List[FrameFile | None]:
    """The frames of these numbers in a folder of frames."""
    wanted = tuple(f"{number:06d}.png" for number in numbers)
    there = set(list_frames(made).names)
    lacking = [name for name in wanted if name not in there]
    if not lacking:
        return Files(made, wanted)
    named = some(lacking, 5)
    warn(made.parent.name, "pairs", f"{made} lacks the frames of {len(lacking)} of {len(wanted)} colour frames: {named}.")
    return [made / name if name in there else None for name in wanted]


def _describe_lack(folder: Path, events: str | None, published: List[str]) -> str:
    """What a folder without event frames of the kind and without recording should have."""
    tables = [path for path in _list_tables(folder) if holds_events(path)]
    if tables:
        command = f"mst data events {folder} --recipe {events or RECIPE} --times FILE"
        return (
            f"{tables[0].name}, but no frames made of it: it does not say when they are. Make them first: `{command}`, or"
            " --fps N. Only .aedat4 is rendered as it is read."
        )
    if events:
        rest = "Not every sequence has one: leave out the argument events, or choose a split of those that do."
        return f"no recording (.aedat4) and no folder events_{events}. {rest}"
    others = [recipe for recipe in RECIPES if recipe != RECIPE and (folder / f"events_{recipe}" / DESCRIPTION).is_file()]
    rest = f" It has events_{others[0]}, which is taken when asked for by name (events={others[0]})." if others else ""
    return f"no {' or '.join(published)}, nor a recording (.aedat4) to make them from.{rest}"


def _list_tables(folder: Path) -> list[Path]:
    """The .npz and .h5 files of a sequence: recordings, it may be."""
    kinds = [suffix for suffix in SUFFIXES if suffix != ".aedat4"]
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in kinds and not path.name.startswith("."))


def _find_source(made: Path) -> Path | None:
    """What a folder of event frames was made from, where that still lies beside it: another kind of file than .aedat4."""
    name = ((read_description(made) or {}).get("source") or {}).get("name")
    return made.parent / name if isinstance(name, str) and (made.parent / name).is_file() else None


def _find_recording(folder: Path) -> Path | None:
    """The recording of a sequence: `<sequence>.aedat4`, or the only one there."""
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() == ".aedat4" and not path.name.startswith("."))
    named = [path for path in found if path.stem == folder.name]
    if len(found) > 1 and not named:
        listed = ", ".join(path.name for path in found)
        raise UserError(f"sequence '{folder.name}': {folder} has {len(found)} recordings, none named {folder.name}: {listed}.")
    return next(iter(named or found), None)
