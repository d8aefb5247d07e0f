"""Where the event frames of a sequence come from: published, converted before, or rendered from its recording."""

from collections.abc import Sequence as List
from pathlib import Path

from mstrack.data.events.cache import EventFrames
from mstrack.data.events.folders import DESCRIPTION
from mstrack.data.events.recipes import RECIPES, find_recipe
from mstrack.data.images import FrameFile
from mstrack.data.layout import first_folder, list_frames
from mstrack.errors import UserError, warn

RECIPE = "interval"
"""How events are painted where nobody says otherwise: the paper's rule. (`exposure`, the rule of the published frames, leaves
five test sequences of COESOT blank.)"""


def check_recipe(events: str | None) -> str | None:
    """The argument `events` of a reader itself.

    Raises:
        UserError: There is no recipe of that name.
    """
    return None if events is None else find_recipe(events).name


def read_events(folder: Path, events: str | None, published: List[str], count: int, first: int = 0) -> List[FrameFile | None]:
    """The event frames of a sequence.

    Args:
        folder: Of the sequence.
        events: None: the published frames; where there are none, frames that `mst data events` made; else those of the
            recipe `interval`, rendered from the recording (`.aedat4`) when one is first asked for. The name of a recipe:
            frames of that recipe, made before or rendered.
        published: Names of the folder of published frames.
        count: How many colour frames the sequence has.
        first: Which of the recording's frames is the first of them, from 0.

    Returns:
        The frames; None, with a warning, for colour frames behind the last frame that was converted.

    Raises:
        UserError: There is nothing of the kind.
    """
    found = first_folder(folder, published) if events is None else None
    if found:
        return list_frames(found)
    recording = _find_recording(folder)
    recipes = [events] if events else [RECIPE, *(name for name in RECIPES if name != RECIPE)]
    for stem in ("", f"{recording.stem}_") if recording else ("",):
        for recipe in recipes:
            made = folder / f"{stem}events_{recipe}"
            if (made / DESCRIPTION).is_file():
                return _fill(list_frames(made)[first : first + count], count, made)
    if recording is None:
        wanted = "a recording (.aedat4)" if events else f"{' or '.join(published)}, nor a recording (.aedat4) to make them from"
        raise UserError(
            f"sequence '{folder.name}': {folder} has no {wanted}."
            + (" Not every sequence has one: leave out the argument events, or choose a split of those that do." * bool(events))
        )
    return EventFrames(recording, events or RECIPE, count, first)


def _fill(frames: List[FrameFile | None], count: int, folder: Path) -> List[FrameFile | None]:
    lacking = count - len(frames)
    if lacking:
        text = f"{folder} has {len(frames)} frames for {count} colour frames: the last {lacking} lack theirs."
        warn(folder.parent.name, "pairs", text)
    return [*frames, *[None] * lacking] if lacking else frames


def _find_recording(folder: Path) -> Path | None:
    """The recording of a sequence: `<sequence>.aedat4`, or the only one there."""
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() == ".aedat4" and not path.name.startswith("."))
    named = [path for path in found if path.stem == folder.name]
    if len(found) > 1 and not named:
        listed = ", ".join(path.name for path in found)
        raise UserError(f"sequence '{folder.name}': {folder} has {len(found)} recordings, none named {folder.name}: {listed}.")
    return next(iter(named or found), None)
